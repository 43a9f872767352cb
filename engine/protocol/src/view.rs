//! Views: which processes are in the group, as its members agreed.
//!
//! "Which processes are alive" has no answer that all processes can see at once; "which processes are in view 7" has,
//! because its members decided it before any of them acted on it. A view names its members, oldest first, each by its
//! rank and incarnation; a process that restarts is another member. Ranks are the places that the configuration
//! assigns, so they stay while views change.
//!
//! Invariants: members are distinct by rank; any two quorums of a view meet ([`View::is_quorum`]), a half counting only
//! with the view's first member. Epoch 0 is before the first view: nothing is sent in it, and its one quorum is all
//! members.

use crate::control::quorum::is_quorum;
use alloc::vec::Vec;
use bourdon_wire::{Epoch, Incarnation, InstanceId, OrderNumber, Rank, Sequence};

/// One incarnation of one process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Member {
    /// Its place in the configuration.
    pub rank: Rank,
    /// Its incarnation.
    pub incarnation: Incarnation,
}

/// The members of the group.
///
/// ```
/// # extern crate bourdon_protocol as bourdon;
/// use bourdon::View;
///
/// fn print(view: &View) {
///     println!("view {}, {} members, sequencer {}", view.epoch, view.members.len(), view.sequencer);
/// }
/// # let _ = print;
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct View {
    /// Its id.
    pub epoch: Epoch,
    /// Its members, oldest first.
    pub members: Vec<Member>,
    /// The member that numbers the messages, in total order.
    pub sequencer: Rank,
    /// The instance of the group: drawn when it formed, the same in all its views.
    pub instance: InstanceId,
    /// When the instance formed: milliseconds since the UNIX epoch, above every birth that a founding member knew of.
    pub birth: u64,
}

/// Where the streams of a view begin: part of the view's state, the same at every member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Beginning {
    /// The number of the first message in total order.
    pub order: OrderNumber,
    /// By rank: the sequence of the next message. All below have been delivered, or never will be.
    pub first: Vec<Sequence>,
    /// How many barriers have been completed.
    pub phase: u64,
}

impl Beginning {
    /// The message with which a rank's stream begins.
    pub(crate) fn first_of(&self, rank: Rank) -> Sequence {
        self.first.get(rank.index()).copied().unwrap_or_default()
    }
}

// A bitmap has a bit for each rank.
const _: () = assert!(Rank::MAX.0 as u32 + 1 == u64::BITS);

/// A bitmap with a bit for each rank.
pub(crate) fn bit(rank: Rank) -> u64 {
    1u64.checked_shl(u32::from(rank.0)).unwrap_or(0)
}

/// The ranks whose bits are set.
pub(crate) fn ranks(bits: u64) -> impl Iterator<Item = Rank> {
    (0..64).map(Rank).filter(move |rank| bits & bit(*rank) != 0)
}

impl View {
    /// Before the first view: all members that the configuration names, whatever their incarnations will be.
    pub fn forming(members: u16, sequencer: Rank) -> Self {
        assert!(sequencer.0 < members && members <= Rank::MAX.0 + 1, "the configuration was checked");
        let unknown = |rank| Member { rank: Rank(rank), incarnation: Incarnation(0) };
        let members = (0..members).map(unknown).collect();
        Self { epoch: Epoch(0), members, sequencer, instance: InstanceId::NONE, birth: 0 }
    }

    /// No view at all: its process is in none.
    pub(crate) fn none(epoch: Epoch, sequencer: Rank) -> Self {
        Self { epoch, members: Vec::new(), sequencer, instance: InstanceId::NONE, birth: 0 }
    }

    /// A view in which every configured rank has the given incarnation; of instance 1, born at 1, unless the caller
    /// sets others.
    pub fn of_all(epoch: Epoch, members: u16, incarnation: Incarnation, sequencer: Rank) -> Self {
        assert!(sequencer.0 < members && members <= Rank::MAX.0 + 1, "the configuration was checked");
        let member = |rank| Member { rank: Rank(rank), incarnation };
        Self { epoch, members: (0..members).map(member).collect(), sequencer, instance: InstanceId(1), birth: 1 }
    }

    /// The incarnation of a rank that is a member, if any is.
    #[inline]
    pub fn incarnation(&self, rank: Rank) -> Option<Incarnation> {
        self.members.iter().find(|member| member.rank == rank).map(|member| member.incarnation)
    }

    /// Whether this incarnation of this process is a member.
    pub fn contains(&self, member: Member) -> bool {
        self.members.contains(&member)
    }

    /// A bit for each member's rank.
    pub fn bits(&self) -> u64 {
        self.members.iter().fold(0, |bits, member| bits | bit(member.rank))
    }

    /// How many members older than this one there are, of those whose bits are set.
    pub fn seniority(&self, rank: Rank, among: u64) -> usize {
        self.members
            .iter()
            .take_while(|member| member.rank != rank)
            .filter(|member| among & bit(member.rank) != 0)
            .count()
    }

    /// The oldest of the members whose bits are set.
    pub fn oldest(&self, among: u64) -> Option<Rank> {
        self.members.iter().map(|member| member.rank).find(|rank| among & bit(*rank) != 0)
    }

    /// Whether these are enough to decide for the view: any two such sets share a member. More than half, or half with
    /// the first member; before the first view, all.
    pub fn is_quorum(&self, votes: u64) -> bool {
        let ranks: Vec<Rank> = self.members.iter().map(|member| member.rank).collect();
        if self.epoch == Epoch(0) { self.bits() & !votes == 0 } else { is_quorum(&ranks, votes) }
    }

    /// How many votes make a quorum, the first member's among them or not.
    pub(crate) fn quorum_count(&self) -> usize {
        self.members.len() / 2 + 1
    }
}
