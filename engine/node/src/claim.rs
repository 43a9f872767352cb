//! Space for a message that is written in place.
//!
//! A payload that an application builds and then has copied is written twice. A claim lends it the place from which the
//! message is sent: in the log of an inline node, in the ring of a publication.

use crate::threaded::claim::RingClaim;
use crate::topic::Payload;
use std::fmt;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};

/// Space for one message. What it holds at first is not defined. Dropped without [`Claim::commit`], nothing is
/// published. It derefs to the payload: bytes, or the topic's type.
///
/// ```
/// use bourdon::{Publication, Refusal, Topic};
/// use zerocopy::little_endian::{I64, U32};
/// use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};
///
/// #[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
/// #[repr(C)]
/// struct Trade {
///     instrument: U32,
///     price: I64,
/// }
///
/// fn publish(publication: &mut Publication, trades: &Topic<Trade>) -> Result<u64, Refusal> {
///     let mut trade = publication.try_claim_as(trades)?;
///     trade.instrument.set(7); // every field: what it held before is not defined
///     trade.price.set(475_025);
///     Ok(trade.commit())
/// }
/// # let _ = publish;
/// ```
#[must_use = "a claim that is not committed publishes nothing"]
pub struct Claim<'a, P: ?Sized = [u8]> {
    space: Space<'a>,
    payload: PhantomData<fn(&P)>,
}

pub(crate) enum Space<'a> {
    Log(bourdon_protocol::Claim<'a>),
    Ring(RingClaim<'a>),
}

impl<'a, P: Payload + ?Sized> Claim<'a, P> {
    /// `space` has as many bytes as a `P`.
    #[inline]
    pub(crate) fn new(space: Space<'a>) -> Self {
        Self { space, payload: PhantomData }
    }

    /// Publishes the message. Returns its number.
    ///
    /// ```
    /// # use bourdon::*;
    /// # fn show(node: &mut InlineNode, es: &Topic) -> Result<(), Box<dyn std::error::Error>> {
    /// let mut claim = node.try_claim(es, 3)?;
    /// claim.copy_from_slice(b"bid");
    /// let number = claim.commit();
    /// node.flush()?; // sends it now
    /// # let _ = number;
    /// # Ok(())
    /// # }
    /// ```
    #[inline]
    pub fn commit(self) -> u64 {
        match self.space {
            Space::Log(claim) => claim.commit().0 + 1,
            Space::Ring(claim) => claim.commit(),
        }
    }
}

impl<P: Payload + ?Sized> Deref for Claim<'_, P> {
    type Target = P;

    #[inline]
    fn deref(&self) -> &P {
        let bytes: &[u8] = match &self.space {
            Space::Log(claim) => claim,
            Space::Ring(claim) => claim.payload(),
        };
        P::ref_from_bytes(bytes).expect("it has the size of its payload")
    }
}

impl<P: Payload + ?Sized> DerefMut for Claim<'_, P> {
    #[inline]
    fn deref_mut(&mut self) -> &mut P {
        let bytes: &mut [u8] = match &mut self.space {
            Space::Log(claim) => claim,
            Space::Ring(claim) => claim.payload_mut(),
        };
        P::mut_from_bytes(bytes).expect("it has the size of its payload")
    }
}

impl<P: ?Sized> fmt::Debug for Claim<'_, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Claim").finish_non_exhaustive()
    }
}
