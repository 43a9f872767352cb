//! The smallest program that shows whether a datagram arrives: one end sends a text, the other prints it.
//!
//! It uses only the standard library's sockets, so that a lab can be tested without the engine. The receiver prints
//! `ready` when it listens; the process that starts it waits for that line, not for a fixed time.

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};

/// The most bytes of a probe: one Ethernet frame.
const PROBE_MAX: usize = 1_400;

/// Prints each datagram that comes to this address, a line each, until killed.
///
/// A multicast group is joined on the interface that has the address `interface`, or its index for IPv6.
///
/// # Errors
/// If the address can't be bound, the group can't be joined, or stdout has no reader.
pub fn receive(to: SocketAddr, interface: Ipv4Addr, index: u32) -> std::io::Result<()> {
    let socket = UdpSocket::bind(to)?;
    match to.ip() {
        IpAddr::V4(group) if group.is_multicast() => socket.join_multicast_v4(&group, &interface)?,
        IpAddr::V6(group) if group.is_multicast() => socket.join_multicast_v6(&group, index)?,
        _ => {}
    }
    let mut buffer = [0; PROBE_MAX];
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "ready")?;
    loop {
        stdout.flush()?;
        let length = socket.recv(&mut buffer)?;
        stdout.write_all(&buffer[..length])?;
        stdout.write_all(b"\n")?;
    }
}

/// Sends one text.
///
/// # Errors
/// If the system refuses.
pub fn send(to: SocketAddr, text: &str) -> std::io::Result<()> {
    let any: IpAddr = if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { std::net::Ipv6Addr::UNSPECIFIED.into() };
    UdpSocket::bind((any, 0))?.send_to(text.as_bytes(), to)?;
    Ok(())
}
