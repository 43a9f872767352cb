//! The token ring: the member that has the token may enter.
//!
//! One token for each lock goes round the view, by rank; a member that gets it and wants the lock keeps it until it
//! releases the lock. No member waits for more than one entry of each other member. In the textbook the token goes
//! round even when no member wants it, and is lost if the member that has it crashes.
//!
//! Here the token rests at the member that used it last. A member that wants it sends WANT to its successor, and each
//! member forwards it until it reaches the token; then the token moves on round the ring, from member to member, with
//! the set of members that want it. The path of the WANT and that of the token make up one round, so an entry costs N
//! messages at most, and no messages are sent while no member wants it. A WANT can't miss the token: both go the same
//! way on links that keep the order. If a WANT comes back to its sender, the token has been there before it.
//!
//! **Regeneration.** A view begins with exactly one token for each lock: at the member that holds the lock, else at the
//! oldest member, which waits until all members have announced what they hold. The token of the previous epoch is void.
//!
//! Fencing token's number: a count that travels with the token; the oldest member starts a new token at the highest
//! count of the tokens that it dropped. Invariants: one token for each lock in an epoch; once a WANT has reached the
//! token, at most N − 1 entries of others go before it. Until then the member at which the token rests may enter again
//! and again. Source: Le Lann, Distributed Systems: Towards a Formal Approach (1977); Coulouris et al. (2011), §15.2.

use super::{Effects, Exclusion, Seat, has_room};
use crate::control::perfect_link::LinkMessage;
use crate::mutant::Mutant;
use crate::view::bit;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use bourdon_wire::records::link_steps::{BUSY, TOKEN, WANT};
use bourdon_wire::{Rank, TopicName};

#[derive(Clone, Copy, Debug)]
struct Token {
    count: u64,
    /// Bit r: rank r wants the lock.
    wants: u64,
}

#[derive(Debug, Default)]
struct Lock {
    token: Option<Token>,
    /// This member wants the lock: its request's name, and whether only if it is free.
    wanted: Option<(u64, bool)>,
    /// This member has the lock.
    inside: bool,
    /// Another member announced that it has the token, or this member sent the token on.
    is_elsewhere: bool,
    /// The WANTs that came before this member knew where the token is, the last of each member.
    early: BTreeMap<Rank, LinkMessage>,
}

/// One member's part of the algorithm.
#[derive(Debug, Default)]
pub(crate) struct TokenRing {
    locks: BTreeMap<TopicName, Lock>,
    /// No token that starts here counts from less than this.
    floor: u64,
    is_open: bool,
    next_id: u64,
}

impl TokenRing {
    /// The lock as this member knows it. A token that is not known to be elsewhere rests at the oldest member.
    fn lock(&mut self, seat: &Seat, name: TopicName) -> &mut Lock {
        let rests = self.is_open && seat.own == seat.oldest;
        let token = rests.then_some(Token { count: self.floor, wants: 0 });
        self.locks.entry(name).or_insert_with(|| Lock { token, ..Lock::default() })
    }

    /// Uses the token, passes it on, or lets it rest.
    fn move_on(&mut self, seat: &Seat, name: TopicName, effects: &mut Effects) {
        let Some(lock) = self.locks.get_mut(&name) else { return };
        assert!(!lock.inside || lock.token.is_some(), "a holder has the token: {name:?}");
        let Some(token) = lock.token.as_mut().filter(|_| !lock.inside) else { return };
        let early = core::mem::take(&mut lock.early).into_keys().fold(0, |bits, rank| bits | bit(rank));
        token.wants = (token.wants | early) & seat.members & !bit(seat.own);
        if lock.wanted.take().is_some() {
            lock.inside = true;
            token.count += 1;
            return effects.grant(seat, name, token.count);
        }
        let token = *token;
        if token.wants != 0 {
            (lock.token, lock.is_elsewhere) = (None, true);
            let message = LinkMessage { number: token.count, other: token.wants, ..LinkMessage::new(TOKEN, name) };
            effects.send(seat.successor(), message);
        } else if seat.own == seat.oldest && self.is_open {
            // The token is here again, as if it had never been away.
            self.floor = self.floor.max(token.count);
            self.locks.remove(&name);
        }
        self.forget(seat, name);
    }

    /// A member that is not the oldest keeps nothing of a lock that is elsewhere.
    fn forget(&mut self, seat: &Seat, name: TopicName) {
        let is_blank = |lock: &Lock| lock.token.is_none() && lock.wanted.is_none() && lock.early.is_empty();
        if seat.own != seat.oldest && self.locks.get(&name).is_some_and(is_blank) {
            self.locks.remove(&name);
        }
    }

    fn on_want(&mut self, seat: &Seat, name: TopicName, message: &LinkMessage, effects: &mut Effects) {
        let requester = message.rank;
        if requester == seat.own || seat.members & bit(requester) == 0 {
            return; // the WANT came round: the token has been here before it
        }
        let is_open = self.is_open;
        let tries = message.other != 0;
        let lock = self.lock(seat, name);
        match &mut lock.token {
            Some(token) if tries && (lock.inside || token.wants != 0) => {
                effects.send(requester, LinkMessage { number: message.number, ..LinkMessage::new(BUSY, name) });
            }
            Some(token) => {
                token.wants |= bit(requester);
                self.move_on(seat, name, effects);
            }
            None if !is_open => drop(lock.early.insert(requester, *message)),
            None => {
                effects.send(seat.successor(), *message);
                self.forget(seat, name);
            }
        }
    }
}

impl Exclusion for TokenRing {
    fn enter(&mut self, _seat: &Seat, held: &[TopicName]) {
        *self = Self { next_id: self.next_id, ..Self::default() };
        let here = |name: &TopicName| {
            (*name, Lock { token: Some(Token { count: 0, wants: 0 }), inside: true, ..Lock::default() })
        };
        self.locks.extend(held.iter().map(here));
    }

    fn on_holds(&mut self, seat: &Seat, _from: Rank, name: TopicName) {
        if seat.own == seat.oldest && has_room(&self.locks, &name) && seat.mutant != Some(Mutant::TwoTokens) {
            // The token may have come here through others before its holder's announcement.
            let lock = self.locks.entry(name).or_default();
            lock.is_elsewhere = lock.token.is_none();
        }
    }

    fn open(&mut self, seat: &Seat, effects: &mut Effects) {
        self.is_open = true;
        if seat.own == seat.oldest {
            // This includes locks that a member has already requested.
            let here = |lock: &&mut Lock| lock.token.is_none() && !lock.is_elsewhere;
            let token = Token { count: self.floor, wants: 0 };
            self.locks.values_mut().filter(here).for_each(|lock| lock.token = Some(token));
        }
        let waiting: Vec<TopicName> =
            self.locks.iter().filter(|(_, l)| !l.early.is_empty()).map(|(name, _)| *name).collect();
        for name in waiting {
            let Some(lock) = self.locks.get_mut(&name) else { continue };
            let early = core::mem::take(&mut lock.early);
            // WANTs that came before all members had announced are now handled.
            early.values().for_each(|message| self.on_want(seat, name, message, effects));
        }
    }

    fn request(&mut self, seat: &Seat, name: TopicName, tries: bool, effects: &mut Effects) {
        self.next_id += 1;
        let id = self.next_id;
        let lock = self.lock(seat, name);
        assert!(lock.wanted.is_none() && !lock.inside, "one request of a member at a time: {name:?}");
        lock.wanted = Some((id, tries));
        if lock.token.is_some() {
            return self.move_on(seat, name, effects);
        }
        let want = LinkMessage { rank: seat.own, number: id, other: u64::from(tries), ..LinkMessage::new(WANT, name) };
        effects.send(seat.successor(), want);
    }

    fn release(&mut self, seat: &Seat, name: TopicName, effects: &mut Effects) {
        let Some(lock) = self.locks.get_mut(&name) else { return };
        (lock.inside, lock.wanted) = (false, None);
        self.move_on(seat, name, effects);
        self.forget(seat, name);
    }

    fn receive(&mut self, seat: &Seat, _from: Rank, message: &LinkMessage, effects: &mut Effects) {
        let Some(name) = message.name.filter(|name| has_room(&self.locks, name)) else { return };
        match message.step {
            TOKEN => {
                let lock = self.lock(seat, name);
                lock.token = Some(Token { count: message.number, wants: message.other });
                self.move_on(seat, name, effects);
            }
            WANT => self.on_want(seat, name, message, effects),
            BUSY => {
                let Some(lock) = self.locks.get_mut(&name) else { return };
                if lock.wanted == Some((message.number, true)) {
                    lock.wanted = None;
                    effects.busy.push(name);
                    self.forget(seat, name);
                }
            }
            _ => {}
        }
    }

    fn held(&self) -> usize {
        self.locks.len()
    }
}
