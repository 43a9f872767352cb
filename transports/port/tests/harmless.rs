//! Without faults the wrapper is the port it wraps.

use std::net::SocketAddr;

use bourdon_port::conformance::Role;
use bourdon_port::conformance_tests;
use bourdon_port::faults::{Faults, Faulty};
use bourdon_port::memory::{Hub, MemoryOptions, MemoryPort};

fn world() -> impl Fn(Role) -> Faulty<MemoryPort> {
    let hub = Hub::new();
    move |role| {
        let group = SocketAddr::from(([239, 0, 0, role.group], 4000));
        let options = MemoryOptions { idle: role.idle, echo: role.echo, ..MemoryOptions::new(group) };
        Faulty::new(hub.open(options).expect("a port"), Faults::default())
    }
}

conformance_tests!(harmless, Some(world()));
