//! The states of requests for locks and of elections, as callers see them, and why there is none.

use super::request::State;
use bourdon_protocol::{CoordinationRefusal, FencingToken, Leadership, Loss};
use std::time::Instant;

/// Why there is no lock, or no part in an election.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LockError {
    /// It could not be asked for.
    #[error(transparent)]
    Refused(#[from] CoordinationRefusal),
    /// It is not free, and the caller would not wait.
    #[error("the lock is not free")]
    Busy,
    /// It was not granted in time.
    #[error("the lock was not granted in time")]
    TimedOut,
    /// It was lost, or can't be granted any more.
    #[error(transparent)]
    Lost(#[from] Lost),
    /// This node stands in that election already.
    #[error("this node stands in this election already, and leads once at most: watch it, or let the other resign")]
    Stands,
}

/// Why a lock or a leadership was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Lost {
    /// By what happened in the group.
    #[error(transparent)]
    Group(#[from] Loss),
    /// With its node.
    #[error("the node has ended: others may have the lock by now")]
    Ended,
}

/// How long a request waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Not at all.
    No,
    /// Until then.
    Until(Instant),
    /// Until it is granted or can't be granted any more.
    Forever,
}

/// The state of a request for a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockState {
    /// It could not be asked for yet, if this gives a reason; else the agent has not come to it.
    Pending(Option<CoordinationRefusal>),
    /// It waits in the group.
    Waiting {
        /// The fewest that come before it: see [`LockStanding`](crate::LockStanding).
        ahead: usize,
    },
    /// It has the lock.
    Held(FencingToken),
    /// It has none, and will not get it any more.
    Over(LockError),
}

impl State for LockState {
    fn end(&mut self) {
        if !matches!(self, Self::Over(_)) {
            *self = Self::Over(Lost::Ended.into());
        }
    }

    fn is_awaited(&self) -> bool {
        matches!(self, Self::Held(_) | Self::Over(_))
    }
}

/// The state of an election, as this node knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ElectionState {
    /// The leader, if there is one.
    pub leader: Option<Leadership>,
    /// Whether that is this candidacy.
    pub own: bool,
    /// Why this candidacy leads no more, if it was deposed since it led last.
    pub deposed: Option<Loss>,
    /// Why nothing is known yet: the group does not let this node take part so far.
    pub pending: Option<CoordinationRefusal>,
    /// Nothing more will come.
    pub over: Option<LockError>,
    /// The agent has come to it.
    pub(super) known: bool,
}

impl ElectionState {
    /// Nothing is known yet.
    pub(super) const NEW: Self =
        Self { leader: None, own: false, deposed: None, pending: None, over: None, known: false };
}

impl State for ElectionState {
    fn end(&mut self) {
        if self.over.is_none() {
            *self = Self { leader: None, own: false, over: Some(Lost::Ended.into()), ..*self };
        }
    }

    fn is_awaited(&self) -> bool {
        true // a candidate waits for any change
    }
}
