//! A client on a real network: publishes through a member without joining the group.
//!
//! The client's protocol is pure; this gives it a port and a clock, and notices what a pure client can't: that no
//! member of the group was ever heard, which on a real network means a wrong address, interface or name far more often
//! than a dead group.

use crate::config::{Role, Settings};
use crate::node_error::Error;
use crate::transport::{AnyPort, pick};
use bourdon_engine::Clock;
use bourdon_port::{Echo, Port, PortError, To, Waker};
use bourdon_protocol::{
    CallId, Client, ClientEvent, Destination, DirectMessage, DirectOutcome, DirectRefusal, GroupState,
};
use bourdon_wire::{
    Address, CONTROL_CHANNEL, ClientId, ECHO_OFFSET, GroupId, Incarnation, Instant, Rank, Sequence, TopicId, TopicName,
    echo_bytes,
};
use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

/// Datagrams taken from the port at once: the window's answers and a heartbeat of each member.
const RECEIVE_LIMIT: usize = 128;

/// A client and its port.
#[derive(Debug)]
pub struct ClientNode {
    client: Client,
    port: AnyPort,
    clock: Clock,
    started_at: Instant,
    fallback: Option<String>,
    max_message_bytes: usize,
}

impl ClientNode {
    /// Opens the sockets and begins to search for a member.
    ///
    /// # Errors
    /// If the settings contradict themselves or the network can't be used; the text gives what to do.
    pub fn open(settings: &Settings) -> Result<Self, Error> {
        settings.check()?;
        // In a mesh no member knows an address of a client, even if the client has a member's configuration.
        let settings = &{
            let mut settings = settings.clone();
            (settings.process.role, settings.network.listen) = (Role::Observer, None);
            settings
        };
        let clock = Clock::start();
        let now = clock.now();
        // Keyed by the operating system's randomness, so that no two clients are alike, on any hosts.
        let id = ClientId(RandomState::new().hash_one((std::process::id(), now.0)));
        let bytes = echo_bytes(Rank::CLIENT, CONTROL_CHANNEL, Incarnation(id.0 as u32));
        let picked = pick(settings, Echo { offset: ECHO_OFFSET, bytes })?;
        let reply_to = picked.port.local_address().into();
        let group = GroupId::of(&settings.group.name);
        Ok(Self {
            client: Client::new(now, group, id, reply_to, settings.limits.mtu_bytes),
            port: picked.port,
            clock,
            started_at: now,
            fallback: picked.fallback,
            max_message_bytes: Client::max_message_bytes(settings.limits.mtu_bytes),
        })
    }

    /// Whether another message can be taken now.
    pub fn has_room(&self) -> bool {
        self.client.has_room()
    }

    /// Whether everything published was taken by a member.
    pub fn is_idle(&self) -> bool {
        self.client.is_idle()
    }

    /// The longest message a client can publish.
    pub fn max_message_bytes(&self) -> usize {
        self.max_message_bytes
    }

    /// Whether a member was heard, and if not, for how long none was.
    pub fn unheard_for(&self) -> Option<Duration> {
        let waited_ns = self.clock.now().since(self.started_at);
        self.client.member().is_none().then(|| Duration::from_nanos(waited_ns))
    }

    /// The state of the group, by the heartbeat that came last.
    pub fn group_state(&self) -> GroupState {
        self.client.group_state()
    }

    /// Queues a message; call only while [`ClientNode::has_room`].
    ///
    /// # Panics
    /// If the message is longer than [`ClientNode::max_message_bytes`].
    pub fn publish(&mut self, topic: TopicId, payload: &[u8]) -> Sequence {
        assert!(payload.len() <= self.max_message_bytes, "a client's message fits one datagram");
        self.client.publish(topic, payload)
    }

    /// Queues a message that carries its topic's name; call only while [`ClientNode::has_room`].
    ///
    /// # Panics
    /// If message and name together are longer than [`ClientNode::max_message_bytes`].
    pub fn publish_named(&mut self, name: &TopicName, payload: &[u8]) -> Sequence {
        let length = name.wire_bytes() + payload.len();
        assert!(length <= self.max_message_bytes, "a client's message fits one datagram");
        self.client.publish_named(name, payload)
    }

    /// Sends, receives, keeps time.
    ///
    /// # Errors
    /// If the port is broken.
    pub fn poll(&mut self) -> Result<(), PortError> {
        let (client, port, now) = (&mut self.client, &mut self.port, self.clock.now());
        port.receive(RECEIVE_LIMIT, |arrival| {
            client.on_datagram(now, arrival.bytes, arrival.to_all);
        })?;
        let mut failed = None;
        client.transmit(now, |to, bytes, segment_bytes| {
            let to = match to {
                Destination::Group => To::Group,
                Destination::Peer(address) => To::Peer(address.into()),
                Destination::Broadcast => To::Broadcast,
            };
            port.send(to, bytes, segment_bytes).unwrap_or_else(|error| {
                failed = Some(error);
                0
            })
        });
        failed.map_or_else(|| port.flush(), Err)
    }

    /// Sleeps until something may have come or something is due, at most for `longest`.
    ///
    /// # Errors
    /// If the port is broken.
    pub fn wait(&mut self, longest: Duration) -> Result<(), PortError> {
        let until_due = Duration::from_nanos(self.client.next_deadline().since(self.clock.now()));
        self.port.wait(longest.min(until_due))
    }

    /// The members heard lately.
    pub fn members(&self) -> Vec<Rank> {
        self.client.members(self.clock.now()).collect()
    }

    /// As [`InlineNode::send_to`](crate::InlineNode::send_to), from beside the group.
    ///
    /// # Errors
    /// If it is too long, too many are under way, or the member was not heard.
    pub fn send_to(&mut self, rank: Rank, payload: &[u8]) -> Result<CallId, DirectRefusal> {
        self.client.send_to(self.clock.now(), rank, payload)
    }

    /// As [`InlineNode::send_to_address`](crate::InlineNode::send_to_address).
    ///
    /// # Errors
    /// If it is too long, too many are under way, or nothing can be sent there.
    pub fn send_to_address(&mut self, to: Address, payload: &[u8]) -> Result<CallId, DirectRefusal> {
        self.client.send_to_address(self.clock.now(), to, payload)
    }

    /// As [`InlineNode::send_any`](crate::InlineNode::send_any); none named means all members heard lately.
    ///
    /// # Errors
    /// If it is too long, too many are under way, or none of them was heard.
    pub fn send_any(&mut self, among: &[Rank], payload: &[u8]) -> Result<CallId, DirectRefusal> {
        self.client.send_any(self.clock.now(), among, payload)
    }

    /// As [`InlineNode::broadcast`](crate::InlineNode::broadcast).
    ///
    /// # Errors
    /// If it is too long, or the port can't broadcast.
    pub fn broadcast(&mut self, payload: &[u8]) -> Result<(), DirectRefusal> {
        if !self.port.can_broadcast() {
            return Err(DirectRefusal::NoBroadcast);
        }
        self.client.broadcast(self.clock.now(), payload)
    }

    /// The next direct message received.
    pub fn poll_direct(&mut self) -> Option<DirectMessage> {
        self.client.poll_direct()
    }

    /// The outcome of the next direct message sent.
    pub fn poll_outcome(&mut self) -> Option<DirectOutcome> {
        self.client.poll_outcome()
    }

    /// Ends a [`ClientNode::wait`] from another thread.
    pub fn waker(&self) -> Waker {
        self.port.waker()
    }

    /// What became of the messages since the last call.
    pub fn poll_event(&mut self) -> Option<ClientEvent> {
        self.client.poll_event()
    }

    /// What moves the bytes.
    pub fn io(&self) -> &str {
        self.port.io()
    }

    /// Why the client runs on another transport than the settings name, if it does.
    pub fn fallback(&self) -> Option<&str> {
        self.fallback.as_deref()
    }
}
