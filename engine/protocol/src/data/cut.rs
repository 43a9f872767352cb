//! How an epoch ends: which of its datagrams this process holds, which it must still fetch, and which messages it never
//! delivered.
//!
//! When a ballot is promised the epoch is *wedged*: this process keeps what it has received; it sends, orders,
//! acknowledges and delivers nothing more. It reports what it then holds in its `STATE`. Members fetch a proposed cut
//! from the members that hold it. Once the cut is decided, delivery goes on up to it and not a message further. The
//! messages that this process published and the cut does not deliver are taken out of its own log, to be published
//! again in the next view under the same sequences.
//!
//! Every member has the same datagrams up to the cut, so every walk over them (`total.rs`, `causal.rs`, …) stops at the
//! same message. Therefore no member needs to announce at which message numbers the next view begins.
//!
//! Invariants: members that go on have delivered the same messages in the same order, because they walk the same
//! datagrams by the same rule; a member that goes on has delivered the whole cut.

use super::cursor::Cursor;
use super::epoch_state::EpochState;
use super::ordering::Ordering;
use super::pack::Outgoing;
use super::pipeline::Pipeline;
use super::unordered::{deliver_early, early_ranges};
use crate::config::Reliability;
use crate::event::Message;
use crate::mutant::Mutant;
use crate::values::cut::{Cut, Range};
use crate::values::handover::{BallotNumber, EndOrder, EndReport};
use crate::view::{Beginning, bit};
use alloc::vec::Vec;
use bourdon_wire::{
    ClientId, ClientTag, DatagramHeader, DatagramNumber, Frames, HEADER_BYTES, Instant, Kind, Rank, Sequence,
    TopicName, flags,
};

/// A message that was published and not delivered before its view ended.
#[derive(Clone, Debug)]
pub(crate) struct Unsettled {
    pub(crate) outgoing: Outgoing,
    pub(crate) payload: Vec<u8>,
}

impl Unsettled {
    /// Leaves its number and nothing to deliver: a message of the group itself, without a command.
    pub(crate) fn void(&mut self) {
        let client = Some(ClientTag::new(ClientId::GROUP, Sequence(0)));
        *self = Self { outgoing: Outgoing { client, ..Outgoing::default() }, payload: Vec::new() };
    }
}

/// What was delivered of a stream and belongs to no view.
#[derive(Debug, Default)]
pub(crate) struct Void {
    /// From message to message.
    pub(crate) runs: Vec<(Sequence, Sequence)>,
    /// There may be more: what came with a snapshot, or before this process joined, is not here to be examined.
    pub(crate) nameless: bool,
}

impl Pipeline {
    /// Does what the control plane orders, and reports what is done at once.
    pub(crate) fn obey(&mut self, now: Instant, wall_ns: u64, order: EndOrder) -> Option<EndReport> {
        match order {
            EndOrder::Wedge(ballot) => {
                if self.config.mutant != Some(Mutant::PromiseBeforeWedged) {
                    self.wedge(wall_ns);
                }
                Some(EndReport::Wedged(ballot, self.held()))
            }
            EndOrder::FetchCut(ballot, cut, stay) => {
                self.wedge(wall_ns); // the fetch of an earlier ballot is over
                self.fetch(now, ballot, &cut, stay);
                self.report_cut()
            }
            EndOrder::Conclude(cut, stay) => {
                self.wedge(wall_ns);
                self.conclude(now, &cut, stay);
                None
            }
        }
    }

    /// Reports once that the cut to be fetched is held.
    pub(crate) fn report_cut(&mut self) -> Option<EndReport> {
        let EpochState::Fetching(ballot, cut) = &self.end else { return None };
        let early = self.config.mutant == Some(Mutant::AcceptBeforeFetch);
        let ballot = (early || self.holds_cut(cut)).then_some(*ballot)?;
        self.end = EpochState::Wedged; // nothing more to do here until the decision, or the next ballot
        Some(EndReport::CutHeld(ballot))
    }

    /// Stops everything for good, as a promise requires. The open datagram is sealed, so that its messages count as
    /// held.
    fn wedge(&mut self, wall_ns: u64) {
        if matches!(self.end, EpochState::Fetching(..)) {
            self.end = EpochState::Wedged; // the ballot of that cut is over
        }
        if !self.end.is_open() {
            return;
        }
        self.close_early(wall_ns);
        if let Some(outbound) = &mut self.outbound {
            outbound.packer.settle();
            if self.config.mutant != Some(Mutant::AckAfterPromise) {
                outbound.ack.sent(); // none is due any more
            }
        }
        if self.config.mutant == Some(Mutant::WedgedUniform) && self.waits_for_others() {
            self.raise_stops(); // for the last time
        }
        self.end = EpochState::Wedged;
        let is_sealed = self.outbound.as_ref().is_none_or(|outbound| !outbound.packer.is_open());
        assert!(is_sealed, "what this process has published counts as held");
    }

    /// Whether anything may be delivered at all.
    #[inline]
    pub(crate) fn may_deliver(&self) -> bool {
        match self.end {
            EpochState::Open | EpochState::Decided(_) => true,
            EpochState::Wedged | EpochState::Fetching(..) => match self.config.mutant {
                Some(Mutant::DeliverAfterPromise) => true,
                Some(Mutant::WedgedUniform) => self.waits_for_others(),
                _ => false,
            },
        }
    }

    /// What this process holds.
    fn held(&self) -> Cut {
        let ends = self.streams.iter().map(|stream| stream.window.next).collect();
        // What lies beyond a gap is not stored, and at `durable` not delivered before the gap is closed.
        let unordered =
            matches!(self.ordering, Ordering::Unordered(_)) && self.config.reliability != Reliability::Durable;
        let ranges = self.streams.iter().filter(|_| unordered).flat_map(early_ranges).collect();
        Cut { ends, ranges, phase: self.barrier.own_reached() }
    }

    /// Starts to fetch the cut that was proposed in a ballot; the members in `stay` go on to the next view.
    fn fetch(&mut self, now: Instant, ballot: BallotNumber, cut: &Cut, stay: u64) {
        assert!(!self.end.is_open(), "a cut is fetched after a promise");
        if !matches!(self.end, EpochState::Decided(_)) {
            self.end = EpochState::Fetching(ballot, cut.clone());
            self.request_cut(now, cut, stay);
        }
    }

    /// Requests what is missing of a cut.
    pub(crate) fn request_cut(&mut self, now: Instant, cut: &Cut, stay: u64) {
        self.stays = stay;
        for index in 0..self.streams.len() {
            let rank = Rank(index as u16);
            let beyond = cut.ranges.iter().filter(|range| range.rank == rank).map(Range::end).max();
            let end = cut.ends.get(index).copied().unwrap_or_default().max(beyond.unwrap_or_default());
            if self.is_present(rank) && self.streams[index].window.started {
                self.note_end(now, rank, end);
                if !self.holds(cut, rank) {
                    self.streams[index].nak_sender.hurry(now);
                }
            }
        }
        self.note_nak_due();
    }

    /// Notes again how far the decided cut goes: what a follower has delivered makes room for more of it than its logs
    /// could hold when the cut was decided.
    pub(crate) fn widen(&mut self, now: Instant) {
        for index in 0..self.streams.len() {
            let EpochState::Decided(cut) = &self.end else { return };
            let end = cut.ends.get(index).copied().unwrap_or_default();
            let (rank, window) = (Rank(index as u16), &self.streams[index].window);
            if window.started && window.known_end < end && self.is_present(rank) {
                self.note_end(now, rank, end);
            }
        }
    }

    pub(super) fn holds(&self, cut: &Cut, rank: Rank) -> bool {
        if self.may_lack(rank) {
            return true;
        }
        let stream = &self.streams[rank.index()];
        let ranges = cut.ranges.iter().filter(|range| range.rank == rank);
        let held = |range: &Range| range.numbers_from(stream.window.next).all(|number| stream.log.holds(number));
        stream.window.next >= cut.ends.get(rank.index()).copied().unwrap_or_default() && { ranges }.all(held)
    }

    /// Whether this process holds the whole cut.
    pub(crate) fn holds_cut(&self, cut: &Cut) -> bool {
        let present = self.view.members.iter().map(|member| member.rank);
        { present }.all(|rank| self.holds(cut, rank))
    }

    /// The cut was decided: delivery goes on up to it. This also ends the epoch of an observer that was never wedged.
    pub(crate) fn conclude(&mut self, now: Instant, cut: &Cut, stay: u64) {
        let is_decided = matches!(self.end, EpochState::Decided(_));
        assert!(!is_decided || self.config.mutant.is_some(), "an epoch ends with one cut");
        for stream in &mut self.streams {
            stream.stop = cut.ends.get(stream.rank.index()).copied().unwrap_or_default();
            stream.cursor.stop_before(stream.stop);
        }
        if let Ordering::Unordered(unordered) = &mut self.ordering {
            unordered.early.clear(); // what has not run ahead yet is delivered if the cut names it
        }
        self.end = EpochState::Decided(cut.clone());
        self.request_cut(now, cut, stay);
    }

    /// Whether a message that a barrier carried in this stream may be lost: the next view begins in `phase`, after that
    /// barrier, and this process has not completed it. A stream that is here up to the cut shows what its marker
    /// carries, if only one barrier was missed.
    pub(crate) fn loses_at_barrier(&mut self, rank: Rank, phase: u64) -> bool {
        if phase <= self.barrier.phase || !self.is_present(rank) {
            return false;
        }
        let is_here = matches!(&self.end, EpochState::Decided(cut) if self.holds(cut, rank));
        let carries = self.streams[rank.index()].marker().is_some_and(|(_, payload)| payload.is_some());
        !is_here || carries || phase > self.barrier.phase + 1
    }

    /// What was delivered of a stream and is not in the cut. The next view's first number alone does not show it: the
    /// messages that a cut has beyond a gap count up to the last of them, gap included. Of a datagram named there, only
    /// messages that are whole in one frame are delivered.
    pub(crate) fn void(&self, rank: Rank) -> Void {
        match &self.end {
            EpochState::Decided(_) if self.is_lossy() => Void::default(), // no cut was agreed on
            EpochState::Decided(cut) => self.beyond(cut, rank),
            _ => Void::default(),
        }
    }

    /// The same, if this were the cut.
    pub(crate) fn beyond(&self, cut: &Cut, rank: Rank) -> Void {
        let mut void = Void::default();
        let stream = &self.streams[rank.index()];
        let end = cut.ends.get(rank.index()).copied().unwrap_or_default();
        let (at, walked) = stream.cursor.position();
        let passed_end = if walked > 0 { at.next() } else { stream.cursor.floor() };
        let all_end = passed_end.max(stream.window.known_end);
        // A log's worth at most: older datagrams are not here.
        let from = end.max(DatagramNumber(all_end.0.saturating_sub(stream.log.capacity())));
        void.nameless = from > end && passed_end > end;
        for number in (from.0..all_end.0).map(DatagramNumber) {
            let passed = number < passed_end;
            let named = cut.ranges.iter().any(|range| range.has(rank, number));
            let Some(bytes) = stream.log.get(number) else {
                void.nameless |= passed && !named;
                continue;
            };
            let early = stream.log.slot(number).is_some_and(|slot| slot.delivered_early);
            if !passed && !early {
                continue;
            }
            let header = DatagramHeader::of_checked(bytes);
            let mut sequence = header.first_sequence();
            for frame in Frames::new(&bytes[HEADER_BYTES..], header.count()) {
                let whole = frame.flags & flags::WHOLE == flags::WHOLE;
                let walked = passed && (number != at || sequence < stream.cursor.sequence);
                let reached = walked || early && whole;
                if frame.ends_message() && reached && !(named && whole) {
                    match void.runs.last_mut().filter(|(_, to)| *to == sequence) {
                        Some((_, to)) => *to = sequence.next(),
                        None => void.runs.push((sequence, sequence.next())),
                    }
                }
                sequence = Sequence(sequence.0 + u64::from(frame.ends_message()));
            }
        }
        void
    }

    /// Delivers what the cut has beyond gaps.
    pub(crate) fn deliver_ranges(&mut self, now: Instant, emit: &mut impl FnMut(&Message<'_>)) -> usize {
        let EpochState::Decided(cut) = &self.end else { return 0 };
        let step = super::stream::Step {
            now,
            epoch: self.view.epoch,
            instance: self.view.instance,
            max_message_bytes: self.config.limits.max_message_bytes,
            late: false,
            passed: &super::after::always, // the view must end
        };
        let mut count = 0;
        for range in &cut.ranges {
            if let Some(stream) = self.streams.get_mut(range.rank.index()) {
                for number in range.numbers_from(stream.end()) {
                    count += deliver_early(stream, number, &step, emit);
                }
            }
        }
        count
    }

    /// Where the next view begins, once the cut has been delivered.
    pub(crate) fn next_beginning(&self) -> Beginning {
        let cut = match &self.end {
            EpochState::Decided(cut) => Some(cut),
            _ => None,
        };
        let after_ranges = |rank: Rank| {
            let ranges = cut.map_or(&[][..], |cut| &cut.ranges).iter().filter(|range| range.rank == rank);
            let last = ranges.map(Range::end).max()?;
            self.streams[rank.index()].sequence_after(DatagramNumber(last.0 - 1))
        };
        let first = self.streams.iter().map(|stream| {
            let beyond = after_ranges(stream.rank).unwrap_or_default();
            // What this view reported as lost is not reported again in the next.
            let excused = if self.is_lossy() { stream.excused } else { Sequence(0) };
            stream.delivered.max(beyond).max(excused)
        });
        let phase = self.barrier.phase;
        Beginning { order: self.delivered_order(), first: first.collect(), phase }
    }

    /// Whether this process has delivered everything that it has published.
    pub(crate) fn has_delivered_own(&self) -> bool {
        self.outbound.as_ref().is_none_or(|outbound| {
            !outbound.packer.is_open() && self.streams[outbound.rank.index()].floor() >= outbound.packer.open
        })
    }

    /// What this process published and the cut did not deliver, in order.
    pub(crate) fn unsettled(&mut self) -> Vec<Unsettled> {
        let Some(outbound) = &self.outbound else { return Vec::new() };
        let resubmit_all = self.config.mutant == Some(Mutant::ResubmitAll);
        let limit = self.config.limits.max_message_bytes;
        let stream = &mut self.streams[outbound.rank.index()];
        let end = outbound.packer.open;
        if resubmit_all {
            let oldest = end.0.saturating_sub(stream.log.capacity());
            stream.cursor = Cursor::at(DatagramNumber(oldest));
        }
        let mut unsettled = Vec::new();
        stream.assembly.abandon();
        // A message whose first fragments were already passed begins before the cursor.
        if let Some((number, sequence)) = stream.beginning_of(stream.delivered).filter(|_| !resubmit_all) {
            stream.cursor = Cursor::at(number);
            stream.cursor.sequence = sequence;
        }
        while let Some(frame) = stream.cursor.frame(&stream.log, end) {
            let (body_bytes, ends) = (frame.body.len(), frame.ends_message());
            let settled = stream.cursor.sequence < stream.delivered && !resubmit_all;
            if frame.kind() == Some(Kind::Data)
                && let Some(message) = stream.assembly.add(&frame, limit)
                && !settled
            {
                let intended = message.intended_send_ns.unwrap_or(stream.cursor.send_time_ns);
                let outgoing = Outgoing {
                    topic: message.topic,
                    intended_send_ns: Some(intended),
                    client: message.client,
                    name: message.name.and_then(|name| TopicName::new(name).ok()),
                    after: message.after,
                };
                unsettled.push(Unsettled { outgoing, payload: message.payload.to_vec() });
            }
            stream.cursor.step(body_bytes, ends);
        }
        unsettled
    }

    /// For the mutation check: delivers what the cut does not order.
    pub(crate) fn deliver_beyond_order(&mut self, now: Instant, emit: &mut impl FnMut(&Message<'_>)) -> usize {
        let step = super::stream::Step {
            now,
            epoch: self.view.epoch,
            instance: self.view.instance,
            max_message_bytes: self.config.limits.max_message_bytes,
            late: false,
            passed: &super::after::always,
        };
        let (sequencer, bits) = (self.view.sequencer, self.view.bits());
        let Ordering::Total(total) = &mut self.ordering else { return 0 };
        let mut count = 0;
        if self.config.mutant == Some(Mutant::SkipAtCut)
            && let Some(run) = total.run.take()
        {
            total.next = total.next + u64::from(run.count);
            return 1;
        }
        for stream in self.streams.iter_mut().filter(|s| s.rank != sequencer && bits & bit(s.rank) != 0) {
            stream.stop = stream.window.next;
            while stream.deliver_one(Some(total.next), &step, emit) {
                (total.next, count) = (total.next.next(), count + 1);
            }
        }
        count
    }

    /// How far each stream has been delivered or given up, by rank.
    pub(crate) fn passed(&self) -> Vec<Sequence> {
        self.streams.iter().map(|stream| stream.delivered.max(stream.excused)).collect()
    }
}
