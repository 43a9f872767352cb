//! Instance: nothing of another instance of the group changes any state.
//!
//! After all members have stopped, new processes of the same ranks are another group: it shares a name, addresses,
//! epochs and sequences with the group before, but no message and no member. The world knows the generation of every
//! incarnation that it starts: how many restarts of the whole group came before. An incarnation that a process drew
//! itself, because it was out of the group, belongs to no generation until a view takes it in, and from then on to that
//! of the view's other members. So the checker judges without a field of the protocol.
//!
//! - The incarnations in a view are of one generation. A process that was in a view goes on to another generation only
//!   if it reports that, and only to a later one; a member does so in another incarnation.
//! - A message is delivered in the generation in which it was sent. A client that lives across the restart sends again
//!   what was not acknowledged: that message belongs to both.
//! - An incarnation is out of the group only if a view of its own generation leaves it out.
//! - An observer reports that it follows another instance: what it missed is lost to it.

use super::{Checkers, Verdict, Violation};
use crate::demand::{Demand, Demands};
use crate::history::{Delivered, History, Id};
use crate::plan::GROUP;
use bourdon_protocol::{Member, Message, View};
use bourdon_wire::Datagram;
use std::collections::BTreeMap;

pub(super) const NAME: &str = "instance";

/// A member reports that it was removed.
#[derive(Clone, Copy, Debug)]
struct Removal {
    generation: u32,
    member: Member,
    /// The first view that it can be missing from.
    epoch: u64,
}

#[derive(Debug)]
pub(crate) struct Instances {
    demanded: bool,
    /// By incarnation that the world started, or that a view took in.
    generations: BTreeMap<Member, u32>,
    /// By instance that a process entered.
    instances: BTreeMap<u64, u32>,
    removals: Vec<Removal>,
}

fn broken(detail: String) -> Verdict {
    Err(Violation::new(NAME, detail))
}

impl Instances {
    pub(crate) fn new(demands: Demands) -> Self {
        let demanded = demands.has(Demand::Instance);
        Self { demanded, generations: BTreeMap::new(), instances: BTreeMap::new(), removals: Vec::new() }
    }

    /// The world starts an incarnation of a member. Returns whether no other member has that name.
    pub(crate) fn begins(&mut self, member: Member, generation: u32) -> bool {
        *self.generations.entry(member).or_insert(generation) == generation
    }

    /// An incarnation is in no view while another generation begins: the view that takes it in decides.
    pub(crate) fn forget(&mut self, member: Member) {
        self.generations.remove(&member);
    }

    /// The generation of an incarnation, once it has one.
    pub(crate) fn generation(&self, member: Member) -> Option<u32> {
        self.generations.get(&member).copied()
    }

    /// The common generation of a view's members, for a process of generation `from` that enters it; none if there are
    /// two.
    pub(crate) fn entered(&mut self, process: usize, from: u32, view: &View) -> Result<Option<u32>, Violation> {
        let assigned = || view.members.iter().filter_map(|member| Some((*member, self.generation(*member)?)));
        let to = assigned().map(|(_, generation)| generation).max().unwrap_or(from);
        if let Some((other, of)) = assigned().find(|(_, generation)| *generation != to) {
            let detail = format!(
                "process {process} of generation {from} entered view {} of generation {to} with {other:?} of {of}",
                view.epoch
            );
            return if self.demanded { Err(Violation::new(NAME, detail)) } else { Ok(None) };
        }
        view.members.iter().for_each(|member| {
            self.generations.entry(*member).or_insert(to);
        });
        self.instances.entry(view.instance.0).or_insert(to);
        Ok(Some(to))
    }

    /// Whether a datagram was sent in an instance of an earlier generation than this one.
    pub(crate) fn is_of_earlier(&self, bytes: &[u8], generation: u32) -> bool {
        let instance = Datagram::parse(bytes, GROUP).map(|datagram| datagram.header.instance());
        let of = instance.ok().and_then(|instance| self.instances.get(&instance.0));
        of.is_some_and(|of| *of < generation)
    }

    /// Judges the message that an application has just received.
    pub(crate) fn delivered(&self, history: &History, lineage: usize) -> Verdict {
        let lineage = &history.lineages[lineage];
        let Some(shown) = lineage.delivered.last().filter(|_| self.demanded) else { return Ok(()) };
        self.belongs(history, shown.id, lineage.generation, lineage.process)
    }

    /// Judges a snapshot that an application took.
    pub(crate) fn resumed(&self, history: &History, lineage: usize) -> Verdict {
        let lineage = &history.lineages[lineage];
        let belongs = |shown: &Delivered| self.belongs(history, shown.id, lineage.generation, lineage.process);
        if self.demanded { lineage.delivered.iter().try_for_each(belongs) } else { Ok(()) }
    }

    /// Judges what a process of an earlier generation delivers.
    pub(crate) fn delivered_by_zombie(&self, history: &mut History, lineage: usize, delivery: &Message<'_>) -> Verdict {
        let Ok(id) = history.resolve(delivery) else { return Ok(()) };
        let lineage = &history.lineages[lineage];
        if delivery.client.is_some() && lineage.generation < history.generation {
            history.taken_earlier.insert(id);
        }
        if !self.demanded {
            return Ok(());
        }
        self.belongs(history, id, lineage.generation, lineage.process)
    }

    fn belongs(&self, history: &History, id: Id, generation: u32, process: usize) -> Verdict {
        let message = &history.messages[id as usize];
        if message.generations.contains(&generation) {
            return Ok(());
        }
        let (name, of) = (history.name(id), message.generations.end());
        broken(format!("process {process} of generation {generation} delivered {name} of generation {of}"))
    }

    /// A member reports that it was removed.
    pub(crate) fn removed(&mut self, generation: u32, member: Member, epoch: u64) {
        self.removals.push(Removal { generation, member, epoch });
    }

    /// A first view was formed by other incarnations than those that had entered it, though these have not ended. An
    /// incarnation that a later view left out is gone as well: once the members of that view have left, its process
    /// forms the group again like any other.
    pub(crate) fn founded_again(&self, generation: u32, checkers: &Checkers) -> Verdict {
        let views = &checkers.views;
        let is_gone = |member: Member| views.has_ended(member) || views.leaves_out(member, 2);
        let alive = views.entered_first().find(|member| !is_gone(*member));
        match alive.filter(|_| self.demanded) {
            Some(member) => broken(format!(
                "generation {generation} formed another first view, though {member:?} entered the first and is alive"
            )),
            None => Ok(()),
        }
    }

    /// Judges the removals: for each there is a view of its generation without that incarnation. Where the run ends
    /// amid faults (`ends_early`), no member may have entered that view yet.
    pub(crate) fn end<'c>(&self, ends_early: bool, checkers: impl Fn(u32) -> &'c Checkers) -> Verdict {
        let excused = |removal: &&Removal| {
            let views = &checkers(removal.generation).views;
            let is_awaited = views.latest().is_some_and(|latest| latest.view.epoch.0 < removal.epoch);
            views.leaves_out(removal.member, removal.epoch) || ends_early && is_awaited
        };
        match self.removals.iter().filter(|_| self.demanded).find(|removal| !excused(removal)) {
            Some(Removal { generation, member, epoch }) => broken(format!(
                "{member:?} was removed before view {epoch}, but no view of generation {generation} leaves it out"
            )),
            None => Ok(()),
        }
    }

    /// Judges the move to another generation of a process that was in a view.
    pub(crate) fn crossed(&self, process: usize, (from, to): (u32, u32), is_reported: bool) -> Verdict {
        if !self.demanded || to > from && is_reported {
            return Ok(());
        }
        let how = if to > from { "and does not report that it missed the end of the former" } else { "an earlier one" };
        broken(format!("process {process} goes on from generation {from} to {to}, {how}"))
    }
}
