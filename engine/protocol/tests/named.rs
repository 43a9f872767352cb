//! Messages that carry their topic's name: it comes with them, whatever other extensions they have and however they
//! arrive.

use crate::common::net::{Net, address};
use crate::common::{self, Bench, FrameParts, GROUP, MS, MTU, control, data, in_instance, message, piece, run};
use bourdon_protocol::{Client, Event, Order, Outgoing, Refusal, Reliability};
use bourdon_wire::records::ClientAnswer;
use bourdon_wire::{ClientId, Instant, Kind, Rank, Sequence, TopicId, TopicName, flags};
use zerocopy::IntoBytes;

const NAMES: [&str; 4] = ["md.es.trades", "md.es.quotes", "a", "news"];

/// What a message is published with: one of the names, chosen by its first byte, or only an id.
fn outgoing(first: u8) -> Outgoing {
    match NAMES.get(usize::from(first)) {
        Some(name) => Outgoing::named(TopicName::new(name).unwrap()),
        None => Outgoing { topic: TopicId::of("md.es.trades"), ..Outgoing::default() },
    }
}

/// What it must be delivered with.
fn expected(first: u8) -> (u16, Option<String>) {
    let name = NAMES.get(usize::from(first)).map(|name| (*name).to_owned());
    (TopicId::of(name.as_deref().unwrap_or("md.es.trades")).0, name)
}

fn named(name: &str, payload: &[u8]) -> FrameParts {
    (flags::WHOLE | flags::NAMED, [&[name.len() as u8], name.as_bytes(), payload].concat())
}

/// Seventy messages of each of two members, some of them longer than a datagram, through loss, a barrier, and the death
/// of a third member, which makes the other members publish again what was under way.
fn trouble(order: fn(&mut bourdon_protocol::Config), seed: u64) -> u64 {
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut losses = fastrand::Rng::with_seed(seed ^ 7);
    let mut net = Net::new(3, 1, order);
    net.run(200 * MS);
    net.lose = Box::new(move |_, _| losses.u32(..100) < 5);
    let mut resubmitted = 0;
    for round in 0..70 {
        for index in 0..2 {
            let first = rng.u8(..6);
            let length = if rng.u8(..8) == 0 { rng.usize(1300..4000) } else { rng.usize(1..200) };
            let payload = vec![first; length];
            loop {
                let now = net.now;
                match net.process(index).try_publish(now, &outgoing(first), &payload) {
                    Ok(_) => break,
                    Err(Refusal::TooLarge { .. } | Refusal::Role) => panic!("it fits"),
                    Err(_) => net.run(MS),
                }
            }
            if rng.bool() {
                net.run(100_000);
            }
        }
        match round {
            20 => net.process(0).sync(Instant(0), Some(b"between")).unwrap(),
            40 => net.kill(2),
            _ => {}
        }
    }
    net.run(3_000 * MS);
    for index in [0, 1, 3] {
        let one = &net.processes[index];
        let is_lossy = one.process.as_ref().unwrap().config().reliability.is_lossy();
        let lost: u64 = one.events.iter().map(given_up).sum();
        assert!(is_lossy || lost == 0, "{index} {:?}", one.events);
        assert!(!is_lossy || one.topics.len() > 70, "{index}: too few for the test");
        // Messages that an observer alone received of the dead member are void, and come again.
        let retracted: u64 = one.events.iter().map(void).sum();
        let shown = one.topics.len() as u64 - retracted;
        assert!(is_lossy || shown == 140 && (retracted == 0 || index == 3), "{index}: {shown} {:?}", one.events);
        for (topic, name, first) in &one.topics {
            assert_eq!((*topic, name.clone()), expected(first.unwrap()), "process {index}");
        }
        resubmitted += one.process.as_ref().unwrap().counters().get(bourdon_protocol::Counter::Resubmitted);
    }
    resubmitted
}

/// How many messages an event reports as lost.
fn given_up(event: &Event) -> u64 {
    match event {
        Event::Gap { from, to, .. } => to.since(*from),
        _ => 0,
    }
}

/// How many messages an event reports as void.
fn void(event: &Event) -> u64 {
    match event {
        Event::Retracted { from, to, .. } => to.since(*from),
        _ => 0,
    }
}

#[test]
fn names_come_with_their_messages_in_every_order() {
    let mut resubmitted = 0;
    for seed in 0..6 {
        // Messages that the dead sequencer had not put in order are published again.
        resubmitted += trouble(|config| (config.order, config.sequencer) = (Order::Total, Rank(2)), seed);
        resubmitted += trouble(|config| config.order = Order::Causal, seed);
        resubmitted += trouble(|config| config.order = Order::Fifo, seed);
        resubmitted += trouble(|config| config.order = Order::Unordered, seed);
        resubmitted += trouble(|config| config.order = Order::RealTime, seed);
        trouble(|c| (c.order, c.reliability, c.relay) = (Order::Fifo, Reliability::Unreliable, true), seed);
        trouble(|c| (c.order, c.reliability) = (Order::RealTime, Reliability::Unreliable), seed);
        trouble(|c| (c.order, c.reliability) = (Order::Unordered, Reliability::BestEffort), seed);
        trouble(|c| (c.order, c.reliability) = (Order::Total, Reliability::BestEffort), seed);
        resubmitted += trouble(
            |config| {
                (config.order, config.reliability) = (Order::Total, Reliability::Uniform);
                config.limits.mtu_bytes = MTU;
            },
            seed,
        );
    }
    assert!(resubmitted > 0, "nothing was published again: the test does not cover that path");
}

#[test]
fn a_piece_of_a_named_message_needs_no_other_datagram() {
    // The name is in the first fragment; a message that runs ahead of a gap has its own.
    let mut bench = Bench::member(Order::Unordered, 2, 1).formed();
    let names = |bench: &mut Bench| {
        let mut shown = Vec::new();
        bench.process.deliver(bench.now, usize::MAX, |delivery| {
            shown.push((delivery.sequence.0, delivery.name.map(str::to_owned)));
        });
        shown
    };
    let topic = TopicId::of("a").0.to_le_bytes();
    let honest = |datagram: Vec<u8>, frame: usize| common::altered(&datagram, frame + 4, &topic);
    bench.take(&honest(data(0, 2, 2, 0, &[named("a", b"x"), message(b"y")]), 64));
    assert_eq!(names(&mut bench), [(2, Some("a".to_owned())), (3, None)]);
    let (flag, body) = piece(4, 0, b"he");
    let body = [&body[..8], &[1], b"a", &body[8..]].concat();
    bench.take(&honest(data(0, 0, 0, 0, &[(flag | flags::NAMED, body)]), 64));
    bench.take(&data(0, 1, 0, 0, &[piece(4, 2, b"re"), message(b"next")]));
    assert_eq!(names(&mut bench), [(0, Some("a".to_owned())), (1, None)]);
}

#[test]
fn a_name_that_is_not_its_topics_is_malformed() {
    let mut bench = Bench::member(Order::Total, 3, 1).formed();
    bench.take(&data(0, 0, 0, 0, &[named("a", b"x"), run(2, 0, 1)]));
    assert_eq!(bench.news(), []);
    assert_eq!(bench.process.counters().get(bourdon_protocol::Counter::DiscardedMalformed), 1);
}

#[test]
fn a_clients_name_is_the_messages() {
    let mut net = Net::new(2, 0, |_| {});
    net.run(200 * MS);
    let mut client = Client::new(net.now, GROUP, ClientId(9), address(77), MTU);
    let heartbeat = Bench::member(Order::Fifo, 1, 0).heartbeat(0, |_| {});
    client.on_datagram(net.now, &heartbeat, true);
    client.publish(TopicId::of("md.es.trades"), &[9]);
    for (first, name) in NAMES.iter().enumerate() {
        client.publish_named(&TopicName::new(name).unwrap(), &[first as u8]);
    }
    // The member replies first: that the client is at the address it gave, and which instance this is.
    client.transmit(net.now, |_, _, _| 1);
    let answer = ClientAnswer::new(ClientId(9), Sequence(0), 0);
    let instance = net.process(0).view().instance.0;
    let answer = in_instance(&control(0, Kind::ClientAnswer, &[answer.as_bytes()]), instance);
    client.on_datagram(net.now, &answer, false);
    net.run(100 * MS);
    let (now, mut sent) = (net.now, Vec::new());
    client.transmit(now, |_, bytes, _| {
        sent.push(bytes.to_vec());
        1
    });
    for datagram in sent {
        net.process(0).on_datagram(now, &datagram, None);
    }
    net.run(100 * MS);
    for one in &net.processes {
        let firsts: Vec<_> = one.topics.iter().map(|(.., first)| first.unwrap()).collect();
        assert_eq!(firsts, [9, 0, 1, 2, 3]);
        one.topics.iter().for_each(|(topic, name, first)| {
            assert_eq!((*topic, name.clone()), expected(first.unwrap()));
        });
    }
}
