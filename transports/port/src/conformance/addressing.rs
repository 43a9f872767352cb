//! Datagrams reach their receivers and no other process, and ports come and go without harm to others.

use super::{Role, pattern, poll_until, receive_count, receive_into, receive_up_to, send_all};
use crate::{Echo, Idle, Port, To};

/// A datagram to a peer reaches that peer and no other member of the group.
pub fn peer_unicast_reaches_only_the_peer<P: Port>(idle: Idle, open: impl Fn(Role) -> P) {
    let (mut sender, mut peer, mut other) = (open(Role::new(idle)), open(Role::new(idle)), open(Role::new(idle)));
    assert_ne!(peer.local_address(), other.local_address());
    let size = sender.limits().datagram_max_bytes.min(500);
    let bytes = pattern(1, 46 * size + 1);
    send_all(&mut sender, To::Peer(peer.local_address()), &bytes, size);
    let sent: Vec<&[u8]> = bytes.chunks(size).collect();
    assert!(receive_count(&mut peer, sent.len()) == sent);
    // The same source sends this one later, so it would stand behind anything that went astray.
    send_all(&mut sender, To::Peer(other.local_address()), b"for the other", 64);
    send_all(&mut sender, To::Group, b"for all", 64);
    let mut got = receive_count(&mut other, 2);
    got.sort();
    assert_eq!(got, [b"for all".to_vec(), b"for the other".to_vec()]);
}

/// What was sent to the group is distinguished from what was sent to one port.
pub fn each_arrival_reports_whether_it_was_sent_to_all<P: Port>(idle: Idle, open: impl Fn(Role) -> P) {
    let (mut sender, mut receiver) = (open(Role::new(idle)), open(Role::new(idle)));
    for (to, to_all) in [(To::Group, true), (To::Peer(receiver.local_address()), false)] {
        for segments in [1, 3] {
            let bytes = pattern(segments as u64, 100 * segments);
            send_all(&mut sender, to, &bytes, 100);
            let mut got = Vec::new();
            poll_until(&mut receiver, |port| {
                port.receive(usize::MAX, |arrival| got.push(arrival.to_all)).expect("a receive that works");
                got.len() >= segments
            });
            assert_eq!(got, vec![to_all; segments], "sent to {to:?}");
        }
    }
}

/// A port may drop what carries its echo, and nothing else: not what has the same bytes elsewhere, not what is too
/// short for it, not what comes by unicast. Others hear all of it.
pub fn own_echo_is_known_by_place_and_bytes<P: Port>(idle: Idle, open: impl Fn(Role) -> P) {
    for offset in [0, 16, 24] {
        let echo = Echo { offset, bytes: *b"\x01sender\xff" };
        let mut own = open(Role { echo: Some(echo), ..Role::new(idle) });
        let mut other = open(Role::new(idle));

        let mut tagged = pattern(1, 100);
        tagged[offset..offset + 8].copy_from_slice(&echo.bytes);
        send_all(&mut own, To::Group, &tagged, 100);
        assert!(receive_count(&mut other, 1)[0] == tagged);

        let mut elsewhere = pattern(2, 100);
        elsewhere[offset + 1..offset + 9].copy_from_slice(&echo.bytes);
        let mut nearly = tagged.clone();
        nearly[offset + 7] ^= 1;
        let cut_short = tagged[..offset + 7].to_vec();
        let just_long_enough = pattern(3, offset + 8);
        let lookalikes = [elsewhere, nearly, cut_short, just_long_enough, b"x".to_vec()];
        for datagram in &lookalikes {
            send_all(&mut other, To::Group, datagram, 100);
        }
        send_all(&mut other, To::Group, b"last", 100);
        let got = receive_up_to(&mut own, b"last");
        let foreign: Vec<&Vec<u8>> = got.iter().filter(|datagram| **datagram != tagged).collect();
        assert!(foreign == lookalikes.iter().collect::<Vec<_>>(), "offset {offset}: a lookalike was dropped");

        send_all(&mut other, To::Peer(own.local_address()), &tagged, 100);
        assert!(receive_count(&mut own, 1)[0] == tagged, "the echo is about multicasts only");
    }
}

/// Two groups that differ in address only don't hear each other.
pub fn groups_do_not_cross_talk<P: Port>(idle: Idle, open: impl Fn(Role) -> P) {
    let role = Role::new(idle);
    let (mut sender, mut other_sender) = (open(role), open(Role { group: 1, ..role }));
    let (mut receiver, mut other_receiver) = (open(role), open(Role { group: 1, ..role }));
    for round in 0..50u8 {
        send_all(&mut sender, To::Group, &[0, round], 2);
        send_all(&mut other_sender, To::Group, &[1, round], 2);
    }
    let rounds = |group: u8| (0..50).map(|round| vec![group, round]).collect::<Vec<_>>();
    assert_eq!(receive_count(&mut receiver, 50), rounds(0));
    assert_eq!(receive_count(&mut other_receiver, 50), rounds(1));
    // What went astray from the first sender would now stand before this.
    send_all(&mut sender, To::Peer(other_receiver.local_address()), b"last", 64);
    assert!(receive_up_to(&mut other_receiver, b"last").is_empty());
}

/// A broadcast reaches members of all groups with the port number, and leaves their traffic as it is. Ports that can't
/// broadcast take it and drop it.
pub fn a_broadcast_reaches_every_group_on_the_port<P: Port>(idle: Idle, open: impl Fn(Role) -> P) {
    let role = Role::new(idle);
    let (mut sender, mut receiver, mut stranger) = (open(role), open(role), open(Role { group: 1, ..role }));
    for round in 0..20 {
        let (all, few) = (pattern(round, 300), pattern(round + 100, 200));
        send_all(&mut sender, To::Broadcast, &all, 100);
        send_all(&mut sender, To::Group, &few, 200);
        for port in [&mut receiver, &mut stranger] {
            let mut got = Vec::new();
            if port.can_broadcast() {
                poll_until(port, |port| {
                    receive_into(port, usize::MAX, &mut got);
                    all.chunks(100).all(|datagram| got.iter().any(|one| one == datagram))
                });
            }
            send_all(&mut sender, To::Peer(port.local_address()), b"last", 64);
            got.extend(receive_up_to(port, b"last"));
            assert!(got.iter().all(|one| *one == few || all.chunks(100).any(|datagram| one == datagram)));
        }
    }
}

/// Sending to an address that no process has any more neither fails nor disturbs the traffic of others, in both
/// directions.
pub fn a_peer_that_has_gone_harms_no_other<P: Port>(idle: Idle, open: impl Fn(Role) -> P) {
    let (mut sender, mut receiver) = (open(Role::new(idle)), open(Role::new(idle)));
    let gone = open(Role::new(idle)).local_address();
    for round in 0..100 {
        send_all(&mut sender, To::Peer(gone), &pattern(round, 300), 100);
        let datagram = pattern(round, 50);
        send_all(&mut sender, To::Group, &datagram, 50);
        assert!(receive_count(&mut receiver, 1)[0] == datagram);
        send_all(&mut receiver, To::Peer(sender.local_address()), &datagram, 50);
        let own_or_peer = receive_up_to(&mut sender, &datagram);
        assert!(own_or_peer.is_empty() || own_or_peer.iter().all(|own| own.len() == 50));
    }
}

/// Ports can be opened and dropped over and over, and what was sent to a dropped port does not reach its successor.
pub fn a_dropped_port_frees_its_place<P: Port>(idle: Idle, open: impl Fn(Role) -> P) {
    let mut sender = open(Role::new(idle));
    for round in 0..60 {
        let mut port = open(Role::new(idle));
        let datagram = pattern(round, 64);
        send_all(&mut sender, To::Group, &datagram, 64);
        assert!(receive_count(&mut port, 1)[0] == datagram);
        send_all(&mut sender, To::Peer(port.local_address()), b"never read", 64);
        drop(port);
        sender.receive(usize::MAX, |_| {}).expect("a receive that works");
    }
}

/// Limits are usable numbers and do not change.
pub fn limits_are_real<P: Port>(idle: Idle, open: impl Fn(Role) -> P) {
    let mut port = open(Role::new(idle));
    let limits = port.limits();
    assert!(limits.datagram_max_bytes >= 508, "what every IPv4 host must take: {limits:?}");
    assert!(limits.receive_buffer_bytes >= limits.datagram_max_bytes, "{limits:?}");
    assert!(limits.segments_max >= 1, "{limits:?}");
    send_all(&mut port, To::Group, &pattern(0, limits.datagram_max_bytes * 3), limits.datagram_max_bytes);
    assert_eq!(port.limits(), limits);
    assert!(!port.io().is_empty());
    assert!(!port.local_address().ip().is_unspecified() && port.local_address().port() != 0);
}

/// On a host that does not change, following it changes nothing and loses nothing that waits.
pub fn a_host_that_does_not_change_is_followed_without_effect<P: Port>(idle: Idle, open: impl Fn(Role) -> P) {
    let (mut sender, mut receiver) = (open(Role::new(idle)), open(Role::new(idle)));
    let (address, limits) = (receiver.local_address(), receiver.limits());
    for round in 0..20 {
        let datagram = pattern(round, 64);
        send_all(&mut sender, To::Group, &datagram, 64);
        for port in [&mut sender, &mut receiver] {
            assert_eq!(port.follow_host().expect("a host that is followed"), None);
        }
        assert_eq!(receive_count(&mut receiver, 1)[0], datagram);
    }
    assert_eq!((receiver.local_address(), receiver.limits()), (address, limits));
}
