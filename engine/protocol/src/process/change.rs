//! Carries out the change from one view to the next.
//!
//! `control/view_change.rs` defines what may be decided, its driver which step is due, `control/membership.rs` which
//! members the next view should have; none of them knows of time or of messages' bytes. This file supplies both: it
//! turns verdicts into proposals, carries out the driver's commands ([`Process::carry_out`]), keeps its timers, and
//! enters a decided view.
//!
//! No member is left out because it answers slowly, as long as no detector suspects it, up to [`PATIENCE`] takeovers.

use super::application::LEAVE_WAIT_NS;
use super::standing::{Gone, Joined, State};
use super::{Doubt, Process, Standing, header, steps};
use crate::config::{Config, Role};
use crate::control::detector::{Change, Path};
use crate::control::view_change::driver::{Command, Commands, Driver, Situation as Reports, Timer, To};
use crate::control::view_change::{Ballot, Proposal, Step, Value, continues, continuing};
use crate::counters::Counter;
use crate::data::barrier::Standing as AtBarrier;
use crate::data::epoch_state::EpochState;
use crate::data::loss::numbers_of;
use crate::data::pipeline::Pipeline;
use crate::event::{Delivery, Event};
use crate::mutant::Mutant;
use crate::outbox::Destination;
use crate::view::{Beginning, Member, View, bit, ranks};
use alloc::boxed::Box;
use bourdon_wire::records::{BallotStep, heartbeat_flags};
use bourdon_wire::{DatagramHeader, Epoch, InstanceId, Instant, Kind, OrderNumber, Rank, Sequence};

/// For how many takeovers a proposer waits for members that are not suspected and do not answer.
const PATIENCE: u64 = 4;
/// A member's report of the members that it hears counts for so many suspicion times.
pub(super) const FRESH: u64 = 2;

/// When something about the view is due.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    /// When to check the situation again.
    pub(super) look_due: Instant,
    /// When the ballot last made progress: `Patience` and `Takeover` count from here.
    since: Instant,
    /// When `Repeat` expires.
    again_at: Instant,
}

impl Default for Clock {
    fn default() -> Self {
        Self { look_due: Instant::NEVER, since: Instant::NEVER, again_at: Instant::NEVER }
    }
}

/// A driver for the change of a view that this process is a member of.
pub(super) fn own_driver(config: &Config, own: Member, view: View) -> Driver {
    Driver::new(own, view, config.members_min(), config.mutant)
}

impl Process {
    pub(super) fn own_member(&self) -> Option<Member> {
        let rank = self.config.rank()?;
        Some(Member { rank, incarnation: self.config.incarnation })
    }

    /// When something about the view is due.
    pub(super) fn change_due(&self) -> Instant {
        let parts_at = self.state.farewell().map_or(Instant::NEVER, |(_, at)| at);
        self.clock.look_due.min(self.clock.again_at).min(parts_at)
    }

    // ---- membership -----------------------------------------------------------------------------------------------

    /// Updates the detectors, and acts on the result.
    pub(super) fn look(&mut self, now: Instant) {
        let (events, counters) = (&mut self.events, &mut self.counters);
        let mut changed = false;
        self.detector.look(now, |rank, change| {
            changed = true;
            let event = match change {
                Change::Suspected(why) => Event::Suspected(rank, why),
                Change::Trusted => Event::Trusted(rank),
            };
            super::push_event(events, counters, event);
        });
        if changed {
            // The others should know at once which members we no longer hear, or hear again.
            self.data.suspected = self.detector.suspects();
            self.heartbeat.due = now;
            self.clock.look_due = now;
            self.note_suspects();
        }
    }

    /// Checks whether the view should change, and keeps a ballot going.
    pub(super) fn tend_view(&mut self, now: Instant) {
        self.clock.look_due = Instant::NEVER;
        if self.state.farewell().is_some_and(|(_, at)| now >= at) {
            self.part();
        }
        let repeats = now >= self.clock.again_at;
        if repeats {
            self.clock.again_at = Instant::NEVER; // a proposer that still leads repeats its step, and sets a new time
        }
        let Some(change) = self.state.driver() else { return };
        if change.ballots().decided().is_some() {
            return; // delivery does the rest
        }
        match self.standing() {
            Standing::Forming if now >= self.wishes.leave_by() => self.go(),
            Standing::Forming => self.tend_forming(now, repeats),
            Standing::Member if change.ballots().is_wedged() => self.tend_ballot(now, repeats),
            Standing::Member => self.consider(now),
            _ => {}
        }
    }

    // ---- the driver -----------------------------------------------------------------------------------------------

    pub(super) fn lead(&mut self, now: Instant, proposal: Proposal) {
        self.drive(now, |driver, _, out| driver.lead(proposal, out));
    }

    /// Continues a ballot in progress, this member's own or another's.
    pub(super) fn tend_ballot(&mut self, now: Instant, repeats: bool) {
        let takeover_after_ns = self.config.timing.membership.takeover_after_ns;
        let Some(change) = self.state.driver() else { return };
        let (timer, expires_at) = if change.ballots().leads().is_some() {
            (Timer::Patience, self.clock.since + PATIENCE * takeover_after_ns)
        } else {
            // The next member in seniority takes over once the ballot has made no progress for too long.
            let view = &self.data.view;
            let reachable = view.bits() & !self.detector.suspects();
            let place = self.config.rank().map_or(0, |rank| view.seniority(rank, reachable)) as u64 + 1;
            // A proposer that is heard may wait for a member that is heard and does not answer: its patience must
            // expire first.
            let is_heard = reachable & bit(change.ballots().promised().proposer()) != 0;
            let takeovers = place + if is_heard { PATIENCE } else { 0 };
            (Timer::Takeover, self.clock.since + takeovers * takeover_after_ns)
        };
        if repeats {
            self.drive(now, |driver, reports, out| driver.on_timer(Timer::Repeat, reports, out));
        }
        if now >= expires_at {
            self.drive(now, |driver, reports, out| driver.on_timer(timer, reports, out));
        } else {
            self.drive(now, |driver, reports, out| driver.on_situation(reports, out));
            self.clock.look_due = self.clock.look_due.min(expires_at);
        }
    }

    /// What the detectors report.
    pub(super) fn reports(&self) -> Reports {
        let evidence = ranks(self.data.view.bits()).filter(|rank| self.detector.has_evidence(*rank));
        let evidence = evidence.fold(0, |all, rank| all | bit(rank));
        Reports { suspects: self.detector.suspects(), evidence }
    }

    /// Gives the driver an input, and carries out what it commands.
    fn drive(&mut self, now: Instant, input: impl FnOnce(&mut Driver, &Reports, &mut Commands)) {
        let (reports, mut commands) = (self.reports(), Commands::new());
        let Some(driver) = self.state.driver_mut() else { return };
        let led = driver.ballots().leads();
        input(driver, &reports, &mut commands);
        if driver.ballots().leads() > led {
            self.counters.add(Counter::Ballots, 1);
        }
        self.carry_out(now, &reports, commands);
    }

    /// Carries out the driver's commands, and reports to it what the data plane makes of them.
    fn carry_out(&mut self, now: Instant, reports: &Reports, mut commands: Commands) {
        while let Some(command) = commands.pop_front() {
            match command {
                Command::Send { to: To::All, ballot, step } => {
                    self.send_step(now, Destination::Group, &steps::encode(ballot, &step));
                }
                Command::Send { to: To::Member(rank), ballot, step } => self.answer(now, rank, ballot, &step),
                Command::Wedge => {
                    let wall_ns = self.wall(now);
                    self.data.wedge(wall_ns);
                    let held = self.data.held();
                    if let Some(driver) = self.state.driver_mut() {
                        driver.on_wedged(held, reports, &mut commands);
                    }
                }
                Command::Fetch { cut, stay } => {
                    self.data.fetch(now, &cut, stay);
                    self.report_cut(reports, &mut commands);
                }
                Command::Conclude { cut, stay } => {
                    let wall_ns = self.wall(now);
                    self.data.wedge(wall_ns);
                    self.data.conclude(now, &cut, stay);
                    self.clock = Clock::default();
                }
                Command::Install(value) => self.install(now, value),
                Command::Arm(Timer::Repeat) => self.clock.again_at = now + self.config.timing.ballot_retry_ns,
                Command::Arm(Timer::Patience | Timer::Takeover) => {
                    (self.clock.since, self.clock.look_due) = (now, now);
                }
            }
        }
    }

    /// Reports to the driver once this process holds the cut that it had to fetch.
    fn report_cut(&mut self, reports: &Reports, commands: &mut Commands) {
        let early = self.config.mutant == Some(Mutant::AcceptBeforeFetch);
        if self.data.has_fetched(early)
            && let Some(driver) = self.state.driver_mut()
        {
            driver.on_cut_held(reports, commands);
        }
    }

    /// A datagram came while a cut is being fetched: it may be the last missing datagram.
    pub(super) fn note_fetched(&mut self, now: Instant) {
        let (reports, mut commands) = (self.reports(), Commands::new());
        self.report_cut(&reports, &mut commands);
        self.carry_out(now, &reports, commands);
    }

    /// Sends a step of a ballot; before the first view it carries the name of the instance that the proposer would
    /// found.
    fn send_step(&mut self, now: Instant, to: Destination, bytes: &[u8]) {
        let view = &self.data.view;
        let instance = match &self.state {
            State::Forming(forming) => forming.candidate,
            _ => view.instance,
        };
        let header = header(&self.config, instance, view.epoch);
        self.outbox.record_as(header, now, to, Kind::Ballot, [bytes, &[]], &mut self.counters);
    }

    // ---- every member ---------------------------------------------------------------------------------------------

    pub(super) fn on_ballot(&mut self, now: Instant, header: &DatagramHeader, body: &[u8]) {
        let Some((record, lists)) = BallotStep::read_all(body) else { return };
        let from = Member { rank: header.rank(), incarnation: header.incarnation() };
        if header.epoch() != self.data.view.epoch {
            return self.counters.add(Counter::DiscardedEpoch, 1);
        }
        let Some((ballot, step)) = steps::decode(record, &lists, self.config.members, header.instance()) else {
            return self.counters.add(Counter::DiscardedMalformed, 1);
        };
        if !self.is_plausible_step(now, ballot, &step) {
            return;
        }
        if self.standing() == Standing::Following {
            return self.follow_step(now, from, ballot, step);
        }
        let forming = self.standing() == Standing::Forming;
        // Joiners accept as well; what else they may send is discarded by the ballot.
        let invited = step == Step::Accept && self.state.driver().is_some_and(|change| change.ballots().invites(from));
        let announced = matches!(&step, Step::Decide(value) if self.goes_on(from, value));
        // A heartbeat of an earlier process at that member's rank may have arrived since: a step that names this
        // incarnation is current.
        let own = self.own_member();
        let founds = matches!(&step, Step::Decide(value)
            if value.members.contains(&from) && own.is_some_and(|own| value.members.contains(&own)));
        let known = if forming { founds || self.presence.knows(from) } else { self.data.view.contains(from) };
        if !known && (forming || !invited && !announced) {
            return self.counters.add(Counter::DiscardedSender, 1);
        }
        if known || invited {
            self.detector.heard(from.rank, now, Path::Unicast);
        }
        if forming && !founds && matches!(step, Step::Decide(_)) {
            return; // formed without this incarnation, or announced by a process that is not in it
        }
        let demands = matches!(step, Step::Prepare | Step::Propose(_));
        if demands && ballot.proposer() != from.rank {
            return self.counters.add(Counter::DiscardedSender, 1);
        }
        if forming && !self.is_of_this_forming(header.instance(), demands, &step) {
            return self.counters.add(Counter::DiscardedInstance, 1);
        }
        let (reports, mut commands) = (self.reports(), Commands::new());
        let Some(driver) = self.state.driver_mut() else { return };
        match driver.on_step(from, ballot, step, &reports, &mut commands) {
            Ok(()) => self.carry_out(now, &reports, commands),
            Err(_) => self.counters.add(Counter::DiscardedImplausible, 1),
        }
    }

    /// Whether the sender is a member of the view that `value` begins after this one: such a member knows the decision
    /// as well as the members that took it, and may be the only process left that does.
    pub(super) fn goes_on(&self, from: Member, value: &Value) -> bool {
        value.members.contains(&from) && value.members.iter().any(|member| self.data.view.contains(*member))
    }

    fn answer(&mut self, now: Instant, to: Rank, ballot: Ballot, step: &Step) {
        let bytes = steps::encode(ballot, step);
        let to = self.ballot_path(to, bytes.len());
        self.send_step(now, to, &bytes);
    }

    /// The members of this view that go on to the next, in the same incarnation.
    pub(super) fn stay(&self, value: &Value) -> u64 {
        continuing(&self.data.view, value)
    }

    /// Whether a value that a member sent may follow the view that this process follows: rule 26.
    pub(super) fn may_follow(&self, value: &Value) -> bool {
        self.config.mutant.is_some() || continues(&self.data.view, value, self.config.members_min())
    }

    /// The decision of this epoch, for a process that has missed it.
    pub(super) fn decision_of(&self, epoch: Epoch) -> Option<&Value> {
        let current = self.state.driver().filter(|_| epoch == self.data.view.epoch);
        current.and_then(|change| change.ballots().decided()).or_else(|| self.past.value_of(epoch))
    }

    // ---- from epoch to epoch --------------------------------------------------------------------------------------

    /// Completes a barrier if that is due; returns how many messages it delivered. `is_all`: nothing else can be
    /// delivered.
    pub(super) fn pass_barrier(&mut self, now: Instant, is_all: bool, emit: &mut impl FnMut(Delivery<'_>)) -> usize {
        let data = &mut self.data;
        if matches!(data.end, EpochState::Wedged | EpochState::Fetching(_)) {
            return 0; // our state reports what was promised; the cut decides whether the barrier is complete
        }
        let agreed = data.agreed_barrier();
        let standing = data.barrier.look(&mut data.streams, &data.view);
        if data.is_lossy() {
            // Messages that are lost by the markers' headers are reported before the barrier, or the view's end.
            self.cross_holes();
        }
        let data = &mut self.data;
        if agreed == Some(false) || standing == AtBarrier::Before && !(agreed.is_some() && is_all) {
            return 0;
        }
        if standing == AtBarrier::Reached
            && let Some(outbound) = data.outbound.as_mut().filter(|_| data.end.is_open())
        {
            outbound.ack.due = now; // acknowledge it at once
        }
        let may = match &data.end {
            // All members have the same cut: if it has every marker, all of them complete the barrier at it.
            EpochState::Decided(_) => true,
            _ => data.barrier.may_pass(&data.streams, &data.view, data.own(), self.config.mutant),
        };
        if !may {
            return 0;
        }
        let phase = data.barrier.phase;
        let mut count = 0;
        for index in 0..data.streams.len() {
            let (at, rank) = ((data.view.instance, data.view.epoch), Rank(index as u16));
            let sequence = data.streams[index].delivered;
            let Some(incarnation) = data.view.incarnation(rank) else { continue };
            if let Some((_, Some(payload))) = data.streams[index].marker().filter(|(of, _)| *of == phase) {
                count += 1;
                emit(Delivery::at_barrier(Member { rank, incarnation }, sequence, at, phase, now, payload));
            }
        }
        let asked = data.barrier.pass(&mut data.streams);
        if let Some(outbound) = &mut data.outbound {
            outbound.packer.enter_phase(data.barrier.phase);
        }
        let phase = data.barrier.phase;
        self.event(Event::Synced { phase, asked });
        count.max(1)
    }

    /// Delivers what is left of a decided epoch and, once nothing is left, enters the next; returns how many messages.
    pub(super) fn finish_epoch(&mut self, now: Instant, emit: &mut impl FnMut(Delivery<'_>)) -> usize {
        let EpochState::Decided(cut) = &self.data.end else { return 0 };
        let holds = self.data.holds_cut(cut) || self.config.mutant == Some(Mutant::InstallWithHole);
        if self.standing() == Standing::Following {
            return self.follow_on(now, holds, emit);
        }
        if !holds {
            return 0;
        }
        let mut own = (&mut self.clients, &mut self.coordination);
        let mut emit = |delivery: Delivery<'_>| super::delivery::show(&mut own, delivery, emit);
        let ranges = self.data.deliver_ranges(now, &mut emit);
        self.counters.add(Counter::Delivered, ranges as u64);
        if ranges > 0 {
            return ranges;
        }
        if matches!(self.config.mutant, Some(Mutant::AppendUnordered | Mutant::SkipAtCut)) {
            let count = self.data.deliver_beyond_order(now, &mut emit);
            if count > 0 {
                return count;
            }
        }
        if self.state.driver().is_none_or(|driver| driver.ballots().decided().is_none()) {
            return 0; // it no longer takes part
        }
        self.drive(now, |driver, _, out| driver.on_concluded(out));
        1
    }

    fn install(&mut self, now: Instant, value: Value) {
        let sound = self.state.driver().is_some_and(|driver| driver.may_install(&value));
        assert!(sound, "rule 26: {value:?} is to follow {:?}", self.data.view);
        if !self.data.publishes_again()
            && let Some((sender, from, to)) = self.data.abandon_own()
        {
            self.counters.add(Counter::Gaps, to.since(from));
            self.event(Event::Gap { sender, from, to });
        }
        let mut beginning = self.data.next_beginning();
        if self.data.is_lossy() && self.config.rank() == Some(value.sequencer) {
            beginning.order = self.data.next_order(beginning.order);
        }
        if self.config.mutant == Some(Mutant::ReuseNumbers) {
            beginning.order.0 = beginning.order.0.saturating_sub(1);
        }
        let view = value.view(self.data.view.epoch.next());
        let own = self.own_member().filter(|own| view.contains(*own));
        if own.is_none() {
            return self.removed(now, Some(value), view.epoch);
        }
        let asked = self.data.barrier.take_asked();
        let later = core::mem::take(&mut self.unsettled);
        if self.data.publishes_again() {
            self.unsettled.extend(self.data.unsettled());
        }
        self.unsettled.extend(later);
        let leads = self.state.driver().is_some_and(|change| change.ballots().leads().is_some());
        self.retire(now, Some(value));
        self.enter(now, view, &beginning);
        self.data.barrier.ask_again(asked);
        if leads {
            self.reply_view(now, Destination::Group, 0);
            self.announces_view = true;
        }
        self.receive_ahead(now);
    }

    /// Begins a view, as a member if it names this incarnation of this process, else as a follower.
    pub(super) fn enter(&mut self, now: Instant, view: View, beginning: &Beginning) {
        let same = self.data.view.instance == view.instance && self.data.view.epoch != Epoch(0);
        assert!(view.instance != InstanceId::NONE, "a view names its instance");
        assert!(!same || self.data.view.birth == view.birth, "an instance has one birth");
        self.note_birth(view.birth);
        let own = self.own_member().filter(|own| view.contains(*own));
        let old = core::mem::replace(&mut self.data, Pipeline::idle(self.config.clone(), view.epoch));
        let before = old.view.clone();
        old.into_logs(&mut self.spare);
        let rank = own.map(|own| own.rank);
        let is_lossy = self.config.reliability.is_lossy();
        let earlier = core::mem::replace(&mut self.before, view.clone());
        if earlier.instance != view.instance {
            // A client sends again in this instance what another may have delivered.
            self.clients = Default::default();
        }
        let mut ahead = beginning.clone();
        if is_lossy && view.epoch > Epoch(1) && earlier.epoch.next() == view.epoch {
            // No member knows how far an earlier incarnation was heard; a newcomer does not know how far the order has
            // come.
            let from = numbers_of(view.epoch);
            for member in view.members.iter().filter(|member| !earlier.contains(**member)) {
                let first = &mut ahead.first[member.rank.index()];
                *first = (*first).max(Sequence(from));
                if member.rank == view.sequencer {
                    ahead.order = ahead.order.max(OrderNumber(from));
                }
            }
        }
        let beginning = &ahead;
        self.data = Pipeline::new(self.config.clone(), view.clone(), rank, beginning, &mut self.spare);
        self.begin_time(now);
        self.state = match own {
            Some(own) => State::Member(Box::new(Joined::new(own_driver(&self.config, own, view.clone())))),
            None => State::Following(Box::default()),
        };
        self.clock = Clock::default();
        self.clock.look_due = now;
        self.outbox.enter(header(&self.config, view.instance, view.epoch));
        self.trust.announcements.enter(now);
        for rank in (0..self.config.members).map(Rank) {
            let (was, is) = (before.incarnation(rank), view.incarnation(rank));
            match (was, is) {
                _ if own.is_none() => self.detector.left(rank),
                (_, Some(_)) if was == is && self.detector.is_watching(rank) => {}
                (_, Some(_)) => self.detector.watch(rank, now),
                (_, None) => self.detector.forget(rank),
            }
        }
        self.data.suspected = self.detector.suspects();
        self.announce_windows();
        if own.is_some() {
            self.rejoin.joined(now);
            self.transfer.joined();
            self.release_donor();
            self.clients.renumber();
        }
        self.begin_coordination(beginning.order);
        self.past.note_next(&self.data.view, &self.data.beginning);
        self.settle_doubt();
        self.heartbeat.due = now;
        self.is_view_new = true;
        self.counters.add(Counter::Views, 1);
        self.event(Event::View { epoch: view.epoch, members: view.bits(), sequencer: view.sequencer });
    }

    /// Windows that members announced earlier hold in the new view too.
    pub(super) fn announce_windows(&mut self) {
        let mtu = self.config.limits.mtu_bytes as u64;
        if let Some(outbound) = &mut self.data.outbound {
            for member in &self.data.view.members {
                let peer = self.presence.get(member.rank);
                if let Some(peer) = peer.filter(|peer| peer.introduced && peer.incarnation == Some(member.incarnation))
                {
                    outbound.flow.announce(member.rank, u64::from(peer.window_bytes) / mtu);
                }
            }
        }
        self.data.update_flow();
    }

    /// The next view is without this process; `value` is the decision, if this process knows it.
    pub(super) fn removed(&mut self, now: Instant, value: Option<Value>, epoch: Epoch) {
        let published = self.data.outbound.as_ref().map(|outbound| outbound.packer.next_sequence);
        let published = published.unwrap_or_default() + self.unsettled.len() as u64;
        let (incarnation, instance) = (self.config.incarnation, self.data.view.instance);
        self.doubt = Some(Doubt { incarnation, instance, epoch, published });
        self.unsettled.clear();
        self.transfer.removed();
        self.end_coordination();
        let value = value.filter(|_| self.config.mutant != Some(Mutant::DecisionForgotten));
        let knows = value.is_some();
        self.retire(now, value);
        self.clock = Clock::default();
        (0..self.config.members).for_each(|rank| self.detector.left(Rank(rank)));
        if self.wishes.leave.is_some() {
            let wait_ns = if knows { LEAVE_WAIT_NS } else { 0 };
            self.state = State::Gone(Gone::new(Some((epoch, now + wait_ns))));
            if !knows {
                self.part();
            }
            return;
        }
        self.bump_incarnation();
        let may_rejoin_at = self.rejoin.left_out(now, &self.config.timing.membership);
        self.search_again(may_rejoin_at);
        self.event(Event::Removed(epoch));
    }

    /// The flags about itself that this process sends in its heartbeats.
    pub(super) fn standing_flags(&self) -> u16 {
        let flag = |flag: u16, set: bool| if set { flag } else { 0 };
        let learner = matches!(self.config.role, Role::Member(_))
            && matches!(self.standing(), Standing::Outside | Standing::Following);
        flag(heartbeat_flags::FORMED, self.standing() == Standing::Member)
            | flag(heartbeat_flags::WEDGED, !self.data.end.is_open())
            | flag(heartbeat_flags::LEAVING, self.wishes.leave.is_some())
            | flag(heartbeat_flags::LEARNER, learner)
            | flag(heartbeat_flags::READY, learner && self.is_caught_up())
    }
}
