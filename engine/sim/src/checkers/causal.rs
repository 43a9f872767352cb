//! Causal: nothing is shown before what its sender had been shown when it sent it.
//!
//! What happened before a message: everything its publisher had delivered by then, everything it had published itself,
//! and so on from there. It is taken from the deliveries as they were shown, not from anything that was on the wire.
//!
//! For each process and publisher the checker remembers how much of the publisher's deliveries it has compared. Before
//! a message is delivered, the rest up to the moment of publishing is compared: what has not been delivered here must
//! never be. A member loses nothing, so for it that is a failure at once; an observer may have come too late for it.
//!
//! DESIGN §7: 10. Total order is held to it as well.

use super::{Verdict, Violation};
use crate::history::History;
use std::collections::BTreeSet;

pub(super) const NAME: &str = "causal";

#[derive(Debug)]
pub(super) struct Causal {
    members: u16,
    /// By process, then publisher: how many of the publisher's deliveries have been compared.
    compared: Vec<Vec<usize>>,
    /// By process: what may no longer be delivered, because something that came after it has been.
    late: Vec<BTreeSet<(u16, u64)>>,
}

impl Causal {
    pub(super) fn new(members: u16) -> Self {
        Self { members, compared: Vec::new(), late: Vec::new() }
    }

    pub(super) fn delivered(&mut self, history: &History, process: usize, sender: u16, sequence: u64) -> Verdict {
        while self.compared.len() <= process {
            self.compared.push(vec![0; usize::from(self.members)]);
            self.late.push(BTreeSet::new());
        }
        let late = &mut self.late[process];
        if late.contains(&(sender, sequence)) {
            let detail = format!("process {process} delivered {sender}:{sequence} after what was sent in answer to it");
            return Err(Violation::new(NAME, detail));
        }
        let Some(after) = history.message(sender, sequence).and_then(|message| message.after) else { return Ok(()) };
        let publisher = &history.shown[usize::from(sender)];
        let compared = &mut self.compared[process][usize::from(sender)];
        for cause in publisher.delivered.get(*compared..after).unwrap_or(&[]) {
            if history.shown[process].has(cause.0, cause.1) {
                continue;
            }
            if process < usize::from(self.members) && process != usize::from(sender) {
                let before = format!("{}:{}", cause.0, cause.1);
                let detail =
                    format!("process {process} delivered {sender}:{sequence} before {before}, which caused it");
                return Err(Violation::new(NAME, detail));
            }
            late.insert(*cause);
        }
        *compared = after.max(*compared);
        Ok(())
    }
}
