//! Continuation: a group never shrinks below a quorum of itself in one step.
//!
//! A member that accepts a value only proves that it knows the value; a view of one member can be accepted by the three
//! that it replaces. So the checker judges the members of the new view: the incarnations of the old view that continue,
//! with the leavers counted as consenting, are a quorum of the old view.
//!
//! Where a view broke that, the loss of the group is no excuse: a crash of one member of three then loses messages that
//! `uniform` and `stable` had delivered to the application.

use super::quorum::is_quorum;
use super::{Verdict, Violation};
use crate::demand::{Demand, Demands};
use crate::history::{History, Id};
use crate::node::Node;
use crate::plan::Plan;
use bourdon_protocol::{Member, Reliability, View};
use std::collections::BTreeSet;

pub(super) const NAME: &str = "continuation";
pub(super) const SURVIVAL: &str = "survival";

#[derive(Debug)]
pub(super) struct Continuation {
    demands: Demands,
    uniform: bool,
    leaving: BTreeSet<Member>,
    pub(super) crashed: BTreeSet<Member>,
    /// The first view that was no continuation, in words.
    broken: Option<String>,
}

impl Continuation {
    pub(super) fn new(plan: &Plan, demands: Demands) -> Self {
        let uniform = plan.reliability > Reliability::Reliable;
        Self { demands, uniform, leaving: BTreeSet::new(), crashed: BTreeSet::new(), broken: None }
    }

    pub(super) fn left(&mut self, member: Member) {
        self.leaving.insert(member);
    }

    pub(super) fn crashed(&mut self, member: Member) {
        self.crashed.insert(member);
    }

    /// Whether an incarnation crashed or asked to leave.
    pub(super) fn has_ended(&self, member: Member) -> bool {
        self.crashed.contains(&member) || self.leaving.contains(&member)
    }

    /// Judges a view by the one before.
    pub(super) fn decided(&mut self, old: &View, new: &View) -> Verdict {
        if is_quorum(old, |member| new.contains(*member) || self.leaving.contains(member)) {
            return Ok(());
        }
        let (before, after) = (ranks(old), ranks(new));
        let alive: Vec<u16> = old.members.iter().filter(|m| !self.has_ended(**m)).map(|m| m.rank.0).collect();
        let (e, f) = (old.epoch, new.epoch);
        let detail = format!("view {f} of members {after:?} follows view {e} of {before:?}, of which {alive:?} live");
        if self.demands.has(Demand::Continuation) {
            return Err(Violation::new(NAME, detail));
        }
        self.broken.get_or_insert(detail);
        Ok(())
    }

    /// Judges the loss of the group.
    pub(super) fn lost(&self, history: &History, members: &[Node]) -> Verdict {
        let Some(broken) = self.broken.as_ref().filter(|_| self.uniform && self.demands.has(Demand::Survival)) else {
            return Ok(());
        };
        let alive = || members.iter().filter(|node| node.process.is_some()).map(|node| &history.lineages[node.lineage]);
        let shown = |id: Id| history.lineages.iter().any(|lineage| lineage.member && lineage.has(id));
        let ids = 0..history.messages.len() as Id;
        let lost = ids.filter(|id| shown(*id) && !alive().any(|lineage| lineage.has(*id))).count();
        let crashed: Vec<u16> = self.crashed.iter().map(|member| member.rank.0).collect();
        let detail =
            format!("the crashes of {crashed:?} lose the group, and {lost} messages that it had delivered: {broken}");
        Err(Violation::new(SURVIVAL, detail))
    }
}

fn ranks(view: &View) -> Vec<u16> {
    view.members.iter().map(|member| member.rank.0).collect()
}
