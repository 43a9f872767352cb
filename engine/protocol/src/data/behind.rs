//! Behind: an observer that can't catch up goes on at the present.
//!
//! A receiver's window ends a log's length after the oldest datagram that it has not delivered. If the stream is ahead
//! by more, what arrives is of no use: it is discarded, and requested again once the window has moved. A receiver that
//! lives on repairs alone gets slower than one that loses now and then, falls behind further, and at last requests what
//! its sender has just overwritten. So an observer that no publisher waits for judges whether it gains: if it discards
//! an eighth of a window's datagrams and advances by less meanwhile, it *slides*. It then gives up what is missing at
//! the old end of its window as new datagrams come, until a whole window has no gap. It loses what repairs have not
//! brought by then, and nothing that arrived.
//!
//! A forged datagram makes an observer that slides give up what is missing in half a window at most.
//!
//! Invariant: an observer gives up a datagram here only if one that is a whole window later has been sent.

use super::stream::Stream;
use bourdon_wire::DatagramNumber;

/// The part of a window by which an observer judges whether it gains, and that it has room for after it slid.
const PART: u64 = 8;
/// The part of a window by which it slides at once.
const SLIDE_PART: u64 = 2;

/// How far one stream has left an observer behind.
#[derive(Debug, Default)]
pub(crate) struct Behind {
    /// Datagrams discarded since the stream had come to `next`.
    discarded: u64,
    next: DatagramNumber,
    slides: bool,
}

impl Behind {
    /// There is no gap any more.
    #[inline]
    pub(crate) fn caught_up(&mut self) {
        (self.discarded, self.slides) = (0, false);
    }
}

impl Stream {
    /// A datagram came that lies beyond the window. Returns whether the observer begins to slide.
    #[cold]
    pub(crate) fn fall_behind(&mut self, number: DatagramNumber) -> bool {
        let (capacity, floor) = (self.log.capacity(), self.floor());
        let part = capacity / PART;
        debug_assert!(number.since(floor) >= capacity, "it lies beyond the window");
        let begins = !self.behind.slides && self.loses_ground(part);
        if self.behind.slides {
            let wanted = DatagramNumber((number.0 + part).saturating_sub(capacity));
            let to = wanted.min(floor + capacity / SLIDE_PART).min(self.window.known_end);
            if to > self.window.next {
                self.give_up_before(to);
            }
        }
        begins
    }

    fn loses_ground(&mut self, part: u64) -> bool {
        let behind = &mut self.behind;
        if behind.discarded == 0 {
            behind.next = self.window.next;
        }
        behind.discarded += 1;
        if behind.discarded < part {
            return false;
        }
        behind.discarded = 0;
        behind.slides = self.window.next.since(behind.next) < part;
        behind.slides
    }
}
