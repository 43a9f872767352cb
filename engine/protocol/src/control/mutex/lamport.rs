//! Lamport's algorithm: every member keeps the queue, in the order of logical time.
//!
//! No coordinator orders the requests: their Lamport times do, ties by rank. A member that wants a lock sends REQUEST
//! with its time to all; each receiver enters it in its queue and sends REPLY with a later time. A member has the lock
//! once its request is the first of its own queue and it has received a later time from every other member: since links
//! keep the order, no earlier request can arrive any more. RELEASE removes the request from all queues: 3(N−1) messages
//! an entry.
//!
//! A single crash breaks the algorithm: the reply never comes. The next view has no crashed member to wait for. A
//! holder from an earlier view is first in every queue, with time 0: it announces the lock before it sends anything
//! else.
//!
//! Token's number: time × 64 + rank, which grows with each grant because grants go in the order of the queue.
//! Invariants: at most one member of the view holds a lock; the queue of a lock has the same order at every member.
//! Source: Lamport, Time, Clocks, and the Ordering of Events (CACM 1978).

use super::{Effects, Exclusion, Seat, has_room};
use crate::control::coordination::TOKEN_NUMBERS_END;
use crate::control::perfect_link::LinkMessage;
use crate::mutant::Mutant;
use crate::view::{bit, ranks};
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use bourdon_wire::records::link_steps::{RELEASE, REPLY, REQUEST};
use bourdon_wire::{Rank, TopicName};

/// No honest time comes near this; a token's number has room for it, and for a rank in its lowest bits.
pub(super) const TIMES_END: u64 = TOKEN_NUMBERS_END >> 6;

const _: () = assert!(Rank::MAX.0 < 1 << 6);

/// A Lamport time and the rank of its member: their order is total.
pub(super) type Stamp = (u64, Rank);

/// The stamp as a token's number. A view has at most 64 ranks.
pub(super) fn number((time, rank): Stamp) -> u64 {
    time << 6 | u64::from(rank.0 & 63)
}

#[derive(Debug, Default)]
struct Queue {
    /// Each member's request, or lock.
    requests: BTreeMap<Rank, u64>,
    /// This member has a request that is not granted.
    asks: bool,
    tries: bool,
}

/// One member's part of the algorithm.
#[derive(Debug, Default)]
pub(crate) struct Lamport {
    time: u64,
    /// By rank: the latest time heard. Any message counts, whichever lock it is about.
    heard: BTreeMap<Rank, u64>,
    queues: BTreeMap<TopicName, Queue>,
}

impl Lamport {
    /// Grants the locks that this member has requested and may have by now.
    fn look(&mut self, seat: &Seat, effects: &mut Effects) {
        let mut given_up = Vec::new();
        for (name, queue) in &mut self.queues {
            let Some(time) = queue.requests.get(&seat.own).copied().filter(|_| queue.asks) else { continue };
            let own = (time, seat.own);
            let is_later = |rank: Rank| self.heard.get(&rank).is_some_and(|heard| (*heard, rank) > own);
            let all = seat.others().all(is_later) || seat.mutant == Some(Mutant::ReplyNotAwaited);
            if !all {
                continue;
            }
            if queue.requests.iter().all(|(rank, time)| (*time, *rank) >= own) {
                queue.asks = false;
                effects.grant(seat, *name, number(own));
            } else if queue.tries {
                given_up.push(*name);
            }
        }
        for name in given_up {
            self.release(seat, name, effects);
            effects.busy.push(name);
        }
    }
}

impl Exclusion for Lamport {
    fn enter(&mut self, seat: &Seat, held: &[TopicName]) {
        *self = Self { time: 1, ..Self::default() };
        held.iter().for_each(|name| self.on_holds(seat, seat.own, *name));
    }

    fn on_holds(&mut self, _seat: &Seat, from: Rank, name: TopicName) {
        if has_room(&self.queues, &name) {
            self.queues.entry(name).or_default().requests.insert(from, 0);
        }
    }

    fn open(&mut self, _seat: &Seat, _effects: &mut Effects) {}

    fn request(&mut self, seat: &Seat, name: TopicName, tries: bool, effects: &mut Effects) {
        self.time += 1;
        let queue = self.queues.entry(name).or_default();
        assert!(!queue.asks, "one request of a member at a time: {name:?}");
        (queue.asks, queue.tries) = (true, tries);
        queue.requests.insert(seat.own, self.time);
        for to in seat.others() {
            effects.send(to, LinkMessage { number: self.time, ..LinkMessage::new(REQUEST, name) });
        }
        self.look(seat, effects);
    }

    fn release(&mut self, seat: &Seat, name: TopicName, effects: &mut Effects) {
        let Some(queue) = self.queues.get_mut(&name) else { return };
        queue.asks = false;
        if queue.requests.remove(&seat.own).is_none() {
            return;
        }
        if queue.requests.is_empty() {
            self.queues.remove(&name);
        }
        self.time += 1;
        for to in seat.others() {
            effects.send(to, LinkMessage { number: self.time, ..LinkMessage::new(RELEASE, name) });
        }
    }

    fn receive(&mut self, seat: &Seat, from: Rank, message: &LinkMessage, effects: &mut Effects) {
        let is_known = matches!(message.step, REQUEST | REPLY | RELEASE) && message.number < TIMES_END;
        let has_room = |name: &TopicName| message.step != REQUEST || has_room(&self.queues, name);
        let Some(name) = message.name.filter(|name| is_known && has_room(name)) else { return };
        self.time = self.time.max(message.number) + 1;
        let heard = self.heard.entry(from).or_default();
        *heard = (*heard).max(message.number);
        assert!(self.time > *heard, "this member's time is later than all that it has heard");
        match message.step {
            REQUEST => {
                self.queues.entry(name).or_default().requests.insert(from, message.number);
                effects.send(from, LinkMessage { number: self.time, ..LinkMessage::new(REPLY, name) });
            }
            RELEASE => {
                if let Some(queue) = self.queues.get_mut(&name) {
                    queue.requests.remove(&from);
                    if queue.requests.is_empty() {
                        self.queues.remove(&name);
                    }
                }
            }
            _ => {}
        }
        self.look(seat, effects);
    }

    fn ahead(&self, seat: &Seat, name: &TopicName) -> usize {
        let Some(queue) = self.queues.get(name) else { return 0 };
        let Some(own) = queue.requests.get(&seat.own) else { return 0 };
        queue.requests.iter().filter(|(rank, time)| (**time, **rank) < (*own, seat.own)).count()
    }

    fn held(&self) -> usize {
        self.queues.values().map(|queue| 1 + queue.requests.len()).sum::<usize>()
    }
}

/// The members of the view whose bits are set.
pub(super) fn of_view(seat: &Seat, bits: u64) -> impl Iterator<Item = Rank> + use<> {
    ranks(bits & seat.members & !bit(seat.own))
}
