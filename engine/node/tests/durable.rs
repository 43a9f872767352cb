//! Members that store what they report, on real disks: they are stopped between any two steps, and start again.

use crate::common::{TOPIC, World, until};
use bourdon::settings::{Order, Reliability};
use bourdon::{InlineNode, Settings};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

const MEMBERS: u16 = 3;

/// What one application has, over all restarts: by its place in the order, each message's sender and bytes.
type Given = BTreeMap<u64, (u16, Vec<u8>)>;

fn settings(world: &World, rank: u16, directory: PathBuf) -> Settings {
    let mut settings = world.member(rank);
    (settings.group.order, settings.group.reliability) = (Order::Total, Reliability::Durable);
    settings.storage.directory = Some(directory);
    settings.network.links = false; // the others are not to hear that a process has ended
    settings
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a directory can be made");
    for entry in std::fs::read_dir(from).expect("it is there") {
        let entry = entry.expect("it can be read");
        std::fs::copy(entry.path(), to.join(entry.file_name())).expect("it can be copied");
    }
}

fn poll(nodes: &mut [InlineNode], given: &mut [Given]) {
    for (node, given) in nodes.iter_mut().zip(given) {
        let take = |delivery: bourdon::Delivery<'_>| {
            if let Some(message) = delivery.message() {
                let order = message.order.expect("it is in total order").0;
                let message = (message.sender.0, message.payload.to_vec());
                let known = given.entry(order).or_insert_with(|| message.clone());
                assert_eq!(*known, message, "what is delivered again has the place that it had");
            }
        };
        node.poll(usize::MAX, take).expect("port and disk work");
    }
}

/// Publishes so many messages at each, and polls until all are acknowledged and delivered at all.
fn publish(nodes: &mut [InlineNode], given: &mut [Given], count: usize, total: usize) {
    let mut left = vec![count; nodes.len()];
    until("all is delivered", || {
        for (node, left) in nodes.iter_mut().zip(&mut left).filter(|(_, left)| **left > 0) {
            *left -= usize::from(node.try_publish(&TOPIC, format!("message {left}").as_bytes()).is_ok());
        }
        poll(nodes, given);
        left.iter().all(|left| *left == 0) && given.iter().all(|given| given.len() >= total)
    });
}

#[test]
fn all_members_stop_at_once_and_nothing_that_was_delivered_is_lost() {
    let world = World::new(MEMBERS);
    let mut directories: Vec<PathBuf> = (0..MEMBERS).map(|rank| world.path().join(format!("disk-{rank}-0"))).collect();
    let mut given: Vec<Given> = vec![Given::new(); MEMBERS.into()];
    let mut views = Vec::new();
    for round in 1..4 {
        let start = |(rank, directory): (u16, &PathBuf)| {
            InlineNode::join(&settings(&world, rank, directory.clone())).expect("it starts")
        };
        let mut nodes: Vec<InlineNode> = (0..MEMBERS).zip(&directories).map(start).collect();
        until("the view", || {
            poll(&mut nodes, &mut given);
            nodes.iter().all(InlineNode::is_formed)
        });
        publish(&mut nodes, &mut given, 20, round * 20 * usize::from(MEMBERS));
        assert!(given.iter().all(|other| *other == given[0]), "one order in round {round}");
        let places = given[0].keys().copied();
        assert!(places.eq(0..given[0].len() as u64), "nothing is missing after round {round}");
        views.push((nodes[0].view().instance, nodes[0].view().epoch));
        // None takes another step; what was not synced may be in the files all the same.
        for (rank, directory) in directories.iter_mut().enumerate() {
            let next = world.path().join(format!("disk-{rank}-{round}"));
            copy(directory, &next);
            *directory = next;
        }
        nodes.into_iter().for_each(std::mem::forget);
    }
    assert!(views.windows(2).all(|views| views[0].0 == views[1].0), "one instance: {views:?}");
    assert!(views.windows(2).all(|views| views[0].1 < views[1].1), "its views go on: {views:?}");
}

#[test]
fn a_directory_that_a_member_can_not_store_in_is_refused() {
    let world = World::new(MEMBERS);
    let directory = world.path().join("disk");
    drop(InlineNode::join(&settings(&world, 0, directory.clone())).expect("it is its own"));
    let refusal = |rank: u16, directory: PathBuf| {
        InlineNode::join(&settings(&world, rank, directory)).expect_err("it is not").to_string()
    };
    let none = Path::new("/proc/none").to_path_buf();
    assert!(refusal(0, none).contains("/proc/none"), "it is named");
    let holder = InlineNode::join(&settings(&world, 0, directory.clone())).expect("it is its own");
    let why = refusal(0, directory.clone());
    assert!(why.contains("another process"), "{why}");
    drop(holder);
    std::fs::write(directory.join("00000000000000ff.segment"), "garbage").expect("it can be written");
    let why = refusal(0, directory);
    assert!(why.contains("00000000000000ff.segment"), "{why}");
}
