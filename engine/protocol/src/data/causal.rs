//! Causal: no message before the messages that its sender had delivered when it sent it.
//!
//! FIFO keeps each sender's order, but a reply may overtake the message it replies to when the two come from different
//! senders. Each message therefore states how many messages of each other member its sender had delivered; a receiver
//! holds it back until it has delivered as many. Since a sender's messages arrive in order, only entries that changed
//! since its last message are sent (Singhal and Kshemkalyani 1992, "An efficient implementation of vector clocks"): a
//! message need not wait again for what an earlier message waited for. The first message of each datagram still carries
//! the whole vector, because an observer that came late, or lost the earlier datagrams, has not waited for what those
//! datagrams stated. Vectors are indexed by rank and end with the epoch.
//!
//! Invariant: a message is delivered only when, for each entry (rank, n) of its vector, n messages of that rank have
//! been delivered here. Deviation: entries count messages delivered, not events, as in Birman, Schiper and Stephenson's
//! CBCAST (1991).

use super::stream::{Step, Stream};
use crate::event::Message;
use crate::mutant::Mutant;
use alloc::vec;
use alloc::vec::Vec;
use bourdon_wire::{CausalEntry, Kind, Rank, Sequence, flags};

#[derive(Debug)]
pub(crate) struct Causal {
    /// The entry of each rank in the last message sent.
    sent: Vec<Sequence>,
    /// The vector of the message being sent.
    vector: Vec<CausalEntry>,
}

impl Causal {
    pub(crate) fn new(members: usize) -> Self {
        Self { sent: vec![Sequence(0); members], vector: Vec::with_capacity(members) }
    }

    /// Computes the vector of the next message of `own`: the entries that changed, or `all` entries.
    pub(crate) fn prepare(&mut self, streams: &[Stream], own: Rank, all: bool) {
        self.vector.clear();
        for stream in streams.iter().filter(|stream| stream.rank != own) {
            let sent = if all { Sequence(0) } else { self.sent[stream.rank.index()] };
            if stream.delivered != sent {
                self.vector.push(CausalEntry::new(stream.rank, stream.delivered));
            }
        }
        debug_assert!(self.vector.len() < streams.len(), "an entry for each other member at most");
    }

    /// The vector last prepared.
    pub(crate) fn vector(&self) -> &[CausalEntry] {
        &self.vector
    }

    /// The message that carries the vector was packed.
    pub(crate) fn sent(&mut self) {
        for entry in self.vector.drain(..) {
            self.sent[entry.rank().index()] = entry.delivered();
        }
    }

    /// Delivers at most `limit` messages; returns how many.
    pub(crate) fn deliver(
        streams: &mut [Stream],
        turn: usize,
        limit: usize,
        step: &Step,
        mutant: Option<Mutant>,
        emit: &mut impl FnMut(&Message<'_>),
    ) -> usize {
        let mut count = 0;
        // A delivery may release messages of streams already passed, so the loop repeats until nothing moves.
        loop {
            let before = count;
            for place in 0..streams.len() {
                let index = (turn + place) % streams.len();
                while count < limit && is_due(streams, index, mutant) && streams[index].deliver_one(None, step, emit) {
                    count += 1;
                }
                if !streams[index].skipped.is_empty() {
                    return count; // what depends on a lost message comes after the report of its loss
                }
            }
            debug_assert!(count <= limit, "{count} messages of at most {limit}");
            if count == before {
                return count;
            }
        }
    }
}

/// Whether the next message of a stream depends on nothing that has not been delivered.
fn is_due(streams: &mut [Stream], index: usize, mutant: Option<Mutant>) -> bool {
    let stream = &mut streams[index];
    if stream.is_loose && (!stream.skipped.is_empty() || stream.look_ahead()) {
        return false; // reported first
    }
    let end = stream.end();
    // Records between messages depend on nothing.
    loop {
        let Some(frame) = stream.cursor.frame(&stream.log, end) else { return false };
        if frame.kind() == Some(Kind::Data) {
            break;
        }
        let body_bytes = frame.body.len();
        if stream.is_stopped_by(&frame) {
            return false;
        }
        stream.cursor.step(body_bytes, false);
    }
    let stream = &streams[index];
    let Some(frame) = stream.cursor.peek(&stream.log) else { return false };
    if frame.flags & flags::CAUSAL == 0 || mutant == Some(Mutant::IgnoreCausalDependency) {
        return true;
    }
    let entries = frame.data().map_or(&[][..], |head| head.causal);
    entries.iter().all(|entry| {
        // No message waits for a rank outside the view.
        streams
            .get(entry.rank().index())
            .filter(|stream| stream.is_present)
            .is_none_or(|s| s.delivered >= entry.delivered())
    })
}
