//! Counters with one writer each, which any thread and any process may read while they run.
//!
//! **Problem.** Agents count everything, in the middle of the data path; the command line reads the counts from another
//! process.
//! **Why the obvious way fails.** `fetch_add` locks the cache line for some twenty cycles for a guarantee that no
//! reader needs; a lock or a message for each reading disturbs what is measured; passing `&mut u64` into a mapped file
//! is a data race with the other process.
//! **What this does.** A region of `u64` cells, in memory or in a mapped file. `add` is a relaxed load and a relaxed
//! store. The types determine which thread may write: a [`Writer`] owns a range of cells, may move to another thread
//! but not be shared, and may be split. A [`Reader`] reads all cells.
//! **Invariants.** A cell has one writer. A reader gets whole values, each cell's in the order it was written, and
//! learns nothing about the order of different cells: counters are not for synchronising. Mapped memory is touched by
//! atomics only, whatever other processes do to the file. Shrinking a mapped file ends in a signal, not in undefined
//! behaviour.
//! **Source.** Aeron's counters file (`CountersManager`); for atomic loads of read-only memory, the section of that
//! name in `std::sync::atomic`.

#[cfg(not(loom))]
use crate::cells::Access;
use crate::cells::Cells;
use crate::sync::{Arc, AtomicU64, Ordering};
use std::cell::Cell;
use std::marker::PhantomData;
use std::ops::Range;
#[cfg(not(loom))]
use std::{fs::File, io};

/// Most cells of a region; a node has a few hundred, so more means a corrupt header.
pub const MAX_CELLS: usize = 1 << 20;

/// Makes a region of `count` cells in memory, all zero.
///
/// # Panics
/// If `count` is above [`MAX_CELLS`].
pub fn in_memory(count: usize) -> (Writer, Reader) {
    assert!(count <= MAX_CELLS, "{count} cells, at most {MAX_CELLS}");
    pair(Cells::in_memory(count), count)
}

/// Maps `count` cells of `file` from `offset_bytes` on, to write and read. Cells keep the values the file holds.
///
/// The file must already be long enough. Keep other writers off these cells: their additions would be lost.
#[cfg(not(loom))]
pub fn map_file(file: &File, offset_bytes: usize, count: usize) -> io::Result<(Writer, Reader)> {
    check_count(count)?;
    Ok(pair(Cells::map(file, offset_bytes, count, Access::Write)?, count))
}

/// Maps `count` cells of `file` from `offset_bytes` on, to read: the way in for another process.
#[cfg(not(loom))]
pub fn map_file_read_only(file: &File, offset_bytes: usize, count: usize) -> io::Result<Reader> {
    check_count(count)?;
    Ok(Reader { region: Arc::new(Cells::map(file, offset_bytes, count, Access::Read)?) })
}

#[cfg(not(loom))]
fn check_count(count: usize) -> io::Result<()> {
    if (1..=MAX_CELLS).contains(&count) {
        return Ok(());
    }
    Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{count} counters, expected 1 to {MAX_CELLS}")))
}

fn pair(region: Cells, count: usize) -> (Writer, Reader) {
    let region = Arc::new(region);
    let writer = Writer { region: Arc::clone(&region), range: 0..count, not_shared: PhantomData };
    (writer, Reader { region })
}

/// The right to write a range of cells. Indices count from the start of its range.
pub struct Writer {
    region: Arc<Cells>,
    range: Range<usize>,
    /// Not `Sync`: `add` by two threads at once would lose counts.
    not_shared: PhantomData<Cell<()>>,
}

impl Writer {
    /// Adds to a cell, wrapping at 2^64.
    ///
    /// # Panics
    /// If `index` is not in the range.
    #[inline]
    pub fn add(&self, index: usize, amount: u64) {
        let cell = self.cell(index);
        // Relaxed both: no other thread writes this cell, so the load returns this thread's last store; a cell orders
        // nothing else.
        cell.store(cell.load(Ordering::Relaxed).wrapping_add(amount), Ordering::Relaxed);
    }

    /// Sets a cell: for gauges and high-water marks.
    ///
    /// # Panics
    /// If `index` is not in the range.
    #[inline]
    pub fn set(&self, index: usize, value: u64) {
        // Relaxed: a cell orders nothing else.
        self.cell(index).store(value, Ordering::Relaxed);
    }

    /// What a cell holds.
    ///
    /// # Panics
    /// If `index` is not in the range.
    #[inline]
    pub fn get(&self, index: usize) -> u64 {
        // Relaxed: this thread's own last store.
        self.cell(index).load(Ordering::Relaxed)
    }

    /// Splits the range: the first `mid` cells and the rest, for two threads.
    ///
    /// # Panics
    /// If `mid` is beyond the range.
    pub fn split_at(self, mid: usize) -> (Writer, Writer) {
        assert!(mid <= self.len(), "split at {mid} of {} cells", self.len());
        let middle = self.range.start + mid;
        let second =
            Writer { region: Arc::clone(&self.region), range: middle..self.range.end, not_shared: PhantomData };
        (Writer { range: self.range.start..middle, ..self }, second)
    }

    /// Number of cells in the range.
    pub fn len(&self) -> usize {
        self.range.len()
    }

    /// Whether the range has no cells.
    pub fn is_empty(&self) -> bool {
        self.range.is_empty()
    }

    #[inline]
    fn cell(&self, index: usize) -> &AtomicU64 {
        &self.region.all()[self.range.clone()][index]
    }
}

/// A view of all cells of a region.
#[derive(Clone)]
pub struct Reader {
    region: Arc<Cells>,
}

impl Reader {
    /// What a cell holds now, or held a moment ago.
    ///
    /// # Panics
    /// If there is no such cell.
    #[inline]
    pub fn get(&self, index: usize) -> u64 {
        // Relaxed: a cell orders nothing else, and stronger loads are not allowed on read-only memory.
        self.region.all()[index].load(Ordering::Relaxed)
    }

    /// Number of cells.
    pub fn len(&self) -> usize {
        self.region.all().len()
    }

    /// Whether there are no cells.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
