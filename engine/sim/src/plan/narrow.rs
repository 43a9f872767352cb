//! Paths that carry only short datagrams: heartbeats pass, and data does not.

use super::draw::pick;
use super::{DetectorPlan, FaultPlan, Happening, MS, ObserverPlan, Plan};
use bourdon_protocol::{Order, Reliability, Start};
use fastrand::Rng;

impl Plan {
    /// A plan in which the path of a member or observer takes only short datagrams for a while, as after a change of
    /// route where fragments are lost: heartbeats pass, and data does not.
    pub fn narrow(seed: u64) -> Self {
        let rng = &mut Rng::with_seed(seed ^ 0x4a22);
        let mut plan = Self::turbulent(seed);
        let processes = plan.members + plan.observers.len() as u16;
        for _ in 0..pick(rng, &[1, 2, 3]) {
            let (at_ns, process) = (rng.u64(0..plan.faults.until_ns), rng.u16(0..processes));
            let longest_bytes = rng.u64(200..plan.mtu_bytes.max(201) as u64);
            plan.happens(at_ns, Happening::Narrow, process, longest_bytes, rng.u64(10 * MS..1000 * MS));
        }
        plan.events.sort_by_key(|event| event.at_ns);
        plan
    }

    /// A plan in which long datagrams vanish for seconds on the paths to a process, from a member, between two, or
    /// everywhere, while nothing else goes wrong.
    pub fn black_hole(seed: u64) -> Self {
        let rng = &mut Rng::with_seed(seed ^ 0xb1ac);
        let mut plan = Self::draw(seed);
        let members = pick(rng, &[3, 3, 4, 5]);
        (plan.members, plan.sequencer, plan.clients) = (members, rng.u16(0..members), 0);
        (plan.publishers, plan.window_slots) = ((0..members).collect(), vec![32; usize::from(members)]);
        (plan.mtu_bytes, plan.log_slots, plan.receive_log_slots) = (1408, 64, 64);
        (plan.adversary, plan.events, plan.relay, plan.deadline_ns) = (false, Vec::new(), false, 0);
        plan.order = pick(rng, &[Order::Fifo, Order::Causal, Order::Total]);
        plan.reliability = pick(rng, &[Reliability::Reliable, Reliability::Uniform, Reliability::Stable]);
        plan.detector = DetectorPlan::default();
        let until_ns = 7_000 * MS;
        plan.faults = FaultPlan::none(until_ns);
        plan.observers = vec![ObserverPlan { joins_at_ns: 0, start: Start::Live, receive_log_slots: 64 }];
        (plan.socket_bytes, plan.batch, plan.max_message_bytes) = (1_000_000, 64, 4000);
        plan.clock_offsets_ns.resize(plan.processes(), 1 << 40);
        plan.drift_ppm.clear();
        (plan.latency_ns, plan.jitter_ns, plan.latency_back_ns) = (50_000, 20_000, 0);
        (plan.messages, plan.burst, plan.large_permille) = (1_000, 4, 500);
        plan.interval_ns = 3 * until_ns / 1_000 * u64::from(members);
        let (at_ns, for_ns) = (rng.u64(500 * MS..1_500 * MS), 5_000 * MS);
        let longest_bytes = rng.u64(600..1_200);
        let all = (1 << plan.processes()) - 1;
        let mut narrows = |to: u16, from: u64| {
            plan.happens(at_ns, Happening::NarrowTo, to, from << 16 | longest_bytes, for_ns);
        };
        match rng.u8(0..8) {
            0..3 => narrows(rng.u16(0..=members), all),
            3 | 4 => {
                let sender = rng.u16(0..members);
                (0..=members).filter(|to| *to != sender).for_each(|to| narrows(to, 1 << sender));
            }
            5 | 6 => {
                let sender = rng.u16(0..members);
                narrows((sender + rng.u16(1..members)) % members, 1 << sender);
            }
            _ => (0..=members).for_each(|to| narrows(to, all)),
        }
        plan
    }

    /// Whether some paths carry no long datagrams for seconds, and nothing else goes wrong.
    pub(crate) fn is_merely_narrow(&self) -> bool {
        let is_narrow = |event: &super::EventPlan| event.what == Happening::NarrowTo && event.for_ns >= 4_000 * MS;
        let is_kind = self.stalls.is_none() && self.restarts.is_empty() && self.replay.is_none();
        self.faults.is_calm() && is_kind && !self.duels && !self.adversary && self.events.iter().all(is_narrow)
    }

    /// Whether these paths are all from one member, which the others can go on without.
    pub(crate) fn is_narrow_from_one(&self) -> bool {
        self.events.iter().all(|event| (event.other >> 16).is_power_of_two())
    }
}
