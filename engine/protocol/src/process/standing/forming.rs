//! What a process keeps before the first view: see `process/forming.rs`.

use super::Ending;
use bourdon_wire::InstanceId;

/// What a process keeps before the first view.
#[derive(Debug)]
pub(in crate::process) struct Forming {
    pub(in crate::process) ending: Ending,
    /// The candidate for the instance's name in the current ballot.
    pub(in crate::process) candidate: InstanceId,
}
