//! Restarts of the whole group, and the datagrams and members that come back from before them.

use serde::{Deserialize, Serialize};

/// All members stop at one moment, and new processes of the same ranks form the group again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RestartPlan {
    /// When the members stop.
    pub at_ns: u64,
    /// How long after that the new processes start.
    pub down_ns: u64,
    /// Members that freeze, as a bitmap; the others crash.
    #[serde(default)]
    pub frozen: u64,
    /// How long after the start of the new processes the frozen ones resume.
    #[serde(default)]
    pub resume_after_ns: u64,
    /// Whether the files in which the members store the highest birth are lost.
    #[serde(default)]
    pub loses_files: bool,
    /// How far behind the time the members' wall clocks are from then on.
    #[serde(default)]
    pub clock_back_ms: u64,
}

/// Recorded datagrams that are sent again, later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReplayPlan {
    /// The mean time between two replays.
    pub interval_ns: u64,
    /// Of all replays: of this instance's datagrams, rather than of an earlier instance's.
    pub own_permille: u32,
}
