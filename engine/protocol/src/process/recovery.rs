//! A member whose view has lost its majority for good founds a new instance of the group, because an operator asks for
//! it. `control/recovery.rs` has the rule.
//!
//! The process leaves its view as it does when a newer instance supersedes it (`instances.rs`): as another incarnation,
//! with its locks lost and its messages in doubt. It then enters a view of itself alone, in an instance with a fresh
//! name and a birth above every birth that it knows of. What it received and did not deliver it does not deliver any
//! more: a majority that was only cut off may deliver the same in another order, in the older instance.
//!
//! Two survivors that hear neither each other nor a majority may both do this. Their births differ, and for a while the
//! founder of the older instance gives way to the newer (`instances.rs`), as a member does that was stopped.

use super::{Process, Standing};
use crate::control::recovery::{HEARD_NS, Obstacle, Recovery, Sighting, others};
use crate::control::view_change::birth_above;
use crate::event::Event;
use crate::view::{Beginning, Member, View, bit};
use alloc::vec;
use alloc::vec::Vec;
use bourdon_wire::{DatagramNumber, Epoch, Instant, OrderNumber, Rank, Sequence};

impl Process {
    /// What [`Process::recover`] would do now, and what would be lost by it; or why it is refused.
    pub fn recovery(&mut self, now: Instant) -> Recovery {
        let view = &self.data.view;
        let mut recovery = Recovery { instance: view.instance, epoch: view.epoch, ..Recovery::default() };
        let newest = self.discovery.newest(now).filter(|(_, birth)| *birth > view.birth);
        recovery.obstacle = match (self.standing(), self.cx.config.rank()) {
            (Standing::Gone, _) | (_, None) => Some(Obstacle::Role),
            _ if self.wishes.leave.is_some() => Some(Obstacle::Role),
            (Standing::Outside | Standing::Following, _) => Some(Obstacle::Outside),
            (Standing::Member, _) if !self.state.lacks_majority() && self.reaches_quorum() => Some(Obstacle::Majority),
            _ => newest.map(|(instance, _)| Obstacle::NewerInstance(instance)),
        };
        // It may be of an incarnation or a rank that this process's view lacks.
        let later = self.trust.announcements.later(now, view.epoch, HEARD_NS);
        let later = later.map(|(rank, epoch)| Obstacle::OtherView { rank, epoch });
        recovery.obstacle = recovery.obstacle.or(later.filter(|_| self.standing() == Standing::Member));
        match (self.standing(), self.cx.config.rank()) {
            (Standing::Member, Some(own)) => self.judge_members(now, own, &mut recovery),
            (Standing::Forming, Some(own)) => {
                let all = View::forming(self.cx.config.members, self.cx.config.sequencer).bits();
                let heard_at = |rank: Rank| self.cx.presence.get(rank).filter(|peer| peer.introduced);
                let is_heard = |rank: &Rank| heard_at(*rank).is_some_and(|peer| now.since(peer.heard_at) < HEARD_NS);
                let heard = (0..self.cx.config.members).map(Rank).filter(is_heard).fold(0, |all, rank| all | bit(rank));
                let in_view = self.discovery.in_views(now, HEARD_NS) & !bit(own);
                let differing = self.cx.presence.differing(now, HEARD_NS) & !bit(own);
                recovery.judge_forming(all & !bit(own), heard & !bit(own), in_view, differing);
            }
            _ => {}
        }
        recovery
    }

    fn judge_members(&mut self, now: Instant, own: Rank, recovery: &mut Recovery) {
        let acknowledged = self.own_acknowledged();
        recovery.unacknowledged = acknowledged.map_or(0, |below| self.own_next().since(below));
        let (view, streams) = (&self.data.view, &self.data.streams);
        recovery.silent = view.bits() & !bit(own);
        let undelivered = |member: &Member| {
            let stream = &streams[member.rank.index()];
            let last = stream.window.next.0.checked_sub(1).map(DatagramNumber);
            last.and_then(|last| stream.sequence_after(last)).map_or(0, |after| after.since(stream.delivered))
        };
        recovery.undelivered = view.members.iter().map(undelivered).sum();
        let delivered: Vec<_> = streams.iter().map(|stream| stream.floor()).collect();
        let sightings = others(view, own).filter_map(|member| {
            let peer = self.cx.presence.get(member.rank).filter(|_| self.cx.presence.knows(member))?;
            Some(Sighting {
                rank: member.rank,
                silent_ns: now.since(peer.heard_at),
                epoch: peer.epoch,
                heard_from: peer.heard_from,
                delivered: self.data.stability.delivered_by(member.rank),
            })
        });
        recovery.judge(view, &delivered, sightings);
    }

    /// Founds a new instance of the group, with this process as its only member. The other members of its view that
    /// reach no majority, and all that come back later, leave theirs and join it. What the report names is lost.
    ///
    /// # Errors
    /// The obstacle, with what is known: nothing has changed.
    pub fn recover(&mut self, now: Instant) -> Result<Recovery, Recovery> {
        let recovery = self.recovery(now);
        if recovery.obstacle.is_some() {
            return Err(recovery);
        }
        self.leave_instance(now);
        self.past.forget();
        self.lose_view(); // draws another incarnation, and the name of the instance
        self.cx.event(Event::Recovered { instance: self.cx.config.instance_candidate });
        self.found_alone(now);
        self.note_resumed(now); // another survivor may do the same now, and neither has heard of the other
        Ok(recovery)
    }

    /// Enters the first view of an instance in which this process is the only member.
    pub(super) fn found_alone(&mut self, now: Instant) {
        let Some(own) = self.cx.own_member() else { return };
        let instance = self.cx.config.instance_candidate;
        let birth = birth_above(self.cx.wall(now) / 1_000_000, self.cx.config.birth_floor, own.rank);
        let view = View { epoch: Epoch(1), members: vec![own], sequencer: own.rank, instance, birth };
        let first = vec![Sequence(0); usize::from(self.cx.config.members)];
        self.enter(now, view, &Beginning { order: OrderNumber(0), first, phase: 0 });
    }
}
