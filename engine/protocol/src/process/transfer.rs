//! Moves state from a member to a process that comes late; `control/state_transfer.rs` has the parts.

use super::{Process, Standing};
use crate::config::{Role, Start};
use crate::control::state_transfer::{Donor, PARTS_AHEAD, POSITION_IDLE_NS, SnapshotFetch, Taken, Unfinished};
use crate::counters::Counter;
use crate::event::Event;
use crate::mutant::Mutant;
use crate::outbox::Destination;
use crate::refusal::Refusal;
use crate::values::position::Position;
use crate::view::{Beginning, View};
use alloc::vec::Vec;
use bourdon_wire::records::{self, transfer_steps};
use bourdon_wire::{Address, Epoch, HEADER_BYTES, InstanceId, Instant, Kind, Rank, Sequence};
use zerocopy::IntoBytes;

/// Both sides of a transfer.
#[derive(Debug, Default)]
pub(super) struct Transfer {
    donor: Option<Donor>,
    /// A position that is too long for one part, while it is being sent.
    position: Option<Donor>,
    fetch: Option<SnapshotFetch>,
    /// The view for which a snapshot is awaited.
    target: Option<(View, Beginning)>,
    /// A snapshot that has arrived and that the application has not taken.
    arrived: Option<Vec<u8>>,
    tickets: u32,
    turn: usize,
    /// How far this process had come in the view that it lost last: it does not resume before that.
    passed: Option<(InstanceId, Epoch, Vec<Sequence>)>,
}

impl Transfer {
    /// Whether delivery waits for the application to take a snapshot.
    #[inline]
    pub(super) fn holds_back(&self) -> bool {
        self.arrived.is_some()
    }

    pub(super) fn is_asking(&self) -> bool {
        self.fetch.is_some()
    }

    /// The donor asked for a cookie first: asks again at once.
    pub(super) fn hurry(&mut self, now: Instant) {
        if let Some(fetch) = &mut self.fetch {
            fetch.due = now;
        }
    }

    #[inline]
    pub(super) fn due(&self) -> Instant {
        self.fetch.as_ref().map_or(Instant::NEVER, |fetch| fetch.due)
    }

    pub(super) fn forget(&mut self) {
        (self.fetch, self.target, self.arrived) = (None, None, None);
    }

    /// A process that is not a member gives no snapshot.
    pub(super) fn removed(&mut self) {
        (self.donor, self.position) = (None, None);
    }

    /// A view is lost; notes how far this process had come in it.
    pub(super) fn note_passed(&mut self, instance: InstanceId, epoch: Epoch, passed: Vec<Sequence>) {
        self.passed = Some((instance, epoch, passed));
    }

    /// A member needs no snapshot.
    pub(super) fn joined(&mut self) {
        (self.fetch, self.target) = (None, None);
    }

    pub(super) fn held_bytes(&self) -> usize {
        let made = |donor: &Donor| {
            let unfinished = donor.unfinished.as_ref().map_or(0, |it| it.state.len());
            donor.bytes.as_ref().map_or(unfinished, Vec::len)
        };
        let made = self.donor.iter().chain(&self.position).map(made).sum::<usize>();
        made + self.fetch.as_ref().map_or(0, SnapshotFetch::held_bytes) + self.arrived.as_ref().map_or(0, Vec::len)
    }
}

impl Process {
    // ---- the donor ------------------------------------------------------------------------------------------------

    /// Gives the application's state, as it is after everything delivered so far, to the process that waits for it; in
    /// answer to [`Event::SnapshotWanted`]. This is impossible in the middle of a message of several datagrams or of a
    /// view change: then the event comes again.
    ///
    /// # Errors
    /// If it is longer than `max_snapshot_bytes`: the joiner is notified, and can't join.
    pub fn give_snapshot(&mut self, now: Instant, state: &[u8]) -> Result<(), Refusal> {
        let limit_bytes = self.cx.config.limits.max_snapshot_bytes;
        if self.standing() != Standing::Member {
            self.transfer.donor = None; // this process was removed since the request
        }
        let Some(donor) = self.transfer.donor.as_mut().filter(|donor| donor.bytes.is_none()) else { return Ok(()) };
        let (ticket, reply_to) = (donor.ticket, donor.reply_to);
        if state.len() > limit_bytes {
            self.transfer.donor = None;
            self.answer_transfer(now, reply_to, transfer_steps::TOO_LARGE, ticket, limit_bytes as u64);
            return Err(Refusal::TooLarge { limit_bytes });
        }
        let Some(mut position) = self.position() else {
            self.transfer.donor = None; // the joiner asks again
            return Ok(());
        };
        if self.cx.config.mutant == Some(Mutant::SnapshotAhead) {
            position.streams.iter_mut().for_each(|stream| stream.sequence = stream.sequence.next());
            position.order = position.order.next();
        }
        let unfinished = Unfinished { ticket: self.want_table(), position, state: state.to_vec() };
        if let Some(donor) = &mut self.transfer.donor {
            donor.unfinished = Some(unfinished);
        }
        self.pass_reports(now);
        Ok(())
    }

    /// Exactly what has been delivered, clients' messages included. The table of locks is the coordinator's, and is
    /// asked for.
    fn position(&self) -> Option<Position> {
        let position = self.data.position()?;
        Some(Position { clients: self.clients.runs(), ..position })
    }

    /// The coordinator gives the table that a snapshot or a position waits for.
    pub(super) fn on_table(&mut self, now: Instant, ticket: u64, table: &[u8]) {
        if let Some(mut donor) = self.transfer.donor.take() {
            if donor.complete(ticket, table) {
                self.send_parts(now, &donor, 0, 1);
            }
            self.transfer.donor = Some(donor);
        }
        if let Some(mut served) = self.transfer.position.take() {
            if served.complete(ticket, table) {
                self.send_parts(now, &served, 0, 1);
            }
            self.keep_position(served);
        }
    }

    /// A position that fits in one part is not kept.
    fn keep_position(&mut self, served: Donor) {
        if served.unfinished.is_some() || served.part(1, self.part_bytes()).is_some() {
            self.transfer.position = Some(served);
        }
    }

    pub(super) fn on_transfer(&mut self, now: Instant, epoch: Epoch, body: &[u8]) {
        let Some((record, bytes)) = records::Transfer::read(body) else { return };
        match record.step.get() {
            transfer_steps::REQUEST_SNAPSHOT if self.standing() == Standing::Member => self.on_ask(now, epoch, record),
            transfer_steps::REQUEST_POSITION if self.standing() == Standing::Member => {
                self.on_position_request(now, epoch, record)
            }
            transfer_steps::PART => self.on_part(now, record, bytes),
            transfer_steps::REFUSE if self.is_asking(record.ticket.get()) => self.next_donor(now),
            transfer_steps::TOO_LARGE if self.is_asking(record.ticket.get()) => {
                let limit_bytes = record.total_bytes.get();
                self.cx.event(Event::SnapshotTooLarge { bytes: 0, limit_bytes });
                self.next_donor(now);
            }
            _ => {}
        }
    }

    fn on_ask(&mut self, now: Instant, epoch: Epoch, record: &records::Transfer) {
        let (ticket, reply_to) = (record.ticket.get(), record.reply_to);
        if Some(Rank(record.donor.get())) != self.data.own() || !reply_to.is_reachable() {
            return;
        }
        if !self.is_proven_by(now, epoch, reply_to, record.cookie.get()) {
            return;
        }
        let matches = |donor: &Donor| donor.ticket == ticket && donor.reply_to == reply_to;
        if let Some(donor) = self.transfer.donor.as_mut().filter(|donor| matches(donor)) {
            donor.asked_at = now;
            let (part, count) = (record.part.get(), record.count.get().clamp(1, PARTS_AHEAD));
            let epoch = self.data.view.epoch;
            if donor.unfinished.as_ref().is_some_and(|unfinished| unfinished.position.epoch == epoch) {
                return; // the table of locks comes
            }
            if donor.bytes.is_none() {
                return self.want_snapshot(now); // the application was asked before; perhaps it could not answer
            }
            let Some(donor) = self.transfer.donor.take() else { return };
            self.send_parts(now, &donor, part, count);
            self.transfer.donor = Some(donor);
            return;
        }
        // A process that starts again no longer needs what it asked for before.
        let busy = |donor: &Donor| donor.reply_to != reply_to && !donor.is_idle(now);
        let busy = self.transfer.donor.as_ref().is_some_and(busy);
        if busy || epoch != self.data.view.epoch {
            return self.answer_transfer(now, reply_to, transfer_steps::REFUSE, ticket, 0);
        }
        self.transfer.donor = Some(Donor::new(now, ticket, reply_to));
        self.want_snapshot(now);
    }

    /// An observer that begins live asks for this process's position.
    fn on_position_request(&mut self, now: Instant, epoch: Epoch, record: &records::Transfer) {
        let (ticket, reply_to) = (record.ticket.get(), record.reply_to);
        if Some(Rank(record.donor.get())) != self.data.own() || !reply_to.is_reachable() {
            return;
        }
        if !self.is_proven_by(now, epoch, reply_to, record.cookie.get()) {
            return;
        }
        if epoch != self.data.view.epoch {
            return self.answer_transfer(now, reply_to, transfer_steps::REFUSE, ticket, 0);
        }
        let same = |served: &Donor| served.ticket == ticket && served.reply_to == reply_to;
        let (part, count) = (record.part.get(), record.count.get().clamp(1, PARTS_AHEAD));
        let Some(served) = self.transfer.position.take_if(|served| same(served)) else {
            return self.make_position(now, ticket, reply_to);
        };
        self.send_parts(now, &served, part, count);
        self.keep_position(Donor { asked_at: now, ..served });
    }

    /// Sends this process's position to a process that asks; nothing in the middle of a message, or while another
    /// process is served.
    fn make_position(&mut self, now: Instant, ticket: u32, reply_to: Address) {
        if self.transfer.position.as_ref().is_some_and(|served| now.since(served.asked_at) < POSITION_IDLE_NS) {
            return;
        }
        let Some(position) = self.position() else { return };
        let unfinished = Some(Unfinished { ticket: self.want_table(), position, state: Vec::new() });
        self.transfer.position = Some(Donor { unfinished, ..Donor::new(now, ticket, reply_to) });
        self.pass_reports(now);
    }

    /// Drops the snapshot for a joiner that has become a member, so that the next joiner need not wait.
    pub(super) fn release_donor(&mut self) {
        let Some(donor) = &self.transfer.donor else { return };
        let mut members = self.data.view.members.iter();
        if members.any(|member| self.cx.presence.address(member.rank) == Some(donor.reply_to)) {
            self.transfer.donor = None;
        }
    }

    /// Drops a snapshot that no process has asked about for long.
    pub(super) fn tend_donor(&mut self, now: Instant) {
        self.transfer.donor.take_if(|donor| donor.is_idle(now));
        self.transfer.position.take_if(|served| served.is_idle(now));
    }

    fn want_snapshot(&mut self, now: Instant) {
        if self.cx.config.snapshots {
            if !self.cx.is_waiting(&Event::SnapshotWanted) {
                self.cx.event(Event::SnapshotWanted);
            }
        } else {
            let _ = self.give_snapshot(now, &[]); // an empty one is never too long
        }
    }

    fn part_bytes(&self) -> usize {
        self.cx.config.limits.frame_bytes() - bourdon_wire::FRAME_HEADER_BYTES - records::Transfer::BYTES
    }

    fn send_parts(&mut self, now: Instant, donor: &Donor, first: u32, count: u32) {
        let part_bytes = self.part_bytes();
        let total = donor.bytes.as_ref().map_or(0, Vec::len) as u64;
        for part in first..first.saturating_add(count) {
            let Some(bytes) = donor.part(part, part_bytes) else { break };
            let record = records::Transfer {
                step: transfer_steps::PART.into(),
                donor: self.data.own().unwrap_or(Rank::OBSERVER).0.into(),
                ticket: donor.ticket.into(),
                reply_to: self.cx.config.address,
                part: part.into(),
                count: 1.into(),
                total_bytes: total.into(),
                part_bytes: (part_bytes as u32).into(),
                checksum: donor.checksum.into(),
                cookie: 0.into(),
            };
            let (to, parts) = (Destination::Peer(donor.reply_to), [record.as_bytes(), bytes]);
            self.cx.send(now, to, Kind::Transfer, parts);
        }
    }

    fn answer_transfer(&mut self, now: Instant, to: Address, step: u16, ticket: u32, total_bytes: u64) {
        let record = self.transfer_record(step, ticket, 0, 0, total_bytes);
        let parts = [record.as_bytes(), &[]];
        self.cx.send(now, Destination::Peer(to), Kind::Transfer, parts);
    }

    fn transfer_record(&self, step: u16, ticket: u32, part: u32, count: u32, total_bytes: u64) -> records::Transfer {
        records::Transfer {
            step: step.into(),
            donor: 0.into(),
            ticket: ticket.into(),
            reply_to: self.cx.config.address,
            part: part.into(),
            count: count.into(),
            total_bytes: total_bytes.into(),
            part_bytes: 0.into(),
            checksum: 0.into(),
            cookie: 0.into(),
        }
    }

    // ---- the joiner ------------------------------------------------------------------------------------------------

    /// Whether it begins with another process's state, and not only at that process's position.
    pub(super) fn takes_state(&self) -> bool {
        matches!(self.cx.config.role, Role::Member(_)) || self.cx.config.start == Start::Snapshot
    }

    fn is_asking(&self, ticket: u32) -> bool {
        self.transfer.fetch.as_ref().is_some_and(|fetch| fetch.ticket == ticket)
    }

    /// Begins to fetch a snapshot taken in this view.
    pub(super) fn begin_transfer(&mut self, now: Instant, view: View, beginning: Beginning) {
        if self.transfer.fetch.is_some() || self.transfer.arrived.is_some() {
            return;
        }
        // Never an earlier incarnation of ours; the sequencer last, because it has the most to do.
        let own = self.cx.config.rank();
        let others = view.members.iter().map(|member| member.rank).filter(|rank| Some(*rank) != own);
        let mut donors: Vec<Rank> = others.collect();
        donors.sort_by_key(|rank| *rank == view.sequencer);
        let donor = donors.get(self.transfer.turn % donors.len().max(1)).copied().unwrap_or(view.sequencer);
        self.transfer.tickets = self.transfer.tickets.wrapping_add(1);
        let ticket = self.cx.config.incarnation.0 ^ self.transfer.tickets << 24 ^ self.cx.config.seed as u32;
        self.transfer.fetch = Some(SnapshotFetch::new(now, ticket, donor));
        self.transfer.target = Some((view, beginning));
    }

    fn next_donor(&mut self, now: Instant) {
        self.transfer.turn += 1;
        self.transfer.forget();
        // After a pause: a donor that refused is busy, or in another view. The view is requested again as well.
        self.search_again(now + self.cx.config.timing.membership.rejoin_min_ns / 4);
    }

    pub(super) fn request_parts(&mut self, now: Instant) {
        let Some(fetch) = &mut self.transfer.fetch else { return };
        let (ticket, donor) = (fetch.ticket, fetch.donor);
        let Some((part, count)) = fetch.ask(now) else { return self.next_donor(now) };
        let Some(address) = self.cx.presence.address(donor) else { return };
        let Some((view, _)) = &self.transfer.target else { return };
        let header = self.cx.header(view.instance, view.epoch);
        let step = if self.takes_state() { transfer_steps::REQUEST_SNAPSHOT } else { transfer_steps::REQUEST_POSITION };
        let record = records::Transfer {
            donor: donor.0.into(),
            cookie: self.word_for_snapshot(donor).into(),
            ..self.transfer_record(step, ticket, part, count, 0)
        };
        let (to, parts) = (Destination::Peer(address), [record.as_bytes(), &[]]);
        self.cx.send_as(header, now, to, Kind::Transfer, parts);
    }

    fn on_part(&mut self, now: Instant, record: &records::Transfer, bytes: &[u8]) {
        // All processes have the same MTU, so all parts but the last have the same length.
        let fits = record.part_bytes.get() as usize == self.part_bytes();
        if !fits || !self.is_asking(record.ticket.get()) || self.standing() != Standing::Outside {
            return;
        }
        let limit = self.cx.config.limits.max_snapshot_bytes.saturating_add(1 << 20); // positions and locks come first
        let Some(fetch) = &mut self.transfer.fetch else { return };
        let whole = (record.total_bytes.get(), record.part_bytes.get(), record.checksum.get());
        match fetch.take(now, record.part.get(), bytes, whole, limit) {
            Taken::Nothing | Taken::More => {}
            Taken::Damaged => self.next_donor(now),
            Taken::TooLarge(bytes) => {
                let limit_bytes = self.cx.config.limits.max_snapshot_bytes as u64;
                self.cx.event(Event::SnapshotTooLarge { bytes, limit_bytes });
                self.next_donor(now);
            }
            Taken::Whole => self.arrive(now),
        }
    }

    /// The whole snapshot is here: goes on at the donor's position.
    fn arrive(&mut self, now: Instant) {
        let (Some(fetch), Some((view, beginning))) = (self.transfer.fetch.take(), self.transfer.target.take()) else {
            return;
        };
        let bytes = fetch.into_bytes();
        let ranks = usize::from(self.cx.config.members);
        let position = Position::read(&bytes).filter(|(position, _)| position.streams.len() == ranks);
        let Some((position, state)) = position.filter(|(position, _)| position.epoch == view.epoch) else {
            return self.next_donor(now);
        };
        if !self.can_take_over(&position.locks) {
            return self.next_donor(now); // its table is invalid
        }
        let limit_bytes = self.cx.config.limits.max_snapshot_bytes as u64;
        if state.len() as u64 > limit_bytes {
            self.cx.event(Event::SnapshotTooLarge { bytes: state.len() as u64, limit_bytes });
            return self.next_donor(now);
        }
        let takes_state = self.takes_state();
        if !takes_state && self.is_behind_passed(&view, &position) {
            return self.next_donor(now);
        }
        self.cx.counters.add(Counter::SnapshotsTaken, u64::from(takes_state));
        self.follow(now, view, &beginning);
        self.data.resume(&position);
        self.clients.take_over(&position.clients);
        self.take_table_over(now, position.locks);
        if self.cx.config.snapshots && takes_state {
            self.transfer.arrived = Some(state.to_vec());
            self.cx.event(Event::SnapshotReady);
        }
    }

    /// Reports how much was delivered of what this process had published before it was removed: the beginning of the
    /// view without it, or of a later one, gives that. A donor that has not heard of the removal gives a view from
    /// before it, which does not give that.
    pub(super) fn settle_doubt(&mut self) {
        let view = &self.data.view;
        let is_over = |doubt: &super::instances::Doubt| doubt.instance != view.instance || doubt.epoch <= view.epoch;
        let Some(doubt) = self.identity.doubt.take_if(|doubt| is_over(doubt)) else { return };
        // Processes do not agree on what another instance delivered, or an instance that loses messages.
        let is_agreed = doubt.instance == view.instance && !self.cx.config.reliability.is_lossy();
        if let Some(own) = self.cx.config.rank().filter(|_| is_agreed) {
            let delivered = self.data.beginning.first_of(own).min(doubt.published);
            self.settle_own(doubt.incarnation, delivered);
            self.cx.event(Event::Settled { incarnation: doubt.incarnation, delivered });
        }
    }

    /// Whether a position in a view lies before what was delivered in it: messages between would be delivered twice.
    fn is_behind_passed(&self, view: &View, position: &Position) -> bool {
        let passed = self.transfer.passed.as_ref();
        let passed = passed.filter(|(instance, epoch, _)| (*instance, *epoch) == (view.instance, view.epoch));
        passed.is_some_and(|(_, _, passed)| {
            position.streams.iter().zip(passed).any(|(stream, passed)| stream.sequence < *passed)
        })
    }

    /// The application's state at another member, in answer to [`Event::SnapshotReady`]: everything delivered from now
    /// on came after it.
    pub fn take_snapshot(&mut self) -> Option<Vec<u8>> {
        self.transfer.arrived.take()
    }

    /// The sequence from which on a sender's messages come after the snapshot.
    pub fn resumed_at(&self, rank: Rank) -> Sequence {
        self.delivered(rank)
    }
}

/// What a part's frame and header leave of a datagram is never negative.
const _: () = assert!(records::Transfer::BYTES + HEADER_BYTES < bourdon_wire::MTU_MIN_BYTES / 2);
