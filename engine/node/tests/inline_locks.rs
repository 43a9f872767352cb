//! Locks and leaders of inline nodes: the verbs of threaded nodes, carried out by the thread that polls.

use crate::common::{PATIENCE, World, until};
use bourdon::error::{CoordinationRefusal, LockError, Lost};
use bourdon::settings::MutexKind;
use bourdon::{Election, Guard, InlineNode, LockRequest};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

struct Nodes(Vec<Option<InlineNode>>);

impl Nodes {
    fn join(world: &World, mutex: MutexKind) -> Self {
        let join = |rank| {
            let mut settings = world.member(rank);
            settings.group.mutex = Some(mutex);
            Some(InlineNode::join(&settings).expect("it joins"))
        };
        Self((0..world.members).map(join).collect())
    }

    fn node(&mut self, rank: usize) -> &mut InlineNode {
        self.0[rank].as_mut().expect("it runs")
    }

    fn poll_until(&mut self, what: &str, mut done: impl FnMut() -> bool) {
        until(what, || {
            self.0.iter_mut().flatten().for_each(|node| _ = node.poll(usize::MAX, |_| {}).expect("the port works"));
            done()
        });
    }

    fn request(&mut self, rank: usize) -> LockRequest {
        self.node(rank).request_lock("one").expect("it is a name")
    }

    fn granted(&mut self, request: &mut LockRequest) -> Guard {
        let mut guard = None;
        self.poll_until("it to be granted", || {
            guard = request.try_guard().expect("it is not lost");
            guard.is_some()
        });
        guard.expect("it was just granted")
    }

    fn campaign(&mut self, rank: usize) -> Election {
        let mut election = self.node(rank).election("one").expect("it is a name");
        election.campaign().expect("it may");
        election
    }
}

#[test]
fn one_polled_node_holds_at_a_time_and_tokens_grow() {
    for mutex in [MutexKind::Replicated, MutexKind::Central, MutexKind::Lamport, MutexKind::TokenRing] {
        let world = World::new(3);
        let mut nodes = Nodes::join(&world, mutex);
        // They wait for the group to form as well; one node asks twice.
        let mut requests: Vec<_> = [0, 1, 2, 0].map(|rank| nodes.request(rank)).into();
        assert_eq!(requests[0].pending(), Some(CoordinationRefusal::Forming), "known at once, without a poll");
        let mut last = None;
        while !requests.is_empty() {
            let mut guards = Vec::new();
            nodes.poll_until("one to be granted", || {
                requests.retain_mut(|request| {
                    guards.extend(request.try_guard().expect("it is not lost"));
                    !matches!(request.try_guard(), Err(LockError::Granted))
                });
                !guards.is_empty()
            });
            assert_eq!(guards.len(), 1, "{mutex:?}");
            let guard = guards.pop().expect("it was just counted");
            assert!(last < Some(guard.token()) && guard.lost().is_none(), "{mutex:?}");
            last = Some(guard.token());
            // Any thread may give it back.
            std::thread::spawn(move || drop(guard)).join().expect("no panic");
        }
    }
}

#[test]
fn polled_nodes_elect_a_leader_and_one_candidacy_of_a_node_stands() {
    let world = World::new(3);
    let mut nodes = Nodes::join(&world, MutexKind::Replicated);
    let mut elections: Vec<_> = (0..3).map(|rank| nodes.campaign(rank)).collect();
    let mut watch = nodes.node(0).election("one").expect("it is a name");
    assert_eq!(watch.campaign().err(), Some(LockError::Stands));
    nodes.poll_until("all to know a leader", || {
        let leader = watch.state().leader;
        leader.is_some() && elections.iter().all(|election| election.state().leader == leader)
    });
    let first = watch.try_next().expect("it goes on").expect("it is new");
    let leads = |election: &Election| election.state().own;
    let place = elections.iter().position(leads).expect("one leads");
    assert_eq!(first.leader.map(|rank| rank.index()), Some(place));
    assert_eq!(watch.try_next(), Ok(None), "nothing has changed since");
    drop(elections.remove(place));
    nodes.poll_until("another to lead", || elections.iter().any(leads));
    nodes.poll_until("the watcher to know", || watch.state().leader.is_some_and(|leader| Some(leader) != first.leader));
    assert!(watch.state().token > first.token);
}

#[test]
fn handles_of_a_polled_node_outlive_it() {
    let world = World::new(1);
    let mut nodes = Nodes::join(&world, MutexKind::Replicated);
    let mut request = nodes.request(0);
    let guard = nodes.granted(&mut request);
    let (mut waits, mut election) = (nodes.request(0), nodes.campaign(0));
    nodes.poll_until("it to lead and to wait", || election.state().own && waits.ahead().is_some());
    drop(nodes);
    let ended = LockError::Lost(Lost::Ended);
    assert_eq!((guard.lost(), waits.try_guard().err()), (Some(Lost::Ended), Some(ended)));
    assert_eq!((election.try_next().err(), election.campaign().err()), (Some(ended), Some(ended)));
    drop((guard, waits, election));
}

#[test]
fn a_wait_of_the_thread_that_polls_panics() {
    let world = World::new(1);
    let mut nodes = Nodes::join(&world, MutexKind::Replicated);
    let mut request = nodes.request(0);
    let guard = nodes.granted(&mut request);
    let (mut waits, mut election) = (nodes.request(0), nodes.campaign(0));
    let text = |wait: &mut dyn FnMut()| {
        let panic = catch_unwind(AssertUnwindSafe(wait)).expect_err("it would wait for itself");
        *panic.downcast::<&str>().expect("it has a text")
    };
    assert!(text(&mut || _ = waits.wait(PATIENCE)).contains("this thread polls the node"));
    assert!(text(&mut || _ = election.next(Duration::ZERO)).contains("try_next"));
    assert!(text(&mut || _ = guard.wait_lost(PATIENCE)).contains("poll the node"));
    // Another thread may wait, while this one polls.
    let waiter = std::thread::spawn(move || waits.wait(PATIENCE).expect("it is not lost").is_some());
    drop(guard);
    nodes.poll_until("the waiter to have it", || waiter.is_finished());
    assert!(waiter.join().expect("no panic"), "it was granted");
}
