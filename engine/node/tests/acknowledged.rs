//! Numbers of messages, acknowledgements by level, and waits for room and acknowledgement.

use crate::common::{PATIENCE, TOPIC, World, events, next_event, poll_until, read, start, until};
use bourdon::error::NotAcknowledged;
use bourdon::event::Ranks;
use bourdon::settings::Reliability;
use bourdon::{Deadline, Event, InlineNode, Node, Refusal};
use std::time::Duration;

const SHORT: Duration = Duration::from_millis(20);

#[test]
fn messages_are_numbered_and_acknowledged_at_every_level() {
    use Reliability::{BestEffort, Reliable, Stable, Uniform, Unreliable};
    for reliability in [Unreliable, BestEffort, Reliable, Uniform, Stable] {
        let world = World::new(2);
        let mut nodes = [0, 1].map(|rank| {
            let mut settings = world.member(rank);
            settings.group.reliability = reliability;
            start(&settings)
        });
        for (_, publication, _) in &mut nodes {
            for number in 1..=100 {
                assert_eq!(publication.publish(&TOPIC, b"one", PATIENCE), Ok(number), "{reliability:?}");
            }
        }
        for (_, publication, _) in &mut nodes {
            publication.wait_acknowledged(100, PATIENCE).expect("both run");
            assert_eq!((publication.published(), publication.acknowledged()), (100, 100), "{reliability:?}");
            publication.wait_acknowledged(7, Duration::ZERO).expect("it was before");
        }
    }
}

#[test]
fn publications_of_one_node_have_numbers_of_their_own() {
    let world = World::new(2);
    let node = Node::open(&world.member(0)).expect("it opens");
    let mut publications = [0, 1].map(|_| node.publication().expect("it is open"));
    node.join().expect("it joins");
    let (_other, _publication, _subscription) = start(&world.member(1));
    for round in 0..50 {
        for (place, publication) in publications.iter_mut().enumerate() {
            for _ in 0..=place {
                publication.publish(&TOPIC, &[round; 40], PATIENCE).expect("there is room");
            }
        }
    }
    for (publication, count) in publications.iter_mut().zip([50, 100]) {
        assert_eq!(publication.published(), count);
        publication.wait_acknowledged(count, PATIENCE).expect("both run");
    }
}

/// A member that does not run holds nothing: what is sent meanwhile is not acknowledged, but by the network.
#[test]
fn what_a_member_of_the_view_lacks_is_not_acknowledged() {
    for (reliability, is_acknowledged) in
        [(Reliability::BestEffort, true), (Reliability::Reliable, false), (Reliability::Stable, false)]
    {
        let world = World::new(2);
        let settings = |rank| {
            let mut settings = world.member(rank);
            settings.group.reliability = reliability;
            settings.detector.suspect_after_ns = Some(3_600_000_000_000);
            settings.detector.pull = false;
            settings.detector.phi = false;
            settings
        };
        let mut other = InlineNode::join(&settings(1)).expect("it joins");
        let (node, mut publication, _subscription) = start(&settings(0));
        poll_until(&mut other, "the view", |other| other.is_formed());
        poll_until(&mut other, "the first message", |_| {
            publication.published() > 0 || publication.publish(&TOPIC, b"one", SHORT).is_ok()
        });
        poll_until(&mut other, "its acknowledgement", |_| publication.acknowledged() == 1);
        let second = publication.publish(&TOPIC, b"two", PATIENCE).expect("there is room");
        if is_acknowledged {
            publication.wait_acknowledged(second, PATIENCE).expect("the network took it");
        } else {
            let late = NotAcknowledged::Late { acknowledged: 1, held_up_by: None };
            assert_eq!(publication.wait_acknowledged(second, SHORT), Err(late), "{reliability:?}");
            poll_until(&mut other, "its acknowledgement", |_| publication.acknowledged() == second);
        }
        drop(node);
        let closed = NotAcknowledged::Unpublished { number: 3, published: 2 };
        assert_eq!(publication.wait_acknowledged(3, PATIENCE), Err(closed));
        assert_eq!(publication.publish(&TOPIC, b"three", PATIENCE), Err(Refusal::Closed));
    }
}

/// Its numbers stay those of the same messages, though datagrams are numbered from 0 in each view.
#[test]
fn views_that_change_lose_no_acknowledgement() {
    let world = World::new(3);
    let start = |rank| start(&world.member(rank));
    let (_first, mut publication, mut subscription) = start(0);
    let (_second, _publication, _subscription) = start(1);
    let third = start(2);
    let mut number = 0;
    while number < 500 {
        number = publication.publish(&TOPIC, &[7; 100], PATIENCE).expect("there is room");
    }
    publication.wait_acknowledged(1, PATIENCE).expect("the group forms");
    let ending = std::thread::spawn(move || drop(third));
    while number < 2_000 {
        number = publication.publish(&TOPIC, &[7; 100], PATIENCE).expect("there is room");
    }
    publication.wait_acknowledged(number, PATIENCE).expect("two members go on");
    ending.join().expect("no panic");
    assert_eq!(read(&mut subscription, 2_000).len(), 2_000);
}

#[test]
fn a_publisher_waits_for_room_and_is_woken_for_it() {
    let world = World::new(1);
    let mut settings = world.member(0);
    settings.threads.subscription_ring_bytes = 1 << 18;
    let (node, mut publication, mut subscription) = start(&settings);
    const COUNT: usize = 20_000; // ten times what both rings and the window hold
    let publisher = std::thread::spawn(move || {
        for number in 1..=COUNT as u64 {
            assert_eq!(publication.publish(&TOPIC, &[7; 500], Deadline::NEVER), Ok(number));
        }
        publication
    });
    assert_eq!(read(&mut subscription, COUNT).len(), COUNT);
    let mut publication = publisher.join().expect("no panic");
    publication.wait_acknowledged(COUNT as u64, PATIENCE).expect("it was delivered");
    drop(node);
}

#[test]
fn a_deadline_a_canceller_and_the_end_of_the_node_end_a_wait() {
    let world = World::new(2); // the other member never comes
    let start = || start(&world.member(0));
    let (node, mut publication, _subscription) = start();
    let forming = Refusal::Forming { missing: Ranks(0b10) };
    assert_eq!(publication.publish(&TOPIC, b"one", SHORT), Err(forming));
    let canceller = node.canceller();
    let waiting = std::thread::spawn(move || {
        let room = publication.publish(&TOPIC, b"one", Deadline::NEVER);
        (publication, room)
    });
    canceller.cancel();
    let (mut publication, room) = waiting.join().expect("no panic");
    assert_eq!(room, Err(Refusal::Cancelled));
    assert_eq!(publication.publish(&TOPIC, b"one", Deadline::NEVER), Err(Refusal::Cancelled), "it stays cancelled");
    drop(node);

    let (node, mut publication, _subscription) = start();
    let waiting = std::thread::spawn(move || publication.publish(&TOPIC, b"one", Deadline::NEVER));
    drop(node);
    assert_eq!(waiting.join().expect("no panic"), Err(Refusal::Closed));
}

#[test]
fn a_wait_for_an_acknowledgement_ends_with_the_node() {
    let world = World::new(2);
    let mut other = InlineNode::join(&world.member(0)).expect("it joins");
    let mut settings = world.member(1);
    settings.threads.drop_timeout_ns = 0;
    let (node, mut publication, _subscription) = start(&settings);
    poll_until(&mut other, "the view", |_| publication.try_publish(&TOPIC, b"one").is_ok());
    poll_until(&mut other, "an acknowledgement", |_| publication.acknowledged() == 1);
    publication.publish(&TOPIC, b"two", PATIENCE).expect("there is room"); // the other member does not run any more
    let waiting = std::thread::spawn(move || publication.wait_acknowledged(2, Deadline::NEVER));
    drop(node);
    assert_eq!(waiting.join().expect("no panic"), Err(NotAcknowledged::Closed { acknowledged: 1 }));
}

/// A message that waited in a ring while the window of a member was not known may be longer than that window allows.
#[test]
fn a_message_that_the_group_can_never_take_is_dropped_by_its_number() {
    let world = World::new(2);
    let mut settings = world.member(0);
    settings.limits.max_message_bytes = 60_000;
    let (node, mut publication, _own) = start(&settings);
    let mut events = events(&node);
    settings.process.rank = 1;
    settings.network.receive_buffer_bytes = 64 << 10; // a quarter of its window is shorter than the message
    let (_other, _unused, mut subscription) = start(&settings);
    assert_eq!(publication.publish(&TOPIC, b"short", PATIENCE), Ok(1));
    publication.wait_acknowledged(1, PATIENCE).expect("both run");
    assert_eq!(publication.publish(&TOPIC, &[7; 60_000], PATIENCE), Ok(2));
    assert_eq!(publication.publish(&TOPIC, b"short", PATIENCE), Ok(3));
    publication.wait_acknowledged(3, PATIENCE).expect("both run");
    assert_eq!(publication.wait_acknowledged(2, PATIENCE), Err(NotAcknowledged::Dropped { number: 2 }));
    assert_eq!((read(&mut subscription, 2).len(), publication.acknowledged()), (2, 3));
    let mut dropped = None;
    until("the event", || {
        let event = next_event(&mut events);
        dropped = event.filter(|event| matches!(event, Event::Dropped { .. })).or(dropped.take());
        dropped.is_some()
    });
    let Some(Event::Dropped { publication, first, last, refusal }) = dropped else { unreachable!() };
    assert_eq!((publication, first, last), (0, 2, 2));
    assert!(matches!(refusal, Some(Refusal::TooLarge { .. })), "{refusal:?}");
}
