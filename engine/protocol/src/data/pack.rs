//! Packs messages into datagrams, and cuts those that do not fit.
//!
//! The kernel's work for a datagram costs a hundred times the engine's work for a small message, so messages share
//! datagrams. Waiting for more messages would cost latency, so no message waits: when the node polls the process, the
//! process seals and sends what has been claimed by then. A datagram that is closed because the next message did not
//! fit is padded to the full length, because a run of equal datagrams goes to the network in one call; only the last of
//! a burst is shorter.
//!
//! Invariants: sequences and order numbers are assigned without holes, in the order of packing; a message's fragments
//! are adjacent; a datagram that was sent never changes.

use super::causal::Causal;
use super::log::Log;
use bourdon_wire::{
    CausalEntry, ClientTag, DatagramHeader, DatagramNumber, FRAME_HEADER_BYTES, Fragment, FrameHeader, HEADER_BYTES,
    Kind, MTU_MIN_BYTES, MessageName, NAME_MAX_BYTES, OrderNumber, Rank, Sequence, TopicId, TopicName, flags, seal,
};
use zerocopy::IntoBytes;
use zerocopy::little_endian::{U16, U64};

/// The bytes before the payload of a message with all extensions, in the largest group.
const EXTENSIONS_MAX_BYTES: usize = 8
    + size_of::<ClientTag>()
    + 2
    + (Rank::MAX.index() + 1) * size_of::<CausalEntry>()
    + 1
    + NAME_MAX_BYTES
    + size_of::<MessageName>();
// The first fragment of such a message has room for a payload in the smallest datagram.
const _: () = assert!(
    HEADER_BYTES + FRAME_HEADER_BYTES + Fragment::BYTES + EXTENSIONS_MAX_BYTES < MTU_MIN_BYTES,
    "the extensions leave no room"
);

/// What is sent with a message besides its bytes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Outgoing {
    /// Its topic.
    pub topic: TopicId,
    /// When it should have been sent, in nanoseconds since the UNIX epoch, where that differs from the time it is sent.
    pub intended_send_ns: Option<u64>,
    /// The client that sent the message.
    pub client: Option<ClientTag>,
    /// Its topic's name, for receivers that subscribe by patterns; its id is `topic`. Costs its length and a byte on
    /// the network.
    pub name: Option<TopicName>,
    /// The message of another group that it comes after, wherever both are delivered: see `data/after.rs`. 34 bytes.
    pub after: Option<MessageName>,
}

/// Packs one process's own stream.
#[derive(Debug)]
pub(crate) struct Packer {
    header: DatagramHeader,
    /// The datagram being filled.
    pub(crate) open: DatagramNumber,
    used: usize,
    count: u16,
    messages: u16,
    /// Whether a message begins in the open datagram.
    begun: bool,
    first_sequence: Sequence,
    first_order: OrderNumber,
    pub(crate) next_sequence: Sequence,
    pub(crate) next_order: OrderNumber,
    /// Everything below this has gone to the network.
    pub(crate) sent: DatagramNumber,
    /// When the last datagram was closed: a stream's times never fall, even if the clock does.
    pub(crate) closed_at_ns: u64,
    /// The datagram before the open one, if it was closed early and may be filled further.
    early: Option<Early>,
}

/// What is needed to fill a datagram further.
#[derive(Clone, Copy, Debug)]
struct Early {
    used: usize,
    count: u16,
    messages: u16,
    begun: bool,
    first_sequence: Sequence,
    first_order: OrderNumber,
}

impl Packer {
    /// A stream whose first message has this sequence and, at the sequencer, this order number.
    pub(crate) fn new(header: DatagramHeader, next_sequence: Sequence, next_order: OrderNumber) -> Self {
        Self {
            header,
            open: DatagramNumber(0),
            used: 0,
            count: 0,
            messages: 0,
            begun: false,
            first_sequence: next_sequence,
            first_order: next_order,
            next_sequence,
            next_order,
            sent: DatagramNumber(0),
            closed_at_ns: 0,
            early: None,
        }
    }

    /// Messages packed from now on belong to this barrier phase.
    pub(crate) fn enter_phase(&mut self, phase: u64) {
        self.header = self.header.in_phase(phase);
    }

    #[inline]
    fn room(&self, log: &Log) -> usize {
        debug_assert!(HEADER_BYTES + self.used <= log.mtu(), "{self:?}");
        log.mtu() - HEADER_BYTES - self.used
    }

    /// Whether the open datagram holds any frame.
    #[inline]
    pub(crate) fn is_open(&self) -> bool {
        self.count > 0
    }

    /// Whether a frame with such a body fits the open datagram, so that no other datagram has to be opened.
    #[inline]
    pub(crate) fn fits_open(&self, log: &Log, body_bytes: usize) -> bool {
        self.count > 0 && FRAME_HEADER_BYTES + body_bytes <= self.room(log) && self.count < u16::MAX
    }

    /// Whether a message would begin in the open datagram behind another that began there.
    #[inline]
    pub(crate) fn continues(&self, log: &Log, body_bytes: usize) -> bool {
        self.begun && self.fits_open(log, body_bytes)
    }

    /// Where the first datagram begins that has not gone to the network.
    pub(crate) fn unsent(&self, log: &Log) -> (Sequence, OrderNumber) {
        assert!(self.sent <= self.open, "only what was packed is sent: {self:?}");
        match log.get(self.sent).filter(|_| self.sent < self.open) {
            Some(bytes) => {
                let header = DatagramHeader::of_checked(bytes);
                (header.first_sequence(), header.first_order())
            }
            None if self.count > 0 => (self.first_sequence, self.first_order),
            None => (self.next_sequence, self.next_order),
        }
    }

    /// Every message below this ends in a closed datagram.
    #[inline]
    pub(crate) fn complete(&self) -> Sequence {
        Sequence(self.next_sequence.0 - u64::from(self.messages))
    }

    /// The first datagram in which nothing is packed yet.
    #[inline]
    pub(crate) fn first_free(&self) -> DatagramNumber {
        if self.count == 0 { self.open } else { self.open.next() }
    }

    /// The last datagram that a message of so many bytes (extensions included) would reach.
    #[inline]
    pub(crate) fn last_datagram(&self, log: &Log, body_bytes: usize) -> DatagramNumber {
        if self.fits_open(log, body_bytes) {
            return self.open;
        }
        let first = self.first_free();
        let per_datagram = log.mtu() - HEADER_BYTES - FRAME_HEADER_BYTES;
        if body_bytes <= per_datagram {
            return first;
        }
        first + (body_bytes.div_ceil(per_datagram - Fragment::BYTES) - 1) as u64
    }

    /// Writes a frame header and returns the space of its body, opening another datagram if needed. The caller has made
    /// sure that the frame fits an empty datagram and that the window allows it.
    #[inline]
    pub(crate) fn frame<'l>(
        &mut self,
        log: &'l mut Log,
        topic: TopicId,
        kind: Kind,
        frame_flags: u16,
        body_bytes: usize,
        wall_ns: u64,
    ) -> &'l mut [u8] {
        self.reopen();
        if self.count > 0 && !self.fits_open(log, body_bytes) {
            self.close(log, true, wall_ns);
        }
        if self.count == 0 {
            self.first_sequence = self.next_sequence;
            self.first_order = self.next_order;
        }
        let start = HEADER_BYTES + self.used;
        debug_assert!(FRAME_HEADER_BYTES + body_bytes <= self.room(log), "the caller has made sure that it fits");
        let space = &mut log.space(self.open)[start..start + FRAME_HEADER_BYTES + body_bytes];
        let (head, body) = space.split_at_mut(FRAME_HEADER_BYTES);
        head.copy_from_slice(FrameHeader::new(body_bytes, topic, kind, frame_flags).as_bytes());
        self.used += FRAME_HEADER_BYTES + body_bytes;
        self.count += 1;
        body
    }

    /// Packs a message with nothing before its payload, if it fits the datagram that is already open: that datagram has
    /// passed flow control.
    #[inline]
    pub(crate) fn append(&mut self, log: &mut Log, topic: TopicId, payload: &[u8]) -> Option<Sequence> {
        if (1..u16::MAX).contains(&self.count) { self.write_plain(log, topic, payload) } else { None }
    }

    /// The same where no datagram is open: begins one, if `limit` allows that and the one before is not to be
    /// continued.
    #[inline(never)]
    pub(crate) fn begin_with(
        &mut self,
        log: &mut Log,
        limit: DatagramNumber,
        topic: TopicId,
        payload: &[u8],
    ) -> Option<Sequence> {
        debug_assert!(!self.is_open(), "one datagram is filled at a time: {self:?}");
        if self.early.is_some() || self.open >= limit || !Self::is_whole(log, payload.len()) {
            return None;
        }
        (self.first_sequence, self.first_order) = (self.next_sequence, self.next_order);
        self.write_plain(log, topic, payload)
    }

    /// Writes a message with nothing before its payload into the open datagram, if that has room for it.
    #[inline(always)] // a call costs a message in a full datagram a tenth of its instructions
    fn write_plain(&mut self, log: &mut Log, topic: TopicId, payload: &[u8]) -> Option<Sequence> {
        let space = log.space(self.open).get_mut(HEADER_BYTES + self.used..)?;
        let (head, body) = space.split_first_chunk_mut()?;
        let body = body.get_mut(..payload.len())?;
        *head = bourdon_wire::plain_header(topic, payload.len() as u32);
        body.copy_from_slice(payload);
        self.used += FRAME_HEADER_BYTES + payload.len();
        self.count += 1;
        self.begun = true;
        Some(self.end_message())
    }

    /// Counts the message whose last frame was just packed.
    #[inline]
    pub(crate) fn end_message(&mut self) -> Sequence {
        let sequence = self.next_sequence;
        debug_assert!(self.messages < self.count, "a message ends in a frame: {self:?}");
        self.messages += 1;
        self.next_sequence.0 += 1;
        self.next_order.0 += 1;
        sequence
    }

    /// Seals the open datagram, `padded` to the full length when another follows at once.
    #[inline]
    pub(crate) fn close(&mut self, log: &mut Log, padded: bool, wall_ns: u64) {
        debug_assert!(self.count > 0);
        let header = self.header.at(self.open, self.first_sequence, self.first_order);
        let length = if padded { log.mtu() } else { HEADER_BYTES + self.used };
        debug_assert!(HEADER_BYTES + self.used <= log.mtu() && self.messages <= self.count, "{self:?}");
        debug_assert!(self.first_sequence + u64::from(self.messages) == self.next_sequence, "no holes: {self:?}");
        self.closed_at_ns = self.closed_at_ns.max(wall_ns);
        seal(&mut log.space(self.open)[..length], header, self.count, self.used, self.closed_at_ns);
        log.fill(self.open, length, self.messages, 0);
        self.open = self.open.next();
        (self.used, self.count, self.messages, self.begun) = (0, 0, 0, false);
        self.early = None;
        debug_assert!(self.sent < self.open, "only a closed datagram is sent");
    }

    /// Closes the open datagram so that its messages can be delivered here before it is sent. Messages packed before it
    /// is sent still go into it.
    #[inline]
    pub(crate) fn close_early(&mut self, log: &mut Log, wall_ns: u64) {
        let Self { used, count, messages, begun, first_sequence, first_order, .. } = *self;
        self.close(log, false, wall_ns);
        self.early = Some(Early { used, count, messages, begun, first_sequence, first_order });
    }

    /// Continues to fill a datagram that was closed early and has not been sent.
    #[inline]
    fn reopen(&mut self) {
        if let Some(early) = self.early.take()
            && self.count == 0
            && self.sent < self.open
        {
            debug_assert!(self.open.0 > 0, "a datagram was closed early");
            self.open = DatagramNumber(self.open.0 - 1);
            (self.used, self.count, self.messages, self.begun) = (early.used, early.count, early.messages, early.begun);
            (self.first_sequence, self.first_order) = (early.first_sequence, early.first_order);
        }
    }

    /// Closed datagrams are sent unchanged.
    #[inline]
    pub(crate) fn settle(&mut self) {
        self.early = None;
    }

    /// Packs a message that is cut into fragments.
    pub(crate) fn fragments(
        &mut self,
        log: &mut Log,
        outgoing: &Outgoing,
        causal: &[CausalEntry],
        payload: &[u8],
        wall_ns: u64,
    ) -> Sequence {
        let per_datagram = log.mtu() - HEADER_BYTES - FRAME_HEADER_BYTES - Fragment::BYTES;
        debug_assert!(payload.len() + extension_bytes(outgoing, causal) > per_datagram, "it does not fit one frame");
        let mut offset = 0;
        while offset < payload.len() {
            let first = offset == 0;
            let extension_bytes = if first { extension_bytes(outgoing, causal) } else { 0 };
            let length = (payload.len() - offset).min(per_datagram - extension_bytes);
            debug_assert!(length > 0, "each fragment has a part of the payload");
            let last = offset + length == payload.len();
            let frame_flags = if first { extension_flags(outgoing, causal) | flags::FIRST } else { 0 }
                | if last { flags::LAST } else { 0 };
            let body_bytes = Fragment::BYTES + extension_bytes + length;
            let body = self.frame(log, outgoing.topic, Kind::Data, frame_flags, body_bytes, wall_ns);
            let (head, body) = body.split_at_mut(Fragment::BYTES);
            head.copy_from_slice(Fragment::new(payload.len(), offset).as_bytes());
            let (extension, body) = body.split_at_mut(extension_bytes);
            if first {
                write_extensions(extension, outgoing, causal);
            }
            body.copy_from_slice(&payload[offset..offset + length]);
            self.begun |= first;
            offset += length;
        }
        self.end_message()
    }
}

/// Bytes before a message's payload in its first frame.
#[inline]
pub(crate) fn extension_bytes(outgoing: &Outgoing, causal: &[CausalEntry]) -> usize {
    8 * usize::from(outgoing.intended_send_ns.is_some())
        + size_of::<ClientTag>() * usize::from(outgoing.client.is_some())
        + if causal.is_empty() { 0 } else { 2 + size_of_val(causal) }
        + outgoing.name.as_ref().map_or(0, TopicName::wire_bytes)
        + size_of::<MessageName>() * usize::from(outgoing.after.is_some())
}

#[inline]
pub(crate) fn extension_flags(outgoing: &Outgoing, causal: &[CausalEntry]) -> u16 {
    let flag = |flag: u16, set: bool| if set { flag } else { 0 };
    flag(flags::TIMED, outgoing.intended_send_ns.is_some())
        | flag(flags::CLIENT, outgoing.client.is_some())
        | flag(flags::CAUSAL, !causal.is_empty())
        | flag(flags::NAMED, outgoing.name.is_some())
        | flag(flags::AFTER, outgoing.after.is_some())
}

#[inline]
pub(crate) fn write_extensions(mut space: &mut [u8], outgoing: &Outgoing, causal: &[CausalEntry]) {
    let mut put = |bytes: &[u8]| {
        let (here, rest) = core::mem::take(&mut space).split_at_mut(bytes.len());
        here.copy_from_slice(bytes);
        space = rest;
    };
    if let Some(time) = outgoing.intended_send_ns {
        put(U64::new(time).as_bytes());
    }
    if let Some(tag) = outgoing.client {
        put(tag.as_bytes());
    }
    if !causal.is_empty() {
        put(U16::new(causal.len() as u16).as_bytes());
        put(causal.as_bytes());
    }
    if let Some(name) = &outgoing.name {
        let (here, rest) = core::mem::take(&mut space).split_at_mut(name.wire_bytes());
        name.write(here);
        space = rest;
    }
    debug_assert!(outgoing.after.is_some() || space.is_empty(), "the space is as long as the extensions");
    if let Some(after) = &outgoing.after {
        space.copy_from_slice(after.as_bytes());
    }
}

/// Space for one message in the stream's log, to be written in place. Dropping it without [`Claim::commit`] discards
/// the message.
#[derive(Debug)]
pub struct Claim<'a> {
    pub(crate) packer: &'a mut Packer,
    pub(crate) body: &'a mut [u8],
    pub(crate) undo: (usize, u16, bool),
    pub(crate) causal: Option<&'a mut Causal>,
    pub(crate) counters: &'a mut crate::Counters,
    pub(crate) committed: bool,
}

impl Claim<'_> {
    /// Publishes the written message, and returns its sequence.
    #[inline]
    pub fn commit(mut self) -> Sequence {
        self.committed = true;
        if let Some(causal) = &mut self.causal {
            causal.sent();
        }
        self.counters.add(crate::Counter::Published, 1);
        self.packer.end_message()
    }
}

impl Drop for Claim<'_> {
    #[inline]
    fn drop(&mut self) {
        if !self.committed {
            (self.packer.used, self.packer.count, self.packer.begun) = self.undo;
        }
    }
}

impl core::ops::Deref for Claim<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.body
    }
}

impl core::ops::DerefMut for Claim<'_> {
    #[inline]
    fn deref_mut(&mut self) -> &mut [u8] {
        self.body
    }
}

impl Outgoing {
    /// A message that carries its topic's name.
    pub fn named(name: TopicName) -> Self {
        Self { topic: name.id(), name: Some(name), ..Self::default() }
    }

    /// Whether nothing precedes the payload.
    #[inline]
    pub(crate) fn is_plain(&self) -> bool {
        self.intended_send_ns.is_none() && self.client.is_none() && self.name.is_none() && self.after.is_none()
    }
}

impl Packer {
    /// Claims one whole frame for a message.
    #[inline]
    pub(crate) fn claim<'a>(
        &'a mut self,
        log: &'a mut Log,
        outgoing: &Outgoing,
        causal: Option<&'a mut Causal>,
        length: usize,
        wall_ns: u64,
        counters: &'a mut crate::Counters,
    ) -> Claim<'a> {
        let vector = causal.as_ref().map_or(&[][..], |causal| causal.vector());
        self.reopen();
        let extension_bytes = extension_bytes(outgoing, vector);
        if self.count > 0 && !self.fits_open(log, extension_bytes + length) {
            self.close(log, true, wall_ns);
        }
        debug_assert!(Self::is_whole(log, extension_bytes + length), "the caller has made sure that it fits");
        let undo = (self.used, self.count, self.begun);
        let frame_flags = flags::WHOLE | extension_flags(outgoing, vector);
        let body = self.frame(log, outgoing.topic, Kind::Data, frame_flags, extension_bytes + length, wall_ns);
        let (extension, body) = body.split_at_mut(extension_bytes);
        if extension_bytes > 0 {
            write_extensions(extension, outgoing, vector);
        }
        self.begun = true;
        Claim { packer: self, body, undo, causal, counters, committed: false }
    }

    /// Whether a message fits one frame, given the bytes before its payload.
    #[inline]
    pub(crate) fn is_whole(log: &Log, body_bytes: usize) -> bool {
        FRAME_HEADER_BYTES + body_bytes <= log.mtu() - HEADER_BYTES
    }
}
