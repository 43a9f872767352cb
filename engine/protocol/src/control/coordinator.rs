//! The coordinator: all that a process decides about locks and elections, a machine of its own.
//!
//! A storm of requests for locks must not delay messages. So the coordinator shares nothing with the data plane: it
//! takes [`ToCoordinator`] values and gives [`FromCoordinator`] values, each side in the order in which the other made
//! them. A node may run it on a thread of its own, where values arrive late. An inline node hands them over at once.
//!
//! When a view begins, each member announces to all others what it holds; requests are sent once all members have
//! announced. Link messages go over perfect links, commands of replicated locks as the group's own messages in the
//! stream. A member that can't reach a quorum is fenced off, also while a view change makes no progress.
//!
//! Invariants: what it gives names the view, or the time as a member, in which it was given, and is void in any other;
//! it reports a replicated lock's grant only after the data plane has reported that a quorum holds the commands up to
//! it. Bounds: those of locks, elections and links; news that is not fetched, [`NEWS_MAX`].

use super::coordination::{
    Coordination, CoordinationRefusal, FencingToken, Leadership, LockId, LockStanding, Loss, MutexKind, NEWS_MAX,
    Participation, Patience,
};
use super::election::Elections;
use super::mutex::replicated::{Command, Grant, Replicated};
use super::mutex::{Mutex, Seat};
use super::perfect_link::{LinkMessage, PerfectLinks};
use crate::config::{Config, Order};
use crate::mutant::Mutant;
use crate::view::{View, bit};
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use bourdon_wire::records::{Link, link_steps};
use bourdon_wire::{Instant, OrderNumber, Rank, TopicName};

/// A link message as it travels.
#[derive(Clone, Copy, Debug)]
pub struct LinkFrame {
    pub(crate) record: Link,
    pub(crate) name: Option<TopicName>,
}

/// From the data plane.
#[derive(Clone, Debug)]
pub enum ToCoordinator {
    /// A view begins.
    Entered {
        /// The view.
        view: View,
        /// The number of its first message in total order: every command before it has been reported.
        order: OrderNumber,
        /// This process is a member of it, not a follower.
        is_member: bool,
    },
    /// This process is no longer in the view.
    Ended,
    /// This process has left the group for good.
    Left,
    /// Whether locks may be requested now, or why not.
    May(Result<(), CoordinationRefusal>),
    /// Which members the detectors suspect, and whether this process reaches no quorum because of that.
    Suspects {
        /// Bit r: rank r.
        suspects: u64,
        /// It reaches no quorum.
        is_cut: bool,
    },
    /// A member of this view has sent a link message.
    Link {
        /// The member.
        from: Rank,
        /// The message.
        frame: LinkFrame,
    },
    /// A command of replicated locks has its place in the order.
    Ordered {
        /// The member that published it.
        sender: Rank,
        /// The place.
        at: FencingToken,
        /// The command.
        command: Command,
        /// Counts the deliveries of commands: all that were delivered together have one number.
        batch: u64,
    },
    /// A quorum holds all commands up to this batch, and everything that was delivered before them.
    Held {
        /// The batch.
        batch: u64,
    },
    /// Start with this table, as another member has it at this place in the order.
    TakeOver {
        /// The table, which is valid.
        table: Vec<u8>,
    },
    /// The table is wanted as it is at this place in the order.
    TableWanted {
        /// Comes back with the table.
        ticket: u64,
    },
}

/// From the coordinator.
#[derive(Clone, Debug)]
pub enum FromCoordinator {
    /// Publish this command, in this view or a later one, while this process stays a member.
    Publish {
        /// How often this process had ceased to be a member.
        term: u64,
        /// The command.
        command: Command,
    },
    /// Send this link message.
    Link {
        /// Views entered and left so far.
        tenure: u64,
        /// To this member.
        to: Rank,
        /// The message.
        frame: LinkFrame,
    },
    /// The table that was wanted.
    Table {
        /// As it was wanted.
        ticket: u64,
        /// The table.
        table: Vec<u8>,
    },
    /// Its figures have changed.
    Figures(CoordinationFigures),
}

/// What a coordinator has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CoordinationFigures {
    pub(crate) lock_messages: u64,
    pub(crate) lock_entries: u64,
    pub(crate) election_messages: u64,
    pub(crate) elections_won: u64,
    pub(crate) link_overhead: u64,
}

/// Decides about the locks and elections of one process.
#[derive(Debug)]
pub struct Coordinator {
    own: Option<Rank>,
    mutant: Option<Mutant>,
    /// Replicated locks need an order that all members agree on, and this group has none.
    lacks_order: bool,
    is_replicated: bool,
    links: PerfectLinks,
    mutex: Mutex,
    elections: Elections,
    news: VecDeque<Coordination>,
    /// Why no lock can be requested now, as the process reported last.
    may: Result<(), CoordinationRefusal>,
    is_member: bool,
    has_left: bool,
    /// Which members are suspected: bit r is rank r.
    suspects: u64,
    /// No quorum is reached because of that.
    is_cut: bool,
    /// The data plane is not heard.
    is_silent: bool,
    /// The members of the view: bit r is rank r.
    members: u64,
    /// Bit r: rank r has announced all that it holds in this view.
    state_sent: u64,
    /// Views entered and left so far: what is given in one is void in the next.
    tenure: u64,
    /// How often this process has ceased to be a member.
    term: u64,
    /// Commands given so far.
    commands: u64,
    /// Tables to give.
    tables: VecDeque<(u64, Vec<u8>)>,
    given: CoordinationFigures,
}

impl Coordinator {
    /// Of a process with this configuration.
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            own: config.rank(),
            mutant: config.mutant,
            lacks_order: config.order != Order::Total || config.reliability.is_lossy(),
            is_replicated: config.mutex == MutexKind::Replicated,
            links: PerfectLinks::new(usize::from(config.members)),
            mutex: Mutex::new(config.mutex),
            elections: Elections::new(config.election),
            news: VecDeque::new(),
            may: Err(CoordinationRefusal::Outside),
            is_member: false,
            has_left: false,
            suspects: 0,
            is_cut: false,
            is_silent: false,
            members: 0,
            state_sent: 0,
            tenure: 0,
            term: 0,
            commands: 0,
            tables: VecDeque::new(),
            given: CoordinationFigures::default(),
        }
    }

    // ---- the application ------------------------------------------------------------------------------------------

    /// Requests a lock; [`Coordinator::poll_news`] reports when it is granted, or why not, and when it is lost.
    ///
    /// # Errors
    /// If no lock can be requested now.
    pub fn lock(&mut self, name: TopicName, patience: Patience) -> Result<LockId, CoordinationRefusal> {
        self.may_request()?;
        if self.is_replicated && self.lacks_order {
            return Err(CoordinationRefusal::NeedsTotalOrder);
        }
        let id = self.mutex.lock(name, patience)?;
        self.collect();
        Ok(id)
    }

    /// Releases a lock, or no longer waits for it; returns whether there was such a request. No further news of it
    /// follows.
    pub fn unlock(&mut self, id: LockId) -> bool {
        let found = self.mutex.unlock(id);
        self.collect();
        self.news.retain(|news| !matches!(news, Coordination::Lock(of, _) if *of == id));
        found
    }

    /// The state of a request for a lock; `None` once it is over.
    pub fn lock_standing(&self, id: LockId) -> Option<LockStanding> {
        self.mutex.standing(id)
    }

    /// Takes part in an election; [`Coordinator::poll_news`] reports the leader, now and whenever it changes.
    ///
    /// # Errors
    /// If this process can't take part in it now.
    pub fn elect(&mut self, name: TopicName, participation: Participation) -> Result<(), CoordinationRefusal> {
        self.may_request()?;
        self.elections.take_part(name, participation)?;
        self.collect();
        Ok(())
    }

    /// Gives up leadership and candidacy; the process still receives news of the leader.
    pub fn resign(&mut self, name: TopicName) {
        self.elections.resign(name);
        self.collect();
    }

    /// Resigns, and receives no more news of an election.
    pub fn leave_election(&mut self, name: TopicName) {
        self.elections.leave(name);
        self.collect();
    }

    /// The leader of an election that this process takes part in, if there is one.
    pub fn leader(&self, name: &TopicName) -> Option<Leadership> {
        self.elections.leader(name)
    }

    /// The next news of locks and elections, if there is any.
    #[inline]
    pub fn poll_news(&mut self) -> Option<Coordination> {
        self.news.pop_front()
    }

    /// This process's rank.
    pub fn rank(&self) -> Option<Rank> {
        self.own
    }

    /// Whether this process has left the group for good.
    pub fn has_left(&self) -> bool {
        self.has_left
    }

    /// Whether the data plane has been silent for longer than the group waits for it. Others may hold by now what this
    /// process held, so it holds nothing, and requests are refused until the data plane is heard again.
    pub fn note_silence(&mut self, is_silent: bool) {
        if core::mem::replace(&mut self.is_silent, is_silent) != is_silent {
            self.note_reach(Loss::Stalled);
        }
    }

    /// Whether this process reaches a quorum may have changed: if not, it is fenced for this reason.
    fn note_reach(&mut self, why: Loss) {
        let is_cut = self.is_cut || self.is_silent;
        self.elections.suspect(self.suspects, is_cut);
        if is_cut {
            self.fence(why);
        }
        self.collect();
    }

    fn may_request(&self) -> Result<(), CoordinationRefusal> {
        if self.is_silent { Err(CoordinationRefusal::NoMajority) } else { self.may }
    }

    // ---- inspection -----------------------------------------------------------------------------------------------

    /// The locks this process holds.
    pub fn locks_held(&self) -> impl Iterator<Item = (&TopicName, FencingToken)> {
        self.mutex.holds()
    }

    pub(crate) fn has_lock_requests(&self) -> bool {
        self.mutex.is_busy()
    }

    /// The elections this process leads.
    pub fn leads(&self) -> impl Iterator<Item = (&TopicName, FencingToken)> {
        self.elections.leads()
    }

    pub(crate) fn elections(&self) -> impl Iterator<Item = (&TopicName, Option<Leadership>)> {
        self.elections.all()
    }

    /// The latest grants of replicated locks to any member, the newest last.
    pub fn lock_grants(&self) -> impl Iterator<Item = &Grant> {
        self.mutex.table().into_iter().flat_map(|table| table.recent())
    }

    pub(crate) fn link_messages_sent(&self, step: u16) -> u64 {
        self.links.sent(step)
    }

    pub(crate) fn lock_commands(&self) -> u64 {
        self.commands
    }

    /// The number of entries kept.
    pub(crate) fn held(&self) -> usize {
        self.links.held() + self.mutex.held() + self.elections.held() + self.news.len()
    }

    // ---- the data plane -------------------------------------------------------------------------------------------

    /// Takes the next value from the data plane.
    pub fn take(&mut self, now: Instant, value: ToCoordinator) {
        match value {
            ToCoordinator::Entered { view, order, is_member } => self.enter(&view, order, is_member),
            ToCoordinator::Ended => self.end(),
            ToCoordinator::Left => self.has_left = true,
            ToCoordinator::May(may) => self.note_may(may),
            ToCoordinator::Suspects { suspects, is_cut } => {
                (self.suspects, self.is_cut) = (suspects, is_cut);
                self.note_reach(Loss::NoMajority);
            }
            ToCoordinator::Link { from, frame } => self.receive(now, from, &frame),
            ToCoordinator::Ordered { sender, at, command, batch } => {
                self.mutex.deliver(sender, at, &command, batch);
                if self.mutant == Some(Mutant::GrantBeforeReported) {
                    self.mutex.show_grants(batch);
                }
                self.collect();
            }
            ToCoordinator::Held { batch } => {
                self.mutex.show_grants(batch);
                self.collect();
            }
            ToCoordinator::TakeOver { table } => {
                if let Some(replicated) = self.mutex.replicated() {
                    replicated.take_over(&table);
                }
            }
            ToCoordinator::TableWanted { ticket } => {
                let table = self.mutex.table().map(Replicated::write).unwrap_or_default();
                self.tables.push_back((ticket, table));
            }
        }
    }

    /// Whether locks may be requested now, or why not.
    pub(crate) fn note_may(&mut self, may: Result<(), CoordinationRefusal>) {
        self.may = may;
    }

    /// The next table that the data plane asked for.
    pub(crate) fn poll_table(&mut self) -> Option<FromCoordinator> {
        self.tables.pop_front().map(|(ticket, table)| FromCoordinator::Table { ticket, table })
    }

    /// Whether a grant waits for this batch of commands to be held.
    pub(crate) fn awaits(&self, batch: u64) -> bool {
        self.mutex.table().is_some_and(|table| table.awaits(batch))
    }

    /// Whether [`Coordinator::transmit`] has anything to send or publish.
    #[inline]
    pub fn is_due(&self) -> bool {
        !self.links.is_idle() || self.mutex.table().is_some_and(Replicated::has_commands)
    }

    /// Whether this process holds or requests a lock, or takes part in an election.
    pub fn is_engaged(&self) -> bool {
        self.has_lock_requests() || self.elections().next().is_some()
    }

    /// When to call [`Coordinator::tend`], at the latest.
    #[inline]
    pub fn due(&self) -> Instant {
        self.links.due().min(self.mutex.due())
    }

    /// Ends requests that have waited long enough; what must be repeated is given with the next transmission.
    pub fn tend(&mut self, now: Instant) {
        self.links.tend(now);
        if now >= self.mutex.due() {
            self.mutex.tend(now);
            self.collect();
        }
    }

    /// Gives what the data plane must do now.
    pub fn transmit(&mut self, now: Instant, mut give: impl FnMut(FromCoordinator)) {
        while let Some(table) = self.poll_table() {
            give(table);
        }
        if let Some(table) = self.mutex.replicated() {
            while let Some(command) = table.pop_command() {
                self.commands += 1;
                give(FromCoordinator::Publish { term: self.term, command });
            }
        }
        if !self.is_member {
            self.links.enter();
        }
        let tenure = self.tenure;
        self.links.transmit(now, |to, record, name| {
            give(FromCoordinator::Link { tenure, to, frame: LinkFrame { record: *record, name: name.copied() } });
        });
        let figures = self.figures();
        if figures != self.given {
            self.given = figures;
            give(FromCoordinator::Figures(figures));
        }
    }

    fn figures(&self) -> CoordinationFigures {
        let sum = |steps: core::ops::Range<u16>| steps.map(|step| self.links.sent(step)).sum::<u64>();
        CoordinationFigures {
            lock_messages: sum(link_steps::REQUEST..link_steps::ELECTION) + self.commands,
            lock_entries: self.mutex.entries(),
            election_messages: sum(link_steps::ELECTION..link_steps::ACCEPTED),
            elections_won: self.elections.won(),
            link_overhead: self.links.overhead(),
        }
    }

    // ---- the view -------------------------------------------------------------------------------------------------

    /// A view begins: a member announces what it holds to all others, and then requests locks.
    fn enter(&mut self, view: &View, order: OrderNumber, is_member: bool) {
        (self.is_member, self.members) = (is_member, view.bits());
        (self.suspects, self.is_cut) = (0, false); // reported next
        self.tenure += 1;
        let Some(own) = self.own else { return };
        let seat = Seat::new(own, view, self.mutant);
        self.links.enter();
        self.state_sent = bit(own);
        self.mutex.enter(seat.clone(), view, order.0, is_member);
        if !is_member {
            return self.collect();
        }
        self.elections.enter(seat.clone(), view);
        let held = self.mutex.holds().filter(|_| !self.is_replicated);
        let mut messages: Vec<LinkMessage> = held.map(|(name, _)| LinkMessage::new(link_steps::HOLDS, *name)).collect();
        messages.extend(self.elections.announcements());
        messages.push(LinkMessage::bare(link_steps::STATE_SENT));
        for to in seat.others() {
            messages.iter().for_each(|message| self.links.send(to, *message));
        }
        self.collect();
        if self.is_silent {
            self.note_reach(Loss::Stalled); // it leads nothing in this view either
        }
        self.open();
    }

    /// Once every member has announced what it holds, requests are sent.
    fn open(&mut self) {
        if self.state_sent & self.members == self.members {
            self.mutex.open();
            self.elections.open();
            self.collect();
        }
    }

    /// This process is no longer in the view.
    fn end(&mut self) {
        (self.is_member, self.may) = (false, Err(CoordinationRefusal::Outside));
        self.tenure += 1;
        self.term += 1;
        self.mutex.removed();
        self.elections.removed();
        self.collect();
        self.links.enter();
    }

    fn fence(&mut self, why: Loss) {
        if self.mutant != Some(Mutant::HolderNotFenced) {
            self.mutex.fence(why);
            self.elections.fence(why);
        }
        self.collect();
    }

    /// Receives a link message from a member of this view.
    fn receive(&mut self, now: Instant, from: Rank, frame: &LinkFrame) {
        if !self.is_member {
            return;
        }
        let name = frame.name.as_ref().map(TopicName::as_str);
        let Some(message) = self.links.receive(now, from, &frame.record, name) else { return };
        match (message.step, message.name) {
            (link_steps::STATE_SENT, _) => {
                self.state_sent |= bit(from);
                self.elections.on_state_sent(from);
                self.open();
            }
            (link_steps::HOLDS, Some(name)) => self.mutex.on_holds(from, name),
            (link_steps::REQUEST..link_steps::ELECTION, _) => self.mutex.receive(from, &message),
            _ => self.elections.receive(from, &message),
        }
        self.collect();
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
}
