//! Both mechanisms pass the suite over IPv6.
//!
//! No host has a route for IPv6 multicast on `lo` unless it is added, so each test adds it, in a network namespace
//! of its own; without root they are skipped and print it.

use std::net::{Ipv6Addr, SocketAddr};

use crate::common::{enter_namespace, world_of};
use bourdon_port::conformance::Role;
use bourdon_port::{PortError, conformance_tests};
use bourdon_udp::{UdpOptions, UdpPort};

const ROUTE: &str = "-6 route add local ff00::/8 dev lo";

fn ipv6_world(first: u16) -> Option<impl Fn(Role) -> UdpPort> {
    let group = SocketAddr::from((Ipv6Addr::new(first, 0, 0, 0, 0, 0, 1, 0), 10_000));
    enter_namespace(&[ROUTE]).then(|| world_of(group, |_| {}))
}

conformance_tests!(site_local, ipv6_world(0xff15));
conformance_tests!(link_local, ipv6_world(0xff12));
conformance_tests!(interface_local, ipv6_world(0xff01));

#[test]
fn a_missing_route_is_named() {
    if enter_namespace(&[]) {
        let group = SocketAddr::from((Ipv6Addr::new(0xff15, 0, 0, 0, 0, 0, 1, 0), 10_000));
        let error = UdpPort::open(&UdpOptions::new(group)).expect_err("there is no route");
        assert!(matches!(error, PortError::NoRoute { .. }) && error.to_string().contains(ROUTE), "{error}");
    }
}
