//! Time as the protocol sees it: a number that the caller passes in.

use core::ops::Add;

/// Nanoseconds since a moment of the host's choosing; only differences mean anything. The protocol never reads a clock;
/// the caller passes the time.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct Instant(pub u64);

impl Instant {
    /// Later than anything: a timer that is not set.
    pub const NEVER: Self = Self(u64::MAX);

    /// Nanoseconds from `earlier` to this; zero when `earlier` is the later one, because clocks may be stepped.
    #[inline]
    pub const fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl Add<u64> for Instant {
    type Output = Self;

    #[inline]
    fn add(self, ns: u64) -> Self {
        Self(self.0.saturating_add(ns))
    }
}
