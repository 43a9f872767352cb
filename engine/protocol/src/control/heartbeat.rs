//! Heartbeats: when a sender announces how far its stream has come.
//!
//! No receiver notices the loss of a stream's last datagram, because nothing comes after it; so a sender that has
//! nothing to send announces the end of its stream. It does so soon, because until then a receiver can't detect the
//! loss; then less and less often, because by then all receivers know the end. A sender that always has something to
//! send also sends heartbeats, because joiners, observers and clients find the group by them. A sender whose window is
//! full requests acknowledgements in its heartbeat.

use crate::config::Timing;
use bourdon_wire::Instant;

/// While the group forms, every process sends a heartbeat this often: so that a process that starts is soon heard.
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

    /// Something was sent: the end of the stream must be announced.
    #[inline]
    pub(crate) fn sent(&mut self, now: Instant, timing: &Timing) {
        debug_assert!(self.last <= now, "time does not go back: {self:?} at {now:?}");
        self.interval_ns = timing.heartbeat_min_ns;
        self.due = (now + timing.heartbeat_min_ns).min(self.last + timing.heartbeat_max_ns);
    }

    /// The window is full: the next heartbeat, which requests acknowledgements, is due soon.
    pub(crate) fn hasten(&mut self, now: Instant, timing: &Timing) {
        self.interval_ns = timing.heartbeat_min_ns;
        self.due = self.due.min(now + timing.heartbeat_min_ns);
    }

    /// What this process suspects has changed: the next heartbeat reports it at once. Where heartbeats come less often
    /// than a member confirms a suspicion, those after it repeat the report soon: the first may be lost.
    pub(crate) fn report(&mut self, now: Instant, timing: &Timing) {
        if timing.heartbeat_max_ns > timing.membership.confirm_after_ns {
            self.interval_ns = timing.heartbeat_min_ns;
        }
        self.due = now;
    }

    /// A heartbeat was sent; sets when the next is due.
    pub(crate) fn beat(&mut self, now: Instant, timing: &Timing, formed: bool) {
        let interval_ns = if formed { self.interval_ns } else { FORMING_NS.min(timing.heartbeat_max_ns) };
        debug_assert!(interval_ns > 0 && self.last <= now, "{self:?} at {now:?}");
        (self.due, self.last) = (now + interval_ns, now);
        self.interval_ns = (2 * interval_ns).min(timing.heartbeat_max_ns);
    }
}
