//! Discovery: which instances of the group are alive, as heard by a process that is not one of their members.
//!
//! A heartbeat that names a view may come from a process that was frozen when the group of that time ended and has
//! resumed since, or may be a recording. A process that trusted it would look for members that no longer exist. So
//! heartbeats of another instance change no state of the group. This file records them by instance and by rank. An
//! instance is *alive with a majority* while more than half of the members of one of its views announce the same epoch
//! and the same members within [`FRESH_NS`]. Of the instances that are alive, the one with the highest birth is the
//! newest. A process requests a view only from that instance, and accepts only an answer that repeats its own nonce
//! (`process/discovery.rs`).
//!
//! Invariants: at most [`INSTANCES_MAX`] instances are recorded; a new instance never replaces one that is alive. A
//! single process, whatever it announces, makes no view of two or more members alive.

use crate::view::{bit, ranks};
use alloc::vec::Vec;
use bourdon_wire::{Epoch, InstanceId, Instant, Rank};

/// Today's instance, yesterday's resumed, and two forged: more than these are never alive at a time.
pub const INSTANCES_MAX: usize = 4;
/// A heartbeat counts for so long: members send one every 10 ms, every 100 ms at the worst, and a stalled path delays
/// some by hundreds.
pub const FRESH_NS: u64 = 1_000_000_000;

/// The last announcement of one member.
#[derive(Clone, Copy, Debug)]
struct Sighting {
    rank: Rank,
    epoch: Epoch,
    members: u64,
    heard_from: u64,
    at: Instant,
}

impl Sighting {
    fn hears_majority(&self) -> bool {
        2 * (self.heard_from & self.members).count_ones() > self.members.count_ones()
    }
}

#[derive(Debug)]
struct Known {
    instance: InstanceId,
    birth: u64,
    /// At most one for each rank.
    sightings: Vec<Sighting>,
}

/// What a heartbeat of a process in a view announces of its instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Announcement {
    /// The instance.
    pub instance: InstanceId,
    /// Its birth.
    pub birth: u64,
    /// The sender's view.
    pub epoch: Epoch,
    /// The members of that view.
    pub members: u64,
    /// The members of it that the sender hears.
    pub heard_from: u64,
}

/// The instances heard of recently.
#[derive(Debug, Default)]
pub struct Discovery {
    known: Vec<Known>,
}

impl Known {
    fn is_alive(&self, now: Instant) -> bool {
        let fresh = |sighting: &&Sighting| now.since(sighting.at) < FRESH_NS;
        self.sightings.iter().filter(fresh).any(|one| {
            let agrees = |other: &&Sighting| (other.epoch, other.members) == (one.epoch, one.members);
            let in_view = |other: &&Sighting| ranks(one.members).any(|rank| rank == other.rank);
            let count = self.sightings.iter().filter(fresh).filter(agrees).filter(in_view).count();
            2 * count > one.members.count_ones() as usize
        })
    }

    fn heard_at(&self) -> Instant {
        self.sightings.iter().map(|sighting| sighting.at).max().unwrap_or_default()
    }
}

impl Discovery {
    /// Notes what a member announces.
    pub fn hear(&mut self, now: Instant, rank: Rank, announced: &Announcement) {
        let Announcement { instance, birth, epoch, members, heard_from } = *announced;
        if instance == InstanceId::NONE || rank > Rank::MAX {
            return;
        }
        let is_it = |known: &Known| (known.instance, known.birth) == (instance, birth);
        let index = self.known.iter().position(is_it).or_else(|| self.make_room(now, instance, birth));
        let Some(known) = index.and_then(|index| self.known.get_mut(index)) else { return };
        known.sightings.retain(|sighting| sighting.rank != rank);
        known.sightings.push(Sighting { rank, epoch, members, heard_from, at: now });
        debug_assert!(known.sightings.len() <= Rank::MAX.index() + 1, "at most one for each rank");
        debug_assert!(self.known.len() <= INSTANCES_MAX, "{} instances", self.known.len());
    }

    /// A place for another instance, if there is one: the oldest instance that is not alive is evicted.
    fn make_room(&mut self, now: Instant, instance: InstanceId, birth: u64) -> Option<usize> {
        let fresh = Known { instance, birth, sightings: Vec::new() };
        if self.known.len() < INSTANCES_MAX {
            self.known.push(fresh);
            return Some(self.known.len() - 1);
        }
        let dead = self.known.iter().enumerate().filter(|(_, known)| !known.is_alive(now));
        let (index, _) = dead.min_by_key(|(_, known)| known.heard_at())?;
        assert!(!self.known[index].is_alive(now), "an instance that is alive keeps its place");
        self.known[index] = fresh;
        Some(index)
    }

    /// Whether a majority of a view of this instance is heard.
    pub fn is_alive(&self, now: Instant, instance: InstanceId, birth: u64) -> bool {
        self.known.iter().any(|known| (known.instance, known.birth) == (instance, birth) && known.is_alive(now))
    }

    /// The ranks heard lately in views of other instances than `own` of which they hear no majority, as bits.
    pub fn without_majority(&self, now: Instant, own: InstanceId) -> u64 {
        let lost = self.known.iter().filter(|known| known.instance != own && !known.is_alive(now));
        let fresh = lost.flat_map(|known| &known.sightings).filter(|sighting| now.since(sighting.at) < FRESH_NS);
        let cut_off = fresh.filter(|sighting| !sighting.hears_majority());
        cut_off.fold(0, |bits, sighting| bits | bit(sighting.rank))
    }

    /// The ranks that announced within this time that they are in a view, as bits.
    pub fn in_views(&self, now: Instant, within_ns: u64) -> u64 {
        let sightings = self.known.iter().flat_map(|known| &known.sightings);
        let lately = sightings.filter(|sighting| now.since(sighting.at) < within_ns);
        lately.fold(0, |bits, sighting| bits | bit(sighting.rank))
    }

    /// Whether a member announced lately that it hears a member of this rank in its view.
    pub fn hears(&self, now: Instant, rank: Rank) -> bool {
        let mut sightings = self.known.iter().flat_map(|known| &known.sightings);
        sightings.any(|sighting| {
            now.since(sighting.at) < FRESH_NS && sighting.rank != rank && sighting.heard_from & bit(rank) != 0
        })
    }

    /// The instance with the highest birth of those alive with a majority.
    pub fn newest(&self, now: Instant) -> Option<(InstanceId, u64)> {
        let alive = self.known.iter().filter(|known| known.is_alive(now));
        alive.map(|known| (known.instance, known.birth)).max_by_key(|(instance, birth)| (*birth, *instance))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn announced(instance: u64, epoch: u64, members: u64) -> Announcement {
        Announcement {
            instance: InstanceId(instance),
            birth: 10 * instance,
            epoch: Epoch(epoch),
            members,
            heard_from: 0b10,
        }
    }

    #[test]
    fn a_majority_of_one_view_makes_an_instance_alive_and_silence_ends_it() {
        let mut discovery = Discovery::default();
        discovery.hear(Instant(0), Rank(0), &announced(1, 1, 0b111));
        discovery.hear(Instant(1), Rank(0), &announced(1, 1, 0b111));
        assert_eq!(discovery.newest(Instant(1)), None, "a single member of three, heard twice");
        discovery.hear(Instant(1), Rank(1), &announced(1, 2, 0b111));
        assert_eq!(discovery.newest(Instant(1)), None, "of another epoch");
        assert_eq!(discovery.without_majority(Instant(1), InstanceId::NONE), 0b11);
        assert_eq!(discovery.without_majority(Instant(1), InstanceId(1)), 0, "the own instance");
        assert!(discovery.hears(Instant(1), Rank(1)) && !discovery.hears(Instant(1), Rank(2)));
        let hears_both = Announcement { heard_from: 0b11, ..announced(1, 1, 0b111) };
        discovery.hear(Instant(1), Rank(0), &hears_both);
        assert_eq!(discovery.without_majority(Instant(1), InstanceId::NONE), 0b10, "rank 0 hears a majority");
        discovery.hear(Instant(2), Rank(3), &announced(1, 1, 0b111));
        assert_eq!(discovery.newest(Instant(2)), None, "no member");
        discovery.hear(Instant(2), Rank(2), &announced(1, 1, 0b111));
        assert_eq!(discovery.newest(Instant(2)), Some((InstanceId(1), 10)));
        assert_eq!(discovery.without_majority(Instant(2), InstanceId::NONE), 0);
        assert!(discovery.is_alive(Instant(2), InstanceId(1), 10) && !discovery.is_alive(Instant(2), InstanceId(1), 9));
        assert_eq!(discovery.newest(Instant(SECOND + 1)), None);
        assert_eq!(discovery.without_majority(Instant(SECOND + 2), InstanceId::NONE), 0, "no longer heard");
    }

    #[test]
    fn the_newest_is_the_one_with_the_highest_birth_and_the_dead_make_room() {
        let mut discovery = Discovery::default();
        for instance in 1..=3 {
            discovery.hear(Instant(instance), Rank(0), &announced(instance, 1, 1));
        }
        assert_eq!(discovery.newest(Instant(3)), Some((InstanceId(3), 30)));
        for forged in 100..200 {
            discovery.hear(Instant(4), Rank(0), &announced(forged, 1, 0b11));
        }
        assert_eq!(discovery.newest(Instant(4)), Some((InstanceId(3), 30)), "a flood of dead instances");
        assert_eq!(discovery.known.len(), INSTANCES_MAX);
    }
}
