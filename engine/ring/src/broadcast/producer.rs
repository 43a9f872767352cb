//! The writing end of the broadcast ring; algorithm and invariants are in `mod.rs`.

use super::{Consumer, HEADER_BYTES, MAX_GATING, Shared, UNUSED, frame_bytes};
use crate::frame::{self, Header, WORD_BYTES};
use crate::marks::Marks;
use crate::sync::{Arc, Ordering, fence};

/// Why a frame was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PushError {
    /// A gating consumer has not read far enough; never without gating consumers.
    #[error("ring full: a gating consumer is a whole ring behind")]
    Full,
    /// No frame of this length ever fits this ring.
    #[error("frame of {len_bytes} bytes, but this ring takes at most {max_bytes}: enlarge it or split the frame")]
    TooLong {
        /// The requested length.
        len_bytes: usize,
        /// Longest this ring takes.
        max_bytes: usize,
    },
}

/// All [`MAX_GATING`] places are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{MAX_GATING} gating consumers already: drop one, or join without gating")]
pub struct TooManyGating;

/// The writing end.
pub struct Producer {
    shared: Arc<Shared>,
    /// End of the frames written; at least `published`.
    staged: u64,
    /// The value of `tail.end`.
    published: u64,
    /// Start of the newest record written, that is of its frame or the padding before it.
    latest: u64,
    /// Number of the next frame.
    sequence: u64,
    /// The value of `shared.oldest`.
    oldest: u64,
    marks: Marks,
    /// A lower bound of all gating consumers' positions; `UNUSED` if there are none.
    slowest: u64,
    /// Slots from here on were never used.
    gating_end: usize,
}

impl Producer {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        let marks = Marks::new(shared.capacity_bytes());
        Self {
            shared,
            staged: 0,
            published: 0,
            latest: 0,
            sequence: 0,
            oldest: 0,
            marks,
            slowest: UNUSED,
            gating_end: 0,
        }
    }

    /// Copies a frame in and publishes it, with all staged before.
    #[inline]
    pub fn try_push(&mut self, tag: u32, payload: &[u8]) -> Result<(), PushError> {
        self.stage(tag, payload)?;
        self.publish();
        Ok(())
    }

    /// Copies a frame in, to be published with a later frame or [`publish`](Self::publish), or when the ring has
    /// to make room.
    #[inline]
    pub fn stage(&mut self, tag: u32, payload: &[u8]) -> Result<(), PushError> {
        let max_bytes = self.max_len_bytes();
        if payload.len() > max_bytes {
            return Err(PushError::TooLong { len_bytes: payload.len(), max_bytes });
        }
        let capacity = self.shared.capacity_bytes();
        let size = frame_bytes(payload.len());
        let padding = frame::padding(capacity, self.staged as usize & (capacity - 1), size);
        let start = self.staged + padding as u64;
        let end = start + size as u64;
        let needed = end.saturating_sub(capacity as u64);
        if needed > self.oldest {
            self.make_room(needed)?;
        }
        if padding > 0 {
            // Relaxed: as in `write_frame`.
            self.shared.words[self.shared.index(self.staged)].store(Header::PADDING.to_word(), Ordering::Relaxed);
        }
        self.write_frame(start, size, tag, payload);
        self.latest = self.staged;
        self.marks.add(self.staged);
        self.staged = end;
        self.sequence += 1;
        Ok(())
    }

    /// Makes every staged frame visible.
    #[inline]
    pub fn publish(&mut self) {
        if self.published != self.staged {
            self.published = self.staged;
            // Release: pairs with the acquire loads of `tail` in `Consumer`; all frames below are visible.
            self.shared.tail.store(self.staged, Ordering::Release);
            // Release: pairs with the acquire load of `latest` in `Consumer::newest`; that frame is visible, and
            // so is a tail behind it.
            self.shared.latest.store(self.latest, Ordering::Release);
        }
    }

    /// Adds a consumer that is never overrun: [`PushError::Full`] comes instead. It starts behind all frames written
    /// so far, which are published; dropping it ends its hold.
    pub fn join_gating(&mut self) -> Result<Consumer, TooManyGating> {
        // Acquire: pairs with the release store in `Consumer::drop`; the last use of the slot is over.
        let is_unused = |slot: &usize| self.shared.gating[*slot].load(Ordering::Acquire) == UNUSED;
        let slot = (0..MAX_GATING).find(is_unused).ok_or(TooManyGating)?;
        self.publish();
        // Relaxed: only the producer reads it, until the consumer is passed to its thread, which synchronises.
        self.shared.gating[slot].store(self.staged, Ordering::Relaxed);
        self.gating_end = self.gating_end.max(slot + 1);
        self.slowest = self.slowest.min(self.staged);
        Ok(Consumer::new(Arc::clone(&self.shared), self.staged, self.sequence, Some(slot)))
    }

    /// How far the slowest gating consumer is behind what was published, if there is one.
    pub fn gating_lag_bytes(&mut self) -> Option<u64> {
        self.slowest = self.slowest_gating();
        (self.slowest != UNUSED).then(|| self.published - self.slowest)
    }

    /// Longest payload this ring takes: a quarter of the ring less the header.
    #[inline]
    pub fn max_len_bytes(&self) -> usize {
        self.shared.max_frame_bytes() - HEADER_BYTES
    }

    /// Size of the ring.
    pub fn capacity_bytes(&self) -> usize {
        self.shared.capacity_bytes()
    }

    /// Number of frames written so far, published or not.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Raises `oldest` to `needed` at least, so that what lies below may be overwritten.
    #[cold]
    fn make_room(&mut self, needed: u64) -> Result<(), PushError> {
        // A reader cannot make room by reading frames that are not published; unpublished frames must not be evicted;
        // and `latest` must stay readable, which the newest record is: it and the next fit in the ring.
        self.publish();
        if needed > self.slowest {
            self.slowest = self.slowest_gating();
            if needed > self.slowest {
                return Err(PushError::Full);
            }
        }
        assert!(needed <= self.latest, "the newest record and the next fit in the ring");
        // The earliest of three starts of records, none below `needed`.
        self.oldest = self.marks.first_from(needed).unwrap_or(self.staged).min(self.slowest).min(self.latest);
        assert!(self.oldest >= needed, "room for the next record");
        // Release: pairs with the acquire load of `oldest` in `Consumer::oldest`; the frame there is visible.
        self.shared.oldest.store(self.oldest, Ordering::Release);
        // Release fence: pairs with the acquire fence in `Consumer::is_whole`. A reader that copied any word written
        // from here on sees `oldest` as just stored.
        fence(Ordering::Release);
        Ok(())
    }

    fn slowest_gating(&self) -> u64 {
        // Acquire: pairs with the release stores in `Consumer::read` and `drop`; the consumer's loads of what lies
        // below its position happen before the producer overwrites it.
        let positions = self.shared.gating[..self.gating_end].iter().map(|slot| slot.load(Ordering::Acquire));
        positions.min().unwrap_or(UNUSED)
    }

    #[inline]
    fn write_frame(&self, start: u64, size: usize, tag: u32, payload: &[u8]) {
        // All stores relaxed: published by the release store of `tail`; the fence in `make_room` warns readers that
        // come too late.
        let first = self.shared.index(start);
        let cells = &self.shared.words[first..first + size / WORD_BYTES];
        cells[0].store(Header { len: payload.len() as u32, tag }.to_word(), Ordering::Relaxed);
        cells[1].store(self.sequence, Ordering::Relaxed);
        let cells = &cells[HEADER_BYTES / WORD_BYTES..];
        let (words, rest) = payload.as_chunks::<WORD_BYTES>();
        for (cell, word) in cells.iter().zip(words) {
            cell.store(u64::from_ne_bytes(*word), Ordering::Relaxed);
        }
        if !rest.is_empty() {
            let mut word = [0; WORD_BYTES];
            word[..rest.len()].copy_from_slice(rest);
            cells[words.len()].store(u64::from_ne_bytes(word), Ordering::Relaxed);
        }
    }
}

impl Drop for Producer {
    /// Publishes what is staged, then marks the producer as gone.
    fn drop(&mut self) {
        self.publish();
        // Release: pairs with the acquire load in `Consumer::is_abandoned`; the last `tail` is visible.
        self.shared.producer_gone.store(true, Ordering::Release);
    }
}
