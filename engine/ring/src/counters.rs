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
    let cells = (0..count).map(|_| AtomicU64::new(0)).collect();
    pair(Region::Memory(cells), count)
}

/// Maps `count` cells of `file` from `offset_bytes` on, to write and read. Cells keep the values the file holds.
///
/// The file must already be long enough. Keep other writers off these cells: their additions would be lost.
#[cfg(not(loom))]
pub fn map_file(file: &File, offset_bytes: usize, count: usize) -> io::Result<(Writer, Reader)> {
    let length_bytes = checked_length(file, offset_bytes, count)?;
    // SAFETY: the mapping is private to `Mapped`, which touches it through atomics only: no reference to plain
    // bytes exists that a change of the file from outside could invalidate.
    let map = unsafe { memmap2::MmapOptions::new().len(length_bytes).map_mut(file)? };
    let cells = map.as_ptr().wrapping_add(offset_bytes).cast();
    Ok(pair(Region::Mapped(Mapped { cells, count, _map: Map::Writable(map) }), count))
}

/// Maps `count` cells of `file` from `offset_bytes` on, to read: the way in for another process.
#[cfg(not(loom))]
pub fn map_file_read_only(file: &File, offset_bytes: usize, count: usize) -> io::Result<Reader> {
    let length_bytes = checked_length(file, offset_bytes, count)?;
    // SAFETY: as in `map_file`.
    let map = unsafe { memmap2::MmapOptions::new().len(length_bytes).map(file)? };
    let cells = map.as_ptr().wrapping_add(offset_bytes).cast();
    Ok(Reader { region: Arc::new(Region::Mapped(Mapped { cells, count, _map: Map::ReadOnly(map) })) })
}

/// Length of the mapping, once it is known that the cells lie within the file and are aligned.
#[cfg(not(loom))]
fn checked_length(file: &File, offset_bytes: usize, count: usize) -> io::Result<usize> {
    let invalid = |text: String| io::Error::new(io::ErrorKind::InvalidInput, text);
    if count == 0 || count > MAX_CELLS {
        return Err(invalid(format!("{count} counters, expected 1 to {MAX_CELLS}")));
    }
    if !offset_bytes.is_multiple_of(align_of::<AtomicU64>()) {
        return Err(invalid(format!("counters start at byte {offset_bytes}, expected a multiple of eight")));
    }
    let length_bytes = offset_bytes
        .checked_add(count * size_of::<AtomicU64>())
        .ok_or_else(|| invalid(format!("counters start at byte {offset_bytes}, beyond any file")))?;
    let file_bytes = file.metadata()?.len();
    if file_bytes < length_bytes as u64 {
        return Err(invalid(format!("file of {file_bytes} bytes, but its counters end at {length_bytes}")));
    }
    Ok(length_bytes)
}

fn pair(region: Region, count: usize) -> (Writer, Reader) {
    let region = Arc::new(region);
    let writer = Writer { region: Arc::clone(&region), range: 0..count, not_shared: PhantomData };
    (writer, Reader { region })
}

enum Region {
    Memory(Box<[AtomicU64]>),
    #[cfg(not(loom))]
    Mapped(Mapped),
}

impl Region {
    #[inline]
    fn cells(&self) -> &[AtomicU64] {
        match self {
            Self::Memory(cells) => cells,
            #[cfg(not(loom))]
            Self::Mapped(mapped) => mapped.cells(),
        }
    }
}

/// Cells in a mapped file.
#[cfg(not(loom))]
struct Mapped {
    /// The first cell: aligned, and followed by `count - 1` more within `_map`.
    cells: *const AtomicU64,
    count: usize,
    _map: Map,
}

/// Keeps the mapping alive; never dereferenced.
#[cfg(not(loom))]
#[expect(dead_code, reason = "held for its drop, which unmaps")]
enum Map {
    Writable(memmap2::MmapMut),
    ReadOnly(memmap2::Mmap),
}

// SAFETY: the pointer is into the mapping this owns, which any thread may use and drop; what it points to is
// only ever used as atomics.
#[cfg(not(loom))]
unsafe impl Send for Mapped {}
// SAFETY: as for Send.
#[cfg(not(loom))]
unsafe impl Sync for Mapped {}

#[cfg(not(loom))]
impl Mapped {
    #[inline]
    fn cells(&self) -> &[AtomicU64] {
        // SAFETY: `checked_length` proved that the cells lie within the mapping, page-aligned start plus a
        // multiple of eight; the mapping lives as long as `self`; the bytes are initialised by the kernel. A
        // read-only mapping is reached by `Reader` only, which does relaxed loads of eight bytes, allowed there.
        unsafe { std::slice::from_raw_parts(self.cells, self.count) }
    }
}

/// The right to write a range of cells. Indices count from the start of its range.
pub struct Writer {
    region: Arc<Region>,
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
        &self.region.cells()[self.range.clone()][index]
    }
}

/// A view of all cells of a region.
#[derive(Clone)]
pub struct Reader {
    region: Arc<Region>,
}

impl Reader {
    /// What a cell holds now, or held a moment ago.
    ///
    /// # Panics
    /// If there is no such cell.
    #[inline]
    pub fn get(&self, index: usize) -> u64 {
        // Relaxed: a cell orders nothing else, and stronger loads are not allowed on read-only memory.
        self.region.cells()[index].load(Ordering::Relaxed)
    }

    /// Number of cells.
    pub fn len(&self) -> usize {
        self.region.cells().len()
    }

    /// Whether there are no cells.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
