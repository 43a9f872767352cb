//! What applications do with locks and elections, in plans that have them.
//!
//! Applications request locks beside the ordinary messages. They hold them for a while, lose patience, resign and come
//! again. The algorithm is part of the plan, because each member must run the same.

use bourdon_protocol::{ElectionKind, MutexKind, Participation};
use bourdon_wire::TopicName;
use serde::{Deserialize, Serialize};
use std::fmt;

/// The names of locks and of elections.
const NAMES: [&str; 2] = ["sim.one", "sim.two"];

/// The algorithms that a run's plan must have; the seed draws those that are left open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kinds {
    /// The algorithm that grants locks.
    pub mutex: Option<MutexKind>,
    /// The algorithm that elects leaders.
    pub election: Option<ElectionKind>,
}

/// What applications do with locks and elections.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LockPlan {
    /// The algorithm that grants locks.
    pub mutex: MutexKind,
    /// The algorithm that elects leaders.
    pub election: ElectionKind,
    /// How many locks, and how many elections, there are: 1 or 2.
    pub names: usize,
    /// Members that ask for locks.
    pub askers: Vec<u16>,
    /// How often each of them asks.
    pub entries: u32,
    /// How long a lock is held at most.
    pub hold_ns: u64,
    /// How long a member waits at most before it asks again.
    pub pause_ns: u64,
    /// Of all requests: only if the lock is free.
    pub try_permille: u32,
    /// Of all requests: with a deadline.
    pub deadline_permille: u32,
    /// Of all requests: withdrawn, if the application waits too long for the lock.
    pub cancel_permille: u32,
    /// How long such requests wait at most.
    pub patience_ns: u64,
    /// Members that campaign.
    pub campaigners: Vec<u16>,
    /// Members that stand by. All others only watch.
    pub standbys: Vec<u16>,
    /// How long a leader leads at most before it resigns; 0 if it never does.
    pub resign_ns: u64,
}

impl fmt::Display for Kinds {
    /// As options of the command line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.mutex.map_or(Ok(()), |mutex| write!(f, " --locks {mutex}"))?;
        self.election.map_or(Ok(()), |election| write!(f, " --election {election}"))
    }
}

impl LockPlan {
    /// Checks that this many members can play it.
    pub(super) fn check(&self, members: u16) -> Result<(), String> {
        if !(1..=NAMES.len()).contains(&self.names) {
            return Err(format!("locks.names must be 1 to {}", NAMES.len()));
        }
        let named = [&self.askers, &self.campaigners, &self.standbys];
        if named.into_iter().flatten().any(|member| *member >= members) {
            return Err("askers, campaigners and standbys must be members".into());
        }
        Ok(())
    }

    /// The lock, or the election, of this number.
    pub(crate) fn name(place: usize) -> TopicName {
        TopicName::new(NAMES[place]).expect("a valid name")
    }

    /// The number of this lock or election.
    pub(crate) fn place(name: &TopicName) -> Option<usize> {
        (0..NAMES.len()).find(|place| Self::name(*place) == *name)
    }

    /// The part a member takes in elections.
    pub(crate) fn participation(&self, member: u16) -> Participation {
        if self.campaigners.contains(&member) {
            Participation::Campaign
        } else if self.standbys.contains(&member) {
            Participation::StandBy
        } else {
            Participation::Watch
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_algorithm_has_a_name_that_finds_it() {
        for mutex in MutexKind::ALL {
            assert_eq!(mutex.to_string().parse(), Ok(mutex));
            assert_eq!(serde_json::to_value(mutex).unwrap(), mutex.name());
        }
        for election in ElectionKind::ALL {
            assert_eq!(election.to_string().parse(), Ok(election));
            assert_eq!(serde_json::to_value(election).unwrap(), election.name());
        }
        assert!("bakery".parse::<MutexKind>().is_err_and(|why| why.contains("ricart-agrawala")));
        assert!("lottery".parse::<ElectionKind>().is_err_and(|why| why.contains("bully")));
        let kinds = Kinds { mutex: Some(MutexKind::Lamport), election: Some(ElectionKind::Ring) };
        assert_eq!(kinds.to_string(), " --locks lamport --election ring");
    }
}
