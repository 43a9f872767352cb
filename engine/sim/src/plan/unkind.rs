//! Plans as unkind as real hosts: members that live are silent for as long as members that died.

use super::draw::pick;
use super::{DetectorPlan, FaultPlan, Happening, MS, Plan, StallPlan};
use fastrand::Rng;

impl Plan {
    /// A plan of three to five members over links that stall, with pauses of up to a second: every detector suspects members
    /// that live.
    pub fn stalled(seed: u64) -> Self {
        let rng = &mut Rng::with_seed(seed ^ 0x57a1);
        let mut plan = Self::turbulent(seed);
        let members = pick(rng, &[3, 3, 3, 4, 5]);
        (plan.members, plan.sequencer) = (members, rng.u16(0..members));
        (plan.publishers, plan.window_slots) = ((0..members).collect(), vec![32; usize::from(members)]);
        plan.clock_offsets_ns.resize(plan.processes(), 1 << 40);
        plan.drift_ppm.clear();
        (plan.adversary, plan.events, plan.socket_bytes) = (false, Vec::new(), 1_000_000);
        let until_ns = pick(rng, &[1000, 2000]) * MS;
        plan.faults = FaultPlan::none(until_ns);
        plan.detector = DetectorPlan { fast: rng.bool(), ..DetectorPlan::default() };
        plan.detector.evidence_after_ns = pick(rng, &[0, 0, MS]);
        let loss_permille = pick(rng, &[2, 10, 50]);
        plan.stalls = Some(StallPlan { loss_permille, min_ns: 20 * MS, max_ns: pick(rng, &[100, 200, 500]) * MS });
        (plan.messages, plan.interval_ns) = (100, until_ns / 100 * u64::from(members));
        for _ in 0..pick(rng, &[1, 2, 4]) {
            let (at_ns, process) = (rng.u64(0..until_ns), rng.u16(0..members));
            plan.happens(at_ns, Happening::Pause, process, 0, rng.u64(100 * MS..=1000 * MS));
        }
        if rng.u8(0..3) == 0 {
            let (at_ns, process) = (rng.u64(0..until_ns), rng.u16(0..members));
            plan.happens(at_ns, Happening::Crash, process, 0, 0);
            if rng.bool() {
                plan.happens(at_ns + rng.u64(0..500 * MS), Happening::Restart, process, 0, 0);
            }
        }
        plan.draw_syncs(rng);
        plan.events.sort_by_key(|event| event.at_ns);
        plan
    }
}
