//! Completeness: once faults are frozen, everything published is delivered everywhere, or reported as lost.
//!
//! At the end all members have delivered the same. It has everything that was published by incarnations that are still
//! members, and everything that was acknowledged to a client or to a member's own application. Of an incarnation that
//! was removed it has exactly what was reported to that incarnation.
//!
//! An observer may lose messages: it owes what was published after it had heard every member, less the gaps it
//! reported. An observer that began at the oldest owes everything, as long as there was one view and every log still
//! held everything. A gap in the sequencer's stream may hide the order of other members' last messages; the observer
//! cannot know of these. A gap is an excuse only if there was need for it: where the sender had never overwritten
//! anything, there was none.

use super::{Verdict, Violation, agreement};
use crate::history::{Delivered, Gap, History, Lineage, Settled};
use crate::node::Node;
use crate::plan::{Happening, Plan};
use bourdon_protocol::{Order, Start};

pub(super) const NAME: &str = "completeness";

/// Judges whether everything has arrived.
#[derive(Debug)]
pub(crate) struct Completeness<'a> {
    pub(crate) plan: &'a Plan,
    pub(crate) history: &'a History,
    pub(crate) nodes: &'a [Node],
    /// By member: datagrams of its stream so far, if there was only one view.
    pub(crate) datagrams: Option<&'a [u64]>,
}

fn missing(detail: String) -> Verdict {
    Err(Violation::new(NAME, detail))
}

impl Completeness<'_> {
    /// The first thing that is missing.
    pub(crate) fn check(&self) -> Verdict {
        let members = &self.nodes[..usize::from(self.plan.members)];
        let Some(first) = members.iter().find(|node| node.is_alive()) else { return Ok(()) };
        let first = &self.history.lineages[first.lineage];
        for node in members.iter().filter(|node| node.is_alive()) {
            let lineage = &self.history.lineages[node.lineage];
            if self.plan.is_lossy() {
                self.losses_reported(lineage)?;
                continue;
            }
            let total = self.plan.order == Order::Total;
            agreement::compare(
                self.history,
                (&first.delivered, first.process),
                lineage,
                lineage.epoch.unwrap_or(0),
                total,
            )?;
            self.synced(node)?;
        }
        if self.plan.is_lossy() {
            return members.iter().filter(|node| node.is_alive()).try_for_each(|node| self.synced(node));
        }
        self.published(first)?;
        self.acknowledged(first)?;
        self.history.settled.iter().try_for_each(|settled| self.settled(first, settled))?;
        let observers = self.nodes[members.len()..].iter().filter(|node| node.process.is_some());
        { observers }.try_for_each(|node| self.observer(first, node))
    }

    fn synced(&self, node: &Node) -> Verdict {
        let process = self.history.lineages[node.lineage].process;
        if node.asked > 0 {
            return missing(format!("process {process} asked for {} barriers that never came", node.asked));
        }
        Ok(())
    }

    /// Where messages may be lost: what was published by incarnations that are still members was delivered, or reported
    /// as lost, to each member that was there.
    fn losses_reported(&self, lineage: &Lineage) -> Verdict {
        for (id, message) in (0..).zip(&self.history.messages).filter(|(_, message)| !message.at_barrier) {
            let Some((rank, incarnation)) = message.publisher else { continue };
            let node = &self.nodes[usize::from(rank)];
            let lives =
                node.is_alive() && node.process.as_ref().is_some_and(|process| process.incarnation().0 == incarnation);
            let was_there = lineage.formed_at_ns.is_some_and(|formed| message.at_ns > formed);
            if lives && was_there && !lineage.has(id) && !lineage.gave_up(rank, message.sequence) {
                let name = self.history.name(id);
                return missing(format!(
                    "process {} neither delivered {name} nor reported that it is lost",
                    lineage.process
                ));
            }
        }
        Ok(())
    }

    /// What a member reported as acknowledged survives it.
    fn acknowledged(&self, first: &Lineage) -> Verdict {
        let Some(process) = &self.nodes[first.process].process else { return Ok(()) };
        let instance = process.view().instance.0;
        for (id, message) in (0..).zip(&self.history.messages) {
            if self.history.is_acknowledged(message, instance) && !first.has(id) {
                let (process, name) = (first.process, self.history.name(id));
                let detail = format!("process {process} never delivered {name}, which its sender had acknowledged");
                return Err(Violation::new("acknowledged", detail));
            }
        }
        Ok(())
    }

    fn published(&self, first: &Lineage) -> Verdict {
        for (id, message) in (0..).zip(&self.history.messages) {
            let lives = message.publisher.is_none_or(|(rank, incarnation)| {
                let node = &self.nodes[usize::from(rank)];
                node.is_alive() && node.process.as_ref().is_some_and(|process| process.incarnation().0 == incarnation)
            });
            let earlier = self.history.taken_earlier.contains(&id);
            if earlier || !message.generations.contains(&self.history.generation) {
                continue;
            }
            let allowed = message.client.is_none() || message.payload.len() <= self.plan.max_message_bytes;
            if lives && allowed && !first.has(id) {
                return missing(format!("process {} never delivered {}", first.process, self.history.name(id)));
            }
            if !allowed && first.has(id) {
                return missing(format!("{} is too long and was delivered", self.history.name(id)));
            }
        }
        Ok(())
    }

    fn settled(&self, first: &Lineage, settled: &Settled) -> Verdict {
        for (id, message) in (0..).zip(&self.history.messages) {
            let theirs = message.publisher == Some((settled.rank, settled.incarnation)) && !message.at_barrier;
            let below = message.sequence < settled.delivered;
            // With unordered delivery, messages in a gap below may be lost: the cut has what stands beyond it.
            let lost = below && self.plan.order == Order::Unordered;
            if theirs && !lost && below != first.has(id) {
                let (name, shown) = (self.history.name(id), first.has(id));
                return missing(format!("{name} was delivered: {shown}, but its sender got {settled:?}"));
            }
        }
        Ok(())
    }

    fn observer(&self, first: &Lineage, node: &Node) -> Verdict {
        let lineage = &self.history.lineages[node.lineage];
        self.gaps(lineage)?;
        if !lineage.whole && self.plan.events.iter().any(|event| event.what == Happening::Sync) {
            return Ok(()); // an observer that came between a barrier's markers waits at some until the next message
        }
        let owes = |shown: &&Delivered| {
            let published_at_ns = self.history.messages[shown.id as usize].at_ns;
            let oldest = node.start == Some(Start::Oldest) && self.is_all_retained();
            oldest || lineage.whole || lineage.formed_at_ns.is_some_and(|formed| published_at_ns > formed)
        };
        let excused = |shown: &Delivered| {
            lineage.gave_up(shown.sender, shown.sequence) || self.is_tail_of_lost_order(lineage, shown)
        };
        match first.delivered.iter().filter(owes).find(|shown| !lineage.has(shown.id) && !excused(shown)) {
            None => Ok(()),
            Some(lost) => {
                missing(format!("observer {} never delivered {}", lineage.process, super::describe(self.history, lost)))
            }
        }
    }

    fn is_all_retained(&self) -> bool {
        (0..usize::from(self.plan.members)).all(|member| self.retained(member))
    }

    /// Whether a member's log still holds its first datagram.
    fn retained(&self, member: usize) -> bool {
        self.datagrams.is_some_and(|datagrams| datagrams[member] < u64::from(self.plan.log_slots))
    }

    /// Whether a member has sent more than the window of an observer for which no publisher waits: if that observer
    /// does not gain, it goes on at the present.
    fn may_skip(&self, lineage: &Lineage, member: usize) -> bool {
        let observer = lineage.process.checked_sub(usize::from(self.plan.members));
        let observer = observer.and_then(|index| self.plan.observers.get(index));
        observer.filter(|_| self.plan.gating_timeout_ns == 0).is_some_and(|observer| {
            self.datagrams.is_some_and(|datagrams| datagrams[member] >= u64::from(observer.receive_log_slots))
        })
    }

    fn is_tail_of_lost_order(&self, lineage: &Lineage, lost: &Delivered) -> bool {
        self.plan.order == Order::Total
            && lineage.gaps.iter().any(|gap| self.datagrams.is_none() || gap.sender == self.plan.sequencer)
            && !lineage.delivered.iter().any(|shown| shown.sender == lost.sender && shown.sequence > lost.sequence)
    }

    fn gaps(&self, lineage: &Lineage) -> Verdict {
        if self.datagrams.is_none() {
            return Ok(()); // a view that ends takes what was retained with it
        }
        let retained = |rank: u16| self.retained(usize::from(rank)) && !self.may_skip(lineage, usize::from(rank));
        let needless = |gap: &&Gap| {
            let order = self.plan.order == Order::Total && !retained(self.plan.sequencer);
            retained(gap.sender) && !order
        };
        match lineage.gaps.iter().find(needless) {
            None => Ok(()),
            Some(gap) => missing(format!("process {} gave up {gap:?} though nothing was forgotten", lineage.process)),
        }
    }
}
