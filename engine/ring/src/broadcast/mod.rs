//! A ring of frames from one thread to any number of other threads, which may join while it runs and may be slow.
//!
//! **Problem.** Delivered messages go to every subscriber of a node. A subscriber that stalls must not stall the
//! node (an observer), or must do so knowingly (a member, whose watermark stops).
//!
//! **Why the obvious way fails.** One SPSC ring for each subscriber copies each frame n times. A shared ring whose
//! producer waits for all lets one sleeping reader stop every reader. A shared ring whose producer does not wait lets a
//! reader copy bytes while they are overwritten. A later check that they were not, as with a seqlock over plain memory,
//! is a data race in the memory model even if the copy is discarded, and compilers may exploit it.
//!
//! **Algorithm.** Payloads are copied in and out as words by relaxed atomics, which is as fast as plain words and races
//! with nothing. Before it overwrites frames the producer raises `oldest` past them, then a release fence, then writes.
//! A reader copies a frame to its scratch memory, then an acquire fence, then loads `oldest`: if that has not passed
//! the frame, no word of the copy was overwritten. If it has, the copy is discarded and the reader gets an overrun
//! error with the number of frames missed; it chooses where to [`resume`](Consumer::resume). `oldest` is raised in
//! steps of a part of the ring, so that readers nearly always find it in their own cache; the producer remembers where
//! the first record of each part starts, so it never walks old frames.
//!
//! A consumer can instead be *gating*: its position limits `oldest`, and the producer gets `Full`. It copies in the
//! same way. Only the producer makes gating consumers, since a gating consumer made by another thread could be overrun
//! between the choice of its position and its publication.
//!
//! **Invariants.**
//! - A record is a frame and the padding before it, if any. All positions are at the start of a record.
//! - `oldest <= latest < tail` once anything is published. So there is always a newest frame to start from, and a
//!   reader that finds it overwritten knows that a newer one exists.
//! - A frame's words are written before `tail` passes it, and `tail` has passed it before `latest` names it.
//! - `oldest` has passed a frame before any of its words is overwritten, and never passes a gating consumer.
//! - A frame with its header is at most a quarter of the ring: the newest record and the next fit together.
//! - Frames are numbered without holes; a reader asserts that it gets the number it expects.
//!
//! **Source.** Boehm, "Can Seqlocks Get Along With Programming Language Memory Models?" (MSPC 2012), §4 on fences and
//! atomic data; Aeron's `BroadcastTransmitter` and `BroadcastReceiver`, from which this deviates: `oldest` stands for
//! the intended tail, lies on a frame boundary and so doubles as the place to resume; payloads are atomic.

mod consumer;
mod producer;

pub use consumer::{Consumer, Joiner, Overrun, Resume};
pub use producer::{Producer, PushError, TooManyGating};

use crate::frame::{self, Header, WORD_BYTES};
use crate::sync::{Arc, AtomicBool, AtomicU64, Ordering};
use crossbeam_utils::CachePadded;

/// Smallest ring: a quarter of it holds a header and two words.
pub const MIN_CAPACITY_BYTES: usize = 128;

/// Largest ring: more is seconds of backlog, and lengths must fit the header.
pub const MAX_CAPACITY_BYTES: usize = frame::MAX_CAPACITY_BYTES;

/// Bytes a frame takes besides its payload, which is rounded up to a multiple of eight: lengths, tag and number.
pub const HEADER_BYTES: usize = 2 * WORD_BYTES;

/// Most gating consumers at a time. The producer checks all of them when the ring seems full, so they must be few; they
/// are a node's own member threads, and machines with more cores run more groups, not more members of one ring.
pub const MAX_GATING: usize = 16;

/// An unused gating slot.
const UNUSED: u64 = u64::MAX;

struct Shared {
    /// End of what readers may read. Written by the producer only.
    tail: CachePadded<AtomicU64>,
    /// Start of the newest published record; 0, which the first record's is, before there is one. Written by the
    /// producer only; apart from `tail`, since no thread polls it.
    latest: CachePadded<AtomicU64>,
    /// Start of the oldest record that is whole. Written by the producer only, rarely.
    oldest: CachePadded<AtomicU64>,
    /// Positions of gating consumers, or `UNUSED`. A slot is written by the producer while unused, else by its
    /// consumer, which gives it back by writing `UNUSED`.
    gating: [CachePadded<AtomicU64>; MAX_GATING],
    producer_gone: AtomicBool,
    words: Box<[AtomicU64]>,
}

impl Shared {
    #[inline]
    fn capacity_bytes(&self) -> usize {
        self.words.len() * WORD_BYTES
    }

    /// Longest frame with its header: see the invariants.
    #[inline]
    fn max_frame_bytes(&self) -> usize {
        self.capacity_bytes() / 4
    }

    #[inline]
    fn index(&self, position: u64) -> usize {
        (position as usize / WORD_BYTES) & (self.words.len() - 1)
    }

    /// Reads the header at `position`; valid only if the frame was not overwritten in the meantime.
    #[inline]
    fn header(&self, position: u64) -> Header {
        // Relaxed: ordered by the load of `tail` or `oldest` before, and checked by the fence after.
        Header::from_word(self.words[self.index(position)].load(Ordering::Relaxed))
    }

    /// Reads the number of the frame at `start`, under the same condition.
    #[inline]
    fn sequence(&self, start: u64) -> u64 {
        // Relaxed: as in `header`.
        self.words[self.index(start + WORD_BYTES as u64)].load(Ordering::Relaxed)
    }

    /// Start and header of the frame of the record at `position`, behind its padding, under the same condition.
    #[inline]
    fn frame(&self, position: u64) -> (u64, Header) {
        let header = self.header(position);
        if !header.is_padding() {
            return (position, header);
        }
        let start = (position | (self.capacity_bytes() as u64 - 1)) + 1;
        (start, self.header(start))
    }
}

/// Bytes of a frame in the ring.
#[inline]
const fn frame_bytes(len_bytes: usize) -> usize {
    HEADER_BYTES + frame::align(len_bytes)
}

/// Makes a ring of at least `capacity_bytes`, rounded up to a power of two and [`MIN_CAPACITY_BYTES`].
///
/// # Panics
/// If `capacity_bytes` is more than [`MAX_CAPACITY_BYTES`]; check configured values against it.
pub fn channel(capacity_bytes: usize) -> (Producer, Joiner) {
    let capacity = frame::capacity(capacity_bytes, MIN_CAPACITY_BYTES);
    let shared = Arc::new(Shared {
        tail: CachePadded::new(AtomicU64::new(0)),
        latest: CachePadded::new(AtomicU64::new(0)),
        oldest: CachePadded::new(AtomicU64::new(0)),
        gating: std::array::from_fn(|_| CachePadded::new(AtomicU64::new(UNUSED))),
        producer_gone: AtomicBool::new(false),
        words: (0..capacity / WORD_BYTES).map(|_| AtomicU64::new(0)).collect(),
    });
    (Producer::new(Arc::clone(&shared)), Joiner::new(shared))
}
