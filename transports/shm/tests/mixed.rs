//! Shared memory beside UDP: each datagram comes once, by either way, whatever becomes of the other.

use crate::udp::{enter_namespace, fresh_group, world_of};
use bourdon_port::conformance::{
    PATIENCE, Role, change_of, poll_until, receive_count, receive_into, send_all, sleeping,
};
use bourdon_port::{HostChange, Idle, Port, To, conformance_tests};
use bourdon_shm::{MixedPort, ShmOptions};
use bourdon_udp::{UdpOptions, UdpPort};
use std::net::SocketAddr;
use std::time::Instant;

/// Makes an interface that leads nowhere.
const NETWORK: [&str; 4] = [
    "link add d0 type veth peer name d1",
    "address add 10.77.0.1/24 broadcast + dev d0",
    "link set d0 up",
    "link set d1 up",
];

type Mixed = MixedPort<UdpPort>;

/// Opens ports with shared memory beside them.
fn mixed(group: SocketAddr, adjust: impl Fn(&mut UdpOptions)) -> impl Fn(Role) -> Mixed {
    let mut at = UdpOptions::new(group);
    adjust(&mut at);
    let network = world_of(group, adjust);
    move |role| {
        let network = network(role);
        let group = if role.group == 0 { group } else { SocketAddr::new([239, 1, 2, 3].into(), group.port()) };
        let datagram_max_bytes = network.limits().datagram_max_bytes;
        let options = ShmOptions { idle: role.idle, datagram_max_bytes, ring_bytes: 1 << 20, ..ShmOptions::new(group) };
        let (port, refused) = MixedPort::open(network, &at.interface, &options);
        assert!(refused.is_none(), "{refused:?}");
        port
    }
}

/// In a network namespace whose multicasts reach no process of the same host: what is for the group must come by shared
/// memory, and comes once from the start. Where multicasts come back, the first may come twice.
fn unheard(adjust: impl Fn(&mut UdpOptions)) -> Option<impl Fn(Role) -> Mixed> {
    enter_namespace(&NETWORK).then(|| {
        mixed(fresh_group(), move |options| {
            (options.interface, options.multicast_loop) = ("d0".to_owned(), false);
            adjust(options);
        })
    })
}

conformance_tests!(io_uring, unheard(|_| {}));
conformance_tests!(epoll, unheard(|options| options.io_uring = false));
conformance_tests!(large_datagrams, unheard(|options| options.datagram_max_bytes = 65_507));

#[test]
fn a_thread_sleeps_for_two_ports_with_two_ways_each() {
    sleeping::either_of_two_ports_ends_a_sleep(Idle::Park, mixed(fresh_group(), |_| {}));
}

/// Two ports that have met, at `lo`.
fn two(world: &impl Fn(Role) -> Mixed) -> [Mixed; 2] {
    let mut ports = [(); 2].map(|()| world(Role::new(Idle::Park)));
    settle(&mut ports, 1);
    ports
}

/// Lets all take in that so many others are met, and what has come.
fn settle(ports: &mut [Mixed], others: u16) {
    for port in ports {
        poll_until(port, |port| {
            receive_into(port, usize::MAX, &mut Vec::new());
            port.by_shm() == others
        });
    }
}

/// What each port has received that the other sent, with whether it was sent to all.
fn exchange(ports: &mut [Mixed; 2]) -> [Vec<(Vec<u8>, bool)>; 2] {
    let addresses = ports.each_ref().map(Port::local_address);
    let mut got = [Vec::new(), Vec::new()];
    for (own, other) in [(0, 1), (1, 0)] {
        for round in 0..100 {
            send_all(&mut ports[own], To::Group, &[own as u8, round], 64);
            send_all(&mut ports[own], To::Peer(addresses[other]), &[own as u8, round], 64);
        }
        // Behind all of it, on both ways.
        let started = Instant::now();
        let (from, got) = (own as u8, &mut got[other]);
        while got.iter().filter(|(_, to_all)| !to_all).count() < 100 || got.len() < 200 {
            let mut keep = |bytes: &[u8], to_all| got.extend((bytes[0] == from).then(|| (bytes.to_vec(), to_all)));
            ports[other].receive(usize::MAX, |it| keep(it.bytes, it.to_all)).expect("a receive that works");
            assert!(started.elapsed() < PATIENCE, "{got:?}");
        }
    }
    got
}

fn assert_once(ports: &mut [Mixed; 2]) {
    for (from, got) in [1u8, 0].into_iter().zip(exchange(ports)) {
        for to_all in [false, true] {
            let some = got.iter().filter(|it| it.1 == to_all).map(|it| it.0.clone());
            assert!(some.eq((0..100).map(|round| vec![from, round])), "each once, in order: {got:?}");
        }
    }
}

#[test]
fn neighbours_hear_each_other_once_and_others_by_the_network() {
    let group = fresh_group();
    let mut ports = two(&mixed(group, |_| {}));
    assert!(ports[0].is_by_shm(ports[1].local_address()) && !ports[0].is_by_shm(ports[0].local_address()));
    assert_eq!(ports[0].io(), "io_uring+shm");
    assert_once(&mut ports);
    let mut alone = world_of(group, |_| {})(Role::new(Idle::Park));
    send_all(&mut ports[0], To::Group, b"all", 3);
    assert_eq!(receive_count(&mut alone, 1), [b"all"]);
    send_all(&mut alone, To::Group, b"too", 3);
    let addresses = ports.each_ref().map(Port::local_address);
    for (port, address) in ports.iter_mut().zip(addresses) {
        send_all(&mut alone, To::Peer(address), b"last", 4);
        assert_eq!(received_until(port, b"last").iter().filter(|it| *it == b"too").count(), 1);
    }
}

fn received_until(port: &mut Mixed, last: &[u8]) -> Vec<Vec<u8>> {
    let mut got: Vec<Vec<u8>> = Vec::new();
    poll_until(port, |port| {
        receive_into(port, usize::MAX, &mut got);
        got.iter().any(|it| it == last)
    });
    got
}

#[test]
fn the_network_takes_over_where_the_sharing_ends() {
    for breaks in [0, 1] {
        let mut ports = two(&mixed(fresh_group(), |_| {}));
        assert_once(&mut ports);
        assert!(ports[breaks].break_one());
        settle(&mut ports, 0);
        assert_once(&mut ports);
        assert!(!ports[0].break_one(), "there is none left");
    }
}

#[test]
fn a_restarted_process_is_met_again() {
    let world = mixed(fresh_group(), |_| {});
    let mut ports = two(&world);
    for _ in 0..5 {
        let [stays, ends] = ports;
        drop(ends);
        let mut stays = [stays];
        settle(&mut stays, 0);
        let [stays] = stays;
        ports = [stays, world(Role::new(Idle::Park))];
        settle(&mut ports, 1);
        assert_once(&mut ports);
    }
}

#[test]
fn a_process_that_moves_is_met_where_it_is_now() {
    if !enter_namespace(&NETWORK) {
        return;
    }
    let mut ports = two(&mixed(fresh_group(), |options| options.interface = "d0".to_owned()));
    assert_once(&mut ports);
    for address in ["10.77.0.2", "10.77.0.1"] {
        let before = ports.each_ref().map(Port::local_address);
        let moves = format!("address replace {address}/24 dev d0");
        for command in ["address flush dev d0", &moves] {
            let status = std::process::Command::new("ip").args(command.split(' ')).status();
            assert!(status.is_ok_and(|status| status.success()), "{command}");
        }
        for port in &mut ports {
            while !matches!(change_of(port), HostChange::Bound { .. }) {}
            assert_eq!(port.local_address().ip().to_string(), address);
        }
        let [first, second] = ports.each_ref().map(Port::local_address);
        for (place, other) in [(0, second), (1, first)] {
            poll_until(&mut ports[place], |port| {
                receive_into(port, usize::MAX, &mut Vec::new());
                port.is_by_shm(other) && port.by_shm() == 1
            });
            assert!(!ports[place].is_by_shm(before[1 - place]), "its old address may be another process's");
        }
        assert_once(&mut ports);
    }
}

#[test]
fn processes_at_two_interfaces_do_not_meet() {
    if !enter_namespace(&NETWORK) {
        return;
    }
    let group = fresh_group();
    let port =
        |interface: &str| mixed(group, |options| options.interface = interface.to_owned())(Role::new(Idle::Park));
    let [mut first, mut second] = ["lo", "d0"].map(port);
    let mut third = port("d0");
    settle(std::slice::from_mut(&mut second), 1);
    assert_eq!((third.by_shm(), first.by_shm()), (1, 0), "a group each, though address and port are the same");
    for port in [&mut first, &mut third] {
        port.receive(usize::MAX, |_| {}).expect("a receive that works");
    }
    assert_eq!((third.by_shm(), first.by_shm()), (1, 0));
}

#[test]
fn without_a_free_place_the_network_carries_all() {
    let group = fresh_group();
    let user = rustix::process::geteuid().as_raw();
    let name = |place| format!("bourdon-shm/{user}/{}/lo/{place}", group.port());
    let taken: Vec<_> = (1..=128).map(|place| crate::hostile::listen(&name(place))).collect();
    let network = world_of(group, |_| {});
    let mut ports = [(); 2].map(|()| {
        let (port, refused) = MixedPort::open(network(Role::new(Idle::Park)), "lo", &ShmOptions::new(group));
        assert!(refused.expect("it can't share").to_string().contains("all 128 places"));
        port
    });
    drop(taken);
    assert_eq!((ports[0].by_shm(), ports[0].io()), (0, "io_uring"));
    assert_once(&mut ports);
}
