//! Round trips at a rate, by the rules of Aeron's own benchmarks (github.com/aeron-io/benchmarks).
//!
//! A closed loop, in which each message waits for the reply to the one before, shows a system only when it is idle.
//! Here messages are due at a rate, in bursts, whether or not the system keeps up (`load/client.rs`); each carries the
//! time at which it was due, and an echo sends it back. A warm-up at 10,000 messages a second at most comes first, then
//! the iterations, whose replies go into one histogram.
//!
//! A round that sent less than 99 % of what was due, lost a reply, or got replies out of order is no result: its row is
//! `valid: false`, and it enters no ratio. Neither does a round in which a system crashed or gave up.
//!
//! With `--locks`, `--elections` and `--joins` Bourdon is measured twice in each round: undisturbed, and beside a storm
//! of requests (`storm.rs`) and of members that join and leave (`joins.rs`).

mod client;

pub(crate) use client::client;

use crate::round::Round;
use crate::row::{Latency, Ratio, Row, histogram_of, median, show};
use crate::schedule::{Iteration, Shape};
use crate::settings::Mode;
use crate::storm::{NodeFigures, Requests, Storm};
use crate::systems::System;
use crate::worker::{Spec, WorkerKind};
use crate::{Common, Failure, Peer, round};
use bourdon::settings::Settings as NodeSettings;
use clap::Args;
use serde_json::{Map, Value, json};
use std::time::Duration;

/// What can be measured beside Bourdon here.
const PEERS: &[Peer] = &[Peer::Raw, Peer::Aeron, Peer::AeronIpc, Peer::Iceoryx2, Peer::Zeromq, Peer::Nats];
/// The share of what was due that must have been sent.
const SENT_SHARE: f64 = 0.99;
/// How much longer than its load a round may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// What is measured and how
#[derive(Clone, Debug, Args)]
pub(crate) struct Settings {
    #[command(flatten)]
    common: Common,
    /// Messages due a second
    #[arg(
        long,
        value_name = "R",
        default_value_t = 10_000,
        value_parser = clap::value_parser!(u64).range(1..=100_000_000),
    )]
    rate: u64,
    /// Messages due at once
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    burst: u64,
    /// Iterations
    #[arg(long, value_name = "K", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1000))]
    iterations: u32,
    /// Seconds of an iteration
    #[arg(long, value_name = "S", default_value_t = 1.0, value_parser = seconds)]
    seconds: f64,
    /// Seconds before the first iteration, at --rate or 10,000 messages a second if that is less
    #[arg(long, value_name = "S", default_value_t = 10.0, value_parser = seconds)]
    warm_up: f64,
    /// Run the node in the measuring thread, or in a thread of its own behind rings
    #[arg(long, value_enum, default_value = "inline")]
    mode: Mode,
    /// Requests for locks a second, each given back once it is granted: measured beside the undisturbed load, with
    /// `--mode threaded`
    #[arg(long, value_name = "R", value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    locks: Option<u64>,
    /// Candidacies a second, each given up once it leads: as `--locks`
    #[arg(long, value_name = "R", value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    elections: Option<u64>,
    /// Members that join and leave a second, in a process of their own: as `--locks`
    #[arg(long, value_name = "R", value_parser = clap::value_parser!(u64).range(1..=1_000))]
    joins: Option<u64>,
}

/// Reads a number of seconds.
fn seconds(text: &str) -> Result<f64, String> {
    let seconds: f64 = text.parse().map_err(|error| format!("{error}"))?;
    let valid = (0.0..=3600.0).contains(&seconds);
    valid.then_some(seconds).ok_or_else(|| "take 0 to 3600 seconds".to_owned())
}

/// What one system's round came to: its figures, or why it has none.
type Outcome = Result<Round, String>;

impl Settings {
    fn shape(&self) -> Result<Shape, Failure> {
        let shape = Shape {
            rate_per_s: self.rate,
            burst: self.burst,
            warm_up_ns: (self.warm_up * 1e9) as u64,
            iterations: self.iterations,
            iteration_ns: (self.seconds * 1e9) as u64,
        };
        if shape.measured().within(shape.iteration_ns) < self.burst {
            return Err(Failure::Unusable(format!(
                "an iteration of {} s at {} messages/s is shorter than a burst of {}: raise --seconds or --rate, or \
                 lower --burst",
                self.seconds, self.rate, self.burst
            )));
        }
        Ok(shape)
    }

    /// What is asked of Bourdon beside the messages, if anything.
    fn storm(&self) -> Result<Option<Storm>, Failure> {
        if [self.locks, self.elections, self.joins].iter().all(Option::is_none) {
            return Ok(None);
        }
        if self.mode == Mode::Inline {
            return Err(Failure::Unusable(
                "--locks, --elections and --joins are for a node with threads of its own: add --mode threaded".into(),
            ));
        }
        if let Some(peer) = self.common.peer.first() {
            return Err(Failure::Unusable(format!(
                "{} has no locks, elections and views: leave out --peer, or --locks, --elections and --joins",
                peer.name()
            )));
        }
        Ok(Some(Storm { locks_per_s: self.locks, elections_per_s: self.elections, joins_per_s: self.joins }))
    }

    /// The systems of a run: Bourdon, then Bourdon in its storm, or its peers.
    fn systems(&self) -> Result<Vec<System>, Failure> {
        let Some(storm) = self.storm()? else { return self.common.systems(PEERS, &[Peer::Raw], &[]) };
        let mut systems = self.common.systems(PEERS, &[], &[])?;
        systems.push(systems[0].in_storm(storm));
        Ok(systems)
    }
}

/// Why a round is no result.
fn objection(round: &Round) -> Option<String> {
    let found = &round.near;
    if (found.sent as f64) < SENT_SHARE * found.due as f64 {
        return Some(format!("{} of {} messages that were due were sent: the rate was missed", found.sent, found.due));
    }
    if found.lost > 0 {
        return Some(format!("{} of {} replies did not come", found.lost, found.sent));
    }
    if found.out_of_order > 0 {
        return Some(format!("{} replies came out of order", found.out_of_order));
    }
    let node = found.node.as_ref()?;
    let weak = |what: &str, requests: &Requests| {
        let Requests { due, made, granted, .. } = *requests;
        // The end may come just before the last one is made.
        let weak = ((made + 1) as f64) < SENT_SHARE * due as f64 || granted == 0;
        weak.then(|| format!("of {due} {what} that were due {made} were made and {granted} granted: this is no storm"))
    };
    let kinds = [("requests for locks", node.locks), ("candidacies", node.elections), ("joins", node.joins)];
    kinds.iter().find_map(|(what, requests)| weak(what, requests.as_ref()?))
}

/// Measures round trips at a rate and prints the result.
pub(crate) fn run(settings: &Settings) -> Result<(), Failure> {
    let (common, shape) = (&settings.common, settings.shape()?);
    let spec = Spec { load: Some(shape), mode: settings.mode, ..Spec::new(common, WorkerKind::Client, 0) };
    let limit = PATIENCE + Duration::from_nanos(shape.warm_up_ns + shape.measured_ns());
    let systems = settings.systems()?;
    let mut outcomes: Vec<Vec<Outcome>> = systems.iter().map(|_| Vec::new()).collect();
    for index in 1..=common.rounds {
        for (system, outcomes) in systems.iter().zip(&mut outcomes) {
            round::announce(index, common.rounds, &system.name());
            outcomes.push(match Round::measure(system, &spec, WorkerKind::Echo, limit) {
                Ok(round) => Ok(round),
                Err(Failure::Broken(why)) => Err(why),
                Err(unusable) => return Err(unusable),
            });
        }
    }
    let rows: Vec<Row> =
        systems.iter().zip(&outcomes).map(|(system, outcomes)| row(settings, system, &spec, outcomes)).collect();
    show(common, &rows, &ratios(&systems, &outcomes))?;
    if !common.json {
        systems.iter().zip(&outcomes).filter_map(|(system, all)| node_text(system, all)).for_each(|line| {
            println!("{line}");
        });
    }
    let refused: Vec<String> =
        rows.iter().filter_map(|row| row.extra.get("error").and_then(Value::as_str)).map(str::to_owned).collect();
    match refused.first() {
        Some(_) if !common.json => Err(Failure::Broken(format!("no result: {}", refused.join("; ")))),
        _ => Ok(()),
    }
}

/// A round that is a result.
fn valid(outcome: &Outcome) -> Option<&Round> {
    outcome.as_ref().ok().filter(|round| objection(round).is_none())
}

/// Bourdon's times over each peer's, and those in a storm over the undisturbed ones, in the rounds in which both are
/// results.
fn ratios(systems: &[System], outcomes: &[Vec<Outcome>]) -> Vec<Ratio> {
    let mut ratios = Vec::new();
    for (system, theirs) in systems.iter().zip(outcomes).skip(1) {
        let pairs = outcomes[0].iter().zip(theirs);
        let mut pairs: Vec<(&Round, &Round)> =
            pairs.filter_map(|(ours, theirs)| Some((valid(ours)?, valid(theirs)?))).collect();
        let mut name = format!("over {}", system.name());
        if system.storm.is_some() {
            pairs.iter_mut().for_each(|(undisturbed, stormy)| std::mem::swap(undisturbed, stormy));
            name = format!("of {} over {}", system.name(), systems[0].name());
        }
        for (quantile_name, quantile) in [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999)] {
            let rounds = pairs.iter().map(|(ours, theirs)| ours.rtt_ns(quantile) / theirs.rtt_ns(quantile)).collect();
            ratios.push(Ratio { what: format!("load rtt {quantile_name} {name}"), rounds });
        }
        if system.storm.is_some() {
            let longest = |round: &Round| round.near.node.as_ref()?.longest_cycle_ns.map(|ns| ns as f64);
            let rounds = pairs.iter().filter_map(|(ours, theirs)| Some(longest(ours)? / longest(theirs)?)).collect();
            ratios.push(Ratio { what: format!("load longest cycle {name}"), rounds });
        }
    }
    ratios
}

fn nodes(outcomes: &[Outcome]) -> impl Iterator<Item = &NodeFigures> {
    outcomes.iter().filter_map(|outcome| outcome.as_ref().ok()?.near.node.as_deref())
}

/// What became of all requests for locks, of all candidacies, and of all joins.
fn requests(outcomes: &[Outcome]) -> [(&'static str, Option<Requests>); 3] {
    let sum = |of: fn(&NodeFigures) -> Option<&Requests>| Requests::sum(nodes(outcomes).filter_map(of));
    [
        ("locks", sum(|node| node.locks.as_ref())),
        ("elections", sum(|node| node.elections.as_ref())),
        ("joins", sum(|node| node.joins.as_ref())),
    ]
}

/// A line about a node with threads of its own.
fn node_text(system: &System, outcomes: &[Outcome]) -> Option<String> {
    let us = |ns: Option<u64>| ns.map_or("-".to_owned(), |ns| format!("{:.1}", ns as f64 / 1e3));
    let ever = nodes(outcomes).map(|node| node.longest_cycle_ever_ns).max()?;
    let measured = nodes(outcomes).map(|node| node.longest_cycle_ns).max()?;
    let mut line = format!("{}: longest cycle {} µs, {} with the start", system.name(), us(measured), us(ever));
    for (what, requests) in requests(outcomes) {
        requests.iter().for_each(|requests| line.push_str(&format!("; {what}: {}", requests.text())));
    }
    Some(line)
}

/// What a row reports of a node with threads of its own.
fn node_object(outcomes: &[Outcome]) -> Map<String, Value> {
    let max = |figure: fn(&NodeFigures) -> Option<u64>| nodes(outcomes).filter_map(figure).max();
    let full: Vec<u64> = nodes(outcomes).filter_map(|node| node.control_full).collect();
    let mut keys = Map::new();
    keys.insert("longest_cycle_ns".into(), max(|node| node.longest_cycle_ns).into());
    keys.insert("longest_cycle_ever_ns".into(), max(|node| node.longest_cycle_ever_ns).into());
    keys.insert("control_full".into(), (!full.is_empty()).then(|| full.iter().sum::<u64>()).into());
    for (what, requests) in requests(outcomes) {
        keys.insert(what.into(), requests.map(|requests| requests.object()).into());
    }
    keys
}

/// A row over rounds: all replies, and why it is no result if it is none.
fn row(settings: &Settings, system: &System, spec: &Spec, outcomes: &[Outcome]) -> Row {
    let rounds = || outcomes.iter().filter_map(|outcome| outcome.as_ref().ok());
    let sum = |figure: fn(&Round) -> u64| rounds().map(figure).sum::<u64>();
    let error = outcomes.iter().find_map(|outcome| match outcome {
        Ok(round) => objection(round).map(|why| format!("{}: {why}", system.name())),
        Err(why) => Some(why.clone()),
    });
    let mut how = round::settings(system, spec, rounds());
    how["rate"] = settings.rate.into();
    how["burst"] = settings.burst.into();
    how["iterations"] = settings.iterations.into();
    how["seconds"] = settings.seconds.into();
    how["warm_up"] = settings.warm_up.into();
    if let Some(storm) = system.storm {
        how["locks"] = storm.locks_per_s.into();
        how["elections"] = storm.elections_per_s.into();
        how["joins"] = storm.joins_per_s.into();
        let defaults = NodeSettings::default().group;
        (how["mutex"], how["election"]) = (json!(defaults.mutex.unwrap_or_default()), json!(defaults.election));
    }
    let iterations: Vec<&Iteration> = rounds().flat_map(|round| &round.near.iterations).collect();
    let mut extra = node_object(outcomes);
    extra.insert("valid".into(), error.is_none().into());
    extra.insert("error".into(), error.into());
    extra.insert("due".into(), sum(|round| round.near.due).into());
    extra.insert("sent".into(), sum(|round| round.near.sent).into());
    extra.insert("refused".into(), sum(|round| round.near.refused).into());
    extra.insert("iterations".into(), json!(iterations));
    let rate = |round: &Round| round.near.received as f64 * 1e9 / round.near.elapsed_ns.max(1) as f64;
    Row {
        what: "load".into(),
        system: if system.peer == Some(Peer::Raw) { "raw-spin".to_owned() } else { system.name() },
        transport: system.transport(&settings.common),
        size_bytes: spec.size_bytes,
        count: sum(|round| round.near.received),
        lost: Some(sum(|round| round.near.lost)),
        out_of_order: Some(sum(|round| round.near.out_of_order)),
        rate_per_s: median(rounds().map(rate)).map(|rate| rate as u64),
        latency: Some((Latency::RoundTrip, histogram_of(rounds().flat_map(|round| &round.near.latency_ns)))),
        cpu_ns_per_message: None, // both ends spin
        settings: how,
        extra,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::worker::Found;

    fn round(sent: u64, lost: u64, out_of_order: u64) -> Round {
        let near = Found { due: 1_000, sent, received: sent - lost, lost, out_of_order, ..Found::default() };
        Round { near, ..Round::default() }
    }

    #[test]
    fn what_missed_its_rate_or_lost_a_reply_is_refused() {
        assert_eq!(objection(&round(990, 0, 0)), None);
        for refused in [round(989, 0, 0), round(1_000, 1, 0), round(1_000, 0, 1)] {
            assert!(objection(&refused).is_some(), "{refused:?}");
        }
    }

    #[test]
    fn a_storm_that_was_not_made_is_refused() {
        let stormy = |made, granted| {
            let locks = Some(Requests { due: 1_000, made, granted, ..Requests::default() });
            let mut round = round(1_000, 0, 0);
            round.near.node = Some(Box::new(NodeFigures { locks, ..NodeFigures::default() }));
            round
        };
        assert_eq!(objection(&stormy(989, 1)), None);
        for refused in [stormy(988, 988), stormy(1_000, 0)] {
            assert!(objection(&refused).is_some(), "{refused:?}");
        }
    }
}
