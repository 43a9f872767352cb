//! A member's disk: it keeps what was synced, and after a crash perhaps some of what came behind.
//!
//! Records are appended, and synced in turn: a sync takes a while, and what is appended meanwhile waits for the next
//! sync. A crash leaves all that was synced and a part of the rest, from its beginning on: a log that finds its tail
//! torn cuts it there.

use bourdon_protocol::Message;
use bourdon_wire::{Datagram, Incarnation, Kind};
use fastrand::Rng;

#[derive(Debug, Default)]
pub(crate) struct Disk {
    records: Vec<Box<[u8]>>,
    /// How many are synced, how many the sync that is under way covers, and how many the process knows to be synced.
    synced: usize,
    syncing: Option<usize>,
    told: usize,
    /// A sync of an earlier life ends in nothing.
    pub(crate) lives: u32,
}

impl Disk {
    pub(crate) fn append(&mut self, record: &[u8]) {
        self.records.push(record.into());
    }

    /// How many records there are.
    pub(crate) fn len(&self) -> u64 {
        self.records.len() as u64
    }

    /// Begins a sync, if there is something to sync and none is under way.
    pub(crate) fn begin_sync(&mut self) -> bool {
        let begins = self.syncing.is_none() && self.synced < self.records.len();
        if begins {
            self.syncing = Some(self.records.len());
        }
        begins
    }

    pub(crate) fn end_sync(&mut self) {
        self.synced = self.syncing.take().unwrap_or(self.synced);
    }

    /// How many records are synced, if the process does not know it.
    pub(crate) fn news(&mut self) -> Option<u64> {
        let before = std::mem::replace(&mut self.told, self.synced);
        (before < self.synced).then_some(self.synced as u64)
    }

    /// Its process has crashed: what was not synced may be gone. Some records of earlier views are discarded as well.
    pub(crate) fn crash(&mut self, rng: &mut Rng) {
        self.records.truncate(rng.usize(self.synced..=self.records.len()));
        let begins = |record: &[u8]| {
            let datagram = Datagram::parse(record, crate::plan::GROUP).ok();
            datagram.is_some_and(|datagram| datagram.frames().any(|frame| frame.kind() == Some(Kind::View)))
        };
        let views = (0..self.records.len()).filter(|index| begins(&self.records[*index])).collect::<Vec<_>>();
        // The decision that began the view stands before it.
        let kept = views.iter().rev().nth(rng.usize(1..4)).copied().unwrap_or(0);
        self.records.drain(..kept.saturating_sub(1));
        (self.synced, self.syncing, self.told) = (self.records.len(), None, self.records.len());
        self.lives += 1;
    }

    pub(crate) fn records(&self) -> &[Box<[u8]>] {
        &self.records
    }
}

/// What an application has of the view in which its process crashed.
#[derive(Clone, Debug)]
pub(crate) struct Had {
    pub(crate) epoch: u64,
    /// The process that came back.
    pub(crate) incarnation: Incarnation,
    /// By sender: the next message.
    pub(crate) next: Vec<u64>,
    pub(crate) phase: u64,
}

impl Had {
    pub(crate) fn has(&self, delivery: &Message<'_>) -> bool {
        let is_had = match delivery.barrier {
            Some(phase) => phase < self.phase,
            None => self.next.get(delivery.sender.index()).is_some_and(|next| delivery.sequence.0 < *next),
        };
        delivery.epoch.0 < self.epoch || delivery.epoch.0 == self.epoch && is_had
    }
}

/// No incarnation of any process: see [`crate::history::History::abandon`].
pub(crate) const NO_INCARNATION: Incarnation = Incarnation(0);
