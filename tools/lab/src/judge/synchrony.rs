//! 7 and 19: processes that move together have delivered the same; a joiner has what the others had.
//!
//! View synchrony: processes that install the same two views one after the other delivered the same set in the first.
//! The end of the run is judged as one more view, which the processes in the last view reach, unless they were stopped
//! in the middle. An observer's first view may be cut short at its beginning. A later incarnation that begins with
//! messages before its first view began with a snapshot, which must hold all that members had delivered before that
//! view.
//!
//! At best effort views promise nothing, but a loss must be recorded: at the end, a process that lacks a message has
//! recorded the gap.

use super::{Case, Reliability, Verdict, lacking};
use crate::history::{Incarnation, SNAPSHOT, State};
use std::collections::HashMap;

/// One process's deliveries in one view, on its way to the next.
struct Stay<'a> {
    incarnation: &'a Incarnation,
    first_view: bool,
    /// Sorted.
    delivered: Vec<u32>,
}

pub(super) fn judge(case: &Case<'_>, verdict: &mut Verdict) {
    if case.agreed() {
        moved_together(case, verdict);
        gaps_at_members(case, verdict);
        snapshots(case, verdict);
        states(case, verdict);
    } else if case.rules.reliability == Reliability::BestEffort && !case.rules.running {
        losses_are_named(case, verdict);
    }
}

fn moved_together(case: &Case<'_>, verdict: &mut Verdict) {
    // From a view to the next one, or to the end.
    let mut moves: HashMap<(u64, Option<u64>), Vec<Stay<'_>>> = HashMap::new();
    for incarnation in &case.histories.incarnations {
        let mut by_segment = vec![Vec::new(); incarnation.views.len()];
        for delivery in incarnation.kept().filter(|delivery| delivery.segment != SNAPSHOT) {
            by_segment[delivery.segment as usize].push(delivery.message);
        }
        for (segment, mut delivered) in by_segment.into_iter().enumerate() {
            let next = incarnation.views.get(segment + 1).map(|view| view.number);
            if next.is_none() && (case.rules.running || !case.survives(incarnation)) {
                continue;
            }
            delivered.sort_unstable();
            let key = (incarnation.views[segment].number, next);
            moves.entry(key).or_default().push(Stay { incarnation, first_view: segment == 0, delivered });
        }
    }
    let mut moves: Vec<_> = moves.into_iter().collect();
    moves.sort_by_key(|(key, _)| *key);
    for ((view, next), stays) in &moves {
        compare(case, verdict, (*view, *next), stays);
    }
}

/// Compares all with a process that was there from the beginning, or else with the process that has most.
fn compare(case: &Case<'_>, verdict: &mut Verdict, (view, next): (u64, Option<u64>), stays: &[Stay<'_>]) {
    let whole = |stay: &&Stay<'_>| !stay.first_view || stay.incarnation.member;
    let most = || stays.iter().max_by_key(|stay| stay.delivered.len());
    let Some(model) = stays.iter().find(whole).or_else(most) else { return };
    let to = next.map_or_else(|| "the end".to_owned(), |next| format!("view {next}"));
    for stay in stays {
        if stay.delivered == model.delivered {
            continue;
        }
        let began = case.began(stay.incarnation);
        let late = stay.first_view && !stay.incarnation.member;
        let mut lacks = lacking(&model.delivered, &stay.delivered);
        lacks.retain(|message| !case.may_lack(stay.incarnation, &began, *message, late));
        let more = lacking(&stay.delivered, &model.delivered);
        let model = model.incarnation.shown();
        if !lacks.is_empty() {
            let lacks = case.named(&lacks);
            verdict.add(
                7,
                stay.incarnation,
                format!("from view {view} to {to}: lacks {lacks}, which {model} delivered"),
            );
        }
        if !more.is_empty() {
            let more = case.named(&more);
            verdict.add(
                7,
                stay.incarnation,
                format!("from view {view} to {to}: delivered {more}, which {model} did not"),
            );
        }
    }
}

fn gaps_at_members(case: &Case<'_>, verdict: &mut Verdict) {
    for incarnation in case.histories.incarnations.iter().filter(|incarnation| incarnation.member) {
        if let Some(gap) = incarnation.gaps.first() {
            let publisher = &case.histories.publishers[gap.publisher as usize];
            verdict.add(
                7,
                incarnation,
                format!("gave up {publisher}:{} to before {}, which a member never may", gap.from, gap.to),
            );
        }
    }
}

fn snapshots(case: &Case<'_>, verdict: &mut Verdict) {
    // A state that is a sum holds no messages; `states` judges it.
    let begins_with_one = |incarnation: &Incarnation| {
        let any = incarnation.kept().any(|delivery| delivery.segment == SNAPSHOT);
        incarnation.member && incarnation.number > 1 && incarnation.state.is_none() && any
    };
    for incarnation in case.histories.incarnations.iter().filter(|incarnation| begins_with_one(incarnation)) {
        let Some(first) = incarnation.views.first().map(|view| view.number) else { continue };
        // Any process that was there before this view and has everything from the beginning: by itself, or by a
        // snapshot that is judged in the same way.
        let model = case.histories.incarnations.iter().find(|other| {
            let has_all = (other.number == 1 && other.state.is_none()) || begins_with_one(other);
            other.member && has_all && other.views.iter().skip(1).any(|view| view.number == first)
        });
        let Some(model) = model else { continue };
        let mut had: Vec<u32> = model.kept().filter(|delivery| delivery.view < first).map(|d| d.message).collect();
        let mut has: Vec<u32> = incarnation.kept().filter(|d| d.segment == SNAPSHOT).map(|d| d.message).collect();
        had.sort_unstable();
        has.sort_unstable();
        for (lacks, verb) in [(lacking(&had, &has), "lacks"), (lacking(&has, &had), "has")] {
            if !lacks.is_empty() {
                let (messages, model) = (case.named(&lacks), model.shown());
                let detail =
                    format!("its snapshot before view {first} {verb} {messages}, unlike what {model} delivered");
                verdict.add(19, incarnation, detail);
            }
        }
    }
}

/// The sum of what an incarnation had delivered before a view: its state, what it delivered after the state and before
/// its first view, and what it delivered in the views before. None if it began in the middle without a state.
fn state_before(incarnation: &Incarnation, view: u64) -> Option<State> {
    let start = match incarnation.state {
        Some(state) => state,
        None if incarnation.number == 1 => State { count: 0, sum: 0 },
        None => return None,
    };
    let before = incarnation.kept().filter(|delivery| delivery.view < view);
    Some(
        before.fold(start, |state, delivery| State {
            count: state.count + 1,
            sum: state.sum.wrapping_add(delivery.hash),
        }),
    )
}

/// Compares a state that is a sum with what a member that was there before had delivered by then.
fn states(case: &Case<'_>, verdict: &mut Verdict) {
    for incarnation in case.histories.incarnations.iter().filter(|incarnation| incarnation.member) {
        let (Some(_), Some(first)) = (incarnation.state, incarnation.views.first().map(|view| view.number)) else {
            continue;
        };
        let Some(state) = state_before(incarnation, first) else { continue };
        let models = case
            .histories
            .incarnations
            .iter()
            .filter(|other| other.member && other.views.iter().skip(1).any(|view| view.number == first));
        let Some((model, had)) = models.filter_map(|other| Some((other, state_before(other, first)?))).next() else {
            continue;
        };
        if had != state {
            let (has, had, model) = (state.count, had.count, model.shown());
            let detail = format!(
                "its state before view {first} stands for {has} messages, unlike the {had} that {model} delivered"
            );
            verdict.add(19, incarnation, detail);
        }
    }
}

fn losses_are_named(case: &Case<'_>, verdict: &mut Verdict) {
    let survivors = || case.histories.incarnations.iter().filter(|incarnation| case.survives(incarnation));
    let sorted = |messages: &mut Vec<u32>| {
        messages.sort_unstable();
        messages.dedup();
    };
    let mut any: Vec<u32> =
        survivors().flat_map(|incarnation| incarnation.kept().map(|delivery| delivery.message)).collect();
    sorted(&mut any);
    for incarnation in survivors() {
        let began = case.began(incarnation);
        let mut has: Vec<u32> = incarnation.kept().map(|delivery| delivery.message).collect();
        sorted(&mut has);
        let mut lacks = lacking(&any, &has);
        lacks.retain(|message| !case.may_lack(incarnation, &began, *message, true));
        if !lacks.is_empty() {
            verdict.add(7, incarnation, format!("lacks {} and recorded no gap", case.named(&lacks)));
        }
    }
}
