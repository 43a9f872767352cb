//! Chang and Roberts' algorithm: the highest rank wins because only that rank completes a round of the ring.
//!
//! No member need know the candidates: the member that begins sends ELECTION with its own rank to its successor in the
//! ring. Each member forwards a higher rank, and in place of a lower rank sends its own, unless it has done so already;
//! in that case it drops the lower rank. A member to which its own rank comes back is the highest; it sends
//! COORDINATOR, which goes round once and is then known to all, so its return is the acceptance of all members.
//!
//! A single crash in the ring breaks the algorithm: the messages that the crashed member had to forward are lost. The
//! next view has another ring, and its oldest candidate begins again; so an election after a view change costs 2N to
//! 3N−1 messages. It costs 3N−1 when the member next after the highest begins: N−1 to the highest, N for its round, N
//! to announce it. Source: Chang and Roberts, An Improved Algorithm for Decentralized Extrema-Finding (CACM 1979).

use super::LinkMessages;
use crate::control::mutex::Seat;
use crate::control::perfect_link::LinkMessage;
use bourdon_wire::TopicName;
use bourdon_wire::records::link_steps::ELECTION;

/// One member's state in one election.
#[derive(Debug, Default)]
pub(crate) struct Ring {
    participates: bool,
    has_won: bool,
}

impl Ring {
    /// Sends its own rank round.
    pub(super) fn begin(&mut self, seat: &Seat, name: TopicName, messages: &mut LinkMessages) {
        if core::mem::replace(&mut self.participates, true) {
            return;
        }
        if seat.successor() == seat.own {
            self.has_won = true;
            return;
        }
        messages.push((seat.successor(), LinkMessage { rank: seat.own, ..LinkMessage::new(ELECTION, name) }));
    }

    /// Receives a rank that goes round.
    pub(super) fn on_election(
        &mut self,
        seat: &Seat,
        name: TopicName,
        message: &LinkMessage,
        stands: bool,
        messages: &mut LinkMessages,
    ) {
        if message.rank == seat.own {
            self.has_won = stands;
        } else if message.rank > seat.own || !stands {
            self.participates |= stands;
            messages.push((seat.successor(), *message));
        } else {
            self.begin(seat, name, messages);
        }
    }

    pub(super) fn has_won(&self) -> bool {
        self.has_won
    }

    /// The rank that it sent round may have been stopped on the way.
    pub(super) fn renew(&mut self) {
        self.participates = false;
    }

    /// A member leads, or a view begins with another ring.
    pub(super) fn is_over(&mut self) {
        *self = Self::default();
    }
}
