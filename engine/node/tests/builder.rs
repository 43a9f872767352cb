//! Nodes made by setters, and what an inline node hands out of the topics.

use crate::common::{World, until};
use bourdon::settings::{IdleStrategy, Order, Reliability};
use bourdon::{Delivery, Error, Node, NodeBuilder, Subscribe, Topic};

fn builder(world: &World) -> NodeBuilder {
    let group = Node::builder().group("test").address(world.address).members(2).idle(IdleStrategy::Park);
    group.order(Order::Total).reliability(Reliability::Uniform).with(|settings| {
        settings.network.receive_buffer_bytes = 1 << 20;
        (settings.limits.log_bytes, settings.limits.receive_log_bytes) = (4 << 20, 2 << 20);
        settings.threads.directory = Some(world.path().to_owned());
    })
}

#[test]
fn one_builder_makes_both_kinds_of_node() {
    let world = World::new(2);
    let group = builder(&world);
    let node = group.clone().rank(0).join().expect("it joins");
    let mut inline = group.rank(1).inline(Subscribe::to("md.*.trades").and("news")).expect("it joins");
    let mut publication = node.publication().expect("it is open");
    let topics = ["md.es.trades", "md.es.quotes", "news", "md.nq.trades"].map(|name| Topic::new(name).expect("a name"));
    let mut published = 0;
    let mut got = Vec::new();
    until("three of four topics", || {
        if let Some(topic) = topics.get(published) {
            published += usize::from(publication.try_publish(topic, b"x").is_ok());
        }
        let polled = inline.poll(64, |delivery| {
            if let Delivery::Message(message) = delivery {
                got.push(message.name.expect("it was published by name").to_owned());
            }
        });
        polled.expect("the port works");
        got.len() == 3
    });
    assert_eq!(got, ["md.es.trades", "news", "md.nq.trades"]);
}

#[test]
fn what_a_builder_has_wrong_is_named_once_it_opens() {
    let world = World::new(2);
    let refused = builder(&world).members(65).open().expect_err("64 is the most").to_string();
    assert!(refused.contains("65"), "{refused}");
    let refused = builder(&world).rank(7).open().expect_err("there is no such rank").to_string();
    assert!(refused.contains('7'), "{refused}");
    let refused = builder(&world).inline("md.>").expect_err("it is no pattern");
    assert!(matches!(refused, Error::Pattern(_)) && refused.to_string().contains("`**`"), "{refused}");
}

#[test]
fn a_node_shows_its_view_and_takes_a_barriers_payload() {
    let world = World::new(1);
    let node = builder(&world).members(1).open().expect("it opens");
    assert_eq!(node.sync(None), Ok(()), "it is kept for the group");
    let mut subscription = node.subscribe(Subscribe::all()).expect("it is open");
    node.join().expect("it joins");
    let (mut texts, mut has_asked) = (Vec::new(), false);
    until("the barrier's own message", || {
        let view = node.view();
        if view.epoch.0 > 0 && !std::mem::replace(&mut has_asked, true) {
            node.sync(Some(b"here")).expect("there is room");
        }
        let polled = subscription.poll(64, |delivery| {
            let is_it = delivery.message().is_some_and(|message| message.payload == b"here");
            texts.push((delivery.to_string(), is_it));
        });
        polled.expect("it runs");
        texts.iter().any(|(_, is_it)| *is_it)
    });
    assert!(texts[0].0.starts_with("view 1"), "{texts:?}");
    assert!(texts.iter().any(|(text, is_it)| *is_it && text.contains(": 4 bytes")), "{texts:?}");
    assert_eq!(node.view().members.len(), 1);
}
