//! `bourdon-bench`: what Bourdon costs, beside the cost of the host's own sockets and of its peers, in one run.
//!
//! A figure without its floor means nothing on a shared, noisy machine: the same binary is twice as fast a minute
//! later. So every measurement consists of rounds in which the system under test and the raw mechanism take turns, and
//! the result is the ratio, with its spread over the rounds. Latencies are recorded into HDR histograms from the
//! intended time of sending, so that a stall counts for every message it delayed (no coordinated omission).
//!
//! The two ends of a measurement are separate processes, one pinned to each core (`worker.rs`). One loop measures all
//! systems (`ends.rs`): each system is a [`Link`], which offers and takes whole messages.
//!
//! As a library this crate offers what an adapter of another messaging system needs (`bench/peers/`): the adapter opens
//! a [`Link`] for a [`Spec`] and hands it to [`ends::play`]. The client libraries of those systems are linked there.

mod agents;
mod cli;
mod coordination;
mod corosync;
mod detect;
mod durable;
mod echo;
mod elect;
pub mod ends;
mod etcd;
mod fanout;
mod hosts;
mod inline;
mod joins;
mod latency;
pub mod link;
mod load;
mod lock;
mod machine;
mod message;
mod raw;
mod raw_xdp;
mod redis;
mod report;
mod ring;
mod round;
mod row;
mod schedule;
mod scratch;
mod script;
pub mod server;
mod settings;
#[cfg(test)]
#[path = "../../tools/skipped.rs"]
mod skipped;
mod storm;
mod stream;
mod systems;
mod targets;
mod task;
mod threaded;
mod throughput;
mod total_order;
pub mod worker;

pub use cli::main;
pub use durable::Task as DurableTask;
pub use link::{Link, Stage};
pub use schedule::Shape;
pub use settings::{Idle, Peer};
pub use storm::NodeFigures;
pub use worker::{Spec, WorkerKind};

use settings::{Common, Mode, Settings, Transport};

/// Why a measurement could not be made: exit 2 for the environment, 1 for a failure of what was run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The environment or the arguments do not allow it; the text gives what to do.
    Unusable(String),
    /// What was run failed.
    Broken(String),
}

/// A failure of what was run.
pub(crate) fn broken(error: impl std::fmt::Display) -> Failure {
    Failure::Broken(error.to_string())
}
