//! Barriers: no message crosses one.
//!
//! A message is published between two barriers of its publisher's, and must be delivered between the same two at every
//! member, whatever views come and go. A barrier's own message is delivered at that barrier. One process's barriers are
//! complete in the order in which it asked for them. A process that gets the report that a barrier is complete may rely
//! on it: every member that is still in the view has delivered all that this process has delivered. Not so where a view
//! ends with the barrier: then every member completes it at the cut, each in its own time. Nor for a member whose
//! application began again with a state of its own in this view: what it had it gets once more by the end of that.
//!
//! Judged at members: they know how many barriers there were before they came, and lose none.

use super::{Verdict, Violation};
use crate::history::{Delivered, History, Id, Lineage};

pub(super) const NAME: &str = "barrier";

pub(super) fn delivered(history: &History, lineage: usize, id: Id, at: Option<u64>) -> Verdict {
    let lineage = &history.lineages[lineage];
    if !lineage.whole || !lineage.member {
        return Ok(()); // an observer may have lost a marker just now
    }
    let message = &history.messages[id as usize];
    let (here, process) = (lineage.phase, lineage.process);
    let due = at.or(message.phase).unwrap_or(here);
    if due != here {
        let name = history.name(id);
        let detail = format!("process {process} delivered {name} of phase {due} in phase {here}");
        return Err(Violation::new(NAME, detail));
    }
    if at.is_none() {
        return Ok(());
    }
    let earlier = lineage.delivered.iter().rev().map(|shown| &history.messages[shown.id as usize]);
    let mut own = earlier.filter(|other| other.at_barrier && other.publisher == message.publisher);
    match own.next() {
        Some(other) if other.sequence > message.sequence => {
            let detail = format!("process {process} delivered {} after {}", history.name(id), other.sequence);
            Err(Violation::new(NAME, detail))
        }
        _ => Ok(()),
    }
}

/// `lineage` got the report that a barrier is complete; `others` are the members that share its view.
pub(super) fn complete(
    history: &History,
    lineage: usize,
    others: impl Iterator<Item = usize>,
    is_gone: impl Fn(Option<(u16, u32)>) -> bool,
) -> Verdict {
    let own = &history.lineages[lineage];
    let others = others.map(|other| &history.lineages[other]);
    let is_judged = |other: &&Lineage| {
        other.whole && own.whole && (other.returned_in.is_none() || other.returned_in != other.epoch)
    };
    for other in others.filter(is_judged) {
        let message = |shown: &Delivered| &history.messages[shown.id as usize];
        let counts = |shown: &&Delivered| !message(shown).at_barrier && !is_gone(message(shown).publisher);
        let before = own.delivered.iter().filter(counts);
        if let Some(ahead) =
            { before }.rev().find(|shown| !other.has(shown.id) && !other.gave_up(shown.sender, shown.sequence))
        {
            let (process, behind) = (own.process, other.process);
            let name = history.name(ahead.id);
            let detail = format!("process {process} completed barrier {}, and {behind} lacks {name}", own.phase);
            return Err(Violation::new(NAME, detail));
        }
    }
    Ok(())
}
