//! Durable: what a member stores, and what counts as held only once it is stored.
//!
//! A message that a majority holds in memory is lost when the power goes. If a member simply wrote what it received to
//! its disk, it would acknowledge a message before it is stored, and a crash would take the message; and if it forgot
//! what it had promised in a ballot, two views could follow one. So the rule is: **a crash may lose only what the
//! member has reported to no other process.** The member hands out records of what it holds, promises, accepts and
//! enters, and reports each to others only once its record is stored. With "holds" meaning "has stored", uniform
//! delivery is durable delivery.
//!
//! A record is a datagram of the group, as it was sent or could be: those of the streams as they are, `PREPARE` for a
//! promise, `PROPOSE` for what was accepted, `DECIDE` and `View` for the next view, `Row` for how far a quorum holds
//! each stream. So one format has one reader, and each record has its checksum. Records are stored in their order; a
//! crash leaves a prefix of them.
//!
//! This file keeps the account of records; `process/storage.rs` is where a process hands them out and hears that they
//! are stored, and `process/restore.rs` is the restart. Datagrams are handed out from the logs in which they are: a
//! step that receives one does nothing for it, and where nothing is stored all this is absent.
//!
//! Invariants: what a member reports to others as held, promised or accepted is stored; no slot of a log is used again
//! before a stored `Row` lets a restarted member deliver what was in it. Source: stable storage in Lamport, "The
//! part-time parliament" (1998); group commit, DeWitt et al., "Implementation techniques for main memory database
//! systems" (1984).

use super::flow::own_window;
use super::pipeline::Pipeline;
use crate::config::{Config, Reliability, Role};
use crate::outbox::sealed;
use crate::values::handover::EndReport;
use crate::view::View;
use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::vec;
use alloc::vec::Vec;
use bourdon_wire::records::{OrderRun, Row, RowEntry};
use bourdon_wire::{
    ClientId, DatagramHeader, DatagramNumber, Epoch, Frames, HEADER_BYTES, Kind, OrderNumber, Rank, Sequence,
};
use zerocopy::IntoBytes;

/// Once a stream is delivered so many parts of a window further, that is stored, and its slots can be used again.
const FREED_PART: u64 = 16;

/// What waits until a record is stored.
#[derive(Clone, Debug)]
pub(crate) enum Awaiting {
    /// Nothing: the records behind it do.
    Nothing,
    /// The stream counts as held up to here.
    Held(Rank, DatagramNumber),
    /// Each stream's slots below this can be used again.
    Freed(Vec<DatagramNumber>),
    /// This is reported to the agreement.
    Report(EndReport),
    /// The next view is entered.
    Entry(Epoch),
}

/// A record that is no datagram of a stream.
#[derive(Debug)]
struct Entry {
    bytes: Vec<u8>,
    /// The view that it begins.
    begins: Option<Epoch>,
    awaiting: Awaiting,
}

/// A view whose record is made once the table of locks at its beginning is known, and the state of an application that
/// began with another member's.
#[derive(Debug)]
pub(crate) struct PendingView {
    pub(crate) view: View,
    /// Its frame, in parts: see `ViewInfo`.
    pub(crate) info: Vec<u8>,
    pub(crate) entries: Vec<u8>,
    /// The record of the decision, unless the view was joined.
    pub(crate) decision: Option<Vec<u8>>,
    /// What was delivered of each client before.
    pub(crate) clients: Vec<(ClientId, Sequence, Sequence)>,
    /// The request for the table.
    pub(crate) ticket: u64,
    /// The table.
    pub(crate) table: Option<Vec<u8>>,
    /// Nothing of the view is stored before the application's state.
    pub(crate) awaits_state: bool,
    /// Its record has a row, for a state that stands before it.
    pub(crate) has_row: bool,
}

/// What a durable member keeps about its records.
#[derive(Debug)]
pub(crate) struct Storage {
    /// Records to be taken.
    entries: VecDeque<Entry>,
    /// How many records were taken.
    taken: u64,
    /// For each record that something waits for, the number of records up to it.
    awaiting: VecDeque<(u64, Awaiting)>,
    /// By rank: the datagrams of the current view below this were taken.
    recorded: Vec<DatagramNumber>,
    /// By rank: up to where the stream was delivered when that was last recorded.
    freed: Vec<DatagramNumber>,
    /// Bytes of the current view's datagrams that were taken.
    view_bytes: u64,
    /// The last view of which a record was made, and whether that is stored.
    view: (View, bool),
    /// The view of which the record is being made.
    pending: Option<PendingView>,
}

impl Storage {
    /// Of a member at `durable`; elsewhere nothing is stored.
    pub(crate) fn of(config: &Config) -> Option<Box<Self>> {
        let stores = config.reliability == Reliability::Durable && matches!(config.role, Role::Member(_));
        let marks = vec![DatagramNumber(0); usize::from(config.members)];
        stores.then(|| {
            Box::new(Self {
                entries: VecDeque::new(),
                taken: 0,
                awaiting: VecDeque::new(),
                recorded: marks.clone(),
                freed: marks,
                view_bytes: 0,
                view: (View::none(Epoch(0), config.sequencer), false),
                pending: None,
            })
        })
    }

    /// Adds a record.
    pub(crate) fn push(&mut self, bytes: Vec<u8>, awaiting: Awaiting) {
        self.entries.push_back(Entry { bytes, begins: None, awaiting });
    }

    /// A view is entered: nothing of the view before is waited for any more.
    pub(crate) fn enter(&mut self) {
        self.awaiting.clear();
        self.entries.iter_mut().for_each(|entry| entry.awaiting = Awaiting::Nothing);
        self.recorded.fill(DatagramNumber(0));
        self.freed.fill(DatagramNumber(0));
        self.view_bytes = 0;
    }

    /// Hands out the entries up to the beginning of this view, or all.
    pub(crate) fn hand_out(&mut self, view: Option<Epoch>, take: &mut impl FnMut(&[u8])) {
        let begins = |entry: &Entry| entry.begins.is_some() && entry.begins == view;
        let count = match view {
            Some(_) => self.entries.iter().position(begins).map_or(0, |index| index + 1),
            None => self.entries.len(),
        };
        for Entry { bytes, awaiting, .. } in self.entries.drain(..count) {
            take(&bytes);
            self.taken += 1;
            if !matches!(awaiting, Awaiting::Nothing) {
                self.awaiting.push_back((self.taken, awaiting));
            }
        }
    }

    /// Hands out the datagrams of the current view that have come since the last call.
    pub(crate) fn hand_out_datagrams(&mut self, data: &Pipeline, take: &mut impl FnMut(&[u8])) {
        for stream in &data.streams {
            let recorded = &mut self.recorded[stream.rank.index()];
            // A datagram that was closed early and not sent may still be filled further.
            let end = match &data.outbound {
                Some(outbound) if outbound.rank == stream.rank && data.end.is_open() => outbound.packer.sent,
                _ => stream.window.next,
            };
            let before = *recorded;
            while *recorded < end
                && let Some(bytes) = stream.log.get(*recorded)
            {
                take(bytes);
                self.taken += 1;
                self.view_bytes += bytes.len() as u64;
                *recorded = recorded.next();
            }
            assert!(*recorded >= end, "no slot is used again before its datagram was taken");
            if *recorded > before {
                self.awaiting.push_back((self.taken, Awaiting::Held(stream.rank, *recorded)));
            }
        }
    }

    /// Whether some stream has been delivered so far beyond what was recorded that this is to be recorded again.
    pub(crate) fn is_row_due(&self, data: &Pipeline) -> bool {
        let step = (own_window(&data.config) / FREED_PART).max(1);
        data.streams.iter().any(|stream| stream.floor().since(self.freed[stream.rank.index()]) >= step)
    }

    /// How far a quorum holds each stream, and how far it is delivered here: a restarted member delivers as far.
    pub(crate) fn record_row(&mut self, data: &Pipeline, header: DatagramHeader, wall_ns: u64) {
        let (row, entries) = data.stored_row();
        let bytes = sealed(header, Kind::Row, [row.as_bytes(), entries.as_bytes()], wall_ns);
        self.freed = data.streams.iter().map(|stream| stream.floor()).collect();
        self.push(bytes, Awaiting::Freed(self.freed.clone()));
    }

    /// Bytes of the current view's datagrams that were taken.
    pub(crate) fn view_bytes(&self) -> u64 {
        self.view_bytes
    }

    /// This view is among the records.
    pub(crate) fn note_view(&mut self, view: View) {
        self.view = (view, true);
    }

    /// So many records are stored already.
    pub(crate) fn note_taken(&mut self, taken: u64) {
        self.taken = taken;
    }

    /// A member was restarted with what is stored: all of it was recorded.
    pub(crate) fn restored(&mut self, data: &Pipeline, taken: u64) {
        self.taken = taken;
        self.recorded = data.streams.iter().map(|stream| stream.window.next).collect();
        self.freed = data.streams.iter().map(|stream| stream.floor()).collect();
    }

    /// Adds the record of a view that is to be entered.
    pub(crate) fn push_view(&mut self, view: View, bytes: Vec<u8>) {
        let epoch = view.epoch;
        self.view = (view, false);
        self.entries.push_back(Entry { bytes, begins: Some(epoch), awaiting: Awaiting::Entry(epoch) });
    }

    /// The record of this view is made later: [`Storage::pop_pending`].
    pub(crate) fn note_pending(&mut self, pending: PendingView) {
        self.pending = Some(pending);
    }

    /// The table of this ticket is known.
    pub(crate) fn note_table(&mut self, ticket: u64, table: &[u8]) {
        let awaiting = self.pending.as_mut().filter(|pending| pending.ticket == ticket);
        awaiting.into_iter().for_each(|pending| pending.table = Some(table.to_vec()));
    }

    /// The application's state comes next, or not at all.
    pub(crate) fn note_state(&mut self) {
        self.pending.iter_mut().for_each(|pending| pending.awaits_state = false);
    }

    /// The view whose record can be made.
    pub(crate) fn pop_pending(&mut self) -> Option<PendingView> {
        self.pending.take_if(|pending| pending.table.is_some() && !pending.awaits_state)
    }

    /// Whether the record of this view is being made: what follows it is stored behind it.
    pub(crate) fn is_pending(&self, view: &View) -> bool {
        self.pending.as_ref().is_some_and(|pending| pending.view == *view)
    }

    /// Whether this view is among the records, and whether its record is stored.
    pub(crate) fn has_view(&self, view: &View) -> (bool, bool) {
        (self.view.0 == *view, self.view.1)
    }

    /// The view of this epoch is stored.
    pub(crate) fn view_stored(&mut self, epoch: Epoch) {
        self.view.1 |= self.view.0.epoch == epoch;
    }

    /// What waited for one of the first `upto` records, in order.
    pub(crate) fn pop_stored(&mut self, upto: u64) -> Option<Awaiting> {
        self.awaiting.pop_front_if(|(record, _)| *record <= upto).map(|(_, awaiting)| awaiting)
    }

    /// How many records were handed out.
    pub(crate) fn taken(&self) -> u64 {
        self.taken
    }

    /// What is kept until it is stored, in entries.
    pub(crate) fn held(&self) -> usize {
        self.entries.len() + self.awaiting.len()
    }
}

impl Pipeline {
    /// How far a quorum holds each stream, and how far it is delivered here.
    pub(crate) fn stored_row(&self) -> (Row, Vec<RowEntry>) {
        let row = Row {
            reached_phase: self.barrier.phase.into(),
            delivered_order: self.delivered_order().0.into(),
            heard_from: 0.into(),
            progress: 0.into(),
        };
        let none = DatagramNumber(0);
        let stop = |stop: DatagramNumber| if stop.0 == u64::MAX { none } else { stop };
        let entries = self.streams.iter().map(|stream| RowEntry::new(stop(stream.stop), stream.floor()));
        (row, entries.collect())
    }

    /// A restarted member learns how far a quorum held each stream.
    pub(crate) fn raise_stops_to(&mut self, marks: impl Iterator<Item = DatagramNumber>) {
        for (stream, mark) in self.streams.iter_mut().zip(marks) {
            stream.stop = if stream.stop.0 == u64::MAX { mark } else { stream.stop.max(mark) };
        }
    }

    /// The order number of what a stream has behind its last datagram that is here, if its sender is the sequencer.
    pub(crate) fn order_at_end(&self, rank: Rank) -> OrderNumber {
        let stream = &self.streams[rank.index()];
        let last = stream.window.next.0.checked_sub(1).and_then(|last| stream.log.entry(DatagramNumber(last)));
        let Some((slot, bytes)) = last else { return self.beginning.order };
        let frames = Frames::new(&bytes[HEADER_BYTES..], DatagramHeader::of_checked(bytes).count());
        let runs = frames.filter(|frame| frame.kind() == Some(Kind::OrderRun));
        let ordered = runs.filter_map(|frame| OrderRun::read(frame.body).map(|(run, _)| u64::from(run.count.get())));
        DatagramHeader::of_checked(bytes).first_order() + u64::from(slot.messages) + ordered.sum::<u64>()
    }
}
