//! A node with threads of its own: the application publishes and receives through rings.
//!
//! An inline node needs its application to poll it; an application that computes, blocks or waits for a user can't
//! promise that. Here the data agent (`agent.rs`) keeps the protocol going on its own thread, and the control agent
//! (`control.rs`) answers whoever asks about it. The application's threads hold a [`Publication`] or a
//! [`Subscription`] each: one end of a ring whose other end the data agent has.
//!
//! The design has rings carry positions in the protocol's logs; these carry bytes. Copying 64 bytes costs some
//! nanoseconds, while lending the log's memory to other threads would need unsafe code in the protocol that is pure
//! today. `docs/decisions/rings-carry-bytes.md` has the figures.
//!
//! Invariants: dropping a [`ThreadedNode`] leaves no thread, file or socket. A message that a [`Publication`] took is
//! published in its order, or dropped with a [`NodeEvent::PublicationDropped`] if the group can never take it. A system
//! call is made for a message only to wake a thread that sleeps.

use crate::agent::{Agent, Listener, Outlet, frame_guess_bytes, published_bytes};
use crate::control::{self, Control};
use crate::counters::{AgentFigures, CountersFile};
use crate::idle::Idler;
use crate::inline::{Node, NodeError};
use crate::messages::{self, Delivered, NodeEvent, PUBLISHED_BYTES, Published, UNTIMED};
use crate::placement::place_current_thread;
use crate::settings::{Role, Settings};
use bourdon_port::{Port, Waker};
use bourdon_protocol::{Delivery, Refusal};
use bourdon_ring::counters as cells;
use bourdon_ring::signal::{Bell, Flag, Sleeper, WatermarkReader, doorbell, watermark};
use bourdon_ring::spsc;
use bourdon_wire::TopicId;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::ops::{Deref, DerefMut};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;
use zerocopy::IntoBytes;

/// Room for events nobody has fetched: as many as the protocol itself keeps.
const EVENT_RING_BYTES: usize = 256 * 40;
/// Commands and answers of the control thread, which has one under way at a time.
const COMMAND_RING_BYTES: usize = 1024;

/// What a threaded node is started with beside its settings.
#[derive(Clone, Debug)]
pub struct Handles {
    /// How many threads publish, each with a [`Publication`].
    pub publications: usize,
    /// The topics of each [`Subscription`]; none means all.
    pub subscriptions: Vec<Vec<TopicId>>,
}

/// A running node.
#[derive(Debug)]
pub struct ThreadedNode {
    info: Info,
    stop: Flag,
    /// Wakes the data agent.
    waker: Waker,
    data: Option<JoinHandle<Result<(), NodeError>>>,
    /// The data agent has ended.
    ended: Flag,
    control: Option<Control>,
    events: Events,
    counters: CountersFile,
}

struct Events {
    consumer: spsc::Consumer,
    waker: Waker,
}

impl std::fmt::Debug for Events {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Events")
    }
}

/// What a node chose when it started.
#[derive(Clone, Debug)]
pub struct Info {
    /// Where others reach this process.
    pub local_address: SocketAddr,
    /// What moves the bytes.
    pub io: String,
    /// Why it is not what was asked for, if it is not.
    pub fallback: Option<String>,
    /// What the kernel granted as a receive buffer, in its own accounting (twice what is asked).
    pub receive_buffer_bytes: usize,
    /// Its counters file.
    pub counters_path: PathBuf,
    /// Its admin socket.
    pub socket_path: PathBuf,
}

/// What the data agent says once it stands.
struct Ready {
    info: Info,
    waker: Waker,
    counters: CountersFile,
    cells: cells::Reader,
}

/// What the data agent's thread is given.
struct Given {
    settings: Settings,
    publications: Vec<spsc::Consumer>,
    outlets: Vec<Outlet>,
    listeners: Vec<Listener>,
    commands: spsc::Consumer,
    answers: Listener,
    held_up: cells::Writer,
    sleeper: Sleeper,
    gate: Sleeper,
    stop: Flag,
}

impl ThreadedNode {
    /// Starts a node with one publication and one subscription to all topics.
    ///
    /// # Errors
    /// As [`ThreadedNode::start_with`].
    pub fn start(settings: &Settings) -> Result<(Self, Publication, Subscription), NodeError> {
        let handles = Handles { publications: 1, subscriptions: vec![Vec::new()] };
        let (node, mut publications, mut subscriptions) = Self::start_with(settings, &handles)?;
        Ok((node, publications.remove(0), subscriptions.remove(0)))
    }

    /// Starts a node. All subscriptions exist before the first message is delivered, so that none is missed.
    ///
    /// # Errors
    /// If the settings contradict themselves, or the network, the core or the directory can't be used; the text says
    /// what to do.
    pub fn start_with(
        settings: &Settings,
        handles: &Handles,
    ) -> Result<(Self, Vec<Publication>, Vec<Subscription>), NodeError> {
        settings.check()?;
        let io = |doing| move |source| NodeError::Io { doing, source };
        let (sleeper, bell) = doorbell();
        let (gate, gate_bell) = doorbell();
        let (held_up, held_up_by) = cells::in_memory(1);
        let ring_bytes = settings.threads.publication_ring_bytes;
        let (producers, publications): (Vec<_>, _) =
            (0..handles.publications).map(|_| spsc::channel(ring_bytes)).unzip();
        let mut outlets = Vec::new();
        let mut inlets = Vec::new();
        for topics in &handles.subscriptions {
            let (outlet, inlet) = subscribe(settings, topics).map_err(io("making an eventfd"))?;
            outlets.push(outlet);
            inlets.push(inlet);
        }
        let (event_producer, consumer) = spsc::channel(EVENT_RING_BYTES);
        let events = Events { consumer, waker: Waker::new().map_err(io("making an eventfd"))? };
        let event_waker = events.waker.clone();
        let seats =
            control::prepare(EVENT_RING_BYTES, COMMAND_RING_BYTES).map_err(io("preparing the control thread"))?;
        let stop = Flag::new();
        let given = Given {
            settings: settings.clone(),
            publications,
            outlets,
            listeners: vec![
                Listener { producer: event_producer, wake: Box::new(move || event_waker.wake()) },
                seats.listener,
            ],
            commands: seats.commands,
            answers: seats.answers,
            held_up,
            sleeper,
            gate,
            stop: stop.clone(),
        };
        let (ready, stands) = sync_channel(1);
        let (ended, end_waker) = (Flag::new(), events.waker.clone());
        let has_ended = ended.clone();
        let data = Builder::new()
            .name("bourdon-data".to_owned())
            .spawn(move || {
                let outcome = run_agent(given, ready);
                has_ended.set();
                end_waker.wake();
                outcome
            })
            .map_err(io("starting the data agent"))?;
        let Ok(Ready { info, waker, counters, cells }) = stands.recv() else {
            let outcome = data.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            return Err(outcome.expect_err("an agent that ends before it stands says why"));
        };
        let mut node = Self { info, stop, waker, data: Some(data), ended, control: None, events, counters };
        let asker = control::Asker { bell: bell.clone(), waker: node.waker.clone(), stop: node.stop.clone() };
        let control = seats.control.start(&node.counters, cells, asker).map_err(io("opening the admin socket"))?;
        node.info.socket_path = control.path();
        node.control = Some(control);
        let is_member = settings.process.role == Role::Member;
        let max_message_bytes = settings.limits.max_message_bytes;
        let publication = |producer| Publication {
            producer,
            bell: bell.clone(),
            waker: node.waker.clone(),
            held_up_by: held_up_by.clone(),
            max_message_bytes: is_member.then_some(max_message_bytes),
        };
        let publications = producers.into_iter().map(publication).collect();
        let subscription =
            |inlet: Inlet| Subscription { inlet, freed_bytes: 0, gate: gate_bell.clone(), agent: node.waker.clone() };
        let subscriptions = inlets.into_iter().map(subscription).collect();
        Ok((node, publications, subscriptions))
    }

    /// What it chose.
    pub fn info(&self) -> &Info {
        &self.info
    }

    /// The next event, if there is one.
    pub fn poll_event(&mut self) -> Option<NodeEvent> {
        let mut event = None;
        self.events.consumer.read(1, |tag, frame| event = Some(messages::event_of(tag, frame)));
        event
    }

    /// Readable when there are events, or when the node has ended; [`ThreadedNode::clear_events`] first, then
    /// fetch.
    pub fn events_fd(&self) -> BorrowedFd<'_> {
        self.events.waker.as_fd()
    }

    /// Takes the readiness of [`ThreadedNode::events_fd`] back.
    pub fn clear_events(&self) {
        self.events.waker.clear();
    }

    /// Whether it still runs: it ends by [`ThreadedNode::stop`], by request on the admin socket, or because its port
    /// failed.
    pub fn is_running(&self) -> bool {
        !self.ended.is_set()
    }

    /// Stops it: what was published is sent, and its acknowledgement awaited for up to a second.
    ///
    /// # Errors
    /// Why it had ended already, if its port had failed.
    pub fn stop(mut self) -> Result<(), NodeError> {
        self.end()
    }

    fn end(&mut self) -> Result<(), NodeError> {
        self.stop.set();
        self.waker.wake();
        let joined = self.data.take().map(JoinHandle::join);
        drop(self.control.take());
        match joined {
            Some(Err(panic)) if !std::thread::panicking() => std::panic::resume_unwind(panic),
            Some(Ok(outcome)) => outcome,
            _ => Ok(()),
        }
    }
}

impl Drop for ThreadedNode {
    fn drop(&mut self) {
        let _ = self.end(); // `stop` is for those who want to know
    }
}

/// The data agent's thread, from its first line to its last.
fn run_agent(given: Given, ready: SyncSender<Ready>) -> Result<(), NodeError> {
    let settings = &given.settings;
    place_current_thread(settings.threads.core)?;
    let node = Node::join(settings)?;
    let (file, counters) = node.share_counters(settings)?;
    let info = Info {
        local_address: node.local_address(),
        io: node.io().to_owned(),
        fallback: node.fallback().map(str::to_owned),
        receive_buffer_bytes: node.port().limits().receive_buffer_bytes,
        counters_path: file.path(),
        socket_path: PathBuf::new(),
    };
    let standing = Ready { info, waker: node.port().waker(), counters: file, cells: counters.reader() };
    if ready.send(standing).is_err() {
        return Ok(()); // nobody waits for this node any more
    }
    let wakers: Vec<_> = given.outlets.iter().map(|outlet| outlet.waker.clone()).collect();
    let idler = Idler::new(settings.threads.idle);
    let agent = Agent {
        node,
        publications: given.publications,
        outlets: given.outlets,
        listeners: given.listeners,
        commands: given.commands,
        answers: given.answers,
        held_up: given.held_up,
        sleeper: given.sleeper,
        gate: given.gate,
        stop: given.stop,
        counters,
        figures: AgentFigures::default(),
        is_member: settings.process.role == Role::Member,
    };
    let outcome = agent.run(idler);
    wakers.iter().for_each(Waker::wake); // the rings are gone: nobody shall wait for them
    Ok(outcome?)
}

fn subscribe(settings: &Settings, topics: &[TopicId]) -> std::io::Result<(Outlet, Inlet)> {
    let (producer, consumer) = spsc::channel(settings.threads.subscription_ring_bytes);
    let (sleeper, bell) = doorbell();
    let (overruns, overrun_count) = watermark(0);
    let waker = Waker::new()?;
    let outlet = Outlet {
        producer,
        topics: topics.to_vec(),
        overflow: VecDeque::new(),
        overruns,
        bell,
        waker: waker.clone(),
        longest_bytes: frame_guess_bytes(),
    };
    Ok((outlet, Inlet { consumer, sleeper, waker, overruns: overrun_count }))
}

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
    producer: spsc::Producer,
    bell: Bell,
    waker: Waker,
    held_up_by: cells::Reader,
    /// None at an observer.
    max_message_bytes: Option<usize>,
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
        let Some(limit_bytes) = self.max_message_bytes else {
            return Err(PublishError::Refused(Refusal::Observer));
        };
        if payload_bytes > limit_bytes {
            return Err(PublishError::Refused(Refusal::TooLarge { limit_bytes }));
        }
        if self.producer.is_abandoned() {
            return Err(PublishError::Ended);
        }
        match self.producer.try_claim(topic.0.into(), published_bytes(payload_bytes)) {
            Ok(mut ring) => {
                let head = Published { intended_send_ns: UNTIMED };
                ring[..PUBLISHED_BYTES].copy_from_slice(head.as_bytes());
                Ok(PublicationClaim { ring, bell: &mut self.bell, waker: &self.waker })
            }
            Err(_) => {
                let held_up_by = messages::refusal_of(self.held_up_by.get(0));
                Err(PublishError::RingFull { held_up_by })
            }
        }
    }

    /// What the data agent waits for before it can publish more, if it waits.
    pub fn held_up_by(&self) -> Option<Refusal> {
        messages::refusal_of(self.held_up_by.get(0))
    }
}

/// Space for one message's bytes; dropped without [`PublicationClaim::commit`], it never was.
#[must_use = "a claim that is not committed publishes nothing"]
pub struct PublicationClaim<'a> {
    ring: spsc::Claim<'a>,
    bell: &'a mut Bell,
    waker: &'a Waker,
}

impl PublicationClaim<'_> {
    /// Says when the message was meant to be sent, in nanoseconds since the UNIX epoch; receivers see it as its send
    /// time. Costs 8 bytes on the network.
    pub fn set_intended_send_ns(&mut self, intended_send_ns: u64) {
        self.ring[..PUBLISHED_BYTES].copy_from_slice(Published { intended_send_ns }.as_bytes());
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
        &self.ring[PUBLISHED_BYTES..]
    }
}

impl DerefMut for PublicationClaim<'_> {
    #[inline]
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.ring[PUBLISHED_BYTES..]
    }
}

struct Inlet {
    consumer: spsc::Consumer,
    sleeper: Sleeper,
    waker: Waker,
    overruns: WatermarkReader,
}

/// Where one of the application's threads receives.
pub struct Subscription {
    inlet: Inlet,
    /// Bytes read since the data agent was last told of room.
    freed_bytes: usize,
    gate: Bell,
    agent: Waker,
}

impl Subscription {
    /// Hands out at most `limit` messages; says how many. Zero means that there is none.
    #[inline]
    pub fn poll(&mut self, limit: usize, mut on_delivery: impl FnMut(Delivery<'_>)) -> usize {
        let freed_bytes = &mut self.freed_bytes;
        let count = self.inlet.consumer.read(limit, |_, frame| {
            *freed_bytes += frame.len();
            on_delivery(Delivered::read(frame));
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
    /// What poll(2) says.
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
