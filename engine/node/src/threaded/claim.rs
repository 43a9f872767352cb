//! Space in a publication's ring.

use crate::threaded::frames::Published;
use bourdon_port::Waker;
use bourdon_ring::signal::Bell;
use bourdon_ring::spsc;

/// Space for one message's bytes; dropped without [`RingClaim::commit`], nothing is published.
pub(crate) struct RingClaim<'a> {
    pub(crate) ring: spsc::Claim<'a>,
    pub(crate) head: Published,
    pub(crate) bell: &'a mut Bell,
    pub(crate) waker: &'a Waker,
    /// How many messages the publication has published.
    pub(crate) published: &'a mut u64,
}

impl RingClaim<'_> {
    /// Publishes the message. Returns its number.
    #[inline]
    pub(crate) fn commit(self) -> u64 {
        self.ring.commit();
        *self.published += 1;
        if self.bell.must_ring() {
            self.waker.wake();
        }
        *self.published
    }

    #[inline]
    pub(crate) fn payload(&self) -> &[u8] {
        &self.ring[self.head.front_bytes()..]
    }

    #[inline]
    pub(crate) fn payload_mut(&mut self) -> &mut [u8] {
        &mut self.ring[self.head.front_bytes()..]
    }
}
