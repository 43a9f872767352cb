//! Plans of groups that lose their majority for good, or seem to, and are made again by hand.

use super::draw::pick;
use super::unkind::lasting_observer;
use super::{DetectorPlan, FaultPlan, Happening, MS, Plan};
use fastrand::Rng;

impl Plan {
    /// A plan in which a group loses its majority at one moment: its members crash, and some of them start again
    /// later; or they stand still for some seconds. An operator has the survivors found the group again meanwhile.
    pub fn recovered(seed: u64) -> Self {
        let rng = &mut Rng::with_seed(seed ^ 0x2ec0);
        let mut plan = Self::turbulent(seed);
        let members = pick(rng, &[2, 3, 3, 3, 4, 5]);
        (plan.members, plan.sequencer) = (members, rng.u16(0..members));
        (plan.publishers, plan.window_slots) = ((0..members).collect(), vec![32; usize::from(members)]);
        (plan.adversary, plan.events, plan.clients) = (false, Vec::new(), pick(rng, &[0, 0, 1]));
        (plan.relay, plan.socket_bytes) = (false, 1_000_000);
        let until_ns = 9000 * MS;
        plan.faults = FaultPlan { drop_permille: pick(rng, &[0, 5, 50]), ..FaultPlan::none(until_ns) };
        plan.detector = DetectorPlan { fast: rng.bool(), ..DetectorPlan::default() };
        plan.detector.evidence_after_ns = pick(rng, &[0, MS]);
        plan.observers = (0..pick(rng, &[0, 1, 2])).map(|_| lasting_observer(rng, until_ns / 2)).collect();
        plan.observers.sort_by_key(|observer| observer.joins_at_ns);
        plan.clock_offsets_ns.resize(plan.processes(), 1 << 40);
        plan.drift_ppm.clear();
        (plan.messages, plan.interval_ns) = (300, until_ns / 400 * u64::from(members));
        plan.lose_majority(rng);
        plan.events.sort_by_key(|event| event.at_ns);
        plan
    }

    fn lose_majority(&mut self, rng: &mut Rng) {
        let members = self.members;
        let at_ns = rng.u64(100 * MS..1500 * MS);
        let survivors = rng.u16(1..=members.div_ceil(2)); // at times half of the members, which may be a quorum
        let first = rng.u16(0..members);
        let place = |place: u16| (first + place) % members;
        let gone: Vec<_> = (survivors..members).map(place).collect();
        match rng.u8(0..3) {
            0 => {
                let for_ns = rng.u64(2500 * MS..5000 * MS);
                gone.iter().for_each(|other| self.happens(at_ns, Happening::Pause, *other, 0, for_ns));
            }
            _ => {
                for other in gone {
                    // One after the other within less than a view change takes, or all at once.
                    let crash_ns = at_ns + pick(rng, &[0, 0, 2 * MS]);
                    self.happens(crash_ns, Happening::Crash, other, 0, 0);
                    if rng.bool() {
                        self.happens(at_ns + rng.u64(MS..6000 * MS), Happening::Restart, other, 0, 0);
                    }
                }
            }
        }
        for survivor in 0..survivors {
            let tries_ns = rng.u64(0..3000 * MS);
            self.happens(at_ns + tries_ns, Happening::Recover, place(survivor), 0, 4000 * MS);
        }
    }
}
