//! The memory of the SPSC ring: plain bytes that two threads use in turn.
//!
//! **Problem.** Producer and consumer touch disjoint parts of one allocation at the same time, and the owner of a part
//! changes with every frame.
//! **Why the obvious way fails.** A `&mut [u8]` to the whole is aliasing; a lock for each part is the cost
//! the ring exists to avoid. And no tool sees a wrong hand-over of plain bytes on x86.
//! **What this does.** Words in `UnsafeCell`, reached by offset through raw pointers. Under loom each
//! word has a shadow cell that is marked in use while a slice over it lives, so that a hand-over that
//! does not synchronise fails the model.
//! **Invariants.** Offsets are multiples of eight; a span never leaves the allocation; memory is
//! initialised from the start, so a span is always readable. The pages are written at construction and
//! fault there, not on the data path, unless the owner asks for the opposite.

use crate::frame::WORD_BYTES;
use std::cell::UnsafeCell;

/// Fixed memory shared by exactly one producer and one consumer.
pub(crate) struct Buffer {
    words: Box<[UnsafeCell<u64>]>,
    #[cfg(loom)]
    shadow: Box<[loom::cell::UnsafeCell<()>]>,
}

// SAFETY: all access goes through the unsafe methods below, whose callers prove that no other thread
// uses the same words at that time.
unsafe impl Sync for Buffer {}

impl Buffer {
    pub(crate) fn new(capacity_bytes: usize) -> Self {
        debug_assert!(capacity_bytes.is_power_of_two() && capacity_bytes >= WORD_BYTES);
        let count = capacity_bytes / WORD_BYTES;
        Self {
            words: (0..count).map(|_| UnsafeCell::new(0)).collect(),
            #[cfg(loom)]
            shadow: (0..count).map(|_| loom::cell::UnsafeCell::new(())).collect(),
        }
    }

    /// The same, but its pages fault when they are first used.
    pub(crate) fn untouched(capacity_bytes: usize) -> Self {
        debug_assert!(capacity_bytes.is_power_of_two() && capacity_bytes >= WORD_BYTES);
        let count = capacity_bytes / WORD_BYTES;
        Self {
            // SAFETY: zero bytes are a valid `UnsafeCell<u64>`.
            words: unsafe { Box::new_zeroed_slice(count).assume_init() },
            #[cfg(loom)]
            shadow: (0..count).map(|_| loom::cell::UnsafeCell::new(())).collect(),
        }
    }

    #[inline]
    pub(crate) fn capacity_bytes(&self) -> usize {
        self.words.len() * WORD_BYTES
    }

    /// Start of the byte at `offset`, with the provenance of the whole allocation.
    ///
    /// # Safety
    /// `offset` is at most the capacity.
    #[inline]
    unsafe fn at(&self, offset: usize) -> *mut u8 {
        debug_assert!(offset <= self.capacity_bytes() && offset.is_multiple_of(WORD_BYTES));
        // SAFETY: the caller keeps `offset` within the allocation; `UnsafeCell<u64>` has the layout
        // of `u64`, and a pointer to it may be written through.
        unsafe { UnsafeCell::raw_get(self.words.as_ptr()).cast::<u8>().add(offset) }
    }

    /// Reads the word at `offset`.
    ///
    /// # Safety
    /// `offset` is a multiple of eight below the capacity, and no other thread writes that word.
    #[inline]
    pub(crate) unsafe fn word(&self, offset: usize) -> u64 {
        #[cfg(loom)]
        let _shadow = self.shadow[offset / WORD_BYTES].get();
        // SAFETY: in bounds and aligned by the caller's promise; initialised at construction.
        unsafe { self.at(offset).cast::<u64>().read() }
    }

    /// Writes the word at `offset`.
    ///
    /// # Safety
    /// `offset` is a multiple of eight below the capacity, and no other thread uses that word.
    #[inline]
    pub(crate) unsafe fn set_word(&self, offset: usize, value: u64) {
        #[cfg(loom)]
        let _shadow = self.shadow[offset / WORD_BYTES].get_mut();
        // SAFETY: in bounds and aligned by the caller's promise, and exclusively the caller's.
        unsafe { self.at(offset).cast::<u64>().write(value) }
    }

    /// Bytes to read in place.
    ///
    /// # Safety
    /// `offset` is a multiple of eight, `offset + len` is at most the capacity, and while the span
    /// lives the buffer lives and no thread writes those bytes.
    #[inline]
    pub(crate) unsafe fn span(&self, offset: usize, len: usize) -> Span {
        debug_assert!(offset + len <= self.capacity_bytes());
        Span {
            // SAFETY: `offset` is within the allocation by the caller's promise.
            start: unsafe { self.at(offset) },
            len,
            #[cfg(loom)]
            _shadow: self.shadow_range(offset, len).map(|cell| cell.get()).collect(),
        }
    }

    /// Bytes to write in place.
    ///
    /// # Safety
    /// `offset` is a multiple of eight, `offset + len` is at most the capacity, and while the span
    /// lives the buffer lives and nothing else uses those bytes.
    #[inline]
    pub(crate) unsafe fn span_mut(&self, offset: usize, len: usize) -> SpanMut {
        debug_assert!(offset + len <= self.capacity_bytes());
        SpanMut {
            // SAFETY: `offset` is within the allocation by the caller's promise.
            start: unsafe { self.at(offset) },
            len,
            #[cfg(loom)]
            _shadow: self.shadow_range(offset, len).map(|cell| cell.get_mut()).collect(),
        }
    }

    #[cfg(loom)]
    fn shadow_range(&self, offset: usize, len: usize) -> impl Iterator<Item = &loom::cell::UnsafeCell<()>> {
        let first = offset / WORD_BYTES;
        self.shadow[first..first + len.div_ceil(WORD_BYTES)].iter()
    }
}

/// Bytes that no thread writes while this lives; promised when it is made.
pub(crate) struct Span {
    start: *const u8,
    len: usize,
    #[cfg(loom)]
    _shadow: Vec<loom::cell::ConstPtr<()>>,
}

impl Span {
    #[inline]
    pub(crate) fn bytes(&self) -> &[u8] {
        // SAFETY: `Buffer::span`'s caller promised that the bytes are in bounds, alive and unwritten.
        unsafe { std::slice::from_raw_parts(self.start, self.len) }
    }

    /// The bytes beyond the span's own life.
    ///
    /// # Safety
    /// What was promised when the span was made holds for `'a`.
    #[inline]
    pub(crate) unsafe fn bytes_for<'a>(&self) -> &'a [u8] {
        // SAFETY: as above, for `'a`.
        unsafe { std::slice::from_raw_parts(self.start, self.len) }
    }
}

/// Bytes that nothing else uses while this lives; promised when it is made.
pub(crate) struct SpanMut {
    start: *mut u8,
    len: usize,
    #[cfg(loom)]
    _shadow: Vec<loom::cell::MutPtr<()>>,
}

impl SpanMut {
    #[inline]
    pub(crate) fn bytes(&self) -> &[u8] {
        // SAFETY: `Buffer::span_mut`'s caller promised that the bytes are in bounds, alive and exclusive to this span;
        // the borrow of `self` keeps a mutable slice away.
        unsafe { std::slice::from_raw_parts(self.start, self.len) }
    }

    #[inline]
    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `bytes`, and the mutable borrow of `self` keeps every other slice away.
        unsafe { std::slice::from_raw_parts_mut(self.start, self.len) }
    }
}
