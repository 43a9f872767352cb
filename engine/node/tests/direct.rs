//! Direct messages on real sockets: inline, threaded and client nodes; through loss; by source.

use crate::common::{PATIENCE, TOPIC, World, events, free_addresses, next_event, start, until};
use bourdon::error::RequestError;
use bourdon::id::Rank;
use bourdon::settings::{IdleStrategy, Role, Transport};
use bourdon::{Call, DirectMessage, InlineNode, Node, Refusal, To};

/// Members that have formed.
fn formed(world: &World) -> Vec<InlineNode> {
    let mut nodes: Vec<_> =
        (0..world.members).map(|rank| InlineNode::join(&world.member(rank)).expect("it joins")).collect();
    until("the group to form", || {
        poll_all(&mut nodes);
        nodes.iter().all(|node| node.is_formed())
    });
    nodes
}

fn poll_all(nodes: &mut [InlineNode]) {
    for node in nodes {
        node.poll(usize::MAX, |_| {}).expect("the port works");
    }
}

fn received(node: &mut InlineNode) -> Vec<DirectMessage> {
    std::iter::from_fn(|| node.poll_direct()).collect()
}

#[test]
fn members_observers_and_clients_reach_each_other() {
    reach_each_other(&World::new(2));
}

#[test]
fn members_observers_and_clients_reach_each_other_over_tcp() {
    reach_each_other(&World::new(2).over(Transport::Tcp, free_addresses(2, "127.0.0.1")));
}

fn reach_each_other(world: &World) {
    let mut nodes = formed(world);
    nodes.push(InlineNode::join(&world.observer()).expect("it joins"));
    let mut settings = world.member(0);
    settings.process.role = Role::Client;
    let client = Node::open(&settings).expect("it opens");
    client.join().expect("it begins");
    let mut all = |done: &mut dyn FnMut(&mut Vec<InlineNode>) -> bool| {
        until("a direct message", || {
            poll_all(&mut nodes);
            done(&mut nodes)
        });
    };
    all(&mut |nodes| nodes[2].is_formed());
    // The client asks the member, which answers to the address in the question.
    let mut asked = None;
    all(&mut |_| {
        let call = asked.get_or_insert_with(|| client.try_send(To::Rank(Rank(1)), b"question").expect("there is room"));
        match call.try_reply() {
            Some(Err(RequestError::Refused(Refusal::Unheard(_)))) => asked = None, // not yet
            Some(outcome) => return outcome.expect("it was taken").from() == Some(Rank(1)),
            None => {}
        }
        false
    });
    let mut question = None;
    all(&mut |nodes| {
        question = question.take().or(nodes[1].poll_direct());
        question.is_some()
    });
    let question = question.expect("it came");
    assert_eq!((question.from, question.broadcast, &question.payload[..]), (Rank::CLIENT, false, &b"question"[..]));
    let mut answer = None;
    all(&mut |nodes| {
        answer = nodes[1].try_send(To::Address(question.address), b"answer").ok();
        answer.is_some()
    });
    all(&mut |_| client.poll_direct().is_some_and(|message| message.payload == b"answer"));
    all(&mut |_| taken_by(&mut answer) == Some(Rank::CLIENT));
    // The observer asks any member: exactly one takes it.
    let mut job = None;
    all(&mut |nodes| {
        job = nodes[2].try_send(To::Nearest, b"job").ok();
        job.is_some()
    });
    let mut by = None;
    all(&mut |_| {
        by = taken_by(&mut job);
        by.is_some()
    });
    let mut taken = Vec::new();
    all(&mut |nodes| {
        (0..2).for_each(|rank| taken.extend(received(&mut nodes[rank]).into_iter().map(|_| Rank(rank as u16))));
        !taken.is_empty()
    });
    assert_eq!(taken, [by.expect("a member took it")]);
}

/// The process that has taken a message, once that is known.
fn taken_by(call: &mut Option<Call>) -> Option<Rank> {
    let outcome = call.as_mut().expect("it was sent").try_reply()?;
    let reply = outcome.expect("it was taken");
    assert!(reply.rtt_ns() > 0 && reply.attempts() > 0 && reply.payload().is_empty(), "{reply:?}");
    reply.from()
}

#[test]
fn a_broadcast_is_heard_once_by_all_others() {
    is_heard_by_all(&World::new(2));
}

#[test]
fn a_broadcast_goes_by_multicasts_side_of_auto_and_not_over_tcp() {
    is_heard_by_all(&World::new(2).over(Transport::Auto, free_addresses(2, "127.0.0.1")));
    let world = World::new(2).over(Transport::Tcp, free_addresses(2, "127.0.0.1"));
    let refused = formed(&world)[0].try_send(To::All, b"hello").expect_err("a mesh reaches the group only");
    assert_eq!(refused, Refusal::Unsupported { setting: "network.transport" });
}

fn is_heard_by_all(world: &World) {
    let mut nodes = formed(world);
    nodes.push(InlineNode::join(&world.observer()).expect("it joins"));
    until("a spectator", || {
        poll_all(&mut nodes);
        nodes[2].is_formed()
    });
    let mut call = nodes[0].try_send(To::All, b"to all on the network").expect("lo can");
    let reply = call.try_reply().expect("none is awaited").expect("it was sent");
    assert_eq!((reply.from(), call.try_reply()), (None, None), "no process acknowledges it");
    let mut heard = vec![0; 3];
    until("both to hear", || {
        for (node, heard) in nodes.iter_mut().zip(&mut heard) {
            node.poll(usize::MAX, |_| {}).expect("the port works");
            *heard += received(node).iter().filter(|message| message.broadcast && message.from == Rank(0)).count();
        }
        heard[1..] == [1, 1]
    });
    assert_eq!(heard, [0, 1, 1]);
    let too_long = vec![0; 1408];
    let refused = nodes[0].try_send(To::All, &too_long).expect_err("it fits no datagram");
    assert_eq!(refused, Refusal::TooLarge { limit_bytes: 1284 });
}

#[test]
fn threaded_nodes_through_loss_and_duplication() {
    for idle in [IdleStrategy::Park, IdleStrategy::Yield] {
        let world = World::new(2);
        let nodes: Vec<_> = (0..2)
            .map(|rank| {
                let mut settings = world.member(rank);
                settings.threads.idle = idle;
                (settings.faults.drop_percent, settings.faults.duplicate_percent) = (10.0, 10.0);
                start(&settings).0
            })
            .collect();
        let mut events = events(&nodes[0]);
        until("the group to form", || matches!(next_event(&mut events), Some(bourdon::Event::View { .. })));
        let (mut sent, mut calls, mut got) = (0u32, Vec::new(), Vec::new());
        until("all to be taken", || {
            // More than the protocol takes at once: the others wait for their turn.
            while sent < 100 {
                calls.push(nodes[0].try_send(To::Rank(Rank(1)), &sent.to_le_bytes()).expect("there is room"));
                sent += 1;
            }
            calls.retain_mut(|call| match call.try_reply() {
                None => true,
                Some(outcome) => outcome.expect("it was taken").from() != Some(Rank(1)),
            });
            while let Some(message) = nodes[1].poll_direct() {
                got.push(u32::from_le_bytes(message.payload.try_into().expect("as sent")));
            }
            calls.is_empty() && got.len() == 100
        });
        assert_eq!(got, (0..100).collect::<Vec<_>>(), "{idle:?}: each once, in order");
        let refused = nodes[0].send(To::Rank(Rank(9)), b"absent", PATIENCE).expect_err("there is no such member");
        assert_eq!(refused, RequestError::Refused(Refusal::Unreachable));
    }
}

#[test]
fn a_node_hears_the_sources_it_names_while_it_runs() {
    let mut world = World::new(1);
    world.address.set_ip(std::net::IpAddr::from([232, 76, world.address.port().to_be_bytes()[0], 9]));
    let source = std::net::IpAddr::from([127, 0, 0, 1]);
    let mut settings = world.member(0);
    let error = InlineNode::join(&settings).expect_err("no peer is named");
    assert!(error.to_string().contains("network.sources"), "{error}");
    settings.network.sources = vec![source];
    let mut member = InlineNode::join(&settings).expect("it joins");
    let mut observer = world.observer();
    observer.network.sources = vec![source];
    let mut observer = InlineNode::join(&observer).expect("it joins");
    let both = |member: &mut InlineNode, observer: &mut InlineNode, wanted: usize| {
        let mut heard = 0;
        until("the observer to hear", || {
            member.poll(usize::MAX, |_| {}).expect("the port works");
            observer
                .poll(usize::MAX, |delivery| heard += usize::from(delivery.message().is_some()))
                .expect("the port works");
            observer.is_formed() && heard == wanted
        });
    };
    both(&mut member, &mut observer, 0);
    observer.leave_source(source).expect("it was joined");
    member.try_publish(&TOPIC, b"unheard for now").expect("there is room");
    // By unicast, which no source filter affects: when this is here, the multicast before it would have been.
    let to = observer.local_address().into();
    let (mut sent, mut heard) = (false, 0);
    until("the unicast", || {
        member.poll(usize::MAX, |_| {}).expect("the port works");
        sent = sent || member.try_send(To::Address(to), b"last").is_ok();
        observer
            .poll(usize::MAX, |delivery| heard += usize::from(delivery.message().is_some()))
            .expect("the port works");
        observer.poll_direct().is_some()
    });
    assert_eq!(heard, 0, "the source was left");
    observer.join_source(source).expect("it can be joined again");
    both(&mut member, &mut observer, 1);
}
