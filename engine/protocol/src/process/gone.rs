//! A process that has left for good.
//!
//! It may be the only process that knows the decision that ended its last view. So it answers for a while, until it has
//! heard that a quorum has gone on without it.

use super::Process;
use super::standing::{Gone, State};
use crate::data::pipeline::Pipeline;
use crate::event::Event;
use crate::view::{Member, bit};
use bourdon_wire::{Epoch, Instant};

impl Process {
    /// Leaves without a view change. If a view admits it all the same, it does not answer the members, so that they
    /// suspect it.
    pub(super) fn go(&mut self) {
        self.cx.event(Event::Left(self.data.view.epoch));
        self.data = Pipeline::idle(self.cx.config.clone(), Epoch(0));
        self.search_again(Instant(0));
        self.change_standing(State::Gone(Gone::new(None)));
    }

    /// It has left: a quorum has gone on without it, the wait is over, or it knows no decision to pass on.
    pub(super) fn part(&mut self) {
        if let State::Gone(gone) = &mut self.state
            && let Some((epoch, _)) = gone.farewell.take()
        {
            self.cx.event(Event::Left(epoch));
        }
    }

    /// A process that has left hears a member of a later view: once a quorum of the view that follows its own has been
    /// heard there, the decision is safe without it.
    pub(super) fn hear_successor(&mut self, without: Epoch, epoch: Epoch, from: Member) {
        let State::Gone(gone) = &mut self.state else { return };
        gone.successors |= bit(from.rank);
        let members = self.past.members_decided(without).filter(|_| epoch == without);
        let safe = members.is_none_or(|members| {
            let heard = |member: &&Member| gone.successors & bit(member.rank) != 0;
            2 * members.iter().filter(heard).count() > members.len()
        });
        if safe {
            self.part();
        }
    }
}
