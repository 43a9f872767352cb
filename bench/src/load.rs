//! Round trips at a rate, by the rules of Aeron's own benchmarks (github.com/aeron-io/benchmarks).
//!
//! A closed loop, in which each message waits for the reply to the one before, shows a system only when it is idle.
//! Here messages are due at a rate, in bursts, whether or not the system keeps up (`load/client.rs`); each carries the
//! time at which it was due, and an echo sends it back. A warm-up at 10,000 messages a second at most comes first, then
//! the iterations, whose replies go into one histogram.
//!
//! A round that sent less than 99 % of what was due, lost a reply, or got replies out of order is no result: its row is
//! `valid: false`, and it enters no ratio. Neither does a round in which a system crashed or gave up.

mod client;

pub(crate) use client::client;

use crate::round::Round;
use crate::row::{Latency, Ratio, Row, histogram_of, median, show};
use crate::schedule::{Iteration, Shape};
use crate::systems::System;
use crate::worker::{Spec, WorkerKind};
use crate::{Common, Failure, Peer, round};
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
    (found.out_of_order > 0).then(|| format!("{} replies came out of order", found.out_of_order))
}

/// Measures round trips at a rate and prints the result.
pub(crate) fn run(settings: &Settings) -> Result<(), Failure> {
    let (common, shape) = (&settings.common, settings.shape()?);
    let spec = Spec { load: Some(shape), ..Spec::new(common, WorkerKind::Client, 0) };
    let limit = PATIENCE + Duration::from_nanos(shape.warm_up_ns + shape.measured_ns());
    let systems = common.systems(PEERS, &[Peer::Raw])?;
    let mut outcomes: Vec<Vec<Outcome>> = systems.iter().map(|_| Vec::new()).collect();
    for index in 1..=common.rounds {
        for (system, outcomes) in systems.iter().zip(&mut outcomes) {
            eprintln!("round {index} of {}: {}", common.rounds, system.name());
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

/// Bourdon's times over each peer's, in the rounds in which both are results.
fn ratios(systems: &[System], outcomes: &[Vec<Outcome>]) -> Vec<Ratio> {
    let mut ratios = Vec::new();
    for (system, theirs) in systems.iter().zip(outcomes).skip(1) {
        let pairs: Vec<(&Round, &Round)> =
            outcomes[0].iter().zip(theirs).filter_map(|(ours, theirs)| Some((valid(ours)?, valid(theirs)?))).collect();
        for (name, quantile) in [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999)] {
            let rounds = pairs.iter().map(|(ours, theirs)| ours.rtt_ns(quantile) / theirs.rtt_ns(quantile)).collect();
            ratios.push(Ratio { what: format!("load rtt {name} over {}", system.name()), rounds });
        }
    }
    ratios
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
    let iterations: Vec<&Iteration> = rounds().flat_map(|round| &round.near.iterations).collect();
    let mut extra = Map::new();
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
}
