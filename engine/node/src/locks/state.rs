//! The states of requests for locks and of elections, and why there is none.

use super::request::State;
use bourdon_protocol::{CoordinationRefusal, FencingToken, Leadership, Loss};
use bourdon_wire::{NameError, Rank};
use std::time::Instant;

/// Why there is no lock, or no part in an election.
///
/// ```
/// # use bourdon::*;
/// # use std::time::Duration;
/// # fn show(node: &Node) {
/// use bourdon::error::LockError;
///
/// match node.lock("backup", Duration::from_secs(1)) {
///     Ok(guard) => println!("held under {}", guard.token()),
///     Err(LockError::Busy { ahead }) => println!("at least {ahead} come before"),
///     Err(error) => println!("{error}"),
/// }
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LockError {
    /// The name is not valid: correct it.
    #[error(transparent)]
    Name(#[from] NameError),
    /// It could not be asked for: the group is still forming, this process is in no view or reaches no majority, the
    /// group grants no locks, or there are too many. The text gives what to do; all but the settings of the group may
    /// pass by themselves.
    #[error(transparent)]
    Refused(#[from] CoordinationRefusal),
    /// The lock is not free, and the time to wait for it is over: ask again, or wait for longer.
    #[error("the lock is not free: {} before this request", count(*.ahead))]
    Busy {
        /// The fewest that come before this request, the holder among them: replicated and Lamport's locks alone know
        /// the requests of other members.
        ahead: usize,
    },
    /// It was lost, or can't be granted any more. Others may hold it by now: end what needed it, and ask again.
    #[error(transparent)]
    Lost(#[from] Lost),
    /// The wait was cancelled ([`Canceller`](crate::Canceller)), and the request withdrawn.
    #[error("the wait for the lock was cancelled, and the request withdrawn")]
    Cancelled,
    /// Another [`Election`](crate::Election) of this node stands for this name: two would each believe that they lead.
    /// Watch it, or resign the other.
    #[error("this node stands in this election already, and leads once at most: watch it, or let the other resign")]
    Stands,
    /// [`LockRequest`](crate::LockRequest) has handed its guard out: make another request.
    #[error("this request has handed its guard out already: make another request")]
    Granted,
}

fn count(ahead: usize) -> String {
    if ahead == 1 { "at least one holder or request is".to_owned() } else { format!("at least {ahead} are") }
}

/// Why a lock or a leadership was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Lost {
    /// By what happened in the group.
    #[error(transparent)]
    Group(#[from] Loss),
    /// With its node.
    #[error("the node has ended: others may have the lock by now")]
    Ended,
}

/// How long a request waits in the group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wait {
    /// Not at all.
    No,
    /// Until then.
    Until(Instant),
    /// Until it is granted or can't be granted any more.
    Forever,
}

impl Wait {
    /// Until then at the latest; for ever, if there is no such time.
    pub(crate) fn until(until: Option<Instant>) -> Self {
        match until {
            Some(until) if until <= Instant::now() => Self::No,
            Some(until) => Self::Until(until),
            None => Self::Forever,
        }
    }
}

/// The state of a request for a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LockState {
    /// It could not be asked for yet, if this gives a reason; else the thread that asks has not come to it.
    Pending(Option<CoordinationRefusal>),
    /// It waits in the group.
    Waiting {
        /// The fewest that come before it: see [`LockStanding`](bourdon_protocol::LockStanding).
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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ElectionState {
    /// The member that leads, if there is one.
    pub leader: Option<Rank>,
    /// Its token, if there is a leader: higher than those of all leaders before. Hand it to the resource with each
    /// write.
    pub token: Option<FencingToken>,
    /// Whether this election's own candidacy leads.
    pub own: bool,
    /// Why this candidacy leads no more, if it was deposed since it led last.
    pub deposed: Option<Loss>,
    /// Why nothing is known yet: the group does not let this node take part so far.
    pub pending: Option<CoordinationRefusal>,
    /// Nothing more will come.
    pub(crate) over: Option<LockError>,
    /// The thread that has the coordinator has come to it.
    pub(crate) known: bool,
}

impl ElectionState {
    /// Takes the group's answer in.
    pub(super) fn take(&mut self, leadership: Option<Leadership>, own: bool, deposed: Option<Loss>) {
        (self.leader, self.token) = (leadership.map(|is| is.leader), leadership.map(|is| is.token));
        self.deposed = deposed.or(self.deposed.filter(|_| !own));
        (self.own, self.pending, self.known) = (own, None, true);
    }
}

impl std::fmt::Display for ElectionState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.leader, self.token, self.pending) {
            (Some(_), Some(token), _) if self.own => write!(f, "this candidacy leads, token {token}"),
            (Some(leader), Some(token), _) => write!(f, "member {leader} leads, token {token}"),
            (.., Some(why)) => write!(f, "no leader is known yet: {why}"),
            _ => f.write_str("no leader"),
        }
    }
}

impl State for ElectionState {
    fn end(&mut self) {
        if self.over.is_none() {
            (self.leader, self.token, self.own) = (None, None, false);
            self.over = Some(Lost::Ended.into());
        }
    }

    fn is_awaited(&self) -> bool {
        true // a candidate waits for any change
    }
}
