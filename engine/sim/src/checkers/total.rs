//! Total order: one message a number, the same at every process, without gaps at members.
//!
//! The first process to deliver under a number binds it to a message for all processes in that view; numbers beyond the
//! cut are given out again in the next. If numbers only rise at each process, and at members by one, then any two
//! processes' deliveries are prefixes of one sequence. In the other orders there must be no numbers at all.

use super::{Verdict, Violation};
use crate::history::{History, Id};
use crate::plan::Plan;
use bourdon_protocol::{Message, Order};
use std::collections::BTreeMap;

pub(super) const NAME: &str = "total";

#[derive(Debug)]
pub(super) struct Total {
    total: bool,
    realtime: bool,
    /// By epoch and number.
    bound: BTreeMap<(u64, u64), Id>,
}

fn broken(detail: String) -> Verdict {
    Err(Violation::new(NAME, detail))
}

impl Total {
    pub(super) fn new(plan: &Plan) -> Self {
        Self { total: plan.order == Order::Total, realtime: plan.order == Order::RealTime, bound: BTreeMap::new() }
    }

    /// Whether order numbers are judged at all.
    pub(super) fn applies(&self) -> bool {
        self.total
    }

    pub(super) fn delivered(
        &mut self,
        history: &History,
        lineage: usize,
        id: Id,
        delivery: &Message<'_>,
        skips: bool,
    ) -> Verdict {
        let lineage = &history.lineages[lineage];
        let (process, name) = (lineage.process, || history.name(id));
        let number = match (delivery.order.map(|order| order.0), self.total) {
            (Some(number), true) => number,
            (_, false) if self.realtime => return Ok(()), // numbers are times there
            (None, false) => return Ok(()),
            (number, _) => return broken(format!("process {process} delivered {} with number {number:?}", name())),
        };
        let next = lineage.order;
        if number < next || (number > next && lineage.member && !skips) {
            return broken(format!("process {process} delivered {} as number {number}, where {next} was due", name()));
        }
        match *self.bound.entry((delivery.epoch.0, number)).or_insert(id) {
            bound if bound == id => Ok(()),
            bound => {
                let other = history.name(bound);
                broken(format!("number {number} is {} at process {process} and {other} at another", name()))
            }
        }
    }
}
