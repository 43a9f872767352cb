//! Locks and elections of a process: what `control/mutex.rs` and `control/election.rs` need of views, links and the
//! stream.
//!
//! When a view begins, each member announces to all others what it holds (`begin_coordination`, `on_link`); requests
//! are sent once all members have announced. Link messages go over perfect links, commands of replicated locks as the
//! group's own messages in the stream. A member that can't reach a quorum is fenced off, also while a view change makes
//! no progress.

use super::context::Context;
use super::{Process, Standing};
use crate::config::{Config, Order};
use crate::control::coordination::{
    Coordination, CoordinationRefusal, FencingToken, Leadership, LockId, LockStanding, Loss, MutexKind, NEWS_MAX,
    Participation, Patience,
};
use crate::control::election::Elections;
use crate::control::mutex::replicated::{Command, Grant, Replicated};
use crate::control::mutex::{Mutex, Seat};
use crate::control::perfect_link::{LinkMessage, PerfectLinks};
use crate::counters::Counter;
use crate::data::pack::Outgoing;
use crate::event::Delivery;
use crate::mutant::Mutant;
use crate::outbox::Destination;
use crate::view::{View, bit};
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use bourdon_wire::records::{Link, link_steps};
use bourdon_wire::{ClientId, ClientTag, Instant, Kind, OrderNumber, Rank, Sequence, TopicName};
use zerocopy::IntoBytes;

/// Everything a process keeps of locks and elections.
#[derive(Debug)]
pub(super) struct Coordinator {
    links: PerfectLinks,
    /// The birth of the group's instance.
    birth: u64,
    mutex: Mutex,
    elections: Elections,
    news: VecDeque<Coordination>,
    /// Bit r: rank r has announced all that it holds in this view.
    state_sent: u64,
    /// A command was delivered, and other members wait for the row that acknowledges it.
    owes_row: bool,
    /// Commands published so far.
    commands: u64,
}

impl Coordinator {
    pub(super) fn new(config: &Config) -> Self {
        Self {
            links: PerfectLinks::new(usize::from(config.members)),
            birth: 0,
            mutex: Mutex::new(config.mutex),
            elections: Elections::new(config.election),
            news: VecDeque::new(),
            state_sent: 0,
            owes_row: false,
            commands: 0,
        }
    }

    /// Whether there is something to send.
    #[inline]
    pub(super) fn is_due(&self) -> bool {
        !self.links.is_idle() || self.mutex.table().is_some_and(|t| t.command().is_some())
    }

    #[inline]
    pub(super) fn due(&self) -> Instant {
        self.links.due().min(self.mutex.due())
    }

    /// Ends requests that have waited long enough; what must be repeated is sent with the next transmission.
    pub(super) fn tend(&mut self, now: Instant) {
        self.links.tend(now);
        if now >= self.mutex.due() {
            self.mutex.tend(now);
            self.collect();
        }
    }

    /// Whether this takes the message: the group's own messages are for this part only, not for the application.
    #[cold]
    pub(super) fn takes(&mut self, tag: ClientTag, delivery: &Delivery<'_>) -> bool {
        if tag.client() != ClientId::GROUP {
            return false;
        }
        if let (Some(order), Some(command)) = (delivery.order, Command::read(delivery.payload)) {
            self.owes_row = true;
            let at = FencingToken { birth: self.birth, epoch: delivery.epoch, number: order.0 };
            self.mutex.deliver(delivery.sender, at, &command);
            self.collect();
        }
        true
    }

    /// Passes link messages to the links, and collects news.
    fn collect(&mut self) {
        for (to, message) in self.mutex.take_link_messages().into_iter().chain(self.elections.take_link_messages()) {
            self.links.send(to, message);
        }
        let locks = self.mutex.news.drain(..).map(|(id, news)| Coordination::Lock(id, news));
        self.news.extend(locks.chain(self.elections.news.drain(..)));
        self.news.truncate(NEWS_MAX);
    }

    /// The replicated table, for a joiner.
    pub(super) fn table(&self) -> Vec<u8> {
        self.mutex.table().map(|table| table.write()).unwrap_or_default()
    }

    /// Whether these bytes are a table.
    pub(super) fn can_take_over(&self, bytes: &[u8]) -> bool {
        self.mutex.table().is_none() || Replicated::read(bytes).is_some()
    }

    /// Starts with another member's table.
    pub(super) fn take_over(&mut self, bytes: &[u8]) {
        if let Some(table) = self.mutex.replicated() {
            table.take_over(bytes);
        }
    }

    pub(super) fn held(&self) -> usize {
        self.links.held() + self.mutex.held() + self.elections.held() + self.news.len()
    }

    /// A view begins: a member announces what it holds to all others, and then requests locks.
    fn begin(&mut self, config: &Config, view: &View, order: OrderNumber, is_member: bool) {
        let Some(own) = config.rank() else { return };
        self.birth = view.birth;
        let seat = Seat::new(own, view, config.mutant);
        self.links.enter();
        self.state_sent = bit(own);
        self.mutex.enter(seat.clone(), view, order.0, is_member);
        if !is_member {
            return self.collect();
        }
        self.elections.enter(seat.clone(), view);
        let is_replicated = config.mutex == MutexKind::Replicated;
        let held = self.mutex.holds().filter(|_| !is_replicated);
        let mut messages: Vec<LinkMessage> = held.map(|(name, _)| LinkMessage::new(link_steps::HOLDS, *name)).collect();
        messages.extend(self.elections.announcements());
        messages.push(LinkMessage::bare(link_steps::STATE_SENT));
        for to in seat.others() {
            messages.iter().for_each(|message| self.links.send(to, *message));
        }
        self.collect();
    }

    /// Once every member has announced what it holds, requests are sent.
    fn open(&mut self, view: &View) {
        if self.state_sent & view.bits() == view.bits() {
            self.mutex.open();
            self.elections.open();
            self.collect();
        }
    }

    /// This process is no longer in the view.
    pub(super) fn end(&mut self) {
        self.mutex.removed();
        self.elections.removed();
        self.collect();
        self.links.enter();
    }

    /// Receives a link message from a member of this view.
    fn receive(&mut self, now: Instant, cx: &mut Context, view: &View, from: Rank, body: &[u8]) {
        let Some((record, name)) = Link::read_all(body) else { return };
        // Each pair of members has its own numbers: a link message for another member must not count as the next link
        // message to this one.
        if cx.config.rank() != Some(Rank(record.to.get())) {
            return cx.count(Counter::DiscardedImplausible);
        }
        let Some(message) = self.links.receive(now, from, record, name) else { return };
        match (message.step, message.name) {
            (link_steps::STATE_SENT, _) => {
                self.state_sent |= bit(from);
                self.elections.on_state_sent(from);
                self.open(view);
            }
            (link_steps::HOLDS, Some(name)) => self.mutex.on_holds(from, name),
            (link_steps::REQUEST..link_steps::ELECTION, _) => self.mutex.receive(from, &message),
            _ => self.elections.receive(from, &message),
        }
        self.collect();
    }

    /// Sends the link messages that are due.
    fn transmit(&mut self, now: Instant, cx: &mut Context) {
        let mut space = [0; 1 + bourdon_wire::NAME_MAX_BYTES];
        self.links.transmit(now, |rank, record, name| {
            let length = name.map_or(0, TopicName::wire_bytes);
            if let Some(name) = name {
                name.write(&mut space[..length]);
            }
            // A link message to a member without a known address is repeated later. It is never sent to all, because
            // each receiver would take it as its own.
            if let Some(address) = cx.presence.address(rank) {
                let parts = [record.as_bytes(), &space[..length]];
                cx.send(now, Destination::Peer(address), Kind::Link, parts);
            }
        });
        let (links, counters) = (&self.links, &mut cx.counters);
        let sum = |steps: core::ops::Range<u16>| steps.map(|step| links.sent(step)).sum::<u64>();
        counters.set(Counter::LockMessages, sum(link_steps::REQUEST..link_steps::ELECTION) + self.commands);
        counters.set(Counter::LockEntries, self.mutex.entries());
        counters.set(Counter::ElectionMessages, sum(link_steps::ELECTION..link_steps::ACCEPTED));
        counters.set(Counter::ElectionsWon, self.elections.won());
        counters.set(Counter::LinkOverhead, links.overhead());
    }

    fn fence(&mut self, why: Loss) {
        self.mutex.fence(why);
        self.elections.fence(why);
        self.collect();
    }
}

impl Process {
    // ---- the application ------------------------------------------------------------------------------------------

    /// Requests a lock; [`Process::poll_coordination`] reports when it is granted, or why not, and when it is lost.
    ///
    /// # Errors
    /// If no lock can be requested now.
    pub fn lock(&mut self, name: TopicName, patience: Patience) -> Result<LockId, CoordinationRefusal> {
        self.may_coordinate()?;
        let is_ordered = self.cx.config.order == Order::Total && !self.cx.config.reliability.is_lossy();
        if self.cx.config.mutex == MutexKind::Replicated && !is_ordered {
            return Err(CoordinationRefusal::NeedsTotalOrder);
        }
        let id = self.coordination.mutex.lock(name, patience)?;
        self.coordination.collect();
        Ok(id)
    }

    /// Releases a lock, or no longer waits for it; returns whether there was such a request. No further news of it
    /// follows.
    pub fn unlock(&mut self, id: LockId) -> bool {
        let found = self.coordination.mutex.unlock(id);
        self.coordination.collect();
        self.coordination.news.retain(|news| !matches!(news, Coordination::Lock(of, _) if *of == id));
        found
    }

    /// The state of a request for a lock; `None` once it is over.
    pub fn lock_standing(&self, id: LockId) -> Option<LockStanding> {
        self.coordination.mutex.standing(id)
    }

    /// Takes part in an election; [`Process::poll_coordination`] reports the leader, now and whenever it changes.
    ///
    /// # Errors
    /// If this process can't take part in it now.
    pub fn elect(&mut self, name: TopicName, participation: Participation) -> Result<(), CoordinationRefusal> {
        self.may_coordinate()?;
        self.coordination.elections.take_part(name, participation)?;
        self.coordination.collect();
        Ok(())
    }

    /// Gives up leadership and candidacy; the process still receives news of the leader.
    pub fn resign(&mut self, name: TopicName) {
        self.coordination.elections.resign(name);
        self.coordination.collect();
    }

    /// Resigns, and receives no more news of an election.
    pub fn leave_election(&mut self, name: TopicName) {
        self.coordination.elections.leave(name);
        self.coordination.collect();
    }

    /// The leader of an election that this process takes part in, if there is one.
    pub fn leader(&self, name: &TopicName) -> Option<Leadership> {
        self.coordination.elections.leader(name)
    }

    /// The next news of locks and elections, if there is any.
    #[inline]
    pub fn poll_coordination(&mut self) -> Option<Coordination> {
        self.coordination.news.pop_front()
    }

    fn may_coordinate(&self) -> Result<(), CoordinationRefusal> {
        match self.standing() {
            Standing::Member if self.state.lacks_majority() || !self.reaches_quorum() => {
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
        self.coordination.mutex.holds()
    }

    /// Whether any request of this process for a lock is pending or granted.
    pub fn has_lock_requests(&self) -> bool {
        self.coordination.mutex.is_busy()
    }

    /// The elections this process leads.
    pub fn leads(&self) -> impl Iterator<Item = (&TopicName, FencingToken)> {
        self.coordination.elections.leads()
    }

    /// The elections that this process takes part in, and their leaders.
    pub fn elections(&self) -> impl Iterator<Item = (&TopicName, Option<Leadership>)> {
        self.coordination.elections.all()
    }

    /// The latest grants of replicated locks to any member, the newest last.
    pub fn lock_grants(&self) -> impl Iterator<Item = &Grant> {
        self.coordination.mutex.table().into_iter().flat_map(|table| table.recent())
    }

    /// How many messages of a kind ([`link_steps`]) this process has sent to others about locks and elections.
    pub fn link_messages_sent(&self, step: u16) -> u64 {
        self.coordination.links.sent(step)
    }

    /// How many commands of replicated locks it has published.
    pub fn lock_commands(&self) -> u64 {
        self.coordination.commands
    }

    // ---- the view -------------------------------------------------------------------------------------------------

    /// A view begins: this member announces what it holds.
    pub(super) fn begin_coordination(&mut self, order: OrderNumber) {
        let is_member = self.standing() == Standing::Member;
        self.coordination.begin(&self.cx.config, &self.data.view, order, is_member);
        if is_member {
            self.note_suspects();
            self.coordination.open(&self.data.view);
        }
    }

    /// Whether a quorum of the view is not suspected.
    fn reaches_quorum(&self) -> bool {
        let view = &self.data.view;
        let own = self.cx.config.rank().map_or(0, bit);
        view.is_quorum(view.bits() & (!self.detector.suspects() | own))
    }

    /// A member that can't reach a quorum holds no lock and leads nothing, whether or not a ballot is in progress.
    pub(super) fn note_suspects(&mut self) {
        if self.standing() != Standing::Member {
            return;
        }
        let is_cut = self.state.lacks_majority() || !self.reaches_quorum();
        self.coordination.elections.suspect(self.detector.suspects(), is_cut);
        if is_cut {
            self.fence(Loss::NoMajority);
        }
        self.coordination.collect();
    }

    pub(super) fn fence(&mut self, why: Loss) {
        if self.cx.config.mutant != Some(Mutant::HolderNotFenced) {
            self.coordination.fence(why);
        }
    }

    // ---- other members --------------------------------------------------------------------------------------------

    /// Receives a link message from a member of this view.
    pub(super) fn on_link(&mut self, now: Instant, from: Rank, body: &[u8]) {
        if self.standing() == Standing::Member {
            self.coordination.receive(now, &mut self.cx, &self.data.view, from, body);
        }
    }

    /// Sends what is due.
    #[cold]
    pub(super) fn coordinate(&mut self, now: Instant) {
        self.publish_commands(now);
        if self.standing() == Standing::Member {
            self.coordination.transmit(now, &mut self.cx);
        } else {
            self.coordination.links.enter();
        }
    }

    // ---- the total order ------------------------------------------------------------------------------------------

    fn publish_commands(&mut self, now: Instant) {
        loop {
            let Some(command) = self.coordination.mutex.table().and_then(|table| table.command()) else { return };
            let bytes = command.write();
            let tag = ClientTag::new(ClientId::GROUP, Sequence(0));
            let outgoing = Outgoing { client: Some(tag), ..Outgoing::default() };
            if self.try_publish(now, &outgoing, &bytes).is_err() {
                return;
            }
            self.coordination.commands += 1;
            if let Some(table) = self.coordination.mutex.replicated() {
                table.published();
            }
        }
    }

    /// Messages were delivered: if commands were among them, their grants now wait for a quorum.
    #[inline]
    pub(super) fn note_commands(&mut self, now: Instant) {
        if core::mem::take(&mut self.coordination.owes_row) {
            self.mark_commands(now);
        }
    }

    #[cold]
    fn mark_commands(&mut self, now: Instant) {
        // A member that waits for a quorum waits for this row, whatever the group's level.
        let is_open = self.data.end.is_open();
        if let Some(outbound) = self.data.outbound.as_mut().filter(|_| is_open) {
            outbound.ack.due = now;
        }
        if self.standing() != Standing::Member {
            return; // it waits for nothing, and may have begun beyond what the sequencer has
        }
        let marks = self.data.marks();
        self.data.note_sequencer_holds(&marks);
        if let Some(table) = self.coordination.mutex.replicated().filter(|table| table.has_unmarked()) {
            table.mark(&marks);
        }
        self.settle_grants();
    }

    /// Reports the grants that a quorum holds by now.
    #[inline]
    pub(super) fn settle_grants(&mut self) {
        if self.coordination.mutex.table().is_some_and(|table| table.is_waiting()) {
            self.show_grants();
        }
    }

    #[cold]
    fn show_grants(&mut self) {
        let data = &self.data;
        self.coordination.mutex.show_grants(|rank| data.held_by_quorum(Rank(rank as u16)));
        self.coordination.collect();
    }
}
