//! What one run is: drawn from a seed, or read from a file.
//!
//! Bugs hide where two rare things meet: a window of sixteen datagrams and a message of four, a late observer and a log
//! that has just wrapped. A plan drawn evenly over everything meets them never, so most draws here choose between the
//! extremes and a few ordinary values. Everything a seed decides about the group stands in the plan; the network's dice
//! are thrown during the run, from the same seed.
//!
//! Invariant: [`Plan::config`] gives configurations that [`Config::check`] accepts.

use bourdon_protocol::{Config, Limits, Mutant, Order, Role, Start, Timing};
use bourdon_wire::{Address, GroupId, HEADER_BYTES, Incarnation, Rank};
use fastrand::Rng;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;

/// The group every run is about.
pub(crate) const GROUP: GroupId = GroupId::of("simulated");
const MS: u64 = 1_000_000;

/// The order of delivery, by its name on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[allow(missing_docs)] // the names say it
pub enum OrderPlan {
    Unordered,
    Fifo,
    Causal,
    Total,
}

/// Where an observer begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[allow(missing_docs)] // the names say it
pub enum StartPlan {
    Live,
    Oldest,
}

/// One observer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ObserverPlan {
    /// When it comes.
    pub joins_at_ns: u64,
    /// Where it begins.
    pub start: StartPlan,
    /// Datagrams it keeps of each stream.
    pub receive_log_slots: u32,
}

/// What goes wrong, in thousandths of all datagrams at each receiver, until the faults freeze.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FaultPlan {
    /// When the faults end.
    pub until_ns: u64,
    /// Lost.
    pub drop_permille: u32,
    /// Delivered twice.
    pub duplicate_permille: u32,
    /// Overtaken by a few that were sent later.
    pub reorder_permille: u32,
    /// Held up for `delay_max_ns` at most.
    pub delay_permille: u32,
    /// The longest delay.
    pub delay_max_ns: u64,
    /// One bit of it flipped.
    pub corrupt_permille: u32,
    /// Of all steps: the process stops for `pause_max_ns` at most.
    pub pause_permille: u32,
    /// The longest pause.
    pub pause_max_ns: u64,
    /// Of all steps: the process hears nothing of one other for `cut_max_ns` at most.
    pub cut_permille: u32,
    /// The longest cut.
    pub cut_max_ns: u64,
    /// Of all sends: the network takes only a part of what it is offered.
    pub refuse_permille: u32,
}

/// One run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// The order of delivery.
    pub order: OrderPlan,
    /// How many members.
    pub members: u16,
    /// Who puts messages in order.
    pub sequencer: u16,
    /// How many receivers everybody thinks there are.
    pub receivers: u32,
    /// Bytes of the longest datagram.
    pub mtu_bytes: usize,
    /// Datagrams a member keeps of its own stream.
    pub log_slots: u32,
    /// Datagrams a member keeps of each other stream.
    pub receive_log_slots: u32,
    /// The longest message.
    pub max_message_bytes: usize,
    /// Repairs a second that a member sends.
    pub repairs_per_s: u32,
    /// How long a gap may be mere reordering.
    pub reorder_grace_ns: u64,
    /// When a member counts as silent.
    pub silent_after_ns: u64,
    /// Messages of all publishers together.
    pub messages: u32,
    /// The most messages published in one go.
    pub burst: u32,
    /// The mean time between two bursts of one publisher.
    pub interval_ns: u64,
    /// Of all messages: of any length up to the longest, rather than small.
    pub large_permille: u32,
    /// The way from process to process.
    pub latency_ns: u64,
    /// What comes on top of it, at random.
    pub jitter_ns: u64,
    /// Bytes that each process's socket holds.
    pub socket_bytes: usize,
    /// The most datagrams a process takes in at a step.
    pub batch: usize,
    /// Of all multicasts: also come back to the sender, as on `lo`.
    pub echo_permille: u32,
    /// Clients that publish through a member.
    pub clients: u16,
    /// By member: datagrams of one stream that can be under way to it.
    pub window_slots: Vec<u32>,
    /// By process: what its clock is ahead of the world's.
    pub clock_offsets_ns: Vec<u64>,
    /// Members that publish.
    pub publishers: Vec<u16>,
    /// Trouble.
    pub faults: FaultPlan,
    /// Observers, the earliest first.
    pub observers: Vec<ObserverPlan>,
    /// Whether a process orders and delivers what it received before it publishes and sends, as the inline node does.
    #[serde(default)]
    pub order_early: bool,
}

fn pick<T: Copy>(rng: &mut Rng, choices: &[T]) -> T {
    choices[rng.usize(0..choices.len())]
}

impl Plan {
    /// What a seed draws.
    pub fn draw(seed: u64) -> Self {
        let rng = &mut Rng::with_seed(seed);
        let order = pick(rng, &[OrderPlan::Unordered, OrderPlan::Fifo, OrderPlan::Causal, OrderPlan::Total]);
        let members = if rng.u8(0..16) == 0 { rng.u16(6..=9) } else { rng.u16(1..=5) };
        let observers = rng.u16(0..=4);
        let log_slots = pick(rng, &[16, 16, 32, 64, 256]);
        let receive_log_slots = pick(rng, &[16, 16, 32, 64, 256]);
        let mtu_bytes = pick(rng, &[1280, 1408, 1408, 1500, 4000]);
        let window_slots = (0..members).map(|_| rng.u32(16..=receive_log_slots.max(17))).collect::<Vec<_>>();
        let smallest = window_slots.iter().copied().min().unwrap_or(16).min(log_slots).min(receive_log_slots);
        let most = smallest as usize * mtu_bytes / 4;
        let messages = pick(rng, &[20, 60, 150, 400]);
        let burst: u32 = pick(rng, &[1, 4, 30]);
        let faults = FaultPlan::draw(rng);
        let publishers = draw_publishers(rng, members);
        let bursts = (messages / burst.div_ceil(2)).max(1) / publishers.len().max(1) as u32 + 1;
        let interval_ns = faults.until_ns / u64::from(bursts) / pick(rng, &[1, 2, 10]);
        let latency_ns = pick(rng, &[2_000, 20_000, 200_000, MS]);
        let processes = members + observers;
        Self {
            order,
            members,
            sequencer: rng.u16(0..members),
            receivers: if rng.bool() { u32::from(processes) } else { pick(rng, &[2, 9, 30, 1000]) },
            mtu_bytes,
            log_slots,
            receive_log_slots,
            max_message_bytes: pick(rng, &[most, most, most / 3, 200]),
            repairs_per_s: pick(rng, &[50_000, 50_000, 1000]),
            reorder_grace_ns: pick(rng, &[0, 0, latency_ns / 2]),
            silent_after_ns: pick(rng, &[3000, 3000, 200]) * MS,
            messages,
            burst,
            interval_ns: interval_ns.max(1000),
            large_permille: pick(rng, &[0, 50, 500]),
            latency_ns,
            jitter_ns: pick(rng, &[0, latency_ns / 4, latency_ns]),
            socket_bytes: pick(rng, &[20_000, 100_000, 1_000_000]),
            batch: pick(rng, &[1, 8, 64]),
            echo_permille: pick(rng, &[0, 0, 1000, 300]),
            clients: pick(rng, &[0, 0, 0, 1, 2]),
            window_slots,
            clock_offsets_ns: (0..processes).map(|_| pick(rng, &[0, 1, 1 << 40, 1 << 62])).collect(),
            publishers,
            observers: draw_observers(rng, observers, faults.until_ns),
            faults,
            order_early: rng.bool(),
        }
    }

    /// Whether it can be played.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn check(&self) -> Result<(), String> {
        let slots = self.observers.iter().map(|observer| observer.receive_log_slots);
        if slots.chain([self.log_slots, self.receive_log_slots]).any(|slots| !slots.is_power_of_two()) {
            return Err("logs hold a power of two of datagrams".into());
        }
        if self.window_slots.len() != usize::from(self.members) {
            return Err(format!("window_slots names {} members of {}", self.window_slots.len(), self.members));
        }
        if self.publishers.iter().any(|publisher| *publisher >= self.members) {
            return Err("a publisher is no member".into());
        }
        if self.publishers.is_empty() || self.batch == 0 {
            return Err("nobody publishes, or takes anything in".into());
        }
        for index in 0..usize::from(self.members) + self.observers.len() {
            self.config(index, address(index), 0, None).check().map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    /// What process number `index` is told: members first, then observers.
    pub(crate) fn config(&self, index: usize, address: Address, seed: u64, mutant: Option<Mutant>) -> Config {
        let members = usize::from(self.members);
        let observer = index.checked_sub(members).and_then(|i| self.observers.get(i));
        let role = if observer.is_some() { Role::Observer } else { Role::Member(Rank(index as u16)) };
        let mut config = Config::new(GROUP, self.members, role);
        config.order = match self.order {
            OrderPlan::Unordered => Order::Unordered,
            OrderPlan::Fifo => Order::Fifo,
            OrderPlan::Causal => Order::Causal,
            OrderPlan::Total => Order::Total,
        };
        config.start = match observer.map(|observer| observer.start) {
            Some(StartPlan::Oldest) => Start::Oldest,
            _ => Start::Live,
        };
        config.sequencer = Rank(self.sequencer);
        config.incarnation = Incarnation(index as u32 + 1);
        config.address = address;
        config.seed = seed ^ (index as u64) << 32;
        config.mutant = mutant;
        config.timing = Timing { reorder_grace_ns: self.reorder_grace_ns, ..Timing::default() };
        let receive_log_slots = observer.map_or(self.receive_log_slots, |observer| observer.receive_log_slots);
        let window_slots = self.window_slots.get(index).copied().unwrap_or(16);
        config.limits = Limits {
            max_snapshot_bytes: 1 << 16,
            mtu_bytes: self.mtu_bytes,
            log_bytes: self.log_slots as usize * self.mtu_bytes,
            receive_log_bytes: receive_log_slots as usize * self.mtu_bytes,
            window_bytes: window_slots as usize * self.mtu_bytes,
            max_message_bytes: self.max_message_bytes,
            receivers: self.receivers,
            repairs_per_s: self.repairs_per_s,
            prefault: false,
        };
        config
    }

    /// Datagrams of one stream that can be under way to a member: computed here once more, for the checkers.
    pub(crate) fn window(&self, member: usize) -> u64 {
        let slots = self.window_slots.get(member).copied().unwrap_or(16).min(self.receive_log_slots);
        u64::from(slots)
    }

    /// What goes into one frame without extensions.
    pub(crate) fn frame_bytes(&self) -> usize {
        self.mtu_bytes - HEADER_BYTES - bourdon_wire::FRAME_HEADER_BYTES
    }
}

impl FaultPlan {
    fn draw(rng: &mut Rng) -> Self {
        let calm = rng.u8(0..8) == 0;
        let mut rate = |choices: &[u32]| if calm { 0 } else { pick(rng, choices) };
        Self {
            drop_permille: rate(&[0, 5, 20, 100, 300]),
            duplicate_permille: rate(&[0, 0, 20, 300]),
            reorder_permille: rate(&[0, 0, 20, 300]),
            delay_permille: rate(&[0, 0, 5, 50]),
            corrupt_permille: rate(&[0, 0, 10]),
            pause_permille: rate(&[0, 0, 1, 5]),
            cut_permille: rate(&[0, 0, 1]),
            refuse_permille: rate(&[0, 0, 100]),
            until_ns: pick(rng, &[50, 200, 600]) * MS,
            delay_max_ns: pick(rng, &[1, 30]) * MS,
            pause_max_ns: pick(rng, &[2, 20, 20, 400]) * MS,
            cut_max_ns: pick(rng, &[5, 50, 400]) * MS,
        }
    }

    /// Nothing goes wrong.
    pub fn none(until_ns: u64) -> Self {
        Self {
            until_ns,
            drop_permille: 0,
            duplicate_permille: 0,
            reorder_permille: 0,
            delay_permille: 0,
            delay_max_ns: 0,
            corrupt_permille: 0,
            pause_permille: 0,
            pause_max_ns: 0,
            cut_permille: 0,
            cut_max_ns: 0,
            refuse_permille: 0,
        }
    }
}

fn draw_publishers(rng: &mut Rng, members: u16) -> Vec<u16> {
    let mut publishers: Vec<u16> = (0..members).collect();
    rng.shuffle(&mut publishers);
    publishers.truncate(rng.usize(1..=publishers.len()));
    publishers
}

fn draw_observers(rng: &mut Rng, count: u16, until_ns: u64) -> Vec<ObserverPlan> {
    let draw = |_| ObserverPlan {
        joins_at_ns: if rng.bool() { 0 } else { rng.u64(0..until_ns) },
        start: pick(rng, &[StartPlan::Live, StartPlan::Oldest]),
        receive_log_slots: pick(rng, &[16, 64, 256]),
    };
    let mut observers: Vec<_> = (0..count).map(draw).collect();
    observers.sort_by_key(|observer| observer.joins_at_ns);
    observers
}

/// Where process or client number `index` is reached.
pub(crate) fn address(index: usize) -> Address {
    SocketAddr::from(([10, 0, 0, 1], 1000 + index as u16)).into()
}
