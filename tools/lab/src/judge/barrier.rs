//! 16: no message crosses a barrier.
//!
//! Wherever it is delivered, a message lies between the same two barriers; also after a view change, since resubmitted
//! messages keep their phase. From `reliable` on, the set before a barrier in a view is the same at all processes that
//! passed it in that view: nothing sent before it was left behind. A process that starts late learns the phase at its
//! first barrier.

use super::{Case, Verdict, lacking};
use crate::history::{Incarnation, SNAPSHOT};
use std::collections::HashMap;

pub(super) fn judge(case: &Case<'_>, verdict: &mut Verdict) {
    if case.histories.incarnations.iter().all(|incarnation| incarnation.barriers.is_empty()) {
        return;
    }
    for incarnation in &case.histories.incarnations {
        for pair in incarnation.barriers.windows(2) {
            if pair[1].number <= pair[0].number {
                verdict.add(
                    16,
                    incarnation,
                    format!("passed barrier {} after barrier {}", pair[1].number, pair[0].number),
                );
            }
        }
    }
    same_phase_at_all(case, verdict);
    if case.agreed() {
        same_set_before(case, verdict);
    }
}

fn same_phase_at_all(case: &Case<'_>, verdict: &mut Verdict) {
    let mut phases: HashMap<u32, (Option<u64>, &Incarnation)> = HashMap::new();
    for incarnation in &case.histories.incarnations {
        for delivery in incarnation.kept().filter(|delivery| delivery.phase.is_some() || !incarnation.starts_late()) {
            let (phase, other) = *phases.entry(delivery.message).or_insert((delivery.phase, incarnation));
            if phase != delivery.phase {
                let (message, other) = (case.histories.message(delivery.message), other.shown());
                let (here, there) = (after(delivery.phase), after(phase));
                verdict.add(16, incarnation, format!("delivered {message} {here}, but {other} {there}"));
            }
        }
    }
}

fn after(phase: Option<u64>) -> String {
    phase.map_or_else(|| "before any barrier".to_owned(), |number| format!("after barrier {number}"))
}

fn same_set_before(case: &Case<'_>, verdict: &mut Verdict) {
    // By view and barrier: the first process that passed it, and the messages before it.
    let mut sets: HashMap<(u64, u64), (Vec<u32>, &Incarnation)> = HashMap::new();
    // Members first, so that processes that start late are compared with processes that don't.
    let (whole, late): (Vec<_>, Vec<_>) =
        case.histories.incarnations.iter().partition(|incarnation| incarnation.member);
    for incarnation in whole.into_iter().chain(late) {
        let began = case.began(incarnation);
        for (index, barrier) in
            incarnation.barriers.iter().enumerate().filter(|(_, barrier)| barrier.segment != SNAPSHOT)
        {
            let here = before(incarnation, index);
            let key = (incarnation.views[barrier.segment as usize].number, barrier.number);
            let (there, other) = sets.entry(key).or_insert_with(|| (here.clone(), incarnation));
            let first_view = barrier.segment == 0 && !incarnation.member;
            let mut lacks = lacking(there, &here);
            lacks.retain(|message| !case.may_lack(incarnation, &began, *message, first_view));
            for (messages, verb) in [(lacks, "without"), (lacking(&here, there), "with")] {
                if !messages.is_empty() {
                    let (messages, other) = (case.named(&messages), other.shown());
                    let detail = format!("passed barrier {} {verb} {messages}, unlike {other}", barrier.number);
                    verdict.add(16, incarnation, detail);
                }
            }
        }
    }
}

/// What was delivered in a barrier's view since the barrier before, sorted: sets further back have been compared there.
fn before(incarnation: &Incarnation, index: usize) -> Vec<u32> {
    let barrier = incarnation.barriers[index];
    let since = index.checked_sub(1).map_or(0, |previous| incarnation.barriers[previous].position);
    let in_view =
        incarnation.deliveries[since..barrier.position].iter().filter(|delivery| delivery.segment == barrier.segment);
    let mut messages: Vec<u32> =
        in_view.filter(|delivery| !delivery.retracted).map(|delivery| delivery.message).collect();
    messages.sort_unstable();
    messages
}
