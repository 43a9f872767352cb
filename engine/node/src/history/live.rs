//! What is live, for a subscription over an archive.

use crate::delivery::Delivery;
use crate::inline::InlineNode;
use crate::node_error::Error;
use crate::threaded::Subscription;
use std::time::Duration;

mod sealed {
    pub trait Sealed {}
    impl Sealed for crate::inline::InlineNode {}
    impl Sealed for crate::threaded::Subscription {}
}

/// What is live: an [`InlineNode`], or a [`Subscription`] to everything.
pub trait Live: sealed::Sealed {
    /// Hands out what has come. Returns how much was done.
    ///
    /// # Errors
    /// If the node has ended.
    #[doc(hidden)]
    fn poll(&mut self, limit: usize, on_delivery: impl FnMut(Delivery<'_>)) -> Result<usize, Error>;

    /// Sleeps until something may have come.
    ///
    /// # Errors
    /// If the node has ended.
    #[doc(hidden)]
    fn wait(&mut self, longest: Duration) -> Result<(), Error>;
}

impl Live for InlineNode {
    fn poll(&mut self, limit: usize, on_delivery: impl FnMut(Delivery<'_>)) -> Result<usize, Error> {
        Ok(Self::poll(self, limit, on_delivery)?)
    }

    fn wait(&mut self, longest: Duration) -> Result<(), Error> {
        Ok(Self::wait(self, longest)?)
    }
}

impl Live for Subscription {
    fn poll(&mut self, limit: usize, on_delivery: impl FnMut(Delivery<'_>)) -> Result<usize, Error> {
        Ok(Self::poll(self, limit, on_delivery)?)
    }

    fn wait(&mut self, longest: Duration) -> Result<(), Error> {
        Self::wait(self, longest)?;
        Ok(())
    }
}
