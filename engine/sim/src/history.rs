//! What happened, as recorded by an outside observer: the only thing that the checkers judge by.
//!
//! A message has a name: its sender's rank and its number. But a sender that was removed may have used numbers for
//! messages that were never delivered at any other process, and its next incarnation uses them again. So what was
//! published is kept by rank, incarnation and number, and a delivery is matched with it by its bytes.
//!
//! The deliveries to one application are a *lineage*: it begins with nothing, or with a snapshot, and ends when the
//! process ends or takes another snapshot.

use crate::disk::NO_INCARNATION;
use crate::names::name_of;
use bourdon_protocol::{Event, Member, Message, Process};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Range, RangeInclusive};
use std::rc::Rc;

/// A client's message at the moment the client takes it: some member publishes it then or later.
#[derive(Clone, Debug)]
pub(crate) struct Sent {
    pub(crate) client: (u64, u64),
    pub(crate) topic: u16,
    pub(crate) payload: Rc<[u8]>,
    pub(crate) at_ns: u64,
}

/// The index of a message, in the order of publishing.
pub(crate) type Id = u32;

/// A published message.
#[derive(Clone, Debug)]
pub(crate) struct Published {
    pub(crate) payload: Rc<[u8]>,
    pub(crate) topic: u16,
    /// When, by the world's clock.
    pub(crate) at_ns: u64,
    /// The publisher: its rank and incarnation; unknown for a client's message.
    pub(crate) publisher: Option<(u16, u32)>,
    /// Its number there; barriers' messages have a count of their own.
    pub(crate) sequence: u64,
    /// The publisher's lineage, and how many messages it had delivered by then.
    pub(crate) after: Option<(usize, usize)>,
    /// The view in which it was first sent, and how far its publisher's clock might be off by its own account.
    pub(crate) sent: Option<(u64, u64)>,
    /// How many barriers were complete at its publisher.
    pub(crate) phase: Option<u64>,
    /// The client and its number for it, for a client's message.
    pub(crate) client: Option<(u64, u64)>,
    /// Whether it is a barrier's own message.
    pub(crate) at_barrier: bool,
    /// The generations that it may be delivered in.
    pub(crate) generations: RangeInclusive<u32>,
}

/// Messages of one sender given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Gap {
    pub(crate) sender: u16,
    pub(crate) from: u64,
    pub(crate) to: u64,
}

/// What one delivered message takes in a snapshot: id, sender, number, and whether it is a barrier's.
const SHOWN_BYTES: usize = 4 + 2 + 8 + 1;

/// A message as it was delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Delivered {
    pub(crate) id: Id,
    pub(crate) sender: u16,
    /// Its number; at a barrier that of the sender's next message.
    pub(crate) sequence: u64,
    /// Whether it is a barrier's own message, which has no number.
    pub(crate) at_barrier: bool,
}

/// The deliveries to one application.
#[derive(Clone, Debug, Default)]
pub(crate) struct Lineage {
    pub(crate) process: usize,
    /// How many restarts of the whole group came before it.
    pub(crate) generation: u32,
    /// Whether it is a member's: everything is delivered to it.
    pub(crate) member: bool,
    /// Whether it began with the group or a snapshot and has lost nothing since.
    pub(crate) whole: bool,
    pub(crate) delivered: Vec<Delivered>,
    /// In real-time order: the messages that were not flagged as late, each with its epoch.
    pub(crate) timely: Vec<(u64, Id)>,
    has: Vec<bool>,
    /// By sender: the lowest number that may come.
    pub(crate) next: Vec<u64>,
    /// The lowest order number that may come.
    pub(crate) order: u64,
    /// Barriers complete.
    pub(crate) phase: u64,
    /// The view it is in; none before the first and after a removal.
    pub(crate) epoch: Option<u64>,
    /// The last view that it was in.
    pub(crate) last_epoch: u64,
    pub(crate) gaps: Vec<Gap>,
    /// The view in which it began again with a state of its own: it gets the rest of that view at its end.
    pub(crate) returned_in: Option<u64>,
    /// When it had heard every member.
    pub(crate) formed_at_ns: Option<u64>,
}

impl Lineage {
    pub(crate) fn has(&self, id: Id) -> bool {
        self.has.get(id as usize).copied().unwrap_or(false)
    }

    fn set(&mut self, id: Id, has: bool) {
        if self.has.len() <= id as usize {
            self.has.resize(id as usize + 1, false);
        }
        self.has[id as usize] = has;
    }

    pub(crate) fn gave_up(&self, sender: u16, sequence: u64) -> bool {
        self.gaps.iter().any(|gap| gap.sender == sender && (gap.from..gap.to).contains(&sequence))
    }

    /// What was delivered, or given up, and is void now.
    pub(crate) fn retract(&mut self, void: Gap) {
        // A barrier's own message has no number: the cut holds its marker, because every member had reached it.
        let is_void = |shown: &Delivered| {
            let numbered = shown.sender == void.sender && !shown.at_barrier;
            numbered && (void.from..void.to).contains(&shown.sequence)
        };
        for shown in self.delivered.iter().filter(|shown| is_void(shown)) {
            self.has[shown.id as usize] = false;
        }
        self.delivered.retain(|shown| !is_void(shown));
        // Where nothing before it was delivered, it began beyond the cut, and the next view goes on before that.
        let before = self.delivered.iter().any(|shown| shown.sender == void.sender && shown.sequence < void.from);
        self.next[usize::from(void.sender)] = if before { void.from } else { 0 };
        let parts = |gap: &Gap| {
            let (before, after) =
                (Gap { to: gap.to.min(void.from), ..*gap }, Gap { from: gap.from.max(void.to), ..*gap });
            if gap.sender == void.sender { [before, after] } else { [*gap, Gap { to: gap.from, ..*gap }] }
        };
        self.gaps = self.gaps.iter().flat_map(parts).filter(|gap| gap.from < gap.to).collect();
    }

    /// An application that goes on from a state of its own comes to a view or a barrier again.
    pub(crate) fn comes_to(&mut self, event: &Event) {
        match event {
            Event::View { epoch, .. } => self.epoch = Some(epoch.0),
            Event::Synced { phase, .. } => self.phase = *phase,
            _ => {}
        }
    }

    /// The application's state, as bytes for another application.
    pub(crate) fn snapshot(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let words = [self.order, self.phase, self.next.len() as u64];
        words.iter().chain(&self.next).for_each(|word| bytes.extend_from_slice(&word.to_le_bytes()));
        for shown in &self.delivered {
            bytes.extend_from_slice(&shown.id.to_le_bytes());
            bytes.extend_from_slice(&shown.sender.to_le_bytes());
            bytes.extend_from_slice(&shown.sequence.to_le_bytes());
            bytes.push(u8::from(shown.at_barrier));
        }
        bytes
    }

    /// Begins with a snapshot; `None` if it can't be read.
    pub(crate) fn resume(process: usize, member: bool, bytes: &[u8]) -> Option<Self> {
        let mut rest = bytes;
        let mut word = || {
            let (word, after) = rest.split_first_chunk()?;
            rest = after;
            Some(u64::from_le_bytes(*word))
        };
        let (order, phase, senders) = (word()?, word()?, word()?);
        let next = (0..senders).map(|_| word()).collect::<Option<Vec<_>>>()?;
        let mut lineage = Self { process, member, whole: true, next, order, phase, ..Self::default() };
        for entry in rest.chunks(SHOWN_BYTES) {
            let (id, entry) = entry.split_first_chunk()?;
            let (sender, entry) = entry.split_first_chunk()?;
            let (sequence, entry) = entry.split_first_chunk()?;
            let at_barrier = *entry.first()? != 0;
            let id = Id::from_le_bytes(*id);
            lineage.set(id, true);
            let (sender, sequence) = (u16::from_le_bytes(*sender), u64::from_le_bytes(*sequence));
            lineage.delivered.push(Delivered { id, sender, sequence, at_barrier });
        }
        Some(lineage)
    }
}

/// All messages of an incarnation below `delivered` were delivered, as its process reported.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settled {
    pub(crate) rank: u16,
    pub(crate) incarnation: u32,
    pub(crate) delivered: u64,
}

/// The whole run.
#[derive(Debug, Default)]
pub(crate) struct History {
    pub(crate) messages: Vec<Published>,
    /// By sender and number: the incarnations that used it, and for what.
    names: Vec<BTreeMap<u64, Vec<(u32, Id)>>>,
    clients: BTreeMap<(u64, u64), Id>,
    barriers: BTreeMap<Rc<[u8]>, Id>,
    pub(crate) lineages: Vec<Lineage>,
    pub(crate) settled: Vec<Settled>,
    /// By member and incarnation: below which of its messages it reported all as acknowledged, and in which instance.
    acknowledged: BTreeMap<(u16, u32), (u64, u64)>,
    pub(crate) delivered: u64,
    /// Clients' messages that an earlier generation took: after a restart its members delivered them, or its answer to
    /// the client arrived. No later generation owes them.
    pub(crate) taken_earlier: BTreeSet<Id>,
    /// How many restarts of the whole group there have been.
    pub(crate) generation: u32,
}

impl History {
    pub(crate) fn new(members: u16) -> Self {
        Self { names: vec![BTreeMap::new(); usize::from(members)], ..Self::default() }
    }

    /// A member reports which of its own messages are acknowledged.
    pub(crate) fn note_acknowledged(&mut self, process: &mut Process) {
        if let (Some(rank), Some(below)) = (process.config().rank(), process.own_acknowledged()) {
            let reported = self.acknowledged.entry((rank.0, process.incarnation().0)).or_default();
            *reported = (below.0.max(reported.0), process.view().instance.0);
        }
    }

    /// Whether a member reported in this instance that this message of its own is acknowledged.
    pub(crate) fn is_acknowledged(&self, message: &Published, instance: u64) -> bool {
        let reported = message.publisher.and_then(|publisher| self.acknowledged.get(&publisher));
        reported.is_some_and(|(below, of)| message.sequence < *below && *of == instance && !message.at_barrier)
    }

    /// After a restart a client retransmits what it has not seen acknowledged, to the group as it is then.
    pub(crate) fn free_untaken(&mut self, taken: impl Iterator<Item = (u64, u64)>) {
        for (client, below) in taken {
            let untaken = self.clients.range((client, below)..(client + 1, 0));
            for (_, id) in untaken {
                let message = &mut self.messages[*id as usize];
                message.generations = *message.generations.start()..=self.generation;
            }
        }
    }

    /// A client hears after a restart that an earlier generation took these.
    pub(crate) fn take_earlier(&mut self, client: u64, sequences: Range<u64>) {
        let taken = sequences.filter_map(|sequence| self.clients.get(&(client, sequence)));
        self.taken_earlier.extend(taken);
    }

    /// Adds an application to which nothing has been delivered. Returns its index.
    pub(crate) fn begin(&mut self, process: usize, member: bool) -> usize {
        let next = vec![0; self.names.len()];
        let generation = self.generation;
        self.enter(Lineage { process, member, generation, whole: member, next, ..Lineage::default() })
    }

    pub(crate) fn enter(&mut self, lineage: Lineage) -> usize {
        self.lineages.push(lineage);
        self.lineages.len() - 1
    }

    /// Records a message. Returns whether its name was free.
    pub(crate) fn publish(&mut self, mut message: Published) -> bool {
        // A client may still be connected to an earlier instance, whose frozen members resumed.
        let first = if message.client.is_some() { 0 } else { self.generation };
        message.generations = first..=self.generation;
        let id = self.messages.len() as Id;
        let mut free = true;
        if let Some(client) = message.client {
            free = self.clients.insert(client, id).is_none();
        } else if message.at_barrier {
            free = self.barriers.insert(Rc::clone(&message.payload), id).is_none();
        } else if let Some((rank, incarnation)) = message.publisher {
            let incarnations = self.names[usize::from(rank)].entry(message.sequence).or_default();
            free = incarnations.iter().all(|(other, _)| *other != incarnation);
            incarnations.push((incarnation, id));
        }
        self.messages.push(message);
        free
    }

    /// A member comes back with what it had stored: what it had published and was not acknowledged may be
    /// lost with its process, and its names may be used again.
    pub(crate) fn abandon(&mut self, member: Member) {
        let publisher = (member.rank.0, member.incarnation.0);
        let (below, _) = self.acknowledged.get(&publisher).copied().unwrap_or_default();
        let lost = |message: &Published| {
            message.publisher == Some(publisher) && (message.at_barrier || message.sequence >= below)
        };
        for message in self.messages.iter_mut().filter(|message| lost(message)) {
            message.publisher = Some((publisher.0, NO_INCARNATION.0));
        }
        for (_, incarnations) in self.names[member.rank.index()].range_mut(below..) {
            for (incarnation, _) in incarnations.iter_mut().filter(|(incarnation, _)| *incarnation == publisher.1) {
                *incarnation = NO_INCARNATION.0;
            }
        }
    }

    /// Finds the message of a delivery.
    pub(crate) fn resolve(&self, delivery: &Message<'_>) -> Result<Id, String> {
        let same = |id: &Id| {
            let message = &self.messages[*id as usize];
            let is_its_topic = message.topic == delivery.topic.0 && delivery.name == name_of(message.topic);
            is_its_topic && *message.payload == *delivery.payload
        };
        let candidates: Vec<Id> = if let Some(tag) = delivery.client {
            self.clients.get(&(tag.client().0, tag.sequence().0)).copied().into_iter().collect()
        } else if delivery.barrier.is_some() {
            self.barriers.get(delivery.payload).copied().into_iter().collect()
        } else {
            let of_sender = self.names.get(delivery.sender.index());
            let incarnations = of_sender.and_then(|names| names.get(&delivery.sequence.0));
            incarnations.into_iter().flatten().map(|(_, id)| *id).collect()
        };
        // The latest incarnation's message: an earlier incarnation's differs in its bytes, or was never delivered.
        match candidates.iter().rev().find(|id| same(id)) {
            Some(id) => Ok(*id),
            None if candidates.is_empty() => Err("which no process published".into()),
            None => {
                Err(format!("with other bytes or under another topic or name: {} bytes came", delivery.payload.len()))
            }
        }
    }

    /// Records a delivery; the caller has made sure that it is new.
    pub(crate) fn deliver(&mut self, lineage: usize, shown: Delivered) {
        let lineage = &mut self.lineages[lineage];
        lineage.set(shown.id, true);
        lineage.delivered.push(shown);
        self.delivered += 1;
    }

    /// A message in words.
    pub(crate) fn name(&self, id: Id) -> String {
        let message = &self.messages[id as usize];
        match (message.publisher, message.client) {
            (Some((rank, incarnation)), _) if message.at_barrier => {
                format!("barrier message {} of {rank}/{incarnation}", message.sequence)
            }
            (Some((rank, incarnation)), _) => format!("{rank}/{incarnation}:{}", message.sequence),
            (None, client) => format!("client message {client:?}"),
        }
    }
}
