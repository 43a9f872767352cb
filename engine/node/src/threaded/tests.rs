//! Faults of the control thread, planted by what it calls after each change: it blocks, it panics, it stops a group.

#[path = "../../tests/common/mod.rs"]
mod common;

use super::Node;
use crate::locks::LockRequest;
use crate::locks::state::Wait;
use bourdon_protocol::Event;
use bourdon_wire::TopicName;
use common::{PATIENCE, World, events, fresh_address, next_event, start, until};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};

/// Requests a lock; the control thread calls `plant` after each change.
fn planted(node: &Node, plant: impl Fn() + Send + Sync + 'static) -> LockRequest {
    let name = TopicName::new("one").expect("it is a name");
    node.locks.request(name, Wait::Forever, Some(Arc::new(plant)))
}

/// A group of one, and another beside it.
fn two_groups(world: &World) -> [Node; 2] {
    let first = Node::open(&world.member(0)).expect("it opens");
    let mut settings = world.member(0);
    (settings.group.name, settings.group.address) = ("other".to_owned(), fresh_address());
    settings.threads.drop_timeout_ns = 3_600_000_000_000; // more than the test takes
    let other = first.open_beside(&settings).expect("it opens");
    [first, other].map(|node| {
        node.join().expect("it joins");
        node
    })
}

/// The control thread is blocked, as by a debugger.
#[test]
fn a_silent_control_thread_stops_the_data_plane() {
    let world = World::new(1);
    let (node, _publication, _subscription) = start(&world.member(0));
    let (release, blocked) = channel::<()>();
    let blocked = Mutex::new(blocked);
    let guard = node.lock("one", PATIENCE).expect("it is granted");
    let mut events = events(&node);
    let mut await_event = |what: &str, is_it: fn(&Event) -> bool| {
        until(what, || std::iter::from_fn(|| next_event(&mut events)).any(|event| is_it(&event)));
    };
    let mut waits = planted(&node, move || {
        let _ = blocked.lock().expect("no panic").recv(); // it is over once the sender is gone
    });
    await_event("it to stop", |event| matches!(event, Event::Halted));
    drop(release);
    await_event("it to go on", |event| matches!(event, Event::Resumed));
    drop(guard);
    drop(waits.wait(PATIENCE).expect("it is not lost").expect("it is granted"));
}

#[test]
fn a_panic_of_the_control_thread_ends_the_node() {
    let world = World::new(1);
    let (node, _publication, _subscription) = start(&world.member(0));
    drop(node.lock("one", PATIENCE).expect("it is granted"));
    let _request = planted(&node, || panic!("planted"));
    until("it to end", || !node.is_running());
    let stopped = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| node.close(PATIENCE)));
    assert!(stopped.is_err(), "the panic is the node's outcome");
}

#[test]
fn issue_a_group_that_the_control_thread_stopped_waited_for_that_thread() {
    let world = World::new(1);
    let [first, other] = two_groups(&world);
    let (stopped, stops) = channel();
    let other = Mutex::new(Some((other, stopped)));
    // The control thread calls it, and would wait here for what only it can do.
    let mut request = planted(&first, move || {
        if let Some((other, stopped)) = other.lock().expect("no panic").take() {
            let _ = stopped.send(other.close(PATIENCE).is_ok());
        }
    });
    assert_eq!(stops.recv_timeout(PATIENCE), Ok(true));
    drop(request.wait(PATIENCE).expect("it is not lost").expect("it is granted"));
    first.close(PATIENCE).expect("it ends well");
}

#[test]
fn a_panic_of_the_control_thread_reaches_every_group_and_no_more_are_started() {
    let world = World::new(1);
    let [first, other] = two_groups(&world);
    let _request = planted(&first, || panic!("planted"));
    until("both to end", || !first.is_running() && !other.is_running());
    let refused = other.open_beside(&world.member(0));
    assert!(refused.expect_err("its threads are gone").to_string().contains("start another node"));
    for node in [first, other] {
        let stopped = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| node.close(PATIENCE)));
        assert!(stopped.is_err(), "the panic is the outcome of both");
    }
    assert_eq!(world.names(), Vec::<String>::new());
}

/// A node is shared by the application's threads, and its handles go to any of them.
#[test]
fn nodes_and_guards_may_be_shared_and_elections_sent() {
    fn shared<T: Send + Sync>() {}
    fn sent<T: Send>() {}
    shared::<Node>();
    shared::<crate::Guard>();
    shared::<LockRequest>();
    sent::<crate::Election>();
    sent::<crate::InlineNode>();
}
