//! Meshes of one test each.
#![allow(dead_code)] // each test program uses its part

use std::cell::RefCell;
use std::net::{Ipv4Addr, SocketAddr};

use bourdon_port::Port;
use bourdon_port::conformance::Role;
use bourdon_tcp::{TcpOptions, TcpPort};

/// Opens ports on loopback, each dialling all that were opened before it in its group, gone ones too.
pub(crate) fn world(adjust: impl Fn(&mut TcpOptions)) -> impl Fn(Role) -> TcpPort {
    let opened = RefCell::new([Vec::new(), Vec::new()]);
    move |role| {
        let opened = &mut opened.borrow_mut()[usize::from(role.group)];
        let mut options = TcpOptions {
            dial: opened.clone(),
            token: role.group.into(),
            idle: role.idle,
            ..TcpOptions::new(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))
        };
        adjust(&mut options);
        let port = TcpPort::open(&options).expect("a port on loopback");
        opened.push(port.local_address());
        port
    }
}
