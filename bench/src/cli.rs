//! The command line: one subcommand for each measurement.

use crate::settings::{Mode, Settings};
use crate::worker::{Spec, WorkerKind};
use crate::{
    Failure, Peer, agents, coordination, corosync, detect, durable, elect, ends, fanout, inline, joins, latency, load,
    lock, raw, raw_xdp, report, ring, targets, threaded, throughput, total_order, worker,
};
use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// Measure Bourdon beside the host's own mechanisms and other systems
#[derive(Debug, Parser)]
#[command(name = "bourdon-bench", version, max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Round trips of one message between two processes
    Latency(latency::Trips),
    /// Round trips at a rate: messages are sent when they are due, and their time counts from then
    Load(load::Settings),
    /// One way from one process to another, at full speed
    Throughput(Settings),
    /// One process to several observers
    Fanout(fanout::Settings),
    /// Three members on three hosts, one order, beside Corosync
    TotalOrder(Settings),
    /// From a fault to a view without its victim, by each detector
    Detect(detect::Settings),
    /// From the request for a lock to its grant, beside etcd and Redis
    Lock(lock::Settings),
    /// From a leader's death to the next leader, beside etcd
    Elect(elect::Settings),
    /// From publish to acknowledgement where a majority has synced it, beside the disk alone and NATS JetStream
    Durable(durable::Settings),
    /// The rings between threads
    Ring(Settings),
    /// One data agent and two: what the second adds, and what it costs the first
    Agents(Settings),
    /// All promises of docs/performance.md: met or not met
    Targets(targets::Settings),
    /// One HTML page from the JSON output of the other subcommands
    Report(report::Settings),
    /// One end of a measurement; the harness starts these itself
    #[command(hide = true)]
    Worker,
    /// A member whose failures are measured; the harness starts these itself
    #[command(hide = true)]
    DetectMember,
    /// A member whose locks and elections are measured; the harness starts these itself
    #[command(hide = true)]
    CoordinationMember,
}

/// Plays an end of a system that this program contains.
fn play(spec: &Spec) -> Result<(), Failure> {
    match (spec.role, spec.peer) {
        (WorkerKind::BourdonMember, _) => total_order::bourdon(spec, spec.task()?),
        (WorkerKind::CorosyncMember, _) => corosync::run(spec, spec.task()?),
        (WorkerKind::Joiners, _) => joins::play(spec),
        (WorkerKind::Disk, _) => ends::play(spec, durable::open_disk(spec.durable_task()?)?),
        (_, Some(Peer::Raw)) => raw::play(spec),
        (_, Some(Peer::RawXdp)) => raw_xdp::play(spec),
        (_, None) if spec.mode == Mode::Threaded => ends::play(spec, threaded::open(spec)?),
        (_, None) => ends::play(spec, inline::open(spec)?),
        (role, Some(peer)) => Err(Failure::Broken(format!("{} has no {role:?} in this program", peer.name()))),
    }
}

/// Runs the command that the arguments name.
pub fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Latency(settings) => latency::run(&settings),
        Command::Load(settings) => load::run(&settings),
        Command::Throughput(settings) => throughput::run(&settings),
        Command::Fanout(settings) => fanout::run(&settings),
        Command::TotalOrder(settings) => total_order::run(&settings),
        Command::Ring(settings) => ring::run(&settings),
        Command::Agents(settings) => agents::run(&settings),
        Command::Detect(settings) => detect::run(&settings),
        Command::Lock(settings) => lock::run(&settings),
        Command::Elect(settings) => elect::run(&settings),
        Command::Durable(settings) => durable::run(&settings),
        Command::Targets(settings) => targets::run(&settings),
        Command::Report(settings) => report::run(&settings),
        Command::DetectMember => detect::member(),
        Command::CoordinationMember => coordination::member(),
        Command::Worker => worker::run(play),
    };
    let (why, code) = match outcome {
        Ok(()) => return ExitCode::SUCCESS,
        Err(Failure::Broken(why)) => (why, 1),
        Err(Failure::Unusable(why)) => (why, 2),
    };
    eprintln!("bourdon-bench: {why}");
    ExitCode::from(code)
}
