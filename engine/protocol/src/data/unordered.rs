//! Unordered: a message is delivered as soon as it is here, whatever is missing before it.
//!
//! Holding back costs a round trip for every loss, and some applications do not care. A datagram that arrives beyond a
//! gap is delivered at once and marked, so that the cursor passes over it when it comes by. Only messages that are whole
//! in one frame can run ahead; a fragmented one is delivered when the cursor reaches it.
//!
//! Invariant 1: the mark is set before the first message of the datagram is handed out, and the cursor honours it, so
//! nothing is delivered twice.

use super::stream::{Step, Stream};
use crate::event::Delivery;
use alloc::collections::VecDeque;
use bourdon_wire::{DatagramHeader, DatagramNumber, Frames, HEADER_BYTES, Kind, Rank, Sequence, flags};

/// What has arrived beyond a gap: at most one entry a slot of every receive log.
#[derive(Debug, Default)]
pub(crate) struct Unordered {
    pub(crate) early: VecDeque<(Rank, DatagramNumber)>,
}

impl Unordered {
    /// Delivers at most `limit` messages and the rest of the last datagram; says how many.
    pub(crate) fn deliver(
        &mut self,
        streams: &mut [Stream],
        turn: usize,
        limit: usize,
        step: &Step,
        emit: &mut impl FnMut(Delivery<'_>),
    ) -> usize {
        let mut count = 0;
        while count < limit
            && let Some((rank, number)) = self.early.pop_front()
        {
            count += deliver_early(&mut streams[rank.index()], number, step, emit);
        }
        count + super::fifo::deliver(streams, turn, limit - count.min(limit), step, emit)
    }
}

fn deliver_early(
    stream: &mut Stream,
    number: DatagramNumber,
    step: &Step,
    emit: &mut impl FnMut(Delivery<'_>),
) -> usize {
    // The gap may have closed meanwhile and the cursor may stand in this very datagram: then it is not early.
    if number < stream.end() {
        return 0;
    }
    let Some(slot) = stream.log.slot_mut(number).filter(|slot| !slot.delivered_early) else { return 0 };
    slot.delivered_early = true;
    let kernel_receive_ns = Some(slot.kernel_receive_ns).filter(|ns| *ns != 0);
    let Some(bytes) = stream.log.get(number) else { return 0 };
    let header = DatagramHeader::of_checked(bytes);
    let mut sequence = header.first_sequence();
    let mut count = 0;
    for frame in Frames::new(&bytes[HEADER_BYTES..], header.count()) {
        let whole = frame.kind() == Some(Kind::Data) && frame.flags & flags::WHOLE == flags::WHOLE;
        if whole && let Some(head) = frame.data() {
            emit(Delivery {
                sender: stream.rank,
                sequence,
                order: None,
                epoch: step.epoch,
                topic: frame.topic,
                send_time_ns: head.intended_send_ns.unwrap_or(header.send_time_ns()),
                kernel_receive_ns,
                delivered_at: step.now,
                client: head.client,
                payload: head.payload,
            });
            count += 1;
        }
        sequence = Sequence(sequence.0 + u64::from(frame.ends_message()));
    }
    count
}
