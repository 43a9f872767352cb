//! When messages are due that are sent at a rate, whether or not earlier ones have been answered.
//!
//! A sender that waits for a stalled system sends later than it wanted, and the stall is counted once instead of for
//! every message that it delayed (coordinated omission). So a message has a time at which it is due before anything is
//! sent, and its latency counts from then.

use serde::{Deserialize, Serialize};

const SECOND_NS: u128 = 1_000_000_000;

/// Messages that are due in bursts at even intervals, the first burst at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Schedule {
    pub(crate) rate_per_s: u64,
    pub(crate) burst: u64,
}

impl Schedule {
    /// How long after the beginning the message of this index, from 0, is due.
    #[inline]
    pub(crate) fn time_ns(&self, index: u64) -> u64 {
        let in_bursts = index - index % self.burst;
        (u128::from(in_bursts) * SECOND_NS / u128::from(self.rate_per_s)) as u64
    }

    /// How many messages are due so long after the beginning.
    #[inline]
    pub(crate) fn due(&self, elapsed_ns: u64) -> u64 {
        let whole = u128::from(elapsed_ns) * u128::from(self.rate_per_s) / SECOND_NS / u128::from(self.burst);
        (whole as u64 + 1) * self.burst
    }

    /// How many messages fall into a time of this length.
    pub(crate) fn within(&self, duration_ns: u64) -> u64 {
        (u128::from(duration_ns) * u128::from(self.rate_per_s) / SECOND_NS) as u64
    }
}

/// What a client of `load` sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shape {
    pub(crate) rate_per_s: u64,
    /// Messages that are due at once.
    pub(crate) burst: u64,
    pub(crate) warm_up_ns: u64,
    pub(crate) iterations: u32,
    pub(crate) iteration_ns: u64,
}

/// The rate of a warm-up, at most: enough to warm caches and connections, too little to fill buffers.
const WARM_UP_PER_S: u64 = 10_000;

impl Shape {
    pub(crate) fn warm_up(&self) -> Schedule {
        Schedule { rate_per_s: self.rate_per_s.min(WARM_UP_PER_S), burst: self.burst }
    }

    pub(crate) fn measured(&self) -> Schedule {
        Schedule { rate_per_s: self.rate_per_s, burst: self.burst }
    }

    /// From the first measured message to the end of the last iteration.
    pub(crate) fn measured_ns(&self) -> u64 {
        u64::from(self.iterations) * self.iteration_ns
    }
}

/// The replies to the messages that were due in one iteration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Iteration {
    pub(crate) count: u64,
    pub(crate) p50: u64,
    pub(crate) p99: u64,
    pub(crate) max: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bursts_are_due_together_at_the_rate() {
        let schedule = Schedule { rate_per_s: 1_000, burst: 10 };
        assert_eq!([0, 9, 10, 19, 20].map(|index| schedule.time_ns(index)), [0, 0, 10_000_000, 10_000_000, 20_000_000]);
        assert_eq!([0, 9_999_999, 10_000_000].map(|elapsed_ns| schedule.due(elapsed_ns)), [10, 10, 20]);
        assert_eq!(schedule.within(1_000_000_000), 1_000);
    }

    #[test]
    fn every_message_is_due_when_its_time_has_come() {
        for (rate_per_s, burst) in [(1, 1), (3, 1), (500_000, 7), (999_999_937, 3)] {
            let schedule = Schedule { rate_per_s, burst };
            for index in [0, 1, 5, 1_000_003] {
                assert!(schedule.due(schedule.time_ns(index) + 1) > index, "{schedule:?} {index}");
            }
        }
    }
}
