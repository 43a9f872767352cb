//! Requests with replies on real sockets, between both faces: answered, late, declined, lost with their receiver, more
//! than a receiver takes, cancelled.

use crate::common::{PATIENCE, World, cell, events, next_event, until};
use bourdon::error::{DirectFailure, RequestError};
use bourdon::id::Rank;
use bourdon::{
    Call, Deadline, Delivery, Event, InlineNode, Node, Refusal, Reply, Request, Subscribe, Subscription, To,
};
use std::thread::JoinHandle;
use std::time::Duration;

type Outcome = Result<Reply, RequestError>;

fn inline(world: &World, rank: u16, subscribe: Subscribe) -> InlineNode {
    Node::builder().with(|settings| *settings = world.member(rank)).inline(subscribe).expect("it joins")
}

/// Two inline members that have formed, of which the second takes requests.
fn formed(world: &World) -> [InlineNode; 2] {
    let mut nodes = [inline(world, 0, Subscribe::all()), inline(world, 1, Subscribe::all().requests())];
    until("the group to form", || {
        for node in &mut nodes {
            node.poll(64, |_| {}).expect("the port works");
        }
        nodes.iter().all(|node| node.is_formed())
    });
    nodes
}

/// Polls both, answering each request by `answer`, until the call has its outcome.
fn outcome(nodes: &mut [InlineNode; 2], call: &mut Call, mut answer: impl FnMut(Request)) -> Outcome {
    let mut outcome = None;
    until("an outcome", || {
        for node in nodes.iter_mut() {
            let on_delivery = |delivery: Delivery<'_>| {
                if let Delivery::Request(request) = delivery {
                    answer(request);
                }
            };
            node.poll(64, on_delivery).expect("the port works");
        }
        outcome = call.try_reply();
        outcome.is_some()
    });
    assert_eq!(call.try_reply(), None, "it is handed out once");
    outcome.expect("it has come")
}

/// A threaded member, its subscription and its group's view.
fn start(world: &World, rank: u16) -> (Node, Subscription) {
    let node = Node::open(&world.member(rank)).expect("it opens");
    let subscription = node.subscribe(Subscribe::none().requests()).expect("there is room");
    node.join().expect("it joins");
    (node, subscription)
}

fn await_view(node: &Node) {
    let mut events = events(node);
    until("a view", || matches!(next_event(&mut events), Some(Event::View { .. })));
}

/// Two threaded members that have formed; the second one's subscription.
fn pair(world: &World) -> (Node, Node, Subscription) {
    let ((asks, _), (node, subscription)) = (start(world, 0), start(world, 1));
    await_view(&asks);
    (asks, node, subscription)
}

/// Takes requests on a thread of its own, until the node has ended.
fn serve(mut subscription: Subscription, answer: impl Fn(Request) + Send + 'static) -> JoinHandle<()> {
    std::thread::spawn(move || {
        while let Ok(Some(delivery)) = subscription.next(Deadline::NEVER) {
            if let Delivery::Request(request) = delivery {
                answer(request);
            }
        }
    })
}

fn next_request(subscription: &mut Subscription) -> Request {
    let mut next = None;
    until("a request", || {
        if let Some(Delivery::Request(request)) = subscription.try_next().expect("its node runs") {
            next = Some(request);
        }
        next.is_some()
    });
    next.expect("it has come")
}

fn echo(request: &Request) {
    request.reply(&[b"re ", request.payload()].concat()).expect("there is room");
}

#[test]
fn a_request_is_answered_between_inline_nodes() {
    let world = World::new(2);
    let mut nodes = formed(&world);
    let mut call = nodes[0].try_request(To::Nearest, b"es", PATIENCE).expect("1 was heard");
    let reply = outcome(&mut nodes, &mut call, |request| {
        assert_eq!((request.from(), request.payload()), (Rank(0), &b"es"[..]));
        let too_long = vec![0; 2_000];
        assert_eq!(request.reply(&too_long), Err(Refusal::TooLarge { limit_bytes: 1268 }));
        echo(&request);
        assert_eq!(request.reply(b"another"), Err(Refusal::Closed), "it was answered");
    });
    let reply = reply.expect("it was answered");
    assert_eq!((reply.payload(), reply.from()), (&b"re es"[..], Some(Rank(1))));
    assert_eq!(reply.address(), Some(nodes[1].local_address()));
    assert!(reply.rtt_ns() > 0 && reply.attempts() > 0);
}

#[test]
fn what_can_have_no_reply_is_refused_and_nothing_is_sent() {
    let world = World::new(2);
    let mut nodes = formed(&world);
    let mut refused = |to, payload: &[u8]| nodes[0].try_request(to, payload, PATIENCE).expect_err("it has no way");
    assert_eq!(refused(To::Rank(Rank(0)), b""), Refusal::Unreachable);
    assert_eq!(refused(To::All, b""), Refusal::Unreachable);
    assert_eq!(refused(To::Rank(Rank(9)), b""), Refusal::Unreachable);
    assert_eq!(refused(To::Among(&[Rank(9)]), b""), Refusal::NoReceiver);
    assert_eq!(refused(To::Nearest, &[0; 1_269]), Refusal::TooLarge { limit_bytes: 1_268 });
    let calls: Vec<_> = (0..32).map(|_| nodes[0].try_request(To::Nearest, b"", PATIENCE).expect("room")).collect();
    let refused = nodes[0].try_request(To::Nearest, b"", PATIENCE).expect_err("32 are under way");
    assert_eq!(refused, Refusal::TooMany { limit: 32 });
    drop(nodes);
    for mut call in calls {
        assert_eq!(call.try_reply(), Some(Err(RequestError::Unanswered { taken_by: None, why: None, attempts: 0 })));
    }
}

#[test]
fn a_request_that_is_dropped_or_not_wanted_is_declined_at_once() {
    let world = World::new(2);
    let mut nodes = formed(&world);
    let mut call = nodes[0].try_request(To::Rank(Rank(1)), b"es", Deadline::NEVER).expect("1 was heard");
    assert_eq!(outcome(&mut nodes, &mut call, drop), Err(RequestError::Declined { by: Rank(1) }));
    // An inline node that takes no requests.
    let mut call = nodes[1].try_request(To::Rank(Rank(0)), b"es", PATIENCE).expect("0 was heard");
    let declined = outcome(&mut nodes, &mut call, |_| unreachable!("it takes none"));
    assert_eq!(declined, Err(RequestError::Declined { by: Rank(0) }));
    // A node with threads, without a subscription that takes requests.
    let world = World::new(2);
    let (asks, (other, subscription)) = (start(&world, 0).0, start(&world, 1));
    drop(subscription);
    await_view(&asks);
    let declined = asks.request(To::Nearest, b"es", Deadline::NEVER);
    assert_eq!(declined, Err(RequestError::Declined { by: Rank(1) }));
    drop(other);
}

#[test]
fn a_late_reply_is_none_to_the_next_request() {
    let world = World::new(2);
    let mut nodes = formed(&world);
    let mut late = Vec::new();
    while late.is_empty() {
        let mut call = nodes[0].try_request(To::Nearest, b"first", Duration::from_millis(50)).expect("1 was heard");
        let failed = outcome(&mut nodes, &mut call, |request| late.push(request)).expect_err("none replied");
        assert!(matches!(failed, RequestError::Unanswered { .. }), "{failed:?}");
    }
    let mut call = nodes[0].try_request(To::Nearest, b"second", PATIENCE).expect("1 was heard");
    late.iter().for_each(echo);
    let reply = outcome(&mut nodes, &mut call, |request| echo(&request)).expect("it was answered");
    assert_eq!(reply.payload(), b"re second");
}

#[test]
fn threaded_nodes_ask_inline_nodes_and_inline_nodes_threaded_ones() {
    let world = World::new(2);
    let mut inline = inline(&world, 0, Subscribe::all().requests());
    let (threaded, subscription) = start(&world, 1);
    until("the group to form", || {
        inline.poll(64, |_| {}).expect("the port works");
        inline.is_formed()
    });
    let server = serve(subscription, |request| echo(&request));
    let mut call = inline.try_request(To::Nearest, b"up", PATIENCE).expect("1 was heard");
    let mut reply = None;
    until("the reply", || {
        inline.poll(64, |_| {}).expect("the port works");
        reply = call.try_reply();
        reply.is_some()
    });
    assert_eq!(reply.expect("it came").expect("an answer").payload(), b"re up");
    let asks = std::thread::spawn(move || {
        await_view(&threaded);
        let reply = threaded.request(To::Rank(Rank(0)), b"down", PATIENCE);
        let refused = threaded.request(To::Rank(Rank(1)), b"", PATIENCE);
        assert_eq!(refused, Err(RequestError::Refused(Refusal::Unreachable)));
        reply
    });
    while !asks.is_finished() {
        let answer = |delivery: Delivery<'_>| {
            if let Delivery::Request(request) = delivery {
                echo(&request);
            }
        };
        inline.poll(64, answer).expect("the port works");
        inline.wait(Duration::from_millis(1)).expect("the port works");
    }
    assert_eq!(asks.join().expect("no panic").expect("an answer").payload(), b"re down");
    server.join().expect("no panic");
}

#[test]
fn two_threads_of_a_node_and_one_of_another_have_their_own_replies() {
    let world = World::new(3);
    let (asks, third) = (start(&world, 0).0, start(&world, 2).0);
    let (node, subscription) = start(&world, 1);
    [&asks, &third].into_iter().for_each(await_view);
    let server = serve(subscription, |request| echo(&request));
    std::thread::scope(|scope| {
        for (name, node) in [("a", &asks), ("b", &asks), ("c", &third)] {
            scope.spawn(move || {
                for number in 0..200 {
                    let text = format!("{name}{number}");
                    let reply = node.request(To::Rank(Rank(1)), text.as_bytes(), PATIENCE).expect("an answer");
                    assert_eq!(reply.payload(), format!("re {text}").as_bytes());
                }
            });
        }
    });
    drop(node);
    server.join().expect("no panic");
}

#[test]
fn a_request_whose_receiver_dies_ends_with_its_view() {
    let world = World::new(3);
    let (asks, third) = (start(&world, 0).0, start(&world, 2).0);
    let (node, mut subscription) = start(&world, 1);
    await_view(&asks);
    std::thread::scope(|scope| {
        let asked = scope.spawn(|| asks.request(To::Rank(Rank(1)), b"es", Deadline::NEVER));
        let request = next_request(&mut subscription);
        std::mem::forget(request); // it must not decline
        drop(node);
        let failed = asked.join().expect("no panic").expect_err("none can reply");
        let RequestError::Unanswered { taken_by, why, .. } = failed else { panic!("{failed:?}") };
        assert_eq!((taken_by, why), (Some(Rank(1)), Some(DirectFailure::Gone)));
    });
    drop(third);
}

#[test]
fn requests_that_are_not_fetched_are_refused_once_the_queue_is_full_and_taken_later() {
    let world = World::new(2);
    let (asks, node, mut subscription) = pair(&world);
    let mut waiting: Vec<Call> = Vec::new();
    until("a refusal", || {
        waiting.retain_mut(|call| call.try_reply().is_none());
        if waiting.len() < 32 {
            waiting.push(asks.try_request(To::Nearest, b"es", Duration::from_millis(100)).expect("there is room"));
        }
        cell(&world, &node, "direct_refused") > 0
    });
    let mut count = 0;
    let last = std::thread::scope(|scope| {
        let last = scope.spawn(|| asks.request(To::Nearest, b"last", PATIENCE));
        until("the last request", || {
            let request = next_request(&mut subscription);
            let is_last = request.payload() == b"last";
            if is_last {
                echo(&request);
            }
            count += 1;
            is_last
        });
        last.join().expect("no panic")
    });
    assert_eq!(last.expect("an answer").payload(), b"re last");
    assert!(count > 64 + 256, "{count}: a ring and the protocol's queue were full");
}

/// Waits in a request until the receiver has it.
fn asked(asks: &Node, subscription: &mut Subscription, act: impl FnOnce(Request)) -> Outcome {
    std::thread::scope(|scope| {
        let asked = scope.spawn(|| asks.request(To::Nearest, b"es", Deadline::NEVER));
        act(next_request(subscription));
        asked.join().expect("no panic")
    })
}

#[test]
fn a_wait_for_a_reply_is_cancelled_and_so_is_every_later_one() {
    let world = World::new(2);
    let (asks, _node, mut subscription) = pair(&world);
    let canceller = asks.canceller();
    let mut kept = None;
    let cancelled = asked(&asks, &mut subscription, |request| {
        kept = Some(request);
        canceller.cancel();
    });
    assert!(matches!(cancelled, Err(RequestError::Unanswered { .. })), "{cancelled:?}");
    let again = asks.request(To::Nearest, b"es", Deadline::NEVER);
    assert!(matches!(again, Err(RequestError::Unanswered { .. })), "{again:?}");
    drop(kept);
    // A call that does not wait works as before.
    let mut call = asks.try_request(To::Nearest, b"mine", Deadline::NEVER).expect("there is room");
    until("the request", || {
        let request = next_request(&mut subscription);
        echo(&request);
        request.payload() == b"mine"
    });
    until("the reply", || call.try_reply().is_some_and(|outcome| outcome.is_ok()));
}

#[test]
fn a_reply_that_was_accepted_is_sent_before_its_node_ends() {
    let world = World::new(2);
    let (asks, node, mut subscription) = pair(&world);
    let reply = asked(&asks, &mut subscription, |request| {
        echo(&request);
        node.close(PATIENCE).expect("it ran");
    });
    assert_eq!(reply.expect("it was sent").payload(), b"re es");
}

#[test]
fn a_call_is_over_with_its_node_and_an_answer_may_outlive_its_own() {
    let world = World::new(2);
    let (asks, node, mut subscription) = pair(&world);
    let mut call = asks.try_request(To::Nearest, b"es", Deadline::NEVER).expect("there is room");
    let request = next_request(&mut subscription);
    drop(asks);
    let failed = call.try_reply().expect("its node has ended").expect_err("there is no reply");
    // Its node may have ended before it knew which process has it.
    assert!(matches!(failed, RequestError::Unanswered { taken_by: Some(Rank(1)) | None, .. }), "{failed:?}");
    drop(node);
    assert_eq!(request.reply(b"too late"), Err(Refusal::Closed));
}

#[test]
fn a_request_waits_until_its_receiver_is_heard() {
    let world = World::new(2);
    let (asks, _own) = start(&world, 0);
    let late = asks.request(To::Rank(Rank(1)), b"es", Duration::from_millis(10));
    assert_eq!(late, Err(RequestError::Refused(Refusal::Unheard(Rank(1)))), "nothing was sent");
    std::thread::scope(|scope| {
        let asked = scope.spawn(|| asks.request(To::Rank(Rank(1)), b"es", PATIENCE));
        let (_node, mut subscription) = start(&world, 1);
        echo(&next_request(&mut subscription));
        assert_eq!(asked.join().expect("it ends").expect("it was answered").payload(), b"re es");
    });
}

#[test]
fn a_request_that_is_late_reports_the_process_that_has_taken_it() {
    let world = World::new(2);
    let (asks, _node, mut subscription) = pair(&world);
    let mut kept = None;
    let late = std::thread::scope(|scope| {
        let asked = scope.spawn(|| asks.request(To::Nearest, b"es", Duration::from_millis(200)));
        kept = Some(next_request(&mut subscription));
        asked.join().expect("it ends")
    });
    let taken = matches!(late, Err(RequestError::Unanswered { taken_by: Some(Rank(1)), .. }));
    assert!(taken, "{late:?}");
    drop(kept);
}

#[test]
fn a_node_ends_though_a_request_waits_for_a_receiver() {
    let world = World::new(2);
    let (asks, _own) = start(&world, 0);
    std::thread::scope(|scope| {
        let asked = scope.spawn(|| asks.request(To::Nearest, b"es", Deadline::NEVER));
        asks.canceller().cancel();
        assert!(asked.join().expect("it ends").is_err());
    });
    asks.close(PATIENCE).expect("it ran");
}
