//! The records of messages beside the stream.

use crate::address::Address;
use zerocopy::little_endian::{U16, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

record!(
    /// One step of a message outside the stream: to one process, to the nearest of several, or to all that hear the
    /// network. With [`direct_steps::SEND`] and [`direct_steps::BROADCAST`] the payload follows; with the steps of a
    /// request, a [`DirectCall`] and then the payload.
    Direct, 52 {
        /// One of [`direct_steps`].
        step: U16,
        /// The incarnation of the process that sends the message; comes back in the reply.
        sender_id: U64,
        /// The message's number: consecutive for each receiver, and for all broadcasts together; comes back in the
        /// reply.
        sequence: U64,
        /// The oldest message to this receiver that is still under way: no earlier message comes again.
        oldest: U64,
        /// When this copy was sent, by its sender's clock; comes back in the reply.
        sent_ns: U64,
        /// Where to send the reply; in a reply, the address of its sender.
        reply_to: Address,
    }
);

/// Values of [`Direct::step`].
pub mod direct_steps {
    /// A message to one process.
    pub const SEND: u16 = 1;
    /// It was taken, now or before.
    pub const TAKEN: u16 = 2;
    /// There is no room for it now: send again.
    pub const BUSY: u16 = 3;
    /// Measures the distance to a process.
    pub const PROBE: u16 = 4;
    /// The reply.
    pub const ECHO: u16 = 5;
    /// A message to all that hear the network.
    pub const BROADCAST: u16 = 6;
    /// A message to one process, whose application is to reply.
    pub const REQUEST: u16 = 7;
    /// The application's reply, a message of its own.
    pub const REPLY: u16 = 8;
    /// The application does not reply: a message without a payload.
    pub const DECLINE: u16 = 9;
}

record!(
    /// In front of the payload of a request, and of what answers it.
    DirectCall, 16 {
        /// The request's number, by which its sender knows the reply.
        call: U64,
        /// In a request, how long its sender waits for the reply from the first copy on; 0 in a reply.
        patience_ns: U64,
    }
);
