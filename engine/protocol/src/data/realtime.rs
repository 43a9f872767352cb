//! Real time: messages in the order in which they were sent, by the group's clock.
//!
//! Total order is the order in which the sequencer received messages; the member that sent first may come second. Here
//! each datagram is stamped with group time (`control/clock_sync.rs`), and messages are delivered by (stamp, sender):
//! the same order everywhere, without a sequencer. A message that was sent earlier may still be under way, so a message
//! is held until group time has passed its stamp by the *hold*: the time that messages have lately taken to arrive,
//! plus the error of this process's clock. A message that comes later than that is still delivered, at once, and
//! flagged.
//!
//! The hold follows what is measured: the greatest age at which a message could first have been delivered, in this
//! tenth of a second and in the previous one, plus a quarter. So a repair, or a member that acknowledges slowly, makes
//! the hold longer, and the longer hold compensates for it; one pause of this process is forgotten after two tenths of
//! a second.
//!
//! Two messages sent more than the sum of their senders' bounds apart are in the order in which they were sent, unless
//! the later-delivered one is flagged. A sender's messages are in the order it sent them in any case.
//!
//! At the end of a view nothing is held any longer: no further messages will come.
//!
//! Source: Cristian, Aghili, Strong and Dolev, "Atomic broadcast: from simple message diffusion to Byzantine agreement"
//! (1985), with a hold that is measured rather than proved.

use super::after::is_held;
use super::stream::{Step, Stream};
use crate::event::Message;
use crate::mutant::Mutant;
use alloc::vec;
use alloc::vec::Vec;
use bourdon_wire::{DatagramHeader, DatagramNumber, Instant, Kind, OrderNumber, Rank};

/// The shortest hold: the difference between a clock reading and a wake-up.
const HOLD_MIN_NS: u64 = 20_000;
/// The longest: a process that was paused must not delay everything for long.
const HOLD_MAX_NS: u64 = 20_000_000;
/// A measured age counts for one to two times this.
const SEEN_NS: u64 = 100_000_000;
/// The age that is assumed in a view in which nothing has been measured.
const AGE_FIRST_NS: u64 = 500_000;
/// A sender that stamps its messages so far ahead has a broken clock: no message waits for that.
const AHEAD_MAX_NS: u64 = 1_000_000_000;

// The first hold is between the bounds; a message is held for less than its measured age counts, and a stamp that is
// accepted may be held for as long as any.
const _: () = assert!(HOLD_MIN_NS <= AGE_FIRST_NS && AGE_FIRST_NS + AGE_FIRST_NS / 4 <= HOLD_MAX_NS);
const _: () = assert!(HOLD_MAX_NS < SEEN_NS && HOLD_MAX_NS < AHEAD_MAX_NS);

/// The group's time as this process knows it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct GroupTime {
    /// What to add to this process's clock.
    pub(crate) offset_ns: u64,
    /// How far the result may be off.
    pub(crate) bound_ns: u64,
    /// Whether it is known at all; until then nothing is delivered.
    pub(crate) is_known: bool,
    /// Nothing more will come: nothing is held.
    pub(crate) is_over: bool,
}

#[derive(Debug)]
pub(crate) struct RealTime {
    pub(crate) time: GroupTime,
    /// The last message's place.
    last: (u64, Rank),
    /// By stream: the next datagram whose age has not been measured.
    seen: Vec<DatagramNumber>,
    /// The greatest age measured in this period, and in the period before.
    ages_ns: [u64; 2],
    period_ends: Instant,
    /// When the next message is due.
    pub(crate) due: Instant,
}

impl RealTime {
    pub(crate) fn new(members: usize) -> Self {
        Self {
            time: GroupTime::default(),
            last: (0, Rank(0)),
            seen: vec![DatagramNumber(0); members],
            ages_ns: [AGE_FIRST_NS, 0],
            period_ends: Instant::NEVER,
            due: Instant::NEVER,
        }
    }

    /// How long a message is held after it was sent.
    pub(crate) fn hold_ns(&self) -> u64 {
        let seen_ns = self.ages_ns[0].max(self.ages_ns[1]);
        (seen_ns + seen_ns / 4 + self.time.bound_ns).clamp(HOLD_MIN_NS, HOLD_MAX_NS)
    }

    fn note_age(&mut self, now: Instant, age_ns: u64) {
        if self.period_ends == Instant::NEVER {
            self.period_ends = now + SEEN_NS;
        }
        if now >= self.period_ends {
            let old = if now.since(self.period_ends) < SEEN_NS { self.ages_ns[0] } else { 0 };
            (self.ages_ns, self.period_ends) = ([0, old], now + SEEN_NS);
        }
        debug_assert!(now < self.period_ends, "a period has ended: {self:?} at {now:?}");
        self.ages_ns[0] = self.ages_ns[0].max(age_ns);
    }

    /// Measures the age of the oldest message that has become deliverable since the last call: not of held messages, or
    /// the hold would grow by itself.
    fn note_ages(&mut self, streams: &[Stream], now: Instant, group_ns: u64) {
        for stream in streams {
            let seen = core::mem::replace(&mut self.seen[stream.rank.index()], stream.end());
            if let Some(bytes) = stream.log.get(seen).filter(|_| seen < stream.end()) {
                self.note_age(now, group_ns.saturating_sub(DatagramHeader::of_checked(bytes).send_time_ns()));
            }
        }
    }

    /// Delivers at most `limit` messages; returns how many.
    pub(crate) fn deliver(
        &mut self,
        streams: &mut [Stream],
        limit: usize,
        step: &Step,
        mutant: Option<Mutant>,
        emit: &mut impl FnMut(&Message<'_>),
    ) -> usize {
        let group_ns = step.now.0.wrapping_add(self.time.offset_ns);
        let mut count = 0;
        self.due = Instant::NEVER;
        if !self.time.is_known && !self.time.is_over {
            return 0;
        }
        self.note_ages(streams, step.now, group_ns);
        while count < limit
            && let Some((stamp_ns, rank)) = earliest(streams, step)
        {
            let due_ns = stamp_ns.saturating_add(self.hold_ns());
            let late = (stamp_ns, rank) < self.last || stamp_ns.saturating_sub(group_ns) > AHEAD_MAX_NS;
            if !late && !self.time.is_over && due_ns > group_ns {
                self.due = step.now + (due_ns - group_ns);
                break;
            }
            let stream = &mut streams[rank.index()];
            let step = Step { late: late && mutant != Some(Mutant::LateUnflagged), ..*step };
            let order = (!late).then_some(OrderNumber(stamp_ns));
            let emit = &mut |delivery: &Message<'_>| emit(&Message { order, ..*delivery });
            if !stream.deliver_one(None, &step, emit) {
                break;
            }
            // All of a datagram was sent at once.
            count += 1;
            count += stream.deliver_plain(None, limit - count.min(limit), &step, emit);
            if !late {
                debug_assert!(self.last <= (stamp_ns, rank), "messages in time go by (stamp, sender)");
                self.last = (stamp_ns, rank);
            }
        }
        debug_assert!(count <= limit && self.due > step.now, "{count} of {limit}, due {:?}", self.due);
        count
    }
}

/// The stream whose next message was sent first, and when.
fn earliest(streams: &mut [Stream], step: &Step) -> Option<(u64, Rank)> {
    let next = |stream: &mut Stream| stream.next_stamp(step).map(|stamp_ns| (stamp_ns, stream.rank));
    streams.iter_mut().filter_map(next).min()
}

impl Stream {
    /// When the next message that is whole was sent; assembles fragments on the way.
    fn next_stamp(&mut self, step: &Step) -> Option<u64> {
        let end = self.end();
        loop {
            if self.is_loose && (!self.skipped.is_empty() || self.look_ahead()) {
                return None; // reported first
            }
            let frame = self.cursor.frame(&self.log, end)?;
            if self.is_stopped_by(&frame) {
                return None;
            }
            self.waits_elsewhere = is_held(&frame, step.passed);
            if self.waits_elsewhere {
                return None; // the other streams go on, and this message will be late
            }
            let (body_bytes, ends) = (frame.body.len(), frame.ends_message());
            if frame.kind() == Some(Kind::Data) {
                if ends {
                    return Some(self.cursor.send_time_ns);
                }
                self.assembly.add(&frame, step.max_message_bytes);
            }
            self.cursor.step(body_bytes, false);
        }
    }
}
