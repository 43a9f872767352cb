//! Where a process hands out its records and hears that they are stored: see `data/durable.rs`.

use super::{Process, Standing, steps};
use crate::control::view_change::{Ballot, Step, Value};
use crate::data::durable::{Awaiting, PendingView};
use crate::mutant::Mutant;
use crate::outbox::{sealed, sealed_frames};
use crate::values::handover::EndReport;
use crate::values::position::Position;
use crate::view::{Beginning, View};
use alloc::vec;
use alloc::vec::Vec;
use bourdon_wire::records::transfer_steps;
use bourdon_wire::{DatagramNumber, Epoch, Instant, Kind, OrderNumber, Sequence};
use zerocopy::IntoBytes;

impl Process {
    /// Hands out what is to be stored, one record a call, in the order in which it must be stored. Returns how many
    /// records this process has handed out so far: see [`Process::stored`]. A member at the level `durable` has some;
    /// its caller takes them after each step, before it sleeps.
    pub fn take_records(&mut self, now: Instant, mut take: impl FnMut(&[u8])) -> u64 {
        let Some(mut storage) = self.storage.take() else { return 0 };
        if storage.is_pending(&self.data.view) {
            let taken = storage.taken();
            self.storage = Some(storage);
            return taken; // the beginning of the view comes first
        }
        if self.state.takes_part() {
            storage.hand_out(Some(self.data.view.epoch), &mut take);
            let (before, limit) = (storage.view_bytes(), self.cx.config.limits.stored_view_bytes);
            storage.hand_out_datagrams(&self.data, &mut take);
            if before < limit && storage.view_bytes() >= limit {
                self.look_due = now;
            }
            if storage.is_row_due(&self.data) {
                let header = self.cx.header(self.data.view.instance, self.data.view.epoch);
                storage.record_row(&self.data, header, self.cx.wall(now));
            }
        }
        storage.hand_out(None, &mut take);
        let taken = storage.taken();
        self.storage = Some(storage);
        taken
    }

    /// The first `upto` records are stored: no crash loses them any more.
    pub fn stored(&mut self, now: Instant, upto: u64) {
        let mut any_held = false;
        while let Some(storage) = &mut self.storage
            && let Some(awaiting) = storage.pop_stored(upto)
        {
            match awaiting {
                Awaiting::Nothing => {}
                Awaiting::Held(rank, end) => {
                    let stream = &mut self.data.streams[rank.index()];
                    stream.stored = stream.stored.max(end);
                    any_held = true;
                }
                Awaiting::Freed(floors) => {
                    self.data.streams.iter_mut().zip(floors).for_each(|(stream, floor)| stream.free(floor));
                    self.data.update_flow();
                    any_held = true; // the others may send more
                }
                Awaiting::Report(report) => self.report_stored_end(now, report),
                Awaiting::Entry(epoch) => {
                    storage.view_stored(epoch);
                    self.look_due = now;
                }
            }
        }
        if any_held {
            self.data.note_rows();
            if let Some(outbound) = self.data.outbound.as_mut().filter(|_| self.data.end.is_open()) {
                outbound.ack.due = now;
            }
            self.settle_clients(now);
            self.settle_grants(now);
        }
    }

    /// Records what the data plane reports to the agreement; returns the report if it waits for nothing.
    pub(super) fn store_report(&mut self, report: EndReport) -> Option<EndReport> {
        let header = self.cx.header(self.data.view.instance, self.data.view.epoch);
        let forms = self.data.view.epoch == Epoch(0);
        let Some(storage) = &mut self.storage else { return Some(report) };
        if self.cx.config.mutant == Some(Mutant::PromiseNotStored) {
            return Some(report);
        }
        let (ballot, step) = match &report {
            // Before the first view nothing that was promised binds: see `ViewChange::adopted`.
            EndReport::Wedged(..) if forms => return Some(report),
            EndReport::Wedged(ballot, _) => (Ballot(ballot.0), Step::Prepare),
            EndReport::CutHeld(ballot) => {
                let proposed = self.state.ending_mut().and_then(|ending| ending.proposed.take());
                let Some((ballot, value)) = proposed.filter(|(proposed, _)| proposed.0 == ballot.0) else {
                    return Some(report);
                };
                (ballot, Step::Propose(value))
            }
        };
        let bytes = steps::encode(ballot, &step);
        storage.push(sealed(header, Kind::Ballot, [&bytes, &[]], 0), Awaiting::Report(report));
        None
    }

    /// The agreement has a value whose cut is to be fetched.
    pub(super) fn note_proposed(&mut self, ballot: Ballot, value: Value) {
        if let Some(ending) = self.state.ending_mut().filter(|_| self.storage.is_some()) {
            ending.proposed = Some((ballot, value));
        }
    }

    /// Whether the view that was decided may be entered: all of the view before has been delivered, and at `durable`
    /// the decision is stored, and where the view begins.
    pub(super) fn may_install(&mut self, now: Instant, value: &Value) -> bool {
        let (epoch, next) = (self.data.view.epoch, value.view(self.data.view.epoch.next()));
        let own = self.cx.own_member().filter(|own| next.contains(*own) && !self.lacks_stored_state());
        let Some(storage) = self.storage.as_mut().filter(|_| own.is_some()) else { return true };
        if let (true, is_stored) = storage.has_view(&next) {
            return is_stored;
        }
        if storage.is_pending(&next) {
            return false;
        }
        let step = steps::encode(Ballot(0), &Step::Decide(value.clone()));
        let header = self.cx.header(value.instance, epoch);
        let decision = sealed(header, Kind::Ballot, [&step, &[]], 0);
        let mut beginning = self.data.next_beginning();
        beginning.first.resize(usize::from(self.cx.config.members), Sequence(0));
        self.record_view(next, &beginning, Some(decision));
        self.pass_reports(now);
        false
    }

    /// Records a view, where it begins, and what it begins with: what was delivered of each client, and the table of
    /// locks, once the coordinator gives it.
    fn record_view(&mut self, view: View, beginning: &Beginning, decision: Option<Vec<u8>>) {
        let (info, entries) = self.view_record((&view, beginning, 0), 0);
        let (info, entries) = (info.as_bytes().to_vec(), entries.as_bytes().to_vec());
        let (clients, ticket) = (self.clients.runs(), self.want_table());
        let awaits_state = self.data.view == view && self.lacks_stored_state();
        let (table, has_row) = (None, awaits_state);
        let pending = PendingView { view, info, entries, decision, clients, ticket, table, awaits_state, has_row };
        if let Some(storage) = &mut self.storage {
            storage.note_pending(pending);
        }
    }

    /// The table with which a view begins has come.
    pub(super) fn store_table(&mut self, now: Instant, ticket: u64, table: &[u8]) {
        self.storage.iter_mut().for_each(|storage| storage.note_table(ticket, table));
        self.record_pending(now);
    }

    /// Makes the record of the next view, if all is there.
    pub(super) fn record_pending(&mut self, now: Instant) {
        let Some(pending) = self.storage.as_mut().and_then(|storage| storage.pop_pending()) else { return };
        let PendingView { view, info, entries, decision, clients, table, has_row, .. } = pending;
        let (row, row_entries) = self.data.stored_row();
        let table = table.unwrap_or_default();
        let (record, mut position) = (self.transfer_record(transfer_steps::PART, 0, 0, 1, 0), Vec::new());
        let mut frames = vec![(Kind::View, [&info[..], &entries])];
        if !clients.is_empty() || !table.is_empty() {
            Position::between_views(view.epoch, clients, table).write(&mut position);
            frames.push((Kind::Transfer, [record.as_bytes(), &position]));
        }
        if has_row {
            frames.push((Kind::Row, [row.as_bytes(), row_entries.as_bytes()]));
        }
        let bytes = sealed_frames(self.cx.header(view.instance, view.epoch), &frames, 0);
        let Some(storage) = &mut self.storage else { return };
        decision.into_iter().for_each(|decision| storage.push(decision, Awaiting::Nothing));
        storage.push_view(view, bytes);
        self.look_due = now;
    }

    /// A view was entered: nothing in it counts as held before it is stored.
    pub(super) fn enter_stored(&mut self, is_member: bool) {
        self.want_stored_state(is_member);
        let Some(storage) = &mut self.storage else { return };
        storage.enter();
        if !is_member {
            return;
        }
        self.cx.config.storage_damaged = 0;
        let counts_all = self.cx.config.mutant == Some(Mutant::AckBeforeSync);
        for stream in &mut self.data.streams {
            stream.free(DatagramNumber(0));
            stream.stored = DatagramNumber(if counts_all { u64::MAX } else { 0 });
        }
        if !storage.has_view(&self.data.view).0 {
            let (view, beginning) = (self.data.view.clone(), self.data.beginning.clone());
            self.record_view(view, &beginning, None);
        }
    }

    /// Whether a member was restarted in this view: it sends nothing of its own in it, and fetches what it had sent as
    /// it fetches the rest.
    #[inline]
    pub(super) fn is_restored(&self) -> bool {
        self.data.outbound.is_none() && self.standing() == Standing::Member
    }

    /// Where the stream of a restarted member ends, as far as it is here: for its heartbeats.
    pub(super) fn restored_end(&self) -> Option<(DatagramNumber, Sequence, OrderNumber)> {
        let rank = self.cx.config.rank().filter(|_| self.is_restored())?;
        let stream = &self.data.streams[rank.index()];
        Some((stream.window.next, stream.window.complete, self.data.order_at_end(rank)))
    }
}
