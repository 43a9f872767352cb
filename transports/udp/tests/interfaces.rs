//! Traffic keeps to the named interface, whatever the routing table holds.
//!
//! Other traffic of the host would blur any count of packets, so each test has a network namespace of its own, with a
//! pair of virtual interfaces and a default route over one of them. A namespace holds for the thread that enters it
//! and for the commands it runs, and ends with the thread. It takes root; without, the tests are skipped and print it.

use std::fs;
use std::process::Command;
use std::thread;

use crate::common::{enter_namespace, fresh_group, world};
use bourdon_port::conformance::{Role, pattern, receive_count, receive_up_to, send_all};
use bourdon_port::{Idle, Port, PortError, To};
use bourdon_udp::{UdpOptions, UdpPort};

fn in_a_namespace(test: impl FnOnce() + Send + 'static) {
    let thread = thread::spawn(move || {
        let is_set_up = enter_namespace(&[
            "link add left type veth peer name right",
            // No router solicitations among what is counted.
            "link set left addrgenmode none",
            "link set right addrgenmode none",
            "link set right up",
            "addr add 192.0.2.1/24 dev left",
            "link set left up",
            "route add default via 192.0.2.2",
        ]);
        if is_set_up {
            test();
        }
    });
    thread.join().expect("the test passes");
}

/// How many packets `interface` of this thread's namespace has sent.
fn sent_packets(interface: &str) -> u64 {
    let table = fs::read_to_string("/proc/thread-self/net/dev").expect("every thread has one");
    let line = table.lines().find(|line| line.trim_start().starts_with(&format!("{interface}:"))).expect("it is there");
    // After the name: eight columns of what was received, then bytes and packets sent.
    let (_, columns) = line.split_once(':').expect("as found above");
    columns.split_whitespace().nth(9).expect("a column").parse().expect("a number")
}

fn exercise(open: impl Fn(Role) -> UdpPort) {
    for idle in [Idle::Spin, Idle::Park] {
        let (mut sender, mut receiver) = (open(Role::new(idle)), open(Role::new(idle)));
        for round in 0..100 {
            let run = pattern(round, 10_000);
            send_all(&mut sender, To::Group, &run, 1000);
            assert_eq!(receive_count(&mut receiver, 10).concat(), run);
            send_all(&mut receiver, To::Peer(sender.local_address()), &run[..100], 100);
            receive_up_to(&mut sender, &run[..100]);
        }
        // A peer on another network than the named interface's: it must not be looked for there.
        send_all(&mut sender, To::Peer(([203, 0, 113, 1], 9).into()), &pattern(0, 100), 100);
    }
}

#[test]
fn traffic_on_lo_stays_on_lo() {
    in_a_namespace(|| {
        let (before, lo_before) = (sent_packets("left"), sent_packets("lo"));
        exercise(world(|_| {}));
        assert_eq!(sent_packets("left"), before, "something left by an interface that was not named");
        assert!(sent_packets("lo") >= lo_before + 400, "this count does count");
    });
}

#[test]
fn traffic_on_a_named_interface_leaves_by_it_also_without_a_route() {
    in_a_namespace(|| {
        // Neither the default route nor a multicast route names it any more.
        assert!(Command::new("ip").args(["route", "flush", "table", "main"]).status().expect("ip").success());
        let before = sent_packets("left");
        exercise(world(|options| options.interface = "left".to_owned()));
        assert!(sent_packets("left") >= before + 200, "multicasts of two ports in 100 rounds went elsewhere");
    });
}

#[test]
fn a_broadcast_reaches_the_named_network_and_no_other() {
    in_a_namespace(|| {
        // The address has no broadcast address of its own yet: the broadcast goes to all hosts only.
        let added = Command::new("ip").args("addr add 198.51.100.1/24 brd + dev right".split(' ')).status();
        assert!(added.expect("ip").success());
        let group = fresh_group();
        for idle in [Idle::Spin, Idle::Park] {
            let open = |interface: &str| {
                let options = UdpOptions { idle, interface: interface.to_owned(), ..UdpOptions::new(group) };
                UdpPort::open(&options).expect("a port")
            };
            let (mut sender, mut near, mut elsewhere) = (open("right"), open("right"), open("lo"));
            assert!(sender.can_broadcast() && near.can_broadcast());
            let (left, lo) = (sent_packets("left"), sent_packets("lo"));
            let before = sent_packets("right");
            send_all(&mut sender, To::Broadcast, &pattern(1, 300), 100);
            assert!(sent_packets("right") >= before + 2, "all hosts, and 198.51.100.255");
            // Twice here: a caller that needs single delivery counts.
            let got = receive_count(&mut near, 6);
            assert!(pattern(1, 300).chunks(100).all(|one| got.iter().filter(|got| *got == one).count() == 2));
            assert_eq!((sent_packets("left"), sent_packets("lo")), (left, lo), "it left by another interface");
            let mut own = open("lo");
            send_all(&mut own, To::Peer(elsewhere.local_address()), b"last", 64);
            assert!(receive_up_to(&mut elsewhere, b"last").is_empty(), "heard on another interface");
            // The broadcast socket is the last to be asked, and not each time.
            let more: usize = (0..130).map(|_| elsewhere.receive(usize::MAX, |_| {}).expect("received")).sum();
            assert_eq!(more, 0, "heard on another interface");
        }
    });
}

#[test]
fn without_multicast_loop_no_process_of_this_host_hears_it_but_the_network_does() {
    in_a_namespace(|| {
        let group = fresh_group();
        for idle in [Idle::Spin, Idle::Park] {
            let open = |multicast_loop| {
                let interface = "left".to_owned();
                let options = UdpOptions { idle, interface, multicast_loop, ..UdpOptions::new(group) };
                UdpPort::open(&options).expect("a port")
            };
            let (mut quiet, mut other) = (open(false), open(true));
            let before = sent_packets("left");
            send_all(&mut quiet, To::Group, b"for the network", 64);
            assert_eq!(sent_packets("left"), before + 1);
            // Both hear this, which was sent later.
            send_all(&mut other, To::Group, b"last", 64);
            for port in [&mut quiet, &mut other] {
                assert!(receive_up_to(port, b"last").is_empty(), "it came back to this host");
            }
        }
    });
}

#[test]
fn a_group_whose_scope_ends_before_the_interface_is_refused() {
    in_a_namespace(|| {
        let added = Command::new("ip").args("-6 addr add fd00:b0::1/64 dev left nodad".split(' ')).status();
        assert!(added.expect("ip").success());
        let group = "[ff01::7401]:7401".parse().expect("an address");
        let options = UdpOptions { interface: "left".to_owned(), ..UdpOptions::new(group) };
        let error = UdpPort::open(&options).expect_err("nothing would leave");
        assert!(matches!(&error, PortError::Scope { why, .. } if why.contains("ff02::")), "{error}");
    });
}

#[test]
fn unicast_does_not_follow_a_route_over_another_interface() {
    in_a_namespace(|| {
        // All other networks are behind `left`; the port is on `second`.
        let added = ["link add second type veth peer name far", "link set far up"]
            .into_iter()
            .chain(["addr add 198.51.100.1/24 dev second", "link set second up"]);
        for command in added {
            assert!(Command::new("ip").args(command.split(' ')).status().expect("ip").success(), "{command}");
        }
        let open = world(|options| options.interface = "second".to_owned());
        let (mut sender, mut receiver) = (open(Role::new(Idle::Spin)), open(Role::new(Idle::Spin)));
        // ARP for the router is traffic too, and would come before a datagram that strays.
        let before = sent_packets("left");
        for peer in ["203.0.113.1:9", "192.0.2.2:9", "127.0.0.1:9", "0.0.0.0:9", "255.255.255.255:9", "198.18.0.1:9"] {
            let to = To::Peer(peer.parse().expect("an address"));
            for bytes in [10, 1000] {
                send_all(&mut sender, to, &pattern(0, bytes), 100);
            }
        }
        assert_eq!(sent_packets("left"), before, "unicast left by an interface that was not named");
        send_all(&mut sender, To::Group, b"alive", 64);
        receive_up_to(&mut receiver, b"alive");
        assert_eq!(sender.limits().segments_max, 64, "offload survives peers that can't be reached");
    });
}

#[test]
fn an_interface_without_an_address_or_down_is_refused() {
    in_a_namespace(|| {
        let refusal = |interface: &str| {
            let options = UdpOptions { interface: interface.to_owned(), ..UdpOptions::new(fresh_group()) };
            UdpPort::open(&options).expect_err("it can't be used")
        };
        let error = refusal("right");
        assert!(matches!(&error, PortError::Interface { why, .. } if why.contains("no IPv4 address")), "{error}");
        assert!(Command::new("ip").args(["link", "set", "left", "down"]).status().expect("ip").success());
        let error = refusal("left");
        assert!(matches!(&error, PortError::Interface { why, .. } if why.contains("down")), "{error}");
    });
}

#[test]
fn segments_beyond_the_mtu_are_sent_one_by_one_and_offload_goes_on() {
    in_a_namespace(|| {
        let open = world(|options| {
            options.interface = "left".to_owned();
            options.datagram_max_bytes = 9000;
        });
        let (mut sender, mut receiver) = (open(Role::new(Idle::Spin)), open(Role::new(Idle::Spin)));
        for size in [9000, 1473, 1472, 100] {
            let run = pattern(size as u64, size * 20);
            send_all(&mut sender, To::Group, &run, size);
            assert!(receive_count(&mut receiver, 20).concat() == run, "{size}");
        }
        assert_eq!(sender.limits().segments_max, 64);
    });
}
