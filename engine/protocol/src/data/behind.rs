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

use super::window::Window;
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
    /// A datagram came that lies beyond the window, which begins at `floor` and is `capacity` long. Returns the
    /// datagram before which to give up what is missing, and whether the observer begins to slide.
    #[cold]
    pub(crate) fn discard(
        &mut self,
        number: DatagramNumber,
        window: &Window,
        (floor, capacity): (DatagramNumber, u64),
    ) -> (Option<DatagramNumber>, bool) {
        let part = capacity / PART;
        debug_assert!(number.since(floor) >= capacity, "{number} lies beyond the window");
        let begins = !self.slides && self.loses_ground(window.next, part);
        if !self.slides {
            return (None, false);
        }
        let wanted = DatagramNumber((number.0 + part).saturating_sub(capacity));
        let to = wanted.min(floor + capacity / SLIDE_PART).min(window.known_end);
        (Some(to).filter(|to| *to > window.next), begins)
    }

    fn loses_ground(&mut self, next: DatagramNumber, part: u64) -> bool {
        if self.discarded == 0 {
            self.next = next;
        }
        self.discarded += 1;
        if self.discarded < part {
            return false;
        }
        self.discarded = 0;
        self.slides = next.since(self.next) < part;
        self.slides
    }

    /// There is no gap any more.
    #[inline]
    pub(crate) fn caught_up(&mut self) {
        (self.discarded, self.slides) = (0, false);
    }
}
