//! What a search may use: it gives up after a time, and before the machine runs out of memory.

use std::fs;
use std::time::{Duration, Instant};

/// The part of the free memory that a search takes unless it is given a bound, in percent: tables that grow copy
/// themselves, and other programs run beside it.
const MEMORY_SHARE_PERCENT: u64 = 70;

/// The bounds of one search.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    /// When it ends.
    pub until: Instant,
    /// The resident memory at which it ends; none where the system does not report it.
    pub memory_mib: Option<u64>,
}

/// What a search used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spent {
    /// Its time.
    Time,
    /// Its memory.
    Memory,
}

impl Spent {
    /// As a report names it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Time => "time",
            Self::Memory => "memory",
        }
    }
}

impl Budget {
    /// From now on so long, within the memory that is free now.
    pub fn of(time: Duration) -> Self {
        let free_mib = kib("/proc/meminfo", "MemAvailable:").map(|kib| kib / 1024);
        Self { until: Instant::now() + time, memory_mib: free_mib.map(|mib| mib * MEMORY_SHARE_PERCENT / 100) }
    }

    /// What is used up, if anything is.
    pub fn spent(&self) -> Option<Spent> {
        let is_large = |bound_mib| kib("/proc/self/status", "VmRSS:").is_some_and(|kib| kib / 1024 >= bound_mib);
        if Instant::now() >= self.until {
            Some(Spent::Time)
        } else if self.memory_mib.is_some_and(is_large) {
            Some(Spent::Memory)
        } else {
            None
        }
    }
}

/// A figure of the system's own files, in KiB.
fn kib(file: &str, name: &str) -> Option<u64> {
    let text = fs::read_to_string(file).ok()?;
    text.lines().find_map(|line| line.strip_prefix(name)?.split_whitespace().next()?.parse().ok())
}
