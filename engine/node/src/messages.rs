//! What crosses the rings between a node's threads: each frame's layout, once.
//!
//! Rings carry bytes, and both ends live in one process of one build, so a frame is a plain struct in native order with
//! its payload behind it. `docs/decisions/rings-carry-bytes.md` says why payloads are copied.
//!
//! Invariant: every frame that is written can be read back; one that can't is a bug, and panics.

use bourdon_protocol::{Delivery, Event, Refusal};
use bourdon_wire::{ClientId, ClientTag, Epoch, Incarnation, Instant, OrderNumber, Rank, Sequence, TopicId};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// In front of each published payload.
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
    pub(crate) fn intended(self) -> Option<u64> {
        (self.intended_send_ns != UNTIMED).then_some(self.intended_send_ns)
    }
}

/// In front of each delivered payload.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(crate) struct Delivered {
    sequence: u64,
    order: u64,
    epoch: u64,
    send_time_ns: u64,
    kernel_receive_ns: u64,
    delivered_at: u64,
    client: u64,
    client_sequence: u64,
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
}

impl Delivered {
    #[inline]
    pub(crate) fn new(delivery: &Delivery<'_>) -> Self {
        let flag = |bit, is: bool| if is { bit } else { 0 };
        let (client, client_sequence) = delivery.client.map_or((0, 0), |tag| (tag.client().0, tag.sequence().0));
        Self {
            sequence: delivery.sequence.0,
            order: delivery.order.map_or(0, |order| order.0),
            epoch: delivery.epoch.0,
            send_time_ns: delivery.send_time_ns,
            kernel_receive_ns: delivery.kernel_receive_ns.unwrap_or(0),
            delivered_at: delivery.delivered_at.0,
            client,
            client_sequence,
            sender: delivery.sender.0,
            topic: delivery.topic.0,
            has: flag(has::ORDER, delivery.order.is_some())
                | flag(has::KERNEL_RECEIVE, delivery.kernel_receive_ns.is_some())
                | flag(has::CLIENT, delivery.client.is_some()),
        }
    }

    /// A whole frame, as the delivery it was.
    #[inline]
    pub(crate) fn read(frame: &[u8]) -> Delivery<'_> {
        let (head, payload) = Self::read_from_prefix(frame).expect("a delivered frame begins with its head");
        let has = |bit| head.has & bit != 0;
        Delivery {
            sender: Rank(head.sender),
            sequence: Sequence(head.sequence),
            order: has(has::ORDER).then_some(OrderNumber(head.order)),
            epoch: Epoch(head.epoch),
            topic: TopicId(head.topic),
            send_time_ns: head.send_time_ns,
            kernel_receive_ns: has(has::KERNEL_RECEIVE).then_some(head.kernel_receive_ns),
            delivered_at: Instant(head.delivered_at),
            client: has(has::CLIENT).then(|| ClientTag::new(ClientId(head.client), Sequence(head.client_sequence))),
            payload,
        }
    }
}

/// News from a threaded node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeEvent {
    /// The group's.
    Group(Event),
    /// A message was taken from the application before it was known that the group can't take it; it was dropped.
    PublicationDropped(Refusal),
}

impl From<Event> for NodeEvent {
    fn from(event: Event) -> Self {
        Self::Group(event)
    }
}

impl std::fmt::Display for NodeEvent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Group(Event::Formed) => f.write_str("every member has been heard: the group is formed"),
            Self::Group(Event::MemberSilent(rank)) => write!(f, "member {rank} is silent; the group waits for it"),
            Self::Group(Event::MemberHeard(rank)) => write!(f, "member {rank} was heard again"),
            Self::Group(Event::Gap { sender, from, to }) => {
                write!(f, "{} messages of member {sender} from {from} on were no longer to be had", to.since(*from))
            }
            Self::Group(Event::IdentityConflict(rank)) => {
                write!(f, "another process uses rank {rank} too: one of the two has the wrong process.rank")
            }
            Self::Group(Event::Restarted { rank, .. }) => {
                write!(f, "member {rank} was restarted; a static view can't take it in: restart the group")
            }
            Self::Group(Event::ConfigurationDiffers(rank)) => {
                let what =
                    "group.members, order, sequencer, mtu_bytes and max_message_bytes must be the same everywhere";
                write!(f, "member {rank} is configured otherwise: {what}")
            }
            Self::Group(Event::OtherVersion(version)) => {
                write!(f, "somebody on the group's address speaks version {version}")
            }
            Self::PublicationDropped(refusal) => write!(f, "a message was dropped: {refusal}"),
            #[allow(unreachable_patterns)] // events of the future
            Self::Group(event) => write!(f, "{event:?}"),
        }
    }
}

/// An event as three words: its kind is the frame's tag.
pub(crate) type EventWords = [u64; 3];

pub(crate) fn event_words(event: NodeEvent) -> Option<(u32, EventWords)> {
    Some(match event {
        NodeEvent::Group(Event::Formed) => (0, [0; 3]),
        NodeEvent::Group(Event::MemberSilent(rank)) => (1, [rank.0.into(), 0, 0]),
        NodeEvent::Group(Event::MemberHeard(rank)) => (2, [rank.0.into(), 0, 0]),
        NodeEvent::Group(Event::Gap { sender, from, to }) => (3, [sender.0.into(), from.0, to.0]),
        NodeEvent::Group(Event::IdentityConflict(rank)) => (4, [rank.0.into(), 0, 0]),
        NodeEvent::Group(Event::Restarted { rank, incarnation }) => (5, [rank.0.into(), incarnation.0.into(), 0]),
        NodeEvent::Group(Event::ConfigurationDiffers(rank)) => (6, [rank.0.into(), 0, 0]),
        NodeEvent::Group(Event::OtherVersion(version)) => (7, [version.into(), 0, 0]),
        NodeEvent::PublicationDropped(refusal) => (8, [refusal_word(Some(refusal)), 0, 0]),
        #[allow(unreachable_patterns)] // an event of the future that has no frame yet
        _ => return None,
    })
}

pub(crate) fn event_of(tag: u32, frame: &[u8]) -> NodeEvent {
    let [first, second, third] = EventWords::read_from_bytes(frame).expect("an event has three words");
    let rank = Rank(first as u16);
    NodeEvent::Group(match tag {
        0 => Event::Formed,
        1 => Event::MemberSilent(rank),
        2 => Event::MemberHeard(rank),
        3 => Event::Gap { sender: rank, from: Sequence(second), to: Sequence(third) },
        4 => Event::IdentityConflict(rank),
        5 => Event::Restarted { rank, incarnation: Incarnation(second as u32) },
        6 => Event::ConfigurationDiffers(rank),
        7 => Event::OtherVersion(first as u8),
        8 => return NodeEvent::PublicationDropped(refusal_of(first).unwrap_or(Refusal::Observer)),
        _ => unreachable!("events are written by `event_words`"),
    })
}

/// A refusal as a word that fits a cell: what kind in the low byte, its argument above.
pub(crate) fn refusal_word(refusal: Option<Refusal>) -> u64 {
    match refusal {
        None => 0,
        Some(Refusal::Window) => 1,
        Some(Refusal::Forming) => 2,
        Some(Refusal::MemberSilent(rank)) => 3 | u64::from(rank.0) << 8,
        Some(Refusal::TooLarge { limit_bytes }) => 4 | (limit_bytes as u64) << 8,
        Some(Refusal::Observer) => 5,
    }
}

pub(crate) fn refusal_of(word: u64) -> Option<Refusal> {
    Some(match word & 0xff {
        0 => return None,
        1 => Refusal::Window,
        2 => Refusal::Forming,
        3 => Refusal::MemberSilent(Rank((word >> 8) as u16)),
        4 => Refusal::TooLarge { limit_bytes: (word >> 8) as usize },
        _ => Refusal::Observer,
    })
}

/// What the control thread asks of the data agent: the tag of a frame without content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Command {
    /// Answer with a [`ViewRecord`].
    View = 1,
}

/// The view as the data agent knows it.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(crate) struct ViewRecord {
    pub(crate) epoch: u64,
    /// Bit r: rank r has been heard.
    pub(crate) heard: u64,
    /// A silent member plus one, or 0.
    pub(crate) silent: u32,
    pub(crate) is_formed: u32,
    pub(crate) members: u16,
    pub(crate) sequencer: u16,
    pub(crate) differs: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deliveries_come_back_whole() {
        let delivery = Delivery {
            sender: Rank(3),
            sequence: Sequence(1 << 40),
            order: Some(OrderNumber(7)),
            epoch: Epoch(2),
            topic: TopicId(9),
            send_time_ns: 11,
            kernel_receive_ns: None,
            delivered_at: Instant(13),
            client: Some(ClientTag::new(ClientId(5), Sequence(6))),
            payload: b"bytes",
        };
        let bare = Delivery { order: None, kernel_receive_ns: Some(12), client: None, ..delivery };
        for delivery in [delivery, bare] {
            let mut frame = Delivered::new(&delivery).as_bytes().to_vec();
            frame.extend_from_slice(delivery.payload);
            assert_eq!(format!("{:?}", Delivered::read(&frame)), format!("{delivery:?}"));
        }
    }

    #[test]
    fn events_and_refusals_come_back_whole() {
        let rank = Rank(5);
        let refusals = [
            Refusal::Window,
            Refusal::Forming,
            Refusal::MemberSilent(rank),
            Refusal::TooLarge { limit_bytes: 1 << 20 },
            Refusal::Observer,
        ];
        let gap = Event::Gap { sender: rank, from: Sequence(3), to: Sequence(9) };
        let restarted = Event::Restarted { rank, incarnation: Incarnation(77) };
        let named = [Event::MemberSilent, Event::MemberHeard, Event::IdentityConflict, Event::ConfigurationDiffers];
        let events = named.map(|event| event(rank)).into_iter();
        let events = events.chain([Event::Formed, Event::OtherVersion(9), gap, restarted]).map(NodeEvent::Group);
        for event in events.chain(refusals.map(NodeEvent::PublicationDropped)) {
            let (tag, words) = event_words(event).expect("every event of today has a frame");
            assert_eq!(event_of(tag, words.as_bytes()), event);
            assert!(!event.to_string().is_empty());
        }
        assert_eq!(refusal_of(refusal_word(None)), None);
    }
}
