//! The reading end of a log; algorithm and invariants are in `mod.rs`.
//!
//! Nothing here believes a word of the log. Positions and lengths are compared by differences that can't overflow, and
//! a length is used as it was checked: it is loaded once.

use super::{OLDEST, SLEEPS, Shared, TAIL, max_len_bytes, record_bytes};
use crate::frame::{Header, WORD_BYTES};
use crate::signal;
use crate::sync::{Ordering, fence};
#[cfg(not(loom))]
use crate::{cells, sync::Arc};
#[cfg(not(loom))]
use std::{fs::File, io};
use zerocopy::IntoBytes;

/// A log has words that no writer of this code has written: its owner is of another release, or hostile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed log: stop reading it")]
pub struct Malformed;

/// Copies of records, made before they are checked together. It serves all readers of a thread.
#[derive(Debug)]
pub struct Batch {
    /// Headers and payloads, one behind the other.
    words: Box<[u64]>,
    /// Words in use.
    used: usize,
    /// Longer payloads are not handed out.
    max_len_bytes: usize,
}

impl Batch {
    /// A batch of payloads of up to `max_len_bytes`; it holds one of them at least, and `capacity_bytes`.
    pub fn new(capacity_bytes: usize, max_len_bytes: usize) -> Self {
        let bytes = capacity_bytes.max(record_bytes(max_len_bytes));
        Self { words: vec![0; bytes.div_ceil(WORD_BYTES)].into_boxed_slice(), used: 0, max_len_bytes }
    }

    fn hand_out(&self, on_record: &mut impl FnMut(u32, &[u8])) {
        let mut rest = &self.words[..self.used];
        while let [header, payload @ ..] = rest {
            let header = Header::from_word(*header);
            let (payload, behind) = payload.split_at((header.len as usize).div_ceil(WORD_BYTES));
            on_record(header.tag, &payload.as_bytes()[..header.len as usize]);
            rest = behind;
        }
    }
}

/// What copying records has come to.
struct Copied {
    /// Where the first record is that was not looked at.
    end: u64,
    /// How many were copied.
    records: usize,
    /// Whether a record reaches beyond the tail.
    is_malformed: bool,
}

/// A reading end, for one thread.
pub struct Reader {
    shared: Shared,
    /// Start of the next record to read.
    pub(super) position: u64,
    lost_bytes: u64,
    /// The last sleep of the log's owner that this process has rung for.
    rung: u64,
}

impl std::fmt::Debug for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reader").field("position", &self.position).finish_non_exhaustive()
    }
}

impl Reader {
    pub(super) fn new(shared: Shared) -> Self {
        let mut reader = Self { shared, position: 0, lost_bytes: 0, rung: 0 };
        reader.position = reader.tail();
        reader
    }

    /// Maps another process's log, to read what it publishes from now on.
    ///
    /// The file should be sealed against shrinking: reading what was cut off ends in a signal.
    ///
    /// # Errors
    /// If the file is no log, or can't be mapped.
    #[cfg(not(loom))]
    pub fn map(file: &File) -> io::Result<Self> {
        let capacity_bytes = super::capacity_in(file)?;
        let count = super::PREFIX_WORDS + capacity_bytes / WORD_BYTES;
        let cells = Arc::new(cells::Cells::map(file, 0, count, cells::Access::Read)?);
        let shared = Shared { cells, capacity_bytes };
        let format = shared.word(super::FORMAT).load(Ordering::Relaxed);
        // Acquire fence: pairs with the release store in `Writer::new`.
        fence(Ordering::Acquire);
        if format != super::FORMAT_1 {
            let why = format!("a log of the format {:?}: all processes must be of one release", format.to_ne_bytes());
            return Err(io::Error::new(io::ErrorKind::InvalidData, why));
        }
        Ok(Self::new(shared))
    }

    /// Passes copies of up to `limit` records whose tags `wants`, tag and bytes, to `on_record`, and returns how many.
    /// It ends at what was published when it began. A record whose handler panics counts as read, and so do the others
    /// of its batch.
    ///
    /// Records that were overwritten before they were read are counted in [`lost_bytes`](Self::lost_bytes); this call
    /// then ends, and the next goes on at the oldest record.
    ///
    /// # Errors
    /// If the log is malformed.
    #[inline]
    pub fn read(
        &mut self,
        batch: &mut Batch,
        limit: usize,
        wants: impl Fn(u32) -> bool,
        mut on_record: impl FnMut(u32, &[u8]),
    ) -> Result<usize, Malformed> {
        let tail = self.tail();
        let mut count = 0;
        while self.position != tail && count < limit {
            let Some(copied) = self.copy(batch, tail, limit - count, &wants)? else {
                self.resume()?;
                break;
            };
            self.position = copied.end;
            count += copied.records;
            batch.hand_out(&mut on_record);
            if copied.is_malformed {
                return Err(Malformed);
            }
        }
        Ok(count)
    }

    /// Whether there is more to read, for another reader perhaps.
    #[inline]
    pub fn has_more(&self) -> bool {
        // Relaxed: what is there is read by `read` only, which loads it again.
        self.shared.word(TAIL).load(Ordering::Relaxed) != self.position
    }

    /// How many bytes of records were overwritten before this reader read them.
    pub fn lost_bytes(&self) -> u64 {
        self.lost_bytes
    }

    /// Whether the log's owner sleeps, and this process, having published, must now wake it.
    #[inline]
    pub fn must_ring(&mut self) -> bool {
        signal::is_unrung(self.shared.word(SLEEPS), &mut self.rung)
    }

    /// Copies wanted records from the position on; none if they were overwritten meanwhile, or before.
    fn copy(
        &self,
        batch: &mut Batch,
        tail: u64,
        limit: usize,
        wants: &impl Fn(u32) -> bool,
    ) -> Result<Option<Copied>, Malformed> {
        if tail < self.position || !tail.is_multiple_of(WORD_BYTES as u64) {
            return Err(Malformed);
        }
        if tail - self.position > self.shared.capacity_bytes as u64 {
            return Ok(None);
        }
        batch.used = 0;
        let mut copied = Copied { end: self.position, records: 0, is_malformed: false };
        while copied.end != tail && copied.records < limit {
            let (cells, _) = self.shared.spans(copied.end, 1);
            // Relaxed: visible by the acquire of the tail, checked by the fence in `is_whole`; so are the payload's.
            let word = cells[0].load(Ordering::Relaxed);
            let header = Header::from_word(word);
            let len_bytes = header.len as usize;
            // In `u64`, because no length may overflow it.
            let size = WORD_BYTES as u64 + u64::from(header.len).next_multiple_of(WORD_BYTES as u64);
            if len_bytes > max_len_bytes(self.shared.capacity_bytes) || size > tail - copied.end {
                copied.is_malformed = true;
                break;
            }
            if wants(header.tag) && len_bytes <= batch.max_len_bytes {
                let words = size as usize / WORD_BYTES;
                let Some(room) = batch.words[batch.used..].get_mut(..words) else { break };
                room[0] = word;
                let (before_end, from_start) = self.shared.spans(copied.end + WORD_BYTES as u64, words - 1);
                for (copy, cell) in room[1..].iter_mut().zip(before_end) {
                    *copy = cell.load(Ordering::Relaxed);
                }
                for (copy, cell) in room[1 + before_end.len()..].iter_mut().zip(from_start) {
                    *copy = cell.load(Ordering::Relaxed);
                }
                batch.used += words;
                copied.records += 1;
            }
            copied.end += size;
        }
        Ok(self.is_whole().then_some(copied))
    }

    /// Whether no word loaded so far from the position on was overwritten.
    #[inline]
    fn is_whole(&self) -> bool {
        // Acquire fence: pairs with the release fence in `Writer::make_room`. If a load above returned a word written
        // after that fence, the load below sees `oldest` beyond the position.
        fence(Ordering::Acquire);
        // Relaxed: ordered by the fence.
        self.shared.word(OLDEST).load(Ordering::Relaxed) <= self.position
    }

    /// Goes on at the oldest record.
    #[cold]
    fn resume(&mut self) -> Result<(), Malformed> {
        let oldest = self.shared.word(OLDEST).load(Ordering::Relaxed);
        // Acquire fence: pairs with the release store of `oldest` in `Writer::make_room`; the record there is visible,
        // and a tail that is not below it.
        fence(Ordering::Acquire);
        if oldest <= self.position || oldest > self.tail() || !oldest.is_multiple_of(WORD_BYTES as u64) {
            return Err(Malformed);
        }
        self.lost_bytes += oldest - self.position;
        self.position = oldest;
        Ok(())
    }

    /// The end of what may be read.
    #[inline]
    fn tail(&self) -> u64 {
        let tail = self.shared.word(TAIL).load(Ordering::Relaxed);
        // Acquire fence: pairs with the release store of `tail` in `Writer::publish`; all records below are visible.
        // A load that acquires by itself is not allowed in memory that is mapped to be read.
        fence(Ordering::Acquire);
        tail
    }
}
