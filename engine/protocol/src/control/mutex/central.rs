//! The centralized algorithm: the view's oldest member grants.
//!
//! A member that wants a lock asks the coordinator, which keeps a queue for each lock and grants to the first: REQUEST,
//! GRANT, RELEASE, three messages an entry, none for the coordinator's own. A crash of the coordinator breaks the
//! algorithm. Here the next view has another coordinator, and at the beginning every member announces to it what it
//! holds. The coordinator grants nothing before all members have announced ([`Exclusion::open`]); otherwise it would
//! grant a lock that another member still holds.
//!
//! A request has a name of its own (`other`), because a grant may cross the withdrawal of the request it answers:
//! without the name, the member would take the grant as the answer to its next request, while the coordinator has
//! already revoked it.
//!
//! Token's number: one counter at the coordinator for all locks of an epoch. Invariants: no lock is granted while
//! another member of the view holds it; the coordinator serves requests in the order in which it receives them. Bound:
//! [`REQUESTS_MAX`] requests at the coordinator, an answer of BUSY beyond. Source: Coulouris et al., Distributed
//! Systems (2011), §15.2, "the central server algorithm".

use super::{Effects, Exclusion, Seat, has_room};
use crate::control::coordination::NAMES_MAX;
use crate::control::perfect_link::LinkMessage;
use crate::mutant::Mutant;
use alloc::collections::{BTreeMap, VecDeque};
use bourdon_wire::records::link_steps::{BUSY, GRANT, RELEASE, REQUEST, TRY};
use bourdon_wire::{Rank, TopicName};

/// All names of all members: no honest group has more.
const REQUESTS_MAX: usize = 64 * NAMES_MAX;
const _: () = assert!(REQUESTS_MAX == (Rank::MAX.index() + 1) * NAMES_MAX);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Request {
    from: Rank,
    /// Its sender's name for it.
    id: u64,
}

/// A lock, at the coordinator.
#[derive(Debug, Default)]
struct Queue {
    holder: Option<Request>,
    waiting: VecDeque<Request>,
}

/// One member's part of the algorithm.
#[derive(Debug, Default)]
pub(crate) struct Central {
    /// Used at the coordinator only.
    queues: BTreeMap<TopicName, Queue>,
    granted: u64,
    is_open: bool,
    /// The locks that this member requests or holds, with the request's name.
    own: BTreeMap<TopicName, u64>,
    next_id: u64,
}

impl Central {
    fn enqueue(&mut self, seat: &Seat, name: TopicName, (request, tries): (Request, bool), effects: &mut Effects) {
        let count: usize = self.queues.values().map(|queue| queue.waiting.len() + 1).sum();
        let is_open = self.is_open;
        let queue = self.queues.entry(name).or_default();
        let is_free = is_open && queue.holder.is_none() && queue.waiting.is_empty();
        if count >= REQUESTS_MAX || tries && !is_free {
            if queue.holder.is_none() && queue.waiting.is_empty() {
                self.queues.remove(&name);
            }
            return self.answer(seat, BUSY, name, request, effects);
        }
        assert!(count < REQUESTS_MAX, "{count} requests");
        queue.waiting.push_back(request);
        self.serve(seat, name, effects);
    }

    /// Grants to the first waiting member, if the lock is free.
    fn serve(&mut self, seat: &Seat, name: TopicName, effects: &mut Effects) {
        let Some(queue) = self.queues.get_mut(&name) else { return };
        assert!(seat.own == seat.oldest, "only the coordinator has queues");
        let may_grant = self.is_open || seat.mutant == Some(Mutant::GrantBeforeAnnounced);
        if queue.holder.is_some() || !may_grant {
            return;
        }
        let Some(next) = queue.waiting.pop_front() else {
            self.queues.remove(&name);
            return;
        };
        queue.holder = Some(next);
        self.granted += 1;
        self.answer(seat, GRANT, name, next, effects);
    }

    fn answer(&mut self, seat: &Seat, step: u16, name: TopicName, request: Request, effects: &mut Effects) {
        let message = LinkMessage { number: self.granted, other: request.id, ..LinkMessage::new(step, name) };
        if request.from != seat.own {
            return effects.send(request.from, message);
        }
        self.answered(seat, &message, effects);
    }

    /// The coordinator has answered a request of this member's.
    fn answered(&mut self, seat: &Seat, message: &LinkMessage, effects: &mut Effects) {
        let Some(name) = message.name.filter(|name| self.own.get(name) == Some(&message.other)) else { return };
        if message.step == GRANT {
            return effects.grant(seat, name, message.number);
        }
        self.own.remove(&name);
        effects.busy.push(name);
    }

    /// Member `from` no longer holds the lock, or no longer waits for it.
    fn dequeue(&mut self, seat: &Seat, name: TopicName, from: Rank, effects: &mut Effects) {
        let Some(queue) = self.queues.get_mut(&name) else { return };
        if queue.holder.is_some_and(|holder| holder.from == from) {
            queue.holder = None;
        } else {
            queue.waiting.retain(|waiting| waiting.from != from);
        }
        self.serve(seat, name, effects);
    }
}

impl Exclusion for Central {
    fn enter(&mut self, seat: &Seat, held: &[TopicName]) {
        *self = Self { next_id: self.next_id, ..Self::default() };
        for name in held {
            self.own.insert(*name, 0);
            self.on_holds(seat, seat.own, *name);
        }
    }

    fn on_holds(&mut self, seat: &Seat, from: Rank, name: TopicName) {
        if seat.oldest == seat.own && has_room(&self.queues, &name) {
            self.queues.entry(name).or_default().holder = Some(Request { from, id: 0 });
        }
    }

    fn open(&mut self, seat: &Seat, effects: &mut Effects) {
        self.is_open = true;
        let names: alloc::vec::Vec<TopicName> = self.queues.keys().copied().collect();
        names.into_iter().for_each(|name| self.serve(seat, name, effects));
    }

    fn request(&mut self, seat: &Seat, name: TopicName, tries: bool, effects: &mut Effects) {
        self.next_id += 1;
        let id = self.next_id;
        self.own.insert(name, id);
        if seat.own == seat.oldest {
            return self.enqueue(seat, name, (Request { from: seat.own, id }, tries), effects);
        }
        let step = if tries { TRY } else { REQUEST };
        effects.send(seat.oldest, LinkMessage { other: id, ..LinkMessage::new(step, name) });
    }

    fn release(&mut self, seat: &Seat, name: TopicName, effects: &mut Effects) {
        if self.own.remove(&name).is_none() {
            return;
        }
        if seat.own == seat.oldest {
            return self.dequeue(seat, name, seat.own, effects);
        }
        effects.send(seat.oldest, LinkMessage::new(RELEASE, name));
    }

    fn receive(&mut self, seat: &Seat, from: Rank, message: &LinkMessage, effects: &mut Effects) {
        let Some(name) = message.name else { return };
        match message.step {
            GRANT | BUSY if from == seat.oldest => self.answered(seat, message, effects),
            REQUEST | TRY if seat.own == seat.oldest => {
                let request = (Request { from, id: message.other }, message.step == TRY);
                self.enqueue(seat, name, request, effects);
            }
            RELEASE if seat.own == seat.oldest => self.dequeue(seat, name, from, effects),
            _ => {}
        }
    }

    fn ahead(&self, seat: &Seat, name: &TopicName) -> usize {
        let Some(queue) = self.queues.get(name) else { return 0 };
        let place = queue.waiting.iter().position(|request| request.from == seat.own).unwrap_or(0);
        place + usize::from(queue.holder.is_some())
    }

    fn held(&self) -> usize {
        self.own.len() + self.queues.values().map(|queue| 1 + queue.waiting.len()).sum::<usize>()
    }
}
