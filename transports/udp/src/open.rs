//! Opening a UDP socket and setting what it sends from and receives.

use crate::interface::Interface;
use crate::options::UdpOptions;
use bourdon_port::PortError;
use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::mem::size_of_val;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;

/// Multicasts that `socket` sends leave by `interface`, cross at most `ttl` networks, and come back to this host if
/// they shall.
pub(crate) fn multicast_from(socket: &Socket, interface: &Interface, ttl: u32, comes_back: bool) -> io::Result<()> {
    match interface.address {
        SocketAddr::V4(own) => {
            let request = libc::ip_mreqn {
                imr_multiaddr: libc::in_addr { s_addr: 0 },
                imr_address: libc::in_addr { s_addr: u32::from_ne_bytes(own.ip().octets()) },
                imr_ifindex: interface.index as libc::c_int,
            };
            set_option(socket, libc::IPPROTO_IP, libc::IP_MULTICAST_IF, &request)?;
            socket.set_multicast_ttl_v4(ttl)?;
            socket.set_multicast_loop_v4(comes_back)
        }
        SocketAddr::V6(_) => {
            socket.set_multicast_if_v6(interface.index)?;
            socket.set_multicast_hops_v6(ttl)?;
            socket.set_multicast_loop_v6(comes_back)
        }
    }
}

pub(crate) fn open_socket(address: SocketAddr) -> Result<Socket, PortError> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))
        .map_err(io_error("opening a UDP socket"))?;
    if address.is_ipv6() {
        socket.set_only_v6(true).map_err(io_error("setting IPV6_V6ONLY"))?;
    }
    Ok(socket)
}

/// What all receiving sockets need: room, offload, timestamps.
pub(crate) fn prepare_receiver(socket: &Socket, options: &UdpOptions) -> Result<(), PortError> {
    // The kernel grants twice what is asked, since it charges its own overhead to the same account.
    let asked = i32::try_from(options.receive_buffer_bytes).unwrap_or(i32::MAX / 2);
    if set_option(socket, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, &asked).is_err() {
        // Without CAP_NET_ADMIN: as much as net.core.rmem_max allows.
        set_option(socket, libc::SOL_SOCKET, libc::SO_RCVBUF, &asked).map_err(io_error("setting SO_RCVBUF"))?;
    }
    if options.offload {
        // Kernels before 5.0 have no GRO for UDP; they hand out segments one by one, which is all right.
        let _ = set_option(socket, libc::SOL_UDP, libc::UDP_GRO, &1i32);
    }
    if options.receive_timestamps {
        set_option(socket, libc::SOL_SOCKET, libc::SO_TIMESTAMPNS, &1i32)
            .map_err(io_error("asking for receive timestamps"))?;
    }
    Ok(())
}

pub(crate) fn no_route(group: SocketAddr, interface: &Interface, source: io::Error) -> PortError {
    PortError::NoRoute { group, interface: interface.name.clone(), source }
}

pub(crate) fn set_option<T: OptionValue>(socket: &Socket, level: i32, name: i32, value: &T) -> io::Result<()> {
    // SAFETY: the kernel reads `size_of_val(value)` bytes from `value`, which is borrowed through the call and, being
    // one of the types above, has no pointers and no padding that was not written.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            std::ptr::from_ref(value).cast(),
            size_of_val(value) as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

pub(crate) fn io_error(doing: &'static str) -> impl FnOnce(io::Error) -> PortError {
    move |source| PortError::Io { doing, source }
}

/// The plain C values that [`set_option`] may hand to the kernel.
pub(crate) trait OptionValue {}
impl OptionValue for i32 {}
impl OptionValue for u32 {}
impl OptionValue for libc::ip_mreqn {}
/// Made of zeroes and then filled in, so that its padding is initialised as well.
impl OptionValue for libc::group_source_req {}
