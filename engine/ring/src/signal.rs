//! Two words threads signal each other with: a flag, and a watermark.
//!
//! **Problem.** "Stop" and "everything below this position is ready" are said by one thread and read by
//! others, without a queue.
//! **Why the obvious way fails.** A bare atomic in each place means choosing an ordering in each place; a relaxed
//! watermark announces data that is not yet visible.
//! **What this does.** The orderings are chosen here: release when saying, acquire when asking. Who may write is
//! in the types: a flag is set by anyone and never cleared; a watermark has one [`WatermarkWriter`].
//! **Invariants.** A flag goes from clear to set once. A watermark never falls.

use crate::sync::{Arc, AtomicBool, AtomicU64, Ordering};
use crossbeam_utils::CachePadded;

/// A flag that goes up once and stays up; clones are the same flag.
#[derive(Clone)]
pub struct Flag(Arc<CachePadded<AtomicBool>>);

impl Flag {
    /// A flag that is down.
    pub fn new() -> Self {
        Self(Arc::new(CachePadded::new(AtomicBool::new(false))))
    }

    /// Raises the flag. What this thread wrote before is visible to who sees it up.
    pub fn set(&self) {
        // Release: pairs with the acquire load in `is_set`.
        self.0.store(true, Ordering::Release);
    }

    /// Whether the flag is up.
    #[inline]
    pub fn is_set(&self) -> bool {
        // Acquire: pairs with the release store in `set`.
        self.0.load(Ordering::Acquire)
    }
}

impl Default for Flag {
    fn default() -> Self {
        Self::new()
    }
}

/// Makes a watermark that stands at `start`.
pub fn watermark(start: u64) -> (WatermarkWriter, WatermarkReader) {
    let cell = Arc::new(CachePadded::new(AtomicU64::new(start)));
    (WatermarkWriter { cell: Arc::clone(&cell), value: start }, WatermarkReader { cell })
}

/// The one who raises a watermark.
pub struct WatermarkWriter {
    cell: Arc<CachePadded<AtomicU64>>,
    value: u64,
}

impl WatermarkWriter {
    /// Raises the watermark. What this thread wrote before is visible to who sees it there.
    ///
    /// # Panics
    /// If it would fall.
    #[inline]
    pub fn advance(&mut self, value: u64) {
        assert!(value >= self.value, "watermark falls from {} to {value}", self.value);
        if value != self.value {
            self.value = value;
            // Release: pairs with the acquire load in `WatermarkReader::get`.
            self.cell.store(value, Ordering::Release);
        }
    }

    /// Where the watermark stands.
    #[inline]
    pub fn get(&self) -> u64 {
        self.value
    }

    /// Another reader.
    pub fn reader(&self) -> WatermarkReader {
        WatermarkReader { cell: Arc::clone(&self.cell) }
    }
}

/// One of those who watch a watermark.
#[derive(Clone)]
pub struct WatermarkReader {
    cell: Arc<CachePadded<AtomicU64>>,
}

impl WatermarkReader {
    /// Where the watermark stands, at least; all that was written before it got there is visible.
    #[inline]
    pub fn get(&self) -> u64 {
        // Acquire: pairs with the release store in `WatermarkWriter::advance`.
        self.cell.load(Ordering::Acquire)
    }
}
