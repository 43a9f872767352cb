//! 8: one order for all: a message a number, numbers that rise, and at members by one.
//!
//! Where the processes delivered the same set of messages this makes the sequences equal, and the sequence of a stopped
//! process a prefix of the others'. Skipped numbers must be explained: an observer's by messages that it recorded as
//! given up, any process's by a client's duplicates if the rules allow for them. Below `reliable` numbers may be
//! skipped freely, and common messages still have one order.

use super::{Case, Verdict};
use crate::history::Incarnation;
use std::collections::HashMap;

pub(super) fn judge(case: &Case<'_>, verdict: &mut Verdict) {
    if !case.rules.order.is_total() {
        return;
    }
    for incarnation in &case.histories.incarnations {
        rises(case, verdict, incarnation);
    }
    same_at_all(case, verdict);
}

fn rises(case: &Case<'_>, verdict: &mut Verdict, incarnation: &Incarnation) {
    let dense = case.agreed() && !case.rules.allow_skips;
    let given_up: u64 = incarnation.gaps.iter().map(|gap| gap.to - gap.from).sum();
    let (mut last, mut skipped) = (None, 0);
    for delivery in incarnation.kept() {
        let message = || case.histories.message(delivery.message);
        let Some(number) = delivery.order else {
            verdict.add(8, incarnation, format!("delivered {} without an order number", message()));
            continue;
        };
        match last {
            Some(last) if number <= last => {
                verdict.add(8, incarnation, format!("delivered {} as number {number} after number {last}", message()));
            }
            Some(last) if dense && number > last + 1 => {
                skipped += number - last - 1;
                if incarnation.member || skipped > given_up {
                    let detail = format!("delivered {} as number {number} right after number {last}", message());
                    verdict.add(8, incarnation, detail);
                }
            }
            _ => {}
        }
        last = Some(number);
    }
}

fn same_at_all(case: &Case<'_>, verdict: &mut Verdict) {
    let mut messages: HashMap<u64, (u32, &Incarnation)> = HashMap::new();
    let mut numbers: HashMap<u32, (u64, &Incarnation)> = HashMap::new();
    for incarnation in &case.histories.incarnations {
        for delivery in incarnation.kept().filter(|delivery| case.binds(incarnation, delivery)) {
            let Some(number) = delivery.order else { continue };
            let (message, other) = *messages.entry(number).or_insert((delivery.message, incarnation));
            if message != delivery.message {
                let (here, there) = (case.histories.message(delivery.message), case.histories.message(message));
                verdict.add(8, incarnation, format!("number {number} is {here}, but {there} at {}", other.shown()));
            }
            let (known, other) = *numbers.entry(delivery.message).or_insert((number, incarnation));
            if known != number {
                let message = case.histories.message(delivery.message);
                verdict.add(8, incarnation, format!("{message} is number {number}, but {known} at {}", other.shown()));
            }
        }
    }
}
