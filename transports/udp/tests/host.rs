//! Changes of the host: an interface that is removed and made again, goes down, or gets another address.
//!
//! Each test has a network namespace of its own, so it takes root; without, it is skipped and prints it.

use std::net::{IpAddr, SocketAddr};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use crate::common::{enter_namespace, fresh_group};
use bourdon_port::conformance::{PATIENCE, change_of, pattern, receive_count, receive_up_to, send_all};
use bourdon_port::{HostChange, Idle, InterfaceLoss, Port, To};
use bourdon_udp::{UdpOptions, UdpPort};

/// The ways to wait: the thread's, and whether `io_uring` may be used.
const WAYS: [(Idle, bool); 3] = [(Idle::Spin, true), (Idle::Park, true), (Idle::Park, false)];

fn ip(commands: &[&str]) {
    for command in commands {
        assert!(Command::new("ip").args(command.split(' ')).status().expect("ip runs").success(), "{command}");
    }
}

const MADE: [&str; 4] = [
    "link add left type veth peer name right",
    "link set right up",
    "link set left up",
    "addr add 192.0.2.1/24 dev left",
];

/// Runs a test once for each way to wait, each time in a namespace with the interface `left`, with two ports on it.
fn with_two_ports(test: impl Fn(&mut UdpPort, &mut UdpPort) + Copy + Send + 'static) {
    for (idle, io_uring) in WAYS {
        let run = move || {
            if enter_namespace(&MADE) {
                let interface = "left".to_owned();
                let options = UdpOptions { interface, idle, io_uring, ..UdpOptions::new(fresh_group()) };
                let open = || UdpPort::open(&options).expect("a port on left");
                let (mut first, mut second) = (open(), open());
                test(&mut first, &mut second);
            }
        };
        thread::spawn(run).join().expect("the test passes");
    }
}

fn lost(loss: InterfaceLoss) -> HostChange {
    HostChange::Lost { interface: "left".to_owned(), loss }
}

fn bound(address: SocketAddr, before: SocketAddr) -> HostChange {
    HostChange::Bound { interface: "left".to_owned(), address, before }
}

fn moved(address: SocketAddr, ip: &str) -> SocketAddr {
    SocketAddr::new(ip.parse::<IpAddr>().expect("an address"), address.port())
}

/// Both ports send and receive, to the group and to each other.
fn exercise(first: &mut UdpPort, second: &mut UdpPort) {
    let run = pattern(1, 10_000);
    send_all(first, To::Group, &run, 1000);
    assert_eq!(receive_count(second, 10).concat(), run);
    send_all(second, To::Peer(first.local_address()), &run[..100], 100);
    receive_up_to(first, &run[..100]);
}

#[test]
fn an_interface_made_again_is_bound_at_the_same_address() {
    with_two_ports(|first, second| {
        let (a, b) = (first.local_address(), second.local_address());
        let waker = second.waker();
        ip(&["link del left"]);
        assert_eq!(change_of(first), lost(InterfaceLoss::NoInterface));
        assert_eq!(change_of(second), lost(InterfaceLoss::NoInterface));
        assert_eq!(first.follow_host().expect("followed"), None, "reported once");
        // It goes on, without any effect.
        assert_eq!(first.send(To::Group, &pattern(2, 3000), 1000).expect("it is lost"), 3);
        assert_eq!(second.receive(usize::MAX, |_| {}).expect("nothing came"), 0);
        waker.wake();
        second.wait(PATIENCE).expect("a wait that works");
        ip(&MADE);
        let up: Vec<_> = [&mut *first, &mut *second].into_iter().map(last_change).collect();
        assert_eq!(up, [bound(a, a), bound(b, b)]);
        exercise(first, second);
        waker.wake();
        second.wait(PATIENCE).expect("the same waker wakes it");
    });
}

/// The change that ends a loss: what was lost may change before.
fn last_change(port: &mut UdpPort) -> HostChange {
    loop {
        match change_of(port) {
            HostChange::Lost { .. } => {}
            bound => return bound,
        }
    }
}

#[test]
fn another_address_is_bound_and_the_unicast_port_is_kept() {
    with_two_ports(|first, second| {
        let (a, b) = (first.local_address(), second.local_address());
        ip(&["addr del 192.0.2.1/24 dev left", "addr add 192.0.2.33/24 dev left"]);
        assert_eq!(last_change(first), bound(moved(a, "192.0.2.33"), a));
        assert_eq!(last_change(second), bound(moved(b, "192.0.2.33"), b));
        exercise(first, second);
    });
}

#[test]
fn an_address_is_kept_while_the_interface_has_it() {
    with_two_ports(|first, second| {
        let (a, b) = (first.local_address(), second.local_address());
        ip(&["addr add 198.51.100.1/24 dev left"]);
        for port in [&mut *first, &mut *second] {
            assert_eq!(port.follow_host().expect("followed"), None);
        }
        exercise(first, second);
        ip(&["addr del 192.0.2.1/24 dev left"]);
        assert_eq!(change_of(first), bound(moved(a, "198.51.100.1"), a));
        assert_eq!(change_of(second), bound(moved(b, "198.51.100.1"), b));
        // The earlier address is there again, and the port stays where it is.
        ip(&["addr add 192.0.2.1/24 dev left"]);
        assert_eq!(first.follow_host().expect("followed"), None);
        exercise(first, second);
    });
}

#[test]
fn an_interface_that_is_down_or_without_an_address_is_waited_for() {
    with_two_ports(|first, second| {
        let (a, b) = (first.local_address(), second.local_address());
        ip(&["link set left down"]);
        assert_eq!(change_of(first), lost(InterfaceLoss::Down));
        ip(&["link set left up", "addr del 192.0.2.1/24 dev left"]);
        assert_eq!(change_of(second), lost(InterfaceLoss::NoAddress));
        ip(&["addr add 192.0.2.1/24 dev left"]);
        assert_eq!(last_change(first), bound(a, a));
        assert_eq!(last_change(second), bound(b, b));
        exercise(first, second);
    });
}

#[test]
fn a_send_that_finds_no_way_ends_no_port() {
    with_two_ports(|first, second| {
        ip(&["link del left"]);
        // Without following: the sends fail in the kernel.
        for _ in 0..100 {
            send_all(first, To::Group, &pattern(3, 3000), 1000);
            send_all(first, To::Peer(second.local_address()), &pattern(3, 100), 100);
        }
        assert_eq!(change_of(first), lost(InterfaceLoss::NoInterface));
    });
}

#[test]
fn a_closed_port_sleeps() {
    with_two_ports(|first, _| {
        ip(&["link del left"]);
        change_of(first);
        let started = Instant::now();
        let mut waits = 0;
        while started.elapsed() < Duration::from_millis(50) && first.sleeper(PATIENCE).expect("a sleep").is_some() {
            first.wait(Duration::from_millis(5)).expect("a wait that works");
            waits += 1;
        }
        assert!(waits <= 30, "{waits} waits of 5 ms in 50 ms: that is no sleep");
    });
}
