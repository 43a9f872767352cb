//! What a process that is in no view, or follows one, knows of the group.

use crate::control::view_change::{Ballot, Value};
use crate::values::cut::Cut;
use crate::view::{Beginning, View};
use bourdon_wire::{InstanceId, Instant};

/// What a process in no view knows of the group.
#[derive(Debug, Default)]
pub(super) struct Search {
    /// The nonce that an answer must repeat, since when it is in use, and which instance was asked.
    pub(super) nonce: u64,
    pub(super) nonce_since: Instant,
    pub(super) asked_instance: InstanceId,
    /// It may not come back before this time.
    pub(super) not_before: Instant,
    pub(super) asked_at: Instant,
    /// When a process that is in a view was last heard.
    pub(super) formed_at: Instant,
    /// When a member of the followed view was last heard.
    pub(super) heard_at: Instant,
    /// When the current view was entered, its end was decided, or a datagram of its cut last arrived.
    pub(super) since: Instant,
    /// Since when this process has waited, beside an older instance that is alive, for the later instance that it was
    /// in; 0 if it does not.
    pub(super) older_since: Instant,
    /// Since when the members have heard another incarnation of this process's rank that is in the followed view; 0 if
    /// they do not hear it.
    pub(super) rival_since: Instant,
    /// The view that comes after the followed view.
    pub(super) next: Option<(View, Beginning)>,
    pub(super) decision: Option<Value>,
    /// When the decision came.
    pub(super) decided_at: Instant,
    /// The ballot whose value takes this process in, and the cut to hold before it is accepted.
    pub(super) invitation: Option<(Ballot, Cut)>,
    /// The views between the followed view and the newest.
    pub(super) chain: Chain,
}

/// What a follower knows of the views between its own and the newest.
#[derive(Debug, Default)]
pub(super) struct Chain {
    /// The newest view beyond the next one, and where it begins for a process that enters it there.
    pub(super) newest: Option<(View, Beginning)>,
    /// Since when this process knows that there is such a view.
    pub(super) behind_since: Instant,
    /// When the first view beyond the next was heard of.
    pub(super) seen_at: Instant,
    /// The members that have answered without the decision.
    pub(super) lacking: u64,
    /// Datagrams received when the cut last came closer.
    pub(super) received: u64,
    /// Every stream of this view was received from its first datagram, and none was given up.
    pub(super) is_whole: bool,
}
