//! One process on a bench: datagrams written by hand go in, the exact list of effects comes out.

#![allow(dead_code, unreachable_pub)] // each test file uses some of it

pub mod net;

use bourdon_protocol::{Config, Destination, Event, Order, Outgoing, Process, Role, View};
use bourdon_wire::records::{
    self, BallotStep, End, Heartbeat, HeldRange, Marker, MemberEntry, Nak, NakRange, OrderRun, Row, RowEntry,
    Unavailable, ballot_steps, heartbeat_flags,
};
use bourdon_wire::{
    Address, CONTROL_CHANNEL, CausalEntry, ChannelId, Datagram, DatagramHeader, DatagramNumber, Epoch, FrameHeader,
    GroupId, HEADER_BYTES, Incarnation, InstanceId, Instant, Kind, OrderNumber, Rank, Sequence, TopicId, VERSION,
    flags, seal,
};
use std::net::SocketAddr;
use zerocopy::IntoBytes;

pub const GROUP: GroupId = GroupId::of("bench");
pub const MS: u64 = 1_000_000;
pub const MTU: usize = 1280;

/// An effect of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Sent a datagram of its own stream: its number, and its frames in words.
    Data(u64, Vec<String>),
    /// Retransmitted a datagram: its stream, its number, and the receiver.
    Repair(u16, u64, To),
    /// Sent a control frame, in words.
    Control(String, To),
    /// Delivered `sender:sequence`, with its number in the total order.
    Deliver(String, Option<u64>),
    /// Gave the application an event.
    Event(Event),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum To {
    All,
    Port(u16),
}

pub fn address(port: u16) -> Address {
    SocketAddr::from(([10, 0, 0, 1], port)).into()
}

/// The port of a member.
pub fn port(rank: u16) -> u16 {
    100 + rank
}

pub struct Bench {
    pub process: Process,
    pub now: Instant,
}

impl Bench {
    pub fn config(order: Order, members: u16, role: Role) -> Config {
        let mut config = Config::new(GROUP, members, role);
        config.order = order;
        config.view = Some(View::of_all(Epoch(1), members, Incarnation(1), config.sequencer));
        config.address = match role {
            Role::Member(rank) => address(port(rank.0)),
            Role::Observer => address(900),
        };
        config.limits.mtu_bytes = MTU;
        config.limits.log_bytes = 64 * MTU;
        config.limits.receive_log_bytes = 64 * MTU;
        config.limits.window_bytes = 32 * MTU;
        config.limits.max_message_bytes = 8 * MTU;
        config
    }

    pub fn with(config: Config) -> Self {
        let now = Instant(0);
        Self { process: Process::new(now, config).unwrap(), now }
    }

    pub fn new(order: Order, members: u16, role: Role) -> Self {
        Self::with(Self::config(order, members, role))
    }

    pub fn member(order: Order, members: u16, rank: u16) -> Self {
        Self::new(order, members, Role::Member(Rank(rank)))
    }

    /// Introduces every other member and discards the effects.
    pub fn formed(mut self) -> Self {
        let members = self.process.config().members;
        let own = self.process.config().rank();
        for rank in (0..members).filter(|rank| Some(Rank(*rank)) != own) {
            self.take(&self.heartbeat(rank, |_| {}));
        }
        assert!(self.process.is_formed());
        self.settle();
        self
    }

    /// A member of a formed group of three, in which every member hears every member.
    pub fn one_of_three(rank: u16) -> Self {
        let mut bench = Self::member(Order::Fifo, 3, rank).formed();
        for other in (0..3).filter(|other| *other != rank) {
            bench.take(&bench.heartbeat(other, |beat| beat.heard_from = 0b111.into()));
        }
        bench.settle();
        bench
    }

    /// Lets everything that is due happen, and discards the effects.
    pub fn settle(&mut self) {
        self.timers();
        self.effects();
    }

    pub fn heartbeat(&self, rank: u16, change: impl FnOnce(&mut Heartbeat)) -> Vec<u8> {
        let mut record = Heartbeat {
            next_number: 0.into(),
            oldest_number: 0.into(),
            next_sequence: 0.into(),
            next_order: 0.into(),
            configuration: self.process.config().fingerprint().into(),
            window_bytes: (32 * MTU as u32).into(),
            flags: heartbeat_flags::FORMED.into(),
            address: address(port(rank)),
            heard_from: u64::MAX.into(),
            reached_phase: 0.into(),
            link_port: 0.into(),
            first_sequence: 0.into(),
            birth: self.process.view().birth.into(),
            members: self.process.view().members.iter().fold(0, |bits, member| bits | 1 << member.rank.0).into(),
            version_low: VERSION,
            version_high: VERSION,
        };
        change(&mut record);
        control(rank, Kind::Heartbeat, &[record.as_bytes()])
    }

    pub fn take(&mut self, datagram: &[u8]) {
        self.process.on_datagram(self.now, datagram, None);
    }

    pub fn publish(&mut self, payload: &[u8]) -> u64 {
        self.process.try_publish(self.now, &Outgoing::default(), payload).unwrap().0
    }

    pub fn timers(&mut self) {
        while self.process.next_deadline() <= self.now {
            self.process.on_timer(self.now);
        }
    }

    /// The cookie that the process issues for a port.
    pub fn cookie(&mut self, port: u16) -> u64 {
        let ask = records::ViewAsk { reply_to: address(port), nonce: 0.into(), cookie: 1.into() };
        self.take(&control(0xFFFF, Kind::ViewAsk, &[ask.as_bytes()]));
        let mut cookies = Vec::new();
        self.process.transmit(self.now, |_, bytes, segment_bytes| {
            let datagram = Datagram::parse(bytes, GROUP).unwrap();
            let challenges = datagram.frames().filter(|frame| frame.kind() == Some(Kind::Challenge));
            cookies.extend(challenges.map(|frame| records::Challenge::read(frame.body).unwrap().0.cookie.get()));
            bytes.len().div_ceil(segment_bytes)
        });
        assert_eq!(cookies.len(), 1, "a request of an unknown address is challenged");
        cookies[0]
    }

    /// Lets time pass, then does what is due.
    pub fn wait(&mut self, ns: u64) {
        self.now = self.now + ns;
        self.timers();
    }

    /// Everything the process does now: sent, delivered, reported, in this order.
    pub fn effects(&mut self) -> Vec<Effect> {
        let mut effects = Vec::new();
        self.process.transmit(self.now, |to, bytes, segment_bytes| {
            let chunks = bytes.chunks(segment_bytes);
            let count = chunks.len();
            chunks.for_each(|datagram| effects.push(describe(to, datagram)));
            count
        });
        loop {
            let count = self.process.deliver(self.now, usize::MAX, |delivery| {
                let name = format!("{}:{}", delivery.sender, delivery.sequence);
                effects.push(Effect::Deliver(name, delivery.order.map(|order| order.0)));
            });
            let has_ended = self.end_epoch();
            while let Some(event) = self.process.poll_event() {
                effects.push(Effect::Event(event));
            }
            if count == 0 && !has_ended {
                return effects;
            }
        }
    }

    /// Once a decided epoch has been delivered, the next step of time enters the view that follows it: returns whether
    /// it did.
    pub fn end_epoch(&mut self) -> bool {
        let epoch = self.process.view().epoch;
        if self.process.is_wedged() && self.process.next_deadline() <= self.now {
            self.process.on_timer(self.now);
        }
        self.process.view().epoch != epoch
    }

    /// The effects without heartbeats and rows, which come and go with time.
    pub fn news(&mut self) -> Vec<Effect> {
        let quiet = |effect: &Effect| match effect {
            Effect::Control(what, _) => matches!(&**what, "heartbeat" | "row" | "ping") || what.starts_with("link"),
            _ => false,
        };
        self.effects().into_iter().filter(|effect| !quiet(effect)).collect()
    }

    /// The names of what is delivered now.
    pub fn delivered(&mut self) -> Vec<String> {
        let name = |effect| if let Effect::Deliver(name, _) = effect { Some(name) } else { None };
        self.effects().into_iter().filter_map(name).collect()
    }
}

fn describe(to: Destination, bytes: &[u8]) -> Effect {
    let datagram = Datagram::parse(bytes, GROUP).unwrap();
    let to = match to {
        Destination::Group | Destination::Broadcast => To::All,
        Destination::Peer(peer) => To::Port(SocketAddr::from(peer).port()),
    };
    let words = || datagram.frames().map(|frame| word(frame.kind().unwrap(), &frame)).collect::<Vec<_>>();
    let header = datagram.header;
    if header.is_retransmitted() {
        Effect::Repair(header.rank().0, header.number().0, to)
    } else if header.channel() == CONTROL_CHANNEL {
        Effect::Control(words().join(" "), to)
    } else {
        Effect::Data(header.number().0, words())
    }
}

fn word(kind: Kind, frame: &bourdon_wire::Frame<'_>) -> String {
    match kind {
        Kind::Data => {
            let head = frame.data().unwrap();
            let entries: Vec<_> = head.causal.iter().map(|e| format!("{}={}", e.rank(), e.delivered())).collect();
            let vector = if entries.is_empty() { String::new() } else { format!(" after {}", entries.join(",")) };
            match head.fragment {
                None => format!("{} bytes{vector}", head.payload.len()),
                Some(fragment) => {
                    let (offset, total) = (fragment.offset(), fragment.total_bytes());
                    format!("{offset}+{} of {total}{vector}", head.payload.len())
                }
            }
        }
        Kind::OrderRun => {
            let (run, _) = OrderRun::read(frame.body).unwrap();
            format!("run {}:{}x{}", run.rank, run.first_sequence, run.count)
        }
        Kind::Row => "row".into(),
        Kind::Heartbeat => "heartbeat".into(),
        Kind::Nak => {
            let (nak, ranges) = Nak::read_all(frame.body).unwrap();
            let ranges: Vec<_> = ranges.iter().map(|range| format!("{}x{}", range.first, range.count)).collect();
            format!("nak {} {}", nak.rank, ranges.join(","))
        }
        Kind::Unavailable => {
            let (record, _) = Unavailable::read(frame.body).unwrap();
            format!("gone {} before {}", record.rank, record.oldest_number)
        }
        Kind::ClientRequest => "request".into(),
        Kind::ClientAnswer => {
            let (answer, _) = records::ClientAnswer::read(frame.body).unwrap();
            format!("answer {} taken {} refusal {}", answer.client, answer.taken, answer.refusal)
        }
        Kind::Ballot => ballot_words(frame.body),
        Kind::View => "view".into(),
        Kind::ViewAsk => "which view".into(),
        Kind::Challenge => "challenge".into(),
        Kind::Ping => "ping".into(),
        Kind::Marker => {
            let (marker, _) = Marker::read(frame.body).unwrap();
            let asks = if marker.ends_phase() { "" } else { "asks for " };
            format!("{asks}marker {}", marker.phase)
        }
        Kind::Direct => format!("direct step {}", records::Direct::read(frame.body).unwrap().0.step),
        Kind::Link => {
            let (link, name) = records::Link::read_all(frame.body).unwrap();
            format!("link {} step {} {}", link.sequence, link.step, name.unwrap_or_default())
        }
        Kind::Progress => "progress".into(),
        Kind::Congestion => "congestion".into(),
        Kind::PathReport => "path report".into(),
        Kind::Transfer => format!("transfer step {}", records::Transfer::read(frame.body).unwrap().0.step),
    }
}

/// A step of a view change in words: `prepare 1.0` is rank 0's first round.
fn ballot_words(body: &[u8]) -> String {
    let (record, lists) = BallotStep::read_all(body).unwrap();
    let name = |ballot: u64| format!("{}.{}", ballot >> 16, ballot as u16);
    let ends = |ends: &[End]| ends.iter().map(|end| end.get().to_string()).collect::<Vec<_>>().join(",");
    let members = lists.members.iter().map(|member| member.rank.to_string()).collect::<Vec<_>>().join("");
    let value = || format!("view {members} led by {} cut {}", record.sequencer, ends(lists.cut));
    let this = name(record.ballot.get());
    match record.step {
        ballot_steps::PREPARE => format!("prepare {this}"),
        ballot_steps::STATE if record.accepted.get() == 0 => format!("state {this} holds {}", ends(lists.held)),
        ballot_steps::STATE => {
            let accepted = name(record.accepted.get());
            format!("state {this} holds {} accepted {accepted} {}", ends(lists.held), value())
        }
        ballot_steps::PROPOSE => format!("propose {this} {}", value()),
        ballot_steps::ACCEPT => format!("accept {this}"),
        ballot_steps::REFUSE => format!("refuse {this}"),
        ballot_steps::DECIDE => format!("decide {}", value()),
        step => format!("step {step}?"),
    }
}

/// A value: ranks of the next view's members (all in their first incarnation), its sequencer, the cut's ends.
#[derive(Clone, Copy)]
pub struct Value<'a>(pub &'a [u16], pub u16, pub &'a [u64]);

/// A step of a view change in the round of a proposer.
pub struct Step<'a> {
    pub step: u8,
    pub round: (u64, u16),
    pub held: &'a [u64],
    pub accepted: (u64, u16),
    pub value: Option<Value<'a>>,
    /// Of the value's cut, beyond its ends: stream, first datagram, how many.
    pub ranges: &'a [(u16, u64, u16)],
    /// The members that the value leaves out at their request, as bits.
    pub leavers: u64,
}

impl<'a> Step<'a> {
    pub fn of(step: u8, round: (u64, u16)) -> Self {
        Self { step, round, held: &[], accepted: (0, 0), value: None, ranges: &[], leavers: 0 }
    }

    pub fn with(step: u8, round: (u64, u16), value: Value<'a>) -> Self {
        Self { value: Some(value), ..Self::of(step, round) }
    }

    pub fn state(round: (u64, u16), held: &'a [u64]) -> Self {
        Self { held, ..Self::of(ballot_steps::STATE, round) }
    }

    /// As a datagram of a member.
    pub fn from(self, rank: u16) -> Vec<u8> {
        let Value(members, sequencer, cut) = self.value.unwrap_or(Value(&[], 0, &[]));
        let number = |(round, proposer): (u64, u16)| round << 16 | u64::from(proposer);
        let record = BallotStep {
            step: self.step,
            members: members.len() as u8,
            held: self.held.len() as u8,
            held_ranges: 0,
            cut: cut.len() as u8,
            cut_ranges: self.ranges.len() as u8,
            sequencer: sequencer as u8,
            reserved: 0,
            ballot: number(self.round).into(),
            accepted: number(self.accepted).into(),
            phase: 0.into(),
            cut_phase: 0.into(),
            birth: 1.into(),
            leavers: self.leavers.into(),
        };
        let entry = |rank: &u16| MemberEntry { rank: (*rank).into(), incarnation: 1.into() };
        let members: Vec<_> = members.iter().map(entry).collect();
        let ends = |ends: &[u64]| ends.iter().map(|end| End::new(DatagramNumber(*end))).collect::<Vec<_>>();
        let (held, cut) = (ends(self.held), ends(cut));
        let range = |(rank, first, count): &(u16, u64, u16)| HeldRange {
            rank: (*rank).into(),
            count: (*count).into(),
            first: End::new(DatagramNumber(*first)),
        };
        let ranges: Vec<_> = self.ranges.iter().map(range).collect();
        let parts = [record.as_bytes(), members.as_bytes(), held.as_bytes(), cut.as_bytes(), ranges.as_bytes()];
        control(rank, Kind::Ballot, &parts)
    }
}

/// A frame to put into a datagram: flags with kind, and body.
pub type FrameParts = (u16, Vec<u8>);

pub fn message(payload: &[u8]) -> FrameParts {
    (flags::WHOLE, payload.to_vec())
}

/// A message whose sender had delivered so many of other members: rank and count.
pub fn after(entries: &[(u16, u64)], payload: &[u8]) -> FrameParts {
    let mut body = (entries.len() as u16).to_le_bytes().to_vec();
    entries.iter().for_each(|(rank, n)| body.extend(CausalEntry::new(Rank(*rank), Sequence(*n)).as_bytes()));
    body.extend(payload);
    (flags::WHOLE | flags::CAUSAL, body)
}

/// A fragment of a message of `total` bytes.
pub fn piece(total: u32, offset: u32, payload: &[u8]) -> FrameParts {
    let first = if offset == 0 { flags::FIRST } else { 0 };
    let last = if offset as usize + payload.len() == total as usize { flags::LAST } else { 0 };
    let mut body = [total.to_le_bytes(), offset.to_le_bytes()].concat();
    body.extend(payload);
    (first | last, body)
}

pub fn run(rank: u16, first: u64, count: u32) -> FrameParts {
    let record = OrderRun::new(Rank(rank), ChannelId(0), Sequence(first), count);
    (Kind::OrderRun as u16, record.as_bytes().to_vec())
}

/// The end of a phase, in a stream whose next message has this sequence; with a message of its own or without.
pub fn marker(phase: u64, sequence: u64, payload: Option<&[u8]>) -> FrameParts {
    let carries = u64::from(payload.is_some());
    let record = Marker { phase: phase.into(), sequence: sequence.into(), carries: carries.into() };
    (Kind::Marker as u16, [record.as_bytes(), payload.unwrap_or_default()].concat())
}

/// A datagram of a member's stream.
pub fn data(rank: u16, number: u64, sequence: u64, order: u64, parts: &[FrameParts]) -> Vec<u8> {
    let header = DatagramHeader::new(GROUP, InstanceId(1), Epoch(1), Rank(rank), Incarnation(1), ChannelId(0));
    sealed(header.at(DatagramNumber(number), Sequence(sequence), OrderNumber(order)), parts)
}

pub fn control(rank: u16, kind: Kind, parts: &[&[u8]]) -> Vec<u8> {
    let header = DatagramHeader::new(GROUP, InstanceId(1), Epoch(1), Rank(rank), Incarnation(1), CONTROL_CHANNEL);
    sealed(header, &[(kind as u16, parts.concat())])
}

fn sealed(header: DatagramHeader, parts: &[FrameParts]) -> Vec<u8> {
    let mut bytes = vec![0; HEADER_BYTES];
    for (frame_flags, body) in parts {
        let kind_bits = FrameHeader::new(body.len(), TopicId(0), Kind::Data, *frame_flags);
        bytes.extend(kind_bits.as_bytes());
        bytes.extend(body);
    }
    let length = bytes.len() - HEADER_BYTES;
    seal(&mut bytes, header, parts.len() as u16, length, 0);
    bytes
}

/// The same datagram, sent by another incarnation of its sender.
pub fn as_incarnation(datagram: &[u8], incarnation: u32) -> Vec<u8> {
    altered(datagram, 28, &incarnation.to_le_bytes())
}

/// The same datagram, sent in another epoch.
pub fn in_epoch(datagram: &[u8], epoch: u32) -> Vec<u8> {
    altered(datagram, 12, &epoch.to_le_bytes())
}

/// The same datagram, sent in another instance.
pub fn in_instance(datagram: &[u8], instance: u64) -> Vec<u8> {
    altered(datagram, 16, &instance.to_le_bytes())
}

/// Other bytes at a place, with a new checksum.
pub fn altered(datagram: &[u8], at: usize, bytes: &[u8]) -> Vec<u8> {
    let mut datagram = datagram.to_vec();
    datagram[at..at + bytes.len()].copy_from_slice(bytes);
    let sum = bourdon_wire::checksum(&datagram);
    datagram[4..8].copy_from_slice(&sum.to_le_bytes());
    datagram
}

/// A request of a process at a port for ranges (first, count) of a member's stream.
pub fn nak(from: u16, reply_port: u16, stream: u16, ranges: &[(u64, u32)]) -> Vec<u8> {
    nak_to(from, address(reply_port), stream, ranges)
}

/// The same from any address.
pub fn nak_to(from: u16, reply_to: Address, stream: u16, ranges: &[(u64, u32)]) -> Vec<u8> {
    nak_with(from, reply_to, stream, ranges, 0)
}

/// The same with a cookie.
pub fn nak_with(from: u16, reply_to: Address, stream: u16, ranges: &[(u64, u32)], cookie: u64) -> Vec<u8> {
    let record = Nak {
        rank: stream.into(),
        channel: 0.into(),
        reply_to,
        cookie: cookie.into(),
        ranges: (ranges.len() as u16).into(),
    };
    let ranges: Vec<_> = ranges.iter().map(|(first, count)| NakRange::new(DatagramNumber(*first), *count)).collect();
    control(from, Kind::Nak, &[record.as_bytes(), ranges.as_bytes()])
}

/// A member's row: for each stream, how much it has received and delivered.
pub fn row(from: u16, entries: &[(u64, u64)]) -> Vec<u8> {
    row_at(from, 0, entries)
}

/// The same of a member that has reached every barrier below a phase.
pub fn row_at(from: u16, reached_phase: u64, entries: &[(u64, u64)]) -> Vec<u8> {
    let record = Row {
        reached_phase: reached_phase.into(),
        delivered_order: 0.into(),
        heard_from: 0.into(),
        progress: 0.into(),
    };
    let entry =
        |(received, delivered): &(u64, u64)| RowEntry::new(DatagramNumber(*received), DatagramNumber(*delivered));
    let entries: Vec<_> = entries.iter().map(entry).collect();
    control(from, Kind::Row, &[record.as_bytes(), entries.as_bytes()])
}

pub fn unavailable(from: u16, stream: u16, oldest: u64) -> Vec<u8> {
    let record =
        Unavailable { rank: stream.into(), channel: 0.into(), reserved: 0.into(), oldest_number: oldest.into() };
    control(from, Kind::Unavailable, &[record.as_bytes()])
}

pub fn deliver(name: &str) -> Effect {
    Effect::Deliver(name.into(), None)
}

pub fn ordered(name: &str, number: u64) -> Effect {
    Effect::Deliver(name.into(), Some(number))
}

pub fn sends_control(what: &str, to: To) -> Effect {
    Effect::Control(what.into(), to)
}

pub fn sends(number: u64, frames: &[&str]) -> Effect {
    Effect::Data(number, frames.iter().map(|frame| (*frame).to_owned()).collect())
}
