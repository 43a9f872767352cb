//! `[threads]`: where a node runs and how it idles.

use super::SettingsError;
use super::memory::MESSAGE_HEAD_BYTES;
use super::ranges::{HOUR_NS, in_range};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// A node has at most so many channels that more would help.
const DATA_AGENTS_MAX: u64 = 64;

/// Where a node runs, how it idles, and what its threads hand over to each other. Each process may have its own.
///
/// ```toml
/// [threads]
/// idle = "park"
/// # core = 3 # default: not pinned
/// pin = false
/// data_agents = 1
/// publication_ring_bytes = 8388608
/// subscription_ring_bytes = 8388608
/// drop_timeout_ns = 1000000000
/// # directory = "/run/bourdon" # default: a directory of this user's
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct ThreadSettings {
    /// What a data agent of a [`Node`](crate::Node) does while nothing arrives. At an
    /// [`InlineNode`](crate::InlineNode) it selects the sockets only: with `spin` and `yield` they never sleep, and
    /// [`wait`](crate::InlineNode::wait) returns at once; with `park` and `backoff` it sleeps. The application's loop
    /// chooses what to do between two polls, with [`Idler`](crate::time::Idler) for one.
    ///
    /// Default [`IdleStrategy::Park`].
    pub idle: IdleStrategy,
    /// The core that the data agent is pinned to. Several agents are pinned to it and the following ones.
    ///
    /// Default: none, the scheduler moves it. A core that this process may not use is refused when the node starts
    /// ([`PlacementError`](crate::error::PlacementError)).
    pub core: Option<usize>,
    /// Whether the data agents are pinned to cores that the host's topology decides: a physical core each, on one
    /// socket where it has enough, and not on the host's first one. Where there are too few cores, or a cgroup's
    /// quota is smaller than the agents need, they are not pinned.
    ///
    /// Default false. Has no effect beside `core`.
    pub pin: bool,
    /// How many threads run the streams of one node: the group's own and its channels'. One of them runs each stream.
    ///
    /// Default 1. From 1 to 64 ([`Range`](super::SettingsError::Range)).
    pub data_agents: usize,
    /// The size of each publication's queue, in bytes.
    ///
    /// Default 8 MiB. At least four times [`limits.max_message_bytes`](super::LimitSettings::max_message_bytes) and
    /// what four headers take, at most 1 GiB ([`Ring`](super::SettingsError::Ring)).
    pub publication_ring_bytes: usize,
    /// The size of each subscription's queue, in bytes. A member whose queue is full stops delivering and so holds the
    /// group back, and so does an observer that gates; any other observer skips messages and counts them.
    ///
    /// Default 8 MiB. The same range as `publication_ring_bytes` ([`Ring`](super::SettingsError::Ring)).
    pub subscription_ring_bytes: usize,
    /// How long a node that is dropped goes on at most, in nanoseconds, to send what it accepted and await its
    /// acknowledgement. It warns (`tracing`) of what is not acknowledged by then. With 0 it discards all that at once.
    ///
    /// Default 1 s. From 0 to an hour ([`Range`](super::SettingsError::Range)).
    pub drop_timeout_ns: u64,
    /// The directory of the counters file and the admin socket: one of this user's that no other user can write.
    ///
    /// Default: the first with room of `$XDG_RUNTIME_DIR/bourdon`, `/dev/shm/bourdon-<uid>` and `/tmp/bourdon-<uid>`;
    /// those before it are named in [`Info::fallback`](crate::Info::fallback).
    /// A directory that other users can write is refused when the node starts
    /// ([`DirectoryError`](crate::error::DirectoryError)).
    pub directory: Option<PathBuf>,
}

/// What a thread does while nothing arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum IdleStrategy {
    /// `spin`: it polls again at once. The lowest latency, for a whole core.
    Spin,
    /// `yield`: it lets other threads run between two rounds.
    Yield,
    /// `backoff`: it spins, then yields, then sleeps ever longer, up to a millisecond.
    Backoff,
    /// `park`, the default: it sleeps in the kernel until something arrives.
    Park,
    /// `auto`: what the host can afford, where agents are pinned (`core`, `pin`): `spin` if a physical core is left
    /// beside the agents, and the cgroup's quota allows it; `backoff` if the agents take all cores. Otherwise `park`.
    Auto,
}

impl Default for ThreadSettings {
    fn default() -> Self {
        Self {
            idle: IdleStrategy::Park,
            core: None,
            pin: false,
            data_agents: 1,
            publication_ring_bytes: 8 << 20,
            subscription_ring_bytes: 8 << 20,
            drop_timeout_ns: 1_000_000_000,
            directory: None,
        }
    }
}

impl ThreadSettings {
    /// Whether each count and time is in its range, and the longest message fits the rings.
    pub(super) fn check(&self, max_message_bytes: usize) -> Result<(), SettingsError> {
        self.check_rings(max_message_bytes)?;
        in_range("threads.data_agents", self.data_agents as u64, 1, DATA_AGENTS_MAX)?;
        in_range("threads.drop_timeout_ns", self.drop_timeout_ns, 0, HOUR_NS)
    }

    /// Four of the longest messages fit a ring: with half, one might never fit behind what is left of another.
    fn check_rings(&self, max_message_bytes: usize) -> Result<(), SettingsError> {
        let most = bourdon_ring::spsc::MAX_CAPACITY_BYTES;
        let least = max_message_bytes.saturating_add(MESSAGE_HEAD_BYTES).saturating_mul(4);
        for (what, bytes) in [
            ("publication_ring_bytes", self.publication_ring_bytes),
            ("subscription_ring_bytes", self.subscription_ring_bytes),
        ] {
            if !(least..=most).contains(&bytes) {
                return Err(SettingsError::Ring { what, bytes, least, most });
            }
        }
        Ok(())
    }
}
