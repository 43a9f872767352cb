//! A client on a real network: publishes through a member without joining the group.
//!
//! The client's protocol is pure; this gives it a port and a clock, and notices what a pure client can't: that no
//! member of the group was ever heard, which on a real network means a wrong address, interface or name far more often
//! than a dead group.

use crate::config::{Role, Settings};
use crate::deadline::Deadline;
use crate::node_error::Error;
use crate::request::{Call, Calls, Completion, Directs, Outbound};
use crate::transport::{AnyPort, pick};
use bourdon_engine::Clock;
use bourdon_port::{Echo, Port, PortError, To, Waker};
use bourdon_protocol::{
    self as protocol, CallId, Client, ClientEvent, Destination, DirectAnswer, DirectContent, DirectKind, DirectMessage,
    DirectOutcome, DirectRequest, GroupState, Refusal,
};
use bourdon_wire::{
    CONTROL_CHANNEL, ClientId, ECHO_OFFSET, GroupId, Incarnation, Instant, Rank, Sequence, TopicId, TopicName,
    echo_bytes,
};
use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

/// Datagrams taken from the port at once: the window's answers and a heartbeat of each member.
const RECEIVE_LIMIT: usize = 128;

/// The protocol and its port.
#[derive(Debug)]
struct Inner {
    client: Client,
    port: AnyPort,
    clock: Clock,
}

impl Directs for Inner {
    fn send(&mut self, to: protocol::To<'_>, content: &DirectContent<'_>) -> Result<Option<CallId>, Refusal> {
        if to == protocol::To::All && !self.port.can_broadcast() {
            return Err(Refusal::Unsupported { setting: "network.transport" });
        }
        self.client.send(self.clock.now(), to, content)
    }

    fn limit_bytes(&self, kind: DirectKind) -> usize {
        self.client.direct_limit_bytes(kind)
    }

    fn poll_outcome(&mut self) -> Option<DirectOutcome> {
        self.client.poll_outcome()
    }

    fn poll_answer(&mut self) -> Option<DirectAnswer> {
        self.client.poll_answer()
    }

    fn poll_request(&mut self) -> Option<DirectRequest> {
        self.client.poll_request()
    }

    fn incarnation(&self, rank: Rank) -> Option<Incarnation> {
        self.client.incarnation(rank)
    }
}

/// A client and its port.
#[derive(Debug)]
pub struct ClientNode {
    inner: Inner,
    calls: Calls,
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
        let client = Client::new(now, group, id, reply_to, settings.limits.mtu_bytes);
        let waker = picked.port.waker();
        Ok(Self {
            inner: Inner { client, port: picked.port, clock },
            calls: Calls::new(move || waker.wake()),
            started_at: now,
            fallback: picked.fallback,
            max_message_bytes: Client::max_message_bytes(settings.limits.mtu_bytes),
        })
    }

    /// Whether another message can be taken now.
    pub fn has_room(&self) -> bool {
        self.inner.client.has_room()
    }

    /// Whether everything published was taken by a member.
    pub fn is_idle(&self) -> bool {
        self.inner.client.is_idle()
    }

    /// The longest message a client can publish.
    pub fn max_message_bytes(&self) -> usize {
        self.max_message_bytes
    }

    /// Whether a member was heard, and if not, for how long none was.
    pub fn unheard_for(&self) -> Option<Duration> {
        let waited_ns = self.inner.clock.now().since(self.started_at);
        self.inner.client.member().is_none().then(|| Duration::from_nanos(waited_ns))
    }

    /// The state of the group, by the heartbeat that came last.
    pub fn group_state(&self) -> GroupState {
        self.inner.client.group_state()
    }

    /// Queues a message; call only while [`ClientNode::has_room`].
    ///
    /// # Panics
    /// If the message is longer than [`ClientNode::max_message_bytes`].
    pub fn publish(&mut self, topic: TopicId, payload: &[u8]) -> Sequence {
        assert!(payload.len() <= self.max_message_bytes, "a client's message fits one datagram");
        self.inner.client.publish(topic, payload)
    }

    /// Queues a message that carries its topic's name; call only while [`ClientNode::has_room`].
    ///
    /// # Panics
    /// If message and name together are longer than [`ClientNode::max_message_bytes`].
    pub fn publish_named(&mut self, name: &TopicName, payload: &[u8]) -> Sequence {
        let length = name.wire_bytes() + payload.len();
        assert!(length <= self.max_message_bytes, "a client's message fits one datagram");
        self.inner.client.publish_named(name, payload)
    }

    /// Sends, receives, keeps time.
    ///
    /// # Errors
    /// If the port is broken.
    pub fn poll(&mut self) -> Result<(), PortError> {
        let now = self.inner.clock.now();
        let Inner { client, port, .. } = &mut self.inner;
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
        failed.map_or_else(|| port.flush(), Err)?;
        while let Some(request) = self.calls.next_request(&mut self.inner) {
            drop(request); // it declines
        }
        self.calls.tend(&mut self.inner);
        self.calls.end_gone(&self.inner);
        Ok(())
    }

    /// Sleeps until something may have come or something is due, at most for `longest`.
    ///
    /// # Errors
    /// If the port is broken.
    pub fn wait(&mut self, longest: Duration) -> Result<(), PortError> {
        if self.calls.has_answers() {
            return Ok(());
        }
        let until_due = Duration::from_nanos(self.inner.client.next_deadline().since(self.inner.clock.now()));
        self.inner.port.wait(longest.min(until_due))
    }

    /// The members heard lately.
    pub fn members(&self) -> Vec<Rank> {
        self.inner.client.members(self.inner.clock.now()).collect()
    }

    /// Sends a message to one process, to the nearest of several, or to all on the network, from beside the group: its
    /// outcome comes with a poll.
    ///
    /// # Errors
    /// If it is too long, too many are under way, no receiver was heard, or the port can't broadcast.
    pub fn try_send(&mut self, to: bourdon_protocol::To<'_>, payload: &[u8]) -> Result<Call, Refusal> {
        self.begin(Outbound { to, payload, is_request: false, deadline: Deadline::NEVER })
    }

    /// Sends a request: the reply comes with a poll.
    ///
    /// # Errors
    /// As [`ClientNode::try_send`].
    pub fn try_request(
        &mut self,
        to: bourdon_protocol::To<'_>,
        payload: &[u8],
        deadline: impl Into<Deadline>,
    ) -> Result<Call, Refusal> {
        self.begin(Outbound { to, payload, is_request: true, deadline: deadline.into() })
    }

    fn begin(&mut self, outbound: Outbound<'_>) -> Result<Call, Refusal> {
        let (completion, call) = Completion::new(outbound.deadline, None);
        let begun = self.calls.begin(&mut self.inner, &outbound, completion);
        begun.map(|()| call).map_err(|(refusal, _)| refusal)
    }

    /// The next direct message received.
    pub fn poll_direct(&mut self) -> Option<DirectMessage> {
        self.inner.client.poll_direct()
    }

    /// Ends a [`ClientNode::wait`] from another thread.
    pub fn waker(&self) -> Waker {
        self.inner.port.waker()
    }

    /// What became of the messages since the last call.
    pub fn poll_event(&mut self) -> Option<ClientEvent> {
        self.inner.client.poll_event()
    }

    /// What moves the bytes.
    pub fn io(&self) -> &str {
        self.inner.port.io()
    }

    /// Why the client runs on another transport than the settings name, if it does.
    pub fn fallback(&self) -> Option<&str> {
        self.fallback.as_deref()
    }
}
