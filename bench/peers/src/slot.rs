//! What the rings between threads carry: a message of up to `N` bytes, copied in and read whole.
//!
//! Bourdon's own ring copies frames of any length. Rings of elements are given elements just large enough, so that a
//! ring takes the same memory for the same messages.

use bourdon_bench::{Failure, Link, Spec, ends, worker};

/// Bytes of a ring, as in `bourdon-bench ring`.
const RING_BYTES: usize = 1 << 20;
/// Messages that one poll takes at most, so that an end also sends.
pub(crate) const POLL_LIMIT: usize = 256;

/// A message in a ring.
#[repr(align(8))]
pub(crate) struct Slot<const N: usize> {
    length: usize,
    bytes: [u8; N],
}

impl<const N: usize> Slot<N> {
    /// Slots of a ring.
    pub(crate) const COUNT: usize = RING_BYTES / N;

    pub(crate) fn empty() -> Self {
        Self { length: 0, bytes: [0; N] }
    }

    pub(crate) fn holding(message: &[u8]) -> Self {
        let mut slot = Self::empty();
        slot.fill(message);
        slot
    }

    pub(crate) fn fill(&mut self, message: &[u8]) {
        self.length = message.len();
        self.bytes[..message.len()].copy_from_slice(message);
    }

    pub(crate) fn message(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

/// A kind of ring, measured between two threads of one process.
pub(crate) trait Ring {
    /// The library that it is from.
    const PACKAGE: &'static str;

    /// Two ends of two rings, one in each direction.
    fn pair<const N: usize>() -> (impl Link + Send, impl Link + Send);
}

/// Runs both ends, with slots that just hold the messages.
pub(crate) fn play<R: Ring>(spec: &Spec) -> Result<(), Failure> {
    match spec.size_bytes {
        0..=64 => play_sized::<R, 64>(spec),
        65..=1024 => play_sized::<R, 1024>(spec),
        1025..=4096 => play_sized::<R, 4096>(spec),
        size => Err(Failure::Unusable(format!(
            "rings between threads are measured with messages of up to 4096 bytes, not {size}: give a smaller --size"
        ))),
    }
}

fn play_sized<R: Ring, const N: usize>(spec: &Spec) -> Result<(), Failure> {
    worker::describe(serde_json::json!({
        "version": crate::version(R::PACKAGE),
        "slots": Slot::<N>::COUNT,
        "slot_bytes": N,
    }));
    let (near, far) = R::pair::<N>();
    ends::play_pair(spec, near, far)
}
