//! What a port past the stack does beside others: sockets, and other processes of its host.

use crate::common::{hear_each_other, network, open, options};
use bourdon_port::conformance::{PATIENCE, pattern, poll_until, receive_count, receive_into, send_all};
use bourdon_port::{Idle, Port, PortError, To};
use bourdon_udp::{UdpOptions, UdpPort};
use std::net::UdpSocket;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const GROUP: &str = "239.255.76.9:7609";

fn refusal(port: &bourdon_xdp::XdpPort) -> String {
    match port.refused() {
        Some(PortError::Unavailable { why, .. }) => why.clone(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn processes_past_the_stack_and_over_sockets_hear_each_other() {
    for idle in crate::common::IDLES {
        let Some(network) = network(false) else { return };
        let udp = UdpOptions { idle, ..options(GROUP) };
        network.enter(0);
        let mut past = open(&udp);
        assert_eq!(past.io(), "af_xdp-native", "{:?}", past.refused());
        network.enter(1);
        let mut over = UdpPort::open(&udp).expect("a port on eth0");
        hear_each_other(&mut past, &mut over);
        hear_each_other(&mut over, &mut past);
    }
}

#[test]
fn processes_of_one_host_hear_each_other_and_one_bypasses() {
    let Some(network) = network(false) else { return };
    network.enter(0);
    let mut past = open(&options(GROUP));
    let mut second = open(&options(GROUP));
    assert_eq!((past.io(), second.io()), ("af_xdp-native", "socket-spin"));
    assert!(refusal(&second).contains("another program is attached to eth0"), "{}", refusal(&second));
    past.follow_host().expect("a host that is followed");
    hear_each_other(&mut past, &mut second);
    hear_each_other(&mut second, &mut past);
    network.enter(1);
    let mut remote = open(&options(GROUP));
    let (mut count, mut got) = (0, Vec::new());
    while got.len() < 50 {
        // The first ones are lost to the second, until the first has looked around.
        count += 1;
        send_all(&mut remote, To::Group, &pattern(count, 100), 100);
        past.follow_host().expect("a host that is followed");
        receive_into(&mut second, usize::MAX, &mut got);
        past.receive(usize::MAX, |_| {}).expect("a receive that works");
    }
    drop(past);
    network.enter(0);
    let mut third = open(&options(GROUP));
    assert_eq!(third.io(), "af_xdp-native", "the interface is free: {:?}", third.refused());
    hear_each_other(&mut third, &mut second);
}

#[test]
fn a_process_that_is_stopped_takes_nothing_from_others() {
    let Some(network) = network(false) else { return };
    network.enter(0);
    let stopped = open(&options(GROUP)); // it never looks around
    let mut second = open(&options(GROUP));
    assert_eq!((stopped.io(), second.io()), ("af_xdp-native", "socket-spin"));
    network.enter(1);
    let mut remote = open(&options(GROUP));
    let (begun, mut count, mut got) = (Instant::now(), 0, Vec::new());
    while got.len() < 50 {
        count += 1;
        send_all(&mut remote, To::Group, &pattern(count, 100), 100);
        remote.follow_host().expect("a host that is followed");
        receive_into(&mut second, usize::MAX, &mut got);
        assert!(begun.elapsed() < PATIENCE, "nothing came to the second process");
    }
}

/// The kernel hands a frame over before it shows that the frame's place among those to fill is free. A receiver on
/// another core found no place for the frame, and panicked.
#[test]
fn issue_a_frame_came_before_its_place_was_free() {
    let Some(network) = network(false) else { return };
    network.enter(0);
    let mut receiver = open(&options(GROUP));
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            network.enter(1);
            let mut sender = open(&options(GROUP));
            while !stop.load(Ordering::Relaxed) {
                send_all(&mut sender, To::Group, &pattern(1, 100), 100);
            }
        });
        let _at_its_end = StopAtDrop(&stop);
        let (begun, mut count) = (Instant::now(), 0);
        while count < 200_000 {
            match receiver.receive(usize::MAX, |_| {}).expect("a receive that works") {
                0 => drop(receiver.follow_host().expect("a host that is followed")),
                received => count += received,
            }
            assert!(begun.elapsed() < PATIENCE, "{count} came");
        }
    });
}

/// Raised where the thread panics, too: the other one would go on.
struct StopAtDrop<'a>(&'a AtomicBool);

impl Drop for StopAtDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn other_traffic_of_the_interface_is_left_to_the_kernel() {
    let Some(network) = network(false) else { return };
    network.enter(0);
    let past = open(&options(GROUP));
    let address = past.local_address().ip();
    let other = UdpSocket::bind((address, 0)).expect("a socket");
    other.set_read_timeout(Some(Duration::from_secs(20))).expect("a time");
    network.enter(1);
    let sender = UdpSocket::bind("10.76.0.2:0").expect("a socket");
    let mut buffer = vec![0; 9000];
    for length in [1, 500, 8000] {
        // The longest comes in fragments.
        sender.send_to(&pattern(1, length), other.local_addr().expect("bound")).expect("sent");
        let got = other.recv(&mut buffer).expect("it comes");
        assert_eq!(buffer[..got], pattern(1, length));
    }
    drop(past);
}

#[test]
fn datagrams_in_fragments_come_through_the_kernel() {
    let Some(network) = network(false) else { return };
    let long = UdpOptions { datagram_max_bytes: 3000, ..options(GROUP) };
    network.enter(0);
    let mut past = open(&UdpOptions { idle: Idle::Park, ..long.clone() });
    network.enter(1);
    let mut over = UdpPort::open(&long).expect("a port on eth0");
    for round in 0..20 {
        send_all(&mut over, To::Group, &pattern(round, 3000), 3000);
        assert!(receive_count(&mut past, 1)[0] == pattern(round, 3000));
    }
}

#[test]
fn a_port_for_named_senders_hears_no_other() {
    let Some(network) = network(false) else { return };
    network.enter(0);
    let sources = vec!["10.76.0.2".parse().expect("an address")];
    let mut past = open(&UdpOptions { sources, ..options(GROUP) });
    assert_eq!(past.io(), "af_xdp-native", "{:?}", past.refused());
    network.enter(1);
    let mut named = open(&options(GROUP));
    network.enter(2);
    let mut unnamed = open(&options(GROUP));
    let mut got = Vec::new();
    for round in 0..50u8 {
        send_all(&mut unnamed, To::Group, &[1, round], 2);
        send_all(&mut named, To::Group, &[0, round], 2);
        poll_until(&mut past, |port| {
            receive_into(port, usize::MAX, &mut got);
            got.len() > usize::from(round)
        });
    }
    assert!(got.iter().all(|datagram| datagram[0] == 0), "{got:?}");
}

/// The program of a process that is killed while it opens, waits, sends or receives.
#[test]
#[ignore = "another test starts it as a process"]
fn a_process_to_be_killed() {
    let mut port = open(&options(GROUP));
    loop {
        send_all(&mut port, To::Group, &pattern(1, 5000), 1000);
        port.receive(usize::MAX, |_| {}).expect("a receive that works");
        port.follow_host().expect("a host that is followed");
    }
}

/// Whether a program is attached to this host's interface.
fn has_program() -> bool {
    let shown = Command::new("ip").args(["-details", "link", "show", "eth0"]).output().expect("`ip` is there");
    String::from_utf8_lossy(&shown.stdout).contains("xdp")
}

#[test]
fn a_killed_process_leaves_nothing_attached() {
    let Some(network) = network(false) else { return };
    network.enter(0);
    let itself = std::env::current_exe().expect("this program");
    let rounds = std::env::var("BOURDON_KILLS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(40);
    let mut longest = Duration::ZERO;
    for round in 0..rounds {
        let mut child = Command::new(&itself)
            .args(["--ignored", "--exact", "bypass::a_process_to_be_killed"])
            .stdout(Stdio::null())
            .spawn()
            .expect("it starts");
        // At any instant of its life, whatever it does then: nothing is awaited here. It opens after some milliseconds.
        std::thread::sleep(Duration::from_micros(round * 7_919 % 40_000));
        child.kill().expect("it runs");
        child.wait().expect("it has ended");
        assert!(!has_program(), "round {round}");
        let begun = Instant::now();
        let port = open(&options(GROUP));
        assert_eq!(port.io(), "af_xdp-native", "round {round}: {:?}", port.refused());
        longest = longest.max(begun.elapsed());
        assert!(has_program());
    }
    println!("{rounds} kills; opening again took at most {longest:?}");
}
