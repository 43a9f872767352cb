//! A budget that grows with time, a token bucket: what may be sent now, below a rate and in bursts that are bounded.
//!
//! A bucket that is asked often earns less than a token each time. If each step is rounded down, a part of the rate is
//! lost, so the bucket keeps the remainder.
//!
//! Invariant: until it is full, a bucket earns what its rate makes of the time that passes, to a token.

use bourdon_wire::Instant;

/// Tokens are earned in billionths: a rate times nanoseconds.
const TOKEN: u64 = 1_000_000_000;
/// A longer pause earns no more.
pub(crate) const EARN_MAX_NS: u64 = 1_000_000_000;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Bucket {
    /// What may be spent; less than none if more was spent than there was.
    pub(crate) tokens: i64,
    /// Until when time has earned.
    pub(crate) refilled_at: Instant,
    /// What was earned beyond whole tokens, in billionths.
    fraction: u64,
}

impl Bucket {
    pub(crate) fn new(now: Instant, tokens: i64) -> Self {
        Self { tokens, refilled_at: now, fraction: 0 }
    }

    /// What so many tokens a second make of the time since the last call.
    #[inline]
    pub(crate) fn earn(&mut self, now: Instant, per_s: u64) -> u64 {
        let elapsed_ns = now.since(self.refilled_at).min(EARN_MAX_NS);
        // No bucket holds what does not fit here.
        let earned = per_s.saturating_mul(elapsed_ns).saturating_add(self.fraction);
        (self.refilled_at, self.fraction) = (now, earned % TOKEN);
        earned / TOKEN
    }

    /// Adds tokens, up to a bound.
    #[inline]
    pub(crate) fn add(&mut self, tokens: u64, most: i64) {
        self.tokens = self.tokens.saturating_add(i64::try_from(tokens).unwrap_or(i64::MAX)).min(most);
    }
}
