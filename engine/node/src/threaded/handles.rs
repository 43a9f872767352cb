//! What the application's threads hold of a threaded node: one end of a ring each.
//!
//! A publisher must learn why it can't go on, but another thread knows the reason: the data agent leaves it in a
//! cell that publishers read only when their ring is full. A thread that leaves work for one that sleeps must wake
//! it, but not for every message: doorbells show which thread sleeps.
//!
//! Invariants: one thread per handle (they are `Send`, not shared); a call never blocks but [`Subscription::wait`].

use crate::delivery::Delivery;
use crate::threaded::frames::{Delivered, EVENT_TAG, PUBLISHED_BYTES, Published, Value};
use crate::threaded::held_up;
use bourdon_port::Waker;
use bourdon_protocol::Refusal;
use bourdon_ring::counters as cells;
use bourdon_ring::signal::{Bell, Sleeper, WatermarkReader};
use bourdon_ring::spsc;
use bourdon_wire::{TopicId, TopicName};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::ops::{Deref, DerefMut};
use std::sync::mpsc::Receiver;
use std::time::Duration;
use zerocopy::IntoBytes;

/// Why a message was not taken. Nothing of it was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// The ring to the data agent is full.
    #[error("the publication's ring is full{}", .held_up_by.map(|why| format!(": {why}")).unwrap_or_default())]
    RingFull {
        /// What the data agent waits for, if it waits; else it is merely behind.
        held_up_by: Option<Refusal>,
    },
    /// The group can never take it.
    #[error(transparent)]
    Refused(Refusal),
    /// The node has ended.
    #[error("the node has ended")]
    Ended,
}

/// Where one of the application's threads publishes.
pub struct Publication {
    pub(crate) producer: spsc::Producer,
    pub(crate) bell: Bell,
    pub(crate) waker: Waker,
    pub(crate) held_up_by: cells::Reader,
    /// None at an observer.
    pub(crate) max_message_bytes: Option<usize>,
}

impl Publication {
    /// Publishes a message: copies it into the ring to the data agent.
    ///
    /// # Errors
    /// Why it was not taken; after [`PublishError::RingFull`] try again later.
    #[inline]
    pub fn try_publish(&mut self, topic: TopicId, payload: &[u8]) -> Result<(), PublishError> {
        let mut claim = self.try_claim(topic, payload.len())?;
        claim.copy_from_slice(payload);
        claim.commit();
        Ok(())
    }

    /// Claims space for a message, to be written in place and committed.
    ///
    /// # Errors
    /// As [`Publication::try_publish`].
    #[inline]
    pub fn try_claim(&mut self, topic: TopicId, payload_bytes: usize) -> Result<PublicationClaim<'_>, PublishError> {
        self.claim(topic, None, payload_bytes)
    }

    /// Publishes a message that carries its topic's name, for subscribers by patterns.
    ///
    /// # Errors
    /// As [`Publication::try_publish`].
    #[inline]
    pub fn try_publish_named(&mut self, name: &TopicName, payload: &[u8]) -> Result<(), PublishError> {
        let mut claim = self.try_claim_named(name, payload.len())?;
        claim.copy_from_slice(payload);
        claim.commit();
        Ok(())
    }

    /// Claims space for a message that carries its topic's name.
    ///
    /// # Errors
    /// As [`Publication::try_publish`].
    #[inline]
    pub fn try_claim_named(
        &mut self,
        name: &TopicName,
        payload_bytes: usize,
    ) -> Result<PublicationClaim<'_>, PublishError> {
        self.claim(name.id(), Some(name), payload_bytes)
    }

    #[inline]
    fn claim(
        &mut self,
        topic: TopicId,
        name: Option<&TopicName>,
        payload_bytes: usize,
    ) -> Result<PublicationClaim<'_>, PublishError> {
        let text = name.map_or("", TopicName::as_str);
        let Some(limit_bytes) = self.max_message_bytes else {
            return Err(PublishError::Refused(Refusal::Observer));
        };
        if payload_bytes > limit_bytes {
            return Err(PublishError::Refused(Refusal::TooLarge { limit_bytes }));
        }
        if self.producer.is_abandoned() {
            return Err(PublishError::Ended);
        }
        let head = Published::new(topic, name);
        match self.producer.try_claim(0, head.front_bytes() + payload_bytes) {
            Ok(mut ring) => {
                ring[..PUBLISHED_BYTES].copy_from_slice(head.as_bytes());
                ring[PUBLISHED_BYTES..head.front_bytes()].copy_from_slice(text.as_bytes());
                Ok(PublicationClaim { ring, head, bell: &mut self.bell, waker: &self.waker })
            }
            Err(_) => Err(PublishError::RingFull { held_up_by: held_up::read(&self.held_up_by) }),
        }
    }

    /// What the data agent waits for before it can publish more, if it waits.
    pub fn held_up_by(&self) -> Option<Refusal> {
        held_up::read(&self.held_up_by)
    }
}

/// Space for one message's bytes; dropped without [`PublicationClaim::commit`], nothing is published.
#[must_use = "a claim that is not committed publishes nothing"]
pub struct PublicationClaim<'a> {
    ring: spsc::Claim<'a>,
    head: Published,
    bell: &'a mut Bell,
    waker: &'a Waker,
}

impl PublicationClaim<'_> {
    /// Sets when the message was meant to be sent, in nanoseconds since the UNIX epoch; receivers see it as its send
    /// time. Costs 8 bytes on the network.
    pub fn set_intended_send_ns(&mut self, intended_send_ns: u64) {
        self.head = self.head.intended(intended_send_ns);
        self.ring[..PUBLISHED_BYTES].copy_from_slice(self.head.as_bytes());
    }

    /// Publishes the message.
    #[inline]
    pub fn commit(self) {
        self.ring.commit();
        if self.bell.must_ring() {
            self.waker.wake();
        }
    }
}

impl Deref for PublicationClaim<'_> {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        &self.ring[self.head.front_bytes()..]
    }
}

impl DerefMut for PublicationClaim<'_> {
    #[inline]
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.ring[self.head.front_bytes()..]
    }
}

/// The subscriber's end of an outlet.
pub(crate) struct Inlet {
    pub(crate) consumer: spsc::Consumer,
    pub(crate) values: Receiver<Value>,
    pub(crate) sleeper: Sleeper,
    pub(crate) waker: Waker,
    pub(crate) overruns: WatermarkReader,
}

/// Where one of the application's threads receives.
pub struct Subscription {
    inlet: Inlet,
    /// Bytes read since the data agent was last woken for room.
    freed_bytes: usize,
    gate: Bell,
    agent: Waker,
}

impl Subscription {
    pub(crate) fn new(inlet: Inlet, gate: &Bell, agent: &Waker) -> Self {
        Self { inlet, freed_bytes: 0, gate: gate.clone(), agent: agent.clone() }
    }

    /// Hands out at most `limit` messages and events. Returns how many. Zero means that there is none.
    #[inline]
    pub fn poll(&mut self, limit: usize, mut on_delivery: impl FnMut(Delivery<'_>)) -> usize {
        let (freed_bytes, values) = (&mut self.freed_bytes, &self.inlet.values);
        let count = self.inlet.consumer.read(limit, |tag, frame| {
            *freed_bytes += frame.len();
            if tag == EVENT_TAG {
                on_delivery(match values.try_recv().expect("its value was sent before its frame was shown") {
                    Value::Event(event) => Delivery::Event(event),
                    Value::Skipped(count) => Delivery::Skipped(count),
                });
            } else {
                on_delivery(Delivery::Message(&Delivered::read(frame)));
            }
        });
        // A gated agent is woken for a batch's worth of room, not for every message's.
        if count > 0
            && (self.freed_bytes >= self.inlet.consumer.capacity_bytes() / 4 || !self.inlet.consumer.has_frames())
        {
            self.freed_bytes = 0;
            if self.gate.must_ring() {
                self.agent.wake();
            }
        }
        count
    }

    /// Sleeps until there is a message, the node has ended, or `longest` has passed; may return early.
    ///
    /// # Errors
    /// The error of poll(2).
    pub fn wait(&mut self, longest: Duration) -> std::io::Result<()> {
        let inlet = &mut self.inlet;
        inlet.sleeper.lie_down();
        let waited = if inlet.consumer.has_frames() || inlet.consumer.is_abandoned() {
            Ok(())
        } else {
            let timeout = Timespec { tv_sec: longest.as_secs() as i64, tv_nsec: longest.subsec_nanos().into() };
            match poll(&mut [PollFd::new(&inlet.waker, PollFlags::IN)], Some(&timeout)) {
                Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
                Err(error) => Err(error.into()),
            }
        };
        inlet.sleeper.get_up();
        inlet.waker.clear();
        waited
    }

    /// Whether nothing will ever come again.
    pub fn has_ended(&mut self) -> bool {
        self.inlet.consumer.is_abandoned() && !self.inlet.consumer.has_frames()
    }

    /// How many messages this observer has skipped because this subscription's ring was full.
    pub fn overruns(&self) -> u64 {
        self.inlet.overruns.get()
    }
}

macro_rules! opaque_debug {
    ($($name:ident $(<$life:lifetime>)?),+) => {$(
        impl std::fmt::Debug for $name$(<$life>)? {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.debug_struct(stringify!($name)).finish_non_exhaustive()
            }
        }
    )+};
}

opaque_debug!(Publication, PublicationClaim<'_>, Subscription);
