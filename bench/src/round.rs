//! One round of one system: its ends are started, measured, and ended.
//!
//! Far ends start first, and all that start wait for each other: some systems connect the publisher to its receivers,
//! some the receivers to their publisher. The measurement begins when all are ready.

use crate::Failure;
use crate::hosts::{Hosts, address};
use crate::row::histogram_of;
use crate::script::now_ns;
use crate::systems::System;
use crate::worker::{Found, Spec, Worker, WorkerKind};
use serde_json::Value;
use std::time::Duration;

/// The figures of all ends in one round.
#[derive(Clone, Debug, Default)]
pub(crate) struct Round {
    pub(crate) near: Found,
    /// Of far ends that have figures: receivers, and the one process of a pair.
    pub(crate) far: Vec<Found>,
    /// How the system is configured, where it reports that.
    pub(crate) described: Value,
}

impl Round {
    /// Measures one round of a system: a near end by this spec, and far ends of this kind. Once begun, every end has
    /// this long until its report.
    pub(crate) fn measure(system: &System, near: &Spec, far: WorkerKind, limit: Duration) -> Result<Self, Failure> {
        Self::measure_between(None, system, near, far, limit)
    }

    /// As [`Self::measure`], with each end on a host of its own if there are hosts.
    pub(crate) fn measure_between(
        hosts: Option<&Hosts>,
        system: &System,
        near: &Spec,
        far: WorkerKind,
        limit: Duration,
    ) -> Result<Self, Failure> {
        // Systems name files after the group, and those of the round before may not have been removed yet.
        let group = format!("{}-{}", near.group, now_ns());
        let start = |role: WorkerKind, core: usize| {
            let host = hosts.map(|hosts| (hosts, core as u16));
            let own_address = host.map_or(near.own_address, |(_, index)| address(index));
            let spec = Spec { role, core, own_address, group: group.clone(), ..system.spec(near) };
            Worker::start_by(&mut system.command(host), &spec)
        };
        let far_ends = (0..usize::from(near.receivers)).map(|index| start(far, 1 + index));
        let mut far_ends = far_ends.collect::<Result<Vec<_>, _>>()?;
        let joins = system.storm.is_some_and(|storm| storm.joins_per_s.is_some());
        let mut joiners = joins.then(|| start(WorkerKind::Joiners, 2)).transpose()?;
        let mut near_end = start(near.role, 0)?;
        let measured = Self::run(&mut near_end, &mut far_ends, joiners.as_mut(), far, limit);
        // An end that misses another one reports only that: a crash is the cause.
        let mut ends = far_ends.iter_mut().chain([&mut near_end]).chain(&mut joiners);
        measured.map_err(|failure| ends.find_map(Worker::crash).unwrap_or(failure))
    }

    /// Measures between ends that have been started.
    fn run(
        near: &mut Worker,
        far_ends: &mut [Worker],
        mut joiners: Option<&mut Worker>,
        far: WorkerKind,
        limit: Duration,
    ) -> Result<Self, Failure> {
        far_ends.iter_mut().try_for_each(Worker::wait_until_ready)?;
        joiners.iter_mut().try_for_each(|joiners| joiners.wait_until_ready())?;
        near.wait_until_ready()?;
        near.begin();
        joiners.iter_mut().for_each(|joiners| joiners.begin());
        // A near end that waits for a reply does not know why none comes; the far end does.
        let found = near.found(limit);
        let found = found.map_err(|failure| far_ends.iter_mut().find_map(Worker::failure).unwrap_or(failure))?;
        let mut round = Self { near: found, ..Self::default() };
        if let (Some(joiners), Some(node)) = (joiners, &mut round.near.node) {
            node.joins = joiners.found(limit)?.node.and_then(|found| found.joins);
        }
        match far {
            WorkerKind::Receiver => {
                round.far = far_ends.iter_mut().map(|end| end.found(limit)).collect::<Result<_, _>>()?;
            }
            WorkerKind::Pair => round.far = vec![std::mem::take(&mut round.near)],
            _ => {}
        }
        round.described = near.described().clone();
        Ok(round)
    }

    /// A quantile of the near end's round trips.
    pub(crate) fn rtt_ns(&self, quantile: f64) -> f64 {
        histogram_of(&self.near.latency_ns).value_at_quantile(quantile) as f64
    }

    /// Messages a second that the slowest receiver took.
    pub(crate) fn rate(&self) -> f64 {
        let rate = |found: &Found| found.received as f64 * 1e9 / found.elapsed_ns.max(1) as f64;
        self.far.iter().map(rate).fold(f64::INFINITY, f64::min)
    }

    /// Messages that a receiver did not get, added over the receivers.
    pub(crate) fn lost(&self) -> u64 {
        let sent = |found: &Found| self.near.sent.max(found.sent);
        self.far.iter().map(|found| sent(found).saturating_sub(found.received)).sum()
    }

    /// CPU time of all ends.
    pub(crate) fn cpu_ns(&self) -> u64 {
        self.near.cpu_ns + self.far.iter().map(|found| found.cpu_ns).sum::<u64>()
    }
}

/// Reports that a round begins: a run of minutes would look as if it hung.
pub(crate) fn announce(index: u32, rounds: u32, what: &str) {
    eprintln!("round {index} of {rounds}: {what}");
}

/// The settings that a row over these rounds of a system reports.
pub(crate) fn settings<'a>(system: &System, spec: &Spec, rounds: impl IntoIterator<Item = &'a Round>) -> Value {
    let mut settings = system.spec(spec).settings();
    let mut rounds = rounds.into_iter().peekable();
    settings["peer"] = rounds.peek().map_or(Value::Null, |round| round.described.clone());
    settings["rounds"] = rounds.count().into();
    settings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slowest_receiver_counts_and_every_loss() {
        let far = |received, elapsed_ns| Found { received, elapsed_ns, ..Found::default() };
        let near = Found { sent: 100, ..Found::default() };
        let round = Round { near, far: vec![far(100, 1_000), far(90, 9_000), far(99, 1_000)], ..Round::default() };
        assert_eq!((round.rate() as u64, round.lost()), (10_000_000, 11));
    }
}
