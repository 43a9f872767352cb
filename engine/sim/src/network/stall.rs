//! Links that stall as TCP does under loss: everything arrives, in order, and hundreds of milliseconds late.
//!
//! A lost datagram is gone and the next one arrives; a lost segment holds up everything behind it until it is
//! retransmitted. Detectors that were tried with lost datagrams only have never seen a live member silent for as long
//! as a dead one.
//!
//! Invariant: what is sent on a link arrives once, in the order in which it was sent.

use super::hits;
use crate::plan::StallPlan;
use fastrand::Rng;

#[derive(Debug)]
pub(super) struct Stalls {
    plan: StallPlan,
    rng: Rng,
    /// By sender, then receiver: until when nothing arrives.
    until_ns: Vec<Vec<u64>>,
}

impl Stalls {
    pub(super) fn new(plan: &StallPlan, ends: usize, seed: u64) -> Self {
        Self { plan: *plan, rng: Rng::with_seed(seed ^ 0x57a11), until_ns: vec![vec![0; ends]; ends] }
    }

    /// No segment is lost any more; what is held up arrives when it would have.
    pub(super) fn freeze(&mut self) {
        self.plan.loss_permille = 0;
    }

    /// When a segment arrives that would arrive at `at_ns` on a link without loss; and whether it is held up.
    pub(super) fn arrival_ns(&mut self, (from, to): (usize, usize), at_ns: u64) -> (u64, bool) {
        let until_ns = &mut self.until_ns[from][to];
        if hits(&mut self.rng, self.plan.loss_permille) {
            let stall_ns = self.rng.u64(self.plan.min_ns..=self.plan.max_ns.max(self.plan.min_ns));
            // It is retransmitted that long after it was sent, whatever else is held up.
            *until_ns = (*until_ns).max(at_ns + stall_ns);
        }
        (at_ns.max(*until_ns), *until_ns > at_ns)
    }
}
