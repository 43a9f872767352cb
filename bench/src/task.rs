//! What a member of a total-order measurement does.

use serde::{Deserialize, Serialize};

/// What one member of a measurement does.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Task {
    pub(crate) rank: u16,
    pub(crate) members: u16,
    /// The members of the lowest ranks send.
    pub(crate) senders: u16,
    pub(crate) interface: String,
    pub(crate) reliability: String,
    /// Messages a second of each sender; full speed if none.
    pub(crate) rate_per_s: Option<u64>,
    pub(crate) duration_ns: u64,
    /// The most messages of a sender.
    pub(crate) count: u64,
}
