//! Opening, subscribing and joining: what a subscription gets, how it waits, its descriptor, and wrong uses.

use crate::common::{PATIENCE, TOPIC, World, cell, events, next_event, read, start, until};
use bourdon::event::Ranks;
use bourdon::settings::{Flow, Start};
use bourdon::{
    Closed, Deadline, Delivery, Error, Event, InlineNode, Node, Overrun, Refusal, Subscribe, Subscription, Topic,
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Whether its descriptor is readable within so many milliseconds.
fn is_readable(subscription: &Subscription, within_ms: i64) -> bool {
    let within = Timespec { tv_sec: within_ms / 1000, tv_nsec: within_ms % 1000 * 1_000_000 };
    poll(&mut [PollFd::new(subscription, PollFlags::IN)], Some(&within)).expect("an eventfd can be polled") > 0
}

/// A text for each item that is there.
fn items(subscription: &mut Subscription) -> Vec<String> {
    let mut items = Vec::new();
    while let Ok(Some(delivery)) = subscription.try_next() {
        items.push(match delivery {
            Delivery::Message(message) => String::from_utf8_lossy(message.payload).into_owned(),
            Delivery::Event(event) => event.name().to_owned(),
            other => panic!("{other:?}"),
        });
    }
    items
}

#[test]
fn a_subscription_before_the_join_misses_nothing_and_a_later_one_begins_with_the_view() {
    let world = World::new(1);
    let node = Node::open(&world.member(0)).expect("it opens");
    let mut early = node.subscribe(Subscribe::all()).expect("it is open");
    let mut early_events = events(&node);
    let mut first = node.publication().expect("it is open");
    node.join().expect("it joins");
    node.join().expect("once more does nothing");
    first.publish(&TOPIC, b"one", PATIENCE).expect("it forms");
    first.wait_acknowledged(1, PATIENCE).expect("it is alone");
    let (mut late, mut late_events) = (node.subscribe("es").expect("it runs"), events(&node));
    let mut second = node.publication().expect("it runs");
    // Both commands are carried out once the descriptor of the later subscription has its first item.
    assert_eq!(late.wait(PATIENCE), Ok(true));
    second.publish(&TOPIC, b"two", PATIENCE).expect("there is room");
    second.wait_acknowledged(1, PATIENCE).expect("it is alone");
    assert_eq!(items(&mut early), ["view", "one", "two"]);
    assert_eq!(items(&mut late), ["view", "two"]);
    assert!(matches!(next_event(&mut early_events), Some(Event::View { .. })));
    assert_eq!(next_event(&mut early_events), None);
    assert!(matches!(next_event(&mut late_events), Some(Event::View { .. })));
    drop(first);
    let third = node.publication().expect("it runs");
    let report = node.close(PATIENCE).expect("it ends well");
    assert!(report.is_clean() && report.unacknowledged.is_empty(), "{report:?}");
    drop(third);
}

#[test]
fn a_node_that_is_never_joined_ends_at_once_and_loses_nothing_in_silence() {
    let world = World::new(1);
    let node = Node::open(&world.member(0)).expect("it opens");
    let mut subscription = node.subscribe(Subscribe::all()).expect("it is open");
    let mut publication = node.publication().expect("it is open");
    publication.try_publish(&TOPIC, b"x").expect("the only member refuses nothing");
    let request = node.request_lock("one").expect("it is a name");
    assert_eq!(subscription.next(Duration::ZERO).map(|_| ()), Ok(()));
    let waiting = std::thread::spawn(move || subscription.next(Deadline::NEVER).map(|_| ()));
    let report = node.close(PATIENCE).expect("it ends well");
    assert_eq!((report.unacknowledged_count(), report.has_left), (1, true));
    assert_eq!(waiting.join().expect("no panic"), Err(Closed::Ended));
    assert_eq!(publication.try_publish(&TOPIC, b"x"), Err(Refusal::Closed));
    drop(request);
    drop(Node::open(&world.member(0)).expect("it opens"));
    assert_eq!(world.names(), Vec::<String>::new());
}

/// Whether it forms by itself, without the wait before the join counting as silence.
#[test]
fn a_node_that_is_joined_late_joins_the_group_that_runs() {
    let world = World::new(2);
    let late = Node::open(&world.member(1)).expect("it opens");
    let mut late_events = events(&late);
    let (first, mut publication, _own) = start(&world.member(0));
    let mut first_events = events(&first);
    until("a wait of more than a second", || matches!(next_event(&mut first_events), Some(Event::Waiting(_))));
    assert_eq!(publication.try_publish(&TOPIC, b"x"), Err(Refusal::Forming { missing: Ranks(0b10) }));
    late.join().expect("it joins");
    let mut late_items = late.subscribe(Subscribe::all()).expect("it runs");
    publication.publish(&TOPIC, b"x", PATIENCE).expect("they form");
    assert_eq!(read(&mut late_items, 1)[0].3, b"x");
    assert!(matches!(next_event(&mut late_events), Some(Event::View { .. })), "it has waited for nothing before");
}

#[test]
fn what_a_subscription_cannot_have_is_refused_with_the_reason() {
    let world = World::new(1);
    let node = Node::open(&world.member(0)).expect("it opens");
    let refused = |subscribe: Subscribe| node.subscribe(subscribe).map(drop).expect_err("it is refused").to_string();
    for (pattern, rule) in [
        ("md.*x", "`*` and `**` stand for whole parts"),
        ("md.**.trades", "nothing can follow it"),
        ("md.>", "write `**`"),
        ("", "is no pattern"),
        ("a..b", "is no pattern"),
    ] {
        let text = refused(Subscribe::to("news").and(pattern));
        assert!(text.contains(&format!("{pattern:?}")) && text.contains(rule), "{text}");
    }
    assert!(refused(Subscribe::all().overrun(Overrun::Replay)).contains("archive"));
    let text = refused(Subscribe::all().from(Start::Oldest));
    assert!(text.contains("this process begins Live, not Oldest") && text.contains("process.start"), "{text}");
    let mut settings = world.observer();
    settings.process.start = Start::Oldest;
    let observer = Node::open(&settings).expect("it opens");
    observer.subscribe(Subscribe::all().from(Start::Oldest)).expect("the process begins there");
    let text = observer.subscribe(Subscribe::all().overrun(Overrun::Hold)).map(drop).expect_err("it skips").to_string();
    assert!(text.contains("flow.mode"), "{text}");
    observer.join().expect("it joins");
    observer.subscribe(Subscribe::all().from(Start::Oldest)).map(drop).expect_err("it has begun");
    let text = observer.subscribe(Subscribe::all().snapshots()).map(drop).expect_err("it has joined").to_string();
    assert!(text.contains("process.snapshots"), "{text}");
    settings.flow.mode = Flow::Gating;
    let gating = Node::open(&settings).expect("it opens");
    gating.subscribe(Subscribe::all().overrun(Overrun::Hold)).expect("it gates");
}

#[test]
fn handles_of_a_node_that_has_ended_report_why() {
    let world = World::new(1);
    let (node, mut publication, mut subscription) = start(&world.member(0));
    let mut unread = node.subscribe("no.such.topic").expect("it runs");
    publication.publish(&TOPIC, b"last", PATIENCE).expect("it forms");
    publication.wait_acknowledged(1, PATIENCE).expect("it is alone");
    let node = Arc::new(node);
    // A thread that waits without a deadline sees the end.
    let waiting = std::thread::spawn(move || {
        while unread.next(Deadline::NEVER)?.is_some() {}
        Ok::<_, Closed>(())
    });
    let node = Arc::into_inner(node).expect("one handle");
    let stopped = std::os::unix::net::UnixStream::connect(&node.info().socket_path).expect("it listens");
    std::io::Write::write_all(&mut &stopped, b"{\"request\":\"stop\"}\n").expect("it is read");
    until("the end", || !node.is_running());
    assert_eq!(waiting.join().expect("no panic"), Err(Closed::Ended));
    assert!(matches!(node.subscribe(Subscribe::all()).map(drop), Err(Error::Closed(Closed::Ended))));
    assert!(matches!(node.publication().map(drop), Err(Error::Closed(Closed::Ended))));
    assert!(matches!(node.join(), Err(Error::Closed(Closed::Ended))));
    drop(node);
    // What was delivered is handed out first; then every call reports the end.
    assert_eq!(items(&mut subscription), ["view", "last"]);
    for _ in 0..2 {
        assert_eq!(subscription.next(Deadline::NEVER).map(|_| ()), Err(Closed::Ended));
        assert_eq!(subscription.try_next().map(|_| ()), Err(Closed::Ended));
        assert_eq!(subscription.poll(9, |_| ()), Err(Closed::Ended));
        assert_eq!(subscription.wait(Duration::ZERO), Err(Closed::Ended));
        assert!(is_readable(&subscription, 0), "an application's own loop sees the end");
    }
}

#[test]
fn a_wait_ends_by_an_item_its_deadline_or_a_canceller() {
    let world = World::new(1);
    let (node, mut publication, mut subscription) = start(&world.member(0));
    assert_eq!(subscription.next(PATIENCE).map(|item| item.and_then(|item| item.event()).is_some()), Ok(true));
    assert_eq!(subscription.wait(Duration::from_millis(1)), Ok(false));
    assert_eq!(subscription.next(Duration::from_millis(1)).map(|item| item.is_none()), Ok(true));
    publication.publish(&TOPIC, b"x", PATIENCE).expect("there is room");
    assert_eq!(subscription.wait(Deadline::NEVER), Ok(true));
    assert_eq!(items(&mut subscription), ["x"]);
    let waiting = std::thread::spawn(move || (subscription.wait(Deadline::NEVER), subscription));
    node.canceller().cancel();
    let (waited, mut subscription) = waiting.join().expect("no panic");
    assert_eq!(waited, Ok(false));
    publication.publish(&TOPIC, b"y", PATIENCE).expect("it takes more");
    until("it to be there all the same", || subscription.wait(Deadline::NEVER) == Ok(true));
    assert_eq!(subscription.next(Deadline::NEVER).map(|item| item.is_some()), Ok(true));
    assert_eq!(subscription.next(Deadline::NEVER).map(|item| item.is_none()), Ok(true), "it stays cancelled");
}

/// One item a wake-up, as an application's own loop may read; a wake-up that is lost ends the test by its patience.
#[test]
fn the_descriptor_is_readable_as_long_as_there_is_something() {
    let world = World::new(1);
    let (node, mut publication, mut subscription) = start(&world.member(0));
    let mut other = node.subscribe("other").expect("it runs");
    subscription.as_fd();
    const COUNT: u64 = 20_000;
    let publishing = std::thread::spawn(move || {
        for number in 0..COUNT {
            publication.publish(&TOPIC, &number.to_le_bytes(), PATIENCE).expect("there is room");
            if number % 7 == 0 {
                publication.wait_acknowledged(number + 1, PATIENCE).expect("it is alone");
            }
        }
    });
    let (mut next, mut reads) = (0, 0);
    while next < COUNT {
        assert!(is_readable(&subscription, PATIENCE.as_millis() as i64), "after {next}");
        let limit = 1 + reads % 3;
        reads += 1;
        let mut on_delivery = |delivery: Delivery<'_>| {
            let Some(message) = delivery.message() else { return };
            assert_eq!(message.payload, next.to_le_bytes());
            next += 1;
        };
        if limit == 3 {
            subscription.try_next().expect("it runs").into_iter().for_each(&mut on_delivery);
        } else {
            subscription.poll(limit, on_delivery).expect("it runs");
        }
    }
    publishing.join().expect("no panic");
    assert_eq!(items(&mut subscription), Vec::<String>::new());
    assert!(!is_readable(&subscription, 0), "nothing is there");
    // What is not for a subscription does not wake it.
    assert_eq!(items(&mut other), ["view"]);
    other.as_fd();
    assert!(is_readable(&other, 0), "once, so that the first read arms it");
    assert_eq!(items(&mut other), Vec::<String>::new());
    let mut publication = node.publication().expect("it runs");
    publication.publish(&TOPIC, b"x", PATIENCE).expect("there is room");
    publication.wait_acknowledged(1, PATIENCE).expect("it is alone");
    assert!(!is_readable(&other, 0) && is_readable(&subscription, 1_000));
    publication.publish(&Topic::new("other").expect("it is one"), b"y", PATIENCE).expect("there is room");
    assert_eq!(other.wait(PATIENCE), Ok(true), "a wait works beside it");
    assert!(is_readable(&other, 1_000));
    assert_eq!(items(&mut other), ["y"]);
}

#[test]
fn two_threads_share_a_subscription_by_a_mutex() {
    let world = World::new(1);
    let (node, mut publication, subscription) = start(&world.member(0));
    let subscription = Mutex::new(subscription);
    const COUNT: usize = 2_000;
    let read = || {
        let mut sequences = Vec::new();
        loop {
            let mut subscription = subscription.lock().expect("no panic");
            match subscription
                .next(PATIENCE)
                .expect("it runs")
                .and_then(|item| item.message().map(|it| it.payload.len()))
            {
                Some(0) => return sequences,
                Some(length) => sequences.push(length),
                None => {}
            }
        }
    };
    std::thread::scope(|scope| {
        let readers = [scope.spawn(read), scope.spawn(read)];
        for number in 1..=COUNT {
            publication.publish(&TOPIC, &vec![7; number], PATIENCE).expect("there is room");
        }
        (0..2).for_each(|_| _ = publication.publish(&TOPIC, b"", PATIENCE).expect("there is room"));
        let mut all: Vec<_> = readers.into_iter().flat_map(|reader| reader.join().expect("no panic")).collect();
        all.sort_unstable();
        assert!(all.into_iter().eq(1..=COUNT), "each message once");
    });
    drop(node);
}

/// An item that is lent keeps its place in the ring, and holds up no item that the ring has room for once it is read.
#[test]
fn items_are_lent_one_by_one_from_a_ring_that_four_of_them_fill() {
    let world = World::new(1);
    let mut settings = world.member(0);
    settings.threads.subscription_ring_bytes = 1 << 18;
    let (node, mut publication, mut subscription) = start(&settings);
    let payload = |number: u8| vec![number; 60_000];
    let publishing = std::thread::spawn(move || {
        for number in 0..100 {
            publication.publish(&TOPIC, &payload(number), PATIENCE).expect("there is room");
        }
    });
    let mut next = 0;
    while next < 100 {
        let item = subscription.next(PATIENCE).expect("it runs").expect("it comes in time");
        let Some(message) = item.message() else { continue };
        assert_eq!(message.payload, payload(next));
        next += 1;
    }
    publishing.join().expect("no panic");
    drop(node);
}

/// It is only watched: it must not hold up the group.
#[test]
fn a_members_subscription_that_skips_holds_nothing_up() {
    let world = World::new(1);
    let mut settings = world.member(0);
    settings.threads.subscription_ring_bytes = 1 << 18;
    let (node, mut publication, mut own) = start(&settings);
    let mut watched = node.subscribe(Subscribe::all().overrun(Overrun::Skip)).expect("it runs");
    const COUNT: u64 = 2_000; // 500 bytes each: four times the ring
    assert_eq!(watched.wait(PATIENCE), Ok(true), "the view has come");
    for _ in 0..COUNT {
        until("room", || {
            own.poll(usize::MAX, |_| {}).expect("it runs");
            publication.try_publish(&TOPIC, &[7; 500]).is_ok()
        });
    }
    until("all to be read or counted", || {
        own.poll(usize::MAX, |_| {}).expect("it runs");
        cell(&world, &node, "delivered") == COUNT
    });
    let (mut next, mut skipped) = (0, 0);
    until("all to be read or reported", || {
        let polled = watched.poll(usize::MAX, |delivery| match delivery {
            Delivery::Message(message) => {
                assert_eq!(message.sequence.0, next + skipped);
                next += 1;
            }
            Delivery::Skipped(count) => skipped += count,
            _ => {}
        });
        polled.expect("it runs");
        next + skipped == COUNT
    });
    assert!(skipped > 0 && skipped == watched.overruns() && skipped == cell(&world, &node, "overruns"), "{skipped}");
    drop(watched);
    let _another = node.subscribe(Subscribe::none()).expect("it runs");
    publication.publish(&TOPIC, b"x", PATIENCE).expect("there is room");
    publication.wait_acknowledged(COUNT + 1, PATIENCE).expect("it is alone");
    until("the counters to be copied", || cell(&world, &node, "delivered") > COUNT);
    assert_eq!(cell(&world, &node, "overruns"), skipped, "a count never falls");
}

#[test]
fn events_that_were_not_kept_are_counted_behind_those_that_were() {
    let world = World::new(1);
    let (observer, ..) = start(&world.observer());
    let mut events = events(&observer);
    const ASKED: u64 = 300;
    for _ in 0..ASKED {
        until("room for a command", || observer.sync(None).is_ok());
    }
    until("all to be reported", || cell(&world, &observer, "events_dropped") >= ASKED - 256);
    let (mut refused, mut missed) = (0, 0);
    until("every refusal to be reported or counted", || {
        match next_event(&mut events) {
            Some(Event::SyncRefused(Refusal::Role)) => {
                assert_eq!(missed, 0, "they come first");
                refused += 1;
            }
            Some(Event::Missed { count }) => missed += count,
            Some(Event::View { .. } | Event::Waiting(_)) | None => {}
            other => panic!("{other:?}"),
        }
        refused + missed >= ASKED
    });
    assert!(refused <= 256 && refused > 200, "{refused}, {missed}");
    until("room for a command", || observer.sync(None).is_ok());
    until("the next one", || next_event(&mut events) == Some(Event::SyncRefused(Refusal::Role)));
}

/// Both faces, and each kind of subscription, give the same events between the same messages: see `places.rs`. Status
/// events are copies: a subscription without them gets none.
#[test]
fn events_without_a_place_come_to_those_that_asked() {
    let world = World::new(2);
    let (node, _publication, mut plain) = start(&world.member(0));
    let mut events = events(&node);
    let mut inline = InlineNode::join(&world.member(1)).expect("it joins");
    until("the view", || {
        inline.poll(usize::MAX, |_| {}).expect("the port works");
        matches!(next_event(&mut events), Some(Event::View { .. }))
    });
    drop(inline);
    until("the loss of the other half", || matches!(next_event(&mut events), Some(Event::Suspected(..))));
    let plain = items(&mut plain);
    assert!(!plain.is_empty() && plain.iter().all(|item| item == "view"), "{plain:?}");
}
