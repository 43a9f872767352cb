//! Subscriptions under tokio: order, events, the end, and no wake-up while nothing comes.

use crate::common::{PATIENCE, TOPIC, World, start, until};
use bourdon::stream::Received;
use bourdon::{Closed, Deadline, Delivery, InlineNode, Subscribe, Topic};
use std::future::poll_fn;
use std::pin::Pin;
use tokio::runtime::{Builder, Runtime};

/// A runtime of one thread, which has this name.
fn runtime(thread: &str) -> Runtime {
    Builder::new_multi_thread().worker_threads(1).thread_name(thread).enable_io().build().expect("it starts")
}

/// What an application can write down of an item.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Item {
    Message(u64, Vec<u8>),
    Event(&'static str),
}

impl Item {
    fn of(delivery: &Delivery<'_>) -> Self {
        match delivery {
            Delivery::Message(message) => Self::Message(message.sequence.0, message.payload.to_vec()),
            Delivery::Event(event) => Self::Event(event.name()),
            other => panic!("{other:?}"),
        }
    }

    fn owned(received: Received) -> Self {
        match received {
            Received::Message(message) => Self::of(&Delivery::Message(message.get())),
            Received::Other(delivery) => Self::of(&delivery),
            other => panic!("{other:?}"),
        }
    }
}

/// How often the kernel has let this thread of this process go to sleep.
fn sleeps_of(thread: &str) -> u64 {
    let tasks = std::fs::read_dir("/proc/self/task").expect("there is a list").map(|task| task.expect("a task").path());
    let is_it = |name: String| name.trim_end() == thread;
    let own = tasks.filter(|task| std::fs::read_to_string(task.join("comm")).is_ok_and(is_it));
    let status = own.map(|task| std::fs::read_to_string(task.join("status")).expect("it runs"));
    let line = |status: String| Some(status.lines().find(|it| it.starts_with("voluntary_ctxt"))?.to_owned());
    let counts = status.filter_map(line).filter_map(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
    counts.sum()
}

#[test]
fn a_stream_gives_what_a_subscription_gives_beside_it() {
    const COUNT: u64 = 100_000;
    let world = World::new(2);
    let (node, mut publication, mut blocking) = start(&world.member(0));
    let mut leaver = InlineNode::join(&world.member(1)).expect("it joins");
    // Both begin with the same item: the second one is made before the group has formed.
    let stream = node.subscribe(Subscribe::all()).expect("it runs");
    let runtime = runtime("beside");
    let streaming = runtime.spawn(async move {
        let (mut stream, mut items) = (stream.into_stream().expect("it is watched"), Vec::new());
        while let Some(received) = stream.try_next().await? {
            tokio::task::yield_now().await; // the item is held meanwhile
            items.push(Item::owned(received));
            if matches!(items.last(), Some(Item::Message(_, payload)) if payload == b"last") {
                break;
            }
        }
        Ok::<_, Closed>(items)
    });
    let reading = std::thread::spawn(move || {
        let mut items = Vec::new();
        while !matches!(items.last(), Some(Item::Message(_, payload)) if payload == b"last") {
            let next = blocking.next(Deadline::NEVER).expect("it runs").expect("it is not cancelled");
            items.push(Item::of(&next));
        }
        items
    });
    let mut published = 0;
    until("all to be published", || {
        leaver.poll(usize::MAX, |_| {}).expect("the port works");
        while published < COUNT && publication.try_publish(&TOPIC, &published.to_le_bytes()).is_ok() {
            published += 1;
            if published == COUNT / 2 {
                leaver.leave();
            }
        }
        published == COUNT
    });
    publication.publish(&TOPIC, b"last", PATIENCE).expect("there is room");
    let (items, expected) = (runtime.block_on(streaming).expect("no panic").expect("it runs"), reading.join());
    let expected = expected.expect("no panic");
    assert!(items == expected, "{} and {} items", items.len(), expected.len());
    let events: Vec<_> = items.iter().filter(|item| matches!(item, Item::Event(_))).collect();
    assert_eq!(events, [&Item::Event("view"), &Item::Event("view")]);
    assert_eq!(items.len() as u64, COUNT + 3);
}

#[test]
fn an_idle_stream_wakes_no_thread_and_an_item_wakes_it() {
    let world = World::new(1);
    let (node, mut publication, mut own) = start(&world.member(0));
    let stream = node.subscribe("es").expect("it runs");
    let runtime = runtime("idle");
    let (sender, items) = std::sync::mpsc::channel();
    runtime.spawn(async move {
        let mut stream = stream.into_stream().expect("it is watched");
        while let Ok(delivery) = stream.next_ref().await {
            sender.send(Item::of(&delivery)).expect("the test waits");
        }
    });
    assert_eq!(items.recv_timeout(PATIENCE), Ok(Item::Event("view")));
    publication.publish(&TOPIC, b"one", PATIENCE).expect("there is room");
    assert_eq!(items.recv_timeout(PATIENCE), Ok(Item::Message(0, b"one".to_vec())));
    // The runtime's thread sleeps once it has found nothing; what is not for the stream does not wake it.
    let other = Topic::new("other").expect("it is one");
    let mut others_come = |count| {
        for _ in 0..count {
            publication.publish(&other, b"x", PATIENCE).expect("there is room");
            own.wait(PATIENCE).expect("it runs");
            own.poll(usize::MAX, |_| {}).expect("it runs");
        }
    };
    let mut before = sleeps_of("idle");
    until("it to sleep", || {
        others_come(50);
        std::mem::replace(&mut before, sleeps_of("idle")) == before
    });
    others_come(2_000);
    assert_eq!(sleeps_of("idle"), before, "wake-ups while nothing came");
    publication.publish(&TOPIC, b"two", PATIENCE).expect("there is room");
    assert!(matches!(items.recv_timeout(PATIENCE), Ok(Item::Message(_, payload)) if payload == b"two"));
}

#[test]
fn a_stream_reports_the_end_once_and_is_over() {
    let world = World::new(1);
    let (node, mut publication, mut own) = start(&world.member(0));
    let stream = node.subscribe(Subscribe::all()).expect("it runs");
    publication.publish(&TOPIC, b"last", PATIENCE).expect("there is room");
    publication.wait_acknowledged(1, PATIENCE).expect("it is alone");
    own.poll(usize::MAX, |_| {}).expect("it runs");
    let runtime = runtime("ended");
    let streaming = runtime.spawn(async move {
        let mut stream = stream.into_stream().expect("it is watched");
        let (mut items, mut ended) = (0, 0);
        // By the trait, as combinators do.
        loop {
            match poll_fn(|cx| futures_core::Stream::poll_next(Pin::new(&mut stream), cx)).await {
                Some(Ok(_)) => items += 1,
                Some(Err(closed)) => {
                    assert_eq!(closed, Closed::Ended);
                    ended += 1;
                }
                None => break,
            }
        }
        assert_eq!(stream.try_next().await.map(|it| it.is_none()), Ok(true), "it stays over");
        assert_eq!(stream.next_ref().await.map(|_| ()), Err(Closed::Ended));
        (items, ended)
    });
    node.close(PATIENCE).expect("it ends well");
    let (items, ended) = runtime.block_on(streaming).expect("no panic");
    assert!(items >= 2 && ended == 1, "{items} items, {ended} ends");
}

/// A caller without a runtime made a mistake that the compiler can't see.
#[test]
#[should_panic(expected = "runtime")]
fn a_stream_outside_of_a_runtime_panics() {
    let world = World::new(1);
    let (node, ..) = start(&world.member(0));
    let _ = node.subscribe(Subscribe::all()).expect("it runs").into_stream();
}
