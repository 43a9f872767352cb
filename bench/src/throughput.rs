//! One way, at full speed: member 0 publishes in total order, member 1 checks every message (`stream.rs`).
//!
//! The raw peer sends datagrams of the same length, packed and offloaded in the same way, with no numbering, order,
//! retransmission or flow control: what it loses is not sent again, and its rate is what arrived.

use crate::hosts::Hosts;
use crate::round::Round;
use crate::row::{Latency, Ratio, Row, histogram_of, median, show};
use crate::systems::System;
use crate::worker::{Spec, WorkerKind};
use crate::{Common, Failure, Mode, Peer, Settings, round};
use std::time::Duration;

/// What can be measured beside Bourdon here.
const PEERS: &[Peer] = &[Peer::Raw, Peer::Aeron, Peer::AeronIpc, Peer::Iceoryx2, Peer::Zeromq, Peer::Nats];
/// How long a round may take besides its messages, and a rate that every system exceeds.
const PATIENCE: Duration = Duration::from_secs(60);
const SLOWEST_PER_S: u64 = 20_000;

/// The time in which a round must end.
pub(crate) fn limit(spec: &Spec) -> Duration {
    let slowest = spec.offered_per_s.map_or(SLOWEST_PER_S, |rate| rate.clamp(1, SLOWEST_PER_S));
    PATIENCE + Duration::from_secs(spec.count / slowest)
}

/// Measures throughput and prints the result.
pub(crate) fn run(settings: &Settings) -> Result<(), Failure> {
    let common = &settings.common;
    if settings.mode == Mode::Threaded {
        return Err(Failure::Unusable("throughput is measured inline; leave out --mode".into()));
    }
    let count = settings.count.unwrap_or(if common.no_offload { 2_000_000 } else { 20_000_000 });
    let spec = Spec::new(common, WorkerKind::Publisher, count);
    let systems = common.systems(PEERS, &[Peer::Raw], &[])?;
    let rounds = rounds(common, None, &systems, &spec)?;
    let rows: Vec<Row> =
        systems.iter().zip(&rounds).map(|(system, rounds)| row(common, "throughput", system, &spec, rounds)).collect();
    show(common, &rows, &ratios(&systems, &rounds, "rate"))
}

/// Rounds of all systems, in turn, each end on a host of its own if there are hosts: for each system, its rounds.
pub(crate) fn rounds(
    common: &Common,
    hosts: Option<&Hosts>,
    systems: &[System],
    spec: &Spec,
) -> Result<Vec<Vec<Round>>, Failure> {
    let mut rounds: Vec<Vec<Round>> = systems.iter().map(|_| Vec::new()).collect();
    for index in 1..=common.rounds {
        for (system, rounds) in systems.iter().zip(&mut rounds) {
            round::announce(index, common.rounds, &system.name());
            rounds.push(Round::measure_between(hosts, system, spec, WorkerKind::Receiver, limit(spec))?);
        }
    }
    Ok(rounds)
}

/// Bourdon's rate over each peer's, round by round.
pub(crate) fn ratios(systems: &[System], rounds: &[Vec<Round>], what: &str) -> Vec<Ratio> {
    let peers = systems.iter().zip(rounds).skip(1);
    let ratio = |(system, theirs): (&System, &Vec<Round>)| Ratio {
        what: format!("{what} over {}", system.name()),
        rounds: rounds[0].iter().zip(theirs).map(|(ours, theirs)| ours.rate() / theirs.rate()).collect(),
    };
    peers.map(ratio).collect()
}

/// A row over rounds: the median rate, everything that was lost.
pub(crate) fn row(common: &Common, what: &str, system: &System, spec: &Spec, rounds: &[Round]) -> Row {
    let found = || rounds.iter().flat_map(|round| &round.far);
    let received: u64 = found().map(|found| found.received).sum();
    let is_raw = system.peer == Some(Peer::Raw);
    Row {
        what: what.into(),
        system: if is_raw { "raw-packed".to_owned() } else { system.name() },
        transport: system.transport(common),
        size_bytes: spec.size_bytes,
        count: received,
        lost: Some(rounds.iter().map(Round::lost).sum()),
        out_of_order: (!is_raw).then(|| found().map(|found| found.out_of_order).sum()),
        rate_per_s: median(rounds.iter().map(Round::rate)).map(|rate| rate as u64),
        latency: Some((Latency::OneWay, histogram_of(found().flat_map(|found| &found.latency_ns)))),
        cpu_ns_per_message: Some(rounds.iter().map(Round::cpu_ns).sum::<u64>() / received.max(1)),
        settings: round::settings(system, spec, rounds),
        extra: Default::default(),
    }
}
