//! A client: a process outside the group that publishes through a member, and exchanges direct messages.
//!
//! It knows the members by their heartbeats (`client/roster.rs`). `client/publisher.rs` publishes through one of them.
//! It measures the distance to each member with its own probes, and sends a direct message to the nearest, or to a
//! certain one (`control/direct.rs`).
//!
//! Pure like [`Process`](crate::Process): bytes and time in, bytes and events out.

mod publisher;
mod roster;

use crate::control::direct::caller::{Target, TargetChoice};
use crate::control::direct::{Direct, Out};
use crate::counters::Counters;
use crate::event::{CallId, DirectAnswer, DirectContent, DirectKind, DirectMessage, DirectOutcome, DirectRequest, To};
use crate::outbox::{Destination, Outbox};
use crate::process::is_for_one;
use crate::refusal::Refusal;
use alloc::vec;
use bourdon_wire::records::{ClientAnswer, Heartbeat};
use bourdon_wire::{
    Address, CONTROL_CHANNEL, ClientId, Datagram, DatagramHeader, Epoch, GroupId, HEADER_BYTES, Incarnation,
    InstanceId, Instant, Kind, Rank, Sequence, TopicId, TopicName,
};
use publisher::Publisher;
use roster::{Roster, is_formed};

/// The outcome of a client's messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ClientEvent {
    /// Every message below this was published, except those reported as too large.
    Taken(Sequence),
    /// The oldest message not taken is longer than the group allows; it was dropped.
    TooLarge(Sequence),
    /// The member serves as many clients as it can.
    TooManyClients,
    /// Nothing was heard from any member for 5 s.
    NoAnswer,
}

/// The state of the group, as a client hears it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum GroupState {
    /// No member has been heard.
    #[default]
    Unheard,
    /// The member heard last is in no view yet.
    Forming,
    /// The member heard last is in a view of which it hears no majority.
    NoMajority,
    /// It is in a view and hears a majority of it.
    Formed,
}

impl core::fmt::Display for GroupState {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::Unheard => "no member has been heard: check that one runs, and the group's name and address",
            Self::Forming => {
                "the group is still forming: its members wait for each other, as `bourdon view` shows; start them all"
            }
            Self::NoMajority => {
                "the member heard last reaches no majority of its view: restore the others, or, where they \
                 are gone for good, run `bourdon recover` beside a survivor"
            }
            Self::Formed => "the group has formed",
        })
    }
}

impl core::fmt::Display for ClientEvent {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Taken(next) => write!(f, "every message below {next} was taken, except those that were too large"),
            Self::TooLarge(sequence) => {
                // People count messages from one.
                write!(f, "message {} is longer than the group's max_message_bytes", sequence.next())
            }
            Self::TooManyClients => {
                f.write_str("the member serves as many clients as it can: this client waits until another one ends")
            }
            Self::NoAnswer => f.write_str("nothing was heard from any member for 5 s"),
        }
    }
}

impl GroupState {
    fn of(heartbeat: &Heartbeat) -> Self {
        let (members, heard) = (heartbeat.members.get(), heartbeat.heard_from.get() & heartbeat.members.get());
        match is_formed(heartbeat) {
            false => Self::Forming,
            true if 2 * heard.count_ones() <= members.count_ones() => Self::NoMajority,
            true => Self::Formed,
        }
    }
}

/// A client of one group.
#[derive(Debug)]
pub struct Client {
    group: GroupId,
    roster: Roster,
    publisher: Publisher,
    direct: Direct,
    /// Datagrams of direct messages.
    outbox: Outbox,
    counters: Counters,
}

impl Client {
    /// A client with an id that no other client uses, reachable at `reply_to`, sending datagrams of at most
    /// `mtu_bytes`.
    pub fn new(now: Instant, group: GroupId, id: ClientId, reply_to: Address, mtu_bytes: usize) -> Self {
        let incarnation = Incarnation(id.0 as u32);
        let header = DatagramHeader::new(group, InstanceId::NONE, Epoch(0), Rank::CLIENT, incarnation, CONTROL_CHANNEL);
        Self {
            group,
            roster: Roster::new(),
            publisher: Publisher::new(now, group, id, reply_to, mtu_bytes),
            direct: Direct::new(id.0, reply_to, mtu_bytes - HEADER_BYTES),
            outbox: Outbox::new(header, 0),
            counters: Counters::default(),
        }
    }

    /// This client is reached at another address from now on: its host has got another one.
    pub fn move_to(&mut self, now: Instant, address: Address) {
        self.publisher.move_to(now, address);
        self.direct.move_to(address);
    }

    /// Takes a datagram that was sent to all or to this process alone.
    pub fn on_datagram(&mut self, now: Instant, bytes: &[u8], to_all: bool) {
        let Ok(datagram) = Datagram::parse(bytes, self.group) else { return };
        let header = datagram.header;
        if header.channel() != CONTROL_CHANNEL {
            return;
        }
        for frame in datagram.frames().filter(|frame| !(to_all && is_for_one(frame))) {
            match frame.kind() {
                Some(Kind::Heartbeat) if header.rank() <= Rank::MAX => {
                    let Some((heartbeat, _)) = Heartbeat::read(frame.body) else { continue };
                    self.roster.on_heartbeat(now, header, heartbeat);
                    self.publisher.on_heartbeat(now, header, heartbeat);
                }
                Some(Kind::ClientAnswer) => {
                    if let Some((answer, place)) = ClientAnswer::read_all(frame.body) {
                        self.publisher.on_answer(now, header.instance(), answer, place);
                    }
                }
                Some(Kind::Direct) => {
                    let mut out = Out { outbox: &mut self.outbox, counters: &mut self.counters };
                    self.direct.receive(now, header.rank(), frame.body, None, &mut out);
                }
                _ => {}
            }
        }
    }

    /// Does what is due, then passes the datagrams that must be sent now to `send`, with the length of a segment; it
    /// returns how many it took: none or one.
    pub fn transmit(&mut self, now: Instant, mut send: impl FnMut(Destination, &[u8], usize) -> usize) {
        if self.direct.is_calling() {
            let roster = &self.roster;
            let mut out = Out { outbox: &mut self.outbox, counters: &mut self.counters };
            self.direct.tend(now, |target| roster.health(now, target), &mut out);
        }
        self.outbox.drain(&mut send);
        self.publisher.transmit(now, |member, bytes| send(Destination::Peer(member), bytes, bytes.len()) > 0);
    }

    /// When to call [`Client::transmit`] again, at the latest.
    pub fn next_deadline(&self) -> Instant {
        let direct = if self.outbox.is_empty() { self.direct.due() } else { Instant(0) };
        direct.min(self.publisher.next_deadline())
    }

    // ---- publishing -----------------------------------------------------------------------------------------------

    /// Whether the client can take another message now.
    pub fn has_room(&self) -> bool {
        self.publisher.has_room()
    }

    /// Why no member takes messages now, as far as is known.
    pub fn unavailable(&self, now: Instant) -> Option<Refusal> {
        self.publisher.unavailable(now)
    }

    /// The most messages under way, where they are short.
    pub const WINDOW: usize = publisher::WINDOW;

    /// Whether members have taken everything published.
    pub fn is_idle(&self) -> bool {
        self.publisher.is_idle()
    }

    /// The client ends: it sends a goodbye to its member once all that it published was taken. Call
    /// [`Client::transmit`] until [`Client::has_left`]; publish nothing more.
    pub fn leave(&mut self) {
        self.publisher.leave();
    }

    /// Whether the client's place at its member is free, or it has tried for a tenth of a second, or it had none.
    pub fn has_left(&self) -> bool {
        self.publisher.has_left()
    }

    /// The member this client publishes through, once a member was heard.
    pub fn member(&self) -> Option<Address> {
        self.publisher.member()
    }

    /// The state of the group, by the heartbeat that came last.
    pub fn group_state(&self) -> GroupState {
        self.publisher.group_state()
    }

    /// Queues a message; call only while [`Client::has_room`].
    pub fn publish(&mut self, topic: TopicId, payload: &[u8]) -> Sequence {
        self.publisher.publish(topic, payload)
    }

    /// Queues a message that carries its topic's name; call only while [`Client::has_room`].
    pub fn publish_named(&mut self, name: &TopicName, payload: &[u8]) -> Sequence {
        self.publisher.publish_named(name, payload)
    }

    /// The next outcome of this client's messages.
    pub fn poll_event(&mut self) -> Option<ClientEvent> {
        self.publisher.poll_event()
    }

    // ---- direct messages ------------------------------------------------------------------------------------------

    /// The members heard lately.
    pub fn members(&self, now: Instant) -> impl Iterator<Item = Rank> {
        self.roster.members(now)
    }

    /// The incarnation of a member, if it was ever heard.
    pub fn incarnation(&self, rank: Rank) -> Option<Incarnation> {
        self.roster.target(rank).and_then(|target| target.member?.1)
    }

    /// As [`Process::send`](crate::Process::send); the nearest is the nearest of the members heard lately.
    ///
    /// # Errors
    /// If it is too long, too many are pending, or no receiver was heard.
    pub fn send(&mut self, now: Instant, to: To<'_>, content: &DirectContent<'_>) -> Result<Option<CallId>, Refusal> {
        let (choice, targets) = match to {
            To::Rank(rank) => (TargetChoice::One, vec![self.roster.target(rank).ok_or(Refusal::Unheard(rank))?]),
            To::Nearest => {
                let near = self.members(now).filter_map(|rank| self.roster.target(rank));
                (TargetChoice::Any, near.collect())
            }
            To::Among(ranks) => {
                (TargetChoice::Any, ranks.iter().filter_map(|rank| self.roster.target(*rank)).collect())
            }
            To::Address(address) if !address.is_reachable() => return Err(Refusal::Unreachable),
            To::Address(address) => {
                (TargetChoice::One, vec![Target { member: None, address, is_proven: false, rtt_ns: None }])
            }
            To::All => {
                let mut out = Out { outbox: &mut self.outbox, counters: &mut self.counters };
                return self.direct.broadcast(now, content, &mut out).map(|()| None);
            }
        };
        self.direct.call(now, choice, targets, content).map(Some)
    }

    /// The longest payload of a direct message of this kind.
    pub fn direct_limit_bytes(&self, kind: DirectKind) -> usize {
        self.direct.limit_bytes(kind)
    }

    /// The next answer to a request of this process.
    pub fn poll_answer(&mut self) -> Option<DirectAnswer> {
        self.direct.poll_answer()
    }

    /// The next request received.
    pub fn poll_request(&mut self) -> Option<DirectRequest> {
        self.direct.poll_request()
    }

    /// Whether a direct message or an answer of this process was not acknowledged yet.
    pub fn owes_direct(&self) -> bool {
        self.direct.owes()
    }

    /// The next direct message received.
    pub fn poll_direct(&mut self) -> Option<DirectMessage> {
        self.direct.poll_message()
    }

    /// The outcome of the next of the direct messages sent.
    pub fn poll_outcome(&mut self) -> Option<DirectOutcome> {
        self.direct.poll_outcome()
    }
}
