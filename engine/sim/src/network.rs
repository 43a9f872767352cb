//! The network between processes: late, lossy, and the same for the same seed.
//!
//! A multicast may be lost at one receiver and arrive at the next. So the network decides the fate of every datagram at
//! each receiver separately, whatever the datagram contains. Without faults, datagrams from one process to another keep
//! their order; overtaking is a fault like any other, so that runs without it stay without it.
//!
//! Invariant: nothing arrives that was not sent, except copies and single flipped bits.

mod stall;

use crate::plan::{FaultPlan, Plan};
use fastrand::Rng;
use serde::Serialize;
use std::rc::Rc;

/// What went wrong, counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[allow(missing_docs)] // the names explain it
pub struct Faults {
    pub drop: u64,
    pub duplicate: u64,
    pub reorder: u64,
    pub delay: u64,
    pub corrupt: u64,
    /// Lost because the receiver's socket was full.
    pub overflow: u64,
    pub pause: u64,
    pub cut: u64,
    /// Paths on which long datagrams vanished for a while.
    pub narrow: u64,
    /// Addresses that changed.
    pub moves: u64,
    pub partition: u64,
    pub crash: u64,
    pub restart: u64,
    /// Restarts with what a disk had.
    pub restored: u64,
    /// Applications that began with a state that a disk had.
    pub states: u64,
    /// Disks of which something was damaged.
    pub damage: u64,
    /// Restarts with nothing, because what was needed was damaged.
    pub set_aside: u64,
    pub leave: u64,
    pub hand_over: u64,
    pub evidence: u64,
    /// Judgements of the detectors of another group.
    pub judgement: u64,
    pub clock_jump: u64,
    /// Clocks that ran too fast or too slow.
    pub drift: u64,
    /// The sender's socket took only part of what it was offered.
    pub refuse: u64,
    /// Segments that arrived late because one before them was lost.
    pub stall: u64,
    /// Restarts of the whole group.
    pub restart_all: u64,
    /// Groups made again by hand.
    pub recovery: u64,
    /// Steps of processes of an earlier instance of the group.
    pub zombie: u64,
    /// Recorded datagrams that arrived again.
    pub replay: u64,
}

impl Faults {
    /// Adds another run's.
    pub fn add(&mut self, other: &Self) {
        let pairs = [
            (&mut self.drop, other.drop),
            (&mut self.duplicate, other.duplicate),
            (&mut self.reorder, other.reorder),
            (&mut self.delay, other.delay),
            (&mut self.corrupt, other.corrupt),
            (&mut self.overflow, other.overflow),
            (&mut self.narrow, other.narrow),
            (&mut self.moves, other.moves),
            (&mut self.pause, other.pause),
            (&mut self.cut, other.cut),
            (&mut self.partition, other.partition),
            (&mut self.crash, other.crash),
            (&mut self.restart, other.restart),
            (&mut self.restored, other.restored),
            (&mut self.states, other.states),
            (&mut self.damage, other.damage),
            (&mut self.set_aside, other.set_aside),
            (&mut self.leave, other.leave),
            (&mut self.hand_over, other.hand_over),
            (&mut self.evidence, other.evidence),
            (&mut self.judgement, other.judgement),
            (&mut self.clock_jump, other.clock_jump),
            (&mut self.drift, other.drift),
            (&mut self.refuse, other.refuse),
            (&mut self.stall, other.stall),
            (&mut self.restart_all, other.restart_all),
            (&mut self.recovery, other.recovery),
            (&mut self.zombie, other.zombie),
            (&mut self.replay, other.replay),
        ];
        pairs.into_iter().for_each(|(sum, count)| *sum += count);
    }
}

/// A link that bears less than is offered drops what would wait longer.
const QUEUE_NS: u64 = 5_000_000;

/// A datagram under way to one receiver.
#[derive(Clone, Debug)]
pub(crate) struct Arrival {
    pub(crate) at_ns: u64,
    pub(crate) to: usize,
    pub(crate) packet: Packet,
}

/// A datagram under way.
#[derive(Clone, Debug)]
pub(crate) struct Packet {
    pub(crate) bytes: Rc<[u8]>,
    /// It was sent to all, not to one process.
    pub(crate) to_all: bool,
}

#[derive(Debug)]
pub(crate) struct Network {
    latency_ns: u64,
    /// The latency to a process that comes earlier in the list.
    latency_back_ns: u64,
    jitter_ns: u64,
    plan: FaultPlan,
    pub(crate) faults: Faults,
    /// By receiver: datagrams that did not arrive as they should have.
    pub(crate) trouble: Vec<u64>,
    /// By sender, then receiver: when the last datagram arrives, and until when none does.
    last_ns: Vec<Vec<u64>>,
    cut_until_ns: Vec<Vec<u64>>,
    /// By process: the longest datagram that passes from it or to it, and until when.
    narrow: Vec<(usize, u64)>,
    /// By sender, then receiver: the same in this direction alone.
    narrow_to: Vec<Vec<(usize, u64)>>,
    /// By receiver: when a datagram was first too long for such a path to it.
    pub(crate) too_long_ns: Vec<Option<u64>>,
    /// The observers, and by receiver when its link is free again.
    observers: std::ops::Range<usize>,
    free_ns: Vec<u64>,
    stalls: Option<stall::Stalls>,
}

impl Network {
    pub(crate) fn new(plan: &Plan, ends: usize, seed: u64) -> Self {
        Self {
            latency_ns: plan.latency_ns,
            latency_back_ns: if plan.latency_back_ns == 0 { plan.latency_ns } else { plan.latency_back_ns },
            jitter_ns: plan.jitter_ns,
            plan: plan.faults.clone(),
            faults: Faults::default(),
            trouble: vec![0; ends],
            last_ns: vec![vec![0; ends]; ends],
            cut_until_ns: vec![vec![0; ends]; ends],
            narrow: vec![(0, 0); ends],
            narrow_to: vec![vec![(0, 0); ends]; ends],
            too_long_ns: vec![None; ends],
            observers: usize::from(plan.members)..plan.processes(),
            free_ns: vec![0; ends],
            stalls: plan.stalls.as_ref().map(|stalls| stall::Stalls::new(stalls, ends, seed)),
        }
    }

    /// From now on nothing goes wrong.
    pub(crate) fn freeze(&mut self) {
        self.plan = FaultPlan::none(0);
        self.cut_until_ns.iter_mut().flatten().for_each(|until| *until = 0);
        let narrow = self.narrow.iter_mut().chain(self.narrow_to.iter_mut().flatten());
        narrow.for_each(|(_, until)| *until = 0);
        self.stalls.iter_mut().for_each(stall::Stalls::freeze);
    }

    /// Nothing passes in this direction until then.
    pub(crate) fn cut(&mut self, from: usize, to: usize, until_ns: u64) {
        let until = &mut self.cut_until_ns[from][to];
        *until = until_ns.max(*until);
    }

    /// Nothing longer passes from or to a process until then.
    pub(crate) fn narrow(&mut self, process: usize, longest_bytes: usize, until_ns: u64) {
        self.narrow[process] = (longest_bytes, until_ns);
    }

    /// Nothing longer passes in this direction until then.
    pub(crate) fn narrow_to(&mut self, from: usize, to: usize, longest_bytes: usize, until_ns: u64) {
        self.narrow_to[from][to] = (longest_bytes, until_ns);
    }

    fn is_too_long(&mut self, now_ns: u64, [from, to]: [usize; 2], bytes: usize) -> bool {
        let narrows = |(longest_bytes, until_ns): (usize, u64)| now_ns < until_ns && bytes > longest_bytes;
        let is_one_way = narrows(self.narrow_to[from][to]);
        if is_one_way {
            self.too_long_ns[to].get_or_insert(now_ns);
        }
        is_one_way || narrows(self.narrow[from]) || narrows(self.narrow[to])
    }

    /// Sends one datagram to one receiver.
    pub(crate) fn send(
        &mut self,
        now_ns: u64,
        (from, to): (usize, usize),
        packet: &Packet,
        rng: &mut Rng,
        arrivals: &mut Vec<Arrival>,
    ) {
        if self.stalls.is_some() {
            return self.send_in_order(now_ns, (from, to), packet, rng, arrivals);
        }
        let wait_ns = self.wait_ns(now_ns, to, packet.bytes.len());
        let is_lost = wait_ns.is_none() || hits(rng, self.plan.drop_permille) || now_ns < self.cut_until_ns[from][to];
        if is_lost || self.is_too_long(now_ns, [from, to], packet.bytes.len()) {
            self.faults.drop += 1;
            self.trouble[to] += 1;
            return;
        }
        let copies = 1 + usize::from(hits(rng, self.plan.duplicate_permille));
        self.faults.duplicate += copies as u64 - 1;
        for _ in 0..copies {
            let at_ns = self.arrival_ns(now_ns + wait_ns.unwrap_or(0), from, to, rng);
            arrivals.push(Arrival { at_ns, to, packet: self.perhaps_corrupt(to, packet, rng) });
        }
    }

    /// How long a datagram waits before its receiver's link; `None` if it is dropped there.
    fn wait_ns(&mut self, now_ns: u64, to: usize, bytes: usize) -> Option<u64> {
        let bears_bytes_per_s = self.plan.observers_bear_bytes_per_s;
        if bears_bytes_per_s == 0 || !self.observers.contains(&to) {
            return Some(0);
        }
        let wait_ns = self.free_ns[to].saturating_sub(now_ns);
        if wait_ns > QUEUE_NS {
            return None;
        }
        self.free_ns[to] = now_ns + wait_ns + bytes as u64 * 1_000_000_000 / bears_bytes_per_s;
        Some(wait_ns)
    }

    /// Sends over a link that loses nothing and keeps the order, whatever happens to it: a cut delays everything.
    fn send_in_order(
        &mut self,
        now_ns: u64,
        (from, to): (usize, usize),
        packet: &Packet,
        rng: &mut Rng,
        arrivals: &mut Vec<Arrival>,
    ) {
        let Some(stalls) = &mut self.stalls else { return };
        let latency_ns = if to < from { self.latency_back_ns } else { self.latency_ns };
        let sent_ns = now_ns.max(self.cut_until_ns[from][to]);
        let (at_ns, is_late) = stalls.arrival_ns((from, to), sent_ns + latency_ns + rng.u64(0..=self.jitter_ns));
        if is_late || sent_ns > now_ns {
            self.faults.stall += 1;
            self.trouble[to] += 1;
        }
        let last_ns = &mut self.last_ns[from][to];
        *last_ns = at_ns.max(*last_ns + 1);
        arrivals.push(Arrival { at_ns: *last_ns, to, packet: packet.clone() });
    }

    fn arrival_ns(&mut self, now_ns: u64, from: usize, to: usize, rng: &mut Rng) -> u64 {
        let latency_ns = if to < from { self.latency_back_ns } else { self.latency_ns };
        let at_ns = now_ns + latency_ns + rng.u64(0..=self.jitter_ns);
        if hits(rng, self.plan.delay_permille) {
            self.faults.delay += 1;
            self.trouble[to] += 1;
            return at_ns + rng.u64(0..=self.plan.delay_max_ns);
        }
        if hits(rng, self.plan.reorder_permille) {
            self.faults.reorder += 1;
            self.trouble[to] += 1;
            return at_ns + rng.u64(0..=4 * latency_ns);
        }
        let last_ns = &mut self.last_ns[from][to];
        *last_ns = at_ns.max(*last_ns + 1);
        *last_ns
    }

    fn perhaps_corrupt(&mut self, to: usize, packet: &Packet, rng: &mut Rng) -> Packet {
        if !hits(rng, self.plan.corrupt_permille) {
            return packet.clone();
        }
        self.faults.corrupt += 1;
        self.trouble[to] += 1;
        let mut damaged = packet.bytes.to_vec();
        let bit = rng.usize(0..8 * damaged.len());
        damaged[bit / 8] ^= 1 << (bit % 8);
        Packet { bytes: damaged.into(), to_all: packet.to_all }
    }

    /// How many of `offered` datagrams the sender's socket takes.
    pub(crate) fn takes(&mut self, offered: usize, rng: &mut Rng) -> usize {
        if !hits(rng, self.plan.refuse_permille) {
            return offered;
        }
        self.faults.refuse += 1;
        rng.usize(0..offered)
    }
}

/// Throws the dice.
pub(crate) fn hits(rng: &mut Rng, permille: u32) -> bool {
    permille > 0 && rng.u32(0..1000) < permille
}
