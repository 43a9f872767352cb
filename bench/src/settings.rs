//! What the measurements between processes are configured with.

use bourdon::settings::{Flow, IdleStrategy};
use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// What all of them take
#[derive(Clone, Debug, Args)]
pub(crate) struct Common {
    /// Measure these beside Bourdon, in turn [default: raw; total-order: corosync; fanout: none]
    #[arg(long, value_enum, value_name = "NAME", value_delimiter = ',', conflicts_with = "no_peer")]
    pub(crate) peer: Vec<Peer>,
    /// Measure Bourdon alone
    #[arg(long)]
    pub(crate) no_peer: bool,
    /// The program of the peers in `bench/peers` [default: $BOURDON_PEERS, or bourdon-peers beside this program]
    #[arg(long, value_name = "PATH")]
    pub(crate) peers_program: Option<PathBuf>,
    /// What moves Bourdon's datagrams
    #[arg(long, value_enum, default_value = "udp")]
    pub(crate) transport: Transport,
    /// Bytes of a message
    #[arg(long, value_name = "B", default_value_t = 64, value_parser = clap::value_parser!(u32).range(16..=1_000_000))]
    pub(crate) size: u32,
    /// Bytes of the longest datagram
    #[arg(long, value_name = "B", default_value_t = 1408, value_parser = clap::value_parser!(u32).range(576..=65_000))]
    pub(crate) mtu: u32,
    /// Rounds, each of every system in turn
    #[arg(long, value_name = "R", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) rounds: u32,
    /// What a process does while nothing arrives [default: spin; total-order: yield]
    #[arg(long, value_enum)]
    pub(crate) idle: Option<Idle>,
    /// Send and receive without segmentation offload
    #[arg(long)]
    pub(crate) no_offload: bool,
    /// Write Bourdon's latencies as an HDR percentile file
    #[arg(long, value_name = "FILE")]
    pub(crate) hgrm: Option<PathBuf>,
    /// Write the result as an HTML page, as `report` does
    #[arg(long, value_name = "FILE")]
    pub(crate) html: Option<PathBuf>,
    /// One JSON object on stdout instead of a table
    #[arg(long)]
    pub(crate) json: bool,
}

/// What is measured and how
#[derive(Clone, Debug, Args)]
pub(crate) struct Settings {
    #[command(flatten)]
    pub(crate) common: Common,
    /// Messages a round [default: 50,000 round trips; 20,000,000 one way; as many as fit --seconds in total-order]
    #[arg(long, value_name = "K", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) count: Option<u64>,
    /// Seconds a round in `total-order` [default: 2]
    #[arg(long, value_name = "S", value_parser = clap::value_parser!(u64).range(1..=600))]
    pub(crate) seconds: Option<u64>,
    /// Round trips begun a second, at even intervals [default: each when the one before has ended]; in `total-order`
    /// messages a second of each member where latency is measured [default: 1000]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1_000_000_000))]
    pub(crate) rate: Option<u64>,
    /// Run the node in the measuring thread, or in a thread of its own behind rings
    #[arg(long, value_enum, default_value = "inline")]
    pub(crate) mode: Mode,
}

/// Where the processes of a measurement are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Place {
    /// On hosts of their own: network namespaces and veth pairs, one for two hosts, more on a bridge
    Veth,
    /// On one host
    Lo,
}

/// A system that is measured beside Bourdon.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Peer {
    /// The kernel's sockets with nothing around them
    Raw,
    /// A socket of AF_XDP with nothing around it, between two hosts
    RawXdp,
    /// Corosync's closed process groups
    Corosync,
    /// Aeron over UDP multicast
    Aeron,
    /// Aeron over shared memory
    AeronIpc,
    /// iceoryx2, over shared memory
    Iceoryx2,
    /// ZeroMQ over TCP
    Zeromq,
    /// NATS, through its server
    Nats,
    /// NATS JetStream, through three servers that store
    Jetstream,
    /// crossbeam's queue between threads
    Crossbeam,
    /// rtrb's ring between threads
    Rtrb,
    /// disruptor's ring between threads
    Disruptor,
}

impl Peer {
    /// Its name on the command line and in rows.
    pub fn name(self) -> String {
        self.to_possible_value().expect("every peer has a name").get_name().to_owned()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Transport {
    Udp,
    Portable,
    Xdp,
    Shm,
}

impl Transport {
    /// Its name in rows.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Udp => "udp",
            Self::Portable => "portable",
            Self::Xdp => "xdp",
            Self::Shm => "shm",
        }
    }
}

/// Reads a flow mode by its name in the settings of a node.
pub(crate) fn flow(name: &str) -> Result<Flow, String> {
    serde_json::from_value(name.into()).map_err(|error| error.to_string())
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Mode {
    Inline,
    Threaded,
}

/// What a process does while nothing arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Idle {
    /// Looks again at once.
    Spin,
    /// Gives its core to another thread that is ready.
    Yield,
    /// Spins, then yields, then sleeps.
    Backoff,
    /// Sleeps until it is woken.
    Park,
}

impl Idle {
    /// The pause of a link that nothing can wake: it spins, or gives its core to another thread.
    #[inline]
    pub fn pause(self) {
        match self {
            Self::Spin => std::hint::spin_loop(),
            Self::Yield | Self::Backoff | Self::Park => std::thread::yield_now(),
        }
    }
}

impl From<Idle> for IdleStrategy {
    fn from(idle: Idle) -> Self {
        match idle {
            Idle::Spin => Self::Spin,
            Idle::Yield => Self::Yield,
            Idle::Backoff => Self::Backoff,
            Idle::Park => Self::Park,
        }
    }
}
