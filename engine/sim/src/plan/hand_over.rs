//! Control planes beside their processes, as on a control thread: what the two exchange arrives late.

use serde::{Deserialize, Serialize};

/// How late the values between a process and its control plane arrive, and how often one of the two threads stalls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HandOverPlan {
    /// How long a value is on its way at most. Every other value arrives at once, if none is before it.
    pub delay_max_ns: u64,
    /// Of all steps of a control thread: it stalls before the step, or before it hands over what the step gave.
    pub control_stall_permille: u32,
    /// Of all steps of a process: it stalls, while its control thread runs on.
    pub data_stall_permille: u32,
    /// The longest stall.
    pub stall_max_ns: u64,
}
