//! What crosses the rings between a node's threads: each frame's layout, once.
//!
//! Rings carry bytes, and both ends live in one process of one build, so a frame is a plain struct in native order with
//! its payload behind it. `docs/decisions/rings-carry-bytes.md` gives the reason why payloads are copied.
//!
//! Invariant: every frame that is written can be read back; one that can't is a bug, and panics.

use crate::threaded::waits::{Waiting, ranks};
use crate::transport::Reach;
use bourdon_protocol::control::detector::Why;
use bourdon_protocol::{Delivery, Event, Outgoing, Refusal, Standing};
use bourdon_wire::{
    ClientId, ClientTag, Epoch, Incarnation, InstanceId, Instant, OrderNumber, Rank, Sequence, TopicId, TopicName,
};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The header of each published payload, and of the topic's name if it carries one: the frame's tag is the topic, and
/// the name's length in its upper half.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(crate) struct Published {
    /// When the application meant to send it, or [`UNTIMED`].
    pub(crate) intended_send_ns: u64,
}

/// No time was given.
pub(crate) const UNTIMED: u64 = u64::MAX;
/// Bytes of [`Published`].
pub(crate) const PUBLISHED_BYTES: usize = size_of::<Published>();

impl Published {
    /// The tag of a message's frame.
    pub(crate) fn tag(topic: TopicId, name: Option<&TopicName>) -> u32 {
        u32::from(topic.0) | (name.map_or(0, |name| name.as_str().len()) as u32) << 16
    }

    /// A whole frame, as what was to be published.
    pub(crate) fn read(tag: u32, frame: &[u8]) -> (Outgoing, &[u8]) {
        let (head, rest) = Self::read_from_prefix(frame).expect("a publication begins with its head");
        let (name, payload) = split_name(rest, tag >> 16);
        let name = name.map(|name| TopicName::new(name).expect("it was one"));
        let (topic, intended_send_ns) = (TopicId(tag as u16), head.intended());
        (Outgoing { topic, intended_send_ns, client: None, name, after: None }, payload)
    }

    pub(crate) fn intended(self) -> Option<u64> {
        (self.intended_send_ns != UNTIMED).then_some(self.intended_send_ns)
    }
}

/// A name of so many bytes in front of a payload, if there is one.
fn split_name(rest: &[u8], name_bytes: u32) -> (Option<&str>, &[u8]) {
    if name_bytes == 0 {
        return (None, rest);
    }
    let (name, payload) = rest.split_at(name_bytes as usize);
    (Some(std::str::from_utf8(name).expect("it was text")), payload)
}

/// The header of each delivered payload, and of the topic's name if it came with one.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(crate) struct Delivered {
    sequence: u64,
    order: u64,
    instance: u64,
    send_time_ns: u64,
    kernel_receive_ns: u64,
    delivered_at: u64,
    client: u64,
    client_sequence: u64,
    epoch: u32,
    incarnation: u32,
    sender: u16,
    topic: u16,
    has: u32,
}

/// Bytes of [`Delivered`].
pub(crate) const DELIVERED_BYTES: usize = size_of::<Delivered>();

/// Bits of [`Delivered`]'s `has`: which of its fields mean something.
mod has {
    pub(super) const ORDER: u32 = 1;
    pub(super) const KERNEL_RECEIVE: u32 = 2;
    pub(super) const CLIENT: u32 = 4;
    /// A barrier's own message: its phase stands where the order number would.
    pub(super) const BARRIER: u32 = 8;
    pub(super) const LATE: u32 = 16;
    /// From this bit on: how many bytes of a name follow.
    pub(super) const NAME_SHIFT: u32 = 16;
}

impl Delivered {
    #[inline]
    pub(crate) fn new(delivery: &Delivery<'_>) -> Self {
        let flag = |bit, is: bool| if is { bit } else { 0 };
        let (client, client_sequence) = delivery.client.map_or((0, 0), |tag| (tag.client().0, tag.sequence().0));
        Self {
            sequence: delivery.sequence.0,
            order: delivery.barrier.or(delivery.order.map(|order| order.0)).unwrap_or(0),
            instance: delivery.instance.0,
            send_time_ns: delivery.send_time_ns,
            kernel_receive_ns: delivery.kernel_receive_ns.unwrap_or(0),
            delivered_at: delivery.delivered_at.0,
            client,
            client_sequence,
            epoch: delivery.epoch.0 as u32, // as on the wire
            incarnation: delivery.incarnation.0,
            sender: delivery.sender.0,
            topic: delivery.topic.0,
            has: flag(has::ORDER, delivery.order.is_some())
                | flag(has::KERNEL_RECEIVE, delivery.kernel_receive_ns.is_some())
                | flag(has::CLIENT, delivery.client.is_some())
                | flag(has::BARRIER, delivery.barrier.is_some())
                | flag(has::LATE, delivery.late)
                | (delivery.name.map_or(0, str::len) as u32) << has::NAME_SHIFT,
        }
    }

    /// A whole frame, as the delivery it was.
    #[inline]
    pub(crate) fn read(frame: &[u8]) -> Delivery<'_> {
        let (head, rest) = Self::read_from_prefix(frame).expect("a delivered frame begins with its head");
        let (name, payload) = split_name(rest, head.has >> has::NAME_SHIFT);
        let has = |bit| head.has & bit != 0;
        Delivery {
            sender: Rank(head.sender),
            incarnation: Incarnation(head.incarnation),
            instance: InstanceId(head.instance),
            sequence: Sequence(head.sequence),
            order: has(has::ORDER).then_some(OrderNumber(head.order)),
            epoch: Epoch(head.epoch.into()),
            late: has(has::LATE),
            topic: TopicId(head.topic),
            name,
            send_time_ns: head.send_time_ns,
            kernel_receive_ns: has(has::KERNEL_RECEIVE).then_some(head.kernel_receive_ns),
            delivered_at: Instant(head.delivered_at),
            client: has(has::CLIENT).then(|| ClientTag::new(ClientId(head.client), Sequence(head.client_sequence))),
            barrier: has(has::BARRIER).then_some(head.order),
            payload,
        }
    }
}

/// News from a threaded node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NodeEvent {
    /// The group's.
    Group(Event),
    /// A message was taken from the application before it was known that the group can't take it; it was dropped.
    PublicationDropped(Refusal),
    /// A barrier that the application asked for was refused.
    SyncRefused(Refusal),
    /// Over the transport `auto`: how peers are reached has changed.
    Reached(Reach),
    /// This process is in no view yet.
    Waiting(Waiting),
    /// The group's birth could not be stored after the start: the path, the reason and what is lost by it.
    BirthNotStored(Box<str>),
}

impl From<Event> for NodeEvent {
    fn from(event: Event) -> Self {
        Self::Group(event)
    }
}

fn write_superseded(f: &mut std::fmt::Formatter<'_>, instance: InstanceId) -> std::fmt::Result {
    let text = "formed after the one this member was in, and has a majority: this member was paused or cut off since; \
         it leaves the older instance and joins the newer one";
    write!(f, "instance {:016x} of the group {text}", instance.0)
}

fn write_older_instance(f: &mut std::fmt::Formatter<'_>, instance: InstanceId) -> std::fmt::Result {
    let text = "formed before one that this process was in: it waits up to 10 s for the later one, then joins this one";
    write!(f, "instance {:016x} of the group {text}", instance.0)
}

fn write_new_instance(f: &mut std::fmt::Formatter<'_>, from: InstanceId, to: InstanceId) -> std::fmt::Result {
    let text = "is followed from now on: what the earlier one published after it was last heard is not known here";
    write!(f, "instance {:016x} of the group ended, and {:016x} {text}", from.0, to.0)
}

/// Events that keep a process out of the group, or another one.
fn write_obstacle(f: &mut std::fmt::Formatter<'_>, event: &Event) -> std::fmt::Result {
    match event {
        Event::SnapshotTooLarge { bytes, limit_bytes } => write!(
            f,
            "the group's state is too large to join with ({bytes} bytes; 0 if only its donor knows): raise \
                 limits.max_snapshot_bytes, now {limit_bytes}, here and at the members"
        ),
        Event::IdentityConflict(rank) => {
            write!(
                f,
                "another process is a member with rank {rank} and is alive: this process can't join; stop one of the \
                 two, or give this process another process.rank"
            )
        }
        Event::RankClaimed(rank) => {
            write!(f, "another process uses rank {rank} too: one of the two has the wrong process.rank")
        }
        Event::Restarted { rank, .. } => write!(
            f,
            "member {rank} was restarted, or two processes have its rank: the new one joins once the old one is \
                 out of the view"
        ),
        Event::ConfigurationDiffers(rank) => write!(
            f,
            "member {rank} is configured otherwise: group.members, order, reliability, relay, ack_each, sequencer, \
                 quorum, mutex and election, and limits.mtu_bytes and max_message_bytes must be the same everywhere"
        ),
        Event::Superseded { instance } => write_superseded(f, *instance),
        Event::OlderInstance { instance } => write_older_instance(f, *instance),
        Event::NewInstance { from, to } => write_new_instance(f, *from, *to),
        Event::OtherVersion(version) => write!(
            f,
            "a process on the group's address uses version {version} of the wire format: run the same release \
                 everywhere"
        ),
        _ => unreachable!("{event:?} is no obstacle"),
    }
}

impl std::fmt::Display for NodeEvent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let event = match self {
            Self::Group(event) => event,
            Self::PublicationDropped(refusal) => return write!(f, "a message was dropped: {refusal}"),
            Self::SyncRefused(refusal) => return write!(f, "there is no barrier: {refusal}"),
            Self::Reached(Reach { by_multicast, by_mesh }) => {
                let all = by_multicast + by_mesh;
                let rest = if *by_mesh == 0 { "" } else { "; the others get everything over tcp" };
                return write!(f, "multicast reaches {by_multicast} of {all} peers{rest}");
            }
            Self::BirthNotStored(why) => return f.write_str(why),
            Self::Waiting(waiting) => return waiting.fmt(f),
        };
        match event {
            Event::View { epoch, members, sequencer } => {
                write!(f, "view {epoch}: members {}, sequencer {sequencer}", ranks(*members))
            }
            Event::Suspected(rank, Why::Evidence) => write!(f, "the process of member {rank} is gone"),
            Event::Suspected(rank, why) => write!(f, "member {rank} is suspected, by {why:?}"),
            Event::Trusted(rank) => write!(f, "member {rank} was heard again"),
            Event::NoMajority => f.write_str(
                "no majority of the view can be reached: restore the network, or let members that are paused go on; \
                     members that were restarted have forgotten what they promised and do not count, so if a majority \
                     is gone for good, stop all members and start the group again",
            ),
            Event::Majority => f.write_str("a majority of the view can be reached again"),
            Event::Removed(epoch) => write!(
                f,
                "the others went on without this process, in view {epoch}: it was silent for too long; \
                     it comes back by itself, as a new member"
            ),
            Event::Left(epoch) => write!(f, "this process left; view {epoch} is without it"),
            Event::Settled { delivered: Sequence(0), .. } => f.write_str(
                "no message that this process had published before the removal was delivered, and none will be; if it \
                     had published none, none is lost",
            ),
            Event::Settled { delivered, .. } => write!(
                f,
                "of what this process had published before the removal, messages below {delivered} were delivered; \
                     later ones, if there were any, never will be"
            ),
            Event::Gap { sender, from, to } => {
                write!(f, "{} messages of member {sender} from {from} on are lost: no longer retained", to.since(*from))
            }
            Event::Retracted { sender, from, to } => {
                write!(
                    f,
                    "{} messages of member {sender} from {from} on belong to no view: they are \
                     void",
                    to.since(*from)
                )
            }
            Event::Synced { phase, .. } => write!(f, "barrier {phase} is complete"),
            Event::SnapshotWanted => f.write_str("a joiner requests the application's state"),
            Event::SnapshotReady => f.write_str("the application's state at another member has come"),
            other => write_obstacle(f, other),
        }
    }
}

/// An event as three words: its kind is the frame's tag.
type EventWords = [u64; 3];

/// The tag of a wait, which has its own words.
const WAITING_TAG: u32 = 25;
/// The tag of an event that is a text instead.
const TEXT_TAG: u32 = 26;
/// The longest: a reason with the longest path that Linux has.
pub(crate) const EVENT_TEXT_MAX_BYTES: usize = 4096 + 512;

/// The tag and the frame of an event.
pub(crate) fn event_frame(event: &NodeEvent) -> (u32, Vec<u8>) {
    if let NodeEvent::BirthNotStored(why) = event {
        let end = why.floor_char_boundary(EVENT_TEXT_MAX_BYTES);
        return (TEXT_TAG, why.as_bytes()[..end].to_vec());
    }
    if let NodeEvent::Waiting(waiting) = event {
        return (WAITING_TAG, waiting.words().as_bytes().to_vec());
    }
    let (tag, words) = event_words(event);
    (tag, words.as_bytes().to_vec())
}

fn event_words(event: &NodeEvent) -> (u32, EventWords) {
    let rank = |rank: Rank| u64::from(rank.0);
    let event = match event {
        NodeEvent::Group(event) => *event,
        NodeEvent::PublicationDropped(refusal) => return (0, [refusal_word(Some(*refusal)), 0, 0]),
        NodeEvent::SyncRefused(refusal) => return (19, [refusal_word(Some(*refusal)), 0, 0]),
        NodeEvent::Waiting(_) | NodeEvent::BirthNotStored(_) => unreachable!("`event_frame` writes them"),
        NodeEvent::Reached(reach) => return (20, [reach.by_multicast.into(), reach.by_mesh.into(), 0]),
    };
    match event {
        Event::View { epoch, members, sequencer } => (1, [epoch.0, members, rank(sequencer)]),
        Event::Suspected(of, why) => (2, [rank(of), why as u64, 0]),
        Event::Trusted(of) => (3, [rank(of), 0, 0]),
        Event::NoMajority => (4, [0; 3]),
        Event::Majority => (5, [0; 3]),
        Event::Removed(epoch) => (6, [epoch.0, 0, 0]),
        Event::Left(epoch) => (7, [epoch.0, 0, 0]),
        Event::Settled { incarnation, delivered } => (8, [incarnation.0.into(), delivered.0, 0]),
        Event::Gap { sender, from, to } => (9, [rank(sender), from.0, to.0]),
        Event::Retracted { sender, from, to } => (10, [rank(sender), from.0, to.0]),
        Event::Synced { phase, asked } => (11, [phase, asked.into(), 0]),
        Event::SnapshotWanted => (12, [0; 3]),
        Event::SnapshotReady => (13, [0; 3]),
        Event::SnapshotTooLarge { bytes, limit_bytes } => (14, [bytes, limit_bytes, 0]),
        Event::IdentityConflict(of) => (15, [rank(of), 0, 0]),
        Event::RankClaimed(of) => (24, [rank(of), 0, 0]),
        Event::Restarted { rank: of, incarnation } => (16, [rank(of), incarnation.0.into(), 0]),
        Event::ConfigurationDiffers(of) => (17, [rank(of), 0, 0]),
        Event::Superseded { instance } => (21, [instance.0, 0, 0]),
        Event::NewInstance { from, to } => (22, [from.0, to.0, 0]),
        Event::OlderInstance { instance } => (23, [instance.0, 0, 0]),
        Event::OtherVersion(version) => (18, [version.into(), 0, 0]),
    }
}

pub(crate) fn event_of(tag: u32, frame: &[u8]) -> NodeEvent {
    if tag == TEXT_TAG {
        return NodeEvent::BirthNotStored(std::str::from_utf8(frame).expect("it was text").into());
    }
    if tag == WAITING_TAG {
        return NodeEvent::Waiting(Waiting::read(frame));
    }
    let [first, second, third] = EventWords::read_from_bytes(frame).expect("an event has three words");
    let rank = Rank(first as u16);
    let why = || Why::ALL.into_iter().find(|why| *why as u64 == second).expect("reasons are written by `event_words`");
    NodeEvent::Group(match tag {
        0 => return NodeEvent::PublicationDropped(refusal_of(first).unwrap_or(Refusal::Observer)),
        19 => return NodeEvent::SyncRefused(refusal_of(first).unwrap_or(Refusal::Observer)),
        20 => return NodeEvent::Reached(Reach { by_multicast: first as u16, by_mesh: second as u16 }),
        1 => Event::View { epoch: Epoch(first), members: second, sequencer: Rank(third as u16) },
        2 => Event::Suspected(rank, why()),
        3 => Event::Trusted(rank),
        4 => Event::NoMajority,
        5 => Event::Majority,
        6 => Event::Removed(Epoch(first)),
        7 => Event::Left(Epoch(first)),
        8 => Event::Settled { incarnation: Incarnation(first as u32), delivered: Sequence(second) },
        9 => Event::Gap { sender: rank, from: Sequence(second), to: Sequence(third) },
        10 => Event::Retracted { sender: rank, from: Sequence(second), to: Sequence(third) },
        11 => Event::Synced { phase: first, asked: second == 1 },
        12 => Event::SnapshotWanted,
        13 => Event::SnapshotReady,
        14 => Event::SnapshotTooLarge { bytes: first, limit_bytes: second },
        15 => Event::IdentityConflict(rank),
        24 => Event::RankClaimed(rank),
        16 => Event::Restarted { rank, incarnation: Incarnation(second as u32) },
        17 => Event::ConfigurationDiffers(rank),
        18 => Event::OtherVersion(first as u8),
        21 => Event::Superseded { instance: InstanceId(first) },
        22 => Event::NewInstance { from: InstanceId(first), to: InstanceId(second) },
        23 => Event::OlderInstance { instance: InstanceId(first) },
        _ => unreachable!("events are written by `event_words`"),
    })
}

/// A refusal as a word that fits a cell: what kind in the low byte, its argument above.
pub(crate) fn refusal_word(refusal: Option<Refusal>) -> u64 {
    match refusal {
        None => 0,
        Some(Refusal::Window) => 1,
        Some(Refusal::Forming) => 2,
        Some(Refusal::ViewChange) => 3,
        Some(Refusal::TooLarge { limit_bytes }) => 4 | (limit_bytes as u64) << 8,
        Some(Refusal::Observer) => 5,
        Some(Refusal::Barrier) => 6,
        Some(Refusal::NoMajority) => 7,
        Some(Refusal::Outside) => 8,
    }
}

pub(crate) fn refusal_of(word: u64) -> Option<Refusal> {
    Some(match word & 0xff {
        0 => return None,
        1 => Refusal::Window,
        2 => Refusal::Forming,
        3 => Refusal::ViewChange,
        6 => Refusal::Barrier,
        7 => Refusal::NoMajority,
        8 => Refusal::Outside,
        4 => Refusal::TooLarge { limit_bytes: (word >> 8) as usize },
        _ => Refusal::Observer,
    })
}

/// What the control thread and the application ask of the data agent: the tag of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Command {
    /// Answer with a [`ViewRecord`].
    View = 1,
    /// Ask for a barrier; the answer is an event.
    Sync = 2,
    /// Leave the group; the answer is an event.
    Leave = 3,
    /// Send a direct message; the frame is the order.
    Direct = 4,
}

/// The view as the data agent knows it.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(crate) struct ViewRecord {
    pub(crate) instance: u64,
    pub(crate) birth: u64,
    pub(crate) epoch: u64,
    /// Bit r: rank r is in the view.
    pub(crate) present: u64,
    /// Bit r: rank r has been heard.
    pub(crate) heard: u64,
    /// Bit r: rank r is suspected.
    pub(crate) suspected: u64,
    pub(crate) phase: u64,
    pub(crate) delivered_order: u64,
    /// By rank: how suspect it is; 1 and more is suspected.
    pub(crate) levels: [f32; 64],
    /// By rank: which incarnation of it is in the view.
    pub(crate) incarnations: [u32; 64],
    /// By rank: its place in the view, the oldest first; 255 for a process outside it.
    pub(crate) places: [u8; 64],
    /// Index into [`STANDINGS`].
    pub(crate) standing: u32,
    pub(crate) members: u16,
    pub(crate) sequencer: u16,
    pub(crate) is_formed: u8,
    pub(crate) differs: u8,
    pub(crate) is_wedged: u8,
    pub(crate) lacks_majority: u8,
    pub(crate) reserved: u32,
}

/// What a process can be to its group, by name.
pub(crate) const STANDINGS: [(Standing, &str); 5] = [
    (Standing::Forming, "forming"),
    (Standing::Outside, "outside"),
    (Standing::Following, "following"),
    (Standing::Member, "member"),
    (Standing::Gone, "gone"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deliveries_come_back_whole() {
        let delivery = Delivery {
            sender: Rank(3),
            incarnation: Incarnation(1 << 31),
            instance: InstanceId(1 << 63),
            sequence: Sequence(1 << 40),
            order: Some(OrderNumber(7)),
            epoch: Epoch(2),
            late: true,
            topic: TopicId(9),
            name: None,
            send_time_ns: 11,
            kernel_receive_ns: None,
            delivered_at: Instant(13),
            client: Some(ClientTag::new(ClientId(5), Sequence(6))),
            barrier: None,
            payload: b"bytes",
        };
        let bare = Delivery { order: None, kernel_receive_ns: Some(12), client: None, ..delivery };
        let between = Delivery { barrier: Some(3), ..bare };
        let named = Delivery { name: Some("md.es"), ..bare };
        for delivery in [delivery, bare, between, named] {
            let mut frame = Delivered::new(&delivery).as_bytes().to_vec();
            frame.extend_from_slice(delivery.name.unwrap_or_default().as_bytes());
            frame.extend_from_slice(delivery.payload);
            assert_eq!(format!("{:?}", Delivered::read(&frame)), format!("{delivery:?}"));
        }
    }

    #[test]
    fn a_removed_member_without_messages_reads_of_no_number() {
        let settled = |delivered| NodeEvent::Group(Event::Settled { incarnation: Incarnation(7), delivered });
        let text = settled(Sequence(0)).to_string();
        assert!(text.starts_with("no message that this process had published") && !text.contains("below"), "{text}");
        assert!(settled(Sequence(5)).to_string().contains("messages below 5 were delivered"));
    }

    #[test]
    fn events_and_refusals_come_back_whole() {
        let rank = Rank(5);
        let refusals = [
            Refusal::Window,
            Refusal::Forming,
            Refusal::ViewChange,
            Refusal::TooLarge { limit_bytes: 1 << 20 },
            Refusal::Observer,
            Refusal::Barrier,
            Refusal::NoMajority,
            Refusal::Outside,
        ];
        let (from, to) = (Sequence(3), Sequence(9));
        let named = [Event::Trusted, Event::IdentityConflict, Event::RankClaimed, Event::ConfigurationDiffers]
            .map(|event| event(rank));
        let others = [
            Event::View { epoch: Epoch(4), members: 0b101, sequencer: rank },
            Event::NoMajority,
            Event::Majority,
            Event::Removed(Epoch(9)),
            Event::Left(Epoch(9)),
            Event::Settled { incarnation: Incarnation(7), delivered: to },
            Event::Gap { sender: rank, from, to },
            Event::Retracted { sender: rank, from, to },
            Event::Synced { phase: 3, asked: true },
            Event::SnapshotWanted,
            Event::SnapshotReady,
            Event::SnapshotTooLarge { bytes: 1 << 40, limit_bytes: 7 },
            Event::Restarted { rank, incarnation: Incarnation(77) },
            Event::OtherVersion(9),
            Event::Superseded { instance: InstanceId(1 << 63) },
            Event::NewInstance { from: InstanceId(1), to: InstanceId(u64::MAX) },
            Event::OlderInstance { instance: InstanceId(5) },
        ];
        let suspected = Why::ALL.map(|why| Event::Suspected(rank, why));
        let events = named.into_iter().chain(others).chain(suspected).map(NodeEvent::Group);
        let refused = refusals.into_iter().flat_map(|r| [NodeEvent::PublicationDropped(r), NodeEvent::SyncRefused(r)]);
        let reached = [NodeEvent::Reached(Reach { by_multicast: 3, by_mesh: 4 })];
        let unstored = [NodeEvent::BirthNotStored("can't keep it".into())];
        let first = Waiting { missing: 0b110, members: 3, waited_ns: 1 << 40, ..Waiting::default() };
        let followed =
            Waiting { outside: true, followed: Some(Epoch(7)), rank_in_use: Some(rank), in_lost_instance: 1, ..first };
        let waiting = [first, followed].map(NodeEvent::Waiting);
        for event in events.chain(refused).chain(reached).chain(unstored).chain(waiting) {
            let (tag, frame) = event_frame(&event);
            assert_eq!(event_of(tag, &frame), event);
            assert!(!event.to_string().is_empty());
        }
        assert_eq!(refusal_of(refusal_word(None)), None);
    }
}
