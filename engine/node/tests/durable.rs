//! Members that store what they report, on real disks: they are stopped between any two steps, and start again.

use crate::common::{TOPIC, World, until};
use bourdon::settings::{Order, Reliability};
use bourdon::{Delivery, Event, InlineNode, Settings};
use std::collections::BTreeMap;
use std::os::unix::fs::FileExt;
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

pub(crate) fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a directory can be made");
    for entry in std::fs::read_dir(from).expect("it is there") {
        let entry = entry.expect("it can be read");
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            continue; // an earlier log that was set aside
        }
        // Without the zeros that a segment is filled with, which take seconds on a busy disk.
        let mut bytes = std::fs::read(entry.path()).expect("it can be read");
        let length = bytes.len() as u64;
        bytes.truncate(bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1));
        let path = to.join(entry.file_name());
        std::fs::write(&path, bytes).expect("it can be copied");
        let file = std::fs::File::options().write(true).open(path).expect("it is there");
        file.set_len(length).expect("it can be as long");
    }
}

/// Flips a bit of a record that was synced: of the first in a log.
fn flip_a_bit(directory: &Path) {
    let mut segments: Vec<_> = std::fs::read_dir(directory).expect("it is there").flatten().collect();
    segments.retain(|entry| entry.file_name().to_string_lossy().ends_with(".segment"));
    segments.sort_by_key(std::fs::DirEntry::file_name);
    let file = std::fs::File::options().read(true).write(true).open(segments[0].path()).expect("it is there");
    let mut byte = [0];
    file.read_exact_at(&mut byte, 4096 + 60).expect("it can be read");
    file.write_all_at(&[byte[0] ^ 1], 4096 + 60).expect("it can be written");
}

fn start(world: &World, directories: &[PathBuf]) -> Vec<InlineNode> {
    let start = |(rank, directory): (u16, &PathBuf)| {
        InlineNode::join(&settings(world, rank, directory.clone())).expect("it starts")
    };
    (0..).zip(directories).map(start).collect()
}

fn form(nodes: &mut [InlineNode], given: &mut [Given]) {
    until("the view of all", || {
        poll(nodes, given);
        nodes.iter().all(|node| node.is_formed() && node.view().members.len() == usize::from(MEMBERS))
    });
}

/// A group whose members have stored 20 messages of each and stopped between two steps: the view that they were in, and
/// copies of their directories.
fn stopped(world: &World, given: &mut [Given]) -> (bourdon::View, Vec<PathBuf>) {
    let directories: Vec<PathBuf> = (0..MEMBERS).map(|rank| world.path().join(format!("disk-{rank}"))).collect();
    let mut nodes = start(world, &directories);
    form(&mut nodes, given);
    publish(&mut nodes, given, 20, 20 * usize::from(MEMBERS));
    let copies = directories.iter().map(|directory| {
        let next = directory.with_extension("copy");
        copy(directory, &next);
        next
    });
    let copies = copies.collect();
    let view = nodes[0].view().clone();
    nodes.into_iter().for_each(std::mem::forget);
    (view, copies)
}

fn counter(world: &World, label: &str) -> u64 {
    let directory = bourdon::counters::Directory::open(Some(world.path())).expect("it is there");
    let found = bourdon::counters::list(&directory).expect("it can be read");
    found.iter().flat_map(|node| node.values()).find(|(name, _)| *name == label).map_or(0, |(_, value)| value)
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
        let mut nodes = start(&world, &directories);
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
    let node = InlineNode::join(&settings(&world, 0, directory.clone())).expect("it starts without it");
    let why = node.fallback().expect("it reports it");
    assert!(why.contains("00000000000000ff.segment") && why.contains("disk/damaged-1"), "{why}");
    assert!(directory.join("damaged-1/00000000000000ff.segment").exists(), "it is kept");
}

#[test]
fn a_member_with_a_flipped_bit_comes_back_as_a_new_process_and_nothing_is_lost() {
    let world = World::new(MEMBERS);
    let mut given: Vec<Given> = vec![Given::new(); MEMBERS.into()];
    let (view, directories) = stopped(&world, &mut given);
    flip_a_bit(&directories[1]);
    let mut nodes = start(&world, &directories);
    let why = nodes[1].fallback().expect("it reports the damage").to_owned();
    assert!(why.contains("damaged-1") && why.contains("position"), "{why}");
    nodes[1].share_counters(&settings(&world, 1, directories[1].clone())).expect("it has counters");
    form(&mut nodes, &mut given);
    assert_eq!(nodes[0].view().instance, view.instance, "the group goes on");
    assert!(view.incarnation(bourdon::id::Rank(1)) != nodes[0].view().incarnation(bourdon::id::Rank(1)));
    publish(&mut nodes, &mut given, 10, 30 * usize::from(MEMBERS));
    assert!(given[0].keys().copied().eq(0..30 * u64::from(MEMBERS)), "nothing is lost");
    assert_eq!((counter(&world, "storage_damaged"), counter(&world, "storage_repaired")), (1, 1));
    assert!(directories[1].join("damaged-1").is_dir(), "it is kept");
    // Its new storage brings it back like every member's.
    let next = directories[1].with_extension("again");
    copy(&directories[1], &next);
    std::mem::forget(nodes.remove(1));
    nodes.insert(1, InlineNode::join(&settings(&world, 1, next)).expect("it starts"));
    form(&mut nodes, &mut given);
    // If its start took so long that the others removed it, it lacks what they delivered meanwhile.
    given[1] = given[0].clone();
    publish(&mut nodes, &mut given, 10, 40 * usize::from(MEMBERS));
    assert!(nodes[1].fallback().is_none() && nodes[0].view().instance == view.instance, "as after any crash");
}

#[test]
fn a_group_of_which_a_majority_is_damaged_waits_and_each_member_names_the_reason() {
    let world = World::new(MEMBERS);
    let mut given: Vec<Given> = vec![Given::new(); MEMBERS.into()];
    let (view, directories) = stopped(&world, &mut given);
    let other = InlineNode::join(&settings(&world, 1, directories[0].clone())).err().map(|error| error.to_string());
    assert!(other.is_some_and(|why| why.contains("is of instance")), "another member's directory is refused");
    directories[1..].iter().for_each(|directory| flip_a_bit(directory));
    // The second start finds empty storage, and what was set aside.
    for round in 0..2 {
        let mut nodes = start(&world, &directories);
        assert_eq!(nodes[1].fallback().is_some_and(|why| why.contains("damaged-1")), round == 0);
        let mut reasons = vec![String::new(); MEMBERS.into()];
        until("each member names the reason", || {
            for (node, reason) in nodes.iter_mut().zip(&mut reasons) {
                let take = |delivery: Delivery<'_>| match delivery {
                    Delivery::Event(event @ (Event::NoMajority | Event::Waiting(_))) => *reason = event.to_string(),
                    Delivery::Message(message) => assert!(given[0].contains_key(&message.order.expect("total").0)),
                    _ => {}
                };
                node.poll(usize::MAX, take).expect("port and disk work");
                assert!(node.view().epoch <= view.epoch, "no view follows");
            }
            reasons.iter().all(|reason| !reason.is_empty())
        });
        assert!(reasons[0].contains("majority"), "{}", reasons[0]);
        for reason in &reasons[1..] {
            assert!(reason.contains("damaged-1 of storage.directory"), "{reason}");
        }
    }
    // What was damaged is there, whole but for the bit; with it mended the group goes on.
    for directory in &directories[1..] {
        let mended = directory.with_extension("mended");
        copy(&directory.join("damaged-1"), &mended);
        flip_a_bit(&mended);
    }
    let mended = directories[1..].iter().map(|directory| directory.with_extension("mended"));
    let mended: Vec<_> = [directories[0].clone()].into_iter().chain(mended).collect();
    let mut nodes = start(&world, &mended);
    form(&mut nodes, &mut given);
    publish(&mut nodes, &mut given, 10, 30 * usize::from(MEMBERS));
    assert_eq!(nodes[0].view().instance, view.instance, "the group goes on");
}
