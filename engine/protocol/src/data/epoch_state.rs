//! How far an epoch is from its end: open, wedged by a promise, fetching a proposed cut, or decided.
//!
//! Only [`super::cut`] changes this state; the code that receives, requests or delivers datagrams reads it.

use super::repair::Wanted;
use crate::values::cut::Cut;
use crate::values::handover::BallotNumber;
use bourdon_wire::Rank;

/// How close an epoch is to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum EpochState {
    /// It continues.
    Open,
    /// A ballot was promised.
    Wedged,
    /// A cut was proposed, in the ballot promised last, and is being fetched.
    Fetching(BallotNumber, Cut),
    /// A cut was decided: it is fetched and delivered.
    Decided(Cut),
}

impl EpochState {
    /// Whether it continues: checked for every datagram and message.
    #[inline]
    pub(crate) fn is_open(&self) -> bool {
        matches!(self, Self::Open)
    }

    /// Which datagrams of a stream are requested if missing.
    pub(crate) fn wanted(&self, rank: Rank) -> Wanted<'_> {
        match self {
            Self::Open | Self::Wedged => Wanted::All,
            Self::Fetching(_, cut) | Self::Decided(cut) => {
                Wanted::Cut(cut.ends.get(rank.index()).copied().unwrap_or_default(), rank, &cut.ranges)
            }
        }
    }
}
