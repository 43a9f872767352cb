//! Locks and leaders of threaded nodes on real sockets: exclusion, waiting, losing, handing over, the admin socket.

use crate::common::{PATIENCE, World, until};
use bourdon::settings::MutexKind;
use bourdon::{
    CoordinationRefusal, FencingToken, Guard, LockError, LockState, Locks, Loss, Lost, NodeEvent, Participation,
    Publication, Settings, Subscription, ThreadedNode, TopicName, Wait,
};
use serde_json::Value;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

type Started = (ThreadedNode, Publication, Subscription);

fn name(text: &str) -> TopicName {
    TopicName::new(text).expect("it is one")
}

fn start(settings: &Settings) -> Started {
    ThreadedNode::start(settings).expect("it starts")
}

fn three(world: &World, mutex: MutexKind) -> Vec<Option<Started>> {
    let settings = (0..3).map(|rank| {
        let mut settings = world.member(rank);
        settings.group.mutex = mutex;
        settings
    });
    settings.map(|settings| Some(start(&settings))).collect()
}

fn locks(nodes: &[Option<Started>], rank: usize) -> Locks {
    nodes[rank].as_ref().expect("it runs").0.locks()
}

/// A lock; the test fails instead of hanging.
fn held(locks: &Locks, lock: &str) -> Guard {
    locks.lock_until(name(lock), Instant::now() + PATIENCE).expect("it is granted")
}

fn is_waiting(state: LockState) -> bool {
    matches!(state, LockState::Waiting { .. })
}

#[test]
fn one_holds_at_a_time_and_tokens_grow_whatever_the_algorithm() {
    for mutex in
        [MutexKind::Replicated, MutexKind::Central, MutexKind::Lamport, MutexKind::RicartAgrawala, MutexKind::TokenRing]
    {
        let world = World::new(3);
        let nodes = three(&world, mutex);
        let (inside, tokens) = (AtomicBool::new(false), Mutex::new(Vec::<FencingToken>::new()));
        std::thread::scope(|scope| {
            for thread in 0..6 {
                let (locks, inside, tokens) = (locks(&nodes, thread % 3), &inside, &tokens);
                scope.spawn(move || {
                    for _ in 0..5 {
                        let guard = held(&locks, "one");
                        assert!(!inside.swap(true, Ordering::SeqCst), "{mutex:?}: two are inside");
                        tokens.lock().expect("no panic").push(guard.token());
                        std::thread::yield_now();
                        inside.store(false, Ordering::SeqCst);
                    }
                });
            }
        });
        let tokens = tokens.into_inner().expect("no panic");
        assert_eq!(tokens.len(), 30);
        assert!(tokens.is_sorted_by(|a, b| a < b), "{mutex:?}: {tokens:?}");
    }
}

#[test]
fn a_lock_is_tried_waited_for_and_given_back() {
    let world = World::new(3);
    let nodes = three(&world, MutexKind::Replicated);
    let (first, second) = (locks(&nodes, 0), locks(&nodes, 1));
    let guard = held(&first, "one");
    assert_eq!((guard.name().as_str(), guard.lost()), ("one", None));
    for locks in [&first, &second] {
        assert_eq!(locks.try_lock(name("one")).err(), Some(LockError::Busy));
        let soon = Instant::now() + Duration::from_millis(20);
        assert_eq!(locks.lock_until(name("one"), soon).err(), Some(LockError::TimedOut));
    }
    assert!(second.try_lock(name("another")).is_ok(), "another lock has nothing to do with it");
    // A request that gives up waiting leaves its place to the next.
    let (gives_up, waits) = (second.begin(name("one"), Wait::Forever), second.begin(name("one"), Wait::Forever));
    until("both to wait", || is_waiting(gives_up.state()) && is_waiting(waits.state()));
    drop(gives_up);
    let token = guard.token();
    drop(guard);
    assert!(waits.wait().expect("it is granted").token() > token);
    // That guard is gone again at once.
    drop(held(&first, "one"));
}

#[test]
fn a_lock_is_waited_for_while_the_group_forms() {
    let world = World::new(2);
    let first = start(&world.member(0));
    let locks = first.0.locks();
    assert_eq!(locks.try_lock(name("one")).err(), Some(CoordinationRefusal::Forming.into()));
    let forming = CoordinationRefusal::Forming;
    assert_eq!(locks.lock_until(name("one"), Instant::now()).err(), Some(forming.into()));
    let soon = Instant::now() + Duration::from_millis(20);
    assert_eq!(locks.lock_until(name("one"), soon).err(), Some(forming.into()));
    let request = locks.begin(name("one"), Wait::Forever);
    let mut candidacy = locks.elect(name("one"), Participation::Campaign).expect("it can come true");
    assert_eq!(candidacy.state().pending, Some(forming));
    until("it to report what it waits for", || request.state() == LockState::Pending(Some(forming)));
    let second = start(&world.member(1));
    let guard = request.wait().expect("it is granted");
    assert_eq!(guard.lost(), None);
    until("it to lead", || {
        candidacy.wait(Duration::from_secs(1));
        candidacy.leads().is_some()
    });
    drop(second);
}

#[test]
fn a_holder_without_a_majority_loses_the_lock_and_waiters_are_released() {
    let world = World::new(3);
    let mut nodes = three(&world, MutexKind::Replicated);
    // Of two remaining members the older may go on alone: so this is the youngest.
    let own = locks(&nodes, 2);
    let guard = held(&own, "one");
    let (sender, called) = channel();
    guard.on_lost(move |why| sender.send(why).expect("the test listens"));
    let mut candidacy = own.elect(name("one"), Participation::Campaign).expect("it may");
    until("it to lead", || {
        candidacy.wait(Duration::from_secs(1));
        candidacy.leads().is_some()
    });
    let waits = own.begin(name("one"), Wait::Forever);
    until("it to wait", || is_waiting(waits.state()));
    let others = [nodes[0].take(), nodes[1].take()];
    let ends = others.map(|node| std::thread::spawn(move || drop(node)));
    let lost = Some(Lost::Group(Loss::NoMajority));
    assert_eq!(guard.wait_lost(PATIENCE), lost);
    assert_eq!((guard.lost(), called.recv_timeout(PATIENCE).ok()), (lost, lost));
    assert_eq!(waits.wait().err(), Some(LockError::Lost(Lost::Group(Loss::NoMajority))));
    until("it to be deposed", || candidacy.state().deposed == Some(Loss::NoMajority));
    assert_eq!(candidacy.leads(), None);
    assert_eq!(own.try_lock(name("two")).err(), Some(CoordinationRefusal::NoMajority.into()));
    ends.into_iter().for_each(|end| end.join().expect("no panic"));
}

/// A callback blocks the control thread, as a debugger would.
#[test]
fn a_silent_control_thread_stops_the_data_plane() {
    let world = World::new(1);
    let (mut node, _publication, _subscription) = start(&world.member(0));
    let (release, blocked) = channel::<()>();
    let blocked = Mutex::new(blocked);
    let locks = node.locks();
    let guard = held(&locks, "one");
    let mut next_event = |what: &str, is_it: fn(&NodeEvent) -> bool| {
        until(what, || std::iter::from_fn(|| node.poll_event()).any(|event| is_it(&event)));
    };
    let waits = locks.begin_with(name("one"), Wait::Forever, move || {
        let _ = blocked.lock().expect("no panic").recv(); // it is over once the sender is gone
    });
    next_event("it to stop", |event| matches!(event, NodeEvent::Halted));
    drop(release);
    next_event("it to go on", |event| matches!(event, NodeEvent::Resumed));
    drop(guard);
    drop(waits.wait().expect("it is granted"));
}

#[test]
fn a_lock_given_back_before_the_stop_is_free_at_once() {
    let world = World::new(3);
    let mut nodes = three(&world, MutexKind::Replicated);
    for _ in 0..2 {
        let guard = held(&locks(&nodes, 2), "one");
        let waits = locks(&nodes, 0).begin(name("one"), Wait::Forever);
        until("it to wait", || is_waiting(waits.state()));
        drop(guard);
        nodes[2].take().expect("it runs").0.close(PATIENCE).expect("it ends well");
        let next = waits.wait().expect("it is granted");
        let birth_of_view = |token: FencingToken| token.epoch;
        nodes[2] = Some(start(&world.member(2)));
        let later = held(&locks(&nodes, 2), "two");
        assert!(birth_of_view(next.token()) < birth_of_view(later.token()), "no view change was needed for it");
        drop((next, later));
    }
}

/// A callback of the application panics on the control thread.
#[test]
fn a_panic_of_the_control_thread_ends_the_node() {
    let world = World::new(1);
    let (node, _publication, _subscription) = start(&world.member(0));
    drop(held(&node.locks(), "one"));
    let _request = node.locks().begin_with(name("one"), Wait::Forever, || panic!("a callback must not"));
    until("it to end", || !node.is_running());
    let stopped = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| node.close(PATIENCE)));
    assert!(stopped.is_err(), "the panic is the node's outcome");
}

#[test]
fn a_lock_goes_on_when_its_holders_node_ends() {
    for mutex in [MutexKind::Replicated, MutexKind::Central, MutexKind::TokenRing] {
        let world = World::new(3);
        let mut nodes = three(&world, mutex);
        let first = locks(&nodes, 0);
        let guard = held(&first, "one");
        let waits = locks(&nodes, 1).begin(name("one"), Wait::Forever);
        let own = first.begin(name("one"), Wait::Forever);
        until("both to wait", || is_waiting(waits.state()) && is_waiting(own.state()));
        drop(nodes[0].take());
        assert_eq!(guard.wait_lost(PATIENCE), Some(Lost::Ended));
        assert_eq!(own.wait().err(), Some(Lost::Ended.into()));
        assert_eq!(first.try_lock(name("one")).err(), Some(Lost::Ended.into()));
        let token = waits.wait().expect("it is granted").token();
        assert!(token > guard.token(), "{mutex:?}: {token:?} after {:?}", guard.token());
    }
}

#[test]
fn another_leads_when_the_leader_is_gone() {
    let world = World::new(3);
    let mut nodes = three(&world, MutexKind::Replicated);
    // The highest first: a lower candidate that is alone for a moment may win, and stays.
    let campaign = |rank: usize| locks(&nodes, rank).elect(name("one"), Participation::Campaign).expect("it may");
    let highest = campaign(2);
    until("the highest to lead", || highest.leads().is_some());
    let mut candidacies = vec![campaign(0), campaign(1), highest];
    assert_eq!(locks(&nodes, 0).elect(name("one"), Participation::StandBy).err(), Some(LockError::Stands));
    let watch = locks(&nodes, 0).elect(name("one"), Participation::Watch).expect("any node may watch");
    let mut leader = None;
    until("all to know the leader", || {
        leader = watch.leader();
        leader.is_some() && candidacies.iter().all(|candidacy| candidacy.leader() == leader)
    });
    let first = leader.expect("it was just seen");
    let rank = first.leader.index();
    assert_eq!(candidacies.iter().filter(|candidacy| candidacy.leads().is_some()).count(), 1);
    assert_eq!(candidacies[rank].leads(), Some(first.token));
    assert!(rank > 0, "the highest leads");
    drop(nodes[rank].take());
    assert_eq!(candidacies[rank].state().over, Some(Lost::Ended.into()));
    candidacies.remove(rank);
    until("the others to know another", || {
        leader = watch.leader().filter(|leadership| leadership.leader != first.leader);
        leader.is_some() && candidacies.iter().all(|candidacy| candidacy.leader() == leader)
    });
    let second = leader.expect("it was just seen");
    assert!(second.token > first.token);
    // It resigns and remains as a watcher; another candidacy of its node may stand now.
    let place = candidacies.iter().position(|candidacy| candidacy.leads().is_some()).expect("one leads");
    candidacies[place].resign();
    until("the last to lead", || candidacies[1 - place].leads().is_some());
    let again =
        locks(&nodes, second.leader.index()).elect(name("one"), Participation::StandBy).expect("no candidate here");
    assert!(again.leads().is_none());
}

struct Session(BufReader<UnixStream>);

impl Session {
    fn open(node: &ThreadedNode, request: &str) -> Self {
        let mut stream = UnixStream::connect(&node.info().socket_path).expect("it listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("it can be set");
        stream.write_all(format!("{request}\n").as_bytes()).expect("it is taken");
        Self(BufReader::new(stream))
    }

    /// The next line; null at the end.
    fn next(&mut self) -> Value {
        let mut line = String::new();
        self.0.read_line(&mut line).expect("it answers in time");
        if line.is_empty() { Value::Null } else { serde_json::from_str(&line).expect("one object a line") }
    }

    /// The next line in which the state is this one.
    fn until(&mut self, kind: &str, state: &str) -> Value {
        let mut lines = Vec::new();
        loop {
            let mut line = self.next();
            assert!(line[kind].is_object(), "{line} instead of {state} after {lines:?}");
            if line[kind]["state"] == state {
                return line[kind].take();
            }
            lines.push(line);
        }
    }
}

#[test]
fn a_connection_to_the_admin_socket_holds_a_lock_until_it_is_closed() {
    let world = World::new(3);
    let mut nodes = three(&world, MutexKind::Replicated);
    let node = |rank: usize| &nodes[rank].as_ref().expect("it runs").0;
    let mut first = Session::open(node(0), r#"{"request":"lock","name":"one"}"#);
    let granted = first.until("lock", "granted");
    assert!(granted["token"]["epoch"].is_u64() && granted["token"]["number"].is_u64(), "{granted}");
    drop(held(&locks(&nodes, 1), "another")); // now it knows that the group has formed
    let mut tries = Session::open(node(1), r#"{"request":"lock","name":"one","try":true}"#);
    tries.until("lock", "busy");
    assert_eq!(tries.next(), Value::Null, "that was all");
    let mut timed = Session::open(node(1), r#"{"request":"lock","name":"one","timeout_ns":1000000}"#);
    timed.until("lock", "timed-out");
    let mut second = Session::open(node(1), r#"{"request":"lock","name":"one"}"#);
    assert!(second.until("lock", "waiting")["ahead"].is_u64());
    first.0.get_mut().write_all(b"{\"request\":\"sync\"}\n").expect("it is taken");
    assert!(first.next()["error"].as_str().is_some_and(|why| why.contains("close it")));
    drop(first);
    let next = second.until("lock", "granted");
    let token = |line: &Value| (line["token"]["epoch"].as_u64(), line["token"]["number"].as_u64());
    assert!(token(&next) > token(&granted), "{next} after {granted}");
    // A half-close counts as a close.
    second.0.get_mut().shutdown(std::net::Shutdown::Write).expect("it can be shut down");
    let mut third = Session::open(node(2), r#"{"request":"lock","name":"one"}"#);
    third.until("lock", "granted");
    drop(nodes[2].take());
    assert_eq!(third.until("lock", "lost")["why"], "the node has ended: others may have the lock by now");
    assert_eq!(third.next(), Value::Null);
}

#[test]
fn sessions_are_many_and_elect_as_well() {
    let world = World::new(1);
    let node = start(&world.member(0)).0;
    let mut sessions: Vec<_> = (0..64)
        .map(|number| Session::open(&node, &format!("{{\"request\":\"lock\",\"name\":\"lock.{number}\"}}")))
        .collect();
    sessions.iter_mut().for_each(|session| _ = session.until("lock", "granted"));
    let mut stands = Session::open(&node, r#"{"request":"elect","name":"one"}"#);
    let mut line = stands.until("elect", "known");
    while line["leader"].is_null() {
        line = stands.until("elect", "known");
    }
    assert_eq!((&line["leader"], &line["own"]), (&0.into(), &true.into()));
    let mut refused = Session::open(&node, r#"{"request":"elect","name":"one"}"#);
    assert!(refused.until("elect", "refused")["why"].as_str().is_some_and(|why| why.contains("stands")));
    let mut watches = Session::open(&node, r#"{"request":"elect","name":"one","part":"watch"}"#);
    line = watches.until("elect", "known");
    assert_eq!((&line["leader"], &line["own"]), (&0.into(), &false.into()));
    drop(stands);
    while !line["leader"].is_null() {
        line = watches.until("elect", "known");
    }
}
