//! `[timing]`: how long things take.

use serde::{Deserialize, Serialize};

/// How long things take, in nanoseconds.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct TimingSettings {
    /// A datagram received is acknowledged at the latest after this (200 us).
    pub ack_delay_ns: u64,
    /// The first heartbeat after the last datagram (1 ms): how long a lost tail goes unnoticed at most.
    pub heartbeat_min_ns: u64,
    /// A request for repair is not sent again before this (1 ms).
    pub nak_retry_min_ns: u64,
    /// A request for repair is sent again at the latest after this (20 ms).
    pub nak_retry_max_ns: u64,
    /// How long a missing datagram may be mere reordering before a repair is requested (0).
    pub reorder_grace_ns: u64,
    /// The longest time between heartbeats; left out, the value of the detector's profile: 10 ms, 2 ms or 20 ms.
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
