//! 11: all survivors deliver what any process delivered, even a process that then died.
//!
//! This holds only from `uniform` on. A survivor is judged by what was delivered in views that it was in. Older
//! messages came to it in a snapshot, which is judged separately, or do not concern it. With the run stopped in the
//! middle, a survivor is judged by the views that it left.

use super::{Case, Verdict};
use crate::history::{Incarnation, SNAPSHOT};
use std::collections::HashMap;

pub(super) fn judge(case: &Case<'_>, verdict: &mut Verdict) {
    if !case.uniform() {
        return;
    }
    // The first process that delivered each message, and its view.
    let mut delivered: HashMap<u32, (u64, &Incarnation)> = HashMap::new();
    for incarnation in &case.histories.incarnations {
        for delivery in incarnation.kept().filter(|delivery| delivery.segment != SNAPSHOT) {
            delivered.entry(delivery.message).or_insert((delivery.view, incarnation));
        }
    }
    for incarnation in case.histories.incarnations.iter().filter(|incarnation| case.survives(incarnation)) {
        let Some(first) = incarnation.views.first().map(|view| view.number) else { continue };
        let began = case.began(incarnation);
        let mut has = vec![false; case.histories.messages.len()];
        incarnation.kept().for_each(|delivery| has[delivery.message as usize] = true);
        let mut lacks: Vec<u32> = Vec::new();
        for (message, (view, _)) in &delivered {
            let answers = *view >= first && !(case.rules.running && Some(*view) == case.last_view);
            let late = *view == first && !incarnation.member;
            if answers && !has[*message as usize] && !case.may_lack(incarnation, &began, *message, late) {
                lacks.push(*message);
            }
        }
        lacks.sort_unstable();
        if let Some(message) = lacks.first() {
            let (view, deliverer) = delivered[message];
            let (lacks, deliverer) = (case.named(&lacks), deliverer.shown());
            verdict.add(
                11,
                incarnation,
                format!("lacks {lacks}; the first was delivered by {deliverer} in view {view}"),
            );
        }
    }
}
