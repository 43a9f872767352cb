//! Carries out the change from one view to the next.
//!
//! The agreement (`control/agreement.rs`) decides; it knows neither time nor messages' bytes. This file supplies both:
//! it reports what has come and what this process sees ([`Process::look_at_view`]), and carries out what the agreement
//! orders ([`Process::obey_agreement`]). `install.rs` enters a decided view.

use super::standing::State;
use super::{Process, Standing, steps};
use crate::control::ToControl;
use crate::control::agreement::{FromAgreement, Moment, Order, ToAgreement};
use crate::control::detector::{Change, Path};
use crate::control::view_change::driver::{DetectorReport, To};
use crate::control::view_change::{Ballot, Step, Value, continues, continuing};
use crate::counters::Counter;
use crate::data::epoch_state::EpochState;
use crate::event::Event;
use crate::mutant::Mutant;
use crate::outbox::Destination;
use crate::values::handover::{BallotNumber, EndOrder, EndReport};
use crate::view::{Member, bit, ranks};
use alloc::boxed::Box;
use bourdon_wire::records::BallotStep;
use bourdon_wire::{DatagramHeader, Epoch, InstanceId, Instant, Kind};

impl Process {
    /// When something about the view is due.
    #[inline]
    pub(super) fn change_due(&self) -> Instant {
        let parts_at = self.state.farewell().map_or(Instant::NEVER, |(_, at)| at);
        self.look_due.min(parts_at)
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
            self.heartbeat.report(now, &self.cx.config.timing);
            self.look_due = now;
            self.note_suspects(now);
        }
    }

    /// Checks whether the view should change, and keeps a ballot going.
    pub(super) fn tend_view(&mut self, now: Instant) {
        self.look_due = Instant::NEVER;
        if self.state.farewell().is_some_and(|(_, at)| now >= at) {
            self.part();
        }
        if self.entry.is_awaited && matches!(self.data.end, EpochState::Decided(_)) {
            self.end_epoch(now);
        }
        if self.wishes.leave.is_some() && matches!(self.standing(), Standing::Outside | Standing::Following) {
            return self.tend_leaving_joiner(now);
        }
        if self.state.ending().is_none_or(|ending| ending.decided.is_some()) {
            return; // delivery comes first
        }
        match self.standing() {
            Standing::Forming if now >= self.wishes.leave_by() => self.go(),
            Standing::Forming => self.look_forming(now),
            _ => self.look_at_view(now),
        }
    }

    // ---- the agreement --------------------------------------------------------------------------------------------

    /// What the detectors report at this moment.
    pub(super) fn moment(&self, now: Instant) -> Moment {
        let evidence = ranks(self.data.view.bits()).filter(|rank| self.detector.has_evidence(*rank));
        let evidence = evidence.fold(0, |all, rank| all | bit(rank));
        let narrow = if self.path_mtu.counts() { self.narrow_paths(now) } else { 0 };
        Moment { at: now, detectors: DetectorReport { suspects: self.detector.suspects(), evidence, narrow } }
    }

    /// Reports to the agreement.
    pub(super) fn report_to_agreement(&mut self, now: Instant, report: ToAgreement) {
        self.report(now, ToControl::Agreement(Box::new(report)));
    }

    /// Another standing: if this process took part in the end of its view, it does not any more, or in another part.
    pub(super) fn change_standing(&mut self, state: State) {
        if self.state.takes_part() && !state.takes_part() {
            self.control.push_part(ToAgreement::Ended);
        }
        self.state = state;
    }

    /// Carries out what the agreement orders.
    pub(super) fn obey_agreement(&mut self, now: Instant, order: FromAgreement) {
        let is_late = order.part != self.control.parts;
        if is_late && self.cx.config.mutant != Some(Mutant::LateOrderObeyed) {
            return; // given for a view that has ended here since
        }
        match order.order {
            Order::Send { to, instance, ballot, step } => {
                self.send_step(now, to, instance, &steps::encode(ballot, &step))
            }
            Order::Wedge(ballot) => self.end_data(now, EndOrder::Wedge(BallotNumber(ballot.0))),
            Order::Fetch { ballot, value, stay } => {
                let cut = value.cut.clone();
                self.note_proposed(ballot, value);
                self.end_data(now, EndOrder::FetchCut(BallotNumber(ballot.0), cut, stay));
            }
            Order::Conclude { value, leads, stay } => {
                self.end_data(now, EndOrder::Conclude(value.cut.clone(), stay));
                self.look_due = Instant::NEVER;
                if let Some(ending) = self.state.ending_mut() {
                    ending.decided = Some((value, leads));
                }
            }
            Order::LacksMajority(lacks) => self.note_majority(now, lacks),
            Order::LookAt(at) => self.look_due = self.look_due.min(at),
            Order::Close => self.close(now),
            Order::Count(counter) => self.cx.count(counter),
        }
    }

    /// Orders the data plane how its epoch ends, and reports what it makes of that.
    fn end_data(&mut self, now: Instant, order: EndOrder) {
        let wall_ns = self.cx.wall(now);
        let report = self.data.obey(now, wall_ns, order);
        self.report_end(now, report);
    }

    /// A datagram came while a cut is being fetched: it may be the last missing datagram.
    pub(super) fn note_fetched(&mut self, now: Instant) {
        let report = self.data.report_cut();
        self.report_end(now, report);
    }

    /// Reports to the agreement what the data plane has done, at `durable` once that is stored.
    fn report_end(&mut self, now: Instant, report: Option<EndReport>) {
        if let Some(report) = report.and_then(|report| self.store_report(report)) {
            self.report_stored_end(now, report);
        }
    }

    pub(super) fn report_stored_end(&mut self, now: Instant, report: EndReport) {
        let moment = self.moment(now);
        let report = match report {
            EndReport::Wedged(ballot, held) => ToAgreement::Wedged(moment, Ballot(ballot.0), held),
            EndReport::CutHeld(ballot) => {
                if let Some(ending) = self.state.ending_mut() {
                    ending.may_have_accepted = true;
                }
                ToAgreement::CutHeld(moment, Ballot(ballot.0))
            }
        };
        self.report_to_agreement(now, report);
    }

    /// Sends a step of a ballot in this epoch.
    fn send_step(&mut self, now: Instant, to: To, instance: InstanceId, bytes: &[u8]) {
        let to = match to {
            To::All => Destination::Group,
            To::Member(rank) => self.ballot_path(rank, bytes.len()),
        };
        let header = self.cx.header(instance, self.data.view.epoch);
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
        let announced = matches!(&step, Step::Decide(value) if self.goes_on(from, value));
        // A heartbeat of an earlier process at that member's rank may have arrived since: a step that names this
        // incarnation is current.
        let own = self.cx.own_member();
        let founds = matches!(&step, Step::Decide(value)
            if value.members.contains(&from) && own.is_some_and(|own| value.members.contains(&own)));
        let known = if forming { founds || self.cx.presence.knows(from) } else { self.data.view.contains(from) };
        // Joiners accept as well; what else they may send is discarded by the ballot.
        if !known && (forming || step != Step::Accept && !announced) {
            return self.cx.count(Counter::DiscardedSender);
        }
        if known {
            self.detector.heard(from.rank, now, Path::Unicast);
        }
        if forming && !founds && matches!(step, Step::Decide(_)) {
            return; // formed without this incarnation, or announced by a process that is not in it
        }
        let demands = matches!(step, Step::Prepare | Step::Propose(_));
        if demands && ballot.proposer() != from.rank {
            return self.cx.count(Counter::DiscardedSender);
        }
        if forming && demands {
            self.report_to_agreement(now, ToAgreement::Birth(self.cx.config.birth_floor));
        }
        if forming && !self.is_of_this_forming(header.instance(), demands, &step) {
            return self.cx.count(Counter::DiscardedInstance);
        }
        if self.control.is_full_of_steps(matches!(step, Step::Decide(_))) {
            return self.cx.count(Counter::DroppedSteps);
        }
        if let (Step::Decide(value), true) = (&step, self.decides(&step)) {
            let value = value.clone();
            if let Some(ending) = self.state.ending_mut() {
                ending.announced.get_or_insert(value);
            }
        }
        if self.state.takes_part() {
            let (moment, is_known) = (self.moment(now), known || announced);
            let instance = header.instance();
            self.report_to_agreement(now, ToAgreement::Step { moment, from, is_known, instance, ballot, step });
        }
    }

    /// Whether a step announces a decision that may follow this view.
    fn decides(&self, step: &Step) -> bool {
        matches!(step, Step::Decide(value) if self.may_follow(value))
    }

    /// Whether the sender is a member of the view that `value` begins after this one: such a member knows the decision
    /// as well as the members that took it, and may be the only process left that does.
    pub(super) fn goes_on(&self, from: Member, value: &Value) -> bool {
        value.members.contains(&from) && value.members.iter().any(|member| self.data.view.contains(*member))
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
        let current = self.state.decided().filter(|_| epoch == self.data.view.epoch);
        current.or_else(|| self.past.value_of(epoch))
    }
}
