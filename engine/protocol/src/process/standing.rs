//! The standing of a process in its group, and what the process keeps only in that standing.
//!
//! A process that changes its standing drops what [`State`] held for the standing before.

mod following;
mod gone;
mod member;

pub(super) use following::Following;
pub(super) use gone::Gone;
pub(super) use member::Joined;

use crate::control::view_change::{Ballot, Value};
use alloc::boxed::Box;
use bourdon_wire::{Epoch, Instant};

/// The current standing of a process in the group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Configured as a member, before the first view.
    Forming,
    /// In no view, and following none: it searches for the group.
    Outside,
    /// Receives what a view sends, without being in it: an observer or a joiner.
    Following,
    /// A member of the view.
    Member,
    /// It left for good.
    Gone,
}

/// The standing of a process, with what the process keeps in it.
#[derive(Debug)]
pub(super) enum State {
    Forming(Box<Ending>),
    Outside(Outside),
    Following(Box<Following>),
    Member(Box<Joined>),
    Gone(Gone),
}

/// What a process in no view keeps.
#[derive(Debug, Default)]
pub(super) struct Outside {
    /// It may not come back before this time.
    pub(super) not_before: Instant,
}

/// How the current epoch ends, as far as the control plane has ordered.
#[derive(Debug, Default)]
pub(super) struct Ending {
    /// What was decided, and whether this process announces it.
    pub(super) decided: Option<(Value, bool)>,
    /// What a member has sent as decided. The control plane hears of it, and orders what follows.
    pub(super) announced: Option<Value>,
    /// This process has reported that it holds a proposed cut, and may have accepted it.
    pub(super) may_have_accepted: bool,
    /// At `durable`: the value proposed last, whose cut is being fetched.
    pub(super) proposed: Option<(Ballot, Value)>,
}

impl State {
    #[inline]
    pub(super) fn standing(&self) -> Standing {
        match self {
            Self::Forming(_) => Standing::Forming,
            Self::Outside(_) => Standing::Outside,
            Self::Following(_) => Standing::Following,
            Self::Member(_) => Standing::Member,
            Self::Gone(_) => Standing::Gone,
        }
    }

    /// Whether this process takes part in the decision that ends the current epoch.
    pub(super) fn takes_part(&self) -> bool {
        matches!(self, Self::Forming(_) | Self::Member(_))
    }

    /// How the current epoch ends, for a process that takes part in that decision.
    pub(super) fn ending(&self) -> Option<&Ending> {
        match self {
            Self::Forming(ending) => Some(ending),
            Self::Member(joined) => Some(&joined.ending),
            _ => None,
        }
    }

    pub(super) fn ending_mut(&mut self) -> Option<&mut Ending> {
        match self {
            Self::Forming(ending) => Some(ending),
            Self::Member(joined) => Some(&mut joined.ending),
            _ => None,
        }
    }

    /// What was decided to end the current epoch, as far as a process that takes part in that decision has heard.
    pub(super) fn decided(&self) -> Option<&Value> {
        let ending = self.ending()?;
        ending.decided.as_ref().map(|(value, _)| value).or(ending.announced.as_ref())
    }

    pub(super) fn following(&self) -> Option<&Following> {
        match self {
            Self::Following(following) => Some(following),
            _ => None,
        }
    }

    pub(super) fn following_mut(&mut self) -> Option<&mut Following> {
        match self {
            Self::Following(following) => Some(following),
            _ => None,
        }
    }

    /// The decision that ends the followed view.
    pub(super) fn followed_decision(&self) -> Option<&Value> {
        self.following().and_then(|following| following.decision.as_ref())
    }

    /// The first epoch without this process, and when it stops at the latest.
    #[inline]
    pub(super) fn farewell(&self) -> Option<(Epoch, Instant)> {
        match self {
            Self::Gone(gone) => gone.farewell,
            _ => None,
        }
    }

    /// Whether this process is a member that reaches a quorum of its view.
    #[inline]
    pub(super) fn has_majority(&self) -> bool {
        matches!(self, Self::Member(joined) if !joined.no_majority)
    }

    /// Whether this process is a member that reaches no quorum of its view.
    #[inline]
    pub(super) fn lacks_majority(&self) -> bool {
        matches!(self, Self::Member(joined) if joined.no_majority)
    }
}
