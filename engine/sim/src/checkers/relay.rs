//! Relay: every member sends on what it receives for the first time.
//!
//! Relaying is the whole of the textbook's algorithm, but a group that flushes would not miss it. So it is judged at
//! the network: whatever a member has received of another member's stream in this view, it must have sent to all
//! itself.

use super::{Verdict, Violation};
use bourdon_protocol::Process;
use bourdon_wire::{DatagramHeader, Rank};
use std::collections::BTreeSet;

pub(super) const NAME: &str = "relay";

/// What each process has sent on: its index, then epoch, rank and number.
#[derive(Debug, Default)]
pub(super) struct Relay {
    applies: bool,
    sent_on: BTreeSet<(usize, u64, u16, u64)>,
}

impl Relay {
    pub(super) fn new(applies: bool) -> Self {
        Self { applies, ..Self::default() }
    }

    /// A process sent a datagram to all.
    pub(super) fn offered(&mut self, index: usize, datagram: &[u8]) {
        if self.applies {
            let header = DatagramHeader::of_checked(datagram);
            self.sent_on.insert((index, header.epoch().0, header.rank().0, header.number().0));
        }
    }

    /// A process has made a step, and the network has taken all it had to send.
    pub(super) fn stepped(&self, process: &Process, index: usize) -> Verdict {
        let own = process.config().rank();
        if !self.applies || process.standing() != bourdon_protocol::Standing::Member {
            return Ok(());
        }
        for member in process.view().members.iter().filter(|member| Some(member.rank) != own) {
            let Rank(rank) = member.rank;
            let Some(last) = process.received(member.rank).0.checked_sub(1) else { continue };
            let epoch = process.view().epoch.0;
            // The last datagram is enough: each was the last once.
            if !self.sent_on.contains(&(index, epoch, rank, last)) {
                let detail =
                    format!("process {index} has {rank}'s datagram {last} of epoch {epoch} and did not send it on");
                return Err(Violation::new(NAME, detail));
            }
        }
        Ok(())
    }
}
