//! What one run is: drawn from a seed, or read from a file.
//!
//! The plan has everything that a seed decides about the group; the network's dice are thrown during the run, from the
//! same seed. What happens to whole processes (crashes, cuts, barriers, …) is a list of events with their times, so
//! that a plan that fails can be made smaller event by event (`shrink.rs`).
//!
//! Invariant: [`Plan::config`] gives configurations that [`Config::check`] accepts.

mod draw;
mod durable;
mod family;
mod hand_over;
mod judged;
mod links;
mod locks;
mod narrow;
mod recovered;
mod restart;
mod unkind;

pub use family::Family;
pub use hand_over::HandOverPlan;
pub use links::StallPlan;
pub use locks::{Kinds, LockPlan};
pub use restart::{ReplayPlan, RestartPlan};

use bourdon_protocol::{Config, Flow, Limits, Mutant, MutexKind, Order, Reliability, Role, Start, Timing};
use bourdon_wire::records::ClientRequest;
use bourdon_wire::{Address, GroupId, HEADER_BYTES, Incarnation, NAME_MAX_BYTES, Rank};
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;

/// The group every run is about.
pub(crate) const GROUP: GroupId = GroupId::of("simulated");
/// The reading of wall clocks when a process's own clock reads 0: far enough from the beginning of time to be set back.
pub(crate) const WALL_NS: u64 = 1 << 50;
/// The longest snapshot: far more than any run's application needs.
pub(crate) const SNAPSHOT_BYTES: usize = 1 << 20;
const MS: u64 = 1_000_000;

/// How failures are noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DetectorPlan {
    /// The profile for hosts with cores to spare.
    pub fast: bool,
    /// Members are suspected only after the silence that the patient profile allows.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub patient: bool,
    /// The group is a channel that leans on the detectors of another group, whose judgements the events give.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub leaning: bool,
    /// Silence.
    pub push: bool,
    /// Pings that go unanswered.
    pub pull: bool,
    /// Heartbeats late by their own measure.
    pub phi: bool,
    /// How long after a crash the others hear evidence of it, at most; 0 if they never do.
    pub evidence_after_ns: u64,
}

impl Default for DetectorPlan {
    fn default() -> Self {
        Self { fast: false, patient: false, leaning: false, push: true, pull: true, phi: true, evidence_after_ns: 0 }
    }
}

/// What happens to a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Happening {
    /// It is gone, with all it knew.
    Crash,
    /// It begins again, as another incarnation.
    Restart,
    /// It leaves the group.
    Leave,
    /// It asks for a barrier; `other` is 1 if that carries a message.
    Sync,
    /// `other` is to be the sequencer.
    HandOver,
    /// It stops for `for_ns`.
    Pause,
    /// It hears nothing of `other` for `for_ns`.
    Cut,
    /// Nothing passes between the processes in the bitmap `other` and the rest for `for_ns`; `process` means nothing.
    Partition,
    /// Its clock jumps forward by `for_ns`.
    ClockJump,
    /// An operator has it found the group again, and tries for `for_ns` while something stands in the way.
    Recover,
    /// No datagram longer than `other` bytes passes from it or to it for `for_ns`: a path with a smaller MTU.
    Narrow,
    /// Its host gets another address, the one with the number `other`: it goes on there, and what is under way to the
    /// earlier one is lost.
    Move,
    /// No datagram longer than the lower 16 bits of `other` passes to it from the processes in the bitmap of the bits
    /// above, for `for_ns`: the path is narrower in one direction.
    NarrowTo,
    /// The detectors of the group that it leans on suspect the member `other` for `for_ns`; at 0, no longer.
    Judge,
    /// Some of what its disk has stored is damaged, which it learns when it starts again.
    Damage,
    /// They watch the member `other` no longer: it has been removed from the view of that group.
    Unwatch,
}

/// One event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EventPlan {
    /// When.
    pub at_ns: u64,
    /// What.
    pub what: Happening,
    /// The process that it happens to: members first, then observers.
    pub process: u16,
    /// The other process, or what else the event needs.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub other: u64,
    /// For how long, or how far.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub for_ns: u64,
}

/// One observer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ObserverPlan {
    /// When it comes.
    pub joins_at_ns: u64,
    /// Where it begins.
    pub start: Start,
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
    /// Delivered with one bit flipped.
    pub corrupt_permille: u32,
    /// Of all steps: the process stops for `pause_max_ns` at most.
    pub pause_permille: u32,
    /// The longest pause.
    pub pause_max_ns: u64,
    /// Of all sends: the network takes only a part of what it is offered.
    pub refuse_permille: u32,
    /// Bytes a second that the link of each observer bears; 0: any number.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub observers_bear_bytes_per_s: u64,
}

/// One run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// The order of delivery.
    pub order: Order,
    /// How many members.
    pub members: u16,
    /// The member that gives the order.
    pub sequencer: u16,
    /// How many receivers every process is configured with.
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
    /// Messages of all publishers together.
    pub messages: u32,
    /// The most messages published in one go.
    pub burst: u32,
    /// The mean time between two bursts of one publisher.
    pub interval_ns: u64,
    /// Of all messages: of any length up to the longest, rather than small.
    pub large_permille: u32,
    /// The latency from process to process.
    pub latency_ns: u64,
    /// What is added to it, at random.
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
    /// By process: how far its clock is ahead of the world's.
    pub clock_offsets_ns: Vec<u64>,
    /// Members that publish.
    pub publishers: Vec<u16>,
    /// What goes wrong.
    pub faults: FaultPlan,
    /// Observers, the earliest first.
    pub observers: Vec<ObserverPlan>,
    /// Whether a process orders and delivers what it received before it publishes and sends, as the inline node does.
    #[serde(default)]
    pub order_early: bool,
    /// When messages are delivered.
    #[serde(default)]
    pub reliability: Reliability,
    /// Whether members send on what they receive.
    #[serde(default)]
    pub relay: bool,
    /// At best effort: how long a gap is waited for, or 0.
    #[serde(default)]
    pub deadline_ns: u64,
    /// How failures are noticed.
    #[serde(default)]
    pub detector: DetectorPlan,
    /// The latency from a process to another that comes earlier in the list, if it differs.
    #[serde(default)]
    pub latency_back_ns: u64,
    /// By process: how much too fast its clock runs, in millionths.
    #[serde(default)]
    pub drift_ppm: Vec<i32>,
    /// A member that begins a ballot is cut off, so that nothing is ever decided until the faults freeze.
    #[serde(default)]
    pub adversary: bool,
    /// Each step of a ballot reaches only some of the members that it is for, so that ballots compete.
    #[serde(default)]
    pub duels: bool,
    /// Whether most messages carry their topic's name.
    #[serde(default)]
    pub named: bool,
    /// Of all sends: in the middle of a burst, so that the datagram that is being filled stays open.
    #[serde(default)]
    pub unsealed_permille: u32,
    /// Of all deliveries: with one call in a step, however much is due, as a node delivers.
    #[serde(default)]
    pub single_delivery_permille: u32,
    /// How long an application takes at most to give its state to a joiner; some then give none.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub snapshot_late_ns: u64,
    /// How many bytes of a view's messages a member stores before the view ends; 0 for any number.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub stored_view_bytes: u64,
    /// What happens to processes, the earliest first.
    #[serde(default)]
    pub events: Vec<EventPlan>,
    /// How long a client waits between two messages at least; 0: not at all.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub client_interval_ns: u64,
    /// Whether clients' messages are as long as the group allows, and longer; else each fits a datagram.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub long_client_messages: bool,
    /// Links that stall as TCP does under loss, in place of links that lose.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stalls: Option<StallPlan>,
    /// Restarts of the whole group.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub restarts: Vec<RestartPlan>,
    /// Recorded datagrams that are sent again, later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replay: Option<ReplayPlan>,
    /// Whether a process ends once it reports that it is out of the group; a removed process starts again.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ends_when_out: bool,
    /// What applications do with locks and elections, if anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub locks: Option<LockPlan>,
    /// Members run their coordinators beside their processes, and what the two exchange arrives late.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hand_over: Option<HandOverPlan>,
    /// Publishers wait for observers, for each at most so long; 0 if they do not wait.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub gating_timeout_ns: u64,
    /// Publishers send more slowly for observers that lose too much.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub paced: bool,
    /// How long a sync of a member's disk takes at most, where members store what they report to others.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub sync_max_ns: u64,
}

/// Low enough that publishers reach it, and high enough that what was lost is repaired before a run ends.
const PACED_FLOOR_BYTES_PER_S: u64 = 5_000_000;

impl Plan {
    /// Checks that it can be played.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn check(&self) -> Result<(), String> {
        let slots = self.observers.iter().map(|observer| observer.receive_log_slots);
        if slots.chain([self.log_slots, self.receive_log_slots]).any(|slots| !slots.is_power_of_two()) {
            return Err("a log does not hold a power of two of datagrams: change the plan's log slots".into());
        }
        if self.window_slots.len() != usize::from(self.members) {
            return Err(format!("window_slots has {} entries for {} members", self.window_slots.len(), self.members));
        }
        if self.publishers.iter().any(|publisher| *publisher >= self.members) {
            return Err("a publisher is no member: name members only".into());
        }
        if self.publishers.is_empty() || self.batch == 0 {
            return Err("no member publishes, or batch is 0: name a publisher and a batch".into());
        }
        // Clients and frozen processes can only be cut off.
        let frozen: u32 = self.restarts.iter().map(|restart| restart.frozen.count_ones()).sum();
        let all = self.processes() + usize::from(self.clients) + frozen as usize;
        let bound = |event: &EventPlan| if event.what == Happening::Cut { all } else { self.processes() };
        if self.events.iter().any(|event| usize::from(event.process) >= bound(event)) {
            return Err("an event names a process that does not exist".into());
        }
        self.locks.as_ref().map_or(Ok(()), |locks| locks.check(self.members))?;
        if self.hand_over.is_some() && !self.restarts.is_empty() {
            return Err("a hand-over and restarts of the whole group exclude each other: leave out one".into());
        }
        for index in 0..self.processes() {
            self.config(index, address(index), 0, None).check().map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    /// The configuration of process number `index`: members first, then observers.
    pub(crate) fn config(&self, index: usize, address: Address, seed: u64, mutant: Option<Mutant>) -> Config {
        let members = usize::from(self.members);
        let observer = index.checked_sub(members).and_then(|i| self.observers.get(i));
        let role = if observer.is_some() { Role::Observer } else { Role::Member(Rank(index as u16)) };
        let mut config = Config::new(GROUP, self.members, role);
        (config.order, config.reliability) = (self.order, self.reliability);
        config.start = observer.map_or(Start::Live, |observer| observer.start);
        (config.relay, config.deadline_ns) = (self.relay, self.deadline_ns);
        config.snapshots = true;
        if let Some(locks) = &self.locks {
            (config.mutex, config.election) = (locks.mutex, locks.election);
        }
        config.sequencer = Rank(self.sequencer);
        config.incarnation = Incarnation(index as u32 + 1);
        config.address = address;
        config.seed = seed ^ (index as u64) << 32;
        config.mutant = mutant;
        config.timing = self.timing();
        if self.gating_timeout_ns > 0 {
            (config.flow, config.timing.gating_timeout_ns) = (Flow::Gating, self.gating_timeout_ns);
        }
        if self.paced {
            (config.flow, config.rate.floor_bytes_per_s) = (Flow::Paced, PACED_FLOOR_BYTES_PER_S);
        }
        let receive_log_slots = observer.map_or(self.receive_log_slots, |observer| observer.receive_log_slots);
        let window_slots = self.window_slots.get(index).copied().unwrap_or(16);
        config.limits = Limits {
            mtu_bytes: self.mtu_bytes,
            log_bytes: self.log_slots as usize * self.mtu_bytes,
            receive_log_bytes: receive_log_slots as usize * self.mtu_bytes,
            window_bytes: window_slots as usize * self.mtu_bytes,
            max_message_bytes: self.max_message_bytes,
            receivers: self.receivers,
            repairs_per_s: self.repairs_per_s,
            prefault: false,
            max_snapshot_bytes: SNAPSHOT_BYTES,
            stored_view_bytes: if self.stored_view_bytes > 0 { self.stored_view_bytes } else { u64::MAX },
        };
        config
    }

    /// How long each thing takes before a process acts on it.
    pub(crate) fn timing(&self) -> Timing {
        let mut timing = if self.detector.fast { Timing::fast() } else { Timing::default() };
        timing.reorder_grace_ns = self.reorder_grace_ns;
        if self.detector.patient {
            timing = Timing { reorder_grace_ns: timing.reorder_grace_ns, ..Timing::patient() };
        }
        if self.detector.leaning {
            timing = timing.leaning();
        }
        let detector = &mut timing.detector;
        (detector.push, detector.pull, detector.phi) = (self.detector.push, self.detector.pull, self.detector.phi);
        detector.evidence = self.detector.evidence_after_ns > 0;
        // Soon enough that a member that was left out comes back within the run.
        let scale = if self.detector.fast { 1 } else { 4 };
        timing.membership.rejoin_min_ns = 20 * MS * scale;
        timing.membership.rejoin_max_ns = 200 * MS * scale;
        timing
    }

    /// Whether messages may be lost.
    pub(crate) fn is_lossy(&self) -> bool {
        self.reliability < Reliability::Reliable
    }

    /// Whether the group's own messages stand between the applications', which see neither them nor their numbers.
    pub(crate) fn has_commands(&self) -> bool {
        self.locks.as_ref().is_some_and(|locks| locks.mutex == MutexKind::Replicated)
    }

    /// Members and observers.
    pub(crate) fn processes(&self) -> usize {
        usize::from(self.members) + self.observers.len()
    }

    /// Whether processes of one generation of the group meet those of another.
    pub(crate) fn has_generations(&self) -> bool {
        !self.restarts.is_empty() || self.events.iter().any(|event| event.what == Happening::Recover)
    }

    /// Whether nothing at all goes wrong that could make one process suspect another.
    pub(crate) fn is_calm(&self) -> bool {
        let doubtless = |event: &EventPlan| matches!(event.what, Happening::Sync);
        let is_kind = self.stalls.is_none() && self.restarts.is_empty() && self.replay.is_none();
        let is_kind = is_kind && self.hand_over.is_none();
        self.faults.is_calm() && is_kind && !self.adversary && !self.duels && self.events.iter().all(doubtless)
    }

    /// Datagrams of one stream that can be under way to a member: computed here a second time, for the checkers.
    pub(crate) fn window(&self, member: usize) -> u64 {
        let slots = self.window_slots.get(member).copied().unwrap_or(16).min(self.receive_log_slots);
        u64::from(slots)
    }

    /// The bytes that fit into one frame without extensions.
    pub(crate) fn frame_bytes(&self) -> usize {
        self.mtu_bytes - HEADER_BYTES - bourdon_wire::FRAME_HEADER_BYTES
    }

    /// The longest message that clients publish.
    pub(crate) fn client_max_bytes(&self) -> usize {
        if self.long_client_messages {
            return self.max_message_bytes * 9 / 8;
        }
        let name_bytes = if self.named { 1 + NAME_MAX_BYTES } else { 0 };
        self.frame_bytes() - ClientRequest::BYTES - name_bytes
    }
}

impl FaultPlan {
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
            refuse_permille: 0,
            observers_bear_bytes_per_s: 0,
        }
    }

    fn is_calm(&self) -> bool {
        let rates = [self.drop_permille, self.delay_permille, self.corrupt_permille, self.pause_permille];
        let rates = rates.iter().chain([&self.reorder_permille, &self.refuse_permille]);
        self.observers_bear_bytes_per_s == 0 && { rates }.all(|rate| *rate == 0)
    }
}

/// The address of process or client number `index`.
pub(crate) fn address(index: usize) -> Address {
    address_in(0, index)
}

/// An address that a process gets later; no other process has it then.
pub(crate) fn later_address(number: u64, index: usize) -> Address {
    SocketAddr::from(([10, 1, number as u8, 1], 1000 + index as u16)).into()
}

/// The address of a member that starts after so many restarts of the whole group: its old process may still live.
pub(crate) fn address_in(generation: u32, index: usize) -> Address {
    SocketAddr::from(([10, 0, generation as u8, 1], 1000 + index as u16)).into()
}

#[allow(clippy::trivially_copy_pass_by_ref)] // as serde wants it
pub(crate) fn is_zero(value: &u64) -> bool {
    *value == 0
}
