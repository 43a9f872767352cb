//! A process whose host gets another address: it goes on there, and what is forged moves no process.

use crate::common::net::{Net, address as first_address};
use crate::common::{Bench, MS, address, control};
use bourdon_protocol::{Counter, Destination, Event, Order, Process, Ranks, Standing, To};
use bourdon_wire::records::Ping;
use bourdon_wire::{Address, Datagram, Epoch, Kind, Rank};
use std::net::SocketAddr;
use zerocopy::IntoBytes;

const MEMBERS: u16 = 3;

fn elsewhere(index: usize) -> Address {
    address(500 + index as u16)
}

/// In the first view.
fn moved(rank: u16, address: Address, members: u64) -> Event {
    Event::Moved { rank: Rank(rank), address, epoch: Epoch(1), members: Ranks(members) }
}

fn was_removed_or_suspected(net: &Net, index: usize) -> bool {
    let bad = |event: &Event| matches!(event, Event::Removed(_) | Event::Suspected(..) | Event::NoMajority);
    net.processes[index].events.iter().any(bad)
}

fn publish_each(net: &mut Net) {
    for index in 0..usize::from(MEMBERS) {
        net.publish(index, b"x").expect("it is a member");
    }
}

#[test]
fn a_member_that_moves_keeps_its_place_and_loses_nothing() {
    let mut net = Net::new(MEMBERS, 1, |_| {});
    net.run(200 * MS);
    let view = net.process(0).view().clone();
    publish_each(&mut net);
    net.move_to(2, elsewhere(2));
    publish_each(&mut net);
    net.run(500 * MS);
    publish_each(&mut net);
    net.run(200 * MS);
    for index in 0..4 {
        assert!(!was_removed_or_suspected(&net, index), "{:?}", net.processes[index].events);
        assert_eq!(*net.process(index).view(), view);
        let moved = moved(2, elsewhere(2), 0b111);
        assert_eq!(net.heard(index, moved), index != 2, "{index}");
        assert_eq!(net.messages(index).len(), 9);
    }
    // Repairs, which go to one process, find it.
    net.lose = Box::new(|from, to| (from, to) == (2, 0));
    net.publish(2, b"lost").expect("it is a member");
    net.pump();
    net.lose = Box::new(|_, _| false);
    net.run(200 * MS);
    assert_eq!(net.messages(0).len(), 10);
}

#[test]
fn members_that_all_move_at_once_keep_their_view() {
    let mut net = Net::new(MEMBERS, 0, |_| {});
    net.run(200 * MS);
    (0..3).for_each(|index| net.move_to(index, elsewhere(index)));
    net.run(500 * MS);
    publish_each(&mut net);
    net.run(200 * MS);
    for index in 0..3 {
        assert!(!was_removed_or_suspected(&net, index), "{:?}", net.processes[index].events);
        assert_eq!((net.messages(index).len(), net.views(index).len()), (3, 1));
    }
}

#[test]
fn a_member_may_come_back_to_an_earlier_address() {
    let mut net = Net::new(MEMBERS, 0, |_| {});
    net.run(200 * MS);
    for at in [elsewhere(2), first_address(2), elsewhere(2)] {
        net.move_to(2, at);
        net.run(300 * MS);
        assert!(net.heard(0, moved(2, at, 0b111)));
    }
    assert!((0..3).all(|index| !was_removed_or_suspected(&net, index)));
}

#[test]
fn a_member_that_was_away_for_long_comes_back_under_its_address() {
    let mut net = Net::new(MEMBERS, 0, |_| {});
    net.run(200 * MS);
    net.lose = Box::new(|from, to| from == 2 || to == 2);
    net.run(1_000 * MS);
    net.move_to(2, elsewhere(2));
    net.run(1_000 * MS);
    net.lose = Box::new(|_, _| false);
    net.run(2_000 * MS);
    assert!(net.agree(&[0, 1, 2], 3), "{:?}", net.processes[2].events);
}

#[test]
fn a_process_that_moves_before_it_is_in_a_view_is_let_in() {
    // While the group forms, when it searches, and when it follows.
    for moves_at in [None, Some(1), Some(20)] {
        let mut net = Net::new(MEMBERS, 0, |_| {});
        match moves_at {
            None => {
                net.lose = Box::new(|from, _| from == 1);
                net.run(50 * MS);
                net.move_to(2, elsewhere(2));
                net.lose = Box::new(|_, _| false);
            }
            Some(ms) => {
                net.run(200 * MS);
                net.kill(2);
                net.run(500 * MS);
                net.start(2, 7);
                net.run(ms * MS);
                net.move_to(2, elsewhere(2));
            }
        }
        net.run(3_000 * MS);
        assert!(net.agree(&[0, 1, 2], 3), "{moves_at:?}: {:?}", net.processes[2].events);
        assert_eq!(net.process(2).config().address, elsewhere(2));
    }
}

#[test]
fn an_observer_that_moves_gets_its_repairs_there() {
    let mut net = Net::new(MEMBERS, 1, |_| {});
    net.run(200 * MS);
    net.move_to(3, elsewhere(3));
    for _ in 0..20 {
        net.lose = Box::new(|_, to| to == 3);
        publish_each(&mut net);
        net.pump();
        net.lose = Box::new(|_, _| false);
        net.run(50 * MS);
    }
    net.run(200 * MS);
    assert_eq!(net.process(3).standing(), Standing::Following);
    assert_eq!(net.messages(3).len(), 60);
    assert!(!net.processes[3].events.iter().any(|event| matches!(event, Event::Gap { .. })));
}

#[test]
fn a_call_to_a_member_that_moves_meanwhile_is_taken_there() {
    let mut net = Net::new(MEMBERS, 0, |_| {});
    net.run(200 * MS);
    net.lose = Box::new(|from, to| from == 2 || to == 2);
    let (now, content) = (net.now, bourdon_protocol::DirectContent::message(b"call"));
    net.process(0).send(now, To::Rank(Rank(2)), &content).expect("it was heard");
    net.run(5 * MS);
    net.move_to(2, elsewhere(2));
    net.lose = Box::new(|_, _| false);
    net.run(300 * MS);
    let message = net.process(2).poll_direct().expect("it came");
    assert_eq!((message.from, &message.payload[..]), (Rank(0), &b"call"[..]));
    assert!(matches!(net.process(0).poll_outcome(), Some(bourdon_protocol::DirectOutcome::Done { by: Rank(2), .. })));
    assert!(net.process(2).poll_direct().is_none(), "once");
}

/// An observer, or a joiner, that has heard a member once and is in no view yet.
#[test]
fn a_process_in_no_view_finds_members_that_have_moved() {
    let mut net = Net::new(MEMBERS, 1, |_| {});
    net.run(200 * MS);
    for index in [2, 3] {
        net.kill(index);
        net.run(500 * MS);
        // It hears the heartbeats, and its requests are lost.
        net.lose = Box::new(move |from, _| from == index);
        net.start(index, 9);
        net.run(100 * MS);
        (0..2).for_each(|member| net.move_to(member, address(600 + 10 * index as u16 + member as u16)));
        net.run(100 * MS);
        net.lose = Box::new(|_, _| false);
        net.run(3_000 * MS);
        assert_ne!(net.process(index).standing(), Standing::Outside, "{:?}", net.processes[index].events);
        assert_eq!(net.process(index).view().members.len(), 3);
    }
}

/// The nonces of the pings that go to a port.
fn pings_to(process: &mut Process, now: bourdon_wire::Instant, port: u16) -> Vec<u64> {
    let mut nonces = Vec::new();
    process.transmit(now, |to, bytes, segment_bytes| {
        if matches!(to, Destination::Peer(peer) if SocketAddr::from(peer).port() == port) {
            let datagram = Datagram::parse(bytes, crate::common::GROUP).expect("its own");
            let pings = datagram.frames().filter(|frame| frame.kind() == Some(Kind::Ping));
            nonces.extend(pings.map(|frame| Ping::read(frame.body).expect("a ping").0.nonce.get()));
        }
        bytes.len().div_ceil(segment_bytes)
    });
    nonces
}

fn answer(nonce: u64, port: u16) -> Vec<u8> {
    let pong = Ping { nonce: nonce.into(), reply_to: address(port), answer: 1.into() };
    control(0, Kind::Ping, &[pong.as_bytes()])
}

#[test]
fn a_heartbeat_alone_moves_no_member() {
    let mut bench = Bench::member(Order::Fifo, 2, 1).formed();
    let moved = moved(0, address(7), 0b11);
    let forged = bench.heartbeat(0, |heartbeat| heartbeat.address = address(7));
    let forge = |bench: &mut Bench| {
        bench.process.take_in(bench.now, &forged, None, true);
        pings_to(&mut bench.process, bench.now, 7)
    };
    // The member was heard at its address a moment ago: the other address is sent nothing.
    assert_eq!(forge(&mut bench), []);
    assert_eq!(bench.process.counters().get(Counter::DiscardedAddress), 1);
    // It is silent for a while: one ping for each heartbeat, which is longer.
    bench.wait(40 * MS);
    bench.effects();
    let nonces = forge(&mut bench);
    assert_eq!(nonces.len(), 1);
    // Answers that repeat another nonce, or name another address, prove nothing.
    for pong in [answer(nonces[0] ^ 1, 7), answer(nonces[0], 8)] {
        bench.process.take_in(bench.now, &pong, None, false);
    }
    // Nor does the right answer once the member has been heard at its address again.
    bench.take(&bench.heartbeat(0, |_| {}));
    bench.process.take_in(bench.now, &answer(nonces[0], 7), None, false);
    assert!(!bench.effects().contains(&crate::common::Effect::Event(moved)));
    bench.wait(40 * MS);
    bench.effects();
    let nonces = forge(&mut bench);
    bench.process.take_in(bench.now, &answer(nonces[0], 7), None, false);
    assert!(bench.effects().contains(&crate::common::Effect::Event(moved)));
}
