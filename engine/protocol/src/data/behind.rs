//! Behind: an observer that can't catch up goes on at the present.
//!
//! A receiver's window ends a log's length after the oldest datagram that it has not delivered. If the stream is ahead
//! by more, what arrives is of no use: it is discarded, and requested again once the window has moved. A receiver that
//! lives on repairs alone gets slower than one that loses now and then, falls behind further, and at last requests what
//! its sender has just overwritten. So an observer that no publisher waits for judges whether it gains: if it discards
//! an eighth of a window's datagrams and advances by less meanwhile, it *skips*. From then on it gives up each gap at
//! once and requests nothing, until hardly anything was missing in a few windows, or in a second. What arrives is
//! delivered.
//!
//! A forged datagram can make an observer that skips give up what is missing in one window.
//!
//! Invariant: an observer begins to skip only once a datagram that is a whole window ahead has been sent.

use bourdon_wire::{DatagramNumber, Instant};

/// The part of a window by which an observer judges whether it gains.
const JUDGED_PART: u64 = 8;
/// It judges over so many windows whether it still loses much: an overrun socket loses many datagrams at once, and what
/// it held has no gap.
const SKIPPED_WINDOWS: u64 = 4;
/// A slow stream is judged after this time.
const JUDGED_NS: u64 = 1_000_000_000;
/// Less than this part lost is requested again.
const TOLERATED_PART: u64 = 32;

/// How far one stream has left an observer behind.
#[derive(Debug, Default)]
pub(crate) struct Behind {
    /// Datagrams discarded since the stream had come to `next`.
    discarded: u64,
    next: DatagramNumber,
    skips: bool,
    /// While it skips: what came, and what was missing, since it was judged last.
    arrived: u64,
    missing: u64,
    judged_at: Instant,
}

impl Behind {
    /// Whether gaps are given up at once.
    #[inline]
    pub(crate) fn skips(&self) -> bool {
        self.skips
    }

    /// A datagram beyond the window was discarded, where everything below `next` has come. Returns whether the observer
    /// begins to skip.
    #[cold]
    pub(crate) fn discard(&mut self, now: Instant, next: DatagramNumber, capacity: u64) -> bool {
        if self.skips {
            return false;
        }
        if self.discarded == 0 {
            self.next = next;
        }
        self.discarded += 1;
        let part = capacity / JUDGED_PART;
        if self.discarded < part {
            return false;
        }
        (self.discarded, self.arrived, self.missing, self.judged_at) = (0, 0, 0, now);
        self.skips = next.since(self.next) < part;
        self.skips
    }

    /// A datagram came while the observer skips, before which so many were missing.
    pub(crate) fn note(&mut self, now: Instant, missing: u64, capacity: u64) {
        debug_assert!(self.skips);
        (self.arrived, self.missing) = (self.arrived + 1, self.missing + missing);
        let sent = self.arrived + self.missing;
        if sent >= capacity * SKIPPED_WINDOWS || now.since(self.judged_at) >= JUDGED_NS {
            self.skips = self.missing * TOLERATED_PART > sent;
            (self.arrived, self.missing, self.judged_at) = (0, 0, now);
        }
    }

    /// There is no gap any more: what was discarded before does not count.
    #[inline]
    pub(crate) fn caught_up(&mut self) {
        self.discarded = 0;
    }
}
