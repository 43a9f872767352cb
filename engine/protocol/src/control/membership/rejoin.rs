//! Rejoin: how long a member that was left out waits before it may come back.
//!
//! A member that comes back at once over the failed link is left out again at once, and each time costs the group a
//! view change. The delay doubles each time, up to a bound, and starts over once the member has stayed for as long as
//! that bound.

use super::MembershipTiming;
use bourdon_wire::Instant;

/// The delay of one process.
#[derive(Clone, Copy, Debug)]
pub struct RejoinDelay {
    delay_ns: u64,
    not_before: Instant,
    joined_at: Option<Instant>,
}

impl Default for RejoinDelay {
    fn default() -> Self {
        Self::new()
    }
}

impl RejoinDelay {
    /// Never left out so far.
    pub fn new() -> Self {
        Self { delay_ns: 0, not_before: Instant(0), joined_at: None }
    }

    /// It is in the view.
    pub fn joined(&mut self, now: Instant) {
        self.joined_at.get_or_insert(now);
    }

    /// It was left out; returns when it may rejoin.
    pub fn left_out(&mut self, now: Instant, timing: &MembershipTiming) -> Instant {
        let stayed_ns = self.joined_at.take().map_or(0, |at| now.since(at));
        let doubled_ns = if stayed_ns >= timing.rejoin_max_ns { 0 } else { self.delay_ns.saturating_mul(2) };
        self.delay_ns = doubled_ns.max(timing.rejoin_min_ns).min(timing.rejoin_max_ns);
        assert!(self.delay_ns <= timing.rejoin_max_ns, "{self:?} is delayed for longer than {timing:?}");
        self.not_before = now + self.delay_ns;
        self.not_before
    }

    /// Whether it may rejoin.
    pub fn may_rejoin(&self, now: Instant) -> bool {
        now >= self.not_before
    }

    /// When it may rejoin.
    pub fn not_before(&self) -> Instant {
        self.not_before
    }
}
