//! Links that are not merely lossy.

use serde::{Deserialize, Serialize};

/// Links that stall as TCP does under loss.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StallPlan {
    /// Of all segments: lost, and retransmitted.
    pub loss_permille: u32,
    /// The shortest time until a lost segment is retransmitted.
    pub min_ns: u64,
    /// The longest time until then.
    pub max_ns: u64,
}
