//! The records of the protocol: one struct a record, each defined here and nowhere else.
//!
//! Most are of fixed size; [`Row`], [`Nak`], [`ClientRequest`], [`BallotStep`], [`ViewInfo`], [`Marker`], [`Transfer`],
//! [`Direct`] and [`Link`] carry lists or a payload behind the struct. A record may be longer than this version knows:
//! what follows belongs to a later version and is passed over, except behind the records that end in a list.

use crate::datagram::{BIRTHS_END, NUMBER_MASK, NUMBERS_END};
use crate::topic::{check_name, is_honest, split_name};
use crate::{Address, ChannelId, DatagramNumber, Frame, Kind, OrderNumber, Rank, Sequence};
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// The most ranges one [`Nak`] names: 32 + 64 × 12 bytes fit any MTU; further missing datagrams go into the next one.
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

            /// The record at the start of a frame's body, and what follows it.
            #[inline]
            pub fn read(body: &[u8]) -> Option<(&Self, &[u8])> {
                Self::ref_from_prefix(body).ok()
            }
        }
    };
}

mod client;
mod direct;

pub use client::{ClientAnswer, ClientMessage, ClientPlace, ClientRequest, refusals, request_flags};
pub use direct::{Direct, DirectCall, direct_steps};

record!(
    /// Puts `count` messages of one sender next in the total order. It is in the sequencer's stream, among the
    /// sequencer's own messages: its place there is the order.
    OrderRun, 16 {
        /// The sender of the messages.
        rank: U16,
        /// Their channel.
        channel: U16,
        /// How many of them.
        count: U32,
        /// The sequence of the first.
        first_sequence: U64,
    }
);

record!(
    /// What one member has, as watermarks that never fall: the acknowledgement. A [`RowEntry`] for each rank follows.
    Row, 32 {
        /// Every barrier below this phase has been reached: all that was sent before it has been delivered.
        reached_phase: U64,
        /// Every order number below this has been delivered.
        delivered_order: U64,
        /// Bit r: the member with rank r was heard lately.
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
    /// How far a stream has come (so that a receiver detects a lost tail) and where its sender can be reached.
    Heartbeat, 108 {
        /// The number the next datagram will have.
        next_number: U64,
        /// The oldest datagram that can still be requested.
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
        /// Bit r: the sender hears the member with rank r.
        heard_from: U64,
        /// How many barriers the sender has reached, as in its rows, for receivers that missed the last row.
        reached_phase: U64,
        /// The TCP port of the sender's links, or 0: a process that is connected there learns at once when the sender
        /// is gone.
        link_port: U16,
        /// The sequence of the sender's first message in this view: a receiver that missed the beginning knows what it
        /// missed.
        first_sequence: U64,
        /// When the instance of the group formed: milliseconds since the UNIX epoch, above every birth that a founding
        /// member knew; 0 outside a view.
        birth: U64,
        /// Bit r: the process of rank r is a member of the view that the sender is in; 0 outside a view.
        members: U64,
        /// The lowest version of the wire format that the sender receives.
        version_low: u8,
        /// The highest such version.
        version_high: u8,
    }
);

/// Bits of [`Heartbeat::flags`].
pub mod heartbeat_flags {
    /// The sender waits for acknowledgements: reply with a row at once.
    pub const SOLICIT: u16 = 1;
    /// The sender is a member of a view: that of the header's epoch.
    pub const FORMED: u16 = 2;
    /// The sender waits to be taken into the next view and has caught up.
    pub const READY: u16 = 4;
    /// The sender wants to be left out of the next view.
    pub const LEAVING: u16 = 8;
    /// The sender has promised a ballot and sends nothing of this epoch any more.
    pub const WEDGED: u16 = 16;
    /// The sender takes no part in decisions: it learns them, or it observes.
    pub const LEARNER: u16 = 32;
    /// A barrier is under way that the sender has not reached: that of the phase it has reached.
    pub const BARRIER: u16 = 64;
    /// The sender has reached a barrier that is not complete, and repeats its marker: the stream that it announces ends
    /// before that marker, in the phase before the reached one.
    pub const BEFORE_MARKER: u16 = 128;
    /// The sender is in no view and was in one, or followed one, in an earlier incarnation: its process was not
    /// restarted.
    pub const RETURNS: u16 = 256;
}

record!(
    /// Requests datagrams of one stream again. At most [`NAK_RANGES_MAX`] of [`NakRange`] follow.
    Nak, 32 {
        /// The stream's sender.
        rank: U16,
        /// The channel.
        channel: U16,
        /// Where to send them.
        reply_to: Address,
        /// The cookie that the receiver of this request issued for that address, or a nonce: see [`Challenge`].
        cookie: U64,
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
    /// Replies to a [`Nak`] for datagrams that are no longer retained.
    Unavailable, 16 {
        /// The stream's sender.
        rank: U16,
        /// The channel.
        channel: U16,
        /// Zero.
        reserved: U32,
        /// The oldest datagram that can still be requested.
        oldest_number: U64,
    }
);

record!(
    /// One step of a view change, by ballots among the members of the epoch in the datagram's header. These follow, in
    /// this order: `members` of [`MemberEntry`] (the value's view, oldest first), `held` of [`End`] by rank and
    /// `held_ranges` of [`HeldRange`] (what the sender has), `cut` of [`End`] and `cut_ranges` of [`HeldRange`] (the
    /// value's cut).
    BallotStep, 56 {
        /// One of [`ballot_steps`].
        step: u8,
        /// How many [`MemberEntry`] follow; none where there is no value.
        members: u8,
        /// How many ends of streams held follow.
        held: u8,
        /// How many ranges held beyond them follow.
        held_ranges: u8,
        /// How many ends of the cut follow.
        cut: u8,
        /// How many ranges beyond them belong to the cut.
        cut_ranges: u8,
        /// The value's sequencer.
        sequencer: u8,
        /// Zero.
        reserved: u8,
        /// The ballot this step belongs to.
        ballot: U64,
        /// The ballot in which the value was accepted, or 0.
        accepted: U64,
        /// The barrier phase the sender has completed.
        phase: U64,
        /// The value's barrier phase.
        cut_phase: U64,
        /// The value's birth; the highest birth that the sender knows of, in a `STATE` before the first view.
        birth: U64,
        /// The members that the value leaves out because they requested to leave: bit r is rank r.
        leavers: U64,
    }
);

/// Values of [`BallotStep::step`].
pub mod ballot_steps {
    /// Promise this ballot, and report what you hold.
    pub const PREPARE: u8 = 1;
    /// The promise.
    pub const STATE: u8 = 2;
    /// Accept this value.
    pub const PROPOSE: u8 = 3;
    /// Accepted; the sender holds everything up to the cut.
    pub const ACCEPT: u8 = 4;
    /// A higher ballot was promised: this step names it.
    pub const REFUSE: u8 = 5;
    /// The value was decided.
    pub const DECIDE: u8 = 6;
}

record!(
    /// One member of a view.
    MemberEntry, 6 {
        /// Its rank.
        rank: U16,
        /// Its incarnation.
        incarnation: U32,
    }
);

record!(
    /// A datagram number in 48 bits, so that a view change among 64 members fits one datagram: at a million datagrams a
    /// second an epoch would have to last nine years to exceed it.
    End, 6 {
        /// The low 32 bits.
        low: U32,
        /// The high 16.
        high: U16,
    }
);

record!(
    /// A run of datagrams of one stream held beyond a gap.
    HeldRange, 10 {
        /// The stream's sender.
        rank: U16,
        /// How many.
        count: U16,
        /// The first one.
        first: End,
    }
);

record!(
    /// A view as it was installed: instance and epoch are in the datagram's header. `entries` of [`ViewEntry`] follow:
    /// the members, oldest first, then the former members.
    ViewInfo, 48 {
        /// How many entries follow.
        entries: U16,
        /// How many of them are members.
        members: U16,
        /// The sequencer.
        sequencer: U16,
        /// How many barriers have been completed in it so far.
        barriers: U16,
        /// The number of the first message of this view in total order.
        first_order: U64,
        /// The barrier phase it began in.
        phase: U64,
        /// A hash of what must be the same at every member.
        configuration: U64,
        /// When the instance formed, as in the heartbeats.
        birth: U64,
        /// The nonce of the [`ViewAsk`] that it replies to, or 0.
        nonce: U64,
    }
);

record!(
    /// A member or former member.
    ViewEntry, 14 {
        /// Its rank.
        rank: U16,
        /// Its incarnation.
        incarnation: U32,
        /// The sequence of its first message in this view: all below have been delivered.
        first_sequence: U64,
    }
);

record!(
    /// Requests the current view; sent to a process that seems to know it.
    ViewAsk, 34 {
        /// Where to send the reply.
        reply_to: Address,
        /// Comes back in the reply, which proves that the reply is not a recording.
        nonce: U64,
        /// The cookie that the receiver of this request issued for that address, or a nonce: see [`Challenge`].
        cookie: U64,
    }
);

record!(
    /// Replies to a request whose reply address has not proved that it receives: the requester repeats it with the
    /// cookie.
    Challenge, 16 {
        /// The request's cookie field as received.
        asked: U64,
        /// The cookie for the request's reply address; valid for a while, at the sender of this record only.
        cookie: U64,
    }
);

record!(
    /// How far an observer has come in one member's stream, to that member, which goes by it. A member that no longer
    /// does sends it back with [`progress_flags::ENDED`].
    Progress, 42 {
        /// The observer's address.
        reply_to: Address,
        /// The cookie that the member issued for that address, or a nonce: see [`Challenge`].
        cookie: U64,
        /// Every datagram of the member's stream below this has been delivered to the last frame.
        delivered: U64,
        /// How many datagrams of the stream can be under way to the observer.
        window: U32,
        /// The stream's sender.
        rank: U16,
        /// Bits of [`progress_flags`].
        flags: U16,
    }
);

/// Bits of [`Progress::flags`].
pub mod progress_flags {
    /// From a member: the observer holds it up no longer, because it was too slow or silent.
    pub const ENDED: u16 = 1;
}

record!(
    /// An observer loses more of one member's stream than repairs make up for: the member is to send more slowly. To
    /// that member, or to all, so that observers that lose no more than this one send no report.
    Congestion, 38 {
        /// The observer's address.
        reply_to: Address,
        /// The cookie that the member issued for that address, or a nonce: see [`Challenge`].
        cookie: U64,
        /// The first datagram of the stream that was counted.
        from: U64,
        /// Which part of what was sent from there on did not arrive, in 65,536ths.
        lost: U16,
        /// The stream's sender.
        rank: U16,
    }
);

record!(
    /// Follows a heartbeat in its datagram while the group sends long datagrams. Some of these datagrams are padded to
    /// the length of the data: a receiver that gets the others and misses those knows that the path carries short
    /// datagrams only.
    PathReport, 24 {
        /// How many padded heartbeats the sender has sent, with this datagram if it is one.
        padded: U64,
        /// Bit r: the sender receives no long datagrams from the process of rank r.
        missing: U64,
        /// The length of the last padded heartbeat.
        padded_bytes: U16,
        /// The length of the longest datagram that the sender's stream had lately; 0 if it had none that is long.
        data_bytes: U16,
        /// The length of the datagrams that do not come from the processes in `missing`; 0 if there are none.
        missing_bytes: U16,
        /// 0.
        reserved: U16,
    }
);

record!(
    /// Checks that a process is alive. The reply is the same with another flag.
    Ping, 28 {
        /// Comes back in the reply.
        nonce: U64,
        /// Where to send the reply.
        reply_to: Address,
        /// 0 in a request, 1 in a reply.
        answer: U16,
    }
);

record!(
    /// Ends a phase of its sender's stream: it is in the stream, among its messages. The payload of a barrier message
    /// follows, if it carries one.
    Marker, 24 {
        /// The phase that ends here.
        phase: U64,
        /// The sequence of the sender's next message: all below belong to this phase or an earlier one.
        sequence: U64,
        /// 1 if a payload follows. With [`Marker::ASKS`] nothing ends here: the sequencer, whose own marker comes last,
        /// requests the markers of the other members.
        carries: U64,
    }
);

record!(
    /// One step of a state transfer. In a reply with [`transfer_steps::PART`] the bytes follow.
    Transfer, 58 {
        /// One of [`transfer_steps`].
        step: U16,
        /// The donor's rank.
        donor: U16,
        /// The requester's choice: parts of another transfer are discarded.
        ticket: U32,
        /// Where to send the reply.
        reply_to: Address,
        /// The first part requested, or this part's number.
        part: U32,
        /// How many parts are requested.
        count: U32,
        /// Bytes of the whole snapshot; 0 while it is not known. With `REFUSE`, the donor's limit.
        total_bytes: U64,
        /// Bytes of each part but the last.
        part_bytes: U32,
        /// CRC32C of the whole snapshot.
        checksum: U32,
        /// In a request the cookie that the donor issued for the reply address, or a nonce: see [`Challenge`]; else 0.
        cookie: U64,
    }
);

/// Values of [`Transfer::step`].
pub mod transfer_steps {
    /// Make a snapshot (part 0 of 0), or send these parts of it.
    pub const REQUEST_SNAPSHOT: u16 = 1;
    /// A part.
    pub const PART: u16 = 2;
    /// Not here, not now: request it from another donor.
    pub const REFUSE: u16 = 3;
    /// The snapshot is longer than the requester may keep, or the donor may make.
    pub const TOO_LARGE: u16 = 4;
    /// As `REQUEST_SNAPSHOT`, for the donor's position alone, without the application's state.
    pub const REQUEST_POSITION: u16 = 5;
}

record!(
    /// One message between two members of a view about locks and leaders: in the order sent, each once, within the
    /// epoch. A name follows behind its length, if the step is about a name.
    Link, 46 {
        /// Its number, from 1; 0 only acknowledges.
        sequence: U64,
        /// Every message below this has been received in the other direction.
        acknowledged: U64,
        /// One of [`link_steps`].
        step: U16,
        /// The rank of the member it is about.
        rank: U16,
        /// The member it is for: each pair has its own numbering.
        to: U16,
        /// A request's time, a token's or a term's number.
        number: U64,
        /// The epoch that belongs to it.
        epoch: U64,
        /// Further data of the step: a request's name, or ranks as bits.
        other: U64,
    }
);

/// Values of [`Link::step`].
pub mod link_steps {
    /// Only acknowledges.
    pub const NONE: u16 = 0;
    /// The sender has sent everything that it brings into this view.
    pub const STATE_SENT: u16 = 1;
    /// The sender has held a lock since an earlier view.
    pub const HOLDS: u16 = 2;
    /// The sender stands for election.
    pub const STANDS: u16 = 3;
    /// The sender leads, by an election in this view or an earlier one.
    pub const LEADS: u16 = 4;
    /// Requests a lock.
    pub const REQUEST: u16 = 8;
    /// Requests a lock, but only if it is free.
    pub const TRY: u16 = 9;
    /// The coordinator grants it.
    pub const GRANT: u16 = 10;
    /// The sender releases the lock, or withdraws its request.
    pub const RELEASE: u16 = 11;
    /// The sender lets the other member go first.
    pub const REPLY: u16 = 12;
    /// It is not free.
    pub const BUSY: u16 = 13;
    /// The token.
    pub const TOKEN: u16 = 14;
    /// A member wants the token.
    pub const WANT: u16 = 15;
    /// Asks for higher candidates. In a ring: the highest candidate so far.
    pub const ELECTION: u16 = 16;
    /// The sender is higher, and stands.
    pub const OK: u16 = 17;
    /// The sender leads from this term on, if a quorum accepts it. In a ring it circulates.
    pub const COORDINATOR: u16 = 18;
    /// Accepted.
    pub const ACCEPTED: u16 = 19;
    /// Another member leads, or was accepted before.
    pub const REFUSED: u16 = 20;
    /// The sender no longer leads, nor stands.
    pub const RESIGNED: u16 = 21;
    /// One past the last.
    pub const END: u16 = 22;
}

/// The lists behind a [`BallotStep`].
#[derive(Clone, Copy, Debug)]
pub struct BallotLists<'a> {
    /// The value's view, oldest first.
    pub members: &'a [MemberEntry],
    /// What the sender has of each stream.
    pub held: &'a [End],
    /// What the sender has beyond them.
    pub held_ranges: &'a [HeldRange],
    /// The value's cut.
    pub cut: &'a [End],
    /// The ranges beyond the ends that belong to the cut.
    pub cut_ranges: &'a [HeldRange],
}

impl BallotStep {
    /// A step and its lists; `None` if any is cut off or longer than a view has members.
    pub fn read_all(body: &[u8]) -> Option<(&Self, BallotLists<'_>)> {
        let (step, rest) = Self::read(body)?;
        if step.ballot.get().max(step.phase.get()).max(step.cut_phase.get()) >= NUMBERS_END {
            return None;
        }
        if step.birth.get() >= BIRTHS_END {
            return None;
        }
        let most = usize::from(Rank::MAX.0) + 1;
        let count = |count: u8| Some(usize::from(count)).filter(|count| *count <= most);
        let (members, rest) = <[MemberEntry]>::ref_from_prefix_with_elems(rest, count(step.members)?).ok()?;
        let (held, rest) = <[End]>::ref_from_prefix_with_elems(rest, count(step.held)?).ok()?;
        let (held_ranges, rest) = <[HeldRange]>::ref_from_prefix_with_elems(rest, count(step.held_ranges)?).ok()?;
        let (cut, rest) = <[End]>::ref_from_prefix_with_elems(rest, count(step.cut)?).ok()?;
        let cut_ranges = <[HeldRange]>::ref_from_bytes_with_elems(rest, count(step.cut_ranges)?).ok()?;
        Some((step, BallotLists { members, held, held_ranges, cut, cut_ranges }))
    }
}

impl End {
    /// A number; the highest that fits, if it does not.
    pub fn new(number: DatagramNumber) -> Self {
        let number = number.0.min((1 << 48) - 1);
        Self { low: (number as u32).into(), high: ((number >> 32) as u16).into() }
    }

    /// The number.
    pub fn get(&self) -> DatagramNumber {
        DatagramNumber(u64::from(self.low.get()) | u64::from(self.high.get()) << 32)
    }
}

impl ViewInfo {
    /// A view and its entries.
    pub fn read_all(body: &[u8]) -> Option<(&Self, &[ViewEntry])> {
        let (info, rest) = Self::read(body)?;
        let entries = <[ViewEntry]>::ref_from_bytes(rest).ok()?;
        let (all, members) = (usize::from(info.entries.get()), info.members.get());
        let fits = entries.len() == all && all <= usize::from(Rank::MAX.0) + 1 && usize::from(members) <= all;
        let honest = entries.iter().all(|entry| entry.first_sequence.get() < NUMBERS_END);
        let born = info.birth.get() < BIRTHS_END;
        (fits && honest && born && info.first_order.get().max(info.phase.get()) < NUMBERS_END)
            .then_some((info, entries))
    }
}

impl Marker {
    /// The value of [`Marker::carries`] where no phase ends.
    pub const ASKS: u64 = 2;

    /// Whether a phase ends here.
    pub fn ends_phase(&self) -> bool {
        self.carries.get() != Self::ASKS
    }
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

impl Link {
    /// A message and the name it is about.
    pub fn read_all(body: &[u8]) -> Option<(&Self, Option<&str>)> {
        let (link, rest) = Self::read(body)?;
        if rest.is_empty() {
            return Some((link, None));
        }
        let (name, _) = split_name(rest)?;
        check_name(name).ok()?;
        Some((link, Some(name)))
    }
}

impl Heartbeat {
    /// The order number of the next message, from the sequencer.
    pub fn order(&self) -> OrderNumber {
        OrderNumber(self.next_order.get())
    }
}

/// Whether a record of this kind can be read from a frame.
pub(crate) fn check(kind: Kind, frame: &Frame<'_>) -> Option<()> {
    let body = frame.body;
    match kind {
        Kind::Data => {}
        Kind::OrderRun => drop(OrderRun::read(body)?),
        Kind::Row => drop(Row::read_all(body)?),
        Kind::Heartbeat => {
            let (heartbeat, _) = Heartbeat::read(body)?;
            let number_fits = heartbeat.next_number.get() <= NUMBER_MASK;
            if !number_fits || heartbeat.next_sequence.get() >= NUMBERS_END || heartbeat.birth.get() >= BIRTHS_END {
                return None;
            }
        }
        Kind::Nak => drop(Nak::read_all(body)?),
        Kind::Unavailable => drop(Unavailable::read(body)?),
        Kind::ClientRequest => {
            let message = ClientRequest::read_all(body)?;
            if message.name.is_some_and(|name| !is_honest(name, frame.topic)) {
                return None;
            }
        }
        Kind::ClientAnswer => drop(ClientAnswer::read(body)?),
        Kind::Ballot => drop(BallotStep::read_all(body)?),
        Kind::View => drop(ViewInfo::read_all(body)?),
        Kind::ViewAsk => drop(ViewAsk::read(body)?),
        Kind::Challenge => drop(Challenge::read(body)?),
        Kind::Progress => {
            let (progress, _) = Progress::read(body)?;
            if progress.delivered.get() >= NUMBERS_END {
                return None;
            }
        }
        Kind::Congestion => drop(Congestion::read(body).filter(|(record, _)| record.from.get() < NUMBERS_END)?),
        Kind::PathReport => drop(PathReport::read(body)?),
        Kind::Ping => drop(Ping::read(body)?),
        Kind::Marker => {
            let (marker, _) = Marker::read(body)?;
            if marker.phase.get().max(marker.sequence.get()) >= NUMBERS_END {
                return None;
            }
        }
        Kind::Transfer => drop(Transfer::read(body)?),
        Kind::Direct => {
            let (direct, _) = Direct::read(body)?;
            if direct.sequence.get().max(direct.oldest.get()) >= NUMBERS_END {
                return None;
            }
        }
        Kind::Link => {
            let (link, _) = Link::read_all(body)?;
            if link.sequence.get().max(link.acknowledged.get()).max(link.number.get()).max(link.epoch.get())
                >= NUMBERS_END
            {
                return None;
            }
        }
    }
    Some(())
}
