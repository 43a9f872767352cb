//! Shared memory passes the suite.

use crate::common::{fresh_number, options};
use bourdon_port::conformance::Role;
use bourdon_port::conformance_tests;
use bourdon_shm::{ShmOptions, ShmPort};
use std::net::{IpAddr, SocketAddr};

/// Opens ports into two groups on one port number that no other test uses. One type for all, so that the suite is built
/// once.
fn world(ip: &str, adjust: fn(&mut ShmOptions)) -> impl Fn(Role) -> ShmPort {
    let (number, ip): (_, IpAddr) = (fresh_number(), ip.parse().expect("an address"));
    move |role| {
        let ip = match ip {
            IpAddr::V4(ip) => IpAddr::V4((ip.to_bits() ^ u32::from(role.group)).into()),
            IpAddr::V6(ip) => IpAddr::V6((ip.to_bits() ^ u128::from(role.group)).into()),
        };
        let group = SocketAddr::new(ip, number);
        let mut options = ShmOptions { group, idle: role.idle, ring_bytes: 1 << 20, ..options(number) };
        adjust(&mut options);
        ShmPort::open(&options).expect("a port")
    }
}

conformance_tests!(ipv4, Some(world("239.255.77.2", |_| {})));
conformance_tests!(ipv6, Some(world("ff15::7702", |_| {})));
conformance_tests!(large_datagrams, Some(world("239.255.77.2", |options| options.datagram_max_bytes = 65_507)));
conformance_tests!(
    small_ring,
    Some(world("239.255.77.2", |options| (options.ring_bytes, options.datagram_max_bytes) = (1 << 18, 508)))
);
