//! Clients, and observers that publish: through a member, from beside the group.

use crate::common::{PATIENCE, World, read, start, until};
use bourdon::error::{LockError, NotAcknowledged, RequestError};
use bourdon::id::{Rank, TopicId};
use bourdon::settings::{Role, Settings};
use bourdon::{Deadline, Delivery, Error, Event, InlineNode, Node, Publication, Refusal, Subscribe, To, Topic};
use std::time::Duration;

fn settings(world: &World) -> Settings {
    let mut settings = world.member(0);
    settings.process.role = Role::Client;
    settings
}

/// A client and its publication.
fn client(world: &World) -> (Node, Publication) {
    let client = Node::open(&settings(world)).expect("it opens");
    let publication = client.publication().expect("there is room");
    client.join().expect("it begins");
    (client, publication)
}

fn topic() -> Topic {
    Topic::of_id(TopicId::of("es"))
}

fn texts(range: std::ops::Range<u32>) -> Vec<Vec<u8>> {
    range.map(|number| number.to_string().into_bytes()).collect()
}

#[test]
fn what_a_client_publishes_is_acknowledged_once_the_group_has_it() {
    let world = World::new(2);
    let (_first, _, mut subscription) = start(&world.member(0));
    let _second = start(&world.member(1));
    let (client, mut publication) = client(&world);
    let named = Topic::new("md.es").expect("a name");
    for text in texts(0..200) {
        publication.publish(&named, &text[..], PATIENCE).expect("the group forms");
    }
    publication.wait_acknowledged(200, PATIENCE).expect("it is taken");
    let delivered: Vec<_> = read(&mut subscription, 200).into_iter().map(|(.., payload)| payload).collect();
    assert_eq!(delivered, texts(0..200));
    for text in texts(200..300) {
        publication.publish(&named, &text[..], PATIENCE).expect("there is room");
    }
    let report = client.close(PATIENCE).expect("it ran");
    assert!(report.is_clean(), "{report:?}");
    let delivered: Vec<_> = read(&mut subscription, 100).into_iter().map(|(.., payload)| payload).collect();
    assert_eq!(delivered, texts(200..300), "what was accepted is sent before the end");
    assert_eq!(publication.try_publish(&named, b"late"), Err(Refusal::Closed));
}

#[test]
fn a_clients_long_messages_arrive_whole() {
    let world = World::new(2);
    let (_first, _, mut subscription) = start(&world.member(0));
    let _second = start(&world.member(1));
    let (_client, mut publication) = client(&world);
    let long = |number: usize| (0..number * 4_000).map(|index| (index / 7 + number) as u8).collect::<Vec<_>>();
    let named = Topic::new("md.es").expect("a name");
    for number in 0..5 {
        publication.publish(&named, &long(number)[..], PATIENCE).expect("the group forms");
    }
    publication.wait_acknowledged(5, PATIENCE).expect("they are taken");
    let delivered: Vec<_> = read(&mut subscription, 5).into_iter().map(|(.., payload)| payload).collect();
    assert!(delivered == (0..5).map(long).collect::<Vec<_>>(), "as they were published");
}

#[test]
fn a_client_refuses_what_it_can_never_do() {
    let world = World::new(1);
    let _node = start(&world.member(0));
    let (client, mut publication) = client(&world);
    let refused = client.subscribe(Subscribe::all()).expect_err("nothing is delivered to it");
    assert!(matches!(refused, Error::Unsupported { setting: "process.role", .. }), "{refused:?}");
    assert!(matches!(client.lock("name", PATIENCE), Err(LockError::Refused(_))));
    assert!(matches!(InlineNode::join(&settings(&world)), Err(Error::Unsupported { setting: "process.role", .. })));
    let limit_bytes = settings(&world).limits.max_message_bytes;
    assert_eq!(
        publication.try_publish(&topic(), &vec![0; limit_bytes + 1][..]),
        Err(Refusal::TooLarge { limit_bytes })
    );
    let refused = publication.try_publish(&topic().sent_at_ns(5), b"");
    assert_eq!(refused, Err(Refusal::Unsupported { setting: "Topic::sent_at_ns" }));
}

#[test]
fn a_client_without_a_group_refuses_at_once_and_waits_for_it_if_asked_to() {
    let world = World::new(1);
    let (client, mut publication) = client(&world);
    assert_eq!(publication.try_publish(&topic(), b"early"), Err(Refusal::NoReceiver));
    let refused = client.request(To::Nearest, b"early", PATIENCE);
    assert_eq!(refused, Err(RequestError::Refused(Refusal::NoReceiver)));
    assert_eq!(publication.publish(&topic(), b"early", Duration::ZERO), Err(Refusal::NoReceiver));
    let (_node, _, mut subscription) = start(&world.member(0));
    let number = publication.publish(&topic(), b"in time", PATIENCE).expect("the group forms");
    publication.wait_acknowledged(number, PATIENCE).expect("it is taken");
    assert_eq!(read(&mut subscription, 1)[0].3, b"in time");
}

#[test]
fn a_client_is_cancelled_and_its_unsent_messages_are_reported() {
    let world = World::new(1);
    let (client, mut publication) = client(&world);
    client.canceller().cancel();
    assert_eq!(publication.publish(&topic(), b"", Deadline::NEVER), Err(Refusal::Cancelled));
    let (node, _, _subscription) = start(&world.member(0));
    until("room", || publication.try_publish(&topic(), b"taken").is_ok());
    drop(node); // it may have been taken before
    until("an outage", || match publication.try_publish(&topic(), b"in vain") {
        Ok(_) => publication.published() >= 100,
        Err(_) => true,
    });
    let report = client.close(Duration::ZERO).expect("it ran");
    assert!(report.has_left && report.unacknowledged_count() > 0, "{report:?}");
}

#[test]
fn a_message_that_the_group_never_takes_is_dropped_and_the_others_are_taken() {
    let world = World::new(1);
    let mut small = world.member(0);
    small.limits.max_message_bytes = 100;
    let (_node, _, mut subscription) = start(&small);
    let (_client, mut publication) = client(&world);
    for payload in [&b"first"[..], &[0; 101], b"last"] {
        publication.publish(&topic(), payload, PATIENCE).expect("the group forms");
    }
    publication.wait_acknowledged(3, PATIENCE).expect("it is taken");
    let dropped = publication.wait_acknowledged(2, PATIENCE);
    assert_eq!(dropped, Err(NotAcknowledged::Dropped { number: 2 }));
    let delivered: Vec<_> = read(&mut subscription, 2).into_iter().map(|(.., payload)| payload).collect();
    assert_eq!(delivered, [b"first".to_vec(), b"last".to_vec()]);
}

#[test]
fn a_client_asks_a_member_and_is_asked_nothing() {
    let world = World::new(1);
    let node = Node::open(&world.member(0)).expect("it opens");
    let mut requests = node.subscribe(Subscribe::none().requests()).expect("there is room");
    node.join().expect("it joins");
    let (client, publication) = client(&world);
    until("the group to form", || publication.held_up_by().is_none());
    std::thread::scope(|scope| {
        let asked = scope.spawn(|| client.request(To::Nearest, b"es", PATIENCE));
        let request = loop {
            if let Some(Delivery::Request(request)) = requests.next(Deadline::NEVER).expect("it runs") {
                break request;
            }
        };
        assert_eq!((request.from(), request.payload()), (Rank::CLIENT, &b"es"[..]));
        let back = node.request(To::Address(request.address().into()), b"and you?", PATIENCE);
        assert_eq!(back, Err(RequestError::Declined { by: Rank::CLIENT }));
        request.reply(b"4750.25").expect("there is room");
        assert_eq!(asked.join().expect("no panic").expect("an answer").payload(), b"4750.25");
    });
}

#[test]
fn an_observer_publishes_as_a_client_and_receives_its_own_messages() {
    let world = World::new(2);
    let _members = [start(&world.member(0)), start(&world.member(1))];
    let (node, mut publication, mut subscription) = start(&world.observer());
    until("the observer's view", || matches!(subscription.try_next(), Ok(Some(Delivery::Event(Event::View { .. })))));
    let mut another = node.publication().expect("there is room");
    for text in texts(0..50) {
        publication.publish(&topic(), &text[..], PATIENCE).expect("the group forms");
        another.publish(&topic(), &text[..], PATIENCE).expect("the group forms");
    }
    publication.wait_acknowledged(50, PATIENCE).expect("it is taken");
    another.wait_acknowledged(50, PATIENCE).expect("it is taken");
    let delivered: Vec<_> = read(&mut subscription, 100).into_iter().map(|(.., payload)| payload).collect();
    let mut expected = [texts(0..50), texts(0..50)].concat();
    let mut sorted = delivered.clone();
    expected.sort();
    sorted.sort();
    assert_eq!(sorted, expected);
    publication.publish(&topic(), b"the last", PATIENCE).expect("there is room");
    let report = node.close(PATIENCE).expect("it ran");
    assert!(report.is_clean() && report.unacknowledged.is_empty(), "{report:?}");
    assert_eq!(another.try_publish(&topic(), b"late"), Err(Refusal::Closed));
}

#[test]
fn a_client_goes_on_through_another_member_when_its_own_dies() {
    let world = World::new(3);
    let mut members: Vec<_> = (0..3).map(|rank| start(&world.member(rank))).collect();
    let (_client, mut publication) = client(&world);
    publication.publish(&topic(), b"0", PATIENCE).expect("the group forms");
    publication.wait_acknowledged(1, PATIENCE).expect("it is taken");
    let mut by = 0;
    for (.., subscription) in &mut members {
        by = read(subscription, 1)[0].0; // the member that the client publishes through
    }
    drop(members.remove(by.into()));
    for text in texts(1..50) {
        publication.publish(&topic(), &text[..], PATIENCE).expect("another member takes it");
    }
    publication.wait_acknowledged(50, PATIENCE).expect("it is taken");
    for (.., subscription) in &mut members {
        let mut delivered: Vec<_> = read(subscription, 49).into_iter().map(|(.., payload)| payload).collect();
        delivered.sort();
        let mut expected = texts(1..50);
        expected.sort();
        assert_eq!(delivered, expected, "each once");
    }
}
