//! Locks and leaders of threaded nodes on real sockets: exclusion, waiting, losing, handing over, the admin socket.

use crate::common::{PATIENCE, Started, World, start, until};
use bourdon::error::{CoordinationRefusal, LockError, Loss, Lost};
use bourdon::settings::MutexKind;
use bourdon::{Deadline, Election, ElectionState, FencingToken, Guard, Node};
use serde_json::Value;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const AT_ONCE: Duration = Duration::ZERO;

fn three(world: &World, mutex: MutexKind) -> Vec<Option<Started>> {
    let settings = (0..3).map(|rank| {
        let mut settings = world.member(rank);
        settings.group.mutex = Some(mutex);
        settings
    });
    settings.map(|settings| Some(start(&settings))).collect()
}

fn node(nodes: &[Option<Started>], rank: usize) -> &Node {
    &nodes[rank].as_ref().expect("it runs").0
}

/// A lock; the test fails instead of hanging.
fn held(node: &Node, lock: &str) -> Guard {
    node.lock(lock, PATIENCE).expect("it is granted")
}

/// The lock that was requested; likewise.
fn granted(request: &mut bourdon::LockRequest) -> Guard {
    request.wait(PATIENCE).expect("it is not lost").expect("it is granted in time")
}

fn campaign(node: &Node) -> Election {
    let mut election = node.election("one").expect("it is a name");
    election.campaign().expect("it may");
    election
}

fn leads(election: &Election) -> bool {
    election.state().own
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
                let (node, inside, tokens) = (node(&nodes, thread % 3), &inside, &tokens);
                scope.spawn(move || {
                    for _ in 0..5 {
                        let guard = held(node, "one");
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
    let (first, second) = (node(&nodes, 0), node(&nodes, 1));
    let guard = held(first, "one");
    assert_eq!((guard.name().as_str(), guard.lost()), ("one", None));
    for node in [first, second] {
        for timeout in [AT_ONCE, Duration::from_millis(20)] {
            assert_eq!(node.lock("one", timeout).err(), Some(LockError::Busy { ahead: 1 }));
        }
    }
    assert!(second.lock("another", PATIENCE).is_ok(), "another lock has nothing to do with it");
    let mut request = second.request_lock("one").expect("it is a name");
    assert!(request.wait(Duration::from_millis(1)).expect("it goes on waiting").is_none());
    // A request that gives up waiting leaves its place to the next.
    let mut next = second.request_lock("one").expect("it is a name");
    until("both to wait", || request.ahead() == Some(1) && next.ahead() == Some(2));
    assert!(next.try_guard().expect("it waits").is_none());
    drop(request);
    let token = guard.token();
    drop(guard);
    let guard = granted(&mut next);
    assert!(guard.token() > token);
    assert_eq!(
        (next.try_guard().err(), next.wait(AT_ONCE).err()),
        (Some(LockError::Granted), Some(LockError::Granted))
    );
    drop(next);
    assert_eq!(guard.lost(), None, "the request is no part of the lock any more");
    drop(guard);
    // That guard is gone again at once.
    drop(held(first, "one"));
}

#[test]
fn a_name_that_is_not_valid_is_refused() {
    let world = World::new(1);
    let (node, ..) = start(&world.member(0));
    for name in ["", "a b", "a..b"] {
        assert!(matches!(node.lock(name, PATIENCE).err(), Some(LockError::Name(_))), "{name:?}");
        assert!(matches!(node.request_lock(name).err(), Some(LockError::Name(_))), "{name:?}");
        assert!(matches!(node.election(name).err(), Some(LockError::Name(_))), "{name:?}");
    }
}

#[test]
fn a_lock_is_waited_for_while_the_group_forms() {
    let world = World::new(2);
    let (first, ..) = start(&world.member(0));
    let forming = CoordinationRefusal::Forming;
    for timeout in [AT_ONCE, Duration::from_millis(20)] {
        assert_eq!(first.lock("one", timeout).err(), Some(forming.into()));
    }
    let mut request = first.request_lock("one").expect("it is a name");
    let mut election = campaign(&first);
    until("both to report what they wait for", || {
        request.pending() == Some(forming) && election.state().pending == Some(forming)
    });
    let state = election.try_next().expect("it goes on").expect("it is new");
    assert!(state.to_string().contains("forming"), "{state}");
    let second = start(&world.member(1));
    assert_eq!(granted(&mut request).lost(), None);
    until("it to lead", || election.next(PATIENCE).expect("it goes on").is_some_and(|state| state.own));
    assert!(election.state().to_string().starts_with("this candidacy leads"), "{}", election.state());
    drop(second);
}

#[test]
fn a_holder_without_a_majority_loses_the_lock_and_waiters_wait_on() {
    let world = World::new(3);
    let mut nodes = three(&world, MutexKind::Replicated);
    // Of two remaining members the older may go on alone: so this is the youngest.
    let (own, _publication, _subscription) = nodes[2].take().expect("it runs");
    let guard = held(&own, "one");
    let election = campaign(&own);
    until("it to lead", || leads(&election));
    let waits = own.request_lock("one").expect("it is a name");
    until("it to wait", || waits.ahead().is_some());
    let others = [nodes[0].take(), nodes[1].take()];
    let ends = others.map(|node| std::thread::spawn(move || drop(node)));
    let lost = Lost::Group(Loss::NoMajority);
    assert_eq!(guard.wait_lost(PATIENCE), Some(lost));
    assert_eq!(guard.lost(), Some(lost));
    until("it to wait for a majority", || waits.pending() == Some(CoordinationRefusal::NoMajority));
    until("it to be deposed", || election.state().deposed == Some(Loss::NoMajority));
    assert!(!leads(&election));
    assert_eq!(own.lock("two", AT_ONCE).err(), Some(CoordinationRefusal::NoMajority.into()));
    ends.into_iter().for_each(|end| end.join().expect("no panic"));
}

#[test]
fn a_lock_given_back_before_the_stop_is_free_at_once() {
    let world = World::new(3);
    let mut nodes = three(&world, MutexKind::Replicated);
    for _ in 0..2 {
        let guard = held(node(&nodes, 2), "one");
        let mut waits = node(&nodes, 0).request_lock("one").expect("it is a name");
        until("it to wait", || waits.ahead().is_some());
        drop(guard);
        nodes[2].take().expect("it runs").0.close(PATIENCE).expect("it ends well");
        let next = granted(&mut waits);
        let birth_of_view = |token: FencingToken| token.epoch;
        nodes[2] = Some(start(&world.member(2)));
        let later = held(node(&nodes, 2), "two");
        assert!(birth_of_view(next.token()) < birth_of_view(later.token()), "no view change was needed for it");
        drop((next, later));
    }
}

#[test]
fn a_lock_goes_on_when_its_holders_node_ends() {
    for mutex in [MutexKind::Replicated, MutexKind::Central, MutexKind::TokenRing] {
        let world = World::new(3);
        let mut nodes = three(&world, mutex);
        let guard = held(node(&nodes, 0), "one");
        let mut waits = node(&nodes, 1).request_lock("one").expect("it is a name");
        let mut own = node(&nodes, 0).request_lock("one").expect("it is a name");
        let mut election = campaign(node(&nodes, 0));
        until("both to wait", || waits.ahead().is_some() && own.ahead().is_some());
        drop(nodes[0].take());
        // Handles outlive their node, and report that it has ended.
        let ended = LockError::Lost(Lost::Ended);
        assert_eq!((guard.wait_lost(PATIENCE), own.wait(PATIENCE).err()), (Some(Lost::Ended), Some(ended)));
        assert_eq!((own.try_guard().err(), own.ahead(), own.pending()), (Some(ended), None, None));
        assert_eq!((election.next(PATIENCE).err(), election.try_next().err()), (Some(ended), Some(ended)));
        assert_eq!((election.campaign().err(), leads(&election)), (Some(ended), false));
        election.resign();
        let token = granted(&mut waits).token();
        assert!(token > guard.token(), "{mutex:?}: {token:?} after {:?}", guard.token());
    }
}

#[test]
fn another_leads_when_the_leader_is_gone() {
    let world = World::new(3);
    let mut nodes = three(&world, MutexKind::Replicated);
    // The highest first: a lower candidate that is alone for a moment may win, and stays.
    let highest = campaign(node(&nodes, 2));
    until("the highest to lead", || leads(&highest));
    let mut elections = vec![campaign(node(&nodes, 0)), campaign(node(&nodes, 1)), highest];
    let mut watch = node(&nodes, 0).election("one").expect("any node may watch");
    let known = |state: ElectionState| state.leader.zip(state.token);
    let mut leader = None;
    until("all to know the leader", || {
        leader = known(watch.state());
        leader.is_some() && elections.iter().all(|election| known(election.state()) == leader)
    });
    // A node stands once.
    assert_eq!((watch.stand_by().err(), watch.campaign().err()), (Some(LockError::Stands), Some(LockError::Stands)));
    assert!(watch.try_next().expect("it goes on watching").is_some());
    let (first, token) = leader.expect("it was just seen");
    assert_eq!(elections.iter().filter(|election| leads(election)).count(), 1);
    let rank = first.index();
    assert!(leads(&elections[rank]) && rank > 0, "the highest leads");
    drop(nodes[rank].take());
    assert_eq!(elections[rank].try_next().err(), Some(Lost::Ended.into()));
    elections.remove(rank);
    until("the others to know another", || {
        leader = known(watch.state()).filter(|(leader, _)| *leader != first);
        leader.is_some() && elections.iter().all(|election| known(election.state()) == leader)
    });
    let (second, later) = leader.expect("it was just seen");
    assert!(later > token);
    // It resigns and remains as a watcher; another election of its node may stand now.
    let place = elections.iter().position(leads).expect("one leads");
    elections[place].resign();
    until("the last to lead", || leads(&elections[1 - place]));
    let mut again = node(&nodes, second.index()).election("one").expect("it is a name");
    again.stand_by().expect("no candidate is here");
    assert_eq!(elections[place].campaign().err(), Some(LockError::Stands));
    drop(again);
    elections[place].campaign().expect("no other stands here any more");
}

struct Session(BufReader<UnixStream>);

impl Session {
    fn open(node: &Node, request: &str) -> Self {
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
    let mut first = Session::open(node(&nodes, 0), r#"{"request":"lock","name":"one"}"#);
    let granted = first.until("lock", "granted");
    assert!(granted["token"]["epoch"].is_u64() && granted["token"]["number"].is_u64(), "{granted}");
    drop(held(node(&nodes, 1), "another")); // now it knows that the group has formed
    let mut tries = Session::open(node(&nodes, 1), r#"{"request":"lock","name":"one","try":true}"#);
    tries.until("lock", "busy");
    assert_eq!(tries.next(), Value::Null, "that was all");
    let mut timed = Session::open(node(&nodes, 1), r#"{"request":"lock","name":"one","timeout_ns":1000000}"#);
    timed.until("lock", "timed-out");
    let mut second = Session::open(node(&nodes, 1), r#"{"request":"lock","name":"one"}"#);
    assert!(second.until("lock", "waiting")["ahead"].is_u64());
    first.0.get_mut().write_all(b"{\"request\":\"sync\"}\n").expect("it is taken");
    assert!(first.next()["error"].as_str().is_some_and(|why| why.contains("close it")));
    drop(first);
    let next = second.until("lock", "granted");
    let token = |line: &Value| (line["token"]["epoch"].as_u64(), line["token"]["number"].as_u64());
    assert!(token(&next) > token(&granted), "{next} after {granted}");
    // A half-close counts as a close.
    second.0.get_mut().shutdown(std::net::Shutdown::Write).expect("it can be shut down");
    let mut third = Session::open(node(&nodes, 2), r#"{"request":"lock","name":"one"}"#);
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

#[test]
fn a_cancelled_wait_withdraws_its_request() {
    let world = World::new(1);
    let (node, ..) = start(&world.member(0));
    let held = node.lock("one", PATIENCE).expect("it is free");
    let mut waiting = node.request_lock("one").expect("a name");
    let mut election = node.election("two").expect("a name");
    std::thread::scope(|scope| {
        let waits: [Box<dyn FnOnce() -> bool + Send>; 4] = [
            Box::new(|| matches!(node.lock("one", Deadline::NEVER), Err(LockError::Cancelled))),
            Box::new(|| matches!(waiting.wait(Deadline::NEVER), Ok(None))),
            Box::new(|| held.wait_lost(Deadline::NEVER).is_none()),
            Box::new(|| {
                loop {
                    if election.next(Deadline::NEVER).expect("it runs").is_none() {
                        break true;
                    }
                }
            }),
        ];
        let threads: Vec<_> = waits.into_iter().map(|wait| scope.spawn(wait)).collect();
        node.canceller().cancel();
        assert!(threads.into_iter().all(|thread| thread.join().expect("no panic")));
    });
}

#[test]
fn issue_a_lock_before_the_node_was_joined_waited_for_ever() {
    let world = World::new(1);
    let node = Node::open(&world.member(0)).expect("it opens");
    for deadline in [Deadline::from(AT_ONCE), Deadline::NEVER] {
        let refused = node.lock("one", deadline).expect_err("no thread of the group runs");
        assert_eq!(refused, LockError::Refused(CoordinationRefusal::Outside));
    }
    node.join().expect("it joins");
    drop(node.lock("one", PATIENCE).expect("it is free"));
}
