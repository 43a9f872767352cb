//! Agreement: members that go on together have delivered the same.
//!
//! At the moment a process enters view e + 1, everything of e and nothing beyond has been delivered to its application.
//! The first process to get there defines what that is: the whole of it, from the group's beginning on, joiners'
//! snapshots included. Every process that gets there later must have delivered the same messages; in total order in the
//! same sequence. As a message is delivered to an application at most once, each message belongs to one epoch, the same
//! at all, and nothing of the cut is missing.
//!
//! At `uniform` and `stable` this holds for the processes that never got there as well: what was delivered in e at any
//! process, crashed or not, must be among what the first process had delivered, and nothing else may be delivered in e
//! later.
//!
//! The promise of `uniform` and `stable` is reported under a name of its own.

use super::{Verdict, Violation, describe};
use crate::history::{Delivered, History, Id, Lineage};
use crate::plan::Plan;
use bourdon_protocol::{Order, Reliability};
use std::collections::BTreeMap;

pub(super) const NAME: &str = "agreement";
pub(super) const UNIFORM: &str = "uniform";

#[derive(Debug)]
struct End {
    process: usize,
    delivered: Vec<Delivered>,
    /// By message: whether it is among them.
    has: Vec<bool>,
}

#[derive(Debug)]
pub(super) struct Agreement {
    total: bool,
    uniform: bool,
    ends: BTreeMap<u64, End>,
    /// By message: the epoch in which it was first delivered, at `uniform` and `stable`.
    shown_in: Vec<Option<u64>>,
}

impl Agreement {
    pub(super) fn new(plan: &Plan) -> Self {
        let (total, uniform) = (plan.order == Order::Total, plan.reliability > Reliability::Reliable);
        Self { total, uniform, ends: BTreeMap::new(), shown_in: Vec::new() }
    }

    pub(super) fn delivered(&mut self, history: &History, id: Id, epoch: u64) -> Verdict {
        if !self.uniform {
            return Ok(());
        }
        if self.shown_in.len() <= id as usize {
            self.shown_in.resize(id as usize + 1, None);
        }
        let known = *self.shown_in[id as usize].get_or_insert(epoch);
        if known != epoch {
            let detail = format!("{} was delivered in epoch {known}, and in {epoch}", history.name(id));
            return Err(Violation::new(UNIFORM, detail));
        }
        match self.ends.get(&epoch) {
            Some(end) if !end.has.get(id as usize).copied().unwrap_or(false) => {
                let name = history.name(id);
                let detail =
                    format!("{name} was delivered in epoch {epoch}, which ended without it at process {}", end.process);
                Err(Violation::new(UNIFORM, detail))
            }
            _ => Ok(()),
        }
    }

    /// A process has delivered all of an epoch.
    pub(super) fn closed(&mut self, history: &History, lineage: &Lineage, epoch: u64) -> Verdict {
        let total = self.total;
        if let Some(end) = self.ends.get(&epoch) {
            return compare(history, (&end.delivered, end.process), lineage, epoch, total);
        }
        let has = (0..history.messages.len()).map(|id| lineage.has(id as Id)).collect::<Vec<_>>();
        let lost = (0..).zip(&self.shown_in).find(|(id, shown)| **shown == Some(epoch) && !has[*id as usize]);
        if let Some((id, _)) = lost {
            let name = history.name(id);
            let detail =
                format!("{name} was delivered in epoch {epoch}, which ended without it at process {}", lineage.process);
            return Err(Violation::new(UNIFORM, detail));
        }
        let (process, delivered) = (lineage.process, lineage.delivered.clone());
        self.ends.insert(epoch, End { process, delivered, has });
        Ok(())
    }
}

/// Whether the same was delivered to two applications.
pub(super) fn compare(
    history: &History,
    (first, process): (&[Delivered], usize),
    lineage: &Lineage,
    epoch: u64,
    total: bool,
) -> Verdict {
    let differs = |which: &str, shown: &Delivered| {
        let other = lineage.process;
        let detail = format!(
            "by the end of epoch {epoch} {which} of processes {process} and {other} delivered {}",
            describe(history, shown)
        );
        Err(Violation::new(NAME, detail))
    };
    if let Some(missing) = first.iter().find(|shown| !lineage.has(shown.id)) {
        return differs("only the first", missing);
    }
    if first.len() != lineage.delivered.len() {
        let has = |id: Id| first.iter().any(|shown| shown.id == id);
        let more = lineage.delivered.iter().find(|shown| !has(shown.id)).unwrap_or(&lineage.delivered[0]);
        return differs("only the second", more);
    }
    let place = first.iter().zip(&lineage.delivered).position(|(a, b)| a.id != b.id);
    match place.filter(|_| total) {
        Some(place) => differs("in another order than the second, the first", &first[place]),
        None => Ok(()),
    }
}
