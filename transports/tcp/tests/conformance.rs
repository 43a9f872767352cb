//! All three ways to wait pass the suite.

use crate::common::world;
use bourdon_port::conformance::Role;
use bourdon_port::{Idle, Port, conformance_tests};

conformance_tests!(io_uring, Some(world(|_| {})));
conformance_tests!(epoll, Some(world(|options| options.io_uring = false)));
conformance_tests!(large_datagrams, Some(world(|options| options.datagram_max_bytes = 65_507)));
conformance_tests!(ipv6, Some(world(|options| options.listen = "[::1]:0".parse().expect("an address"))));

#[test]
fn each_mechanism_has_its_name() {
    let io = |idle, io_uring| world(move |options| options.io_uring = io_uring)(Role::new(idle)).io().to_owned();
    assert_eq!(io(Idle::Park, false), "epoll");
    assert_eq!(io(Idle::Spin, true), "socket-spin");
    assert_eq!(io(Idle::Park, true), "io_uring");
}
