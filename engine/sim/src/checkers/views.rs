//! Views: agreed once, each decided by a quorum of the one before.
//!
//! The first process to enter an epoch defines it: the members, the sequencer, the beginnings of the streams. Every
//! other process must find the same. When it is first entered, a quorum of the view before must have stopped in it: a
//! process reports its promise ([`Process::is_wedged`]). An incarnation that is out of a view never comes back, only a
//! later incarnation does.
//!
//! Without faults there is no reason for a second view; that is reported under a name of its own.

use super::continuation::Continuation;
use super::quorum::is_quorum;
use super::{Verdict, Violation};
use crate::demand::Demands;
use crate::history::{History, Lineage};
use crate::node::Node;
use crate::plan::Plan;
use bourdon_protocol::{Member, Process, Standing, View};
use bourdon_wire::{Epoch, Rank};
use std::collections::{BTreeMap, BTreeSet};

pub(super) const NAME: &str = "views";
pub(super) const CALM: &str = "no-eviction";

/// A view, as it was first seen.
#[derive(Clone, Debug)]
pub(crate) struct Installed {
    pub(crate) view: View,
    /// Order number, phase, and each sender's first message; known from the first process that came from the view
    /// before.
    beginning: Option<(u64, u64, Vec<u64>)>,
}

#[derive(Debug)]
pub(crate) struct Views {
    calm: bool,
    lossy: bool,
    pub(super) continuation: Continuation,
    epochs: BTreeMap<u64, Installed>,
    /// Incarnations that have entered the first view.
    first: BTreeSet<Member>,
    /// The members that have stopped, each with its epoch.
    stopped: BTreeSet<(u64, Member)>,
}

impl Views {
    pub(super) fn new(plan: &Plan, demands: Demands) -> Self {
        let (calm, lossy, continuation) = (plan.is_calm(), plan.is_lossy(), Continuation::new(plan, demands));
        Self { calm, lossy, continuation, epochs: BTreeMap::new(), first: BTreeSet::new(), stopped: BTreeSet::new() }
    }

    /// The latest view that any process has entered.
    pub(crate) fn latest(&self) -> Option<&Installed> {
        self.epochs.values().next_back()
    }

    /// An incarnation left: as the last member of its view, it closed the group.
    pub(crate) fn closed(&mut self, member: Member, next: Epoch) {
        let is_last = |installed: &Installed| installed.view.members == [member] && installed.view.epoch.next() == next;
        if self.latest().is_some_and(is_last) {
            self.continuation.crashed(member);
        }
    }

    /// The view of an epoch, once any process has entered it.
    pub(crate) fn view(&self, epoch: u64) -> Option<&View> {
        self.epochs.get(&epoch).map(|installed| &installed.view)
    }

    /// An incarnation asks to leave.
    pub(crate) fn left(&mut self, member: Member) {
        self.continuation.left(member);
    }

    /// An incarnation crashed.
    pub(crate) fn crashed(&mut self, member: Member) {
        self.continuation.crashed(member);
    }

    /// What a member had stored was damaged: none of its incarnations comes back, though it may have been a later one
    /// that crashed.
    pub(crate) fn forgotten(&mut self, rank: Rank) {
        let incarnations = self.epochs.values().filter_map(|installed| installed.view.incarnation(rank));
        let gone: Vec<_> = incarnations.map(|incarnation| Member { rank, incarnation }).collect();
        gone.into_iter().for_each(|member| self.continuation.crashed(member));
    }

    /// An incarnation that crashed is back.
    pub(super) fn restored(&mut self, member: Member) {
        self.continuation.crashed.remove(&member);
    }

    /// Incarnations that crashed.
    pub(crate) fn crashes(&self) -> &BTreeSet<Member> {
        &self.continuation.crashed
    }

    /// Whether an incarnation crashed or asked to leave.
    pub(crate) fn has_ended(&self, member: Member) -> bool {
        self.continuation.has_ended(member)
    }

    /// Whether every member has entered the first view.
    pub(crate) fn has_formed(&self, members: u16) -> bool {
        self.first.len() >= usize::from(members)
    }

    /// Incarnations that have entered the first view.
    pub(super) fn entered_first(&self) -> impl Iterator<Item = Member> {
        self.first.iter().copied()
    }

    /// Whether a view from this epoch on leaves an incarnation out.
    pub(super) fn leaves_out(&self, member: Member, epoch: u64) -> bool {
        self.epochs.range(epoch..).any(|(_, installed)| !installed.view.contains(member))
    }

    /// Judges the loss of the group's last view.
    pub(crate) fn is_lost_rightly(&self, history: &History, members: &[Node]) -> Verdict {
        self.continuation.lost(history, members)
    }

    /// Whether a first view begins another group: every member that was in a view of the group before is gone, so that
    /// it has left no trace, and the members that are left have formed the first view again.
    pub(crate) fn is_a_new_first_view<'p>(&self, view: &View, mut others: impl Iterator<Item = &'p Process>) -> bool {
        let other = self.epochs.get(&1).is_some_and(|known| view.epoch.0 == 1 && known.view != *view);
        other && !others.any(|other| other.standing() == Standing::Member)
    }

    pub(super) fn stepped(&mut self, process: &Process) {
        if process.standing() == Standing::Member && process.is_wedged() {
            self.stop(process.view().epoch.0, process);
        }
    }

    fn stop(&mut self, epoch: u64, process: &Process) {
        if let Some(rank) = process.config().rank() {
            self.stopped.insert((epoch, Member { rank, incarnation: process.incarnation() }));
        }
    }

    pub(super) fn installed(&mut self, lineage: &Lineage, process: &Process, moved: bool, safety: bool) -> Verdict {
        let view = process.view();
        let epoch = view.epoch.0;
        let broken = |what: String| Err(Violation::new(NAME, format!("process {}: {what}", lineage.process)));
        // A follower may lose a view and find it again.
        let least = epoch + u64::from(process.standing() == Standing::Following);
        if lineage.epoch.is_some_and(|before| before >= least) {
            return broken(format!("epoch {epoch} follows {:?}", lineage.epoch));
        }
        if epoch > 1 && self.calm {
            let detail = format!("process {} entered view {epoch} though nothing went wrong", lineage.process);
            return Err(Violation::new(CALM, detail));
        }
        if epoch == 1 && process.standing() == Standing::Member {
            let rank = Rank(lineage.process as u16);
            self.first.insert(Member { rank, incarnation: process.incarnation() });
        }
        if moved && process.standing() == Standing::Member {
            self.stop(epoch - 1, process);
        }
        if !self.epochs.contains_key(&epoch) {
            if safety {
                self.decided(view)?;
            }
            self.epochs.insert(epoch, Installed { view: view.clone(), beginning: None });
        }
        let Some(known) = self.epochs.get_mut(&epoch).filter(|_| safety) else { return Ok(()) };
        if known.view != *view {
            return broken(format!("it has {view:?}, where others have {:?}", known.view));
        }
        if moved && lineage.whole {
            let first = (0..process.config().members).map(|rank| process.delivered(Rank(rank)).0).collect();
            // Where messages may be lost, only the barriers are agreed on.
            let (order, first) = if self.lossy { (0, Vec::new()) } else { (process.delivered_order().0, first) };
            let beginning = (order, process.phase(), first);
            let agreed = known.beginning.get_or_insert_with(|| beginning.clone());
            if *agreed != beginning {
                return broken(format!("view {epoch} begins at {beginning:?}, elsewhere at {agreed:?}"));
            }
        }
        Ok(())
    }

    /// Whether a view may follow the known views.
    fn decided(&mut self, view: &View) -> Verdict {
        let epoch = view.epoch.0;
        let Some(before) = self.epochs.get(&(epoch - 1)) else { return Ok(()) };
        let old = &before.view;
        self.continuation.decided(old, view)?;
        let stopped: Vec<_> =
            old.members.iter().filter(|member| self.stopped.contains(&(epoch - 1, **member))).collect();
        if !is_quorum(old, |member| stopped.contains(&member)) {
            let detail = format!("view {epoch} was entered when only {stopped:?} had stopped in {old:?}");
            return Err(Violation::new(NAME, detail));
        }
        let is_new = |member: &&Member| !old.contains(**member);
        let known = |member: &Member| self.epochs.values().any(|earlier| earlier.view.contains(*member));
        match view.members.iter().filter(is_new).find(|member| known(member)) {
            Some(back) => Err(Violation::new(NAME, format!("{back:?} is in view {epoch} again, not restarted"))),
            None => Ok(()),
        }
    }
}
