//! The in-memory port passes the suite, and drops like a socket when its owner does not read.

use std::net::SocketAddr;

use bourdon_port::conformance::Role;
use bourdon_port::memory::{Hub, MemoryOptions, MemoryPort};
use bourdon_port::{Idle, Port, PortError, To, conformance_tests};

fn world() -> impl Fn(Role) -> MemoryPort {
    let hub = Hub::new();
    move |role| {
        let group = SocketAddr::from(([239, 0, 0, role.group], 4000));
        hub.open(MemoryOptions { idle: role.idle, echo: role.echo, ..MemoryOptions::new(group) }).expect("a port")
    }
}

conformance_tests!(conformance, Some(world()));

#[test]
fn a_full_buffer_drops_what_comes_last() {
    let hub = Hub::new();
    let group = SocketAddr::from(([239, 0, 0, 1], 4000));
    let options = MemoryOptions { receive_buffer_bytes: 1000, ..MemoryOptions::new(group) };
    let (mut sender, mut receiver) = (hub.open(options).expect("a port"), hub.open(options).expect("a port"));
    // Five datagrams of 100 bytes with 64 of overhead each fit 1000 bytes, the sixth fits beside them, the rest not.
    assert_eq!(sender.send(To::Group, &[7; 1000], 100).expect("sent"), 10, "the sender does not learn of drops");
    assert_eq!(receiver.receive(usize::MAX, |_| {}).expect("received"), 6);
    assert_eq!(sender.send(To::Group, &[8; 100], 100).expect("sent"), 1);
    assert_eq!(receiver.receive(usize::MAX, |arrival| assert_eq!(arrival.bytes, [8; 100])).expect("received"), 1);
}

#[test]
fn only_multicast_addresses_name_groups() {
    let group = SocketAddr::from(([127, 0, 0, 1], 4000));
    assert!(matches!(Hub::new().open(MemoryOptions::new(group)), Err(PortError::NotMulticast(_))));
    let options = MemoryOptions::new(SocketAddr::from(([239, 0, 0, 1], 4000)));
    assert_eq!(options.idle, Idle::Spin);
}
