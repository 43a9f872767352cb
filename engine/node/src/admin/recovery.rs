//! Recovery by hand on the admin socket: what it would do, and that it be done.
//!
//! `{"request":"recover"}` only reports. The report names the view that a recovery would end; a request that repeats
//! this, `{"request":"recover","instance":"…","epoch":N}`, carries it out, unless the view has changed since or there
//! is an obstacle. So an operator agrees to what was shown, and to nothing else.

use crate::inline::InlineNode;
use bourdon_protocol::{Ranks, Recovery};
use bourdon_wire::{Epoch, InstanceId};
use serde_json::{Value, json};

/// The view that a recovery ends: of instance and epoch 0 before the first view.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ended {
    pub(crate) instance: InstanceId,
    pub(crate) epoch: Epoch,
}

/// What a recovery would do, or has done.
#[derive(Debug)]
pub(crate) struct RecoveryReport {
    recovery: Recovery,
    /// The instance that it founded, and its birth.
    founded: Option<(InstanceId, u64)>,
    /// The view is not the one that was to end.
    has_changed: bool,
}

impl RecoveryReport {
    /// Carries a recovery out if this view is still the one to end; without a view, or with an obstacle, it only
    /// reports.
    pub(crate) fn of(node: &mut InlineNode, ended: Option<Ended>) -> Self {
        let recovery = node.engine.recovery();
        let shown = Ended { instance: recovery.instance, epoch: recovery.epoch };
        if ended != Some(shown) {
            return Self { recovery, founded: None, has_changed: ended.is_some() };
        }
        match node.engine.recover() {
            Ok(recovery) => {
                let view = node.engine.process().view();
                Self { recovery, founded: Some((view.instance, view.birth)), has_changed: false }
            }
            Err(recovery) => Self { recovery, founded: None, has_changed: false },
        }
    }

    pub(crate) fn answer(&self) -> Value {
        let Self { recovery, founded, has_changed } = self;
        let obstacle = recovery.obstacle;
        let why = match obstacle {
            Some(obstacle) => Some(obstacle.to_string()),
            None => has_changed.then(|| "the view has changed since it was shown: look again".to_owned()),
        };
        json!({ "recovery": {
            "done": founded.is_some(),
            "obstacle": obstacle.map(|obstacle| obstacle.name()),
            "why": why,
            "may_pass": obstacle.is_some_and(|obstacle| obstacle.may_pass()),
            "member": obstacle.and_then(|obstacle| obstacle.rank()).map(|rank| rank.0),
            "instance": format!("{:016x}", recovery.instance.0),
            "epoch": recovery.epoch.0,
            "survivors": Ranks(recovery.survivors).iter().collect::<Vec<_>>(),
            "silent": Ranks(recovery.silent).iter().collect::<Vec<_>>(),
            "ahead": Ranks(recovery.ahead).iter().collect::<Vec<_>>(),
            "unacknowledged": recovery.unacknowledged,
            "undelivered": recovery.undelivered,
            "new_instance": founded.map(|(instance, _)| format!("{:016x}", instance.0)),
            "birth": founded.map(|(_, birth)| birth),
        }})
    }
}
