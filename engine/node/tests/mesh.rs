//! Groups over TCP: links that break in the middle of a stream lose nothing, processes come back at their addresses,
//! and an observer needs one member's address.

use crate::common::{self, TOPIC, World, free_addresses, until};
use bourdon::id::OrderNumber;
use bourdon::settings::{IdleStrategy, Role, Start, Transport};
use bourdon::{Delivery, Discovery, Event, InlineNode, Settings, Standing, discover};
use std::net::{SocketAddr, TcpListener};
use std::thread;

fn over_tcp(mut settings: Settings, peers: &[SocketAddr]) -> Settings {
    settings.network.transport = Transport::Tcp;
    settings.network.peers = peers.to_vec();
    settings
}

type Delivered = Vec<(Option<OrderNumber>, u16, u64)>;

/// Polls all until `done`; what each delivers is added to its list, and checked as it comes.
fn poll_all(
    nodes: &mut [InlineNode],
    got: &mut [Delivered],
    mut each: impl FnMut(usize, &mut InlineNode, &Delivered) -> bool,
) {
    until("all to be done", || {
        let mut done = true;
        for (place, (node, got)) in nodes.iter_mut().zip(&mut *got).enumerate() {
            let polled = node.poll(usize::MAX, |delivery| match delivery {
                Delivery::Message(message) => {
                    assert_eq!(message.payload, format!("{} {}", message.sender, message.sequence).as_bytes());
                    got.push((message.order, message.sender.0, message.sequence.0));
                }
                other => assert!(!matches!(other, Delivery::Event(Event::Gap { .. })), "{place}: {other:?}"),
            });
            polled.expect("the port works");
            done &= each(place, node, got);
        }
        done
    });
}

#[test]
fn links_that_break_in_mid_stream_lose_nothing() {
    const EACH: u64 = 5_000;
    const BREAKS: u64 = 20;
    for (idle, at) in
        [(IdleStrategy::Park, "127.0.0.1"), (IdleStrategy::Spin, "127.0.0.1"), (IdleStrategy::Park, "::1")]
    {
        let world = World::new(3);
        let peers = free_addresses(3, at);
        let settings =
            (0..3).map(|rank| over_tcp(world.member(rank), &peers)).chain([over_tcp(world.observer(), &peers)]);
        let mut nodes: Vec<InlineNode> = settings
            .map(|mut settings| {
                settings.threads.idle = idle;
                if settings.process.role == Role::Observer {
                    settings.process.start = Start::Oldest;
                }
                InlineNode::join(&settings).expect("it starts")
            })
            .collect();
        assert!(
            nodes.iter().all(|node| node.io() == if idle == IdleStrategy::Spin { "socket-spin" } else { "io_uring" })
        );
        let mut got = vec![Vec::new(); 4];
        let (mut published, mut broken) = ([0; 4], [0; 4]);
        poll_all(&mut nodes, &mut got, |place, node, got| {
            // Members publish; every member breaks links as it delivers, an observer its own.
            while place < 3 && published[place] < EACH {
                match node.try_publish(&TOPIC, format!("{place} {}", published[place]).as_bytes()) {
                    Ok(_) => published[place] += 1,
                    Err(refusal) if refusal.is_transient() => break,
                    Err(refusal) => panic!("it fits, and comes from a member: {refusal}"),
                }
            }
            let due = got.len() as u64 * BREAKS / (3 * EACH);
            if broken[place] < due && node.break_one_link() {
                broken[place] += 1;
            }
            got.len() as u64 == 3 * EACH
        });
        assert!(broken.iter().sum::<u64>() > BREAKS, "{broken:?} links were broken");
        assert!(
            got[0].iter().enumerate().all(|(place, it)| it.0 == Some(OrderNumber(place as u64))),
            "one number each"
        );
        assert!(got.iter().all(|it| *it == got[0]), "all in one order");
        let repaired: u64 =
            nodes.iter().map(|node| node.counters().get(bourdon::counters::Counter::RepairsReceived)).sum();
        assert!(repaired > 0, "what was broken off was repaired, or nothing was broken off");
    }
}

#[test]
fn a_process_that_comes_back_listens_where_it_was() {
    let world = World::new(3);
    let peers = free_addresses(3, "127.0.0.1");
    let mut nodes: Vec<InlineNode> =
        (0..3).map(|rank| InlineNode::join(&over_tcp(world.member(rank), &peers)).expect("it starts")).collect();
    let mut got = vec![Vec::new(); 3];
    let members = |node: &InlineNode| node.view().members.len();
    poll_all(&mut nodes, &mut got, |_, node, _| members(node) == 3);
    // Rank 0 dials no member: the others must find it again.
    drop(nodes.remove(0));
    poll_all(&mut nodes, &mut got, |_, node, _| members(node) == 2);
    nodes.push(InlineNode::join(&over_tcp(world.member(0), &peers)).expect("the address is free again"));
    poll_all(&mut nodes, &mut got, |_, node, _| members(node) == 3 && node.standing() == Standing::Member);
}

#[test]
fn a_listener_learns_the_group_from_one_member() {
    let world = World::new(1);
    let peers = free_addresses(1, "127.0.0.1");
    let mut member = InlineNode::join(&over_tcp(world.member(0), &peers)).expect("it starts");
    let mut settings = over_tcp(world.observer(), &peers);
    settings.group.members = 60; // not known yet
    let listener = thread::spawn(move || discover(&mut settings, common::PATIENCE).map(|found| (found, settings)));
    until("the listener to be done", || {
        member.poll(usize::MAX, |_| {}).expect("the port works");
        listener.is_finished()
    });
    let (found, settings) = listener.join().expect("it does not panic").expect("the network works");
    assert_eq!((found, settings.group.members), (Discovery::Found, 1));
}

#[test]
fn addresses_that_can_t_work_are_refused_with_what_to_do() {
    let world = World::new(2);
    let free = free_addresses(2, "127.0.0.1");
    let refused = |peers: &[SocketAddr], listen: Option<SocketAddr>| {
        let mut settings = over_tcp(world.member(0), peers);
        settings.network.listen = listen;
        InlineNode::join(&settings).expect_err("it is refused").to_string()
    };
    let address = |text: &str| text.parse::<SocketAddr>().expect("an address");
    for (peers, listen, expected) in [
        (vec![], None, "peers is empty"),
        (vec![free[0]], None, "list all 2 members"),
        (vec![free[0], free[0]], None, "twice"),
        (vec![free[0], address("0.0.0.0:7500")], None, "0.0.0.0:7500"),
        (vec![free[0], address("[::1]:7500")], None, "all IPv4 or all IPv6"),
        (free.clone(), Some(address("127.0.0.1:0")), "127.0.0.1:0"),
        (vec![address("192.0.2.1:7500"), free[1]], None, "address of this host"),
    ] {
        let why = refused(&peers, listen);
        assert!(why.contains(expected), "{expected}: {why}");
    }
    let mut observer = over_tcp(world.observer(), &free[..1]);
    let why = InlineNode::join(&observer).expect_err("it would miss what the other member sends").to_string();
    assert!(why.contains("list all 2 members"), "{why}");
    observer.network.peers = free.clone();
    InlineNode::join(&observer).expect("all are listed");
    let _taken = TcpListener::bind(free[0]).expect("it is free");
    assert!(refused(&free, None).contains("in use"));
}
