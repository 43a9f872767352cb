//! A bounded ring of variable-length frames from one thread to one other, written and read in place.
//!
//! **Problem.** An agent and its neighbour (application, control plane) exchange frames of different lengths with no
//! copy beyond the application's own write and no wait on either side.
//!
//! **Why the obvious way fails.** A queue of boxed messages allocates each of them and scatters them in memory. A ring
//! of fixed slots wastes the difference to the longest. And in either, reading the other side's position for each
//! message moves a cache line between cores each time, which is the whole cost.
//!
//! **Algorithm.** One byte buffer, two positions. The producer *claims* space behind `tail`, the user fills it,
//! *commit* writes the header and stores `tail`. The consumer passes slices between `head` and `tail` to its handler
//! and stores `head` once for the batch, or lends one slice ([`Consumer::front`]) and stores `head` when it is given
//! back. Each side keeps the other's position as it last read it and loads the real one
//! only when the copy means full (or empty). Each position has its own cache line. `stage` commits without publishing,
//! so that one store publishes many frames.
//!
//! **Invariants.** `head <= published <= staged <= head + capacity`. The consumer reads the bytes in `head..tail`, and
//! the producer writes all others. A frame never wraps (see `frame.rs`), and with its header is at most half the ring:
//! then even the worst padding leaves room for it in an empty ring, so `Full` always means "later", never "not ever". A
//! claim that is dropped leaves no trace.
//!
//! **Source.** Lamport, "Specifying Concurrent Program Modules" (1983); cached positions from Lee et al.,
//! "MCRingBuffer" (IPDPS 2010), as in rtrb; claim, commit and padding from Aeron's `OneToOneRingBuffer`, from which
//! this deviates by publishing the position instead of each record's length.

use crate::buffer::{Buffer, Span, SpanMut};
use crate::frame::{self, Header, WORD_BYTES};
use crate::sync::{Arc, AtomicBool, AtomicU64, Ordering};
use crossbeam_utils::CachePadded;
use std::ops::{Deref, DerefMut};

/// Smallest ring: a smaller one holds no frame worth its header.
pub const MIN_CAPACITY_BYTES: usize = 64;

/// Largest ring: more is seconds of backlog, and lengths must fit the header.
pub const MAX_CAPACITY_BYTES: usize = frame::MAX_CAPACITY_BYTES;

/// Bytes a frame takes besides its payload, which is rounded up to a multiple of eight.
pub const HEADER_BYTES: usize = WORD_BYTES;

struct Shared {
    /// End of what the consumer may read. Written by the producer only.
    tail: CachePadded<AtomicU64>,
    /// Start of what the consumer still holds. Written by the consumer only.
    head: CachePadded<AtomicU64>,
    producer_gone: AtomicBool,
    consumer_gone: AtomicBool,
    buffer: Buffer,
}

/// Makes a ring of at least `capacity_bytes`, rounded up to a power of two and [`MIN_CAPACITY_BYTES`].
///
/// # Panics
/// If `capacity_bytes` is more than [`MAX_CAPACITY_BYTES`]; check configured values against it.
pub fn channel(capacity_bytes: usize) -> (Producer, Consumer) {
    with_buffer(capacity_bytes, Buffer::new)
}

/// The same, for a process that lives shortly or sends little: its memory is fetched when it is used first.
pub fn channel_untouched(capacity_bytes: usize) -> (Producer, Consumer) {
    with_buffer(capacity_bytes, Buffer::untouched)
}

fn with_buffer(capacity_bytes: usize, buffer: fn(usize) -> Buffer) -> (Producer, Consumer) {
    let capacity = frame::capacity(capacity_bytes, MIN_CAPACITY_BYTES);
    let shared = Arc::new(Shared {
        tail: CachePadded::new(AtomicU64::new(0)),
        head: CachePadded::new(AtomicU64::new(0)),
        producer_gone: AtomicBool::new(false),
        consumer_gone: AtomicBool::new(false),
        buffer: buffer(capacity),
    });
    let producer = Producer { shared: Arc::clone(&shared), staged: 0, published: 0, cached_head: 0 };
    (producer, Consumer { shared, head: 0, cached_tail: 0 })
}

/// Why no space was claimed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClaimError {
    /// The consumer has not yet freed enough: try again later.
    #[error("ring full: try again when the consumer has read more")]
    Full,
    /// No frame of this length ever fits this ring.
    #[error("frame of {len_bytes} bytes, but this ring takes at most {max_bytes}: enlarge it or split the frame")]
    TooLong {
        /// The requested length.
        len_bytes: usize,
        /// Longest this ring takes.
        max_bytes: usize,
    },
}

/// The writing end.
pub struct Producer {
    shared: Arc<Shared>,
    /// End of the frames committed or staged; `published..=cached_head + capacity`.
    staged: u64,
    /// The value of `shared.tail`; at most `staged`.
    published: u64,
    /// The consumer's position as last read; at most the true one.
    cached_head: u64,
}

impl Producer {
    /// Claims `len_bytes` for a frame with the user's `tag`, to be filled and committed.
    ///
    /// The bytes are initialised but hold whatever was there before. `Full` publishes what was staged.
    #[inline]
    pub fn try_claim(&mut self, tag: u32, len_bytes: usize) -> Result<Claim<'_>, ClaimError> {
        let capacity = self.shared.buffer.capacity_bytes();
        let max_bytes = self.max_len_bytes();
        if len_bytes > max_bytes {
            return Err(ClaimError::TooLong { len_bytes, max_bytes });
        }
        let size = HEADER_BYTES + frame::align(len_bytes);
        let offset = self.staged as usize & (capacity - 1);
        let padding = frame::padding(capacity, offset, size);
        let end = self.staged + (padding + size) as u64;
        if end - self.cached_head > capacity as u64 {
            // Acquire: pairs with the release store of `head` in `Batch::drop`; the consumer's reads of the bytes it
            // freed happen before the producer overwrites them.
            self.cached_head = self.shared.head.load(Ordering::Acquire);
            if end - self.cached_head > capacity as u64 {
                // The consumer cannot make room by reading frames that are not published.
                self.publish();
                return Err(ClaimError::Full);
            }
        }
        let start = if padding == 0 {
            offset
        } else {
            // SAFETY: `offset` is a masked multiple of eight; the space up to `end` is free as checked above and not
            // published, so the consumer does not read it.
            unsafe { self.shared.buffer.set_word(offset, Header::PADDING.to_word()) };
            0
        };
        // SAFETY: `start + size` is at most the capacity by the padding rule; the bytes lie behind `published` and
        // before `cached_head + capacity`, so they are the producer's until published; the claim's mutable borrow keeps
        // the buffer alive and a second claim away.
        let span = unsafe { self.shared.buffer.span_mut(start + HEADER_BYTES, len_bytes) };
        let header = Header { len: len_bytes as u32, tag };
        Ok(Claim { producer: self, span, header, start, end })
    }

    /// Copies a frame in and publishes it, with all staged before.
    #[inline]
    pub fn try_push(&mut self, tag: u32, payload: &[u8]) -> Result<(), ClaimError> {
        let mut claim = self.try_claim(tag, payload.len())?;
        claim.copy_from_slice(payload);
        claim.commit();
        Ok(())
    }

    /// Makes every staged frame visible to the consumer, with one store.
    #[inline]
    pub fn publish(&mut self) {
        if self.published != self.staged {
            self.published = self.staged;
            // Release: pairs with the acquire load of `tail` in `Consumer::read`; headers and payloads
            // below `tail` happen before the consumer reads them.
            self.shared.tail.store(self.published, Ordering::Release);
        }
    }

    /// Longest payload this ring takes: half the ring less the header.
    #[inline]
    pub fn max_len_bytes(&self) -> usize {
        self.shared.buffer.capacity_bytes() / 2 - HEADER_BYTES
    }

    /// Bytes free for frames and their headers now, at least; padding may take as much as the longest frame of it.
    pub fn free_bytes(&mut self) -> usize {
        // Acquire: as in `try_claim`, which from now on relies on this position.
        self.cached_head = self.shared.head.load(Ordering::Acquire);
        self.capacity_bytes() - (self.staged - self.cached_head) as usize
    }

    /// Size of the ring.
    pub fn capacity_bytes(&self) -> usize {
        self.shared.buffer.capacity_bytes()
    }

    /// Whether the consumer is gone: then no reader gets what is written now.
    pub fn is_abandoned(&self) -> bool {
        // Acquire: pairs with the release store in `Consumer::drop`; what the consumer did before it left is visible to
        // the thread that acts on it.
        self.shared.consumer_gone.load(Ordering::Acquire)
    }
}

impl Drop for Producer {
    /// Publishes what is staged, then marks the producer as gone.
    fn drop(&mut self) {
        self.publish();
        // Release: pairs with the acquire load in `Consumer::is_abandoned`; the last `tail` is visible to a consumer
        // that has seen the producer gone.
        self.shared.producer_gone.store(true, Ordering::Release);
    }
}

/// Space for one frame, as bytes to fill. Dropping it without [`commit`](Self::commit) or [`stage`](Self::stage)
/// discards the frame.
#[must_use = "a claim that is not committed publishes nothing"]
pub struct Claim<'a> {
    producer: &'a mut Producer,
    span: SpanMut,
    header: Header,
    start: usize,
    end: u64,
}

impl<'a> Claim<'a> {
    /// Publishes this frame, and all staged before it.
    #[inline]
    pub fn commit(self) {
        self.finish().publish();
    }

    /// Keeps this frame to be published with a later [`commit`](Self::commit) or [`Producer::publish`], when
    /// the ring is full, or with the producer's drop.
    #[inline]
    pub fn stage(self) {
        self.finish();
    }

    #[inline]
    fn finish(self) -> &'a mut Producer {
        // SAFETY: `start` is a multiple of eight below the capacity, in space that is the producer's until published.
        unsafe { self.producer.shared.buffer.set_word(self.start, self.header.to_word()) };
        self.producer.staged = self.end;
        self.producer
    }
}

impl Deref for Claim<'_> {
    type Target = [u8];
    #[inline]
    fn deref(&self) -> &[u8] {
        self.span.bytes()
    }
}

impl DerefMut for Claim<'_> {
    #[inline]
    fn deref_mut(&mut self) -> &mut [u8] {
        self.span.bytes_mut()
    }
}

/// The reading end.
pub struct Consumer {
    shared: Arc<Shared>,
    /// Start of the next frame; ahead of `shared.head` only within a batch, and while a frame is kept.
    head: u64,
    /// The producer's position as last read; `head..=true tail`.
    cached_tail: u64,
}

impl Consumer {
    /// Passes up to `limit` frames, tag and bytes in place, to `on_frame`; then frees them with one store.
    ///
    /// Returns how many. It may be fewer than there are, but zero (of a `limit` above zero) means that
    /// the ring was empty. A frame whose handler panics counts as read.
    #[inline]
    pub fn read(&mut self, limit: usize, mut on_frame: impl FnMut(u32, &[u8])) -> usize {
        self.read_while(limit, |tag, bytes| {
            on_frame(tag, bytes);
            true
        })
    }

    /// As [`read`](Self::read), but stops before the first frame that `on_frame` does not take: it stays, with all
    /// behind it, and is offered again next time.
    #[inline]
    pub fn read_while(&mut self, limit: usize, mut on_frame: impl FnMut(u32, &[u8]) -> bool) -> usize {
        if limit == 0 || !self.has_frames() {
            return 0;
        }
        let tail = self.cached_tail;
        let mut batch = Batch { shared: &self.shared, head: &mut self.head };
        let mut count = 0;
        while count < limit && *batch.head != tail {
            let (tag, start, span) = batch.next(tail);
            if !on_frame(tag, span.bytes()) {
                *batch.head = start;
                break;
            }
            count += 1;
        }
        count
    }

    /// Lends the next frame in place, until the [`Front`] is dropped, which frees it; `None` means that the ring was
    /// empty. Where frames come in batches, [`read`](Self::read) frees them with one store for all.
    #[inline]
    pub fn front(&mut self) -> Option<Front<'_>> {
        if !self.has_frames() {
            return None;
        }
        let tail = self.cached_tail;
        let mut batch = Batch { shared: &self.shared, head: &mut self.head };
        let (tag, _, span) = batch.next(tail);
        Some(Front { tag, span, _batch: batch })
    }

    /// Frees the frame that was kept ([`Front::keep`]).
    #[inline]
    pub fn release(&mut self) {
        drop(Batch { shared: &self.shared, head: &mut self.head });
    }

    /// Whether there is a frame to read.
    #[inline]
    pub fn has_frames(&mut self) -> bool {
        if self.head == self.cached_tail {
            // Acquire: pairs with the release store of `tail` in `Producer::publish`; all frames below
            // it are visible.
            self.cached_tail = self.shared.tail.load(Ordering::Acquire);
        }
        self.head != self.cached_tail
    }

    /// Size of the ring.
    pub fn capacity_bytes(&self) -> usize {
        self.shared.buffer.capacity_bytes()
    }

    /// Whether the producer is gone. If so, and a [`read`](Self::read) *after* this call returns zero, nothing will
    /// ever come again.
    pub fn is_abandoned(&self) -> bool {
        // Acquire: pairs with the release store in `Producer::drop`; the producer's last `tail` is visible.
        self.shared.producer_gone.load(Ordering::Acquire)
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        // Release: pairs with the acquire load in `Producer::is_abandoned`.
        self.shared.consumer_gone.store(true, Ordering::Release);
    }
}

/// The next frame, tag and bytes in place. Dropped, also by a panic, the frame counts as read and its space is free.
#[must_use = "dropping it frees the frame"]
pub struct Front<'a> {
    tag: u32,
    /// Dropped before the batch, which frees these bytes.
    span: Span,
    _batch: Batch<'a>,
}

impl Front<'_> {
    /// The tag that the producer gave the frame.
    #[inline]
    pub fn tag(&self) -> u32 {
        self.tag
    }
}

impl<'a> Front<'a> {
    /// Keeps the frame beyond this value: its tag and bytes. It is freed by [`Consumer::release`], or with the next
    /// frame that is read.
    #[inline]
    pub fn keep(self) -> (u32, &'a [u8]) {
        let Self { tag, span, _batch: batch } = self;
        std::mem::forget(batch); // its drop would free the frame
        // SAFETY: the bytes are freed by a store of `head`, which takes this consumer's mutable borrow: it ends after
        // `'a`, and the buffer lives as long as the consumer.
        (tag, unsafe { span.bytes_for() })
    }
}

impl Deref for Front<'_> {
    type Target = [u8];
    #[inline]
    fn deref(&self) -> &[u8] {
        self.span.bytes()
    }
}

/// Frees what was read when it goes out of scope, also if a handler panics.
struct Batch<'a> {
    shared: &'a Shared,
    head: &'a mut u64,
}

impl Batch<'_> {
    /// Takes the next frame: its tag, where it starts, and its bytes, which must be dropped before this batch. There is
    /// one: the caller has seen `tail` beyond `head`.
    #[inline]
    fn next(&mut self, tail: u64) -> (u32, u64, Span) {
        debug_assert!(*self.head < tail, "there is a frame");
        let buffer = &self.shared.buffer;
        let mask = buffer.capacity_bytes() - 1;
        let mut offset = *self.head as usize & mask;
        // SAFETY: `offset` is a masked multiple of eight; `head < tail`, so the word is published, and not freed before
        // this batch drops.
        let mut header = Header::from_word(unsafe { buffer.word(offset) });
        if header.is_padding() {
            *self.head += (mask + 1 - offset) as u64;
            offset = 0;
            debug_assert!(*self.head < tail, "padding is published with the frame behind it");
            // SAFETY: as above: the frame behind a padding record was published with it.
            header = Header::from_word(unsafe { buffer.word(0) });
        }
        let len = header.len as usize;
        let start = *self.head;
        *self.head += (HEADER_BYTES + frame::align(len)) as u64;
        debug_assert!(*self.head <= tail, "a frame ends at or before the tail");
        // SAFETY: the producer wrote this header, so the frame ends within the buffer; its bytes are published and not
        // freed before this batch drops, after the span.
        let span = unsafe { buffer.span(offset + HEADER_BYTES, len) };
        (header.tag, start, span)
    }
}

impl Drop for Batch<'_> {
    #[inline]
    fn drop(&mut self) {
        // Release: pairs with the acquire load of `head` in `Producer::try_claim`; the consumer's reads of the freed
        // bytes happen before they are overwritten.
        self.shared.head.store(*self.head, Ordering::Release);
    }
}
