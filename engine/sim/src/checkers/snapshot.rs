//! Snapshots: a joiner goes on exactly at its donor's positions.
//!
//! An application writes its positions into its snapshot: the next order number, the next number of each sender, the
//! barriers. The joiner's process must be at the same positions, neither a message before nor a message beyond. That
//! its state is the donor's, and stays the same at all, is judged at the end of the view (`agreement`).

use super::{Verdict, Violation};
use crate::history::Lineage;
use bourdon_protocol::Process;
use bourdon_wire::Rank;

pub(super) const NAME: &str = "snapshot";

pub(super) fn resumed(lineage: &Lineage, process: &Process) -> Verdict {
    let differs = |what: &str, position: u64, is: u64| {
        let detail = format!("process {} took a snapshot of {what} {position} and goes on at {is}", lineage.process);
        Err(Violation::new(NAME, detail))
    };
    if process.phase() != lineage.phase {
        return differs("phase", lineage.phase, process.phase());
    }
    for (rank, position) in (0..).map(Rank).zip(&lineage.next) {
        // The application does not know the numbers passed over: a client's message that had come before.
        let is = process.delivered(rank).0;
        if process.view().incarnation(rank).is_some() && is < *position {
            return differs("a sender's", *position, is);
        }
    }
    Ok(())
}
