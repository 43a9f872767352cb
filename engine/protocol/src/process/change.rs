//! Carries out the change from one view to the next.
//!
//! `control/view_change.rs` defines what may be decided, its driver which step is due, `control/membership.rs` which
//! members the next view should have; the ballots and the driver know neither time nor messages' bytes. This file
//! supplies both: it carries out the driver's commands ([`Process::carry_out`]) and keeps its timers. `member.rs` turns
//! verdicts into proposals, `install.rs` enters a decided view.
//!
//! A proposer waits for a slow member as long as no detector suspects it, at most for [`PATIENCE`] takeover times.

use super::standing::State;
use super::{Process, Standing, steps};
use crate::config::Config;
use crate::control::detector::{Change, Path};
use crate::control::view_change::driver::{Command, Commands, DetectorReport, Driver, Timer, To};
use crate::control::view_change::{Ballot, Proposal, Step, Value, continues, continuing};
use crate::counters::Counter;
use crate::data::epoch_state::EpochState;
use crate::event::Event;
use crate::outbox::Destination;
use crate::values::handover::{BallotNumber, ToControl, ToData};
use crate::view::{Member, View, bit, ranks};
use bourdon_wire::records::BallotStep;
use bourdon_wire::{DatagramHeader, Epoch, Instant, Kind, Rank};

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
    let forms = view.epoch == Epoch(0) && view.incarnation(own.rank).is_some();
    assert!(forms || view.contains(own), "{own:?} decides what follows {view:?}");
    Driver::new(own, view, config.members_min(), config.mutant)
}

impl Process {
    /// When something about the view is due.
    #[inline]
    pub(super) fn change_due(&self) -> Instant {
        let parts_at = self.state.farewell().map_or(Instant::NEVER, |(_, at)| at);
        self.clock.look_due.min(self.clock.again_at).min(parts_at)
    }

    // ---- membership -----------------------------------------------------------------------------------------------

    /// Updates the detectors, and acts on the result.
    pub(super) fn look(&mut self, now: Instant) {
        let cx = &mut self.cx;
        let mut changed = false;
        self.detector.look(now, |rank, change| {
            changed = true;
            let event = match change {
                Change::Suspected(why) => Event::Suspected(rank, why),
                Change::Trusted => Event::Trusted(rank),
            };
            cx.event(event);
        });
        if changed {
            // The others should know at once which members we no longer hear, or hear again.
            self.data.suspected = self.detector.suspects();
            self.heartbeat.due = now;
            self.clock.look_due = now;
            self.note_suspects(now);
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
        if self.entry.is_awaited && matches!(self.data.end, EpochState::Decided(_)) {
            self.end_epoch(now);
        }
        if self.wishes.leave.is_some() && matches!(self.standing(), Standing::Outside | Standing::Following) {
            return self.tend_leaving_joiner(now);
        }
        let Some(change) = self.state.driver() else { return };
        if change.ballots().decided().is_some() {
            return; // delivery comes first
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
        let takeover_after_ns = self.cx.config.timing.membership.takeover_after_ns;
        let Some(change) = self.state.driver() else { return };
        let (timer, expires_at) = if change.ballots().leads().is_some() {
            (Timer::Patience, self.clock.since + PATIENCE * takeover_after_ns)
        } else {
            // The next member in seniority takes over once the ballot has made no progress for too long.
            let view = &self.data.view;
            let reachable = view.bits() & !self.detector.suspects();
            let place = self.cx.config.rank().map_or(0, |rank| view.seniority(rank, reachable)) as u64 + 1;
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
            self.drive(now, |driver, reports, out| driver.on_detector_report(reports, out));
            self.clock.look_due = self.clock.look_due.min(expires_at);
        }
    }

    /// What the detectors report.
    pub(super) fn reports(&self) -> DetectorReport {
        let evidence = ranks(self.data.view.bits()).filter(|rank| self.detector.has_evidence(*rank));
        let evidence = evidence.fold(0, |all, rank| all | bit(rank));
        DetectorReport { suspects: self.detector.suspects(), evidence }
    }

    /// Gives the driver an input, and carries out what it commands.
    pub(super) fn drive(&mut self, now: Instant, input: impl FnOnce(&mut Driver, &DetectorReport, &mut Commands)) {
        let (reports, mut commands) = (self.reports(), Commands::new());
        let Some(driver) = self.state.driver_mut() else { return };
        let led = driver.ballots().leads();
        input(driver, &reports, &mut commands);
        if driver.ballots().leads() > led {
            self.cx.count(Counter::Ballots);
        }
        self.carry_out(now, &reports, commands);
    }

    /// Carries out the driver's commands, and reports to it what the data plane makes of them.
    fn carry_out(&mut self, now: Instant, reports: &DetectorReport, mut commands: Commands) {
        while let Some(command) = commands.pop_front() {
            match command {
                Command::Send { to: To::All, ballot, step } => {
                    self.send_step(now, Destination::Group, &steps::encode(ballot, &step));
                }
                Command::Send { to: To::Member(rank), ballot, step } => self.answer(now, rank, ballot, &step),
                Command::Wedge(ballot) => {
                    let report = self.order_data(now, ToData::Wedge(BallotNumber(ballot.0)));
                    self.take_report(report, reports, &mut commands);
                }
                Command::Fetch { ballot, cut, stay } => {
                    let report = self.order_data(now, ToData::FetchCut(BallotNumber(ballot.0), cut, stay));
                    self.take_report(report, reports, &mut commands);
                }
                Command::Conclude { cut, stay } => {
                    let report = self.order_data(now, ToData::Conclude(cut, stay));
                    assert!(report.is_none(), "delivery shows that a decided cut is held");
                    self.clock = Clock::default();
                }
                Command::Install(value) => self.install(now, value),
                Command::Arm(Timer::Repeat) => self.clock.again_at = now + self.cx.config.timing.ballot_retry_ns,
                Command::Arm(Timer::Patience | Timer::Takeover) => {
                    (self.clock.since, self.clock.look_due) = (now, now);
                }
            }
        }
    }

    /// Gives the data plane an order.
    fn order_data(&mut self, now: Instant, order: ToData) -> Option<ToControl> {
        let wall_ns = self.cx.wall(now);
        self.data.obey(now, wall_ns, order)
    }

    /// Hands a report of the data plane to the driver.
    fn take_report(&mut self, report: Option<ToControl>, reports: &DetectorReport, commands: &mut Commands) {
        let (Some(report), Some(driver)) = (report, self.state.driver_mut()) else { return };
        match report {
            ToControl::Wedged(ballot, held) => driver.on_wedged(Ballot(ballot.0), held, reports, commands),
            ToControl::CutHeld(ballot) => driver.on_cut_held(Ballot(ballot.0), reports, commands),
        }
    }

    /// A datagram came while a cut is being fetched: it may be the last missing datagram.
    pub(super) fn note_fetched(&mut self, now: Instant) {
        let (report, detectors, mut commands) = (self.data.report_cut(), self.reports(), Commands::new());
        self.take_report(report, &detectors, &mut commands);
        self.carry_out(now, &detectors, commands);
    }

    /// Sends a step of a ballot; before the first view it carries the name of the instance that the proposer would
    /// found.
    fn send_step(&mut self, now: Instant, to: Destination, bytes: &[u8]) {
        let view = &self.data.view;
        let instance = match &self.state {
            State::Forming(forming) => forming.candidate,
            _ => view.instance,
        };
        let header = self.cx.header(instance, view.epoch);
        self.cx.send_as(header, now, to, Kind::Ballot, [bytes, &[]]);
    }

    // ---- every member ---------------------------------------------------------------------------------------------

    pub(super) fn on_ballot(&mut self, now: Instant, header: &DatagramHeader, body: &[u8]) {
        let Some((record, lists)) = BallotStep::read_all(body) else { return };
        let from = Member { rank: header.rank(), incarnation: header.incarnation() };
        if header.epoch() != self.data.view.epoch {
            return self.cx.count(Counter::DiscardedEpoch);
        }
        let Some((ballot, step)) = steps::decode(record, &lists, self.cx.config.members, header.instance()) else {
            return self.cx.count(Counter::DiscardedMalformed);
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
        let own = self.cx.own_member();
        let founds = matches!(&step, Step::Decide(value)
            if value.members.contains(&from) && own.is_some_and(|own| value.members.contains(&own)));
        let known = if forming { founds || self.cx.presence.knows(from) } else { self.data.view.contains(from) };
        if !known && (forming || !invited && !announced) {
            return self.cx.count(Counter::DiscardedSender);
        }
        if known || invited {
            self.detector.heard(from.rank, now, Path::Unicast);
        }
        if forming && !founds && matches!(step, Step::Decide(_)) {
            return; // formed without this incarnation, or announced by a process that is not in it
        }
        let demands = matches!(step, Step::Prepare | Step::Propose(_));
        if demands && ballot.proposer() != from.rank {
            return self.cx.count(Counter::DiscardedSender);
        }
        if forming && !self.is_of_this_forming(header.instance(), demands, &step) {
            return self.cx.count(Counter::DiscardedInstance);
        }
        let (reports, mut commands) = (self.reports(), Commands::new());
        let Some(driver) = self.state.driver_mut() else { return };
        match driver.on_step(from, ballot, step, &reports, &mut commands) {
            Ok(()) => self.carry_out(now, &reports, commands),
            Err(_) => self.cx.count(Counter::DiscardedImplausible),
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

    /// Whether a value that a member sent may follow the view that this process follows: the members that continue
    /// are a quorum of that view.
    pub(super) fn may_follow(&self, value: &Value) -> bool {
        self.cx.config.mutant.is_some() || continues(&self.data.view, value, self.cx.config.members_min())
    }

    /// The decision of this epoch, for a process that has missed it.
    pub(super) fn decision_of(&self, epoch: Epoch) -> Option<&Value> {
        let current = self.state.driver().filter(|_| epoch == self.data.view.epoch);
        current.and_then(|change| change.ballots().decided()).or_else(|| self.past.value_of(epoch))
    }
}
