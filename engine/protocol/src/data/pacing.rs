//! Pacing: how fast a publisher may send, and how observers that lose too much make it send more slowly.
//!
//! Nothing but its own log limits a publisher that has no other members and no gates. It overruns its observers'
//! sockets; then it spends its time on repairs, and what was lost is soon no longer retained. A limit set by hand
//! protects against that only where the slowest observer is known. So an observer that asks for it measures which part
//! of a stream does not arrive, and reports it when repairs can't make up for it. The publisher then lowers its rate at
//! once by the part that was lost, and raises it while no observer reports: in small steps near what the observers
//! could bear, in larger ones elsewhere. The rate never falls below a floor that the publisher is configured with: no
//! observer can stop a group.
//!
//! A publisher's *rate* is in bytes a second, repairs included. A token bucket turns it into the datagrams that may be
//! opened. A message of any length is taken while there are tokens; the bucket then goes into debt for it.
//!
//! With more than 8 receivers, a report waits a random time and goes to all; an observer that has lost not much more
//! than the reporting one then sends none. So the slowest few set the rate.
//!
//! Invariants: a rate is never below the floor, nor above the configured limit; one loss lowers it once, and all
//! reports together lower it once in the time that an observer counts. Source: RFC 4654 (suppressed feedback of the
//! slowest receiver), RFC 9438 (slow growth near the rate of the last loss).

use super::bucket::{Bucket, EARN_MAX_NS};
use super::window::Acceptance;
use crate::config::Rate;
use bourdon_wire::{DatagramNumber, Instant};

/// A bucket holds what may be sent in this time: short against what a socket buffer holds.
const BUCKET_NS: u64 = 2_000_000;
/// No bucket is smaller: one run with segmentation offload.
const BUCKET_MIN_BYTES: u64 = 1 << 16;
/// Repairs leave no greater debt than so many buckets: what a view ends with is sent at once, and may be much.
const REPAIRS_DEBT_BUCKETS: i64 = 2;
/// The part of a bucket that must be full before a publication that was refused is taken.
const REOPEN_PART: i64 = 4;
/// How often a rate is raised and measured.
const STEP_NS: u64 = 40_000_000;
/// A step is this part of the rate: what many reports took off is regained within half a second.
const STEP_PART: u64 = 16;
/// Near what the observers could bear, it is this part: what is lost before a report comes is left to repairs.
const SMALL_STEP_PART: u64 = 128;
/// It is near from this part below ...
const NEAR_BELOW_PART: u64 = 8;
/// ... to this part above.
const NEAR_ABOVE_PART: u64 = 4;
/// A report lowers the rate at least by this part, so that it gets below what the observers can bear ...
const LOWER_PART: u64 = 16;
/// ... and never to less than this part of it, whatever the report claims.
const LEAST_PART: u64 = 2;
/// A limit that observers' reports made ends after so long without a report, while less than this part of it is used.
const FORGET_NS: u64 = 5_000_000_000;
const FORGET_PART: u64 = 4;
/// A rate that is limited at all is no higher: more than any network sends.
const RATE_MAX: u64 = Rate::MAX_BYTES_PER_S;

/// How long an observer counts what is lost before it judges.
const MEASURE_NS: u64 = 5_000_000;
/// It counts on until so many datagrams were sent ...
const SENT_MIN: u64 = 64;
/// ... or so much time has passed.
const MEASURE_MAX_NS: u64 = 100_000_000;
/// What was sent last has so long to arrive: datagrams sent together may overtake each other.
const SETTLE_NS: u64 = 1_000_000;
/// Less than this part lost is left to repairs.
const TOLERATED_PART: u64 = 32;
/// Where reports are suppressed, each waits a random time up to this.
pub(crate) const BACKOFF_NS: u64 = 4_000_000;
/// How often in a row another observer's report takes the place of this one's.
const SUPPRESSED_MAX: u8 = 3;

/// A publisher's rate.
#[derive(Debug)]
pub(crate) struct Pacer {
    /// The configured limit and floor, in bytes a second.
    most: u64,
    least: u64,
    /// What may be sent now, in bytes a second; `u64::MAX`: no limit.
    rate: u64,
    /// What the observers could bear when one reported last, in bytes a second.
    borne: u64,
    /// Bytes that may be sent now; less than none if a long message was sent.
    bucket: Bucket,
    /// What was sent since then, and how fast it was in the interval before.
    sent_bytes: u64,
    measured_from: Instant,
    measured: u64,
    /// What was sent of the stream so far, without repairs.
    data_bytes: u64,
    /// What was lost of the datagrams below this has lowered the rate already.
    recovers_to: DatagramNumber,
    lowered_at: Option<Instant>,
    /// A publication was refused for want of tokens.
    refused: bool,
}

impl Pacer {
    /// `most`: the configured limit, if there is one.
    pub(crate) fn new(now: Instant, most: Option<u64>, least: u64) -> Self {
        let rate = most.map_or(u64::MAX, |most| most.min(RATE_MAX));
        debug_assert!(least <= rate, "the configuration was checked");
        Self {
            most: rate,
            least,
            rate,
            borne: 0,
            bucket: Bucket::new(now, 0),
            sent_bytes: 0,
            measured_from: now,
            measured: 0,
            data_bytes: 0,
            recovers_to: DatagramNumber(0),
            lowered_at: None,
            refused: false,
        }
    }

    /// Whether there is any limit.
    #[inline]
    pub(crate) fn is_limiting(&self) -> bool {
        self.rate != u64::MAX
    }

    /// Bytes a second, if there is a limit.
    pub(crate) fn rate(&self) -> Option<u64> {
        Some(self.rate).filter(|_| self.is_limiting())
    }

    /// So many bytes of the stream were sent.
    #[inline]
    pub(crate) fn charge(&mut self, bytes: usize) {
        self.sent_bytes += bytes as u64;
        self.data_bytes += bytes as u64;
        if self.is_limiting() {
            self.bucket.tokens -= bytes as i64;
        }
    }

    /// So many bytes of repairs were sent: new data waits for them, but no longer than for a few buckets.
    pub(crate) fn charge_repairs(&mut self, bytes: usize) {
        self.sent_bytes += bytes as u64;
        if self.is_limiting() {
            let least = self.bucket.tokens.min(-REPAIRS_DEBT_BUCKETS * self.bucket_bytes());
            self.bucket.tokens = (self.bucket.tokens - bytes as i64).max(least);
        }
    }

    /// What was sent of the stream so far.
    pub(crate) fn data_bytes(&self) -> u64 {
        self.data_bytes
    }

    /// Time has passed: there are more tokens, and the rate may be raised.
    #[inline]
    pub(crate) fn pass(&mut self, now: Instant) {
        if now.since(self.measured_from) >= STEP_NS {
            self.measure(now);
        }
        if self.is_limiting() {
            let earned = self.bucket.earn(now, self.rate);
            self.bucket.add(earned, self.bucket_bytes());
            self.refused &= self.bucket.tokens < self.reopens_at();
        }
    }

    fn bucket_bytes(&self) -> i64 {
        (self.rate / (1_000_000_000 / BUCKET_NS)).max(BUCKET_MIN_BYTES) as i64
    }

    /// The first datagram that may not be opened yet, where `sent` were sent.
    #[inline]
    pub(crate) fn room(&self, sent: DatagramNumber, mtu_bytes: usize) -> DatagramNumber {
        if !self.is_limiting() {
            return DatagramNumber(u64::MAX);
        }
        if self.refused {
            return sent;
        }
        sent + (self.bucket.tokens.max(0) as u64).div_ceil(mtu_bytes as u64)
    }

    /// After a refusal it goes on with so many tokens: what is sent in dribbles wakes each receiver for each of them.
    fn reopens_at(&self) -> i64 {
        self.bucket_bytes() / REOPEN_PART
    }

    /// A publication was refused because the bucket is empty.
    pub(crate) fn refuse(&mut self) {
        self.refused = true;
    }

    /// When a publication that was refused can be taken.
    #[inline]
    pub(crate) fn due(&self) -> Instant {
        if !self.refused {
            return Instant::NEVER;
        }
        let missing = (self.reopens_at() - self.bucket.tokens).max(1) as u64;
        let wait_ns = u128::from(missing) * 1_000_000_000 / u128::from(self.rate.max(1));
        self.bucket.refilled_at + (wait_ns as u64 + 1).min(EARN_MAX_NS)
    }

    /// An interval is over: measures it, and raises the rate by a step if all of it was used.
    #[cold]
    fn measure(&mut self, now: Instant) {
        let elapsed_ns = now.since(self.measured_from).max(1);
        self.measured = (u128::from(self.sent_bytes) * 1_000_000_000 / u128::from(elapsed_ns)) as u64;
        (self.sent_bytes, self.measured_from) = (0, now);
        if self.is_limiting() && self.measured >= self.rate / 2 {
            self.rate = (self.rate + self.step()).min(self.most).min(RATE_MAX);
        }
        // A rate of which a small part was used for so long means nothing: it only holds repairs up.
        let is_forgotten =
            self.lowered_at.is_none_or(|at| now.since(at) >= FORGET_NS) && self.measured < self.rate / FORGET_PART;
        if self.most == u64::MAX && is_forgotten {
            self.rate = u64::MAX;
        }
        debug_assert!(self.rate >= self.least && self.rate <= self.most);
    }

    fn step(&self) -> u64 {
        let near = self.borne - self.borne / NEAR_BELOW_PART..self.borne + self.borne / NEAR_ABOVE_PART;
        self.rate / if near.contains(&self.rate) { SMALL_STEP_PART } else { STEP_PART }
    }

    /// An observer reports that this part of the stream from a datagram on, in 65,536ths, did not arrive. Returns
    /// whether the rate was lowered: a report that counts what was sent before the rate was lowered last changes
    /// nothing, nor does one that comes too soon after that.
    pub(crate) fn lower(&mut self, now: Instant, lost: u16, from: DatagramNumber, sent: DatagramNumber) -> bool {
        // No honest report counts what was not sent, or hardly anything.
        let is_honest = from < sent && u64::from(lost) * TOLERATED_PART >= u64::from(u16::MAX) / 2;
        // An observer counts that long from a datagram on that was sent after the rate was lowered last.
        let is_early = self.lowered_at.is_some_and(|at| now.since(at) < MEASURE_NS);
        if !is_honest || is_early || from < self.recovers_to || self.measured.max(self.sent_bytes) == 0 {
            return false;
        }
        (self.recovers_to, self.lowered_at) = (sent, Some(now));
        // The interval that has just begun may be the first in which anything was sent.
        let elapsed_ns = now.since(self.measured_from).max(STEP_NS / 4);
        let current = (u128::from(self.sent_bytes) * 1_000_000_000 / u128::from(elapsed_ns)) as u64;
        // A rate that was not used is no measure of what the observers can bear; a pause is none either.
        let used = self.measured.max(current);
        let rate =
            if self.is_limiting() { self.rate.min(used.max(self.rate / LEAST_PART)) } else { used.min(RATE_MAX) };
        let taken = ((u128::from(rate) * u128::from(lost)) >> 16) as u64;
        let lowered = rate - taken.clamp(rate / LOWER_PART, rate / LEAST_PART);
        if !self.is_limiting() {
            self.bucket = Bucket::new(now, 0);
        }
        self.rate = lowered.clamp(self.least, self.most.min(RATE_MAX));
        self.borne = (rate - taken).max(self.least);
        self.bucket.tokens = self.bucket.tokens.min(self.bucket_bytes());
        debug_assert!(self.rate >= self.least && self.rate <= self.most);
        true
    }

    /// A view begins: every stream begins again.
    pub(crate) fn enter(&mut self) {
        self.recovers_to = DatagramNumber(0);
    }
}

/// What an observer measures of one stream.
#[derive(Debug)]
pub(crate) struct Meter {
    /// When to judge what was counted, or to report.
    pub(crate) due: Instant,
    began_at: Instant,
    /// Where the stream ended when counting began, and when it ended.
    from: DatagramNumber,
    until: Option<DatagramNumber>,
    arrived: u64,
    /// Datagrams that came too far ahead to be kept.
    beyond: u64,
    /// What is to be reported.
    report: Option<u16>,
    suppressed: u8,
    /// Whether everything that had been sent had come at some time.
    is_live: bool,
}

impl Meter {
    /// `is_live`: the observer begins with what is sent from now on.
    pub(crate) fn new(is_live: bool) -> Self {
        Self {
            due: Instant::NEVER,
            began_at: Instant(0),
            from: DatagramNumber(0),
            until: None,
            arrived: 0,
            beyond: 0,
            report: None,
            suppressed: 0,
            is_live,
        }
    }

    /// A datagram came for the first time, where the stream was known up to `known_end`. Counting begins where one is
    /// missing.
    #[inline]
    pub(crate) fn count(
        &mut self,
        now: Instant,
        known_end: DatagramNumber,
        number: DatagramNumber,
        (acceptance, has_gap): (Acceptance, bool),
    ) {
        // An observer that fetches what was sent before it came has not caught up yet, and a window that is full
        // without a gap waits for the application: neither is the publisher's fault.
        self.is_live |= !has_gap;
        if !self.is_live || acceptance == Acceptance::Beyond && !has_gap {
            return;
        }
        if self.due == Instant::NEVER && (number > known_end || acceptance == Acceptance::Beyond) {
            (self.due, self.began_at, self.from) = (now + MEASURE_NS, now, known_end);
            (self.until, self.arrived, self.beyond) = (None, 0, 0);
        }
        match acceptance {
            Acceptance::New { .. } => {
                let counts = number >= self.from && self.until.is_none_or(|until| number < until);
                self.arrived += u64::from(counts);
            }
            Acceptance::Beyond => self.beyond += u64::from(self.until.is_none()),
            Acceptance::Duplicate => {}
        }
    }

    /// The time to judge or to report has come. Returns what to report now, and from where it was counted; what is to
    /// be reported later gets a time after `backoff_ns`.
    pub(crate) fn judge(
        &mut self,
        now: Instant,
        known_end: DatagramNumber,
        backoff_ns: u64,
    ) -> Option<(DatagramNumber, u16)> {
        if self.report.is_none() {
            let sent = self.sent(known_end);
            if self.until.is_none() {
                let is_enough = sent >= SENT_MIN || now.since(self.began_at) >= MEASURE_MAX_NS;
                self.due = now + if is_enough { SETTLE_NS } else { MEASURE_NS };
                self.until = is_enough.then_some(known_end);
                return None;
            }
            let lost = self.lost_part(known_end);
            if is_tolerated(lost) {
                (self.due, self.suppressed) = (Instant::NEVER, 0);
                return None;
            }
            self.report = Some(lost);
            self.due = now + backoff_ns;
        }
        if now < self.due {
            return None;
        }
        (self.due, self.suppressed) = (Instant::NEVER, 0);
        self.report.take().map(|lost| (self.from, lost))
    }

    /// Datagrams sent while this observer has counted.
    fn sent(&self, known_end: DatagramNumber) -> u64 {
        self.until.unwrap_or(known_end).since(self.from) + self.beyond
    }

    /// The part of them that did not arrive, as it stands in a report.
    fn lost_part(&self, known_end: DatagramNumber) -> u16 {
        let sent = self.sent(known_end);
        (sent.saturating_sub(self.arrived) * 65_535 / sent.max(1)) as u16
    }

    /// Another observer reports that it has lost this part: if this one would send a report and has lost not much more
    /// by now, it sends none. It counts from the next loss on, because the publisher lowers its rate for all that was
    /// sent before.
    pub(crate) fn suppress(&mut self, known_end: DatagramNumber, lost: u16) -> bool {
        let counts = self.due != Instant::NEVER;
        let own = self.report.unwrap_or_else(|| self.lost_part(known_end));
        let covers = counts && !is_tolerated(own) && u32::from(lost) * 4 >= u32::from(own) * 3;
        if !covers || self.suppressed == SUPPRESSED_MAX {
            return false;
        }
        self.suppressed += 1;
        (self.report, self.due) = (None, Instant::NEVER);
        true
    }
}

/// Whether so little did not arrive that it is left to repairs, as it stands in a report.
fn is_tolerated(lost: u16) -> bool {
    u64::from(lost) * TOLERATED_PART <= u64::from(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    const MS: u64 = 1_000_000;
    const MTU_BYTES: usize = 1_000;

    /// Sends as fast as it may for so long, in steps of 100 µs and at most `offered` bytes a second; returns how many
    /// bytes it sent.
    fn send(pacer: &mut Pacer, now: &mut Instant, sent: &mut DatagramNumber, ns: u64, offered: u64) -> u64 {
        let mut bytes = 0;
        for _ in 0..ns / 100_000 {
            *now = *now + 100_000;
            pacer.pass(*now);
            let most = offered / 10_000 / MTU_BYTES as u64;
            let room = pacer.room(*sent, MTU_BYTES).since(*sent).min(most);
            pacer.charge(room as usize * MTU_BYTES);
            *sent = *sent + room;
            bytes += room * MTU_BYTES as u64;
        }
        bytes
    }

    #[test]
    fn a_configured_limit_holds_over_any_time() {
        let (mut now, mut sent) = (Instant(0), DatagramNumber(0));
        let mut pacer = Pacer::new(now, Some(50_000_000), 1_000_000);
        let bytes = send(&mut pacer, &mut now, &mut sent, 1_000 * MS, 1 << 40);
        let most = 50_000_000 + pacer.bucket_bytes() as u64;
        assert!((49_000_000..=most).contains(&bytes), "{bytes}");
        // A pause earns no more than a bucket.
        now = now + 5_000 * MS;
        let burst = send(&mut pacer, &mut now, &mut sent, MS, 1 << 40);
        assert!(burst <= pacer.bucket_bytes() as u64 + 60_000, "{burst}");
    }

    #[test]
    fn a_message_longer_than_the_bucket_is_paid_for_afterwards() {
        let mut pacer = Pacer::new(Instant(0), Some(10_000_000), 1_000_000);
        pacer.pass(Instant(10 * MS));
        assert!(pacer.room(DatagramNumber(0), MTU_BYTES) > DatagramNumber(0));
        pacer.charge(1_000_000);
        pacer.refuse();
        assert_eq!(pacer.room(DatagramNumber(1_000), MTU_BYTES), DatagramNumber(1_000), "no tokens are left");
        assert!(pacer.due() > Instant(90 * MS), "{:?}", pacer.due());
        // Whether or not there is a stream to send: what is due moves.
        while pacer.due() != Instant::NEVER {
            let due = pacer.due();
            pacer.pass(due);
            assert!(pacer.due() > due, "{due:?}");
        }
        assert!(pacer.bucket.refilled_at < Instant(115 * MS), "{:?}", pacer.bucket.refilled_at);
        assert!(pacer.room(DatagramNumber(1_000), MTU_BYTES) > DatagramNumber(1_000));
    }

    #[test]
    fn a_report_lowers_the_rate_by_what_was_lost_and_once_for_each_loss() {
        let (mut now, mut sent) = (Instant(0), DatagramNumber(0));
        let mut pacer = Pacer::new(now, None, 1_000_000);
        send(&mut pacer, &mut now, &mut sent, 20 * MS, 400_000_000);
        assert_eq!(pacer.rate(), None);
        assert!(pacer.lower(now, 20_000, DatagramNumber(0), sent)); // 30 % lost
        let rate = pacer.rate().unwrap();
        assert!((270_000_000..290_000_000).contains(&rate), "{rate}");
        assert!(!pacer.lower(now, 60_000, DatagramNumber(5), sent), "the same datagrams");
        assert_eq!(pacer.rate(), Some(rate));
        // Whatever a report claims, it takes half at most.
        send(&mut pacer, &mut now, &mut sent, 20 * MS, 1 << 40);
        let before = pacer.rate().unwrap();
        assert!(pacer.lower(now, u16::MAX, DatagramNumber(sent.0 - 1), sent));
        assert!(pacer.rate().unwrap() >= before / 2 - before / 10, "{:?}", pacer.rate());
    }

    /// Each of them counts from a datagram that was sent after the report before: no honest observer counts so briefly.
    #[test]
    fn issue_a_burst_of_reports_lowered_the_rate_several_times() {
        let (mut now, mut sent) = (Instant(0), DatagramNumber(0));
        let mut pacer = Pacer::new(now, Some(100_000_000), 1_000_000);
        send(&mut pacer, &mut now, &mut sent, 20 * MS, 1 << 40);
        let lower = |pacer: &mut Pacer, now, sent: &mut DatagramNumber| {
            *sent = sent.next();
            pacer.lower(now, u16::MAX, DatagramNumber(sent.0 - 1), *sent)
        };
        let lowered = (0..100).filter(|n| lower(&mut pacer, now + n * 10_000, &mut sent)).count();
        assert_eq!((lowered, pacer.rate()), (1, Some(50_000_000)));
        send(&mut pacer, &mut now, &mut sent, 10 * MS, 1 << 40);
        assert!(lower(&mut pacer, now, &mut sent), "the next round");
    }

    /// What a view ends with is not held up: afterwards data goes on soon.
    #[test]
    fn issue_the_debt_for_repairs_had_no_bottom() {
        let (mut now, mut sent) = (Instant(0), DatagramNumber(0));
        let mut pacer = Pacer::new(now, Some(10_000_000), 1_000_000);
        pacer.pass(Instant(10 * MS));
        (0..100).for_each(|_| pacer.charge_repairs(1_000_000));
        let bytes = send(&mut pacer, &mut now, &mut sent, 100 * MS, 1 << 40);
        assert!(bytes > 800_000, "{bytes} of 1,000,000");
        // A long message's debt stays.
        pacer.charge(10_000_000);
        pacer.charge_repairs(1);
        assert!(pacer.bucket.tokens < -9_000_000, "{}", pacer.bucket.tokens);
    }

    #[test]
    fn issue_a_slow_rate_lost_fractions_of_tokens() {
        let (mut now, rate) = (Instant(0), 100_000);
        let mut pacer = Pacer::new(now, Some(rate), rate);
        pacer.charge(1_000_000);
        // 1.9 bytes a step.
        for _ in 0..1_000_000_000 / 19_000 {
            now = now + 19_000;
            pacer.pass(now);
        }
        let earned = pacer.bucket.tokens + 1_000_000;
        assert!((99_990..=100_000).contains(&earned), "{earned}");
    }

    #[test]
    fn reports_without_end_lower_the_rate_to_the_floor_and_silence_raises_it_again() {
        let (mut now, mut sent) = (Instant(0), DatagramNumber(0));
        let mut pacer = Pacer::new(now, Some(100_000_000), 10_000_000);
        for _ in 0..100 {
            send(&mut pacer, &mut now, &mut sent, 10 * MS, 1 << 40);
            pacer.lower(now, u16::MAX, DatagramNumber(sent.0 - 1), sent);
        }
        assert_eq!(pacer.rate(), Some(10_000_000));
        send(&mut pacer, &mut now, &mut sent, 10_000 * MS, 1 << 40);
        assert!(pacer.rate().unwrap() > 90_000_000, "{:?}", pacer.rate());
        // What is not used is not raised.
        let rate = pacer.rate().unwrap();
        send(&mut pacer, &mut now, &mut sent, 1_000 * MS, rate / 4);
        assert!(pacer.rate().unwrap() <= rate + rate / STEP_PART, "{:?} after {rate}", pacer.rate());
    }

    /// What a meter reports once the last datagrams have had time to arrive.
    fn judged(meter: &mut Meter, end: DatagramNumber) -> Option<(DatagramNumber, u16)> {
        assert_eq!(meter.judge(meter.due, end, 0), None, "what was sent last may still arrive");
        meter.judge(meter.due, end, 0)
    }

    /// Found in `sim --feedback`: 823 of 995 observers that lost nothing reported losses, because they judged while the
    /// datagrams of one send overtook each other.
    #[test]
    fn issue_datagrams_on_their_way_were_counted_as_lost() {
        let mut meter = Meter::new(true);
        let fresh = Acceptance::New { early: false };
        let mut end = DatagramNumber(0);
        // The last of five arrives first.
        for number in (0..20).flat_map(|send| [4, 0, 1, 2, 3].map(|place| 5 * send + place)) {
            let known = end;
            end = end.max(DatagramNumber(number + 1));
            if number < 80 {
                meter.count(Instant(number * 200_000), known, DatagramNumber(number), (fresh, number > known.0));
            }
        }
        let known = DatagramNumber(80);
        assert_eq!(meter.judge(meter.due, DatagramNumber(85), 0), None);
        (80..85).for_each(|number| meter.count(meter.due, known, DatagramNumber(number), (fresh, false)));
        assert_eq!(meter.judge(meter.due, DatagramNumber(85), 0), None);
        assert_eq!(meter.due, Instant::NEVER, "nothing was lost");
    }

    #[test]
    fn an_observer_reports_what_repairs_can_t_make_up_for() {
        let fresh = Acceptance::New { early: false };
        let mut meter = Meter::new(false);
        // One of a hundred is lost.
        let mut end = DatagramNumber(0);
        for number in (0..1_000).filter(|number| number % 100 != 50) {
            meter.count(Instant(number * 10_000), end, DatagramNumber(number), (fresh, number > 0));
            end = DatagramNumber(number + 1);
        }
        assert_eq!(judged(&mut meter, end), None);
        assert_eq!(meter.due, Instant::NEVER);
        // A quarter is lost.
        for number in (1_000..2_000).filter(|number| number % 4 != 0) {
            meter.count(Instant(number * 10_000), end, DatagramNumber(number), (fresh, number > 0));
            end = DatagramNumber(number + 1);
        }
        let (_, lost) = judged(&mut meter, end).expect("a report is due");
        assert!((15_000..18_000).contains(&lost), "{lost}");
    }

    /// An observer whose datagrams were only reordered heard three reports of others. When it lost some itself, it let
    /// no report take the place of its own.
    #[test]
    fn issue_reports_of_others_counted_where_nothing_was_lost() {
        let fresh = Acceptance::New { early: false };
        let mut meter = Meter::new(true);
        let mut end = DatagramNumber(0);
        let mut send = |meter: &mut Meter, numbers: &[u64]| {
            for number in numbers {
                meter.count(Instant(end.0 * MS / 10), end, DatagramNumber(*number), (fresh, *number > end.0));
                end = end.max(DatagramNumber(number + 1));
            }
            end
        };
        for round in 0..u64::from(SUPPRESSED_MAX) {
            let (first, known_end) = (64 * round, 64 * round + 64);
            let numbers: Vec<_> = [first + 1, first].into_iter().chain(first + 2..known_end).collect();
            let end = send(&mut meter, &numbers);
            assert!(!meter.suppress(end, 60_000), "it has nothing to report");
            assert_eq!(judged(&mut meter, end), None);
        }
        let end = send(&mut meter, &[1_000]);
        assert!(meter.suppress(end, 60_000), "all but one are missing");
    }

    /// A view that begins within 5 ms after a report does not let the next one lower the rate again.
    #[test]
    fn issue_a_view_let_two_reports_lower_the_rate_at_once() {
        let (mut now, mut sent) = (Instant(0), DatagramNumber(0));
        let mut pacer = Pacer::new(now, Some(100_000_000), 1_000_000);
        send(&mut pacer, &mut now, &mut sent, 20 * MS, 1 << 40);
        assert!(pacer.lower(now, u16::MAX, DatagramNumber(0), sent));
        pacer.enter();
        assert!(!pacer.lower(now + MS, u16::MAX, DatagramNumber(0), DatagramNumber(1)));
        assert!(pacer.lower(now + 5 * MS, u16::MAX, DatagramNumber(0), DatagramNumber(1)));
    }

    #[test]
    fn another_s_report_takes_the_place_of_this_one_s_a_few_times_only() {
        let mut meter = Meter::new(true);
        for round in 0..=u64::from(SUPPRESSED_MAX) {
            let at = Instant(round * 1_000 * MS);
            (0..100).for_each(|_| meter.count(at, DatagramNumber(5), DatagramNumber(9), (Acceptance::Beyond, true)));
            assert_eq!(meter.judge(at + MEASURE_NS, DatagramNumber(5), MS), None);
            assert_eq!(meter.judge(at + MEASURE_NS + SETTLE_NS, DatagramNumber(5), MS), None);
            assert!(!meter.suppress(DatagramNumber(5), 1_000), "that one has lost much less");
            assert_eq!(meter.suppress(DatagramNumber(5), 60_000), round < u64::from(SUPPRESSED_MAX));
        }
        assert_eq!(meter.judge(meter.due, DatagramNumber(5), MS), Some((DatagramNumber(5), 65_535)));
    }
}
