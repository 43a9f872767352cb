//! What a member of a view keeps: see `process/member.rs`.

use super::Ending;

/// What a member of a view keeps.
#[derive(Debug, Default)]
pub(in crate::process) struct Joined {
    pub(in crate::process) ending: Ending,
    /// Whether it reaches no quorum of its view.
    pub(in crate::process) no_majority: bool,
}
