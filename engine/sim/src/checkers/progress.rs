//! Progress: once faults are frozen, every live process ends up in one view.
//!
//! Only if the group can go on at all: it needs a quorum, in the very incarnations that are in it, of its latest view,
//! of any view that a member has accepted to follow it, and of the latest view that any live process has entered. The
//! members that went on from there may be gone, and no other process may know of it. A group that has lost that quorum
//! is lost, and nothing more is asked of it.

use super::quorum::is_quorum;
use super::{Installed, Verdict, Violation};
use crate::node::Node;
use bourdon_protocol::{Member, Process, Standing, View};
use std::collections::BTreeSet;

pub(super) const NAME: &str = "progress";

/// Judges whether every process is where it should be.
#[derive(Debug)]
pub(crate) struct Progress<'a> {
    /// Members first, then observers.
    pub(crate) nodes: &'a [Node],
    pub(crate) members: usize,
    pub(crate) latest: Option<&'a Installed>,
}

/// Whether too few members are left of the latest view for it ever to go on.
///
/// With `crashed`, only an incarnation that crashed is gone: an incarnation that was removed or has left answered for
/// what it decided before it went.
pub(crate) fn is_lost(
    nodes: &[Node],
    members: usize,
    latest: Option<&Installed>,
    crashed: Option<&BTreeSet<Member>>,
) -> bool {
    let Some(latest) = latest else {
        // The first view needs every member, and each waits for it that may have been in one.
        let may_form = |node: &Node| {
            node.process.as_ref().is_some_and(|process| process.config().storage_damaged == 0) && node.is_alive()
        };
        return !nodes[..members].iter().all(may_form);
    };
    let lives = |member: &Member| {
        if let Some(crashed) = crashed {
            return !crashed.contains(member);
        }
        let node = &nodes[member.rank.index()];
        node.process
            .as_ref()
            .is_some_and(|process| process.incarnation() == member.incarnation && process.standing() != Standing::Gone)
    };
    // What a member has accepted to follow it may have been decided, and has to go on as well.
    let next = nodes[..members].iter().filter_map(|node| {
        let process = node.process.as_ref().filter(|process| {
            let view = process.view();
            (view.instance, view.epoch) == (latest.view.instance, latest.view.epoch)
        })?;
        let apart = node.control.as_ref().map(|control| control.plane.accepted_members());
        let members = apart.unwrap_or_else(|| process.accepted_members())?.to_vec();
        Some(View { members, ..latest.view.clone() })
    });
    let continues = |member: &Member| latest.view.contains(*member) && lives(member);
    let members = nodes[..members].iter().filter_map(|node| node.process.as_ref());
    let entered = members.filter(|process| process.standing() == Standing::Member).map(Process::view);
    let entered = entered.filter(|view| view.instance == latest.view.instance);
    let Some(known) = entered.max_by_key(|view| view.epoch) else { return true };
    !is_quorum(&latest.view, lives) || !is_quorum(known, lives) || { next }.any(|view| !is_quorum(&view, continues))
}

impl Progress<'_> {
    pub(crate) fn check(&self) -> Verdict {
        let missing = |what: String| Err(Violation::new(NAME, what));
        let Some(latest) = self.latest else { return missing("no view was ever entered".into()) };
        let is_latest = |view: &View| (view.instance, view.epoch) == (latest.view.instance, latest.view.epoch);
        for (index, node) in self.nodes.iter().enumerate() {
            let Some(process) = node.process.as_ref().filter(|_| !node.left) else { continue };
            let due = if index < self.members { Standing::Member } else { Standing::Following };
            let (standing, view) = (process.standing(), process.view());
            if standing != due || !is_latest(view) || process.is_wedged() {
                let wedged = if process.is_wedged() { ", wedged" } else { "" };
                let (epoch, last) = (view.epoch, &latest.view);
                return missing(format!(
                    "process {index} is {standing:?} in view {epoch}{wedged}; the last is {last:?}"
                ));
            }
            if index < self.members && view.incarnation(bourdon_wire::Rank(index as u16)).is_none() {
                return missing(format!("process {index} is not in the last view"));
            }
        }
        Ok(())
    }
}
