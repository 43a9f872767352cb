//! Push: a peer sends regularly, and is suspected when nothing came for too long.
//!
//! Heartbeats alone would suffice, but a busy sender's heartbeats wait behind its data, and data shows as well that the
//! peer lives. So any packet that the peer itself sent counts, as long as it came by multicast: the group depends on
//! that path, and a node whose control thread still answers by unicast while its data path is stopped is of no use to
//! it.
//!
//! Invariant: never suspects within `suspect_after_ns` of a packet.

use super::{DetectorTiming, Silence};
use bourdon_wire::Instant;

/// What push knows of one peer.
#[derive(Clone, Copy, Debug)]
pub struct Push {
    silence: Silence,
}

impl Push {
    /// A peer counts as heard when it is first watched.
    pub fn new(now: Instant) -> Self {
        Self { silence: Silence::new(now) }
    }

    /// A packet came by multicast.
    #[inline]
    pub fn heard(&mut self, now: Instant) {
        self.silence = Silence::new(now);
    }

    pub(super) fn forgive(&mut self, stall_ns: u64, grace_ns: u64) {
        self.silence.forgive(stall_ns, grace_ns);
    }

    pub(super) fn silence_ns(&self, now: Instant) -> u64 {
        self.silence.ns(now)
    }

    /// The share of the time allowed that has passed.
    pub fn level(&self, now: Instant, timing: &DetectorTiming) -> f64 {
        self.silence.ns(now) as f64 / timing.suspect_after_ns.max(1) as f64
    }

    /// When it will be suspected, if nothing comes.
    pub fn deadline(&self, timing: &DetectorTiming) -> Instant {
        let deadline = self.silence.since + timing.suspect_after_ns.max(1);
        debug_assert!(self.level(deadline, timing) >= 1.0, "never suspected within the time allowed: {self:?}");
        deadline
    }
}
