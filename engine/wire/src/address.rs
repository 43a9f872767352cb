//! Where a process can be reached by unicast, as it travels in frames.
//!
//! Transports do not report where a datagram came from: behind a TCP mesh or shared memory there is nothing to report.
//! A process that needs a reply gives its address.

use core::net::{IpAddr, Ipv6Addr, SocketAddr};
use zerocopy::little_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// An IPv6 address (IPv4 mapped into it) and a port. It converts from and to a
/// [`SocketAddr`], which has a text.
///
/// ```
/// # extern crate bourdon_wire as id;
/// use std::net::SocketAddr;
///
/// let socket: SocketAddr = "192.0.2.1:7401".parse().expect("an address");
/// let address = id::Address::from(socket);
/// assert_eq!(SocketAddr::from(address).to_string(), "192.0.2.1:7401");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Address {
    ip: [u8; 16],
    port: U16,
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        let ip = match address.ip() {
            IpAddr::V4(v4) => v4.to_ipv6_mapped(),
            IpAddr::V6(v6) => v6,
        };
        Self { ip: ip.octets(), port: address.port().into() }
    }
}

impl From<Address> for SocketAddr {
    fn from(address: Address) -> Self {
        SocketAddr::new(Ipv6Addr::from(address.ip).to_canonical(), address.port.get())
    }
}

impl Address {
    /// The IP address, as 128 bits.
    pub fn ip_bits(&self) -> u128 {
        u128::from_be_bytes(self.ip)
    }

    /// Whether anything can be sent there: a unicast address and a port. An address that a stranger writes into a frame
    /// must not make this process multicast or broadcast.
    pub fn is_reachable(&self) -> bool {
        let address = SocketAddr::from(*self);
        let unicast = match address.ip() {
            IpAddr::V4(v4) => !v4.is_multicast() && !v4.is_broadcast() && !v4.is_unspecified(),
            IpAddr::V6(v6) => !v6.is_multicast() && !v6.is_unspecified(),
        };
        unicast && address.port() != 0
    }
}
