//! Plausibility: the largest number in a frame that an honest process can have sent.
//!
//! A checksum shows that a frame came as it was sent, and nothing about its sender. Without further checks a single
//! forged frame stops a group. A ballot with the largest number leaves no higher one to any honest member. Members
//! fetch for ever a cut whose end no stream will reach. An order run for messages that do not exist blocks everything
//! behind it. Observers follow a view whose epoch is far ahead, and then accept no other view. A fixed limit on the
//! size of the numbers does not help, because the largest number within the limit does the same harm.
//!
//! What an honest process can know limits what it can send, and the receiver knows the same limits:
//!
//! - A ballot's round rises by one with each ballot, and a proposer begins one only after a takeover's time or more. So
//!   it is bounded by the time since the view began.
//! - A member's stream goes at most a window beyond what each member of the view has delivered, so a cut ends within
//!   one log of the end of the stream here; and no process holds more of this process's own stream than this process
//!   has sent. An observer has no part in that window; there the time since the sender's last heartbeat is the bound.
//! - An order run names messages that the sequencer holds, which the same window bounds.
//! - A view is announced by the heartbeats of its members.
//!
//! A frame that passes need not be true: it is only what a member might send. Only keys distinguish members from other
//! processes.
//!
//! Invariant: an honest process's frames are never refused here. Bounds are named below, each with its reason.

use alloc::vec;
use alloc::vec::Vec;
use bourdon_wire::{DatagramNumber, Epoch, Incarnation, Instant, Rank};

use super::view_change::Ballot;
use crate::view::{Member, View};

/// Rounds allowed at once: so far members that entered the view earlier may be ahead.
const ROUNDS_AT_ONCE: u64 = 1024;
/// Rounds for each takeover's time: one from each member of the largest view.
const ROUNDS_PER_TAKEOVER: u64 = Rank::MAX.0 as u64 + 1;
/// Datagrams that one member can send in a microsecond, with room to spare: the smallest take 64 ns on a link of 10
/// Gb/s.
const DATAGRAMS_PER_US: u64 = 100;
/// Epochs that a view may be ahead of what its members' heartbeats announced: the heartbeats may be a few changes old.
const EPOCHS_AHEAD: u64 = 4;
/// A heartbeat counts as an announcement for so long: ten of the slowest, so that loss does not silence a member.
const ANNOUNCED_NS: u64 = 1_000_000_000;

// A ballot's round and a rank share its 64 bits; a process hears the sender of a view in the time of its heartbeats.
const _: () = assert!(Rank::MAX.0 as u64 <= u16::MAX as u64 && ROUNDS_PER_TAKEOVER == Rank::MAX.0 as u64 + 1);

/// Whether a ballot can have been reached `elapsed_ns` after the view began.
pub(crate) fn is_ballot_plausible(ballot: Ballot, elapsed_ns: u64, takeover_after_ns: u64) -> bool {
    let takeovers = elapsed_ns / takeover_after_ns.max(1);
    ballot.0 >> 16 <= ROUNDS_AT_ONCE + takeovers.saturating_mul(ROUNDS_PER_TAKEOVER)
}

/// How far a stream can have come, for an observer, if its sender announced it up to `announced` so long ago.
pub(crate) fn observed_end(announced: DatagramNumber, slots: u64, elapsed_ns: u64) -> DatagramNumber {
    let since = (elapsed_ns / 1_000).saturating_mul(DATAGRAMS_PER_US);
    DatagramNumber(announced.0.saturating_add(slots).saturating_add(since))
}

/// What one rank's heartbeats announced last.
#[derive(Clone, Copy, Debug, Default)]
struct Announced {
    /// As a member of a view: its incarnation, the epoch, and when.
    formed: Option<(Incarnation, Epoch, Instant)>,
    /// In the current view: the end of its stream, and when.
    stream: Option<(DatagramNumber, Instant)>,
}

/// What the heartbeats of all ranks announced.
#[derive(Debug)]
pub(crate) struct Announcements {
    ranks: Vec<Announced>,
    /// When the current view began here.
    pub(crate) view_since: Instant,
}

impl Announcements {
    /// No announcements yet.
    pub(crate) fn new(now: Instant, ranks: u16) -> Self {
        Self { ranks: vec![Announced::default(); usize::from(ranks)], view_since: now }
    }

    /// A view begins here: its streams begin again at 0.
    pub(crate) fn enter(&mut self, now: Instant) {
        assert!(self.view_since <= now, "time does not go back: a view since {:?} at {now:?}", self.view_since);
        self.view_since = now;
        self.ranks.iter_mut().for_each(|announced| announced.stream = None);
    }

    /// A heartbeat of a member of some view.
    pub(crate) fn note_formed(&mut self, now: Instant, from: Member, epoch: Epoch) {
        if let Some(announced) = self.ranks.get_mut(from.rank.index()) {
            announced.formed = Some((from.incarnation, epoch, now));
        }
    }

    /// A member whose last heartbeat, not older than `age_ns`, was of a later view than this epoch, if there is one.
    pub(crate) fn later(&self, now: Instant, epoch: Epoch, age_ns: u64) -> Option<(Rank, Epoch)> {
        self.ranks.iter().enumerate().find_map(|(rank, announced)| {
            let (_, other, at) = announced.formed?;
            (other > epoch && now.since(at) < age_ns).then_some((Rank(rank as u16), other))
        })
    }

    /// A heartbeat of a member of the current view.
    pub(crate) fn note_stream(&mut self, now: Instant, rank: Rank, end: DatagramNumber) {
        if let Some(announced) = self.ranks.get_mut(rank.index()) {
            let before = announced.stream.map_or(end, |(before, _)| before);
            announced.stream = Some((end.max(before), now));
        }
    }

    /// How far a stream was announced, and when: the beginning of the view, if no heartbeat has come since.
    pub(crate) fn stream(&self, rank: Rank) -> (DatagramNumber, Instant) {
        let stream = self.ranks.get(rank.index()).and_then(|announced| announced.stream);
        stream.unwrap_or((DatagramNumber(0), self.view_since))
    }

    /// Whether a majority of a view's members announced it, or, if `follows`, a view not long before it.
    pub(crate) fn announces(&self, now: Instant, view: &View, follows: bool) -> bool {
        let least = Epoch(view.epoch.0.saturating_sub(if follows { EPOCHS_AHEAD } else { 0 }));
        let announces = |member: &&Member| {
            let formed = self.ranks.get(member.rank.index()).and_then(|announced| announced.formed);
            formed.is_some_and(|(incarnation, epoch, at)| {
                let same = follows || incarnation == member.incarnation;
                same && epoch >= least && now.since(at) < ANNOUNCED_NS
            })
        };
        2 * view.members.iter().filter(announces).count() > view.members.len()
    }
}
