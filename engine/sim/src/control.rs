//! A simulated control thread: a member's control plane beside its process.
//!
//! It runs what the node's control thread runs (`engine/node/src/threaded/control.rs`), and when it likes: what the two
//! threads hand over is on its way for a drawn time. Invariant: each way keeps the order.

use bourdon_protocol::{ControlPlane, FromControl, ToControl};
use bourdon_wire::Instant;
use std::collections::VecDeque;

/// How many times as long as the detectors wait a process may stand still, and for how long at least, as in a node.
const SILENCE_FACTOR: u64 = 4;
const SILENCE_MIN_NS: u64 = 100_000_000;
/// How many times in that the control thread looks, as in a node.
const LOOKS: u64 = 4;

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
    /// When this thread last looked at that, and since when the process counts as silent.
    looked_at: Instant,
    silent_since: Instant,
    silence_max_ns: u64,
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
    pub(crate) fn new(plane: Box<ControlPlane>, now: Instant, suspect_after_ns: u64) -> Self {
        Self {
            plane,
            mail: Way(VecDeque::new()),
            orders: Way(VecDeque::new()),
            ran_at: now,
            looked_at: now,
            silent_since: now,
            silence_max_ns: SILENCE_MIN_NS.max(SILENCE_FACTOR * suspect_after_ns),
            handed_may_hold: false,
            may_hold: false,
            continued: Vec::new(),
            wakes_at_ns: u64::MAX,
            paused_until_ns: 0,
        }
    }

    /// Looks whether the process runs. A thread that stood still itself counts a silence from now on.
    pub(crate) fn look(&mut self, now: Instant) {
        let stood_still = now.since(self.looked_at) > 2 * self.silence_max_ns / LOOKS;
        self.silent_since = if stood_still { now } else { self.silent_since.max(self.ran_at) };
        self.looked_at = now;
        self.plane.coordinator.note_silence(self.is_silent());
    }

    /// Whether the process had been silent for longer than the group waits for it when this thread looked.
    pub(crate) fn is_silent(&self) -> bool {
        self.looked_at.since(self.silent_since) > self.silence_max_ns
    }

    /// When something is due by the process's clock.
    pub(crate) fn due(&self) -> Instant {
        let look_at = self.looked_at + self.silence_max_ns / LOOKS;
        self.plane.due().min(if self.plane.coordinator.is_engaged() { look_at } else { Instant::NEVER })
    }
}
