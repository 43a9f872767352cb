//! What a process that follows a view keeps: see `process/follower.rs`.

use crate::control::view_change::{Ballot, Value};
use crate::values::cut::Cut;
use crate::view::{Beginning, View};
use bourdon_wire::Instant;

/// What a process that follows a view keeps.
#[derive(Debug, Default)]
pub(in crate::process) struct Following {
    /// When a member of the followed view was last heard.
    pub(in crate::process) heard_at: Instant,
    /// The latest of: the current view was entered, its end was decided, a datagram of its cut arrived.
    pub(in crate::process) since: Instant,
    /// Since when the members have heard another incarnation of this process's rank that is in the followed view; 0 if
    /// they do not hear it.
    pub(in crate::process) rival_since: Instant,
    /// The view that comes after the followed view.
    pub(in crate::process) next: Option<(View, Beginning)>,
    pub(in crate::process) decision: Option<Value>,
    /// When the decision came.
    pub(in crate::process) decided_at: Instant,
    /// The ballot whose value takes this process in, and the cut to hold before it is accepted.
    pub(in crate::process) invitation: Option<(Ballot, Cut)>,
    /// When this joiner last announced in this view that it is ready: members may have counted it since.
    pub(in crate::process) ready_at: Option<Instant>,
    /// The views between the followed view and the newest.
    pub(in crate::process) chain: Chain,
}

/// What a follower knows of the views between its own and the newest.
#[derive(Debug, Default)]
pub(in crate::process) struct Chain {
    /// The newest view beyond the next one, and where it begins for a process that enters it there.
    pub(in crate::process) newest: Option<(View, Beginning)>,
    /// When its wait for the decision began, or began again because a member was silent.
    pub(in crate::process) behind_since: Instant,
    /// When the first view beyond the next was heard of.
    pub(in crate::process) seen_at: Instant,
    /// The members that have answered without the decision.
    pub(in crate::process) lacking: u64,
    /// How many datagrams had been received at the last look.
    pub(in crate::process) received: u64,
    /// Every stream of this view was received from its first datagram, and none was given up.
    pub(in crate::process) is_whole: bool,
}
