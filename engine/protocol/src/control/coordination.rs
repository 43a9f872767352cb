//! What locks and elections have in common: tokens, names, refusals, news.
//!
//! A lock service that only says "you have it" can't be used safely: a holder that was paused, cut off or removed goes on
//! believing it. So every grant and every leadership carries a [`FencingToken`] that is higher than all before, and the
//! resource refuses whoever comes with a lower one than it has seen. And a holder that can't reach a quorum of its view any
//! more is told so, and is no holder from then on ([`Loss::NoMajority`]).
//!
//! Source: fencing tokens as in Chubby's sequencers (Burrows, OSDI 2006) and Kleppmann (2016).

use alloc::string::String;
use bourdon_wire::{Epoch, Rank, TopicName};

/// The most locks, and the most elections, one process takes part in at a time: what a member says of them at each new
/// view stays a matter of milliseconds.
pub const NAMES_MAX: usize = 256;
/// The most requests for locks that one process has at a time, waiting or granted.
pub const REQUESTS_MAX: usize = 1024;
/// News that the application has not fetched: the end of each request, its grant before it, and some changes of leader in
/// each election.
pub(crate) const NEWS_MAX: usize = 2 * REQUESTS_MAX + 8 * NAMES_MAX;

/// Grows with every grant of a lock and with every leadership of an election, also when all members end and the group
/// forms again. First the birth of the group's instance counts, then the epoch, then the number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FencingToken {
    /// When the instance of the group formed: see [`View::birth`](crate::View::birth).
    pub birth: u64,
    /// The view in which it was granted.
    pub epoch: Epoch,
    /// Grows within the view.
    pub number: u64,
}

impl FencingToken {
    /// As one number, which grows as well: 48 bits of the birth, 32 of the epoch, 48 of the number.
    ///
    /// # Panics
    /// If the number exceeds 48 bits: a bug, since a group orders no 2^48 messages in a view.
    pub fn as_u128(self) -> u128 {
        assert!(self.birth >> 48 == 0 && self.epoch.0 >> 32 == 0 && self.number >> 48 == 0, "{self:?} is none");
        u128::from(self.birth) << 80 | u128::from(self.epoch.0) << 48 | u128::from(self.number)
    }

    /// As 48 hexadecimal digits, 16 for each of its numbers, which sort as tokens do.
    pub fn to_hex(self) -> String {
        alloc::format!("{:016x}{:016x}{:016x}", self.birth, self.epoch.0, self.number)
    }
}

/// Which algorithm grants locks: the same at every member.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum MutexKind {
    /// A table of locks driven by the total order. Needs total order, at reliable or above.
    #[default]
    Replicated,
    /// The oldest member grants.
    Central,
    /// Everybody keeps the queue (Lamport, 1978).
    Lamport,
    /// Everybody else must agree (Ricart and Agrawala, 1981).
    RicartAgrawala,
    /// Whoever has the token (Le Lann, 1977).
    TokenRing,
}

/// Which algorithm elects leaders: the same at every member.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ElectionKind {
    /// The highest rank wins by asking those above it (Garcia-Molina, 1982).
    #[default]
    Bully,
    /// The highest rank wins by outliving a round trip (Chang and Roberts, 1979).
    Ring,
}

/// Names a request for a lock at the process that made it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LockId(pub u64);

/// How long a request for a lock waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patience {
    /// Not at all: [`LockNews::Busy`] if it is not free.
    Try,
    /// Until then.
    Until(bourdon_wire::Instant),
    /// For ever.
    Forever,
}

/// Where a request for a lock stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockStanding {
    /// It waits; so many requests are known to come before it.
    Waiting {
        /// The fewest that come before it. Only `Replicated` and `Lamport` know those of other members.
        ahead: usize,
    },
    /// It has the lock.
    Held(FencingToken),
}

/// What became of a request for a lock. All but a grant end it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockNews {
    /// It has the lock, until it releases it or is told that it is lost.
    Granted(FencingToken),
    /// The lock is not free, and it would not wait.
    Busy,
    /// It waited in vain.
    TimedOut,
    /// It has the lock no more, or waits no more.
    Lost(Loss),
}

/// Why a lock or a leadership was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Loss {
    /// No quorum of the view can be reached: others may have gone on.
    #[error("no majority of the view can be reached: others may have the lock by now")]
    NoMajority,
    /// This process is out of the view.
    #[error("this process was removed from the view: others may have the lock by now")]
    Removed,
    /// Whoever grants it has no room for another name.
    #[error("the group keeps as many locks as it can")]
    TooMany,
}

/// What part a process has in an election.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// It hears who leads.
    Watch,
    /// It may lead, and leaves it to others to begin the first election.
    StandBy,
    /// It may lead, and sees to it that somebody does.
    Campaign,
}

/// Who leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leadership {
    /// Which member.
    pub leader: Rank,
    /// Grows with each leadership.
    pub token: FencingToken,
}

/// News of locks and elections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coordination {
    /// Of a request of this process.
    Lock(LockId, LockNews),
    /// Of an election that this process has a part in: who leads now, if anybody.
    Leader(TopicName, Option<Leadership>),
    /// This process led, and does not any more; not because it resigned.
    Deposed(TopicName, Loss),
}

/// Why a lock or an election can't be had. Nothing was begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CoordinationRefusal {
    /// It is in no view.
    #[error("this process is in no view: locks and elections are for members")]
    Outside,
    /// The group is still forming.
    #[error("the group is still forming: not every member has been heard")]
    Forming,
    /// No quorum of the view can be reached.
    #[error(
        "no majority of the view can be reached: restore the network, or let members that are paused go on; where a majority is gone for good, stop all members and start the group anew"
    )]
    NoMajority,
    /// The group's messages have no order all agree on.
    #[error(
        "replicated locks need total order, reliable or above: configure the group so, or choose mutex = \"central\", \"lamport\", \"ricart-agrawala\" or \"token-ring\""
    )]
    NeedsTotalOrder,
    /// Too many names, or too many requests for one.
    #[error("at most {NAMES_MAX} names and {REQUESTS_MAX} requests for locks at a time at one process")]
    TooMany,
}
