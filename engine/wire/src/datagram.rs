//! The 64 bytes at the start of every datagram, and the check of everything after them.
//!
//! A datagram is the unit that networks lose, so it is the unit that is numbered for repair. Its header names the
//! group, the instance, the epoch and the sender, and gives the place of its first message in each numbering. The
//! frames behind it then need no numbers of their own, and a datagram can be delivered, retained and retransmitted byte
//! for byte.
//!
//! The checksum (CRC32C) covers everything from byte 8 on. The 8 bytes before it are the magic and the version, which
//! are compared, the flags, which only inform, and the checksum itself; so a retransmission sets its flag without a new
//! checksum.
//!
//! The length of the frames is not given: `count` frames are walked, and what follows them is padding.
//!
//! Invariants: [`Datagram::parse`] accepts only datagrams whose every frame can be walked to the end, and whose numbers
//! leave room to count on; the holder of a parsed datagram's bytes may walk them again without checking.

use crate::{
    ChannelId, DatagramNumber, Epoch, Frames, GroupId, Incarnation, InstanceId, Kind, OrderNumber, Rank, Sequence,
};
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Bytes of [`DatagramHeader`].
pub const HEADER_BYTES: usize = 64;
/// A datagram's size by default: fits an Ethernet MTU of 1,500 with IPv6, UDP and a tunnel, and is a whole number of
/// cache lines.
pub const MTU_DEFAULT_BYTES: usize = 1408;
/// The smallest allowed MTU: every record of a full view of 64 members must fit one datagram.
pub const MTU_MIN_BYTES: usize = 1280;
/// The version this code sends and receives.
pub const VERSION: u8 = 3;
/// Datagrams of this channel are in no stream: heartbeats, acknowledgements, requests for repair.
pub const CONTROL_CHANNEL: ChannelId = ChannelId(0xFFFF);
/// The offset of a datagram's sender, for ports that drop their own multicasts early: rank, channel and incarnation.
pub const ECHO_OFFSET: usize = 24;

/// No honest number comes near: at a billion a second it takes 292 years. A datagram that claims more is malformed, so
/// that no sum of a number from the network and a count can overflow.
pub(crate) const NUMBERS_END: u64 = 1 << 63;

/// No honest epoch comes near: at a view a second it takes 68 years. So the next epoch always fits the header's 32
/// bits.
const EPOCHS_END: u32 = 1 << 31;
/// No honest birth comes near: as milliseconds since the UNIX epoch it is the year 10889.
pub const BIRTHS_END: u64 = 1 << 48;
/// The next birth exceeds every known birth below this, the year 2248: a clock gives no later birth, and one above a
/// forged or damaged birth would use up what is left to grow by.
pub const BIRTH_FLOORS_END: u64 = 1 << 43;
/// Bytes of the tag at a datagram's end that takes the checksum's place where the group has a key. Reserved: this
/// version has no keys.
pub const TAG_BYTES: usize = 16;

/// The low 48 bits of a word hold the datagram's number, the high 16 the count of its frames.
const COUNT_SHIFT: u32 = 48;
pub(crate) const NUMBER_MASK: u64 = (1 << COUNT_SHIFT) - 1;

const MAGIC: [u8; 2] = *b"Bd";
const FLAG_RETRANSMITTED: u8 = 1;
/// The datagram ends in a tag of [`TAG_BYTES`], and the checksum's place names its key.
const FLAG_KEYED: u8 = 2;
/// The high four bits of the flags hold the barrier phase in which it was packed, modulo 16.
const PHASE_SHIFT: u32 = 4;
const CHECKED_FROM: usize = 8;

/// The header of every datagram.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct DatagramHeader {
    magic: [u8; 2],
    version: u8,
    flags: u8,
    checksum: U32,
    group: U32,
    epoch: U32,
    instance: U64,
    rank: U16,
    channel: U16,
    incarnation: U32,
    /// Number and count.
    word: U64,
    first_sequence: U64,
    first_order: U64,
    send_time_ns: U64,
}

const _: () = assert!(size_of::<DatagramHeader>() == HEADER_BYTES);
const _: () = assert!(core::mem::offset_of!(DatagramHeader, rank) == ECHO_OFFSET);
const _: () = assert!(core::mem::offset_of!(DatagramHeader, group) == CHECKED_FROM);

impl DatagramHeader {
    /// The header of a sender's datagrams, with the numbers still zero.
    ///
    /// # Panics
    /// If the epoch exceeds 32 bits: a bug of the caller, since no datagram with half of that is accepted.
    pub fn new(
        group: GroupId,
        instance: InstanceId,
        epoch: Epoch,
        rank: Rank,
        incarnation: Incarnation,
        channel: ChannelId,
    ) -> Self {
        Self {
            magic: MAGIC,
            version: VERSION,
            flags: 0,
            checksum: 0.into(),
            group: group.0.into(),
            epoch: u32::try_from(epoch.0).expect("an epoch has 32 bits on the wire").into(),
            instance: instance.0.into(),
            rank: rank.0.into(),
            channel: channel.0.into(),
            incarnation: incarnation.0.into(),
            word: 0.into(),
            first_sequence: 0.into(),
            first_order: 0.into(),
            send_time_ns: 0.into(),
        }
    }

    /// The same header at these numbers.
    #[inline]
    pub fn at(mut self, number: DatagramNumber, first_sequence: Sequence, first_order: OrderNumber) -> Self {
        debug_assert!(number.0 <= NUMBER_MASK, "a datagram's number has 48 bits on the wire");
        self.word = (self.word.get() & !NUMBER_MASK | number.0 & NUMBER_MASK).into();
        self.first_sequence = first_sequence.0.into();
        self.first_order = first_order.0.into();
        self
    }

    /// The same header, packed in this barrier phase.
    #[inline]
    pub fn in_phase(mut self, phase: u64) -> Self {
        self.flags = (phase as u8) << PHASE_SHIFT;
        self
    }

    /// Whether it was packed in this barrier phase, as far as four bits distinguish phases.
    #[inline]
    pub fn is_of_phase(&self, phase: u64) -> bool {
        self.flags >> PHASE_SHIFT == phase as u8 & 0xF
    }

    /// The group it belongs to.
    pub fn group(&self) -> GroupId {
        GroupId(self.group.get())
    }
    /// How many frames follow the header.
    #[inline]
    pub fn count(&self) -> u16 {
        (self.word.get() >> COUNT_SHIFT) as u16
    }
    /// The instance of the group it was sent in, or [`InstanceId::NONE`].
    #[inline]
    pub fn instance(&self) -> InstanceId {
        InstanceId(self.instance.get())
    }
    /// The view it was sent in.
    #[inline]
    pub fn epoch(&self) -> Epoch {
        Epoch(u64::from(self.epoch.get()))
    }
    /// Its first sender (a repair may come from another process).
    #[inline]
    pub fn rank(&self) -> Rank {
        Rank(self.rank.get())
    }
    /// The sender's incarnation.
    #[inline]
    pub fn incarnation(&self) -> Incarnation {
        Incarnation(self.incarnation.get())
    }
    /// The channel, or [`CONTROL_CHANNEL`].
    #[inline]
    pub fn channel(&self) -> ChannelId {
        ChannelId(self.channel.get())
    }
    /// Its number in its stream.
    #[inline]
    pub fn number(&self) -> DatagramNumber {
        DatagramNumber(self.word.get() & NUMBER_MASK)
    }
    /// The sequence of the first message that ends in it or later.
    #[inline]
    pub fn first_sequence(&self) -> Sequence {
        Sequence(self.first_sequence.get())
    }
    /// The order number of the first message that ends in it, where the sender is the sequencer.
    #[inline]
    pub fn first_order(&self) -> OrderNumber {
        OrderNumber(self.first_order.get())
    }
    /// When it was first sent, in nanoseconds since the UNIX epoch by the sender's clock.
    #[inline]
    pub fn send_time_ns(&self) -> u64 {
        self.send_time_ns.get()
    }
    /// Whether it was retransmitted.
    pub fn is_retransmitted(&self) -> bool {
        self.flags & FLAG_RETRANSMITTED != 0
    }
    /// The header of bytes that [`Datagram::parse`] accepted before; zeroes where there is none.
    #[inline]
    pub fn of_checked(bytes: &[u8]) -> Self {
        Self::read_from_prefix(bytes).map_or_else(|_| Self::new_zeroed(), |(header, _)| header)
    }
}

/// The bytes at [`ECHO_OFFSET`] in the datagrams that a sender multicasts on a channel.
pub fn echo_bytes(rank: Rank, channel: ChannelId, incarnation: Incarnation) -> [u8; 8] {
    let mut bytes = [0; 8];
    bytes[..2].copy_from_slice(&rank.0.to_le_bytes());
    bytes[2..4].copy_from_slice(&channel.0.to_le_bytes());
    bytes[4..].copy_from_slice(&incarnation.0.to_le_bytes());
    bytes
}

/// The checksum of a datagram.
#[inline]
pub fn checksum(datagram: &[u8]) -> u32 {
    match datagram.get(CHECKED_FROM..) {
        Some(bytes) => crate::checksum::crc32c(bytes),
        None => 0,
    }
}

/// Completes a datagram whose frames are in `datagram[HEADER_BYTES..]`: writes the header, zeroes what follows the
/// `length` bytes of frames (no old bytes may leak), and computes the checksum.
///
/// # Panics
/// If `datagram` is shorter than header and frames: a bug of the caller.
#[inline]
pub fn seal(datagram: &mut [u8], header: DatagramHeader, count: u16, length: usize, send_time_ns: u64) {
    let padding = &mut datagram[HEADER_BYTES + length..];
    if !padding.is_empty() {
        padding.fill(0); // no call for nothing: the last datagram of a burst has none
    }
    let (head, _) = DatagramHeader::mut_from_prefix(datagram).expect("a datagram has room for its header");
    *head = header;
    head.word = (header.word.get() & NUMBER_MASK | u64::from(count) << COUNT_SHIFT).into();
    head.send_time_ns = send_time_ns.into();
    let sum = checksum(datagram);
    datagram[4..8].copy_from_slice(&sum.to_le_bytes());
}

/// Marks a sealed datagram as retransmitted.
pub fn mark_retransmitted(datagram: &mut [u8]) {
    if let Some(flags) = datagram.get_mut(3) {
        *flags |= FLAG_RETRANSMITTED;
    }
}

/// Why a datagram was discarded before its content was used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Discard {
    /// Not even a header, or not a Bourdon datagram at all.
    #[error("not a Bourdon datagram")]
    Foreign,
    /// Another version of Bourdon.
    #[error("version {0} of the wire format; this process uses version {VERSION}")]
    OtherVersion(u8),
    /// Another group on the same address.
    #[error("another group's datagram")]
    OtherGroup,
    /// Sealed with a key, where this process has none.
    #[error("sealed with a key; this group has none")]
    Keyed,
    /// The checksum is wrong, or it is cut short.
    #[error("damaged or cut short")]
    Damaged,
    /// The checksum is right but the frames are malformed.
    #[error("malformed frame")]
    Malformed,
}

/// A datagram that has been checked from end to end.
#[derive(Clone, Copy, Debug)]
pub struct Datagram<'a> {
    /// Its header.
    pub header: &'a DatagramHeader,
    /// Header, frames and padding.
    pub bytes: &'a [u8],
    /// How many messages end in it.
    pub messages: u16,
    /// Which kinds of records are among its messages: bit k for kind k.
    kinds: u16,
}

impl<'a> Datagram<'a> {
    /// Checks a datagram for a group: identity, version, checksum, then every frame.
    #[inline]
    pub fn parse(bytes: &'a [u8], group: GroupId) -> Result<Self, Discard> {
        let (header, rest) = DatagramHeader::ref_from_prefix(bytes).map_err(|_| Discard::Foreign)?;
        if header.magic != MAGIC {
            return Err(Discard::Foreign);
        }
        if header.version != VERSION {
            return Err(Discard::OtherVersion(header.version));
        }
        if header.group() != group {
            return Err(Discard::OtherGroup);
        }
        if header.flags & FLAG_KEYED != 0 {
            return Err(Discard::Keyed);
        }
        if checksum(bytes) != header.checksum.get() {
            return Err(Discard::Damaged);
        }
        let numbers = [header.first_sequence, header.first_order];
        if numbers.iter().any(|number| number.get() >= NUMBERS_END) || header.epoch.get() >= EPOCHS_END {
            return Err(Discard::Malformed);
        }
        let (messages, kinds) = Frames::new(rest, header.count()).check().ok_or(Discard::Malformed)?;
        Ok(Self { header, bytes, messages, kinds })
    }

    /// Whether a record of this kind is among its messages.
    #[inline]
    pub fn has(&self, kind: Kind) -> bool {
        self.kinds & kind.bit() != 0
    }

    /// Its frames, in the order they were packed; the padding behind them is not walked.
    #[inline]
    pub fn frames(&self) -> Frames<'a> {
        Frames::new(&self.bytes[HEADER_BYTES..], self.header.count())
    }
}
