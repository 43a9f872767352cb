//! What a member of a view keeps: see `process/member.rs`.

use super::Ending;
use bourdon_wire::Instant;

/// What a member of a view keeps.
#[derive(Debug, Default)]
pub(in crate::process) struct Joined {
    pub(in crate::process) ending: Ending,
    /// Whether it reaches no quorum of its view.
    pub(in crate::process) no_majority: bool,
    /// A view is without it: since when nothing more has come of its own view, and how many datagrams had come by then.
    pub(in crate::process) left_out: Option<(Instant, u64)>,
}
