//! The world: one clock, one queue of things to come, and the processes between them.
//!
//! Threads and real clocks make a run that cannot be repeated. So there is one thread, and time is the moment of the
//! next thing in the queue. Two things at one moment happen in the order in which they were queued. All chance comes
//! from one generator, seeded once.
//!
//! This file has the queue and the beginning. Beside it: `steps.rs` steps processes and their applications,
//! `trouble.rs` applies the plan's events to them, `locks.rs` has them request locks, `hand_over.rs` runs coordinators
//! beside them, `narrow.rs` judges what becomes of paths that carry no long datagrams, `snapshots.rs` moves the
//! applications' state, and `ending.rs` judges the result once the faults are frozen.

mod disks;
mod duel;
mod ending;
mod generations;
mod hand_over;
mod lock_steps;
mod locks;
mod narrow;
mod recovery;
mod replay;
mod snapshots;
mod steps;
mod trouble;

use crate::checkers::{Checkers, Instances};
use crate::clock::Clock;
use crate::demand::Demands;
use crate::history::{History, Published, Sent};
use crate::locker::Locker;
use crate::network::{Arrival, Faults, Network, Packet};
use crate::node::{ClientNode, Node};
use crate::options::{CrashPoint, Mode, Options};
use crate::plan::{EventPlan, Plan, RestartPlan, WALL_NS, address};
use crate::violation::{Verdict, Violation};
use bourdon_protocol::{Config, Member, Mutant, Process};
use bourdon_wire::{Address, Incarnation, InstanceId, Instant, Rank};
use fastrand::Rng;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// A run that takes more steps than this has no end: the longest of thousands of runs take a third.
const STEPS_MAX: u64 = 2_000_000;

/// The result of one run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Steps of all processes.
    pub steps: u64,
    /// Messages delivered at all processes.
    pub delivered: u64,
    /// What went wrong on the network.
    pub faults: Faults,
    /// Grants of locks reported to applications.
    pub grants: u64,
    /// Leaderships won.
    pub leaderships: u64,
    /// The most entries of other members between a request for a lock and its grant.
    pub max_overtaken: u64,
    /// The first invariant that was broken.
    pub violation: Option<Violation>,
    /// Equal for equal runs.
    pub digest: u64,
    /// By process: the calls that changed something on its disk, since its last crash.
    pub disk_calls: Vec<usize>,
    /// How many states the disk may have been in where power failed; 0 if it did not.
    pub crash_states: usize,
}

#[derive(Debug)]
enum What {
    Arrive(Arrival),
    Step(usize),
    /// A sync of a member's disk ends, in this life of its process.
    Synced(usize, u32),
    /// A member's control thread runs.
    Control(usize),
    Publish(usize),
    Client(usize),
    Join(usize),
    /// The plan's event of this number.
    Happen(usize),
    /// A process receives evidence that this incarnation of a member is gone.
    Evidence(usize, Rank, Incarnation),
    /// The member that leads a ballot is cut off.
    Hinder(usize),
    /// An operator has a member found the group again.
    Recover(EventPlan),
    /// An event that follows from an earlier one.
    Later(EventPlan),
    /// All members stop.
    GroupStops(RestartPlan),
    /// New processes of the same ranks start.
    GroupStarts(RestartPlan),
    /// A process of an earlier generation is due.
    Zombie(usize),
    /// A recorded datagram arrives again.
    Replay,
    /// Paths that carry no long datagrams are about to carry them again.
    NarrowEnds,
    Freeze,
    Look,
}

#[derive(Debug)]
struct Event {
    at_ns: u64,
    tie: u64,
    what: What,
}

impl PartialEq for Event {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}
impl Eq for Event {}
impl PartialOrd for Event {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Event {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at_ns, self.tie).cmp(&(other.at_ns, other.tie))
    }
}

/// How far a run is from its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Faulty,
    Draining { until_ns: u64 },
    Settling { until_ns: u64, naks: u64, since_ns: u64 },
    Over,
}

struct World<'p> {
    plan: &'p Plan,
    mode: Mode,
    demands: Demands,
    seed: u64,
    mutant: Option<Mutant>,
    /// Where power fails, and how many states of the disk that left.
    crash_point: Option<CrashPoint>,
    crash_states: usize,
    rng: Rng,
    now_ns: u64,
    tie: u64,
    queue: BinaryHeap<Reverse<Event>>,
    nodes: Vec<Node>,
    clients: Vec<ClientNode>,
    /// Processes that froze with an earlier generation.
    zombies: Vec<Node>,
    /// The addresses of processes, clients and zombies.
    ends: Vec<Address>,
    /// How many restarts of the whole group there have been.
    generation: u32,
    /// Between the stop of a group and its start.
    is_down: bool,
    recorder: Option<replay::Recorder>,
    narrow: Option<narrow::Narrowed>,
    network: Network,
    duels: Option<duel::Duels>,
    hand_over: Option<hand_over::HandOver>,
    /// When applications give their state.
    snapshot_rng: Rng,
    arrivals: Vec<Arrival>,
    history: History,
    /// Of this generation; those of the earlier ones are in `past`.
    checkers: Checkers,
    past: Vec<Checkers>,
    instances: Instances,
    phase: Phase,
    steps: u64,
    digest: u64,
    naks_when_done: u64,
    idle_trouble: u64,
    /// Whether everything is asked that is asked of a group that has not lost its majority.
    lost: bool,
}

/// Plays a plan to its end, or to the first broken invariant.
///
/// # Panics
/// If the protocol does, or if the plan does not pass [`Plan::check`].
pub fn play(plan: &Plan, seed: u64, options: Options) -> Outcome {
    let mut world = World::new(plan, seed, options);
    let violation = world.run().err();
    Outcome { violation, ..world.outcome() }
}

impl<'p> World<'p> {
    fn new(plan: &'p Plan, seed: u64, options: Options) -> Self {
        let processes = plan.processes();
        let frozen: u32 = plan.restarts.iter().map(|restart| restart.frozen.count_ones()).sum();
        let ends = processes + usize::from(plan.clients) + frozen as usize;
        let Options { mode, mutate: mutant, demands, .. } = options;
        let mut world = Self {
            plan,
            mode,
            demands,
            seed,
            mutant,
            crash_point: options.crash_point,
            crash_states: 0,
            rng: Rng::with_seed(seed ^ 0x5eed),
            now_ns: 0,
            tie: 0,
            queue: BinaryHeap::new(),
            nodes: Vec::new(),
            clients: Vec::new(),
            zombies: Vec::new(),
            ends: (0..processes + usize::from(plan.clients)).map(address).collect(),
            generation: 0,
            is_down: false,
            narrow: None,
            recorder: plan.replay.map(|replay| replay::Recorder::new(replay, seed)),
            duels: plan.duels.then(|| duel::Duels::new(plan)),
            hand_over: plan.hand_over.map(|hand_over| hand_over::HandOver::new(hand_over, seed)),
            snapshot_rng: Rng::with_seed(seed ^ 0x5a9),
            network: Network::new(plan, ends, seed),
            arrivals: Vec::new(),
            history: History::new(plan.members),
            checkers: Checkers::new(plan, demands),
            past: Vec::new(),
            instances: Instances::new(demands),
            phase: Phase::Faulty,
            steps: 0,
            digest: 0xcbf2_9ce4_8422_2325,
            naks_when_done: 0,
            idle_trouble: 0,
            lost: false,
        };
        world.set_up();
        world
    }

    fn set_up(&mut self) {
        let plan = self.plan;
        let members = usize::from(plan.members);
        for index in 0..plan.processes() {
            let offset_ns = plan.clock_offsets_ns.get(index).copied().unwrap_or(0);
            let drift_ppm = plan.drift_ppm.get(index).copied().unwrap_or(0);
            self.network.faults.drift += u64::from(drift_ppm != 0);
            let start = index.checked_sub(members).map(|observer| plan.observers[observer].start);
            self.nodes.push(Node::new(Clock::new(offset_ns, drift_ppm), start));
        }
        if let Some(point) = self.crash_point {
            self.nodes[point.member].disk.fail_power_at(point.call);
        }
        for (member, locks) in (0..members).zip(std::iter::repeat(plan.locks.as_ref())) {
            self.nodes[member].locker = locks.map(|locks| Locker::new(locks, member as u16));
        }
        (0..members).for_each(|member| self.begin(member));
        for (index, observer) in plan.observers.iter().enumerate() {
            self.push(observer.joins_at_ns, What::Join(members + index));
        }
        for index in 0..usize::from(plan.clients) {
            let quota = plan.messages / 4 + 1;
            self.clients.push(ClientNode::new(index as u64, address(plan.processes() + index), quota, plan.mtu_bytes));
            self.push(0, What::Client(index));
        }
        for (place, publisher) in plan.publishers.iter().enumerate() {
            let share = plan.messages / plan.publishers.len() as u32 + u32::from(place == 0);
            self.nodes[usize::from(*publisher)].quota = share;
            self.push(plan.latency_ns, What::Publish(usize::from(*publisher)));
        }
        for (index, event) in plan.events.iter().enumerate().filter(|(_, event)| event.at_ns < plan.faults.until_ns) {
            self.push(event.at_ns, What::Happen(index));
        }
        for restart in plan.restarts.iter().filter(|restart| restart.at_ns + restart.down_ns < plan.faults.until_ns) {
            self.push(restart.at_ns, What::GroupStops(*restart));
        }
        if let Some(replay) = &plan.replay {
            self.push(replay.interval_ns, What::Replay);
        }
        self.push(plan.faults.until_ns, What::Freeze);
    }

    fn push(&mut self, at_ns: u64, what: What) {
        self.tie += 1;
        self.queue.push(Reverse(Event { at_ns: at_ns.max(self.now_ns), tie: self.tie, what }));
    }

    /// A process begins an incarnation, its first or a later one.
    fn begin(&mut self, index: usize) {
        let mut config = self.fresh_config(index);
        if Self::stores(self.plan, index) && self.open_disk(index, &mut config).is_none() {
            return self.lose_power(index);
        }
        let now = self.nodes[index].clock.read(self.now_ns);
        self.live(index, Process::new(now, config).expect("the plan was checked"));
    }

    /// What a process is configured with that begins another incarnation.
    fn fresh_config(&mut self, index: usize) -> Config {
        let mut config = self.plan.config(index, self.ends[index], self.seed, self.mutant);
        let node = &mut self.nodes[index];
        node.incarnation =
            if node.incarnation == 0 { config.incarnation.0 } else { node.incarnation.wrapping_add(1).max(1) };
        if let Some(rank) = config.rank() {
            // A process may have drawn that incarnation itself.
            let member = |incarnation| Member { rank, incarnation: Incarnation(incarnation) };
            while !self.instances.begins(member(node.incarnation), self.generation) {
                node.incarnation = node.incarnation.wrapping_add(1).max(1);
            }
        }
        config.birth_floor = node.birth_floor;
        config.wall_offset_ns = WALL_NS.saturating_sub(node.clock_back_ms * 1_000_000);
        config.instance_candidate = InstanceId(self.seed.rotate_left(17) ^ u64::from(node.incarnation) << 8 | 1);
        config.incarnation = Incarnation(node.incarnation);
        config.seed ^= u64::from(node.incarnation) << 48;
        config
    }

    fn live(&mut self, index: usize, process: Process) {
        let member = index < usize::from(self.plan.members);
        let node = &mut self.nodes[index];
        node.process = Some(process);
        (node.left, node.ballots) = (false, 0);
        node.lineage = self.history.begin(index, member);
        self.part_from_coordinator(index);
        self.wake(index, self.now_ns);
    }

    fn wake(&mut self, index: usize, at_ns: u64) {
        let node = &mut self.nodes[index];
        let at_ns = at_ns.max(node.paused_until_ns);
        if at_ns < node.wakes_at_ns && node.process.is_some() {
            node.wakes_at_ns = at_ns;
            self.push(at_ns, What::Step(index));
        }
    }

    fn run(&mut self) -> Verdict {
        while self.phase != Phase::Over {
            let Some(Reverse(event)) = self.queue.pop() else { break };
            self.now_ns = event.at_ns;
            match event.what {
                What::Arrive(arrival) => self.arrive(arrival),
                What::Step(index) => self.step(index, event.at_ns)?,
                What::Control(index) => self.step_control(index, event.at_ns)?,
                What::Synced(index, lives) => self.synced_disk(index, lives),
                What::Publish(member) => self.want_to_publish(member),
                What::Client(index) => self.step_client(index),
                What::Join(index) => self.begin(index),
                What::Happen(index) => self.happen(self.plan.events[index])?,
                What::Evidence(index, rank, incarnation) => self.give_evidence(index, rank, incarnation),
                What::Recover(event) => self.recover_by_hand(event)?,
                What::Later(event) => self.happen(event)?,
                What::Hinder(index) => self.hinder(index),
                What::GroupStops(restart) => self.group_stops(restart),
                What::GroupStarts(restart) => self.group_starts(restart),
                What::Zombie(zombie) if !self.has_formed_again() => self.hold(zombie),
                What::Zombie(zombie) if self.is_due(zombie, event.at_ns) => self.step_zombie(zombie)?,
                What::Zombie(_) => {}
                What::Replay => self.replay(),
                What::NarrowEnds => self.judge_narrow()?,
                What::Freeze => self.freeze(),
                What::Look => self.look()?,
            }
        }
        self.end()
    }

    // ---- the network ----------------------------------------------------------------------------------------------

    fn arrive(&mut self, arrival: Arrival) {
        if let Some(client) = arrival.to.checked_sub(self.plan.processes()) {
            if client >= self.clients.len() {
                return self.arrive_at_zombie(client - self.clients.len(), arrival.packet);
            }
            let (id, taken) = self.clients[client].taken();
            self.clients[client].client.on_datagram(Instant(self.now_ns), &arrival.packet.bytes, arrival.packet.to_all);
            self.step_client(client);
            if self.instances.is_of_earlier(&arrival.packet.bytes, self.generation) {
                self.history.take_earlier(id, taken..self.clients[client].taken().1);
            }
            return;
        }
        let node = &mut self.nodes[arrival.to];
        if node.process.is_none() {
            return;
        }
        if node.socket_bytes + arrival.packet.bytes.len() > self.plan.socket_bytes {
            self.network.faults.overflow += 1;
            self.network.trouble[arrival.to] += 1;
            return;
        }
        node.socket_bytes += arrival.packet.bytes.len();
        node.socket.push_back(arrival.packet);
        self.wake(arrival.to, self.now_ns + 500);
    }

    fn launch(&mut self) {
        let mut arrivals = std::mem::take(&mut self.arrivals);
        for arrival in arrivals.drain(..) {
            self.push(arrival.at_ns, What::Arrive(arrival));
        }
        self.arrivals = arrivals;
    }

    // ---- applications ---------------------------------------------------------------------------------------------

    fn want_to_publish(&mut self, member: usize) {
        let node = &mut self.nodes[member];
        let burst = self.rng.u32(1..=self.plan.burst.max(1)).min(node.quota);
        node.quota -= burst;
        node.wanted += burst;
        if node.quota > 0 {
            let pause_ns = self.rng.u64(0..=2 * self.plan.interval_ns);
            self.push(self.now_ns + pause_ns, What::Publish(member));
        }
        self.wake(member, self.now_ns);
    }

    fn step_client(&mut self, index: usize) {
        let Self { clients, network, rng, arrivals, plan, now_ns, history, ends, recorder, generation, .. } = self;
        let client = &mut clients[index];
        let sends = client.step(*now_ns, plan, rng, |sent| {
            let Sent { client, topic, payload, at_ns } = sent;
            let (publisher, after, phase, sent) = (None, None, None, None);
            let client = Some(client);
            history.publish(Published {
                payload,
                topic,
                at_ns,
                publisher,
                sequence: 0,
                after,
                sent,
                phase,
                client,
                at_barrier: false,
                generations: 0..=0,
            });
        });
        for (to, bytes) in sends {
            let packet = Packet { bytes: bytes.into(), to_all: false };
            let from = plan.processes() + index;
            if let Some(recorder) = recorder {
                recorder.record(*generation, from, &packet.bytes);
            }
            let members = usize::from(plan.members);
            let is_client = |end: usize| (members..plan.processes() + usize::from(plan.clients)).contains(&end);
            for (end, _) in ends.iter().enumerate().filter(|(end, address)| **address == to && !is_client(*end)) {
                network.send(*now_ns, (from, end), &packet, rng, arrivals);
            }
        }
        let deadline_ns = client.next_deadline(plan);
        let is_late = plan.client_interval_ns > 0 && deadline_ns <= *now_ns;
        let deadline_ns = if is_late { *now_ns + plan.client_interval_ns } else { deadline_ns };
        if deadline_ns != u64::MAX && client.wakes_at_ns != deadline_ns {
            client.wakes_at_ns = deadline_ns;
            self.push(deadline_ns, What::Client(index));
        }
        self.launch();
    }

    fn mix(&mut self, value: u64) {
        self.digest = mixed(self.digest, self.now_ns);
        self.digest = mixed(self.digest, value);
    }

    fn outcome(&self) -> Outcome {
        let (steps, delivered, digest) = (self.steps, self.history.delivered, self.digest);
        let (grants, max_overtaken) = (self.checkers.mutexes.grants, self.checkers.mutexes.max_overtaken);
        let (leaderships, faults) = (self.checkers.elections.count(), self.network.faults);
        let disk_calls = self.nodes.iter().map(|node| node.disk.calls()).collect();
        let crash_states = self.crash_states;
        Outcome {
            steps,
            delivered,
            faults,
            grants,
            leaderships,
            max_overtaken,
            violation: None,
            digest,
            disk_calls,
            crash_states,
        }
    }
}

/// FNV-1a, eight bytes at a time.
fn mixed(digest: u64, value: u64) -> u64 {
    (digest ^ value).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(29)
}
