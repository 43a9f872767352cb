//! A run of the total order: messages of one sender that come next, one after another.

use bourdon_wire::{Rank, Sequence};

/// `count` messages of `rank` from `first` come next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) rank: Rank,
    pub(crate) first: Sequence,
    pub(crate) count: u32,
}
