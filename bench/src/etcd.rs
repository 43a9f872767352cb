//! etcd as a peer: a cluster of servers on this host, each a process with its own ports and folder.
//!
//! etcd keeps a log that a majority has flushed before it answers (Raft). All servers are on `127.0.0.1`, so the
//! network costs nothing; the caller chooses where their files are, because on a disk the flushes are most of the cost.
//! The package's own service, if it runs, is not touched.
//!
//! Invariant: [`Cluster::start`] returns when a leader is known to all servers and has committed a write.

#[cfg(feature = "etcd")]
mod client;
#[cfg(not(feature = "etcd"))]
#[path = "etcd/no_client.rs"]
mod client;

use crate::Failure;
use crate::scratch::{Scratch, Storage};
use crate::server::{self, Server, free_ports};
pub(crate) use client::Client;
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

const PROGRAM: &str = "etcd";
/// How long servers may take to find a leader, and a server to catch up.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
/// How long a server may take to report its state, before another is asked.
const ANSWER: Duration = Duration::from_millis(100);
/// How long to wait before asking again.
const RETRY: Duration = Duration::from_millis(10);
/// Another process may take a port between its choice and its use.
const ATTEMPTS: u32 = 3;

/// A server's view of its cluster.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Standing {
    pub(crate) id: u64,
    /// 0 while it knows none.
    pub(crate) leader: u64,
    pub(crate) log_index: u64,
    pub(crate) applied_index: u64,
}

impl Standing {
    pub(crate) fn leads(&self) -> bool {
        self.leader != 0 && self.leader == self.id
    }
}

/// The configuration of a cluster.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub(crate) servers: u16,
    pub(crate) storage: Storage,
    pub(crate) heartbeat_ms: u32,
    pub(crate) election_ms: u32,
}

impl Shape {
    /// The defaults: for hosts that a network separates.
    pub(crate) fn as_delivered(servers: u16, storage: Storage) -> Self {
        Self { servers, storage, heartbeat_ms: 100, election_ms: 1_000 }
    }

    /// The settings that a row reports.
    pub(crate) fn settings(&self, version: &str) -> Value {
        json!({
            "version": version,
            "servers": self.servers,
            "storage": self.storage,
            "interface": "lo",
            "client": "gRPC over one TCP connection that stays open",
            "heartbeat_ms": self.heartbeat_ms,
            "election_ms": self.election_ms,
            "pinned": false,
        })
    }
}

/// Its version, if it is installed and this build has a client of it.
pub(crate) fn version() -> Result<String, Failure> {
    let output = server::version(PROGRAM)
        .ok_or_else(|| Failure::Unusable("etcd is not installed: apt-get install etcd-server".into()))?;
    if !cfg!(feature = "etcd") {
        return Err(Failure::Unusable(
            "this build has no client of etcd: cargo build --release -p bourdon-bench --features etcd".into(),
        ));
    }
    let version = output.lines().next().and_then(|line| line.rsplit(' ').next());
    Ok(version.unwrap_or("unknown").to_owned())
}

/// One server.
struct Member {
    arguments: Vec<String>,
    server: Server,
    client: Client,
}

/// Servers that run; they are killed and their files removed when it is dropped.
pub(crate) struct Cluster {
    members: Vec<Member>,
    addresses: Vec<SocketAddr>,
    // This field comes after the servers: they are killed before their files are removed.
    scratch: Scratch,
}

impl Cluster {
    /// Starts servers and waits until they serve.
    pub(crate) fn start(shape: &Shape) -> Result<Self, Failure> {
        let mut attempt = 1;
        loop {
            let mut cluster = Self::spawn(shape)?;
            match cluster.wait_until_it_serves() {
                Ok(()) => return Ok(cluster),
                Err(failure) if attempt == ATTEMPTS => return Err(failure),
                Err(_) if cluster.members.iter_mut().any(|member| !member.server.runs()) => attempt += 1,
                Err(failure) => return Err(failure),
            }
        }
    }

    fn spawn(shape: &Shape) -> Result<Self, Failure> {
        let scratch = Scratch::make(shape.storage)?;
        let ports = free_ports(2 * usize::from(shape.servers))?;
        let (addresses, peers) = ports.split_at(shape.servers.into());
        let all: Vec<String> = peers.iter().enumerate().map(|(index, peer)| format!("{index}=http://{peer}")).collect();
        let mut cluster = Self { members: Vec::new(), addresses: addresses.to_vec(), scratch };
        for (index, (address, peer)) in addresses.iter().zip(peers).enumerate() {
            let folder = cluster.scratch.path().join(index.to_string());
            let arguments = vec![
                format!("--name={index}"),
                format!("--data-dir={}", folder.display()),
                format!("--listen-client-urls=http://{address}"),
                format!("--advertise-client-urls=http://{address}"),
                format!("--listen-peer-urls=http://{peer}"),
                format!("--initial-advertise-peer-urls=http://{peer}"),
                format!("--initial-cluster={}", all.join(",")),
                format!("--initial-cluster-token={}", cluster.scratch.path().display()),
                format!("--heartbeat-interval={}", shape.heartbeat_ms),
                format!("--election-timeout={}", shape.election_ms),
                "--logger=zap".to_owned(),
                "--log-level=warn".to_owned(),
            ];
            let server = cluster.launch(index, &arguments)?;
            cluster.members.push(Member { arguments, server, client: Client::new(*address)? });
        }
        Ok(cluster)
    }

    fn launch(&self, index: usize, arguments: &[String]) -> Result<Server, Failure> {
        let log = self.scratch.path().join(format!("{index}.log"));
        Server::start(PROGRAM, arguments, "ETCD_", &log)
    }

    /// Where clients reach a server.
    pub(crate) fn address(&self, index: usize) -> SocketAddr {
        self.addresses[index]
    }

    pub(crate) fn servers(&self) -> usize {
        self.members.len()
    }

    /// A server's current state.
    pub(crate) fn standing(&mut self, index: usize) -> Result<Standing, String> {
        self.members[index].client.standing(ANSWER)
    }

    /// The server that leads, as soon as all know it.
    pub(crate) fn leader(&mut self) -> Result<usize, Failure> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let standings: Vec<_> = (0..self.members.len()).filter_map(|index| self.standing(index).ok()).collect();
            let agreed = standings.iter().all(|standing| standing.leader == standings[0].leader);
            if standings.len() == self.members.len()
                && agreed
                && let Some(leader) = standings.iter().position(Standing::leads)
            {
                return Ok(leader);
            }
            if let Some(member) = self.members.iter_mut().find_map(|member| (!member.server.runs()).then_some(member)) {
                return Err(member.server.broken("it has ended"));
            }
            if Instant::now() > deadline {
                return Err(self.members[0].server.broken(format!("the servers know no leader after {PATIENCE:?}")));
            }
            std::thread::sleep(RETRY);
        }
    }

    fn wait_until_it_serves(&mut self) -> Result<(), Failure> {
        let leader = self.leader()?;
        self.put(leader, PATIENCE).map_err(|error| self.broken(leader, error))
    }

    /// Writes a value through a server; a majority has it when this returns.
    pub(crate) fn put(&mut self, index: usize, patience: Duration) -> Result<(), String> {
        self.members[index].client.put("bench", "written", patience)
    }

    /// Kills a server as a power cut would; returns the time.
    pub(crate) fn kill(&mut self, index: usize) -> Instant {
        let now = Instant::now();
        self.members[index].server.kill();
        now
    }

    /// Starts a server that was killed, and waits until it has all that the others have now.
    pub(crate) fn restart(&mut self, index: usize) -> Result<(), Failure> {
        let others = (0..self.members.len()).filter(|other| *other != index);
        let wanted = others.filter_map(|other| self.standing(other).ok()).map(|standing| standing.log_index).max();
        let wanted = wanted.ok_or_else(|| self.broken(index, "no server is left that knows what it has missed"))?;
        self.members[index].server = self.launch(index, &self.members[index].arguments)?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.standing(index) {
                Ok(standing) if standing.leader != 0 && standing.applied_index >= wanted => return Ok(()),
                _ if !self.members[index].server.runs() => return Err(self.broken(index, "it has ended")),
                _ if Instant::now() > deadline => return Err(self.broken(index, "it does not catch up")),
                _ => std::thread::sleep(RETRY),
            }
        }
    }

    /// Describes what a server did wrong.
    pub(crate) fn broken(&self, index: usize, why: impl std::fmt::Display) -> Failure {
        self.members[index].server.broken(why)
    }
}
