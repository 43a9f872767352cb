//! Pull: a peer is pinged, and suspected when it does not answer.
//!
//! A heartbeat shows that a peer can send; only an answer shows that it also receives, and by unicast, the path of
//! repairs and control. An answer must echo the random nonce of a ping not answered yet; otherwise a delayed,
//! duplicated or forged answer would count as a sign that the peer is alive.
//!
//! The clock runs only while a ping is unanswered, from the first such ping or the last answer, whichever is later: a
//! peer that was not pinged can't be late. An answer settles all earlier pings, because a lost ping must not count as
//! missed for ever.
//!
//! Invariants: one answer per ping counts; at most [`OUTSTANDING_MAX`] pings can still be answered, so an answer after
//! more than that many intervals does not count.

use super::{DetectorTiming, Silence};
use bourdon_wire::Instant;

/// Pings that can still be answered: more than are missed before suspicion in the default and the fast profile, so that
/// the late answer of a peer that comes back still counts. In the patient profile 75 are missed before suspicion: there
/// an answer counts only to one of the last 16.
pub const OUTSTANDING_MAX: usize = 16;

/// What pull knows of one peer.
#[derive(Clone, Copy, Debug)]
pub struct Pull {
    /// The nonce of ping n is at n modulo the length.
    nonces: [u64; OUTSTANDING_MAX],
    /// When ping n was sent, at the same index.
    sent_at: [Instant; OUTSTANDING_MAX],
    rtt_ns: Option<u64>,
    sent: u64,
    /// All pings below this are settled.
    settled: u64,
    silence: Silence,
    due: Instant,
}

impl Pull {
    /// The first ping is due at once.
    pub fn new(now: Instant) -> Self {
        Self {
            nonces: [0; OUTSTANDING_MAX],
            sent_at: [now; OUTSTANDING_MAX],
            rtt_ns: None,
            sent: 0,
            settled: 0,
            silence: Silence::new(now),
            due: now,
        }
    }

    /// When the next ping is due.
    pub fn due(&self) -> Instant {
        self.due
    }

    /// The nonce of the ping to be sent now, if one is due.
    pub fn ping(&mut self, now: Instant, rng: &mut fastrand::Rng, timing: &DetectorTiming) -> Option<u64> {
        if now < self.due {
            return None;
        }
        debug_assert!(self.settled <= self.sent, "only a ping that was sent is settled: {self:?}");
        if !self.waits() {
            self.silence = Silence::new(now);
        }
        let nonce = rng.u64(..);
        let slot = self.sent as usize % OUTSTANDING_MAX;
        (self.nonces[slot], self.sent_at[slot]) = (nonce, now);
        self.sent += 1;
        self.due = now + timing.ping_interval_ns.max(1);
        Some(nonce)
    }

    /// Receives an answer; returns whether it answers a ping.
    pub fn pong(&mut self, now: Instant, nonce: u64) -> bool {
        let first = self.settled.max(self.sent.saturating_sub(OUTSTANDING_MAX as u64));
        let Some(ping) = (first..self.sent).find(|n| self.nonces[*n as usize % OUTSTANDING_MAX] == nonce) else {
            return false;
        };
        debug_assert!(ping >= self.settled && self.sent - ping <= OUTSTANDING_MAX as u64, "{ping} of {self:?}");
        self.settled = ping + 1;
        self.silence = Silence::new(now);
        let rtt_ns = now.since(self.sent_at[ping as usize % OUTSTANDING_MAX]);
        self.rtt_ns = Some(self.rtt_ns.map_or(rtt_ns, |before| before - before / 8 + rtt_ns / 8));
        true
    }

    /// The round trip to the peer, smoothed as in RFC 6298; none before the first answer.
    pub fn rtt_ns(&self) -> Option<u64> {
        self.rtt_ns
    }

    fn waits(&self) -> bool {
        self.settled < self.sent
    }

    pub(super) fn forgive(&mut self, stall_ns: u64, grace_ns: u64) {
        self.silence.forgive(stall_ns, grace_ns);
    }

    /// The share of the time allowed that has passed without an answer.
    pub fn level(&self, now: Instant, timing: &DetectorTiming) -> f64 {
        if !self.waits() {
            return 0.0;
        }
        self.silence.ns(now) as f64 / timing.pull_after_ns.max(1) as f64
    }

    /// When it will be suspected, if no answer comes.
    pub fn deadline(&self, timing: &DetectorTiming) -> Instant {
        if !self.waits() {
            return Instant::NEVER;
        }
        self.silence.since + timing.pull_after_ns.max(1)
    }
}
