//! The bully algorithm: the candidate with the highest rank wins.
//!
//! A member that notices that there is no leader sends ELECTION to the members of higher rank. Each of them that is
//! alive answers OK, by which it takes the election over, and sends ELECTION to the members of higher rank than its
//! own. A member that gets no answer announces itself. The textbook waits a timeout for answers, and so elects two
//! leaders if an answer is slow. Here a member waits for each member it has asked until that member answers or the next
//! view is without it: the view is the failure detector, and the same for all.
//!
//! So after a view change no member needs to ask: all know which candidates are in the view, and the highest of them
//! announces itself. An election that began in the previous view, because a member already suspected the leader, ends
//! there.
//!
//! Messages, of N members with the highest crashed: at best (the second highest notices) ELECTION 1 and COORDINATOR
//! N−2; at worst (the lowest notices) ELECTION N(N−1)/2, OK (N−1)(N−2)/2, COORDINATOR N−2. Source: Garcia-Molina,
//! Elections in a Distributed Computing System (IEEE ToC 1982).

use super::LinkMessages;
use crate::control::mutex::Seat;
use crate::control::perfect_link::LinkMessage;
use crate::view::{bit, ranks};
use bourdon_wire::records::link_steps::{ELECTION, OK};
use bourdon_wire::{Rank, TopicName};

/// One member's state in one election.
#[derive(Debug, Default)]
pub(crate) struct Bully {
    /// Bit r: rank r was asked and has not answered.
    asked: u64,
    /// Bit r: rank r has answered that it is higher and takes over.
    yields_to: u64,
    is_campaigning: bool,
}

impl Bully {
    /// Asks the candidates above this member. Once is enough.
    pub(super) fn begin(&mut self, seat: &Seat, name: TopicName, candidates: u64, messages: &mut LinkMessages) {
        if core::mem::replace(&mut self.is_campaigning, true) {
            return;
        }
        let above = candidates & seat.members & !(bit(seat.own) | bit(seat.own).wrapping_sub(1));
        self.asked = above;
        messages
            .extend(ranks(above).map(|to| (to, LinkMessage { rank: seat.own, ..LinkMessage::new(ELECTION, name) })));
    }

    /// A lower member asks; returns whether this member begins as well.
    pub(super) fn on_election(
        &mut self,
        seat: &Seat,
        (name, from): (TopicName, Rank),
        stands: bool,
        messages: &mut LinkMessages,
    ) -> bool {
        if stands && from < seat.own {
            messages.push((from, LinkMessage { rank: seat.own, ..LinkMessage::new(OK, name) }));
        }
        stands
    }

    pub(super) fn on_ok(&mut self, from: Rank) {
        assert!(from <= Rank::MAX, "{from} is no member's rank");
        self.asked &= !bit(from);
        self.yields_to |= bit(from);
    }

    /// Whether no candidate above is left to wait for. `above`: the candidates above, in this view.
    pub(super) fn has_won(&self, above: u64) -> bool {
        above == 0 && self.asked == 0 && self.yields_to == 0
    }

    /// A member is no longer a candidate.
    pub(super) fn forget(&mut self, from: Rank) {
        self.asked &= !bit(from);
        self.yields_to &= !bit(from);
    }

    /// A member leads, or a view begins, in which all announce again whether they are candidates.
    pub(super) fn is_over(&mut self) {
        *self = Self::default();
    }
}
