//! Plans of members that store what they report to others: crashes and restarts of one, some, a majority and all.

use super::draw::pick;
use super::unkind::lasting_observer;
use super::{DetectorPlan, FaultPlan, Happening, LockPlan, MS, Plan};
use bourdon_protocol::{ElectionKind, MutexKind, Order, Reliability};
use fastrand::Rng;

impl Plan {
    /// A plan in which members crash, one after the other or many at once, and start again with what their disks have.
    pub fn durable(seed: u64) -> Self {
        let rng = &mut Rng::with_seed(seed ^ 0xd15c);
        let mut plan = Self::turbulent(seed);
        plan.order = pick(rng, &[Order::Unordered, Order::Fifo, Order::Causal, Order::Total, Order::Total]);
        let members = pick(rng, &[1, 2, 3, 3, 3, 4, 5]);
        (plan.members, plan.sequencer) = (members, rng.u16(0..members));
        (plan.publishers, plan.window_slots) = ((0..members).collect(), vec![32; usize::from(members)]);
        (plan.adversary, plan.events, plan.clients, plan.relay) = (false, Vec::new(), 0, false);
        (plan.reliability, plan.deadline_ns, plan.socket_bytes) = (Reliability::Durable, 0, 1_000_000);
        // Of its own, so that the other draws stay.
        plan.stored_view_bytes = pick(&mut Rng::with_seed(seed ^ 0x10f9), &[0, 0, 30_000, 200_000]);
        plan.sync_max_ns = pick(rng, &[0, 100_000, MS, 10 * MS, 10 * MS]);
        let until_ns = pick(rng, &[500 * MS, 3000 * MS]);
        let drop_permille = pick(rng, &[0, 5, 50, 200]);
        plan.faults = FaultPlan { drop_permille, ..FaultPlan::none(until_ns) };
        if rng.bool() {
            (plan.faults.duplicate_permille, plan.faults.reorder_permille) = (20, 50);
            (plan.faults.corrupt_permille, plan.faults.refuse_permille) = (5, 20);
            (plan.faults.pause_permille, plan.faults.pause_max_ns) = (pick(rng, &[0, 1]), 20 * MS);
        }
        plan.detector = DetectorPlan { fast: rng.bool(), ..DetectorPlan::default() };
        plan.observers = (0..pick(rng, &[0, 0, 1])).map(|_| lasting_observer(rng, until_ns / 2)).collect();
        plan.clock_offsets_ns.resize(plan.processes(), 1 << 40);
        plan.drift_ppm.clear();
        (plan.messages, plan.burst) = (pick(rng, &[60, 300]), pick(rng, &[1, 4, 30]));
        plan.interval_ns = (until_ns / u64::from(plan.messages) * u64::from(members)).max(1000);
        for _ in 0..rng.u8(1..6) {
            let at_ns = rng.u64(0..until_ns / 2);
            let again_ns = plan.crash_some(rng, at_ns, until_ns / 16);
            if rng.bool() {
                plan.crash_in_ballot(rng, again_ns, until_ns / 16);
            }
        }
        plan.draw_damage(seed);
        plan.draw_syncs(rng);
        if plan.order == Order::Total && rng.bool() {
            let kinds =
                (pick(rng, &[MutexKind::Replicated, MutexKind::Replicated, MutexKind::Central]), ElectionKind::Bully);
            plan.locks = Some(LockPlan::draw(rng, kinds, members, until_ns));
        }
        plan.events.sort_by_key(|event| event.at_ns);
        plan
    }

    /// A short script of three members for [`crate::enumerate_crashes`]: some messages, and what changes the view.
    pub(crate) fn crash_script(script: u64) -> Self {
        let mut plan = Self::durable(script);
        (plan.members, plan.sequencer, plan.order) = (3, script as u16 % 3, Order::Total);
        (plan.publishers, plan.window_slots) = (vec![0, 1, 2], vec![32; 3]);
        (plan.messages, plan.burst, plan.interval_ns, plan.large_permille) = (12, 2, 10 * MS, 0);
        (plan.latency_ns, plan.jitter_ns, plan.latency_back_ns, plan.sync_max_ns) = (50_000, 20_000, 0, MS);
        plan.faults = FaultPlan::none(250 * MS);
        plan.detector = DetectorPlan { fast: true, ..DetectorPlan::default() };
        plan.observers.clear();
        plan.events.clear();
        plan.stored_view_bytes = 0;
        plan.happens(240 * MS, Happening::Pause, 0, 0, 1); // where power fails, more goes wrong than this
        let crash = |plan: &mut Self, member, at_ns, down_ns| {
            plan.happens(at_ns, Happening::Crash, member, 0, 0);
            plan.happens(at_ns + down_ns, Happening::Restart, member, 0, 0);
        };
        match script {
            0 => {}                                                                      // nothing but messages
            1 => crash(&mut plan, 2, 60 * MS, 60 * MS),                                  // a member is gone for a view
            2 => (0..3).for_each(|member| crash(&mut plan, member, 60 * MS, 5 * MS)),    // all start again
            3 => (0..2).for_each(|member| crash(&mut plan, member, 60 * MS, 20 * MS)),   // a majority does
            _ => (plan.messages, plan.large_permille, plan.interval_ns) = (90, 500, MS), // segments fill
        }
        plan
    }

    /// In one plan of three, the disks of some members that crash are damaged before.
    fn draw_damage(&mut self, seed: u64) {
        let rng = &mut Rng::with_seed(seed ^ 0xda3a6e);
        if !seed.is_multiple_of(3) {
            return;
        }
        let crashes = self.events.iter().filter(|event| event.what == Happening::Crash && rng.u8(0..3) == 0);
        let damages: Vec<_> = crashes.map(|crash| (crash.at_ns.saturating_sub(1), crash.process)).collect();
        for (at_ns, member) in damages {
            self.happens(at_ns, Happening::Damage, member, 0, 0);
        }
    }

    /// The ballot that ends the view is under way: all members crash, and the one that may know the decision comes back
    /// last.
    fn crash_in_ballot(&mut self, rng: &mut Rng, at_ns: u64, longest_ns: u64) {
        let last = rng.u16(0..self.members);
        for member in 0..self.members {
            let crash_ns = at_ns + rng.u64(0..=MS);
            let down_ns = if member == last { longest_ns } else { rng.u64(0..=MS) };
            self.happens(crash_ns, Happening::Crash, member, 0, 0);
            self.happens(crash_ns + 1 + down_ns, Happening::Restart, member, 0, 0);
        }
    }

    /// Some members crash within a short time; each starts again, soon or later. Returns a time at which some may have
    /// begun to end the view.
    fn crash_some(&mut self, rng: &mut Rng, at_ns: u64, longest_ns: u64) -> u64 {
        let members = self.members;
        let first = rng.u16(0..members);
        let count = pick(rng, &[1, 1, members.div_ceil(2), members / 2 + 1, members, members]);
        let within_ns = pick(rng, &[0, 100_000, 2 * MS]);
        let mut last_ns = at_ns;
        for place in 0..count.min(members) {
            let member = (first + place) % members;
            let crash_ns = at_ns + rng.u64(0..=within_ns);
            let down_ns = pick(rng, &[0, MS, MS, longest_ns]);
            let back_ns = crash_ns + 1 + rng.u64(0..=down_ns);
            self.happens(crash_ns, Happening::Crash, member, 0, 0);
            self.happens(back_ns, Happening::Restart, member, 0, 0);
            last_ns = pick(rng, &[last_ns.max(back_ns), back_ns]);
        }
        let ballot_ns = 4 * (self.latency_ns + self.jitter_ns + self.sync_max_ns);
        last_ns + rng.u64(0..=ballot_ns)
    }
}
