//! Snapshots: a joiner goes on exactly where its donor stood.
//!
//! An application writes into its snapshot how far it had come: the next order number, the next number of each sender, the
//! barriers. The joiner's process must stand there, neither a message before nor one beyond. That its state is the
//! donor's, and stays everybody's, is judged at the end of the view (`agreement`).
//!
//! DESIGN §7: 19.

use super::{Verdict, Violation};
use crate::history::Lineage;
use bourdon_protocol::Process;
use bourdon_wire::Rank;

pub(super) const NAME: &str = "snapshot";

pub(super) fn resumed(lineage: &Lineage, process: &Process) -> Verdict {
    let differs = |what: &str, said: u64, is: u64| {
        let detail = format!("process {} took a snapshot of {what} {said} and goes on at {is}", lineage.process);
        Err(Violation::new(NAME, detail))
    };
    if process.phase() != lineage.phase {
        return differs("phase", lineage.phase, process.phase());
    }
    for (rank, said) in (0..).map(Rank).zip(&lineage.next) {
        // Numbers passed over, a client's message that had come before, are not known to the application.
        let is = process.delivered(rank).0;
        if process.view().incarnation(rank).is_some() && is < *said {
            return differs("a sender's", *said, is);
        }
    }
    Ok(())
}
