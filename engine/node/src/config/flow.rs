//! `[flow]`: whether publishers wait for observers, and how fast they send.

use super::ranges::{HOUR_NS, in_range};
use super::{Flow, SettingsError};
use bourdon_protocol::Rate;
use serde::{Deserialize, Serialize};

/// An observer that gates reports every 50 ms: some reports may be lost.
const GATING_TIMEOUT_LEAST_NS: u64 = 200_000_000;
/// A slower stream is as good as none, and no network is faster.
const RATE_MIN: u64 = Rate::FLOOR_MIN_BYTES_PER_S;
const RATE_MAX: u64 = Rate::MAX_BYTES_PER_S;

/// Flow control beyond the members' window: whether publishers wait for observers, and how fast they send.
///
/// ```toml
/// [flow]
/// mode = "free"
/// gating_timeout_ns = 1000000000
/// # rate_limit_bytes_per_s = 50000000 # default: no limit
/// # rate_floor_bytes_per_s = 10000000 # default: 10 MB/s, or the limit if that is lower
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct FlowSettings {
    /// At an observer: what it asks of publishers. At a member: what it grants at most.
    ///
    /// Default [`Flow::Free`]. Each process may have its own.
    pub mode: Flow,
    /// At a member with [`Flow::Gating`]: how long one observer can hold it up, in nanoseconds. A member stops waiting
    /// for an observer that is silent for so long, or delivers less than its window in that time. It waits again after
    /// ten such times, once the observer has caught up.
    ///
    /// Default 1 s. From 200 ms to an hour ([`Range`](super::SettingsError::Range)). Each process may have its own.
    pub gating_timeout_ns: u64,
    /// At a member: the most bytes a second that it sends of its stream, repairs included.
    ///
    /// Default: no limit. From 100 kB/s to 100 GB/s ([`Range`](super::SettingsError::Range)). Each process may have its
    /// own.
    pub rate_limit_bytes_per_s: Option<u64>,
    /// At a member with [`Flow::Paced`] or [`Flow::Gating`]: the rate, in bytes a second, to which observers that lose
    /// too much can lower it.
    ///
    /// Default: 10 MB/s, or `rate_limit_bytes_per_s` if that is lower. From 100 kB/s to that limit, or to 100 GB/s
    /// ([`Range`](super::SettingsError::Range)). Each process may have its own.
    pub rate_floor_bytes_per_s: Option<u64>,
}

impl Default for FlowSettings {
    fn default() -> Self {
        let gating_timeout_ns = bourdon_protocol::Timing::default().gating_timeout_ns;
        Self { mode: Flow::default(), gating_timeout_ns, rate_limit_bytes_per_s: None, rate_floor_bytes_per_s: None }
    }
}

impl FlowSettings {
    /// How fast a member sends.
    pub(super) fn rate(&self) -> Rate {
        let limit_bytes_per_s = self.rate_limit_bytes_per_s;
        let default = Rate::default().floor_bytes_per_s.min(limit_bytes_per_s.unwrap_or(u64::MAX));
        Rate { limit_bytes_per_s, floor_bytes_per_s: self.rate_floor_bytes_per_s.unwrap_or(default) }
    }

    /// Whether each time and rate is in its range.
    pub(super) fn check(&self) -> Result<(), SettingsError> {
        let rate = self.rate();
        let limit = rate.limit_bytes_per_s.unwrap_or(RATE_MAX);
        in_range("flow.rate_limit_bytes_per_s", limit, RATE_MIN, RATE_MAX)?;
        in_range("flow.rate_floor_bytes_per_s", rate.floor_bytes_per_s, RATE_MIN, limit)?;
        in_range("flow.gating_timeout_ns", self.gating_timeout_ns, GATING_TIMEOUT_LEAST_NS, HOUR_NS)
    }
}
