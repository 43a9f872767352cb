//! The layout of a frame in a ring: one header word, then its bytes, up to the next word boundary.
//!
//! **Problem.** Frames differ in length, yet a reader must get one contiguous slice.
//! **Why the obvious way fails.** Letting a frame wrap around the end of the buffer gives two slices,
//! or a copy; mapping the buffer twice in a row needs the kernel and page-sized rings.
//! **What this does.** Frames are multiples of eight bytes. A frame that does not fit before the end is preceded by a
//! padding record that fills the rest. What is left before the end is a multiple of eight too, so there is always room
//! for the padding's header.
//! **Invariants.** A length in a header is below [`PADDING_LEN`]. A padding record and the frame behind it
//! are published together: a reader that meets padding finds a frame after it.
//! **Source.** Aeron's ring buffers (`OneToOneRingBuffer`).

/// Bytes of a word, the unit of alignment in both rings.
pub(crate) const WORD_BYTES: usize = 8;

/// A length no frame can have: the rest of the buffer is padding.
pub(crate) const PADDING_LEN: u32 = u32::MAX;

/// Largest ring. Lengths must stay below [`PADDING_LEN`], and a ring of more than this holds many
/// seconds of backlog: a configuration error, not a buffer.
pub(crate) const MAX_CAPACITY_BYTES: usize = 1 << 30;

const _: () = assert!(MAX_CAPACITY_BYTES < PADDING_LEN as usize);

/// Meaning of a header word: the payload's length and the user's tag.
#[derive(Clone, Copy)]
pub(crate) struct Header {
    pub(crate) len: u32,
    pub(crate) tag: u32,
}

impl Header {
    pub(crate) const PADDING: Self = Self { len: PADDING_LEN, tag: 0 };

    #[inline]
    pub(crate) const fn to_word(self) -> u64 {
        (self.tag as u64) << 32 | self.len as u64
    }

    #[inline]
    pub(crate) const fn from_word(word: u64) -> Self {
        Self { len: word as u32, tag: (word >> 32) as u32 }
    }

    #[inline]
    pub(crate) const fn is_padding(self) -> bool {
        self.len == PADDING_LEN
    }
}

/// Rounds a length up to whole words.
#[inline]
pub(crate) const fn align(len_bytes: usize) -> usize {
    (len_bytes + WORD_BYTES - 1) & !(WORD_BYTES - 1)
}

/// The size of a requested ring: a power of two, so that a mask turns a position into an offset.
pub(crate) fn capacity(asked_bytes: usize, min_bytes: usize) -> usize {
    assert!(asked_bytes <= MAX_CAPACITY_BYTES, "ring of {asked_bytes} bytes, at most {MAX_CAPACITY_BYTES}");
    asked_bytes.max(min_bytes).next_power_of_two()
}

/// Padding needed before a frame of `size` bytes that would start at `offset`.
#[inline]
pub(crate) const fn padding(capacity: usize, offset: usize, size: usize) -> usize {
    let to_end = capacity - offset;
    if size > to_end { to_end } else { 0 }
}
