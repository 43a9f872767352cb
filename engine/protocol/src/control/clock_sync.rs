//! Clock synchronisation: one time for the group, and how far this process's estimate of it may be off.
//!
//! Clocks of machines differ by more than a message takes, and a service that synchronises them reports no bound. So
//! the group has its own time: that of one member, the reference (the view's sequencer). The other processes request
//! the reference's time, and assume that it read its clock in the middle of the round trip. It read the clock at some
//! moment between the request and the receipt of the answer, so the assumption is wrong by half the round trip at most,
//! however uneven the two paths were. Of the last few samples a process uses the one with the smallest bound at
//! present: a bound grows with its age, because clocks drift.
//!
//! When the reference changes, group time goes on: the new reference keeps the offset it had. From then on the error of
//! that offset does not matter, because all processes follow the new reference. The others measure again, and have no
//! bound until they have a sample.
//!
//! Invariants: group time and bound are pure functions of what was sampled; a sample counts only if it answers a
//! request of this process. Sources: Cristian, "Probabilistic clock synchronization" (1989); RFC 5905 (the clock
//! filter).

use bourdon_wire::Instant;

/// The best of so many samples counts: those of a sixth of a second, so that a good round trip now and then is enough.
const SAMPLES: usize = 8;
/// The time between two requests: the bound grows by a few microseconds meanwhile.
const ASK_NS: u64 = 20_000_000;
/// The time between two requests before the first answer.
const ASK_FIRST_NS: u64 = 2_000_000;
/// How far two clocks may drift apart, in parts of a million: quartz is off by 100 at worst, and two may err in
/// opposite directions.
const DRIFT_PPM: u64 = 200;

// Eight samples are those of a sixth of a second, and a bound grows by a few microseconds between two of them.
const _: () = assert!(SAMPLES as u64 * ASK_NS <= 1_000_000_000 / 6 && ASK_FIRST_NS < ASK_NS);
const _: () = assert!(ASK_NS / 1_000_000 * DRIFT_PPM <= 5_000);

/// A measured difference to group time.
#[derive(Clone, Copy, Debug)]
struct Sample {
    /// What to add to this process's time.
    offset_ns: i64,
    /// How far that may be off at the time of the sample.
    error_ns: u64,
    at: Instant,
}

impl Sample {
    fn error_at(&self, now: Instant) -> u64 {
        self.error_ns + now.since(self.at) / 1_000_000 * DRIFT_PPM + DRIFT_PPM
    }
}

/// What one process knows of group time.
#[derive(Debug)]
pub(crate) struct ClockSync {
    samples: [Option<Sample>; SAMPLES],
    next: usize,
    /// What to add to this process's time, and how far that may be off; unknown before the first answer.
    offset_ns: i64,
    is_known: bool,
    is_reference: bool,
    /// The last requests, which may still be answered: a round trip may be longer than the time between two requests.
    asked: [Option<(u64, Instant)>; SAMPLES],
    pub(crate) due: Instant,
}

impl ClockSync {
    pub(crate) fn new() -> Self {
        Self {
            samples: [None; SAMPLES],
            next: 0,
            offset_ns: 0,
            is_known: false,
            is_reference: false,
            asked: [None; SAMPLES],
            due: Instant::NEVER,
        }
    }

    /// A view begins; this process is its reference, or asks another member.
    pub(crate) fn enter(&mut self, now: Instant, is_reference: bool) {
        (self.is_reference, self.asked) = (is_reference, [None; SAMPLES]);
        self.is_known |= is_reference;
        self.due = if is_reference { Instant::NEVER } else { now };
        self.samples = [None; SAMPLES]; // they measured another reference
    }

    /// The nonce of the request to send now.
    pub(crate) fn ask(&mut self, now: Instant, nonce: u64) -> u64 {
        assert!(!self.is_reference, "the reference asks no member");
        self.asked.rotate_right(1);
        self.asked[0] = Some((nonce, now));
        self.due = now + if self.best(now).is_some() { ASK_NS } else { ASK_FIRST_NS };
        nonce
    }

    /// An answer came, which was given at group time `group_ns`; `own_ns` is this process's time now. Returns whether
    /// it answers a request.
    pub(crate) fn answer(&mut self, now: Instant, nonce: u64, group_ns: u64, own_ns: u64) -> bool {
        let place = self.asked.iter().position(|asked| asked.is_some_and(|(asked, _)| asked == nonce));
        let Some((_, asked_at)) = place.and_then(|place| self.asked[place].take()) else { return false };
        assert!(asked_at <= now, "an answer comes after its request");
        let half_ns = now.since(asked_at) / 2;
        let middle_ns = own_ns.wrapping_sub(half_ns);
        let sample = Sample { offset_ns: group_ns.wrapping_sub(middle_ns) as i64, error_ns: half_ns + 1, at: now };
        self.samples[self.next] = Some(sample);
        self.next = (self.next + 1) % SAMPLES;
        if let Some(best) = self.best(now) {
            (self.offset_ns, self.is_known) = (best.offset_ns, true);
        }
        true
    }

    fn best(&self, now: Instant) -> Option<Sample> {
        self.samples.iter().flatten().copied().min_by_key(|sample| sample.error_at(now))
    }

    /// Whether group time is known at all.
    pub(crate) fn is_known(&self) -> bool {
        self.is_known
    }

    /// What to add to this process's time to get group time.
    pub(crate) fn offset_ns(&self) -> i64 {
        self.offset_ns
    }

    /// How far this process's group time may be from the reference's, if that is known.
    pub(crate) fn bound_ns(&self, now: Instant) -> Option<u64> {
        if self.is_reference {
            return Some(0);
        }
        let best = self.best(now);
        assert!(best.is_none() || self.is_known, "a sample makes group time known");
        best.map(|sample| sample.error_at(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OFFSET: u64 = 5_000_000;

    /// Sends a request, and gets an answer after these times there and back, from a reference that is ahead by
    /// [`OFFSET`].
    fn exchange(sync: &mut ClockSync, at: u64, there: u64, back: u64) {
        let nonce = sync.ask(Instant(at), at);
        let now = at + there + back;
        assert!(sync.answer(Instant(now), nonce, at + there + OFFSET, now));
    }

    fn error(sync: &ClockSync) -> u64 {
        sync.offset_ns().abs_diff(OFFSET as i64)
    }

    #[test]
    fn the_error_is_within_the_bound_however_uneven_the_ways() {
        for (there, back) in [(0, 0), (10_000, 10_000), (100, 900_000), (900_000, 100)] {
            let mut sync = ClockSync::new();
            sync.enter(Instant(0), false);
            exchange(&mut sync, 1_000, there, back);
            let bound = sync.bound_ns(Instant(1_000 + there + back)).expect("it was answered");
            assert!(error(&sync) <= bound, "{} > {bound}", error(&sync));
        }
    }

    #[test]
    fn the_best_sample_counts_until_it_is_too_old() {
        let mut sync = ClockSync::new();
        sync.enter(Instant(0), false);
        exchange(&mut sync, 0, 1_000, 1_000);
        exchange(&mut sync, 1_000_000, 10, 400_000);
        assert_eq!(error(&sync), 0, "the sample with even paths");
        let bounds = [2_000_000, 2_000_000_000].map(|now| sync.bound_ns(Instant(now)).expect("it is known"));
        assert!(bounds[0] < 2_000 && bounds[1] > 200_000, "{bounds:?}");
        exchange(&mut sync, 3_000_000_000, 10_000, 14_000);
        assert_eq!(error(&sync), 2_000, "the old sample may have drifted further than that");
    }

    #[test]
    fn an_answer_counts_once_and_the_reference_requests_nothing() {
        let mut sync = ClockSync::new();
        sync.enter(Instant(0), false);
        let (old, new) = (sync.ask(Instant(0), 1), sync.ask(Instant(10), 2));
        assert!(!sync.answer(Instant(20), 3, 500, 20), "no request has that nonce");
        assert!(sync.bound_ns(Instant(20)).is_none());
        assert!(sync.answer(Instant(20), old, 500, 20) && !sync.answer(Instant(20), old, 500, 20));
        assert!(sync.answer(Instant(20), new, 500, 20));
        let offset = sync.offset_ns();
        sync.enter(Instant(30), true);
        assert_eq!((sync.offset_ns(), sync.bound_ns(Instant(99)), sync.due), (offset, Some(0), Instant::NEVER));
    }
}
