//! Three members, one order: Bourdon beside a system with the same guarantee.
//!
//! Total order is easy to make fast for one sender on one host, and means little there. Here three members, each a
//! process on a separate host (`hosts.rs`), deliver the messages of all of them in one order: all send at full speed,
//! one sends at full speed, or all send at an even rate. At an even rate the figure is the time from when a message is
//! due to its delivery at its own sender. That is a round trip: through the sequencer, or with the token.
//!
//! One loop drives all systems (`total_order/member.rs`), in rounds in which they take turns. Each is started afresh
//! for its round, so that no idle daemon takes cores from another system. The rate is the slowest member's. Every round
//! verifies the measurement: all members delivered every message, all in the same order; otherwise the command fails.

mod bourdon;
pub(crate) mod member;

pub(crate) use self::bourdon::run as bourdon;

use crate::hosts::{Hosts, INTERFACE};
use crate::row::{Latency, Ratio, Row, histogram_of, median, show};
use crate::task::Task;
use crate::worker::{Found, Spec, Worker, WorkerKind};
use crate::{Failure, Idle, Mode, Peer, Settings, corosync};
use serde_json::Value;
use std::process::Command;
use std::time::Duration;

/// How much longer than the measured time a round may take: members wait for each other before it and after it.
const PATIENCE: Duration = Duration::from_secs(120);
const MEMBERS: u16 = 3;
/// Messages a second of each member where latency is measured: a rate that every system sustains.
const RATE_PER_S: u64 = 1_000;
/// The seconds of a round: thousands of token rotations, hundreds of windows.
const SECONDS: u64 = 2;

/// What every member of any system does while nothing arrives: on fewer cores than members, yielding the core gave both
/// systems their lowest latency, and throughput no lower than sleeping did.
const IDLE: Idle = Idle::Yield;

/// One thing to measure.
struct Measure {
    what: &'static str,
    senders: u16,
    rate_per_s: Option<u64>,
}

fn measures(settings: &Settings) -> [Measure; 3] {
    let rate_per_s = Some(settings.rate.unwrap_or(RATE_PER_S));
    [
        Measure { what: "throughput-all-send", senders: MEMBERS, rate_per_s: None },
        Measure { what: "throughput-one-sends", senders: 1, rate_per_s: None },
        Measure { what: "latency", senders: MEMBERS, rate_per_s },
    ]
}

/// One system to measure.
struct System {
    name: &'static str,
    worker: WorkerKind,
    reliability: &'static str,
    /// The settings that its rows report.
    how: Value,
}

const PEER: &str = "corosync";

/// The systems of a run, the peer first; a system that this build does not have is left out and reported.
fn systems(settings: &Settings, spec: &Spec) -> Result<Vec<System>, Failure> {
    let mut systems = Vec::new();
    if !settings.common.peers(&[Peer::Corosync], &[Peer::Corosync])?.is_empty() {
        let how = corosync::settings(&corosync::version()?, spec.idle);
        systems.push(System { name: PEER, worker: WorkerKind::CorosyncMember, reliability: "", how });
    }
    for (name, reliability) in [("bourdon", "reliable"), ("bourdon-uniform", "uniform")] {
        if let Err(why) = bourdon::reliability(reliability) {
            eprintln!("{name} is left out: this build has no {why}");
            continue;
        }
        let mut how = spec.settings();
        how["reliability"] = reliability.into();
        how["uniform"] = (reliability == "uniform").into();
        systems.push(System { name, worker: WorkerKind::BourdonMember, reliability, how });
    }
    Ok(systems)
}

/// The figures of all members in one round.
struct Round {
    found: Vec<Found>,
}

impl Round {
    /// Messages a second that the slowest member delivered.
    fn rate(&self) -> f64 {
        let rate = |found: &Found| found.received as f64 * 1e9 / found.elapsed_ns.max(1) as f64;
        self.found.iter().map(rate).fold(f64::INFINITY, f64::min)
    }

    fn lost(&self) -> u64 {
        self.found.iter().map(|found| found.lost).sum()
    }

    /// Messages out of their sender's order, and members that delivered another sequence than the first.
    fn out_of_order(&self) -> u64 {
        let others = self.found.iter().filter(|found| found.chain != self.found[0].chain).count();
        self.found.iter().map(|found| found.out_of_order).sum::<u64>() + others as u64
    }

    fn latency(&self) -> hdrhistogram::Histogram<u64> {
        histogram_of(self.found.iter().flat_map(|found| &found.latency_ns))
    }
}

/// Starts the members, each on its host if there are hosts, and collects their figures.
fn round(hosts: Option<&Hosts>, system: &System, spec: &Spec, task: &Task) -> Result<Round, Failure> {
    let program = std::env::current_exe().map_err(|error| Failure::Unusable(error.to_string()))?;
    let (sender, findings) = std::sync::mpsc::channel();
    let limit = PATIENCE + Duration::from_nanos(task.duration_ns);
    for rank in 0..MEMBERS {
        let mut command = match hosts {
            None => Command::new(&program),
            Some(hosts) => {
                let mut command = hosts.enter(rank);
                if system.worker == WorkerKind::CorosyncMember {
                    command.args(["unshare", "--mount", "--"]);
                }
                command.arg(&program);
                command
            }
        };
        let spec = Spec { role: system.worker, order: Some(Task { rank, ..task.clone() }), ..spec.clone() };
        let mut end = Worker::start_by(command.arg("worker"), &spec)?;
        let sender = sender.clone();
        // The far end is returned with its figures: a member stays alive until all are done, because the others may
        // need it.
        std::thread::spawn(move || {
            let finding = end.found(limit);
            let _ = sender.send((rank, finding, end)); // the receiver is gone after a failure
        });
    }
    drop(sender);
    let (mut found, mut ends) = (vec![Found::default(); MEMBERS.into()], Vec::new());
    for (rank, finding, end) in findings {
        found[usize::from(rank)] = finding?;
        ends.push(end);
    }
    Ok(Round { found })
}

/// The hosts to measure on. Bourdon alone needs none: three members can share one loopback interface.
fn hosts(settings: &Settings) -> Result<Option<Hosts>, Failure> {
    match Hosts::make(MEMBERS) {
        Ok(hosts) => Ok(Some(hosts)),
        Err(Failure::Unusable(why)) if settings.common.no_peer => {
            eprintln!("all members are on lo: {why}");
            Ok(None)
        }
        Err(Failure::Unusable(why)) => {
            Err(Failure::Unusable(format!("{why}, or measure Bourdon alone with --no-peer")))
        }
        Err(failure) => Err(failure),
    }
}

/// Measures total order and prints the result.
pub(crate) fn run(settings: &Settings) -> Result<(), Failure> {
    if settings.mode == Mode::Threaded {
        return Err(Failure::Unusable("total order is measured inline; leave out --mode".into()));
    }
    let idle = settings.common.idle.unwrap_or(IDLE);
    let spec = Spec { members: MEMBERS, idle, ..Spec::new(&settings.common, WorkerKind::BourdonMember, 0) };
    let systems = systems(settings, &spec)?;
    let hosts = hosts(settings)?;
    let interface = if hosts.is_some() { INTERFACE } else { "lo" };
    let (mut rows, mut ratios) = (Vec::new(), Vec::new());
    for measure in measures(settings) {
        let mut rounds: Vec<Vec<Round>> = systems.iter().map(|_| Vec::new()).collect();
        for index in 1..=settings.common.rounds {
            for (system, rounds) in systems.iter().zip(&mut rounds) {
                crate::round::announce(index, settings.common.rounds, &format!("{}, {}", measure.what, system.name));
                let task = Task {
                    rank: 0,
                    members: MEMBERS,
                    senders: measure.senders,
                    interface: interface.into(),
                    reliability: system.reliability.into(),
                    rate_per_s: measure.rate_per_s,
                    duration_ns: settings.seconds.unwrap_or(SECONDS) * 1_000_000_000,
                    count: settings.count.unwrap_or(u64::MAX),
                };
                rounds.push(round(hosts.as_ref(), system, &spec, &task)?);
            }
        }
        for (system, rounds) in systems.iter().zip(&rounds) {
            rows.push(row(settings, &measure, system, rounds, interface));
        }
        ratios.extend(compare(&measure, &systems, &rounds));
    }
    show(&settings.common, &rows, &ratios)?;
    judge(&rows)
}

/// The compared figure of a round.
type Figure = fn(&Round) -> f64;

/// The ratios of every system to the peer in a measure, round by round.
fn compare(measure: &Measure, systems: &[System], rounds: &[Vec<Round>]) -> Vec<Ratio> {
    let Some(peer) = systems.iter().position(|system| system.name == PEER) else { return Vec::new() };
    let figures: &[(&str, Figure)] = if measure.rate_per_s.is_none() {
        &[("rate", Round::rate)]
    } else {
        &[
            ("p50", |round| round.latency().value_at_quantile(0.5) as f64),
            ("p99", |round| round.latency().value_at_quantile(0.99) as f64),
        ]
    };
    let mut ratios = Vec::new();
    for (index, system) in systems.iter().enumerate().filter(|(index, _)| *index != peer) {
        for (figure, value) in figures {
            ratios.push(Ratio {
                what: format!("{}: {} {figure} over {PEER}", measure.what, system.name),
                rounds: rounds[index].iter().zip(&rounds[peer]).map(|(ours, its)| value(ours) / value(its)).collect(),
            });
        }
    }
    ratios
}

/// A row over rounds: the median rate, everything that was lost or out of order.
fn row(settings: &Settings, measure: &Measure, system: &System, rounds: &[Round], interface: &str) -> Row {
    let found = || rounds.iter().flat_map(|round| &round.found);
    let received: u64 = found().map(|found| found.received).sum();
    let latency = histogram_of(found().flat_map(|found| &found.latency_ns));
    let mut how = system.how.clone();
    how["members"] = MEMBERS.into();
    how["senders"] = measure.senders.into();
    how["rate_per_s"] = measure.rate_per_s.into();
    how["seconds"] = settings.seconds.unwrap_or(SECONDS).into();
    how["interface"] = interface.into();
    how["hosts"] = if interface == INTERFACE { "a network namespace each, on a bridge" } else { "one" }.into();
    how["pinned"] = false.into();
    let bourdon = system.name != PEER;
    Row {
        what: measure.what.into(),
        system: system.name.into(),
        transport: if bourdon { settings.common.transport.name() } else { "udp" }.into(),
        size_bytes: settings.common.size,
        count: received,
        lost: Some(rounds.iter().map(Round::lost).sum()),
        out_of_order: Some(rounds.iter().map(Round::out_of_order).sum()),
        rate_per_s: median(rounds.iter().map(Round::rate)).map(|rate| rate as u64),
        latency: measure.rate_per_s.map(|_| (Latency::RoundTrip, latency)),
        cpu_ns_per_message: Some(found().map(|found| found.cpu_ns).sum::<u64>() / received.max(1)),
        settings: how,
        extra: Default::default(),
    }
}

/// A run that lost or reordered messages gives no valid figure.
fn judge(rows: &[Row]) -> Result<(), Failure> {
    let failed = rows.iter().filter(|row| row.lost != Some(0) || row.out_of_order != Some(0));
    let failed: Vec<String> = failed.map(|row| format!("{} ({})", row.system, row.what)).collect();
    if failed.is_empty() {
        return Ok(());
    }
    Err(Failure::Broken(format!("not every member delivered every message in one order: {}", failed.join(", "))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_that_differs_is_counted() {
        let member = |chain, lost| Found { chain, lost, received: 10, elapsed_ns: 1_000, ..Found::default() };
        let agreed = Round { found: vec![member(7, 0), member(7, 0), member(7, 0)] };
        assert_eq!((agreed.lost(), agreed.out_of_order(), agreed.rate() as u64), (0, 0, 10_000_000));
        let differing = Round { found: vec![member(7, 0), member(8, 0), member(7, 2)] };
        assert_eq!((differing.lost(), differing.out_of_order()), (2, 1));
    }
}
