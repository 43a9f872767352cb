//! Families of plans that are as unkind as real hosts, by their names on the command line.

use super::Plan;
use std::fmt;
use std::str::FromStr;

/// A family of plans.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// Links that stall as TCP does under loss, and long pauses.
    Stalled,
    /// Members that leave over links that stall, and end.
    Departed,
    /// Restarts of the whole group, and datagrams and members that come back from before them.
    Restarted,
    /// Members lost in quick succession, with observers that lag behind.
    Observed,
    /// Observers that begin live while clients change members.
    Late,
    /// Paths on which long datagrams vanish and short ones pass.
    Narrow,
    /// Groups that have lost their majority, and are made again by hand; or are taken for lost.
    Recovered,
    /// Hosts that get other addresses.
    Moved,
    /// Observers that publishers wait for.
    Gated,
    /// Observers that lose much, and for which publishers send more slowly.
    Paced,
    /// Locks and elections that are decided beside the processes.
    Apart,
    /// Members that lean on the detectors of another group, which are wrong at times.
    Judged,
    /// Competing ballots.
    Duels,
    /// Views that change all the time.
    Turbulent,
    /// Members that store what they report to others, and crash and come back with it.
    Durable,
    /// Paths on which long datagrams vanish for seconds while nothing else goes wrong.
    BlackHole,
}

impl Family {
    /// Every family, the unkind first.
    pub const ALL: [Self; 16] = [
        Self::Stalled,
        Self::Departed,
        Self::Restarted,
        Self::Observed,
        Self::Late,
        Self::Narrow,
        Self::Recovered,
        Self::Moved,
        Self::Gated,
        Self::Paced,
        Self::Apart,
        Self::Judged,
        Self::Duels,
        Self::Turbulent,
        Self::BlackHole,
        Self::Durable,
    ];

    /// The families that are as unkind as real hosts, in turn.
    pub fn unkind(turn: u64) -> Self {
        const UNKIND: usize = 7;
        Self::ALL[turn as usize % UNKIND]
    }

    fn name(self) -> &'static str {
        match self {
            Self::Stalled => "stalled",
            Self::Departed => "departed",
            Self::Restarted => "restarted",
            Self::Observed => "observed",
            Self::Late => "late",
            Self::Narrow => "narrow",
            Self::Recovered => "recovered",
            Self::Moved => "moved",
            Self::Gated => "gated",
            Self::Paced => "paced",
            Self::Apart => "apart",
            Self::Judged => "judged",
            Self::Duels => "duels",
            Self::Turbulent => "turbulent",
            Self::BlackHole => "black-hole",
            Self::Durable => "durable",
        }
    }

    /// What a seed draws of this family.
    pub fn draw(self, seed: u64) -> Plan {
        match self {
            Self::Stalled => Plan::stalled(seed),
            Self::Departed => Plan::departed(seed),
            Self::Restarted => Plan::restarted(seed),
            Self::Observed => Plan::observed(seed),
            Self::Late => Plan::late(seed),
            Self::Narrow => Plan::narrow(seed),
            Self::Recovered => Plan::recovered(seed),
            Self::Moved => Plan::moved(seed),
            Self::Gated => Plan::gated(seed),
            Self::Paced => Plan::paced(seed),
            Self::Apart => Plan::apart(seed),
            Self::Judged => Plan::judged(seed),
            Self::Duels => Plan::duel(seed),
            Self::Turbulent => Plan::turbulent(seed),
            Self::BlackHole => Plan::black_hole(seed),
            Self::Durable => Plan::durable(seed),
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
