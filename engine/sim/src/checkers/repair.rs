//! Repair is bounded: requests and repairs in proportion to what went wrong, and none once all is well.
//!
//! A protocol can deliver everything and still take the network down doing it. So what was sent for repair is counted
//! against what was lost, late, damaged or refused on the way; what a late observer fetches from the past counts as
//! lost. The factors are wide, because a request or its answer may be lost as well, and time passes while a process
//! is paused; a storm is wider.
//!
//! DESIGN §7: 22.

use super::{Verdict, Violation};

pub(super) const NAME: &str = "repair";

/// Requests that may go unexplained: heartbeats that overtake data, one or two a sender.
const SLACK: u64 = 64;
/// Requests and repairs for each thing that went wrong.
const PER_TROUBLE: u64 = 24;

/// What repair cost a run.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Cost {
    pub(crate) processes: u64,
    pub(crate) naks: u64,
    pub(crate) repairs: u64,
    /// Datagrams that did not arrive as they should have, anywhere, pauses and refusals included.
    pub(crate) trouble: u64,
    /// Requests sent after everything had been delivered.
    pub(crate) naks_when_done: u64,
}

pub(super) fn end(cost: &Cost) -> Verdict {
    let most = PER_TROUBLE * cost.trouble + SLACK * cost.processes;
    if cost.naks > most || cost.repairs > most * cost.processes {
        return Err(Violation::new(NAME, format!("{cost:?}: more than {most} requests, or as many repairs a process")));
    }
    if cost.naks_when_done > 0 {
        return Err(Violation::new(NAME, format!("{cost:?}: requests when nothing was missing")));
    }
    Ok(())
}
