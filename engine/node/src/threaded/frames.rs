//! What the rings between a node and its application's threads carry: messages, each with a head in front of it.
//!
//! Rings carry bytes, and both ends live in one process of one build, so a head is a plain struct in native order.
//! `docs/decisions/rings-carry-bytes.md` gives the reason why payloads are copied. Everything else that crosses threads
//! is rare, and goes by mailbox as a value: [`Command`](super::commands::Command),
//! [`Event`](bourdon_protocol::Event).
//!
//! Invariant: every frame that is written can be read back; one that can't is a bug, and panics.

use crate::snapshot::{Snapshot, SnapshotRequest};
use bourdon_protocol::{Event, Message, Outgoing};
use bourdon_wire::{
    ClientId, ClientTag, Epoch, Incarnation, InstanceId, Instant, MessageName, OrderNumber, Rank, Sequence, TopicId,
    TopicName,
};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The tag of a frame that holds a delivered message.
pub(crate) const MESSAGE_TAG: u32 = 0;
/// The tag of a frame without bytes that stands where an event has its place: the event comes as a value, beside the
/// ring.
pub(crate) const EVENT_TAG: u32 = 1;
/// The tag of a frame without bytes that stands for a request, which comes beside the ring as well.
pub(crate) const REQUEST_TAG: u32 = 2;

/// What such a frame stands for.
#[derive(Debug)]
pub(crate) enum Value {
    Event(Event),
    /// So many messages were skipped here.
    Skipped(u64),
    SnapshotRequest(SnapshotRequest),
    Snapshot(Snapshot),
}

/// The head of each published payload, and of what goes with it: the topic's name, and the message of another group
/// that it comes after.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(crate) struct Published {
    /// When the application meant to send it, if it has given a time.
    intended_send_ns: u64,
    topic: u16,
    /// Bytes of the name that follows; 0 without a name.
    name_bytes: u16,
    /// Bytes of the [`MessageName`] that follows the name; 0 without one.
    after_bytes: u16,
    /// 1 with a time.
    is_timed: u16,
}

/// Bytes of [`Published`].
pub(crate) const PUBLISHED_BYTES: usize = size_of::<Published>();

impl Published {
    /// The head of a message.
    #[inline]
    pub(crate) fn new(outgoing: &Outgoing) -> Self {
        let name_bytes = outgoing.name.as_ref().map_or(0, |name| name.as_str().len()) as u16;
        let (intended_send_ns, is_timed) = outgoing.intended_send_ns.map_or((0, 0), |time_ns| (time_ns, 1));
        let after_bytes = if outgoing.after.is_some() { MessageName::BYTES as u16 } else { 0 };
        Self { intended_send_ns, topic: outgoing.topic.0, name_bytes, after_bytes, is_timed }
    }

    /// Writes the front of a frame: what it was made of.
    #[inline]
    pub(crate) fn write(&self, outgoing: &Outgoing, frame: &mut [u8]) {
        let (head, rest) = frame.split_at_mut(PUBLISHED_BYTES);
        head.copy_from_slice(self.as_bytes());
        if let Some(name) = &outgoing.name {
            rest[..self.name_bytes.into()].copy_from_slice(name.as_str().as_bytes());
        }
        if let Some(after) = &outgoing.after {
            rest[self.name_bytes.into()..][..MessageName::BYTES].copy_from_slice(after.as_bytes());
        }
    }

    /// Bytes in front of the payload.
    #[inline]
    pub(crate) fn front_bytes(&self) -> usize {
        PUBLISHED_BYTES + usize::from(self.name_bytes) + usize::from(self.after_bytes)
    }

    /// A whole frame, as what was to be published.
    #[inline]
    pub(crate) fn read(frame: &[u8]) -> (Outgoing, &[u8]) {
        let (head, rest) = Self::read_from_prefix(frame).expect("a publication begins with its head");
        let (name, rest) = split_name(rest, head.name_bytes);
        let name = name.map(|name| TopicName::new(name).expect("it was one"));
        let (after, payload) = rest.split_at(head.after_bytes.into());
        let after = (head.after_bytes > 0).then(|| MessageName::read_from_bytes(after).expect("it was one"));
        let intended_send_ns = (head.is_timed == 1).then_some(head.intended_send_ns);
        (Outgoing { topic: TopicId(head.topic), intended_send_ns, client: None, name, after }, payload)
    }
}

/// A name of so many bytes in front of a payload, if there is one.
fn split_name(rest: &[u8], name_bytes: u16) -> (Option<&str>, &[u8]) {
    if name_bytes == 0 {
        return (None, rest);
    }
    let (name, payload) = rest.split_at(name_bytes.into());
    (Some(std::str::from_utf8(name).expect("it was text")), payload)
}

/// The head of each delivered payload, and of the topic's name if it came with one.
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
    /// Bytes of the name that follows; 0 without a name.
    name_bytes: u16,
    has: u16,
}

/// Bytes of [`Delivered`].
pub(crate) const DELIVERED_BYTES: usize = size_of::<Delivered>();

/// Bits of [`Delivered`]'s `has`: which of its fields mean something.
mod has {
    pub(super) const ORDER: u16 = 1;
    pub(super) const KERNEL_RECEIVE: u16 = 2;
    pub(super) const CLIENT: u16 = 4;
    /// A barrier's own message: its phase stands where the order number would.
    pub(super) const BARRIER: u16 = 8;
    pub(super) const LATE: u16 = 16;
}

impl Delivered {
    #[inline]
    pub(crate) fn new(delivery: &Message<'_>) -> Self {
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
                | flag(has::LATE, delivery.late),
            name_bytes: delivery.name.map_or(0, str::len) as u16,
        }
    }

    /// A whole frame, as the delivery it was.
    #[inline]
    pub(crate) fn read(frame: &[u8]) -> Message<'_> {
        let (head, rest) = Self::read_from_prefix(frame).expect("a delivered frame begins with its head");
        let (name, payload) = split_name(rest, head.name_bytes);
        let has = |bit| head.has & bit != 0;
        Message {
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

#[cfg(test)]
mod tests {
    use super::*;
    use bourdon_wire::GroupId;

    #[test]
    fn deliveries_come_back_whole() {
        let delivery = Message {
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
        let bare = Message { order: None, kernel_receive_ns: Some(12), client: None, ..delivery };
        let between = Message { barrier: Some(3), ..bare };
        let named = Message { name: Some("md.es"), ..bare };
        for delivery in [delivery, bare, between, named] {
            let mut frame = Delivered::new(&delivery).as_bytes().to_vec();
            frame.extend_from_slice(delivery.name.unwrap_or_default().as_bytes());
            frame.extend_from_slice(delivery.payload);
            assert_eq!(format!("{:?}", Delivered::read(&frame)), format!("{delivery:?}"));
        }
    }

    #[test]
    fn publications_come_back_whole() {
        let name = TopicName::new("md.es").expect("it is one");
        let plain = Outgoing { topic: TopicId(9), ..Outgoing::default() };
        let timed = Outgoing { intended_send_ns: Some(u64::MAX), ..Outgoing::named(name) };
        let sender = (Rank(3), Incarnation(1 << 31));
        let after = Some(MessageName::new(GroupId(7), (InstanceId(1 << 63), Epoch(2)), sender, Sequence(1 << 40)));
        for outgoing in [plain, timed, Outgoing { after, ..plain }, Outgoing { after, ..timed }] {
            let head = Published::new(&outgoing);
            let mut frame = vec![0; head.front_bytes()];
            head.write(&outgoing, &mut frame);
            frame.extend_from_slice(b"bytes");
            let (read, payload) = Published::read(&frame);
            assert_eq!((format!("{read:?}"), payload), (format!("{outgoing:?}"), &b"bytes"[..]));
        }
    }
}
