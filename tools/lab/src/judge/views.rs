//! 3 to 6: views grow, are the same at all processes, share a majority with their predecessor, and each message has one
//! view.
//!
//! The successor of a view is the view that some process installed right after it: numbers need not be dense, and a
//! process that missed a view would show as two successors without a common majority. Half of a view is a majority only
//! with its most senior member, so that two halves never both go on.

use super::{Case, Verdict};
use crate::history::{Incarnation, SNAPSHOT, View};
use std::collections::{HashMap, HashSet};

pub(super) fn judge(case: &Case<'_>, verdict: &mut Verdict) {
    grow(case, verdict);
    same_at_all(case, verdict);
    share_a_majority(case, verdict);
    delivered_in_the_installed(case, verdict);
    one_view_a_message(case, verdict);
}

fn grow(case: &Case<'_>, verdict: &mut Verdict) {
    let mut before: Option<&Incarnation> = None;
    for incarnation in &case.histories.incarnations {
        for pair in incarnation.views.windows(2) {
            if pair[1].number <= pair[0].number {
                verdict.add(3, incarnation, format!("installed view {} after view {}", pair[1].number, pair[0].number));
            }
        }
        if let (Some(earlier), Some(first)) =
            (before.filter(|earlier| earlier.name == incarnation.name), incarnation.views.first())
        {
            let last = earlier.last_view().unwrap_or(0);
            if first.number < last || (incarnation.member && first.number == last) {
                verdict.add(
                    3,
                    incarnation,
                    format!("began in view {} after it had ended in view {last}", first.number),
                );
            }
        }
        before = Some(incarnation);
    }
}

fn same_at_all(case: &Case<'_>, verdict: &mut Verdict) {
    let mut memberships: HashMap<u64, (&View, &Incarnation)> = HashMap::new();
    for incarnation in &case.histories.incarnations {
        for view in &incarnation.views {
            let (known, other) = *memberships.entry(view.number).or_insert((view, incarnation));
            if known.members != view.members {
                let (here, there) = (view.members.join(","), known.members.join(","));
                verdict.add(
                    4,
                    incarnation,
                    format!("view {} is {here}, but {there} at {}", view.number, other.shown()),
                );
            }
        }
    }
}

fn share_a_majority(case: &Case<'_>, verdict: &mut Verdict) {
    let mut judged = HashSet::new();
    for incarnation in &case.histories.incarnations {
        for pair in incarnation.views.windows(2) {
            let (old, new) = (&pair[0], &pair[1]);
            if !judged.insert((old, new)) {
                continue;
            }
            let stayed = old.members.iter().filter(|member| new.members.contains(member)).count();
            let senior = old.members.first().is_some_and(|first| new.members.contains(first));
            let half = stayed * 2 == old.members.len();
            if stayed * 2 < old.members.len() || (half && !senior) {
                let (from, to) = (old.members.join(","), new.members.join(","));
                verdict.add(
                    5,
                    incarnation,
                    format!("view {} is {from}, view {} is {to}: no majority", old.number, new.number),
                );
            }
        }
    }
}

/// Whether it is a member's later incarnation: it begins with a snapshot, and the run may end before it is admitted.
fn comes_back(incarnation: &Incarnation) -> bool {
    incarnation.member && incarnation.number > 1
}

fn delivered_in_the_installed(case: &Case<'_>, verdict: &mut Verdict) {
    for incarnation in &case.histories.incarnations {
        let unseen = incarnation.deliveries.first().filter(|first| first.segment == SNAPSHOT);
        if unseen.is_some() && !incarnation.starts_late() {
            verdict.add(6, incarnation, "delivered before it had installed any view".to_owned());
        } else if unseen.is_some() && incarnation.views.is_empty() && !incarnation.killed && !comes_back(incarnation) {
            verdict.add(6, incarnation, "delivered, but never installed a view".to_owned());
        }
        for delivery in incarnation.deliveries.iter().filter(|delivery| delivery.segment != SNAPSHOT) {
            let installed = incarnation.views[delivery.segment as usize].number;
            if installed != delivery.view {
                let message = case.histories.message(delivery.message);
                let detail =
                    format!("delivered {message} in view {}, but view {installed} was installed", delivery.view);
                verdict.add(6, incarnation, detail);
            }
        }
    }
}

fn one_view_a_message(case: &Case<'_>, verdict: &mut Verdict) {
    if !case.agreed() {
        return;
    }
    let mut views: HashMap<u32, (u64, &Incarnation)> = HashMap::new();
    for incarnation in &case.histories.incarnations {
        for delivery in
            incarnation.kept().filter(|delivery| delivery.segment != SNAPSHOT && case.binds(incarnation, delivery))
        {
            let (view, other) = *views.entry(delivery.message).or_insert((delivery.view, incarnation));
            if view != delivery.view {
                let message = case.histories.message(delivery.message);
                let other = other.shown();
                verdict.add(
                    6,
                    incarnation,
                    format!("delivered {message} in view {}, {other} in view {view}", delivery.view),
                );
            }
        }
    }
}
