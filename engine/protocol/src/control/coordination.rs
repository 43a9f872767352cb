//! What locks and elections have in common: tokens, names, refusals, news.
//!
//! A lock service that only reports a grant can't be used safely: a holder that was paused, cut off or removed still
//! believes that it holds the lock. So every grant and every leadership carries a [`FencingToken`] that is higher than
//! all before, and the resource refuses a client with a lower token than it has seen. A holder that can no longer reach
//! a quorum of its view gets a report of that, and is no holder from then on ([`Loss::NoMajority`]).
//!
//! Source: fencing tokens as in Chubby's sequencers (Burrows, OSDI 2006) and Kleppmann (2016).

use alloc::string::String;
use bourdon_wire::{BIRTHS_END, Epoch, Rank, TopicName};

/// The most locks, and the most elections, that a process takes part in at a time: a member announces them at each new
/// view within milliseconds.
pub const NAMES_MAX: usize = 256;
/// The most requests for locks that a process has at a time, waiting or granted.
pub const REQUESTS_MAX: usize = 1024;
/// News that the application has not fetched: the end of each request, its grant before it, and some changes of leader
/// in each election.
pub(crate) const NEWS_MAX: usize = 2 * REQUESTS_MAX + 8 * NAMES_MAX;

// A process can request each lock that it may name.
const _: () = assert!(NAMES_MAX <= REQUESTS_MAX);
/// No honest number of a token comes near this: a view grants no 10^14 times. A number from another member that is not
/// below it is refused, so that a token has a single number however often it is granted from there on.
pub(crate) const TOKEN_NUMBERS_END: u64 = 1 << 47;
// A token's birth and number fit their places in the single number.
const _: () = assert!(BIRTHS_END <= 1 << 48 && TOKEN_NUMBERS_END < 1 << 48);

/// Grows with every grant of a lock and with every leadership of an election, also when all members end and the group
/// forms again. Tokens are compared by the birth of the group's instance, then by the epoch, then by the number.
///
/// Only tokens of one lock, or of one election, can be compared: those of another name grow by themselves. A resource
/// keeps the highest token it has seen for each name. It refuses a lower one, and takes an equal one: that is the same
/// holder's next write.
///
/// ```
/// # extern crate bourdon_protocol as bourdon;
/// # mod id { pub use bourdon_wire::Epoch; }
/// use bourdon::FencingToken;
///
/// let earlier = FencingToken { birth: 1_800_000_000_000, epoch: id::Epoch(1), number: 9 };
/// let later = FencingToken { epoch: id::Epoch(2), number: 0, ..earlier };
/// assert!(later > earlier && later.as_u128() > earlier.as_u128() && later.to_hex() > earlier.to_hex());
/// assert_eq!(later.to_string(), "1800000000000.2.0");
///
/// /// A resource with a single writer.
/// struct Store {
///     highest: FencingToken,
///     value: u64,
/// }
///
/// impl Store {
///     fn write(&mut self, token: FencingToken, value: u64) -> bool {
///         let is_current = token >= self.highest;
///         if is_current {
///             (self.highest, self.value) = (token, value);
///         }
///         is_current
///     }
/// }
///
/// let mut store = Store { highest: FencingToken::default(), value: 0 };
/// assert!(store.write(earlier, 1) && store.write(earlier, 2) && store.write(later, 3));
/// assert!(!store.write(earlier, 4) && store.value == 3); // its holder has lost the lock
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FencingToken {
    /// When the instance of the group formed: see [`View::birth`](crate::View::birth).
    pub birth: u64,
    /// The view in which it was granted.
    pub epoch: Epoch,
    /// Grows within the view.
    pub number: u64,
}

/// Birth, epoch and number, with dots between them.
impl core::fmt::Display for FencingToken {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{}.{}.{}", self.birth, self.epoch, self.number)
    }
}

impl FencingToken {
    /// The token as a single number, which grows as well: 48 bits of the birth, 32 of the epoch, 48 of the number.
    ///
    /// # Panics
    /// If the number exceeds 48 bits: a bug, since a group orders no 2^48 messages in a view.
    pub fn as_u128(self) -> u128 {
        assert!(self.birth >> 48 == 0 && self.epoch.0 >> 32 == 0 && self.number >> 48 == 0, "{self:?} is none");
        u128::from(self.birth) << 80 | u128::from(self.epoch.0) << 48 | u128::from(self.number)
    }

    /// The token as 48 hexadecimal digits, 16 for each of its numbers; they sort as tokens do.
    pub fn to_hex(self) -> String {
        alloc::format!("{:016x}{:016x}{:016x}", self.birth, self.epoch.0, self.number)
    }
}

/// Which algorithm grants locks: the same at every member.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "kebab-case"))]
#[non_exhaustive]
pub enum MutexKind {
    /// `replicated`, the default: a table of locks that follows the total order. It needs [`Order::Total`] at
    /// [`Reliability::Reliable`] or above; elsewhere each call is refused ([`CoordinationRefusal::NeedsTotalOrder`]).
    ///
    /// [`Order::Total`]: crate::Order::Total
    /// [`Reliability::Reliable`]: crate::Reliability::Reliable
    #[default]
    Replicated,
    /// `central`: the oldest member grants.
    Central,
    /// `lamport`: every member keeps the queue (Lamport, 1978).
    Lamport,
    /// `ricart-agrawala`: every other member must agree (Ricart and Agrawala, 1981).
    RicartAgrawala,
    /// `token-ring`: the member that has the token enters (Le Lann, 1977).
    TokenRing,
}

/// Which algorithm elects leaders: the same at every member.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "kebab-case"))]
#[non_exhaustive]
pub enum ElectionKind {
    /// `bully`, the default: of the candidates that stand when there is no leader, the highest rank wins, by asking
    /// those above it (Garcia-Molina, 1982). A higher rank that stands later does not depose the leader.
    #[default]
    Bully,
    /// `ring`: the same rank wins, because it survives a round trip (Chang and Roberts, 1979). It deposes no leader
    /// either.
    Ring,
}

/// Names a request for a lock at the process that made it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LockId(pub u64);

/// How long a request for a lock waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patience {
    /// Not at all: [`LockNews::Busy`] if the lock is not free.
    Try,
    /// Until this time.
    Until(bourdon_wire::Instant),
    /// For ever.
    Forever,
}

/// The state of a request for a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockStanding {
    /// It waits; at least so many requests precede it.
    Waiting {
        /// The least number that precede it. Only `Replicated` and `Lamport` know the requests of other members.
        ahead: usize,
    },
    /// It has the lock.
    Held(FencingToken),
}

/// The outcome of a request for a lock. All but a grant end it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockNews {
    /// It has the lock, until it releases the lock or is notified of its loss.
    Granted(FencingToken),
    /// The lock is not free, and the request does not wait.
    Busy,
    /// Its time to wait expired.
    TimedOut,
    /// It no longer has the lock, or no longer waits.
    Lost(Loss),
}

/// Why a lock or a leadership was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum Loss {
    /// This process can reach no quorum of the view: other members may have gone on.
    #[error("no majority of the view can be reached: others may have the lock by now")]
    NoMajority,
    /// This process is out of the view.
    #[error("this process was removed from the view: others may have the lock by now")]
    Removed,
    /// The data path of this process stands still: other members have gone on without it.
    #[error("the data path of this process stands still: others may have the lock by now")]
    Stalled,
    /// The member that grants it has no room for another name.
    #[error("the group keeps as many locks as it can")]
    TooMany,
}

/// How a process takes part in an election.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Participation {
    /// It receives news of the leader.
    Watch,
    /// It may lead, and lets other processes begin the first election.
    StandBy,
    /// It may lead, and begins an election if there is no leader.
    Campaign,
}

/// A leader and its token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leadership {
    /// The member that leads.
    pub leader: Rank,
    /// Grows with each leadership.
    pub token: FencingToken,
}

/// News of locks and elections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coordination {
    /// News of a request of this process.
    Lock(LockId, LockNews),
    /// News of an election that this process takes part in: the leader now, if there is one.
    Leader(TopicName, Option<Leadership>),
    /// This process led and no longer does, though it did not resign.
    Deposed(TopicName, Loss),
}

/// Why a lock can't be requested or an election can't be joined. Nothing was begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CoordinationRefusal {
    /// The process is in no view.
    #[error("this process is in no view: locks and elections are for members")]
    Outside,
    /// The group is still forming.
    #[error("the group is still forming: not every member has been heard")]
    Forming,
    /// The process can reach no quorum of the view.
    #[error(
        "no majority of the view can be reached: restore the network, or let members that are paused go on; where a \
             majority is gone for good, run `bourdon recover` beside a survivor"
    )]
    NoMajority,
    /// The group's messages have no order that all members agree on.
    #[error(
        "replicated locks need total order, reliable or above: configure the group so, or choose mutex = \"central\", \
             \"lamport\", \"ricart-agrawala\" or \"token-ring\""
    )]
    NeedsTotalOrder,
    /// Too many names, or too many requests for one.
    #[error("at most {NAMES_MAX} names and {REQUESTS_MAX} requests for locks at a time at one process")]
    TooMany,
}
