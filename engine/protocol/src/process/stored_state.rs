//! The application's state among a member's records: at the level `durable`, for an application that gives snapshots.
//!
//! A member that restarts delivers the messages of its last views again, but not those of earlier ones. So once it has
//! entered a view it asks its application for the state, as for a joiner, and stores that with its position. After a
//! restart the application gets the last state that was stored whole, and then what comes behind that position.
//!
//! A joiner's application begins with another member's state, of which this member's storage knows nothing. So nothing
//! of its first view is stored, and nothing in it is reported to others, before its state: if it crashes earlier, it
//! comes back as another incarnation, and takes another's state again. The state stands before the record of that view.
//! If the application gives none, that stands there: an earlier state leads to nothing that follows.
//!
//! Invariant: what lies before the position of a stored state is delivered again from the records alone, so that it can
//! be left out: a `Row` stands before the state, or in the record of the view.

use super::Process;
use crate::control::state_transfer::{SnapshotAnswer, SnapshotTicket, Unfinished};
use crate::data::durable::Awaiting;
use crate::event::{Event, Message};
use crate::mutant::Mutant;
use crate::outbox::sealed;
use crate::values::position::Position;
use alloc::vec;
use alloc::vec::Vec;
use bourdon_wire::records::{self, transfer_steps};
use bourdon_wire::{Datagram, Epoch, GroupId, InstanceId, Instant, Kind};
use zerocopy::IntoBytes;

/// What the application of a restarted member gets again.
#[derive(Clone, Copy, Debug)]
pub enum Again<'a> {
    /// A message.
    Message(&'a Message<'a>),
    /// A view or a barrier behind the state that was stored. Without a state the application has had all of them.
    Event(Event),
}

/// What a member keeps about the state in its storage.
#[derive(Debug, Default)]
pub(super) struct StoredState {
    /// The application is to be asked.
    is_wanted: bool,
    /// The application began with another member's state, and none was stored since.
    is_lacking: bool,
    unfinished: Option<Unfinished>,
}

impl Process {
    fn stores_state(&self) -> bool {
        self.storage.is_some() && self.cx.config.snapshots && self.cx.config.stores_snapshots
    }

    /// A view was entered.
    pub(super) fn want_stored_state(&mut self, is_member: bool) {
        (self.stored_state.is_wanted, self.stored_state.unfinished) = (is_member && self.stores_state(), None);
    }

    #[inline]
    pub(super) fn wants_stored_state(&self) -> bool {
        self.stored_state.is_wanted
    }

    /// The application's state is another member's from now on.
    pub(super) fn replace_stored_state(&mut self) {
        let forgets = self.cx.config.mutant == Some(Mutant::JoinedBeforeState);
        self.stored_state.is_lacking = self.stores_state() && !forgets;
    }

    /// Whether nothing is to be stored before the application's state.
    pub(super) fn lacks_stored_state(&self) -> bool {
        self.stored_state.is_lacking
    }

    pub(super) fn begin_stored_state(&mut self, now: Instant) -> Option<SnapshotTicket> {
        if !self.stored_state.is_wanted {
            return None;
        }
        let unfinished = self.begin_unfinished(None)?;
        let ticket = unfinished.ticket;
        (self.stored_state.is_wanted, self.stored_state.unfinished) = (false, Some(unfinished));
        self.pass_reports(now);
        Some(ticket)
    }

    /// Takes the answer, unless it belongs to another ticket.
    pub(super) fn finish_stored_state(
        &mut self,
        now: Instant,
        ticket: SnapshotTicket,
        answer: SnapshotAnswer,
    ) -> Option<SnapshotAnswer> {
        let limit_bytes = self.cx.config.limits.max_snapshot_bytes;
        let asked = &mut self.stored_state.unfinished;
        let Some(unfinished) = asked.as_mut().filter(|asked| asked.ticket == ticket) else { return Some(answer) };
        match answer {
            SnapshotAnswer::State(state) if state.len() <= limit_bytes => {
                unfinished.state = Some(state);
                self.store_state(now);
                return None;
            }
            SnapshotAnswer::Declined => {}
            SnapshotAnswer::State(_) | SnapshotAnswer::TooLarge => {
                self.cx.event(Event::SnapshotTooLarge { bytes: 0, limit_bytes: limit_bytes as u64 });
            }
        }
        // It goes on without, and is asked again in the next view.
        *asked = None;
        if self.lacks_stored_state() {
            let record = self.transfer_record(transfer_steps::REFUSE, 0, 0, 0, 0);
            let header = self.cx.header(self.data.view.instance, self.data.view.epoch);
            self.store_before_view(now, vec![sealed(header, Kind::Transfer, [record.as_bytes(), &[]], 0)]);
        }
        None
    }

    pub(super) fn take_stored_table(&mut self, now: Instant, ticket: SnapshotTicket, table: &[u8]) {
        let asked = self.stored_state.unfinished.as_mut().filter(|asked| asked.ticket == ticket);
        if let Some(unfinished) = asked {
            unfinished.table = Some(table.to_vec());
            self.store_state(now);
        }
    }

    /// Stores what the view in which the state was lacking begins with, and then that view.
    fn store_before_view(&mut self, now: Instant, records: Vec<Vec<u8>>) {
        self.stored_state.is_lacking = false;
        let Some(storage) = &mut self.storage else { return };
        records.into_iter().for_each(|record| storage.push(record, Awaiting::Nothing));
        storage.note_state();
        self.record_pending(now);
    }

    /// Stores the state, if all of it is there.
    fn store_state(&mut self, now: Instant) {
        let Some(bytes) = Unfinished::complete(&mut self.stored_state.unfinished) else { return };
        let (header, wall_ns) = (self.cx.header(self.data.view.instance, self.data.view.epoch), self.cx.wall(now));
        let (part_bytes, checksum) = (self.part_bytes(), crc32c::crc32c(&bytes));
        let parts = bytes.chunks(part_bytes).zip(0..).map(|(part, number)| {
            let record = self.transfer_record(transfer_steps::PART, 0, number, 1, bytes.len() as u64);
            let (part_bytes, checksum) = ((part_bytes as u32).into(), checksum.into());
            let record = records::Transfer { part_bytes, checksum, ..record };
            sealed(header, Kind::Transfer, [record.as_bytes(), part], wall_ns)
        });
        let parts: Vec<Vec<u8>> = parts.collect();
        if self.lacks_stored_state() {
            return self.store_before_view(now, parts);
        }
        let storage = self.storage.as_mut().filter(|storage| storage.has_view(&self.data.view).0);
        let Some(storage) = storage else { return }; // the record of the next view stands there already
        storage.record_row(&self.data, header, wall_ns);
        parts.into_iter().for_each(|part| storage.push(part, Awaiting::Nothing));
        self.look_due = now;
    }
}

/// What a record holds of a state, if it holds nothing else.
fn part<'a>(datagram: &Datagram<'a>) -> Option<(&'a records::Transfer, &'a [u8])> {
    let frame = datagram.frames().next().filter(|frame| frame.kind() == Some(Kind::Transfer))?;
    records::Transfer::read(frame.body)
}

/// Whether a record of a member begins a view.
pub fn begins_view(record: &[u8], group: GroupId) -> bool {
    Datagram::parse(record, group).is_ok_and(|datagram| datagram.frames().any(|frame| frame.kind() == Some(Kind::View)))
}

/// Whether a record is the last of an application's state: what stands before the view in which it was stored is not
/// needed to get that state.
pub fn ends_stored_state(record: &[u8], group: GroupId) -> bool {
    let ends = |datagram: Datagram<'_>| {
        let (record, bytes) = part(&datagram)?;
        let before = u64::from(record.part.get()) * u64::from(record.part_bytes.get());
        Some(!bytes.is_empty() && before + bytes.len() as u64 == record.total_bytes.get())
    };
    Datagram::parse(record, group).ok().and_then(ends) == Some(true)
}

/// The last state that is whole among the records of a member that restarts, or its application's beginning.
#[derive(Debug)]
pub(super) struct FoundState {
    /// The record of the view in which it was stored: those up to it end in an earlier view. None at the beginning.
    view_at: Option<usize>,
    instance: InstanceId,
    position: Position,
    /// None at the beginning of the group's first view.
    pub(super) state: Option<Vec<u8>>,
}

impl FoundState {
    pub(super) fn among(records: &[impl AsRef<[u8]>], group: GroupId, ranks: usize) -> Option<Self> {
        // Of the last view, and what stands before the record of a view and counts with that.
        let (mut found, mut view, mut view_at): (Option<Self>, _, _) = (None, None, None);
        let (mut ahead, mut bytes): (Option<(_, Option<Self>)>, _) = (None, Vec::new());
        for (index, record) in records.iter().enumerate() {
            let Ok(datagram) = Datagram::parse(record.as_ref(), group) else { continue };
            let place = (datagram.header.instance(), datagram.header.epoch());
            if datagram.frames().any(|frame| frame.kind() == Some(Kind::View)) {
                let is_first = view.is_none();
                (view, view_at) = (Some(place), Some(index));
                if let Some((_, state)) = ahead.take_if(|(begun, _)| *begun == place) {
                    found = state.map(|state| Self { view_at, ..state });
                } else if is_first && place.1 == Epoch(1) {
                    let position = Position::between_views(Epoch(1), Vec::new(), Vec::new());
                    found = Some(Self { view_at: None, instance: place.0, position, state: None });
                }
            }
            let Some((record, more)) = part(&datagram) else { continue };
            if record.part.get() == 0 {
                bytes.clear();
            }
            bytes.extend_from_slice(more);
            let is_whole = bytes.len() as u64 == record.total_bytes.get();
            let state = match record.step.get() {
                transfer_steps::PART if !is_whole || crc32c::crc32c(&bytes) != record.checksum.get() => continue,
                transfer_steps::PART => Position::read(&bytes),
                _ => None,
            };
            let state = state.filter(|(position, _)| position.streams.len() == ranks && position.epoch == place.1);
            let state = state.map(|(position, state)| (position, state.to_vec()));
            let state =
                state.map(|(position, state)| Self { view_at, instance: place.0, position, state: Some(state) });
            if view == Some(place) {
                found = state;
            } else {
                ahead = Some((place, state));
            }
        }
        found
    }

    /// Whether what the record at `index` brings is behind the state.
    pub(super) fn lacks(&self, index: usize, again: &Again<'_>) -> bool {
        let message = match again {
            _ if self.view_at.is_some_and(|view_at| index <= view_at) => return false, // it ends the view before
            Again::Event(Event::Synced { phase, .. }) => return *phase > self.position.phase,
            Again::Event(_) => return true,
            Again::Message(message) => message,
        };
        if (message.instance, message.epoch) != (self.instance, self.position.epoch) {
            return true;
        }
        match message.barrier {
            Some(phase) => phase >= self.position.phase,
            None => {
                let place = self.position.streams.get(message.sender.index());
                place.is_none_or(|place| message.sequence >= place.sequence)
            }
        }
    }
}
