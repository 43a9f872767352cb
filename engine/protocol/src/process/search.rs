//! What a process knows of the groups that it has heard, whatever its role.

use bourdon_wire::{InstanceId, Instant};

/// What a process knows of the groups that it has heard, and has asked them.
#[derive(Debug, Default)]
pub(super) struct Search {
    /// The nonce that an answer must repeat, since when it is in use, and which instance was asked.
    pub(super) nonce: u64,
    pub(super) nonce_since: Instant,
    pub(super) asked_instance: InstanceId,
    pub(super) asked_at: Instant,
    /// When a process that is in a view was last heard.
    pub(super) formed_at: Instant,
    /// Since when this process has waited, beside an older instance that is alive, for the later instance that it was
    /// in; 0 if it does not.
    pub(super) older_since: Instant,
}
