//! Families of plans that are as unkind as real hosts, by their names on the command line.

use super::Plan;
use std::fmt;
use std::str::FromStr;

/// A family of plans.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// Links that stall as TCP does under loss, and long pauses.
    Stalled,
}

impl Family {
    /// Every family.
    pub const ALL: [Self; 1] = [Self::Stalled];

    fn name(self) -> &'static str {
        match self {
            Self::Stalled => "stalled",
        }
    }

    /// What a seed draws of it.
    pub fn draw(self, seed: u64) -> Plan {
        match self {
            Self::Stalled => Plan::stalled(seed),
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Family {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|family| family.name() == text);
        found.ok_or_else(|| format!("{text:?} is no family; there are: {}", Self::ALL.map(Self::name).join(", ")))
    }
}
