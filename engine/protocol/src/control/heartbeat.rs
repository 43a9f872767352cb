//! Heartbeats: when to say how far the own stream has come.
//!
//! The loss of a stream's last datagram shows to nobody, because nothing comes after it; so a sender that has stopped
//! says where it stopped. Soon, because until then a receiver is in the dark; then ever less often, because everybody
//! knows. A sender that never stops says so all the same now and then, because newcomers and clients find it by that. A
//! sender whose window is full asks for acknowledgements with it.

use crate::config::Timing;
use bourdon_wire::Instant;

/// While the group forms, everybody speaks up this often: soon enough that nobody waits for a newcomer.
const FORMING_NS: u64 = 20_000_000;

#[derive(Debug)]
pub(crate) struct Heartbeat {
    pub(crate) due: Instant,
    interval_ns: u64,
    last: Instant,
}

impl Heartbeat {
    pub(crate) fn new(now: Instant) -> Self {
        Self { due: now, interval_ns: FORMING_NS, last: now }
    }

    /// Something was sent: its end will have to be told.
    #[inline]
    pub(crate) fn sent(&mut self, now: Instant, timing: &Timing) {
        self.interval_ns = timing.heartbeat_min_ns;
        self.due = (now + timing.heartbeat_min_ns).min(self.last + timing.heartbeat_max_ns);
    }

    /// The window is full: ask for acknowledgements soon.
    pub(crate) fn hasten(&mut self, now: Instant, timing: &Timing) {
        self.interval_ns = timing.heartbeat_min_ns;
        self.due = self.due.min(now + timing.heartbeat_min_ns);
    }

    /// One was sent; sets the next.
    pub(crate) fn beat(&mut self, now: Instant, timing: &Timing, formed: bool) {
        let interval_ns = if formed { self.interval_ns } else { FORMING_NS.min(timing.heartbeat_max_ns) };
        (self.due, self.last) = (now + interval_ns, now);
        self.interval_ns = (2 * interval_ns).min(timing.heartbeat_max_ns);
    }
}
