//! The receiver: accepts each message once, in its sender's order, or answers that it can't accept it now.
//!
//! A number lower than the next was accepted before, or was given up by its sender; one bit for each of the last 64
//! records which, because a caller that has turned to another target still accepts an answer. The receiver ignores a
//! higher number, because its sender sends again everything that is not answered. So keeping the order costs a resend,
//! and only after a loss.
//!
//! Messages that the application has not fetched wait in a bounded queue; when it is full a message is refused, not
//! accepted, and comes again. A sender that was quiet for [`FORGET_NS`] may be forgotten for another: by then none of
//! its datagrams can still be in flight, since a call ends after a twelfth of that time and no network holds a datagram
//! so long.

use super::Received;
use super::caller::{ANSWERS_MAX, CALLS_MAX, GIVE_UP_NS};
use crate::counters::{Counter, Counters};
use crate::event::{DirectAnswer, DirectKind, DirectMessage, DirectRequest};
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use bourdon_wire::records::{self, direct_steps};
use bourdon_wire::{Instant, MTU_DEFAULT_BYTES, Rank};

/// Messages of a kind not fetched: a burst of every member, at a datagram each less than half a megabyte.
const INBOX_MAX: usize = 256;
/// Senders remembered: as many as clients; 48 bytes each.
const SENDERS_MAX: usize = 1024;
/// How long a sender must be quiet before it may be forgotten: twelve times as long as any call lasts.
const FORGET_NS: u64 = 60_000_000_000;

const _: () = assert!(FORGET_NS == 12 * GIVE_UP_NS);
const _: () = assert!(size_of::<Sender>() <= 48 && INBOX_MAX * MTU_DEFAULT_BYTES < 512 << 10);
// The bits of what was accepted cover all calls that a caller can have under way.
const _: () = assert!(CALLS_MAX + ANSWERS_MAX <= u64::BITS as usize);

/// One incarnation of a process that has sent something.
#[derive(Clone, Copy, Debug)]
struct Sender {
    sender_id: u64,
    heard_at: Instant,
    /// The next message to be accepted; none until a message was heard.
    next: Option<u64>,
    /// Bit n: the message n + 1 before the next was accepted, rather than given up by its sender.
    taken: u64,
    /// The next broadcast to be delivered.
    next_broadcast: u64,
}

impl Sender {
    /// Goes on to `next`; the messages in between were given up.
    fn advance(&mut self, next: u64) {
        let by = next.saturating_sub(self.next.unwrap_or(next));
        self.taken = u32::try_from(by).ok().and_then(|by| self.taken.checked_shl(by)).unwrap_or(0);
        let before = self.next;
        self.next = Some(before.unwrap_or(next).max(next));
        assert!(before <= self.next, "no number is accepted again");
    }

    fn was_taken(&self, sequence: u64) -> bool {
        let before = self.next.unwrap_or(0).saturating_sub(sequence);
        (1..=64).contains(&before) && self.taken >> (before - 1) & 1 == 1
    }
}

/// Messages of one kind that were not fetched. Each kind has an inbox of its own: an application that fetches no
/// messages may wait for replies all the same.
#[derive(Debug)]
pub(crate) struct Inbox<T>(VecDeque<T>);

impl<T> Default for Inbox<T> {
    fn default() -> Self {
        Self(VecDeque::new())
    }
}

impl<T> Inbox<T> {
    pub(crate) fn poll(&mut self) -> Option<T> {
        assert!(self.0.len() <= INBOX_MAX, "{} messages", self.0.len());
        self.0.pop_front()
    }

    fn has_room(&self) -> bool {
        self.0.len() < INBOX_MAX
    }
}

/// What each sender has sent, and what the application has not fetched.
#[derive(Debug, Default)]
pub(crate) struct Receiver {
    senders: Vec<Sender>,
    pub(crate) messages: Inbox<DirectMessage>,
    pub(crate) requests: Inbox<DirectRequest>,
    pub(crate) answers: Inbox<DirectAnswer>,
}

impl Receiver {
    /// Receives a message; returns the answer's step, if there is one.
    pub(crate) fn take(
        &mut self,
        now: Instant,
        rank: Rank,
        record: &records::Direct,
        Received { kind, patience_ns, payload }: Received<'_>,
        counters: &mut Counters,
    ) -> Option<u16> {
        let has_room = match kind {
            DirectKind::Message => self.messages.has_room(),
            DirectKind::Request(_) => self.requests.has_room(),
            DirectKind::Reply(_) | DirectKind::Decline(_) => self.answers.has_room(),
        };
        let Some(sender) = find(&mut self.senders, now, record.sender_id.get()) else {
            counters.add(Counter::DirectRefused, 1);
            return Some(direct_steps::BUSY);
        };
        let sequence = record.sequence.get();
        sender.advance(record.oldest.get());
        let next = sender.next.unwrap_or(sequence);
        if sequence != next {
            counters.add(Counter::DirectDuplicates, u64::from(sequence < next));
            return sender.was_taken(sequence).then_some(direct_steps::TAKEN);
        }
        if !has_room {
            counters.add(Counter::DirectRefused, 1);
            return Some(direct_steps::BUSY);
        }
        sender.advance(sequence.saturating_add(1));
        sender.taken |= 1;
        assert!(sender.was_taken(sequence), "{sequence} was accepted by {sender:?}");
        counters.add(Counter::DirectTaken, 1);
        let (from, address, payload) = (rank, record.reply_to, payload.to_vec());
        match kind {
            DirectKind::Message => {
                self.messages.0.push_back(DirectMessage { from, address, broadcast: false, payload });
            }
            DirectKind::Request(call) => {
                self.requests.0.push_back(DirectRequest { call, from, address, patience_ns, payload });
            }
            DirectKind::Reply(call) => {
                self.answers.0.push_back(DirectAnswer { call, from, address, payload: Some(payload) });
            }
            DirectKind::Decline(call) => {
                self.answers.0.push_back(DirectAnswer { call, from, address, payload: None });
            }
        }
        Some(direct_steps::TAKEN)
    }

    /// Receives a broadcast, which no process answers: it discards a second copy, and a broadcast that was overtaken.
    pub(crate) fn hear(
        &mut self,
        now: Instant,
        rank: Rank,
        record: &records::Direct,
        payload: &[u8],
        counters: &mut Counters,
    ) {
        let has_room = self.messages.has_room();
        let sequence = record.sequence.get();
        let Some(sender) = find(&mut self.senders, now, record.sender_id.get()).filter(|_| has_room) else {
            return counters.add(Counter::DirectRefused, 1);
        };
        if sequence < sender.next_broadcast {
            return counters.add(Counter::DirectDuplicates, 1);
        }
        sender.next_broadcast = sequence.saturating_add(1);
        counters.add(Counter::DirectTaken, 1);
        self.messages.0.push_back(DirectMessage {
            from: rank,
            address: record.reply_to,
            broadcast: true,
            payload: payload.into(),
        });
        assert!(self.senders.len() <= SENDERS_MAX, "{} senders", self.senders.len());
    }

    /// Whether there is a request or an answer.
    #[inline]
    pub(crate) fn has_calls(&self) -> bool {
        !self.requests.0.is_empty() || !self.answers.0.is_empty()
    }

    pub(crate) fn held(&self) -> usize {
        self.messages.0.len() + self.requests.0.len() + self.answers.0.len()
    }
}

/// What is known of a sender; none if there are too many.
fn find(senders: &mut Vec<Sender>, now: Instant, sender_id: u64) -> Option<&mut Sender> {
    let index = match senders.iter().position(|sender| sender.sender_id == sender_id) {
        Some(index) => index,
        None => {
            if senders.len() >= SENDERS_MAX {
                let quietest = (0..senders.len()).min_by_key(|index| senders[*index].heard_at)?;
                if now.since(senders[quietest].heard_at) < FORGET_NS {
                    return None;
                }
                senders.swap_remove(quietest);
            }
            senders.push(Sender { sender_id, heard_at: now, next: None, taken: 0, next_broadcast: 0 });
            senders.len() - 1
        }
    };
    senders[index].heard_at = now;
    Some(&mut senders[index])
}
