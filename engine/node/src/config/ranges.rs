//! The ranges of counts and times: a value outside its range is refused by name.
//!
//! A time of zero makes a busy loop of heartbeats or requests, and a time of years wraps when it is added to the clock;
//! a limit of zero refuses everything that it bounds, much later and without its name.

use super::sizes::{LOG_MAX_BYTES, MESSAGE_MAX_BYTES};
use super::{Settings, SettingsError};
use bourdon_protocol::Rate;

/// No time of the protocol is longer: a longer one is a mistaken unit.
const HOUR_NS: u64 = 3_600_000_000_000;
/// More heartbeats than this take a core.
const HEARTBEAT_LEAST_NS: u64 = 100_000;
/// An observer that gates reports every 50 ms: some reports may be lost.
const GATING_TIMEOUT_LEAST_NS: u64 = 200_000_000;
/// A slower stream is as good as none, and no network is faster.
const RATE_MIN: u64 = Rate::FLOOR_MIN_BYTES_PER_S;
const RATE_MAX: u64 = Rate::MAX_BYTES_PER_S;
/// IP has a byte for it.
const TTL_MAX: u64 = 255;
/// More repairs than any host sends.
const REPAIRS_MAX: u64 = 100_000_000;
/// A node has at most so many channels that more would help.
const DATA_AGENTS_MAX: u64 = 64;
/// The ranks and as many observers as any group has.
const RECEIVERS_MAX: u64 = 1_000_000;

impl Settings {
    /// Whether each count and time is in its range.
    pub(super) fn check_ranges(&self) -> Result<(), SettingsError> {
        let (limits, timing, rate) = (&self.limits, &self.timing, self.rate());
        let floor_max = rate.limit_bytes_per_s.unwrap_or(RATE_MAX).max(RATE_MIN);
        let heartbeat_max_ns = timing.heartbeat_max_ns.unwrap_or(HEARTBEAT_LEAST_NS);
        for (what, value, least, most) in [
            ("network.ttl", u64::from(self.network.ttl), 1, TTL_MAX),
            ("limits.max_message_bytes", limits.max_message_bytes as u64, 1, MESSAGE_MAX_BYTES as u64),
            ("limits.max_snapshot_bytes", limits.max_snapshot_bytes as u64, 1, LOG_MAX_BYTES as u64),
            ("limits.receivers", limits.receivers.into(), 1, RECEIVERS_MAX),
            ("limits.repairs_per_s", limits.repairs_per_s.into(), 1, REPAIRS_MAX),
            ("threads.data_agents", self.threads.data_agents as u64, 1, DATA_AGENTS_MAX),
            ("threads.drop_timeout_ns", self.threads.drop_timeout_ns, 0, HOUR_NS),
            ("timing.ack_delay_ns", timing.ack_delay_ns, 0, HOUR_NS),
            ("timing.heartbeat_min_ns", timing.heartbeat_min_ns, HEARTBEAT_LEAST_NS, HOUR_NS),
            ("timing.heartbeat_max_ns", heartbeat_max_ns, HEARTBEAT_LEAST_NS, HOUR_NS),
            ("timing.nak_retry_min_ns", timing.nak_retry_min_ns, 1, HOUR_NS),
            ("timing.nak_retry_max_ns", timing.nak_retry_max_ns, 1, HOUR_NS),
            ("timing.reorder_grace_ns", timing.reorder_grace_ns, 0, HOUR_NS),
            ("flow.rate_limit_bytes_per_s", rate.limit_bytes_per_s.unwrap_or(RATE_MAX), RATE_MIN, RATE_MAX),
            ("flow.rate_floor_bytes_per_s", rate.floor_bytes_per_s, RATE_MIN, floor_max),
            ("flow.gating_timeout_ns", self.flow.gating_timeout_ns, GATING_TIMEOUT_LEAST_NS, HOUR_NS),
        ] {
            if !(least..=most).contains(&value) {
                return Err(SettingsError::Range { what, value, least, most });
            }
        }
        Ok(())
    }
}
