//! Integrity: what is delivered was sent, as it was sent, once.
//!
//! Everything else builds on names, so this is judged first: a delivery names a sender and a number, and under that
//! name a message was published with these bytes and this topic. A client's message is known by the client's name for
//! it, whichever member carried it.

use super::{Verdict, Violation};
use crate::history::{Delivered, History};
use bourdon_protocol::Message;

pub(super) const NAME: &str = "integrity";

pub(super) fn delivered(history: &History, lineage: usize, delivery: &Message<'_>) -> Result<Delivered, Violation> {
    let (sender, sequence) = (delivery.sender.0, delivery.sequence.0);
    let process = history.lineages[lineage].process;
    let broken = |how: &str| Violation::new(NAME, format!("process {process} delivered {sender}:{sequence} {how}"));
    let id = history.resolve(delivery).map_err(|how| broken(&how))?;
    if history.lineages[lineage].has(id) {
        return Err(broken("twice"));
    }
    Ok(Delivered { id, sender, sequence, at_barrier: delivery.barrier.is_some() })
}

/// Nothing is both given up and delivered, where deliveries keep an order. Without an order a datagram beyond a gap may
/// have been delivered before the gap was given up.
pub(super) fn end(history: &History) -> Verdict {
    for lineage in &history.lineages {
        // A barrier's own message has no number of its own.
        let numbered = |shown: &&Delivered| !history.messages[shown.id as usize].at_barrier;
        let given_up = |shown: &&Delivered| lineage.gave_up(shown.sender, shown.sequence);
        if let Some(both) = lineage.delivered.iter().filter(numbered).find(given_up) {
            let (process, name) = (lineage.process, super::describe(history, both));
            return Err(Violation::new(NAME, format!("process {process} delivered {name} and gave it up")));
        }
    }
    Ok(())
}
