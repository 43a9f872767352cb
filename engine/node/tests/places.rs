//! Events come at their place among the messages, from an inline node and through a subscription's ring.

use crate::common::{TOPIC, World, cell, start, until};
use bourdon::settings::{Order, Reliability, Role, Start};
use bourdon::{Delivery, Event, InlineNode, Subscription};

/// What an application can write down of an item.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Item {
    Message { epoch: u64, sender: u16, sequence: u64 },
    Event(Event),
    Skipped(u64),
}

impl Item {
    /// None for an event that reports how things stand.
    fn of(delivery: &Delivery<'_>) -> Option<Self> {
        match delivery {
            Delivery::Message(message) => {
                Some(Self::Message { epoch: message.epoch.0, sender: message.sender.0, sequence: message.sequence.0 })
            }
            Delivery::Event(event) => event.is_ordered().then_some(Self::Event(*event)),
            Delivery::Skipped(count) => Some(Self::Skipped(*count)),
            other => panic!("the test does not know {other:?}"),
        }
    }
}

fn views(items: &[Item]) -> impl Iterator<Item = u64> {
    items.iter().filter_map(|item| match item {
        Item::Event(Event::View { epoch, .. }) => Some(epoch.0),
        _ => None,
    })
}

/// Requires that each message is of the view that the application was last given.
fn check_views(items: &[Item]) {
    let mut entered = None;
    for item in items {
        match item {
            Item::Event(Event::View { epoch, .. }) => entered = Some(epoch.0),
            Item::Message { epoch, .. } => assert_eq!(Some(*epoch), entered, "{items:?}"),
            _ => {}
        }
    }
}

fn read(subscription: &mut Subscription, items: &mut Vec<Item>) {
    subscription.poll(256, |delivery| items.extend(Item::of(&delivery))).expect("it runs");
}

/// An inline member, a threaded one with two subscriptions, and one that is removed while messages are under way.
#[test]
fn a_view_stands_between_the_same_two_messages_everywhere() {
    let world = World::new(3);
    let mut inline = InlineNode::join(&world.member(0)).expect("it starts");
    let (node, mut publication, mut everything) = start(&world.member(1));
    let mut no_topic = node.subscribe("no.such.topic").expect("it is open");
    let mut leaver = InlineNode::join(&world.member(2)).expect("it starts");
    let (mut shown, mut all, mut filtered) = (Vec::new(), Vec::new(), Vec::new());
    let mut published = 0;
    until("the view of two, and messages behind it", || {
        inline.poll(usize::MAX, |delivery| shown.extend(Item::of(&delivery))).expect("the port works");
        leaver.poll(usize::MAX, |_| {}).expect("the port works");
        if inline.try_publish(&TOPIC, b"x").is_ok() {
            published += 1;
        }
        let _ = publication.try_publish(&TOPIC, b"y");
        if published == 100 {
            leaver.leave();
        }
        read(&mut everything, &mut all);
        read(&mut no_topic, &mut filtered);
        let behind = |items: &[Item]| items.iter().any(|item| matches!(item, Item::Message { epoch: 2, .. }));
        behind(&shown) && behind(&all) && views(&filtered).count() == 2
    });
    assert!(views(&shown).eq([1, 2]) && views(&all).eq([1, 2]) && views(&filtered).eq([1, 2]));
    assert_eq!(filtered.len(), 2, "a subscription to another topic gets the events: {filtered:?}");
    let count = shown.len().min(all.len());
    assert_eq!(shown[..count], all[..count]);
    assert!(count > 10);
    check_views(&shown[..count]);
    drop(node);
}

/// Where messages may be lost, each loss is an item: the numbers of a sender go on without a hole.
#[test]
fn a_gap_stands_between_the_two_messages_around_it() {
    let world = World::new(1);
    let lossy = |role, drop_percent| {
        let mut settings = world.member(0);
        settings.group.order = Order::Fifo;
        settings.group.reliability = Reliability::Unreliable;
        settings.process.role = role;
        if role == Role::Observer {
            settings.process.start = Start::Oldest;
        }
        (settings.faults.drop_percent, settings.faults.seed) = (drop_percent, 7);
        settings
    };
    let mut member = InlineNode::join(&lossy(Role::Member, 0.0)).expect("it starts");
    let mut inline = InlineNode::join(&lossy(Role::Observer, 20.0)).expect("it starts");
    let (node, _publication, mut subscription) = start(&lossy(Role::Observer, 20.0));
    let (mut shown, mut all, mut published) = (Vec::new(), Vec::new(), 0);
    let gaps = |items: &[Item]| items.iter().filter(|item| matches!(item, Item::Event(Event::Gap { .. }))).count();
    until("some gaps at both", || {
        member.poll(usize::MAX, |_| {}).expect("the port works");
        let is_heard = inline.is_formed() && cell(&world, &node, "views") > 0;
        if is_heard && member.try_publish(&TOPIC, &[7; 1200]).is_ok() {
            published += 1;
        }
        inline.poll(usize::MAX, |delivery| shown.extend(Item::of(&delivery))).expect("the port works");
        read(&mut subscription, &mut all);
        gaps(&shown) > 20 && gaps(&all) > 20
    });
    for items in [&shown, &all] {
        let mut next = None;
        for item in items {
            match item {
                Item::Message { sequence, .. } => {
                    assert!(next.is_none_or(|next| next == *sequence), "{next:?}, then {item:?}");
                    next = Some(sequence + 1);
                }
                Item::Event(Event::Gap { from, to, .. }) => {
                    assert!(next.is_none_or(|next| next == from.0), "{next:?}, then {item:?}");
                    next = Some(to.0);
                }
                _ => {}
            }
        }
    }
}

/// The ring of an observer that does not read is full: messages are skipped, and their number stands at their place; no
/// view is lost, although it comes while there is no room.
#[test]
fn a_full_ring_loses_no_view() {
    let world = World::new(2);
    let mut members = [0, 1].map(|rank| InlineNode::join(&world.member(rank)).expect("it starts"));
    let mut settings = world.observer();
    settings.threads.subscription_ring_bytes = 1 << 18;
    let (node, _publication, mut subscription) = start(&settings);
    let poll = |members: &mut [InlineNode]| {
        members.iter_mut().for_each(|node| _ = node.poll(usize::MAX, |_| {}).expect("it works"))
    };
    until("the first view", || {
        poll(&mut members);
        members.iter().all(|node| node.is_formed()) && cell(&world, &node, "views") > 0
    });
    let fill = |members: &mut [InlineNode], what, is_full: &dyn Fn() -> bool| {
        until(what, || {
            let _ = members[0].try_publish(&TOPIC, &[7; 500]);
            poll(members);
            is_full()
        });
    };
    fill(&mut members, "the ring to be full", &|| cell(&world, &node, "overruns") > 10);
    members[1].leave();
    fill(&mut members, "the second view", &|| cell(&world, &node, "views") == 2);
    let skipped = cell(&world, &node, "overruns");
    fill(&mut members, "messages behind it", &|| cell(&world, &node, "overruns") > skipped + 10);
    let mut items = Vec::new();
    until("all to be read", || {
        poll(&mut members);
        read(&mut subscription, &mut items);
        items.iter().filter(|item| matches!(item, Item::Skipped(_))).count() >= 2
    });
    assert!(views(&items).eq([1, 2]));
    check_views(&items);
    let mut next = 0;
    for item in &items {
        match item {
            Item::Message { sequence, .. } => {
                assert_eq!(*sequence, next);
                next += 1;
            }
            Item::Skipped(count) => next += count,
            _ => {}
        }
    }
}

/// It was in no view, so no step of a view hands its reports over: the event waited for that for ever.
#[test]
fn issue_a_process_that_leaves_while_it_forms_never_reported_it() {
    let world = World::new(2);
    let mut node = InlineNode::join(&world.member(0)).expect("it starts");
    node.poll(usize::MAX, |_| {}).expect("the port works");
    node.leave();
    let mut has_left = false;
    until("the report", || {
        node.poll(usize::MAX, |delivery| has_left |= matches!(delivery.event(), Some(Event::Left(_))))
            .expect("the port works");
        has_left
    });
    until("rest", || node.poll(usize::MAX, |_| {}).expect("the port works") == 0);
}
