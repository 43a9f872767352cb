//! Where multicast does not reach, the mesh takes over, and only there.
//!
//! Two ports on different multicast groups with one mesh do not hear each other by multicast: a black hole without
//! root.

use std::cell::RefCell;
use std::net::{Ipv4Addr, SocketAddr};
use std::process;
use std::time::{Duration, Instant};

use bourdon_port::conformance::{PATIENCE, Role, send_all, sleeping};
use bourdon_port::{Idle, Port, To};
use bourdon_tcp::{AutoPort, Reach, TcpOptions};
use bourdon_udp::UdpOptions;

fn open(idle: Idle, hole: u8, dial: &[SocketAddr]) -> AutoPort {
    let [.., high, low] = process::id().to_be_bytes();
    let port = if idle == Idle::Spin { 19_001 } else { 19_002 };
    open_in(SocketAddr::from((Ipv4Addr::new(239, 249 + hole, high, low), port)), idle, dial)
}

fn open_in(group: SocketAddr, idle: Idle, dial: &[SocketAddr]) -> AutoPort {
    let mesh = TcpOptions { dial: dial.to_vec(), idle, ..TcpOptions::new(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))) };
    AutoPort::open(&UdpOptions { idle, ..UdpOptions::new(group) }, &mesh).expect("it opens").0
}

/// Lets all run until `done`, and returns what each got.
fn run(ports: &mut [AutoPort], mut done: impl FnMut(&[AutoPort], &[Vec<Vec<u8>>]) -> bool) -> Vec<Vec<Vec<u8>>> {
    let started = Instant::now();
    let mut got = vec![Vec::new(); ports.len()];
    while !done(ports, &got) {
        for (place, (port, got)) in ports.iter_mut().zip(&mut got).enumerate() {
            port.wait(Duration::from_millis(1)).expect("a wait that works");
            // What a port multicasts comes back, and begins with its own number.
            let mut keep = |bytes: &[u8]| got.extend((bytes[0] != place as u8).then(|| bytes.to_vec()));
            port.receive(usize::MAX, |it| keep(it.bytes)).expect("a receive that works");
        }
        assert!(started.elapsed() < PATIENCE, "{:?}", ports.iter().map(AutoPort::reach).collect::<Vec<_>>());
    }
    got
}

#[test]
fn each_pair_goes_its_own_way() {
    for idle in [Idle::Park, Idle::Spin] {
        let zero = open(idle, 0, &[]);
        let one = open(idle, 0, &[zero.local_address()]);
        let two = open(idle, 1, &[zero.local_address(), one.local_address()]);
        let mut ports = [zero, one, two];
        run(&mut ports, |ports, _| {
            let reach = |by_multicast, by_mesh| Some(Reach { by_multicast, by_mesh });
            let found = ports.iter().map(AutoPort::reach);
            found.eq([reach(1, 1), reach(1, 1), reach(0, 2)])
        });
        for sender in 0..3 {
            let datagram = [sender as u8; 100];
            send_all(&mut ports[sender], To::Group, &datagram, 100);
            let others = |got: &[Vec<Vec<u8>>]| (0..3).filter(|it| *it != sender && !got[*it].is_empty()).count();
            let got = run(&mut ports, |_, got| others(got) == 2);
            for (place, got) in got.iter().enumerate().filter(|(place, _)| *place != sender) {
                assert_eq!(got, &[datagram.to_vec()], "{place} from {sender}: once, and as it was");
            }
        }
    }
}

#[test]
fn a_thread_sleeps_for_two_ports_with_two_ways_each() {
    let [.., high, low] = process::id().to_be_bytes();
    let opened = RefCell::new([Vec::new(), Vec::new()]);
    let world = |role: Role| {
        let group = SocketAddr::from((Ipv4Addr::new(239, 247 + role.group, high, low), 19_003));
        let opened = &mut opened.borrow_mut()[usize::from(role.group)];
        let port = open_in(group, role.idle, opened);
        opened.push(port.local_address());
        port
    };
    sleeping::either_of_two_ports_ends_a_sleep(Idle::Park, world);
}
