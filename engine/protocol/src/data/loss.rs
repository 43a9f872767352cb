//! Loss: what happens where messages may be lost.
//!
//! Below reliable the members agree on nothing. A stream that waits for what will never come is worse than a stream
//! with a gap: in one feed a loss of a third of a per cent led to stalls of seconds, because delivery waited for late
//! repairs. So a gap is *given up*: at once where nothing is repaired (unreliable), else when its sender is gone or its
//! deadline has passed (best effort). Each message that was given up is reported, so that the application knows what it
//! missed.
//!
//! Different processes give up different datagrams, so the progress of one process proves nothing about another. A
//! process reads where a stream goes on, and under which number, from the header of the next datagram, or from a
//! heartbeat if nothing follows the gap. Messages that a header counts as sent before and that have not been delivered
//! are lost.
//!
//! For the same reason a message that was not delivered at its sender before the view changed is not published again,
//! as it would be at the levels above: other members may have delivered it already, and would deliver it twice. It
//! counts as lost, and is reported. The exception: if the sequencer goes on and everything is repaired, all members
//! that go on know which messages the sequencer had ordered.
//!
//! If an order run was lost, the messages that it ordered are here but have no known place. A process can't distinguish
//! them from messages whose order run is still to come, so it gives them up after a few heartbeats of the sequencer.
//!
//! Numbers must still name one message each. A process that comes into a view does not know up to which number other
//! members received messages of its earlier incarnation, and a new sequencer does not know how far members received
//! another sequencer's order. So each begins in a range of numbers that only this view uses.
//!
//! Invariants: a message is delivered at most once, because the numbers delivered of a sender never fall; each loss is
//! reported, from the number at which delivery stood to the number at which it goes on. Source for the stalls:
//! aeron#1946.

use super::epoch_state::EpochState;
use super::loose::End;
use super::pipeline::Pipeline;
use super::stream::{Step, Stream, phase_ahead};
use crate::config::{Order, Reliability};
use crate::view::bit;
use bourdon_wire::{DatagramHeader, DatagramNumber, Epoch, Instant, Kind, OrderNumber, Rank, Sequence};

/// Where members that are new in a view, and new sequencers, begin to count: no view sends so many messages, and no
/// number is assigned twice.
pub(crate) fn numbers_of(epoch: Epoch) -> u64 {
    epoch.0.min(EPOCHS_MAX) << NUMBERS_BITS
}

/// 10^12 messages: a day at ten million a second.
const NUMBERS_BITS: u32 = 40;
/// How long a member or follower waits for a datagram of the cut that no member sends before it gives it up.
pub(crate) const CUT_WAIT_NS: u64 = 2_000_000_000;
/// Numbers end below 2^63; no group changes the view so often.
const EPOCHS_MAX: u64 = 1 << 22;
const _: () = assert!(EPOCHS_MAX.ilog2() + NUMBERS_BITS < 63);

impl Pipeline {
    /// Whether messages may be lost.
    #[inline]
    pub(crate) fn is_lossy(&self) -> bool {
        self.config.reliability.is_lossy()
    }

    /// Whether what is missing of a sender's stream is requested.
    #[inline]
    pub(crate) fn repairs(&self) -> bool {
        self.config.reliability != Reliability::Unreliable
    }

    /// Whether a view may change before all of its cut is here: nothing is repaired, its sender is gone, or no member
    /// has sent it for too long.
    pub(crate) fn may_lack(&self, rank: Rank) -> bool {
        self.is_lossy() && (!self.repairs() || self.stays & !self.lacks & bit(rank) == 0)
    }

    /// How long a member waits for the missing part of a cut, if not for ever: not at all if it gave all of that up
    /// while the view was open, or its sender no longer retains it; else until the members that hold it have had time
    /// to send it again, where a deadline or the sender's silence ends the wait in an open view too.
    fn cut_patience_ns(&self, rank: Rank) -> Option<u64> {
        let stream = &self.streams[rank.index()];
        let may_end = self.config.deadline_ns > 0 || self.suspected & bit(rank) != 0;
        match &self.end {
            EpochState::Fetching(_, cut) | EpochState::Decided(cut)
                if self.outbound.is_some() && !self.holds(cut, rank) =>
            {
                let end = cut.ends.get(rank.index()).copied().unwrap_or_default();
                let mut retained = (stream.retained_from.0..end.0).map(DatagramNumber);
                let is_gone = stream.retained_from > stream.window.next
                    && end <= stream.window.known_end
                    && retained.all(|number| stream.log.holds(number));
                if is_gone { Some(0) } else { may_end.then_some(self.config.deadline_ns.max(CUT_WAIT_NS)) }
            }
            _ => None,
        }
    }

    /// From where this process, the next view's sequencer, assigns order numbers: above any that was delivered.
    pub(crate) fn next_order(&self, order: OrderNumber) -> OrderNumber {
        match &self.outbound {
            Some(outbound) if outbound.sequencer.is_some() => order.max(outbound.packer.next_order),
            _ if self.view.members.is_empty() => order, // the first view
            _ => order.max(OrderNumber(numbers_of(self.view.epoch.next()))),
        }
    }

    /// Whether what the view's end leaves undelivered is published again in the next.
    pub(crate) fn publishes_again(&self) -> bool {
        let knows_order = self.stays & !self.lacks & bit(self.view.sequencer) != 0;
        let all_know = self.repairs() && self.config.deadline_ns == 0 && knows_order;
        !self.is_lossy() || all_know
    }

    /// Whether the view's end completes a barrier, where not all members have the markers. The members agreed on
    /// whether any of them had reached it. If one had, nothing from beyond can be lost by going on; else the markers
    /// are set again in the next view.
    pub(crate) fn agreed_barrier(&self) -> Option<bool> {
        match &self.end {
            EpochState::Decided(cut) if self.is_lossy() => Some(cut.phase > self.barrier.phase && self.holds_cut(cut)),
            _ => None,
        }
    }

    /// Whether a datagram of a decided epoch comes too late: the barrier that ends its phase was completed at the cut
    /// without it, because its sender is not in the next view.
    #[cold]
    pub(crate) fn is_behind_the_barrier(&self, header: &DatagramHeader) -> bool {
        let phase = self.barrier.phase;
        let is_decided = self.is_lossy() && matches!(self.end, EpochState::Decided(_));
        is_decided && !header.is_of_phase(phase) && phase_ahead(header, phase).is_none()
    }

    /// Gives up what this process published and did not deliver; returns which messages.
    pub(crate) fn abandon_own(&mut self) -> Option<(Rank, Sequence, Sequence)> {
        let outbound = self.outbound.as_ref()?;
        let (rank, end) = (outbound.rank, outbound.packer.next_sequence);
        let delivered = core::mem::replace(&mut self.streams[rank.index()].delivered, end);
        (delivered < end).then_some((rank, delivered, end))
    }

    /// A heartbeat of the sequencer came, and `end` is where its stream ends. A message that was here before its last
    /// few heartbeats, and has no place although everything the sequencer sent has been walked, will never get one
    /// once a part of the order was lost.
    pub(crate) fn doubt_order(&mut self, now: Instant, end: DatagramNumber) {
        let sequencer = self.view.sequencer;
        let is_behind = self.streams[sequencer.index()].cursor.floor() < end || self.waits_elsewhere();
        if !self.order_lost || is_behind {
            return;
        }
        let max_message_bytes = self.config.limits.max_message_bytes;
        let instance = self.view.instance;
        let step = Step {
            now,
            epoch: self.view.epoch,
            instance,
            max_message_bytes,
            late: false,
            passed: &super::after::always,
        };
        for stream in self.streams.iter_mut().filter(|stream| stream.rank != sequencer) {
            stream.loose.seen.rotate_right(1);
            let doubtful = core::mem::replace(&mut stream.loose.seen[0], stream.window.next);
            while stream.cursor.floor() < doubtful {
                let before = stream.delivered;
                if !stream.deliver_one(None, &step, &mut |_| {}) {
                    break;
                }
                stream.lose(before, stream.delivered);
                stream.excused = stream.delivered;
            }
        }
    }

    /// How long a gap of a stream is waited for, if not for ever.
    fn patience_ns(&self, rank: Rank) -> Option<u64> {
        match self.config.reliability {
            _ if matches!(self.end, EpochState::Decided(_)) && self.may_lack(rank) => Some(0),
            _ if !self.end.is_open() => self.cut_patience_ns(rank), // what is here then is what was promised
            Reliability::Unreliable => Some(self.config.timing.reorder_grace_ns),
            _ => Some(self.config.deadline_ns).filter(|ns| *ns > 0),
        }
    }

    /// Gives up the gaps that are not waited for any longer. Returns whether a stream has thereby come to its end, or
    /// the proposed cut counts as held as far as this stream goes.
    pub(crate) fn give_up(&mut self, now: Instant) -> bool {
        let mut any_over = false;
        self.gap_due = Instant::NEVER;
        for index in 0..self.streams.len() {
            let stream = &self.streams[index];
            if !stream.window.started || !stream.window.has_gap() {
                continue;
            }
            let Some(patience_ns) = self.patience_ns(stream.rank) else { continue };
            let stream = &mut self.streams[index];
            let due = stream.loose.gap_since(stream.window.next, now) + patience_ns;
            if now >= due && !self.end.is_open() {
                self.lacks |= bit(stream.rank);
            }
            if matches!(self.end, EpochState::Fetching(..)) {
                // Nothing is delivered or given up before the decision: the cut counts as held.
                self.gap_due = self.gap_due.min(if now >= due { Instant::NEVER } else { due });
                any_over |= now >= due;
                continue;
            }
            // Not those of the sequencer, whose walk goes as far by itself: its stream holds order runs, and each
            // counts.
            if self.config.order == Order::Total && stream.rank != self.view.sequencer {
                stream.collect_up_to_hole(self.config.limits.max_message_bytes);
            }
            if now >= due {
                let is_beginning = stream.window.next == DatagramNumber(0);
                let sequencer = self.outbound.as_mut().and_then(|outbound| outbound.sequencer.as_mut());
                if is_beginning && let Some(sequencer) = sequencer {
                    // Other members may have what is given up here, so it has a place as well: a heartbeat gives it.
                    let Some(first) = stream.loose.first else { continue };
                    sequencer.begin_at(stream.rank, first);
                }
                let goes_on = stream.skip_gap();
                any_over |= !goes_on && !self.end.is_open() && !core::mem::replace(&mut stream.loose.is_over, true);
            } else {
                self.gap_due = self.gap_due.min(due);
            }
        }
        debug_assert!(self.gap_due > now, "a gap whose time is over is given up");
        any_over
    }

    /// Takes out what was given up and not reported yet; returns whether there was any.
    pub(crate) fn take_lost(&mut self, mut lost: impl FnMut(Rank, Sequence, Sequence)) -> bool {
        let mut any = false;
        for stream in &mut self.streams {
            for (from, to) in stream.skipped.drain(..) {
                lost(stream.rank, from, to);
                any = true;
            }
        }
        any
    }

    /// Steps over holes that have been reached and reports what was lost; returns whether there was one.
    pub(crate) fn cross_holes(&mut self, mut lost: impl FnMut(Rank, Sequence, Sequence)) -> bool {
        // What follows what was given up is due.
        let (mut crossed, mut order_lost) = (self.take_lost(&mut lost), false);
        for stream in &mut self.streams {
            if stream.hole.is_some()
                && let Some((from, to)) = stream.cross_hole()
            {
                lost(stream.rank, from, to);
                crossed = true;
                if let Some(phase) = stream.lost_marker() {
                    self.barrier.note_marker(stream.rank, phase, None);
                }
                order_lost |= self.config.order == Order::Total && stream.rank == self.view.sequencer;
            }
        }
        if order_lost {
            // The order of some messages was lost with it: messages that a later run passes over are lost as well.
            self.streams.iter_mut().for_each(|stream| stream.ordered = true);
            self.order_lost = true;
        }
        crossed
    }
}

impl Stream {
    /// Gives up what is missing up to the next datagram that is here, or to the end if that is known; returns whether
    /// there is such a point.
    fn skip_gap(&mut self) -> bool {
        let missing = self.window.next.0..self.window.known_end.0;
        let held = missing.map(DatagramNumber).find(|number| self.log.holds(*number));
        let first = |number| self.log.get(number).map(|bytes| DatagramHeader::of_checked(bytes).first_sequence());
        let held = held.and_then(|number| Some((number, first(number)?)));
        let stated = self.loose.stated.filter(|end| end.number > self.window.next);
        let stated = stated.map(|end| (end.number, end.sequence));
        let Some((number, sequence)) = held.or(stated) else { return false };
        self.give_up_before(number); // unless an earlier hole has not been reached
        // The messages behind the gap can still be put in order: else that hole might never be reached.
        self.window.complete = self.window.complete.max(sequence);
        true
    }

    /// Takes the fragments of a message that precede a hole: it will never be whole, so no order will come for it, and
    /// the hole must still be reached.
    fn collect_up_to_hole(&mut self, max_message_bytes: usize) {
        let end = self.end();
        while self.hole.is_some()
            && let Some(frame) = self.cursor.frame(&self.log, end)
            && !self.is_stopped_by(&frame)
            && !frame.ends_message()
        {
            let body_bytes = frame.body.len();
            if frame.kind() == Some(Kind::Data) {
                self.assembly.add(&frame, max_message_bytes);
            }
            self.cursor.step(body_bytes, false);
        }
    }

    /// Notes the message with which its sender began in this view, and the end of the stream. Where delivery here has
    /// reached exactly that end, the messages that the view before left missing become visible, and are lost.
    pub(crate) fn hear_bounds(&mut self, first: Sequence, end: End) {
        (self.loose.stated, self.loose.first) = (Some(end), Some(first));
        let (is_there, sequence) = (self.is_walked_to(end.number), end.sequence);
        if is_there && sequence > self.delivered && !self.assembly.is_begun() {
            self.lose(self.delivered, sequence);
            (self.delivered, self.excused, self.cursor.sequence) = (sequence, sequence, sequence);
        }
    }

    /// Where a hole ends, if the sender announced its stream's end there.
    pub(crate) fn far_side(&self, to: DatagramNumber) -> Option<End> {
        self.loose.stated.filter(|end| end.number == to)
    }

    /// At the first frame of a datagram: takes the numbering that its header states. Passes over messages that were
    /// given up before and come again. Returns whether messages were lost before what comes next.
    pub(crate) fn look_ahead(&mut self) -> bool {
        let end = self.end();
        while let Some(frame) = self.cursor.frame(&self.log, end) {
            let (kind, body_bytes, ends) = (frame.kind(), frame.body.len(), frame.ends_message());
            let first = self.cursor.sequence;
            if first > self.delivered {
                self.lose(self.delivered, first);
                (self.delivered, self.excused) = (first, self.excused.max(first));
                if !self.skipped.is_empty() {
                    return true;
                }
            }
            if first == self.delivered || kind != Some(Kind::Data) {
                return false;
            }
            self.assembly.abandon();
            self.cursor.step(body_bytes, ends);
        }
        false
    }

    /// Notes messages as given up, except those that were reported as lost in a hole.
    pub(crate) fn lose(&mut self, from: Sequence, to: Sequence) {
        debug_assert!(from <= to, "lost from {from} to {to}");
        let from = from.max(self.excused);
        if from >= to {
            return;
        }
        match self.skipped.last_mut().filter(|(_, end)| *end == from) {
            Some((_, end)) => *end = to,
            None => self.skipped.push((from, to)),
        }
    }
}
