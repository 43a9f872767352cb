//! The caller: sends a message to the nearest receiver first, until a receiver acknowledges it, and reports the
//! outcome.
//!
//! A message to one process is sent again after [`RETRY_MIN_NS`], then after twice as long each time; all pending
//! messages to that process are sent again, in order, since the receiver accepts nothing behind a gap. A message to any
//! of several goes to the nearest by measured round trip. Members measure each other by the detector's pings; a process
//! that is not a member probes the targets that it knows nothing of and waits [`PROBE_NS`] for the answers, no longer.
//! If the nearest does not answer within [`FAIL_OVER_NS`], or is suspected, the caller sends the message to the next
//! nearest, with the next number for that receiver.
//!
//! Numbers are consecutive for each receiver. A caller that has called more receivers than it remembers forgets the
//! receiver that it called longest ago; if it calls that receiver again it goes on above every number it has ever used,
//! so that no number is used twice.
//!
//! An answer goes to the address that a request names. A reply waits until that address has proved that it receives, or
//! its deadline passes.
//!
//! After a fail-over two processes may have accepted the message: the first may have done so just before it crashed, or
//! its answer was lost. No protocol that ends in finite time can rule that out.

use super::head;
use crate::event::{CallId, DirectContent, DirectFailure, DirectOutcome};
use crate::refusal::Refusal;
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use bourdon_wire::records::{self, direct_steps};
use bourdon_wire::{Address, Incarnation, Instant, Rank};
use zerocopy::IntoBytes;

/// The first pause before a message is sent again: several wake-ups of a loaded host.
pub(crate) const RETRY_MIN_NS: u64 = 10_000_000;
/// The longest: each pause doubles up to this, so that a receiver that is away for a while is soon found back.
const RETRY_MAX_NS: u64 = 320_000_000;
/// How long a call lasts at most.
pub(crate) const GIVE_UP_NS: u64 = 5_000_000_000;
/// How long the nearest may take before the next nearest is tried: as long as the detectors take to suspect a member.
pub(crate) const FAIL_OVER_NS: u64 = 100_000_000;
/// How long a caller waits for probes before it chooses the nearest of the targets that have answered.
const PROBE_NS: u64 = 20_000_000;
/// A round trip measured longer ago is measured again, beside the calls.
const FRESH_NS: u64 = 1_000_000_000;
/// Pending messages and requests, and outcomes not fetched.
pub(crate) const CALLS_MAX: usize = 32;
/// Pending answers, which have no outcome: a process that waits for many replies can reply itself.
pub(crate) const ANSWERS_MAX: usize = 31;
/// Of them, to one address: several that are silent leave room for answers to others.
const ANSWERS_EACH_MAX: usize = 4;
/// Receivers remembered: those of a full view and as many others.
const PEERS_MAX: usize = 128;

// Pauses double up to the longest; the next nearest is tried while the call lasts, and after the probes.
const _: () = assert!(RETRY_MAX_NS == RETRY_MIN_NS << 5 && RETRY_MAX_NS < GIVE_UP_NS);
const _: () = assert!(PROBE_NS < FAIL_OVER_NS && FAIL_OVER_NS < GIVE_UP_NS);
// A receiver distinguishes 64 messages; a full view's members are half of the receivers remembered.
const _: () = assert!(CALLS_MAX + ANSWERS_MAX < 64 && PEERS_MAX == 2 * (Rank::MAX.index() + 1));

/// Whether a call needs a given target, or any of several.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TargetChoice {
    One,
    Any,
}

/// A process that may accept a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    /// The member and its incarnation, if the target is known to be a member.
    pub(crate) member: Option<(Rank, Option<Incarnation>)>,
    pub(crate) address: Address,
    /// It has proved that it receives at its address.
    pub(crate) is_proven: bool,
    /// Its round trip, if other parts of this process know it.
    pub(crate) rtt_ns: Option<u64>,
}

/// What is known of a target by other means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Health {
    Well,
    Suspected,
    Gone,
}

/// One receiver.
#[derive(Clone, Copy, Debug)]
struct Peer {
    address: Address,
    /// The number of the next message.
    next: u64,
    retry_at: Instant,
    pause_ns: u64,
    rtt_ns: Option<u64>,
    measured_at: Instant,
    /// A probe is to be sent.
    probe: bool,
    /// It did not answer a call or a probe: no call waits for its round trip.
    mute: bool,
    /// It has proved that it receives: it is sent replies.
    is_proven: bool,
    used_at: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Leg {
    address: Address,
    sequence: u64,
}

#[derive(Debug)]
struct Call {
    id: CallId,
    choice: TargetChoice,
    step: u16,
    /// What follows the record.
    payload: Vec<u8>,
    /// It answers a request.
    is_answer: bool,
    /// The targets that have not been tried, the nearest last.
    targets: Vec<Target>,
    /// The target that has it now.
    current: Option<(Target, Leg)>,
    /// The targets that had it before, whose answers may still come.
    before: Vec<Leg>,
    probed_until: Instant,
    fail_over_at: Instant,
    give_up_at: Instant,
    attempts: u32,
    /// Not sent yet to the current target.
    is_fresh: bool,
    was_busy: bool,
}

/// All calls of a process.
#[derive(Debug, Default)]
pub(crate) struct Caller {
    calls: Vec<Call>,
    peers: Vec<Peer>,
    /// Greater than every number used with a receiver that was forgotten.
    first: u64,
    next_id: u64,
    outcomes: VecDeque<DirectOutcome>,
}

impl Caller {
    pub(crate) fn begin(
        &mut self,
        now: Instant,
        choice: TargetChoice,
        mut targets: Vec<Target>,
        content: &DirectContent<'_>,
    ) -> Result<CallId, Refusal> {
        if targets.is_empty() {
            return Err(Refusal::NoReceiver);
        }
        let is_answer = content.kind.is_answer();
        let answers = self.calls.iter().filter(|call| call.is_answer).count();
        let (pending, limit) = match is_answer {
            true => (answers, ANSWERS_MAX),
            false => (self.calls.len() - answers + self.outcomes.len(), CALLS_MAX),
        };
        if is_answer && self.answers_to(targets[0].address) >= ANSWERS_EACH_MAX {
            return Err(Refusal::TooMany { limit: ANSWERS_EACH_MAX });
        }
        if pending >= limit && !(is_answer && self.drop_unproven(now)) {
            return Err(Refusal::TooMany { limit });
        }
        let (step, head) = head(content);
        let head = head.as_ref().map_or(&[][..], IntoBytes::as_bytes);
        // A target that is named twice would get the message twice.
        targets.sort_by_key(|target| target.member.map(|(rank, _)| rank));
        targets.dedup_by_key(|target| target.address);
        targets.truncate(PEERS_MAX / 2);
        let mut unknown = false;
        for target in &targets {
            let peer = self.peer(now, target.address);
            let stale = target.rtt_ns.is_none() && (peer.rtt_ns.is_none() || now.since(peer.measured_at) > FRESH_NS);
            peer.is_proven |= target.is_proven;
            peer.probe |= stale && choice == TargetChoice::Any;
            unknown |= target.rtt_ns.or(peer.rtt_ns).is_none() && !peer.mute;
        }
        let id = CallId(self.next_id);
        self.next_id += 1;
        let waits = choice == TargetChoice::Any && unknown && targets.len() > 1;
        self.calls.push(Call {
            id,
            choice,
            step,
            payload: [head, content.payload].concat(),
            is_answer,
            targets,
            current: None,
            before: Vec::new(),
            probed_until: if waits { now + PROBE_NS } else { now },
            fail_over_at: Instant::NEVER,
            give_up_at: now + GIVE_UP_NS.min(content.lasts_ns),
            attempts: 0,
            is_fresh: false,
            was_busy: false,
        });
        self.check();
        Ok(id)
    }

    fn answers_to(&self, address: Address) -> usize {
        self.calls.iter().filter(|call| call.is_answer && call.answered() == Some(address)).count()
    }

    /// Drops the oldest answer that has waited for the proof of its address for longer than that takes, for another.
    /// Returns whether there was one.
    fn drop_unproven(&mut self, now: Instant) -> bool {
        let is_late = |call: &Call| now.since(call.probed_until) >= FAIL_OVER_NS;
        let is_unproven =
            |call: &Call| call.is_answer && is_late(call) && !call.answered().is_some_and(|to| self.is_proven(to));
        let oldest = self.calls.iter().position(is_unproven);
        oldest.map(|index| self.calls.remove(index)).is_some()
    }

    /// Moves a call to the next target if the current target failed, and ends calls that can't go on.
    pub(crate) fn tend(&mut self, now: Instant, health: impl Fn(&Target) -> Health) {
        for index in 0..self.calls.len() {
            let call = &self.calls[index];
            let late = now >= call.fail_over_at;
            let ill = |(target, _): &(Target, Leg)| health(target) != Health::Well;
            let moves = match &call.current {
                None => call.before.is_empty() && (now >= call.probed_until || self.knows_all(call)),
                Some(current) => call.choice == TargetChoice::Any && !call.targets.is_empty() && (late || ill(current)),
            };
            if moves {
                self.turn(now, index, late, &health);
            }
        }
        let mut ended = Vec::new();
        self.calls.retain(|call| {
            let gone = call.choice == TargetChoice::One
                && call.current.is_some_and(|(target, _)| health(&target) == Health::Gone);
            let why = match call.was_busy {
                _ if gone => DirectFailure::Gone,
                true => DirectFailure::Busy,
                false => DirectFailure::NoAnswer,
            };
            let ends = gone || now >= call.give_up_at;
            if ends && !call.is_answer {
                ended.push(DirectOutcome::Failed { call: call.id, why, attempts: call.attempts });
            }
            !ends
        });
        self.outcomes.extend(ended);
        self.check();
    }

    /// Every call ends with one outcome.
    fn check(&self) {
        let calls = self.calls.len() + self.outcomes.len();
        assert!(calls <= CALLS_MAX + ANSWERS_MAX, "{calls} calls");
        assert!(self.peers.len() <= PEERS_MAX, "{} receivers", self.peers.len());
        assert!(self.calls.iter().all(|call| call.targets.len() <= PEERS_MAX / 2), "a call has too many targets");
    }

    fn knows_all(&self, call: &Call) -> bool {
        let knows = |peer: &Peer| peer.rtt_ns.is_some() || peer.mute;
        let known = |target: &Target| {
            target.rtt_ns.is_some() || self.peers.iter().any(|peer| peer.address == target.address && knows(peer))
        };
        call.targets.iter().all(known)
    }

    /// Gives a call to the nearest target not tried, healthy targets before suspected ones; the last target keeps it
    /// for good.
    fn turn(&mut self, now: Instant, index: usize, late: bool, health: &impl Fn(&Target) -> Health) {
        let mut targets = core::mem::take(&mut self.calls[index].targets);
        let far = |target: &Target| {
            let rtt_ns = target.rtt_ns.or_else(|| self.rtt_ns(target.address)).unwrap_or(u64::MAX);
            (health(target) != Health::Well, rtt_ns)
        };
        targets.sort_by_key(far);
        targets.reverse(); // of equal targets the first named comes first
        let next = targets.pop();
        assert!(next.is_some(), "a call goes on to a target that it has");
        if let Some((before, leg)) = self.calls[index].current.take() {
            self.calls[index].before.push(leg);
            let peer = self.peer(now, before.address);
            peer.mute |= late;
            peer.rtt_ns = peer.rtt_ns.filter(|_| !late);
        }
        let Some(target) = next else { return };
        let under_way =
            self.calls.iter().any(|call| call.current.is_some_and(|(_, leg)| leg.address == target.address));
        let peer = self.peer(now, target.address);
        let leg = Leg { address: target.address, sequence: peer.next };
        peer.next += 1;
        if !under_way {
            (peer.pause_ns, peer.retry_at) = (peer.first_pause_ns(), Instant::NEVER);
        }
        let call = &mut self.calls[index];
        assert!(!call.before.contains(&leg), "no number is used twice");
        (call.targets, call.current, call.is_fresh) = (targets, Some((target, leg)), true);
        call.fail_over_at = if call.targets.is_empty() { Instant::NEVER } else { now + FAIL_OVER_NS };
    }

    /// Passes to `send` the copies that are due: address, step, number, the oldest pending number, what follows.
    pub(crate) fn due_copies(&mut self, now: Instant, mut send: impl FnMut(Address, u16, u64, u64, &[u8])) {
        for peer in &mut self.peers {
            let is_of = |call: &&mut Call| call.current.is_some_and(|(_, leg)| leg.address == peer.address);
            let mut calls: Vec<(u64, &mut Call)> = Vec::new();
            for call in self.calls.iter_mut().filter(is_of) {
                calls.extend(call.current.map(|(_, leg)| leg.sequence).map(|sequence| (sequence, call)));
            }
            calls.sort_by_key(|(sequence, _)| *sequence);
            let Some((oldest, _)) = calls.first() else { continue };
            let (oldest, again) = (*oldest, now >= peer.retry_at);
            assert!((RETRY_MIN_NS..=RETRY_MAX_NS).contains(&peer.pause_ns), "{peer:?}");
            assert!(calls.iter().all(|(sequence, _)| *sequence < peer.next), "{peer:?} has its numbers");
            let is_proven = peer.is_proven;
            for (sequence, call) in calls.iter_mut().filter(|(_, call)| call.is_due(again, is_proven)) {
                call.attempts += 1;
                call.is_fresh = false;
                send(peer.address, call.step, *sequence, oldest, &call.payload);
            }
            if again || peer.retry_at == Instant::NEVER {
                peer.retry_at = now + peer.pause_ns;
                peer.pause_ns = (peer.pause_ns * 2).min(RETRY_MAX_NS);
            }
        }
    }

    /// The next receiver to be probed.
    pub(crate) fn next_probe(&mut self) -> Option<Address> {
        let peer = self.peers.iter_mut().find(|peer| peer.probe)?;
        peer.probe = false;
        Some(peer.address)
    }

    /// A receiver acknowledges that it accepted a message.
    pub(crate) fn taken(&mut self, now: Instant, by: Rank, answer: &records::Direct) {
        let leg = Leg { address: answer.reply_to, sequence: answer.sequence.get() };
        let is_it = |call: &Call| call.current.is_some_and(|(_, own)| own == leg) || call.before.contains(&leg);
        let rtt_ns = self.measure(now, answer);
        let Some(index) = self.calls.iter().position(is_it) else { return };
        let call = self.calls.remove(index);
        let peer = self.peer(now, leg.address);
        (peer.pause_ns, peer.retry_at) = (peer.first_pause_ns(), now + peer.first_pause_ns());
        let (address, attempts) = (leg.address, call.attempts);
        if call.is_answer {
            return;
        }
        self.outcomes.push_back(DirectOutcome::Done { call: call.id, by, address, rtt_ns, attempts });
    }

    /// A receiver has no room for a message: the message is sent again when its pause is over.
    pub(crate) fn busy(&mut self, answer: &records::Direct) {
        let leg = Leg { address: answer.reply_to, sequence: answer.sequence.get() };
        for call in &mut self.calls {
            call.was_busy |= call.current.is_some_and(|(_, own)| own == leg);
        }
    }

    /// An address has proved that it receives: the answers that wait for it are due.
    pub(crate) fn note_proof(&mut self, now: Instant, address: Address) {
        let peer = self.peer(now, address);
        if !peer.is_proven {
            (peer.is_proven, peer.retry_at, peer.pause_ns) = (true, now, peer.first_pause_ns());
        }
    }

    pub(crate) fn is_proven(&self, address: Address) -> bool {
        self.peers.iter().any(|peer| peer.address == address && peer.is_proven)
    }

    /// A probe came back.
    pub(crate) fn echo(&mut self, now: Instant, answer: &records::Direct) {
        self.measure(now, answer);
    }

    /// The round trip that an answer shows; smoothed as in RFC 6298 if there was an earlier one.
    fn measure(&mut self, now: Instant, answer: &records::Direct) -> u64 {
        let rtt_ns = now.since(Instant(answer.sent_ns.get()));
        if let Some(peer) = self.peers.iter_mut().find(|peer| peer.address == answer.reply_to) {
            peer.rtt_ns = Some(peer.rtt_ns.map_or(rtt_ns, |before| before - before / 8 + rtt_ns / 8));
            (peer.measured_at, peer.mute) = (now, false);
        }
        rtt_ns
    }

    fn rtt_ns(&self, address: Address) -> Option<u64> {
        self.peers.iter().find(|peer| peer.address == address)?.rtt_ns
    }

    /// A receiver is reached at another address from now on; its calls keep their numbers, by which it knows copies.
    pub(crate) fn relocate(&mut self, before: Address, address: Address) {
        self.peers.retain(|peer| peer.address != address); // a stranger's, earlier
        let peers = self.peers.iter_mut().map(|peer| &mut peer.address);
        let of_calls = self.calls.iter_mut().flat_map(|call| {
            let current = call.current.iter_mut().flat_map(|(target, leg)| [&mut target.address, &mut leg.address]);
            let targets = call.targets.iter_mut().map(|target| &mut target.address);
            current.chain(targets).chain(call.before.iter_mut().map(|leg| &mut leg.address))
        });
        peers.chain(of_calls).filter(|at| **at == before).for_each(|at| *at = address);
    }

    /// What is kept of a receiver; a new receiver replaces the receiver that was used longest ago.
    fn peer(&mut self, now: Instant, address: Address) -> &mut Peer {
        let index = self.peers.iter().position(|peer| peer.address == address).unwrap_or_else(|| {
            if self.peers.len() >= PEERS_MAX {
                let busy = |peer: &Peer| {
                    let with = |call: &Call| {
                        let targets = call.targets.iter().map(|target| target.address);
                        let legs = call.before.iter().copied().chain(call.current.map(|(_, leg)| leg));
                        targets.chain(legs.map(|leg| leg.address)).any(|address| address == peer.address)
                    };
                    self.calls.iter().any(with)
                };
                let idle = (0..self.peers.len()).min_by_key(|i| (busy(&self.peers[*i]), self.peers[*i].used_at));
                let forgotten = self.peers.swap_remove(idle.unwrap_or(0));
                self.first = self.first.max(forgotten.next);
            }
            self.peers.push(Peer::new(now, address, self.first));
            self.peers.len() - 1
        });
        self.peers[index].used_at = now;
        &mut self.peers[index]
    }

    #[inline]
    pub(crate) fn due(&self) -> Instant {
        if self.calls.is_empty() { Instant::NEVER } else { self.next_due() }
    }

    #[cold]
    fn next_due(&self) -> Instant {
        let of_call = |call: &Call| {
            let waits = if call.current.is_none() { call.probed_until } else { Instant::NEVER };
            call.give_up_at.min(call.fail_over_at).min(waits)
        };
        let calls = self.calls.iter().map(of_call).min().unwrap_or(Instant::NEVER);
        let with = |call: &Call, peer: &Peer| call.current.is_some_and(|(_, leg)| leg.address == peer.address);
        let live = self.peers.iter().filter(|peer| self.calls.iter().any(|call| with(call, peer)));
        live.map(|peer| peer.retry_at).fold(calls, Instant::min)
    }

    pub(crate) fn is_calling(&self) -> bool {
        !self.calls.is_empty()
    }

    pub(crate) fn poll(&mut self) -> Option<DirectOutcome> {
        self.outcomes.pop_front()
    }

    #[inline]
    pub(crate) fn has_outcomes(&self) -> bool {
        !self.outcomes.is_empty()
    }

    /// Whether a message or an answer is under way; a request ends with its sender's wait.
    pub(crate) fn owes(&self) -> bool {
        self.calls.iter().any(|call| call.step != direct_steps::REQUEST)
    }
}

impl Call {
    /// Where an answer goes.
    fn answered(&self) -> Option<Address> {
        self.current.map(|(target, _)| target).or(self.targets.first().copied()).map(|target| target.address)
    }

    /// Whether a copy is to be sent. An address that has not proved that it receives is sent a decline once, which is
    /// no longer than the request, and no reply.
    fn is_due(&self, again: bool, is_proven: bool) -> bool {
        let is_waiting = self.is_answer && !is_proven;
        self.is_fresh && !(is_waiting && self.step == direct_steps::REPLY) || again && !is_waiting
    }
}

impl Peer {
    fn new(now: Instant, address: Address, next: u64) -> Self {
        Self {
            address,
            next,
            retry_at: Instant::NEVER,
            pause_ns: RETRY_MIN_NS,
            rtt_ns: None,
            measured_at: now,
            probe: false,
            mute: false,
            is_proven: false,
            used_at: now,
        }
    }

    /// The first pause ends no earlier than an answer can arrive.
    fn first_pause_ns(&self) -> u64 {
        self.rtt_ns.map_or(RETRY_MIN_NS, |rtt_ns| rtt_ns.saturating_mul(2).clamp(RETRY_MIN_NS, RETRY_MAX_NS))
    }
}
