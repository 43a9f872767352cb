//! The port over epoll passes the suite, with and without offload.

use std::net::{Ipv4Addr, SocketAddr};
use std::process;
use std::sync::Mutex;

use bourdon_port::conformance::Role;
use bourdon_port::{Port, conformance_tests};
use bourdon_udp::{UdpOptions, UdpPort};

fn world(offload: bool) -> impl Fn(Role) -> UdpPort {
    static NEXT: Mutex<u16> = Mutex::new(0);
    let mut next = NEXT.lock().expect("nothing panics while it is held");
    *next += 1;
    let port = 20_000 + (process::id() % 90) as u16 * 100 + *next;
    let [.., high, low] = process::id().to_be_bytes();
    move |role| {
        let group = SocketAddr::from((Ipv4Addr::new(239, 252 + role.group, high, low), port));
        let options =
            UdpOptions { idle: role.idle, echo: role.echo, offload, io_uring: false, ..UdpOptions::new(group) };
        UdpPort::open(&options).expect("a port on lo")
    }
}

conformance_tests!(offload, Some(world(true)));
conformance_tests!(one_by_one, Some(world(false)));

#[test]
fn the_mechanism_has_its_name() {
    assert_eq!(world(true)(Role::new(bourdon_port::Idle::Park)).io(), "epoll");
}
