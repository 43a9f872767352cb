//! What the protocol says to itself: one struct a record, each defined here and nowhere else.
//!
//! All but [`Row`], [`Nak`] and [`ClientRequest`] are of fixed size; those carry a list or a payload behind the struct.
//! A record may be longer than this version knows: what follows is a later version's and is passed over, except behind
//! the three that end in a list.

use crate::datagram::NUMBERS_END;
use crate::{Address, ChannelId, ClientId, DatagramNumber, Kind, OrderNumber, Rank, Sequence};
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// The most ranges one [`Nak`] names: 24 + 64 × 12 bytes fit any MTU; what is missing beyond goes into the next one.
pub const NAK_RANGES_MAX: usize = 64;

macro_rules! record {
    ($(#[$doc:meta])* $name:ident, $bytes:literal { $($(#[$field_doc:meta])* $field:ident: $type:ty),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
        #[repr(C)]
        pub struct $name { $($(#[$field_doc])* pub $field: $type),+ }

        const _: () = assert!(size_of::<$name>() == $bytes);

        impl $name {
            /// Bytes of the record itself.
            pub const BYTES: usize = $bytes;

            /// The record in front of a frame's body, and what follows it.
            #[inline]
            pub fn read(body: &[u8]) -> Option<(&Self, &[u8])> {
                Self::ref_from_prefix(body).ok()
            }
        }
    };
}

record!(
    /// Puts `count` messages of one sender next in the total order. Stands in the sequencer's stream, among the
    /// sequencer's own messages: the place where it stands is the order.
    OrderRun, 16 {
        /// Whose messages.
        rank: U16,
        /// On which channel.
        channel: U16,
        /// How many of them.
        count: U32,
        /// The first one's sequence.
        first_sequence: U64,
    }
);

record!(
    /// What one member has, as watermarks that never fall: the acknowledgement. A [`RowEntry`] for each rank follows.
    Row, 32 {
        /// Every order number below this is held, with its payload.
        held_order: U64,
        /// Every order number below this has been delivered.
        delivered_order: U64,
        /// Bit r: the member with rank r was heard of late.
        heard_from: U64,
        /// Grows as long as the data path runs.
        progress: U64,
    }
);

record!(
    /// One stream's watermarks in a [`Row`].
    RowEntry, 16 {
        /// Every datagram below this has been received.
        received: U64,
        /// Every datagram below this has been delivered to the last frame.
        delivered: U64,
    }
);

record!(
    /// How far a stream has come (so that a lost tail is missed) and where its sender can be reached.
    Heartbeat, 64 {
        /// The number the next datagram will have.
        next_number: U64,
        /// The oldest datagram that can still be asked for.
        oldest_number: U64,
        /// The sequence the next message will have.
        next_sequence: U64,
        /// The order number the next message will have, from the sequencer.
        next_order: U64,
        /// A hash of what must be the same at every member.
        configuration: U64,
        /// How many bytes of one stream this process can have under way to it.
        window_bytes: U32,
        /// Bits of [`heartbeat_flags`].
        flags: U16,
        /// The sender's unicast address.
        address: Address,
    }
);

/// Bits of [`Heartbeat::flags`].
pub mod heartbeat_flags {
    /// The sender waits for acknowledgements: answer with a row at once.
    pub const SOLICIT: u16 = 1;
    /// The sender has heard every member.
    pub const FORMED: u16 = 2;
}

record!(
    /// Asks for datagrams of one stream again. At most [`NAK_RANGES_MAX`] of [`NakRange`] follow.
    Nak, 24 {
        /// Whose stream.
        rank: U16,
        /// On which channel.
        channel: U16,
        /// Where to send them.
        reply_to: Address,
        /// How many ranges follow.
        ranges: U16,
    }
);

record!(
    /// One run of missing datagrams.
    NakRange, 12 {
        /// The first one missing.
        first: U64,
        /// How many.
        count: U32,
    }
);

record!(
    /// Answers a [`Nak`] for what is no longer retained.
    Unavailable, 16 {
        /// Whose stream.
        rank: U16,
        /// On which channel.
        channel: U16,
        /// Zero.
        reserved: U32,
        /// The oldest datagram that can still be asked for.
        oldest_number: U64,
    }
);

record!(
    /// A client's message, to be published by the member it is sent to; the payload follows.
    ClientRequest, 40 {
        /// The client.
        client: U64,
        /// The client's own sequence, from 0; accepted only in order.
        sequence: U64,
        /// Where to send the answer.
        reply_to: Address,
        /// Bits of [`request_flags`].
        flags: U16,
        /// Zero.
        reserved: U32,
    }
);

/// Bits of [`ClientRequest::flags`].
pub mod request_flags {
    /// The message was refused for good: use its sequence up and publish nothing.
    pub const SKIP: u16 = 1;
}

record!(
    /// Answers [`ClientRequest`]s.
    ClientAnswer, 24 {
        /// The client.
        client: U64,
        /// Every message of the client below this has been taken.
        taken: U64,
        /// Zero, or why no more is taken now: one of [`refusals`].
        refusal: U64,
    }
);

/// Values of [`ClientAnswer::refusal`].
pub mod refusals {
    /// Taken.
    pub const NONE: u64 = 0;
    /// The member can't publish just now: send again.
    pub const BUSY: u64 = 1;
    /// The message is longer than the group allows.
    pub const TOO_LARGE: u64 = 2;
    /// The member serves as many clients as it can.
    pub const TOO_MANY_CLIENTS: u64 = 3;
}

impl OrderRun {
    /// A run of one sender's messages.
    pub fn new(rank: Rank, channel: ChannelId, first: Sequence, count: u32) -> Self {
        Self { rank: rank.0.into(), channel: channel.0.into(), count: count.into(), first_sequence: first.0.into() }
    }
}

impl Row {
    /// A row and its entries; an entry that was cut off is not there.
    pub fn read_all(body: &[u8]) -> Option<(&Self, &[RowEntry])> {
        let (row, rest) = Self::read(body)?;
        Some((row, <[RowEntry]>::ref_from_bytes(rest).ok()?))
    }
}

impl RowEntry {
    /// An entry.
    pub fn new(received: DatagramNumber, delivered: DatagramNumber) -> Self {
        Self { received: received.0.into(), delivered: delivered.0.into() }
    }
}

impl Nak {
    /// A request and its ranges.
    pub fn read_all(body: &[u8]) -> Option<(&Self, &[NakRange])> {
        let (nak, rest) = Self::read(body)?;
        let ranges = <[NakRange]>::ref_from_bytes(rest).ok()?;
        (ranges.len() == usize::from(nak.ranges.get()) && ranges.len() <= NAK_RANGES_MAX).then_some((nak, ranges))
    }
}

impl NakRange {
    /// `count` datagrams from `first`.
    pub fn new(first: DatagramNumber, count: u32) -> Self {
        Self { first: first.0.into(), count: count.into() }
    }
}

impl ClientAnswer {
    /// An answer.
    pub fn new(client: ClientId, taken: Sequence, refusal: u64) -> Self {
        Self { client: client.0.into(), taken: taken.0.into(), refusal: refusal.into() }
    }
}

impl Heartbeat {
    /// The order number of the next message, from the sequencer.
    pub fn order(&self) -> OrderNumber {
        OrderNumber(self.next_order.get())
    }
}

/// Whether a record of this kind can be read from a frame's body.
pub(crate) fn check(kind: Kind, body: &[u8]) -> Option<()> {
    match kind {
        Kind::Data => {}
        Kind::OrderRun => drop(OrderRun::read(body)?),
        Kind::Row => drop(Row::read_all(body)?),
        Kind::Heartbeat => {
            let (heartbeat, _) = Heartbeat::read(body)?;
            if heartbeat.next_number.get().max(heartbeat.next_sequence.get()) >= NUMBERS_END {
                return None;
            }
        }
        Kind::Nak => drop(Nak::read_all(body)?),
        Kind::Unavailable => drop(Unavailable::read(body)?),
        Kind::ClientRequest => drop(ClientRequest::read(body)?),
        Kind::ClientAnswer => drop(ClientAnswer::read(body)?),
    }
    Some(())
}
