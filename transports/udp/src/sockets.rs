//! Opens the sockets of a port over UDP.
//!
//! One socket bound to the wildcard address would do, and would then hear other groups on its port, send multicast by
//! the default route, and mix up what is for the group with what is for this process. So there are three, and one
//! for broadcasts (`broadcast.rs`):
//!
//! - *group*: bound to the group's own address, joined on the named interface. Receives the group's multicasts only.
//! - *unicast*: bound to the interface's address and a port of its own. Sends to peers and receives from them.
//! - *sender*: connected to the group, so that sending to it names no address. On `lo` it has an address of its own
//!   (`echo.rs`).
//!
//! Invariants:
//! - Traffic enters and leaves by the named interface: the join, the multicast interface and the unicast interface are
//!   set by index, also where the routing table has another route or none. `lo` works like this although it lacks
//!   the `MULTICAST` flag.
//! - The group is joined before the sender connects: a route looked up earlier would not loop multicasts back to the
//!   receivers on this host.
//! - Two groups on one port don't hear each other (`IP_MULTICAST_ALL` off and the bind to the group's address: each
//!   alone would do, the first also guards against a kernel that relaxes the second).
//!
//! Source: ip(7), ipv6(7), udp(7), socket(7).

use crate::open::{io_error, multicast_from, no_route, open_socket, prepare_receiver, set_option};
use std::io;
use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::os::fd::{AsFd, BorrowedFd};

use bourdon_port::{Echo, PortError};
use socket2::Socket;

use crate::broadcast::Broadcast;
use crate::echo;
use crate::interface::Interface;
use crate::join::{self, Change};
use crate::options::{UDP_PAYLOAD_MAX_BYTES, UdpOptions};

/// A port's sockets, all non-blocking by the flags of each call.
#[derive(Debug)]
pub struct Sockets {
    group: Socket,
    unicast: Socket,
    sender: Socket,
    broadcast: Option<Broadcast>,
    group_address: SocketAddr,
    /// What the filter on the group's socket looks for.
    filtered_echo: Option<Echo>,
    /// Where the sender sends from.
    group_source: Option<SocketAddr>,
    /// The group was joined by source.
    by_source: bool,
    interface: Interface,
    local_address: SocketAddr,
    receive_buffer_bytes: usize,
}

impl Sockets {
    /// Opens them and joins the group.
    pub fn open(options: &UdpOptions) -> Result<Self, PortError> {
        if !options.group.ip().is_multicast() {
            return Err(PortError::NotMulticast(options.group));
        }
        if !(1..=UDP_PAYLOAD_MAX_BYTES).contains(&options.datagram_max_bytes) {
            let text =
                format!("datagrams of {} bytes: choose 1 to {UDP_PAYLOAD_MAX_BYTES}", options.datagram_max_bytes);
            return Err(PortError::Io {
                doing: "checking the options",
                source: io::Error::new(io::ErrorKind::InvalidInput, text),
            });
        }
        let interface = Interface::find(&options.interface, options.group)?;
        join::check(options, &interface)?;
        let group_address = interface.scoped(options.group);

        let unicast = open_unicast(options, &interface)?;
        let local_address = unicast
            .local_addr()
            .map_err(io_error("asking for the unicast address"))?
            .as_socket()
            .expect("a socket of an internet family has an internet address");
        let sender = open_socket(group_address)?;
        let group = open_group(options, group_address, &interface)?;
        let filtered_echo = echo::keep_away(options, (&sender, local_address), &group, |source| {
            join::change_source(&group, group_address, &interface, source, Change::Block)
        })?;
        connect_sender(&sender, options, group_address, &interface)?;
        let group_source = sender.local_addr().ok().and_then(|address| address.as_socket());
        let broadcast = Broadcast::open(options, &interface).ok();
        let receive_buffer_bytes =
            group.recv_buffer_size().map_err(io_error("asking for the size of the receive buffer"))?;
        let by_source = !options.sources.is_empty();
        Ok(Self {
            group,
            unicast,
            sender,
            broadcast,
            group_address,
            filtered_echo,
            group_source,
            by_source,
            interface,
            local_address,
            receive_buffer_bytes,
        })
    }

    /// Receives what is sent to the group.
    pub fn group(&self) -> BorrowedFd<'_> {
        self.group.as_fd()
    }

    /// Receives what is sent to this process; sends to peers.
    pub fn unicast(&self) -> BorrowedFd<'_> {
        self.unicast.as_fd()
    }

    /// Sends to the group, which it is connected to.
    pub(crate) fn sender(&self) -> BorrowedFd<'_> {
        self.sender.as_fd()
    }

    /// Receives broadcasts to the network, where that can be.
    pub fn broadcast(&self) -> Option<BorrowedFd<'_>> {
        self.broadcast.as_ref().map(|broadcast| broadcast.socket.as_fd())
    }

    pub(crate) fn broadcast_targets(&self) -> impl Iterator<Item = SocketAddr> {
        self.broadcast.iter().flat_map(Broadcast::targets)
    }

    /// Receives from one more source of the group.
    ///
    /// # Errors
    /// If the group was joined without sources, or the kernel refuses.
    pub fn join_source(&self, source: IpAddr) -> Result<(), PortError> {
        // The kernel would silently turn a join of all sources into one of this source alone.
        if !self.by_source {
            let why = "the group was joined without sources: name one when it is opened";
            return Err(PortError::Source { address: source, why });
        }
        join::change_source(&self.group, self.group_address, &self.interface, source, Change::Join)
    }

    /// Stops receiving from a source of the group.
    ///
    /// # Errors
    /// If the source was not joined.
    pub fn leave_source(&self, source: IpAddr) -> Result<(), PortError> {
        join::change_source(&self.group, self.group_address, &self.interface, source, Change::Leave)
    }

    /// Keeps away what comes to the group from these sources.
    pub(crate) fn bypass(&self, sources: &[SocketAddr]) {
        echo::bypass(&self.group, self.filtered_echo, sources.iter().copied());
    }

    /// Where what is sent to the group comes from.
    pub(crate) fn group_source(&self) -> Option<SocketAddr> {
        self.group_source
    }

    pub(crate) fn interface(&self) -> &Interface {
        &self.interface
    }

    /// The unicast socket's address.
    pub fn local_address(&self) -> SocketAddr {
        self.local_address
    }

    /// What the kernel granted the group socket, in its own accounting.
    pub fn receive_buffer_bytes(&self) -> usize {
        self.receive_buffer_bytes
    }
}

fn open_group(options: &UdpOptions, address: SocketAddr, interface: &Interface) -> Result<Socket, PortError> {
    let socket = open_socket(address)?;
    socket.set_reuse_address(true).map_err(io_error("setting SO_REUSEADDR"))?;
    if address.is_ipv4() {
        socket.set_multicast_all_v4(false).map_err(io_error("setting IP_MULTICAST_ALL"))?;
    } else {
        socket.set_multicast_all_v6(false).map_err(io_error("setting IPV6_MULTICAST_ALL"))?;
    }
    prepare_receiver(&socket, options)?;
    socket.bind(&address.into()).map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => PortError::AddressInUse { address },
        _ => PortError::Io { doing: "binding to the group's address", source },
    })?;
    join::join(&socket, options, address, interface)?;
    Ok(socket)
}

fn open_unicast(options: &UdpOptions, interface: &Interface) -> Result<Socket, PortError> {
    let mut address = interface.address;
    let socket = open_socket(address)?;
    prepare_receiver(&socket, options)?;
    // Peers behind another interface are then unreachable, rather than reached by an interface that was not named.
    let index = interface.index.to_be();
    let set = if address.is_ipv4() {
        set_option(&socket, libc::IPPROTO_IP, libc::IP_UNICAST_IF, &index)
    } else {
        set_option(&socket, libc::IPPROTO_IPV6, libc::IPV6_UNICAST_IF, &index)
    };
    set.map_err(io_error("setting the interface for unicast"))?;
    address.set_port(options.unicast_port);
    let is_bound = options.unicast_port != 0 && socket.bind(&address.into()).is_ok();
    address.set_port(0);
    if !is_bound {
        socket.bind(&address.into()).map_err(io_error("binding to the interface's address"))?;
    }
    Ok(socket)
}

fn connect_sender(
    socket: &Socket,
    options: &UdpOptions,
    group: SocketAddr,
    interface: &Interface,
) -> Result<(), PortError> {
    multicast_from(socket, interface, options.ttl, options.multicast_loop)
        .map_err(|source| no_route(options.group, interface, source))?;
    if let SocketAddr::V6(own) = interface.address {
        let own = SocketAddrV6::new(*own.ip(), 0, 0, own.scope_id());
        socket.bind(&SocketAddr::V6(own).into()).map_err(io_error("binding to the interface's address"))?;
    }
    socket.connect(&group.into()).map_err(|source| no_route(options.group, interface, source))
}

/// Makes the kernel hand over runs of datagrams that arrive for `socket` as one (`UDP_GRO`): for measuring the floor
/// that a port is compared with.
pub fn coalesce_received(socket: impl std::os::fd::AsFd) -> io::Result<()> {
    set_option(&socket2::SockRef::from(&socket.as_fd()), libc::SOL_UDP, libc::UDP_GRO, &1i32)
}

/// Makes the kernel cut everything sent on `socket` into datagrams of `segment_bytes` (`UDP_SEGMENT`): for measuring
/// the floor that a port is compared with.
pub fn segment_sent(socket: impl std::os::fd::AsFd, segment_bytes: u16) -> io::Result<()> {
    let segment_bytes = i32::from(segment_bytes);
    set_option(&socket2::SockRef::from(&socket.as_fd()), libc::SOL_UDP, libc::UDP_SEGMENT, &segment_bytes)
}
