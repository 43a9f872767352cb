//! What the demo and its processes say to each other: one JSON object a line, over the process's stdin and stdout.
//!
//! A process whose stdin ends has lost its demo and must not outlive it.

use super::input::Source;
use super::schedule::Rate;
use bourdon::Settings;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Latencies are told apart up to an hour; beyond, they count as one.
pub(crate) const LATENCY_MAX_NS: u64 = 3_600_000_000_000;

/// What a process is to do; the first line it reads.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Assignment {
    pub(crate) settings: Settings,
    /// How many members publish: ranks 0 to this less one.
    pub(crate) publishers: u16,
    /// How many messages all of them publish together.
    pub(crate) messages: u64,
    pub(crate) source: Source,
    pub(crate) rate: Rate,
    pub(crate) max_gap_ns: u64,
    /// Kill yourself once you have delivered so many messages.
    pub(crate) kill_at: Option<u64>,
    /// Close a TCP connection each time you have delivered so many messages; in order.
    pub(crate) breaks_at: Vec<u64>,
    /// Every eighth message answers the last delivered one.
    pub(crate) replies: bool,
    /// Ask for a barrier every so many messages.
    pub(crate) barrier_every: Option<u64>,
    /// Where to write what is delivered.
    pub(crate) history: Option<PathBuf>,
    /// This is a second life: join, and begin with a member's state.
    pub(crate) restarted: bool,
    /// When publishing began, for a second life.
    pub(crate) start_ns: Option<u64>,
}

/// Said by the demo.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Order {
    /// Everybody is ready: publish, beginning at this time of the monotonic clock.
    Go { start_ns: u64 },
    /// Everything has been delivered: say the result.
    Finish,
    /// Say the chain (see [`Said::Chain`]) at these counts of delivered messages.
    Chain { counts: Vec<u64> },
    /// Say what was delivered, in order.
    Names,
}

/// Said by a process.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Said {
    /// Every member has been heard.
    Ready { io: String, fallback: Option<String>, receive_buffer_bytes: usize },
    /// Something happened in the group that a user should know if all does not go well.
    News { what: String },
    /// So many messages delivered so far, and so many given up; whether it has published all it is to publish.
    Progress { delivered: u64, lost: u64, published_all: bool },
    /// It can't go on: a silent member, a broken port.
    Stuck { why: String },
    /// It can't even begin.
    Unusable { why: String },
    /// In answer to [`Order::Finish`].
    Result(Box<Tally>),
    /// In answer to [`Order::Names`]: the messages' names, where they were to be kept.
    Names { names: Vec<u64> },
    /// In answer to [`Order::Chain`]: a hash over which messages were delivered in which order, at each count.
    Chain { hashes: Vec<Option<u64>> },
}

/// What one process delivered.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Tally {
    pub(crate) delivered: u64,
    pub(crate) duplicates: u64,
    pub(crate) gaps: u64,
    pub(crate) payload_sha256: String,
    /// By share: how many of its records.
    pub(crate) shares: Vec<u64>,
    pub(crate) views: u64,
    /// It began again with a member's state.
    pub(crate) restarted: bool,
    /// (latency, count) for each bucket of the histogram.
    pub(crate) latency_ns: Vec<(u64, u64)>,
    pub(crate) naks_sent: u64,
    pub(crate) repairs_received: u64,
    /// TCP connections it closed on purpose.
    pub(crate) links_broken: u64,
}
