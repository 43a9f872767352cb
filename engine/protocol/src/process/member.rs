//! A member of a view: reports to the agreement what it sees of the others, and acts on what the agreement makes of it.

use super::Process;
use super::senders::own_bit;
use super::standing::State;
use crate::control::agreement::{FRESH, Sight, ToAgreement};
use crate::event::Event;
use crate::view::bit;
use bourdon_wire::{Instant, Rank};

impl Process {
    /// Looks whether the view should change.
    pub(super) fn look_at_view(&mut self, now: Instant) {
        let Some(sight) = self.sight(now) else { return };
        let moment = self.moment(now);
        self.report_to_agreement(now, ToAgreement::Look(moment, sight));
    }

    fn sight(&mut self, now: Instant) -> Option<Sight> {
        let own = self.cx.config.rank()?;
        let (view, presence) = (&self.data.view, &self.cx.presence);
        let (mut heard, mut fresh) = ([0; Rank::MAX.index() + 1], 0);
        let fresh_ns = FRESH * self.cx.config.timing.detector.suspect_after_ns;
        for member in &view.members {
            if let Some(peer) = presence.get(member.rank).filter(|peer| peer.incarnation == Some(member.incarnation)) {
                heard[member.rank.index()] = peer.heard_from;
                let current = peer.epoch == view.epoch;
                fresh |= if current && now.since(peer.heard_at) < fresh_ns { bit(member.rank) } else { 0 };
            }
        }
        let bits = view.bits();
        debug_assert!(bits & bit(own) != 0 && fresh & !bits == 0, "a member sees the members of its view");
        heard[own.index()] = bits & !self.detector.suspects();
        let leaves = if self.wishes.leave.is_some() { own_bit(&self.cx.config) } else { 0 };
        let stored_bytes = self.storage.as_ref().map_or(0, |storage| storage.view_bytes());
        let mut sight = Sight {
            heard,
            fresh,
            joiners: presence.joiners(now, view, fresh_ns),
            learns: presence.learns(now, fresh_ns),
            leavers: presence.leavers(view) | leaves,
            leave_by: self.wishes.leave_by(),
            is_long: stored_bytes >= self.cx.config.limits.stored_view_bytes,
        };
        self.break_narrow_paths(now, own, &mut sight);
        Some(sight)
    }

    /// This member reaches no quorum of its view, or reaches one again.
    pub(super) fn note_majority(&mut self, now: Instant, lacks: bool) {
        if let State::Member(joined) = &mut self.state {
            joined.no_majority = lacks;
            self.note_suspects(now);
            self.cx.event(if lacks { Event::NoMajority } else { Event::Majority });
        }
    }

    /// The last member leaves, once all that it published has been delivered here, and the members that left before
    /// have had time to hear that they are out.
    pub(super) fn close(&mut self, now: Instant) {
        let (epoch, suspect_after_ns) = (self.data.view.epoch.next(), self.cx.config.timing.detector.suspect_after_ns);
        if !self.cx.presence.joiners(now, &self.data.view, FRESH * suspect_after_ns).is_empty() {
            self.look_due = now; // it has come since, and is admitted first
            return;
        }
        let due = now + suspect_after_ns;
        let Some(leave) = &mut self.wishes.leave else { return };
        let at = *leave.closes_at.get_or_insert(due);
        if now >= at && self.unsettled.is_empty() && self.data.has_delivered_own() {
            return self.removed(now, None, epoch);
        }
        self.look_due = self.look_due.min(at.max(now + self.cx.config.timing.heartbeat_min_ns));
    }
}
