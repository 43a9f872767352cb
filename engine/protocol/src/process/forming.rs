//! Before the first view: the processes that the configuration names agree on it.
//!
//! The lowest rank proposes all of them once it has heard all others, and has listened for a group that runs. A step of
//! a ballot carries the name of the instance that its proposer would found.

use super::standing::{Ending, State};
use super::{Process, Standing};
use crate::control::agreement::ToAgreement;
use crate::control::view_change::{Proposal, Step};
use crate::view::View;
use alloc::boxed::Box;
use bourdon_wire::{InstanceId, Instant, Rank};

impl Process {
    /// Whether this process may be one of those that form the first view: not if it has lost what it had stored.
    pub(super) fn may_form(&self) -> bool {
        self.cx.config.storage_damaged == 0
    }

    /// Prepares for the first view.
    pub(super) fn begin_forming(&mut self, now: Instant) {
        self.configurations.listen(now, self.cx.config.timing.heartbeat_max_ns);
        self.change_standing(State::Forming(Box::default()));
        self.begin_forming_part();
    }

    fn begin_forming_part(&mut self) {
        if let Some(own) = self.cx.own_member() {
            let view = View::forming(self.cx.config.members, self.cx.config.sequencer);
            self.control.push_part(ToAgreement::Begun { own, view });
        }
    }

    /// Before the first view the lowest rank proposes all, once it has heard all others and may form.
    pub(super) fn look_forming(&mut self, now: Instant) {
        if self.wishes.leave.is_some() {
            self.look_due = self.wishes.leave_by();
        }
        if self.cx.config.rank() == Some(Rank(0)) {
            // Two groups of one name would take nothing from each other, and confuse all that join either.
            let undecided_until = self.configurations.undecided_until(now);
            self.look_due = undecided_until.map_or(self.look_due, |until| until.min(self.look_due));
            let may_form = self.missing().next().is_none() && undecided_until.is_none();
            let (moment, proposal) = (self.moment(now), may_form.then(|| self.first_proposal(now)));
            let birth = self.cx.config.birth_floor;
            self.report_to_agreement(now, ToAgreement::LookForming { moment, birth, proposal });
        }
    }

    fn first_proposal(&self, now: Instant) -> Proposal {
        let keep = View::forming(self.cx.config.members, self.cx.config.sequencer).bits();
        assert!(keep & 1 != 0, "the lowest rank proposes the first view, with itself");
        let origin = Some((self.cx.config.instance_candidate, self.cx.wall(now) / 1_000_000));
        Proposal { keep, sequencer: Some(self.cx.config.sequencer), origin, ..Proposal::default() }
    }

    /// Another incarnation draws another name, and starts forming again if it was forming.
    pub(super) fn renew_incarnation(&mut self) {
        self.bump_incarnation();
        if let State::Forming(ending) = &mut self.state {
            **ending = Ending::default();
            self.begin_forming_part();
        }
    }

    /// No view is left to come back to: its members are gone. All processes form the first view again; a process that
    /// is in a view takes no part in that.
    pub(super) fn form_again(&mut self, now: Instant) {
        if self.cx.config.rank().is_some() && self.may_form() {
            self.lose_view();
            self.search.formed_at = now;
            self.begin_forming(now);
            self.look_due = now;
        }
    }

    /// Whether the first view may have been decided with this process in it. If so it leaves as a member, because a
    /// majority that leaves without a view change leaves the others without a quorum.
    pub(super) fn may_be_in_the_first_view(&self) -> bool {
        let ending = self.state.ending();
        self.standing() == Standing::Forming && ending.is_some_and(|ending| ending.may_have_accepted)
    }

    /// Before the first view: whether a step belongs to this forming. A proposer's steps carry its candidate, which the
    /// answers repeat, so that an answer to a ballot of an earlier forming does not count for this ballot.
    pub(super) fn is_of_this_forming(&self, candidate: InstanceId, demands: bool, step: &Step) -> bool {
        let decides = matches!(step, Step::Decide(_));
        candidate != InstanceId::NONE && (demands || decides || candidate == self.cx.config.instance_candidate)
    }
}
