//! Words that several threads or processes use: in memory, or in a mapped file.
//!
//! **Problem.** What one process writes another reads in the same pages, while it is written.
//! **Why the obvious way fails.** A `&[u8]` into pages that another process may change at any time is undefined
//! behaviour, whatever the reader does with it.
//! **What this does.** The memory is reached as atomic words only. What the words mean, and which thread may write
//! them, is up to [`counters`](crate::counters) and [`log`](crate::log).
//! **Invariants.** The words lie within the mapping, which lives as long as they do. Words that are mapped to be read
//! are read by relaxed loads of eight bytes, the only atomic access that is allowed in read-only memory.
//! **Source.** The section on atomic accesses to read-only memory in `std::sync::atomic`.

use crate::sync::AtomicU64;
#[cfg(not(loom))]
use std::{fs::File, io};

/// Words at a fixed place.
pub(crate) enum Cells {
    Memory(Box<[AtomicU64]>),
    #[cfg(not(loom))]
    Mapped(Mapped),
}

/// What a mapping allows.
#[cfg(not(loom))]
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// Relaxed loads.
    Read,
    /// Loads and stores.
    Write,
    /// The same, of pages that all fault when they are mapped.
    WriteNow,
}

impl Cells {
    /// As many words in memory, all zero.
    pub(crate) fn in_memory(count: usize) -> Self {
        Self::Memory((0..count).map(|_| AtomicU64::new(0)).collect())
    }

    /// As many words of `file` from `offset_bytes` on.
    #[cfg(not(loom))]
    pub(crate) fn map(file: &File, offset_bytes: usize, count: usize, access: Access) -> io::Result<Self> {
        let length_bytes = checked_length(file, offset_bytes, count)?;
        let mut options = memmap2::MmapOptions::new();
        options.len(length_bytes);
        let map = match access {
            // SAFETY: the mapping is private to `Mapped`, which hands out atomic words only: no reference to plain
            // bytes exists that a change of the file from outside could invalidate.
            Access::Read => Map::ReadOnly(unsafe { options.map(file)? }),
            Access::Write | Access::WriteNow => {
                if access == Access::WriteNow {
                    options.populate();
                }
                // SAFETY: as above.
                Map::Writable(unsafe { options.map_mut(file)? })
            }
        };
        let cells = map.as_ptr().wrapping_add(offset_bytes).cast();
        Ok(Self::Mapped(Mapped { cells, count, _map: map }))
    }

    /// All of them.
    #[inline]
    pub(crate) fn all(&self) -> &[AtomicU64] {
        match self {
            Self::Memory(cells) => cells,
            #[cfg(not(loom))]
            Self::Mapped(mapped) => mapped.cells(),
        }
    }
}

/// Length of the mapping, once it is known that the words lie within the file and are aligned.
#[cfg(not(loom))]
fn checked_length(file: &File, offset_bytes: usize, count: usize) -> io::Result<usize> {
    let invalid = |text: String| io::Error::new(io::ErrorKind::InvalidInput, text);
    if !offset_bytes.is_multiple_of(align_of::<AtomicU64>()) {
        return Err(invalid(format!("words start at byte {offset_bytes}, expected a multiple of eight")));
    }
    let length_bytes = count
        .checked_mul(size_of::<AtomicU64>())
        .and_then(|bytes| offset_bytes.checked_add(bytes))
        .ok_or_else(|| invalid(format!("{count} words start at byte {offset_bytes}, beyond any file")))?;
    let file_bytes = file.metadata()?.len();
    if file_bytes < length_bytes as u64 {
        return Err(invalid(format!("file of {file_bytes} bytes, but its words end at {length_bytes}")));
    }
    Ok(length_bytes)
}

/// Words in a mapped file.
#[cfg(not(loom))]
pub(crate) struct Mapped {
    /// The first word: aligned, and followed by `count - 1` more within `_map`.
    cells: *const AtomicU64,
    count: usize,
    _map: Map,
}

/// Keeps the mapping alive; never dereferenced.
#[cfg(not(loom))]
enum Map {
    Writable(memmap2::MmapMut),
    ReadOnly(memmap2::Mmap),
}

#[cfg(not(loom))]
impl Map {
    fn as_ptr(&self) -> *const u8 {
        match self {
            Self::Writable(map) => map.as_ptr(),
            Self::ReadOnly(map) => map.as_ptr(),
        }
    }
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
        // SAFETY: `checked_length` proved that the words lie within the mapping, page-aligned start plus a
        // multiple of eight; the mapping lives as long as `self`; the bytes are initialised by the kernel. A
        // read-only mapping is reached by readers only, which do relaxed loads of eight bytes, allowed there.
        unsafe { std::slice::from_raw_parts(self.cells, self.count) }
    }
}
