//! Groups over `auto`: processes of one host share memory, and go on over the network where that ends.

use crate::common::{TOPIC, World, free_addresses, until};
use bourdon::event::Reach;
use bourdon::settings::{IdleStrategy, Reliability, Start, Transport};
use bourdon::{Delivery, Event, InlineNode, Settings};

const EACH: u64 = 3_000;
/// How many messages a process has delivered when it breaks its sharing with another one.
const BREAKS: [usize; 3] = [500, 1_500, 2_500];
/// The member that dies, once it and the observer have delivered so many: an observer that begins in a later view has
/// no messages of members that are in an earlier one only.
const DIES: (usize, usize) = (2, 2_000);

/// A process, and what it has reported.
struct Running {
    node: InlineNode,
    published: u64,
    broken: usize,
}

/// What a process has delivered (order, sender, sequence), the views that it was in, and how it reached others.
#[derive(Default)]
struct Got {
    delivered: Vec<(Option<u64>, u16, u64)>,
    views: Vec<u32>,
    reaches: Vec<Reach>,
}

fn settings(world: &World, idle: IdleStrategy) -> Vec<Settings> {
    let adjust = |mut settings: Settings| {
        settings.group.reliability = Reliability::Uniform;
        settings.threads.idle = idle;
        settings.process.start = Start::Oldest;
        settings
    };
    (0..3).map(|rank| world.member(rank)).chain([world.observer()]).map(adjust).collect()
}

fn poll(node: &mut InlineNode, got: &mut Got) {
    let polled = node.poll(usize::MAX, |delivery| match delivery {
        Delivery::Message(message) => {
            assert_eq!(message.payload, message.sequence.0.to_le_bytes());
            got.delivered.push((message.order.map(|order| order.0), message.sender.0, message.sequence.0));
        }
        Delivery::Event(Event::View { members, .. }) => got.views.push(members.len()),
        Delivery::Event(Event::Reached(reach)) => got.reaches.push(reach),
        other => assert!(!matches!(other, Delivery::Event(Event::Gap { .. })), "{other:?}"),
    });
    polled.expect("the port works");
}

/// Publishes from all members, and lets each do `meanwhile`, until so many survive, the survivors' messages are
/// everywhere, and each has reported how many share memory with it.
fn run(
    world: &World,
    idle: IdleStrategy,
    (survive, share): (usize, u16),
    mut meanwhile: impl FnMut(usize, &mut Option<Running>, &[Got]),
) -> Vec<Got> {
    let start = |settings: Settings| {
        let node = InlineNode::join(&settings).expect("it starts");
        assert!(node.io().ends_with("+shm"), "{}", node.io());
        Some(Running { node, published: 0, broken: 0 })
    };
    let mut running: Vec<_> = settings(world, idle).into_iter().map(start).collect();
    let mut got: Vec<Got> = running.iter().map(|_| Got::default()).collect();
    until("the survivors' messages everywhere", || {
        for (place, process) in running.iter_mut().enumerate() {
            let Some(Running { node, published, .. }) = process else { continue };
            poll(node, &mut got[place]);
            while place < 3 && *published < EACH {
                match node.try_publish(&TOPIC, &published.to_le_bytes()) {
                    Ok(_) => *published += 1,
                    Err(refusal) if refusal.is_transient() => break,
                    Err(refusal) => panic!("it fits, and comes from a member: {refusal}"),
                }
            }
            meanwhile(place, process, &got);
        }
        let survivors: Vec<usize> = (0..4).filter(|place| running[*place].is_some()).collect();
        let has_all = |place: usize, sender: usize| {
            let from = got[place].delivered.iter().filter(|(_, from, _)| usize::from(*from) == sender);
            from.count() as u64 == EACH
        };
        // What a dead member published last may be delivered last.
        let is_complete = |place: &usize| {
            got[*place].delivered.len() == got[0].delivered.len()
                && survivors.iter().filter(|it| **it < 3).all(|sender| has_all(*place, *sender))
        };
        survivors.len() == survive && survivors.iter().all(is_complete)
    });
    for (place, Got { delivered, .. }) in got.iter().enumerate() {
        assert!(got[0].delivered.starts_with(delivered), "one order at {place}");
    }
    until("a report everywhere of how many share memory", || {
        running.iter_mut().zip(&mut got).for_each(|(it, got)| it.iter_mut().for_each(|it| poll(&mut it.node, got)));
        let is_reported = |got: &Got| got.reaches.last().map_or(0, |reach| reach.by_shm) == share;
        running.iter().zip(&got).all(|(running, got)| running.is_none() || is_reported(got))
    });
    got
}

#[test]
fn a_group_outlives_its_shared_memory_without_another_view() {
    for (idle, peers) in [(IdleStrategy::Park, 0), (IdleStrategy::Spin, 0), (IdleStrategy::Park, 3)] {
        let world = World::new(3).over(Transport::Auto, free_addresses(peers, "127.0.0.1"));
        let mut broken = 0;
        let got = run(&world, idle, (4, 0), |place, process, got| {
            let Some(Running { node, broken: own, .. }) = process else { return };
            if BREAKS.get(*own).is_some_and(|at| got[place].delivered.len() >= *at) && node.break_one_link() {
                (*own, broken) = (*own + 1, broken + 1);
            }
        });
        assert!(broken >= 6, "each pair of processes was parted: {broken}");
        assert!(got[..3].iter().all(|got| got.views == [3]), "no view changes for it");
    }
}

#[test]
fn members_that_share_memory_deliver_in_one_order_though_a_member_dies() {
    let world = World::new(3).over(Transport::Auto, Vec::new());
    run(&world, IdleStrategy::Park, (3, 2), |place, process, got| {
        if place == DIES.0 && got[place].delivered.len().min(got[3].delivered.len()) >= DIES.1 {
            *process = None;
        }
    });
}
