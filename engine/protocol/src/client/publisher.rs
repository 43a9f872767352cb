//! How a client publishes: through a member, without being a member.
//!
//! A client has a small window of messages under way. The member takes them in order and replies with a watermark;
//! after a lost request or reply the client sends again from the watermark on (go-back-N). The window is small because
//! an application that needs speed runs a member.
//!
//! A message longer than a datagram is sent in fragments. The member's reply to each gives how much of the message it
//! has: the client sends again from there. Of a message that the member has whole, and that no quorum holds yet, it
//! sends the last fragment again, to get a reply.
//!
//! A client leaves a member that falls silent for another member that was heard lately. Through the other member it
//! sends again the messages that the first member had taken and not confirmed; the group delivers each once
//! (`control/clients.rs`).
//!
//! An older group whose members were frozen and have resumed, and a newer group of the same name, both answer a client.
//! If the client sent each message to the group that answered last, both could publish a message, one of them after
//! later messages. So a client moves to an instance that it left, or that formed before the present one, only after the
//! present instance has been silent for 5 s. To an instance that formed later, and has a majority, it moves at once.
//!
//! A forged heartbeat may name any address. So for each heartbeat that names an address the client first sends one
//! request without a message. It sends messages to the address only once a reply has come from it.
//!
//! A member serves a bounded number of clients. A client that finds no place waits, and goes on to another member: it
//! repeats one message only, ever more rarely, so that many clients that wait cost little. A client that ends sends a
//! goodbye with the member's cookie, a few times if no reply comes, so that its place is free for another.

use super::roster::is_formed;
use super::{ClientEvent, GroupState};
use crate::control::clients::{CLIENTS_MAX, QUIET_NS, UNDER_WAY_MAX};
use crate::ranks::Ranks;
use crate::refusal::Refusal;
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use bourdon_wire::records::{ClientAnswer, ClientPlace, ClientRequest, Heartbeat, refusals, request_flags};
use bourdon_wire::{
    Address, CONTROL_CHANNEL, ClientId, DatagramHeader, Epoch, FRAME_HEADER_BYTES, Fragment, FrameHeader, GroupId,
    HEADER_BYTES, Incarnation, InstanceId, Instant, Kind, Rank, Sequence, TopicId, TopicName, seal,
};
use core::cmp::Ordering;
use zerocopy::IntoBytes;

/// Requests under way at once: enough to cover a round trip of parked processes, few enough for any socket buffer. So
/// many messages are pending at most, too.
pub(super) const WINDOW: usize = 32;
/// A client with so many bytes pending takes no more messages: twenty times what the window has under way.
const PENDING_BYTES: usize = 1 << 20;
/// How long a client waits for a reply before it sends again.
const RETRY_NS: u64 = 20_000_000;
/// Events the application has not fetched: twice what a full window can cause.
const EVENTS_MAX: usize = 2 * WINDOW;
/// How long without any reply before another member is tried: several retries, so that a lost reply causes no switch.
const SWITCH_AFTER_NS: u64 = 200_000_000;
/// Instances that a client remembers to have left: more than restarts of a group that any network delays answers over.
const LEFT_MAX: usize = 8;
/// How often a client turns to a later instance by a heartbeat alone: one that was forged costs it [`SWITCH_AFTER_NS`].
const FOLLOW_NS: u64 = 5_000_000_000;
/// How long without any reply before the application gets an event, and messages are refused.
const GIVE_UP_NS: u64 = 5_000_000_000;
/// How often a client that finds no place doubles the time until it sends again: up to 320 ms.
const CROWDED_DOUBLINGS: u32 = 4;
/// How often a client sends a goodbye without a reply, once each [`RETRY_NS`]: one that is lost costs a member a place
/// for some seconds, and no application waits long for it.
const GOODBYES_MAX: u32 = 5;
/// For how long the heartbeat of a member that reaches a majority counts for the group: other members may hear none.
const FORMED_NS: u64 = 300_000_000;

// A member keeps twice what a client has pending, and a pending message's place fits its field.
const _: () = assert!(UNDER_WAY_MAX == 2 * WINDOW && WINDOW <= u16::MAX as usize);
// Several retries before a switch, several switches before the application hears of it, and all of that before a member
// may forget the client.
const _: () = assert!(4 * RETRY_NS <= SWITCH_AFTER_NS && 4 * SWITCH_AFTER_NS <= GIVE_UP_NS && GIVE_UP_NS < QUIET_NS);
// A client that waits for an answer does not count as quiet.
const _: () = assert!(4 * (RETRY_NS << CROWDED_DOUBLINGS) < QUIET_NS);

#[derive(Debug)]
struct Pending {
    topic: TopicId,
    name: Option<TopicName>,
    payload: Vec<u8>,
    /// It was refused for good: its sequence is used up without a message, so that no other message ever gets a
    /// sequence that an old request of this message may still claim.
    skipped: bool,
}

impl Pending {
    /// The bytes that fit one request: all of the message, or a fragment.
    fn request_bytes(&self, mtu_bytes: usize) -> usize {
        let name_bytes = self.name.as_ref().map_or(0, TopicName::wire_bytes);
        let room = mtu_bytes - HEADER_BYTES - FRAME_HEADER_BYTES - ClientRequest::BYTES - name_bytes;
        if self.payload.len() <= room { room } else { room - Fragment::BYTES }
    }

    /// In how many requests bytes up to `end` are sent; an empty message needs one as well.
    fn requests(&self, mtu_bytes: usize, end: usize) -> usize {
        end.div_ceil(self.request_bytes(mtu_bytes))
    }
}

/// What a client publishes, and through which member.
#[derive(Debug)]
pub(super) struct Publisher {
    group: GroupId,
    id: ClientId,
    mtu_bytes: usize,
    reply_to: Address,
    member: Option<Address>,
    state: GroupState,
    /// When a member was heard last that is in a view and hears a majority of it.
    formed_at: Option<Instant>,
    /// Why no member takes messages, until one does.
    trouble: Option<Refusal>,
    /// Whether it has replied.
    is_proven: bool,
    /// A heartbeat of it came since the last request without a message.
    may_greet: bool,
    /// Another member, heard last.
    other: Option<Address>,
    /// Since when this member has not replied.
    silent_since: Instant,
    epoch: Epoch,
    /// The instance of the group that its requests are for, as its member names it.
    instance: InstanceId,
    /// From then on it turns to a later instance.
    may_follow_at: Instant,
    /// When that instance formed, as a member of it announced first; 0 if none has.
    birth: u64,
    /// The instances that it left, the latest last.
    left: VecDeque<InstanceId>,
    pending: VecDeque<Pending>,
    /// The sequence of the first pending message.
    first: Sequence,
    /// The last message that a member has taken in this instance.
    last_taken: Option<Sequence>,
    /// How many of them were sent since the last retry, and how many bytes of the next one.
    sent: usize,
    sent_bytes: usize,
    /// What its member has reported: the message that it publishes next, and how many bytes of that it has.
    received: (Sequence, usize),
    retry_at: Instant,
    /// How often in a row the member had no place; 0 if it has one.
    crowded: u32,
    /// The member's cookie for the address of this client.
    cookie: Option<u64>,
    /// It ends: how often it has sent a goodbye.
    goodbyes: Option<u32>,
    heard_at: Instant,
    datagram: Vec<u8>,
    /// At most one event for each message of the window, and the latest watermark.
    events: VecDeque<ClientEvent>,
}

impl Publisher {
    /// Of a client with this id, reachable at `reply_to`, that sends datagrams of at most `mtu_bytes`.
    pub(super) fn new(now: Instant, group: GroupId, id: ClientId, reply_to: Address, mtu_bytes: usize) -> Self {
        Self {
            group,
            id,
            mtu_bytes,
            reply_to,
            member: None,
            state: GroupState::Unheard,
            formed_at: None,
            trouble: None,
            is_proven: false,
            may_greet: false,
            other: None,
            silent_since: now,
            epoch: Epoch(0),
            instance: InstanceId::NONE,
            may_follow_at: Instant(0),
            birth: 0,
            left: VecDeque::new(),
            pending: VecDeque::new(),
            first: Sequence(0),
            last_taken: None,
            sent: 0,
            sent_bytes: 0,
            received: (Sequence(0), 0),
            retry_at: now,
            crowded: 0,
            cookie: None,
            goodbyes: None,
            heard_at: now,
            datagram: Vec::new(),
            events: VecDeque::new(),
        }
    }

    /// Requests name another address from now on, those under way as well: they are sent again at once.
    pub(super) fn move_to(&mut self, now: Instant, reply_to: Address) {
        (self.reply_to, self.retry_at, self.may_greet) = (reply_to, now, true);
        (self.heard_at, self.silent_since, self.trouble) = (now, now, None);
    }

    /// Whether the client can take another message now.
    pub(super) fn has_room(&self) -> bool {
        let bytes = || self.pending.iter().map(|pending| pending.payload.len()).sum::<usize>();
        self.pending.len() < WINDOW && bytes() < PENDING_BYTES
    }

    /// Why no message is published now, however many are under way: no member takes any, as far as is known.
    pub(super) fn unavailable(&self, now: Instant) -> Option<Refusal> {
        let is_formed = self.formed_at.is_some_and(|at| now.since(at) < FORMED_NS);
        self.trouble.or(match self.state {
            _ if is_formed => None,
            GroupState::Unheard => Some(Refusal::NoReceiver),
            GroupState::Forming => Some(Refusal::Forming { missing: Ranks::default() }),
            GroupState::NoMajority => Some(Refusal::NoMajority { missing: Ranks::default() }),
            GroupState::Formed => None, // its members are silent for a moment
        })
    }

    /// Whether members have taken everything published.
    pub(super) fn is_idle(&self) -> bool {
        self.pending.is_empty()
    }

    /// The member this client publishes through, once a member was heard.
    pub(super) fn member(&self) -> Option<Address> {
        self.member
    }

    /// The state of the group, by the heartbeat that came last.
    pub(super) fn group_state(&self) -> GroupState {
        self.state
    }

    /// Queues a message; call only while [`Publisher::has_room`].
    pub(super) fn publish(&mut self, topic: TopicId, payload: &[u8]) -> Sequence {
        self.push(Pending { topic, name: None, payload: payload.into(), skipped: false })
    }

    /// Queues a message that carries its topic's name; call only while [`Publisher::has_room`].
    pub(super) fn publish_named(&mut self, name: &TopicName, payload: &[u8]) -> Sequence {
        self.push(Pending { topic: name.id(), name: Some(*name), payload: payload.into(), skipped: false })
    }

    fn push(&mut self, pending: Pending) -> Sequence {
        debug_assert!(self.has_room(), "the caller has made sure that there is room");
        self.pending.push_back(pending);
        self.first + (self.pending.len() as u64 - 1)
    }

    /// Takes a member's heartbeat: it announces the member's address.
    pub(super) fn on_heartbeat(&mut self, now: Instant, header: &DatagramHeader, heartbeat: &Heartbeat) {
        let birth = if is_formed(heartbeat) { heartbeat.birth.get() } else { u64::MAX };
        let is_earlier = header.instance() != self.instance && birth < self.birth;
        if is_earlier || self.left.contains(&header.instance()) {
            return;
        }
        if self.member.is_none() && heartbeat.address.is_reachable() {
            (self.member, self.epoch, self.instance) = (Some(heartbeat.address), header.epoch(), header.instance());
            (self.heard_at, self.silent_since, self.retry_at) = (now, now, now);
        }
        if header.instance() == self.instance && is_formed(heartbeat) && self.birth == 0 {
            self.birth = birth;
        }
        self.state = GroupState::of(heartbeat);
        if self.state == GroupState::Formed {
            self.formed_at = Some(now);
        }
        self.may_greet |= self.member == Some(heartbeat.address);
        if is_formed(heartbeat) && heartbeat.address.is_reachable() && self.member != Some(heartbeat.address) {
            self.other = Some(heartbeat.address);
            let is_later = header.instance() != self.instance && self.birth > 0 && birth > self.birth;
            if is_later && self.state == GroupState::Formed && now >= self.may_follow_at {
                self.may_follow_at = now + FOLLOW_NS;
                self.turn_to_other(now);
            }
        }
    }

    /// Takes a reply: how far the member has come.
    pub(super) fn on_answer(
        &mut self,
        now: Instant,
        instance: InstanceId,
        answer: &ClientAnswer,
        place: Option<&ClientPlace>,
    ) {
        if answer.client.get() != self.id.0 || self.left.contains(&instance) {
            return;
        }
        if let Some(goodbyes) = &mut self.goodbyes
            && self.pending.is_empty()
        {
            if answer.refusal.get() == refusals::GONE {
                *goodbyes = GOODBYES_MAX;
            } else if place.is_some_and(|place| self.cookie != Some(place.cookie.get())) {
                self.retry_at = now; // the cookie was an old one
            }
        }
        self.cookie = place.map(|place| place.cookie.get()).or(self.cookie);
        if instance != self.instance {
            // The member takes no request of another instance than its own: the client sends all of them again, for
            // this instance.
            self.leave_instance();
            (self.instance, self.retry_at) = (instance, now + RETRY_NS);
            (self.last_taken, self.received) = (None, (Sequence(0), 0));
            (self.birth, self.other) = (0, None);
            self.go_back();
            (self.heard_at, self.silent_since, self.is_proven) = (now, now, true);
            return;
        }
        (self.heard_at, self.silent_since, self.is_proven) = (now, now, true);
        self.note_place(now, answer);
        if let Some(place) = place {
            self.note_received(now, Sequence(place.next.get()), place.received_bytes.get() as usize);
        }
        let taken = Sequence(answer.taken.get()).since(self.first).min(self.sent as u64);
        let last = self.pending.drain(..taken as usize).rposition(|pending| !pending.skipped);
        self.last_taken = last.map(|last| self.first + last as u64).or(self.last_taken);
        self.first = self.first + taken;
        self.sent -= taken as usize;
        assert!(self.sent <= self.pending.len(), "only pending messages are under way");
        if taken > 0 {
            self.event(ClientEvent::Taken(self.first));
            self.retry_at = now + RETRY_NS;
        }
        match answer.refusal.get() {
            refusals::TOO_LARGE if answer.taken.get() == self.first.0 => self.skip_first(),
            _ => {}
        }
    }

    /// The member has reported what it publishes next, and how much of that it has.
    fn note_received(&mut self, now: Instant, next: Sequence, bytes: usize) {
        if self.is_sending() && self.crowded == 0 && (next, bytes) > self.received {
            self.retry_at = now + RETRY_NS;
        }
        self.received = (next, bytes);
    }

    /// Whether any of what is pending was sent since the last retry.
    fn is_sending(&self) -> bool {
        self.sent > 0 || self.sent_bytes > 0
    }

    /// All that is pending is to be sent again, but for what the member has.
    fn go_back(&mut self) {
        (self.sent, self.sent_bytes) = (0, 0);
    }

    /// From which byte on a pending message is sent: of what the member has, only the last fragment.
    fn resume(&self, index: usize) -> usize {
        let Some(pending) = self.pending.get(index) else { return 0 };
        let request_bytes = pending.request_bytes(self.mtu_bytes);
        let last = pending.payload.len().saturating_sub(1) / request_bytes * request_bytes;
        let (next, bytes) = self.received;
        match (self.first + index as u64).cmp(&next) {
            Ordering::Less => last,
            Ordering::Equal => bytes.min(last),
            Ordering::Greater => 0,
        }
    }

    /// How many requests were sent since the last retry that the member has not reported to have received.
    fn under_way(&self) -> usize {
        let (next, bytes) = self.received;
        let sent = (0..self.sent).map(|index| (index, self.pending[index].payload.len().max(1)));
        let requests = sent.chain([(self.sent, self.sent_bytes)]).map(|(index, end)| {
            let Some(pending) = self.pending.get(index) else { return 0 };
            let from = match (self.first + index as u64).cmp(&next) {
                Ordering::Less => end,
                Ordering::Equal => bytes.min(end),
                Ordering::Greater => 0,
            };
            pending.requests(self.mtu_bytes, end) - pending.requests(self.mtu_bytes, from)
        });
        requests.sum()
    }

    /// Whether the member has a place for this client, by its reply. A reply to a request without a message does not
    /// show it.
    fn note_place(&mut self, now: Instant, answer: &ClientAnswer) {
        let is_crowded = answer.refusal.get() == refusals::TOO_MANY_CLIENTS;
        match self.trouble {
            Some(Refusal::TooManyClients { .. }) if !self.is_sending() && !self.pending.is_empty() => {}
            _ if is_crowded && self.is_sending() => {
                if self.crowded == 0 {
                    self.event(ClientEvent::TooManyClients);
                }
                self.trouble = Some(Refusal::TooManyClients { limit: CLIENTS_MAX });
                self.crowded = (self.crowded + 1).min(CROWDED_DOUBLINGS);
                self.retry_at = now + (RETRY_NS << self.crowded);
            }
            _ => (self.trouble, self.crowded) = (None, 0),
        }
    }

    fn leave_instance(&mut self) {
        if self.instance == InstanceId::NONE {
            return;
        }
        if self.left.len() == LEFT_MAX {
            self.left.pop_front();
        }
        self.left.push_back(self.instance);
        assert!(self.left.len() <= LEFT_MAX, "{} instances", self.left.len());
    }

    fn skip_first(&mut self) {
        if let Some(first) = self.pending.front_mut().filter(|first| !first.skipped) {
            (first.skipped, first.name, first.payload) = (true, None, Vec::new());
            self.go_back();
            self.event(ClientEvent::TooLarge(self.first));
        }
    }

    fn event(&mut self, event: ClientEvent) {
        if let (ClientEvent::Taken(_), Some(last @ ClientEvent::Taken(_))) = (event, self.events.back_mut()) {
            *last = event;
        } else if self.events.len() < EVENTS_MAX {
            self.events.push_back(event);
        }
        assert!(self.events.len() <= EVENTS_MAX, "{} events", self.events.len());
    }

    /// Passes the datagrams that must be sent to the member now to `send`.
    pub(super) fn transmit(&mut self, now: Instant, mut send: impl FnMut(Address, &[u8]) -> bool) {
        if self.member.is_none() {
            return;
        }
        if self.pending.is_empty() {
            (self.heard_at, self.silent_since) = (now, now);
            return self.send_goodbye(now, send);
        }
        if now >= self.retry_at {
            if (self.crowded > 0 || now.since(self.silent_since) >= SWITCH_AFTER_NS) && self.other.is_some() {
                self.turn_to_other(now);
            }
            self.go_back();
            self.retry_at = now + (RETRY_NS << self.crowded);
            if now.since(self.heard_at) >= GIVE_UP_NS {
                self.trouble = Some(Refusal::NoReceiver);
                self.event(ClientEvent::NoAnswer);
                self.heard_at = now;
                self.left.clear(); // any group is better than none
                self.birth = 0;
            }
        }
        let Some(member) = self.member else { return };
        if !self.is_proven {
            if core::mem::take(&mut self.may_greet) {
                self.write_alone(now, request_flags::HELLO, 0);
                self.may_greet = !send(member, &self.datagram);
            }
            return;
        }
        let window = if self.crowded > 0 { 1 } else { WINDOW };
        for _ in self.under_way()..window {
            if self.sent == self.pending.len() || self.crowded > 0 && self.sent > 0 {
                return;
            }
            let end = self.write(self.sent, self.sent_bytes.max(self.resume(self.sent)), now);
            if !send(member, &self.datagram) {
                return;
            }
            let is_whole = end == self.pending[self.sent].payload.len();
            (self.sent, self.sent_bytes) = if is_whole { (self.sent + 1, 0) } else { (self.sent, end) };
        }
    }

    /// The other member is its member from now on.
    fn turn_to_other(&mut self, now: Instant) {
        (self.member, self.silent_since) = (self.other.take(), now);
        (self.is_proven, self.may_greet) = (false, true); // its heartbeat was heard
        (self.cookie, self.received) = (None, (Sequence(0), 0));
    }

    /// Ends: sends a goodbye once nothing is pending. [`Publisher::has_left`] holds once it needs no more time.
    pub(super) fn leave(&mut self) {
        self.goodbyes.get_or_insert(0);
    }

    /// Whether its place is free, or it has tried for long enough. It has none at a member without a cookie of it.
    pub(super) fn has_left(&self) -> bool {
        !self.is_proven || self.cookie.is_none() || self.goodbyes >= Some(GOODBYES_MAX)
    }

    fn send_goodbye(&mut self, now: Instant, mut send: impl FnMut(Address, &[u8]) -> bool) {
        let (Some(goodbyes), Some(member), Some(cookie)) = (self.goodbyes, self.member, self.cookie) else { return };
        if self.has_left() || goodbyes > 0 && now < self.retry_at {
            return;
        }
        self.write_alone(now, request_flags::GOODBYE, cookie);
        if send(member, &self.datagram) {
            (self.goodbyes, self.retry_at) = (Some(goodbyes + 1), now + RETRY_NS);
        }
    }

    /// Writes a request without a message; the word makes it as long as its reply.
    fn write_alone(&mut self, now: Instant, flags: u16, word: u64) {
        let request = ClientRequest {
            client: self.id.0.into(),
            sequence: self.first.0.into(),
            reply_to: self.reply_to,
            flags: flags.into(),
            under_way: 0.into(),
            since_taken: 0.into(),
        };
        let body = [request.as_bytes(), &word.to_le_bytes()].concat();
        let length = FRAME_HEADER_BYTES + body.len();
        self.datagram.resize(HEADER_BYTES + length, 0);
        let (head, rest) = self.datagram[HEADER_BYTES..].split_at_mut(FRAME_HEADER_BYTES);
        head.copy_from_slice(FrameHeader::new(body.len(), TopicId(0), Kind::ClientRequest, 0).as_bytes());
        rest.copy_from_slice(&body);
        self.seal(length, now);
    }

    fn seal(&mut self, length: usize, now: Instant) {
        let incarnation = Incarnation(self.id.0 as u32);
        let header =
            DatagramHeader::new(self.group, self.instance, self.epoch, Rank::CLIENT, incarnation, CONTROL_CHANNEL);
        seal(&mut self.datagram, header, 1, length, now.0);
    }

    /// How far before the first pending message the last one stands that a member has taken in this instance; 0 for
    /// none.
    fn since_taken(&self) -> u16 {
        self.last_taken.and_then(|last| u16::try_from(self.first.since(last)).ok()).unwrap_or(0)
    }

    /// Writes a request with a message, from this byte on; returns where in the message it ends.
    fn write(&mut self, index: usize, offset: usize, now: Instant) -> usize {
        let pending @ Pending { topic, name, payload, skipped } = &self.pending[index];
        let request_bytes = pending.request_bytes(self.mtu_bytes);
        let end = payload.len().min(offset + request_bytes);
        let fragment = Some(Fragment::new(payload.len(), offset)).filter(|_| payload.len() > request_bytes);
        let fragment = fragment.as_ref().map_or(&[][..], Fragment::as_bytes);
        let skip = if *skipped { request_flags::SKIP } else { 0 };
        let named = if name.is_some() { request_flags::NAMED } else { 0 };
        let cut = if fragment.is_empty() { 0 } else { request_flags::FRAGMENT };
        let name_bytes = name.as_ref().map_or(0, TopicName::wire_bytes);
        let request = ClientRequest {
            client: self.id.0.into(),
            sequence: (self.first + index as u64).0.into(),
            reply_to: self.reply_to,
            flags: (skip | named | cut).into(),
            under_way: (index as u16).into(),
            since_taken: self.since_taken().into(),
        };
        let length = ClientRequest::BYTES + fragment.len() + name_bytes + end - offset;
        self.datagram.resize(HEADER_BYTES + FRAME_HEADER_BYTES + length, 0);
        let frame = &mut self.datagram[HEADER_BYTES..];
        frame[..FRAME_HEADER_BYTES]
            .copy_from_slice(FrameHeader::new(length, *topic, Kind::ClientRequest, 0).as_bytes());
        let (head, rest) = frame[FRAME_HEADER_BYTES..].split_at_mut(ClientRequest::BYTES);
        head.copy_from_slice(request.as_bytes());
        let (space, rest) = rest.split_at_mut(fragment.len());
        space.copy_from_slice(fragment);
        let (space, rest) = rest.split_at_mut(name_bytes);
        if let Some(name) = name {
            name.write(space);
        }
        rest.copy_from_slice(&payload[offset..end]);
        debug_assert!(self.datagram.len() <= self.mtu_bytes, "a request fits a datagram");
        self.seal(FRAME_HEADER_BYTES + length, now);
        end
    }

    /// When to call [`Publisher::transmit`] again, at the latest.
    pub(super) fn next_deadline(&self) -> Instant {
        let is_leaving = self.goodbyes.is_some() && !self.has_left();
        if is_leaving && self.pending.is_empty() && self.goodbyes == Some(0) {
            return Instant(0);
        }
        if self.member.is_none() || self.pending.is_empty() && !is_leaving { Instant::NEVER } else { self.retry_at }
    }

    /// The next outcome of this client's messages.
    pub(super) fn poll_event(&mut self) -> Option<ClientEvent> {
        self.events.pop_front()
    }
}
