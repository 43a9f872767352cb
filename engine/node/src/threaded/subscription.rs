//! Where the application's threads receive: one end of a ring each.
//!
//! A reader that waits sleeps on a descriptor of its own. The data agent must not write to it for every message, so it
//! writes only while the reader has announced a sleep ([`Sleeper`]), once for each sleep. An application that polls the
//! descriptor itself announces none, and would never be woken. So once it has asked for the descriptor, a read that
//! finds nothing announces a sleep on its behalf, clears the descriptor and looks again. From then on the descriptor is
//! readable as long as there is something, and an application that only spins pays nothing for it.
//!
//! Invariants: one thread per handle (they are `Send`, not shared); only a call that takes a [`Deadline`] waits. A read
//! that finds nothing leaves the descriptor unreadable, and any other leaves it readable or about to be.

use crate::closed::Closed;
use crate::deadline::{Deadline, sleep, sleep_on};
use crate::delivery::Delivery;
use crate::request::Request;
use crate::threaded::frames::{Delivered, EVENT_TAG, MESSAGE_TAG, Value};
use crate::threaded::handles::Agent;
#[cfg(feature = "tokio")]
use crate::threaded::received::{OwnedMessage, Received};
use bourdon_port::Waker;
use bourdon_ring::signal::{Sleeper, WatermarkReader, WatermarkWriter};
use bourdon_ring::spsc;
use std::cell::Cell;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::mpsc::Receiver;

/// The subscriber's end of an outlet.
pub(crate) struct Inlet {
    pub(crate) consumer: spsc::Consumer,
    pub(crate) values: Receiver<Value>,
    pub(crate) requests: Receiver<Request>,
    pub(crate) sleeper: Sleeper,
    pub(crate) waker: Waker,
    pub(crate) overruns: WatermarkReader,
    /// Events without a place among the messages that were read.
    pub(crate) statuses_read: WatermarkWriter,
}

/// What the application polls, if it polls the descriptor itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Readiness {
    /// Nothing: it has not asked for the descriptor.
    Unused,
    /// The descriptor is readable, or will be for what there is.
    Readable,
    /// Nothing was there; the agent makes it readable with the next item.
    Armed,
}

/// Where one of the application's threads receives: messages, and the events that have their place among them. Made by
/// [`Node::subscribe`](crate::Node::subscribe).
///
/// A member, and an observer that gates, deliver nothing more while a subscription's ring is full: read, or choose
/// [`Overrun::Skip`](crate::Overrun). A handle may outlive its node: once all that was delivered has been read, every
/// call returns [`Closed`].
///
/// A process that was removed and comes back has missed messages, and no [`Event::Gap`](crate::Event::Gap) reports
/// them: an application that keeps a state looks at [`Event::Removed`](crate::Event::Removed) as well.
///
/// ```no_run
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let node = bourdon::Node::open(&bourdon::Settings::default())?;
/// use std::time::Duration;
///
/// let mut quotes = node.subscribe("md.*.quotes")?;
/// node.join()?;
/// loop {
///     if quotes.poll(256, |delivery| println!("{delivery}"))? == 0 {
///         quotes.wait(Duration::from_millis(100))?;
///     }
/// }
/// # }
/// ```
pub struct Subscription {
    inlet: Inlet,
    /// Bytes of the item that [`Subscription::try_next`] lent, which is still in the ring.
    lent_bytes: usize,
    /// Bytes read since the data agent was last woken for room.
    freed_bytes: usize,
    readiness: Cell<Readiness>,
    agent: Agent,
}

/// What a frame stands for.
#[inline]
fn delivery<'a>(
    tag: u32,
    frame: &'a [u8],
    (values, requests): (&Receiver<Value>, &Receiver<Request>),
    statuses_read: &mut WatermarkWriter,
) -> Delivery<'a> {
    if tag == MESSAGE_TAG {
        return Delivery::Message(Delivered::read(frame));
    }
    if tag != EVENT_TAG {
        return Delivery::Request(requests.try_recv().expect("it was sent before its frame was shown"));
    }
    match values.try_recv().expect("its value was sent before its frame was shown") {
        Value::Event(event) => {
            statuses_read.advance(statuses_read.get() + u64::from(!event.is_ordered()));
            Delivery::Event(event)
        }
        Value::Skipped(count) => Delivery::Skipped(count),
        Value::SnapshotRequest(request) => Delivery::SnapshotRequest(request),
        Value::Snapshot(snapshot) => Delivery::Snapshot(snapshot),
    }
}

impl Subscription {
    pub(crate) fn new(inlet: Inlet, agent: Agent) -> Self {
        Self { inlet, lent_bytes: 0, freed_bytes: 0, readiness: Cell::new(Readiness::Unused), agent }
    }

    /// Hands out at most `limit` messages and events, and frees them together: the fastest way to read many. Returns
    /// how many; 0 means that there is nothing now.
    ///
    /// An item whose handler panics counts as read.
    ///
    /// ```
    /// # use bourdon::*;
    /// # fn show(prices: &mut Subscription) -> Result<(), Closed> {
    /// let mut bytes = 0;
    /// let count = prices.poll(256, |delivery| {
    ///     if let Some(message) = delivery.message() {
    ///         bytes += message.payload.len();
    ///     }
    /// })?;
    /// # let _ = count;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Closed`] once all was handed out and the node has ended.
    #[inline]
    pub fn poll(&mut self, limit: usize, mut on_delivery: impl FnMut(Delivery<'_>)) -> Result<usize, Closed> {
        self.give_back();
        loop {
            let (freed_bytes, values) = (&mut self.freed_bytes, (&self.inlet.values, &self.inlet.requests));
            let statuses_read = &mut self.inlet.statuses_read;
            let count = self.inlet.consumer.read(limit, |tag, frame| {
                *freed_bytes += spsc::HEADER_BYTES + frame.len();
                on_delivery(delivery(tag, frame, values, statuses_read));
            });
            if count > 0 {
                self.note_read();
                return Ok(count);
            }
            if limit == 0 || !self.look_again()? {
                return Ok(0);
            }
        }
    }

    /// Lends the next message or event, in place, until the next call; `None` if there is nothing now.
    ///
    /// ```
    /// # use bourdon::*;
    /// # fn show(prices: &mut Subscription) -> Result<(), Closed> {
    /// while let Some(delivery) = prices.try_next()? {
    ///     println!("{delivery}");
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Subscription::poll`].
    #[inline]
    pub fn try_next(&mut self) -> Result<Option<Delivery<'_>>, Closed> {
        if !self.has_next()? {
            return Ok(None);
        }
        if *self.readiness.get_mut() == Readiness::Armed {
            self.readiness.set(Readiness::Readable);
        }
        let Some(front) = self.inlet.consumer.front() else { return Ok(None) };
        let (tag, frame) = front.keep();
        self.lent_bytes = spsc::HEADER_BYTES + frame.len();
        Ok(Some(delivery(tag, frame, (&self.inlet.values, &self.inlet.requests), &mut self.inlet.statuses_read)))
    }

    /// As [`Subscription::try_next`], but waits for it, at most until the deadline. `None` if that has passed, or the
    /// wait was cancelled ([`Node::canceller`](crate::Node::canceller)).
    ///
    /// ```
    /// # use bourdon::*;
    /// # use std::time::Duration;
    /// # fn show(prices: &mut Subscription) {
    /// match prices.next(Duration::from_millis(100)) {
    ///     Ok(Some(delivery)) => println!("{delivery}"),
    ///     Ok(None) => println!("nothing came in time"),
    ///     Err(closed) => println!("{closed}"), // all was read
    /// }
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Subscription::poll`].
    #[inline]
    pub fn next(&mut self, deadline: impl Into<Deadline>) -> Result<Option<Delivery<'_>>, Closed> {
        self.give_back();
        if !self.inlet.consumer.has_frames() && !self.wait_until(deadline.into())? {
            return Ok(None);
        }
        self.try_next()
    }

    /// Waits until there is something to read, at most until the deadline. Returns whether there is: false if that has
    /// passed, or the wait was cancelled.
    ///
    /// ```
    /// # use bourdon::*;
    /// # use std::time::Duration;
    /// # fn show(prices: &mut Subscription) -> Result<(), Closed> {
    /// if prices.wait(Duration::from_millis(100))? {
    ///     prices.poll(256, |delivery| println!("{delivery}"))?;
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Subscription::poll`].
    pub fn wait(&mut self, deadline: impl Into<Deadline>) -> Result<bool, Closed> {
        self.give_back();
        self.wait_until(deadline.into())
    }

    fn wait_until(&mut self, deadline: Deadline) -> Result<bool, Closed> {
        loop {
            if self.inlet.consumer.has_frames() || self.look_again()? {
                return Ok(true);
            }
            let canceller = &self.agent.canceller;
            if canceller.is_cancelled() || deadline.has_passed() {
                return Ok(false);
            }
            let Inlet { consumer, sleeper, waker, .. } = &mut self.inlet;
            if *self.readiness.get_mut() == Readiness::Unused {
                sleep(sleeper, waker, (deadline, canceller), || consumer.has_frames() || consumer.is_abandoned());
            } else {
                sleep_on(waker, deadline, canceller); // it is armed
            }
        }
    }

    /// How many messages were skipped because this subscription's ring was full.
    pub fn overruns(&self) -> u64 {
        self.inlet.overruns.get()
    }

    /// Whether there is something now. If not, the descriptor is armed.
    #[inline]
    pub(crate) fn has_next(&mut self) -> Result<bool, Closed> {
        self.give_back();
        Ok(self.inlet.consumer.has_frames() || self.look_again()?)
    }

    /// The next item, owned.
    #[cfg(feature = "tokio")]
    pub(crate) fn take_next(&mut self) -> Option<Received> {
        self.give_back();
        let Inlet { consumer, values, requests, statuses_read, .. } = &mut self.inlet;
        let front = consumer.front()?;
        self.freed_bytes += spsc::HEADER_BYTES + front.len();
        let received = match front.tag() {
            MESSAGE_TAG => Received::Message(OwnedMessage::new(&front)),
            tag => Received::Other(delivery(tag, &[], (values, requests), statuses_read)),
        };
        drop(front);
        self.note_read();
        Some(received)
    }

    /// What is readable while there is something.
    #[cfg(feature = "tokio")]
    pub(crate) fn watched(&self) -> &Waker {
        let _ = self.as_fd();
        &self.inlet.waker
    }

    /// After a look that found nothing: whether there is something now. If not, the descriptor is armed.
    fn look_again(&mut self) -> Result<bool, Closed> {
        let Inlet { consumer, sleeper, waker, .. } = &mut self.inlet;
        if consumer.is_abandoned() {
            return if consumer.has_frames() { Ok(true) } else { Err(self.agent.closed.get()) };
        }
        let readiness = self.readiness.get_mut();
        if *readiness == Readiness::Unused {
            return Ok(false);
        }
        // Another sleep each time: the agent may have spent its ring on an item that this reader had read already.
        waker.clear();
        sleeper.get_up();
        sleeper.lie_down();
        // From here on the agent sees that it must ring; what it has shown before is seen here.
        let has_come = consumer.has_frames() || consumer.is_abandoned();
        if has_come {
            waker.wake();
        }
        *readiness = if has_come { Readiness::Readable } else { Readiness::Armed };
        Ok(has_come && consumer.has_frames())
    }

    /// Frees the item that was lent.
    #[inline]
    fn give_back(&mut self) {
        if self.lent_bytes > 0 {
            self.inlet.consumer.release();
            self.freed_bytes += std::mem::take(&mut self.lent_bytes);
            self.note_read();
        }
    }

    /// Something was read and freed: an agent that waits for room is woken for a batch's worth, not for every message.
    #[inline]
    fn note_read(&mut self) {
        if *self.readiness.get_mut() == Readiness::Armed {
            self.readiness.set(Readiness::Readable);
        }
        let consumer = &mut self.inlet.consumer;
        if self.freed_bytes >= consumer.capacity_bytes() / 4 || !consumer.has_frames() {
            self.freed_bytes = 0;
            if self.agent.room.must_ring() {
                self.agent.waker.wake();
            }
        }
    }
}

/// Readable while there is something to read, or once the node has ended; for an application's own `epoll` or `poll`,
/// level-triggered. It may also be readable once when there is nothing: read, and poll again.
///
/// ```
/// # use bourdon::*;
/// # fn show(prices: &mut Subscription) -> Result<(), Box<dyn std::error::Error>> {
/// use rustix::event::{PollFd, PollFlags, poll};
/// use std::os::fd::AsFd;
///
/// let ready = poll(&mut [PollFd::new(&prices.as_fd(), PollFlags::IN)], None)?; // among others of the application
/// while prices.poll(256, |delivery| println!("{delivery}"))? > 0 {}
/// # let _ = ready;
/// # Ok(())
/// # }
/// ```
impl AsFd for Subscription {
    fn as_fd(&self) -> BorrowedFd<'_> {
        if self.readiness.get() == Readiness::Unused {
            self.readiness.set(Readiness::Readable);
            self.inlet.waker.wake(); // the first read that finds nothing arms it
        }
        self.inlet.waker.as_fd()
    }
}

impl std::fmt::Debug for Subscription {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Subscription").finish_non_exhaustive()
    }
}
