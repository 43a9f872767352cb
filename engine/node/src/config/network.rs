//! `[network]`: how this process reaches the others.

use super::{Role, Settings, SettingsError};
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, SocketAddr};

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

impl Settings {
    /// Whether all members are listed: a member or observer must hear each of them. A client needs one.
    pub(crate) fn check_peers(&self) -> Result<(), SettingsError> {
        let (listed, members) = (self.network.peers.len(), usize::from(self.group.members));
        if listed == 0 || listed == members {
            return Ok(());
        }
        Err(SettingsError::Mesh { what: format!("peers has {listed} addresses: list all {members} members, by rank") })
    }

    /// Whether the mesh's addresses are such that every member is found.
    pub(super) fn check_mesh(&self) -> Result<(), SettingsError> {
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
}
