//! A member's own stream: the packer, the flow limit, the sequencer's order runs, and when this member sends rows.

use super::DATA_CHANNEL;
use super::flow::{FlowControl, own_window};
use super::pack::Packer;
use super::sequencer::Sequencer;
use crate::config::{Config, Order, Reliability};
use crate::view::{Beginning, View};
use bourdon_wire::{DatagramHeader, Instant, Rank};

/// When to acknowledge.
#[derive(Debug)]
pub(crate) struct Ack {
    pub(crate) due: Instant,
    /// When the first datagram came that is not yet acknowledged.
    since: Instant,
    datagrams: u64,
}

/// A member's sending half.
#[derive(Debug)]
pub(crate) struct OwnStream {
    pub(crate) rank: Rank,
    pub(crate) packer: Packer,
    pub(crate) flow: FlowControl,
    pub(crate) sequencer: Option<Sequencer>,
    pub(crate) ack: Ack,
}

impl OwnStream {
    /// Of a member of the view.
    pub(super) fn new(config: &Config, view: &View, rank: Rank, beginning: &Beginning) -> Self {
        assert!(view.incarnation(rank).is_some(), "{rank} is no member of {view:?}");
        let (limits, members) = (&config.limits, usize::from(config.members));
        let header =
            DatagramHeader::new(config.group, view.instance, view.epoch, rank, config.incarnation, DATA_CHANNEL);
        let header = header.in_phase(beginning.phase);
        let sequences = config.order == Order::Total && rank == view.sequencer;
        let own_slots = limits.slots(limits.log_bytes) as u64;
        Self {
            rank,
            packer: Packer::new(header, beginning.first_of(rank), beginning.order),
            flow: FlowControl::new(rank, members, view.bits(), own_window(config).min(own_slots), sequences),
            sequencer: sequences.then(|| Sequencer::new(rank, &beginning.first)),
            ack: Ack::new(),
        }
    }
}

impl OwnStream {
    /// Whether no datagram at or beyond the limit is open.
    pub(super) fn keeps_window(&self) -> bool {
        !self.packer.is_open() || self.packer.open < self.flow.limit
    }
}

impl Ack {
    /// Nothing to acknowledge yet.
    pub(crate) fn new() -> Self {
        Self { due: Instant::NEVER, since: Instant::NEVER, datagrams: 0 }
    }

    #[inline]
    pub(super) fn received(&mut self, now: Instant, config: &Config, window: u64) {
        self.counted(now, config, window);
        // At `durable` a row has something to state once the datagram is stored.
        if config.reliability.waits_for_others() && config.reliability != Reliability::Durable {
            self.due = now;
        }
    }

    /// As [`Ack::received`], where no message waits for the acknowledgement.
    #[inline]
    pub(super) fn counted(&mut self, now: Instant, config: &Config, window: u64) {
        self.delivered(now, config);
        self.datagrams += 1;
        if self.datagrams >= window / 8 {
            self.due = now;
        }
    }

    #[inline]
    pub(super) fn delivered(&mut self, now: Instant, config: &Config) {
        if self.due == Instant::NEVER {
            (self.since, self.due) = (now, now + config.timing.ack_delay_ns);
        }
        // Where only a row is due at once, nothing waits for it.
        debug_assert!(self.since <= now || self.since == Instant::NEVER, "{self:?} at {now:?}");
    }

    /// Whether an acknowledgement is worth sending along with what is being sent.
    #[inline]
    pub(crate) fn is_worthwhile(&self, now: Instant, config: &Config) -> bool {
        self.due != Instant::NEVER && now.since(self.since) >= config.timing.ack_delay_ns / 2
    }

    pub(crate) fn sent(&mut self) {
        (self.due, self.since, self.datagrams) = (Instant::NEVER, Instant::NEVER, 0);
    }
}
