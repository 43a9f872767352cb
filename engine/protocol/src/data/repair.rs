//! Repair: requesting missing datagrams, and retransmitting them.
//!
//! If each receiver acknowledges each message, the acknowledgements overload the sender; if each receiver requests each
//! lost datagram, the requests overload it as soon as many receivers lose the same datagram. So receivers request only
//! what is missing (NAK), in ranges. With more than 8 of them they wait a random time first, skewed so that few
//! receivers send early, and a receiver that hears another receiver's request for the same datagrams sends none.
//! Back-off constants made for a wide area cost 10 ms a loss on a local network, so all times follow the measured round
//! trip.
//!
//! The requesting receiver remembers for each missing datagram when it sent the last request. It sends the next one
//! after twice the measured round trip, doubling up to a bound, so that no repair takes seconds. From the third request
//! on it sends to another member, which replies from its receive log, and to the sender alternately.
//!
//! The holder retransmits to the receiver that sent the request; when a third receiver requests the same datagram
//! within a round trip, it retransmits to all. Where requests are suppressed it retransmits to all at once, because the
//! receivers that sent no request wait for it as well. There an observer that paces its publisher (`pacing.rs`) also
//! earns its requests by what is sent: one whose link bears less than that would send more requests than there is data.
//! The same receiver gets no second reply within a round trip, and all repairs together stay within a budget. A
//! receiver lets another's request suppress its own a few times only: the other request may come from outside the
//! group, or may get no reply. A receiver that sent a request repeats it without a back-off; a receiver that was
//! suppressed waits a random time longer, because a lost repair affects all suppressed receivers at the same moment.
//!
//! Invariant: the requests and repairs for each loss are bounded. Source: RFC 5401 (back-off, suppression), RFC 5740
//! (NORM).

use super::bucket::Bucket;
use super::log::Log;
use super::window::Window;
use crate::config::Timing;
use crate::values::cut::Range;
use alloc::vec;
use alloc::vec::Vec;
use bourdon_wire::records::{NAK_RANGES_MAX, Nak, NakRange};
use bourdon_wire::{Address, DatagramNumber, FRAME_HEADER_BYTES, HEADER_BYTES, Instant, MTU_MIN_BYTES, Rank};

/// Up to this many receivers, all of them send requests at once and by unicast: their requests can't overload a sender.
const RECEIVERS_QUIET: u32 = 8;
/// RFC 5401's K: the back-off is spread over this many round trips.
const BACKOFF_ROUND_TRIPS: f64 = 4.0;
/// There a datagram may be late by this part of the shortest pause between requests: datagrams of one send overtake
/// each other, and of many receivers some draw hardly any time.
const REORDER_PART: u64 = 16;
/// The n-th receiver that requests one datagram within a round trip makes its repair a multicast.
const MULTICAST_FROM: u8 = 3;
/// How often another receiver's request postpones this process's own request for one datagram.
const SUPPRESSED_MAX: u8 = 3;
/// Where the count of requests continues when it is full, so that the requests go on to all holders in turn.
const ATTEMPTS_CYCLE: u8 = 128;
/// Where all receivers hear the requests, an observer that paces earns one for so many datagrams of the stream: all
/// that a few overloaded observers send stays below a hundredth of the data.
const REQUEST_EARNED_DATAGRAMS: u64 = 96;
/// A second earns as much as so many datagrams: the end of a stream may be missing, with no datagram behind it.
const REQUEST_DATAGRAMS_PER_S: u64 = 1_000;
/// It may send so many at once: losses that are rare are repaired without a pause.
const REQUESTS_BURST: u64 = 8;
/// After this time it looks again whether it has earned one.
const REQUEST_PAUSE_NS: u64 = 1_000_000;
/// So many datagrams are requested before any of them has to come; then two for each that comes. Where none comes,
/// because the path carries no long datagrams, this and a third is all that is requested of a stream in the first 100
/// ms, but for a few.
const UNANSWERED_DATAGRAMS: u32 = 8;
/// Where repairs come, so many may be under way at most.
const ANSWERED_DATAGRAMS: u32 = 4096;
/// In each round in which nothing requested has come, a receiver requests this part of what it did in the round before.
const UNANSWERED_PART: u32 = 4;
/// So many rounds are no longer than the longest retry: so many losses in a row are chance where one in three is lost.
const ROUNDS_LOSSY: u32 = 8;
/// From then on each round is twice as long, up to this.
const UNANSWERED_RETRY_NS: u64 = 1_000_000_000;
/// A holder retransmits one datagram to one receiver again after half a retry, doubling up to this.
const REPEATED_RETRY_NS: u64 = 320_000_000;
/// Requests that go to the sender before other holders are tried.
pub(crate) const ATTEMPTS_AT_SENDER: u8 = 2;

// Counting goes on beyond the requests that go to the sender, and a repair for one receiver is possible.
const _: () = assert!(ATTEMPTS_CYCLE > ATTEMPTS_AT_SENDER && MULTICAST_FROM > 1);
// A request with all its ranges is one datagram.
const _: () =
    assert!(HEADER_BYTES + FRAME_HEADER_BYTES + Nak::BYTES + NAK_RANGES_MAX * NakRange::BYTES <= MTU_MIN_BYTES);

/// Which datagrams of a stream are requested if missing: all, or only those of a cut.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Wanted<'a> {
    /// Every missing datagram.
    All,
    /// The datagrams below the end, and those in the ranges of the rank.
    Cut(DatagramNumber, Rank, &'a [Range]),
}

impl Wanted<'_> {
    fn has(self, number: DatagramNumber) -> bool {
        match self {
            Self::All => true,
            Self::Cut(end, rank, ranges) => number < end || ranges.iter().any(|range| range.has(rank, number)),
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Requested {
    number: u64,
    /// When it was requested last; before that, when it may be requested.
    at: Instant,
    /// When the next request for it is due.
    again_at: Instant,
    /// None as long as it may only be late.
    attempts: u8,
    suppressed: u8,
}

/// How many requests an observer that paces may send: feedback that grows with what is sent, not with what is lost.
#[derive(Debug)]
struct Requests {
    /// In parts of a request: the datagrams that earn it.
    bucket: Bucket,
    /// Up to where the stream has earned.
    known_end: DatagramNumber,
}

impl Requests {
    const COST: i64 = REQUEST_EARNED_DATAGRAMS as i64;
    const MOST: i64 = REQUESTS_BURST as i64 * Self::COST;

    fn new() -> Self {
        Self { bucket: Bucket::new(Instant(0), Self::MOST), known_end: DatagramNumber(0) }
    }

    /// Whether one may be sent.
    fn may(&mut self, now: Instant, known_end: DatagramNumber) -> bool {
        let by_time = self.bucket.earn(now, REQUEST_DATAGRAMS_PER_S);
        self.bucket.add(by_time.saturating_add(known_end.since(self.known_end)), Self::MOST);
        self.known_end = self.known_end.max(known_end);
        self.bucket.tokens >= Self::COST
    }

    fn spend(&mut self) {
        debug_assert!(self.bucket.tokens >= Self::COST, "a request is earned before it is sent");
        self.bucket.tokens -= Self::COST;
    }
}

/// How many datagrams a receiver may still request although nothing that it requested has come.
#[derive(Debug)]
struct Trust {
    left: u32,
    /// Rounds in which nothing came.
    rounds: u32,
    /// When the next round begins.
    until: Instant,
    /// No member that has what is missing can send all of it now.
    doubted: bool,
}

impl Trust {
    const WHOLE: Self = Self { left: UNANSWERED_DATAGRAMS, rounds: 0, until: Instant::NEVER, doubted: false };

    /// How many datagrams may be requested now.
    fn left(&mut self, now: Instant, timing: &Timing, first_ns: u64) -> u32 {
        if now >= self.until {
            self.rounds += 1;
            let most = UNANSWERED_DATAGRAMS / UNANSWERED_PART.saturating_pow(self.rounds);
            self.left = most.max(1);
            self.until = now + self.round_ns(timing, first_ns);
        }
        self.left
    }

    fn round_ns(&self, timing: &Timing, first_ns: u64) -> u64 {
        let lossy_ns = (first_ns << self.rounds.min(ROUNDS_LOSSY)).min(timing.nak_retry_max_ns);
        let longest_ns = UNANSWERED_RETRY_NS.max(timing.nak_retry_max_ns);
        (lossy_ns << self.rounds.saturating_sub(ROUNDS_LOSSY).min(16)).min(longest_ns)
    }

    fn spend(&mut self, now: Instant, timing: &Timing, first_ns: u64) {
        debug_assert!(self.left > 0, "a request is trusted before it is sent");
        self.left -= 1;
        if self.until == Instant::NEVER {
            self.until = now + self.round_ns(timing, first_ns);
        }
    }

    /// Something requested has come.
    fn answered(&mut self) {
        let left = (self.left + 2).clamp(UNANSWERED_DATAGRAMS, ANSWERED_DATAGRAMS);
        *self = Self { left, doubted: self.doubted, ..Self::WHOLE };
    }
}

/// The receiving side of one stream's repair.
#[derive(Debug)]
pub(crate) struct NakSender {
    trust: Trust,
    /// The longest datagrams of the stream, as its sender announced lately; 0 before it did.
    longest_bytes: usize,
    requested: Vec<Requested>,
    /// When to check the gaps again.
    pub(crate) due: Instant,
    /// Smoothed time from request to repair.
    round_trip_ns: u64,
    requests: Requests,
}

impl NakSender {
    pub(crate) fn new(slots: usize) -> Self {
        assert!(slots.is_power_of_two(), "a mask finds a number's entry");
        let never = Requested { number: u64::MAX, at: Instant(0), again_at: Instant(0), attempts: 0, suppressed: 0 };
        Self {
            trust: Trust::WHOLE,
            longest_bytes: 0,
            requested: vec![never; slots],
            due: Instant::NEVER,
            round_trip_ns: 0,
            requests: Requests::new(),
        }
    }

    fn entry(&mut self, number: u64) -> &mut Requested {
        let index = number as usize & (self.requested.len() - 1);
        &mut self.requested[index]
    }

    /// Datagrams may be missing, of which this receiver has just heard. They are requested after a back-off, and in no
    /// request before they have had time to arrive: another gap may be due sooner.
    pub(crate) fn watch(
        &mut self,
        now: Instant,
        numbers: core::ops::Range<u64>,
        timing: &Timing,
        receivers: u32,
        rng: &mut fastrand::Rng,
    ) {
        let reorder_ns = if Self::asks_all(receivers) { timing.nak_retry_min_ns / REORDER_PART } else { 0 };
        let at = now + timing.reorder_grace_ns.max(reorder_ns);
        let again_at = at + self.backoff_ns(timing, receivers, rng);
        for number in if at > now { numbers } else { 0..0 } {
            let entry = self.entry(number);
            if entry.number != number {
                *entry = Requested { number, at, again_at, attempts: 0, suppressed: 0 };
            }
        }
        self.due = self.due.min(again_at);
    }

    /// What is missing is needed at once, or can come again.
    pub(crate) fn hurry(&mut self, now: Instant) {
        self.trust = Trust::WHOLE;
        self.due = self.due.min(now);
    }

    /// The stream has datagrams of this length.
    pub(crate) fn note_longest(&mut self, bytes: usize) {
        self.longest_bytes = bytes;
    }

    /// A datagram of so many bytes came that nothing requested, and others are missing. If it is as long as any, the
    /// path carries what is missing: nothing but loss delays the repairs.
    pub(crate) fn came(&mut self, now: Instant, bytes: usize) {
        if bytes < self.longest_bytes || self.trust.doubted {
            return;
        }
        if self.trust.left == 0 {
            self.due = self.due.min(now);
        }
        self.trust = Trust { left: ANSWERED_DATAGRAMS, ..Trust::WHOLE };
    }

    /// The holder has replied that it no longer has what was requested: one datagram beyond that may be requested at
    /// once. The reply is short, and shows nothing about long datagrams.
    pub(crate) fn replied(&mut self, now: Instant) {
        if self.trust.left == 0 {
            (self.trust.left, self.due) = (1, self.due.min(now));
        }
    }

    /// Nothing is missing.
    pub(crate) fn note_whole(&mut self) {
        self.trust = Trust { doubted: self.trust.doubted, ..Trust::WHOLE };
    }

    /// Notes whether no member that has what is missing can send all of it now (`is_far`). As long as none can, one
    /// datagram is requested at a time, to find out when that changes.
    pub(crate) fn doubt(&mut self, now: Instant, is_far: bool) {
        if is_far && !self.trust.doubted {
            self.trust = Trust { left: 1, rounds: ROUNDS_LOSSY, until: now, doubted: true };
        } else if !is_far && self.trust.doubted {
            self.trust = Trust::WHOLE;
        }
    }

    /// Another receiver requested these datagrams. This process waits for the repair that the other will get, and, as
    /// that repair may be lost, a random time more: all suppressed receivers were suppressed at the same moment.
    /// Returns how many of this process's missing datagrams the request covers.
    pub(crate) fn suppress(
        &mut self,
        now: Instant,
        (window, log): (&Window, &Log),
        (timing, backoff_ns): (&Timing, u64),
        ranges: &[NakRange],
    ) -> u64 {
        let patience_ns = |requester: &Self, attempts| requester.retry_ns(timing, attempts) + backoff_ns;
        let (mut suppressed, mut left) = (0, log.capacity());
        for range in ranges {
            let first = range.first.get().max(window.next.0);
            let end = range.first.get().saturating_add(u64::from(range.count.get())).min(window.known_end.0);
            let end = end.min(first.saturating_add(left)).max(first);
            left -= end - first; // all ranges together may take one pass over the log
            for number in first..end {
                suppressed += u64::from(!log.holds(DatagramNumber(number)) && self.put_off(now, number, patience_ns));
            }
        }
        debug_assert!(suppressed <= log.capacity(), "all ranges together take one pass over the log");
        suppressed
    }

    fn put_off(&mut self, now: Instant, number: u64, patience_ns: impl Fn(&Self, u8) -> u64) -> bool {
        let before = *self.entry(number);
        let (attempts, suppressed) =
            if before.number == number { (before.attempts.max(1), before.suppressed) } else { (1, 0) };
        if suppressed >= SUPPRESSED_MAX {
            return false;
        }
        let again_at = now + patience_ns(self, attempts);
        debug_assert!(again_at >= now && attempts > 0, "a request is only put off");
        *self.entry(number) = Requested { number, at: now, again_at, attempts, suppressed: suppressed + 1 };
        true
    }

    /// A missing datagram of so many bytes came; measures the round trip where it is unambiguous (Karn's rule).
    pub(crate) fn repaired(&mut self, now: Instant, number: DatagramNumber, bytes: usize, timing: &Timing) -> bool {
        let requested = *self.entry(number.0);
        if requested.number != number.0 || requested.attempts == 0 {
            return false;
        }
        // A short datagram passes where long ones do not, and shows nothing about them.
        if !self.trust.doubted || bytes >= self.longest_bytes {
            if self.trust.left == 0 {
                self.due = self.due.min(now);
            }
            self.trust.answered();
        }
        if requested.attempts == 1 {
            // A process that was paused measures its own pause; it must not wait as long for the next repair.
            let sample = now.since(requested.at).min(timing.nak_retry_max_ns);
            self.round_trip_ns =
                if self.round_trip_ns == 0 { sample } else { self.round_trip_ns - self.round_trip_ns / 8 + sample / 8 };
            debug_assert!(self.round_trip_ns <= timing.nak_retry_max_ns, "a pause does not count as a round trip");
        }
        true
    }

    /// The holder of these datagrams requires a cookie with the request: all requested and still missing datagrams are
    /// requested again now, and that counts as one request.
    pub(crate) fn repeat(&mut self, now: Instant, window: &Window) {
        for requested in &mut self.requested {
            let is_missing = (window.next.0..window.known_end.0).contains(&requested.number);
            if is_missing && requested.suppressed == 0 && requested.attempts > 0 {
                requested.attempts -= 1;
                requested.again_at = now;
                self.due = now;
            }
        }
    }

    /// For the mutation check: as if nothing had been requested.
    pub(crate) fn forget(&mut self, now: Instant) {
        self.requested.iter_mut().for_each(|requested| requested.number = u64::MAX);
        self.due = if self.due == Instant::NEVER { self.due } else { now + 20_000 };
    }

    fn retry_ns(&self, timing: &Timing, attempts: u8) -> u64 {
        let first = (2 * self.round_trip_ns).max(timing.nak_retry_min_ns);
        (first << attempts.saturating_sub(1).min(8)).min(timing.nak_retry_max_ns)
    }

    /// Whether an observer that paces has earned a request that all receivers hear; if not, it looks again after a
    /// pause.
    pub(crate) fn may_ask_all(&mut self, now: Instant, window: &Window) -> bool {
        let may = self.requests.may(now, window.known_end);
        if !may {
            self.due = now + REQUEST_PAUSE_NS;
        }
        may
    }

    /// It sends a request that it has earned.
    pub(crate) fn spend_request(&mut self) {
        self.requests.spend();
    }

    /// Collects the ranges to request now into `ranges`, at most `budget` datagrams (what the socket can hold of the
    /// reply), and sets the time of the next check. Returns the highest number of requests that any of these datagrams
    /// has had.
    pub(crate) fn collect(
        &mut self,
        now: Instant,
        (window, log, retained_from): (&Window, &Log, DatagramNumber),
        wanted: Wanted<'_>,
        timing: &Timing,
        mut budget: u64,
        ranges: &mut Vec<NakRange>,
    ) -> u8 {
        ranges.clear();
        self.due = Instant::NEVER;
        let (is_urgent, first_ns) = (matches!(wanted, Wanted::Cut(..)), self.retry_ns(timing, 1));
        let (mut stubborn, mut open): (u8, Option<(u64, u32)>) = (0, None);
        for number in window.next.max(retained_from).0..window.known_end.0 {
            let missing = !log.holds(DatagramNumber(number)) && wanted.has(DatagramNumber(number));
            let ask = missing && {
                let requested = *self.entry(number);
                let fresh = requested.number != number;
                // What has had time to arrive goes along with what is due.
                let from = if requested.attempts == 0 { requested.at } else { requested.again_at };
                let ask = fresh || is_urgent && requested.attempts == 0 || now >= from;
                if !ask {
                    self.due = self.due.min(requested.again_at);
                }
                ask
            };
            if !ask {
                ranges.extend(open.take().map(|(first, count)| NakRange::new(DatagramNumber(first), count)));
                continue;
            }
            if budget == 0 {
                self.due = self.due.min(now + timing.nak_retry_min_ns);
                break;
            }
            if self.trust.left(now, timing, first_ns) == 0 {
                self.due = self.due.min(self.trust.until);
                break;
            }
            if open.is_none() && ranges.len() == NAK_RANGES_MAX {
                self.due = now; // the rest goes into another request
                break;
            }
            budget -= 1;
            self.trust.spend(now, timing, first_ns);
            let entry = self.entry(number);
            let attempts =
                if entry.number == number { entry.attempts.checked_add(1).unwrap_or(ATTEMPTS_CYCLE) } else { 1 };
            let again_at = now + self.retry_ns(timing, attempts);
            *self.entry(number) = Requested { number, at: now, again_at, attempts, suppressed: 0 };
            stubborn = stubborn.max(attempts);
            self.due = self.due.min(again_at);
            open = Some(open.map_or((number, 1), |(first, count)| (first, count + 1)));
        }
        ranges.extend(open.map(|(first, count)| NakRange::new(DatagramNumber(first), count)));
        debug_assert!(ranges.len() <= NAK_RANGES_MAX && ranges.is_empty() == (stubborn == 0), "{ranges:?}");
        debug_assert!(self.due >= now, "what is missing is requested at once or later");
        stubborn
    }

    /// How long to wait before a request, so that few of many receivers send one.
    pub(crate) fn backoff_ns(&self, timing: &Timing, receivers: u32, rng: &mut fastrand::Rng) -> u64 {
        if receivers <= RECEIVERS_QUIET {
            return 0;
        }
        let round_trip_ns = self.round_trip_ns.max(timing.nak_retry_min_ns / 4) as f64;
        random_backoff(BACKOFF_ROUND_TRIPS * round_trip_ns, receivers, rng.f64()) as u64
    }

    /// How long to wait before a report to all, so that few of many receivers send one.
    pub(crate) fn report_backoff_ns(most_ns: u64, receivers: u32, rng: &mut fastrand::Rng) -> u64 {
        if receivers <= RECEIVERS_QUIET { 0 } else { random_backoff(most_ns as f64, receivers, rng.f64()) as u64 }
    }

    /// Whether requests go to all members, so that other receivers can suppress theirs.
    pub(crate) fn asks_all(receivers: u32) -> bool {
        receivers > RECEIVERS_QUIET
    }
}

/// RFC 5401, section 3.2: truncated exponential, so that of many receivers only a few draw a short time.
fn random_backoff(max: f64, receivers: u32, uniform: f64) -> f64 {
    let lambda = libm::log(f64::from(receivers)) + 1.0;
    let scale = lambda / (max * (libm::exp(lambda) - 1.0));
    let x = uniform * (lambda / max) + scale;
    (max / lambda * libm::log(x * (libm::exp(lambda) - 1.0) * (max / lambda))).clamp(0.0, max)
}

#[derive(Clone, Copy, Debug, Default)]
struct Answered {
    rank: Rank,
    number: u64,
    at: Instant,
    to: Address,
    requesters: u8,
    /// How often in a row it went to the same receiver.
    times: u8,
}

/// What the budget of repairs grows with, in bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Earnings {
    /// What this process sends a second at most while its own stream is slower: repairs fill it up.
    pub(crate) per_s: u64,
    /// What it has sent of its own stream so far; repairs may always be a part of that.
    pub(crate) sent: u64,
    /// How much may be sent at once.
    pub(crate) burst: u64,
    /// A shorter datagram counts as so long.
    least: usize,
    /// What is limited: bytes, or datagrams, each as the longest.
    in_bytes: bool,
}

impl Earnings {
    /// Where datagrams are limited: each counts as the longest.
    pub(crate) fn of_datagrams(per_s: u64, sent: u64, longest: usize) -> Self {
        let bytes = |datagrams: u64| datagrams * longest as u64;
        let (per_s, sent, burst) = (bytes(per_s), bytes(sent), bytes(REPAIR_BURST));
        Self { per_s, sent, burst, least: longest, in_bytes: false }
    }

    /// Where bytes are limited: a short datagram counts as so long that a burst is no more datagrams than are
    /// remembered.
    pub(crate) fn of_bytes(per_s: u64, sent: u64, burst: u64) -> Self {
        let least = burst.div_ceil(ANSWERED_SLOTS as u64) as usize;
        Self { per_s, sent, burst, least, in_bytes: true }
    }
}

/// The sending side of repair.
#[derive(Debug)]
pub(crate) struct RetransmitHandler {
    answered: Vec<Answered>,
    /// The budget of all addresses together.
    all: Bucket,
    /// Up to where its own stream has earned, and what is counted there.
    sent: u64,
    in_bytes: bool,
    /// How much may be sent at once.
    burst: u64,
    least: usize,
    /// The share of each address that sent a request lately.
    shares: Vec<(Address, Bucket)>,
    /// The share that is spent from.
    share: usize,
}

/// How to reply to a request for one datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// To the receiver that sent the request.
    Unicast,
    /// To all members.
    Multicast,
    /// Not now.
    No,
}

/// Remembered replies: as many as there are datagrams in a burst.
const ANSWERED_SLOTS: usize = 4096;
/// Repairs are at most this part of the data beside them: a sender that spends its time on repairs has no more data to
/// lose, and its receivers deliver none.
pub(crate) const DATA_PART: u64 = 4;
/// Repairs that may be sent at once, if few were sent before.
const REPAIR_BURST: u64 = 1024;
/// The last part of what may be sent at once, which each address draws from its own share. An address that is the only
/// one to send requests draws all the rest and this, so it is as fast as without shares; the next address that sends
/// one finds its own share whole.
const SHARED_PART: u64 = 2;
/// A share grows by this part of the rate: so many addresses with endless requests still leave something to one more.
const SHARE_PART: u64 = 16;
/// Addresses that have a share; a new address replaces the one whose last request is the oldest. As many as a view has
/// members.
const SHARES_MAX: usize = 64;

// A mask finds a reply, and a burst of the longest datagrams overwrites none of its own.
const _: () = assert!(ANSWERED_SLOTS.is_power_of_two() && ANSWERED_SLOTS as u64 >= REPAIR_BURST);
// A share is a part of the budget, and each member of the largest view can have one.
const _: () = assert!(REPAIR_BURST / SHARED_PART > 0 && SHARED_PART > 1 && SHARES_MAX > Rank::MAX.index());

impl RetransmitHandler {
    /// With datagrams of so many bytes at most.
    pub(crate) fn new(mtu_bytes: usize) -> Self {
        let burst = REPAIR_BURST * mtu_bytes as u64;
        Self {
            answered: vec![Answered { number: u64::MAX, ..Answered::default() }; ANSWERED_SLOTS],
            all: Bucket::new(Instant(0), burst as i64),
            sent: 0,
            in_bytes: false,
            burst,
            least: mtu_bytes,
            shares: Vec::new(),
            share: 0,
        }
    }

    /// Lets the budget grow with time, and the share of the address that sent the request; all addresses that have
    /// proved nothing have one share together.
    pub(crate) fn refill(&mut self, now: Instant, earnings: Earnings, requester: Option<Address>) {
        let slots_bytes = (earnings.least * ANSWERED_SLOTS) as u64;
        assert!(
            slots_bytes >= earnings.burst,
            "a burst of one stream's repairs overwrites none of its own: {earnings:?}"
        );
        // Where a limit begins or ends, what was sent is counted otherwise.
        let is_same = self.in_bytes == earnings.in_bytes;
        let sent = if is_same { earnings.sent.saturating_sub(self.sent) } else { 0 };
        (self.sent, self.in_bytes) = (earnings.sent, earnings.in_bytes);
        (self.burst, self.least) = (earnings.burst, earnings.least);
        let by_time = self.all.earn(now, earnings.per_s);
        self.all.add(by_time.saturating_sub(sent).max(sent / DATA_PART), self.burst as i64);
        let requester = requester.unwrap_or_default();
        let known = self.shares.iter().position(|(address, _)| *address == requester);
        self.share = known.unwrap_or_else(|| {
            let share = (requester, Bucket::new(now, self.shared_out() as i64));
            if self.shares.len() < SHARES_MAX {
                self.shares.push(share);
                return self.shares.len() - 1;
            }
            let oldest = (0..SHARES_MAX).min_by_key(|index| self.shares[*index].1.refilled_at).unwrap_or(0);
            self.shares[oldest] = share;
            oldest
        });
        debug_assert!(self.shares.len() <= SHARES_MAX, "{} shares", self.shares.len());
        let shared_out = self.shared_out() as i64;
        let share = &mut self.shares[self.share].1;
        let earned = share.earn(now, earnings.per_s / SHARE_PART);
        share.add(earned, shared_out);
    }

    /// The part of the budget that each address draws from its own share.
    fn shared_out(&self) -> u64 {
        self.burst / SHARED_PART
    }

    /// Whether the budget is used up for now, for the address that sent the request.
    pub(crate) fn is_exhausted(&self) -> bool {
        let own = self.shares.get(self.share).map_or(0, |(_, share)| share.tokens);
        self.all.tokens <= if own > 0 { 0 } else { self.shared_out() as i64 }
    }

    fn spend(&mut self, bytes: usize) {
        debug_assert!(!self.is_exhausted(), "nothing is spent beyond the budget");
        let bytes = bytes.max(self.least) as i64;
        if self.all.tokens <= self.shared_out() as i64
            && let Some((_, share)) = self.shares.get_mut(self.share)
        {
            share.tokens -= bytes;
        }
        self.all.tokens -= bytes;
    }

    /// Decides how to reply to a request for one datagram of so many bytes; anything but `No` must be sent.
    pub(crate) fn answer(
        &mut self,
        now: Instant,
        (rank, number, bytes): (Rank, DatagramNumber, usize),
        requester: Address,
        to_all: bool,
        timing: &Timing,
    ) -> Answer {
        let is_exhausted = self.is_exhausted();
        let entry = &mut self.answered[number.0 as usize & (ANSWERED_SLOTS - 1)];
        let same = entry.rank == rank && entry.number == number.0;
        let recent = same && now.since(entry.at) < timing.nak_retry_min_ns / 2;
        let repeats = same && entry.to == requester;
        let times = if repeats { entry.times.saturating_add(1) } else { 1 };
        let pause_ns = (timing.nak_retry_min_ns / 2) << u32::from(times).saturating_sub(2).min(20);
        let is_early = repeats && now.since(entry.at) < pause_ns.min(REPEATED_RETRY_NS);
        if is_early || recent && entry.requesters >= MULTICAST_FROM || is_exhausted {
            return Answer::No;
        }
        let requesters = if to_all { MULTICAST_FROM } else { 1 + if recent { entry.requesters } else { 0 } };
        debug_assert!((1..=MULTICAST_FROM).contains(&requesters), "{requesters} requesters");
        *entry = Answered { rank, number: number.0, at: now, to: requester, requesters, times };
        self.spend(bytes);
        if requesters >= MULTICAST_FROM { Answer::Multicast } else { Answer::Unicast }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many requests may be sent at this moment.
    fn spend_all(requests: &mut Requests, now: Instant, known_end: u64) -> u64 {
        (0..)
            .find(|_| {
                !requests.may(now, DatagramNumber(known_end)) || {
                    requests.spend();
                    false
                }
            })
            .unwrap()
    }

    /// Without a limit each datagram counts as the longest, with one its bytes count.
    #[test]
    fn issue_a_limit_that_ended_filled_the_budget_of_repairs() {
        let mut handler = RetransmitHandler::new(1_000);
        let all = |sent| Earnings::of_datagrams(1_000, sent, 1_000);
        let limited = |sent| Earnings::of_bytes(1_000_000, sent, REPAIR_BURST * 1_000);
        handler.refill(Instant(0), all(100_000), None);
        handler.all.tokens = 0;
        handler.refill(Instant(0), limited(100_000), None);
        assert_eq!(handler.all.tokens, 0, "nothing more was sent");
        // The limit is lower by now.
        handler.refill(Instant(0), Earnings::of_bytes(500_000, 140_000, REPAIR_BURST * 500), None);
        assert_eq!(handler.all.tokens, 10_000, "a quarter of what was sent since");
        handler.refill(Instant(0), all(100_500), None);
        assert_eq!(handler.all.tokens, 10_000, "the limit has ended");
    }

    /// How many datagrams of a stream are requested within this second if each request brings one of so many bytes.
    fn requested_in(second: u64, sender: &mut NakSender, bytes: usize) -> u64 {
        let (timing, mut number) = (Timing::default(), 0);
        for now in (0..1_000).map(|ms| Instant(second * 1_000_000_000 + ms * 1_000_000)) {
            for _ in 0..sender.trust.left(now, &timing, 1_000_000) {
                sender.trust.spend(now, &timing, 1_000_000);
                *sender.entry(number) = Requested { number, at: now, again_at: now, attempts: 1, suppressed: 0 };
                assert!(sender.repaired(now, DatagramNumber(number), bytes, &timing));
                number += 1;
            }
        }
        number
    }

    #[test]
    fn issue_short_repairs_let_an_observer_request_thousands_over_a_path_without_long_datagrams() {
        let mut sender = NakSender::new(16);
        sender.note_longest(1_408);
        sender.doubt(Instant(0), true);
        assert!((1..=20).contains(&requested_in(0, &mut sender, 430)), "it finds out when that changes");
        assert!(requested_in(2, &mut sender, 1_408) > 1_000, "long ones pass");
        sender.doubt(Instant(3_000_000_000), false);
        assert!(requested_in(4, &mut sender, 430) > 1_000, "the path is mended");
    }

    #[test]
    fn requests_are_earned_by_datagrams_and_by_time_and_spent_only_when_sent() {
        let mut requests = Requests::new();
        let mut now = Instant(5_000_000_000);
        assert!((0..100).all(|_| requests.may(now, DatagramNumber(1_000))), "looking costs nothing");
        assert_eq!(spend_all(&mut requests, now, 1_000), REQUESTS_BURST, "no pause earns more than a burst");
        assert_eq!(spend_all(&mut requests, now, 1_000 + 3 * REQUEST_EARNED_DATAGRAMS), 3);
        // The announced end falls and rises again.
        assert_eq!(spend_all(&mut requests, now, 0), 0);
        assert_eq!(spend_all(&mut requests, now, 1_000 + 4 * REQUEST_EARNED_DATAGRAMS), 1);
        let mut sent = 0;
        // However short the steps are: the remainder of each is kept.
        for _ in 0..9_600_000_000_u64 / 300_000 {
            now = now + 300_000;
            sent += spend_all(&mut requests, now, 0);
        }
        assert_eq!(sent, 100);
    }
}
