//! Bourdon's own locks, by each of its algorithms.
//!
//! The group's members request the lock for themselves, each in a separate process (`coordination.rs`). If one member
//! requests it, it is the second oldest, neither coordinator nor sequencer, so that no message is saved.

use super::clients::{Entry, judge};
use super::{BOURDON, Limits, Load, Round, Running, System};
use crate::coordination::{Group, MemberReport, Order, settings};
use crate::script::now_ns;
use crate::settings::Mode;
use crate::{Failure, Idle};
use bourdon::settings::{ElectionKind, MutexKind, Settings as NodeSettings};
use serde_json::{Value, json};

/// Entries before any are counted.
const WARM_UP: u64 = 20;
/// The member that requests the lock if only one does.
const ALONE: u16 = 1;

/// One of Bourdon's algorithms, as a system to measure.
pub(crate) struct Bourdon {
    algorithm: MutexKind,
    settings: NodeSettings,
    mode: Mode,
    idle: Idle,
}

impl Bourdon {
    pub(crate) fn new(algorithm: MutexKind, members: u16, mode: Mode, idle: Idle) -> Self {
        Self { algorithm, settings: settings(members, algorithm, ElectionKind::Bully, idle), mode, idle }
    }
}

impl System for Bourdon {
    fn name(&self) -> &'static str {
        BOURDON
    }

    fn algorithm(&self) -> &'static str {
        self.algorithm.name()
    }

    fn members(&self) -> u16 {
        self.settings.group.members
    }

    fn settings(&self) -> Value {
        json!({
            "order": self.settings.group.order,
            "reliability": self.settings.group.reliability,
            "idle": self.idle,
            "mode": self.mode,
            "interface": "lo",
            "asks": "each member for itself; alone, a member that is neither coordinator nor sequencer",
            "storage": "none: what a majority has in memory is agreed",
        })
    }

    fn start(&self) -> Result<Box<dyn Running>, Failure> {
        Ok(Box::new(RunningGroup { group: Group::start(self.settings.clone(), self.mode)?, members: self.members() }))
    }
}

/// The times at which a member requested, got and left the lock, for each entry; and its messages since its last
/// report.
type Played = (Vec<[u64; 3]>, Option<u64>);

struct RunningGroup {
    group: Group,
    members: u16,
}

impl RunningGroup {
    fn enter(&mut self, load: Load, entries: u64, until_ns: u64) -> Result<Vec<Played>, Failure> {
        let clients = (load.clients() as u16).min(self.members);
        let share = entries.div_ceil(u64::from(clients));
        let plays = |rank: u16| match load {
            Load::Uncontended => rank == ALONE % self.members,
            Load::Contended => rank < clients,
        };
        let order = |rank| Order::Enter { entries: if plays(rank) { share } else { 0 }, until_ns };
        self.group.play(order, |report| match report {
            MemberReport::Entered { entries, messages } => Some((entries.clone(), *messages)),
            _ => None,
        })
    }
}

impl Running for RunningGroup {
    fn round(&mut self, load: Load, limits: &Limits) -> Result<Round, Failure> {
        let until_ns = now_ns() + limits.duration.as_nanos() as u64;
        self.enter(load, WARM_UP, until_ns)?;
        // A member that was done first did not count its later messages.
        self.enter(load, 0, until_ns)?;
        let mut found = self.enter(load, limits.entries, now_ns() + limits.duration.as_nanos() as u64)?;
        let rest = self.enter(load, 0, until_ns)?;
        let sum = |(found, rest): (Option<u64>, Option<u64>)| Some(found? + rest?);
        found.iter_mut().zip(rest).for_each(|(found, rest)| found.1 = sum((found.1, rest.1)));
        let entries: Vec<Entry> = found
            .iter()
            .enumerate()
            .flat_map(|(client, (entries, _))| {
                entries.iter().map(move |[asked_ns, got_ns, left_ns]| Entry {
                    client,
                    asked_ns: *asked_ns,
                    got_ns: *got_ns,
                    left_ns: *left_ns,
                })
            })
            .collect();
        let count = entries.len() as f64;
        let messages: Option<u64> = found.iter().map(|(_, messages)| *messages).sum();
        let messages_per_entry = messages.filter(|_| count > 0.0).map(|messages| messages as f64 / count);
        Ok(Round { messages_per_entry, ..judge(entries)? })
    }
}
