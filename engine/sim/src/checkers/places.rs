//! Places: an event that has its place among the messages comes between the right two.
//!
//! An application that learns of a view or of a loss after the messages that follow it has acted on them in the wrong
//! state. So a message is delivered in the view that the application was last given, and the report of a gap comes
//! before every message of its sender that lies beyond it.

use super::{Verdict, Violation};
use crate::history::{Delivered, Gap, History, Lineage};

pub(super) const NAME: &str = "places";

/// Judges a delivery by the view that the application is in.
pub(super) fn delivered(history: &History, lineage: usize, shown: &Delivered, epoch: u64) -> Verdict {
    let lineage = &history.lineages[lineage];
    match lineage.epoch.filter(|entered| *entered != epoch) {
        None => Ok(()),
        Some(entered) => {
            let (process, name) = (lineage.process, super::describe(history, shown));
            let detail = format!(
                "process {process} delivered {name} of view {epoch} while its application is in view {entered}"
            );
            Err(Violation::new(NAME, detail))
        }
    }
}

/// Judges a report of lost messages by what was delivered of their sender.
pub(crate) fn lost(lineage: &Lineage, gap: &Gap) -> Verdict {
    let next = lineage.next[usize::from(gap.sender)];
    if next > gap.from {
        let detail = format!("process {} reports {gap:?} after it has delivered up to {next}", lineage.process);
        return Err(Violation::new(NAME, detail));
    }
    Ok(())
}
