//! Replicated locks: a table that every member has, driven by the total order.
//!
//! The textbook algorithms establish their own order with extra messages; a group that has a total order does not need
//! them. A request and a release are messages in it. Every member applies the same commands and so keeps the same
//! table: for each lock its holder and the members that wait, in the order of their requests. No request is sent twice
//! and there is no coordinator. At a view change every member has the same table; it removes the members that are not
//! in the next view, and the next member in the queue has the lock.
//!
//! **Reported once uniform.** A grant is reported to its holder only when a quorum holds everything delivered up to it
//! ([`Replicated::show`]). At `reliable` a command is delivered as soon as it is in order; a
//! member that acted on it then and was cut off would have acted on a command that the others never received.
//!
//! Token's number: the order number of the command that made the request the first; if a view change did that, the last
//! number before the view, which no command of the view has. Invariants: a reported grant is known to every member that
//! goes on; at most one member of the view holds a lock; a joiner gets the table with its snapshot. Bounds:
//! [`REQUESTS_MAX`] requests in the table, [`RECENT_MAX`] past grants for inspection. Source: state machine
//! replication, Schneider (1990).

use super::{Effects, Seat};
use crate::control::coordination::FencingToken;
use crate::mutant::Mutant;
use crate::view::{Member, View};
use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::vec::Vec;
use bourdon_wire::{Epoch, Incarnation, Rank, TopicName, split_name};

/// Requests in the table: a snapshot carries them all, some hundred kilobytes at most.
const REQUESTS_MAX: usize = 4096;
/// Past grants kept for inspection.
const RECENT_MAX: usize = 256;

/// A command to the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Command {
    what: What,
    /// The request, by the name that its member gave it.
    id: u64,
    name: TopicName,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum What {
    Request = 0,
    Try = 1,
    Release = 2,
}

impl Command {
    /// Adds the lock that it requests, or removes the one that it gives back.
    pub(crate) fn note_in(&self, requests: &mut BTreeSet<TopicName>) {
        if self.what == What::Release {
            requests.remove(&self.name);
        } else {
            requests.insert(self.name);
        }
    }

    /// Encodes the command as a message's bytes.
    pub(crate) fn write(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(9 + self.name.wire_bytes());
        bytes.push(self.what as u8);
        bytes.extend_from_slice(&self.id.to_le_bytes());
        write_name(&self.name, &mut bytes);
        bytes
    }

    /// Decodes a command from a message's bytes.
    pub(crate) fn read(bytes: &[u8]) -> Option<Self> {
        let (what, rest) = bytes.split_first()?;
        let (id, rest) = rest.split_first_chunk()?;
        let what = match what {
            0 => What::Request,
            1 => What::Try,
            2 => What::Release,
            _ => return None,
        };
        let (name, _) = split_name(rest)?;
        Some(Self { what, id: u64::from_le_bytes(*id), name: TopicName::new(name).ok()? })
    }
}

fn write_name(name: &TopicName, bytes: &mut Vec<u8>) {
    let start = bytes.len();
    bytes.resize(start + name.wire_bytes(), 0);
    name.write(&mut bytes[start..]);
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Request {
    by: Member,
    id: u64,
}

/// A lock: the first request holds it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Queue {
    token: FencingToken,
    requests: VecDeque<Request>,
}

/// A grant that waits for a quorum to hold the commands that it depends on.
#[derive(Debug)]
struct Pending {
    name: TopicName,
    token: FencingToken,
    id: u64,
    /// The batch of commands that it came with.
    batch: u64,
}

/// A grant, as every member sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grant {
    /// The lock.
    pub name: TopicName,
    /// Its token.
    pub token: FencingToken,
    /// The new holder.
    pub holder: Member,
}

/// The table, and this member's part of it.
#[derive(Debug, Default)]
pub(crate) struct Replicated {
    table: BTreeMap<TopicName, Queue>,
    /// This member's requests, pending or granted, by name.
    own: BTreeMap<TopicName, u64>,
    next_id: u64,
    pending: VecDeque<Pending>,
    /// Commands to publish.
    commands: VecDeque<Command>,
    recent: VecDeque<Grant>,
    /// The table was taken over since this member last entered a view.
    is_inherited: bool,
}

impl Replicated {
    // ---- this member ----------------------------------------------------------------------------------------------

    pub(crate) fn request(&mut self, name: TopicName, tries: bool) {
        assert!(!self.own.contains_key(&name), "one request of a member at a time: {name:?}");
        self.next_id += 1;
        self.own.insert(name, self.next_id);
        let what = if tries { What::Try } else { What::Request };
        self.commands.push_back(Command { what, id: self.next_id, name });
    }

    pub(crate) fn release(&mut self, name: TopicName) {
        if let Some(id) = self.own.remove(&name) {
            self.commands.push_back(Command { what: What::Release, id, name });
        }
    }

    /// Whether there are commands to publish.
    #[inline]
    pub(crate) fn has_commands(&self) -> bool {
        !self.commands.is_empty()
    }

    /// The next command to publish; each is given once.
    pub(crate) fn pop_command(&mut self) -> Option<Command> {
        self.commands.pop_front()
    }

    pub(crate) fn ahead(&self, seat: &Seat, name: &TopicName) -> usize {
        let place = |queue: &Queue| queue.requests.iter().position(|request| request.by.rank == seat.own);
        self.table.get(name).and_then(place).unwrap_or(0)
    }

    // ---- the table ------------------------------------------------------------------------------------------------

    /// A command is delivered: `at` has its place in the order, and the number of its batch.
    pub(crate) fn deliver(
        &mut self,
        seat: &Seat,
        by: Member,
        (at, batch): (FencingToken, u64),
        command: &Command,
        effects: &mut Effects,
    ) {
        let Command { what, id, name } = *command;
        let at = (at, batch);
        let request = Request { by, id };
        let count: usize = self.table.values().map(|queue| queue.requests.len()).sum();
        if what == What::Release {
            let Some(queue) = self.table.get_mut(&name) else { return };
            let had = queue.requests.front().copied();
            queue.requests.retain(|waiting| *waiting != request);
            return self.advance(seat, name, had, at, effects);
        }
        let queue = self.table.entry(name).or_default();
        let is_free = queue.requests.is_empty();
        if what == What::Try && !is_free || count >= REQUESTS_MAX {
            let is_own = by.rank == seat.own && self.own.get(&name) == Some(&id);
            if is_free {
                self.table.remove(&name);
            }
            if is_own {
                self.own.remove(&name);
                effects.busy.push(name);
            }
            return;
        }
        assert!(count < REQUESTS_MAX, "{count} requests");
        queue.requests.push_back(request);
        if is_free {
            self.advance(seat, name, None, at, effects);
        }
    }

    /// The first request of a queue may have changed.
    fn advance(
        &mut self,
        seat: &Seat,
        name: TopicName,
        had: Option<Request>,
        (at, batch): (FencingToken, u64),
        effects: &mut Effects,
    ) {
        let Some(queue) = self.table.get_mut(&name) else { return };
        let Some(first) = queue.requests.front().copied() else {
            self.table.remove(&name);
            return;
        };
        if had == Some(first) {
            return;
        }
        queue.token = at;
        if self.recent.len() == RECENT_MAX {
            self.recent.pop_front();
        }
        self.recent.push_back(Grant { name, token: at, holder: first.by });
        assert!(self.recent.len() <= RECENT_MAX, "{} grants", self.recent.len());
        if first.by.rank != seat.own || self.own.get(&name) != Some(&first.id) {
            return;
        }
        if seat.mutant == Some(Mutant::GrantBeforeUniform) {
            effects.granted.push((name, at));
        } else {
            self.pending.push_back(Pending { name, token: at, id: first.id, batch });
        }
    }

    /// Whether a grant waits for a quorum to hold this batch.
    pub(crate) fn awaits(&self, batch: u64) -> bool {
        self.pending.back().is_some_and(|pending| pending.batch == batch)
    }

    /// Reports the grants that a quorum holds by now: it holds all commands up to this batch.
    pub(crate) fn show(&mut self, held: u64, effects: &mut Effects) {
        while self.pending.front().is_some_and(|pending| pending.batch <= held) {
            self.show_first(effects);
        }
    }

    fn show_first(&mut self, effects: &mut Effects) {
        let Some(pending) = self.pending.pop_front() else { return };
        if self.own.get(&pending.name) == Some(&pending.id) {
            effects.granted.push((pending.name, pending.token));
        }
    }

    /// A view begins, whose first message has the number `order`: all members have delivered the same commands before
    /// it.
    pub(crate) fn enter(&mut self, seat: &Seat, view: &View, order: u64, effects: &mut Effects) {
        if view.epoch <= Epoch(1) {
            self.table.clear();
        }
        // What the previous view delivered is in the cut: nothing can undo it.
        while !self.pending.is_empty() {
            self.show_first(effects);
        }
        let at = FencingToken { birth: view.birth, epoch: view.epoch, number: order.saturating_sub(1) };
        let names: Vec<TopicName> = self.table.keys().copied().collect();
        for name in names {
            let Some(queue) = self.table.get_mut(&name) else { continue };
            let had = queue.requests.front().copied();
            if seat.mutant != Some(Mutant::DeadKeepLocks) {
                queue.requests.retain(|request| view.contains(request.by));
            }
            self.advance(seat, name, had, (at, 0), effects);
        }
        while !self.pending.is_empty() {
            self.show_first(effects);
        }
    }

    /// Gives back what this member, by the table that it has taken over, requested before it was restarted: its
    /// application has forgotten it.
    pub(crate) fn release_inherited(&mut self, seat: &Seat, view: &View) {
        if !core::mem::take(&mut self.is_inherited) {
            return;
        }
        let own = view.members.iter().find(|member| member.rank == seat.own);
        for (name, queue) in &self.table {
            for request in queue.requests.iter().filter(|request| Some(&request.by) == own) {
                self.next_id = self.next_id.max(request.id);
                self.commands.push_back(Command { what: What::Release, id: request.id, name: *name });
            }
        }
    }

    /// The latest grants of all locks to all members, the newest last.
    pub(crate) fn recent(&self) -> impl Iterator<Item = &Grant> {
        self.recent.iter()
    }

    /// The number of entries kept.
    pub(crate) fn held(&self) -> usize {
        let requests: usize = self.table.values().map(|queue| 1 + queue.requests.len()).sum();
        requests + self.own.len() + self.pending.len() + self.commands.len()
    }

    // ---- snapshots ------------------------------------------------------------------------------------------------

    /// Encodes the table as bytes, for a joiner.
    pub(crate) fn write(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let word = |bytes: &mut Vec<u8>, word: u64| bytes.extend_from_slice(&word.to_le_bytes());
        for (name, queue) in &self.table {
            write_name(name, &mut bytes);
            let FencingToken { birth, epoch, number } = queue.token;
            [birth, epoch.0, number, queue.requests.len() as u64].into_iter().for_each(|value| word(&mut bytes, value));
            for request in &queue.requests {
                let by = u64::from(request.by.rank.0) << 32 | u64::from(request.by.incarnation.0);
                [by, request.id].into_iter().for_each(|value| word(&mut bytes, value));
            }
        }
        bytes
    }

    /// Starts with another member's table, if it is valid.
    pub(crate) fn take_over(&mut self, bytes: &[u8]) {
        let (table, recent) = (Self::read(bytes).unwrap_or_default(), core::mem::take(&mut self.recent));
        *self = Self { table, next_id: self.next_id, recent, is_inherited: true, ..Self::default() };
    }

    /// Decodes a table from bytes.
    pub(crate) fn read(mut bytes: &[u8]) -> Option<BTreeMap<TopicName, Queue>> {
        let mut table = BTreeMap::new();
        while !bytes.is_empty() {
            let (name, queue, rest) = read_queue(bytes)?;
            table.insert(name, queue);
            bytes = rest;
        }
        Some(table)
    }
}

fn read_queue(bytes: &[u8]) -> Option<(TopicName, Queue, &[u8])> {
    let (name, mut rest) = split_name(bytes)?;
    let name = TopicName::new(name).ok()?;
    let mut word = || {
        let (word, after) = rest.split_first_chunk()?;
        rest = after;
        Some(u64::from_le_bytes(*word))
    };
    let (birth, epoch, number, count) = (word()?, word()?, word()?, word()?);
    let mut requests = VecDeque::new();
    for _ in 0..count.min(REQUESTS_MAX as u64) {
        let (by, id) = (word()?, word()?);
        let by = Member { rank: Rank((by >> 32) as u16), incarnation: Incarnation(by as u32) };
        requests.push_back(Request { by, id });
    }
    Some((name, Queue { token: FencingToken { birth, epoch: Epoch(epoch), number }, requests }, rest))
}
