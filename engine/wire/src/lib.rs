//! Every frame Bourdon puts on a network, defined once.
//!
//! Two members that disagree about one byte disagree about everything, and every byte here may come from a stranger. So
//! each header and record is one zerocopy struct with a const-asserted size, little-endian and without alignment; each
//! decoder is total: for any input it returns a value or the reason for discarding, and it never panics, loops without
//! end or allocates memory in proportion to a number from the network.
//!
//! - [`DatagramHeader`]: the 64 bytes in front of everything; [`Datagram::parse`] checks them and every frame behind.
//! - [`Frame`]: a message, a fragment of one, or a protocol record, behind an 8-byte header.
//! - [`records`]: the records of the protocol itself.
//!
//! Three numberings, never mixed up because each is a type of its own: a [`DatagramNumber`] counts what can be lost and
//! repaired on a stream, a [`Sequence`] counts the messages of one sender, an [`OrderNumber`] counts the messages of
//! the whole group. `docs/wire.md` is the page to this crate.

#![no_std]
#![forbid(unsafe_code)]

mod address;
mod checksum;
mod datagram;
mod fragment;
mod frame;
mod ids;
pub mod records;
mod time;
mod topic;

pub use address::Address;
pub use datagram::{
    BIRTH_FLOORS_END, BIRTHS_END, CONTROL_CHANNEL, Datagram, DatagramHeader, Discard, ECHO_OFFSET, HEADER_BYTES,
    MTU_DEFAULT_BYTES, MTU_MIN_BYTES, TAG_BYTES, VERSION, checksum, echo_bytes, mark_retransmitted, seal,
};
pub use fragment::Fragment;
pub use frame::{
    CausalEntry, ClientTag, DataHead, FRAME_HEADER_BYTES, Frame, FrameHeader, Frames, Kind, MessageName,
    causal_entries, flags, plain_header, split_plain,
};
pub use ids::{
    ChannelId, ClientId, DatagramNumber, Epoch, GroupId, Incarnation, InstanceId, OrderNumber, Rank, Sequence, TopicId,
};
pub use time::Instant;
pub use topic::{NAME_MAX_BYTES, NameError, TopicName, check_name, check_visible, split_name};
