//! Invariants that are written down before the protocol keeps them. Each is judged on demand, by its name.
//!
//! A checker that fails on every third seed hides all other failures; a checker that waits in a branch is lost. So a
//! new invariant is judged where `--demand` names it, until the change that keeps it puts it into [`Demands::KEPT`].
//! From then on every run is judged by it. Today every demand is kept except one, which seeds still break: `observers`.

use std::fmt;
use std::str::FromStr;

/// An invariant that is judged on demand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Demand {
    /// The members that continue into a view are a quorum of the view before; voluntary leavers count as consenting.
    Continuation,
    /// A group that is lost has lost a quorum of a view, not merely of a view that itself was no quorum of the view
    /// before.
    Survival,
    /// An incarnation that is removed from a view has not died: the group that needs its decision goes on.
    Decision,
    /// A gap or a retraction at an observer has a cause that no retention could cure.
    Observers,
    /// Nothing of another instance of the group changes any state.
    Instance,
    /// A token granted after a restart of the whole group is greater than every token before it.
    Tokens,
}

impl Demand {
    /// Every demand.
    pub const ALL: [Self; 6] =
        [Self::Continuation, Self::Survival, Self::Decision, Self::Observers, Self::Instance, Self::Tokens];

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Continuation => "continuation",
            Self::Survival => "survival",
            Self::Decision => "decision",
            Self::Observers => "observers",
            Self::Instance => "instance",
            Self::Tokens => "tokens",
        }
    }
}

/// What is demanded of a run beyond the invariants that every run is judged by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Demands(u8);

impl Demands {
    /// The demands that the protocol keeps: every run is judged by them.
    pub const KEPT: Self = Self(Self::ALL.0 & !(1 << Demand::Observers as u8));
    /// Every demand.
    pub const ALL: Self = Self(u8::MAX >> (8 - Demand::ALL.len()));

    /// With one more.
    #[must_use]
    pub fn with(self, demand: Demand) -> Self {
        Self(self.0 | 1 << demand as u8)
    }

    /// Whether this is demanded.
    pub fn has(self, demand: Demand) -> bool {
        self.0 & 1 << demand as u8 != 0
    }
}

impl Default for Demands {
    fn default() -> Self {
        Self::KEPT
    }
}

impl fmt::Display for Demands {
    /// As options of the command line: what is demanded beyond what is kept.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let demanded = Demand::ALL.into_iter().filter(|demand| self.has(*demand) && !Self::KEPT.has(*demand));
        demanded.into_iter().try_for_each(|demand| write!(f, " --demand {}", demand.name()))
    }
}

impl FromStr for Demands {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "all" {
            return Ok(Self::ALL);
        }
        let found = Demand::ALL.into_iter().find(|demand| demand.name() == text);
        found.map(|demand| Self::KEPT.with(demand)).ok_or_else(|| {
            let names = Demand::ALL.map(Demand::name).join(", ");
            format!("{text:?} is no demand; there are: all, {names}")
        })
    }
}

impl std::ops::BitOr for Demands {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_demand_has_a_name_that_finds_it() {
        for demand in Demand::ALL {
            let found: Demands = demand.name().parse().unwrap();
            assert!(found.has(demand) && Demands::ALL.has(demand));
        }
        assert_eq!("all".parse(), Ok(Demands::ALL));
        assert!("wishes".parse::<Demands>().is_err_and(|why| why.contains("continuation")));
    }
}
