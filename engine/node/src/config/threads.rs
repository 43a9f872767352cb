//! `[threads]`: where a node runs and how it idles.

use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Where a node runs and how it idles.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct ThreadSettings {
    /// What the data agent does while nothing comes.
    pub idle: IdleStrategy,
    /// The core the data agent is pinned to.
    pub core: Option<usize>,
    /// How many threads run the streams of one node: the group's own and its channels'.
    pub data_agents: usize,
    /// How much each publication of a threaded node queues.
    pub publication_ring_bytes: usize,
    /// How much each subscription of a threaded node queues.
    pub subscription_ring_bytes: usize,
    /// How long a node that is dropped goes on at most, to send what it accepted and await its acknowledgement, in
    /// nanoseconds; with 0 it discards all that is not acknowledged by then.
    pub drop_timeout_ns: u64,
    /// Where counters and the admin socket are; by default a directory of this user's.
    pub directory: Option<PathBuf>,
}

/// What a thread does while nothing comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum IdleStrategy {
    /// Polls again at once: the lowest latency, a whole core.
    Spin,
    /// Lets other threads run between two rounds.
    Yield,
    /// Spins, then yields, then sleeps ever longer, up to a millisecond.
    Backoff,
    /// Sleeps in the kernel until something comes.
    Park,
}

impl Default for ThreadSettings {
    fn default() -> Self {
        Self {
            idle: IdleStrategy::Park,
            core: None,
            data_agents: 1,
            publication_ring_bytes: 8 << 20,
            subscription_ring_bytes: 8 << 20,
            drop_timeout_ns: 1_000_000_000,
            directory: None,
        }
    }
}
