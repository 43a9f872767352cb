//! A part of a message that is longer than a datagram: its head, the same in a member's data frame and in a client's
//! request.

use zerocopy::little_endian::U32;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Which bytes of its message a fragment has: of a member's message in a data frame, of a client's in its request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Fragment {
    total: U32,
    offset: U32,
}

impl Fragment {
    /// Bytes of it on the wire.
    pub const BYTES: usize = size_of::<Self>();

    /// A fragment of a message of `total_bytes`, which begins at `offset`. Both are below 2³².
    pub fn new(total_bytes: usize, offset: usize) -> Self {
        debug_assert!(total_bytes.max(offset) <= u32::MAX as usize, "{offset} of {total_bytes} bytes");
        Self { total: (total_bytes as u32).into(), offset: (offset as u32).into() }
    }

    /// The length of the whole message.
    pub fn total_bytes(self) -> usize {
        self.total.get() as usize
    }

    /// Where in it the fragment begins.
    pub fn offset(self) -> usize {
        self.offset.get() as usize
    }

    /// Whether a payload of this length ends within the message.
    #[inline]
    pub fn has_room(self, payload_bytes: usize) -> bool {
        u64::from(self.offset) + payload_bytes as u64 <= u64::from(self.total)
    }
}
