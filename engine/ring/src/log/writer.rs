//! The writing end of a log; algorithm and invariants are in `mod.rs`.

use super::{FORMAT, FORMAT_1, OLDEST, SLEEPS, Shared, TAIL, max_len_bytes, record_bytes};
use crate::frame::{Header, WORD_BYTES};
use crate::marks::Marks;
use crate::signal;
use crate::sync::{AtomicU64, Ordering, fence};
#[cfg(not(loom))]
use crate::{cells, sync::Arc};
#[cfg(not(loom))]
use std::{fs::File, io};

/// The writing end.
pub struct Writer {
    shared: Shared,
    /// End of the records written; at least `published`.
    staged: u64,
    /// The value of `tail`.
    published: u64,
    /// The value of `oldest`.
    oldest: u64,
    marks: Marks,
    /// The number of this process's sleep; odd while it sleeps.
    sleeps: u64,
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writer").field("published", &self.published).finish_non_exhaustive()
    }
}

impl Writer {
    pub(super) fn new(shared: Shared) -> Self {
        // Release: pairs with the acquire fence in `Reader::map`, which takes no log without it.
        shared.word(FORMAT).store(FORMAT_1, Ordering::Release);
        let marks = Marks::new(shared.capacity_bytes);
        Self { shared, staged: 0, published: 0, oldest: 0, marks, sleeps: 0 }
    }

    /// Begins a log in a file of zeros, as long as [`file_bytes`](super::file_bytes) gives. Its pages are there when
    /// this returns.
    ///
    /// # Errors
    /// If the file has another length, or can't be mapped.
    #[cfg(not(loom))]
    pub fn map(file: &File) -> io::Result<Self> {
        let capacity_bytes = super::capacity_in(file)?;
        let count = super::PREFIX_WORDS + capacity_bytes / WORD_BYTES;
        let cells = Arc::new(cells::Cells::map(file, 0, count, cells::Access::WriteNow)?);
        Ok(Self::new(Shared { cells, capacity_bytes }))
    }

    /// Copies a record in, to be published with [`publish`](Self::publish), or when the ring has to make room.
    ///
    /// # Panics
    /// If the payload is longer than [`max_len_bytes`](Self::max_len_bytes).
    #[inline]
    pub fn stage(&mut self, tag: u32, payload: &[u8]) {
        let max_bytes = self.max_len_bytes();
        assert!(payload.len() <= max_bytes, "a record of {} bytes; {max_bytes} fit", payload.len());
        let end = self.staged + record_bytes(payload.len()) as u64;
        let needed = end.saturating_sub(self.shared.capacity_bytes as u64);
        if needed > self.oldest {
            self.make_room(needed);
        }
        self.write_record(tag, payload);
        self.marks.add(self.staged);
        self.staged = end;
    }

    /// Makes every staged record visible. Ask each reader's log afterwards whether its owner is to be woken
    /// ([`Reader::must_ring`](super::Reader::must_ring)).
    #[inline]
    pub fn publish(&mut self) {
        self.publish_quietly();
        signal::work_is_left();
    }

    #[inline]
    fn publish_quietly(&mut self) {
        self.published = self.staged;
        // Release: pairs with the acquire fence behind the load in `Reader::tail`; all records below are visible.
        self.shared.word(TAIL).store(self.staged, Ordering::Release);
    }

    /// Announces that this process sleeps. Look at all logs once more after this, before sleeping.
    #[inline]
    pub fn lie_down(&mut self) {
        signal::announce_sleep(self.shared.word(SLEEPS), &mut self.sleeps);
    }

    /// Takes the announcement back.
    #[inline]
    pub fn get_up(&mut self) {
        signal::announce_waking(self.shared.word(SLEEPS), &mut self.sleeps);
    }

    /// Longest payload this ring takes: a quarter of the ring less the header.
    #[inline]
    pub fn max_len_bytes(&self) -> usize {
        max_len_bytes(self.shared.capacity_bytes)
    }

    /// How much the ring retains at any time, headers included: a segment may be given up early.
    pub fn retained_bytes(&self) -> usize {
        self.shared.capacity_bytes / crate::marks::SEGMENTS * (crate::marks::SEGMENTS - 1)
    }

    /// Raises `oldest` to `needed` at least, so that what lies below may be overwritten.
    #[cold]
    fn make_room(&mut self, needed: u64) {
        self.publish_quietly(); // `oldest` is not above `tail`
        self.oldest = self.marks.first_from(needed).unwrap_or(self.staged);
        assert!(needed <= self.oldest && self.oldest <= self.published, "room for the next record");
        // Release: pairs with the acquire fence behind the load in `Reader::resume`; the record there, and a tail that
        // is not below it, are visible.
        self.shared.word(OLDEST).store(self.oldest, Ordering::Release);
        // Release fence: pairs with the acquire fence in `Reader::is_whole`. A reader that loaded any word written from
        // here on sees `oldest` as just stored.
        fence(Ordering::Release);
    }

    #[inline]
    fn write_record(&self, tag: u32, payload: &[u8]) {
        // All stores relaxed: published by the release store of `tail`; the fence in `make_room` warns readers that
        // come too late.
        let header = Header { len: payload.len() as u32, tag }.to_word();
        let (before_end, from_start) = self.shared.spans(self.staged, record_bytes(payload.len()) / WORD_BYTES);
        before_end[0].store(header, Ordering::Relaxed);
        let before_end = &before_end[1..];
        let split = payload.len().min(before_end.len() * WORD_BYTES);
        store(before_end, &payload[..split]);
        store(from_start, &payload[split..]);
    }
}

/// Copies bytes into as many words.
#[inline]
fn store(cells: &[AtomicU64], bytes: &[u8]) {
    let (words, rest) = bytes.as_chunks::<WORD_BYTES>();
    for (cell, word) in cells.iter().zip(words) {
        cell.store(u64::from_ne_bytes(*word), Ordering::Relaxed);
    }
    if !rest.is_empty() {
        let mut word = [0; WORD_BYTES];
        word[..rest.len()].copy_from_slice(rest);
        cells[words.len()].store(u64::from_ne_bytes(word), Ordering::Relaxed);
    }
}
