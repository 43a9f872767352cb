//! Repair is bounded: requests and repairs in proportion to what went wrong, and none once all is well.
//!
//! A protocol can deliver everything and still overload the network with repair. So what was sent for repair is counted
//! against what was lost, late, damaged or refused on the way; what a late observer fetches from the past counts as
//! lost. The factors are wide, because a request or its answer may be lost as well, and time passes while a process is
//! paused; a storm exceeds them.

use super::{Verdict, Violation};

pub(super) const NAME: &str = "repair";

/// Requests that may go unexplained: heartbeats that overtake data, a few per process.
const SLACK: u64 = 16;
/// Requests for each thing that went wrong: twenty thousand seeds stay below it.
const NAKS_PER_TROUBLE: u64 = 1;
/// Datagrams retransmitted for each: one request may name many, and two holders may answer.
const REPAIRS_PER_TROUBLE: u64 = 4;

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
    let slack = SLACK * cost.processes;
    let (naks, repairs) = (NAKS_PER_TROUBLE * cost.trouble + slack, REPAIRS_PER_TROUBLE * cost.trouble + slack);
    if cost.naks > naks || cost.repairs > repairs {
        return Err(Violation::new(NAME, format!("{cost:?}: more than {naks} requests or {repairs} repairs")));
    }
    if cost.naks_when_done > 0 {
        return Err(Violation::new(NAME, format!("{cost:?}: requests when nothing was missing")));
    }
    Ok(())
}
