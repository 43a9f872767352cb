//! What a seed draws.
//!
//! Bugs hide where two rare things meet: a window of sixteen datagrams and a message of four, a crash and a ballot
//! under way. In a plan drawn evenly over everything they never meet, so most draws here choose between the extremes
//! and a few ordinary values.
//!
//! What happens to processes keeps a majority alive at any time, except in one plan of twelve, which may lose the
//! group; and one member never crashes and never leaves, because a group that has lost all members would form again
//! from nothing.

use super::{DetectorPlan, EventPlan, FaultPlan, Happening, Kinds, LockPlan, MS, ObserverPlan, Plan};
use crate::guarantee::{Guarantee, LEVELS};
use bourdon_protocol::{ElectionKind, MutexKind, Order, Reliability, Start};
use fastrand::Rng;

pub(super) fn pick<T: Copy>(rng: &mut Rng, choices: &[T]) -> T {
    choices[rng.usize(0..choices.len())]
}

impl Plan {
    /// What a seed draws.
    pub fn draw(seed: u64) -> Self {
        let rng = &mut Rng::with_seed(seed);
        let order = pick(rng, &[Order::Unordered, Order::Fifo, Order::Causal, Order::Total]);
        let (members, observers) = (draw_members(rng), pick(rng, &[0, 0, 1, 1, 2, 3]));
        let [log_slots, receive_log_slots] = [(); 2].map(|()| pick(rng, &[16, 16, 32, 64, 256]));
        let mtu_bytes = pick(rng, &[1280, 1408, 1408, 1500, 4000]);
        let window_slots = (0..members).map(|_| rng.u32(16..=receive_log_slots.max(17))).collect::<Vec<_>>();
        let smallest = window_slots.iter().fold(log_slots.min(receive_log_slots), |least, slots| least.min(*slots));
        let (most, processes) = (smallest as usize * mtu_bytes / 4, members + observers);
        let (messages, burst): (u32, u32) = (pick(rng, &[20, 60, 150, 400]), pick(rng, &[1, 4, 30]));
        let fast = rng.u8(0..4) != 0;
        let (faults, publishers) = (FaultPlan::draw(rng, fast), draw_publishers(rng, members));
        let bursts = u64::from((messages / burst.div_ceil(2)).max(1) / publishers.len().max(1) as u32 + 1);
        let interval_ns = faults.until_ns / bursts / pick(rng, &[1, 2, 10]);
        let latency_ns = pick(rng, &[2_000, 20_000, 200_000, if fast { 200_000 } else { MS }]);
        let plan = Self {
            order,
            members,
            sequencer: rng.u16(0..members),
            receivers: if rng.bool() { u32::from(processes) } else { pick(rng, &[2, 9, 30, 1000]) },
            mtu_bytes,
            log_slots,
            receive_log_slots,
            max_message_bytes: pick(rng, &[most, most, most / 3, 200]),
            repairs_per_s: pick(rng, &[50_000, 50_000, 1000]),
            reorder_grace_ns: pick(rng, &[0, 0, latency_ns / 2]),
            messages,
            burst,
            interval_ns: interval_ns.max(1000),
            large_permille: pick(rng, &[0, 50, 500]),
            latency_ns,
            jitter_ns: pick(rng, &[0, latency_ns / 4, latency_ns]),
            socket_bytes: pick(rng, &[20_000, 100_000, 1_000_000]),
            batch: pick(rng, &[1, 8, 64]),
            echo_permille: pick(rng, &[0, 0, 1000, 300]),
            clients: pick(rng, &[0, 0, 0, 1, 2]),
            window_slots,
            clock_offsets_ns: (0..processes).map(|_| pick(rng, &[0, 1, 1 << 40, 1 << 62])).collect(),
            publishers,
            observers: draw_observers(rng, observers, faults.until_ns),
            faults,
            order_early: rng.bool(),
            reliability: pick(rng, &[Reliability::Reliable, Reliability::Uniform, Reliability::Stable]),
            relay: false,
            deadline_ns: 0,
            detector: DetectorPlan { fast, ..DetectorPlan::default() },
            latency_back_ns: pick(rng, &[0, 0, 0, latency_ns * 3]),
            drift_ppm: if rng.bool() { Vec::new() } else { (0..processes).map(|_| rng.i32(-500..=500)).collect() },
            adversary: false,
            duels: false,
            named: false, // so that a seed draws the messages that it always drew
            events: Vec::new(),
            stalls: None,
            restarts: Vec::new(),
            client_interval_ns: 0,
            long_client_messages: Rng::with_seed(seed ^ 0x10c9).bool(),
            replay: None,
            ends_when_out: false,
            locks: None,
            hand_over: None,
            gating_timeout_ns: 0,
            paced: false,
            sync_max_ns: 0,
            unsealed_permille: pick(&mut Rng::with_seed(seed ^ 0x5ea1), &[0, 300, 1000]),
            single_delivery_permille: pick(&mut Rng::with_seed(seed ^ 0x51e), &[0, 0, 300, 1000]),
            stored_view_bytes: 0,
            snapshot_late_ns: pick(&mut Rng::with_seed(seed ^ 0x5a9), &[0, 0, MS, 10 * MS, 100 * MS]),
        };
        plan.with_events(rng)
    }

    /// Adds what happens to whole processes, and the barriers they ask for.
    fn with_events(mut self, rng: &mut Rng) -> Self {
        if self.members > 1 && rng.u8(0..10) >= 3 {
            self.detector.draw(rng);
            self.adversary = rng.u8(0..12) == 0;
            Drawn::new(rng, &mut self).draw();
        }
        self.draw_syncs(rng);
        self.events.sort_by_key(|event| event.at_ns);
        self
    }

    /// A plan of one cell of the matrix: what a seed draws, with this guarantee.
    pub fn guarantee(seed: u64, cell: Guarantee) -> Self {
        let Guarantee { order, reliability, relay, barriers } = cell;
        let rng = &mut Rng::with_seed(seed ^ 0x9a12);
        let mut plan = Self::draw(seed);
        (plan.order, plan.reliability, plan.relay) = (order, reliability, relay);
        if plan.is_lossy() {
            plan.clients = 0; // a client's message is kept once a quorum holds it; no process waits for that here
        }
        if reliability == Reliability::BestEffort {
            plan.deadline_ns = pick(rng, &[0, 0, MS, 20 * MS]);
        }
        if order == Order::RealTime {
            // Clocks as in real hosts: a clock that drifts further is broken.
            plan.drift_ppm.iter_mut().for_each(|ppm| *ppm /= 5);
        }
        plan.events.retain(|event| event.what != Happening::Sync);
        for _ in 0..if barriers { rng.u8(1..=4) } else { 0 } {
            let (process, other) = (rng.u16(0..plan.members), rng.u64(0..2));
            plan.happens(rng.u64(0..plan.faults.until_ns), Happening::Sync, process, other, 0);
        }
        plan.events.sort_by_key(|event| event.at_ns);
        plan
    }

    /// A plan in which views change all the time while all publish and each process misses something else: the
    /// conditions under which a bug in view changes shows. Ballots are hindered, and members are lost in quick
    /// succession.
    pub fn turbulent(seed: u64) -> Self {
        let rng = &mut Rng::with_seed(seed ^ 0x7ab1e);
        let mut plan = Self::draw(seed);
        let members = pick(rng, &[3, 4, 5, 5]);
        (plan.members, plan.sequencer, plan.clients) = (members, rng.u16(0..members), 0);
        plan.observers.clear();
        (plan.publishers, plan.events) = ((0..members).collect(), Vec::new());
        (plan.mtu_bytes, plan.log_slots, plan.receive_log_slots) = (1408, 64, 64);
        (plan.max_message_bytes, plan.window_slots) = (2000, vec![32; usize::from(members)]);
        (plan.messages, plan.burst, plan.batch) = (300, pick(rng, &[1, 4]), 64);
        plan.faults = FaultPlan { drop_permille: pick(rng, &[20, 100, 300]), ..FaultPlan::none(150 * MS) };
        plan.interval_ns = MS;
        (plan.latency_ns, plan.jitter_ns) = (pick(rng, &[50_000, 200_000]), pick(rng, &[0, 200_000, 1_000_000]));
        plan.detector = DetectorPlan { fast: true, evidence_after_ns: MS, ..DetectorPlan::default() };
        plan.adversary = rng.bool();
        let mut drawn = Drawn { reckless: rng.u8(0..4) == 0, ..Drawn::new(rng, &mut plan) };
        for _ in 0..8 {
            let at_ns = drawn.rng.u64(0..130 * MS);
            drawn.trouble(at_ns);
        }
        plan.draw_syncs(rng);
        plan.draw_syncs(rng);
        plan.events.sort_by_key(|event| event.at_ns);
        plan
    }

    /// A plan of competing ballots (`world/duel.rs`): small groups that hand the order over again and again, so that
    /// there is always something to decide. No process crashes: a member that has decided alone comes back and
    /// announces the decision.
    pub fn duel(seed: u64) -> Self {
        let rng = &mut Rng::with_seed(seed ^ 0xd0e1);
        let mut plan = Self::turbulent(seed);
        let members = pick(rng, &[3, 3, 5]);
        (plan.members, plan.sequencer) = (members, rng.u16(0..members));
        (plan.publishers, plan.window_slots) = ((0..members).collect(), vec![32; usize::from(members)]);
        (plan.messages, plan.interval_ns) = (100, 10 * MS);
        plan.faults = FaultPlan { drop_permille: pick(rng, &[0, 100, 300]), ..FaultPlan::none(600 * MS) };
        (plan.adversary, plan.duels, plan.events) = (false, true, Vec::new());
        for _ in 0..30 {
            let (at_ns, to) = (rng.u64(0..600 * MS), rng.u64(0..u64::from(members)));
            (0..members).for_each(|member| plan.happens(at_ns, Happening::HandOver, member, to, 0));
        }
        plan.draw_syncs(rng);
        plan.events.sort_by_key(|event| event.at_ns);
        plan
    }

    /// A plan of locks and elections. Few messages go beside them, and all limits are large enough for those. What goes
    /// wrong is drawn as in other plans, or is a quick succession of crashes and partitions.
    pub fn locks(seed: u64, kinds: Kinds) -> Self {
        let rng = &mut Rng::with_seed(seed ^ 0x10c5);
        let mut plan = Self::draw(seed);
        let members = pick(rng, &[3, 4, 5, 5, 5, 5, 6, 7]);
        (plan.members, plan.sequencer) = (members, rng.u16(0..members));
        (plan.publishers, plan.messages) = (draw_publishers(rng, members), pick(rng, &[10, 40]));
        (plan.events, plan.clients, plan.adversary) = (Vec::new(), pick(rng, &[0, 0, 0, 1]), false);
        plan.observers.truncate(1);
        let processes = plan.processes();
        plan.clock_offsets_ns.resize(processes, 1 << 40);
        plan.drift_ppm.truncate(processes);
        (plan.log_slots, plan.receive_log_slots) = (pick(rng, &[16, 64]), 64);
        (plan.max_message_bytes, plan.window_slots) = (2000, vec![pick(rng, &[16, 32]); usize::from(members)]);
        let mutex = kinds.mutex.unwrap_or_else(|| pick(rng, &MutexKind::ALL));
        let election = kinds.election.unwrap_or_else(|| pick(rng, &ElectionKind::ALL));
        plan.draw_level_for(mutex, rng);
        match rng.u8(0..10) {
            0..3 => {}
            3..7 => {
                plan.detector.draw(rng);
                plan.adversary = rng.u8(0..12) == 0;
                Drawn::new(rng, &mut plan).draw();
            }
            _ => {
                plan.detector = DetectorPlan { fast: true, evidence_after_ns: MS, ..DetectorPlan::default() };
                let until_ns = plan.faults.until_ns;
                let mut drawn = Drawn { reckless: rng.u8(0..12) == 0, ..Drawn::new(rng, &mut plan) };
                for _ in 0..8 {
                    let at_ns = drawn.rng.u64(0..until_ns);
                    drawn.trouble(at_ns);
                }
            }
        }
        plan.events.sort_by_key(|event| event.at_ns);
        plan.locks = Some(LockPlan::draw(rng, (mutex, election), members, plan.faults.until_ns));
        plan
    }

    /// Replicated locks need total order and no losses; most are at `reliable`, where delivering a message is not
    /// enough to report a grant. The others do not use the streams.
    fn draw_level_for(&mut self, mutex: MutexKind, rng: &mut Rng) {
        let is_replicated = mutex == MutexKind::Replicated;
        (self.reliability, self.relay) = pick(rng, &LEVELS);
        self.order = if is_replicated { Order::Total } else { pick(rng, &Order::ALL) };
        if is_replicated && (self.is_lossy() || rng.u8(0..4) != 0) {
            self.reliability = Reliability::Reliable;
        }
        if self.is_lossy() {
            self.clients = 0;
        }
        if self.order == Order::RealTime {
            self.drift_ppm.iter_mut().for_each(|ppm| *ppm /= 5);
        }
    }

    pub(super) fn draw_syncs(&mut self, rng: &mut Rng) {
        for _ in 0..pick(rng, &[0, 0, 1, 3]) {
            let (process, other) = (rng.u16(0..self.members), rng.u64(0..2));
            self.happens(rng.u64(0..self.faults.until_ns), Happening::Sync, process, other, 0);
        }
    }

    pub(crate) fn happens(&mut self, at_ns: u64, what: Happening, process: u16, other: u64, for_ns: u64) {
        self.events.push(EventPlan { at_ns, what, process, other, for_ns });
    }
}

impl LockPlan {
    pub(super) fn draw(
        rng: &mut Rng,
        (mutex, election): (MutexKind, ElectionKind),
        members: u16,
        until_ns: u64,
    ) -> Self {
        let some = |rng: &mut Rng, choices: &[u16]| {
            let mut chosen = draw_publishers(rng, members);
            chosen.truncate(usize::from(pick(rng, choices).min(members)));
            chosen
        };
        let askers = if rng.u8(0..4) == 0 { some(rng, &[1, 2, 3]) } else { (0..members).collect() };
        let entries = pick(rng, &[3, 8, 20]);
        let hold_ns = pick(rng, &[1, 200_000, MS, 10 * MS]);
        Self {
            mutex,
            election,
            names: pick(rng, &[1, 1, 2]),
            askers,
            entries,
            hold_ns,
            pause_ns: pick(rng, &[200_000, 2 * until_ns / u64::from(entries), 2 * until_ns / u64::from(entries)]),
            try_permille: pick(rng, &[0, 100, 500]),
            deadline_permille: pick(rng, &[0, 100, 300]),
            cancel_permille: pick(rng, &[0, 100, 300]),
            patience_ns: pick(rng, &[200_000, 5 * MS, 50 * MS]),
            campaigners: some(rng, &[0, 1, 2, 7]),
            standbys: some(rng, &[0, 2, 7]),
            resign_ns: pick(rng, &[0, 0, 10 * MS, 100 * MS]),
        }
    }
}

impl DetectorPlan {
    fn draw(&mut self, rng: &mut Rng) {
        self.evidence_after_ns = pick(rng, &[0, 0, MS, 10 * MS]);
        let sets = [(true, true, true), (true, false, false), (false, true, false), (false, false, true)];
        (self.push, self.pull, self.phi) = pick(rng, &sets);
    }
}

/// Draws what happens to processes.
struct Drawn<'a> {
    rng: &'a mut Rng,
    plan: &'a mut Plan,
    /// Never crashes, never leaves.
    rock: u16,
    reckless: bool,
    /// From when until when a process is away.
    away: Vec<(u64, u64, u16)>,
}

impl<'a> Drawn<'a> {
    fn new(rng: &'a mut Rng, plan: &'a mut Plan) -> Self {
        let (rock, reckless) = (rng.u16(0..plan.members), rng.u8(0..12) == 0);
        Self { rng, plan, rock, reckless, away: Vec::new() }
    }

    fn draw(mut self) {
        let count = pick(self.rng, &[1, 2, 2, 4, 8]);
        let until_ns = self.plan.faults.until_ns;
        // Long enough to be noticed.
        let unit_ns = self.plan.timing().detector.suspect_after_ns;
        for _ in 0..count {
            let at_ns = self.rng.u64(0..until_ns);
            let for_ns = pick(self.rng, &[unit_ns / 4, unit_ns, 2 * unit_ns, 4 * unit_ns]);
            let process = self.rng.u16(0..self.plan.members);
            let any_process = self.rng.usize(0..self.plan.processes()) as u16;
            match self.rng.u8(0..18) {
                0..6 => self.go_away(at_ns, Happening::Crash, process, unit_ns),
                6 => self.go_away(at_ns, Happening::Leave, process, unit_ns),
                7 => self.plan.happens(at_ns, Happening::ClockJump, any_process, 0, for_ns),
                8 | 9 => self.plan.happens(at_ns, Happening::Pause, any_process, 0, for_ns),
                10..13 => {
                    let other = self.rng.u64(0..u64::from(self.plan.members));
                    self.plan.happens(at_ns, Happening::Cut, any_process, other, for_ns);
                    if self.rng.bool() {
                        self.plan.happens(at_ns, Happening::Cut, other as u16, any_process.into(), for_ns);
                    }
                }
                13..16 => {
                    let set = self.rng.u64(1..1 << self.plan.members);
                    self.plan.happens(at_ns, Happening::Partition, 0, set, for_ns);
                }
                _ => {
                    let to = self.rng.u64(0..u64::from(self.plan.members));
                    (0..self.plan.members).for_each(|m| self.plan.happens(at_ns, Happening::HandOver, m, to, 0));
                }
            }
        }
    }

    /// Something that changes the view: a member goes, another goes right after it, or the network parts.
    fn trouble(&mut self, at_ns: u64) {
        let (process, next) = (self.rng.u16(0..self.plan.members), self.rng.u16(0..self.plan.members));
        let for_ns = self.rng.u64(5 * MS..40 * MS);
        match self.rng.u8(0..4) {
            0 | 1 => {
                self.go_away(at_ns, Happening::Crash, process, 5 * MS);
                let soon_ns = at_ns + self.rng.u64(0..3 * MS);
                self.go_away(soon_ns, Happening::Crash, next, 5 * MS);
            }
            2 => {
                let set = self.rng.u64(1..1 << self.plan.members);
                self.plan.happens(at_ns, Happening::Partition, 0, set, for_ns);
            }
            _ => self.plan.happens(at_ns, Happening::Cut, process, next.into(), for_ns),
        }
    }

    fn go_away(&mut self, at_ns: u64, how: Happening, process: u16, unit_ns: u64) {
        let comes_back = self.rng.u8(0..4) != 0;
        let back_ns =
            at_ns + if self.rng.bool() { self.rng.u64(1..unit_ns) } else { self.rng.u64(unit_ns..4 * unit_ns) };
        let until_ns = if comes_back { back_ns } else { u64::MAX };
        // A member that is back takes a while to be let in.
        let settled_ns = until_ns.saturating_add(3 * unit_ns);
        let meanwhile = self.away.iter().filter(|(from, to, _)| *from <= settled_ns && at_ns <= *to);
        let minority = (self.plan.members as usize - 1) / 2;
        let twice = self.away.iter().any(|(from, to, away)| *away == process && *from <= until_ns && at_ns <= *to);
        if process == self.rock || twice || (meanwhile.count() >= minority && !self.reckless) {
            return;
        }
        self.away.push((at_ns, settled_ns, process));
        self.plan.happens(at_ns, how, process, 0, 0);
        if comes_back {
            self.plan.happens(back_ns, Happening::Restart, process, 0, 0);
        }
    }
}

impl FaultPlan {
    fn draw(rng: &mut Rng, fast: bool) -> Self {
        let calm = rng.u8(0..5) == 0;
        let mut rate = |choices: &[u32]| if calm { 0 } else { pick(rng, choices) };
        Self {
            drop_permille: rate(&[0, 5, 20, 100, 300]),
            duplicate_permille: rate(&[0, 0, 20, 300]),
            reorder_permille: rate(&[0, 0, 20, 300]),
            delay_permille: rate(&[0, 0, 5, 50]),
            corrupt_permille: rate(&[0, 0, 10]),
            pause_permille: rate(&[0, 0, 1, 5]),
            refuse_permille: rate(&[0, 0, 100]),
            observers_bear_bytes_per_s: 0,
            until_ns: pick(rng, &[50, 150, 300]) * MS * if fast { 1 } else { 3 },
            delay_max_ns: pick(rng, &[1, 30]) * MS,
            pause_max_ns: pick(rng, &[2, 20, 20, 100]) * MS,
        }
    }
}

fn draw_members(rng: &mut Rng) -> u16 {
    match rng.u8(0..16) {
        0 => rng.u16(6..=9),
        1..6 => 5,
        _ => rng.u16(1..=5),
    }
}

fn draw_publishers(rng: &mut Rng, members: u16) -> Vec<u16> {
    let mut publishers: Vec<u16> = (0..members).collect();
    rng.shuffle(&mut publishers);
    publishers.truncate(rng.usize(1..=publishers.len()));
    publishers
}

fn draw_observers(rng: &mut Rng, count: u16, until_ns: u64) -> Vec<ObserverPlan> {
    let draw = |_| ObserverPlan {
        joins_at_ns: if rng.bool() { 0 } else { rng.u64(0..until_ns) },
        start: pick(rng, &[Start::Live, Start::Oldest, Start::Snapshot]),
        receive_log_slots: pick(rng, &[16, 64, 256]),
    };
    let mut observers: Vec<_> = (0..count).map(draw).collect();
    observers.sort_by_key(|observer| observer.joins_at_ns);
    observers
}
