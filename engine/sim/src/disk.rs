//! A member's disk: the shipped ledger over a disk in memory, which keeps what was synced, and after a crash any part
//! of the rest.
//!
//! Records are handed over, and stored in turn: a sync takes a while, and what is handed over meanwhile waits for the
//! next. A sync is carried out when it ends. If the process crashes before, it is carried out up to some call to the
//! disk, in which power fails.

use bourdon_log::sim_disk::{Crash, SimDisk};
use bourdon_log::{Error, Found, Ledger, Mark, Settings};
use bourdon_protocol::{Message, begins_view, ends_stored_state};
use bourdon_wire::{GroupId, Incarnation};
use fastrand::Rng;
use std::collections::VecDeque;
use std::fmt;

/// Segments so short that a run fills several, and that take the longest datagram.
const SEGMENT_BYTES: u64 = 32 << 10;
/// The owner that segments name.
const OWNER: u64 = 7;
/// What a flipped bit, a sector that was lost and a block that was lost damage.
const DAMAGED_BYTES: [usize; 3] = [1, 512, 4096];

/// What of the writes that were not synced survives a crash.
#[derive(Debug)]
pub(crate) enum Surviving<'r> {
    /// Any part of it.
    Drawn(&'r mut Rng),
    /// The part of this number: see [`Disk::crash_states`].
    Part(usize),
}

type Marks = fn(&[u8]) -> Mark;

fn mark(record: &[u8]) -> Mark {
    let is = |judge: fn(&[u8], GroupId) -> bool| judge(record, crate::plan::GROUP);
    if is(ends_stored_state) {
        Mark::State
    } else if is(begins_view) {
        Mark::Begins
    } else {
        Mark::Plain
    }
}

#[derive(Default)]
pub(crate) struct Disk {
    hardware: SimDisk,
    /// While its process runs.
    ledger: Option<Ledger<SimDisk, Marks>>,
    /// Handed over, and not stored.
    waiting: VecDeque<Box<[u8]>>,
    /// How many of them the sync that is under way covers.
    syncing: Option<usize>,
    /// How many records are stored, and how many the process knows to be.
    stored: u64,
    told: u64,
    /// A sync of an earlier life ends in nothing.
    pub(crate) lives: u32,
    mutant: Option<bourdon_log::Mutant>,
}

impl fmt::Debug for Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Disk").field("stored", &self.stored).field("lives", &self.lives).finish_non_exhaustive()
    }
}

impl Disk {
    /// Opens what is on it, for a process that starts. None if power failed meanwhile.
    pub(crate) fn open(&mut self, mutant: Option<bourdon_log::Mutant>) -> Option<Found> {
        let settings = Settings { segment_bytes: SEGMENT_BYTES, mutant, ..Settings::new(OWNER) };
        self.mutant = mutant;
        let opened = Ledger::open(self.hardware.clone(), settings, true, mark as Marks);
        if self.hardware.is_off() {
            return None;
        }
        let (ledger, found) = opened.expect("a disk that is on can be opened");
        (self.stored, self.told) = (found.records.len() as u64, found.records.len() as u64);
        self.ledger = Some(ledger);
        Some(found)
    }

    pub(crate) fn append(&mut self, record: &[u8]) {
        self.waiting.push_back(record.into());
    }

    /// How many records the process has handed over, or was given when it started.
    pub(crate) fn len(&self) -> u64 {
        self.stored + self.waiting.len() as u64
    }

    /// Begins a sync, if there is something to sync and none is under way.
    pub(crate) fn begin_sync(&mut self) -> bool {
        let begins = self.syncing.is_none() && !self.waiting.is_empty();
        if begins {
            self.syncing = Some(self.waiting.len());
        }
        begins
    }

    /// Stores what the sync covers. False if power fails meanwhile.
    pub(crate) fn end_sync(&mut self) -> bool {
        let count = self.syncing.take().unwrap_or(0);
        let is_stored = self.store(count).is_ok();
        assert!(is_stored || self.hardware.is_off(), "a disk that is on takes everything");
        is_stored
    }

    fn store(&mut self, count: usize) -> Result<(), Error> {
        let Some(ledger) = &mut self.ledger else { return Ok(()) };
        let records = self.waiting.drain(..count).collect::<Vec<_>>();
        records.iter().try_for_each(|record| ledger.append(0, record))?;
        ledger.sync()?;
        self.stored += count as u64;
        Ok(())
    }

    /// How many records are stored, if the process does not know it.
    pub(crate) fn news(&mut self) -> Option<u64> {
        let before = std::mem::replace(&mut self.told, self.stored);
        (before < self.stored).then_some(self.stored)
    }

    /// Power fails in this call to the disk, counted from the first.
    pub(crate) fn fail_power_at(&self, call: usize) {
        self.hardware.fail_power_at(call);
    }

    /// How many calls have changed something since the last crash.
    pub(crate) fn calls(&self) -> usize {
        self.hardware.calls()
    }

    /// How many states a crash at this instant may leave it in.
    pub(crate) fn crash_states(&self) -> usize {
        self.crashes().len()
    }

    fn crashes(&self) -> Vec<Crash> {
        let mut rng = Rng::with_seed(1);
        self.hardware.crashes(|| rng.bool())
    }

    /// Its process has crashed.
    pub(crate) fn crash(&mut self, surviving: Surviving<'_>) {
        self.hardware = match surviving {
            Surviving::Part(part) => {
                let crashes = self.crashes();
                self.hardware.after(&crashes[part % crashes.len()]) // of another member than the one counted, fewer
            }
            Surviving::Drawn(rng) => {
                if !self.waiting.is_empty() {
                    self.fail_power_at(self.hardware.calls() + rng.usize(0..4));
                    let _ = self.store(rng.usize(0..=self.waiting.len())); // it ends in the middle, or not
                }
                let (all, none) = (rng.u8(0..4) == 0, rng.u8(0..4) == 0);
                self.hardware.crash(|| all || !none && rng.bool())
            }
        };
        (self.ledger, self.syncing) = (None, None);
        self.waiting.clear();
        self.lives += 1;
    }

    /// Some of what was stored by now changes, or can't be read. The node marks its log when nothing comes for a while;
    /// damage in what it has not marked can't be distinguished from the end of a crash. Nor can damage in the last
    /// records and in the mark at once: the mark has a block of its own, and the segment with it is damaged in one
    /// place.
    pub(crate) fn damage(&mut self, rng: &mut Rng) -> bool {
        let Some(ledger) = self.ledger.as_mut().filter(|_| !self.hardware.is_off()) else { return false };
        if ledger.mark().is_err() {
            return false;
        }
        let mut names = self.hardware.names();
        names.retain(|name| name.ends_with(".segment") && !name.contains('/'));
        if names.is_empty() {
            return false;
        }
        let (marked, mut marked_hits) = (names.iter().max(), 0);
        for _ in 0..rng.usize(1..4) {
            let name = &names[rng.usize(..names.len())];
            marked_hits += usize::from(marked == Some(name));
            if marked == Some(name) && marked_hits > 1 {
                continue;
            }
            let (length, place) = (DAMAGED_BYTES[rng.usize(..DAMAGED_BYTES.len())], rng.u64(..) as usize);
            self.hardware.change(name, |bytes| {
                let written = bytes.iter().rposition(|byte| *byte != 0).unwrap_or(0);
                let start = place % (written + 1) / length * length;
                if length == 1 {
                    bytes[start] ^= 1 << (place % 8);
                } else {
                    let end = bytes.len().min(start + length);
                    bytes[start..end].fill(0);
                }
            });
        }
        true
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
