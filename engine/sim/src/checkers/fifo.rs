//! FIFO: one sender's messages in the order it sent them.
//!
//! A member is shown all of them, so its next one of each sender is always known; an observer may come late and lose
//! some, but never goes back.
//!
//! DESIGN §7: 9.

use super::{Verdict, Violation};
use crate::plan::Plan;

pub(super) const NAME: &str = "fifo";

#[derive(Debug)]
pub(super) struct Fifo {
    members: usize,
    /// By process, then sender: the lowest sequence that may come.
    next: Vec<Vec<u64>>,
}

impl Fifo {
    pub(super) fn new(plan: &Plan) -> Self {
        let members = usize::from(plan.members);
        Self { members, next: vec![vec![0; members]; members + plan.observers.len()] }
    }

    pub(super) fn delivered(&mut self, process: usize, sender: u16, sequence: u64) -> Verdict {
        let next = &mut self.next[process][usize::from(sender)];
        let skipped = sequence != *next && process < self.members;
        if sequence < *next || skipped {
            let detail = format!("process {process} delivered {sender}:{sequence}, where {sender}:{next} was due");
            return Err(Violation::new(NAME, detail));
        }
        *next = sequence + 1;
        Ok(())
    }
}
