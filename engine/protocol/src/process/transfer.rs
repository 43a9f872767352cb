//! Moves state from a member to a process that comes late; `control/state_transfer.rs` has the parts.

use super::instances::Doubt;
use super::retransmit::is_outdated;
use super::{Process, Standing};
use crate::config::{Role, Start};
use crate::control::state_transfer::{
    Donor, PARTS_AHEAD, POSITION_IDLE_NS, SnapshotAnswer, SnapshotFetch, SnapshotTicket, Taken, Unfinished,
};
use crate::counters::Counter;
use crate::event::Event;
use crate::mutant::Mutant;
use crate::outbox::Destination;
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
    /// The donor wants the application's state.
    is_wanted: bool,
    /// A position that is too long for one part, while it is being sent.
    position: Option<Donor>,
    fetch: Option<SnapshotFetch>,
    /// The view for which a snapshot is awaited.
    target: Option<(View, Beginning)>,
    /// A snapshot that has arrived and that the application has not taken.
    arrived: Option<Vec<u8>>,
    /// The state that a restarted member had stored, until the application takes it.
    restored: Option<Vec<u8>>,
    tickets: u32,
    turn: usize,
    /// How far this process had come in the view that it lost last: it does not resume before that.
    passed: Option<(InstanceId, Epoch, Vec<Sequence>)>,
}

impl Transfer {
    /// Whether delivery waits for the application to take a snapshot.
    #[inline]
    pub(super) fn holds_back(&self) -> bool {
        self.arrived.is_some() || self.restored.is_some()
    }

    /// Whether a snapshot has come for the application, or the application is to be asked for one.
    #[inline]
    pub(super) fn is_due(&self) -> bool {
        self.is_wanted || self.holds_back()
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
        (self.donor, self.position, self.is_wanted) = (None, None, false);
    }

    /// A view is lost; notes how far this process had come in it.
    pub(super) fn note_passed(&mut self, instance: InstanceId, epoch: Epoch, passed: Vec<Sequence>) {
        self.passed = Some((instance, epoch, passed));
    }

    /// A member needs no snapshot.
    pub(super) fn joined(&mut self) {
        (self.fetch, self.target) = (None, None);
    }

    /// The application of a restarted member takes its state first.
    pub(super) fn restored(&mut self, state: Option<Vec<u8>>) {
        self.restored = state;
    }

    pub(super) fn held_bytes(&self) -> usize {
        let made = |donor: &Donor| {
            let state = donor.unfinished.as_ref().and_then(|unfinished| unfinished.state.as_ref());
            donor.bytes.as_ref().or(state).map_or(0, Vec::len)
        };
        let made = self.donor.iter().chain(&self.position).map(made).sum::<usize>();
        let come = self.arrived.iter().chain(&self.restored).map(Vec::len).sum::<usize>();
        made + self.fetch.as_ref().map_or(0, SnapshotFetch::held_bytes) + come
    }
}

impl Process {
    // ---- the donor ------------------------------------------------------------------------------------------------

    /// Begins a snapshot for a joiner, or for this member's storage, if one is wanted and this is a place at which the
    /// application can be asked for its state: what was delivered so far is in that state, and nothing that is
    /// delivered later. None in the middle of a message of several datagrams or of a view change, and while an event
    /// waits that has its place here: then it is to be begun later.
    pub fn begin_snapshot(&mut self, now: Instant) -> Option<SnapshotTicket> {
        self.transfer.is_wanted &= self.transfer.donor.is_some(); // the joiner may be gone
        if self.cx.has_ordered() {
            return None;
        }
        if !self.transfer.is_wanted {
            return self.begin_stored_state(now);
        }
        let unfinished = self.begin_unfinished(None)?;
        let ticket = unfinished.ticket;
        self.transfer.is_wanted = false;
        self.transfer.donor.as_mut()?.unfinished = Some(unfinished);
        self.pass_reports(now);
        Some(ticket)
    }

    /// Takes the application's answer to a snapshot that was begun, at any time later. What comes after the view has
    /// changed, or for a joiner that is gone, is discarded: the joiner asks again. What comes so late that a sender no
    /// longer retains what follows its position is refused: the joiner would begin there and have to start over.
    pub fn finish_snapshot(&mut self, now: Instant, ticket: SnapshotTicket, answer: SnapshotAnswer) {
        let Some(answer) = self.finish_stored_state(now, ticket, answer) else { return };
        let position_now = (self.cx.config.mutant == Some(Mutant::PositionAtAnswer)).then(|| self.position());
        let limit_bytes = self.cx.config.limits.max_snapshot_bytes;
        let (epoch, mutant) = (self.data.view.epoch, self.cx.config.mutant);
        let Some(donor) = &mut self.transfer.donor else { return };
        let (reply_to, asked) = (donor.reply_to, donor.ticket);
        let Some(unfinished) = donor.unfinished(ticket).filter(|unfinished| unfinished.position.epoch == epoch) else {
            return;
        };
        let step = match answer {
            SnapshotAnswer::State(_) if is_outdated(&self.data, &unfinished.position) => transfer_steps::REFUSE,
            SnapshotAnswer::State(state) if state.len() <= limit_bytes => {
                if let Some(position) = position_now.flatten() {
                    unfinished.position = position;
                }
                if mutant == Some(Mutant::SnapshotAhead) {
                    unfinished.position.streams.iter_mut().for_each(|place| place.sequence = place.sequence.next());
                    unfinished.position.order = unfinished.position.order.next();
                }
                unfinished.state = Some(state);
                return self.serve_if_whole(now);
            }
            SnapshotAnswer::State(_) | SnapshotAnswer::TooLarge => transfer_steps::TOO_LARGE,
            SnapshotAnswer::Declined => transfer_steps::REFUSE,
        };
        self.transfer.donor = None;
        self.answer_transfer(now, reply_to, step, asked, limit_bytes as u64);
    }

    /// A position here and now, for a snapshot with this state, or with one that comes later.
    pub(super) fn begin_unfinished(&mut self, state: Option<Vec<u8>>) -> Option<Unfinished> {
        let position = self.position()?;
        Some(Unfinished { ticket: SnapshotTicket(self.want_table()), position, state, table: None })
    }

    /// Sends the first part of the snapshot, if it is whole by now.
    fn serve_if_whole(&mut self, now: Instant) {
        let Some(mut donor) = self.transfer.donor.take() else { return };
        if donor.completes() {
            self.send_parts(now, &donor, 0, 1);
        }
        self.transfer.donor = Some(donor);
    }

    /// Exactly what has been delivered, clients' messages included. The table of locks is the coordinator's, and is
    /// asked for.
    fn position(&self) -> Option<Position> {
        let position = self.data.position()?;
        Some(Position { clients: self.clients.runs(), ..position })
    }

    /// The coordinator gives the table that a snapshot or a position waits for.
    pub(super) fn on_table(&mut self, now: Instant, ticket: u64, table: &[u8]) {
        self.store_table(now, ticket, table);
        let ticket = SnapshotTicket(ticket);
        self.take_stored_table(now, ticket, table);
        if let Some(unfinished) = self.transfer.donor.as_mut().and_then(|donor| donor.unfinished(ticket)) {
            unfinished.table = Some(table.to_vec());
            self.serve_if_whole(now);
        }
        if let Some(mut served) = self.transfer.position.take() {
            served.unfinished(ticket).into_iter().for_each(|unfinished| unfinished.table = Some(table.to_vec()));
            if served.completes() {
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
            if donor.bytes.is_none() {
                return self.promise_snapshot(now, epoch);
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
        let Some(unfinished) = self.begin_unfinished(Some(Vec::new())) else { return };
        let unfinished = Some(unfinished);
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
            self.transfer.is_wanted = true;
        } else if let Some(unfinished) = self.begin_unfinished(Some(Vec::new()))
            && let Some(donor) = &mut self.transfer.donor
        {
            donor.unfinished = Some(unfinished);
            self.pass_reports(now);
        }
    }

    /// A joiner asks, in this view of its own, for a snapshot that is not made yet.
    fn promise_snapshot(&mut self, now: Instant, epoch: Epoch) {
        let Some(donor) = &mut self.transfer.donor else { return };
        let (ticket, reply_to, own_epoch) = (donor.ticket, donor.reply_to, self.data.view.epoch);
        if epoch != own_epoch {
            self.transfer.donor = None; // it would get one of a view that it does not follow
            return self.answer_transfer(now, reply_to, transfer_steps::REFUSE, ticket, 0);
        }
        donor.unfinished.take_if(|unfinished| unfinished.position.epoch != own_epoch);
        if donor.unfinished.is_none() {
            return self.want_snapshot(now); // again: this process may not have been able to begin it
        }
        let part_bytes = (self.part_bytes() as u32).into();
        let record = self.transfer_record(transfer_steps::PART, ticket, 0, 0, 0);
        let record = records::Transfer { part_bytes, ..record };
        self.cx.send(now, Destination::Peer(reply_to), Kind::Transfer, [record.as_bytes(), &[]]);
    }

    pub(super) fn part_bytes(&self) -> usize {
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

    pub(super) fn transfer_record(
        &self,
        step: u16,
        ticket: u32,
        part: u32,
        count: u32,
        total_bytes: u64,
    ) -> records::Transfer {
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
        if self.transfer.fetch.is_some() || self.transfer.holds_back() {
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
        self.replace_stored_state();
        self.follow(now, view, &beginning);
        self.data.resume(&position);
        self.clients.take_over(&position.clients);
        self.take_table_over(now, position.locks);
        if self.cx.config.snapshots && takes_state {
            self.transfer.arrived = Some(state.to_vec());
        }
    }

    /// Reports how much was delivered of what this process had published before it was removed: the beginning of the
    /// view without it, or of a later one, gives that. A donor that has not heard of the removal gives a view from
    /// before it, which does not give that.
    pub(super) fn settle_doubt(&mut self) {
        let view = &self.data.view;
        let is_over = |doubt: &Doubt| doubt.instance != view.instance || doubt.epoch <= view.epoch;
        let Some(doubt) = self.identity.doubt.take_if(|doubt| is_over(doubt)) else { return };
        // Processes do not agree on what another instance delivered, or an instance that loses messages.
        let is_agreed = doubt.instance == view.instance && !self.cx.config.reliability.is_lossy();
        if let Some(own) = self.cx.config.rank().filter(|_| is_agreed) {
            let Doubt { incarnation, published, .. } = doubt;
            let first = self.data.beginning.first_of(own);
            let published = published.unwrap_or(first);
            let delivered = first.min(published);
            self.settle_own(incarnation, delivered);
            self.cx.event(Event::Settled { incarnation, delivered, published });
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

    /// The application's state, as this member had stored it or at another member, if it has come: everything delivered
    /// from now on came after it, and nothing is delivered before it is taken.
    pub fn take_snapshot(&mut self) -> Option<Vec<u8>> {
        self.transfer.restored.take().or_else(|| self.transfer.arrived.take())
    }

    /// The sequence from which on a sender's messages come after the snapshot.
    pub fn resumed_at(&self, rank: Rank) -> Sequence {
        self.delivered(rank)
    }
}

/// What a part's frame and header leave of a datagram is never negative.
const _: () = assert!(records::Transfer::BYTES + HEADER_BYTES < bourdon_wire::MTU_MIN_BYTES / 2);
