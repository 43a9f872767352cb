//! Meshes of one test each.
#![allow(dead_code)] // each test program uses its part

use std::cell::RefCell;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU16, Ordering};

use bourdon_port::Port;
use bourdon_port::conformance::Role;
use bourdon_tcp::{TcpOptions, TcpPort};

/// Opens ports on loopback, each dialling all that were opened before it in its group, gone ones too.
///
/// Each world has a token and, over IPv4, an address of loopback to itself: tests run side by side, the kernel gives a
/// port number again soon after it was freed, and one test would dial the ports of another.
pub(crate) fn world(adjust: impl Fn(&mut TcpOptions)) -> impl Fn(Role) -> TcpPort {
    static WORLDS: AtomicU16 = AtomicU16::new(0);
    let world = WORLDS.fetch_add(1, Ordering::Relaxed);
    let token = u64::from(std::process::id()) << 32 | u64::from(world) << 1;
    let [high, low] = world.to_be_bytes();
    let loopback = Ipv4Addr::new(127, 1 + (std::process::id() % 254) as u8, high, 1 + low % 254);
    let opened = RefCell::new([Vec::new(), Vec::new()]);
    move |role| {
        let opened = &mut opened.borrow_mut()[usize::from(role.group)];
        let mut options = TcpOptions {
            dial: opened.clone(),
            token: token | u64::from(role.group),
            idle: role.idle,
            ..TcpOptions::new(SocketAddr::from((loopback, 0)))
        };
        adjust(&mut options);
        let port = TcpPort::open(&options).expect("a port on loopback");
        opened.push(port.local_address());
        port
    }
}
