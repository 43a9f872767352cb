//! Observers go through every view: they do not give up what a member could still have given them.
//!
//! An observer that reports a gap keeps its contract. But an observer is of no use if it reports a gap for a market's
//! most important seconds, while every member that survived holds the messages. So from `reliable` on a gap needs a
//! cause that no retention cures, and a retraction needs a message that is in no view:
//!
//! - A message that a member delivered, and that a living member of its view has, is given up only if more datagrams of
//!   its sender, or of a sequencer, came after it than the smallest log holds.
//! - A message that a member delivered in the epoch in which the observer delivered it is not void, if that member goes
//!   on to the next view. A message that only other members delivered there may lie beyond the cut.

use super::views::Views;
use super::{Verdict, Violation};
use crate::demand::{Demand, Demands};
use crate::history::{Delivered, Gap, History, Id, Lineage};
use crate::node::Node;
use crate::plan::Plan;
use bourdon_protocol::{Member, Order, Process, Standing};
use bourdon_wire::Rank;
use std::collections::BTreeMap;

pub(super) const NAME: &str = "observers";

/// What an observer reported as lost or void.
#[derive(Clone, Debug)]
enum Loss {
    GaveUp { observer: usize, gap: Gap, since_ns: u64 },
    Retracted { observer: usize, epoch: u64, messages: Vec<Id> },
}

#[derive(Debug)]
pub(crate) struct Observers {
    is_judged: bool,
    total: bool,
    log_slots: u64,
    /// By message: the epoch in which a member delivered it.
    delivered_in: BTreeMap<Id, u64>,
    /// By message and epoch: the members that delivered it there, as bits.
    delivered_by: BTreeMap<(Id, u64), u64>,
    /// By epoch and sender: datagrams that a member has received.
    datagrams: BTreeMap<(u64, u16), u64>,
    losses: Vec<Loss>,
}

impl Observers {
    pub(super) fn new(plan: &Plan, demands: Demands) -> Self {
        Self {
            is_judged: demands.has(Demand::Observers) && !plan.is_lossy() && !plan.observers.is_empty(),
            total: plan.order == Order::Total,
            log_slots: u64::from(plan.log_slots.min(plan.receive_log_slots)),
            delivered_in: BTreeMap::new(),
            delivered_by: BTreeMap::new(),
            datagrams: BTreeMap::new(),
            losses: Vec::new(),
        }
    }

    pub(super) fn delivered(&mut self, lineage: &Lineage, id: Id, epoch: u64) {
        if self.is_judged && lineage.member {
            self.delivered_in.insert(id, epoch);
            *self.delivered_by.entry((id, epoch)).or_default() |= 1 << lineage.process;
        }
    }

    pub(super) fn stepped(&mut self, process: &Process) {
        if !self.is_judged || process.standing() != Standing::Member {
            return;
        }
        let epoch = process.view().epoch.0;
        for rank in (0..process.config().members).map(Rank) {
            let most = self.datagrams.entry((epoch, rank.0)).or_default();
            *most = process.received(rank).0.max(*most);
        }
    }

    /// An observer reports messages as lost.
    pub(crate) fn gave_up(&mut self, lineage: &Lineage, gap: Gap) {
        let Some(since_ns) = lineage.formed_at_ns.filter(|_| self.is_judged) else { return };
        self.losses.push(Loss::GaveUp { observer: lineage.process, gap, since_ns });
    }

    /// An observer reports messages as void.
    pub(crate) fn retracted(&mut self, lineage: &Lineage, void: Gap) {
        let Some(epoch) = lineage.epoch.filter(|_| self.is_judged) else { return };
        let shown = lineage.delivered.iter().filter(|shown| is_within(shown, void));
        let messages = shown.map(|shown| shown.id).collect();
        self.losses.push(Loss::Retracted { observer: lineage.process, epoch, messages });
    }

    /// Judges what was reported, when the run is over.
    pub(crate) fn end(&self, history: &History, members: &[Node], views: &Views) -> Verdict {
        self.losses.iter().try_for_each(|loss| match loss {
            Loss::GaveUp { observer, gap, since_ns } => {
                self.is_incurable(history, members, views, *observer, *gap, *since_ns)
            }
            Loss::Retracted { observer, epoch, messages } => {
                match messages.iter().find(|id| self.is_in_cut(views, **id, *epoch)) {
                    Some(id) => Err(Violation::new(
                        NAME,
                        format!(
                            "observer {observer} retracted {} of view {epoch}, which members delivered in it",
                            history.name(*id)
                        ),
                    )),
                    None => Ok(()),
                }
            }
        })
    }

    /// Whether a member that went on to the next view delivered a message in this one.
    fn is_in_cut(&self, views: &Views, id: Id, epoch: u64) -> bool {
        let by = self.delivered_by.get(&(id, epoch)).copied().unwrap_or(0);
        let (Some(view), Some(next)) = (views.view(epoch), views.view(epoch + 1)) else { return false };
        view.members.iter().any(|member| by & 1 << member.rank.0 != 0 && next.contains(*member))
    }

    /// Whether all that was given up had left the logs.
    fn is_incurable(
        &self,
        history: &History,
        members: &[Node],
        views: &Views,
        observer: usize,
        gap: Gap,
        since_ns: u64,
    ) -> Verdict {
        for (rank, node) in (0..).map(Rank).zip(members).filter(|(_, node)| node.is_alive()) {
            let member = Member { rank, incarnation: bourdon_wire::Incarnation(node.incarnation) };
            let lineage = &history.lineages[node.lineage];
            for shown in lineage.delivered.iter().filter(|shown| is_within(shown, gap)) {
                let Some(epoch) = self.delivered_in.get(&shown.id).copied() else { continue };
                let held = views.view(epoch).is_some_and(|view| view.contains(member));
                let is_late = history.messages[shown.id as usize].at_ns > since_ns;
                if held && is_late && !self.is_overwritten(epoch, gap.sender) {
                    let name = history.name(shown.id);
                    let detail = format!(
                        "observer {observer} gave up {name} of view {epoch} ({gap:?}), which member {rank} still holds"
                    );
                    return Err(Violation::new(NAME, detail));
                }
            }
        }
        Ok(())
    }

    /// Whether more datagrams came after it than a log holds.
    fn is_overwritten(&self, epoch: u64, sender: u16) -> bool {
        let since = |rank: u16| {
            self.datagrams.range((epoch, 0)..).filter(|((_, r), _)| *r == rank).map(|(_, n)| n).sum::<u64>()
        };
        let ranks = self.datagrams.keys().map(|(_, rank)| *rank);
        since(sender) >= self.log_slots
            || self.total && ranks.max().is_some_and(|most| (0..=most).any(|r| since(r) >= self.log_slots))
    }
}

/// Whether a gap names a message. A barrier's own message has no number: it has the sender's next one.
fn is_within(shown: &Delivered, gap: Gap) -> bool {
    !shown.at_barrier && shown.sender == gap.sender && (gap.from..gap.to).contains(&shown.sequence)
}
