//! Where the processes of a host find each other: names of sockets that the kernel forgets with the process.
//!
//! A file that names shared memory stays behind when its process is killed. A name in the abstract namespace of Unix
//! sockets does not: it lasts as long as the socket that is bound to it. A process takes the first free of
//! [`PLACES`] names of its user and its group's port number, and finds the others by trying all of them. Beside a port
//! on the network, the names also hold the network interface: one group address on two networks is two groups.
//!
//! Without a port on the network, a place also is the process's unicast address: the loopback address, with the place
//! as its port.

use bourdon_port::PortError;
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, connect, listen, socket_with, sockopt,
};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;

/// The most processes of one user at one port number: twice as many as a group has members, so that observers and
/// clients find room. Each maps the log of each other.
pub(crate) const PLACES: u16 = 128;

/// Connections that wait to be accepted while a process is stopped: more than all others have.
const BACKLOG: i32 = 4 * PLACES as i32;

/// With what the names of all places begin. There is an interface only beside a port on the network.
pub(crate) fn prefix(port: u16, interface: Option<&str>) -> String {
    let user = rustix::process::geteuid().as_raw();
    let interface = interface.map(|interface| format!("/{interface}")).unwrap_or_default();
    format!("bourdon-shm/{user}/{port}{interface}")
}

fn name(prefix: &str, place: u16) -> rustix::io::Result<SocketAddrUnix> {
    SocketAddrUnix::new_abstract_name(format!("{prefix}/{place}").as_bytes())
}

fn socket() -> rustix::io::Result<OwnedFd> {
    // Messages keep their boundaries, and an end of the connection is noticed.
    socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)
}

/// Takes the first free place, and listens there until the socket is dropped.
///
/// # Errors
/// If all are taken, or the kernel refuses.
pub(crate) fn take(prefix: &str) -> Result<(u16, OwnedFd), PortError> {
    let io = |error: Errno| PortError::Io { doing: "listening for the processes of this host", source: error.into() };
    let socket = socket().map_err(io)?;
    for place in 1..=PLACES {
        match name(prefix, place).and_then(|name| bind(&socket, &name)) {
            Ok(()) => return listen(&socket, BACKLOG).map(|()| (place, socket)).map_err(io),
            Err(Errno::ADDRINUSE) => {}
            Err(error) => return Err(io(error)),
        }
    }
    let why = format!(
        "all {PLACES} places of this user at this port are taken, perhaps by processes of another user (`ss -xl` lists \
         them as @{prefix}, as root `ss -xlp` with their processes): choose another port with group.address"
    );
    Err(PortError::Unavailable { mechanism: "shm", why })
}

/// Connects to the process of this user at a place, if there is one. Never blocks.
///
/// # Errors
/// If the place is taken, but its queue is full, or the kernel lacks what it takes.
pub(crate) fn dial(prefix: &str, place: u16) -> rustix::io::Result<Option<OwnedFd>> {
    let socket = socket()?;
    match connect(&socket, &name(prefix, place)?) {
        Ok(()) => Ok(Some(socket).filter(is_same_user)),
        Err(Errno::CONNREFUSED) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether the process at the other end belongs to this process's user: only such a process is believed to belong to
/// the group, because no one key protects its messages. The names are open to all users.
pub(crate) fn is_same_user(socket: &OwnedFd) -> bool {
    sockopt::socket_peercred(socket).is_ok_and(|peer| peer.uid == rustix::process::geteuid())
}

/// The unicast address of the process at a place.
pub(crate) fn address(group: SocketAddr, place: u16) -> SocketAddr {
    let ip = match group {
        SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
        SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::LOCALHOST),
    };
    SocketAddr::new(ip, place)
}
