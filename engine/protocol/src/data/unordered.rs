//! Unordered: a message is delivered as soon as it is received, whatever is missing before it.
//!
//! Holding messages back costs a round trip for every loss, and some applications do not need it. A datagram that
//! arrives beyond a gap is delivered at once and marked, so that the cursor passes over it when it reaches it. Only
//! messages that are whole in one frame can run ahead; a fragmented message is delivered when the cursor reaches it.
//!
//! Invariant: the mark is set before the first message of the datagram is delivered, and the cursor respects it, so
//! nothing is delivered twice.

use super::after::is_held;
use super::stream::{Step, Stream};
use crate::event::Message;
use crate::values::cut::Range;
use alloc::collections::VecDeque;
use bourdon_wire::records::HeldRange;
use bourdon_wire::{DatagramHeader, DatagramNumber, Frames, HEADER_BYTES, Kind, Rank, Sequence, flags};

/// What has arrived beyond a gap: at most one entry a slot of every receive log.
#[derive(Debug, Default)]
pub(crate) struct Unordered {
    pub(crate) early: VecDeque<(Rank, DatagramNumber)>,
}

impl Unordered {
    /// Delivers at most `limit` messages and the rest of the last datagram; returns how many.
    pub(crate) fn deliver(
        &mut self,
        streams: &mut [Stream],
        turn: usize,
        limit: usize,
        ranges_max: usize,
        step: &Step,
        emit: &mut impl FnMut(&Message<'_>),
    ) -> usize {
        let mut count = 0;
        while count < limit
            && let Some((rank, number)) = self.early.pop_front()
        {
            // A datagram without a place among the ranges waits for its turn.
            if may_run_ahead(streams, rank, number, ranges_max) {
                count += deliver_early(&mut streams[rank.index()], number, step, emit);
            }
        }
        count + super::fifo::deliver(streams, turn, limit - count.min(limit), step, emit)
    }
}

/// How many runs of datagrams beyond gaps a process may have delivered. They are reported in a view change, where the
/// runs of all members together must fit one datagram.
pub(crate) fn early_ranges_max(members: u16) -> usize {
    EARLY_RANGES_OF_ALL / usize::from(members.max(1))
}

/// The runs of all members together: 320 bytes.
pub(crate) const EARLY_RANGES_OF_ALL: usize = 32;
const _: () = assert!(EARLY_RANGES_OF_ALL * HeldRange::BYTES == 320);

/// No run grows longer, so that two runs and what joins them can still be counted in 16 bits.
const EARLY_RUN_MAX: u16 = u16::MAX / 2;
const _: () = assert!(2 * (EARLY_RUN_MAX as u32) < u16::MAX as u32);

/// The runs of a stream's datagrams that were delivered ahead of their turn.
pub(crate) fn early_ranges(stream: &Stream) -> impl Iterator<Item = Range> {
    let is_early = |number: u64| stream.log.slot(DatagramNumber(number)).is_some_and(|slot| slot.delivered_early);
    let (next, end) = (stream.window.next.0, stream.window.known_end.0);
    let begins = move |number: &u64| is_early(*number) && (*number == next || !is_early(*number - 1));
    (next..end).filter(begins).map(move |first| {
        let count = (first..end).take_while(|number| is_early(*number)).take(usize::from(u16::MAX)).count();
        debug_assert!(count > 0 && first > next, "what is delivered early lies beyond a gap");
        Range { rank: stream.rank, first: DatagramNumber(first), count: count as u16 }
    })
}

/// Whether a message was delivered ahead of its turn that the cursor has not passed.
pub(crate) fn has_run_ahead(stream: &Stream) -> bool {
    let is_early = |number: u64| stream.log.slot(DatagramNumber(number)).is_some_and(|slot| slot.delivered_early);
    (stream.floor().0..stream.window.known_end.0).any(is_early)
}

fn may_run_ahead(streams: &[Stream], rank: Rank, number: DatagramNumber, ranges_max: usize) -> bool {
    let extends = |range: &Range| range.rank == rank && (range.has(rank, number.next()) || range.end() == number);
    let mut count = 0;
    for range in streams.iter().flat_map(early_ranges) {
        if extends(&range) {
            return range.count < EARLY_RUN_MAX;
        }
        count += 1;
    }
    count < ranges_max
}

/// Delivers a datagram beyond a gap, as a cut requires; returns how many messages.
pub(crate) fn deliver_early(
    stream: &mut Stream,
    number: DatagramNumber,
    step: &Step,
    emit: &mut impl FnMut(&Message<'_>),
) -> usize {
    // The gap may have closed in the meantime and the cursor may be inside this very datagram: then it is not early. Or
    // it was delivered in turn, and lies beyond the point where the cut stops this stream.
    if number < stream.end() || number < stream.cursor.floor() {
        return 0;
    }
    // Messages that were already passed, here or where a snapshot came from, are not early either.
    let (at, walked) = stream.cursor.position();
    let passed = if at == number { walked } else { 0 };
    if stream.log.get(number).is_some_and(|bytes| any_held(bytes, step)) {
        return 0; // nor does it run ahead of another group's message
    }
    let Some(slot) = stream.log.slot_mut(number).filter(|slot| !slot.delivered_early) else { return 0 };
    slot.delivered_early = true;
    let kernel_receive_ns = Some(slot.kernel_receive_ns).filter(|ns| *ns != 0);
    let Some(bytes) = stream.log.get(number) else { return 0 };
    let header = DatagramHeader::of_checked(bytes);
    let mut sequence = header.first_sequence();
    let mut count = 0;
    for (place, frame) in (0..).zip(Frames::new(&bytes[HEADER_BYTES..], header.count())) {
        let whole = place >= passed && frame.kind() == Some(Kind::Data) && frame.flags & flags::WHOLE == flags::WHOLE;
        if whole && let Some(head) = frame.data() {
            emit(&Message {
                sender: stream.rank,
                incarnation: stream.incarnation,
                instance: step.instance,
                sequence,
                order: None,
                epoch: step.epoch,
                late: step.late,
                topic: frame.topic,
                name: head.name,
                send_time_ns: head.intended_send_ns.unwrap_or(header.send_time_ns()),
                kernel_receive_ns,
                delivered_at: step.now,
                client: head.client,
                barrier: None,
                payload: head.payload,
            });
            count += 1;
        }
        sequence = Sequence(sequence.0 + u64::from(frame.ends_message()));
    }
    count
}

/// Whether a datagram has a message that waits for a message of another group.
fn any_held(bytes: &[u8], step: &Step) -> bool {
    let count = DatagramHeader::of_checked(bytes).count();
    Frames::new(&bytes[HEADER_BYTES..], count).any(|frame| is_held(&frame, step.passed))
}
