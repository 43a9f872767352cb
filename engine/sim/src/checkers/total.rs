//! Total order: one message a number, the same at every process, without gaps at members.
//!
//! The first process to show a number binds it to a message for everybody. If numbers only rise at each process, and at
//! members by one, then any two processes' deliveries are prefixes of one sequence. In the other orders there must be no
//! numbers at all.
//!
//! DESIGN §7: 7 and 8.

use super::{Verdict, Violation};
use crate::plan::{OrderPlan, Plan};
use std::collections::BTreeMap;

pub(super) const NAME: &str = "total";

#[derive(Debug)]
pub(super) struct Total {
    total: bool,
    members: usize,
    bound: BTreeMap<u64, (u16, u64)>,
    /// By process: the lowest number that may come.
    next: Vec<u64>,
}

fn broken(detail: String) -> Verdict {
    Err(Violation::new(NAME, detail))
}

impl Total {
    pub(super) fn new(plan: &Plan) -> Self {
        let members = usize::from(plan.members);
        Self {
            total: plan.order == OrderPlan::Total,
            members,
            bound: BTreeMap::new(),
            next: vec![0; members + plan.observers.len()],
        }
    }

    pub(super) fn delivered(&mut self, process: usize, name: (u16, u64), number: Option<u64>) -> Verdict {
        let number = match (number, self.total) {
            (Some(number), true) => number,
            (None, false) => return Ok(()),
            _ => return broken(format!("process {process} delivered {name:?} with number {number:?}")),
        };
        let next = &mut self.next[process];
        if number < *next || (number > *next && process < self.members) {
            return broken(format!("process {process} delivered number {number}, where {next} was due"));
        }
        *next = number + 1;
        match *self.bound.entry(number).or_insert(name) {
            bound if bound == name => Ok(()),
            bound => broken(format!("number {number} is {name:?} at process {process} and {bound:?} at another")),
        }
    }
}
