//! Plans as unkind as real hosts: live members are silent for as long as dead ones.

use super::draw::pick;
use super::{
    DetectorPlan, FaultPlan, HandOverPlan, Happening, Kinds, LockPlan, MS, ObserverPlan, Plan, ReplayPlan, RestartPlan,
    StallPlan,
};
use bourdon_protocol::{ElectionKind, MutexKind, Order, Reliability, Start};
use fastrand::Rng;

impl Plan {
    /// A plan of locks and elections whose members run their control planes beside their processes.
    pub fn apart(seed: u64) -> Self {
        Self::locks_apart(seed, Kinds::default())
    }

    /// The same with these algorithms.
    pub(crate) fn locks_apart(seed: u64, kinds: Kinds) -> Self {
        let rng = &mut Rng::with_seed(seed ^ 0xa9a27);
        let mut plan = Self::locks(seed, kinds);
        plan.hand_over = Some(hand_over(rng));
        if rng.u8(0..4) == 0 {
            plan.remove_in_turn(rng);
        }
        plan
    }

    /// The same plan with members' control planes beside their processes, unless the whole group restarts in it.
    pub(crate) fn taken_apart(mut self, seed: u64) -> Self {
        if self.restarts.is_empty() && self.hand_over.is_none() {
            self.hand_over = Some(hand_over(&mut Rng::with_seed(seed ^ 0xa9a28)));
        }
        self
    }

    /// Members are cut off in turn, for long enough to be removed and to come back while a control thread stalls.
    fn remove_in_turn(&mut self, rng: &mut Rng) {
        (self.faults, self.adversary, self.detector.fast) = (FaultPlan::none(1000 * MS), false, true);
        self.events.clear();
        for turn in 1..=12 {
            let (process, for_ns) = (rng.u16(0..self.members), rng.u64(20 * MS..60 * MS));
            self.happens(turn * 75 * MS, Happening::Partition, 0, 1 << process, for_ns);
        }
        if let Some(hand_over) = &mut self.hand_over {
            (hand_over.control_stall_permille, hand_over.stall_max_ns) = (40, 800 * MS);
        }
        if let Some(locks) = &mut self.locks {
            (locks.entries, locks.pause_ns, locks.hold_ns) = (20, 80 * MS, MS);
            locks.askers = (0..self.members).collect();
        }
    }

    /// A plan of three to five members over links that stall, with pauses of up to a second: every detector suspects
    /// live members.
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

    /// A plan in which members leave, or are removed, over links that stall, and their processes end.
    pub fn departed(seed: u64) -> Self {
        let rng = &mut Rng::with_seed(seed ^ 0xdead);
        let mut plan = Self::stalled(seed);
        plan.events.retain(|event| event.what == Happening::Pause);
        // Where nothing is lost, every member hears the decision in the end.
        plan.faults.drop_permille = pick(rng, &[0, 100, 300]);
        if plan.faults.drop_permille > 0 && rng.bool() {
            plan.stalls = None;
        }
        let last = u64::from(plan.members) - 1;
        let stays = rng.u16(0..plan.members); // any member: the lowest rank proposes, and may leave as well
        for _ in 0..pick(rng, &[1, 2, 2, 3]) {
            let at_ns = rng.u64(0..plan.faults.until_ns);
            let some = (0..rng.u64(1..=last)).map(|_| rng.u16(1..plan.members)).collect();
            let leavers: Vec<u16> = if rng.bool() { (1..plan.members).collect() } else { some };
            for after in leavers {
                let process = (stays + after) % plan.members;
                plan.happens(at_ns, Happening::Leave, process, 0, 0);
                plan.happens(at_ns + rng.u64(300 * MS..900 * MS), Happening::Restart, process, 0, 0);
            }
        }
        plan.ends_when_out = true;
        plan.events.sort_by_key(|event| event.at_ns);
        plan
    }

    /// A plan in which the whole group restarts once or twice, while datagrams from before the restart come again,
    /// members that froze resume, and observers and clients live on.
    pub fn restarted(seed: u64) -> Self {
        let rng = &mut Rng::with_seed(seed ^ 0x2e57a);
        let mut plan = Self::turbulent(seed);
        let members = pick(rng, &[3, 3, 3, 5]);
        (plan.members, plan.sequencer) = (members, rng.u16(0..members));
        (plan.publishers, plan.window_slots) = ((0..members).collect(), vec![32; usize::from(members)]);
        (plan.adversary, plan.events, plan.clients) = (false, Vec::new(), pick(rng, &[0, 1, 2]));
        let until_ns = pick(rng, &[400, 800]) * MS;
        plan.faults = FaultPlan { drop_permille: pick(rng, &[0, 5, 50]), ..FaultPlan::none(until_ns) };
        plan.detector.evidence_after_ns = pick(rng, &[0, MS]);
        plan.observers = (0..pick(rng, &[0, 1, 2])).map(|_| lasting_observer(rng, until_ns / 2)).collect();
        plan.observers.sort_by_key(|observer| observer.joins_at_ns);
        plan.clock_offsets_ns.resize(plan.processes(), 1 << 40);
        plan.drift_ppm.clear();
        (plan.messages, plan.interval_ns) = (200, until_ns / 200 * u64::from(members));
        for restart in 0..pick(rng, &[1, 1, 2]) {
            let loses_files = rng.u8(0..4) == 0;
            let all = (1u64 << members) - 1;
            let majority = (1u64 << (members / 2 + 1)) - 1;
            plan.restarts.push(RestartPlan {
                at_ns: (restart + 1) * until_ns / 4 + rng.u64(0..until_ns / 8),
                down_ns: rng.u64(MS..20 * MS),
                frozen: pick(rng, &[0, 1, majority, majority << (members / 2), all]),
                resume_after_ns: rng.u64(0..until_ns / 4),
                loses_files,
                // Either the files or the clock must give what came before.
                clock_back_ms: if loses_files { 0 } else { pick(rng, &[0, 0, 60_000]) },
            });
        }
        if plan.clients > 0 && rng.bool() {
            plan.wander_between_groups(rng);
        }
        let interval_ns = pick(rng, &[MS / 2, 5 * MS, 50 * MS]);
        plan.replay = Some(ReplayPlan { interval_ns, own_permille: pick(rng, &[0, 300]) });
        if rng.u8(0..3) == 0 {
            let kinds = (pick(rng, &MutexKind::ALL), pick(rng, &ElectionKind::ALL));
            if kinds.0 == MutexKind::Replicated {
                plan.order = Order::Total;
            }
            plan.locks = Some(LockPlan::draw(rng, kinds, members, until_ns));
        }
        plan
    }

    /// Clients hear nothing of today's members for longer than they wait for an answer, again and again, while a
    /// majority of an earlier group has resumed: they publish through members of two groups in turn.
    fn wander_between_groups(&mut self, rng: &mut Rng) {
        self.faults.until_ns = 2000 * MS;
        (self.messages, self.interval_ns, self.client_interval_ns) = (400, 4 * MS, 10 * MS);
        self.order = pick(rng, &[Order::Total, Order::Causal]);
        // The earlier group does not hear the later one, which would take it in.
        let first_frozen = self.processes() as u16 + self.clients;
        for (turn, mut restart) in std::mem::take(&mut self.restarts).into_iter().enumerate() {
            (restart.frozen, restart.resume_after_ns) = ((1 << self.members) - 1, rng.u64(0..100 * MS));
            let (at_ns, for_ns) = (restart.at_ns + restart.down_ns + MS, self.faults.until_ns);
            for pair in 0..self.members * self.members {
                let frozen = first_frozen + turn as u16 * self.members + pair / self.members;
                self.happens(at_ns, Happening::Cut, frozen, (pair % self.members).into(), for_ns);
            }
            self.restarts.push(restart);
        }
        for client in 0..self.clients {
            let end = self.processes() as u16 + client;
            for _ in 0..pick(rng, &[2, 4, 8]) {
                let (at_ns, for_ns) = (rng.u64(0..self.faults.until_ns), rng.u64(210 * MS..500 * MS));
                (0..self.members).for_each(|member| self.happens(at_ns, Happening::Cut, end, member.into(), for_ns));
            }
        }
        self.events.sort_by_key(|event| event.at_ns);
    }

    /// A plan in which members are lost in quick succession under load, while observers lose datagrams, lag behind and
    /// are paused.
    pub fn observed(seed: u64) -> Self {
        let rng = &mut Rng::with_seed(seed ^ 0x0b5e);
        let mut plan = Self::turbulent(seed);
        (plan.members, plan.sequencer, plan.adversary, plan.events) = (5, rng.u16(0..5), false, Vec::new());
        (plan.publishers, plan.window_slots) = (vec![0, 1, 2], vec![64; 5]);
        (plan.log_slots, plan.receive_log_slots, plan.socket_bytes) = (256, 256, 1_000_000);
        let until_ns = 300 * MS;
        let (drop_permille, reorder_permille) = (pick(rng, &[20, 50]), pick(rng, &[0, 40]));
        plan.faults = FaultPlan { drop_permille, reorder_permille, ..FaultPlan::none(until_ns) };
        plan.detector = DetectorPlan { fast: true, evidence_after_ns: pick(rng, &[0, MS]), ..DetectorPlan::default() };
        let live = ObserverPlan { joins_at_ns: 0, start: Start::Live, receive_log_slots: 256 };
        plan.observers = vec![live; 3];
        plan.clock_offsets_ns.resize(plan.processes(), 1 << 40);
        plan.drift_ppm.clear();
        (plan.messages, plan.burst, plan.interval_ns) = (400, 4, MS);
        let at_ns = rng.u64(20 * MS..120 * MS);
        let first = rng.u16(0..5);
        let second = (first + rng.u16(1..5)) % 5;
        for (process, at_ns) in [(first, at_ns), (second, at_ns + rng.u64(0..40 * MS))] {
            plan.happens(at_ns, Happening::Crash, process, 0, 0);
            if rng.bool() {
                plan.happens(at_ns + rng.u64(MS..100 * MS), Happening::Restart, process, 0, 0);
            }
        }
        for observer in 5..8 {
            let (at_ns, for_ns) = (at_ns + rng.u64(0..20 * MS), rng.u64(MS..60 * MS));
            match rng.u8(0..3) {
                0 => plan.happens(at_ns, Happening::Pause, observer, 0, for_ns),
                1 => (0..5).for_each(|member| plan.happens(at_ns, Happening::Cut, observer, member, for_ns)),
                _ => {}
            }
        }
        plan.events.sort_by_key(|event| event.at_ns);
        plan
    }

    /// A plan in which the hosts of members and observers get other addresses in the midst of all else, several at once
    /// at times.
    pub fn moved(seed: u64) -> Self {
        let rng = &mut Rng::with_seed(seed ^ 0x30fe);
        let mut plan = if rng.bool() { Self::turbulent(seed) } else { Self::draw(seed) };
        let processes = plan.members + plan.observers.len() as u16;
        for number in 0..pick(rng, &[1, 2, 4, 8]) {
            let (at_ns, process) = (rng.u64(0..plan.faults.until_ns), rng.u16(0..processes));
            plan.happens(at_ns, Happening::Move, process, number, 0);
            if rng.u8(0..4) == 0 {
                (0..processes).for_each(|other| plan.happens(at_ns, Happening::Move, other, number, 0));
            }
        }
        plan.events.sort_by_key(|event| event.at_ns);
        plan
    }

    /// A plan in which publishers wait for observers, which are paused and cut off, and some of which end.
    pub fn gated(seed: u64) -> Self {
        let rng = &mut Rng::with_seed(seed ^ 0x6a7e);
        let mut plan = Self::turbulent(seed);
        let members = pick(rng, &[1, 1, 2, 3]);
        (plan.members, plan.sequencer, plan.clients) = (members, rng.u16(0..members), 0);
        (plan.publishers, plan.window_slots) = ((0..members).collect(), vec![32; usize::from(members)]);
        (plan.adversary, plan.events, plan.relay, plan.deadline_ns) = (false, Vec::new(), false, 0);
        plan.reliability = pick(rng, &[Reliability::Reliable, Reliability::Uniform]);
        (plan.log_slots, plan.receive_log_slots, plan.socket_bytes) = (256, 64, 200_000);
        let until_ns = 800 * MS;
        let drop_permille = pick(rng, &[0, 10, 50]);
        plan.faults = FaultPlan { drop_permille, ..FaultPlan::none(until_ns) };
        plan.detector = DetectorPlan { patient: true, ..DetectorPlan::default() };
        (plan.messages, plan.burst, plan.interval_ns) = (2_000, 60, 5 * MS);
        plan.large_permille = pick(rng, &[50, 500]); // more than a window before an observer starts again
        let observers = pick(rng, &[1, 2, 3]);
        plan.observers = vec![ObserverPlan { joins_at_ns: 0, start: Start::Oldest, receive_log_slots: 64 }; observers];
        plan.clock_offsets_ns.resize(plan.processes(), 1 << 40);
        plan.drift_ppm.clear();
        plan.gating_timeout_ns = 250 * MS;
        for observer in members..members + observers as u16 {
            let at_ns = rng.u64(50 * MS..500 * MS);
            match rng.u8(0..5) {
                0 => {
                    plan.happens(at_ns, Happening::Crash, observer, 0, 0);
                    if rng.bool() {
                        let again_ns = at_ns + rng.u64(MS..300 * MS);
                        plan.happens(again_ns, Happening::Restart, observer, 0, 0);
                    }
                }
                1 => plan.happens(at_ns, Happening::Pause, observer, 0, rng.u64(MS..1000 * MS)),
                2 => plan.happens(at_ns, Happening::Cut, observer, 0, rng.u64(MS..1000 * MS)),
                // It starts again at once, gets no data, and ends far behind.
                3 => {
                    let (again_ns, ends_ns) = (at_ns + rng.u64(MS..10 * MS), at_ns + rng.u64(50 * MS..200 * MS));
                    plan.happens(at_ns, Happening::Crash, observer, 0, 0);
                    plan.happens(at_ns, Happening::Narrow, observer, 300, ends_ns - at_ns);
                    plan.happens(again_ns, Happening::Restart, observer, 0, 0);
                    plan.happens(ends_ns, Happening::Crash, observer, 0, 0);
                }
                _ => {}
            }
        }
        if members == 3 && rng.bool() {
            plan.happens(rng.u64(100 * MS..400 * MS), Happening::Crash, rng.u16(0..3), 0, 0);
        }
        plan.events.sort_by_key(|event| event.at_ns);
        plan
    }

    /// A plan in which publishers send more slowly for observers that lose much: their sockets are small, their links
    /// may bear less than is offered, and they are paused and cut off.
    pub fn paced(seed: u64) -> Self {
        let rng = &mut Rng::with_seed(seed ^ 0x9ace);
        let mut plan = Self::gated(seed);
        (plan.gating_timeout_ns, plan.paced) = (0, true);
        plan.socket_bytes = pick(rng, &[10_000, 20_000, 40_000]);
        plan.faults.drop_permille = pick(rng, &[0, 50, 200]);
        plan.faults.observers_bear_bytes_per_s = pick(rng, &[0, 200_000, 1_000_000, 3_000_000]);
        plan
    }

    /// A plan in which observers begin live at any time, while clients change members again and again: every pause and
    /// cut is longer than a client waits for an answer, so the clients' messages have two copies.
    pub fn late(seed: u64) -> Self {
        let rng = &mut Rng::with_seed(seed ^ 0x1a7e);
        let mut plan = Self::turbulent(seed);
        let members = pick(rng, &[3, 3, 5]);
        (plan.members, plan.sequencer, plan.clients) = (members, rng.u16(0..members), 2);
        (plan.publishers, plan.window_slots) = ((0..members).collect(), vec![32; usize::from(members)]);
        plan.order = pick(rng, &[Order::Total, Order::Total, Order::Causal]);
        plan.reliability = pick(rng, &[Reliability::Reliable, Reliability::Uniform, Reliability::Stable]);
        (plan.adversary, plan.events, plan.relay, plan.deadline_ns) = (false, Vec::new(), false, 0);
        (plan.log_slots, plan.receive_log_slots, plan.socket_bytes) = (256, 256, 1_000_000);
        let until_ns = 1500 * MS;
        let drop_permille = pick(rng, &[10, 50, 100]);
        plan.faults = FaultPlan { drop_permille, ..FaultPlan::none(until_ns) };
        plan.detector = DetectorPlan { patient: true, ..DetectorPlan::default() };
        let late = |rng: &mut Rng| ObserverPlan {
            joins_at_ns: rng.u64(20 * MS..until_ns),
            start: Start::Live,
            receive_log_slots: 256,
        };
        plan.observers = (0..3).map(|_| late(rng)).collect();
        plan.observers.sort_by_key(|observer| observer.joins_at_ns);
        plan.clock_offsets_ns.resize(plan.processes(), 1 << 40);
        plan.drift_ppm.clear();
        (plan.messages, plan.burst, plan.interval_ns) = (400, 1, 4 * MS);
        plan.client_interval_ns = 10 * MS;
        for _ in 0..pick(rng, &[2, 4, 8]) {
            let (at_ns, process) = (rng.u64(0..until_ns), rng.u16(0..members));
            plan.happens(at_ns, Happening::Pause, process, 0, rng.u64(150 * MS..400 * MS));
        }
        // As over TCP: what one member published waits in a link while the client goes on at another.
        if rng.bool() {
            plan.stalls = Some(StallPlan { loss_permille: pick(rng, &[10, 50]), min_ns: 20 * MS, max_ns: 500 * MS });
            plan.detector.evidence_after_ns = MS;
            let (at_ns, process) = (rng.u64(0..until_ns), rng.u16(0..members));
            plan.happens(at_ns, Happening::Crash, process, 0, 0);
            plan.happens(at_ns + rng.u64(0..500 * MS), Happening::Restart, process, 0, 0);
        }
        plan.events.sort_by_key(|event| event.at_ns);
        plan
    }
}

pub(super) fn lasting_observer(rng: &mut Rng, until_ns: u64) -> ObserverPlan {
    let start = pick(rng, &[Start::Live, Start::Oldest, Start::Snapshot]);
    ObserverPlan { joins_at_ns: rng.u64(0..until_ns), start, receive_log_slots: 64 }
}

fn hand_over(rng: &mut Rng) -> HandOverPlan {
    HandOverPlan {
        delay_max_ns: pick(rng, &[20_000, 200_000, 2 * MS, 5 * MS]),
        control_stall_permille: pick(rng, &[0, 2, 10, 30]),
        data_stall_permille: pick(rng, &[0, 1, 5]),
        stall_max_ns: pick(rng, &[5, 50, 300, 800]) * MS,
    }
}
