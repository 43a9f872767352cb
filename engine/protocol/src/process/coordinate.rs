//! Locks and elections of a process: where the data plane meets the coordinator (`control/coordinator.rs`).
//!
//! The process reports views, suspicions, link messages and commands of locks in their place in the order, and does
//! what the coordinator gives.
//!
//! A command is reported when it is delivered; the commands of one delivery are a batch. Once a quorum holds everything
//! that was delivered up to a batch, that is reported too, and the coordinator may report the grants of the batch.

use super::control_end::ControlEnd;
use super::{Process, Standing};
use crate::config::Config;
use crate::control::ToControl;
use crate::control::coordination::{
    Coordination, CoordinationRefusal, FencingToken, Leadership, LockId, LockStanding, MutexKind, Participation,
    Patience,
};
use crate::control::coordinator::{Coordinator, FromCoordinator, LinkFrame, ToCoordinator};
use crate::control::mutex::replicated::{Command, Grant, Replicated};
use crate::counters::Counter;
use crate::data::pack::Outgoing;
use crate::event::Message;
use crate::mutant::Mutant;
use crate::outbox::Destination;
use crate::view::bit;
use alloc::collections::{BTreeSet, VecDeque};
use alloc::vec::Vec;
use bourdon_wire::records::Link;
use bourdon_wire::{ClientId, ClientTag, DatagramNumber, Instant, Kind, OrderNumber, Rank, Sequence, TopicName};
use zerocopy::IntoBytes;

/// The process's end of what it exchanges with the coordinator.
#[derive(Debug)]
pub(super) struct Coordinating {
    /// An observer's coordinator has nothing to decide.
    is_observer: bool,
    /// The birth of the group's instance.
    birth: u64,
    /// Views entered and left so far.
    tenure: u64,
    /// How often this process has ceased to be a member.
    term: u64,
    /// Commands to publish.
    commands: VecDeque<Command>,
    /// The locks that this process has requested and not given back, as far as it has published that.
    requests: BTreeSet<TopicName>,
    /// The batch of the commands delivered next.
    batch: u64,
    /// A command was delivered, and other members wait for the row that acknowledges it.
    owes_row: bool,
    /// Batches that no quorum holds yet, with how far delivery had come in each stream.
    unheld: VecDeque<(u64, Vec<DatagramNumber>)>,
    /// What was last reported to a coordinator on another thread, and whether this process has left.
    may: Option<(Result<(), CoordinationRefusal>, bool)>,
    tickets: u64,
    /// The next view is one in which this process was restarted: it takes no part in locks and elections there.
    pub(super) sits_out: bool,
}

impl Coordinating {
    pub(super) fn new(config: &Config) -> Self {
        Self {
            is_observer: config.rank().is_none(),
            birth: 0,
            tenure: 0,
            term: 0,
            commands: VecDeque::new(),
            requests: BTreeSet::new(),
            batch: 1,
            owes_row: false,
            unheld: VecDeque::new(),
            may: None,
            tickets: 0,
            sits_out: false,
        }
    }

    /// Whether commands wait to be published.
    #[inline]
    pub(super) fn has_commands(&self) -> bool {
        !self.commands.is_empty()
    }

    /// Whether this takes the message: the group's own messages are for the coordinator only, not for the application.
    #[cold]
    pub(super) fn takes(&mut self, tag: ClientTag, delivery: &Message<'_>, control: &mut ControlEnd) -> bool {
        if tag.client() != ClientId::GROUP {
            return false;
        }
        if !self.is_observer
            && let (Some(order), Some(command)) = (delivery.order, Command::read(delivery.payload))
        {
            self.owes_row = true;
            let at = FencingToken { birth: self.birth, epoch: delivery.epoch, number: order.0 };
            control.push(ToCoordinator::Ordered { sender: delivery.sender, at, command, batch: self.batch });
        }
        true
    }

    pub(super) fn held(&self) -> usize {
        self.commands.len() + self.unheld.len()
    }
}

impl Process {
    // ---- the control plane ----------------------------------------------------------------------------------------

    /// The coordinator will be on another thread: whether locks may be requested is reported from now on.
    pub(super) fn release_coordinator(&mut self) -> Result<(), CoordinationRefusal> {
        let may = self.may_coordinate();
        self.coordination.may = Some((may, false));
        may
    }

    /// Does what the coordinator gives.
    pub(super) fn obey_coordinator(&mut self, now: Instant, order: FromCoordinator) {
        match order {
            FromCoordinator::Publish { term, command } => {
                let is_late = term != self.coordination.term;
                if !is_late || self.cx.config.mutant == Some(Mutant::LateCommandPublished) {
                    self.coordination.commands.push_back(command);
                }
            }
            FromCoordinator::Link { tenure, to, frame } => {
                let is_late = tenure != self.coordination.tenure;
                let sends = !is_late || self.cx.config.mutant == Some(Mutant::LateLinkSent);
                if sends && self.standing() == Standing::Member {
                    self.send_link(now, to, &frame);
                }
            }
            FromCoordinator::Table { ticket, table } => self.on_table(now, ticket, &table),
            FromCoordinator::Figures(figures) => {
                let counters = &mut self.cx.counters;
                counters.set(Counter::LockMessages, figures.lock_messages);
                counters.set(Counter::LockEntries, figures.lock_entries);
                counters.set(Counter::ElectionMessages, figures.election_messages);
                counters.set(Counter::ElectionsWon, figures.elections_won);
                counters.set(Counter::LinkOverhead, figures.link_overhead);
            }
        }
    }

    fn send_link(&mut self, now: Instant, to: Rank, frame: &LinkFrame) {
        // A link message to a member without a known address is repeated later. It is never sent to all, because each
        // receiver would take it as its own.
        let Some(address) = self.cx.presence.address(to) else { return };
        let mut space = [0; 1 + bourdon_wire::NAME_MAX_BYTES];
        let length = frame.name.as_ref().map_or(0, TopicName::wire_bytes);
        if let Some(name) = &frame.name {
            name.write(&mut space[..length]);
        }
        self.cx.send(now, Destination::Peer(address), Kind::Link, [frame.record.as_bytes(), &space[..length]]);
    }

    /// Reports to a coordinator on another thread whether locks may be requested, when that has changed.
    pub(super) fn report_standing(&mut self) {
        if self.control.is_apart {
            let (may, has_left) = (self.may_coordinate(), self.standing() == Standing::Gone);
            if self.coordination.may != Some((may, has_left)) {
                self.coordination.may = Some((may, has_left));
                self.control.push(ToCoordinator::May(may));
                if has_left {
                    self.control.push(ToCoordinator::Left);
                }
            }
        }
    }

    // ---- the application ------------------------------------------------------------------------------------------

    /// The coordinator, to ask it on behalf of the application: it knows whether locks may be requested now.
    ///
    /// # Panics
    /// As all calls about locks and elections, if the coordinator was taken out.
    pub fn coordinator(&mut self, now: Instant) -> &mut Coordinator {
        let (may, has_left) = (self.may_coordinate(), self.standing() == Standing::Gone);
        let coordinator = self.control.coordinator_mut();
        coordinator.note_may(may);
        if has_left {
            coordinator.take(now, ToCoordinator::Left);
        }
        coordinator
    }

    /// Requests a lock; [`Process::poll_coordination`] reports when it is granted, or why not, and when it is lost.
    ///
    /// # Errors
    /// If no lock can be requested now.
    ///
    /// # Panics
    /// As all calls about locks and elections, if the coordinator was taken out.
    pub fn lock(&mut self, name: TopicName, patience: Patience) -> Result<LockId, CoordinationRefusal> {
        let may = self.may_coordinate();
        let coordinator = self.control.coordinator_mut();
        coordinator.note_may(may);
        coordinator.lock(name, patience)
    }

    /// Releases a lock, or no longer waits for it; returns whether there was such a request. No further news of it
    /// follows.
    pub fn unlock(&mut self, id: LockId) -> bool {
        self.control.coordinator_mut().unlock(id)
    }

    /// The state of a request for a lock; `None` once it is over.
    pub fn lock_standing(&self, id: LockId) -> Option<LockStanding> {
        self.control.coordinator().lock_standing(id)
    }

    /// Takes part in an election; [`Process::poll_coordination`] reports the leader, now and whenever it changes.
    ///
    /// # Errors
    /// If this process can't take part in it now.
    pub fn elect(&mut self, name: TopicName, participation: Participation) -> Result<(), CoordinationRefusal> {
        let may = self.may_coordinate();
        let coordinator = self.control.coordinator_mut();
        coordinator.note_may(may);
        coordinator.elect(name, participation)
    }

    /// Gives up leadership and candidacy; the process still receives news of the leader.
    pub fn resign(&mut self, name: TopicName) {
        self.control.coordinator_mut().resign(name);
    }

    /// Resigns, and receives no more news of an election.
    pub fn leave_election(&mut self, name: TopicName) {
        self.control.coordinator_mut().leave_election(name);
    }

    /// The leader of an election that this process takes part in, if there is one.
    pub fn leader(&self, name: &TopicName) -> Option<Leadership> {
        self.control.coordinator().leader(name)
    }

    /// The next news of locks and elections, if there is any.
    #[inline]
    pub fn poll_coordination(&mut self) -> Option<Coordination> {
        self.control.here.as_mut()?.coordinator.poll_news()
    }

    fn may_coordinate(&self) -> Result<(), CoordinationRefusal> {
        match self.standing() {
            Standing::Member if self.state.lacks_majority() || !self.reaches_quorum() || self.is_restored() => {
                Err(CoordinationRefusal::NoMajority)
            }
            Standing::Member => Ok(()),
            Standing::Forming => Err(CoordinationRefusal::Forming),
            Standing::Outside | Standing::Following | Standing::Gone => Err(CoordinationRefusal::Outside),
        }
    }

    // ---- inspection -----------------------------------------------------------------------------------------------

    /// The locks this process holds.
    pub fn locks_held(&self) -> impl Iterator<Item = (&TopicName, FencingToken)> {
        self.control.coordinator().locks_held()
    }

    /// Whether any request of this process for a lock is pending or granted.
    pub fn has_lock_requests(&self) -> bool {
        self.control.coordinator().has_lock_requests()
    }

    /// The elections this process leads.
    pub fn leads(&self) -> impl Iterator<Item = (&TopicName, FencingToken)> {
        self.control.coordinator().leads()
    }

    /// The elections that this process takes part in, and their leaders.
    pub fn elections(&self) -> impl Iterator<Item = (&TopicName, Option<Leadership>)> {
        self.control.coordinator().elections()
    }

    /// The latest grants of replicated locks to any member, the newest last.
    pub fn lock_grants(&self) -> impl Iterator<Item = &Grant> {
        self.control.coordinator().lock_grants()
    }

    /// How many messages of a kind (`link_steps`) this process has sent to others about locks and elections.
    pub fn link_messages_sent(&self, step: u16) -> u64 {
        self.control.coordinator().link_messages_sent(step)
    }

    /// How many commands of replicated locks it has published.
    pub fn lock_commands(&self) -> u64 {
        self.control.coordinator().lock_commands()
    }

    // ---- the view -------------------------------------------------------------------------------------------------

    /// A view begins: this member announces what it holds.
    pub(super) fn begin_coordination(&mut self, now: Instant, order: OrderNumber) {
        let sits_out = core::mem::take(&mut self.coordination.sits_out);
        let is_member = self.standing() == Standing::Member && !sits_out;
        self.coordination.birth = self.data.view.birth;
        self.coordination.tenure += 1;
        self.coordination.unheld.clear(); // what the previous view delivered is in the cut
        self.report(
            now,
            ToControl::Coordinator(ToCoordinator::Entered { view: self.data.view.clone(), order, is_member }),
        );
        self.report_standing();
        self.note_suspects(now);
    }

    /// This process is no longer in the view.
    pub(super) fn end_coordination(&mut self, now: Instant) {
        self.coordination.tenure += 1;
        self.coordination.term += 1;
        self.coordination.commands.clear();
        self.coordination.unheld.clear();
        self.coordination.requests.clear();
        self.coordination.may = None;
        self.report(now, ToControl::Coordinator(ToCoordinator::Ended));
    }

    /// Whether a quorum of the view is not suspected.
    pub(super) fn reaches_quorum(&self) -> bool {
        let view = &self.data.view;
        let own = self.cx.config.rank().map_or(0, bit);
        view.is_quorum(view.bits() & (!self.detector.suspects() | own))
    }

    /// A member that can't reach a quorum holds no lock and leads nothing, whether or not a ballot is in progress.
    pub(super) fn note_suspects(&mut self, now: Instant) {
        if self.standing() == Standing::Member {
            let is_cut = self.state.lacks_majority() || !self.reaches_quorum();
            // First: what is requested after the fence is refused.
            self.report_standing();
            self.report(
                now,
                ToControl::Coordinator(ToCoordinator::Suspects { suspects: self.detector.suspects(), is_cut }),
            );
        }
    }

    // ---- snapshots ------------------------------------------------------------------------------------------------

    /// Asks for the table of replicated locks as it is at this place in the order; [`Process::on_table`] gets it.
    pub(super) fn want_table(&mut self) -> u64 {
        self.coordination.tickets += 1;
        let ticket = self.coordination.tickets;
        self.control.push(ToCoordinator::TableWanted { ticket });
        ticket
    }

    /// Whether these bytes are a table, where there must be one.
    pub(super) fn can_take_over(&self, table: &[u8]) -> bool {
        self.cx.config.mutex != MutexKind::Replicated || Replicated::read(table).is_some()
    }

    /// Starts with another member's table.
    pub(super) fn take_table_over(&mut self, now: Instant, table: Vec<u8>) {
        self.coordination.commands.clear();
        self.report(now, ToControl::Coordinator(ToCoordinator::TakeOver { table }));
    }

    // ---- other members --------------------------------------------------------------------------------------------

    /// Receives a link message from a member of this view.
    pub(super) fn on_link(&mut self, now: Instant, from: Rank, body: &[u8]) {
        let Some((record, name)) = Link::read_all(body) else { return };
        if self.standing() != Standing::Member {
            return;
        }
        // Each pair of members has its own numbers: a link message for another member must not count as the next link
        // message to this one.
        if self.cx.config.rank() != Some(Rank(record.to.get())) {
            return self.cx.count(Counter::DiscardedImplausible);
        }
        let name = name.and_then(|name| TopicName::new(name).ok());
        self.report(
            now,
            ToControl::Coordinator(ToCoordinator::Link { from, frame: LinkFrame { record: *record, name } }),
        );
    }

    /// Sends what is due.
    #[cold]
    pub(super) fn coordinate(&mut self, now: Instant) {
        if let Some(mut control) = self.control.here.take() {
            control.transmit(now, |order| self.obey(now, order));
            self.control.here = Some(control);
        }
        while let Some(command) = self.coordination.commands.front().copied() {
            let bytes = command.write();
            let tag = ClientTag::new(ClientId::GROUP, Sequence(0));
            let outgoing = Outgoing { client: Some(tag), ..Outgoing::default() };
            if self.try_publish(now, &outgoing, &bytes).is_err() {
                return;
            }
            command.note_in(&mut self.coordination.requests);
            self.coordination.commands.pop_front();
        }
    }

    // ---- the total order ------------------------------------------------------------------------------------------

    /// Messages were delivered: if commands were among them, their grants now wait for a quorum.
    #[inline]
    pub(super) fn note_commands(&mut self, now: Instant) {
        if core::mem::take(&mut self.coordination.owes_row) {
            self.end_batch(now);
        }
    }

    #[cold]
    fn end_batch(&mut self, now: Instant) {
        let batch = self.coordination.batch;
        self.coordination.batch += 1;
        // A member that waits for a quorum waits for this row, whatever the group's level.
        let is_open = self.data.end.is_open();
        if let Some(outbound) = self.data.outbound.as_mut().filter(|_| is_open) {
            outbound.ack.due = now;
        }
        self.pass_reports(now);
        if self.standing() != Standing::Member {
            return; // it waits for nothing, and may have begun beyond what the sequencer has
        }
        let marks = self.data.marks();
        self.data.note_sequencer_holds(&marks);
        let may_wait = match &self.control.here {
            Some(control) => control.coordinator.awaits(batch),
            None => !self.coordination.requests.is_empty(),
        };
        if may_wait {
            self.coordination.unheld.push_back((batch, marks));
        }
        self.settle_grants(now);
    }

    /// Reports which commands a quorum holds by now.
    #[inline]
    pub(super) fn settle_grants(&mut self, now: Instant) {
        if !self.coordination.unheld.is_empty() {
            self.report_held(now);
        }
    }

    #[cold]
    fn report_held(&mut self, now: Instant) {
        let held = |(rank, mark): (usize, &DatagramNumber)| self.data.held_by_quorum(Rank(rank as u16)) >= *mark;
        let mut last = None;
        while let Some((batch, _)) =
            self.coordination.unheld.front().filter(|(_, marks)| marks.iter().enumerate().all(held))
        {
            last = Some(*batch);
            self.coordination.unheld.pop_front();
        }
        if let Some(batch) = last {
            self.report(now, ToControl::Coordinator(ToCoordinator::Held { batch }));
        }
    }
}
