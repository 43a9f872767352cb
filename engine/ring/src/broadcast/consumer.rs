//! The reading ends of the broadcast ring; algorithm and invariants are in `mod.rs`.

use super::{HEADER_BYTES, Shared, UNUSED, frame_bytes};
use crate::frame::{Header, WORD_BYTES};
use crate::sync::{Arc, Ordering, fence};
use zerocopy::IntoBytes;

/// Frames were overwritten before they were read: choose where to continue with [`Consumer::resume`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("overrun: {missed_frames} frames were overwritten before they were read")]
pub struct Overrun {
    /// How many were lost for good when this was noticed; the producer runs on.
    pub missed_frames: u64,
}

/// Where to continue after an overrun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resume {
    /// At the oldest frame still there: lose least, and stay far behind.
    Oldest,
    /// At the newest frame: lose most, and be up to date.
    Latest,
}

/// Makes consumers from any thread; clones are for the same ring.
#[derive(Clone)]
pub struct Joiner {
    shared: Arc<Shared>,
}

impl Joiner {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// A consumer of all frames published from now on, which is overrun if it falls a ring behind.
    pub fn join(&self) -> Consumer {
        let mut consumer = Consumer::new(Arc::clone(&self.shared), 0, 0, None);
        if let Some(newest) = consumer.newest() {
            consumer.position = newest.end;
            consumer.sequence = newest.sequence + 1;
            consumer.cached_tail = consumer.position;
        }
        consumer
    }
}

/// A record found whole: where it starts and ends, and its frame's number.
struct Found {
    position: u64,
    end: u64,
    sequence: u64,
}

/// A reading end, for one thread.
pub struct Consumer {
    shared: Arc<Shared>,
    /// Start of the next frame to read, or of the padding before it.
    position: u64,
    /// Number of the next frame to read.
    sequence: u64,
    /// The producer's position as last read; at least `position`.
    cached_tail: u64,
    /// Copies of frames; as long as the longest.
    scratch: Box<[u64]>,
    /// The slot of a gating consumer.
    gating: Option<usize>,
}

impl Consumer {
    pub(super) fn new(shared: Arc<Shared>, position: u64, sequence: u64, gating: Option<usize>) -> Self {
        let scratch = vec![0; (shared.max_frame_bytes() - HEADER_BYTES) / WORD_BYTES].into_boxed_slice();
        Self { shared, position, sequence, cached_tail: position, scratch, gating }
    }

    /// Passes copies of up to `limit` frames, tag and bytes, to `on_frame`, and returns how many; zero (of a `limit`
    /// above zero) means that there was none. A frame whose handler panics counts as read.
    ///
    /// When overrun it returns the error on each call until [`resume`](Self::resume). A gating consumer is never
    /// overrun.
    #[inline]
    pub fn read(&mut self, limit: usize, mut on_frame: impl FnMut(u32, &[u8])) -> Result<usize, Overrun> {
        if self.position == self.cached_tail {
            // Acquire: pairs with the release store of `tail` in `Producer::publish`; all frames below are
            // visible.
            self.cached_tail = self.shared.tail.load(Ordering::Acquire);
            if self.position == self.cached_tail {
                return Ok(0);
            }
        }
        let batch = Batch { consumer: self };
        let mut count = 0;
        while count < limit && batch.consumer.position != batch.consumer.cached_tail {
            let Some((header, sequence, end)) = batch.consumer.copy_next() else {
                if count > 0 {
                    break; // the next call returns the error
                }
                return Err(batch.consumer.overrun());
            };
            assert_eq!(sequence, batch.consumer.sequence, "frames are numbered without holes");
            batch.consumer.sequence += 1;
            batch.consumer.position = end;
            on_frame(header.tag, &batch.consumer.scratch.as_bytes()[..header.len as usize]);
            count += 1;
        }
        Ok(count)
    }

    /// Continues at `place`, and returns how many frames that skips: all that were lost, and for [`Resume::Latest`] the
    /// frames given up. Without an overrun, `Oldest` skips nothing.
    pub fn resume(&mut self, place: Resume) -> u64 {
        let found = match place {
            Resume::Oldest => Some(self.oldest()),
            Resume::Latest => self.newest(),
        };
        let Some(found) = found.filter(|found| found.sequence > self.sequence) else { return 0 };
        let skipped = found.sequence - self.sequence;
        self.position = found.position;
        self.sequence = found.sequence;
        // Acquire: as in `read`. It is above `position`: the thread that gave that position had stored such a tail
        // before.
        self.cached_tail = self.shared.tail.load(Ordering::Acquire);
        self.publish_position();
        skipped
    }

    /// Number of the next frame to read; the first ever is 0.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Whether the producer is gone. If so, and a [`read`](Self::read) *after* this call returns zero, nothing will
    /// ever come again.
    pub fn is_abandoned(&self) -> bool {
        // Acquire: pairs with the release store in `Producer::drop`; the producer's last `tail` is visible.
        self.shared.producer_gone.load(Ordering::Acquire)
    }

    /// Copies the next frame to the scratch memory: header, number, and the position behind it; or nothing if it
    /// was overwritten before the copy was done.
    #[inline]
    fn copy_next(&mut self) -> Option<(Header, u64, u64)> {
        let shared = &*self.shared;
        let (start, header) = shared.frame(self.position);
        let sequence = shared.sequence(start);
        // The words read may be part of another frame by now: length and place are clamped to the memory, and the check
        // below shows whether they were valid.
        let first = (shared.index(start) + HEADER_BYTES / WORD_BYTES).min(shared.words.len());
        let count = (header.len as usize).div_ceil(WORD_BYTES);
        for (copy, word) in self.scratch.iter_mut().zip(&shared.words[first..]).take(count) {
            // Relaxed: visible by the acquire load of the tail, checked by the fence.
            *copy = word.load(Ordering::Relaxed);
        }
        let end = start + frame_bytes(header.len as usize) as u64;
        is_whole(shared, self.position).then_some((header, sequence, end))
    }

    fn overrun(&self) -> Overrun {
        Overrun { missed_frames: self.oldest().sequence - self.sequence }
    }

    /// The oldest record that is whole; there must have been one.
    fn oldest(&self) -> Found {
        // Tries again only when the producer has written a part of the ring within a try.
        loop {
            // Acquire: pairs with the release store of `oldest` in `Producer::make_room`; what was published when
            // it was stored is visible.
            let oldest = self.shared.oldest.load(Ordering::Acquire);
            if let Some(found) = self.find(oldest) {
                return found;
            }
        }
    }

    /// The newest record published, if there ever was one.
    fn newest(&self) -> Option<Found> {
        // Acquire: pairs with the release store of `tail` in `Producer::publish`; the first record at least is visible.
        if self.shared.tail.load(Ordering::Acquire) == 0 {
            return None;
        }
        // Tries again only when the producer has published a newer record within a try.
        loop {
            // Acquire: pairs with the release store of `latest` in `Producer::publish`; the frame there is visible.
            let latest = self.shared.latest.load(Ordering::Acquire);
            if let Some(found) = self.find(latest) {
                return Some(found);
            }
            // Acquire fence: pairs with the release store of `oldest` in `Producer::make_room`. `find` saw `oldest`
            // beyond `latest`; now the newer `latest` that was stored before is visible. For progress only.
            fence(Ordering::Acquire);
        }
    }

    /// The record at `position`, unless it is overwritten.
    fn find(&self, position: u64) -> Option<Found> {
        let (start, header) = self.shared.frame(position);
        let end = start + frame_bytes(header.len as usize) as u64;
        let sequence = self.shared.sequence(start);
        is_whole(&self.shared, position).then_some(Found { position, end, sequence })
    }

    #[inline]
    fn publish_position(&self) {
        if let Some(slot) = self.gating {
            // Release: pairs with the acquire loads in `Producer::slowest_gating`; the consumer's loads of what lies
            // below happen before it is overwritten.
            self.shared.gating[slot].store(self.position, Ordering::Release);
        }
    }
}

/// Whether no word loaded so far from `position` on was overwritten.
#[inline]
fn is_whole(shared: &Shared, position: u64) -> bool {
    // Acquire fence: pairs with the release fence in `Producer::make_room`. If a load above returned a word written
    // after that fence, the load below sees `oldest` beyond `position`.
    fence(Ordering::Acquire);
    // Relaxed: ordered by the fence.
    shared.oldest.load(Ordering::Relaxed) <= position
}

impl Drop for Consumer {
    fn drop(&mut self) {
        if let Some(slot) = self.gating {
            // Release: pairs with the acquire loads in `Producer::slowest_gating` and `join_gating`.
            self.shared.gating[slot].store(UNUSED, Ordering::Release);
        }
    }
}

/// Publishes a gating consumer's position to the producer when a batch ends, also if a handler panics.
struct Batch<'a> {
    consumer: &'a mut Consumer,
}

impl Drop for Batch<'_> {
    #[inline]
    fn drop(&mut self) {
        self.consumer.publish_position();
    }
}
