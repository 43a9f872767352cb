//! The bounds of a search: how large the group is, and what may happen in it.

use crate::budget::Spent;
use bourdon_protocol::Mutant;
use bourdon_protocol::view::Member;
use std::sync::{Arc, OnceLock};

/// A group and its bounds.
#[derive(Clone, Debug)]
pub struct Group {
    /// The members of the first view.
    pub members: u8,
    /// The number of joiners.
    pub joiners: u8,
    /// How many of the last ranks ask to leave.
    pub leavers: u8,
    /// How many ballots may be begun in an epoch.
    pub ballots: u8,
    /// How many members may crash.
    pub crashes: u8,
    /// How many of the first ranks send.
    pub senders: u8,
    /// How many datagrams each of them sends in an epoch.
    pub datagrams: u8,
    /// How many epochs end by a view change.
    pub changes: u8,
    /// Whether a proposer may have a reason to go on without a member that answers: evidence of its death, or the
    /// clique rule.
    pub suspects: bool,
    /// Whether a member that has promised still takes in what comes late of its epoch.
    pub late: bool,
    /// Whether a proposer gets a `REFUSE` for higher ballots: it holds nothing that their `PREPARE` does not hold.
    pub refusals: bool,
    /// Whether the control plane's orders to the data plane wait, and are obeyed at any later place.
    pub apart: bool,
    /// Set from outside when a search is to give up.
    pub spent: Arc<OnceLock<Spent>>,
    /// A planted bug.
    pub mutant: Option<Mutant>,
}

/// A bit for each member's rank.
pub fn bits(members: &[Member]) -> u64 {
    members.iter().fold(0, |bits, member| bits | 1 << member.rank.0)
}

impl Group {
    /// Three members, of which two send a datagram; two ballots, one crash, one change.
    pub fn small() -> Self {
        Self {
            members: 3,
            joiners: 0,
            leavers: 0,
            ballots: 2,
            crashes: 1,
            senders: 2,
            datagrams: 1,
            changes: 1,
            suspects: true,
            late: false,
            refusals: false,
            apart: false,
            spent: Arc::default(),
            mutant: None,
        }
    }

    pub(crate) fn all(&self) -> u8 {
        self.members + self.joiners
    }

    /// The ranks that ask to leave, as bits.
    pub fn leaving(&self) -> u64 {
        (self.members - self.leavers..self.members).fold(0, |bits, rank| bits | 1 << rank)
    }

    pub(crate) fn is(&self, mutant: Mutant) -> bool {
        self.mutant == Some(mutant)
    }
}
