//! Round trips: one message at a time, both ends spinning on their own core.
//!
//! Between two members of a group, member 0 is the sequencer: its message is ordered by its position in its stream, the
//! reply by an order run that is sent with the next message. The ends are on two hosts with a cable between them, and
//! then on `lo`. The figure is the time from sending to the reply's
//! arrival. With `--rate` round trips begin at even intervals and count from when they should have begun.

use crate::hosts::{Hosts, INTERFACE};
use crate::message::{read, stamp};
use crate::round::Round;
use crate::row::{Latency, Ratio, Row, buckets, histogram, histogram_of, median, show};
use crate::schedule::Schedule;
use crate::script::now_ns;
use crate::settings::Place;
use crate::systems::{System, measurable};
use crate::worker::{Found, Spec, WorkerKind};
use crate::{Common, Failure, Idle, Link, Mode, Peer, Transport, broken, round, settings};
use clap::Args;
use std::time::{Duration, Instant};

/// A reply later than this will not come.
const PATIENCE: Duration = Duration::from_secs(5);
/// A spinning end looks at the clock only this often, so that looking costs nothing that can be measured.
const LOOK_EVERY: u32 = 64;
/// How long a round may take besides its round trips, and the slowest that these are.
const ROUND_PATIENCE: Duration = Duration::from_secs(60);
const SLOWEST_TRIP: Duration = Duration::from_millis(2);

/// Two nodes, each with a thread of its own and the thread that measures.
const THREADED_CORES: usize = 4;

/// What can be measured beside Bourdon here.
const PEERS: &[Peer] =
    &[Peer::Raw, Peer::RawXdp, Peer::Aeron, Peer::AeronIpc, Peer::Iceoryx2, Peer::Zeromq, Peer::Nats];

/// Makes `count` round trips after a tenth as many that do not count.
pub(crate) fn ping(spec: &Spec, link: &mut impl Link) -> Result<Found, Failure> {
    let warm_up = spec.count / 10;
    let offered = spec.offered_per_s.map(|rate_per_s| Schedule { rate_per_s, burst: 1 });
    let mut message = vec![7; spec.size_bytes as usize];
    let (mut times, begun_ns) = (histogram(), now_ns());
    for number in 0..spec.count + warm_up {
        let start_ns = match offered {
            None => now_ns(),
            Some(offered) => {
                let due_ns = begun_ns + offered.time_ns(number);
                while now_ns() < due_ns {
                    std::hint::spin_loop();
                }
                due_ns
            }
        };
        stamp(&mut message, number, start_ns);
        round_trip(spec, link, &message, number)?;
        if number >= warm_up {
            times.saturating_record(now_ns() - start_ns);
        }
    }
    let received = times.len();
    Ok(Found { sent: received, received, latency_ns: buckets(&times), ..Found::default() })
}

/// Sends a message and waits for its reply.
fn round_trip(spec: &Spec, link: &mut impl Link, message: &[u8], number: u64) -> Result<(), Failure> {
    let began = Instant::now();
    let is_late = |polls: u32| polls.is_multiple_of(LOOK_EVERY) && began.elapsed() > PATIENCE;
    let (mut answered, mut polls) = (false, 0u32);
    while !link.try_send(message)? {
        link.poll(|_| {})?;
        polls += 1;
        if is_late(polls) {
            return Err(broken(format!("message {number} could not be sent for {} s", PATIENCE.as_secs())));
        }
    }
    link.flush()?;
    loop {
        let came = link.poll(|reply| answered |= read(reply).is_some_and(|(replied, _)| replied == number))?;
        if answered {
            return Ok(());
        }
        polls = polls.wrapping_add(1);
        if came == 0 {
            if is_late(polls) {
                return Err(broken(format!("no reply to message {number} came within {} s", PATIENCE.as_secs())));
            }
            link.wait(spec.idle)?;
        }
    }
}

/// What is measured and how
#[derive(Clone, Debug, Args)]
pub(crate) struct Trips {
    #[command(flatten)]
    all: settings::Settings,
    /// Where the two ends are [default: veth, where this is root, and lo]
    #[arg(long, value_enum, value_name = "PLACE", value_delimiter = ',')]
    over: Vec<Place>,
    /// Measure Bourdon over these transports as well, in the same rounds
    #[arg(long, value_enum, value_name = "TRANSPORT", value_delimiter = ',')]
    also: Vec<Transport>,
}

/// Refuses a run that takes hours: threads that spin for lack of cores keep each other from running.
fn check_cores(mode: Mode, idle: Option<Idle>, cores: usize) -> Result<(), Failure> {
    if mode == Mode::Inline || idle.is_some_and(|idle| idle != Idle::Spin) || cores >= THREADED_CORES {
        return Ok(());
    }
    Err(Failure::Unusable(format!(
        "--mode threaded has {THREADED_CORES} threads that spin, and this process may use {cores} cores: add --idle \
         yield, or --idle park"
    )))
}

/// Measures round trips and prints the result.
pub(crate) fn run(trips: &Trips) -> Result<(), Failure> {
    check_cores(trips.all.mode, trips.all.common.idle, std::thread::available_parallelism().map_or(1, usize::from))?;
    let common = &trips.all.common;
    let systems = common.systems(PEERS, &[Peer::Raw], &trips.also)?;
    let (mut rows, mut ratios) = (Vec::new(), Vec::new());
    if trips.over.is_empty() || trips.over.contains(&Place::Veth) {
        match Hosts::make_pair() {
            Ok(hosts) => {
                let spanning = measurable(&systems, "between two hosts", |system| system.spans_hosts(common));
                measure(trips, &spanning, Some(&hosts), &mut rows, &mut ratios)?;
            }
            Err(Failure::Unusable(why)) if trips.over.is_empty() => eprintln!("measured on lo only: {why}"),
            Err(failure) => return Err(failure),
        }
    }
    if trips.over.is_empty() || trips.over.contains(&Place::Lo) {
        let sharing = measurable(&systems, "on lo", |system| system.shares_a_host(common));
        measure(trips, &sharing, None, &mut rows, &mut ratios)?;
    }
    if rows.is_empty() {
        let why = "none of the systems can be measured there: choose --over veth, as root, or --transport udp";
        return Err(Failure::Unusable(why.to_owned()));
    }
    show(common, &rows, &ratios)
}

/// Measures these systems between two hosts, or on `lo`.
fn measure(
    trips: &Trips,
    systems: &[System],
    hosts: Option<&Hosts>,
    rows: &mut Vec<Row>,
    ratios: &mut Vec<Ratio>,
) -> Result<(), Failure> {
    let settings::Settings { common, mode, rate, count, .. } = &trips.all;
    let count = count.unwrap_or(50_000);
    let (interface, what, place) = match hosts {
        Some(_) => (INTERFACE, "latency-veth", ", veth"),
        None => ("lo", "latency", ""),
    };
    let spec = Spec::new(common, WorkerKind::Pinger, count);
    let spec = Spec { mode: *mode, offered_per_s: *rate, interface: interface.into(), ..spec };
    let trips = rate.map_or(SLOWEST_TRIP, |rate| Duration::from_secs(1) / rate as u32 + SLOWEST_TRIP);
    let limit = ROUND_PATIENCE + trips * u32::try_from(count).unwrap_or(u32::MAX);
    let mut rounds: Vec<Vec<Round>> = systems.iter().map(|_| Vec::new()).collect();
    for index in 1..=common.rounds {
        for (system, rounds) in systems.iter().zip(&mut rounds) {
            round::announce(index, common.rounds, &format!("{}{place}", system.name()));
            rounds.push(Round::measure_between(hosts, system, &spec, WorkerKind::Echo, limit)?);
        }
    }
    let all = systems.iter().zip(&rounds);
    rows.extend(all.map(|(system, rounds)| row(what, common, system, &spec, rounds)));
    // Where Bourdon over the run's transport can't be measured, the ratios name what they are of.
    let first = systems.first().filter(|system| system.name() != "bourdon");
    let of = first.map_or(String::new(), |system| format!("{} ", system.name()));
    for (system, theirs) in systems.iter().zip(&rounds).skip(1) {
        for (name, quantile) in [("p50", 0.5), ("p99", 0.99)] {
            let pairs = rounds[0].iter().zip(theirs);
            let rounds = pairs.map(|(ours, theirs)| ours.rtt_ns(quantile) / theirs.rtt_ns(quantile)).collect();
            ratios.push(Ratio { what: format!("{of}rtt {name} over {}{place}", system.name()), rounds });
        }
    }
    Ok(())
}

fn row(what: &str, common: &Common, system: &System, spec: &Spec, rounds: &[Round]) -> Row {
    let all = histogram_of(rounds.iter().flat_map(|round| &round.near.latency_ns));
    let name = if system.peer == Some(Peer::Raw) { "raw-spin".to_owned() } else { system.name() };
    Row {
        what: what.into(),
        system: name,
        transport: system.transport(common),
        size_bytes: spec.size_bytes,
        count: all.len(),
        lost: Some(0),         // a reply that does not come ends the measurement
        out_of_order: Some(0), // a reply out of order is never taken for the one that is waited for
        rate_per_s: median(rounds.iter().map(|round| 1e9 / round.rtt_ns(0.5).max(1.0))).map(|rate| rate as u64),
        latency: Some((Latency::RoundTrip, all)),
        cpu_ns_per_message: None, // both ends spin
        settings: round::settings(system, spec, rounds),
        extra: Default::default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn issue_threads_that_spin_on_too_few_cores_ran_for_hours() {
        for (mode, idle, cores, is_refused) in [
            (Mode::Threaded, None, 2, true),
            (Mode::Threaded, Some(Idle::Spin), 3, true),
            (Mode::Threaded, Some(Idle::Yield), 2, false),
            (Mode::Threaded, None, 4, false),
            (Mode::Inline, None, 1, false),
        ] {
            let found = check_cores(mode, idle, cores);
            assert_eq!(found.is_err(), is_refused, "{mode:?} {idle:?} {cores}: {found:?}");
            let helps = |failure| matches!(failure, Failure::Unusable(why) if why.contains("--idle yield"));
            assert!(found.err().is_none_or(helps));
        }
    }
}
