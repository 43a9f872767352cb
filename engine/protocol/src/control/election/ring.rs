//! Chang and Roberts' algorithm: the highest rank wins by outliving a round trip.
//!
//! Nobody need know who stands: who begins says ELECTION with its own rank to its successor in the ring. Each says a higher
//! rank on, and in place of a lower one its own, unless it has done so already: then the lower one ends there. Whose rank
//! comes back to it is the highest; it says COORDINATOR, which goes round once and is then known to all, so its own return
//! is the acceptance of everybody.
//!
//! What breaks it is one death in the ring: whatever it had to say on is lost. The next view has another ring, and the
//! oldest that stands begins anew; so an election after a view change costs 2N to 3N−1 messages: 3N−1 when one begins, next
//! after the highest: N−1 to the highest, N for its round, N to announce it.
//! Source: Chang and Roberts, An Improved Algorithm for Decentralized Extrema-Finding (CACM 1979).

use super::Letters;
use crate::control::mutex::Seat;
use crate::control::perfect_link::Letter;
use bourdon_wire::TopicName;
use bourdon_wire::records::link_steps::ELECTION;

/// One member's part in one election.
#[derive(Debug, Default)]
pub(crate) struct Ring {
    participates: bool,
    has_won: bool,
}

impl Ring {
    /// Sends its own rank round.
    pub(super) fn begin(&mut self, seat: &Seat, name: TopicName, letters: &mut Letters) {
        if core::mem::replace(&mut self.participates, true) {
            return;
        }
        if seat.successor() == seat.own {
            self.has_won = true;
            return;
        }
        letters.push((seat.successor(), Letter { rank: seat.own, ..Letter::new(ELECTION, name) }));
    }

    /// A rank comes by.
    pub(super) fn on_election(
        &mut self,
        seat: &Seat,
        name: TopicName,
        letter: &Letter,
        stands: bool,
        letters: &mut Letters,
    ) {
        if letter.rank == seat.own {
            self.has_won = stands;
        } else if letter.rank > seat.own || !stands {
            self.participates |= stands;
            letters.push((seat.successor(), *letter));
        } else {
            self.begin(seat, name, letters);
        }
    }

    pub(super) fn has_won(&self) -> bool {
        self.has_won
    }

    /// What it has sent round may have ended on its way.
    pub(super) fn renew(&mut self) {
        self.participates = false;
    }

    /// Somebody leads, or a view begins with another ring.
    pub(super) fn is_over(&mut self) {
        *self = Self::default();
    }
}
