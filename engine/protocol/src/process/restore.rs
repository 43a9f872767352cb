//! The restart of a member that has stored what it reported to others: at the level `durable`.
//!
//! A member that starts with nothing is another incarnation, and if a majority does so at once, the group is lost. But
//! at this level a member reports only what is stored, so for the others its crash is a pause: the member comes back as
//! the same incarnation, in the last view that it stored, with all that it had announced. What it had *sent* may be
//! more: so it sends nothing more of its own in that view. It is stopped as by a promise, and begins a ballot to end
//! the view, in which it counts like every member. A restart of one member, of a majority, or of all is therefore an
//! ordinary view change.
//!
//! The records are read in their order, as if all had just been received: the view, its datagrams, and how far a
//! quorum held them, up to which they are delivered again. An earlier view whose end is among the records is concluded,
//! and retained for members that are still in it.
//!
//! Invariants: a restarted member sends no data in the view in which it restarts, and promises and accepts nothing
//! below what it stored.

use super::stored_state::{Again, FoundState};
use super::{Process, Standing, steps};
use crate::config::{Config, ConfigError};
use crate::control::agreement::ToAgreement;
use crate::control::view_change::{Ballot, Step, Value};
use crate::data::DATA_CHANNEL;
use crate::event::Event;
use crate::values::handover::{BallotNumber, EndOrder};
use crate::values::position::Position;
use crate::view::{Member, View};
use bourdon_wire::records::{self, BallotStep, Row, ViewInfo};
use bourdon_wire::{Datagram, DatagramNumber, Epoch, Frame, Incarnation, InstanceId, Instant, Kind};

/// What the records of the last view say about its end.
#[derive(Debug, Default)]
struct Promised {
    ballot: Ballot,
    accepted: Option<(Ballot, Value)>,
    /// What was decided: it counts with the view that it begins.
    decided: Option<Value>,
    /// The incarnation that accepted the first view, which is not among the records.
    forms: Option<Incarnation>,
}

/// What a view begins with, beyond its own numbers: see `Process::store_table`.
fn position_of(datagram: &Datagram<'_>, view: &View) -> Option<Position> {
    let frame = datagram.frames().find(|frame| frame.kind() == Some(Kind::Transfer))?;
    let (_, bytes) = records::Transfer::read(frame.body)?;
    Position::read(bytes).map(|(position, _)| position).filter(|position| position.epoch == view.epoch)
}

impl Process {
    /// Creates a process from what it has stored: the records that [`Process::take_records`] handed out, in their
    /// order, from the beginning of the last view or an earlier one. Messages of these views that a quorum held are
    /// delivered again. A subscriber that had some of them skips those by their place: instance, epoch, and order, or
    /// sender, incarnation and sequence. If the application gives snapshots and a state of it was stored, it takes
    /// that first ([`Process::take_snapshot`]), and only what comes behind it is delivered again, with the views and
    /// barriers between. Without any view among the records, this is [`Process::new`].
    ///
    /// # Errors
    /// If the configuration contradicts itself.
    pub fn restore(
        now: Instant,
        config: Config,
        records: &[impl AsRef<[u8]>],
        mut emit: impl FnMut(Again<'_>),
    ) -> Result<Self, ConfigError> {
        let mut process = Self::outside(now, config)?;
        let (config, mut promised) = (&process.cx.config, Promised::default());
        let (group, ranks) = (config.group, usize::from(config.members));
        let stores = config.snapshots && config.stores_snapshots;
        let found = stores.then(|| FoundState::among(records, group, ranks)).flatten();
        for (index, record) in records.iter().enumerate() {
            if let Ok(datagram) = Datagram::parse(record.as_ref(), group) {
                process.replay(now, &datagram, &mut promised, &mut |again| {
                    if found.as_ref().map_or(matches!(again, Again::Message(_)), |found| found.lacks(index, &again)) {
                        emit(again);
                    }
                });
            }
        }
        process.begin_again(now, promised, records.len() as u64);
        process.transfer.restored(found.and_then(|found| found.state));
        Ok(process)
    }

    fn replay(
        &mut self,
        now: Instant,
        datagram: &Datagram<'_>,
        promised: &mut Promised,
        emit: &mut impl FnMut(Again<'_>),
    ) {
        let header = datagram.header;
        let is_current = |process: &Self| {
            let View { instance, epoch, .. } = process.data.view;
            (header.instance(), header.epoch()) == (instance, epoch)
        };
        if header.channel() == DATA_CHANNEL {
            if is_current(self) && self.data.incarnation(header.rank()) == Some(header.incarnation()) {
                self.data.receive(now, datagram, 0, &mut self.cx.counters);
                self.deliver_again(now, emit);
            }
            return;
        }
        for frame in datagram.frames() {
            match frame.kind() {
                Some(Kind::View) => self.replay_view(now, datagram, &frame, promised, emit),
                Some(Kind::Row) if is_current(self) => {
                    self.replay_row(&frame);
                    self.deliver_again(now, emit);
                }
                Some(Kind::Ballot) if is_current(self) || header.epoch() == Epoch(0) => {
                    self.replay_step(datagram, &frame, promised);
                }
                _ => {}
            }
        }
    }

    fn replay_view(
        &mut self,
        now: Instant,
        datagram: &Datagram<'_>,
        frame: &Frame<'_>,
        promised: &mut Promised,
        emit: &mut impl FnMut(Again<'_>),
    ) {
        let header = datagram.header;
        let Some((info, entries)) = ViewInfo::read_all(frame.body) else { return };
        let Some((view, beginning)) = self.read_view(header, info, entries) else { return };
        let own = Member { rank: header.rank(), incarnation: header.incarnation() };
        let is_own = self.cx.config.rank() == Some(own.rank) && view.contains(own);
        let is_same = self.data.view.instance == view.instance;
        let follows = !is_same || (self.data.view.birth == view.birth && self.data.view.epoch < view.epoch);
        if !is_own || !follows || info.configuration.get() != self.cx.config.fingerprint() {
            return;
        }
        if !is_same && self.data.view.instance != InstanceId::NONE {
            self.past.forget();
        }
        self.cx.config.incarnation = own.incarnation;
        if let Some(value) = core::mem::take(promised).decided.filter(|value| value.view(view.epoch) == view) {
            self.conclude_again(now, value, emit);
        }
        // Without one the table was empty, and no client was known.
        let (clients, locks) =
            position_of(datagram, &view).map_or_else(Default::default, |position| (position.clients, position.locks));
        self.take_table_over(now, locks);
        self.coordination.sits_out = true;
        self.storage.iter_mut().for_each(|storage| storage.note_view(view.clone()));
        self.enter(now, view, &beginning);
        self.clients.take_over(&clients);
        self.clients.renumber();
        self.data.outbound = None; // from now on this process only receives in this view
        for stream in &mut self.data.streams {
            stream.stored = DatagramNumber(0); // where one member is a quorum, what it held is no proof that it counted
            stream.free(DatagramNumber(u64::MAX));
        }
        self.report_again(emit);
    }

    fn replay_row(&mut self, frame: &Frame<'_>) {
        let Some((row, entries)) = Row::read_all(frame.body) else { return };
        for member in &self.data.view.members {
            self.data.barrier.note_row(member.rank, row.reached_phase.get());
        }
        let marks = entries.iter().map(|entry| DatagramNumber(entry.received.get()));
        self.data.raise_stops_to(marks);
    }

    /// The view before ends: it is retained for members that are still in it.
    fn conclude_again(&mut self, now: Instant, value: Value, emit: &mut impl FnMut(Again<'_>)) {
        if self.standing() == Standing::Member {
            let (wall_ns, stay) = (self.cx.wall(now), self.stay(&value));
            self.data.obey(now, wall_ns, EndOrder::Conclude(value.cut.clone(), stay));
            self.deliver_again(now, emit);
        }
        if self.data.view.epoch == Epoch(0) || self.holds_end() {
            self.retire(now, Some(value));
        }
    }

    fn replay_step(&mut self, datagram: &Datagram<'_>, frame: &Frame<'_>, promised: &mut Promised) {
        let header = datagram.header;
        let Some((record, lists)) = BallotStep::read_all(frame.body) else { return };
        let members = self.cx.config.members;
        let Some((ballot, step)) = steps::decode(record, &lists, members, header.instance()) else { return };
        let forms = header.epoch() == Epoch(0);
        match step {
            Step::Propose(_) if forms => promised.forms = Some(header.incarnation()),
            Step::Prepare => promised.ballot = promised.ballot.max(ballot),
            Step::Propose(value) if self.may_follow(&value) => promised.accepted = Some((ballot, value)),
            Step::Decide(value) if forms || self.may_follow(&value) => promised.decided = Some(value),
            _ => {}
        }
    }

    /// Delivers what a quorum held.
    fn deliver_again(&mut self, now: Instant, emit: &mut impl FnMut(Again<'_>)) {
        loop {
            self.report_again(emit);
            if self.deliver(now, usize::MAX, |message| emit(Again::Message(message))) == 0 {
                return;
            }
        }
    }

    fn report_again(&mut self, emit: &mut impl FnMut(Again<'_>)) {
        while let Some(event) = self.cx.poll_event() {
            if matches!(event, Event::View { .. } | Event::Synced { .. }) {
                emit(Again::Event(event));
            }
        }
    }

    /// All records have been read.
    fn begin_again(&mut self, now: Instant, promised: Promised, count: u64) {
        while self.cx.poll_event().is_some() {}
        if self.standing() != Standing::Member {
            if let Some(incarnation) = promised.forms {
                // The others may have entered the first view with it.
                self.cx.config.incarnation = incarnation;
                self.cx.outbox.enter(self.cx.header(InstanceId::NONE, Epoch(0)));
            }
            self.storage.iter_mut().for_each(|storage| storage.note_taken(count));
            return self.begin(now);
        }
        for stream in &mut self.data.streams {
            stream.stored = stream.window.next;
            stream.free(stream.floor());
        }
        self.storage.iter_mut().for_each(|storage| storage.restored(&self.data, count));
        let wall_ns = self.cx.wall(now);
        self.data.obey(now, wall_ns, EndOrder::Wedge(BallotNumber(promised.ballot.0)));
        self.note_resumed(now); // the group may have been founded again meanwhile
        let view = self.data.view.clone();
        self.report_view(&view, &view, 0);
        self.report_to_agreement(now, ToAgreement::Restored(self.moment(now), promised.ballot, promised.accepted));
    }
}
