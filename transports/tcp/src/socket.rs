//! The sockets of a mesh, and the calls made on them.
//!
//! Every socket is non-blocking, sends at once (`TCP_NODELAY`: datagrams are packed already), gives up on a silent peer
//! (`TCP_USER_TIMEOUT`), and leaves by the address the process listens on.

use std::io;
use std::mem::MaybeUninit;
use std::net::SocketAddr;

use bourdon_port::PortError;
use socket2::{Domain, Protocol, Socket, TcpKeepalive, Type};

use crate::options::{PROBE_AFTER, UNACKNOWLEDGED_MAX};

/// Connections that the kernel accepts before we do; dialling processes try the others again.
const BACKLOG: i32 = 1024;
fn new(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// Listens; returns the socket and the address that it listens at.
pub(crate) fn listen(address: SocketAddr) -> Result<(Socket, SocketAddr), PortError> {
    bind(address).map_err(|source| match source.raw_os_error() {
        Some(libc::EADDRINUSE) => PortError::AddressInUse { address },
        _ => PortError::Listen { address, source },
    })
}

fn bind(address: SocketAddr) -> io::Result<(Socket, SocketAddr)> {
    let socket = new(address)?;
    socket.set_reuse_address(true)?; // connections of an earlier incarnation may still be ending
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    let at = socket.local_addr()?.as_socket().unwrap_or(address);
    Ok((socket, at))
}

/// Begins to connect from `from`'s address.
pub(crate) fn dial(from: SocketAddr, to: SocketAddr) -> io::Result<Socket> {
    let socket = new(to)?;
    set_up(&socket)?;
    socket.bind(&SocketAddr::new(from.ip(), 0).into())?;
    match socket.connect(&to.into()) {
        Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => Err(error),
        _ => Ok(socket),
    }
}

/// For sockets dialled and accepted.
pub(crate) fn set_up(socket: &Socket) -> io::Result<()> {
    socket.set_nonblocking(true)?;
    socket.set_tcp_nodelay(true)?;
    // A process that only receives has nothing unacknowledged, and the reset of a peer that was killed is lost like any
    // other packet: without probes it would wait on such a connection for ever.
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(PROBE_AFTER).with_interval(PROBE_AFTER))?;
    socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED_MAX))
}

/// The result of a call.
pub(crate) enum Got {
    Bytes(usize),
    /// Nothing now.
    Later,
    /// The connection has ended.
    End,
}

impl Got {
    fn of(result: io::Result<usize>) -> Self {
        match result {
            Ok(0) => Self::End,
            Ok(count) => Self::Bytes(count),
            Err(error) if is_passing(&error) => Self::Later,
            Err(_) => Self::End,
        }
    }
}

/// Whether the same may just be tried again later. A connection that is still being made returns EAGAIN.
pub(crate) fn is_passing(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EINTR | libc::ENOBUFS | libc::ENOMEM))
}

pub(crate) fn is_interrupted(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EINTR | libc::ECONNABORTED))
}

pub(crate) fn receive(socket: &Socket, room: &mut [u8]) -> Got {
    // SAFETY: initialised bytes are also bytes that may be uninitialised, and `recv` only ever writes initialised ones.
    let room = unsafe { &mut *(std::ptr::from_mut(room) as *mut [MaybeUninit<u8>]) };
    Got::of(socket.recv(room))
}

pub(crate) fn send(socket: &Socket, bytes: &[u8]) -> Got {
    Got::of(socket.send_with_flags(bytes, libc::MSG_NOSIGNAL))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_that_stays_is_reported() {
        let other = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = other.local_addr().unwrap();
        assert!(matches!(listen(address), Err(PortError::AddressInUse { .. })));
    }

    /// The reset of a killed peer can be lost; an observer, which sends nothing, must find out all the same.
    #[test]
    fn a_connection_that_is_only_received_on_is_probed() {
        let socket = new(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        set_up(&socket).unwrap();
        assert!(socket.keepalive().unwrap());
        assert_eq!(socket.tcp_keepalive_time().unwrap(), PROBE_AFTER);
        assert_eq!(socket.tcp_keepalive_interval().unwrap(), PROBE_AFTER);
        assert_eq!(socket.tcp_user_timeout().unwrap(), Some(UNACKNOWLEDGED_MAX));
    }
}
