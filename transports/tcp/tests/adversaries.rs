//! What strangers and faults do to a mesh: nothing beyond the connection they do it on.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use crate::common::world;
use bourdon_port::conformance::{PATIENCE, Role, poll_until, receive_into, receive_up_to, send_all};
use bourdon_port::{Idle, Port, PortError, To};
use bourdon_tcp::options::{CONNECT_MAX, QUEUE_MAX_BYTES, STRANGERS_MAX};
use bourdon_tcp::{TcpOptions, TcpPort};

const HELLO: [u8; 32] = *b"bdtm\x01\0\x21\x1d\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\xff\xff\x7f\0\0\x09";

/// The address in it.
const FOREIGNER: &str = "127.0.0.9:7457";

/// Each way to wait.
fn each(check: impl Fn(Idle, bool)) {
    for (idle, io_uring) in [(Idle::Park, true), (Idle::Park, false), (Idle::Spin, false)] {
        check(idle, io_uring);
    }
}

fn pair(idle: Idle, io_uring: bool) -> (TcpPort, TcpPort) {
    // Of the strangers' group: the token of their hello.
    let open = world(|options| (options.io_uring, options.token) = (io_uring, 0));
    (open(Role::new(idle)), open(Role::new(idle)))
}

/// Calls both until they know each other and the second has got a datagram that the first sends again and again.
fn heal(from: &mut TcpPort, to: &mut TcpPort) {
    let started = Instant::now();
    let mut got = Vec::new();
    while !got.contains(&b"healed".to_vec()) || from.peers().count() == 0 || to.peers().count() == 0 {
        send_all(from, To::Group, b"healed", 64);
        for port in [&mut *from, &mut *to] {
            port.wait(Duration::from_millis(1)).expect("a wait that works");
        }
        from.receive(usize::MAX, |_| {}).expect("a receive that works");
        receive_into(to, usize::MAX, &mut got);
        assert!(started.elapsed() < PATIENCE, "the connection was never made again");
    }
}

/// Polls the port until the stranger's connection has been ended, and returns what the stranger got.
fn until_closed(port: &mut TcpPort, stranger: &mut TcpStream) -> usize {
    stranger.set_nonblocking(true).expect("a socket");
    let (mut bytes, mut got) = ([0; 4096], 0);
    poll_until(port, |port| {
        assert_eq!(
            port.receive(usize::MAX, |it| panic!("handed out {:?}", it.bytes)).expect("a receive that works"),
            0
        );
        loop {
            match stranger.read(&mut bytes) {
                Ok(0) => return true,
                Ok(count) => got += count,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return false,
                Err(_) => return true,
            }
        }
    });
    got
}

#[test]
fn garbage_ends_its_own_connection_only() {
    each(|idle, io_uring| {
        let (mut one, mut two) = pair(idle, io_uring);
        heal(&mut one, &mut two);
        let after_hello = |tail: &[u8]| [&HELLO[..], tail].concat();
        for bytes in [
            vec![0; 32],
            b"GET / HTTP/1.1\r\nHost: anyplace\r\n\r\n".to_vec(),
            {
                let mut other = HELLO;
                other[4] = 2;
                other.to_vec()
            },
            after_hello(&[0, 0, 0, 0]),
            after_hello(&[0, 0, 0, 0x80]),
            after_hello(&1409u32.to_le_bytes()),
            after_hello(&[0xff; 4]),
        ] {
            let mut stranger = TcpStream::connect(one.local_address()).expect("it listens");
            stranger.write_all(&bytes).expect("sent");
            until_closed(&mut one, &mut stranger);
        }
        send_all(&mut two, To::Group, b"still here", 64);
        receive_up_to(&mut one, b"still here");
        assert_eq!(two.broken(), 0);
    });
}

#[test]
fn half_a_hello_ends_by_itself_and_blocks_no_peer() {
    each(|idle, io_uring| {
        let (mut one, mut two) = pair(idle, io_uring);
        let mut stranger = TcpStream::connect(one.local_address()).expect("it listens");
        stranger.write_all(&HELLO[..17]).expect("sent");
        send_all(&mut two, To::Group, b"meanwhile", 64);
        receive_up_to(&mut one, b"meanwhile");
        assert_eq!(until_closed(&mut one, &mut stranger), HELLO.len(), "it received the listener's hello, and no more");
    });
}

#[test]
fn a_datagram_in_bytes_one_by_one_arrives_and_a_cut_one_does_not() {
    each(|idle, io_uring| {
        let (mut one, _two) = pair(idle, io_uring);
        let mut peer = TcpStream::connect(one.local_address()).expect("it listens");
        peer.set_nodelay(true).expect("a socket");
        for byte in [&HELLO[..], &[3, 0, 0, 0], b"abc", &[5, 0, 0, 0], b"cut"].concat() {
            peer.write_all(&[byte]).expect("sent");
            one.wait(Duration::ZERO).expect("a wait that works");
        }
        peer.shutdown(Shutdown::Write).expect("a socket");
        let mut got = Vec::new();
        poll_until(&mut one, |one| {
            receive_into(one, usize::MAX, &mut got);
            one.broken() > 0
        });
        assert_eq!(got, [b"abc"]);
    });
}

#[test]
fn a_thousand_strangers_keep_no_peer_out() {
    each(|idle, io_uring| {
        let (mut one, mut two) = pair(idle, io_uring);
        heal(&mut one, &mut two);
        let mut strangers = Vec::new();
        for round in 0..1000 {
            strangers.push(TcpStream::connect(one.local_address()).expect("it listens"));
            if round % 100 == 0 {
                send_all(&mut two, To::Group, &[1, round as u8], 64);
                receive_up_to(&mut one, &[1, round as u8]);
            }
        }
        // A process that connects when all places are taken is let in all the same.
        let mut peer = TcpStream::connect(one.local_address()).expect("it listens");
        peer.write_all(&[&HELLO[..], &[4, 0, 0, 0], b"late"].concat()).expect("sent");
        receive_up_to(&mut one, b"late");
        assert!(one.strangers() <= STRANGERS_MAX, "{} strangers are kept", one.strangers());
    });
}

#[test]
fn a_peer_that_does_not_read_blocks_no_other() {
    each(|idle, io_uring| {
        let (mut one, mut two) = pair(idle, io_uring);
        heal(&mut two, &mut one);
        let mut lazy = TcpStream::connect(one.local_address()).expect("it listens");
        lazy.write_all(&HELLO).expect("sent");
        let run = vec![7; 32 * 1024];
        let (mut sent, mut round) = (0, 0u32);
        // Far beyond what the kernel and the queue hold, or until the kernel gives the lazy one up.
        while sent < 16 * QUEUE_MAX_BYTES && one.broken() == 0 && one.dropped() < 1000 {
            send_all(&mut one, To::Group, &run, 1024);
            sent += run.len();
            round += 1;
            send_all(&mut one, To::Group, &round.to_le_bytes(), 64);
            receive_up_to(&mut two, &round.to_le_bytes());
        }
        assert!(one.dropped() >= 1000, "{sent} bytes were sent, {} dropped", one.dropped());
        read_whole_datagrams(&mut one, &mut lazy, round);
        drop(lazy);
        heal(&mut one, &mut two);
    });
}

/// Reads until what was sent last has come; all before it is whole and in order, whatever is missing.
fn read_whole_datagrams(one: &mut TcpPort, lazy: &mut TcpStream, round: u32) {
    lazy.set_nonblocking(true).expect("a socket");
    let (mut bytes, mut at, mut last, mut room) = (Vec::new(), HELLO.len(), 0, vec![0; 1 << 16]);
    poll_until(one, |one| {
        send_all(one, To::Group, &(round + 1).to_le_bytes(), 64);
        one.receive(usize::MAX, |_| {}).expect("a receive that works");
        while let Ok(count) = lazy.read(&mut room) {
            assert!(count > 0, "the connection was ended");
            bytes.extend_from_slice(&room[..count]);
        }
        while let Some(prefix) = bytes.get(at..at + 4) {
            let length = match prefix {
                [0, 4, 0, 0x80] => 1024,
                [4, 0, 0, 0x80] => 4,
                other => panic!("no beginning of a datagram: {other:?}"),
            };
            let Some(datagram) = bytes.get(at + 4..at + 4 + length) else { break };
            if length == 4 {
                let number = u32::from_le_bytes(datagram.try_into().expect("four bytes"));
                assert!(number >= last, "{number} after {last}");
                last = number;
            } else {
                assert!(datagram.iter().all(|byte| *byte == 7), "a datagram is whole");
            }
            at += 4 + length;
        }
        last == round + 1
    });
}

#[test]
fn broken_links_are_made_again() {
    each(|idle, io_uring| {
        let (mut one, mut two) = pair(idle, io_uring);
        heal(&mut one, &mut two);
        for _ in 0..5 {
            assert!(one.break_one_link());
            heal(&mut two, &mut one);
            assert!(two.break_one_link());
            heal(&mut one, &mut two);
        }
        assert!(one.broken() >= 10, "{} breaks were noticed", one.broken());
    });
}

#[test]
fn two_that_dial_each_other_agree_on_one_connection() {
    each(|idle, io_uring| {
        let listen =
            |dial| TcpOptions { dial, idle, io_uring, ..TcpOptions::new("127.0.0.1:0".parse().expect("an address")) };
        let mut rounds = 0;
        while rounds < 20 {
            // Another process's address first, to know it before it is listened at.
            let free = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address");
            let mut one = TcpPort::open(&listen(vec![free])).expect("it opens");
            let mut two = match TcpPort::open(&TcpOptions { listen: free, ..listen(vec![one.local_address()]) }) {
                Err(PortError::AddressInUse { .. }) => continue, // another test was given the port meanwhile
                opened => opened.expect("opens"),
            };
            rounds += 1;
            // The first dials again, and both ends have two connections until they agree.
            let started = Instant::now();
            let mut quiet_since = Instant::now();
            while quiet_since.elapsed() < Duration::from_millis(20) {
                for port in [&mut one, &mut two] {
                    port.wait(Duration::from_millis(1)).expect("a wait that works");
                    port.receive(usize::MAX, |_| {}).expect("a receive that works");
                    if port.peers().count() != 1 {
                        quiet_since = Instant::now();
                    }
                }
                assert!(started.elapsed() < PATIENCE, "they never agree");
            }
            heal(&mut one, &mut two);
            heal(&mut two, &mut one);
        }
    });
}

/// The hello of a process with this address.
fn hello_of(address: SocketAddr) -> [u8; 32] {
    let SocketAddr::V4(v4) = address else { panic!("this test uses IPv4") };
    let mut hello = HELLO;
    hello[6..8].copy_from_slice(&v4.port().to_le_bytes());
    hello[28..].copy_from_slice(&v4.ip().octets());
    hello
}

#[test]
fn between_groups_only_datagrams_for_one_peer_pass() {
    each(|idle, io_uring| {
        let (mut one, mut two) = pair(idle, io_uring);
        heal(&mut one, &mut two);
        let mut foreigner = TcpStream::connect(one.local_address()).expect("it listens");
        let mut hello = HELLO;
        hello[8] = 9; // another group's token
        foreigner.write_all(&[&hello[..], b"\x03\0\0\x80all\x03\0\0\0you"].concat()).expect("sent");
        assert!(receive_up_to(&mut one, b"you").is_empty(), "what is for the other group");
        send_all(&mut one, To::Group, b"ours", 64);
        send_all(&mut one, To::Peer(FOREIGNER.parse().expect("an address")), b"yours", 64);
        let mut got = [0; HELLO.len() + 9];
        foreigner.read_exact(&mut got).expect("it comes");
        assert_eq!(&got[HELLO.len()..], b"\x05\0\0\0yours");
        receive_up_to(&mut two, b"ours");
    });
}

#[test]
fn the_newer_of_two_connections_from_one_end_stays() {
    each(|idle, io_uring| {
        let (mut one, _two) = pair(idle, io_uring);
        let connect = || {
            let mut stream = TcpStream::connect(one.local_address()).expect("it listens");
            stream.write_all(&HELLO).expect("sent");
            stream
        };
        let (mut older, mut newer) = (connect(), connect());
        assert!(until_closed(&mut one, &mut older) <= HELLO.len());
        newer.write_all(b"\x05\0\0\0newer").expect("sent");
        receive_up_to(&mut one, b"newer");
    });
}

#[test]
fn of_two_connections_from_both_ends_the_greater_address_s_stays() {
    each(|idle, io_uring| {
        for (own, peer) in [("127.0.0.1:0", "127.0.0.2:0"), ("127.0.0.2:0", "127.0.0.1:0")] {
            let listener = TcpListener::bind(peer).expect("loopback is there");
            let peer = listener.local_addr().expect("it is bound");
            let own =
                TcpOptions { dial: vec![peer], idle, io_uring, ..TcpOptions::new(own.parse().expect("an address")) };
            let mut one = TcpPort::open(&own).expect("it opens");
            let (mut dialled_by_one, _) = listener.accept().expect("it dials");
            dialled_by_one.write_all(&hello_of(peer)).expect("sent");
            poll_until(&mut one, |one| one.receive(1, |_| {}).is_ok() && one.peers().count() == 1);
            let mut dialled_by_peer = TcpStream::connect(one.local_address()).expect("it listens");
            dialled_by_peer.write_all(&hello_of(peer)).expect("sent");
            let (stays, goes) = if one.local_address() > peer {
                (&mut dialled_by_one, &mut dialled_by_peer)
            } else {
                (&mut dialled_by_peer, &mut dialled_by_one)
            };
            until_closed(&mut one, goes);
            stays.write_all(b"\x05\0\0\0stays").expect("sent");
            receive_up_to(&mut one, b"stays");
        }
    });
}

#[test]
fn a_dead_or_silent_peer_delays_no_other() {
    each(|idle, io_uring| {
        // No host has 192.0.2.1 (RFC 5737); a process that listens and never accepts; a process that has ended.
        let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
        let gone = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address");
        let dial = vec!["192.0.2.1:9".parse().expect("an address"), silent.local_addr().expect("an address"), gone];
        let open = world(|options| {
            options.io_uring = io_uring;
            options.dial.extend(&dial);
        });
        let (mut one, mut two) = (open(Role::new(idle)), open(Role::new(idle)));
        let started = Instant::now();
        let mut rounds = 0u32;
        while started.elapsed() < CONNECT_MAX + Duration::from_millis(300) {
            send_all(&mut one, To::Group, &rounds.to_le_bytes(), 64);
            receive_up_to(&mut two, &rounds.to_le_bytes());
            one.receive(usize::MAX, |_| {}).expect("a receive that works");
            rounds += 1;
        }
        assert!(rounds > 100, "{rounds} rounds while the dead were dialled");
    });
}
