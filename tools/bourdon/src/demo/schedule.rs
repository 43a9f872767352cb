//! When each record is to be sent.
//!
//! A day of recorded data has hours of silence, and a replay that starts late must not bunch up: each record gets its
//! intended time once, from the recording alone, and latency counts from it, so that a publisher that falls behind
//! can't hide it (no coordinated omission).

use super::input::Record;
use std::fmt;
use std::str::FromStr;

/// How fast records are replayed.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub(crate) enum Rate {
    /// This many times as fast as they were received.
    Times(f64),
    /// As fast as the group accepts them.
    Max,
}

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let times = match text {
            "max" => return Ok(Self::Max),
            "real" => 1.0,
            _ => text.strip_prefix('x').and_then(|n| n.parse().ok()).unwrap_or(0.0),
        };
        if times > 0.0 && times <= 1e9 {
            Ok(Self::Times(times))
        } else {
            Err("use real, xN (such as x100) or max".into())
        }
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Times(1.0) => f.write_str("real"),
            Self::Times(times) => write!(f, "x{times}"),
            Self::Max => f.write_str("max"),
        }
    }
}

/// The intended send time of every record, from the start; `None` for each at full speed.
pub(crate) struct Schedule {
    at_ns: Option<Vec<u64>>,
    /// Gaps of the recording that were longer than `max_gap_ns`.
    pub(crate) gaps_shortened: u64,
}

impl Schedule {
    pub(crate) fn new(records: &[Record], rate: Rate, max_gap_ns: u64) -> Self {
        let Rate::Times(times) = rate else { return Self { at_ns: None, gaps_shortened: 0 } };
        let (mut clock_ns, mut gaps_shortened) = (0u64, 0);
        let mut at_ns = Vec::with_capacity(records.len());
        for (index, record) in records.iter().enumerate() {
            if index > 0 && !record.snapshot {
                let gap_ns = record.at_ns.saturating_sub(records[index - 1].at_ns);
                gaps_shortened += u64::from(gap_ns > max_gap_ns);
                clock_ns += gap_ns.min(max_gap_ns);
            }
            at_ns.push((clock_ns as f64 / times) as u64);
        }
        Self { at_ns: Some(at_ns), gaps_shortened }
    }

    /// When record `index` is to be sent, from the start.
    #[inline]
    pub(crate) fn at_ns(&self, index: usize) -> Option<u64> {
        self.at_ns.as_ref().map(|at_ns| at_ns[index])
    }

    /// How long the whole schedule takes.
    pub(crate) fn length_ns(&self) -> Option<u64> {
        self.at_ns.as_ref().and_then(|at_ns| at_ns.last().copied())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(at_ns: u64, snapshot: bool) -> Record {
        Record { payload: Box::default(), at_ns, snapshot }
    }

    #[test]
    fn snapshots_burst_and_long_gaps_shrink() {
        let records = [record(0, true), record(50, true), record(5_000, false), record(5_100, false)];
        let schedule = Schedule::new(&records, Rate::Times(10.0), 1_000);
        let times: Vec<_> = (0..4).map(|i| schedule.at_ns(i).unwrap()).collect();
        assert_eq!((times, schedule.gaps_shortened), (vec![0, 0, 100, 110], 1));
    }

    #[test]
    fn rates_are_read_or_refused() {
        assert_eq!("x2.5".parse(), Ok(Rate::Times(2.5)));
        assert_eq!("real".parse(), Ok(Rate::Times(1.0)));
        assert_eq!("max".parse(), Ok(Rate::Max));
        for bad in ["", "fast", "x", "x0", "x-1", "xNaN", "5"] {
            assert!(bad.parse::<Rate>().is_err(), "{bad}");
        }
    }
}
