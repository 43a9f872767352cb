//! The window of another member's stream: which datagrams have been received, and which are known to be missing.
//!
//! Datagrams arrive late, twice, or not at all. The window accepts each number once, as long as it is neither delivered
//! nor so far ahead that its slot still holds something undelivered, and keeps two watermarks: below `next` everything
//! has been received; `known_end` is the first number that no datagram or heartbeat has named yet. The gaps are between
//! the two.
//!
//! Invariants: `next` never falls; `next <= known_end <= floor + capacity`, so that a false end of a stream costs no
//! more than a window of requests. `known_end` falls only where a later heartbeat announces an earlier end: then the
//! requests for what a false one announced end as well.

use super::log::Log;
use bourdon_wire::{Datagram, DatagramNumber, Sequence};

#[derive(Debug, Default)]
pub(crate) struct Window {
    /// Every datagram below this has been received.
    pub(crate) next: DatagramNumber,
    /// One past the highest datagram known to have been sent.
    pub(crate) known_end: DatagramNumber,
    /// Every message below this has been received to the last byte.
    pub(crate) complete: Sequence,
    /// Whether it is known where this stream begins for this process.
    pub(crate) started: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Acceptance {
    /// Kept. `early`: an earlier datagram is still missing.
    New { early: bool },
    /// Received before.
    Duplicate,
    /// Too far ahead to be kept.
    Beyond,
}

impl Window {
    /// A stream that begins at its first datagram, as every member's does in a new view.
    pub(crate) fn from_the_start() -> Self {
        Self { started: true, ..Self::default() }
    }

    /// Begins a stream at `number`, for a process that comes late.
    pub(crate) fn start_at(&mut self, number: DatagramNumber, sequence: Sequence) {
        *self = Self { next: number, known_end: number, complete: sequence, started: true };
    }

    /// Accepts a datagram. `floor` is the oldest datagram not wholly delivered.
    #[inline]
    pub(crate) fn accept(
        &mut self,
        log: &mut Log,
        datagram: &Datagram<'_>,
        kernel_receive_ns: u64,
        floor: DatagramNumber,
    ) -> Acceptance {
        let number = datagram.header.number();
        debug_assert!(self.started, "it is known where the stream begins");
        debug_assert!(floor <= self.next, "only what has been received is delivered: {floor} of {self:?}");
        debug_assert!(!log.holds(self.next), "what is here has been counted: {self:?}");
        if number < self.next || number != self.next && log.holds(number) {
            return Acceptance::Duplicate;
        }
        self.note_end(number.next(), log.capacity(), floor);
        if number.since(floor) >= log.capacity() || datagram.bytes.len() > log.mtu() {
            return Acceptance::Beyond;
        }
        log.put(number, datagram.bytes, datagram.messages, kernel_receive_ns);
        debug_assert!(number < self.known_end && number < floor + log.capacity(), "{number} in {self:?}");
        if number != self.next {
            return Acceptance::New { early: true };
        }
        self.next = number.next();
        self.complete = datagram.header.first_sequence() + u64::from(datagram.messages);
        if self.next < self.known_end {
            self.close_gap(log);
        }
        debug_assert!(self.next <= self.known_end, "{self:?}");
        Acceptance::New { early: false }
    }

    fn close_gap(&mut self, log: &Log) {
        while let Some(bytes) = log.get(self.next).filter(|_| self.next < self.known_end) {
            let messages = log.slot(self.next).map_or(0, |slot| slot.messages);
            self.complete = bourdon_wire::DatagramHeader::of_checked(bytes).first_sequence() + u64::from(messages);
            self.next = self.next.next();
        }
        debug_assert!(self.next == self.known_end || !log.holds(self.next), "a gap begins with a missing datagram");
    }

    /// Notes that the stream goes up to `end`.
    #[inline]
    pub(crate) fn note_end(&mut self, end: DatagramNumber, capacity: u64, floor: DatagramNumber) {
        self.known_end = self.known_end.max(end.min(floor + capacity));
        debug_assert!(self.next <= self.known_end, "{self:?}");
    }

    /// The sender announced that its stream ends at `end`: nothing is missing from there on, except before a datagram
    /// that has been received. A late heartbeat does the same until the next one comes.
    pub(crate) fn lower_end(&mut self, log: &Log, end: DatagramNumber) {
        let least = end.max(self.next).0;
        let held = (least..self.known_end.0).rev().map(DatagramNumber).find(|number| log.holds(*number));
        self.known_end = self.known_end.min(held.map_or(DatagramNumber(least), DatagramNumber::next));
        debug_assert!(self.next <= self.known_end, "{self:?}");
    }

    /// Gives up what is missing below `number`.
    pub(crate) fn skip_to(&mut self, log: &Log, number: DatagramNumber) {
        self.next = self.next.max(number);
        self.known_end = self.known_end.max(self.next);
        self.close_gap(log);
        debug_assert!(self.next >= number && self.next <= self.known_end, "{self:?}");
    }

    #[inline]
    pub(crate) fn has_gap(&self) -> bool {
        self.next < self.known_end
    }
}
