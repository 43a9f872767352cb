//! Datagrams of the next view, kept until this process enters it.
//!
//! A member sends as soon as it has entered a view. The next member reads the decision and that data out of one socket,
//! in one batch; it enters the view only when the rest of the view before has been delivered to the application. If it
//! discarded the data as belonging to another view, each view would begin with requests for the whole first burst from
//! every member, though nothing was lost. So a process that knows how its view ends keeps the datagrams of the next
//! view, and receives them as soon as it has entered. Datagrams beyond the bound are discarded, and retransmitted like
//! any loss.

use super::Process;
use crate::config::Limits;
use crate::data::epoch_state::EpochState;
use alloc::vec::Vec;
use bourdon_wire::{DatagramHeader, Epoch, InstanceId, Instant};

/// The datagrams that came ahead of one view.
#[derive(Debug, Default)]
pub(super) struct Ahead {
    epoch: Epoch,
    bytes: Vec<u8>,
    /// For each datagram: where it ends in `bytes`, and when the kernel received it.
    entries: Vec<(usize, Option<u64>)>,
}

impl Ahead {
    /// The bytes kept.
    pub(super) fn held_bytes(&self) -> usize {
        self.bytes.len()
    }

    fn keep(&mut self, epoch: Epoch, datagram: &[u8], kernel_receive_ns: Option<u64>, limit_bytes: usize) -> bool {
        if self.epoch != epoch {
            *self = Self { epoch, ..Self::default() };
        }
        if self.bytes.len() + datagram.len() > limit_bytes {
            return false;
        }
        self.bytes.extend_from_slice(datagram);
        self.entries.push((self.bytes.len(), kernel_receive_ns));
        true
    }
}

/// As much as a group's sockets are sized for: one window per member.
fn limit_bytes(limits: &Limits, members: u16) -> usize {
    limits.window_bytes.saturating_mul(usize::from(members))
}

impl Process {
    /// Keeps a stream's datagram if it is of the view that this process is about to enter; returns whether it did.
    #[cold]
    pub(super) fn keep_ahead(&mut self, header: &DatagramHeader, datagram: &[u8], kernel_ns: Option<u64>) -> bool {
        let epoch = header.epoch();
        let is_over = matches!(self.data.end, EpochState::Decided(_)) || self.state.decided().is_some();
        let is_next = epoch == self.data.view.epoch.next() && is_over;
        let is_next = is_next && (header.instance() == self.data.view.instance || self.is_first_of(header.instance()));
        let limit_bytes = limit_bytes(&self.cx.config.limits, self.cx.config.members);
        is_next && self.ahead.keep(epoch, datagram, kernel_ns, limit_bytes)
    }

    /// Whether the first view of this instance is about to begin: the decided value names the instance.
    fn is_first_of(&self, instance: InstanceId) -> bool {
        let decided = self.state.decided();
        self.data.view.instance == InstanceId::NONE && decided.is_some_and(|value| value.instance == instance)
    }

    /// A view was entered: receives the datagrams that came ahead of it, and forgets those that came ahead of another.
    pub(super) fn receive_ahead(&mut self, now: Instant) {
        let ahead = core::mem::take(&mut self.ahead);
        if ahead.epoch != self.data.view.epoch {
            return;
        }
        let mut start = 0;
        debug_assert!(ahead.entries.is_sorted_by_key(|(end, _)| *end), "they stand one behind the other");
        for (end, kernel_receive_ns) in ahead.entries {
            self.on_datagram(now, &ahead.bytes[start..end], kernel_receive_ns);
            start = end;
        }
    }
}
