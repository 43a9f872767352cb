//! Channels on real sockets: a process gets exactly the channels it joins, in their order, whatever the others do.

use crate::common::{self, World, free_addresses, fresh_address, until};
use bourdon::counters::Counter;
use bourdon::event::Why;
use bourdon::settings::{ChannelDetector, ChannelSettings, Order, Reliability, Role, Transport};
use bourdon::{Channels, Event, InlineNode, Settings, Standing, Topic};
use bourdon_wire::Rank;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

/// Sender, sequence, order, payload.
type Got = (u16, u64, Option<u64>, String);

/// One process: its channels, and what it delivered of each.
struct Party {
    channels: Channels,
    /// By channel.
    got: HashMap<String, Vec<Got>>,
    events: Vec<(String, Event)>,
}

impl Party {
    fn new(settings: &Settings, join: &[&str]) -> Self {
        let channels = Channels::new(settings).expect("the settings are good");
        let mut party = Self { channels, got: HashMap::new(), events: Vec::new() };
        join.iter().for_each(|name| party.channels.join(name).expect("it opens"));
        party
    }

    fn poll(&mut self) {
        let (got, events) = (&mut self.got, &mut self.events);
        let polled = self.channels.poll(|channel, delivery| {
            events.extend(delivery.event().map(|event| (channel.to_owned(), event)));
            let Some(message) = delivery.message() else { return };
            let payload = String::from_utf8(message.payload.to_vec()).expect("text");
            assert!(payload.starts_with(&format!("{channel}:")), "{payload} came on {channel}");
            assert_eq!(message.name, Some("md.es"));
            let order = message.order.map(|order| order.0);
            got.entry(channel.to_owned()).or_default().push((message.sender.0, message.sequence.0, order, payload));
        });
        if polled.expect("the ports work") == 0 {
            self.channels.wait(Duration::from_millis(1)).expect("the ports work");
        }
    }

    fn is_formed(&self) -> bool {
        self.channels.names().all(|name| self.channels.get(name).expect("joined").is_formed())
    }

    /// How many messages of a publisher it has from a channel.
    fn count(&self, channel: &str, of: &str) -> usize {
        let all = self.got.get(channel).map_or(&[][..], |all| all);
        all.iter().filter(|(.., payload)| payload.starts_with(&format!("{channel}:{of}:"))).count()
    }

    fn payloads(&self, channel: &str) -> Vec<&str> {
        self.got[channel].iter().map(|(.., payload)| payload.as_str()).collect()
    }
}

fn poll_all(parties: &mut [Party]) {
    parties.iter_mut().for_each(Party::poll);
}

/// Publishes the message of this number of a party on a channel, polling every party until it is taken.
fn publish(parties: &mut [Party], of: usize, channel: &str, number: usize) {
    let payload = format!("{channel}:{of}:{number}");
    let topic = Topic::new("md.es").expect("it is one");
    until("room", || {
        let node = parties[of].channels.get_mut(channel).expect("joined");
        let refused = match node.try_publish(&topic, payload.as_bytes()) {
            Ok(_) => return true,
            Err(refusal) => refusal,
        };
        assert!(refused.is_transient(), "{channel} {of}: {refused}");
        poll_all(parties);
        false
    });
}

fn channel(name: &str, port: u16, order: Order, reliability: Reliability, members: Option<&[u16]>) -> ChannelSettings {
    let mut address = fresh_address();
    address.set_port(port);
    let mut channel = ChannelSettings::new(name, address);
    (channel.order, channel.reliability) = (Some(order), Some(reliability));
    channel.members = members.map(<[u16]>::to_vec);
    channel
}

/// Addresses of one port: [`fresh_address`] differs by port, so these differ by hand.
fn three_channels(world: &World) -> Vec<ChannelSettings> {
    let port = world.address.port();
    let mut channels = vec![
        channel("trades", port, Order::Total, Reliability::Uniform, None),
        channel("quotes", port, Order::Fifo, Reliability::Reliable, Some(&[2, 0])),
        channel("news", port, Order::Causal, Reliability::Stable, Some(&[0, 1])),
    ];
    for (place, channel) in channels.iter_mut().enumerate() {
        let std::net::SocketAddr::V4(address) = world.address else { unreachable!("it is IPv4") };
        let [first, _, third, fourth] = address.ip().octets();
        channel.address.set_ip([first, 80 + place as u8, third, fourth].into());
    }
    channels
}

/// So many addresses, by rank, from this port on.
fn ports(count: u16, first: u16) -> Vec<SocketAddr> {
    (first..first + count).map(|port| ([127, 0, 0, 1], port).into()).collect()
}

#[test]
fn each_gets_exactly_the_channels_it_has_joined() {
    come_and_go(|_| {});
}

#[test]
fn what_is_lost_on_the_way_is_repaired_in_its_channel() {
    come_and_go(|settings| settings.faults.drop_percent = 3.0);
}

#[test]
fn over_tcp_each_channel_has_connections_of_its_own() {
    let addresses = free_addresses(10, "127.0.0.1");
    come_and_go(move |settings| {
        let mut addresses = addresses.iter().copied();
        let mut take = |count: usize| addresses.by_ref().take(count).collect();
        settings.network.transport = Transport::Tcp;
        settings.network.peers = take(3);
        for channel in &mut settings.channels {
            channel.peers = Some(take(channel.members.as_ref().map_or(3, Vec::len)));
        }
    });
}

/// Polls all until something holds.
fn wait_for(parties: &mut [Party], what: &str, mut holds: impl FnMut(&[Party]) -> bool) {
    until(what, || {
        poll_all(parties);
        holds(parties)
    });
}

/// Three members and an observer join, leave and come back; `change` is made to the settings of each.
fn come_and_go(change: impl Fn(&mut Settings)) {
    let world = World::new(3);
    let settings = |rank: Option<u16>| {
        let mut settings = rank.map_or_else(|| world.observer(), |rank| world.member(rank));
        settings.channels = three_channels(&world);
        change(&mut settings);
        settings
    };
    let mut parties = [
        Party::new(&settings(Some(0)), &["trades", "quotes", "news"]),
        Party::new(&settings(Some(1)), &["trades", "news"]),
        Party::new(&settings(Some(2)), &["trades", "quotes"]),
        Party::new(&settings(None), &["news"]),
    ];
    until("all channels to form", || {
        poll_all(&mut parties);
        parties.iter().all(Party::is_formed)
    });
    // Each of three rounds is published through to its end while a party joins or leaves.
    const EACH: usize = 300;
    for round in 0..3 {
        for number in round * EACH..(round + 1) * EACH {
            for (of, name) in [(0, "trades"), (1, "trades"), (0, "quotes"), (2, "quotes"), (1, "news")] {
                publish(&mut parties, of, name, number);
            }
            poll_all(&mut parties);
            if number % EACH == EACH / 2 {
                match round {
                    0 => {
                        parties[2].channels.leave("trades");
                        parties[3].channels.join("quotes").expect("it opens");
                        let again = parties[3].channels.join("quotes").expect_err("it is joined").to_string();
                        assert!(again.contains("joined"), "{again}");
                    }
                    1 => {
                        wait_for(&mut parties, "the observer to hear it", |p| p[3].got.contains_key("quotes"));
                        parties[2].channels.join("trades").expect("it opens");
                        parties[3].channels.leave("quotes");
                        parties[3].poll();
                        assert_eq!(parties[3].channels.names().collect::<Vec<_>>(), ["news"]);
                    }
                    _ => parties[3].channels.leave("news"),
                }
            }
        }
        if round == 0 {
            wait_for(&mut parties, "the observer to find its second channel", |parties| parties[3].is_formed());
            wait_for(&mut parties, "the member to be let go", |p| p[2].channels.get("trades").is_none());
            assert!(parties[2].events.iter().any(|(name, event)| name == "trades" && matches!(event, Event::Left(_))));
        }
        if round == 1 {
            wait_for(&mut parties, "the member to be back", |parties| {
                let node = parties[2].channels.get("trades").expect("joined");
                node.standing() == Standing::Member
            });
        }
    }
    let all = 3 * EACH;
    until("everything to arrive", || {
        poll_all(&mut parties);
        [(0, "trades", "0"), (0, "trades", "1"), (1, "trades", "1"), (1, "trades", "0"), (0, "news", "1")]
            .iter()
            .chain(&[(1, "news", "1"), (0, "quotes", "0"), (0, "quotes", "2"), (2, "quotes", "2"), (2, "quotes", "0")])
            .all(|(party, name, of)| parties[*party].count(name, of) == all)
            && parties[2].got["trades"].last() == parties[0].got["trades"].last()
    });
    judge(&parties, all);
}

fn judge(parties: &[Party], all: usize) {
    // No party has messages of a channel it was not in, none has a message twice, and none has too many.
    let channels = |party: &Party| {
        let mut names: Vec<_> = party.got.keys().cloned().collect();
        names.sort();
        names.join(" ")
    };
    assert_eq!(
        parties.iter().map(channels).collect::<Vec<_>>(),
        ["news quotes trades", "news trades", "quotes trades", "news quotes"]
    );
    assert_eq!(parties[0].payloads("trades"), parties[1].payloads("trades"), "total order");
    assert_eq!(parties[0].got["trades"].len(), 2 * all);
    for (party, got) in parties.iter().enumerate().flat_map(|(party, is)| is.got.iter().map(move |got| (party, got))) {
        let (name, messages) = got;
        for of in 0..3 {
            // Its messages of each publisher have no hole, except where it was away itself.
            let prefix = format!("{name}:{of}:");
            let numbers: Vec<usize> =
                { messages.iter() }.filter_map(|(.., payload)| payload.strip_prefix(&prefix)?.parse().ok()).collect();
            let holes = numbers.windows(2).filter(|pair| pair[1] != pair[0] + 1).count();
            assert!(numbers.is_sorted_by(|a, b| a < b), "{party} {prefix} once, in order");
            assert_eq!(holes > 0, !numbers.is_empty() && (party, name.as_str()) == (2, "trades"), "{party} {prefix}");
        }
    }
    // A party that left and came back was in the same order meanwhile.
    let mut others = parties[0].got["trades"].iter();
    assert!(parties[2].got["trades"].iter().all(|message| others.any(|other| other == message)));
    for (index, party) in parties.iter().enumerate() {
        let is_loss = |event: &Event| matches!(event, Event::Gap { .. } | Event::Retracted { .. });
        assert!(!party.events.iter().any(|(_, event)| is_loss(event)), "{index}: {:?}", party.events);
        for name in party.channels.names() {
            let counters = party.channels.get(name).expect("joined").counters();
            for counter in [Counter::Gaps, Counter::DiscardedGroup, Counter::OrderFaults, Counter::DiscardedMalformed] {
                assert_eq!(counters.get(counter), 0, "{index} {name}: {}", counter.label());
            }
        }
    }
}

/// Two channels that share even the address: each discards the other's datagrams before it reads any number.
#[test]
fn two_channels_on_one_address_do_not_mix() {
    let world = World::new(2);
    let settings = |rank, name: &str| {
        let mut settings = world.member(rank);
        settings.group.name = bourdon::settings::full_name("test", name);
        settings.group.order = if name == "a" { Order::Total } else { Order::Fifo };
        settings
    };
    let mut nodes: Vec<(&str, InlineNode, Vec<u64>)> = Vec::new();
    for (name, rank) in [("a", 0), ("a", 1), ("b", 0), ("b", 1)] {
        nodes.push((name, InlineNode::join(&settings(rank, name)).expect("it opens"), Vec::new()));
    }
    let poll = |nodes: &mut [(&str, InlineNode, Vec<u64>)]| {
        for (name, node, got) in nodes {
            node.poll(usize::MAX, |delivery| {
                let Some(message) = delivery.message() else {
                    return assert!(matches!(delivery.event(), Some(Event::View { .. })), "{delivery:?}");
                };
                let (channel, number) = message.payload.split_at(1);
                assert_eq!(channel, name.as_bytes());
                got.push(u64::from_le_bytes(number.try_into().expect("eight bytes")));
            })
            .expect("the port works");
        }
    };
    until("both to form", || {
        poll(&mut nodes);
        nodes.iter().all(|(_, node, _)| node.is_formed())
    });
    const COUNT: u64 = 2_000;
    let mut next = [0, 0];
    until("all to arrive", || {
        for (place, index) in [(0, 0), (1, 2)] {
            let (name, node, _) = &mut nodes[index];
            let payload = [name.as_bytes(), &u64::to_le_bytes(next[place])].concat();
            // One twice as fast as the other, so that no number of one fits the other's.
            for _ in 0..=place {
                if next[place] < COUNT && node.try_publish(&common::TOPIC, &payload).is_ok() {
                    next[place] += 1;
                    break;
                }
            }
        }
        poll(&mut nodes);
        nodes.iter().all(|(.., got)| got.len() as u64 == COUNT)
    });
    for (name, node, got) in &mut nodes {
        assert!(got.iter().copied().eq(0..COUNT), "{name}");
        let counters = node.counters();
        assert!(counters.get(Counter::DiscardedGroup) > 0, "{name} shared no address after all");
        for counter in [Counter::Gaps, Counter::DiscardedDuplicate, Counter::DiscardedWindow, Counter::DiscardedSender]
        {
            assert_eq!(counters.get(counter), 0, "{name}: {}", counter.label());
        }
    }
}

/// A group of three, and a channel that leans on its detectors, in which the group's member 2 has rank 1.
fn leaning(world: &World, rank: u16) -> Settings {
    let mut settings = world.member(rank);
    let port = fresh_address().port();
    settings.channels = vec![channel("quotes", port, Order::Total, Reliability::Uniform, Some(&[1, 2, 0]))];
    settings.channels[0].detector = ChannelDetector::Group;
    settings
}

#[test]
fn a_channel_that_leans_evicts_as_soon_as_its_group() {
    let world = World::new(3);
    let settings = leaning(&world, 0); // it draws the channel's address, the same for all
    let mut members: Vec<(InlineNode, Party)> = Vec::new();
    for rank in 0..3 {
        let mut settings = settings.clone();
        settings.process.rank = rank;
        members.push((InlineNode::join(&settings).expect("it opens"), Party::new(&settings, &["quotes"])));
    }
    fn poll(members: &mut [(InlineNode, Party)]) {
        for (group, party) in members {
            group.poll(usize::MAX, |_| {}).expect("the port works");
            party.channels.lean_on(group);
            party.poll();
        }
    }
    until("both to form", || {
        poll(&mut members);
        members.iter().all(|(group, party)| group.is_formed() && party.is_formed())
    });
    drop(members.pop());
    until("the view without it", || {
        poll(&mut members);
        members.iter().all(|(_, party)| {
            let node = party.channels.get("quotes").expect("joined");
            node.view().bits() == 0b101
        })
    });
    let by_group = ("quotes".to_owned(), Event::Suspected(Rank(1), Why::Group));
    for (_, party) in &members {
        assert!(party.events.contains(&by_group), "{:?}", party.events);
    }
}

#[test]
fn a_member_of_a_channel_that_leans_is_run_beside_the_group() {
    let world = World::new(3);
    let settings = leaning(&world, 1);
    let mut quotes = settings.for_channel("quotes").expect("it is there");
    assert!(!quotes.network.links && settings.network.links);
    let refused = InlineNode::join(&quotes).expect_err("nothing judges for it").to_string();
    assert!(refused.contains("\"quotes\": it leans on the detectors of its group"), "{refused}");
    quotes.process.role = Role::Observer;
    InlineNode::join(&quotes).expect("an observer has no detectors");
    let group = InlineNode::join(&settings).expect("the group itself does not lean");
    let mut channels = Channels::new(&settings).expect("the settings are good");
    channels.join("quotes").expect("it is run beside the group");
    channels.lean_on(&group); // it is in no view yet, and judges nothing
}

#[test]
fn channels_that_do_not_fit_together_are_refused() {
    let world = World::new(3);
    let refused = |change: &dyn Fn(&mut Settings)| {
        let mut settings = world.member(1);
        settings.channels = three_channels(&world);
        settings.check().expect("they fit");
        change(&mut settings);
        settings.check().expect_err("they don't").to_string()
    };
    type Change = fn(&mut Settings);
    let cases: [(Change, &str); 8] = [
        (|s| s.channels[1].name = "trades".into(), "another channel has this name"),
        (|s| s.channels[1].name = "a/b".into(), "slash"),
        (|s| s.channels[1].name = "a b".into(), "blanks"),
        (|s| s.channels[1].address = s.channels[0].address, "is channel \"trades\"'s address"),
        (|s| s.channels[2].address = s.group.address, "is the group itself's address"),
        (|s| s.channels[1].members = Some(vec![0, 3]), "3 is no rank of a group of 3"),
        (|s| s.channels[1].members = Some(vec![0, 0]), "each rank once"),
        (|s| s.channels[1].address.set_port(0), "names no port"),
    ];
    for (change, expected) in cases {
        let text = refused(&change);
        assert!(text.contains(expected), "{expected:?}: {text}");
    }
    let over_tcp = |change: Change| {
        refused(&|settings| {
            settings.network.transport = Transport::Tcp;
            settings.network.peers = ports(3, 7000);
            settings.channels.truncate(2);
            settings.channels[0].peers = Some(ports(3, 7010));
            settings.channels[1].peers = Some(ports(2, 7020));
            settings.check().expect("they fit");
            change(settings);
        })
    };
    let cases: [(Change, &str); 5] = [
        (|s| s.channels[0].peers = None, "\"trades\": peers is missing"),
        (|s| s.channels[1].peers = Some(ports(3, 7020)), "all 2 members"),
        (|s| s.channels[1].peers = Some(ports(2, 7012)), "127.0.0.1:7012 is the group's or another"),
        (|s| s.channels[0].peers = Some(ports(3, 7002)), "127.0.0.1:7002 is the group's or another"),
        (|s| s.network.sources = vec![[127, 0, 0, 1].into()], "chooses among multicasts"),
    ];
    for (change, expected) in cases {
        let text = over_tcp(change);
        assert!(text.contains(expected), "{expected:?}: {text}");
    }
    let mut settings = world.member(1);
    settings.channels = three_channels(&world);
    let quotes = settings.for_channel("quotes").expect("it is there");
    assert_eq!((quotes.process.role, quotes.group.members), (Role::Observer, 2), "rank 1 is no member of it");
    settings.process.rank = 0;
    let quotes = settings.for_channel("quotes").expect("it is there");
    assert_eq!((quotes.process.role, quotes.process.rank, quotes.group.sequencer), (Role::Member, 1, 1));
    assert_eq!(quotes.group.name, "test/quotes");
    let missing = settings.for_channel("nothing").expect_err("there is none").to_string();
    assert!(missing.contains("the configuration names trades, quotes, news"), "{missing}");
}

/// A member by role that leaves before a view has admitted it: it may be admitted all the same, so it goes on until no
/// view can name it, and reports that it left.
#[test]
fn a_joiner_leaves_as_a_member_does() {
    let world = World::new(3);
    let settings = |rank: u16| {
        let mut settings = world.member(rank);
        settings.channels = three_channels(&world);
        settings
    };
    let mut parties = [0, 1, 2].map(|rank| Party::new(&settings(rank), &["trades"]));
    wait_for(&mut parties, "the channel to form", |parties| parties.iter().all(Party::is_formed));
    let left = |parties: &[Party]| parties[2].events.iter().filter(|(_, it)| matches!(it, Event::Left(_))).count();
    parties[2].channels.leave("trades");
    wait_for(&mut parties, "the member to be let go", |parties| left(parties) == 1);
    let standing = |parties: &[Party]| Some(parties[2].channels.get("trades")?.standing());
    for count in 2..6 {
        assert_eq!(standing(&parties), None, "it is gone");
        parties[2].channels.join("trades").expect("it opens");
        // In turns as soon as it has heard of the group, and once it follows it.
        let is_early = |standing| standing == Standing::Forming || count % 2 == 0 && standing == Standing::Outside;
        wait_for(&mut parties, "the joiner to come so far", |parties| !standing(parties).is_none_or(is_early));
        parties[2].channels.leave("trades");
        wait_for(&mut parties, "the joiner to report that it left", |parties| left(parties) == count);
    }
    assert!(parties[..2].iter().all(Party::is_formed));
}
