//! Windows are never exceeded, and nothing is forgotten before every member has it.
//!
//! The limit that a sender reports is compared with its position, and then computed again from the other members
//! themselves: what each has really delivered, plus what it can really take; what each has really received, plus what
//! the sender's log can hold. Likewise the mark of each observer that the sender waits for.

use super::{Verdict, Violation};
use crate::plan::Plan;
use bourdon_protocol::{Process, Standing};

pub(super) const NAME: &str = "window";

#[derive(Debug)]
pub(super) struct Window {
    /// By member: how many datagrams of one stream can be under way to it.
    windows: Vec<u64>,
    log_slots: u64,
}

impl Window {
    pub(super) fn new(plan: &Plan) -> Self {
        let windows = (0..usize::from(plan.members)).map(|member| plan.window(member)).collect();
        Self { windows, log_slots: u64::from(plan.log_slots) }
    }

    pub(super) fn stepped(&self, processes: &[Option<&Process>], process: &Process) -> Verdict {
        let (Some((open, limit, _)), Some(own)) = (process.window(), process.config().rank()) else { return Ok(()) };
        let broken = |detail: String| Err(Violation::new(NAME, detail));
        if open > limit {
            return broken(format!("member {own} has opened {open} datagrams, its limit is {limit}"));
        }
        let view = process.view();
        // A gate's mark is what its observer has delivered, or less, until another incarnation of it reports.
        for (at, incarnation, mark) in process.gates() {
            let is_it = |other: &&&Process| other.config().address == at && other.config().incarnation == incarnation;
            let known = processes.iter().flatten().find(is_it);
            let Some(observer) = known.filter(|other| other.view().epoch == view.epoch) else { continue };
            let released = observer.released(own);
            if mark > released {
                return broken(format!("member {own} has a gate at {mark} whose observer has delivered {released}"));
            }
        }
        for member in &view.members {
            let index = member.rank.index();
            let (Some(Some(other)), window) = (processes.get(index), self.windows[index]) else { continue };
            let gone = other.incarnation() != member.incarnation || other.standing() != Standing::Member;
            if gone || other.view().epoch > view.epoch {
                continue; // gone, or beyond this view
            }
            let released = if other.view().epoch == view.epoch { other.released(own).0 } else { 0 };
            if open.0 > released + self.log_slots {
                return broken(format!(
                    "member {own} has opened {open} datagrams, member {index} still needs {released}"
                ));
            }
            if member.rank != own && open.0 > released + window {
                return broken(format!(
                    "member {own} has opened {open} datagrams, member {index} needs {released} and takes {window} more"
                ));
            }
        }
        Ok(())
    }
}
