//! What a process knows of a stream whose messages may be lost, besides the datagrams that it received. [`super::loss`]
//! uses it.

use bourdon_wire::{DatagramNumber, Instant, Sequence};

/// So many heartbeats of the sequencer must pass over a message that has no place before it is given up: its order may
/// be under way when the first comes, and a heartbeat may have overtaken another.
pub(super) const HEARTBEATS: usize = 3;

/// The end of a stream as its sender announces it: what the next datagram will be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct End {
    pub(crate) number: DatagramNumber,
    /// The first message in it.
    pub(crate) sequence: Sequence,
    /// The phase it will be in, or one before.
    pub(crate) phase: u64,
}

/// What else is known of a lossy stream.
#[derive(Debug, Default)]
pub(crate) struct Loose {
    /// The end of the stream as its sender last stated it.
    pub(crate) stated: Option<End>,
    /// How far it had been received here at the sequencer's last heartbeats, the newest first.
    pub(super) seen: [DatagramNumber; HEARTBEATS],
    /// The message with which it began in this view, once a heartbeat has stated it.
    pub(crate) first: Option<Sequence>,
    /// What is missing at its end will never come: its sender is gone, and the view ends.
    pub(crate) is_over: bool,
    /// A hole ended where nothing is yet: what comes there may be the rest of a message that began in the hole.
    pub(crate) may_be_cut: bool,
    /// Since when the gap before this datagram has existed.
    pub(super) gap: Option<(DatagramNumber, Instant)>,
}

impl Loose {
    /// Since when there has been a gap before `next`.
    pub(super) fn gap_since(&mut self, next: DatagramNumber, now: Instant) -> Instant {
        match self.gap.filter(|(number, _)| *number == next) {
            Some((_, since)) => {
                debug_assert!(since <= now, "time does not go back: a gap since {since:?} at {now:?}");
                since
            }
            None => {
                self.gap = Some((next, now));
                now
            }
        }
    }
}
