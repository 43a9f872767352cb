//! Joins by source: named senders are heard, others are not, and a source that was left is heard no more.
//!
//! On `lo` every address of 127.0.0.0/8 is this host's own, so two senders with different addresses need no network.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use crate::common::{enter_namespace, fresh_group};
use bourdon_port::conformance::{receive_count, receive_up_to, send_all};
use bourdon_port::{Idle, Port, PortError, To};
use bourdon_udp::{UdpOptions, UdpPort};
use socket2::{Domain, Socket, Type};

const FIRST: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 1));
const SECOND: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));

/// A socket that sends to groups over `lo` from this address.
fn sender(source: IpAddr) -> UdpSocket {
    let socket = Socket::new(Domain::for_address((source, 0).into()), Type::DGRAM, None).expect("a socket");
    match source {
        IpAddr::V4(v4) => socket.set_multicast_if_v4(&v4).expect("lo has it"),
        IpAddr::V6(_) => socket.set_multicast_if_v6(1).expect("lo is the first interface"),
    }
    socket.bind(&SocketAddr::new(source, 0).into()).expect("it is this host's");
    socket.into()
}

fn open(group: SocketAddr, idle: Idle, sources: &[IpAddr]) -> UdpPort {
    UdpPort::open(&UdpOptions { idle, sources: sources.to_vec(), ..UdpOptions::new(group) }).expect("a port on lo")
}

/// What `port` hears when each of the senders sends its number: all of it, since a unicast comes last.
fn heard(port: &mut UdpPort, group: SocketAddr, senders: &[&UdpSocket]) -> Vec<Vec<u8>> {
    for (number, sender) in senders.iter().enumerate() {
        sender.send_to(&[number as u8; 2], group).expect("sent");
    }
    // By now each is queued at the receiver, or was dropped: `lo` delivers within the call.
    let (address, mut got) = (port.local_address(), Vec::new());
    senders[0].send_to(b"last", address).expect("sent");
    got.extend(receive_up_to(port, b"last"));
    for _ in 0..2 {
        port.receive(usize::MAX, |arrival| got.push(arrival.bytes.to_vec())).expect("received");
    }
    got
}

fn exercise(group: SocketAddr, [first, second]: [IpAddr; 2]) {
    let (one, two) = (sender(first), sender(second));
    for idle in [Idle::Spin, Idle::Park] {
        let mut port = open(group, idle, &[first]);
        assert_eq!(heard(&mut port, group, &[&one, &two]), [[0, 0]], "{idle:?}: only the named sender");
        port.join_source(second).expect("a second source");
        assert_eq!(heard(&mut port, group, &[&one, &two]), [[0, 0], [1, 1]]);
        port.leave_source(first).expect("it was joined");
        assert_eq!(heard(&mut port, group, &[&one, &two]), [[1, 1]]);
        port.leave_source(second).expect("it was joined");
        assert_eq!(heard(&mut port, group, &[&one, &two]), [[0; 2]; 0], "no source is left");
        let error = port.leave_source(second).expect_err("it was left already");
        assert!(error.to_string().contains("not been joined"), "{error}");
    }
}

#[test]
fn only_named_sources_are_heard() {
    let mut group = fresh_group();
    exercise(group, [FIRST, SECOND]);
    group.set_ip(Ipv4Addr::new(232, 1, 2, 3).into());
    exercise(group, [FIRST, SECOND]);
}

#[test]
fn the_same_over_ipv6() {
    if enter_namespace(&["-6 route add local ff00::/8 dev lo", "-6 addr add fd00:b0::2/128 dev lo nodad"]) {
        let (first, second) = (Ipv6Addr::LOCALHOST.into(), Ipv6Addr::new(0xfd00, 0xb0, 0, 0, 0, 0, 0, 2).into());
        for first_word in [0xff15, 0xff35] {
            let group = SocketAddr::from((Ipv6Addr::new(first_word, 0, 0, 0, 0, 0, 0x8000, 1), 10_000));
            exercise(group, [first, second]);
        }
    }
}

#[test]
fn a_port_hears_its_peers_by_source_as_well() {
    let group = fresh_group();
    let (mut one, mut two) = (open(group, Idle::Park, &[FIRST]), open(group, Idle::Park, &[SECOND]));
    send_all(&mut two, To::Group, b"from 127.0.0.1", 64);
    assert_eq!(receive_count(&mut one, 1), [b"from 127.0.0.1"]);
    send_all(&mut one, To::Peer(two.local_address()), b"last", 64);
    assert!(receive_up_to(&mut two, b"last").is_empty(), "nothing comes from 127.0.0.2");
}

#[test]
fn what_cannot_work_is_refused_with_the_reason() {
    let refusal = |group: &str, sources: &[IpAddr]| {
        let group: SocketAddr = group.parse().expect("an address");
        let options = UdpOptions { sources: sources.to_vec(), ..UdpOptions::new(group) };
        UdpPort::open(&options).expect_err("it can't work")
    };
    for group in ["232.1.1.1:9999", "[ff35::1]:9999", "[ff3e::8000:1]:9999"] {
        let error = refusal(group, &[]);
        assert!(
            matches!(error, PortError::SourcesWanted(_)) && error.to_string().contains("network.sources"),
            "{error}"
        );
    }
    for source in ["224.0.0.1", "0.0.0.0", "::1"] {
        let error = refusal("239.1.1.1:9999", &[source.parse().expect("an address")]);
        assert!(matches!(error, PortError::Source { .. }), "{error}");
    }
    for group in ["[ff00::1]:9999", "[ff0f::1]:9999", "[ff02::1%77]:9999"] {
        let error = refusal(group, &[]);
        assert!(matches!(error, PortError::Scope { .. }), "{error}");
    }
    let port = open(fresh_group(), Idle::Spin, &[]);
    let error = port.join_source(SECOND).expect_err("it hears every sender already");
    assert!(error.to_string().contains("joined without sources"), "{error}");
}
