//! Without faults the wrapper is the port it wraps.

use std::net::SocketAddr;

use bourdon_port::conformance::Role;
use bourdon_port::conformance_tests;
use bourdon_port::faults::{Faults, Faulty};
use bourdon_port::memory::{Hub, MemoryOptions, MemoryPort};

fn world(faults: Faults) -> impl Fn(Role) -> Faulty<MemoryPort> {
    let hub = Hub::new();
    move |role| {
        let group = SocketAddr::from(([239, 0, 0, role.group], 4000));
        let options = MemoryOptions { idle: role.idle, echo: role.echo, ..MemoryOptions::new(group) };
        Faulty::new(hub.open(options).expect("a port"), faults)
    }
}

conformance_tests!(harmless, Some(world(Faults::default())));
// So rare that none strikes: every datagram takes the path of those that may be struck.
conformance_tests!(next_to_harmless, Some(world(Faults { drop_percent: 1e-15, ..Faults::default() })));
