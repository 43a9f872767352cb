//! Everything that a process keeps of one sender's stream; its own stream is one of them.

use super::after::{Satisfied, is_held};
use super::behind::Behind;
use super::cursor::{Assembly, Cursor};
use super::log::Log;
use super::loose::{End, Loose};
use super::repair::NakSender;
use super::window::Window;
use crate::counters::{Counter, Counters};
use crate::event::Message;
use alloc::vec::Vec;
use bourdon_wire::records::Marker;
use bourdon_wire::{
    DatagramHeader, DatagramNumber, Epoch, Frame, Frames, HEADER_BYTES, Incarnation, InstanceId, Instant, Kind,
    OrderNumber, Rank, Sequence, TopicId, flags,
};

/// What every delivery of one step has in common.
#[derive(Clone, Copy)]
pub(crate) struct Step<'a> {
    pub(crate) now: Instant,
    pub(crate) epoch: Epoch,
    pub(crate) instance: InstanceId,
    pub(crate) max_message_bytes: usize,
    /// The message is delivered too late for its place.
    pub(crate) late: bool,
    /// Which messages of other groups need not be waited for.
    pub(crate) passed: Satisfied<'a>,
}

/// A hole that no member can fill any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hole {
    pub(crate) from: DatagramNumber,
    pub(crate) to: DatagramNumber,
}

#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) rank: Rank,
    /// The sender's incarnation in the view; 0 where its rank is not in it.
    pub(crate) incarnation: Incarnation,
    pub(crate) log: Log,
    pub(crate) window: Window,
    pub(crate) cursor: Cursor,
    pub(crate) assembly: Assembly,
    pub(crate) nak_sender: NakSender,
    /// Every message below this has been delivered or given up.
    pub(crate) delivered: Sequence,
    pub(crate) hole: Option<Hole>,
    /// Nothing below this can be retransmitted: the end of a second hole, which begins once the first has been crossed.
    pub(crate) retained_from: DatagramNumber,
    /// The phase of the datagram behind the last hole, if a marker was lost in that hole: delivery waits at the hole's
    /// end until the barrier is complete.
    resumes_in: Option<u64>,
    /// Nothing from this datagram on may be delivered yet: too few members hold it, or it lies beyond a cut.
    pub(crate) stop: DatagramNumber,
    /// Markers of phases below this may be passed; at others delivery stops until the barrier is complete.
    pub(crate) passes: u64,
    /// Every datagram below this is stored, and counts as held: at `durable`; elsewhere all that was received counts.
    pub(crate) stored: DatagramNumber,
    /// Below this slots may be used again, as far as storage is concerned; and what they would hold then ends here.
    freed: DatagramNumber,
    pub(super) accepts_to: DatagramNumber,
    /// Whether the sequencer has ordered any of its messages since this process came.
    pub(crate) ordered: bool,
    /// The first message that was due here in this view.
    pub(crate) began: Sequence,
    /// Messages below this may be missing here for a good reason: this process came later, or they were lost in a hole.
    pub(crate) excused: Sequence,
    /// Messages given up and not reported yet, from message to message: messages whose place in the total order no
    /// process can give any more, and at lossy levels the messages that headers counted.
    pub(crate) skipped: Vec<(Sequence, Sequence)>,
    /// The datagram whose memory was brought near last.
    warmed: DatagramNumber,
    /// Whether its sender is in the view.
    pub(crate) is_present: bool,
    /// Whether messages may be lost.
    pub(crate) is_loose: bool,
    pub(crate) loose: Loose,
    /// Whether its next message waits for a message of another group.
    pub(crate) waits_elsewhere: bool,
    /// Whether it has left this process, an observer, behind.
    pub(super) behind: Behind,
    /// While the first datagram, which gives the message at which this process begins, is still awaited: the first
    /// message that was published after this process came.
    awaits_anchor: Option<Sequence>,
}

impl Stream {
    /// A stream whose first message has this sequence.
    pub(crate) fn new(rank: Rank, log: Log, mut window: Window, first: Sequence, phase: u64) -> Self {
        assert!(window.next == DatagramNumber(0), "a stream begins with its first datagram");
        let nak_sender = NakSender::new(log.capacity() as usize);
        window.complete = first;
        let mut cursor = Cursor::default();
        cursor.sequence = first;
        Self {
            rank,
            incarnation: Incarnation(0),
            log,
            window,
            nak_sender,
            cursor,
            assembly: Assembly::default(),
            delivered: first,
            hole: None,
            retained_from: DatagramNumber(0),
            resumes_in: None,
            stop: DatagramNumber(u64::MAX),
            passes: phase,
            stored: DatagramNumber(u64::MAX),
            freed: DatagramNumber(u64::MAX),
            accepts_to: DatagramNumber(u64::MAX),
            ordered: false,
            began: first,
            excused: first,
            skipped: Vec::new(),
            warmed: DatagramNumber(u64::MAX),
            is_present: true,
            is_loose: false,
            loose: Loose::default(),
            waits_elsewhere: false,
            behind: Behind::default(),
            awaits_anchor: None,
        }
    }

    /// Begins in the middle, for a process that comes late.
    pub(crate) fn start_at(&mut self, number: DatagramNumber, sequence: Sequence) {
        self.window.start_at(number, sequence);
        self.cursor = Cursor::at(number);
        self.cursor.sequence = sequence;
        (self.delivered, self.excused, self.began) = (sequence, sequence, sequence);
    }

    /// Begins at an old datagram; only when it arrives is it known which message that is. The next message to be
    /// published is `next`, the first of this view was `first`.
    pub(crate) fn start_at_oldest(&mut self, number: DatagramNumber, first: Sequence, next: Sequence) {
        self.start_at(number, if number.0 == 0 { first } else { Sequence(0) });
        self.awaits_anchor = Some(next).filter(|_| number.0 > 0);
    }

    /// Whether it is known which message comes next.
    #[inline]
    pub(crate) fn is_anchored(&self) -> bool {
        self.window.started && self.awaits_anchor.is_none()
    }

    /// The first message that this process has neither delivered nor given up, of those that it must deliver or report
    /// as lost: all messages since it came. `None` if the stream has not begun here.
    pub(crate) fn owed_from(&self) -> Option<Sequence> {
        self.window.started.then(|| self.awaits_anchor.unwrap_or(self.delivered.max(self.excused)))
    }

    /// Brings the memory that the next datagram will take near, if the stream has moved since the last time.
    pub(crate) fn warm(&mut self) {
        if self.warmed != self.window.next {
            self.warmed = self.window.next;
            self.log.warm(self.warmed);
        }
    }

    /// A datagram came: if it is the awaited one, it gives the message that comes next.
    #[inline]
    pub(crate) fn anchor(&mut self) {
        if self.awaits_anchor.is_some() && self.hole.is_none() && self.window.next > self.cursor.floor() {
            let Some(bytes) = self.log.get(self.cursor.floor()) else { return };
            let sequence = DatagramHeader::of_checked(bytes).first_sequence();
            self.cursor.sequence = sequence;
            (self.delivered, self.excused, self.began) = (sequence, sequence, sequence);
            self.awaits_anchor = None;
        }
    }

    /// The oldest datagram still needed here: datagrams in a hole are not needed once the hole has been reached.
    #[inline]
    pub(crate) fn floor(&self) -> DatagramNumber {
        let floor = self.cursor.floor();
        debug_assert!(self.hole.is_none_or(|hole| hole.from <= hole.to && hole.to <= self.window.next));
        match self.hole {
            Some(hole) if floor >= hole.from => hole.to,
            _ => floor,
        }
    }

    /// How far this process holds the stream: what it reports to others, and counts itself.
    #[inline]
    pub(crate) fn held(&self) -> DatagramNumber {
        self.window.next.min(self.stored)
    }

    /// Slots below this may be used again, as far as storage is concerned.
    pub(crate) fn free(&mut self, freed: DatagramNumber) {
        (self.freed, self.accepts_to) = (freed, DatagramNumber(freed.0.saturating_add(self.log.capacity())));
    }

    /// The oldest datagram whose slot may not be used again.
    #[inline]
    pub(crate) fn slots_from(&self) -> DatagramNumber {
        self.floor().min(self.freed)
    }

    /// The first datagram that can't be delivered yet.
    #[inline]
    pub(crate) fn end(&self) -> DatagramNumber {
        let complete = match self.hole {
            None => self.window.next,
            Some(hole) => hole.from,
        };
        debug_assert!(complete <= self.window.next, "a hole begins where something is missing");
        complete.min(self.stop)
    }

    /// Goes on exactly at the position of another process: before the frame that many frames into a datagram.
    pub(crate) fn resume(&mut self, number: DatagramNumber, walked: u16, sequence: Sequence) {
        assert!(self.hole.is_none() && !self.log.holds(number), "a stream goes on where nothing was received yet");
        self.start_at(number, sequence);
        self.cursor.skip = walked;
    }

    /// The marker at which delivery stands, if there is one.
    pub(crate) fn marker(&mut self) -> Option<(u64, Option<&[u8]>)> {
        let end = self.end();
        if self.is_loose {
            self.look_ahead();
        }
        // Frames that mean nothing to delivery may precede it, and in total order no run leads across it.
        while let Some(frame) = self.cursor.frame(&self.log, end) {
            let body_bytes = frame.body.len();
            let passed = match frame.kind() {
                Some(Kind::Data | Kind::OrderRun) => false,
                Some(Kind::Marker) => !self.is_stopped_by(&frame), // of a phase that is over, or only a request
                _ => true,
            };
            if !passed {
                break;
            }
            self.cursor.step(body_bytes, false);
            if self.is_loose {
                self.look_ahead();
            }
        }
        let frame = self.cursor.frame(&self.log, end).filter(|frame| frame.kind() == Some(Kind::Marker))?;
        let (marker, payload) = Marker::read(frame.body).filter(|(marker, _)| marker.ends_phase())?;
        Some((marker.phase.get(), (marker.carries.get() != 0).then_some(payload)))
    }

    /// The phase that ends where delivery stands: at a marker, or at the end of a hole in which the marker was lost.
    pub(crate) fn ending_phase(&mut self) -> Option<u64> {
        self.lost_marker().or_else(|| self.marker().map(|(phase, _)| phase))
    }

    /// The phase whose marker was lost in the hole at whose end delivery waits.
    pub(crate) fn lost_marker(&self) -> Option<u64> {
        self.resumes_in?.checked_sub(1)
    }

    /// The phase goes up: markers of earlier phases are passed, and so is a hole that ends in this phase.
    pub(crate) fn enter_phase(&mut self, phase: u64) {
        debug_assert!(phase >= self.passes, "no barrier is taken back: {phase} after {}", self.passes);
        self.passes = phase;
        if self.resumes_in.is_some_and(|resumes_in| resumes_in <= phase) {
            self.resumes_in = None;
            self.hole = self.hole.filter(|hole| hole.from < hole.to); // more was given up meanwhile
            self.give_up_before(self.retained_from);
        }
    }

    /// Whether all of the stream up to a datagram, and nothing from there on, has been received and walked.
    pub(crate) fn is_walked_to(&self, end: DatagramNumber) -> bool {
        end == self.window.next && self.cursor.floor() >= end && self.hole.is_none()
    }

    /// Its sender announced where the stream ends, and in which phase. Delivery that has come to that end without the
    /// marker of an earlier phase will not meet it any more: it was lost, or this process began behind it. Returns
    /// whether that is so.
    pub(crate) fn hear_phase(&mut self, end: End) -> bool {
        let lost = self.window.started && self.is_walked_to(end.number) && self.is_ahead(end.phase);
        if lost {
            self.resumes_in = Some(end.phase);
            self.hole = Some(Hole { from: end.number, to: end.number });
        }
        lost
    }

    /// Whether a phase is ahead of this stream's, and near enough to be one that its sender can be in.
    fn is_ahead(&self, phase: u64) -> bool {
        (self.passes + 1..self.passes + PHASES_AHEAD).contains(&phase)
    }

    /// Whether a frame is a marker that may not be passed yet.
    #[inline]
    pub(crate) fn is_stopped_by(&self, frame: &Frame<'_>) -> bool {
        frame.kind() == Some(Kind::Marker)
            && Marker::read(frame.body)
                .is_some_and(|(marker, _)| marker.ends_phase() && marker.phase.get() >= self.passes)
    }

    /// Whether messages from beyond the marker at which delivery stands have come: a later datagram that has any.
    pub(crate) fn has_beyond_marker(&self) -> bool {
        self.window.complete > self.delivered
    }

    /// Whether the messages that count as complete end where the last datagram below the first gap does.
    pub(crate) fn counts_complete(&self) -> bool {
        let last = self.window.next.0.checked_sub(1).and_then(|last| self.sequence_after(DatagramNumber(last)));
        last.is_none_or(|end| end == self.window.complete)
    }

    /// The sequence of the message after the last one that ends in a datagram.
    pub(crate) fn sequence_after(&self, number: DatagramNumber) -> Option<Sequence> {
        let messages = self.log.slot(number)?.messages;
        Some(DatagramHeader::of_checked(self.log.get(number)?).first_sequence() + u64::from(messages))
    }

    /// The newest datagram whose first message to end is earlier than this message, and that earlier message: a walk
    /// from there passes every fragment of this message.
    pub(crate) fn beginning_of(&self, sequence: Sequence) -> Option<(DatagramNumber, Sequence)> {
        let mut number = self.cursor.floor().min(self.window.next);
        loop {
            if let Some(bytes) = self.log.get(number) {
                let first = DatagramHeader::of_checked(bytes).first_sequence();
                // With `first == sequence` its first fragments may be in the datagram before.
                if first < sequence || number.0 == 0 {
                    return Some((number, first));
                }
            } else if number < self.window.next {
                return None;
            }
            number = DatagramNumber(number.0.checked_sub(1)?);
        }
    }

    /// Delivers what follows in the datagram that the cursor has entered, up to the first frame that is not a plain
    /// message, at most `limit`; returns how many. The common case, in which nothing is looked up between two messages.
    #[inline(always)]
    pub(crate) fn deliver_plain(
        &mut self,
        order: Option<OrderNumber>,
        limit: usize,
        step: &Step,
        emit: &mut impl FnMut(&Message<'_>),
    ) -> usize {
        let is_due = !self.cursor.delivered_early && self.cursor.sequence == self.delivered;
        let Some((mut rest, left)) = self.cursor.rest(&self.log).filter(|_| is_due) else { return 0 };
        let (before, mut count) = (rest.len(), 0);
        let most = left.min(u16::try_from(limit).unwrap_or(u16::MAX));
        let mut message = Message {
            sender: self.rank,
            incarnation: self.incarnation,
            instance: step.instance,
            sequence: self.cursor.sequence,
            order,
            epoch: step.epoch,
            late: step.late,
            topic: TopicId(0),
            name: None,
            send_time_ns: self.cursor.send_time_ns,
            kernel_receive_ns: Some(self.cursor.kernel_receive_ns).filter(|ns| *ns != 0),
            delivered_at: step.now,
            client: None,
            barrier: None,
            payload: &[],
        };
        while count < most
            && let Some((topic, payload, after)) = bourdon_wire::split_plain(rest)
        {
            (message.topic, message.payload) = (topic, payload);
            emit(&message);
            message.sequence.0 += 1;
            message.order = message.order.map(|order| order + 1);
            (rest, count) = (after, count + 1);
        }
        debug_assert!(usize::from(count) <= limit, "{count} of at most {limit}");
        if count > 0 {
            self.cursor.step_messages(count, before - rest.len());
            self.delivered = self.cursor.sequence;
        }
        usize::from(count)
    }

    /// Delivers the next message, if all of it is here, and the plain messages behind it in the same datagram, at most
    /// `limit`; returns how many.
    #[inline]
    pub(crate) fn deliver_next(
        &mut self,
        order: Option<OrderNumber>,
        limit: usize,
        step: &Step,
        emit: &mut impl FnMut(&Message<'_>),
    ) -> usize {
        debug_assert!(limit > 0, "there is something to deliver");
        // Where messages may be lost, what was lost before the next message is reported first.
        if !self.is_loose && self.cursor.advance(&self.log, self.end()) {
            let count = self.deliver_plain(order, limit, step, emit);
            if count > 0 {
                return count;
            }
        }
        if !self.deliver_one(order, step, emit) {
            return 0;
        }
        1 + self.deliver_plain(order.map(OrderNumber::next), limit - 1, step, emit)
    }

    /// Delivers the next message, if all of it is here, and returns whether there was one.
    pub(crate) fn deliver_one(
        &mut self,
        order: Option<OrderNumber>,
        step: &Step,
        emit: &mut impl FnMut(&Message<'_>),
    ) -> bool {
        let end = self.end();
        loop {
            if self.is_loose && self.look_ahead() {
                return false; // reported first
            }
            let Some(frame) = self.cursor.frame(&self.log, end) else { return false };
            let (body_bytes, ends) = (frame.body.len(), frame.ends_message());
            if self.is_stopped_by(&frame) {
                return false;
            }
            let early = self.cursor.delivered_early && frame.flags & flags::FIRST != 0 && ends;
            self.waits_elsewhere = !early && is_held(&frame, step.passed);
            if self.waits_elsewhere {
                return false;
            }
            let mut cut = frame.kind() == Some(Kind::Data) && ends && self.loose.may_be_cut;
            if frame.kind() == Some(Kind::Data)
                && !early
                && let Some(message) = self.assembly.add(&frame, step.max_message_bytes)
            {
                cut = false;
                emit(&Message {
                    sender: self.rank,
                    incarnation: self.incarnation,
                    instance: step.instance,
                    sequence: self.cursor.sequence,
                    order,
                    epoch: step.epoch,
                    late: step.late,
                    topic: message.topic,
                    name: message.name,
                    send_time_ns: message.intended_send_ns.unwrap_or(self.cursor.send_time_ns),
                    kernel_receive_ns: Some(self.cursor.kernel_receive_ns).filter(|ns| *ns != 0),
                    delivered_at: step.now,
                    client: message.client,
                    barrier: None,
                    payload: message.payload,
                });
            }
            let sequence = self.cursor.sequence;
            self.cursor.step(body_bytes, ends);
            if ends {
                self.delivered = self.delivered.max(self.cursor.sequence);
                self.loose.may_be_cut = false;
                if cut && !early {
                    self.lose(sequence, sequence.next()); // it began in a hole
                    if !self.skipped.is_empty() {
                        return false; // reported first
                    }
                }
                if !early {
                    return true;
                }
            }
        }
    }

    /// Steps over a hole once everything before it has been delivered and what follows it is here. Returns which
    /// messages were lost in it; a message that ends behind the hole and does not begin there is among them.
    pub(crate) fn cross_hole(&mut self) -> Option<(Sequence, Sequence)> {
        let hole = self.hole.filter(|hole| self.cursor.floor() >= hole.from && self.resumes_in.is_none())?;
        let (first, cut) = match self.log.get(hole.to) {
            Some(bytes) => {
                let header = DatagramHeader::of_checked(bytes);
                self.loose.may_be_cut = false; // a message that began in the hole is reported with it
                self.resumes_in = phase_ahead(&header, self.passes);
                (header.first_sequence(), begins_inside_a_message(bytes, &header))
            }
            None => {
                let end = self.far_side(hole.to)?;
                self.resumes_in = self.is_ahead(end.phase).then_some(end.phase);
                self.loose.may_be_cut = true;
                (end.sequence, false)
            }
        };
        // Messages published before this process came were never promised.
        let reported = if self.is_loose { self.delivered.max(self.excused) } else { self.delivered };
        let from = self.awaits_anchor.take().map_or(reported, |came| came.min(first));
        let from = if self.is_loose { from.max(self.excused) } else { from }; // it was reported with an earlier hole
        debug_assert!(hole.from <= hole.to && self.cursor.floor() <= hole.to, "{hole:?} is ahead of the walk");
        self.cursor.jump(hole.to);
        self.cursor.sequence = first;
        self.assembly.abandon();
        // A lossy stream may repeat messages that were given up before.
        let first = if self.is_loose { first.max(self.delivered) } else { first };
        let to = first + u64::from(cut);
        (self.delivered, self.excused) = (first, to);
        self.hole = self.resumes_in.map(|_| Hole { from: hole.to, to: hole.to });
        if self.hole.is_none() {
            self.give_up_before(self.retained_from);
        }
        Some((from.min(to), to))
    }

    /// A datagram beyond the window of an observer for which no publisher waits was discarded.
    #[cold]
    pub(crate) fn fall_behind(&mut self, now: Instant, counters: &mut Counters) {
        if !self.window.has_gap() {
            return; // nothing is missing: its application does not fetch
        }
        if self.behind.discard(now, self.window.next, self.log.capacity()) {
            counters.add(Counter::FellBehind, 1);
            self.give_up_before(self.window.known_end);
        }
    }

    /// A datagram came while this observer skips, where the stream was known up to `known_end`: what is missing before
    /// it is given up.
    #[cold]
    pub(crate) fn skip_to(&mut self, now: Instant, number: DatagramNumber, known_end: DatagramNumber) {
        let missing = if number > known_end { number.since(known_end) } else { 0 };
        self.behind.note(now, missing, self.log.capacity());
        self.give_up_before(number);
    }

    /// Gives up what is missing before `oldest`: it can't be retransmitted any more, or comes too late. What has
    /// arrived before it is delivered.
    pub(crate) fn give_up_before(&mut self, oldest: DatagramNumber) {
        if oldest <= self.window.next {
            return;
        }
        let mut arrived = (self.window.next.0 + 1..oldest.0).map(DatagramNumber);
        let to = arrived.find(|number| self.log.holds(*number)).unwrap_or(oldest);
        match &mut self.hole {
            None => self.hole = Some(Hole { from: self.window.next, to }),
            Some(hole) if hole.to == self.window.next => hole.to = to,
            Some(_) => return self.retained_from = self.retained_from.max(oldest),
        }
        if to < oldest {
            self.retained_from = self.retained_from.max(oldest);
        }
        debug_assert!(self.hole.is_some_and(|hole| hole.from < hole.to), "{:?}", self.hole);
        self.window.skip_to(&self.log, to);
        debug_assert!(self.end() <= self.window.next && self.window.next >= to, "{:?}", self.window);
    }
}

/// A process lags behind by fewer barriers than this: then the four bits in a header identify a datagram's phase.
const PHASES_AHEAD: u64 = 8;
const _: () = assert!(PHASES_AHEAD < 1 << 4);

/// The phase of a datagram, if it is ahead of `passes`.
pub(super) fn phase_ahead(header: &DatagramHeader, passes: u64) -> Option<u64> {
    (1..PHASES_AHEAD).map(|ahead| passes + ahead).find(|phase| header.is_of_phase(*phase))
}

/// Whether a datagram's first message began in an earlier one.
fn begins_inside_a_message(bytes: &[u8], header: &DatagramHeader) -> bool {
    let data = |frame: &Frame<'_>| frame.kind() == Some(Kind::Data);
    let first = Frames::new(bytes.get(HEADER_BYTES..).unwrap_or(&[]), header.count()).find(data);
    first.is_some_and(|frame| frame.flags & flags::FIRST == 0)
}
