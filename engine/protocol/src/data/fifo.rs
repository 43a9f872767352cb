//! FIFO: each sender's messages in the order it sent them.
//!
//! Delivering as datagrams arrive would let a repair overtake what it repairs. Each stream is delivered by itself, up
//! to the first datagram that is missing; there is no order between streams.
//!
//! Invariant: a sender's message is delivered only after all its earlier ones.

use super::stream::{Step, Stream};
use crate::event::Message;

/// Delivers at most `limit` messages, each stream in turn, starting with a different stream each time, so that no
/// stream starves behind a busy one; returns how many.
pub(crate) fn deliver(
    streams: &mut [Stream],
    turn: usize,
    limit: usize,
    step: &Step,
    emit: &mut impl FnMut(&Message<'_>),
) -> usize {
    debug_assert!(turn < streams.len(), "stream {turn} of {}", streams.len());
    let mut count = 0;
    let (before, after) = streams.split_at_mut(turn);
    for stream in after.iter_mut().chain(before) {
        while count < limit {
            match stream.deliver_next(None, limit - count, step, emit) {
                0 => break,
                messages => count += messages,
            }
        }
    }
    debug_assert!(count <= limit, "{count} messages of at most {limit}");
    count
}
