//! `bourdon-bench`: what Bourdon costs, beside the cost of the host's own sockets, in one run.
//!
//! A figure without its floor means nothing on a shared, noisy machine: the same binary is twice as fast a minute
//! later. So every measurement consists of rounds in which the system under test and the raw mechanism take turns, and
//! the result is the ratio, with its spread over the rounds. Latencies are recorded into HDR histograms from the
//! intended time of sending, so that a stall counts for every message it delayed (no coordinated omission).
//!
//! The two ends of a measurement are separate processes, one pinned to each core (`worker.rs`).

mod coordination;
mod corosync;
mod detect;
mod elect;
mod etcd;
mod fanout;
mod hosts;
mod join;
mod latency;
mod lock;
mod raw;
mod redis;
mod ring;
mod row;
mod scratch;
mod script;
mod server;
#[cfg(test)]
#[path = "../../tools/skipped.rs"]
mod skipped;
mod task;
mod threaded;
mod throughput;
mod total_order;
mod worker;

use clap::{Args, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;
use std::process::ExitCode;

/// Measure Bourdon beside the host's own mechanisms
#[derive(Debug, Parser)]
#[command(name = "bourdon-bench", version, max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Round trips of one message between two processes
    Latency(Settings),
    /// One way from one process to another, at full speed
    Throughput(Settings),
    /// One process to several observers
    Fanout(Settings),
    /// Three members on three hosts, one order, beside Corosync
    TotalOrder(Settings),
    /// From a fault to a view without its victim, by each detector
    Detect(detect::Settings),
    /// From the request for a lock to its grant, beside etcd and Redis
    Lock(lock::Settings),
    /// From a leader's death to the next leader, beside etcd
    Elect(elect::Settings),
    /// The rings between threads
    Ring(Settings),
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

/// What is measured and how
#[derive(Clone, Debug, Args)]
struct Settings {
    /// Measure these beside Bourdon, in turn [default: what the subcommand can: raw; total-order: corosync]
    #[arg(long, value_enum, value_name = "NAME", value_delimiter = ',', conflicts_with = "no_peer")]
    peer: Vec<Peer>,
    /// Measure Bourdon alone
    #[arg(long)]
    no_peer: bool,
    /// What moves the datagrams
    #[arg(long, value_enum, default_value = "udp")]
    transport: Transport,
    /// Bytes of a message
    #[arg(long, value_name = "B", default_value_t = 64, value_parser = clap::value_parser!(u32).range(16..=1_000_000))]
    size: u32,
    /// Messages a round [default: 50,000 round trips; 20,000,000 one way; as many as fit --seconds in total-order]
    #[arg(long, value_name = "K")]
    count: Option<u64>,
    /// Rounds, each of every system in turn
    #[arg(long, value_name = "R", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// Seconds a round in `total-order` [default: 2]
    #[arg(long, value_name = "S", value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: Option<u64>,
    /// Round trips begun a second, at even intervals [default: each when the one before has ended]; in `total-order`
    /// messages a second of each member where latency is measured [default: 1000]
    #[arg(long, value_name = "N")]
    rate: Option<u64>,
    /// Observers in `fanout`
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=64))]
    observers: u16,
    /// In `fanout`: whether the publisher waits for observers, or an observer that is too slow loses messages
    #[arg(long, value_enum, default_value = "gating")]
    flow: Flow,
    /// Run the node in the measuring thread, or in a thread of its own behind rings
    #[arg(long, value_enum, default_value = "inline")]
    mode: Mode,
    /// What a node does while nothing arrives [default: spin; total-order: yield]
    #[arg(long, value_enum)]
    idle: Option<Idle>,
    /// Send and receive without segmentation offload
    #[arg(long)]
    no_offload: bool,
    /// Write Bourdon's latencies as an HDR percentile file
    #[arg(long, value_name = "FILE")]
    hgrm: Option<PathBuf>,
    /// One JSON object on stdout instead of a table
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Peer {
    /// The kernel's sockets with nothing around them
    Raw,
    /// Corosync's closed process groups
    Corosync,
}

impl Settings {
    /// Whether to measure beside this peer, which the subcommand supports. Another peer is refused.
    fn measures(&self, peer: Peer) -> Result<bool, Failure> {
        match self.peer.iter().find(|wanted| **wanted != peer) {
            Some(other) => {
                let name = |peer: Peer| format!("{peer:?}").to_lowercase();
                Err(Failure::Unusable(format!(
                    "{} is no peer of this measurement; take --peer {} or --no-peer",
                    name(*other),
                    name(peer)
                )))
            }
            None => Ok(!self.no_peer),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Transport {
    Udp,
    Portable,
}

/// Whether a publisher waits for observers
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Flow {
    Free,
    Gating,
}

impl From<Flow> for bourdon::settings::FlowMode {
    fn from(flow: Flow) -> Self {
        match flow {
            Flow::Free => Self::Free,
            Flow::Gating => Self::Gating,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Mode {
    Inline,
    Threaded,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Idle {
    Spin,
    Yield,
    Backoff,
    Park,
}

/// Why a measurement could not be made: exit 2 for the environment, 1 for a failure of what was run.
#[derive(Debug)]
enum Failure {
    Unusable(String),
    Broken(String),
}

/// Runs a far end.
fn play(spec: &worker::Spec) -> Result<(), Failure> {
    match spec.role {
        worker::WorkerKind::RawEcho => raw::echo(spec),
        worker::WorkerKind::RawSink => raw::sink(spec),
        worker::WorkerKind::Echo => latency::echo(spec),
        worker::WorkerKind::ThreadedEcho => threaded::echo(spec),
        worker::WorkerKind::Sink | worker::WorkerKind::Observer => throughput::sink(spec),
        worker::WorkerKind::BourdonMember => total_order::bourdon(spec, spec.task()?),
        worker::WorkerKind::CorosyncMember => corosync::run(spec, spec.task()?),
    }
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Latency(settings) => latency::run(&settings),
        Command::Throughput(settings) => throughput::run(&settings),
        Command::Fanout(settings) => fanout::run(&settings),
        Command::TotalOrder(settings) => total_order::run(&settings),
        Command::Ring(settings) => ring::run(&settings),
        Command::Detect(settings) => detect::run(&settings),
        Command::Lock(settings) => lock::run(&settings),
        Command::Elect(settings) => elect::run(&settings),
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
