//! Threaded nodes on real sockets: order, backpressure, overruns, sleeping and waking, ending.

use crate::common::{PATIENCE, TOPIC, World, cell, events, next_event, read, start, until};
use bourdon::event::Ranks;
use bourdon::id::TopicId;
use bourdon::settings::{Flow, IdleStrategy};
use bourdon::{Closed, Delivery, Event, Node, Refusal, Subscribe, Topic};
use std::time::{Duration, Instant};

fn formed(node: &Node) {
    let mut events = events(node);
    until("the group to form", || matches!(next_event(&mut events), Some(Event::View { .. })));
}

#[test]
fn two_nodes_deliver_in_one_order() {
    for idle in [IdleStrategy::Park, IdleStrategy::Backoff, IdleStrategy::Yield] {
        let world = World::new(2);
        let mut nodes = [0, 1].map(|rank| {
            let mut settings = world.member(rank);
            settings.threads.idle = idle;
            start(&settings)
        });
        const EACH: u64 = 500;
        for number in 0..EACH {
            for (_, publication, _) in &mut nodes {
                let mut taken = publication.try_publish(&TOPIC, &number.to_le_bytes());
                until("room", || {
                    if taken.is_err() {
                        taken = publication.try_publish(&TOPIC, &number.to_le_bytes());
                    }
                    taken.is_ok()
                });
            }
        }
        let [first, second] = &mut nodes;
        let delivered = read(&mut first.2, 2 * EACH as usize);
        assert_eq!(delivered, read(&mut second.2, 2 * EACH as usize), "{idle:?}");
        for (place, (_, sequence, order, payload)) in delivered.iter().enumerate() {
            assert_eq!(*order, Some(place as u64));
            assert_eq!(payload, &sequence.to_le_bytes());
        }
        let [first, second] = nodes;
        // Both leave the view, and the last one closes it.
        let ending = std::thread::spawn(move || first.0.close(PATIENCE));
        assert!(second.0.close(PATIENCE).expect("it ends well").is_clean());
        assert!(ending.join().expect("no panic").expect("it ends well").is_clean());
        assert_eq!(world.names(), Vec::<String>::new());
    }
}

#[test]
fn a_full_subscription_ring_gates_and_loses_nothing() {
    // Tiny ones, of which a datagram holds more than the room left; uneven ones; and ones of which the very first
    // batch is longer than the ring, so that the agent must keep what it has taken.
    gates(200_000, |number| (number % 3) as usize);
    gates(40_000, |number| (number * 37 % 900) as usize);
    gates(500, |number| 30_000 + (number * 7919 % 25_000) as usize);
}

/// Publishes messages of these lengths to a subscriber that reads nothing until the sender is blocked.
fn gates(count: u64, length: impl Fn(u64) -> usize) {
    let world = World::new(2);
    let mut settings = world.member(0);
    settings.threads.subscription_ring_bytes = 1 << 18;
    let (sender, mut publication, mut own) = start(&settings);
    settings.process.rank = 1;
    let (receiver, _unused, mut slow) = start(&settings);
    let payload = |number: u64| {
        let mut bytes = vec![number as u8; 8 + length(number)];
        bytes[..8].copy_from_slice(&number.to_le_bytes());
        bytes
    };
    let mut next = 0;
    let mut own_next = 0;
    let mut publish_some = |own: &mut bourdon::Subscription| {
        let before = (next, own_next);
        while next < count && publication.try_publish(&TOPIC, &payload(next)).is_ok() {
            next += 1;
        }
        own.poll(usize::MAX, |delivery| {
            let Some(message) = delivery.message() else { return };
            assert_eq!(message.payload, payload(own_next));
            own_next += 1;
        })
        .expect("it runs");
        (before != (next, own_next), next, own_next, publication.held_up_by())
    };
    until("the slow reader to gate the sender", || {
        let (_, next, _, held_up_by) = publish_some(&mut own);
        assert!(next < count, "nothing stopped the sender");
        // The window may be full for a moment before; only the gate keeps it so.
        matches!(held_up_by, Some(Refusal::Window { .. })) && cell(&world, &receiver, "gated_rounds") > 0
    });
    let mut expected = 0;
    until("everything to arrive", || {
        let (_, _, own_next, _) = publish_some(&mut own);
        slow.poll(100, |delivery| {
            let Some(message) = delivery.message() else { return };
            assert_eq!((message.sequence.0, message.payload), (expected, &payload(expected)[..]));
            expected += 1;
        })
        .expect("it runs");
        expected == count && own_next == count
    });
    assert_eq!((cell(&world, &receiver, "overruns"), slow.overruns()), (0, 0));
    drop((sender, receiver));
}

/// Its delivery stops where the subscriber's ring is full, and goes on as the subscriber reads.
#[test]
fn an_observer_that_gates_skips_nothing() {
    let world = World::new(1);
    let mut settings = world.member(0);
    settings.flow.mode = Flow::Gating;
    let (member, mut publication, mut own) = start(&settings);
    let mut settings = world.observer();
    settings.threads.subscription_ring_bytes = 1 << 18;
    settings.flow.mode = Flow::Gating;
    let (observer, _unused, mut subscription) = start(&settings);
    formed(&observer);
    until("the gate", || cell(&world, &member, "gating_observers") == 1);
    const COUNT: u64 = 2_000; // 500 bytes each: four times the ring
    let (mut next, mut expected) = (0, 0);
    until("the ring to be full", || {
        own.poll(usize::MAX, |_| {}).expect("it runs");
        next += u64::from(next < COUNT && publication.try_publish(&TOPIC, &[7; 500]).is_ok());
        cell(&world, &observer, "gated_rounds") > 0
    });
    until("everything to arrive", || {
        own.poll(usize::MAX, |_| {}).expect("it runs");
        next += u64::from(next < COUNT && publication.try_publish(&TOPIC, &[7; 500]).is_ok());
        subscription
            .poll(100, |delivery| {
                let Some(message) = delivery.message() else { return };
                assert_eq!(message.sequence.0, expected);
                expected += 1;
            })
            .expect("it runs");
        expected == COUNT
    });
    assert_eq!((cell(&world, &observer, "overruns"), subscription.overruns()), (0, 0));
}

#[test]
fn an_observer_skips_what_does_not_fit_and_counts_it() {
    let world = World::new(1);
    let (member, mut publication, mut own) = start(&world.member(0));
    let mut events = events(&member);
    let mut settings = world.observer();
    settings.threads.subscription_ring_bytes = 1 << 18;
    let (observer, _, mut subscription) = start(&settings);
    formed(&observer);
    const COUNT: usize = 2_000; // 500 bytes each: four times the ring
    for _ in 0..COUNT {
        until("room", || {
            own.poll(usize::MAX, |_| {}).expect("it runs");
            publication.try_publish(&TOPIC, &[7; 500]).is_ok()
        });
    }
    until("the observer to have seen all", || {
        own.poll(usize::MAX, |_| {}).expect("it runs");
        cell(&world, &observer, "delivered") == COUNT as u64
    });
    let overruns = cell(&world, &observer, "overruns");
    assert!(overruns > 0 && overruns == subscription.overruns(), "{overruns}");
    let (mut next, mut skipped) = (0, 0);
    until("all to be read or reported", || {
        subscription
            .poll(1, |delivery| match delivery {
                Delivery::Message(message) => {
                    assert_eq!(message.sequence.0, next + skipped, "what was skipped stands at its place");
                    next += 1;
                }
                Delivery::Skipped(count) => skipped += count,
                _ => {}
            })
            .expect("it runs");
        next + skipped == COUNT as u64
    });
    assert_eq!(skipped, overruns);
    while let Some(event) = next_event(&mut events) {
        assert!(!matches!(event, Event::Dropped { .. }), "{event}");
    }
}

#[test]
fn a_parked_agent_sleeps_until_it_is_needed() {
    let world = World::new(1);
    let (node, mut publication, mut subscription) = start(&world.member(0));
    // An idle member only sends heartbeats, every 100 ms.
    let sleeps = cell(&world, &node, "sleeps");
    until("a heartbeat's sleep", || cell(&world, &node, "sleeps") >= sleeps + 3);
    let (rounds, began) = (cell(&world, &node, "rounds"), Instant::now());
    until("more sleeps", || cell(&world, &node, "sleeps") >= sleeps + 8);
    let (rounds, waited) = (cell(&world, &node, "rounds") - rounds, began.elapsed());
    assert!(rounds < 50 + waited.as_millis() as u64 / 10, "{rounds} rounds in {waited:?} without work");
    let mut shortest = Duration::MAX;
    for number in 0..50u64 {
        let sleeps = cell(&world, &node, "sleeps");
        until("it to sleep again", || cell(&world, &node, "sleeps") > sleeps || number == 0);
        let began = Instant::now();
        publication.try_publish(&TOPIC, &number.to_le_bytes()).expect("there is room");
        read(&mut subscription, 1);
        shortest = shortest.min(began.elapsed());
    }
    assert!(shortest < Duration::from_millis(20), "woken by a timer, not by the publication: {shortest:?}");
}

#[test]
fn several_publications_and_subscriptions_share_a_node() {
    let world = World::new(1);
    let (es, nq) = (TopicId::of("es"), TopicId::of("nq"));
    let node = Node::open(&world.member(0)).expect("it opens");
    let mut subscriptions = [Subscribe::to("es"), Subscribe::to("nq"), Subscribe::all()]
        .map(|subscribe| node.subscribe(subscribe).expect("it is open"));
    node.join().expect("it joins");
    let threads: Vec<_> = [es, nq]
        .into_iter()
        .map(|topic| {
            let (mut publication, topic) = (node.publication().expect("it runs"), Topic::of_id(topic));
            std::thread::spawn(move || {
                for number in 0..1000u32 {
                    until("room", || match publication.try_claim(&topic.sent_at_ns(u64::from(number) + 1), 4) {
                        Ok(mut claim) => {
                            claim.copy_from_slice(&number.to_le_bytes());
                            claim.commit();
                            true
                        }
                        Err(refusal) if refusal.is_transient() => false,
                        Err(error) => panic!("{error}"),
                    });
                }
            })
        })
        .collect();
    for (index, count) in [(0, 1000), (1, 1000), (2, 2000)] {
        let all = read(&mut subscriptions[index], count);
        assert_eq!(all.len(), count);
        if count == 1000 {
            assert!(all.iter().zip(0u32..).all(|(message, number)| message.3 == number.to_le_bytes()));
        }
    }
    threads.into_iter().for_each(|thread| thread.join().expect("it publishes all"));
    node.close(PATIENCE).expect("it ends well");
    assert_eq!(subscriptions[0].try_next().map(|_| ()), Err(Closed::Ended));
}

#[test]
fn what_is_too_long_is_refused_at_once_or_dropped_aloud() {
    let world = World::new(2);
    let (node, mut publication, _own) = start(&world.member(0));
    let (_other, _, _) = start(&world.member(1));
    let refused = publication.try_publish(&TOPIC, &[0; 60_001]);
    assert_eq!(refused, Err(Refusal::TooLarge { limit_bytes: 60_000 }));
    formed(&node);
    assert_eq!(publication.held_up_by(), None);
}

#[test]
fn before_the_group_is_formed_publishers_are_refused_and_no_ring_fills() {
    let world = World::new(2);
    let (node, mut publication, _subscription) = start(&world.member(0));
    let refusal = publication.try_publish(&TOPIC, &[0; 1000]).expect_err("the other member is missing");
    assert_eq!(refusal, Refusal::Forming { missing: Ranks(0b10) });
    assert!(refusal.is_transient() && refusal.to_string().contains("still forming (not heard: member 1)"), "{refusal}");
    assert_eq!((publication.published(), publication.held_up_by()), (0, Some(refusal)));
    let report = node.close(PATIENCE).expect("it ends well");
    assert!(report.is_clean(), "it waits for no members that never were: {report:?}");
    assert_eq!(publication.try_publish(&TOPIC, b"x"), Err(Refusal::Closed));
    assert_eq!(world.names(), Vec::<String>::new());
}

/// Members that are cut off have no majority: nothing is accepted that could be lost with them.
#[test]
fn without_a_majority_publishers_are_refused_at_once_and_woken_when_it_is_back() {
    let world = World::new(2);
    let start = |rank| start(&world.member(rank));
    let (_second, mut publication, _own) = start(1);
    let first = start(0);
    publication.publish(&TOPIC, b"one", PATIENCE).expect("the group forms");
    publication.wait_acknowledged(1, PATIENCE).expect("both run");
    drop(first); // it was half of the view, and the first half at that
    let no_majority = Refusal::NoMajority { missing: Ranks(0b01) };
    until("the loss to be noticed", || publication.try_publish(&TOPIC, b"two") == Err(no_majority));
    assert_eq!(publication.try_publish(&TOPIC, b"lost"), Err(no_majority));
    assert_eq!(publication.publish(&TOPIC, b"lost", Duration::from_millis(10)), Err(no_majority));
}

#[test]
fn subscriptions_choose_by_patterns() {
    let world = World::new(1);
    let mut settings = world.member(0);
    settings.group.topics = vec!["md.nq.trades".to_owned()];
    let node = Node::open(&settings).expect("it opens");
    let wanted = [Subscribe::to("md.es.trades"), Subscribe::to("md.*.trades"), Subscribe::to("md.**").and("x")];
    let subscriptions = wanted.into_iter().chain([Subscribe::all()]);
    let subscriptions: Vec<_> = subscriptions.map(|wanted| node.subscribe(wanted).expect("it is open")).collect();
    let mut publication = node.publication().expect("it is open");
    node.join().expect("it joins");
    let name = |text: &str| Topic::new(text).expect("it is one");
    until("the group to form", || publication.try_publish(&name("md.es.trades"), b"0").is_ok());
    // Written in place; by its id, which group.topics names; by an id that has no name; nothing at all.
    let mut claim = publication.try_claim(&name("md.es.quotes").sent_at_ns(7), 1).expect("there is room");
    claim.copy_from_slice(b"1");
    claim.commit();
    publication.try_publish(&Topic::of_id(TopicId::of("md.nq.trades")), b"2").expect("there is room");
    publication.try_publish(&Topic::of_id(TopicId::of("md.gc.trades")), b"3").expect("there is room");
    publication.try_publish(&name("md.gc.trades"), b"").expect("there is room");
    let expected = [&["0"][..], &["0", "2", ""], &["0", "1", "2", ""], &["0", "1", "2", "3", ""]];
    for (mut subscription, expected) in subscriptions.into_iter().zip(expected) {
        let read = read(&mut subscription, expected.len());
        let read: Vec<_> = read.iter().map(|(.., payload)| String::from_utf8_lossy(payload)).collect();
        assert_eq!(read, expected);
    }
    drop(node);
}
