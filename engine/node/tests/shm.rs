//! Groups over shared memory: one order at all processes, through the death of one.

use crate::common::{PATIENCE, TOPIC, World, events, next_event, read, start, until};
use bourdon::settings::{IdleStrategy, Reliability, Start, Transport};
use bourdon::{Delivery, Error, Event, InlineNode, Settings};

const EACH: u64 = 3_000;
/// The member that dies, once it and the observer have delivered so many: an observer that begins in a later view has
/// no messages of members that are in an earlier one only.
const DIES: (usize, usize) = (2, 2_000);

fn uniform(mut settings: Settings, idle: IdleStrategy) -> Settings {
    settings.group.reliability = Reliability::Uniform;
    settings.threads.idle = idle;
    settings.process.start = Start::Oldest;
    settings
}

/// What a process delivers: order, sender, sequence.
type Delivered = Vec<(Option<u64>, u16, u64)>;

fn poll(node: &mut InlineNode, got: &mut Delivered) {
    let polled = node.poll(usize::MAX, |delivery| match delivery {
        Delivery::Message(message) => {
            assert_eq!(message.payload, message.sequence.0.to_le_bytes());
            got.push((message.order.map(|order| order.0), message.sender.0, message.sequence.0));
        }
        other => assert!(!matches!(other, Delivery::Event(Event::Gap { .. })), "{other:?}"),
    });
    polled.expect("the port works");
}

#[test]
fn members_and_an_observer_deliver_in_one_order_though_a_member_dies() {
    for idle in [IdleStrategy::Spin, IdleStrategy::Park] {
        let world = World::new(3).over(Transport::Shm, Vec::new());
        let settings = (0..3).map(|rank| world.member(rank)).chain([world.observer()]);
        let mut nodes: Vec<Option<InlineNode>> =
            settings.map(|it| Some(InlineNode::join(&uniform(it, idle)).expect("it starts"))).collect();
        assert!(nodes.iter().flatten().all(|node| node.io() == "shm"));
        let (mut got, mut published) = (vec![Delivered::new(); 4], [0; 4]);
        until("the survivors' messages everywhere", || {
            for (place, node) in nodes.iter_mut().enumerate() {
                let Some(running) = node else { continue };
                poll(running, &mut got[place]);
                while place < 3 && published[place] < EACH {
                    match running.try_publish(&TOPIC, &published[place].to_le_bytes()) {
                        Ok(_) => published[place] += 1,
                        Err(refusal) if refusal.is_transient() => break,
                        Err(refusal) => panic!("it fits, and comes from a member: {refusal}"),
                    }
                }
                if place == DIES.0 && got[place].len().min(got[3].len()) >= DIES.1 {
                    *node = None;
                }
            }
            let from = |got: &Delivered, sender| got.iter().filter(|(_, from, _)| *from == sender).count() as u64;
            let is_complete = |got: &Delivered| from(got, 0) == EACH && from(got, 1) == EACH;
            // What the dead member published last may be delivered last.
            let are_complete =
                [0, 1, 3].iter().all(|place| is_complete(&got[*place]) && got[*place].len() == got[0].len());
            are_complete && nodes[DIES.0].is_none()
        });
        assert!(got[0] == got[1] && got[0] == got[3], "one order");
        assert!(got[0].starts_with(&got[DIES.0]), "what the dead member delivered, all deliver");
    }
}

#[test]
fn threaded_members_deliver_in_one_order_though_a_member_dies() {
    let world = World::new(3).over(Transport::Shm, Vec::new());
    let mut nodes: Vec<_> = (0..3).map(|rank| start(&uniform(world.member(rank), IdleStrategy::Park))).collect();
    let mut watched = events(&nodes[0].0);
    let mut view = |count: u32| {
        let is_it = |event: &Event| matches!(event, Event::View { members, .. } if members.len() == count);
        until("a view", || next_event(&mut watched).as_ref().is_some_and(is_it));
    };
    view(3);
    let publish = |(_, publication, _): &mut crate::common::Started| {
        until("room", || publication.try_publish(&TOPIC, &0u64.to_le_bytes()).is_ok());
    };
    for _ in 0..500 {
        nodes.iter_mut().for_each(publish);
    }
    let first: Vec<_> = nodes.iter_mut().map(|(_, _, subscription)| read(subscription, 1_500)).collect();
    assert!(first[0] == first[1] && first[0] == first[2], "one order");
    drop(nodes.pop());
    view(2);
    for _ in 0..500 {
        nodes.iter_mut().for_each(publish);
    }
    let second: Vec<_> = nodes.iter_mut().map(|(_, _, subscription)| read(subscription, 1_000)).collect();
    assert_eq!(second[0], second[1]);
    drop(nodes.pop());
    let last = nodes.pop().expect("one is left");
    drop(last.0.close(PATIENCE));
}

#[test]
fn an_interface_that_shared_memory_does_not_use_is_refused() {
    let mut settings = World::new(1).over(Transport::Shm, Vec::new()).member(0);
    settings.network.interface = "eth0".to_owned();
    let error: Error = InlineNode::join(&settings).expect_err("refused");
    assert!(error.to_string().contains("network.interface"), "{error}");
}
