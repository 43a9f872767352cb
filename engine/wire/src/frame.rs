//! The content of a datagram: messages, fragments and records, each with an 8-byte header.
//!
//! Most frames are small messages, so the header is as small as possible (length, topic, flags) and everything rarer is
//! an extension that a flag announces, in this order: fragment, intended send time, client tag, causal vector, name,
//! the message of another group that it comes after. All but the fragment extension are in the first fragment only.
//!
//! Invariants: [`Frames::check`] accepts a datagram's frames only if each one, and each extension, lies within its
//! bounds; after that [`Frame::data`] can't fail. Frames of an unknown kind are stepped over, so that the next version
//! may add some.

use crate::fragment::Fragment;
use crate::records;
use crate::topic::{is_honest, split_name};
use crate::{ClientId, Epoch, GroupId, Incarnation, InstanceId, Rank, Sequence, TopicId};
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Bytes of [`FrameHeader`].
pub const FRAME_HEADER_BYTES: usize = 8;

/// The header of every frame.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct FrameHeader {
    length: U32,
    topic: U16,
    flags: U16,
}

const _: () = assert!(size_of::<FrameHeader>() == FRAME_HEADER_BYTES);

impl FrameHeader {
    /// The header of a frame whose body is `length` bytes.
    #[inline]
    pub fn new(length: usize, topic: TopicId, kind: Kind, flags: u16) -> Self {
        Self { length: (length as u32).into(), topic: topic.0.into(), flags: (kind as u16 | flags).into() }
    }
}

/// The first frame of `bytes` if it is a whole message with nothing before its payload, as most are: its topic, its
/// payload, and what follows it.
#[inline]
pub fn split_plain(bytes: &[u8]) -> Option<(TopicId, &[u8], &[u8])> {
    let (head, rest) = bytes.split_first_chunk::<FRAME_HEADER_BYTES>()?;
    let word = u64::from_le_bytes(*head);
    if word >> 48 != PLAIN {
        return None;
    }
    let (payload, rest) = rest.split_at_checked(word as u32 as usize)?;
    Some((TopicId((word >> 32) as u16), payload, rest))
}

/// The header of a frame that [`split_plain`] accepts.
#[inline]
pub fn plain_header(topic: TopicId, length: u32) -> [u8; FRAME_HEADER_BYTES] {
    (u64::from(length) | u64::from(topic.0) << 32 | PLAIN << 48).to_le_bytes()
}

/// Kind and flags of a plain message.
const PLAIN: u64 = Kind::Data as u64 | flags::WHOLE as u64;

/// The kind of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum Kind {
    /// A message or a fragment of a message.
    Data = 0,
    /// [`records::OrderRun`].
    OrderRun = 1,
    /// [`records::Row`].
    Row = 2,
    /// [`records::Heartbeat`].
    Heartbeat = 3,
    /// [`records::Nak`].
    Nak = 4,
    /// [`records::Unavailable`].
    Unavailable = 5,
    /// [`records::ClientRequest`].
    ClientRequest = 6,
    /// [`records::ClientAnswer`].
    ClientAnswer = 7,
    /// [`records::BallotStep`].
    Ballot = 8,
    /// [`records::ViewInfo`].
    View = 9,
    /// [`records::ViewAsk`].
    ViewAsk = 10,
    /// [`records::Ping`].
    Ping = 11,
    /// [`records::Marker`].
    Marker = 12,
    /// [`records::Transfer`].
    Transfer = 13,
    /// [`records::Direct`].
    Direct = 14,
    /// [`records::Link`].
    Link = 15,
    /// [`records::Challenge`].
    Challenge = 0x1000,
    /// [`records::Progress`].
    Progress = 0x1001,
    /// [`records::Congestion`].
    Congestion = 0x1002,
    /// [`records::PathReport`].
    PathReport = 0x1003,
}

impl Kind {
    /// The bit that marks it among the kinds of a data datagram; none for the kinds that the low four bits can't name,
    /// which are in control datagrams only.
    #[inline]
    pub(crate) fn bit(self) -> u16 {
        1u16.checked_shl(self as u32).unwrap_or(0)
    }
}

/// Bits of a data frame's flags.
pub mod flags {
    /// The low four bits hold the kind; kinds of later versions have one of the highest four set as well.
    pub const KIND: u16 = 0xF00F;
    /// The first byte of a message is in this frame.
    pub const FIRST: u16 = 0x0010;
    /// The last byte of a message is in this frame.
    pub const LAST: u16 = 0x0020;
    /// The intended send time precedes the payload.
    pub const TIMED: u16 = 0x0040;
    /// A client's tag precedes the payload.
    pub const CLIENT: u16 = 0x0080;
    /// A causal vector precedes the payload.
    pub const CAUSAL: u16 = 0x0100;
    /// The topic's name precedes the payload.
    pub const NAMED: u16 = 0x0200;
    /// The name of a message of another group, which must be delivered first, precedes the payload.
    pub const AFTER: u16 = 0x0400;
    /// A whole message in one frame.
    pub const WHOLE: u16 = FIRST | LAST;
}

/// The client that sent a message through a member, and the client's own sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct ClientTag {
    client: U64,
    sequence: U64,
}

impl ClientTag {
    /// A client's message.
    pub fn new(client: ClientId, sequence: Sequence) -> Self {
        Self { client: client.0.into(), sequence: sequence.0.into() }
    }
    /// The client.
    pub fn client(&self) -> ClientId {
        ClientId(self.client.get())
    }
    /// The client's own sequence, from 0.
    pub fn sequence(&self) -> Sequence {
        Sequence(self.sequence.get())
    }
}

/// One entry of a causal vector: before this message, its sender had delivered `delivered` messages of `rank`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct CausalEntry {
    rank: U16,
    delivered: U64,
}

impl CausalEntry {
    /// An entry.
    pub fn new(rank: Rank, delivered: Sequence) -> Self {
        Self { rank: rank.0.into(), delivered: delivered.0.into() }
    }
    /// The sender of these messages.
    #[inline]
    pub fn rank(&self) -> Rank {
        Rank(self.rank.get())
    }
    /// How many of them.
    #[inline]
    pub fn delivered(&self) -> Sequence {
        Sequence(self.delivered.get())
    }
}

/// The name of a message, unique for ever: group, instance, rank, incarnation and sequence. The epoch shows when a
/// process of that group need no longer wait for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct MessageName {
    group: U32,
    instance: U64,
    epoch: U64,
    rank: U16,
    incarnation: U32,
    sequence: U64,
}

impl MessageName {
    /// Bytes of it on the wire.
    pub const BYTES: usize = 34;

    /// The message of this sequence that this incarnation of `rank` sent, in this epoch of an instance of a group.
    pub fn new(
        group: GroupId,
        (instance, epoch): (InstanceId, Epoch),
        (rank, incarnation): (Rank, Incarnation),
        sequence: Sequence,
    ) -> Self {
        Self {
            group: group.0.into(),
            instance: instance.0.into(),
            epoch: epoch.0.into(),
            rank: rank.0.into(),
            incarnation: incarnation.0.into(),
            sequence: sequence.0.into(),
        }
    }
    /// The instance of the group.
    pub fn instance(&self) -> InstanceId {
        InstanceId(self.instance.get())
    }
    /// The incarnation of its sender.
    pub fn incarnation(&self) -> Incarnation {
        Incarnation(self.incarnation.get())
    }
    /// The group.
    pub fn group(&self) -> GroupId {
        GroupId(self.group.get())
    }
    /// The view of the group.
    pub fn epoch(&self) -> Epoch {
        Epoch(self.epoch.get())
    }
    /// Its sender.
    pub fn rank(&self) -> Rank {
        Rank(self.rank.get())
    }
    /// Its sender's number for it.
    pub fn sequence(&self) -> Sequence {
        Sequence(self.sequence.get())
    }
}

const _: () = assert!(size_of::<MessageName>() == MessageName::BYTES);

/// One frame, borrowed from its datagram.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    /// Its topic; zero in records.
    pub topic: TopicId,
    /// Kind and flags as received.
    pub flags: u16,
    /// What follows the frame's header, extensions included.
    pub body: &'a [u8],
}

/// The parts of a data frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DataHead<'a> {
    /// Which bytes of its message it has, when it is a fragment.
    pub fragment: Option<Fragment>,
    /// When the application meant to send it, in nanoseconds since the UNIX epoch.
    pub intended_send_ns: Option<u64>,
    /// The client that sent it.
    pub client: Option<ClientTag>,
    /// What its sender had delivered before it, where that changed.
    pub causal: &'a [CausalEntry],
    /// The name of its topic, where it was published by name.
    pub name: Option<&'a str>,
    /// The message of another group that it comes after.
    pub after: Option<MessageName>,
    /// The application's bytes.
    pub payload: &'a [u8],
}

impl<'a> Frame<'a> {
    /// Its kind; `None` for kinds of a later version.
    #[inline]
    pub fn kind(&self) -> Option<Kind> {
        Some(match self.flags & flags::KIND {
            0 => Kind::Data,
            1 => Kind::OrderRun,
            2 => Kind::Row,
            3 => Kind::Heartbeat,
            4 => Kind::Nak,
            5 => Kind::Unavailable,
            6 => Kind::ClientRequest,
            7 => Kind::ClientAnswer,
            8 => Kind::Ballot,
            9 => Kind::View,
            10 => Kind::ViewAsk,
            11 => Kind::Ping,
            12 => Kind::Marker,
            13 => Kind::Transfer,
            14 => Kind::Direct,
            15 => Kind::Link,
            0x1000 => Kind::Challenge,
            0x1001 => Kind::Progress,
            0x1002 => Kind::Congestion,
            0x1003 => Kind::PathReport,
            _ => return None,
        })
    }

    /// Whether a message ends here.
    #[inline]
    pub fn ends_message(&self) -> bool {
        self.flags & (flags::KIND | flags::LAST) == flags::LAST
    }

    /// A data frame's parts; `None` when they do not fit its length.
    #[inline]
    pub fn data(&self) -> Option<DataHead<'a>> {
        // The common case first: only a payload.
        if self.flags & !flags::KIND == flags::WHOLE {
            return Some(DataHead { payload: self.body, ..DataHead::default() });
        }
        self.extended()
    }

    fn extended(&self) -> Option<DataHead<'a>> {
        let mut head = DataHead::default();
        let mut rest = self.body;
        if self.flags & flags::WHOLE != flags::WHOLE {
            let (fragment, after) = Fragment::read_from_prefix(rest).ok()?;
            (head.fragment, rest) = (Some(fragment), after);
        }
        if self.flags & flags::TIMED != 0 {
            let (time, after) = U64::read_from_prefix(rest).ok()?;
            (head.intended_send_ns, rest) = (Some(time.get()), after);
        }
        if self.flags & flags::CLIENT != 0 {
            let (tag, after) = ClientTag::read_from_prefix(rest).ok()?;
            (head.client, rest) = (Some(tag), after);
        }
        if self.flags & flags::CAUSAL != 0 {
            (head.causal, rest) = causal_entries(rest)?;
        }
        if self.flags & flags::NAMED != 0 {
            let (name, after) = split_name(rest)?;
            (head.name, rest) = (Some(name), after);
        }
        if self.flags & flags::AFTER != 0 {
            let (first, after) = MessageName::read_from_prefix(rest).ok()?;
            (head.after, rest) = (Some(first), after);
        }
        head.payload = rest;
        head.fragment.is_none_or(|fragment| fragment.has_room(rest.len())).then_some(head)
    }
}

/// A causal vector at the start of `bytes`, and what follows it.
pub fn causal_entries(bytes: &[u8]) -> Option<(&[CausalEntry], &[u8])> {
    let (count, rest) = U16::read_from_prefix(bytes).ok()?;
    <[CausalEntry]>::ref_from_prefix_with_elems(rest, usize::from(count.get())).ok()
}

/// Walks the frames of a datagram; ends early at a malformed frame.
#[derive(Clone, Debug)]
pub struct Frames<'a> {
    rest: &'a [u8],
    left: u16,
}

impl<'a> Frames<'a> {
    /// The `count` frames in `bytes`.
    #[inline]
    pub fn new(bytes: &'a [u8], count: u16) -> Self {
        Self { rest: bytes, left: count }
    }

    /// Walks them all: how many messages end in them, and which kinds of records are among them (bit k: kind k), or
    /// `None` if any does not fit. What follows the last is padding.
    #[inline]
    pub fn check(mut self) -> Option<(u16, u16)> {
        let (mut messages, mut kinds) = (0, 0);
        while self.left > 0 {
            if let Some((_, _, rest)) = split_plain(self.rest) {
                (self.rest, self.left, messages) = (rest, self.left - 1, messages + 1);
                continue;
            }
            let frame = self.next()?;
            match frame.kind() {
                Some(Kind::Data) => {
                    let head = frame.data()?;
                    if head.name.is_some_and(|name| !is_honest(name, frame.topic)) {
                        return None;
                    }
                    messages += u16::from(frame.ends_message());
                }
                Some(kind) => {
                    records::check(kind, &frame)?;
                    kinds |= kind.bit();
                }
                None => {}
            }
        }
        Some((messages, kinds))
    }
}

impl<'a> Iterator for Frames<'a> {
    type Item = Frame<'a>;

    #[inline]
    fn next(&mut self) -> Option<Frame<'a>> {
        if self.left == 0 {
            return None;
        }
        let (header, rest) = FrameHeader::ref_from_prefix(self.rest).ok()?;
        let (body, rest) = rest.split_at_checked(header.length.get() as usize)?;
        (self.rest, self.left) = (rest, self.left - 1);
        Some(Frame { topic: TopicId(header.topic.get()), flags: header.flags.get(), body })
    }
}
