//! What a process is given before its first step, and the bounds that everything else stays within.

mod agreed;

use crate::control::coordination::{ElectionKind, MutexKind};
use crate::control::detector::DetectorTiming;
use crate::control::membership::MembershipTiming;
use crate::view::View;
pub use agreed::{Agreed, Difference, SettingValue};
use bourdon_wire::{
    Address, BIRTHS_END, GroupId, HEADER_BYTES, Incarnation, InstanceId, MTU_DEFAULT_BYTES, MTU_MIN_BYTES, Rank,
};

/// In which order messages are delivered. The same at all processes; a setting's default is [`Total`](Self::Total).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "kebab-case"))]
#[non_exhaustive]
pub enum Order {
    /// `unordered`: as they arrive.
    Unordered,
    /// `fifo`: the messages of each sender in the order it sent them.
    Fifo,
    /// `causal`: no message before a message that its sender had delivered when it sent it.
    Causal,
    /// `total` (also read from `total-causal`): all messages in one order, the same everywhere. It implies FIFO and
    /// causal order (see `data/total.rs`).
    #[cfg_attr(feature = "serde", serde(alias = "total-causal"))]
    Total,
    /// `realtime`: by the time of sending, on clocks that the group keeps together; a message that comes too late for
    /// that is flagged.
    #[cfg_attr(feature = "serde", serde(rename = "realtime"))]
    RealTime,
}

/// When a message may be delivered, and what may be lost. The same at all processes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "kebab-case"))]
#[non_exhaustive]
pub enum Reliability {
    /// `unreliable`: when it is received. What is missing is never requested and delays nothing; each loss is reported.
    Unreliable,
    /// `best-effort`: when it is received. What is missing is repaired as long as its sender lives; a loss is reported.
    BestEffort,
    /// `reliable`, the default: when it is received. The members that stay in the group agree on what was sent.
    #[default]
    Reliable,
    /// `uniform`: when a quorum of the view holds it. No message that any process has delivered is lost, even if all
    /// processes that delivered it crash.
    Uniform,
    /// `stable`: when every member of the view holds it.
    Stable,
    /// `durable`: when a quorum of the view has stored it. No message that any process has delivered is lost, even if
    /// all processes crash, as long as the storage of a quorum is left.
    Durable,
}

impl Reliability {
    /// Whether messages may be lost: nothing is agreed on, every loss is reported.
    pub fn is_lossy(self) -> bool {
        self < Self::Reliable
    }

    /// Whether messages wait until other members hold them before they are delivered.
    pub fn waits_for_others(self) -> bool {
        self > Self::Reliable
    }
}

/// How receivers report to a sender what they have received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Feedback {
    /// They request what is missing, and members report from time to time how far they have come.
    Nak,
    /// Every receiver, observers too, acknowledges every datagram to its sender at once: this drowns a sender with many
    /// receivers, and is here for comparison.
    AckEach,
}

/// Whether a publisher waits for an observer. An observer asks for it; a member grants at most what it is configured
/// with itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "kebab-case"))]
#[non_exhaustive]
pub enum Flow {
    /// `free`, the default: never. An observer that is too slow loses what repairs do not bring in time, and goes on at
    /// the present.
    #[default]
    Free,
    /// `paced`: not to a standstill. An observer that loses more than repairs make up for reports it, and the
    /// publisher sends more slowly, down to its floor (`flow.rate_floor_bytes_per_s`).
    Paced,
    /// `gating`: as for a member, but not in a view. A publisher stops waiting for an observer that is silent or too
    /// slow for a time (`flow.gating_timeout_ns`). A member that waits is paced as well.
    ///
    /// It must be set at the observer and at the members. A publisher begins to wait once the observer has asked for it
    /// and has caught up. What is published before that, the observer may lose. A member counts the observers that it
    /// waits for ([`Counter::GatingObservers`](crate::Counter::GatingObservers)): its counters file and `bourdon stat`
    /// have that as `gating_observers`. To lose nothing, publish once it counts the observer.
    Gating,
}

/// Of which members more than half must go on from one view to the next. The same at all processes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "kebab-case"))]
#[non_exhaustive]
pub enum Quorum {
    /// `view`, the default: of the view before. A group that loses its members one after the other continues down to
    /// the last member.
    #[default]
    View,
    /// `members`: of the configured members as well. A group with fewer stops and reports it.
    Members,
}

/// The role of this process in the group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// In the view: publishes, acknowledges, holds back the group when it falls behind.
    Member(Rank),
    /// Receives and delivers; is in no view. It sends rows only with [`Feedback::AckEach`], and reports its progress
    /// only with [`Flow::Gating`]: then publishers wait for it.
    Observer,
}

/// Where an observer that comes late begins. A setting's default is [`Live`](Self::Live).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "kebab-case"))]
#[non_exhaustive]
pub enum Start {
    /// `live`: at a member's present place in the order, without its state.
    Live,
    /// `oldest`: with the oldest message that can still be retransmitted. For observers only.
    Oldest,
    /// `snapshot`: with a member's snapshot, and the messages after it. For observers only: a member that joins takes a
    /// snapshot by itself. It needs an application that takes snapshots here (`process.snapshots`, or a subscription
    /// with `Subscribe::snapshots`), and members whose applications give them.
    Snapshot,
}

/// How long the engine waits before it acts, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Timing {
    /// A datagram received is acknowledged at the latest after this: short against a window at full speed, long against
    /// a burst.
    pub ack_delay_ns: u64,
    /// The first heartbeat after the last datagram: how long a lost tail goes unnoticed at most.
    pub heartbeat_min_ns: u64,
    /// The last: each heartbeat doubles the time to the next one up to this.
    pub heartbeat_max_ns: u64,
    /// A request for repair is not sent again before this, however short the measured round trip was.
    pub nak_retry_min_ns: u64,
    /// It is sent again at the latest after this, however many requests got no reply.
    pub nak_retry_max_ns: u64,
    /// How long a gap may be mere reordering before a repair is requested: 0 where there is a single path.
    pub reorder_grace_ns: u64,
    /// When a step of a view change is sent again, and when a proposer no longer waits for members that have not
    /// replied.
    pub ballot_retry_ns: u64,
    /// How long one observer can hold a publisher up.
    pub gating_timeout_ns: u64,
    /// How failures are noticed.
    pub detector: DetectorTiming,
    /// How long a failure must last before the view changes.
    pub membership: MembershipTiming,
}

impl Timing {
    /// For hosts with idle cores: failures are detected within 20 ms, and a host that is merely busy is suspected as
    /// well.
    pub fn fast() -> Self {
        Self {
            heartbeat_max_ns: 2_000_000,
            ballot_retry_ns: 2_000_000,
            detector: DetectorTiming::fast(),
            membership: MembershipTiming::fast(),
            ..Self::default()
        }
    }
}

impl Timing {
    /// For connections over networks that lose packets: see [`DetectorTiming::patient`].
    pub fn patient() -> Self {
        Self {
            heartbeat_max_ns: 20_000_000,
            ballot_retry_ns: 50_000_000,
            detector: DetectorTiming::patient(),
            membership: MembershipTiming::patient(),
            ..Self::default()
        }
    }

    /// For a channel that leans on the detectors of its group, which has these times: see [`DetectorTiming::leaning`].
    pub fn leaning(self) -> Self {
        let detector = self.detector.leaning();
        Self { heartbeat_max_ns: detector.heartbeat_ns.max(self.heartbeat_max_ns), detector, ..self }
    }
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            ack_delay_ns: 200_000,
            heartbeat_min_ns: 1_000_000,
            heartbeat_max_ns: 10_000_000,
            nak_retry_min_ns: 1_000_000,
            nak_retry_max_ns: 20_000_000,
            reorder_grace_ns: 0,
            ballot_retry_ns: 5_000_000,
            gating_timeout_ns: 1_000_000_000,
            detector: DetectorTiming::default(),
            membership: MembershipTiming::default(),
        }
    }
}

/// The bounds of everything that can grow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of the longest datagram.
    pub mtu_bytes: usize,
    /// What this process keeps of its own stream: the window, and what observers may still request.
    pub log_bytes: usize,
    /// What this process keeps of each other member's stream: hold-back queue and repair source.
    pub receive_log_bytes: usize,
    /// How many bytes of one stream the receiver's socket can hold: its share of the receive buffer really granted.
    pub window_bytes: usize,
    /// The longest message. A sender also refuses a message that is longer than a quarter of its window, so that one
    /// message never stalls a stream.
    pub max_message_bytes: usize,
    /// How many processes receive each multicast, as far as known: beyond 8, requests for repair back off.
    pub receivers: u32,
    /// Repairs a second that this process sends at most, so that a sick receiver can't take the network down.
    pub repairs_per_s: u32,
    /// The longest snapshot this process makes or accepts: it is kept whole.
    pub max_snapshot_bytes: usize,
    /// At `durable`: the oldest member ends a view, and goes on with the same members, once it has stored so many bytes
    /// of its messages. What lies before can then be discarded, and a restart reads no more than that.
    pub stored_view_bytes: u64,
    /// Whether the logs' memory is touched at the start. Otherwise each page costs a fault, a microsecond or several in
    /// a virtual machine, when a log first reaches it: as long as a message takes.
    pub prefault: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            mtu_bytes: MTU_DEFAULT_BYTES,
            log_bytes: 64 << 20,
            receive_log_bytes: 16 << 20,
            window_bytes: 4 << 20,
            max_message_bytes: 1 << 20,
            receivers: 8,
            repairs_per_s: 50_000,
            max_snapshot_bytes: 256 << 20,
            stored_view_bytes: 256 << 20,
            prefault: false,
        }
    }
}

/// How fast a member sends its stream, repairs included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Bytes a second at most, if there is a limit.
    pub limit_bytes_per_s: Option<u64>,
    /// Observers that lose too much lower the rate to this at most.
    pub floor_bytes_per_s: u64,
}

impl Rate {
    /// A slower stream is as good as none: a datagram of the largest size takes half a second.
    pub const FLOOR_MIN_BYTES_PER_S: u64 = 100_000;
    /// No network is faster.
    pub const MAX_BYTES_PER_S: u64 = 100_000_000_000;
}

impl Default for Rate {
    fn default() -> Self {
        Self { limit_bytes_per_s: None, floor_bytes_per_s: 10_000_000 }
    }
}

/// Everything a process is given.
#[derive(Clone, Debug)]
pub struct Config {
    /// The group.
    pub group: GroupId,
    /// How many ranks there are, from 0; the first view has them all.
    pub members: u16,
    /// The view to begin in, where it was agreed elsewhere; otherwise all members form it together.
    pub view: Option<View>,
    /// This process's role.
    pub role: Role,
    /// Its incarnation.
    pub incarnation: Incarnation,
    /// The order of delivery.
    pub order: Order,
    /// When a message may be delivered.
    pub reliability: Reliability,
    /// Whether every member forwards what it receives for the first time: the textbook's reliable multicast, in which
    /// no member needs to detect that a sender died, at n datagrams for one.
    pub relay: bool,
    /// Whether some heartbeats are as long as the data, so that a path that carries short datagrams only is found. Over
    /// a stream no datagram is too long.
    pub pads_heartbeats: bool,
    /// At best effort: a gap is given up after so long even if its sender lives. 0 for never.
    pub deadline_ns: u64,
    /// How receivers report to a sender what they have received.
    pub feedback: Feedback,
    /// For an observer, whether publishers are to wait for it; for a member, whether it waits for observers that ask.
    pub flow: Flow,
    /// How fast it may send.
    pub rate: Rate,
    /// Of which members a quorum goes on from one view to the next.
    pub quorum: Quorum,
    /// Which algorithm grants locks.
    pub mutex: MutexKind,
    /// Which algorithm elects leaders.
    pub election: ElectionKind,
    /// Which member numbers the messages, in total order.
    pub sequencer: Rank,
    /// Where an observer begins.
    pub start: Start,
    /// Whether the application makes and takes snapshots; without them a joiner begins with the messages that follow.
    pub snapshots: bool,
    /// At `durable`: whether a member stores the snapshots of its application, and hands the last one out when it
    /// starts again. Without it the application keeps its state itself.
    pub stores_snapshots: bool,
    /// The address at which other processes reach this process.
    pub address: Address,
    /// The TCP port at which this process's links are, or 0.
    pub link_port: u16,
    /// What to add to [`Instant`](bourdon_wire::Instant) to get nanoseconds since the UNIX epoch.
    pub wall_offset_ns: u64,
    /// The candidate instance id, used if this process founds the group: random, and not 0.
    pub instance_candidate: InstanceId,
    /// The highest birth of an instance that this process knows from earlier runs, or 0: the next birth is above it.
    pub birth_floor: u64,
    /// How many times the storage of this member was damaged and set aside, if it was in no view since; else 0. It
    /// forms no group then: the group whose messages it had stored may be waiting for others, and must not be taken for
    /// one that has not formed yet.
    pub storage_damaged: u16,
    /// Seeds the back-off of repair requests.
    pub seed: u64,
    /// Random bits that no other process knows: what cookies are made with (`control/cookie.rs`).
    pub secret: [u64; 2],
    /// Times.
    pub timing: Timing,
    /// Bounds.
    pub limits: Limits,
    /// A bug to plant; [`None`] except in the simulator's mutation check.
    pub mutant: Option<crate::Mutant>,
}

/// Why a configuration is refused. The text names the value and its range.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The number of members is out of its range.
    #[error("group.members is {members}; it must be 1 to {}", Rank::MAX.0 + 1)]
    Members {
        /// The number.
        members: u16,
    },
    /// This process's rank is not one of the group's.
    #[error("process.rank is {rank}; with group.members = {members} it must be 0 to {}", members - 1)]
    Rank {
        /// The rank.
        rank: Rank,
        /// How many members the group has.
        members: u16,
    },
    /// The sequencer's rank is not one of the group's.
    #[error("group.sequencer is {rank}; with group.members = {members} it must be 0 to {}", members - 1)]
    Sequencer {
        /// The rank.
        rank: Rank,
        /// How many members the group has.
        members: u16,
    },
    /// The longest datagram, in bytes, is out of its range.
    #[error("limits.mtu_bytes is {0}; it must be {MTU_MIN_BYTES} to {max}", max = Limits::MTU_MAX_BYTES)]
    Mtu(usize),
    /// The instance that this process would form is 0: a node draws it at random.
    #[error("an instance's candidate is random and not 0: draw it from the system's randomness")]
    Candidate,
    /// The stored birth of the group is not valid: remove the file.
    #[error("the stored birth {0} is not valid: births are milliseconds since 1970, below 2^48; remove the file")]
    BirthFloor(u64),
    /// The incarnation is 0: a node draws it at random.
    #[error("an incarnation is random and not 0: draw it from the system's randomness")]
    Incarnation,
    /// A deadline for repairs at a level that has none.
    #[error(
        "group.deadline_ns is set, which is for group.reliability = \"best-effort\": at other levels a gap is skipped \
         at once, or never"
    )]
    Deadline,
    /// The rate limit or its floor is out of its range.
    #[error(
        "flow.rate_limit_bytes_per_s is {limit}; it must be at least flow.rate_floor_bytes_per_s, {floor}, which is at \
         least {least}"
    )]
    Rate {
        /// The limit, in bytes a second.
        limit: u64,
        /// The floor, in bytes a second.
        floor: u64,
        /// The lowest floor, in bytes a second.
        least: u64,
    },
    /// A buffer is too small for datagrams of this length.
    #[error("{what} is {bytes} bytes; with this limits.mtu_bytes it must be at least {least}")]
    TooSmall {
        /// Which one.
        what: &'static str,
        /// Its size, in bytes.
        bytes: usize,
        /// The least size, in bytes.
        least: usize,
    },
}

impl Config {
    /// A member's or observer's configuration with everything else at its default.
    pub fn new(group: GroupId, members: u16, role: Role) -> Self {
        Self {
            group,
            members,
            view: None,
            role,
            incarnation: Incarnation(1),
            order: Order::Total,
            reliability: Reliability::Reliable,
            relay: false,
            pads_heartbeats: true,
            deadline_ns: 0,
            feedback: Feedback::Nak,
            flow: Flow::default(),
            rate: Rate::default(),
            quorum: Quorum::View,
            mutex: MutexKind::default(),
            election: ElectionKind::default(),
            sequencer: Rank(0),
            start: Start::Live,
            snapshots: false,
            stores_snapshots: true,
            address: Address::default(),
            link_port: 0,
            wall_offset_ns: 0,
            instance_candidate: InstanceId(1),
            birth_floor: 0,
            storage_damaged: 0,
            seed: 0,
            secret: [0; 2],
            timing: Timing::default(),
            limits: Limits::default(),
            mutant: None,
        }
    }

    /// This process's rank, if it is a member.
    pub fn rank(&self) -> Option<Rank> {
        match self.role {
            Role::Member(rank) => Some(rank),
            Role::Observer => None,
        }
    }

    /// The fewest members a view may have.
    pub(crate) fn members_min(&self) -> usize {
        match self.quorum {
            Quorum::View => 0,
            Quorum::Members => usize::from(self.members) / 2 + 1,
        }
    }

    /// What must be the same at every member, as one number: see [`Agreed`].
    pub fn fingerprint(&self) -> u64 {
        Agreed::of(self).number()
    }

    /// Whether the settings can work together.
    pub fn check(&self) -> Result<(), ConfigError> {
        let members = self.members;
        if members == 0 || members > Rank::MAX.0 + 1 {
            return Err(ConfigError::Members { members });
        }
        if let Some(rank) = self.rank()
            && rank.0 >= members
        {
            return Err(ConfigError::Rank { rank, members });
        }
        if self.sequencer.0 >= members {
            return Err(ConfigError::Sequencer { rank: self.sequencer, members });
        }
        if self.instance_candidate == InstanceId::NONE {
            return Err(ConfigError::Candidate);
        }
        if self.birth_floor >= BIRTHS_END {
            return Err(ConfigError::BirthFloor(self.birth_floor));
        }
        if self.incarnation == Incarnation(0) {
            return Err(ConfigError::Incarnation);
        }
        if self.deadline_ns > 0 && self.reliability != Reliability::BestEffort {
            return Err(ConfigError::Deadline);
        }
        let (limit, floor) = (self.rate.limit_bytes_per_s.unwrap_or(u64::MAX), self.rate.floor_bytes_per_s);
        if !(Rate::FLOOR_MIN_BYTES_PER_S..=Rate::MAX_BYTES_PER_S).contains(&floor) || limit < floor {
            return Err(ConfigError::Rate { limit, floor, least: Rate::FLOOR_MIN_BYTES_PER_S });
        }
        let limits = &self.limits;
        if !(MTU_MIN_BYTES..=Limits::MTU_MAX_BYTES).contains(&limits.mtu_bytes) {
            return Err(ConfigError::Mtu(limits.mtu_bytes));
        }
        let least = Limits::SLOTS_MIN * limits.mtu_bytes;
        for (what, bytes) in [
            ("limits.log_bytes", limits.log_bytes),
            ("limits.receive_log_bytes", limits.receive_log_bytes),
            ("the window (this member's share of the receive buffer)", limits.window_bytes),
        ] {
            if bytes < least {
                return Err(ConfigError::TooSmall { what, bytes, least });
            }
        }
        Ok(())
    }
}

// A log's slots are found by a mask, also in the smallest log; a datagram's length fits a slot's 16 bits.
const _: () = assert!(Limits::SLOTS_MIN.is_power_of_two());
const _: () = assert!(Limits::MTU_MAX_BYTES <= u16::MAX as usize && MTU_MIN_BYTES <= MTU_DEFAULT_BYTES);

impl Limits {
    /// The largest MTU: what one UDP datagram over IPv4 carries.
    pub const MTU_MAX_BYTES: usize = 65_507;
    /// No log holds fewer datagrams.
    pub(crate) const SLOTS_MIN: usize = 16;

    /// How many datagrams a log of so many bytes keeps: a power of two, so that a mask gives a number's slot.
    pub(crate) fn slots(&self, bytes: usize) -> usize {
        let most = (bytes / self.mtu_bytes).max(Self::SLOTS_MIN);
        let slots = 1 << most.ilog2();
        debug_assert!(slots >= Self::SLOTS_MIN && slots <= most, "{slots} datagrams of {most}");
        slots
    }

    /// The bytes of a datagram that are left for frames.
    pub(crate) fn frame_bytes(&self) -> usize {
        debug_assert!(self.mtu_bytes >= MTU_MIN_BYTES, "the configuration was checked");
        self.mtu_bytes - HEADER_BYTES
    }
}
