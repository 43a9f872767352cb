//! A set of members, by rank, in one word.
//!
//! A number that stands for a set is easily read as a rank: 2 for member 1. So what an application gets is a type that
//! names its members wherever it is printed, by `Debug` as well: a program whose `main` returns an error prints that.

use crate::view::bit;
use bourdon_wire::Rank;
use core::fmt::{Debug, Display, Formatter, Result};

/// A set of members: bit r is that of rank r.
///
/// ```
/// # extern crate bourdon_protocol as bourdon;
/// # mod id { pub use bourdon_wire::Rank; }
/// # mod event { pub use super::bourdon::Ranks; }
/// use event::Ranks;
///
/// let waits_for: Ranks = [id::Rank(1), id::Rank(3)].into_iter().collect();
/// assert!(waits_for.contains(id::Rank(3)) && waits_for == Ranks(0b1010));
/// assert_eq!(format!("{waits_for} {waits_for:?}"), "1, 3 members 1, 3");
/// ```
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Ranks(pub u64);

impl Ranks {
    /// The ranks, the lowest first.
    pub fn iter(self) -> impl Iterator<Item = u16> {
        (0..64).filter(move |rank| self.0 >> rank & 1 == 1)
    }

    /// Whether a member is in it.
    pub fn contains(self, rank: Rank) -> bool {
        self.0 & bit(rank) != 0
    }

    /// How many members are in it.
    pub fn len(self) -> u32 {
        self.0.count_ones()
    }

    /// Whether no member is in it.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// What to call them in a sentence.
    pub(crate) fn word(self) -> &'static str {
        if self.len() == 1 { "member" } else { "members" }
    }
}

impl FromIterator<Rank> for Ranks {
    fn from_iter<T: IntoIterator<Item = Rank>>(ranks: T) -> Self {
        Self(ranks.into_iter().fold(0, |bits, rank| bits | bit(rank)))
    }
}

impl Display for Ranks {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let mut separator = "";
        for rank in self.iter() {
            write!(f, "{separator}{rank}")?;
            separator = ", ";
        }
        Ok(())
    }
}

impl Debug for Ranks {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        if self.is_empty() { f.write_str("no member") } else { write!(f, "{} {self}", self.word()) }
    }
}
