//! Members that lean on the detectors of another group, as the members of a channel may.

use super::draw::pick;
use super::{Happening, Kinds, MS, Plan};
use fastrand::Rng;

impl Plan {
    /// A plan of members that lean on the detectors of another group. Those find crashes, in part and late; they also
    /// suspect members that live, at one member or at all, and that group may remove a member that it suspects.
    pub fn judged(seed: u64) -> Self {
        let rng = &mut Rng::with_seed(seed ^ 0x1ead5);
        let mut plan = match rng.u8(0..4) {
            0 => Self::locks(seed, Kinds::default()),
            1 => Self::draw(seed),
            _ => Self::turbulent(seed),
        };
        (plan.detector.leaning, plan.detector.evidence_after_ns) = (true, 0);
        plan.draw_judgements_of_crashes(rng);
        for _ in 0..pick(rng, &[1, 3, 8]) {
            let (at_ns, other) = (rng.u64(0..plan.faults.until_ns), rng.u16(0..plan.members));
            let for_ns = pick(rng, &[MS, 5 * MS, 20 * MS, 100 * MS]);
            let one = rng.bool().then(|| rng.u16(0..plan.members));
            for member in (0..plan.members).filter(|member| one.is_none_or(|one| one == *member)) {
                let at_ns = at_ns + rng.u64(0..2 * MS);
                plan.judge(rng, (at_ns, for_ns), member, other);
            }
        }
        plan.events.sort_by_key(|event| event.at_ns);
        plan
    }

    /// Most other members soon hear that a member has crashed, and later that it is back.
    fn draw_judgements_of_crashes(&mut self, rng: &mut Rng) {
        let events = self.events.clone();
        for crash in events.iter().filter(|event| event.what == Happening::Crash) {
            let is_back = |event: &&super::EventPlan| {
                event.what == Happening::Restart && event.process == crash.process && event.at_ns > crash.at_ns
            };
            let back_at_ns = events.iter().find(is_back).map_or(self.faults.until_ns, |back| back.at_ns);
            let soon_ns = pick(rng, &[MS, 20 * MS, 100 * MS]);
            for member in 0..self.members {
                let (late_ns, back_ns) = (rng.u64(0..soon_ns), rng.u64(MS..50 * MS));
                let for_ns = (back_at_ns + back_ns).saturating_sub(crash.at_ns + late_ns).max(MS);
                if rng.u8(0..8) != 0 {
                    self.judge(rng, (crash.at_ns + late_ns, for_ns), member, crash.process);
                }
            }
        }
    }

    /// The detectors that a member leans on suspect another for a while, perhaps until their group removes it.
    fn judge(&mut self, rng: &mut Rng, (at_ns, for_ns): (u64, u64), member: u16, other: u16) {
        if member == other {
            return;
        }
        self.happens(at_ns, Happening::Judge, member, other.into(), for_ns);
        if rng.bool() {
            self.happens(at_ns + for_ns / 2, Happening::Unwatch, member, other.into(), 0);
        }
    }
}
