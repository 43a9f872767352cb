//! A subscription under tokio: a stream of owned items, or items that are lent.
//!
//! A stream that a thread of its own fills costs a thread and a hand-over for each subscription; one that polls at
//! intervals wakes an idle process. A subscription has a descriptor that is readable while there is something, so the
//! runtime's own reactor wakes the task: once when something comes after a read that found nothing, and never while
//! nothing comes.
//!
//! Invariant: a task is suspended only after a look that found nothing and armed the descriptor.

use super::received::Received;
use super::subscription::Subscription;
use crate::closed::Closed;
use crate::delivery::Delivery;
use crate::node_error::Error;
use bourdon_port::Waker;
use std::fmt;
use std::future::poll_fn;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// The descriptor that the reactor watches.
struct Descriptor(Waker);

impl AsRawFd for Descriptor {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

/// A subscription whose items are awaited under a tokio runtime. It has no thread of its own, and wakes its task only
/// for items, and at the end of the node.
///
/// As a [`futures_core::Stream`] it gives [`Closed`] once, and then ends. Every call may be cancelled: no item is lost.
///
/// ```no_run
/// # async fn follow() -> Result<(), Box<dyn std::error::Error>> {
/// # let node = bourdon::Node::open(&bourdon::Settings::default())?;
/// let mut prices = node.subscribe("md.**")?.into_stream()?;
/// node.join()?;
/// while let Some(received) = prices.try_next().await? {
///     println!("{received:?}");
/// }
/// # Ok(())
/// # }
/// ```
pub struct Stream {
    // Before the subscription, whose descriptor it is.
    descriptor: AsyncFd<Descriptor>,
    subscription: Subscription,
    has_ended: bool,
}

impl Subscription {
    /// This subscription under the tokio runtime of the caller.
    ///
    /// # Errors
    /// [`Error::Io`] if the runtime can't watch its descriptor.
    ///
    /// # Panics
    /// Outside of a tokio runtime, or in one without I/O (`enable_io`).
    pub fn into_stream(self) -> Result<Stream, Error> {
        let doing = "registering a subscription with the tokio runtime";
        #[allow(
            deprecated,
            reason = "what replaces it is unsafe, for types that do not own what they watch; this one does"
        )]
        let descriptor = AsyncFd::with_interest(Descriptor(self.watched().clone()), Interest::READABLE);
        let descriptor = descriptor.map_err(|source| Error::Io { doing, source })?;
        Ok(Stream { descriptor, subscription: self, has_ended: false })
    }
}

impl Stream {
    /// Awaits the next item and copies it. `None` after the end was reported.
    ///
    /// # Errors
    /// [`Closed`] once all was handed out and the node has ended.
    pub async fn try_next(&mut self) -> Result<Option<Received>, Closed> {
        poll_fn(|cx| self.poll_received(cx)).await.transpose()
    }

    /// Awaits the next item and lends it in place, until the next call.
    ///
    /// # Errors
    /// As [`Stream::try_next`], each time.
    pub async fn next_ref(&mut self) -> Result<Delivery<'_>, Closed> {
        poll_fn(|cx| self.poll_ready(cx)).await?;
        let next = self.subscription.try_next()?;
        Ok(next.expect("there is one"))
    }

    /// Whether there is something; if not, the task is woken once there is.
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Closed>> {
        while !self.subscription.has_next()? {
            // The reactor's readiness is older than this look, or the descriptor will become readable again.
            match ready!(self.descriptor.poll_read_ready(cx)) {
                Ok(mut readiness) => readiness.clear_ready(),
                Err(_) => return Poll::Pending, // the runtime ends, and this task with it
            }
        }
        Poll::Ready(Ok(()))
    }

    fn poll_received(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Received, Closed>>> {
        if self.has_ended {
            return Poll::Ready(None);
        }
        let ready = ready!(self.poll_ready(cx));
        let received = ready.map(|()| self.subscription.take_next().expect("there is one"));
        self.has_ended = received.is_err();
        Poll::Ready(Some(received))
    }
}

impl futures_core::Stream for Stream {
    type Item = Result<Received, Closed>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.poll_received(cx)
    }
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stream").finish_non_exhaustive()
    }
}
