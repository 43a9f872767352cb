//! Total: one order for all, read from the sequencer's stream.
//!
//! Two senders' messages reach two receivers in different orders, whatever the network promises. Here the sequencer's
//! stream *is* the order (see `sequencer.rs`): every process, the sequencer too, walks it frame by frame. The walk
//! delivers a message of that stream when it reaches it. At an order run the walk delivers so many next messages of the
//! named stream. If one of them is missing, the walk waits there, and everything behind it waits too.
//!
//! Order numbers count messages. A datagram states at which number it begins, and the walk must agree: that detects a
//! receiver whose count is wrong, and gives a late observer the number at which it starts.
//!
//! The order is causal as well: a message sent after another was delivered at its sender was put in order after it.
//!
//! Invariant: each order number is delivered once, in turn, with the same message everywhere.

use super::stream::{Step, Stream};
use crate::counters::{Counter, Counters};
use crate::event::Message;
use crate::mutant::Mutant;
use crate::values::run::Run;
use bourdon_wire::{Kind, OrderNumber, Rank, Sequence, records};

#[derive(Debug)]
pub(crate) struct TotalOrder {
    sequencer: Rank,
    /// The number of the next message.
    pub(crate) next: OrderNumber,
    /// What is left of the run the walk has come to.
    pub(crate) run: Option<Run>,
    /// From this number on nothing is delivered: the members of the view stopped there, or it is not known where.
    pub(crate) end: OrderNumber,
}

enum Walk {
    /// So many messages were delivered.
    Delivered(usize),
    /// The same, and nothing is here behind them.
    Spent(usize),
    /// The walk moved on without delivering.
    Moved,
    /// A message is missing.
    Waits,
}

impl TotalOrder {
    /// The order of a view, from its first number on.
    pub(crate) fn new(sequencer: Rank, next: OrderNumber) -> Self {
        Self { sequencer, next, run: None, end: OrderNumber(u64::MAX) }
    }

    /// Delivers at most `limit` messages; returns how many.
    pub(crate) fn deliver(
        &mut self,
        streams: &mut [Stream],
        limit: usize,
        step: &Step,
        mutant: Option<Mutant>,
        counters: &mut Counters,
        emit: &mut impl FnMut(&Message<'_>),
    ) -> usize {
        let mut count = 0;
        if mutant == Some(Mutant::DeliverBeforeOrdered) {
            for stream in streams.iter_mut().filter(|stream| stream.rank != self.sequencer) {
                while count < limit && stream.deliver_one(Some(self.next), step, emit) {
                    (count, self.next) = (count + 1, self.next.next());
                }
            }
        }
        while count < limit && self.next < self.end {
            let walk = match self.run {
                Some(run) => self.in_run(run, streams, limit - count, step, counters, emit),
                None => self.in_order_stream(&mut streams[self.sequencer.index()], limit - count, step, counters, emit),
            };
            match walk {
                Walk::Delivered(messages) => count += messages,
                Walk::Spent(messages) => {
                    count += messages;
                    break;
                }
                Walk::Moved => {}
                Walk::Waits => break,
            }
        }
        debug_assert!(count <= limit, "{count} messages of at most {limit}");
        count
    }

    /// The walk is in the sequencer's own stream.
    #[inline]
    fn in_order_stream(
        &mut self,
        stream: &mut Stream,
        limit: usize,
        step: &Step,
        counters: &mut Counters,
        emit: &mut impl FnMut(&Message<'_>),
    ) -> Walk {
        let end = stream.end();
        if !stream.cursor.advance(&stream.log, end) {
            return Walk::Waits;
        }
        if stream.cursor.is_first_frame() {
            self.agree(stream.cursor.first_order, counters);
        }
        let limit = self.bounded(limit);
        if limit == 0 {
            return Walk::Waits;
        }
        let count = stream.deliver_plain(Some(self.next), limit, step, emit);
        self.next = self.next + count as u64;
        match count {
            0 => self.at_frame(stream, step, emit),
            _ if stream.cursor.is_spent(&stream.log, end) => Walk::Spent(count),
            _ => Walk::Delivered(count),
        }
    }

    /// The walk is in the sequencer's own stream, at a frame that is no plain message.
    fn at_frame(&mut self, stream: &mut Stream, step: &Step, emit: &mut impl FnMut(&Message<'_>)) -> Walk {
        let Some(frame) = stream.cursor.peek(&stream.log) else { return Walk::Waits };
        match frame.kind() {
            // Reported as lost before, and published again by a process that knew it was not delivered: see `loss.rs`.
            Some(Kind::Data) if stream.is_loose && stream.cursor.sequence < stream.delivered => {
                let (body_bytes, ends) = (frame.body.len(), frame.ends_message());
                stream.cursor.step(body_bytes, ends);
                self.next = self.next + u64::from(ends);
                Walk::Moved
            }
            // A fragmented message is collected as its fragments come: it may be longer than an observer's log.
            Some(Kind::Data) => {
                let before = stream.cursor.sequence;
                if stream.deliver_one(Some(self.next), step, emit) {
                    self.next = self.next.next();
                    return Walk::Delivered(1);
                }
                // A message that began in a hole was stepped over; it had a number too.
                self.next = self.next + stream.cursor.sequence.since(before);
                Walk::Waits
            }
            Some(Kind::Marker) if stream.is_stopped_by(&frame) => Walk::Waits,
            kind => {
                if kind == Some(Kind::OrderRun)
                    && let Some((run, _)) = records::OrderRun::read(frame.body)
                {
                    self.run = Some(Run {
                        rank: Rank(run.rank.get()),
                        first: Sequence(run.first_sequence.get()),
                        count: run.count.get(),
                    });
                }
                stream.cursor.step(frame.body.len(), false);
                Walk::Moved
            }
        }
    }

    /// The walk was sent to another stream.
    #[inline]
    fn in_run(
        &mut self,
        run: Run,
        streams: &mut [Stream],
        limit: usize,
        step: &Step,
        counters: &mut Counters,
        emit: &mut impl FnMut(&Message<'_>),
    ) -> Walk {
        let stream = streams.get_mut(run.rank.index()).filter(|_| run.rank != self.sequencer);
        let Some(stream) = stream.filter(|_| run.count > 0) else {
            self.run = None; // empty, or of a rank that is not in the view
            return Walk::Moved;
        };
        if !stream.is_anchored() {
            return Walk::Waits;
        }
        if run.first < stream.delivered {
            return self.step_over(run, stream, counters);
        }
        if !stream.reach(run.first, step) {
            return self.give_up(run, stream);
        }
        stream.ordered = true;
        let limit = self.bounded(limit);
        debug_assert!(limit > 0 && run.count > 0, "{run:?} at most {limit}");
        let count = stream.deliver_next(Some(self.next), limit.min(run.count as usize), step, emit);
        if count == 0 {
            return self.give_up(run, stream);
        }
        self.advance(run, count as u64);
        Walk::Delivered(count)
    }

    /// Passes over messages that will never come; waits for any other.
    fn give_up(&mut self, run: Run, stream: &mut Stream) -> Walk {
        if !stream.loose.is_over || stream.hole.is_some() || !stream.skipped.is_empty() {
            return Walk::Waits;
        }
        let end = run.first + u64::from(run.count);
        debug_assert!(stream.delivered <= end, "{run:?} of a stream that is at {}", stream.delivered);
        stream.lose(stream.delivered, end);
        (stream.delivered, stream.excused) = (end, end);
        self.advance(run, u64::from(run.count));
        if stream.skipped.is_empty() { Walk::Moved } else { Walk::Waits } // it is reported first
    }

    /// Messages that were delivered before, were lost in a hole, or were sent before this process joined.
    fn step_over(&mut self, run: Run, stream: &Stream, counters: &mut Counters) -> Walk {
        let count = stream.delivered.since(run.first).min(u64::from(run.count));
        let (first, end) = (run.first.max(stream.excused), run.first + count);
        if stream.ordered && end > first {
            counters.add(Counter::OrderFaults, end.since(first));
        }
        self.advance(run, count);
        Walk::Moved
    }

    /// At most so many messages, and none from the order's end on.
    #[inline]
    fn bounded(&self, limit: usize) -> usize {
        let left = self.end.0.saturating_sub(self.next.0);
        limit.min(usize::try_from(left).unwrap_or(usize::MAX))
    }

    fn advance(&mut self, run: Run, count: u64) {
        debug_assert!(count > 0 && count <= u64::from(run.count), "{count} messages of {run:?}");
        let left = run.count - count as u32;
        self.next = self.next + count;
        self.run = (left > 0).then_some(Run { first: run.first + count, count: left, ..run });
    }

    #[inline]
    fn agree(&mut self, first_order: OrderNumber, counters: &mut Counters) {
        if first_order != self.next {
            // Behind: messages were given up, or this process came late. Ahead is impossible unless a process erred.
            if first_order < self.next {
                counters.add(Counter::OrderFaults, 1);
            }
            self.next = self.next.max(first_order);
        }
    }
}

impl Stream {
    /// Moves to the message `sequence`, giving up the earlier messages that will never be put in order. Returns false
    /// while the stream is not complete that far, or what was given up has not been reported.
    fn reach(&mut self, sequence: Sequence, step: &Step) -> bool {
        while self.delivered < sequence {
            if self.is_loose && (self.look_ahead() || self.delivered >= sequence) {
                return self.delivered == sequence && self.skipped.is_empty();
            }
            let before = self.delivered;
            // A message that is delivered nowhere waits for no other group.
            let step = Step { passed: &super::after::always, ..*step };
            if !self.deliver_one(None, &step, &mut |_| {}) {
                return false;
            }
            if self.ordered || self.is_loose {
                self.lose(before, self.delivered);
            }
        }
        self.skipped.is_empty() // it is reported first
    }
}
