//! What is particular to UDP sockets: refusals that give what to do, echo dropped in the kernel, timestamps, the
//! address free after a drop.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::common::{enter_namespace, fresh_group, world, world_of};
use bourdon_port::conformance::{Role, pattern, poll_until, receive_count, receive_up_to, send_all};
use bourdon_port::{Echo, Idle, Origin, Port, PortError, To};
use bourdon_udp::{UdpOptions, UdpPort};

const BOTH: [Idle; 2] = [Idle::Spin, Idle::Park];

fn refusal(options: &UdpOptions) -> PortError {
    UdpPort::open(options).expect_err("this can't be opened")
}

#[test]
fn a_unicast_address_is_no_group() {
    let error = refusal(&UdpOptions::new(SocketAddr::from(([10, 0, 0, 1], 4000))));
    assert!(matches!(error, PortError::NotMulticast(_)), "{error}");
    assert!(error.to_string().contains("224.0.0.0/4"), "{error}");
}

#[test]
fn an_unknown_interface_is_named() {
    let options = UdpOptions { interface: "nowhere0".to_owned(), ..UdpOptions::new(fresh_group()) };
    let error = refusal(&options);
    assert!(matches!(error, PortError::Interface { .. }), "{error}");
    assert!(error.to_string().contains("nowhere0"), "{error}");
}

#[test]
fn a_port_held_by_a_socket_that_does_not_share_is_in_use() {
    // A port that the kernel picks, since all groups on it would be in the way, also those of other programs.
    let holder = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("a free port");
    let mut group = fresh_group();
    group.set_port(holder.local_addr().expect("a bound socket has one").port());
    let error = refusal(&UdpOptions::new(group));
    assert!(matches!(error, PortError::AddressInUse { address } if address == group), "{error}");
    drop(holder);
    UdpPort::open(&UdpOptions::new(group)).expect("free again");
}

#[test]
fn datagrams_longer_than_udp_carries_are_refused() {
    for datagram_max_bytes in [0, 65_508] {
        let error = refusal(&UdpOptions { datagram_max_bytes, ..UdpOptions::new(fresh_group()) });
        assert!(error.to_string().contains("65507"), "{error}");
    }
}

#[test]
fn the_mechanism_has_its_name() {
    for (idle, io) in [(Idle::Spin, "socket-spin"), (Idle::Park, "io_uring")] {
        assert_eq!(world(|_| {})(Role::new(idle)).io(), io);
    }
}

#[test]
fn the_buffer_is_what_the_kernel_grants() {
    // The least that the kernel grants is more than this.
    let least = world(|options| options.receive_buffer_bytes = 1)(Role::new(Idle::Spin)).limits();
    assert!(least.receive_buffer_bytes > 1);
    let more = world(|options| options.receive_buffer_bytes = 100_000)(Role::new(Idle::Spin)).limits();
    assert_eq!(more.receive_buffer_bytes, 200_000, "doubled by the kernel for its overhead");
}

#[test]
fn own_echo_never_arrives() {
    for idle in BOTH {
        for offload in [true, false] {
            let open = world(|options| options.offload = offload);
            let echo = Echo { offset: 12, bytes: *b"own echo" };
            let mut own = open(Role { echo: Some(echo), ..Role::new(idle) });
            let mut other = open(Role::new(idle));
            let mut run = pattern(1, 1000);
            for segment in run.chunks_mut(100) {
                segment[12..20].copy_from_slice(&echo.bytes);
            }
            for _ in 0..10 {
                send_all(&mut own, To::Group, &run, 100);
            }
            assert_eq!(receive_count(&mut other, 100).len(), 100);
            // The other has received the echoes, so they come before this.
            send_all(&mut other, To::Group, b"last", 100);
            assert!(receive_up_to(&mut own, b"last").is_empty(), "an echo came in");
        }
    }
}

#[test]
fn on_lo_a_port_with_an_echo_hears_nothing_of_its_own_whatever_the_bytes() {
    for idle in BOTH {
        let open = world(|_| {});
        let echo = Some(Echo { offset: 12, bytes: *b"own echo" });
        let (mut own, mut other) = (open(Role { echo, ..Role::new(idle) }), open(Role { echo, ..Role::new(idle) }));
        send_all(&mut own, To::Group, b"not an echo by its bytes", 100);
        assert_eq!(receive_count(&mut other, 1).len(), 1, "others hear it, also with the same echo");
        send_all(&mut other, To::Group, b"last", 100);
        assert!(receive_up_to(&mut own, b"last").is_empty(), "its own came in");
    }
}

#[test]
fn what_a_bypassed_process_multicasts_does_not_come_and_its_unicasts_do() {
    BOTH.into_iter().for_each(|idle| bypassed_multicasts_do_not_come(fresh_group(), idle));
}

#[test]
fn the_same_over_ipv6_where_its_own_are_kept_away_by_a_filter_too() {
    let group = SocketAddr::from(([0xff15, 0, 0, 0, 0, 0, 0x77, 5], 10_000));
    if enter_namespace(&["-6 route add local ff00::/8 dev lo"]) {
        BOTH.into_iter().for_each(|idle| bypassed_multicasts_do_not_come(group, idle));
    }
}

fn bypassed_multicasts_do_not_come(group: SocketAddr, idle: Idle) {
    let open = world_of(group, |_| {});
    let echo = Echo { offset: 0, bytes: *b"own echo" };
    let mut own = open(Role { echo: Some(echo), ..Role::new(idle) });
    let mut others = [(); 5].map(|()| open(Role::new(idle)));
    let origins = others.each_ref().map(|it| Origin { address: it.local_address(), group_source: it.group_source() });
    let all: Vec<usize> = (0..5).collect();
    for bypassed in [&all[1..], &all[..1], &all[2..3], &all[..], &all[..0]] {
        own.bypass(&bypassed.iter().map(|place| origins[*place]).collect::<Vec<_>>());
        let mut expected = Vec::new();
        for (place, other) in others.iter_mut().enumerate() {
            send_all(&mut own, To::Group, &echo.bytes, 8);
            send_all(other, To::Group, &[place as u8, 1], 2);
            expected.extend((!bypassed.contains(&place)).then(|| vec![place as u8, 1]));
            send_all(other, To::Peer(own.local_address()), &[place as u8, 2], 2);
            expected.push(vec![place as u8, 2]);
        }
        let mut got = receive_count(&mut own, expected.len());
        got.sort();
        expected.sort();
        assert_eq!(got, expected, "{group}, bypassed {bypassed:?}");
    }
}

#[test]
fn timestamps_are_between_send_and_receive() {
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_nanos() as u64;
    for idle in BOTH {
        let open = world(|options| options.receive_timestamps = true);
        let (mut sender, mut receiver) = (open(Role::new(idle)), open(Role::new(idle)));
        // A clock set back meanwhile would be no fault of the port: the slack is for its slow adjustment only.
        let slack_ns = Duration::from_millis(50).as_nanos() as u64;
        let sent_ns = now();
        send_all(&mut sender, To::Group, &pattern(1, 300), 100);
        let mut stamps = Vec::new();
        poll_until(&mut receiver, |receiver| {
            receiver.receive(usize::MAX, |arrival| stamps.push(arrival.kernel_receive_ns)).expect("received");
            stamps.len() >= 3
        });
        let received_ns = now();
        for stamp in stamps {
            let stamp = stamp.expect("it was asked for");
            assert!((sent_ns - slack_ns..received_ns + slack_ns).contains(&stamp), "{sent_ns} {stamp} {received_ns}");
        }
    }
}

#[test]
fn a_foreign_datagram_without_bytes_is_a_datagram() {
    for idle in BOTH {
        let mut receiver = world(|_| {})(Role::new(idle));
        let foreign = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        foreign.send_to(&[], receiver.local_address()).expect("sent");
        foreign.send_to(&[1; 3000], receiver.local_address()).expect("sent");
        assert_eq!(receive_count(&mut receiver, 2), [vec![], vec![1; 3000]]);
    }
}

#[test]
fn a_dropped_port_frees_its_addresses_at_once() {
    for idle in BOTH {
        let group = fresh_group();
        for _ in 0..20 {
            let mut port = UdpPort::open(&UdpOptions { idle, ..UdpOptions::new(group) }).expect("a port");
            port.receive(usize::MAX, |_| {}).expect("received");
            let address = port.local_address();
            drop(port);
            UdpSocket::bind(address).expect("the unicast address is free");
            // Without SO_REUSEADDR: any socket left on it would be in the way.
            UdpSocket::bind(group).expect("the group's address is free");
        }
    }
}

#[test]
fn a_parked_port_keeps_to_its_first_thread_and_reports_it() {
    let mut port = world(|_| {})(Role::new(Idle::Park));
    port.receive(usize::MAX, |_| {}).expect("the first thread may");
    let other = thread::spawn(move || {
        let error = port.wait(Duration::from_millis(1)).expect_err("a second one may not");
        assert!(error.to_string().contains("another thread"), "{error}");
        // Sending is no business of the ring.
        send_all(&mut port, To::Group, b"still sends", 64);
    });
    other.join().expect("as above");
}

#[test]
fn more_packets_than_buffers_all_arrive() {
    let open = world(|options| options.offload = false);
    let (mut sender, mut receiver) = (open(Role::new(Idle::Park)), open(Role::new(Idle::Park)));
    let peer = To::Peer(receiver.local_address());
    // Twice: first the requests are armed with all of it there, then it comes to armed ones.
    for round in 0..2 {
        let runs = [pattern(round, 500 * 64), pattern(round + 9, 100 * 64)];
        send_all(&mut sender, To::Group, &runs[0], 64);
        send_all(&mut sender, peer, &runs[1], 64);
        let mut got = receive_count(&mut receiver, 600);
        got.sort();
        let mut sent: Vec<Vec<u8>> = runs.iter().flat_map(|run| run.chunks(64)).map(<[u8]>::to_vec).collect();
        sent.sort();
        assert!(got == sent);
    }
}

#[test]
fn broadcasts_work_on_lo_unless_another_program_has_the_port() {
    let group = fresh_group();
    let open = || UdpPort::open(&UdpOptions { idle: Idle::Park, ..UdpOptions::new(group) }).expect("a port");
    assert!(open().can_broadcast());
    let other = UdpSocket::bind(("127.0.0.1", group.port())).expect("no process has it");
    let mut port = open();
    assert!(!port.can_broadcast(), "the group alone works all the same");
    send_all(&mut port, To::Broadcast, b"dropped", 64);
    drop(other);
}

#[test]
fn a_busy_group_does_not_starve_unicast() {
    for idle in BOTH {
        let open = world(|_| {});
        let (mut sender, mut receiver) = (open(Role::new(idle)), open(Role::new(idle)));
        send_all(&mut sender, To::Peer(receiver.local_address()), b"repair", 64);
        let mut calls = 0;
        let mut has_come = false;
        while !has_come {
            // Always more for the group than the limit lets through.
            send_all(&mut sender, To::Group, &pattern(calls, 64 * 64), 64);
            receiver.receive(1, |arrival| has_come |= arrival.bytes == b"repair").expect("received");
            calls += 1;
            assert!(calls < 100, "{idle:?}: unicast starves behind a busy group");
        }
    }
}

#[test]
fn a_peer_address_that_no_process_can_have_ends_no_port() {
    let open = world(|_| {});
    let (mut sender, mut receiver) = (open(Role::new(Idle::Spin)), open(Role::new(Idle::Spin)));
    for address in ["[::1]:9", "127.0.0.1:0", "203.0.113.1:9", "255.255.255.255:9", "0.0.0.0:9", "224.0.0.1:9"] {
        let to = To::Peer(address.parse().expect("an address"));
        for bytes in [10, 1000] {
            send_all(&mut sender, to, &pattern(0, bytes), 100);
        }
    }
    assert_eq!(sender.limits().segments_max, 64, "offload survives peers that can't be reached");
    send_all(&mut sender, To::Group, b"alive", 64);
    receive_up_to(&mut receiver, b"alive");
}
