//! Direct messages, outside the group's stream: to one process, to the nearest of several, or to all on the network.
//!
//! Not every message is for all members of the group, in order. An application may have a question for one member, a
//! job for the nearest of several equal members, or a call to every process on the network. The group's stream would
//! carry each of these to all members, in order, and retain it until the slowest member has it. So a direct message is
//! one datagram outside the stream. A datagram may be lost, so the caller sends a message to one process again until
//! the process answers. The receiver must not deliver a message twice; a table of recently seen ids would do so once
//! the table is full.
//!
//! So in each incarnation a sender numbers its messages to a receiver consecutively, and states with each message the
//! lowest number that it may still send. A receiver keeps one number for each sender, the next that it will accept, and
//! accepts exactly that number: no message is delivered twice, and all are delivered in order ([`receiver`]). The
//! caller's half is [`caller`].
//!
//! A request names the address for its answer, so an attacker can name another host's. A reply may be long and is sent
//! again, so it waits until that address has proved that it receives: a member has, and any other by the echo of a
//! probe whose number is a cookie (`control/cookie.rs`). Such a request is not acknowledged but probed, so its sender
//! sends it again, and each copy causes one more probe: no loss ends that.
//!
//! Invariants: within one incarnation of a receiver a message is delivered at most once; the messages from one process
//! to another that are delivered are delivered in the order of the calls; an acknowledgement is never longer than
//! what it acknowledges; every call ends, with an outcome, after [`caller::GIVE_UP_NS`]. Source: Birrell and Nelson
//! (1984), §3.3, for a callee that keeps one number a caller; RFC 1546 for anycast, here done by the callers.

pub(crate) mod caller;
pub(crate) mod receiver;

use crate::control::cookie::Cookies;
use crate::counters::Counters;
use crate::event::{CallId, DirectAnswer, DirectContent, DirectKind, DirectMessage, DirectOutcome, DirectRequest};
use crate::outbox::{Destination, Outbox};
use crate::refusal::Refusal;
use alloc::vec::Vec;
use bourdon_wire::records::{self, DirectCall, direct_steps};
use bourdon_wire::{Address, FRAME_HEADER_BYTES, HEADER_BYTES, Instant, Kind, MTU_MIN_BYTES, Rank};
use caller::{Caller, Health, Target, TargetChoice};
use receiver::Receiver;
use zerocopy::IntoBytes;

// A request of some length fits the smallest datagram.
const _: () =
    assert!(HEADER_BYTES + FRAME_HEADER_BYTES + records::Direct::BYTES + DirectCall::BYTES < MTU_MIN_BYTES / 2);

/// A message as it came.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Received<'a> {
    kind: DirectKind,
    patience_ns: u64,
    payload: &'a [u8],
}

impl<'a> Received<'a> {
    /// None if the step is none of a message to one process, or if what must follow is missing.
    fn read(step: u16, body: &'a [u8]) -> Option<Self> {
        if step == direct_steps::SEND {
            return Some(Self { kind: DirectKind::Message, patience_ns: 0, payload: body });
        }
        let (head, payload) = DirectCall::read(body)?;
        let (call, patience_ns) = (head.call.get(), head.patience_ns.get());
        match step {
            direct_steps::REQUEST => Some(Self { kind: DirectKind::Request(call), patience_ns, payload }),
            direct_steps::REPLY => Some(Self { kind: DirectKind::Reply(call), patience_ns: 0, payload }),
            direct_steps::DECLINE => Some(Self { kind: DirectKind::Decline(call), patience_ns: 0, payload: &[] }),
            _ => None,
        }
    }
}

/// The step of a message to one process, and what stands in front of its payload.
fn head(content: &DirectContent<'_>) -> (u16, Option<DirectCall>) {
    let of = |call: u64, patience_ns: u64| Some(DirectCall { call: call.into(), patience_ns: patience_ns.into() });
    match content.kind {
        DirectKind::Message => (direct_steps::SEND, None),
        DirectKind::Request(call) => (direct_steps::REQUEST, of(call, content.lasts_ns)),
        DirectKind::Reply(call) => (direct_steps::REPLY, of(call, 0)),
        DirectKind::Decline(call) => (direct_steps::DECLINE, of(call, 0)),
    }
}

/// Both halves, caller and receiver, of one process.
#[derive(Debug)]
pub(crate) struct Direct {
    sender_id: u64,
    address: Address,
    /// The longest payload that fits one datagram.
    limit_bytes: usize,
    caller: Caller,
    receiver: Receiver,
    next_broadcast: u64,
}

/// Where records are sent.
pub(crate) struct Out<'a> {
    pub(crate) outbox: &'a mut Outbox,
    pub(crate) counters: &'a mut Counters,
}

impl Out<'_> {
    fn send(&mut self, now: Instant, to: Destination, record: &records::Direct, payload: &[u8]) {
        let has_payload = !matches!(record.step.get(), direct_steps::TAKEN | direct_steps::BUSY | direct_steps::ECHO);
        assert!(has_payload || payload.is_empty(), "an answer is never longer than what it answers");
        self.outbox.record(now, to, Kind::Direct, [record.as_bytes(), payload], self.counters);
    }
}

impl Direct {
    /// For a process reachable at `address`, whose `sender_id` no other process has, with frames of at most
    /// `frame_bytes`.
    pub(crate) fn new(sender_id: u64, address: Address, frame_bytes: usize) -> Self {
        let head_bytes = FRAME_HEADER_BYTES + records::Direct::BYTES + DirectCall::BYTES;
        assert!(frame_bytes > head_bytes, "{frame_bytes} bytes hold no payload");
        let limit_bytes = frame_bytes - FRAME_HEADER_BYTES - records::Direct::BYTES;
        Self {
            sender_id,
            address,
            limit_bytes,
            caller: Caller::default(),
            receiver: Receiver::default(),
            next_broadcast: 0,
        }
    }

    /// This process is reached at another address from now on.
    pub(crate) fn move_to(&mut self, address: Address) {
        self.address = address;
    }

    /// A receiver is reached at another address from now on: calls to it go on there.
    pub(crate) fn relocate(&mut self, before: Address, address: Address) {
        self.caller.relocate(before, address);
    }

    /// Begins a call, to the only target or to the nearest of several; [`Direct::tend`] sends it.
    pub(crate) fn call(
        &mut self,
        now: Instant,
        choice: TargetChoice,
        targets: Vec<Target>,
        content: &DirectContent<'_>,
    ) -> Result<CallId, Refusal> {
        self.check(content)?;
        self.caller.begin(now, choice, targets, content)
    }

    /// Sends a message once to all processes that hear the network.
    pub(crate) fn broadcast(
        &mut self,
        now: Instant,
        content: &DirectContent<'_>,
        out: &mut Out<'_>,
    ) -> Result<(), Refusal> {
        if content.kind != DirectKind::Message {
            return Err(Refusal::Unreachable); // all would reply to it
        }
        self.check(content)?;
        let record = self.record(direct_steps::BROADCAST, self.next_broadcast, 0, now);
        self.next_broadcast += 1;
        out.send(now, Destination::Broadcast, &record, content.payload);
        Ok(())
    }

    fn check(&self, content: &DirectContent<'_>) -> Result<(), Refusal> {
        let limit_bytes = self.limit_bytes(content.kind);
        if content.payload.len() > limit_bytes { Err(Refusal::TooLarge { limit_bytes }) } else { Ok(()) }
    }

    /// The longest payload of this kind.
    pub(crate) fn limit_bytes(&self, kind: DirectKind) -> usize {
        let head_bytes = if kind == DirectKind::Message { 0 } else { DirectCall::BYTES };
        self.limit_bytes - head_bytes
    }

    fn record(&self, step: u16, sequence: u64, oldest: u64, now: Instant) -> records::Direct {
        records::Direct {
            step: step.into(),
            sender_id: self.sender_id.into(),
            sequence: sequence.into(),
            oldest: oldest.into(),
            sent_ns: now.0.into(),
            reply_to: self.address,
        }
    }

    /// Sends what is due and gives up what is late; `health` returns what is known of a target by other means.
    pub(crate) fn tend(&mut self, now: Instant, health: impl Fn(&Target) -> Health, out: &mut Out<'_>) {
        self.caller.tend(now, health);
        while let Some(target) = self.caller.next_probe() {
            out.send(now, Destination::Peer(target), &self.record(direct_steps::PROBE, 0, 0, now), &[]);
        }
        let (sender_id, address) = (self.sender_id, self.address);
        self.caller.due_copies(now, |to, step, sequence, oldest, payload| {
            let record = records::Direct {
                step: step.into(),
                sender_id: sender_id.into(),
                sequence: sequence.into(),
                oldest: oldest.into(),
                sent_ns: now.0.into(),
                reply_to: address,
            };
            out.send(now, Destination::Peer(to), &record, payload);
        });
    }

    /// Receives a record that `rank` sent; with `cookies` if the address in it must prove that it receives.
    pub(crate) fn receive(
        &mut self,
        now: Instant,
        rank: Rank,
        body: &[u8],
        cookies: Option<&Cookies>,
        out: &mut Out<'_>,
    ) {
        let Some((record, payload)) = records::Direct::read(body) else { return };
        let own = record.sender_id.get() == self.sender_id;
        let answer = match record.step.get() {
            direct_steps::TAKEN if own => return self.caller.taken(now, rank, record),
            direct_steps::BUSY if own => return self.caller.busy(record),
            direct_steps::ECHO if own => {
                let number = record.sequence.get();
                if cookies.is_some_and(|cookies| cookies.is_valid_number(now, &record.reply_to, number)) {
                    self.caller.note_proof(now, record.reply_to);
                }
                return self.caller.echo(now, record);
            }
            direct_steps::BROADCAST if !own => {
                return self.receiver.hear(now, rank, record, payload, out.counters);
            }
            direct_steps::PROBE if !own => direct_steps::ECHO,
            step if !own => {
                let Some(content) = Received::read(step, payload) else { return };
                match self.receiver.take(now, rank, record, content, out.counters) {
                    Some(answer) => answer,
                    None => return,
                }
            }
            _ => return,
        };
        if record.reply_to.is_reachable() && record.reply_to != self.address {
            let is_new = record.step.get() == direct_steps::REQUEST && answer == direct_steps::TAKEN;
            let is_proven = !is_new || self.caller.is_proven(record.reply_to);
            let answer = match cookies.filter(|_| !is_proven) {
                Some(cookies) => self.record(direct_steps::PROBE, cookies.number(now, &record.reply_to), 0, now),
                None => records::Direct { step: answer.into(), reply_to: self.address, ..*record },
            };
            out.send(now, Destination::Peer(record.reply_to), &answer, &[]);
        }
    }

    /// When [`Direct::tend`] must be called, at the latest.
    #[inline]
    pub(crate) fn due(&self) -> Instant {
        self.caller.due()
    }

    /// Whether any call is pending.
    pub(crate) fn is_calling(&self) -> bool {
        self.caller.is_calling()
    }

    /// The next message received that needs no reply, oldest first.
    pub(crate) fn poll_message(&mut self) -> Option<DirectMessage> {
        self.receiver.messages.poll()
    }

    /// The next request.
    pub(crate) fn poll_request(&mut self) -> Option<DirectRequest> {
        self.receiver.requests.poll()
    }

    /// The next answer to a request of this process.
    pub(crate) fn poll_answer(&mut self) -> Option<DirectAnswer> {
        self.receiver.answers.poll()
    }

    /// Whether there is a request, an answer or an outcome.
    #[inline]
    pub(crate) fn has_news(&self) -> bool {
        self.caller.has_outcomes() || self.receiver.has_calls()
    }

    /// Whether a message or an answer of this process is under way.
    pub(crate) fn owes(&self) -> bool {
        self.caller.owes()
    }

    /// The outcome of the next call that ended.
    pub(crate) fn poll_outcome(&mut self) -> Option<DirectOutcome> {
        self.caller.poll()
    }

    /// Messages received and not fetched.
    pub(crate) fn held(&self) -> usize {
        self.receiver.held()
    }
}
