//! Before the first view: the processes that the configuration names agree on it.
//!
//! The lowest rank proposes all of them once it has heard all others. A step of a ballot carries the name of the
//! instance that its proposer would found.

use super::change::own_driver;
use super::standing::{Forming, State};
use super::{Process, Standing};
use crate::control::view_change::driver::Driver;
use crate::control::view_change::{Proposal, Step};
use crate::view::View;
use alloc::boxed::Box;
use bourdon_wire::{InstanceId, Instant, Rank};

impl Process {
    /// Prepares for the first view.
    pub(super) fn begin_forming(&mut self) {
        if let Some(driver) = self.forming_driver() {
            self.state = State::Forming(Box::new(Forming { driver, candidate: InstanceId::NONE }));
        }
    }

    fn forming_driver(&self) -> Option<Driver> {
        let view = View::forming(self.cx.config.members, self.cx.config.sequencer);
        Some(own_driver(&self.cx.config, self.cx.own_member()?, view))
    }

    pub(super) fn lead_forming(&mut self, now: Instant) {
        let keep = View::forming(self.cx.config.members, self.cx.config.sequencer).bits();
        assert!(keep & 1 != 0, "the lowest rank proposes the first view, with itself");
        let origin = Some((self.cx.config.instance_candidate, self.cx.wall(now) / 1_000_000));
        if let State::Forming(forming) = &mut self.state {
            forming.candidate = self.cx.config.instance_candidate;
            forming.driver.note_birth(self.cx.config.birth_floor);
        }
        self.lead(now, Proposal { keep, sequencer: Some(self.cx.config.sequencer), origin, ..Proposal::default() });
    }

    /// Before the first view the lowest rank proposes, once it has heard all others.
    pub(super) fn tend_forming(&mut self, now: Instant, repeats: bool) {
        if self.wishes.leave.is_some() {
            self.clock.look_due = self.wishes.leave_by();
        }
        let first = self.cx.config.rank() == Some(Rank(0));
        let Some(change) = self.state.driver() else { return };
        if !first || self.missing().next().is_some() {
            return;
        }
        match change.ballots().leads() {
            None => self.lead_forming(now),
            Some(_) => self.tend_ballot(now, repeats),
        }
    }

    /// Another incarnation draws another name, and starts forming again if it was forming.
    pub(super) fn renew_incarnation(&mut self) {
        self.bump_incarnation();
        let driver = self.forming_driver();
        if let (State::Forming(forming), Some(driver)) = (&mut self.state, driver) {
            forming.driver = driver;
        }
    }

    /// No view is left to come back to: its members are gone. All processes form the first view again; a process that
    /// is in a view takes no part in that.
    pub(super) fn form_again(&mut self, now: Instant) {
        if self.cx.config.rank().is_some() {
            self.lose_view();
            self.search.formed_at = now;
            self.begin_forming();
            self.clock.look_due = now;
        }
    }

    /// Whether the first view may have been decided with this process in it. If so it leaves as a member, because a
    /// majority that leaves without a view change leaves the others without a quorum.
    pub(super) fn may_be_in_the_first_view(&self) -> bool {
        let accepted = self.state.driver().and_then(|change| change.ballots().accepted());
        self.standing() == Standing::Forming && accepted.is_some()
    }

    /// Before the first view: whether a step belongs to this forming. A proposer's steps carry its candidate, which the
    /// answers repeat, so that an answer to a ballot of an earlier forming does not count for this ballot.
    pub(super) fn is_of_this_forming(&mut self, candidate: InstanceId, demands: bool, step: &Step) -> bool {
        if demands && let State::Forming(forming) = &mut self.state {
            forming.candidate = candidate;
            forming.driver.note_birth(self.cx.config.birth_floor);
        }
        let decides = matches!(step, Step::Decide(_));
        candidate != InstanceId::NONE && (demands || decides || candidate == self.cx.config.instance_candidate)
    }
}
