//! `[timing]`: how long things take.

use super::SettingsError;
use super::ranges::{HOUR_NS, in_range};
use serde::{Deserialize, Serialize};

/// More heartbeats than this take a core.
const HEARTBEAT_LEAST_NS: u64 = 100_000;

/// Delays and intervals of acknowledgements, heartbeats and repairs, in nanoseconds. Each process may have its own.
///
/// ```toml
/// [timing]
/// ack_delay_ns = 200000
/// heartbeat_min_ns = 1000000
/// nak_retry_min_ns = 1000000
/// nak_retry_max_ns = 20000000
/// reorder_grace_ns = 0
/// # heartbeat_max_ns = 10000000 # default: by detector.profile
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct TimingSettings {
    /// The longest delay before a received datagram is acknowledged, in nanoseconds.
    ///
    /// Default 200 µs. From 0 to an hour ([`Range`](super::SettingsError::Range)).
    pub ack_delay_ns: u64,
    /// The delay of the first heartbeat after the last datagram, in nanoseconds. Until then no receiver notices that
    /// the last datagrams were lost.
    ///
    /// Default 1 ms. From 100 µs to an hour ([`Range`](super::SettingsError::Range)).
    pub heartbeat_min_ns: u64,
    /// The shortest delay before a request for repair is sent again, in nanoseconds.
    ///
    /// Default 1 ms. From 1 to an hour ([`Range`](super::SettingsError::Range)).
    pub nak_retry_min_ns: u64,
    /// The longest delay before a request for repair is sent again, in nanoseconds.
    ///
    /// Default 20 ms. From 1 to an hour ([`Range`](super::SettingsError::Range)).
    pub nak_retry_max_ns: u64,
    /// How long a receiver takes a missing datagram for reordered before it requests a repair, in nanoseconds; 0 where
    /// there is one path.
    ///
    /// Default 0. From 0 to an hour ([`Range`](super::SettingsError::Range)).
    pub reorder_grace_ns: u64,
    /// The longest time between heartbeats, in nanoseconds. Each heartbeat doubles the time to the next up to this.
    ///
    /// Default: by [`detector.profile`](super::DetectorSettings::profile), 10 ms, 2 ms (`fast`) or 20 ms (`patient`).
    /// From 100 µs to an hour ([`Range`](super::SettingsError::Range)).
    pub heartbeat_max_ns: Option<u64>,
}

impl Default for TimingSettings {
    fn default() -> Self {
        let timing = bourdon_protocol::Timing::default();
        Self {
            ack_delay_ns: timing.ack_delay_ns,
            heartbeat_min_ns: timing.heartbeat_min_ns,
            nak_retry_min_ns: timing.nak_retry_min_ns,
            nak_retry_max_ns: timing.nak_retry_max_ns,
            reorder_grace_ns: timing.reorder_grace_ns,
            heartbeat_max_ns: None,
        }
    }
}

impl TimingSettings {
    /// Whether each time is in its range.
    pub(super) fn check(&self) -> Result<(), SettingsError> {
        let heartbeat_max_ns = self.heartbeat_max_ns.unwrap_or(HEARTBEAT_LEAST_NS);
        in_range("timing.ack_delay_ns", self.ack_delay_ns, 0, HOUR_NS)?;
        in_range("timing.heartbeat_min_ns", self.heartbeat_min_ns, HEARTBEAT_LEAST_NS, HOUR_NS)?;
        in_range("timing.heartbeat_max_ns", heartbeat_max_ns, HEARTBEAT_LEAST_NS, HOUR_NS)?;
        in_range("timing.nak_retry_min_ns", self.nak_retry_min_ns, 1, HOUR_NS)?;
        in_range("timing.nak_retry_max_ns", self.nak_retry_max_ns, 1, HOUR_NS)?;
        in_range("timing.reorder_grace_ns", self.reorder_grace_ns, 0, HOUR_NS)
    }
}
