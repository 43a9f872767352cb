//! A ring of records from one process to any number of others, which map its memory and may be slow, hostile, or gone.
//!
//! **Problem.** Processes of one host exchange datagrams. Through the kernel each costs a system call at both ends,
//! and a copy for each reader.
//!
//! **Why the obvious way fails.** A ring that all processes may write is lost as soon as one of them dies halfway, or
//! errs. A ring whose writer waits for its readers stops with the slowest. And a reader that takes lengths from memory
//! that another process may change at any time must expect that they change between the check and the use.
//!
//! **Algorithm.** Each process writes a log of its own, and the others map it to read. The writer never waits: it
//! overwrites the oldest records, and a reader that is too slow loses them, as with a socket. Each record has a tag by
//! which readers skip what is for another.
//!
//! The order is that of [`broadcast`](crate::broadcast), less what needs trust. Words are copied by relaxed atomics,
//! which race with nothing. Before it overwrites records the writer raises `oldest` past them, then a release fence,
//! then it writes. A reader walks over records up to `tail`, copies those that it wants into memory of its own, with
//! the header that it has checked, then an acquire fence, then it loads `oldest`: if that has not passed the first of
//! them, no word that it has loaded was overwritten. Only then are the copies handed out. If it has passed, the copies
//! are discarded, and the reader goes on at `oldest`. One check serves for all records of a [`Batch`].
//!
//! A reader that finds nothing may sleep. It announces that in its *own* log, looks once more, and sleeps; a writer
//! that has published looks at the logs of its readers, and wakes those that sleep: the doorbell of
//! [`signal`](crate::signal).
//!
//! **Invariants.**
//! - No word of a log has two writers, and no process writes to the log of another.
//! - All positions are at the start of a record; they are multiples of eight, and never wrap.
//! - `oldest <= tail`, and a record's words are written before `tail` passes it.
//! - `oldest` has passed a record before any of its words is overwritten.
//! - A record is at most a quarter of the ring.
//! - Whatever the words of a log are, a reader stays within its memory, hands out copies only, does work for at most
//!   one lap of the ring in a call, and reports what no writer of this code would have written ([`Malformed`]).
//!
//! **Source.** As for [`broadcast`](crate::broadcast): Boehm, "Can Seqlocks Get Along With Programming Language Memory
//! Models?" (MSPC 2012); Aeron's `BroadcastTransmitter`.

mod hostile;
mod reader;
mod writer;

pub use hostile::hostile;
pub use reader::{Batch, Malformed, Reader};
pub use writer::Writer;

use crate::cells::Cells;
use crate::frame::{self, WORD_BYTES};
use crate::marks::SEGMENTS;
use crate::sync::{Arc, AtomicU64};
#[cfg(not(loom))]
use std::{fs::File, io};

/// Smallest ring: a quarter of it holds a header and three words.
pub const MIN_CAPACITY_BYTES: usize = 128;

/// Largest ring: more is seconds of backlog, and lengths must fit the header.
pub const MAX_CAPACITY_BYTES: usize = frame::MAX_CAPACITY_BYTES;

/// Bytes a record takes besides its payload, which is rounded up to a multiple of eight: length and tag.
pub const HEADER_BYTES: usize = WORD_BYTES;

/// Words between those that are written at different times: two cache lines, because processors fetch them in pairs.
const LINE_WORDS: usize = if cfg!(loom) { 1 } else { 16 };

/// Where the word is that identifies this layout, its version, and the order of bytes in a word.
const FORMAT: usize = 0;
/// Where `tail` is: the end of what readers may read.
const TAIL: usize = LINE_WORDS;
/// Where `oldest` is: the start of the oldest record that is whole.
const OLDEST: usize = 2 * LINE_WORDS;
/// Where the number of the sleep of the log's owner is; odd while it sleeps.
const SLEEPS: usize = 3 * LINE_WORDS;
/// Words before the ring.
const PREFIX_WORDS: usize = 4 * LINE_WORDS;

const FORMAT_1: u64 = u64::from_ne_bytes(*b"bdnlog01");

/// The words of a log.
struct Shared {
    cells: Arc<Cells>,
    capacity_bytes: usize,
}

impl Shared {
    #[inline]
    fn word(&self, place: usize) -> &AtomicU64 {
        &self.cells.all()[place]
    }

    /// The ring: a power of two of words.
    #[inline]
    fn ring(&self) -> &[AtomicU64] {
        &self.cells.all()[PREFIX_WORDS..]
    }

    /// The words of the ring from `position` on: up to the ring's end, and from its start.
    #[inline]
    fn spans(&self, position: u64, words: usize) -> (&[AtomicU64], &[AtomicU64]) {
        let ring = self.ring();
        let first = (position / WORD_BYTES as u64) as usize & (ring.len() - 1);
        let before_end = words.min(ring.len() - first);
        (&ring[first..first + before_end], &ring[..words - before_end])
    }
}

/// A log in memory, and what makes its readers, for tests.
///
/// # Panics
/// If `capacity_bytes` is more than [`MAX_CAPACITY_BYTES`].
pub fn in_memory(capacity_bytes: usize) -> (Writer, impl Fn() -> Reader + Clone) {
    let capacity_bytes = frame::capacity(capacity_bytes, MIN_CAPACITY_BYTES);
    let cells = Arc::new(Cells::in_memory(PREFIX_WORDS + capacity_bytes / WORD_BYTES));
    let shared = Shared { cells: Arc::clone(&cells), capacity_bytes };
    (Writer::new(shared), move || Reader::new(Shared { cells: Arc::clone(&cells), capacity_bytes }))
}

/// The size of the file for a ring of `capacity_bytes`, rounded up to a power of two and [`MIN_CAPACITY_BYTES`].
///
/// # Panics
/// If `capacity_bytes` is more than [`MAX_CAPACITY_BYTES`].
pub fn file_bytes(capacity_bytes: usize) -> usize {
    PREFIX_WORDS * WORD_BYTES + frame::capacity(capacity_bytes, MIN_CAPACITY_BYTES)
}

/// The ring's size in a file of this size, if it may be a log.
#[cfg(not(loom))]
fn capacity_in(file: &File) -> io::Result<usize> {
    let bytes = file.metadata()?.len();
    let capacity = usize::try_from(bytes).ok().and_then(|bytes| bytes.checked_sub(PREFIX_WORDS * WORD_BYTES));
    capacity.filter(|it| it.is_power_of_two() && (MIN_CAPACITY_BYTES..=MAX_CAPACITY_BYTES).contains(it)).ok_or_else(
        || io::Error::new(io::ErrorKind::InvalidData, format!("a log of {bytes} bytes: no ring is so long")),
    )
}

/// Longest payload in a ring of this size.
const fn max_len_bytes(capacity_bytes: usize) -> usize {
    capacity_bytes / 4 - HEADER_BYTES
}

/// Bytes that a record takes.
#[inline]
const fn record_bytes(len_bytes: usize) -> usize {
    HEADER_BYTES + frame::align(len_bytes)
}

const _: () = assert!(MIN_CAPACITY_BYTES / SEGMENTS >= WORD_BYTES);
