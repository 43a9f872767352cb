//! Words that threads use to signal each other: a flag, a watermark, and a doorbell.
//!
//! **Problem.** One thread announces "stop" or "everything below this position is ready", and other threads read it,
//! without a queue.
//! **Why the obvious way fails.** A bare atomic in each place means choosing an ordering in each place; a relaxed
//! watermark announces data that is not yet visible.
//! **What this does.** The orderings are chosen here: release in the writer, acquire in the reader. The types determine
//! which thread may write: any thread may set a flag, and none clears it; a watermark has one [`WatermarkWriter`].
//!
//! The doorbell is for a thread that sleeps in a system call while other threads leave work for it. A wake for every
//! item costs each of them a system call; a wake only when a flag is "asleep" is lost if flag and work pass each other
//! in the store buffers. So sleeper and ringer each write, fence, and then read what the other wrote (Dekker): at least
//! one of them sees the other's write. Sleeps are numbered, so that a ringer that has rung for a sleep does not ring
//! for it again.
//!
//! **Invariants.** A flag goes from clear to set once. A watermark never falls. Of a sleeper that looked for work after
//! [`Sleeper::lie_down`] and a ringer that called [`Bell::must_ring`] after leaving work, at least one has seen the
//! other's write.
//!
//! **Source.** Dekker, in Dijkstra, EWD 123 (1965); for fences, section 32.4 of the C++ standard ([atomics.fences]).

use crate::sync::{Arc, AtomicBool, AtomicU64, Ordering, fence};
use crossbeam_utils::CachePadded;

/// A flag that goes up once and stays up; clones are the same flag.
#[derive(Clone)]
pub struct Flag(Arc<CachePadded<AtomicBool>>);

impl Flag {
    /// A flag that is down.
    pub fn new() -> Self {
        Self(Arc::new(CachePadded::new(AtomicBool::new(false))))
    }

    /// Raises the flag. What this thread wrote before is visible to a thread that reads the flag as up.
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

impl std::fmt::Debug for Flag {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Flag").field(&self.is_set()).finish()
    }
}

impl Default for Flag {
    fn default() -> Self {
        Self::new()
    }
}

/// Makes a watermark at `start`.
pub fn watermark(start: u64) -> (WatermarkWriter, WatermarkReader) {
    let cell = Arc::new(CachePadded::new(AtomicU64::new(start)));
    (WatermarkWriter { cell: Arc::clone(&cell), value: start }, WatermarkReader { cell })
}

/// The end that raises a watermark.
pub struct WatermarkWriter {
    cell: Arc<CachePadded<AtomicU64>>,
    value: u64,
}

impl WatermarkWriter {
    /// Raises the watermark. What this thread wrote before is visible to a thread that reads the new value.
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

    /// The watermark's value.
    #[inline]
    pub fn get(&self) -> u64 {
        self.value
    }

    /// Another reader.
    pub fn reader(&self) -> WatermarkReader {
        WatermarkReader { cell: Arc::clone(&self.cell) }
    }
}

/// An end that reads a watermark.
#[derive(Clone)]
pub struct WatermarkReader {
    cell: Arc<CachePadded<AtomicU64>>,
}

impl WatermarkReader {
    /// The watermark's value, at least; all that was written before it rose to that is visible.
    #[inline]
    pub fn get(&self) -> u64 {
        // Acquire: pairs with the release store in `WatermarkWriter::advance`.
        self.cell.load(Ordering::Acquire)
    }
}

/// Makes a doorbell; its sleeper is awake.
pub fn doorbell() -> (Sleeper, Bell) {
    let sleeps = Arc::new(CachePadded::new(AtomicU64::new(0)));
    (Sleeper { sleeps: Arc::clone(&sleeps), number: 0 }, Bell { sleeps, rung: 0 })
}

/// The end of the thread that sleeps.
pub struct Sleeper {
    /// Odd while asleep or about to be. Written here only.
    sleeps: Arc<CachePadded<AtomicU64>>,
    number: u64,
}

impl Sleeper {
    /// Announces sleep. Look for work once more after this, before sleeping.
    #[inline]
    pub fn lie_down(&mut self) {
        announce_sleep(&self.sleeps, &mut self.number);
    }

    /// Takes the announcement back.
    #[inline]
    pub fn get_up(&mut self) {
        announce_waking(&self.sleeps, &mut self.number);
    }
}

/// The end of a thread that may have to wake the sleeper; a clone is another end.
#[derive(Clone)]
pub struct Bell {
    sleeps: Arc<CachePadded<AtomicU64>>,
    /// The last sleep this end has rung for.
    rung: u64,
}

impl std::fmt::Debug for Bell {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bell").field("rung", &self.rung).finish_non_exhaustive()
    }
}

impl Bell {
    /// Whether the caller, having left its work, must now wake the sleeper.
    #[inline]
    pub fn must_ring(&mut self) -> bool {
        work_is_left();
        is_unrung(&self.sleeps, &mut self.rung)
    }
}

/// The sleeper's part before it looks for work once more.
#[inline]
pub(crate) fn announce_sleep(sleeps: &AtomicU64, number: &mut u64) {
    *number |= 1;
    // Relaxed: the fence orders it before the look for work that follows.
    sleeps.store(*number, Ordering::Relaxed);
    // Pairs with the fence in `work_is_left`.
    fence(Ordering::SeqCst);
}

/// The sleeper's part when it is awake.
#[inline]
pub(crate) fn announce_waking(sleeps: &AtomicU64, number: &mut u64) {
    *number += *number & 1;
    // Relaxed: a ringer that still reads the old value wakes a sleeper that is awake, which costs a system call.
    sleeps.store(*number, Ordering::Relaxed);
}

/// The ringer's part between its work and [`is_unrung`], once for any number of sleepers.
#[inline]
pub(crate) fn work_is_left() {
    // Pairs with the fence in `announce_sleep`.
    fence(Ordering::SeqCst);
}

/// Whether the sleeper sleeps, or is about to, and this ringer has not rung for that sleep.
#[inline]
pub(crate) fn is_unrung(sleeps: &AtomicU64, rung: &mut u64) -> bool {
    // Relaxed: the fence in `work_is_left` orders it behind the work.
    let number = sleeps.load(Ordering::Relaxed);
    number & 1 == 1 && number != std::mem::replace(rung, number)
}
