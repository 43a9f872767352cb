//! A member of a view: decides whether to propose a next view, and with which members.
//!
//! `control/membership.rs` gives the verdict; this file supplies what the member has heard, and acts on the verdict.

use super::Process;
use super::change::FRESH;
use super::senders::own_bit;
use super::standing::State;
use crate::control::membership::{Situation, Verdict};
use crate::control::view_change::Proposal;
use crate::event::Event;
use crate::view::bit;
use alloc::vec::Vec;
use bourdon_wire::{Instant, Rank};

impl Process {
    pub(super) fn consider(&mut self, now: Instant) {
        let verdict = self.verdict(now);
        let lacks = verdict == Verdict::NoMajority;
        if let State::Member(joined) = &mut self.state
            && core::mem::replace(&mut joined.no_majority, lacks) != lacks
        {
            self.note_suspects(now);
            self.cx.event(if lacks { Event::NoMajority } else { Event::Majority });
        }
        match verdict {
            Verdict::Content => self.consider_wishes(now),
            Verdict::Wait { until } => self.clock.look_due = until,
            Verdict::Propose { members } => self.propose(now, members, 0),
            Verdict::NoMajority => {}
        }
    }

    fn verdict(&mut self, now: Instant) -> Verdict {
        let Some(own) = self.cx.config.rank() else { return Verdict::Content };
        let view: Vec<Rank> = self.data.view.members.iter().map(|member| member.rank).collect();
        let mut heard = [0; Rank::MAX.index() + 1];
        let mut fresh = 0;
        let fresh_ns = FRESH * self.cx.config.timing.detector.suspect_after_ns;
        for member in &self.data.view.members {
            if let Some(peer) =
                self.cx.presence.get(member.rank).filter(|peer| peer.incarnation == Some(member.incarnation))
            {
                heard[member.rank.index()] = peer.heard_from;
                let current = peer.epoch == self.data.view.epoch;
                fresh |= if current && now.since(peer.heard_at) < fresh_ns { bit(member.rank) } else { 0 };
            }
        }
        let bits = self.data.view.bits();
        debug_assert!(bits & bit(own) != 0 && fresh & !bits == 0, "a verdict is of members on members");
        heard[own.index()] = bits & !self.detector.suspects();
        let evidence = self.reports().evidence;
        let timing = &self.cx.config.timing.membership;
        let joiners = self.cx.presence.joiners(now, &self.data.view, fresh_ns).len();
        let members_min = self.cx.config.members_min();
        let situation = Situation { view: &view, own, heard: &heard, fresh, evidence, joiners, members_min, timing };
        let State::Member(joined) = &mut self.state else { return Verdict::Content };
        joined.membership.update(now, &situation)
    }

    /// All members hear each other: the oldest member adds the joiners that wait and releases the leavers.
    fn consider_wishes(&mut self, now: Instant) {
        let view = &self.data.view;
        let mut leavers = self.cx.presence.leavers(view);
        if self.wishes.leave.is_some() {
            leavers |= own_bit(&self.cx.config);
        }
        if view.oldest(view.bits()) != self.cx.config.rank() {
            self.wishes.hand_over = None;
            return;
        }
        let fresh_ns = FRESH * self.cx.config.timing.detector.suspect_after_ns;
        let joiners = self.cx.presence.joiners(now, view, fresh_ns).len();
        let joins = joiners > 0;
        self.wishes.hand_over = self.wishes.hand_over.filter(|to| *to != view.sequencer && view.bits() & bit(*to) != 0);
        let bits = view.bits();
        let stay = match bits & !leavers {
            // A view is never empty. The joiners that wait come in first; then all leavers go but this member; then it
            // leaves as well.
            0 if joins => bits,
            0 if self.cx.presence.learns(now, fresh_ns) && now < self.wishes.leave_by() => {
                self.clock.look_due = (now + fresh_ns).min(self.wishes.leave_by());
                return;
            }
            0 if bits == own_bit(&self.cx.config) => return self.close(now),
            0 => own_bit(&self.cx.config),
            stay => stay,
        };
        // The configured majority stays in the view, even if some of it asks to leave.
        let remain = stay.count_ones() as usize;
        let stay = if remain + joiners.min(remain) < self.cx.config.members_min() { bits } else { stay };
        if joins || stay != bits || self.wishes.hand_over.is_some() {
            self.propose(now, stay, bits & !stay);
        }
    }

    /// The last member leaves, once all that it published has been delivered here, and the members that left before
    /// have had time to hear that they are out.
    fn close(&mut self, now: Instant) {
        let epoch = self.data.view.epoch.next();
        let due = now + self.cx.config.timing.detector.suspect_after_ns;
        let Some(leave) = &mut self.wishes.leave else { return };
        let at = *leave.closes_at.get_or_insert(due);
        if now >= at && self.unsettled.is_empty() && self.data.has_delivered_own() {
            return self.removed(now, None, epoch);
        }
        self.clock.look_due = at.max(now + self.cx.config.timing.heartbeat_min_ns);
    }

    fn propose(&mut self, now: Instant, keep: u64, leavers: u64) {
        let fresh_ns = FRESH * self.cx.config.timing.detector.suspect_after_ns;
        let joiners = self.cx.presence.joiners(now, &self.data.view, fresh_ns);
        let sequencer = self.wishes.hand_over.take();
        self.lead(now, Proposal { keep, leavers, joiners, sequencer, origin: None });
    }
}
