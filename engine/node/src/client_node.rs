//! A client on a real network: publishes through a member without joining the group.
//!
//! The client's protocol is pure; this gives it a port and a clock, and refuses at once what no member takes: that no
//! member of the group was ever heard, which on a real network means a wrong address, interface or name far more often
//! than a dead group.

use crate::config::{Role, Settings};
use crate::host;
use crate::node_error::Error;
use crate::request::{Calling, Calls, Completion, Directs, Outbound, Request};
use crate::transport::{AnyPort, pick};
use bourdon_engine::{Clock, place};
use bourdon_port::{Echo, Port, PortError, Sleep, Waker};
use bourdon_protocol::{
    self as protocol, CallId, Client, ClientEvent, DirectAnswer, DirectContent, DirectKind, DirectMessage,
    DirectOutcome, DirectRequest, Outgoing, Refusal,
};
use bourdon_wire::{CONTROL_CHANNEL, ClientId, ECHO_OFFSET, GroupId, Incarnation, Instant, Rank, Sequence, echo_bytes};
use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

/// How often it is looked whether the host has changed.
const UPKEEP_NS: u64 = 5_000_000;
/// Datagrams taken from the port at once: the window's answers and a heartbeat of each member.
const RECEIVE_LIMIT: usize = 128;

/// The protocol and its port.
#[derive(Debug)]
struct Endpoint {
    client: Client,
    port: AnyPort,
    clock: Clock,
}

/// A client and its port.
#[derive(Debug)]
pub(crate) struct ClientNode {
    endpoint: Endpoint,
    calls: Calls,
    /// The last poll's time.
    now: Instant,
    /// When it is next looked whether the host has changed.
    upkeep_due: Instant,
    fallback: Option<String>,
    max_message_bytes: usize,
}

impl ClientNode {
    /// Opens the sockets and begins to search for a member.
    ///
    /// # Errors
    /// If the settings contradict themselves or the network can't be used; the text gives what to do.
    pub(crate) fn open(settings: &Settings) -> Result<Self, Error> {
        settings.check()?;
        // In a mesh no member knows an address of a client, even if the client has a member's configuration.
        let settings = &{
            let mut settings = settings.clone();
            (settings.process.role, settings.network.listen) = (Role::Client, None);
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
            endpoint: Endpoint { client, port: picked.port, clock },
            calls: Calls::new(move || waker.wake()),
            now,
            upkeep_due: now,
            fallback: picked.fallback,
            max_message_bytes: settings.limits.max_message_bytes,
        })
    }

    /// Announces answers of the application by this ring.
    pub(crate) fn share_calls(&mut self, ring: impl FnMut() + Send + 'static) {
        self.calls = Calls::new(ring);
    }

    /// Whether everything published was taken by a member.
    pub(crate) fn is_idle(&self) -> bool {
        self.endpoint.client.is_idle()
    }

    /// Sends a goodbye to its member, once everything was taken. Returns whether it needs more time for it.
    pub(crate) fn is_leaving(&mut self) -> bool {
        let client = &mut self.endpoint.client;
        client.leave();
        client.is_idle() && !client.has_left()
    }

    /// The longest payload of a direct message of this kind.
    pub(crate) fn direct_limit_bytes(&self, kind: DirectKind) -> usize {
        self.endpoint.limit_bytes(kind)
    }

    /// Why no member takes messages now.
    pub(crate) fn unavailable(&self) -> Option<Refusal> {
        // Over `auto` it needs the mesh alone, or a member on this host: answers come that way.
        let Endpoint { client, port, .. } = &self.endpoint;
        if port.is_alone() { Some(Refusal::NoNetwork) } else { client.unavailable(self.now) }
    }

    /// Queues a message. Of what can go with a message, a client's carries its topic and its name.
    ///
    /// # Errors
    /// If it is too long, 32 messages or 1 MiB are under way, or no member takes any.
    pub(crate) fn try_publish(&mut self, outgoing: &Outgoing, payload: &[u8]) -> Result<Sequence, Refusal> {
        if payload.len() > self.max_message_bytes {
            return Err(Refusal::TooLarge { limit_bytes: self.max_message_bytes });
        }
        if let Some(refusal) = self.unavailable() {
            return Err(refusal);
        }
        let client = &mut self.endpoint.client;
        if !client.has_room() {
            return Err(Refusal::TooMany { limit: Client::WINDOW });
        }
        Ok(match &outgoing.name {
            Some(name) => client.publish_named(name, payload),
            None => client.publish(outgoing.topic, payload),
        })
    }

    /// Sends, receives, keeps time. Returns how much was received.
    ///
    /// # Errors
    /// If the port is broken.
    pub(crate) fn poll(&mut self) -> Result<usize, PortError> {
        let Endpoint { client, port, clock } = &mut self.endpoint;
        let now = clock.now();
        self.now = now;
        if now >= self.upkeep_due {
            self.upkeep_due = now + UPKEEP_NS;
            if let Some(change) = port.follow_host()? {
                client.move_to(now, port.local_address().into());
                tracing::warn!("{}", host::event(&change));
            }
        }
        let count = port.receive(RECEIVE_LIMIT, |arrival| {
            client.on_datagram(now, arrival.bytes, arrival.to_all);
        })?;
        let calls = self.calls.tend(&mut self.endpoint);
        self.calls.end_gone(&self.endpoint);
        let Endpoint { client, port, .. } = &mut self.endpoint;
        let mut failed = None;
        client.transmit(now, |to, bytes, segment_bytes| {
            port.send(place(to), bytes, segment_bytes).unwrap_or_else(|error| {
                failed = Some(error);
                0
            })
        });
        failed.map_or_else(|| port.flush(), Err)?;
        Ok(count + calls)
    }

    /// How long it may sleep; not at all if something is due.
    fn before_sleep(&self, longest: Duration) -> Option<Duration> {
        let Endpoint { client, clock, .. } = &self.endpoint;
        let until_due = Duration::from_nanos(client.next_deadline().since(clock.now()));
        (until_due > Duration::ZERO && !self.calls.has_new_answers()).then(|| longest.min(until_due))
    }

    /// Sleeps until something may have come or something is due, at most for `longest`.
    ///
    /// # Errors
    /// If the port is broken.
    pub(crate) fn wait(&mut self, longest: Duration) -> Result<(), PortError> {
        self.before_sleep(longest).map_or(Ok(()), |longest| self.endpoint.port.wait(longest))
    }

    /// Prepares a sleep for this client among others; none if the thread must not sleep.
    ///
    /// # Errors
    /// If the port is broken.
    pub(crate) fn sleeper(&mut self, longest: Duration) -> Result<Option<Sleep<'_>>, PortError> {
        match self.before_sleep(longest) {
            Some(longest) => self.endpoint.port.sleeper(longest),
            None => Ok(None),
        }
    }

    /// Takes in what the kernel reports after such a sleep.
    ///
    /// # Errors
    /// If the port is broken.
    pub(crate) fn end_sleep(&mut self) -> Result<(), PortError> {
        self.endpoint.port.wait(Duration::ZERO)
    }

    /// Whether messages or answers beside the stream are still to be sent or acknowledged.
    pub(crate) fn owes_calls(&self) -> bool {
        self.calls.has_answers() || self.endpoint.client.owes_direct()
    }

    /// Ends a [`ClientNode::wait`] from another thread.
    pub(crate) fn waker(&self) -> Waker {
        self.endpoint.port.waker()
    }

    /// What became of the messages since the last call.
    pub(crate) fn poll_event(&mut self) -> Option<ClientEvent> {
        self.endpoint.client.poll_event()
    }

    /// The last poll's time.
    pub(crate) fn now(&self) -> Instant {
        self.now
    }

    /// Its port.
    pub(crate) fn port(&self) -> &AnyPort {
        &self.endpoint.port
    }

    /// Why the client runs on another transport than the settings name, if it does.
    pub(crate) fn fallback(&self) -> Option<&str> {
        self.fallback.as_deref()
    }
}

impl Calling for ClientNode {
    fn begin(&mut self, outbound: &Outbound<'_>, completion: Completion) -> Result<(), (Refusal, Completion)> {
        self.calls.begin(&mut self.endpoint, outbound, completion)
    }

    fn end_late(&mut self) {
        self.calls.end_late();
    }

    fn next_message(&mut self) -> Option<DirectMessage> {
        self.endpoint.client.poll_direct()
    }

    fn next_request(&mut self) -> Option<Request> {
        self.calls.next_request(&mut self.endpoint)
    }
}

impl Directs for Endpoint {
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
