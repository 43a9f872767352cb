//! The node's clock: the one place where time enters.
//!
//! The protocol counts nanoseconds that never step back; people and other hosts want time of day. Asking for both on
//! every step costs twice and invites them to disagree, so time of day is the monotonic clock plus an offset measured
//! once, when the node starts.

use bourdon_wire::Instant;
use rustix::time::{ClockId, clock_gettime};

/// How often the offset is measured; the tightest reading is the least disturbed one.
const READINGS: usize = 9;

/// The source of an engine's time: the clock of the host, or a number that a measurement sets.
pub trait Time {
    /// Now; never less than before.
    fn now(&self) -> Instant;

    /// What to add to an [`Instant`] to get nanoseconds since the UNIX epoch.
    fn wall_offset_ns(&self) -> u64;
}

impl Time for Clock {
    #[inline]
    fn now(&self) -> Instant {
        Self::now(self)
    }

    fn wall_offset_ns(&self) -> u64 {
        self.wall_offset_ns
    }
}

/// A monotonic clock that knows the time of day it began at.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    wall_offset_ns: u64,
}

fn read(id: ClockId) -> u64 {
    let time = clock_gettime(id);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

impl Clock {
    /// Measures the offset between the two clocks.
    pub fn start() -> Self {
        let reading = |_| {
            let before = read(ClockId::Monotonic);
            let wall = read(ClockId::Realtime);
            let after = read(ClockId::Monotonic);
            (after - before, wall.wrapping_sub(before + (after - before) / 2))
        };
        let (_, wall_offset_ns) = (0..READINGS).map(reading).min().unwrap_or_default();
        Self { wall_offset_ns }
    }

    /// Now.
    #[inline]
    pub fn now(&self) -> Instant {
        Instant(read(ClockId::Monotonic))
    }

    /// What to add to an [`Instant`] to get nanoseconds since the UNIX epoch.
    pub fn wall_offset_ns(&self) -> u64 {
        self.wall_offset_ns
    }

    /// Now, in nanoseconds since the UNIX epoch.
    #[inline]
    pub fn wall_ns(&self) -> u64 {
        self.now().0.wrapping_add(self.wall_offset_ns)
    }
}
