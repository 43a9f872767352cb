//! The messages between the demo and its processes: one JSON object a line, over the process's stdin and stdout.
//!
//! A process whose stdin ends has lost its demo and must not outlive it.

use super::input::Source;
use super::schedule::Rate;
use bourdon::Settings;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// The longest latency that is distinguished, an hour; longer latencies count as this.
pub(crate) const LATENCY_MAX_NS: u64 = 3_600_000_000_000;

/// What a process is to do; the first line that it reads.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Assignment {
    pub(crate) settings: Settings,
    /// The number of members that publish: ranks 0 to this less one.
    pub(crate) publishers: u16,
    /// How many observers a member waits for before the demo begins.
    pub(crate) gates: u16,
    /// The total number of messages that they publish.
    pub(crate) messages: u64,
    pub(crate) source: Source,
    pub(crate) rate: Rate,
    pub(crate) max_gap_ns: u64,
    /// The process kills itself once it has delivered this many messages.
    pub(crate) kill_at: Option<u64>,
    /// The process closes a TCP connection each time it has delivered one of these numbers of messages; in order.
    pub(crate) breaks_at: Vec<u64>,
    /// Every eighth message answers the last delivered one.
    pub(crate) replies: bool,
    /// The process requests a barrier every this many messages.
    pub(crate) barrier_every: Option<u64>,
    /// Where to write what is delivered.
    pub(crate) history: Option<PathBuf>,
    /// The process was killed before: it begins with what it has stored, or with a member's state.
    pub(crate) restarted: bool,
    /// Where a durable member keeps what it has delivered.
    pub(crate) journal: Option<PathBuf>,
    /// When publishing began, for a restarted process.
    pub(crate) start_ns: Option<u64>,
}

/// Sent by the demo.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Order {
    /// All processes are ready: publish, beginning at this time of the monotonic clock.
    Go { start_ns: u64 },
    /// Everything has been delivered: report the result.
    Finish,
    /// Report the chain (see [`ProcessReport::Chain`]) at these counts of delivered messages.
    Chain { counts: Vec<u64> },
    /// Report what was delivered, in order.
    Names,
}

/// Sent by a process.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum ProcessReport {
    /// Every member has been heard.
    Ready { io: String, fallback: Option<String>, receive_buffer_bytes: usize },
    /// Something happened in the group that a user should know if all does not go well.
    News { what: String },
    /// How many messages were delivered and given up so far; whether the process has published all its messages.
    Progress { delivered: u64, lost: u64, published_all: bool },
    /// The process can't go on: a silent member, a broken port.
    Stuck { why: String },
    /// The process can't begin.
    Unusable { why: String },
    /// In answer to [`Order::Finish`].
    Result(Box<Tally>),
    /// In answer to [`Order::Names`]: the messages' names.
    Names { names: Vec<u64> },
    /// In answer to [`Order::Chain`]: a hash, at each count, over which messages were delivered in which order.
    Chain { hashes: Vec<Option<u64>> },
}

/// What one process delivered.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Tally {
    pub(crate) delivered: u64,
    pub(crate) duplicates: u64,
    pub(crate) gaps: u64,
    pub(crate) payload_sha256: String,
    /// The number of records of each share.
    pub(crate) shares: Vec<u64>,
    pub(crate) views: u64,
    /// Whether it began again, with what it had stored or a member's state.
    pub(crate) restarted: bool,
    /// (latency, count) for each bucket of the histogram.
    pub(crate) latency_ns: Vec<(u64, u64)>,
    pub(crate) naks_sent: u64,
    pub(crate) repairs_received: u64,
    /// TCP connections that it closed on purpose.
    pub(crate) links_broken: u64,
}
