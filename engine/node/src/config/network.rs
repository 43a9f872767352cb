//! `[network]`: how this process reaches the others.

use super::ranges::{in_range, is_at_most};
use super::{Role, Settings, SettingsError};
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, SocketAddr};

/// IP has a byte for it.
const TTL_MAX: u32 = 255;
/// The kernel's bound, IFNAMSIZ with its zero.
const INTERFACE_NAME_MAX_BYTES: usize = 15;
/// The kernel counts a receive buffer in 31 bits, and doubles what is requested.
const RECEIVE_BUFFER_MAX_BYTES: usize = 1 << 30;

/// The network: how this process reaches the others.
///
/// ```toml
/// [network]
/// transport = "udp"
/// interface = "lo"
/// sources = []
/// ttl = 1
/// multicast_loop = true
/// receive_buffer_bytes = 8388608
/// offload = true
/// receive_timestamps = false
/// xdp_zero_copy = false
/// links = true
/// peers = []
/// # listen = "10.0.0.1:7402" # default: this member's own entry in peers
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct NetworkSettings {
    /// How datagrams are moved.
    ///
    /// Default [`Transport::Udp`]. The same at all processes, but that [`Udp`](Transport::Udp),
    /// [`Portable`](Transport::Portable) and [`Xdp`](Transport::Xdp) meet in one group.
    pub transport: Transport,
    /// The name of the one interface that traffic uses.
    ///
    /// Default `"lo"`: processes of this host only. An address, and what no interface can be called, is refused
    /// ([`Interface`](super::SettingsError::Interface)). With an interface that this host does not have, or that is
    /// down or without an address, a node can't be opened yet ([`Error::network_lost`](crate::Error::network_lost));
    /// `bourdon node` waits for it. Each process may have its own.
    pub interface: String,
    /// The addresses whose multicasts this process receives: every member that it is to hear. If none is listed, it
    /// receives from all. Groups in 232.0.0.0/8 and ff3x::/32 work only with a list.
    ///
    /// Default: none. With [`Transport::Tcp`] a list is refused ([`Mesh`](super::SettingsError::Mesh)). Each process
    /// may have its own; on `lo` all processes of a group list sources or none does.
    pub sources: Vec<IpAddr>,
    /// How many routers a multicast may cross, plus one; over IPv6 the hop limit.
    ///
    /// Default 1. From 1 to 255 ([`Range`](super::SettingsError::Range)). Each process may have its own.
    pub ttl: u32,
    /// Whether other processes of this host receive what this process multicasts (`IP_MULTICAST_LOOP`). `false` saves
    /// the kernel a copy of each datagram; a process of this host that is in the group would hear nothing. On `lo` it
    /// has no effect.
    ///
    /// Default `true`. Each process may have its own.
    pub multicast_loop: bool,
    /// The receive buffer to request from the kernel, in bytes. The window of a sender is computed from the granted
    /// size, which without privileges is at most `net.core.rmem_max`. With [`Transport::Shm`] and [`Transport::Auto`] a
    /// process keeps twice as much of what it sends in shared memory.
    ///
    /// Default 8 MiB. At most 1 GiB ([`TooLarge`](super::SettingsError::TooLarge)); too small a grant is refused when
    /// the node is opened ([`Buffer`](crate::Error::Buffer)). Each process may have its own.
    pub receive_buffer_bytes: usize,
    /// Whether runs of datagrams cross the kernel in one piece (GSO, GRO).
    ///
    /// Default `true`. Each process may have its own.
    pub offload: bool,
    /// Whether the kernel adds the time at which it received each datagram.
    ///
    /// Default `false`. Each process may have its own.
    pub receive_timestamps: bool,
    /// With [`Transport::Xdp`]: whether the network card writes into this process's memory itself. Few drivers can;
    /// where this one can't, the node falls back to [`Udp`](Transport::Udp), and reports that.
    ///
    /// Default `false`. Each process may have its own.
    pub xdp_zero_copy: bool,
    /// Whether members hold TCP connections to each other, over the group's interface: the others notice at once that a
    /// process has died.
    ///
    /// Default `true`. Each process may have its own; a connection needs it at both ends.
    pub links: bool,
    /// For [`Transport::Tcp`] and [`Transport::Auto`]: the members' addresses and ports, by rank.
    ///
    /// Default: none. Over `tcp` a missing list is refused, and so are a list of another length than `group.members`
    /// (at a member or observer), an address twice, port 0, an unspecified or multicast address, and IPv4 beside IPv6
    /// ([`Mesh`](super::SettingsError::Mesh)). The same at all processes.
    pub peers: Vec<SocketAddr>,
    /// For [`Transport::Tcp`] and [`Transport::Auto`]: the address and port at which a member listens, as the others
    /// reach it.
    ///
    /// Default: this member's own entry in `peers`. It is refused as an address in `peers` is
    /// ([`Mesh`](super::SettingsError::Mesh)). Each process has its own.
    pub listen: Option<SocketAddr>,
}

/// How datagrams are moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Transport {
    /// `udp`, the default: UDP multicast by spinning sockets or `io_uring`. Where `io_uring` is not allowed it falls
    /// back to [`Portable`](Self::Portable), and reports that.
    Udp,
    /// `portable`: UDP multicast by epoll, which every kernel allows.
    Portable,
    /// `tcp`: a mesh of TCP connections, for networks without multicast. It needs `network.peers`.
    Tcp,
    /// `auto`: shared memory for processes of this host and user, UDP multicast for all others, and TCP for exactly the
    /// members of `network.peers` that multicast does not reach. With `network.sources` there is no shared memory.
    Auto,
    /// `xdp`: UDP multicast past the kernel's stack, by `AF_XDP`, for one process an interface. It takes capabilities;
    /// where it can't be had, the node falls back to [`Udp`](Self::Udp), and reports that.
    Xdp,
    /// `shm`: shared memory, for groups whose processes are all on one host and of one user. It sends nothing to any
    /// network, so `network.interface` is `lo`.
    Shm,
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
            xdp_zero_copy: false,
            links: true,
            peers: Vec::new(),
            listen: None,
        }
    }
}

impl NetworkSettings {
    /// Whether each size and count is in its range.
    pub(super) fn check(&self) -> Result<(), SettingsError> {
        is_at_most("network.receive_buffer_bytes", self.receive_buffer_bytes, RECEIVE_BUFFER_MAX_BYTES)?;
        in_range("network.ttl", self.ttl, 1, TTL_MAX)?;
        let name = &self.interface;
        let why = if self.transport == Transport::Tcp {
            return Ok(()); // it uses none
        } else if name.parse::<IpAddr>().is_ok() {
            "an address: give the name of the interface that has it"
        } else if name.is_empty() || name.len() > INTERFACE_NAME_MAX_BYTES || name.contains([' ', '/', '\0']) {
            "no name that an interface can have: 1 to 15 bytes, without blanks and slashes"
        } else {
            return Ok(());
        };
        Err(SettingsError::Interface { name: name.clone(), why })
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
