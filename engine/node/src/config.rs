//! What a node is configured with: in Rust by filling in this struct, on disk as `bourdon.toml`.
//!
//! A misspelt key that is silently ignored is found in production; so unknown keys are refused, with their place in the
//! file, and everything that can be checked without the network is checked before any socket is opened.

mod channels;
mod ranges;
mod sizes;

pub use bourdon_protocol::{ElectionKind, FlowMode, Limits, MutexKind, Order, Quorum, Rate, Reliability, Start};
use bourdon_wire::TopicId;
pub use channels::full_name;
pub(crate) use channels::{group_of, in_channel};
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

/// A node's whole configuration. `docs/configuration.md` lists the keys.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct Settings {
    /// What must be the same at every process of the group.
    pub group: GroupSettings,
    /// Its channels besides the group's own stream.
    #[serde(rename = "channel")]
    pub channels: Vec<ChannelSettings>,
    /// What this process is.
    pub process: ProcessSettings,
    /// How it reaches the others.
    pub network: NetworkSettings,
    /// The bounds.
    pub limits: Limits,
    /// How long things take.
    pub timing: TimingSettings,
    /// Whether publishers wait for observers.
    pub flow: FlowSettings,
    /// How failures are detected.
    pub detector: DetectorSettings,
    /// Where it runs.
    pub threads: ThreadSettings,
    /// Faults to inject on purpose.
    pub faults: FaultSettings,
}

/// What must be the same at every process of the group.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct GroupSettings {
    /// The group's name.
    pub name: String,
    /// Its multicast address and port.
    pub address: SocketAddr,
    /// How many members are configured.
    pub members: u16,
    /// The order of delivery.
    pub order: Order,
    /// How much may be lost.
    pub reliability: Reliability,
    /// Whether every member sends on what it receives for the first time.
    pub relay: bool,
    /// At best effort: after so long a gap is given up though its sender lives. 0 for never.
    pub deadline_ns: u64,
    /// Whether every receiver acknowledges every datagram at once, to compare.
    pub ack_each: bool,
    /// The rank of the member that puts messages in order.
    pub sequencer: u16,
    /// Of which members a quorum goes on from one view to the next.
    pub quorum: Quorum,
    /// Which algorithm grants locks.
    pub mutex: MutexKind,
    /// Which algorithm elects leaders.
    pub election: ElectionKind,
    /// The topics in use, if they are to be checked.
    pub topics: Vec<String>,
}

/// A channel: a stream of its own, with its own view, address and guarantee. See `channels.rs`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct ChannelSettings {
    /// The channel's name; on the network and in tools it is `group/name`.
    pub name: String,
    /// Its multicast address and port.
    pub address: SocketAddr,
    /// The order of delivery; the group's, if left out.
    pub order: Option<Order>,
    /// How much may be lost; the group's, if left out.
    pub reliability: Option<Reliability>,
    /// Which algorithm grants its locks; the group's, if left out.
    pub mutex: Option<MutexKind>,
    /// Which algorithm elects its leaders; the group's, if left out.
    pub election: Option<ElectionKind>,
    /// Whether this process waits for its observers, or asks its publishers to wait; `flow.mode`, if left out.
    pub flow: Option<FlowMode>,
    /// The ranks of the group's members that are members of it, by which they are numbered in it; all, if left out.
    pub members: Option<Vec<u16>>,
    /// Which detectors watch its members.
    #[serde(default)]
    pub detector: ChannelDetector,
    /// Over tcp: its members' addresses, by their ranks in it; connections of its own need addresses of its own.
    pub peers: Option<Vec<SocketAddr>>,
    /// Over tcp: where this process listens for it; left out, at its own place in `peers`.
    pub listen: Option<SocketAddr>,
}

/// Which detectors watch the members of a channel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum ChannelDetector {
    /// The channel's own, with the times of the group's.
    #[default]
    Own,
    /// The group's; the channel's own are slow, and notice what those can't.
    Group,
}

/// What this process is.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct ProcessSettings {
    /// Member or observer.
    pub role: Role,
    /// A member's rank.
    pub rank: u16,
    /// Where an observer that comes late begins.
    pub start: Start,
    /// Whether the application gives its state to members that join, and takes it when it joins.
    pub snapshots: bool,
    /// Whether the application takes [requests](crate::Request). Others are declined at once.
    pub requests: bool,
    /// Where the group's highest birth is stored; by default `bourdon` in this user's state directory.
    pub state_directory: Option<PathBuf>,
}

/// The roles of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Role {
    /// One of the members, by its rank: it publishes, orders and acknowledges.
    Member,
    /// It delivers what the members publish, and has no part in views.
    Observer,
}

/// How this process reaches the others.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct NetworkSettings {
    /// The transport.
    pub transport: Transport,
    /// The one interface that traffic uses.
    pub interface: String,
    /// Whose multicasts are received; every sender's if none is named.
    pub sources: Vec<IpAddr>,
    /// How many routers a multicast may cross, plus one.
    pub ttl: u32,
    /// Whether other processes of this host receive what this process multicasts; on `lo` they always do.
    pub multicast_loop: bool,
    /// What to ask of the kernel as a receive buffer.
    pub receive_buffer_bytes: usize,
    /// Whether runs of datagrams cross the kernel in one piece (GSO, GRO).
    pub offload: bool,
    /// Whether the kernel notes when it receives each datagram.
    pub receive_timestamps: bool,
    /// Whether members hold TCP connections to each other, which show at once that a process is gone.
    pub links: bool,
    /// Over tcp: the members' addresses, by rank.
    pub peers: Vec<SocketAddr>,
    /// Over tcp: where this process listens; left out, at its own place in `peers`.
    pub listen: Option<SocketAddr>,
}

/// The available transports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Transport {
    /// UDP multicast by spinning sockets or `io_uring`.
    Udp,
    /// UDP multicast by mio.
    Portable,
    /// A mesh of TCP connections.
    Tcp,
    /// UDP multicast, and TCP for peers that it does not reach.
    Auto,
}

/// How long things take, in nanoseconds.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct TimingSettings {
    /// A datagram received is acknowledged at the latest after this (200 us).
    pub ack_delay_ns: u64,
    /// The first heartbeat after the last datagram (1 ms): how long a lost tail goes unnoticed at most.
    pub heartbeat_min_ns: u64,
    /// A request for repair is not sent again before this (1 ms).
    pub nak_retry_min_ns: u64,
    /// A request for repair is sent again at the latest after this (20 ms).
    pub nak_retry_max_ns: u64,
    /// How long a missing datagram may be mere reordering before a repair is requested (0).
    pub reorder_grace_ns: u64,
    /// The longest time between heartbeats; left out, the value of the detector's profile: 10 ms, 2 ms or 20 ms.
    pub heartbeat_max_ns: Option<u64>,
}

/// Whether publishers wait for observers, and how fast they send; see `docs/protocols/gates.md` and `pacing.md`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct FlowSettings {
    /// An observer asks for it; a member grants at most this.
    pub mode: FlowMode,
    /// How long one observer can hold a publisher up.
    pub gating_timeout_ns: u64,
    /// How fast a member sends its stream at most, repairs included.
    pub rate_limit_bytes_per_s: Option<u64>,
    /// How slowly observers that lose too much can make a member send; left out: 10 MB/s, or the limit if that is
    /// lower.
    pub rate_floor_bytes_per_s: Option<u64>,
}

/// Which profile of times a group is watched by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Profile {
    /// Failures show within 100 ms; full load on a host rarely makes the group evict a member that lives.
    #[default]
    Default,
    /// Failures show within 20 ms, on hosts with cores to spare.
    Fast,
    /// Failures show within two seconds; a connection that retransmits evicts no member: for TCP where packets are
    /// lost.
    Patient,
}

/// How failures are noticed: any of four detectors suspects; see `bourdon_protocol::control::detector`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct DetectorSettings {
    /// The times that are not given below.
    pub profile: Profile,
    /// Nothing heard on the multicast path.
    pub push: bool,
    /// Pings unanswered on the unicast path.
    pub pull: bool,
    /// Heartbeats later than the past makes likely.
    pub phi: bool,
    /// The process is gone: its links were reset.
    pub evidence: bool,
    /// Push suspects after so long.
    pub suspect_after_ns: Option<u64>,
    /// Pull suspects after so long.
    pub pull_after_ns: Option<u64>,
    /// Between two pings.
    pub ping_interval_ns: Option<u64>,
    /// Phi suspects at this level: a healthy gap is as long once in 10^φ.
    pub phi_threshold: Option<f64>,
    /// In a channel that leans on the group's detectors: its members' ranks in the group. All above is about the
    /// group's then. No file sets it: [`Settings::for_channel`] does.
    #[serde(skip)]
    pub leans: Option<Vec<u16>>,
}

/// Where a node runs and how it idles.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct ThreadSettings {
    /// What the data agent does while nothing comes.
    pub idle: IdleStrategy,
    /// The core the data agent is pinned to.
    pub core: Option<usize>,
    /// How many threads run the streams of one node: the group's own and its channels'.
    pub data_agents: usize,
    /// How much each publication of a threaded node queues.
    pub publication_ring_bytes: usize,
    /// How much each subscription of a threaded node queues.
    pub subscription_ring_bytes: usize,
    /// How long a node that is dropped goes on at most, to send what it accepted and await its acknowledgement, in
    /// nanoseconds; with 0 it discards all that is not acknowledged by then.
    pub drop_timeout_ns: u64,
    /// Where counters and the admin socket are; by default a directory of this user's.
    pub directory: Option<PathBuf>,
}

/// What a thread does while nothing comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum IdleStrategy {
    /// Polls again at once: the lowest latency, a whole core.
    Spin,
    /// Lets other threads run between two rounds.
    Yield,
    /// Spins, then yields, then sleeps ever longer, up to a millisecond.
    Backoff,
    /// Sleeps in the kernel until something comes.
    Park,
}

/// Faults put into this process's receiving side.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct FaultSettings {
    /// How many received datagrams are dropped.
    pub drop_percent: f64,
    /// How many are received twice.
    pub duplicate_percent: f64,
    /// How many are received later than one that was sent after them.
    pub reorder_percent: f64,
    /// What the choice is drawn from: the same seed drops the same datagrams.
    pub seed: u64,
}

impl Default for GroupSettings {
    fn default() -> Self {
        Self {
            name: "default".to_owned(),
            address: SocketAddr::from((Ipv4Addr::new(239, 255, 74, 1), 7401)),
            members: 1,
            order: Order::Total,
            reliability: Reliability::Reliable,
            relay: false,
            deadline_ns: 0,
            ack_each: false,
            sequencer: 0,
            quorum: Quorum::View,
            mutex: MutexKind::Replicated,
            election: ElectionKind::Bully,
            topics: Vec::new(),
        }
    }
}

impl Default for ProcessSettings {
    fn default() -> Self {
        Self {
            role: Role::Member,
            rank: 0,
            start: Start::Live,
            snapshots: false,
            requests: false,
            state_directory: None,
        }
    }
}

impl Default for NetworkSettings {
    fn default() -> Self {
        Self {
            transport: Transport::Udp,
            interface: "lo".to_owned(),
            sources: Vec::new(),
            ttl: 1,
            multicast_loop: true,
            receive_buffer_bytes: 8 << 20,
            offload: true,
            receive_timestamps: false,
            links: true,
            peers: Vec::new(),
            listen: None,
        }
    }
}

impl Default for DetectorSettings {
    fn default() -> Self {
        Self {
            profile: Profile::Default,
            push: true,
            pull: true,
            phi: true,
            evidence: true,
            suspect_after_ns: None,
            pull_after_ns: None,
            ping_interval_ns: None,
            phi_threshold: None,
            leans: None,
        }
    }
}

impl Default for TimingSettings {
    fn default() -> Self {
        let timing = bourdon_protocol::Timing::default();
        Self {
            ack_delay_ns: timing.ack_delay_ns,
            heartbeat_min_ns: timing.heartbeat_min_ns,
            nak_retry_min_ns: timing.nak_retry_min_ns,
            nak_retry_max_ns: timing.nak_retry_max_ns,
            reorder_grace_ns: timing.reorder_grace_ns,
            heartbeat_max_ns: None,
        }
    }
}

impl Default for FlowSettings {
    fn default() -> Self {
        let gating_timeout_ns = bourdon_protocol::Timing::default().gating_timeout_ns;
        Self {
            mode: FlowMode::default(),
            gating_timeout_ns,
            rate_limit_bytes_per_s: None,
            rate_floor_bytes_per_s: None,
        }
    }
}

impl Default for ThreadSettings {
    fn default() -> Self {
        Self {
            idle: IdleStrategy::Park,
            core: None,
            data_agents: 1,
            publication_ring_bytes: 8 << 20,
            subscription_ring_bytes: 8 << 20,
            drop_timeout_ns: 1_000_000_000,
            directory: None,
        }
    }
}

/// Why a configuration can't be used. It comes before any socket is opened; the text gives the value and what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SettingsError {
    /// [`Settings::load`] can't read the file: name another.
    #[error("can't read {}: {source}; name the file with --config", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The file is no TOML, has an unknown key, or a value of the wrong type: mend the line that the text gives.
    #[error("{} is not a usable configuration: {source}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Where, and what is wrong.
        source: Box<toml::de::Error>,
    },
    /// Two of `group.topics` can't be distinguished where messages carry no names: rename one.
    #[error("topics {first:?} and {second:?} have the same 16-bit id: rename one of them")]
    TopicsCollide {
        /// One of them.
        first: String,
        /// The other.
        second: String,
    },
    /// One of `group.topics` is no topic's name.
    #[error("group.topics: {name:?}: {source}")]
    Topic {
        /// The text.
        name: String,
        /// What is wrong with it.
        source: bourdon_wire::NameError,
    },
    /// A channel's section contradicts itself or its group.
    #[error("channel {channel:?}: {what}")]
    Channel {
        /// Its name.
        channel: String,
        /// What is wrong, and what to do.
        what: String,
    },
    /// The configuration has no channel of this name: the text lists those that it has.
    #[error("there is no channel {channel:?} of group {group:?}: {}", known(.channels))]
    NoChannel {
        /// The group's name.
        group: String,
        /// The name asked for.
        channel: String,
        /// Those that there are.
        channels: Vec<String>,
    },
    /// `group.name` is empty.
    #[error("the group's name (group.name) is empty: give it one, the same at every process of the group")]
    NoName,
    /// An address has port 0: no other process could send to it.
    #[error("{0} names no port: write it as 239.255.74.1:7401, with a port from 1 to 65535")]
    NoPort(SocketAddr),
    /// `network.peers` or `network.listen` does not suit the transport or the group: the text names the key.
    #[error("network.{what}")]
    Mesh {
        /// The key, what is wrong, and what to do.
        what: String,
    },
    /// One of `faults` is no percentage.
    #[error("{what} is {value} %: a percentage is between 0 and 100")]
    Percent {
        /// Which.
        what: &'static str,
        /// Its value.
        value: f64,
    },
    /// A time or threshold of the detectors is out of range.
    #[error("detector.{what} is {value}: it must be more than 0 and less than a day (or, for phi_threshold, 300)")]
    Detector {
        /// The key.
        what: &'static str,
        /// Its value, in nanoseconds if it is a time.
        value: f64,
    },
    /// All detectors are off: turn one on.
    #[error("detector: at least one of push, pull, phi and evidence must be on, or no failure is ever noticed")]
    NoDetector,
    /// A ring is too small for the longest message, or larger than any ring.
    #[error("threads.{what} is {bytes} bytes: with this max_message_bytes it must be {least} to {most}")]
    Ring {
        /// The key.
        what: &'static str,
        /// Its value.
        bytes: usize,
        /// The least.
        least: usize,
        /// The most.
        most: usize,
    },
    /// A number is out of range.
    #[error("{what} is {value}; it must be {least} to {most}")]
    Range {
        /// The key.
        what: &'static str,
        /// Its value.
        value: u64,
        /// The least.
        least: u64,
        /// The most.
        most: u64,
    },
    /// A size is beyond what Bourdon can use: lower it.
    #[error("{what} is {bytes} bytes; it must be at most {most}: lower it")]
    TooLarge {
        /// The key.
        what: &'static str,
        /// Its value.
        bytes: usize,
        /// The most.
        most: usize,
    },
    /// The kernel grants less memory than the logs and rings need: lower the size, or raise the limit.
    #[error(
        "{what} is {bytes} bytes, and this process needs {count} of that size; the kernel grants it less memory: lower \
         it, or raise the limit (ulimit -v, vm.overcommit_memory)"
    )]
    NoMemory {
        /// The key.
        what: &'static str,
        /// Its value.
        bytes: usize,
        /// How many of that size this process needs.
        count: usize,
    },
    /// Values that are right each for itself contradict each other: the text names them.
    #[error(transparent)]
    Protocol(#[from] bourdon_protocol::ConfigError),
}

impl Settings {
    /// Reads a configuration file.
    ///
    /// # Errors
    /// If it can't be read, has unknown keys, or contradicts itself; the text gives the place.
    pub fn load(path: &Path) -> Result<Self, SettingsError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| SettingsError::Unreadable { path: path.to_owned(), source })?;
        let settings: Self = toml::from_str(&text)
            .map_err(|source| SettingsError::Malformed { path: path.to_owned(), source: Box::new(source) })?;
        settings.check()?;
        Ok(settings)
    }

    /// Checks what can be checked without a network.
    ///
    /// # Errors
    /// What is wrong and what to do about it.
    pub fn check(&self) -> Result<(), SettingsError> {
        if self.group.name.trim().is_empty() {
            return Err(SettingsError::NoName);
        }
        if self.group.address.port() == 0 {
            return Err(SettingsError::NoPort(self.group.address));
        }
        for (index, second) in self.group.topics.iter().enumerate() {
            bourdon_wire::check_name(second).map_err(|source| SettingsError::Topic { name: second.clone(), source })?;
            let collides = |first: &&String| TopicId::of(first) == TopicId::of(second) && *first != second;
            if let Some(first) = self.group.topics[..index].iter().find(collides) {
                return Err(SettingsError::TopicsCollide { first: first.clone(), second: second.clone() });
            }
        }
        let faults = &self.faults;
        for (what, value) in [
            ("drop", faults.drop_percent),
            ("duplicate", faults.duplicate_percent),
            ("reorder", faults.reorder_percent),
        ] {
            if !(0.0..=100.0).contains(&value) {
                return Err(SettingsError::Percent { what, value });
            }
        }
        self.check_mesh()?;
        self.check_detector()?;
        self.check_sizes()?;
        self.check_ranges()?;
        self.protocol(usize::MAX).check()?;
        channels::check(self)
    }

    /// Whether all members are listed: a member or observer must hear each of them. A client needs one.
    pub(crate) fn check_peers(&self) -> Result<(), SettingsError> {
        let (listed, members) = (self.network.peers.len(), usize::from(self.group.members));
        if listed == 0 || listed == members {
            return Ok(());
        }
        Err(SettingsError::Mesh { what: format!("peers has {listed} addresses: list all {members} members, by rank") })
    }

    /// Whether the mesh's addresses are such that every member is found.
    fn check_mesh(&self) -> Result<(), SettingsError> {
        let network = &self.network;
        let refused = |what: String| Err(SettingsError::Mesh { what });
        let peers = &network.peers;
        if network.transport == Transport::Tcp && peers.is_empty() {
            return refused("peers is empty: over tcp it lists the members' addresses, by rank".to_owned());
        }
        if network.transport == Transport::Tcp && !network.sources.is_empty() {
            return refused("sources chooses among multicasts: over tcp network.peers lists the members".to_owned());
        }
        if self.process.role == Role::Member {
            self.check_peers()?;
        }
        for (rank, address) in peers.iter().chain(&network.listen).enumerate() {
            let nobody = address.port() == 0 || address.ip().is_unspecified() || address.ip().is_multicast();
            if nobody || address.is_ipv4() != peers.first().unwrap_or(address).is_ipv4() {
                return refused(format!(
                    "peers or listen names {address}: each is one host's address and port, all IPv4 or all IPv6"
                ));
            }
            if peers.iter().take(rank.min(peers.len())).any(|other| other == address) && rank < peers.len() {
                return refused(format!("peers lists {address} twice: each member has one of its own"));
            }
        }
        Ok(())
    }

    fn check_detector(&self) -> Result<(), SettingsError> {
        const DAY_NS: f64 = 86_400e9;
        let detector = &self.detector;
        let ns = |value: Option<u64>| value.map(|value| (value as f64, DAY_NS));
        for (what, value) in [
            ("suspect_after_ns", ns(detector.suspect_after_ns)),
            ("pull_after_ns", ns(detector.pull_after_ns)),
            ("ping_interval_ns", ns(detector.ping_interval_ns)),
            ("phi_threshold", detector.phi_threshold.map(|value| (value, 300.0))),
        ] {
            if let Some((value, most)) = value
                && !(value > 0.0 && value < most)
            {
                return Err(SettingsError::Detector { what, value });
            }
        }
        let any = detector.push || detector.pull || detector.phi || detector.evidence;
        if any { Ok(()) } else { Err(SettingsError::NoDetector) }
    }

    /// The times of the profile, with what was set by hand.
    fn timing(&self) -> bourdon_protocol::Timing {
        let (timing, detector) = (&self.timing, &self.detector);
        let mut times = match detector.profile {
            Profile::Default => bourdon_protocol::Timing::default(),
            Profile::Fast => bourdon_protocol::Timing::fast(),
            Profile::Patient => bourdon_protocol::Timing::patient(),
        };
        times.ack_delay_ns = timing.ack_delay_ns;
        times.heartbeat_min_ns = timing.heartbeat_min_ns;
        times.heartbeat_max_ns = timing.heartbeat_max_ns.unwrap_or(times.heartbeat_max_ns);
        times.nak_retry_min_ns = timing.nak_retry_min_ns;
        times.nak_retry_max_ns = timing.nak_retry_max_ns;
        times.reorder_grace_ns = timing.reorder_grace_ns;
        times.gating_timeout_ns = self.flow.gating_timeout_ns;
        let watch = &mut times.detector;
        watch.heartbeat_ns = times.heartbeat_max_ns;
        (watch.push, watch.pull, watch.phi) = (detector.push, detector.pull, detector.phi);
        watch.evidence = detector.evidence;
        watch.suspect_after_ns = detector.suspect_after_ns.unwrap_or(watch.suspect_after_ns);
        watch.pull_after_ns = detector.pull_after_ns.unwrap_or(watch.pull_after_ns);
        watch.ping_interval_ns = detector.ping_interval_ns.unwrap_or(watch.ping_interval_ns);
        watch.phi_threshold = detector.phi_threshold.unwrap_or(watch.phi_threshold);
        if detector.leans.is_some() { times.leaning() } else { times }
    }

    /// How fast a member sends.
    fn rate(&self) -> Rate {
        let limit_bytes_per_s = self.flow.rate_limit_bytes_per_s;
        let default = Rate::default().floor_bytes_per_s.min(limit_bytes_per_s.unwrap_or(u64::MAX));
        Rate { limit_bytes_per_s, floor_bytes_per_s: self.flow.rate_floor_bytes_per_s.unwrap_or(default) }
    }

    /// How many members' streams come through one receive buffer: over tcp each has its own.
    fn streams_a_buffer(&self) -> u16 {
        if self.network.transport == Transport::Tcp { 1 } else { self.group.members }
    }

    /// The protocol's share of it, given the receive buffer that was really granted.
    pub(crate) fn protocol(&self, granted_bytes: usize) -> bourdon_protocol::Config {
        use bourdon_protocol as p;
        use bourdon_wire::{GroupId, Rank};
        let role = match self.process.role {
            Role::Member => p::Role::Member(Rank(self.process.rank)),
            Role::Observer => p::Role::Observer,
        };
        let limits = &self.limits;
        let mut config = p::Config::new(GroupId::of(&self.group.name), self.group.members, role);
        (config.order, config.reliability) = (self.group.order, self.group.reliability);
        (config.relay, config.deadline_ns) = (self.group.relay, self.group.deadline_ns);
        config.feedback = if self.group.ack_each { p::Feedback::AckEach } else { p::Feedback::Nak };
        config.sequencer = Rank(self.group.sequencer);
        config.quorum = self.group.quorum;
        (config.flow, config.rate) = (self.flow.mode, self.rate());
        (config.mutex, config.election) = (self.group.mutex, self.group.election);
        config.start = self.process.start;
        config.limits = Limits {
            window_bytes: window_bytes(granted_bytes, limits.mtu_bytes, self.streams_a_buffer())
                .min(limits.receive_log_bytes / 2)
                .min(limits.log_bytes / 2),
            ..*limits
        };
        config.timing = self.timing();
        config.snapshots = self.process.snapshots;
        config
    }
}

fn known(channels: &[String]) -> String {
    match channels {
        [] => "the configuration names none (in a [[channel]] section)".to_owned(),
        names => format!("the configuration names {}", names.join(", ")),
    }
}

/// How many bytes of one stream a receive buffer holds: the kernel charges each datagram the power of two it allocates
/// for it and its own 256 bytes of bookkeeping, gives freed space back late (so a quarter stays unused), and every
/// stream that shares it may come at once.
fn window_bytes(granted_bytes: usize, mtu_bytes: usize, streams: u16) -> usize {
    let charged_bytes = (mtu_bytes + 448).next_power_of_two() + 256;
    granted_bytes / 4 * 3 / charged_bytes / usize::from(streams.max(1)) * mtu_bytes
}
