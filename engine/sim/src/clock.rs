//! One process's clock: it begins anywhere, runs too fast or too slow, and jumps; it never falls.

use bourdon_wire::Instant;

const MILLION: i128 = 1_000_000;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    /// At this time of the world,
    world_ns: u64,
    /// the clock read this.
    own_ns: u64,
    drift_ppm: i32,
}

impl Clock {
    pub(crate) fn new(offset_ns: u64, drift_ppm: i32) -> Self {
        Self { world_ns: 0, own_ns: offset_ns, drift_ppm }
    }

    fn rate(&self) -> i128 {
        MILLION + i128::from(self.drift_ppm)
    }

    /// What it reads at a time of the world.
    pub(crate) fn read(&self, world_ns: u64) -> Instant {
        let passed = i128::from(world_ns.saturating_sub(self.world_ns));
        Instant(self.own_ns + (passed * self.rate() / MILLION) as u64)
    }

    /// When it will read at least this.
    pub(crate) fn when(&self, own: Instant) -> u64 {
        if own == Instant::NEVER {
            return u64::MAX;
        }
        let left = i128::from(own.0.saturating_sub(self.own_ns));
        let world = i128::from(self.world_ns) + (left * MILLION + self.rate() - 1) / self.rate();
        u64::try_from(world).unwrap_or(u64::MAX)
    }

    /// Jumps forward.
    pub(crate) fn jump(&mut self, world_ns: u64, by_ns: u64) {
        (self.own_ns, self.world_ns) = (self.read(world_ns).0 + by_ns, world_ns);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_is_reached_at_its_time() {
        for drift_ppm in [-500, 0, 500] {
            let mut clock = Clock::new(1 << 62, drift_ppm);
            clock.jump(1_000_000, 7_000);
            for left in [0, 1, 999, 123_456_789] {
                let deadline = Instant(clock.read(1_000_000).0 + left);
                let when = clock.when(deadline);
                assert!(clock.read(when) >= deadline && (left == 0 || clock.read(when - 2) < deadline), "{left}");
            }
        }
        assert_eq!(Clock::new(0, 3).when(Instant::NEVER), u64::MAX);
    }
}
