//! Causal: nothing is delivered before what its sender had delivered when it sent it.
//!
//! What happened before a message: everything that had been delivered to its publisher by then, everything it had
//! published itself, and so on from there. The checker takes it from the deliveries themselves, not from anything that
//! was on the wire.
//!
//! For each lineage and publisher's lineage the checker remembers how much of the publisher's deliveries it has
//! compared. Before a message is delivered, the checker compares the rest, up to the moment of publishing: what has not
//! been delivered here must never be. A member loses nothing, so for it that is a failure at once; an observer may have
//! come too late for it.
//!
//! Total order is held to it as well.

use super::{Verdict, Violation};
use crate::history::{History, Id};
use std::collections::{BTreeMap, BTreeSet};

pub(super) const NAME: &str = "causal";

#[derive(Debug, Default)]
pub(super) struct Causal {
    /// By lineage and publisher's lineage: how many of the publisher's deliveries have been compared.
    compared: BTreeMap<(usize, usize), usize>,
    /// What may no longer be delivered, because something that it came before has been.
    late: BTreeSet<(usize, Id)>,
    /// Members may lose messages too.
    lossy: bool,
}

impl Causal {
    pub(super) fn new(lossy: bool) -> Self {
        Self { lossy, ..Self::default() }
    }

    /// An observer declared messages void: what they made late may be delivered in the next view.
    pub(super) fn retracted(&mut self, lineage: usize) {
        self.late.retain(|(of, _)| *of != lineage);
    }

    pub(super) fn delivered(&mut self, history: &History, lineage: usize, id: Id) -> Verdict {
        let here = &history.lineages[lineage];
        // An observer that lost a marker waits at the others, and delivers their barrier's message late.
        let lost_a_marker = !here.member && history.messages[id as usize].at_barrier;
        if self.late.contains(&(lineage, id)) && !lost_a_marker {
            let (process, name) = (here.process, history.name(id));
            let detail = format!("process {process} delivered {name} after what was sent in answer to it");
            return Err(Violation::new(NAME, detail));
        }
        let Some((publisher, after)) = history.messages[id as usize].after else { return Ok(()) };
        if publisher == lineage {
            return Ok(());
        }
        let compared = self.compared.entry((lineage, publisher)).or_default();
        for cause in history.lineages[publisher].delivered.get(*compared..after).unwrap_or(&[]) {
            if here.has(cause.id) {
                continue;
            }
            if here.member && !self.lossy {
                let (process, name, before) = (here.process, history.name(id), history.name(cause.id));
                let detail = format!("process {process} delivered {name} before {before}, which caused it");
                return Err(Violation::new(NAME, detail));
            }
            self.late.insert((lineage, cause.id));
        }
        *compared = after.max(*compared);
        Ok(())
    }
}
