//! Windows are never exceeded, and nothing is forgotten before every member has it.
//!
//! The limit that a sender reports is compared with where it stands, and then computed anew from the other members
//! themselves: what each has really delivered, plus what it can really take; what each has really received, plus what
//! the sender's log can hold.
//!
//! DESIGN §7: 15, and 13 (nothing is collected before the minimum).

use super::{Verdict, Violation};
use crate::plan::Plan;
use bourdon_protocol::Process;
use bourdon_wire::Rank;

pub(super) const NAME: &str = "window";

#[derive(Debug)]
pub(super) struct Window {
    /// By member: datagrams of one stream that can be under way to it.
    windows: Vec<u64>,
    log_slots: u64,
}

impl Window {
    pub(super) fn new(plan: &Plan) -> Self {
        let windows = (0..usize::from(plan.members)).map(|member| plan.window(member)).collect();
        Self { windows, log_slots: u64::from(plan.log_slots) }
    }

    pub(super) fn stepped(&self, processes: &[&Process], stepped: usize) -> Verdict {
        let Some((open, limit, _)) = processes[stepped].window() else { return Ok(()) };
        let own = Rank(stepped as u16);
        if open > limit {
            let detail = format!("member {stepped} has opened {open} datagrams, its limit is {limit}");
            return Err(Violation::new(NAME, detail));
        }
        for (member, window) in self.windows.iter().enumerate() {
            let process = processes[member];
            let released = process.released(own).0;
            if open.0 > released + self.log_slots {
                let detail =
                    format!("member {stepped} has opened {open} datagrams, member {member} still needs {released}");
                return Err(Violation::new(NAME, detail));
            }
            if member != stepped && open.0 > released + window {
                let detail = format!(
                    "member {stepped} has opened {open} datagrams, member {member} needs {released} and takes {window} more"
                );
                return Err(Violation::new(NAME, detail));
            }
        }
        Ok(())
    }
}
