//! Snapshots of an application's state, from an inline node and through a subscription's ring: a joiner goes on exactly
//! where the state was taken, however late the application gives it.

use crate::common::{TOPIC, World, until};
use bourdon::settings::{Order, Reliability};
use bourdon::{
    Delivery, Event, InlineNode, Node, Publication, Refusal, Settings, SnapshotRequest, Subscribe, Subscription,
};
use std::collections::BTreeMap;

/// A node of either kind.
enum Face {
    Inline(Box<InlineNode>),
    Threads(Box<(Node, Publication, Subscription)>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Inline,
    Threads,
}

impl Face {
    fn start(kind: Kind, settings: &Settings) -> Self {
        match kind {
            Kind::Inline => Self::Inline(Box::new(InlineNode::join(settings).expect("it starts"))),
            Kind::Threads => {
                let node = Node::open(settings).expect("it opens");
                let publication = node.publication().expect("there is memory");
                let subscription = node.subscribe(Subscribe::all().events().snapshots()).expect("there is memory");
                node.join().expect("it starts");
                Self::Threads(Box::new((node, publication, subscription)))
            }
        }
    }

    fn poll(&mut self, limit: usize, on_delivery: impl FnMut(Delivery<'_>)) {
        match self {
            Self::Inline(node) => _ = node.poll(limit, on_delivery).expect("the port works"),
            Self::Threads(threads) => _ = threads.2.poll(limit, on_delivery).expect("it runs"),
        }
    }

    fn publishes(&mut self, payload: &[u8]) -> bool {
        let result = match self {
            Self::Inline(node) => node.try_publish(&TOPIC, payload).map(|_| ()),
            Self::Threads(threads) => threads.1.try_publish(&TOPIC, payload).map(|_| ()),
        };
        result.map_or_else(|refusal| if refusal.is_transient() { false } else { panic!("{refusal}") }, |()| true)
    }
}

/// The next value of a key depends on all values before it: a command that is missing or comes twice shows for good.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Map(BTreeMap<u64, (u64, u64)>);

impl Map {
    fn apply(&mut self, command: &[u8]) {
        let number = u64::from_le_bytes(command.try_into().expect("a number"));
        let (count, value) = self.0.entry(number % 7).or_default();
        (*count, *value) = (*count + 1, value.wrapping_mul(31).wrapping_add(number));
    }

    fn count(&self) -> u64 {
        self.0.values().map(|(count, _)| count).sum()
    }

    fn to_bytes(&self) -> Vec<u8> {
        self.0.iter().flat_map(|(key, (count, value))| [*key, *count, *value]).flat_map(u64::to_le_bytes).collect()
    }

    fn from_bytes(bytes: &[u8]) -> Self {
        let words: Vec<u64> =
            bytes.chunks(8).map(|word| u64::from_le_bytes(word.try_into().expect("a whole word"))).collect();
        Self(words.chunks(3).map(|entry| (entry[0], (entry[1], entry[2]))).collect())
    }
}

/// What a member's application does when it is asked for its state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answers {
    /// It gives it at once.
    AtOnce,
    /// It gives it once it has applied so many more commands.
    After(u64),
    /// It drops the request.
    Never,
}

/// A member with a replicated map.
struct Member {
    face: Face,
    map: Map,
    answers: Answers,
    asked: u64,
    /// How many commands were applied when it gives this.
    late: Vec<(u64, SnapshotRequest, Vec<u8>)>,
    /// What its application was given, in order: views and snapshots, and how many commands were in the map then.
    items: Vec<(&'static str, u64)>,
    too_large: u64,
}

impl Member {
    /// How many commands were in the state that it began with.
    fn begun_at(&self) -> Option<u64> {
        self.items.iter().find(|(what, _)| *what == "snapshot").map(|(_, count)| *count)
    }

    fn start(kind: Kind, settings: &Settings, answers: Answers) -> Self {
        let mut settings = settings.clone();
        settings.process.snapshots = kind == Kind::Inline; // with threads it follows from the subscription
        let (map, late, items) = (Map::default(), Vec::new(), Vec::new());
        Self { face: Face::start(kind, &settings), map, answers, asked: 0, late, items, too_large: 0 }
    }

    /// Reads a few items: the application is behind its node.
    fn poll(&mut self) {
        let Self { face, map, answers, asked, late, items, too_large } = self;
        face.poll(8, |delivery| match delivery {
            Delivery::Message(message) => map.apply(message.payload),
            Delivery::Event(Event::View { .. }) => items.push(("view", map.count())),
            Delivery::Event(Event::SnapshotTooLarge { .. }) => *too_large += 1,
            Delivery::Event(_) => {}
            Delivery::Snapshot(snapshot) => {
                *map = Map::from_bytes(snapshot.bytes());
                items.push(("snapshot", map.count()));
            }
            Delivery::SnapshotRequest(request) => {
                *asked += 1;
                match *answers {
                    Answers::AtOnce => request.give(&map.to_bytes()).expect("it is short"),
                    Answers::After(count) => late.push((map.count() + count, request, map.to_bytes())),
                    Answers::Never => {}
                }
            }
            other => panic!("the test does not know {other:?}"),
        });
        for (_, request, state) in late.extract_if(.., |(due, ..)| *due <= map.count()) {
            request.give(&state).expect("it is short");
        }
    }
}

/// Commands that are published once the joiner has begun.
const BEHIND: u64 = 500;

/// Three members, of which the last ends and comes back while the others publish. Returns them once all have applied
/// all commands.
fn rejoin(kinds: [Kind; 3], answers: [Answers; 2]) -> Vec<Member> {
    let world = World::new(3);
    let answers = [answers[0], answers[1], Answers::AtOnce];
    let start = |rank: usize| Member::start(kinds[rank], &world.member(rank as u16), answers[rank]);
    let mut members: Vec<Member> = (0..3).map(start).collect();
    until("the first view", || {
        members.iter_mut().for_each(Member::poll);
        members.iter().all(|member| !member.items.is_empty())
    });
    drop(members.pop()); // it ends without a word
    until("the second view", || {
        members.iter_mut().for_each(Member::poll);
        members.iter().all(|member| member.items.len() == 2)
    });
    members.push(start(2));
    let (mut published, mut all) = (0u64, None);
    until("all to have applied all commands", || {
        if all.is_none() && members[2].begun_at().is_some() {
            all = Some(published + BEHIND);
        }
        for publisher in &mut members[..2] {
            if all.is_none_or(|all| published < all) {
                published += u64::from(publisher.face.publishes(&published.to_le_bytes()));
            }
        }
        members.iter_mut().for_each(Member::poll);
        let is_member = members[2].items.iter().skip_while(|(what, _)| *what != "snapshot").count() > 1;
        all == Some(published) && is_member && members.iter().all(|member| member.map.count() >= published)
    });
    let maps: Vec<_> = members.iter().map(|member| &member.map).collect();
    assert!(maps.iter().all(|map| *map == maps[0]), "{maps:?}");
    assert_eq!(maps[0].count(), published);
    members
}

/// What every joiner's application is given.
fn check_items(items: &[(&str, u64)]) {
    let place = items.iter().position(|(what, _)| *what == "snapshot").expect("it has begun with a state");
    assert!(items[place].1 > 0, "there were commands before: {items:?}");
    assert!(items[..place].iter().all(|item| *item == ("view", 0)), "nothing comes before the state: {items:?}");
    assert_eq!(items.iter().filter(|(what, _)| *what == "snapshot").count(), 1, "{items:?}");
    assert!(items[place + 1].0 == "view" && items[place + 1].1 >= items[place].1, "{items:?}");
}

#[test]
fn a_state_that_is_given_late_is_the_one_at_the_place_of_the_request() {
    for kinds in [[Kind::Inline; 3], [Kind::Threads; 3], [Kind::Inline, Kind::Threads, Kind::Inline]] {
        let members = rejoin(kinds, [Answers::After(100); 2]);
        check_items(&members[2].items);
        assert!(members[0].asked + members[1].asked > 0);
    }
}

#[test]
fn a_request_that_is_dropped_declines() {
    for kind in [Kind::Inline, Kind::Threads] {
        let members = rejoin([kind; 3], [Answers::AtOnce, Answers::Never]);
        check_items(&members[2].items);
        assert!(members[0].asked > 0);
    }
}

/// A member and one that comes later, both of one kind; the first has the given state.
fn pair(kind: Kind, change: impl Fn(&mut Settings)) -> (World, Face, Settings) {
    let world = World::new(2);
    let settings = |rank| {
        let mut settings = world.member(rank);
        settings.process.snapshots = kind == Kind::Inline;
        change(&mut settings);
        settings
    };
    let (mut first, mut second) = (Face::start(kind, &settings(0)), Face::start(kind, &settings(1)));
    let mut views = [0; 2];
    until("the first view", || {
        for (face, views) in [&mut first, &mut second].into_iter().zip(&mut views) {
            face.poll(8, |delivery| *views += u64::from(matches!(delivery.event(), Some(Event::View { .. }))));
        }
        views == [1, 1]
    });
    drop(second);
    let joiner = settings(1);
    (world, first, joiner)
}

#[test]
fn a_state_that_is_too_long_is_refused_and_the_joiner_reports_it() {
    for kind in [Kind::Inline, Kind::Threads] {
        let (_world, mut first, joiner) = pair(kind, |settings| settings.limits.max_snapshot_bytes = 1000);
        let mut second = Face::start(kind, &joiner);
        let (mut given, mut reported) = (None, None);
        until("the report", || {
            first.poll(8, |delivery| {
                if let Delivery::SnapshotRequest(request) = delivery {
                    given = Some(request.give(&[7; 1001]));
                }
            });
            second.poll(8, |delivery| {
                if let Some(Event::SnapshotTooLarge { limit_bytes, .. }) = delivery.event() {
                    reported = Some(limit_bytes);
                }
            });
            reported.is_some()
        });
        assert_eq!((given, reported), (Some(Err(Refusal::TooLarge { limit_bytes: 1000 })), Some(1000)), "{kind:?}");
    }
}

#[test]
fn a_request_may_outlive_its_node() {
    for kind in [Kind::Inline, Kind::Threads] {
        let (_world, mut first, joiner) = pair(kind, |_| {});
        let mut second = Face::start(kind, &joiner);
        let mut request = None;
        until("the request", || {
            second.poll(8, |_| {});
            first.poll(8, |delivery| {
                if let Delivery::SnapshotRequest(asked) = delivery {
                    request = Some(asked);
                }
            });
            request.is_some()
        });
        drop(first);
        assert_eq!(request.map(|request| request.give(b"state")), Some(Err(Refusal::Closed)), "{kind:?}");
    }
}

#[test]
fn the_second_subscription_is_asked_once_the_first_is_gone() {
    let world = World::new(2);
    let node = Node::open(&world.member(0)).expect("it opens");
    let subscribe = || node.subscribe(Subscribe::all().snapshots()).expect("there is memory");
    let _without = node.subscribe(Subscribe::all()).expect("there is memory");
    let mut subscriptions = vec![subscribe(), subscribe()];
    node.join().expect("it starts");
    let join = || {
        let mut settings = world.member(1);
        settings.process.snapshots = true;
        InlineNode::join(&settings).expect("it starts")
    };
    let mut other = join();
    until("the first view", || {
        other.poll(usize::MAX, |_| {}).expect("the port works");
        other.is_formed()
    });
    drop((subscriptions.remove(0), other));
    let (mut joiner, mut state) = (join(), None);
    until("the state", || {
        subscriptions[0]
            .poll(8, |delivery| {
                if let Delivery::SnapshotRequest(request) = delivery {
                    request.give(b"state").expect("it is short");
                }
            })
            .expect("it runs");
        let on_delivery = |delivery: Delivery<'_>| {
            if let Delivery::Snapshot(snapshot) = delivery {
                state = Some(snapshot);
            }
        };
        joiner.poll(usize::MAX, on_delivery).expect("the port works");
        state.is_some()
    });
    assert_eq!(state.expect("it has come").bytes(), b"state");
}

#[test]
fn a_snapshot_waits_for_a_subscription_that_takes_it() {
    let (_world, mut first, mut joiner) = pair(Kind::Inline, |_| {});
    joiner.process.snapshots = true;
    let node = Node::open(&joiner).expect("it opens");
    let _without = node.subscribe(Subscribe::all()).expect("there is memory");
    node.join().expect("it starts");
    let answer = |delivery: Delivery<'_>| {
        if let Delivery::SnapshotRequest(request) = delivery {
            request.give(b"state").expect("it is short");
        }
    };
    let mut is_given = false;
    until("the request", || {
        first.poll(8, |delivery| {
            is_given |= matches!(delivery, Delivery::SnapshotRequest(_));
            answer(delivery);
        });
        is_given
    });
    let mut published = 0;
    until("messages behind it", || {
        first.poll(8, answer);
        published += u64::from(first.publishes(b"behind"));
        published == 2_000
    });
    let mut subscription = node.subscribe(Subscribe::all().snapshots()).expect("there is memory");
    let mut items = Vec::new();
    until("the message", || {
        first.poll(8, answer);
        let note = |delivery: Delivery<'_>| match delivery {
            Delivery::Message(message) => items.push(message.payload.to_vec()),
            Delivery::Snapshot(snapshot) => items.push(snapshot.bytes().to_vec()),
            _ => {}
        };
        subscription.poll(8, note).expect("it runs");
        items.iter().any(|item| item == b"behind")
    });
    assert_eq!(items[0], b"state", "nothing comes before it");
    assert_eq!(items.iter().filter(|item| *item == b"state").count(), 1);
}

/// Members at `durable`, each with a directory of its own.
fn durable(world: &World, rank: u16, directory: &std::path::Path) -> Settings {
    let mut settings = world.member(rank);
    settings.group.order = Order::Total;
    settings.group.reliability = Reliability::Durable;
    settings.storage.directory = Some(directory.to_owned());
    settings.process.snapshots = true;
    settings.network.links = false; // the others are not to hear that a process has ended
    settings
}

#[test]
fn an_application_of_a_durable_member_goes_on_from_the_state_that_was_stored() {
    for kind in [Kind::Inline, Kind::Threads] {
        let world = World::new(3);
        let mut directories: Vec<_> = (0..3).map(|rank| world.path().join(format!("disk-{rank}"))).collect();
        let mut published = 0_u64;
        for round in 0..2 {
            let start = |(rank, directory): (u16, &std::path::PathBuf)| {
                let settings = durable(&world, rank, directory);
                let (map, late, items) = (Map::default(), Vec::new(), Vec::new());
                let face = Face::start(kind, &settings);
                Member { face, map, answers: Answers::AtOnce, asked: 0, late, items, too_large: 0 }
            };
            let mut members: Vec<Member> = (0..).zip(&directories).map(start).collect();
            let until_count = 200 * (round + 1);
            until("all to have applied all commands", || {
                if published < until_count {
                    published += u64::from(members[0].face.publishes(&published.to_le_bytes()));
                }
                members.iter_mut().for_each(Member::poll);
                members.iter().all(|member| member.map.count() == until_count && member.asked > 0)
            });
            let maps: Vec<_> = members.iter().map(|member| &member.map).collect();
            assert!(maps.iter().all(|map| *map == maps[0]), "{kind:?}, round {round}: {maps:?}");
            let begun: Vec<_> = members.iter().map(|member| member.begun_at().is_some()).collect();
            assert_eq!(begun, [round > 0; 3], "{kind:?}, round {round}: with a state of its own");
            // What a crash would leave: none takes part in what follows.
            for directory in &mut directories {
                let next = directory.with_extension(format!("{round}"));
                crate::durable::copy(directory, &next);
                *directory = next;
            }
        }
    }
}

#[test]
fn a_subscription_of_a_durable_member_is_refused_snapshots_that_its_storage_does_not_know_of() {
    let world = World::new(1);
    let mut settings = durable(&world, 0, &world.path().join("disk"));
    settings.process.snapshots = false;
    let node = Node::open(&settings).expect("it opens");
    let refusal = node.subscribe(Subscribe::all().snapshots()).err().map(|error| error.to_string());
    assert!(refusal.as_ref().is_some_and(|why| why.contains("process.snapshots")), "{refusal:?}");
}
