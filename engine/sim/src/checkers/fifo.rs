//! FIFO: one sender's messages in the order it sent them.
//!
//! A member delivers all of them, whatever incarnations the sender has, so its next message of each sender is always
//! known; an observer may come late and lose some, but never goes back. The only message that is passed over is a
//! client's that another member had carried before.

use super::{Verdict, Violation};
use crate::history::{Delivered, History};

pub(super) const NAME: &str = "fifo";

pub(super) fn delivered(history: &History, lineage: usize, shown: &Delivered, skips: bool) -> Verdict {
    let lineage = &history.lineages[lineage];
    let next = lineage.next[usize::from(shown.sender)];
    let skipped = shown.sequence != next && lineage.member && !skips;
    if shown.sequence < next || skipped {
        let (process, name) = (lineage.process, super::describe(history, shown));
        let detail = format!("process {process} delivered {name}, where {next} was due");
        return Err(Violation::new(NAME, detail));
    }
    Ok(())
}
