//! The records of clients and the members they publish through.

use crate::address::Address;
use crate::fragment::Fragment;
use crate::topic::split_name;
use crate::{ClientId, Sequence};
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

record!(
    /// A client's message or a fragment of it, to be published by the member it is sent to. The payload follows, behind
    /// a [`Fragment`] with the flag [`request_flags::FRAGMENT`] and the topic's name with [`request_flags::NAMED`].
    ClientRequest, 40 {
        /// The client.
        client: U64,
        /// The client's own sequence, from 0; accepted only in order.
        sequence: U64,
        /// Where to send the reply.
        reply_to: Address,
        /// Bits of [`request_flags`].
        flags: U16,
        /// How many of the client's messages before this one are still under way.
        under_way: U16,
        /// How far before the oldest of those the last message stands that a member of this instance has taken; 0 for
        /// none.
        since_taken: U16,
    }
);

/// Bits of [`ClientRequest::flags`].
pub mod request_flags {
    /// The message was refused for good: use its sequence up and publish nothing.
    pub const SKIP: u16 = 1;
    /// The topic's name precedes the payload.
    pub const NAMED: u16 = 2;
    /// Publish nothing, only reply: the client checks whether a member is at the address that a heartbeat gave.
    pub const HELLO: u16 = 4;
    /// The client ends: publish nothing, and free its place. The cookie from [`ClientPlace`] follows.
    pub const GOODBYE: u16 = 8;
    /// The payload is a fragment of the message: a [`Fragment`](crate::Fragment) precedes it.
    pub const FRAGMENT: u16 = 16;
}

/// A [`ClientRequest`] and what follows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientMessage<'a> {
    /// The record.
    pub request: &'a ClientRequest,
    /// Which bytes of the message the payload is, if it is not the whole.
    pub fragment: Option<Fragment>,
    /// The name of the message's topic, if it is published by name.
    pub name: Option<&'a str>,
    /// The application's bytes.
    pub payload: &'a [u8],
}

record!(
    /// Replies to [`ClientRequest`]s.
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
    /// The client has no place at the member, after its [`GOODBYE`](super::request_flags::GOODBYE).
    pub const GONE: u64 = 4;
}

record!(
    /// Follows a [`ClientAnswer`] to a request that is long enough: what a client may know of its member.
    ClientPlace, 24 {
        /// The cookie for the client's address, for its goodbye.
        cookie: U64,
        /// The longest message that the member publishes.
        max_message_bytes: U32,
        /// Of the message `next`, so many bytes have been received.
        received_bytes: U32,
        /// The message that the member publishes next for this client.
        next: U64,
    }
);

impl ClientRequest {
    /// How long a request must be for an answer with a [`ClientPlace`]: no answer is longer than its request.
    pub const WITH_PLACE_BYTES: usize = ClientAnswer::BYTES + ClientPlace::BYTES;

    /// A request and all that follows it.
    pub fn read_all(body: &[u8]) -> Option<ClientMessage<'_>> {
        let (request, mut payload) = Self::read(body)?;
        let (mut fragment, mut name) = (None, None);
        if request.flags.get() & request_flags::FRAGMENT != 0 {
            let (read, rest) = Fragment::read_from_prefix(payload).ok()?;
            (fragment, payload) = (Some(read), rest);
        }
        if request.flags.get() & request_flags::NAMED != 0 {
            let (read, rest) = split_name(payload)?;
            (name, payload) = (Some(read), rest);
        }
        let fits = fragment.is_none_or(|fragment| fragment.has_room(payload.len()));
        fits.then_some(ClientMessage { request, fragment, name, payload })
    }
}

impl ClientAnswer {
    /// A reply.
    pub fn new(client: ClientId, taken: Sequence, refusal: u64) -> Self {
        Self { client: client.0.into(), taken: taken.0.into(), refusal: refusal.into() }
    }

    /// A reply, and what follows it if the member gives it.
    pub fn read_all(body: &[u8]) -> Option<(&Self, Option<&ClientPlace>)> {
        let (answer, rest) = Self::read(body)?;
        Some((answer, ClientPlace::read(rest).map(|(place, _)| place)))
    }
}

// Every request with a fragment is long enough for an answer with how far its member has come.
const _: () = assert!(ClientRequest::BYTES + Fragment::BYTES >= ClientRequest::WITH_PLACE_BYTES);
