//! The sequencer: puts the other members' messages in order.
//!
//! The sequencer's stream is the order. The sequencer's own messages are ordered by their place in that stream, at no
//! cost; for another member's messages it packs an order run, "the next n messages of rank r", among its own. Payload
//! crosses the network once. A burst of received messages needs one run per sender, and the sequencer waits for no
//! further messages.
//!
//! Invariants: a message is put in order once, and only when the sequencer holds all of it and everything its sender
//! sent before it (so never k+1 before k, and a process that delivers up to a run can get the run's payload from the
//! sequencer); a run is packed only where the window has room, so that the order is repaired and retained like any
//! message.
//!
//! Source: the fixed sequencer of Défago, Schiper and Urbán, "Total order broadcast and multicast algorithms" (2004),
//! variant BB (broadcast-broadcast) of Kaashoek's Amoeba, with the sequencer's own messages ordered inline.

use super::stream::Stream;
use crate::mutant::Mutant;
use crate::values::run::Run;
use alloc::vec::Vec;
use bourdon_wire::records::OrderRun;
use bourdon_wire::{Rank, Sequence};

/// The most messages one run names; further messages go into the next run.
const RUN_MAX: u64 = u32::MAX as u64;

/// How many times further than a member an observer may be behind a sender while it is not behind the sequencer.
const OBSERVER_TIMES: u64 = 64;

#[derive(Debug)]
pub(crate) struct Sequencer {
    own: Rank,
    /// Per rank: every message below this has been put in order.
    ordered: Vec<Sequence>,
    /// Where the search for the next run begins, so that no sender is always served last.
    turn: usize,
    /// What the mutant puts in order too late.
    late: Option<Run>,
}

impl Sequencer {
    /// A sequencer of a view whose streams begin at these messages.
    pub(crate) fn new(own: Rank, first: &[Sequence]) -> Self {
        assert!(own.index() < first.len(), "{own} of {} streams", first.len());
        Self { own, ordered: first.to_vec(), turn: 0, late: None }
    }

    /// The next run to pack, if messages of any member wait for one.
    #[inline]
    pub(crate) fn next_run(&mut self, streams: &[Stream], mutant: Option<Mutant>) -> Option<Run> {
        if let Some(late) = self.late.take() {
            return Some(late);
        }
        for _ in 0..streams.len() {
            let stream = &streams[self.turn];
            self.turn = (self.turn + 1) % streams.len();
            if stream.rank == self.own {
                continue;
            }
            let ordered = &mut self.ordered[stream.rank.index()];
            let run_max = if mutant == Some(Mutant::ShortRuns) { 1 } else { RUN_MAX };
            let waiting = stream.window.complete.since(*ordered).min(run_max);
            if waiting > 0 {
                let first = *ordered;
                debug_assert!(first + waiting <= stream.window.complete, "only what is here gets its place");
                *ordered = first + waiting;
                let run = Run { rank: stream.rank, first, count: waiting as u32 };
                if mutant == Some(Mutant::OrderRunsBackwards) && waiting > 1 {
                    let half = run.count / 2;
                    self.late = Some(Run { count: half, ..run });
                    return Some(Run { first: first + u64::from(half), count: run.count - half, ..run });
                }
                return Some(run);
            }
        }
        None
    }

    /// Where messages may be lost, the stream itself states with which message it begins.
    pub(crate) fn begin_at(&mut self, rank: Rank, first: Sequence) {
        self.ordered[rank.index()] = first;
    }

    /// Whether any member's messages wait.
    #[inline]
    pub(crate) fn has_work(&self, streams: &[Stream]) -> bool {
        self.late.is_some()
            || streams.iter().any(|s| s.rank != self.own && s.window.complete > self.ordered[s.rank.index()])
    }
}

/// Whether an order run can name messages of a stream that has come to `complete` here. `log_messages`: as many as a
/// log can hold; `follows`: this process is an observer, for which the window does not wait.
pub(crate) fn is_run_plausible(run: &OrderRun, complete: Option<Sequence>, log_messages: u64, follows: bool) -> bool {
    let count = u64::from(run.count.get());
    let ahead = log_messages.saturating_mul(if follows { OBSERVER_TIMES } else { 1 });
    let end = run.first_sequence.get().saturating_add(count);
    count > 0 && count <= ahead && complete.is_none_or(|complete| end <= complete.0.saturating_add(ahead))
}
