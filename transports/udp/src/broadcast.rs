//! Reaches every process on the network, whichever groups they joined.
//!
//! The group's own socket hears the group and nothing else, by intent. A broadcast comes to the address of
//! all hosts (224.0.0.1, ff02::1) or to the subnet's broadcast address, at the group's port; so one more socket listens
//! there. It is bound to the wildcard address, the only one that hears both, and to the interface, so that it hears
//! nothing from elsewhere. Several processes of one host share the port, and each hears all.
//!
//! Where this socket can't be opened (another program has the port to itself, or the kernel lets only root bind to an
//! interface) a port does without: it neither hears nor sends broadcasts, and reports this.
//!
//! Source: ip(7), RFC 1112 §4 (all hosts), RFC 4291 §2.7.1 (all nodes).

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use socket2::{InterfaceIndexOrAddress, Socket};

use crate::interface::Interface;
use crate::open::{multicast_from, open_socket, prepare_receiver};
use crate::options::UdpOptions;

/// What is held while the process does not read: broadcasts are rare, so this is many.
const RECEIVE_BUFFER_BYTES: usize = 256 << 10;

/// The socket, and where it sends: all hosts, and the subnet's broadcast address if there is one.
#[derive(Debug)]
pub(crate) struct Broadcast {
    pub(crate) socket: Socket,
    pub(crate) all_hosts: SocketAddr,
    pub(crate) subnet: Option<SocketAddr>,
}

impl Broadcast {
    pub(crate) fn open(options: &UdpOptions, interface: &Interface) -> Result<Self, Box<dyn std::error::Error>> {
        let port = options.group.port();
        let wildcard = match options.group {
            SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)),
            SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)),
        };
        let socket = open_socket(wildcard)?;
        socket.set_reuse_address(true)?;
        socket.bind_device(Some(interface.name.as_bytes()))?;
        let small = UdpOptions {
            receive_buffer_bytes: options.receive_buffer_bytes.min(RECEIVE_BUFFER_BYTES),
            ..options.clone()
        };
        prepare_receiver(&socket, &small)?;
        let (all_hosts, subnet) = if options.group.is_ipv4() {
            socket.set_multicast_all_v4(false)?;
            socket.set_broadcast(true)?;
            (SocketAddr::from((Ipv4Addr::new(224, 0, 0, 1), port)), interface.broadcast)
        } else {
            socket.set_multicast_all_v6(false)?;
            (interface.scoped(SocketAddr::from((Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1), port))), None)
        };
        multicast_from(&socket, interface, 1, options.multicast_loop)?;
        socket.bind(&wildcard.into())?;
        match all_hosts {
            SocketAddr::V4(v4) => socket.join_multicast_v4_n(v4.ip(), &InterfaceIndexOrAddress::Index(interface.index)),
            SocketAddr::V6(v6) => socket.join_multicast_v6(v6.ip(), interface.index),
        }?;
        let subnet = subnet.map(|ip| SocketAddr::from((ip, port)));
        Ok(Self { socket, all_hosts, subnet })
    }

    /// Where a broadcast goes.
    pub(crate) fn targets(&self) -> impl Iterator<Item = SocketAddr> {
        std::iter::once(self.all_hosts).chain(self.subnet)
    }
}
