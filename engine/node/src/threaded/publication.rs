//! Where the application's threads publish: one end of a ring each, and what is known of the messages in it.
//!
//! A publisher must learn why it can't go on, but another thread knows the reason: the data agent leaves it in a cell.
//! A publisher that waits for that must not ask in a loop, which takes a core, nor sleep for fixed times, which adds
//! them to every message: it sleeps on a descriptor of its own, which the agent rings (`intake.rs`).
//!
//! A message's number counts what its handle has committed, so neither side reports it to the other.
//!
//! Invariants: one thread per handle (they are `Send`, not shared); only a call that takes a [`Deadline`] waits.

use crate::claim::{Claim, Space};
use crate::deadline::{Deadline, sleep};
use crate::threaded::claim::RingClaim;
use crate::threaded::frames::Published;
use crate::threaded::handles::Agent;
use crate::threaded::held_up;
use crate::topic::{Payload, Topic};
use bourdon_port::Waker;
use bourdon_protocol::{Outgoing, Refusal};
use bourdon_ring::signal::{Flag, Sleeper, WatermarkReader};
use bourdon_ring::spsc;
use std::ops::RangeInclusive;
use std::sync::mpsc;

/// Why a message is not acknowledged. With [`Late`](Self::Late), [`Cancelled`](Self::Cancelled) and
/// [`Closed`](Self::Closed) it may be delivered all the same: published again, it may come twice. Until the process is
/// removed, wait on instead. After that it is in doubt until [`Event::Settled`](crate::Event::Settled) decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NotAcknowledged {
    /// The wait was cancelled, and so is every later one of this node.
    #[error("the wait was cancelled; acknowledged up to message {acknowledged}")]
    Cancelled {
        /// All messages up to this number are acknowledged.
        acknowledged: u64,
    },
    /// The deadline has passed.
    #[error("acknowledged up to message {acknowledged} by the deadline{}",
        .held_up_by.map(|why| format!(": {why}")).unwrap_or_default())]
    Late {
        /// All messages up to this number are acknowledged.
        acknowledged: u64,
        /// What the data agent waits for before it publishes more, if it waits.
        held_up_by: Option<Refusal>,
    },
    /// The message was dropped: the group could not take it, or this process was removed from the group before it was
    /// delivered. Whether it may be published again stands at [`Event::Dropped`](crate::Event::Dropped).
    #[error("message {number} was dropped: the group could not take it, or this process was removed before")]
    Dropped {
        /// Its number.
        number: u64,
    },
    /// The node has ended before, or has left its group.
    #[error("the node has ended, or has left its group; messages up to number {acknowledged} were acknowledged")]
    Closed {
        /// All messages up to this number were acknowledged.
        acknowledged: u64,
    },
    /// This publication has not published a message of this number.
    #[error("there is no message {number}: this publication has published {published}")]
    Unpublished {
        /// The number.
        number: u64,
        /// How many messages it has published.
        published: u64,
    },
}

/// The publisher's end of an intake.
pub(crate) struct PublisherEnd {
    pub(crate) producer: spsc::Producer,
    pub(crate) acknowledged: WatermarkReader,
    /// Numbers that were dropped.
    pub(crate) dropped: mpsc::Receiver<RangeInclusive<u64>>,
    /// Announces a sleep for room.
    pub(crate) room: Sleeper,
    /// Announces a sleep for acknowledgements.
    pub(crate) news: Sleeper,
    /// What it sleeps on.
    pub(crate) waker: Waker,
    /// Nothing more will be acknowledged: the process has left its group.
    pub(crate) over: Flag,
}

/// Where one of the application's threads publishes.
///
/// Messages are numbered from 1, in the order of publication by this handle. A number from
/// [`Publication::try_publish`] means that the message is accepted: it will be sent in its order. It does not mean that
/// any other process has it. [`Publication::acknowledged`] does:
///
/// - at the levels `unreliable` and `best-effort`: the message was given to the network;
/// - at `reliable`: every member of the view holds it, so each that stays in the group delivers it; in causal and total
///   order it was delivered here as well, and every member holds all that was delivered before it;
/// - at `uniform` and `stable`: it was delivered here, which takes that a quorum (every member) holds it and all that
///   comes before it; so it is delivered even if all processes crash that have delivered it by now.
///
/// Of a client, and of an observer, which publishes as one: a member has answered that a quorum of its view holds it.
///
/// A publication that is dropped still sends what it accepted.
pub struct Publication {
    end: PublisherEnd,
    agent: Agent,
    limits: Limits,
    /// How many messages were committed.
    published: u64,
    /// Numbers that were dropped.
    lost: Vec<RangeInclusive<u64>>,
}

/// What can be published.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// The longest message.
    pub(crate) message_bytes: usize,
    /// A client's messages carry nothing but their topic.
    pub(crate) is_client: bool,
}

impl Limits {
    /// Why this can't be published, now or ever.
    #[inline]
    fn check(self, outgoing: &Outgoing, payload_bytes: usize) -> Result<(), Refusal> {
        if self.is_client {
            Self::check_client(outgoing)?;
        }
        let limit_bytes = self.message_bytes;
        if payload_bytes > limit_bytes { Err(Refusal::TooLarge { limit_bytes }) } else { Ok(()) }
    }

    #[cold]
    fn check_client(outgoing: &Outgoing) -> Result<(), Refusal> {
        let setting = match outgoing {
            Outgoing { after: Some(_), .. } => "Topic::after",
            Outgoing { intended_send_ns: Some(_), .. } => "Topic::sent_at_ns",
            _ => return Ok(()),
        };
        Err(Refusal::Unsupported { setting })
    }
}

/// Why a message is refused though its ring has room.
#[inline]
fn refusal(producer: &spsc::Producer, agent: &Agent) -> Option<Refusal> {
    if producer.is_abandoned() { Some(Refusal::Closed) } else { held_up::refusal(&agent.held_up_by) }
}

/// Runs of dropped numbers that a publication remembers.
const LOST_MAX: usize = 1024;

impl Publication {
    pub(crate) fn new(end: PublisherEnd, agent: Agent, limits: Limits) -> Self {
        Self { end, agent, limits, published: 0, lost: Vec::new() }
    }

    /// Publishes a message: copies it into the ring to the data agent. Returns its number.
    ///
    /// ```
    /// # use bourdon::*;
    /// # fn show(quotes: &mut Publication, es: &Topic) -> Result<(), Refusal> {
    /// match quotes.try_publish(es, b"4750.25") {
    ///     Ok(number) => println!("message {number} is accepted"),
    ///     Err(refusal) if refusal.is_transient() => {} // conflate: the next price takes its place
    ///     Err(refusal) => return Err(refusal),
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Why it was not taken. Where that [is transient](Refusal::is_transient), it may be taken later. While this
    /// process is in no view or reaches no majority, each message is refused at once: no ring fills behind an outage.
    #[inline]
    pub fn try_publish<P: Payload + ?Sized>(&mut self, topic: &Topic<P>, payload: &P) -> Result<u64, Refusal> {
        let payload = payload.as_bytes();
        let mut claim = self.claim(topic.outgoing(), payload.len())?;
        claim.payload_mut().copy_from_slice(payload);
        Ok(claim.commit())
    }

    /// Claims space for a message of so many bytes, to be written in place and committed.
    ///
    /// ```
    /// # use bourdon::*;
    /// # fn show(quotes: &mut Publication, es: &Topic) -> Result<(), Refusal> {
    /// let mut claim = quotes.try_claim(es, 7)?;
    /// claim.copy_from_slice(b"4750.25");
    /// let number = claim.commit(); // dropped instead, it publishes nothing
    /// # let _ = number;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Publication::try_publish`].
    #[inline]
    pub fn try_claim(&mut self, topic: &Topic, payload_bytes: usize) -> Result<Claim<'_>, Refusal> {
        Ok(Claim::new(Space::Ring(self.claim(topic.outgoing(), payload_bytes)?)))
    }

    /// Claims space for a payload of the topic's type, to be written in place and committed.
    ///
    /// ```
    /// # use bourdon::*;
    /// # fn show(quotes: &mut Publication) -> Result<(), Box<dyn std::error::Error>> {
    /// use zerocopy::little_endian::I64;
    ///
    /// let prices = Topic::<I64>::typed("md.es.price")?;
    /// let mut price = quotes.try_claim_as(&prices)?;
    /// price.set(475_025);
    /// price.commit();
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Publication::try_publish`].
    #[inline]
    pub fn try_claim_as<P: Payload>(&mut self, topic: &Topic<P>) -> Result<Claim<'_, P>, Refusal> {
        Ok(Claim::new(Space::Ring(self.claim(topic.outgoing(), size_of::<P>())?)))
    }

    /// As [`Publication::try_publish`], but waits until the message is taken, at most until the deadline.
    ///
    /// ```
    /// # use bourdon::*;
    /// # use std::time::Duration;
    /// # fn show(quotes: &mut Publication, es: &Topic) -> Result<(), Refusal> {
    /// let number = quotes.publish(es, b"4750.25", Duration::from_millis(50))?;
    /// # let _ = number;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Why the message can never be taken, at once; or why it was not taken by the deadline, or before the wait was
    /// cancelled. Nothing of it was sent.
    pub fn publish<P: Payload + ?Sized>(
        &mut self,
        topic: &Topic<P>,
        payload: &P,
        deadline: impl Into<Deadline>,
    ) -> Result<u64, Refusal> {
        self.publish_by(topic.outgoing(), payload.as_bytes(), deadline.into())
    }

    fn publish_by(&mut self, outgoing: &Outgoing, payload: &[u8], deadline: Deadline) -> Result<u64, Refusal> {
        loop {
            let refused = match self.claim(outgoing, payload.len()) {
                Ok(mut claim) => {
                    claim.payload_mut().copy_from_slice(payload);
                    return Ok(claim.commit());
                }
                Err(refused) => refused,
            };
            if refused.is_transient() && self.agent.canceller.is_cancelled() {
                return Err(Refusal::Cancelled);
            }
            if !refused.is_transient() || deadline.has_passed() {
                return Err(refused);
            }
            let frame_bytes = Published::new(outgoing).front_bytes() + payload.len();
            let (end, agent) = (&mut self.end, &self.agent);
            let producer = &mut end.producer;
            sleep(&mut end.room, &end.waker, (deadline, &agent.canceller), || {
                let may_go_on = match refusal(producer, agent) {
                    Some(refusal) => !refusal.is_transient(),
                    None => producer.try_claim(0, frame_bytes).is_ok(),
                };
                may_go_on || agent.canceller.is_cancelled()
            });
        }
    }

    #[inline]
    fn claim(&mut self, outgoing: &Outgoing, payload_bytes: usize) -> Result<RingClaim<'_>, Refusal> {
        self.limits.check(outgoing, payload_bytes)?;
        if let Some(refusal) = refusal(&self.end.producer, &self.agent) {
            return Err(refusal);
        }
        let head = Published::new(outgoing);
        match self.end.producer.try_claim(0, head.front_bytes() + payload_bytes) {
            Ok(mut ring) => {
                head.write(outgoing, &mut ring);
                let agent = &mut self.agent;
                let (bell, waker, published) = (&mut agent.work, &agent.waker, &mut self.published);
                Ok(RingClaim { ring, head, bell, waker, published })
            }
            Err(_) => Err(held_up::read(&self.agent.held_up_by).unwrap_or(Refusal::Queue)),
        }
    }

    /// What the data agent waits for before it can publish more, if it waits.
    ///
    /// ```
    /// # use bourdon::*;
    /// # fn show(quotes: &Publication) {
    /// if let Some(refusal) = quotes.held_up_by() {
    ///     println!("messages wait in the ring: {refusal}");
    /// }
    /// # }
    /// ```
    pub fn held_up_by(&self) -> Option<Refusal> {
        held_up::read(&self.agent.held_up_by)
    }

    /// How many messages this publication has published: the number of the last one.
    pub fn published(&self) -> u64 {
        self.published
    }

    /// The number up to which all messages are acknowledged, but for those that were dropped: [`NotAcknowledged`] and
    /// an event report these. It never falls.
    ///
    /// ```
    /// # use bourdon::*;
    /// # fn show(quotes: &mut Publication) {
    /// let under_way = quotes.published() - quotes.acknowledged();
    /// # let _ = under_way;
    /// # }
    /// ```
    pub fn acknowledged(&mut self) -> u64 {
        let acknowledged = self.end.acknowledged.get();
        while let Ok(numbers) = self.end.dropped.try_recv() {
            let is_full = self.lost.len() >= LOST_MAX; // then the last run covers what lies between as well
            match self.lost.last_mut().filter(|last| is_full || *last.end() + 1 == *numbers.start()) {
                Some(last) => *last = *last.start()..=*numbers.end(),
                None => self.lost.push(numbers),
            }
        }
        acknowledged
    }

    /// Waits until a message is acknowledged, and with it all before it but those that were dropped, at most until the
    /// deadline. 0 is no message, and needs no wait.
    ///
    /// It reports a drop of this message only: `Ok` for the last number does not mean that every earlier one was
    /// delivered. An [`Event::Dropped`](crate::Event::Dropped) reports each drop to subscriptions with
    /// [`Subscribe::events`](crate::Subscribe::events), and the [`CloseReport`](crate::CloseReport) lists all of them.
    ///
    /// ```
    /// # use bourdon::*;
    /// # fn show(quotes: &mut Publication, number: u64) {
    /// use bourdon::error::NotAcknowledged;
    /// use std::time::Duration;
    ///
    /// match quotes.wait_acknowledged(number, Duration::from_millis(500)) {
    ///     Ok(()) => {}
    ///     Err(NotAcknowledged::Late { acknowledged, .. }) => println!("{acknowledged} so far: wait on"),
    ///     Err(lost) => println!("{lost}"), // dropped, or the node has ended
    /// }
    /// # }
    /// ```
    ///
    /// # Errors
    /// Why it is not: it is too early, the message was dropped, the node has ended, or there is no such message.
    pub fn wait_acknowledged(&mut self, number: u64, deadline: impl Into<Deadline>) -> Result<(), NotAcknowledged> {
        let deadline = deadline.into();
        if number > self.published {
            return Err(NotAcknowledged::Unpublished { number, published: self.published });
        }
        loop {
            let has_ended = self.end.over.is_set() || self.end.producer.is_abandoned();
            let acknowledged = self.acknowledged();
            if acknowledged >= number {
                let is_lost = self.lost.iter().any(|numbers| numbers.contains(&number));
                return if is_lost { Err(NotAcknowledged::Dropped { number }) } else { Ok(()) };
            }
            if has_ended {
                return Err(NotAcknowledged::Closed { acknowledged });
            }
            if self.agent.canceller.is_cancelled() {
                return Err(NotAcknowledged::Cancelled { acknowledged });
            }
            if deadline.has_passed() {
                return Err(NotAcknowledged::Late { acknowledged, held_up_by: self.held_up_by() });
            }
            let (end, canceller) = (&mut self.end, &self.agent.canceller);
            let (producer, mark, over) = (&end.producer, &end.acknowledged, &end.over);
            sleep(&mut end.news, &end.waker, (deadline, canceller), || {
                mark.get() > acknowledged || over.is_set() || producer.is_abandoned() || canceller.is_cancelled()
            });
        }
    }
}

impl std::fmt::Debug for Publication {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Publication").finish_non_exhaustive()
    }
}
