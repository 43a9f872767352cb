//! Ricart and Agrawala's algorithm: a member may enter once every other member has replied to its request.
//!
//! In Lamport's algorithm all members keep the same queue, so most of the messages that keep the queues equal are
//! unnecessary. A member that wants a lock sends REQUEST with its Lamport time to all; each receiver answers REPLY at
//! once, unless it has the lock, or wants it and asked earlier (ties by rank): then it answers when it releases the
//! lock. All replies together are the permission: 2(N−1) messages an entry, and RELEASE is the deferred reply.
//!
//! A single crash breaks the algorithm, as with Lamport's; the next view has no crashed member to wait for. A holder
//! from an earlier view simply does not answer. A reply names the request it answers, because a withdrawn request may
//! be answered later.
//!
//! Token's number: time × 64 + rank. Each grant's token is higher than those before: a member that has replied to a
//! request has a later time from then on. Invariants: at most one member of the view holds a lock; requests are served
//! in the order of their times. Source: Ricart and Agrawala (CACM 1981).

use super::lamport::{Stamp, TIMES_END, number, of_view};
use super::{Effects, Exclusion, Seat};
use crate::control::perfect_link::LinkMessage;
use crate::mutant::Mutant;
use crate::view::bit;
use alloc::collections::BTreeMap;
use bourdon_wire::records::link_steps::{BUSY, REPLY, REQUEST, TRY};
use bourdon_wire::{Rank, TopicName};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Own {
    /// Neither requests nor has the lock.
    #[default]
    Idle,
    /// Requests it since this time; the awaited members have not replied.
    Asks { time: u64, awaited: u64, tries: bool },
    /// Has the lock.
    Inside,
}

#[derive(Debug, Default)]
struct Lock {
    own: Own,
    /// The members that wait for this member's reply, and the times of their requests.
    deferred: BTreeMap<Rank, u64>,
}

/// One member's part of the algorithm.
#[derive(Debug, Default)]
pub(crate) struct RicartAgrawala {
    time: u64,
    locks: BTreeMap<TopicName, Lock>,
}

impl RicartAgrawala {
    fn look(&mut self, seat: &Seat, name: TopicName, effects: &mut Effects) {
        let Some(lock) = self.locks.get_mut(&name) else { return };
        if let Own::Asks { time, awaited: 0, .. } = lock.own {
            lock.own = Own::Inside;
            effects.grant(seat, name, number((time, seat.own)));
        }
    }

    fn on_request(&mut self, seat: &Seat, name: TopicName, from: Stamp, tries: bool, effects: &mut Effects) {
        let (time, rank) = from;
        let reply = LinkMessage { number: time, ..LinkMessage::new(REPLY, name) };
        let Some(lock) = self.locks.get_mut(&name) else { return effects.send(rank, reply) };
        let goes_first = match lock.own {
            Own::Idle => false,
            Own::Asks { time, .. } => (time, seat.own) < from,
            Own::Inside => seat.mutant != Some(Mutant::ReplyInside),
        };
        match (goes_first, tries) {
            (false, _) => effects.send(rank, reply),
            (true, true) => effects.send(rank, LinkMessage { step: BUSY, ..reply }),
            (true, false) => drop(lock.deferred.insert(rank, time)),
        }
    }
}

impl Exclusion for RicartAgrawala {
    fn enter(&mut self, _seat: &Seat, held: &[TopicName]) {
        *self = Self::default();
        let inside = |name: &TopicName| (*name, Lock { own: Own::Inside, ..Lock::default() });
        self.locks.extend(held.iter().map(inside));
    }

    fn on_holds(&mut self, _seat: &Seat, _from: Rank, _name: TopicName) {}

    fn open(&mut self, _seat: &Seat, _effects: &mut Effects) {}

    fn request(&mut self, seat: &Seat, name: TopicName, tries: bool, effects: &mut Effects) {
        self.time += 1;
        let awaited = seat.members & !bit(seat.own);
        let lock = self.locks.entry(name).or_default();
        assert!(lock.own == Own::Idle && lock.deferred.is_empty(), "one request of a member at a time: {name:?}");
        lock.own = Own::Asks { time: self.time, awaited, tries };
        let step = if tries { TRY } else { REQUEST };
        for to in seat.others() {
            effects.send(to, LinkMessage { number: self.time, ..LinkMessage::new(step, name) });
        }
        self.look(seat, name, effects);
    }

    fn release(&mut self, seat: &Seat, name: TopicName, effects: &mut Effects) {
        let Some(lock) = self.locks.remove(&name) else { return };
        let awaiting = lock.deferred.keys().fold(0, |bits, rank| bits | bit(*rank));
        for to in of_view(seat, awaiting) {
            let time = lock.deferred.get(&to).copied().unwrap_or_default();
            effects.send(to, LinkMessage { number: time, ..LinkMessage::new(REPLY, name) });
        }
    }

    fn receive(&mut self, seat: &Seat, from: Rank, message: &LinkMessage, effects: &mut Effects) {
        let Some(name) = message.name.filter(|_| message.number < TIMES_END) else { return };
        match message.step {
            REQUEST | TRY => {
                self.time = self.time.max(message.number);
                self.on_request(seat, name, (message.number, from), message.step == TRY, effects);
            }
            REPLY => {
                let Some(lock) = self.locks.get_mut(&name) else { return };
                if let Own::Asks { time, awaited, .. } = &mut lock.own
                    && *time == message.number
                {
                    *awaited &= !bit(from);
                    self.look(seat, name, effects);
                }
            }
            BUSY => {
                let own = self.locks.get(&name).map(|lock| lock.own);
                if matches!(own, Some(Own::Asks { time, tries: true, .. }) if time == message.number) {
                    self.release(seat, name, effects);
                    effects.busy.push(name);
                }
            }
            _ => {}
        }
    }

    fn held(&self) -> usize {
        self.locks.values().map(|lock| 1 + lock.deferred.len()).sum::<usize>()
    }
}
