//! Recovery by hand: whether a group that has lost its majority for good may be made again from one survivor.
//!
//! A view goes on only with a quorum of it. That is what makes two halves of a group incapable of deciding different
//! things, and it also stops a group for ever whose majority is gone for good: no member can distinguish that from a
//! network that will be mended. Only an operator knows. If an operator's word alone were enough, a command typed at the
//! wrong member would split a group that works, or throw away what another survivor has delivered.
//!
//! So the survivor first checks what it can know. Every member of its view is *silent*, because its last heartbeat is
//! older than [`HEARD_NS`], or a *survivor*, and then its last heartbeat decides: it announces the members that it
//! hears. A survivor that hears a quorum, that is in another view, or that has delivered more than this member is an
//! [`Obstacle`], and so is a majority that this member reaches itself. Without an obstacle the survivor founds a new
//! instance of the group with itself as the only member (`process/recovery.rs`). The other survivors, and members that
//! come back later, hear that instance as newer than theirs and join it, as after a restart of the whole group.
//!
//! Before the first view the same holds where some of the configured members never come: then no heard process may be
//! in a view, because it would have the group's state.
//!
//! Invariants: no heard member that reaches a majority, or has announced one within [`HEARD_NS`], is left behind; what
//! this member knows to be lost is counted before it is lost.

use crate::view::{Member, View, bit, ranks};
use bourdon_wire::{DatagramNumber, Epoch, InstanceId, Rank};
use core::fmt;

/// A member whose last heartbeat is younger has to agree: twenty times as long as the slowest heartbeats are apart, and
/// longer than most detectors take.
pub const HEARD_NS: u64 = 2_000_000_000;

/// Why a group can't be recovered at this process now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Obstacle {
    /// This process is no member: it observes, is leaving, or has left.
    Role,
    /// This process searches for the group, or joins it: it was removed, or has lost its view.
    Outside,
    /// This process reaches a quorum of its view.
    Majority,
    /// Every configured member is heard: the first view forms by itself.
    Forms,
    /// An instance of the group that is newer than this process's is alive with a majority.
    NewerInstance(InstanceId),
    /// A heard member reaches a quorum of the view, or announced that it does so long ago.
    HearsMajority {
        /// The member.
        rank: Rank,
        /// The age of its last heartbeat.
        silent_ns: u64,
    },
    /// A heard member is in another view of this instance.
    OtherView {
        /// The member.
        rank: Rank,
        /// Its epoch.
        epoch: Epoch,
    },
    /// A heard member has delivered messages that this member has not, and lacks none that this member has delivered.
    Ahead(Rank),
    /// Before the first view: a heard process is in a view of the group, and has its state.
    InView(Rank),
    /// Before the first view: a heard process is configured otherwise. A group that is founded beside it is a second
    /// one.
    Configured(Rank),
}

impl Obstacle {
    /// Its name for machines.
    pub fn name(self) -> &'static str {
        match self {
            Self::Role => "role",
            Self::Outside => "outside",
            Self::Majority => "majority",
            Self::Forms => "forms",
            Self::NewerInstance(_) => "newer_instance",
            Self::HearsMajority { .. } => "hears_majority",
            Self::OtherView { .. } => "other_view",
            Self::Ahead(_) => "ahead",
            Self::InView(_) => "in_view",
            Self::Configured(_) => "configured",
        }
    }

    /// Whether it may be gone in a moment: a heartbeat or a repair is under way, or a member has just ended.
    pub fn may_pass(self) -> bool {
        matches!(self, Self::HearsMajority { .. } | Self::OtherView { .. } | Self::Ahead(_))
    }

    /// The member that it is about, if it is about one.
    pub fn rank(self) -> Option<Rank> {
        match self {
            Self::HearsMajority { rank, .. }
            | Self::OtherView { rank, .. }
            | Self::Ahead(rank)
            | Self::InView(rank)
            | Self::Configured(rank) => Some(rank),
            _ => None,
        }
    }
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Role => f.write_str("this process is no member of the group: run the command at a member"),
            Self::Outside => f.write_str(
                "this process is in no view, because it joins the group or was removed from it: run the command at a \
                 member of the last view",
            ),
            Self::Majority => f.write_str("this member reaches a majority of its view: the group works"),
            Self::Forms => f.write_str("every configured member is heard: the group forms by itself"),
            Self::NewerInstance(instance) => write!(
                f,
                "instance {:016x} of the group is newer and has a majority: this process joins it by itself",
                instance.0
            ),
            Self::HearsMajority { rank, silent_ns } => write!(
                f,
                "member {rank} announced {}.{} s ago that it reaches a majority: the group may work without this \
                 member; mend the path to it, or stop member {rank} if it must not go on",
                silent_ns / 1_000_000_000,
                silent_ns / 100_000_000 % 10
            ),
            Self::OtherView { rank, epoch } => {
                write!(f, "member {rank} is in view {epoch}: run the command at a member of the latest view")
            }
            Self::Ahead(rank) => write!(
                f,
                "member {rank} has delivered messages that this member has not: run the command at member {rank}"
            ),
            Self::InView(rank) => write!(
                f,
                "member {rank} is in a view of the group and has its state: run the command there if it lacks a \
                 majority"
            ),
            Self::Configured(rank) => write!(
                f,
                "member {rank} is heard and configured otherwise: give this process the same configuration and start \
                 it again, or stop member {rank}"
            ),
        }
    }
}

/// What a recovery at this process would do, or has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Recovery {
    /// Why there is none now.
    pub obstacle: Option<Obstacle>,
    /// The instance that it ends here; zero before the first view.
    pub instance: InstanceId,
    /// The epoch that it ends here; 0 before the first view.
    pub epoch: Epoch,
    /// Bit r: the member of rank r is heard and reaches no majority; it leaves its view and joins the new instance.
    pub survivors: u64,
    /// Bit r: the member of rank r of the view, or before the first view the configured member, is not heard.
    pub silent: u64,
    /// Bit r: that survivor has delivered messages that this member has not, which are lost; this member has delivered
    /// others that the survivor has not.
    pub ahead: u64,
    /// The messages that this process has published and not seen acknowledged: other members may have delivered them.
    pub unacknowledged: u64,
    /// The messages received here that are not delivered here: other members may have delivered them.
    pub undelivered: u64,
}

/// What this process knows of another member of its view.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sighting<'a> {
    pub(crate) rank: Rank,
    /// The age of its last heartbeat.
    pub(crate) silent_ns: u64,
    /// What that announced: the view that it is in, and the members of it that it hears.
    pub(crate) epoch: Epoch,
    pub(crate) heard_from: u64,
    /// By stream: how far it has delivered.
    pub(crate) delivered: &'a [DatagramNumber],
}

impl Recovery {
    /// Judges what a member of a view knows of the others: whether each is silent, or agrees, or is an obstacle. `own`:
    /// by stream, how far this member has delivered.
    pub(crate) fn judge<'a>(
        &mut self,
        view: &View,
        own: &[DatagramNumber],
        sightings: impl Iterator<Item = Sighting<'a>>,
    ) {
        for sighting in sightings {
            let rank = sighting.rank;
            if sighting.silent_ns >= HEARD_NS {
                continue;
            }
            self.survivors |= bit(rank);
            self.silent &= !bit(rank);
            let is_behind = |pair: (&DatagramNumber, &DatagramNumber)| pair.0 < pair.1;
            let lacks = own.iter().zip(sighting.delivered).any(is_behind);
            let is_lacked = sighting.delivered.iter().zip(own).any(is_behind);
            let obstacle = if sighting.epoch != view.epoch {
                Some(Obstacle::OtherView { rank, epoch: sighting.epoch })
            } else if view.is_quorum(sighting.heard_from & view.bits()) {
                Some(Obstacle::HearsMajority { rank, silent_ns: sighting.silent_ns })
            } else if lacks && !is_lacked {
                Some(Obstacle::Ahead(rank))
            } else {
                None
            };
            self.ahead |= if lacks && is_lacked { bit(rank) } else { 0 };
            self.obstacle = self.obstacle.or(obstacle);
        }
    }

    /// Before the first view: which of the configured members are heard, and whether one of them, by its last
    /// heartbeat, is in a view.
    pub(crate) fn judge_forming(&mut self, all: u64, heard: u64, in_view: u64, differing: u64) {
        (self.survivors, self.silent) = (heard, all & !(heard | differing));
        self.obstacle = self.obstacle.or(ranks(differing).next().map(Obstacle::Configured));
        let in_view = ranks(in_view).next().map(Obstacle::InView);
        self.obstacle = self.obstacle.or(in_view).or((self.silent == 0).then_some(Obstacle::Forms));
    }
}

/// The members of a view without one of them.
pub(crate) fn others(view: &View, own: Rank) -> impl Iterator<Item = Member> {
    view.members.iter().copied().filter(move |member| member.rank != own)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;
    use bourdon_wire::Incarnation;

    /// Member 0 of a view of five, of which 1 is heard, judges.
    fn judged(sighting: Sighting<'_>) -> Recovery {
        let view = View::of_all(Epoch(3), 5, Incarnation(1), Rank(0));
        let mut recovery = Recovery { silent: view.bits() & !1, ..Recovery::default() };
        let silent = Sighting { rank: Rank(2), silent_ns: HEARD_NS, epoch: Epoch(3), heard_from: u64::MAX, ..sighting };
        recovery.judge(&view, &[DatagramNumber(5), DatagramNumber(5)], [sighting, silent].into_iter());
        recovery
    }

    const AGREES: Sighting<'static> = Sighting {
        rank: Rank(1),
        silent_ns: HEARD_NS - 1,
        epoch: Epoch(3),
        heard_from: 0b11,
        delivered: &[DatagramNumber(5), DatagramNumber(4)],
    };

    #[test]
    fn a_heard_member_has_to_lack_a_majority_in_the_same_view_and_to_have_delivered_no_more() {
        let recovery = judged(AGREES);
        assert_eq!((recovery.obstacle, recovery.survivors, recovery.silent), (None, 0b10, 0b11100));
        let hears = judged(Sighting { heard_from: 0b10011, ..AGREES }).obstacle;
        assert_eq!(hears, Some(Obstacle::HearsMajority { rank: Rank(1), silent_ns: HEARD_NS - 1 }));
        assert!(hears.is_some_and(|obstacle| obstacle.to_string().contains("member 1 announced 1.9 s ago")));
        let elsewhere = judged(Sighting { epoch: Epoch(4), ..AGREES }).obstacle;
        assert_eq!(elsewhere, Some(Obstacle::OtherView { rank: Rank(1), epoch: Epoch(4) }));
        let ahead = judged(Sighting { delivered: &[DatagramNumber(5), DatagramNumber(6)], ..AGREES });
        assert_eq!(ahead.obstacle, Some(Obstacle::Ahead(Rank(1))));
        let both = judged(Sighting { delivered: &[DatagramNumber(4), DatagramNumber(6)], ..AGREES });
        assert_eq!((both.obstacle, both.ahead), (None, 0b10), "each would refuse in favour of the other");
    }

    #[test]
    fn before_the_first_view_no_heard_process_may_be_in_a_view_and_one_must_be_missing() {
        let forming = |heard, in_view| {
            let mut recovery = Recovery::default();
            recovery.judge_forming(0b111, heard, in_view, 0);
            (recovery.obstacle, recovery.survivors, recovery.silent)
        };
        assert_eq!(forming(0b011, 0), (None, 0b011, 0b100));
        assert_eq!(forming(0b011, 0b010).0, Some(Obstacle::InView(Rank(1))));
        assert_eq!(forming(0b111, 0).0, Some(Obstacle::Forms));
    }
}
