//! Paths that carry no long datagrams for seconds, while nothing else goes wrong: what becomes of the group is judged
//! just before they carry them again.

use super::{What, World};
use crate::checkers::{Checkers, Narrow};
use crate::violation::Verdict;
use bourdon_protocol::{Counter, Event, Standing};
use std::collections::{BTreeMap, BTreeSet};

/// In so long before the paths are mended the members that are left must have delivered something.
const LAST_NS: u64 = 1_000_000_000;

/// Paths that carry no long datagrams now.
#[derive(Debug)]
pub(super) struct Narrowed {
    since_ns: u64,
    until_ns: u64,
    receivers: BTreeSet<usize>,
    named: BTreeSet<usize>,
    /// Members that the view is without: since when.
    left_out: BTreeMap<usize, u64>,
    repairs_before: u64,
    /// What had been delivered when the last part of the time began.
    delivered_before: Option<u64>,
}

impl World<'_> {
    pub(super) fn begin_narrow(&mut self, receiver: usize, until_ns: u64) {
        if !self.plan.is_merely_narrow() {
            return;
        }
        let repairs_before = self.count(Counter::RepairsSent);
        let is_first = self.narrow.is_none();
        let narrow = self.narrow.get_or_insert_with(|| Narrowed {
            since_ns: self.now_ns,
            until_ns,
            receivers: BTreeSet::new(),
            named: BTreeSet::new(),
            left_out: BTreeMap::new(),
            repairs_before,
            delivered_before: None,
        });
        narrow.receivers.insert(receiver);
        if is_first {
            self.push(until_ns.saturating_sub(LAST_NS), What::NarrowEnds);
            self.push(until_ns - 1, What::NarrowEnds);
        }
    }

    /// An event that names a process which receives no long datagrams, or changes the view.
    pub(super) fn note_narrow(&mut self, index: usize, event: &Event) {
        let Some(narrow) = &mut self.narrow else { return };
        if event.name() == "long_datagrams_lost" {
            narrow.named.insert(event.rank().map_or(index, |rank| usize::from(rank.0)));
        }
        if let Event::View { members, failed, .. } = event {
            for member in failed.iter().map(usize::from) {
                narrow.left_out.entry(member).or_insert(self.now_ns);
            }
            narrow.left_out.retain(|member, _| !members.iter().any(|present| usize::from(present) == *member));
        }
    }

    fn delivered_by_others(&self, receivers: &BTreeSet<usize>) -> u64 {
        let others = self.nodes.iter().enumerate().filter(|(index, _)| !receivers.contains(index));
        others.map(|(_, node)| self.history.lineages[node.lineage].delivered.len() as u64).sum()
    }

    fn stands_as_member(&self, member: usize) -> bool {
        self.nodes[member].process.as_ref().is_some_and(|process| process.standing() == Standing::Member)
    }

    pub(super) fn judge_narrow(&mut self) -> Verdict {
        let Some(mut narrow) = self.narrow.take() else { return Ok(()) };
        let members = usize::from(self.plan.members);
        // Where only one receiver lacks them, the others are a majority that may go on.
        let one = narrow.receivers.len() == 1;
        let receivers = if one { narrow.receivers.clone() } else { BTreeSet::new() };
        let delivered = self.delivered_by_others(&receivers);
        let Some(delivered_before) = narrow.delivered_before else {
            narrow.delivered_before = Some(delivered);
            self.narrow = Some(narrow);
            return Ok(());
        };
        let lacks_ns = |receiver: &usize| self.network.too_long_ns[*receiver].map_or(0, |since| self.now_ns - since);
        let others = (0..members).filter(|member| !narrow.receivers.contains(member));
        let has_more = { others }.any(|member| {
            let node = &self.nodes[member];
            self.stands_as_member(member) && node.quota + node.wanted > 0
        });
        let judged = Narrow {
            lasted_ns: narrow.until_ns - narrow.since_ns,
            receivers: { narrow.receivers.iter() }
                .map(|receiver| (*receiver, lacks_ns(receiver), narrow.named.contains(receiver)))
                .collect(),
            unaware: { narrow.left_out.iter() }
                .filter(|(member, _)| self.stands_as_member(**member))
                .map(|(member, since_ns)| (*member, self.now_ns - since_ns))
                .collect(),
            repairs: self.count(Counter::RepairsSent).saturating_sub(narrow.repairs_before),
            goes_on: has_more && (narrow.receivers.len() == 1 || self.plan.is_narrow_from_one()),
            delivered: delivered - delivered_before,
        };
        Checkers::path(&judged)
    }
}
