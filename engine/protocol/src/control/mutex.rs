//! Locks: at most one process at a time holds each, and each process that requests it gets it.
//!
//! Five algorithms provide this, each in its own file behind one trait ([`Exclusion`]). They know members, not
//! requests: this file keeps the requests of this process in a queue for each name and sends at most one of them at a
//! time to the other members, so that an algorithm handles one request of each member. This file also keeps what
//! outlives a view: which request holds a lock here, under which token.
//!
//! **View changes.** Messages of an epoch are void in the next. Each member begins a view by announcing to every other
//! member which locks it holds (HOLDS for each, then STATE_SENT). Links keep the order, so no later message overtakes
//! these; then the member repeats its requests. Crashed members announce nothing: their locks and requests are gone. A
//! grant that came after a member's promise does no harm, because a member announces what it holds when it enters the
//! next view, not when it promises.
//!
//! **Fencing.** A token is (birth, epoch, number), compared in this order. The birth is that of the instance, so that
//! tokens grow over a restart of the whole group; the epoch is that of the view in which the lock was granted. Each
//! algorithm makes only the number, which grows within an epoch. A member that can't reach a quorum of its view, or is
//! out of it, holds nothing from then on.
//!
//! Invariants: among the members of one view, at most one holds a lock; tokens grow in the order of grants; every
//! request ends, with a grant or with the reason why it is not granted. Bounds: [`NAMES_MAX`] names, [`REQUESTS_MAX`]
//! requests.

pub(crate) mod central;
pub(crate) mod lamport;
pub(crate) mod replicated;
pub(crate) mod ricart_agrawala;
pub(crate) mod token_ring;

use super::coordination::{
    CoordinationRefusal, FencingToken, LockId, LockNews, LockStanding, Loss, MutexKind, NAMES_MAX, Patience,
    REQUESTS_MAX, TOKEN_NUMBERS_END,
};
use super::perfect_link::LinkMessage;
use crate::mutant::Mutant;
use crate::view::{Member, View, bit, ranks};
use alloc::boxed::Box;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;
use bourdon_wire::{Epoch, Instant, Rank, TopicName};
use core::fmt::Debug;
use replicated::{Command, Replicated};

/// Locks that an algorithm knows at one member: all names of all members. No honest group has more.
const NAMES_KNOWN_MAX: usize = 64 * NAMES_MAX;

/// Whether the map of names has room for this name.
fn has_room<V>(known: &BTreeMap<TopicName, V>, name: &TopicName) -> bool {
    known.len() < NAMES_KNOWN_MAX || known.contains_key(name)
}

/// The position of an algorithm: the view as this member sees it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seat {
    pub(crate) own: Rank,
    pub(crate) epoch: Epoch,
    /// The birth of the group's instance.
    pub(crate) birth: u64,
    /// The oldest member.
    pub(crate) oldest: Rank,
    /// Bit r: rank r is a member.
    pub(crate) members: u64,
    pub(crate) mutant: Option<Mutant>,
}

impl Seat {
    pub(crate) fn new(own: Rank, view: &View, mutant: Option<Mutant>) -> Self {
        let members = view.bits();
        Self { own, epoch: view.epoch, birth: view.birth, oldest: view.oldest(members).unwrap_or(own), members, mutant }
    }

    /// All members but this one.
    pub(crate) fn others(&self) -> impl Iterator<Item = Rank> + use<> {
        let own = self.own;
        ranks(self.members).filter(move |rank| *rank != own)
    }

    /// The next member in the ring, by rank; itself if it is alone.
    pub(crate) fn successor(&self) -> Rank {
        let after = ranks(self.members).find(|rank| *rank > self.own);
        let next = after.or_else(|| ranks(self.members).next()).unwrap_or(self.own);
        debug_assert!(next == self.own || self.members & bit(next) != 0, "the ring is of members");
        next
    }
}

/// The effects of an algorithm's step.
#[derive(Debug, Default)]
pub(crate) struct Effects {
    pub(crate) messages: Vec<(Rank, LinkMessage)>,
    /// This member's request for a lock is granted.
    pub(crate) granted: Vec<(TopicName, FencingToken)>,
    /// This member's request would have to wait, and must not; or there is no room.
    pub(crate) busy: Vec<TopicName>,
}

impl Effects {
    pub(crate) fn send(&mut self, to: Rank, message: LinkMessage) {
        self.messages.push((to, message));
    }

    pub(crate) fn grant(&mut self, seat: &Seat, name: TopicName, number: u64) {
        self.granted.push((name, FencingToken { birth: seat.birth, epoch: seat.epoch, number }));
    }
}

/// A textbook algorithm: one request at a time of each member for each name.
pub(crate) trait Exclusion: Debug + Send {
    /// A view begins; this member holds these locks.
    fn enter(&mut self, seat: &Seat, held: &[TopicName]);
    /// A member announces a lock that it holds from an earlier view.
    fn on_holds(&mut self, seat: &Seat, from: Rank, name: TopicName);
    /// Every member has announced its locks.
    fn open(&mut self, seat: &Seat, effects: &mut Effects);
    /// This member requests a lock.
    fn request(&mut self, seat: &Seat, name: TopicName, tries: bool, effects: &mut Effects);
    /// This member releases a lock, or no longer waits for it.
    fn release(&mut self, seat: &Seat, name: TopicName, effects: &mut Effects);
    /// Receives a link message of another member.
    fn receive(&mut self, seat: &Seat, from: Rank, message: &LinkMessage, effects: &mut Effects);
    /// How many requests are known to precede this member's.
    fn ahead(&self, _seat: &Seat, _name: &TopicName) -> usize {
        0
    }
    /// The number of entries kept.
    fn held(&self) -> usize;
}

#[derive(Debug)]
enum Algorithm {
    Replicated(Replicated),
    Textbook(Box<dyn Exclusion>),
}

#[derive(Clone, Copy, Debug)]
struct Waiter {
    id: LockId,
    patience: Patience,
}

/// A lock, as this process's requests see it.
#[derive(Debug, Default)]
struct Lock {
    waiting: VecDeque<Waiter>,
    holder: Option<(LockId, FencingToken)>,
    /// The first waiting request has been sent to the other members.
    asked: bool,
}

/// One process's locks.
#[derive(Debug)]
pub(crate) struct Mutex {
    seat: Seat,
    /// The members of the view.
    members: Vec<Member>,
    algorithm: Algorithm,
    locks: BTreeMap<TopicName, Lock>,
    next_id: u64,
    /// No request times out before this; read at every step.
    due: Instant,
    /// Whether requests may be sent.
    is_open: bool,
    entries: u64,
    pub(crate) news: Vec<(LockId, LockNews)>,
    effects: Effects,
}

impl Mutex {
    pub(crate) fn new(kind: MutexKind) -> Self {
        let algorithm = match kind {
            MutexKind::Replicated => Algorithm::Replicated(Replicated::default()),
            MutexKind::Central => Algorithm::Textbook(Box::<central::Central>::default()),
            MutexKind::Lamport => Algorithm::Textbook(Box::<lamport::Lamport>::default()),
            MutexKind::RicartAgrawala => Algorithm::Textbook(Box::<ricart_agrawala::RicartAgrawala>::default()),
            MutexKind::TokenRing => Algorithm::Textbook(Box::<token_ring::TokenRing>::default()),
        };
        Self {
            seat: Seat::default(),
            members: Vec::new(),
            algorithm,
            locks: BTreeMap::new(),
            next_id: 0,
            due: Instant::NEVER,
            is_open: false,
            entries: 0,
            news: Vec::new(),
            effects: Effects::default(),
        }
    }

    // ---- the application ------------------------------------------------------------------------------------------

    /// Requests a lock.
    pub(crate) fn lock(&mut self, name: TopicName, patience: Patience) -> Result<LockId, CoordinationRefusal> {
        let requests = |lock: &Lock| lock.waiting.len() + usize::from(lock.holder.is_some());
        if self.locks.values().map(requests).sum::<usize>() >= REQUESTS_MAX
            || self.locks.len() >= NAMES_MAX && !self.locks.contains_key(&name)
        {
            return Err(CoordinationRefusal::TooMany);
        }
        let id = LockId(self.next_id);
        self.next_id += 1;
        let lock = self.locks.entry(name).or_default();
        if patience == Patience::Try && (lock.holder.is_some() || !lock.waiting.is_empty()) {
            self.news.push((id, LockNews::Busy));
            return Ok(id);
        }
        assert!(lock.waiting.back().is_none_or(|last| last.id < id), "requests wait in their order");
        lock.waiting.push_back(Waiter { id, patience });
        if let Patience::Until(at) = patience {
            self.due = self.due.min(at);
        }
        self.ask(name);
        self.settle();
        Ok(id)
    }

    /// Releases a lock, or no longer waits for it; returns whether there was such a request.
    pub(crate) fn unlock(&mut self, id: LockId) -> bool {
        let is_his = |lock: &Lock| {
            lock.holder.is_some_and(|(holder, _)| holder == id) || lock.waiting.iter().any(|waiter| waiter.id == id)
        };
        let Some(name) = self.locks.iter().find(|(_, lock)| is_his(lock)).map(|(name, _)| *name) else { return false };
        self.end(name, id);
        self.settle();
        true
    }

    /// A request is over. A grant that this causes at once is reported before anything else happens: if it waited, it
    /// would count as the answer to a later request.
    fn end(&mut self, name: TopicName, id: LockId) {
        let Some(lock) = self.locks.get_mut(&name) else { return };
        let is_first = lock.waiting.front().is_some_and(|waiter| waiter.id == id);
        let releases = if lock.holder.is_some_and(|(holder, _)| holder == id) {
            lock.holder = None;
            true
        } else {
            lock.waiting.retain(|waiter| waiter.id != id);
            is_first && core::mem::take(&mut lock.asked)
        };
        if releases {
            self.release(name);
        }
        self.ask(name);
        self.settle();
    }

    fn release(&mut self, name: TopicName) {
        match &mut self.algorithm {
            Algorithm::Replicated(replicated) => replicated.release(name),
            Algorithm::Textbook(textbook) => textbook.release(&self.seat, name, &mut self.effects),
        }
    }

    /// Sends the first waiting request to the other members, if none has been sent.
    fn ask(&mut self, name: TopicName) {
        let Some(lock) = self.locks.get_mut(&name) else { return };
        let Some(first) = lock.waiting.front() else {
            if lock.holder.is_none() {
                self.locks.remove(&name);
            }
            return;
        };
        if lock.asked || lock.holder.is_some() || !self.is_open {
            return;
        }
        assert!(self.seat.members & bit(self.seat.own) != 0, "only a member requests");
        lock.asked = true;
        let tries = first.patience == Patience::Try;
        match &mut self.algorithm {
            Algorithm::Replicated(replicated) => replicated.request(name, tries),
            Algorithm::Textbook(textbook) => textbook.request(&self.seat, name, tries, &mut self.effects),
        }
    }

    /// The state of a request.
    pub(crate) fn standing(&self, id: LockId) -> Option<LockStanding> {
        for (name, lock) in &self.locks {
            if let Some((_, token)) = lock.holder.filter(|(holder, _)| *holder == id) {
                return Some(LockStanding::Held(token));
            }
            let Some(place) = lock.waiting.iter().position(|waiter| waiter.id == id) else { continue };
            let ahead = match &self.algorithm {
                Algorithm::Replicated(replicated) => replicated.ahead(&self.seat, name),
                Algorithm::Textbook(textbook) => textbook.ahead(&self.seat, name),
            };
            let here = place + usize::from(lock.holder.is_some());
            return Some(LockStanding::Waiting { ahead: here + if lock.asked { ahead } else { 0 } });
        }
        None
    }

    /// The locks held here.
    pub(crate) fn holds(&self) -> impl Iterator<Item = (&TopicName, FencingToken)> {
        self.locks.iter().filter_map(|(name, lock)| Some((name, lock.holder?.1)))
    }

    /// Whether any request of this process is pending.
    pub(crate) fn is_busy(&self) -> bool {
        !self.locks.is_empty()
    }

    /// The number of grants to this process so far.
    pub(crate) fn entries(&self) -> u64 {
        self.entries
    }

    /// When to check for requests that have waited long enough.
    #[inline]
    pub(crate) fn due(&self) -> Instant {
        self.due
    }

    /// Ends requests that have waited long enough.
    pub(crate) fn tend(&mut self, now: Instant) {
        let mut late = Vec::new();
        for (name, lock) in &self.locks {
            let is_late = |waiter: &&Waiter| matches!(waiter.patience, Patience::Until(at) if now >= at);
            late.extend(lock.waiting.iter().filter(is_late).map(|waiter| (*name, waiter.id)));
        }
        for (name, id) in late {
            self.news.push((id, LockNews::TimedOut));
            self.end(name, id);
        }
        let until = |waiter: &Waiter| if let Patience::Until(at) = waiter.patience { at } else { Instant::NEVER };
        let waiters = self.locks.values().flat_map(|lock| &lock.waiting);
        self.due = waiters.map(until).min().unwrap_or(Instant::NEVER);
    }

    // ---- the view -------------------------------------------------------------------------------------------------

    /// A view begins. `order`: the number of its first message in total order. `is_member`: this process is a member of
    /// it, not a follower.
    pub(crate) fn enter(&mut self, seat: Seat, view: &View, order: u64, is_member: bool) {
        assert!(seat.members == view.bits() && seat.epoch == view.epoch, "{seat:?} in {view:?}");
        (self.seat, self.members) = (seat, view.members.clone());
        self.effects = Effects::default();
        match &mut self.algorithm {
            Algorithm::Replicated(replicated) => {
                replicated.enter(&self.seat, view, order, &mut self.effects);
                if is_member {
                    replicated.release_inherited(&self.seat, view);
                }
                self.is_open = is_member;
            }
            Algorithm::Textbook(textbook) => {
                let held: Vec<TopicName> =
                    self.locks.iter().filter(|(_, lock)| lock.holder.is_some()).map(|(name, _)| *name).collect();
                textbook.enter(&self.seat, &held);
                self.locks.values_mut().for_each(|lock| lock.asked = false);
                self.is_open = false;
            }
        }
        self.settle();
    }

    /// A member announced at the beginning of the view that it holds this lock.
    pub(crate) fn on_holds(&mut self, from: Rank, name: TopicName) {
        if let Algorithm::Textbook(textbook) = &mut self.algorithm {
            textbook.on_holds(&self.seat, from, name);
        }
    }

    /// Every member has announced what it holds: sends the requests that wait here.
    pub(crate) fn open(&mut self) {
        self.is_open = true;
        if let Algorithm::Textbook(textbook) = &mut self.algorithm {
            textbook.open(&self.seat, &mut self.effects);
        }
        let names: Vec<TopicName> = self.locks.keys().copied().collect();
        names.into_iter().for_each(|name| self.ask(name));
        self.settle();
    }

    /// From now on this process holds no lock and waits for none.
    pub(crate) fn fence(&mut self, why: Loss) {
        for (name, lock) in core::mem::take(&mut self.locks) {
            let requests = lock.holder.map(|(id, _)| id).into_iter().chain(lock.waiting.iter().map(|waiter| waiter.id));
            self.news.extend(requests.map(|id| (id, LockNews::Lost(why))));
            if lock.holder.is_some() || lock.asked {
                self.release(name);
            }
        }
    }

    /// This process is no longer in the view: it can request nothing.
    pub(crate) fn removed(&mut self) {
        self.fence(Loss::Removed);
        self.is_open = false;
        self.effects = Effects::default();
        if let Algorithm::Replicated(replicated) = &mut self.algorithm {
            *replicated = Replicated::default();
        }
    }

    // ---- other members --------------------------------------------------------------------------------------------

    /// Receives a link message of another member.
    pub(crate) fn receive(&mut self, from: Rank, message: &LinkMessage) {
        if message.number >= TOKEN_NUMBERS_END {
            return; // no honest member counts so far
        }
        if let Algorithm::Textbook(textbook) = &mut self.algorithm {
            textbook.receive(&self.seat, from, message, &mut self.effects);
            self.settle();
        }
    }

    /// Applies the effects of the algorithm.
    fn settle(&mut self) {
        while !self.effects.granted.is_empty() || !self.effects.busy.is_empty() {
            for (name, token) in core::mem::take(&mut self.effects.granted) {
                self.grant(name, token);
            }
            for name in core::mem::take(&mut self.effects.busy) {
                let Some(lock) = self.locks.get_mut(&name).filter(|lock| lock.asked) else { continue };
                lock.asked = false;
                if let Some(waiter) = lock.waiting.pop_front() {
                    let tries = waiter.patience == Patience::Try;
                    let news = if tries { LockNews::Busy } else { LockNews::Lost(Loss::TooMany) };
                    self.news.push((waiter.id, news));
                }
                self.ask(name);
            }
        }
    }

    fn grant(&mut self, name: TopicName, token: FencingToken) {
        let asked = self.locks.get_mut(&name).filter(|lock| lock.asked);
        match asked.and_then(|lock| Some((lock.waiting.pop_front()?, lock))) {
            Some((waiter, lock)) => {
                assert!(lock.holder.is_none(), "one request holds a lock: {name:?}");
                (lock.asked, lock.holder) = (false, Some((waiter.id, token)));
                self.entries += 1;
                self.news.push((waiter.id, LockNews::Granted(token)));
            }
            None => self.release(name),
        }
    }

    /// The link messages to be sent to other members.
    pub(crate) fn take_link_messages(&mut self) -> Vec<(Rank, LinkMessage)> {
        core::mem::take(&mut self.effects.messages)
    }

    /// The number of entries kept.
    pub(crate) fn held(&self) -> usize {
        let kept = match &self.algorithm {
            Algorithm::Replicated(replicated) => replicated.held(),
            Algorithm::Textbook(textbook) => textbook.held(),
        };
        kept + self.locks.values().map(|lock| 1 + lock.waiting.len()).sum::<usize>()
    }

    // ---- the total order ------------------------------------------------------------------------------------------

    /// The table that the total order drives, if that is the algorithm.
    pub(crate) fn replicated(&mut self) -> Option<&mut Replicated> {
        match &mut self.algorithm {
            Algorithm::Replicated(replicated) => Some(replicated),
            Algorithm::Textbook(_) => None,
        }
    }

    /// The same, read-only.
    #[inline]
    pub(crate) fn table(&self) -> Option<&Replicated> {
        match &self.algorithm {
            Algorithm::Replicated(replicated) => Some(replicated),
            Algorithm::Textbook(_) => None,
        }
    }

    /// A command has its place in the order, and came with this batch.
    pub(crate) fn deliver(&mut self, from: Rank, at: FencingToken, command: &Command, batch: u64) {
        let Some(by) = self.members.iter().copied().find(|member| member.rank == from) else { return };
        if let Algorithm::Replicated(replicated) = &mut self.algorithm {
            replicated.deliver(&self.seat, by, (at, batch), command, &mut self.effects);
            self.settle();
        }
    }

    /// A quorum holds all commands up to this batch: their grants may be reported.
    pub(crate) fn show_grants(&mut self, held: u64) {
        if let Algorithm::Replicated(replicated) = &mut self.algorithm {
            replicated.show(held, &mut self.effects);
            self.settle();
        }
    }
}
