//! Walks a stream's log frame by frame, and puts fragments together.
//!
//! Each order of delivery decides *when* the next frame of a stream may be delivered; none of them should know how
//! datagrams hold frames. The cursor points to the next undelivered frame and knows its sequence.
//!
//! A fragmented message is delivered when the cursor reaches its last fragment; only then is it assembled, in one
//! buffer per stream that never exceeds `max_message_bytes`.
//!
//! Invariants: the cursor only moves forward; [`Cursor::floor`] is the oldest datagram it still needs, so a window that
//! never lets a newer datagram into that slot never loses an undelivered one.

use super::log::Log;
use alloc::vec::Vec;
use bourdon_wire::{
    ClientTag, DataHead, DatagramHeader, DatagramNumber, Fragment, Frame, Frames, HEADER_BYTES, MessageName,
    OrderNumber, Sequence, TopicId, TopicName, flags,
};

#[derive(Debug, Default)]
pub(crate) struct Cursor {
    number: DatagramNumber,
    /// The offset of the next frame; 0 before the datagram has been entered.
    offset: usize,
    left: u16,
    /// Frames of this datagram already passed.
    walked: u16,
    /// Frames to pass in the next datagram entered: the position of another process.
    pub(crate) skip: u16,
    /// The sequence of the next message to end.
    pub(crate) sequence: Sequence,
    /// The datagram's place in the total order, by its header.
    pub(crate) first_order: OrderNumber,
    pub(crate) send_time_ns: u64,
    pub(crate) kernel_receive_ns: u64,
    pub(crate) delivered_early: bool,
    /// Whether it walks the own stream, whose last datagram may grow after it was walked (see `Packer::close_early`).
    pub(crate) may_grow: bool,
}

impl Cursor {
    pub(crate) fn at(number: DatagramNumber) -> Self {
        Self { number, ..Self::default() }
    }

    /// Every datagram of which a frame was walked is below this.
    pub(crate) fn mark(&self) -> DatagramNumber {
        let (number, walked) = self.position();
        if walked > 0 { number.next() } else { number }
    }

    /// Its position: the datagram, and how many of its frames have been passed.
    pub(crate) fn position(&self) -> (DatagramNumber, u16) {
        (self.number, self.walked.max(self.skip))
    }

    /// The oldest datagram still needed.
    #[inline]
    pub(crate) fn floor(&self) -> DatagramNumber {
        if self.left == 0 && self.offset != 0 { self.number.next() } else { self.number }
    }

    /// The next frame, if the stream is complete up to it: `end` is the first datagram that may be missing.
    pub(crate) fn frame<'l>(&mut self, log: &'l Log, end: DatagramNumber) -> Option<Frame<'l>> {
        if self.advance(log, end) { self.peek(log) } else { None }
    }

    /// Enters the next datagram once all of this one has been walked. Returns whether there is a frame.
    #[inline(always)]
    pub(crate) fn advance(&mut self, log: &Log, end: DatagramNumber) -> bool {
        while self.left == 0 {
            if self.offset != 0 {
                let grown = self.grown(log);
                if grown > 0 {
                    self.left = grown;
                    break;
                }
                if self.number.next() >= end {
                    return false;
                }
                (self.number, self.offset) = (self.number.next(), 0);
            }
            if self.number >= end || self.enter(log).is_none() {
                return false;
            }
        }
        true
    }

    /// The frames that this datagram, of which all have been walked, has got since.
    #[inline]
    fn grown(&self, log: &Log) -> u16 {
        if !self.may_grow {
            return 0;
        }
        let count = log.get(self.number).map_or(0, |bytes| DatagramHeader::of_checked(bytes).count());
        count.saturating_sub(self.walked)
    }

    /// Whether all that is here of the stream has been walked.
    #[inline]
    pub(crate) fn is_spent(&self, log: &Log, end: DatagramNumber) -> bool {
        self.left == 0 && self.number.next() >= end && self.grown(log) == 0
    }

    #[inline(always)]
    fn enter(&mut self, log: &Log) -> Option<()> {
        let (slot, bytes) = log.entry(self.number)?;
        let header = DatagramHeader::of_checked(bytes);
        debug_assert!(header.number() == self.number, "a slot holds the datagram that it is looked up for");
        self.offset = HEADER_BYTES;
        (self.left, self.walked) = (header.count(), 0);
        self.sequence = header.first_sequence();
        self.first_order = header.first_order();
        self.send_time_ns = header.send_time_ns();
        self.kernel_receive_ns = slot.kernel_receive_ns;
        self.delivered_early = slot.delivered_early;
        for _ in 0..core::mem::take(&mut self.skip) {
            let bytes = log.get(self.number)?;
            let Some(frame) = Frames::new(bytes.get(self.offset..)?, 1).next().filter(|_| self.left > 0) else { break };
            self.step(frame.body.len(), frame.ends_message());
        }
        Some(())
    }

    /// Steps over the frame that [`Cursor::frame`] returned.
    #[inline]
    pub(crate) fn step(&mut self, body_bytes: usize, ends_message: bool) {
        debug_assert!(self.left > 0, "only a frame that is here is stepped over");
        self.offset += bourdon_wire::FRAME_HEADER_BYTES + body_bytes;
        (self.left, self.walked) = (self.left - 1, self.walked + 1);
        self.sequence.0 += u64::from(ends_message);
    }

    /// The frame at which it stands, in a datagram that has been entered.
    #[inline]
    pub(crate) fn peek<'l>(&self, log: &'l Log) -> Option<Frame<'l>> {
        Frames::new(log.get(self.number)?.get(self.offset..)?, 1).next()
    }

    /// What is left of the datagram that the cursor has entered, and how many frames that is.
    #[inline]
    pub(crate) fn rest<'l>(&self, log: &'l Log) -> Option<(&'l [u8], u16)> {
        Some((log.get(self.number)?.get(self.offset..)?, self.left))
    }

    /// Steps over `frames` messages, each in one frame, of `bytes` altogether.
    #[inline]
    pub(crate) fn step_messages(&mut self, frames: u16, bytes: usize) {
        debug_assert!(frames <= self.left && self.offset >= HEADER_BYTES, "{frames} of {} frames", self.left);
        self.offset += bytes;
        (self.left, self.walked) = (self.left - frames, self.walked + frames);
        self.sequence.0 += u64::from(frames);
    }

    /// Whether the next frame is the first of its datagram, which has been entered.
    #[inline]
    pub(crate) fn is_first_frame(&self) -> bool {
        self.offset == HEADER_BYTES
    }

    /// Leaves this datagram or a later one, if it is inside: what is left of it may not be due after all.
    pub(crate) fn stop_before(&mut self, number: DatagramNumber) {
        if self.left > 0 && self.number >= number {
            let (sequence, may_grow) = (self.sequence, self.may_grow);
            *self = Self { skip: self.walked, sequence, may_grow, ..Self::at(self.number) };
        }
    }

    /// Gives up everything before `number`.
    pub(crate) fn jump(&mut self, number: DatagramNumber) {
        debug_assert!(number >= self.floor());
        *self = Self { sequence: self.sequence, may_grow: self.may_grow, ..Self::at(number) };
    }
}

/// A message that is whole.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Whole<'a> {
    pub(crate) topic: TopicId,
    pub(crate) intended_send_ns: Option<u64>,
    pub(crate) client: Option<ClientTag>,
    pub(crate) name: Option<&'a str>,
    pub(crate) after: Option<MessageName>,
    pub(crate) payload: &'a [u8],
}

/// Collects the fragments of one message at a time.
#[derive(Debug, Default)]
pub(crate) struct Assembly {
    bytes: Vec<u8>,
    intended_send_ns: Option<u64>,
    client: Option<ClientTag>,
    name: Option<TopicName>,
    after: Option<MessageName>,
    /// Whether the first fragment was received; a stream joined in the middle of a message skips the rest of it.
    begun: bool,
}

impl Assembly {
    /// Forgets a message whose rest will never come.
    pub(crate) fn abandon(&mut self) {
        self.begun = false;
        self.bytes.clear();
    }

    /// Whether a message has been begun and not ended.
    pub(crate) fn is_begun(&self) -> bool {
        self.begun
    }

    /// The bytes kept.
    pub(crate) fn held_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Adds a data frame; returns the message if this completed it. `limit_bytes` bounds what a forged frame can make
    /// this process keep.
    #[inline]
    pub(crate) fn add<'a>(&'a mut self, frame: &Frame<'a>, limit_bytes: usize) -> Option<Whole<'a>> {
        let head = frame.data()?;
        if frame.flags & flags::WHOLE == flags::WHOLE {
            return Some(Whole {
                topic: frame.topic,
                intended_send_ns: head.intended_send_ns,
                client: head.client,
                name: head.name,
                after: head.after,
                payload: head.payload,
            });
        }
        self.add_fragment(frame, head, limit_bytes)
    }

    fn add_fragment<'a>(&'a mut self, frame: &Frame<'a>, head: DataHead<'a>, limit: usize) -> Option<Whole<'a>> {
        if frame.flags & flags::FIRST != 0 {
            self.bytes.clear();
            self.begun = true;
            (self.intended_send_ns, self.client) = (head.intended_send_ns, head.client);
            self.name = head.name.and_then(|name| TopicName::new(name).ok());
            self.after = head.after;
        }
        let offset = head.fragment.map_or(0, Fragment::offset);
        if !self.begun || offset != self.bytes.len() || offset + head.payload.len() > limit {
            self.begun = false;
            return None;
        }
        self.bytes.extend_from_slice(head.payload);
        debug_assert!(self.bytes.len() <= limit, "no stranger makes this buffer longer");
        self.begun = frame.flags & flags::LAST == 0;
        (!self.begun).then(|| Whole {
            topic: frame.topic,
            intended_send_ns: self.intended_send_ns,
            client: self.client,
            name: self.name.as_ref().map(TopicName::as_str),
            after: self.after,
            payload: &self.bytes,
        })
    }
}
