//! How a node ends: what it accepted is sent, and its acknowledgement awaited, within a bound.
//!
//! A message that was accepted and is then discarded in silence is lost without any sign of it: the application has its
//! number, and the group never had the message. A node that waits for its acknowledgement without a bound hangs where
//! the network is cut. So a node that ends goes on for a bounded time while a message may still be lost with it, and
//! then reports what is not acknowledged.
//!
//! Invariant: a node that has nothing under way ends at once.

use crate::inline::Node;
use bourdon_port::PortError;
use bourdon_protocol::Process;
use bourdon_wire::{Instant, Sequence};
use std::ops::Range;
use std::time::Duration;

/// How long a node that ends sleeps at most between two polls.
const LOOK: Duration = Duration::from_millis(1);

/// What a process has published and is not acknowledged.
pub(crate) fn unacknowledged(process: &Process) -> Range<Sequence> {
    let next = process.own_next();
    process.own_acknowledged().map_or(next..next, |acknowledged| acknowledged.min(next)..next)
}

/// Warns of messages that were accepted, and are not acknowledged now that their node ends.
#[cold]
pub(crate) fn warn(group: &str, unsent: u64, unacknowledged: u64) {
    if unsent + unacknowledged > 0 {
        tracing::warn!(
            group,
            unsent,
            unacknowledged,
            "a node ended while messages that it had accepted were not acknowledged: close it with a longer deadline"
        );
    }
}

impl Node {
    /// Polls until all that was published is acknowledged, or it is time to end. Discards what is delivered.
    fn settle(&mut self, until: Instant) -> Result<(), PortError> {
        self.flush()?;
        while self.process().owes_own() && self.clock().now() < until {
            let work_count = self.poll(|_| {})?;
            while self.poll_event().is_some() {}
            if work_count == 0 {
                self.wait(LOOK)?;
            }
        }
        Ok(())
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if self.drop_timeout_ns == 0 || std::thread::panicking() || !self.process().owes_own() {
            return;
        }
        let until = self.clock().now() + self.drop_timeout_ns;
        if let Err(error) = self.settle(until) {
            tracing::warn!(group = &*self.group, %error, "a node that ended could not send what it had accepted");
        }
        let unacknowledged = unacknowledged(self.process());
        warn(&self.group, 0, unacknowledged.end.since(unacknowledged.start));
    }
}
