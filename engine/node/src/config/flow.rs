//! `[flow]`: whether publishers wait for observers, and how fast they send.

use super::{Flow, Settings};
use bourdon_protocol::Rate;
use serde::{Deserialize, Serialize};

/// Whether publishers wait for observers, and how fast they send; see `docs/protocols/gates.md` and `pacing.md`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct FlowSettings {
    /// An observer asks for it; a member grants at most this.
    pub mode: Flow,
    /// How long one observer can hold a publisher up.
    pub gating_timeout_ns: u64,
    /// How fast a member sends its stream at most, repairs included.
    pub rate_limit_bytes_per_s: Option<u64>,
    /// How slowly observers that lose too much can make a member send; left out: 10 MB/s, or the limit if that is
    /// lower.
    pub rate_floor_bytes_per_s: Option<u64>,
}

impl Default for FlowSettings {
    fn default() -> Self {
        let gating_timeout_ns = bourdon_protocol::Timing::default().gating_timeout_ns;
        Self { mode: Flow::default(), gating_timeout_ns, rate_limit_bytes_per_s: None, rate_floor_bytes_per_s: None }
    }
}

impl Settings {
    /// How fast a member sends.
    pub(super) fn rate(&self) -> Rate {
        let limit_bytes_per_s = self.flow.rate_limit_bytes_per_s;
        let default = Rate::default().floor_bytes_per_s.min(limit_bytes_per_s.unwrap_or(u64::MAX));
        Rate { limit_bytes_per_s, floor_bytes_per_s: self.flow.rate_floor_bytes_per_s.unwrap_or(default) }
    }
}
