//! Phi accrual: how improbable a peer's silence is, given its earlier heartbeats.
//!
//! A fixed timeout knows nothing of the host it runs on. Phi does: P(a healthy gap exceeds the silence) = 10^-phi, so
//! that a threshold states how many false suspicions to expect, whatever the host. The original fits a normal
//! distribution to a window of gaps. Gaps on a loaded host are not normally distributed: one in a hundred is ten times
//! as long, which the fit makes nearly impossible. So one gap in a hundred exceeds phi 3, instead of one in a thousand.
//! Nor can a window of some hundred gaps show what happens once in a thousand: if the window contains no stall, the fit
//! expects none.
//!
//! So phi 1 to 3 are not fitted but tracked, each as the gap that one in 10, 100, 1000 gaps exceeds. A gap beyond the
//! k-th raises it by a step times 1 − 10^-k, any other lowers it by a step times 10^-k. It neither rises nor falls
//! where exactly 10^-k of the gaps exceed it; and since it stays within the range of the gaps, that is their share in
//! the long run, whatever their distribution and however it changes. Steps are relative (logarithms are tracked), so
//! that no scale need be known. Each is kept as its distance from the previous one; otherwise the noise of the first
//! would sometimes exceed the others where gaps are regular. Rising takes a few gaps, falling thousands: phi adapts at
//! once to a host that has become slow.
//!
//! Between the tracked points phi is linear; beyond phi 3 it goes on by the widest decade seen, the tail of an
//! exponential distribution. A lower bound on the deviation ensures that after a phase of perfectly regular heartbeats
//! the first late one is no failure.
//!
//! Only regular heartbeats count: data comes when the application likes. Gaps in which this process itself stalled, and
//! gaps between heartbeats that piled up meanwhile, are ignored.
//!
//! Invariants: phi grows with silence; three numbers per peer. Source: Hayashibara, Défago, Yared, Katayama (2004); the
//! tracking is Robbins and Monro (1951), its guarantee for any sequence Gibbs and Candès (2021). *Deviation:* no
//! window, no normal distribution.

use super::{DetectorTiming, Silence};
use bourdon_wire::Instant;

/// The share of healthy gaps beyond each tracked one: phi 1, 2 and 3. Phi 4 would take minutes to learn.
const SHARES: [f64; 3] = [0.1, 0.01, 0.001];
/// The same points of a normal distribution, in deviations from its mean: they define the floor on the deviation.
const NORMAL: [f64; 3] = [1.281_6, 2.326_3, 3.090_2];
/// How far a gap moves each of them, as a logarithm: the rarer the tracked gap, the more each case must count. Phi
/// adapts to gaps ten times as long within some 10 gaps; the rarest point falls by a factor e in 5,000.
const STEPS: [f64; 3] = [0.05, 0.1, 0.2];

// Each point tracked is rarer than the one before: so it lies further out and moves by a larger step.
const _: () = assert!(SHARES[0] > SHARES[1] && SHARES[1] > SHARES[2] && SHARES[2] > 0.0);
const _: () = assert!(NORMAL[0] < NORMAL[1] && NORMAL[1] < NORMAL[2]);
const _: () = assert!(STEPS[0] <= STEPS[1] && STEPS[1] <= STEPS[2]);

/// What phi knows of one peer.
#[derive(Clone, Copy, Debug)]
pub struct Phi {
    /// The logarithm of the first gap tracked, and by how much that of each other exceeds the one before.
    ln_rises: [f64; 3],
    silence: Silence,
    /// A heartbeat has come: from then on there are gaps.
    begun: bool,
}

impl Phi {
    /// Until gaps have been seen, assumes the gaps of a peer that misses one heartbeat in ten, two in a hundred, three
    /// in a thousand.
    pub fn new(now: Instant, heartbeat_ns: u64) -> Self {
        let ln_rises = [2.0 * heartbeat_ns.max(1) as f64, 3.0 / 2.0, 4.0 / 3.0].map(libm::log);
        Self { ln_rises, silence: Silence::new(now), begun: false }
    }

    /// The length of the gap that a heartbeat would end now, if there is a gap and it depends on the peer only.
    pub fn gap_ns(&self, now: Instant) -> Option<u64> {
        (self.begun && !self.silence.forgiven).then(|| self.silence.ns(now))
    }

    /// A heartbeat came; `spaced` if the time since the last heartbeat is the time between their sendings, and not
    /// chance.
    pub fn heartbeat(&mut self, now: Instant, spaced: bool) {
        if let Some(gap_ns) = self.gap_ns(now).filter(|_| spaced) {
            let ln_gap_ns = libm::log(gap_ns.max(1) as f64);
            let mut tracked = 0.0;
            for k in 0..SHARES.len() {
                tracked += self.ln_rises[k];
                let exceeds = if ln_gap_ns > tracked { 1.0 } else { 0.0 };
                let rise = self.ln_rises[k] + STEPS[k] * (exceeds - SHARES[k]);
                self.ln_rises[k] = rise.max(0.0);
            }
            debug_assert!(self.ln_rises.iter().all(|rise| rise.is_finite()), "{self:?}");
        }
        (self.silence, self.begun) = (Silence::new(now), true);
    }

    pub(super) fn forgive(&mut self, stall_ns: u64, grace_ns: u64) {
        self.silence.forgive(stall_ns, grace_ns);
    }

    /// The silences at which phi is 1, 2 and 3, rising, and how much more each further unit takes.
    fn curve_ns(&self, timing: &DetectorTiming) -> ([f64; 3], f64) {
        let deviation_ns = timing.phi_deviation_min_ns.max(1) as f64;
        let [first, second, third] = self.ln_rises;
        let mut at = [first, first + second, first + second + third].map(libm::exp);
        for k in 1..at.len() {
            at[k] = at[k].max(at[k - 1] + 1.0).max(at[0] + deviation_ns * (NORMAL[k] - NORMAL[0]));
        }
        debug_assert!(at[0] > 0.0 && at[0] < at[1] && at[1] < at[2], "phi grows with silence: {at:?}");
        (at, (at[2] - at[1]).max(at[1] - at[0]))
    }

    /// Phi of a silence that long.
    pub fn phi(&self, silence_ns: u64, timing: &DetectorTiming) -> f64 {
        let (at, decade_ns) = self.curve_ns(timing);
        let silence_ns = silence_ns as f64;
        match at.iter().filter(|at| silence_ns >= **at).count() {
            0 => silence_ns / at[0],
            k @ 1..3 => k as f64 + (silence_ns - at[k - 1]) / (at[k] - at[k - 1]),
            _ => 3.0 + (silence_ns - at[2]) / decade_ns,
        }
    }

    /// Phi as a share of the threshold.
    pub fn level(&self, now: Instant, timing: &DetectorTiming) -> f64 {
        self.phi(self.silence.ns(now), timing) / timing.phi_threshold
    }

    /// When it will be suspected, if no heartbeat comes.
    pub fn deadline(&self, timing: &DetectorTiming) -> Instant {
        let (at, decade_ns) = self.curve_ns(timing);
        let threshold = timing.phi_threshold;
        let silence_ns = match threshold as usize {
            0 => threshold * at[0],
            k @ 1..3 => at[k - 1] + (threshold - k as f64) * (at[k] - at[k - 1]),
            _ => at[2] + (threshold - 3.0) * decade_ns,
        };
        self.silence.since + libm::ceil(silence_ns) as u64
    }
}
