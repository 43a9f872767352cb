//! Completeness: once faults are frozen, everything published is shown everywhere, or said to be lost.
//!
//! Members lose nothing. An observer may: it owes what was published after it had heard every member, less the gaps it
//! reported. An observer that began at the oldest owes everything, as long as every log still held everything. A gap in
//! the sequencer's stream may hide where the last messages of others stood; these the observer can't know of.
//!
//! A gap is an excuse only if there was need for it: where the sender had never overwritten anything, there was none.
//!
//! DESIGN §7: 2 and 7, and liveness.

use super::{Verdict, Violation};
use crate::history::{Gap, History, Shown};
use crate::plan::{OrderPlan, Plan};

pub(super) const NAME: &str = "completeness";

/// Where a process began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Start {
    Member,
    Live,
    Oldest,
}

/// Judges whether everything has arrived.
#[derive(Debug)]
pub(crate) struct Completeness<'a> {
    pub(crate) plan: &'a Plan,
    pub(crate) history: &'a History,
    pub(crate) starts: &'a [Start],
    /// By member: datagrams of its stream so far.
    pub(crate) datagrams: &'a [u64],
}

impl Completeness<'_> {
    /// The first thing that is missing.
    pub(crate) fn check(&self) -> Verdict {
        for (process, shown) in self.history.shown.iter().enumerate() {
            self.gaps(process, shown)?;
            for sender in 0..self.history.senders() {
                let owed = self.history.messages(sender);
                let missing = owed.filter(|(sequence, message)| {
                    self.owes(process, sender, message.at_ns) && !shown.has(sender, *sequence)
                });
                if let Some((sequence, _)) =
                    missing.into_iter().find(|(sequence, _)| !self.excused(process, sender, *sequence))
                {
                    let detail = format!("process {process} was never shown {sender}:{sequence}");
                    return Err(Violation::new(NAME, detail));
                }
            }
        }
        Ok(())
    }

    fn owes(&self, process: usize, sender: u16, published_at_ns: u64) -> bool {
        match self.starts[process] {
            Start::Member => true,
            Start::Oldest if self.retained(usize::from(sender)) && self.retained(usize::from(self.plan.sequencer)) => {
                true
            }
            _ => self.history.shown[process].formed_at_ns.is_some_and(|formed| published_at_ns > formed),
        }
    }

    /// Whether a member's log still holds its first datagram.
    fn retained(&self, member: usize) -> bool {
        self.datagrams[member] < u64::from(self.plan.log_slots)
    }

    fn excused(&self, process: usize, sender: u16, sequence: u64) -> bool {
        let shown = &self.history.shown[process];
        self.starts[process] != Start::Member
            && (shown.gave_up(sender, sequence) || self.is_tail_of_lost_order(shown, sender, sequence))
    }

    fn is_tail_of_lost_order(&self, shown: &Shown, sender: u16, sequence: u64) -> bool {
        self.plan.order == OrderPlan::Total
            && shown.gaps.iter().any(|gap| gap.sender == self.plan.sequencer)
            && !shown.delivered.iter().any(|name| name.0 == sender && name.1 > sequence)
    }

    fn gaps(&self, process: usize, shown: &Shown) -> Verdict {
        let needless = |gap: &Gap| {
            let order = self.plan.order == OrderPlan::Total && !self.retained(usize::from(self.plan.sequencer));
            self.starts[process] == Start::Member || (self.retained(usize::from(gap.sender)) && !order)
        };
        match shown.gaps.iter().find(|gap| needless(gap)) {
            None => Ok(()),
            Some(gap) => {
                let Gap { sender, from, to } = gap;
                let detail = format!("process {process} gave up {sender}:{from}..{to} though nothing was forgotten");
                Err(Violation::new(NAME, detail))
            }
        }
    }
}
