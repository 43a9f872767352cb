//! Bourdon's own elections, by each of its algorithms.
//!
//! All members stand. The leader's process is killed; its closed connections inform the others at once, a view change
//! removes it, and the next leader is elected. The end is when the last survivor knows the next leader.

use super::{BOURDON, FailOver, Running, System};
use crate::coordination::{Group, Order, settings};
use crate::settings::Mode;
use crate::{Failure, Idle};
use bourdon::settings::{ElectionKind, MutexKind, Settings as NodeSettings};
use serde_json::{Value, json};
use std::time::Duration;

/// How long a group is whole before the fault, as in `detect`: connections are open by then, and heartbeats are
/// regular.
const CALM: Duration = Duration::from_millis(200);

/// One of Bourdon's algorithms, as a system to measure.
pub(crate) struct Bourdon {
    algorithm: ElectionKind,
    settings: NodeSettings,
    mode: Mode,
    idle: Idle,
}

impl Bourdon {
    pub(crate) fn new(algorithm: ElectionKind, members: u16, mode: Mode, idle: Idle) -> Self {
        Self { algorithm, settings: settings(members, MutexKind::Replicated, algorithm, idle), mode, idle }
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
            "idle": self.idle,
            "mode": self.mode,
            "interface": "lo",
            "profile": self.settings.detector.profile,
            "noticed": "by the kernel closing the dead process's connections, as on one host or a live one",
            "calm_ns": CALM.as_nanos() as u64,
            "fault": "SIGKILL to the leader's process",
            "until": "the last survivor knows the next leader",
            "storage": "none",
        })
    }

    fn start(&self) -> Result<Box<dyn Running>, Failure> {
        let members: Vec<u16> = (0..self.members()).collect();
        let mut group = Group::start(self.settings.clone(), self.mode)?;
        for rank in &members {
            group.send(*rank, Order::Stand)?;
        }
        group.until_led(None, &members)?;
        Ok(Box::new(RunningGroup { group, members }))
    }
}

struct RunningGroup {
    group: Group,
    members: Vec<u16>,
}

impl Running for RunningGroup {
    fn fail_over(&mut self) -> Result<FailOver, Failure> {
        let (before, _) = self.group.until_led(None, &self.members)?;
        let victim = before.rank;
        let survivors: Vec<u16> = self.members.iter().copied().filter(|rank| *rank != victim).collect();
        std::thread::sleep(CALM);
        let report = self.group.messages(&survivors)?;
        let killed_ns = self.group.kill(victim)?;
        let (_, known_ns) = self.group.until_led(Some(before), &survivors)?;
        let messages = self.group.messages(&survivors)?.zip(report).map(|(after, before)| after - before);
        self.group.restart(victim)?;
        self.group.send(victim, Order::Stand)?;
        self.group.until_led(Some(before), &self.members)?;
        Ok(FailOver { fault_to_leader_ns: known_ns.saturating_sub(killed_ns), messages })
    }
}
