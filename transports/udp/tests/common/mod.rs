//! Groups that no other test uses.
#![allow(dead_code)] // each test program uses its part

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process;
use std::sync::Mutex;

use bourdon_port::conformance::Role;
use bourdon_udp::{UdpOptions, UdpPort};

/// A group on its own port, numbered within this program and told from other programs by the process id.
pub(crate) fn fresh_group() -> SocketAddr {
    static NEXT: Mutex<u16> = Mutex::new(0);
    let mut next = NEXT.lock().expect("nothing panics while it is held");
    *next += 1;
    let [.., high, low] = process::id().to_be_bytes();
    // Below the ephemeral ports, which unicast sockets take.
    SocketAddr::from((Ipv4Addr::new(239, 255, high, low), 10_000 + *next))
}

/// Opens ports into two groups on one port, with options changed by `adjust`.
pub(crate) fn world(adjust: impl Fn(&mut UdpOptions)) -> impl Fn(Role) -> UdpPort {
    world_of(fresh_group(), adjust)
}

/// The same over IPv6, where the host has it.
pub(crate) fn ipv6_world() -> Option<impl Fn(Role) -> UdpPort> {
    let v4 = fresh_group();
    let group = SocketAddr::from((Ipv6Addr::new(0xff15, 0, 0, 0, 0, 0, process::id() as u16, 0), v4.port()));
    match UdpPort::open(&UdpOptions::new(group)) {
        Ok(_) => Some(world_of(group, |_| {})),
        Err(error) => {
            eprintln!("skipped: no IPv6 multicast on lo here: {error}");
            None
        }
    }
}

fn world_of(group: SocketAddr, adjust: impl Fn(&mut UdpOptions)) -> impl Fn(Role) -> UdpPort {
    move |role| {
        let mut group = group;
        if role.group == 1 {
            group.set_ip(match group {
                SocketAddr::V4(v4) => Ipv4Addr::from_bits(v4.ip().to_bits() ^ (1 << 16)).into(),
                SocketAddr::V6(v6) => Ipv6Addr::from_bits(v6.ip().to_bits() ^ 1).into(),
            });
        }
        let mut options = UdpOptions { idle: role.idle, echo: role.echo, ..UdpOptions::new(group) };
        adjust(&mut options);
        UdpPort::open(&options).expect("a port on lo")
    }
}
