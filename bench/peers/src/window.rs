//! Flow control over a system that has none: a publisher waits for its slowest receiver.
//!
//! NATS disconnects a receiver that falls behind, and a ZeroMQ publisher drops what one has no room for. Either would
//! lose messages at full speed, and a rate with losses is no rate to compare. So, with `--flow gating`, receivers
//! report how many messages they have, twice a window, as applications over these systems do it, and the publisher has
//! at most one window of messages in flight.

use std::collections::HashMap;

/// Bytes of a report.
pub(crate) const REPORT_BYTES: usize = 12;

/// Messages that may be in flight: what fits in so many bytes.
fn messages(window_bytes: u32, size_bytes: u32) -> u64 {
    u64::from(window_bytes / size_bytes.max(1)).max(2)
}

/// The publisher's half.
pub(crate) struct Window {
    limit: u64,
    sent: u64,
    /// What each receiver has, by the id of its process.
    received: HashMap<u32, u64>,
    slowest: u64,
}

impl Window {
    pub(crate) fn new(window_bytes: u32, size_bytes: u32) -> Self {
        Self { limit: messages(window_bytes, size_bytes), sent: 0, received: HashMap::new(), slowest: 0 }
    }

    /// Receivers that have reported.
    pub(crate) fn receivers(&self) -> usize {
        self.received.len()
    }

    pub(crate) fn has_room(&self) -> bool {
        self.sent - self.slowest < self.limit
    }

    pub(crate) fn count_sent(&mut self) {
        self.sent += 1;
    }

    /// Takes a report; one of another length is none.
    pub(crate) fn on_report(&mut self, report: &[u8]) {
        let Ok(report) = <[u8; REPORT_BYTES]>::try_from(report) else { return };
        let (process, received) = report.split_at(4);
        let process = u32::from_le_bytes(process.try_into().expect("four bytes"));
        let received = u64::from_le_bytes(received.try_into().expect("eight bytes"));
        self.received.insert(process, received.min(self.sent));
        self.slowest = self.received.values().copied().min().unwrap_or(0);
    }
}

/// A receiver's half.
pub(crate) struct Progress {
    every: u64,
    received: u64,
    reported: u64,
}

impl Progress {
    pub(crate) fn new(window_bytes: u32, size_bytes: u32) -> Self {
        Self { every: messages(window_bytes, size_bytes) / 2, received: 0, reported: 0 }
    }

    /// Whether no message has arrived yet.
    #[cfg(feature = "nats")]
    pub(crate) fn is_empty(&self) -> bool {
        self.received == 0
    }

    /// Counts messages; a report if one is due.
    pub(crate) fn count(&mut self, messages: usize) -> Option<[u8; REPORT_BYTES]> {
        self.received += messages as u64;
        (self.received - self.reported >= self.every).then(|| self.report())
    }

    /// The report of what has been received.
    pub(crate) fn report(&mut self) -> [u8; REPORT_BYTES] {
        self.reported = self.received;
        let mut report = [0; REPORT_BYTES];
        report[..4].copy_from_slice(&std::process::id().to_le_bytes());
        report[4..].copy_from_slice(&self.received.to_le_bytes());
        report
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_publisher_is_never_more_than_a_window_ahead() {
        let (mut window, mut progress) = (Window::new(640, 64), Progress::new(640, 64));
        window.on_report(&progress.report());
        let send_all = |window: &mut Window| {
            let mut sent = 0;
            while window.has_room() {
                window.count_sent();
                sent += 1;
            }
            sent
        };
        assert_eq!((window.receivers(), send_all(&mut window)), (1, 10));
        assert_eq!(progress.count(4), None, "half a window is reported, not less");
        window.on_report(&progress.count(1).expect("half a window has arrived"));
        assert_eq!(send_all(&mut window), 5);
        window.on_report(b"not a report");
        assert!(!window.has_room());
    }
}
