//! What is known of the messages that this process has published: which of them are safe without this process.
//!
//! The application must learn two things: whether a message is acknowledged, and whether the process may end without
//! losing one. Both are questions about a prefix of the own stream, so each is one number, and nothing is kept for a
//! message.

use super::{Process, Standing};
use crate::config::Reliability;
use bourdon_wire::{DatagramNumber, Sequence};

impl Process {
    /// Every message of this process below this is acknowledged: at the levels `unreliable` and `best-effort` it was
    /// given to the network; at `reliable` and `stable` every member of the view holds it; at `uniform` it was
    /// delivered here, which takes that a quorum holds it and all that comes before it. `None` while this process is no
    /// member: its messages are in doubt.
    pub fn own_acknowledged(&self) -> Option<Sequence> {
        let own = self.data.own()?;
        let outbound = self.data.outbound.as_ref()?;
        let held = match self.cx.config.reliability {
            Reliability::Unreliable | Reliability::BestEffort => outbound.packer.sent,
            Reliability::Reliable | Reliability::Stable => self.held_by_all(),
            Reliability::Uniform => return Some(self.data.streams[own.index()].delivered),
        };
        let first = self.data.beginning.first_of(own);
        let last = held.0.checked_sub(1).map(DatagramNumber);
        let after = last.and_then(|last| self.data.streams[own.index()].sequence_after(last));
        Some(after.map_or(first, |after| after.max(first)))
    }

    /// The sequence of the next message that the application publishes: those that an earlier view did not deliver, and
    /// that this process publishes again, come before it.
    pub fn own_next(&self) -> Sequence {
        let next = self.data.outbound.as_ref().map(|outbound| outbound.packer.next_sequence);
        next.unwrap_or_default() + self.unsettled.len() as u64
    }

    /// Whether this process has something to do for its messages before it may end: to send one, or to wait until every
    /// member of the view holds it.
    pub fn owes_own(&self) -> bool {
        let Some(outbound) = &self.data.outbound else { return false };
        self.standing() == Standing::Member
            && (!self.unsettled.is_empty()
                || outbound.packer.is_open()
                || self.held_by_all() < outbound.packer.open
                || self.own_acknowledged() < Some(outbound.packer.next_sequence))
    }

    /// Whether the members could go on without this process: those that are left are as many as `quorum` asks for, or
    /// this process is the last one. A process that is no member may always leave.
    pub fn may_leave(&self) -> bool {
        let members = self.data.view.members.len();
        self.standing() != Standing::Member || members == 1 || members > self.cx.config.members_min()
    }

    /// Every datagram of the own stream below this has been sent, and every other member of the view has received it.
    fn held_by_all(&self) -> DatagramNumber {
        let (Some(own), Some(outbound)) = (self.data.own(), &self.data.outbound) else { return DatagramNumber(0) };
        let others = self.data.view.members.iter().map(|member| member.rank).filter(|rank| *rank != own);
        let marks = others.map(|member| self.data.stability.acknowledged(member, own));
        marks.min().unwrap_or(DatagramNumber(u64::MAX)).min(outbound.packer.sent)
    }
}
