//! Flow control: how far a sender may run ahead of the slowest member.
//!
//! Without it a fast sender overruns a receiver's socket buffer and pays for each loss twice; with credits, a sender
//! that loses a credit may never send again. So the limit is absolute and computed from watermarks: the slowest
//! member's delivered mark, plus the smallest window that any member announced. A member computes its window from the
//! receive buffer that the kernel really granted. Until every member has announced its window, no datagram may be
//! opened. An observer counts where it gates (`gates.rs`); all others repair from what is retained, or skip.
//!
//! Invariants: no datagram at or beyond the limit is ever opened; the limit falls only when another observer gates.
//! Some of the window is kept back from data, so that a sequencer whose own messages fill it can still order the
//! others'.

use super::log::Log;
use super::stability::Stability;
use crate::config::{Config, Limits};
use crate::view::bit;
use alloc::vec;
use alloc::vec::Vec;
use bourdon_wire::{Address, DatagramNumber, Rank};

/// The sixteenth of the window that only order runs may use.
const RESERVE_PART: u64 = 16;
// The smallest window that a configuration allows has one datagram for order runs.
const _: () = assert!(Limits::SLOTS_MIN as u64 >= RESERVE_PART);

/// What a publisher waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeldBy {
    /// A member of the view has no room for more.
    Member(Rank),
    /// An observer that gates has no room for more.
    Observer(Address),
    /// Its own rate: the configured limit, or what observers that are paced for can bear.
    Rate,
}

#[derive(Debug)]
pub(crate) struct FlowControl {
    own: Rank,
    /// The members in the view.
    present: u64,
    /// By member: the datagrams that can be under way to it, once it has announced them.
    windows: Vec<Option<u64>>,
    /// The smallest of them, this process's own included.
    window: u64,
    /// The first datagram that may not be opened.
    pub(crate) limit: DatagramNumber,
    /// The first datagram that data may not open.
    pub(crate) data_limit: DatagramNumber,
    /// The first datagram that data may not open yet, because it would be sent too fast.
    pub(crate) paced: DatagramNumber,
    /// The receiver that sets the limit.
    slowest: Option<HeldBy>,
    /// The first datagram that some gate has no room for, and that gate's address.
    pub(crate) gate: Option<(DatagramNumber, Address)>,
    reserve: bool,
    /// A publication was refused since the window last moved.
    pub(crate) blocked: bool,
    /// The gate that a publication was refused for since it was last asked for.
    refused_for: Option<Address>,
}

impl FlowControl {
    pub(crate) fn new(own: Rank, members: usize, present: u64, window: u64, reserve: bool) -> Self {
        let limit = DatagramNumber(0);
        let mut windows = vec![None; members];
        windows[own.index()] = Some(window);
        assert!(present & bit(own) != 0, "only a member of the view publishes");
        assert!(window >= RESERVE_PART, "the configuration was checked");
        Self {
            own,
            present,
            windows,
            window,
            limit,
            data_limit: limit,
            paced: DatagramNumber(u64::MAX),
            slowest: None,
            gate: None,
            reserve,
            blocked: false,
            refused_for: None,
        }
    }

    /// A member announced how much can be under way to it.
    pub(crate) fn announce(&mut self, member: Rank, window: u64) {
        // A window too small for one message and one run would stop the group for good; no honest member has so small a
        // window.
        if self.present & bit(member) == 0 {
            return;
        }
        self.windows[member.index()] = Some(window.max(RESERVE_PART));
        self.window = self.windows.iter().flatten().copied().min().unwrap_or(RESERVE_PART);
        debug_assert!(self.window >= RESERVE_PART, "a window has room for one message and one run");
    }

    #[inline]
    pub(crate) fn window(&self) -> u64 {
        self.window
    }

    /// A publication or an order run is refused: the window is full.
    pub(crate) fn refuse(&mut self) {
        self.blocked = true;
        if let Some(HeldBy::Observer(address)) = self.slowest {
            self.refused_for = Some(address);
        }
    }

    /// What the next publication waits for, or would wait for first, where `open` is the datagram that it would open.
    pub(crate) fn held_by(&self, open: DatagramNumber) -> Option<HeldBy> {
        if open >= self.paced && open < self.data_limit { Some(HeldBy::Rate) } else { self.slowest }
    }

    /// The gate that a publication was refused for since the last call.
    pub(crate) fn take_holder(&mut self) -> Option<Address> {
        self.refused_for.take()
    }

    /// Whether less than half of the window is left, or a publication was refused.
    #[inline]
    pub(crate) fn is_half_used(&self, open: DatagramNumber) -> bool {
        self.blocked || open + self.window / 2 >= self.data_limit
    }

    /// Recomputes the limits; `own_floor` is the oldest own datagram not delivered here or not sent.
    pub(crate) fn update(&mut self, stability: &Stability, own_floor: DatagramNumber, log: &Log) {
        let unknown = |(member, window): (usize, &Option<u64>)| window.is_none() && self.present & (1 << member) != 0;
        if self.windows.iter().enumerate().any(unknown) {
            return;
        }
        let window = self.window;
        let capacity_limit = own_floor + log.capacity();
        let (mut limit, mut slowest) = match stability.min_delivered(self.own) {
            None => (capacity_limit, None),
            Some((mark, rank)) => {
                let received = stability.min_received(self.own).unwrap_or(mark);
                (capacity_limit.min(mark + window).min(received + log.capacity()), Some(HeldBy::Member(rank)))
            }
        };
        if let Some((gate, address)) = self.gate.filter(|(gate, _)| *gate < limit) {
            (limit, slowest) = (gate, Some(HeldBy::Observer(address)));
        }
        if limit > self.limit {
            self.blocked = false;
        }
        let reserved = if self.reserve { window / RESERVE_PART } else { 0 };
        self.limit = self.limit.max(limit);
        self.data_limit = DatagramNumber(self.limit.0.saturating_sub(reserved));
        debug_assert!(self.data_limit <= self.limit, "order runs may go further than data");
        self.slowest = slowest;
    }

    /// Another observer gates: the limit falls to where it has room, but not below what is open already.
    pub(crate) fn lower(&mut self, opened: DatagramNumber) {
        if let Some((gate, _)) = self.gate {
            self.limit = self.limit.min(gate.max(opened));
            self.data_limit = self.data_limit.min(self.limit);
        }
    }

    /// For the mutation check: goes as far as the log allows when only datagrams from here on are kept.
    pub(crate) fn forget_below(&mut self, held: DatagramNumber, log: &Log) {
        self.limit = self.limit.max(held + log.capacity());
        self.data_limit = self.data_limit.max(self.limit);
    }
}

/// The datagrams of one stream that can be under way to this process: what its socket and its log can hold.
pub(crate) fn own_window(config: &Config) -> u64 {
    let limits = &config.limits;
    let log_slots = limits.slots(limits.receive_log_bytes) as u64;
    ((limits.window_bytes / limits.mtu_bytes) as u64).min(log_slots)
}
