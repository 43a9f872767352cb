//! A simulated control thread: a member's control plane beside its process.
//!
//! It runs what the node's control thread runs (`engine/node/src/threaded/control.rs`), and when it likes: what the two
//! threads hand over is on its way for a drawn time. Invariant: each way keeps the order.

use bourdon_protocol::{ControlPlane, FromControl, ToControl};
use bourdon_wire::Instant;
use std::collections::VecDeque;

/// From the process.
#[derive(Debug)]
pub(crate) enum Mail {
    /// For the control plane.
    Report(ToControl),
    /// For the checkers: whether the process may hold locks and lead from here on.
    MayHold(bool),
}

/// Values that are on their way, each with the time of its arrival.
#[derive(Debug)]
pub(crate) struct Way<T>(VecDeque<(u64, T)>);

#[derive(Debug)]
pub(crate) struct Control {
    pub(crate) plane: Box<ControlPlane>,
    pub(crate) mail: Way<Mail>,
    pub(crate) orders: Way<FromControl>,
    /// When the process last ran: the threads share it.
    pub(crate) ran_at: Instant,
    /// Whether the process may hold locks, as it last handed over, and as the coordinator knows.
    pub(crate) handed_may_hold: bool,
    pub(crate) may_hold: bool,
    /// Epochs that the process entered from the view before, as a member, and the coordinator has not.
    pub(crate) continued: Vec<u64>,
    /// When it is stepped next; `u64::MAX` for not at all.
    pub(crate) wakes_at_ns: u64,
    pub(crate) paused_until_ns: u64,
}

impl<T> Way<T> {
    /// Adds a value that arrives at this time, or with the value before it if that is later.
    pub(crate) fn push(&mut self, at_ns: u64, value: T) {
        let last_ns = self.0.back().map_or(0, |(at_ns, _)| *at_ns);
        self.0.push_back((at_ns.max(last_ns), value));
    }

    /// The next value that has arrived.
    pub(crate) fn pop(&mut self, now_ns: u64) -> Option<T> {
        self.0.pop_front_if(|(at_ns, _)| *at_ns <= now_ns).map(|(_, value)| value)
    }

    /// When the next value arrives.
    pub(crate) fn due(&self) -> u64 {
        self.0.front().map_or(u64::MAX, |(at_ns, _)| *at_ns)
    }
}

impl Control {
    pub(crate) fn new(plane: Box<ControlPlane>, now: Instant) -> Self {
        Self {
            plane,
            mail: Way(VecDeque::new()),
            orders: Way(VecDeque::new()),
            ran_at: now,
            handed_may_hold: false,
            may_hold: false,
            continued: Vec::new(),
            wakes_at_ns: u64::MAX,
            paused_until_ns: 0,
        }
    }

    /// When something is due by the process's clock.
    pub(crate) fn due(&self) -> Instant {
        self.plane.due().min(self.plane.look_due())
    }
}
