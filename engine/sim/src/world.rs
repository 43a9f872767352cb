//! The world: one clock, one queue of things to come, and the processes between them.
//!
//! Threads and real clocks make a run that can't be repeated; so there is one thread, and time is the moment of the next
//! thing in the queue. Two things at one moment happen in the order in which they were put there. All chance comes from
//! one generator, seeded once.
//!
//! A process is stepped when something has arrived, when its deadline has come or when its application wants something,
//! and then does what a node does: take in a batch, keep time, publish, transmit, deliver. Between steps it may be
//! paused, while its socket fills and overflows.
//!
//! When the faults freeze, everything must drain in bounded time ([`DRAIN_NS`]); after that, nobody may ask for anything.

use crate::checkers::{Checkers, Completeness, Cost, Start, Verdict, Violation};
use crate::history::History;
use crate::network::{Arrival, Faults, Network, hits};
use crate::node::{ClientNode, Node};
use crate::plan::{Plan, StartPlan, address};
use bourdon_protocol::{Counter, Destination, Mutant, Process};
use bourdon_wire::{Instant, Rank};
use fastrand::Rng;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::rc::Rc;

/// How long everything may take to arrive once nothing goes wrong any more. The slowest plans need some seconds: windows
/// of sixteen datagrams, a round trip of milliseconds, hundreds of messages of several datagrams.
const DRAIN_NS: u64 = 60_000_000_000;
/// A run that takes more steps than this has no end: the longest of thousands take a tenth.
const STEPS_MAX: u64 = 1_000_000;
/// How often it is asked whether everything has arrived.
const LOOK_NS: u64 = 5_000_000;
/// When everything has, requests for repair must cease: nobody has asked for anything for so long. Longer than a few
/// heartbeats and the longest retry.
const SETTLE_NS: u64 = 400_000_000;

/// What is asked of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Nothing wrong happens, with faults to the end.
    Safety,
    /// Everything good happens once the faults freeze.
    Liveness,
    /// Both, in one run.
    #[default]
    Both,
}

/// What became of one run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Steps of all processes.
    pub steps: u64,
    /// Messages delivered at all processes.
    pub delivered: u64,
    /// What went wrong on the network.
    pub faults: Faults,
    /// The first invariant that was broken.
    pub violation: Option<Violation>,
    /// Equal for equal runs.
    pub digest: u64,
}

#[derive(Debug)]
enum What {
    Arrive(Arrival),
    Step(usize),
    Publish(usize),
    Client(usize),
    Join(usize),
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
    seed: u64,
    mutant: Option<Mutant>,
    rng: Rng,
    now_ns: u64,
    tie: u64,
    queue: BinaryHeap<Reverse<Event>>,
    nodes: Vec<Node>,
    clients: Vec<ClientNode>,
    network: Network,
    arrivals: Vec<Arrival>,
    history: History,
    checkers: Checkers,
    phase: Phase,
    steps: u64,
    digest: u64,
    naks_when_done: u64,
    idle_trouble: u64,
}

/// Plays a plan to its end, or to the first broken invariant.
///
/// # Panics
/// If the protocol does, or if the plan does not pass [`Plan::check`].
pub fn play(plan: &Plan, seed: u64, mode: Mode, mutant: Option<Mutant>) -> Outcome {
    let mut world = World::new(plan, seed, mode, mutant);
    let violation = world.run().err();
    let Outcome { steps, delivered, digest, .. } = world.outcome();
    Outcome { steps, delivered, faults: world.network.faults, violation, digest }
}

impl<'p> World<'p> {
    fn new(plan: &'p Plan, seed: u64, mode: Mode, mutant: Option<Mutant>) -> Self {
        let processes = usize::from(plan.members) + plan.observers.len();
        let ends = processes + usize::from(plan.clients);
        let mut world = Self {
            plan,
            mode,
            seed,
            mutant,
            rng: Rng::with_seed(seed ^ 0x5eed),
            now_ns: 0,
            tie: 0,
            queue: BinaryHeap::new(),
            nodes: Vec::new(),
            clients: Vec::new(),
            network: Network::new(plan, ends),
            arrivals: Vec::new(),
            history: History::new(plan.members),
            checkers: Checkers::new(plan),
            phase: Phase::Faulty,
            steps: 0,
            digest: 0xcbf2_9ce4_8422_2325,
            naks_when_done: 0,
            idle_trouble: 0,
        };
        world.set_up(processes);
        world
    }

    fn set_up(&mut self, processes: usize) {
        let plan = self.plan;
        for member in 0..usize::from(plan.members) {
            self.join(member, Start::Member);
        }
        for (index, observer) in plan.observers.iter().enumerate() {
            self.push(observer.joins_at_ns, What::Join(index));
        }
        for index in 0..usize::from(plan.clients) {
            let quota = plan.messages / 4 + 1;
            self.clients.push(ClientNode::new(index as u64, address(processes + index), quota));
            self.push(0, What::Client(index));
        }
        for (place, publisher) in plan.publishers.iter().enumerate() {
            let share = plan.messages / plan.publishers.len() as u32 + u32::from(place == 0);
            self.nodes[usize::from(*publisher)].quota = share;
            self.push(plan.latency_ns, What::Publish(usize::from(*publisher)));
        }
        self.push(plan.faults.until_ns, What::Freeze);
    }

    fn push(&mut self, at_ns: u64, what: What) {
        self.tie += 1;
        self.queue.push(Reverse(Event { at_ns: at_ns.max(self.now_ns), tie: self.tie, what }));
    }

    fn join(&mut self, index: usize, start: Start) {
        let offset_ns = self.plan.clock_offsets_ns.get(index).copied().unwrap_or(0);
        let config = self.plan.config(index, address(index), self.seed, self.mutant);
        let process = Process::new(Instant(self.now_ns + offset_ns), config).expect("the plan was checked");
        self.nodes.push(Node::new(process, offset_ns, start));
        self.history.join();
        self.wake(index, self.now_ns);
    }

    fn wake(&mut self, index: usize, at_ns: u64) {
        let node = &mut self.nodes[index];
        let at_ns = at_ns.max(node.paused_until_ns);
        if at_ns < node.wakes_at_ns {
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
                What::Publish(member) => self.want_to_publish(member),
                What::Client(index) => self.step_client(index),
                What::Join(index) => self.join_observer(index),
                What::Freeze => self.freeze(),
                What::Look => self.look()?,
            }
        }
        self.end()
    }

    fn join_observer(&mut self, index: usize) {
        let start = match self.plan.observers[index].start {
            StartPlan::Live => Start::Live,
            StartPlan::Oldest => Start::Oldest,
        };
        self.join(usize::from(self.plan.members) + index, start);
    }

    // ---- the network ----------------------------------------------------------------------------------------------

    fn arrive(&mut self, arrival: Arrival) {
        let processes = usize::from(self.plan.members) + self.plan.observers.len();
        if let Some(client) = arrival.to.checked_sub(processes) {
            self.clients[client].client.on_datagram(Instant(self.now_ns), &arrival.bytes);
            return self.step_client(client);
        }
        let Some(node) = self.nodes.get_mut(arrival.to) else { return }; // not here yet
        if node.socket_bytes + arrival.bytes.len() > self.plan.socket_bytes {
            self.network.faults.overflow += 1;
            self.network.trouble[arrival.to] += 1;
            return;
        }
        node.socket_bytes += arrival.bytes.len();
        node.socket.push_back(arrival.bytes);
        self.wake(arrival.to, self.now_ns + 500);
    }

    fn launch(&mut self) {
        for arrival in std::mem::take(&mut self.arrivals) {
            self.push(arrival.at_ns, What::Arrive(arrival));
        }
    }

    // ---- processes ------------------------------------------------------------------------------------------------

    fn step(&mut self, index: usize, at_ns: u64) -> Verdict {
        if self.nodes[index].wakes_at_ns != at_ns {
            return Ok(()); // it was stepped earlier than this, and has said anew when
        }
        self.nodes[index].wakes_at_ns = u64::MAX;
        if self.trip(index) {
            self.wake(index, self.nodes[index].paused_until_ns);
            return Ok(());
        }
        self.steps += 1;
        if self.steps > STEPS_MAX {
            return Err(Violation::new("steps", format!("{STEPS_MAX} steps, and no end")));
        }
        self.mix(index as u64);
        let busy = self.nodes[index].take_in(self.now_ns, self.plan.batch);
        if self.plan.order_early {
            let node = &mut self.nodes[index];
            node.process.order(Instant(self.now_ns + node.offset_ns));
            self.deliver(index)?;
        }
        let wants = self.publish(index)?;
        let all_sent = self.transmit(index);
        let more = self.deliver(index)?;
        let all_sent = self.transmit(index) && all_sent;
        self.hear_events(index);
        self.launch();
        let processes: Vec<&Process> = self.nodes.iter().map(|node| &node.process).collect();
        if self.mode != Mode::Liveness {
            self.checkers.stepped(&processes, index)?;
        }
        let node = &self.nodes[index];
        let deadline_ns = node.process.next_deadline().0.saturating_sub(node.offset_ns);
        let soon_ns = self.now_ns + self.rng.u64(500..5000);
        let next_ns = if busy || more || !all_sent { soon_ns } else { deadline_ns.max(self.now_ns + 1) };
        let next_ns = if wants { next_ns.min(self.now_ns + self.rng.u64(20_000..200_000)) } else { next_ns };
        self.wake(index, next_ns);
        Ok(())
    }

    /// Whether the process is paused instead; cuts it off now and then.
    fn trip(&mut self, index: usize) -> bool {
        if self.phase != Phase::Faulty {
            return false;
        }
        let faults = &self.plan.faults;
        if hits(&mut self.rng, faults.cut_permille) && self.nodes.len() > 1 {
            let from = self.rng.usize(0..self.nodes.len());
            self.network.cut(from, index, self.now_ns + self.rng.u64(0..=faults.cut_max_ns));
        }
        if !hits(&mut self.rng, faults.pause_permille) {
            return false;
        }
        let pause_ns = self.rng.u64(0..=faults.pause_max_ns);
        self.nodes[index].paused_until_ns = self.now_ns + pause_ns;
        self.network.faults.pause += 1;
        // Others may ask it in vain meanwhile, at least every retry.
        self.idle_trouble += 1 + pause_ns / 1_000_000;
        true
    }

    /// Offers what the process has to send to the network; says whether it took all.
    fn transmit(&mut self, index: usize) -> bool {
        let Self { nodes, network, rng, arrivals, plan, now_ns, .. } = self;
        let processes = usize::from(plan.members) + plan.observers.len();
        let ends = processes + usize::from(plan.clients);
        let node = &mut nodes[index];
        let now = Instant(*now_ns + node.offset_ns);
        node.process.transmit(now, |to, bytes, segment_bytes| {
            let offered = bytes.len().div_ceil(segment_bytes);
            let taken = network.takes(offered, rng);
            for datagram in bytes.chunks(segment_bytes).take(taken) {
                let datagram: Rc<[u8]> = datagram.into();
                for end in 0..ends {
                    let wanted = match to {
                        Destination::Group => end != index || hits(rng, plan.echo_permille),
                        Destination::Peer(peer) => peer == address(end),
                    };
                    if wanted {
                        network.send(*now_ns, (index, end), &datagram, rng, arrivals);
                    }
                }
            }
            taken
        })
    }

    /// Shows the application what is due; says whether there is more.
    fn deliver(&mut self, index: usize) -> Result<bool, Violation> {
        let limit = if hits(&mut self.rng, 200) { self.rng.usize(1..5) } else { usize::MAX };
        let Self { nodes, history, checkers, now_ns, mode, digest, .. } = self;
        let node = &mut nodes[index];
        let mut verdict = Ok(());
        let count = node.process.deliver(Instant(*now_ns + node.offset_ns), limit, |delivery| {
            *digest = mixed(*digest, delivery.sequence.0 << 16 | u64::from(delivery.sender.0));
            if verdict.is_ok() {
                verdict = checkers.delivered(history, index, &delivery, *mode != Mode::Liveness);
            }
        });
        verdict.map(|()| count >= limit)
    }

    fn hear_events(&mut self, index: usize) {
        let node = &mut self.nodes[index];
        node.hear_events(&mut self.history.shown[index], self.now_ns);
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

    /// Publishes what the application wants; says whether it wants more.
    fn publish(&mut self, index: usize) -> Result<bool, Violation> {
        let Self { nodes, plan, rng, history, now_ns, .. } = self;
        nodes[index].publish(index as u16, plan, *now_ns, rng, history)
    }

    fn step_client(&mut self, index: usize) {
        let Self { clients, network, rng, arrivals, plan, now_ns, checkers, .. } = self;
        let processes = usize::from(plan.members) + plan.observers.len();
        let client = &mut clients[index];
        let sends = client.step(*now_ns, plan, rng, |sent| checkers.client_sends(sent));
        for (to, bytes) in sends {
            let bytes: Rc<[u8]> = bytes.into();
            for end in (0..usize::from(plan.members)).filter(|end| address(*end) == to) {
                network.send(*now_ns, (processes + index, end), &bytes, rng, arrivals);
            }
        }
        let deadline_ns = client.client.next_deadline().0;
        if deadline_ns != u64::MAX && client.wakes_at_ns != deadline_ns {
            client.wakes_at_ns = deadline_ns;
            self.push(deadline_ns, What::Client(index));
        }
        self.launch();
    }

    // ---- the end --------------------------------------------------------------------------------------------------

    fn freeze(&mut self) {
        if self.mode == Mode::Safety {
            self.phase = Phase::Over;
            return;
        }
        self.network.freeze();
        self.phase = Phase::Draining { until_ns: self.now_ns + DRAIN_NS };
        self.push(self.now_ns + LOOK_NS, What::Look);
    }

    fn look(&mut self) -> Verdict {
        match self.phase {
            Phase::Draining { until_ns } => match self.drained() {
                Ok(()) => self.phase = Phase::Settling { until_ns, naks: 0, since_ns: self.now_ns },
                Err(missing) if self.now_ns >= until_ns => return Err(missing),
                Err(_) => {}
            },
            Phase::Settling { until_ns, naks, since_ns } => {
                let now_naks = self.count(Counter::NaksSent);
                if now_naks == naks && self.now_ns - since_ns >= SETTLE_NS {
                    self.phase = Phase::Over;
                } else if self.now_ns >= until_ns {
                    self.naks_when_done = now_naks - naks;
                    self.phase = Phase::Over;
                } else if now_naks != naks {
                    self.phase = Phase::Settling { until_ns, naks: now_naks, since_ns: self.now_ns };
                }
            }
            _ => {}
        }
        self.push(self.now_ns + LOOK_NS, What::Look);
        Ok(())
    }

    fn drained(&self) -> Verdict {
        if let Some(member) = self.nodes.iter().position(|node| node.quota + node.wanted > 0) {
            return Err(Violation::new("completeness", format!("member {member} could not publish all it wanted")));
        }
        if let Some(client) = self.clients.iter().position(|client| client.is_busy()) {
            return Err(Violation::new("completeness", format!("client {client} could not publish all it wanted")));
        }
        let starts: Vec<Start> = self.nodes.iter().map(|node| node.start).collect();
        let datagrams: Vec<u64> = self.datagrams();
        let judge = Completeness { plan: self.plan, history: &self.history, starts: &starts, datagrams: &datagrams };
        judge.check()?;
        self.checkers.clients_done(self.plan)
    }

    /// By member: datagrams of its stream.
    fn datagrams(&self) -> Vec<u64> {
        let members = self.nodes.iter().take(usize::from(self.plan.members));
        members.enumerate().map(|(rank, node)| node.process.received(Rank(rank as u16)).0).collect()
    }

    fn count(&self, counter: Counter) -> u64 {
        self.nodes.iter().map(|node| node.process.counters().get(counter)).sum()
    }

    fn end(&self) -> Verdict {
        if self.mode != Mode::Liveness {
            self.checkers.end(&self.history, self.plan)?;
        }
        let fetched: u64 = self.datagrams().iter().sum::<u64>() * self.plan.observers.len() as u64;
        Checkers::cost(&Cost {
            processes: self.nodes.len() as u64,
            naks: self.count(Counter::NaksSent),
            repairs: self.count(Counter::RepairsSent),
            trouble: self.network.trouble.iter().sum::<u64>()
                + self.count(Counter::DiscardedWindow)
                + self.idle_trouble
                + fetched,
            naks_when_done: self.naks_when_done,
        })
    }

    fn mix(&mut self, value: u64) {
        self.digest = mixed(self.digest, self.now_ns);
        self.digest = mixed(self.digest, value);
    }

    fn outcome(&self) -> Outcome {
        let (steps, delivered, digest) = (self.steps, self.history.delivered, self.digest);
        Outcome { steps, delivered, faults: self.network.faults, violation: None, digest }
    }
}

/// FNV-1a, eight bytes at a time.
fn mixed(digest: u64, value: u64) -> u64 {
    (digest ^ value).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(29)
}
