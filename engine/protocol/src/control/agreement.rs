//! Agreement: all that a member decides about the next view, a machine of its own.
//!
//! A ballot must not delay messages, and one day several data planes share one membership. So the agreement shares
//! nothing with the data plane: it takes [`ToAgreement`] values and gives [`Order`]s, each side in the order in which
//! the other made them. A node may run it on a thread of its own, where values arrive late. An inline node hands them
//! over at once.
//!
//! It has no clock: its time is the data plane's, which notes in each value when it was made, and looks when it was
//! ordered to. While the data plane stands still, no time passes here, so no ballot is begun or taken over in the name
//! of a member that delivers nothing.
//!
//! `membership.rs` chooses the members of the next view, the driver (`view_change/driver.rs`) the step of a ballot that
//! is due. A proposer waits for a slow member as long as no detector suspects it, at most for [`PATIENCE`]
//! takeover times.
//!
//! Invariants: a promise leaves only after the data plane has reported that it stopped for this ballot, and a cut is
//! accepted only after it has reported that it holds the cut; each order names the part in a view for which it was
//! given, and is void in any other.

use super::membership::{MEMBERS_MAX, Membership, MembershipTiming, Situation, Verdict};
use super::view_change::driver::{Command, Commands, DetectorReport, Driver, Timer, To};
use super::view_change::{Ballot, Proposal, Step, Value};
use crate::config::Config;
use crate::counters::Counter;
use crate::mutant::Mutant;
use crate::values::cut::Cut;
use crate::view::{Member, View, bit};
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use bourdon_wire::{Epoch, InstanceId, Instant, Rank};

/// For how many takeovers a proposer waits for members that are not suspected and do not answer.
const PATIENCE: u64 = 4;
/// A proposer whose ballots reach no quorum waits twice as long in the next, so often at most: members whose control
/// planes are late answer the ballot before, for as long as the next one begins too early.
const DOUBLINGS_MAX: u32 = 3;
/// What was seen so many parts of the time for which a report counts ago is too old to leave a member out, or to take a
/// joiner in.
const STALE_PART: u64 = 4;
/// A member's report of the members that it hears counts for so many suspicion times.
pub(crate) const FRESH: u64 = 2;

/// When the data plane made a value, and what its detectors reported then.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    pub(crate) at: Instant,
    pub(crate) detectors: DetectorReport,
}

/// What a member sees of the others when it looks whether the view should change.
#[derive(Clone, Debug)]
pub struct Sight {
    /// Bit r of `heard[m]`: member m reports that it hears r. The own entry is what the detectors report.
    pub(crate) heard: [u64; MEMBERS_MAX],
    /// Bit m: m's report is fresh.
    pub(crate) fresh: u64,
    /// The processes that have caught up and wait to join.
    pub(crate) joiners: Vec<Member>,
    /// A joiner is about to come in, and has not caught up yet.
    pub(crate) learns: bool,
    /// The members that want to leave, this one included.
    pub(crate) leavers: u64,
    /// Until when this member waits for a joiner if it wants to leave and no other would be left.
    pub(crate) leave_by: Instant,
    /// So much of the view is stored that it is to end, so that what lies before can be discarded.
    pub(crate) is_long: bool,
}

/// From the data plane.
#[derive(Clone, Debug)]
#[expect(clippy::large_enum_variant, reason = "a value travels in a box")]
pub enum ToAgreement {
    /// This process is a member of this view from now on, or forms it; all of the view before has been delivered.
    Begun {
        /// This process.
        own: Member,
        /// The view; of epoch 0 before the first.
        view: View,
    },
    /// It was restarted in this view, where it had promised this ballot and accepted this value.
    Restored(Moment, Ballot, Option<(Ballot, Value)>),
    /// It takes no part in the end of its view any more.
    Ended,
    /// It looks whether the view should change.
    Look(Moment, Sight),
    /// Before the first view: it looks whether to propose it, and proposes this if it has heard all others.
    LookForming {
        /// When.
        moment: Moment,
        /// The highest birth of an instance that this process knows of.
        birth: u64,
        /// The first view.
        proposal: Option<Proposal>,
    },
    /// A step of a ballot has come.
    Step {
        /// When.
        moment: Moment,
        /// Its sender: a member of the view, or one that may be invited to the next.
        from: Member,
        /// Whether it is of the view, or announces a decision that names it.
        is_known: bool,
        /// The instance that its datagram names: before the first view, the one that the proposer would found.
        instance: InstanceId,
        /// The ballot.
        ballot: Ballot,
        /// The step.
        step: Step,
    },
    /// The data plane has stopped, as the promise of this ballot requires, and holds this.
    Wedged(Moment, Ballot, Cut),
    /// It holds all of the cut that was proposed in this ballot.
    CutHeld(Moment, Ballot),
    /// Before the first view: another incarnation of a process was heard.
    Replaced(Member),
    /// The highest birth of an instance that this process knows of.
    Birth(u64),
    /// The application wants this member to be the sequencer.
    HandOver(Rank),
}

/// What the data plane must do.
#[derive(Clone, Debug)]
pub enum Order {
    /// Send a step.
    Send {
        /// The members to send it to.
        to: To,
        /// The view's instance; before the first view, the one that the ballot's proposer would found.
        instance: InstanceId,
        /// The ballot of the step.
        ballot: Ballot,
        /// The step.
        step: Step,
    },
    /// Stop, as the promise of this ballot requires, and report what is held.
    Wedge(Ballot),
    /// Fetch what is missing of a proposed value's cut, at the latest from the members in `stay`; report when it is
    /// held.
    Fetch {
        /// The ballot in which it was proposed.
        ballot: Ballot,
        /// The value.
        value: Value,
        /// The members that go on to the next view.
        stay: u64,
    },
    /// This was decided: fetch the cut, deliver up to it and no message beyond it, then enter the view.
    Conclude {
        /// What was decided.
        value: Value,
        /// This member proposed it, and announces it.
        leads: bool,
        /// The members that go on to the next view.
        stay: u64,
    },
    /// This member reaches no quorum of its view, or reaches one again.
    LacksMajority(bool),
    /// Look at this time again, or earlier.
    LookAt(Instant),
    /// This member is the last, and wants to leave: leave once all has been delivered.
    Close,
    /// Add one to a counter.
    Count(Counter),
}

/// From the agreement.
#[derive(Clone, Debug)]
pub struct FromAgreement {
    /// Parts in views begun and ended so far.
    pub(crate) part: u64,
    pub(crate) order: Order,
}

/// How long things take, and how many members a view needs.
#[derive(Clone, Debug)]
struct Rules {
    members_min: usize,
    timing: MembershipTiming,
    ballot_retry_ns: u64,
    fresh_ns: u64,
    mutant: Option<Mutant>,
}

/// A member's part in the end of one view.
#[derive(Debug)]
struct Part {
    own: Member,
    driver: Driver,
    membership: Membership,
    /// It reaches no quorum of the view.
    lacks_majority: bool,
    /// When the ballot last made progress: `Patience` and `Takeover` count from here.
    since: Instant,
    /// When `Repeat` expires.
    again_at: Instant,
    /// How many own ballots in a row have reached no quorum.
    fruitless: u32,
    /// When this member looked, and therefore began a ballot, and the next sequencer that it proposes; until the data
    /// plane has stopped for the ballot.
    began: Option<(Instant, Option<Rank>)>,
    /// Before the first view: the instance that the proposer of the latest demand would found. The answers name it, so
    /// that an answer to a ballot of an earlier forming does not count for this ballot.
    candidate: InstanceId,
    /// The instance that this process would found, if it proposes the first view.
    own_candidate: Option<InstanceId>,
}

/// Decides about the next view for one process.
#[derive(Debug)]
pub struct Agreement {
    rules: Rules,
    part: Option<Part>,
    /// Parts begun and ended so far.
    parts: u64,
    /// The member that is to become the sequencer.
    hand_over: Option<Rank>,
    orders: VecDeque<FromAgreement>,
}

impl Part {
    fn new(own: Member, view: View, rules: &Rules) -> Self {
        let forms = view.epoch == Epoch(0) && view.incarnation(own.rank).is_some();
        assert!(forms || view.contains(own), "{own:?} decides what follows {view:?}");
        let view_instance = view.instance;
        let driver = Driver::new(own, view, rules.members_min, rules.mutant);
        let (membership, since, again_at) = (Membership::new(), Instant::NEVER, Instant::NEVER);
        let candidate = view_instance;
        Self {
            own,
            driver,
            membership,
            lacks_majority: false,
            since,
            again_at,
            fruitless: 0,
            began: None,
            candidate,
            own_candidate: None,
        }
    }

    fn view(&self) -> &View {
        self.driver.ballots().view()
    }

    /// The instance that a step of this process names.
    fn instance_of(&self, step: &Step) -> InstanceId {
        match (step, self.own_candidate) {
            (Step::Propose(value) | Step::Decide(value), _) => value.instance,
            (Step::Prepare, Some(own)) => own,
            _ => self.candidate,
        }
    }

    /// All of the decided cut has been delivered, and this view was entered, if this process goes on.
    fn conclude(mut self, entered: Option<&View>) {
        let mut commands = Commands::new();
        self.driver.on_concluded(&mut commands);
        if let (Some(Command::Install(value)), Some(view)) = (commands.pop_front(), entered) {
            let follows = self.view().epoch.next() == view.epoch;
            assert!(!follows || value.members == view.members, "what was decided begins: {value:?}, not {view:?}");
        }
    }
}

impl Agreement {
    /// Of a process with this configuration.
    pub(crate) fn new(config: &Config) -> Self {
        let rules = Rules {
            members_min: config.members_min(),
            timing: config.timing.membership,
            ballot_retry_ns: config.timing.ballot_retry_ns,
            fresh_ns: FRESH * config.timing.detector.suspect_after_ns,
            mutant: config.mutant,
        };
        Self { rules, part: None, parts: 0, hand_over: None, orders: VecDeque::new() }
    }

    /// The members of the view that this process has accepted as the successor of its view.
    pub(crate) fn accepted_members(&self) -> Option<&[Member]> {
        self.part.as_ref()?.driver.ballots().accepted().map(|value| &value.members[..])
    }

    /// The next order.
    #[inline]
    pub(crate) fn poll_order(&mut self) -> Option<FromAgreement> {
        self.orders.pop_front()
    }

    /// The number of orders that the data plane has not fetched.
    pub(crate) fn held(&self) -> usize {
        self.orders.len()
    }

    /// Takes the next value from the data plane.
    pub(crate) fn take(&mut self, value: ToAgreement) {
        match value {
            ToAgreement::Begun { own, view } => {
                let before = self.part.replace(Part::new(own, view.clone(), &self.rules));
                before.into_iter().for_each(|part| part.conclude(Some(&view)));
                self.parts += 1;
            }
            ToAgreement::Ended => {
                self.part.take().into_iter().for_each(|part| part.conclude(None));
                self.parts += 1;
            }
            ToAgreement::HandOver(to) => self.hand_over = Some(to),
            value => {
                if let Some(mut part) = self.part.take() {
                    self.advance(&mut part, value);
                    self.part = Some(part);
                }
            }
        }
    }

    fn advance(&mut self, part: &mut Part, value: ToAgreement) {
        match value {
            ToAgreement::Look(moment, sight) => self.look(part, &moment, &sight),
            ToAgreement::LookForming { moment, birth, proposal } => {
                part.driver.note_birth(birth);
                self.look_forming(part, &moment, proposal);
            }
            ToAgreement::Step { moment, from, is_known, instance, ballot, step } => {
                let is_invited = step == Step::Accept && part.driver.ballots().invites(from);
                if !is_known && !is_invited {
                    return self.give(Order::Count(Counter::DiscardedSender));
                }
                if part.view().epoch == Epoch(0) && matches!(step, Step::Prepare | Step::Propose(_)) {
                    part.candidate = instance;
                }
                let mut is_implausible = false;
                self.drive(part, &moment, |driver, detectors, out| {
                    is_implausible = driver.on_step(from, ballot, step, detectors, out).is_err();
                });
                if is_implausible {
                    self.give(Order::Count(Counter::DiscardedImplausible));
                }
            }
            ToAgreement::Wedged(moment, ballot, held) => {
                if let Some(sequencer) = self.begins_stale(part, &moment, ballot) {
                    let keep = part.view().bits() & !moment.detectors.evidence | bit(part.own.rank);
                    return self.lead(part, &moment, Proposal { keep, sequencer, ..Proposal::default() });
                }
                self.drive(part, &moment, |driver, detectors, out| driver.on_wedged(ballot, held, detectors, out));
            }
            ToAgreement::CutHeld(moment, ballot) => {
                self.drive(part, &moment, |driver, detectors, out| driver.on_cut_held(ballot, detectors, out));
            }
            ToAgreement::Restored(moment, promised, accepted) => {
                self.drive(part, &moment, |driver, detectors, out| {
                    driver.restore(promised, accepted, detectors, out);
                });
            }
            ToAgreement::Replaced(member) => part.driver.replace(member),
            ToAgreement::Birth(birth) => part.driver.note_birth(birth),
            ToAgreement::Begun { .. } | ToAgreement::Ended | ToAgreement::HandOver(_) => {}
        }
    }

    fn give(&mut self, order: Order) {
        self.orders.push_back(FromAgreement { part: self.parts, order });
    }

    // ---- the driver -----------------------------------------------------------------------------------------------

    /// Gives the driver an input, and turns what it commands into orders.
    fn drive(
        &mut self,
        part: &mut Part,
        moment: &Moment,
        input: impl FnOnce(&mut Driver, &DetectorReport, &mut Commands),
    ) {
        let (led, mut commands) = (part.driver.ballots().leads(), Commands::new());
        input(&mut part.driver, &moment.detectors, &mut commands);
        if part.driver.ballots().leads() > led {
            self.give(Order::Count(Counter::Ballots));
        }
        for command in commands {
            match command {
                Command::Send { to, ballot, step } => {
                    let instance = part.instance_of(&step);
                    self.give(Order::Send { to, instance, ballot, step });
                }
                Command::Wedge(ballot) => self.give(Order::Wedge(ballot)),
                Command::Fetch { ballot, stay, .. } => {
                    let Some(value) = part.driver.ballots().wanted().cloned() else { continue };
                    self.give(Order::Fetch { ballot, value, stay });
                }
                Command::Conclude { stay, .. } => self.conclude(part, stay),
                Command::Arm(Timer::Repeat) => {
                    part.again_at = moment.at + self.rules.ballot_retry_ns;
                    self.give(Order::LookAt(part.again_at));
                }
                Command::Arm(Timer::Patience | Timer::Takeover) => {
                    part.since = moment.at;
                    self.give(Order::LookAt(moment.at));
                }
                Command::Install(_) => unreachable!("the data plane enters a view on its own, and reports it"),
            }
        }
    }

    fn conclude(&mut self, part: &Part, stay: u64) {
        let ballots = part.driver.ballots();
        let Some(value) = ballots.decided().cloned() else { return };
        assert!(part.driver.may_install(&value), "no quorum continues: {value:?} is to follow {:?}", part.view());
        self.give(Order::Conclude { value, leads: ballots.leads().is_some(), stay });
    }

    fn lead(&mut self, part: &mut Part, moment: &Moment, proposal: Proposal) {
        self.drive(part, moment, |driver, _, out| driver.lead(proposal, out));
    }

    /// If too much time has passed since this member looked, and began this ballot because of what it saw: the next
    /// sequencer that it proposes, if any.
    fn begins_stale(&self, part: &mut Part, moment: &Moment, ballot: Ballot) -> Option<Option<Rank>> {
        let leads = part.driver.ballots().leads() == Some(ballot);
        let (looked_at, sequencer) = part.began.take().filter(|_| leads)?;
        (moment.at.since(looked_at) > self.rules.fresh_ns / STALE_PART).then_some(sequencer)
    }

    // ---- looking --------------------------------------------------------------------------------------------------

    fn look(&mut self, part: &mut Part, moment: &Moment, sight: &Sight) {
        let ballots = part.driver.ballots();
        if ballots.decided().is_some() {
            return; // delivery comes first
        }
        let is_wedged = ballots.is_wedged();
        let verdict = self.judge(part, moment, sight);
        if is_wedged {
            // It proposes nothing beside a ballot, but has reported if no quorum can end that.
            self.tend_ballot(part, moment);
        } else {
            self.follow(part, moment, sight, verdict);
        }
    }

    /// Before the first view the lowest rank proposes, once it has heard all others.
    fn look_forming(&mut self, part: &mut Part, moment: &Moment, proposal: Option<Proposal>) {
        let ballots = part.driver.ballots();
        let Some(proposal) = proposal.filter(|_| ballots.decided().is_none()) else { return };
        part.own_candidate = proposal.origin.map(|(instance, _)| instance);
        match part.driver.ballots().leads() {
            None => self.lead(part, moment, proposal),
            Some(_) => self.tend_ballot(part, moment),
        }
    }

    /// Continues a ballot in progress, this member's own or another's.
    fn tend_ballot(&mut self, part: &mut Part, moment: &Moment) {
        let (at, takeover_after_ns) = (moment.at, self.rules.timing.takeover_after_ns);
        let repeats = at >= part.again_at;
        if repeats {
            part.again_at = Instant::NEVER; // a proposer that still leads repeats its step, and sets a new time
        }
        let (timer, expires_at) = if part.driver.ballots().leads().is_some() {
            (Timer::Patience, part.since + (PATIENCE << part.fruitless) * takeover_after_ns)
        } else {
            // The next member in seniority takes over once the ballot has made no progress for too long.
            let view = part.view();
            let reachable = view.bits() & !moment.detectors.suspects;
            let place = view.seniority(part.own.rank, reachable) as u64 + 1;
            // A proposer that is heard may wait for a member that is heard and does not answer: its patience must
            // expire first.
            let is_heard = reachable & bit(part.driver.ballots().promised().proposer()) != 0;
            let takeovers = place + if is_heard { PATIENCE } else { 0 };
            (Timer::Takeover, part.since + takeovers * takeover_after_ns)
        };
        if repeats {
            self.drive(part, moment, |driver, detectors, out| driver.on_timer(Timer::Repeat, detectors, out));
        } else if part.again_at != Instant::NEVER {
            self.give(Order::LookAt(part.again_at));
        }
        if at >= expires_at {
            let led = part.driver.ballots().leads();
            self.drive(part, moment, |driver, detectors, out| driver.on_timer(timer, detectors, out));
            if timer == Timer::Patience && part.driver.ballots().leads() > led {
                part.fruitless = DOUBLINGS_MAX.min(part.fruitless + 1);
            }
        } else {
            self.drive(part, moment, |driver, detectors, out| driver.on_detector_report(detectors, out));
            self.give(Order::LookAt(expires_at));
        }
    }

    /// What this member should do about its view, and whether it reaches a quorum of it.
    fn judge(&mut self, part: &mut Part, moment: &Moment, sight: &Sight) -> Verdict {
        let view: Vec<Rank> = part.view().members.iter().map(|member| member.rank).collect();
        let situation = Situation {
            view: &view,
            own: part.own.rank,
            heard: &sight.heard,
            fresh: sight.fresh,
            evidence: moment.detectors.evidence,
            joiners: sight.joiners.len(),
            members_min: self.rules.members_min,
            timing: &self.rules.timing,
        };
        let verdict = part.membership.update(moment.at, &situation);
        let lacks = verdict == Verdict::NoMajority;
        if core::mem::replace(&mut part.lacks_majority, lacks) != lacks {
            self.give(Order::LacksMajority(lacks));
        }
        verdict
    }

    fn follow(&mut self, part: &mut Part, moment: &Moment, sight: &Sight, verdict: Verdict) {
        match verdict {
            Verdict::Content => self.consider_wishes(part, moment, sight),
            Verdict::Wait { until } => self.give(Order::LookAt(until)),
            Verdict::Propose { members } => self.propose(part, moment, sight, (members, 0)),
            Verdict::NoMajority => {}
        }
    }

    /// All members hear each other: the oldest member adds the joiners that wait and releases the leavers.
    fn consider_wishes(&mut self, part: &mut Part, moment: &Moment, sight: &Sight) {
        let (view, own) = (part.view(), part.own.rank);
        if view.oldest(view.bits()) != Some(own) {
            self.hand_over = None;
            return;
        }
        let (at, joiners) = (moment.at, sight.joiners.len());
        let joins = joiners > 0;
        self.hand_over = self.hand_over.filter(|to| *to != view.sequencer && view.bits() & bit(*to) != 0);
        let bits = view.bits();
        let stay = match bits & !sight.leavers {
            // A view is never empty. The joiners that wait come in first; then all leavers go but this member; then it
            // leaves as well.
            0 if joins => bits,
            0 if sight.learns && at < sight.leave_by => {
                return self.give(Order::LookAt((at + self.rules.fresh_ns).min(sight.leave_by)));
            }
            0 if bits == bit(own) => return self.give(Order::Close),
            0 => bit(own),
            stay => stay,
        };
        // The configured majority stays in the view, even if some of it asks to leave.
        let remain = stay.count_ones() as usize;
        let stay = if remain + joiners.min(remain) < self.rules.members_min { bits } else { stay };
        if joins || stay != bits || self.hand_over.is_some() || sight.is_long {
            self.propose(part, moment, sight, (stay, bits & !stay));
        }
    }

    fn propose(&mut self, part: &mut Part, moment: &Moment, sight: &Sight, (keep, leavers): (u64, u64)) {
        let (joiners, sequencer) = (sight.joiners.clone(), self.hand_over.take());
        part.began = Some((moment.at, sequencer));
        self.lead(part, moment, Proposal { keep, leavers, joiners, sequencer, origin: None });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use bourdon_wire::{DatagramNumber, Incarnation};

    const ALL: u64 = 0b111;
    const STALE_NS: u64 = 1_000_000;

    fn member(rank: u16) -> Member {
        Member { rank: Rank(rank), incarnation: Incarnation(1) }
    }

    fn moment(at: Instant) -> Moment {
        Moment { at, detectors: DetectorReport::default() }
    }

    fn held() -> Cut {
        Cut { ends: vec![DatagramNumber(0); 3], ..Cut::default() }
    }

    /// What the oldest member sees: this is what each of the three reports that it hears.
    fn sight(heard: [u64; 3], joiners: &[Member]) -> Sight {
        let mut all = [0; MEMBERS_MAX];
        all[..3].copy_from_slice(&heard);
        let (joiners, leave_by) = (joiners.to_vec(), Instant::NEVER);
        Sight { heard: all, fresh: ALL, joiners, learns: false, leavers: 0, leave_by, is_long: false }
    }

    /// The oldest of three members.
    fn begun() -> Agreement {
        let timing = MembershipTiming::default();
        let fresh_ns = STALE_PART * STALE_NS;
        let rules = Rules { members_min: 1, timing, ballot_retry_ns: 5_000_000, fresh_ns, mutant: None };
        let mut agreement = Agreement { rules, part: None, parts: 0, hand_over: None, orders: VecDeque::new() };
        let view = View::of_all(Epoch(1), 3, Incarnation(1), Rank(0));
        agreement.take(ToAgreement::Begun { own: member(0), view });
        agreement
    }

    fn orders(agreement: &mut Agreement) -> Vec<Order> {
        core::iter::from_fn(|| agreement.poll_order()).map(|order| order.order).collect()
    }

    fn wedge(orders: &[Order]) -> Option<Ballot> {
        orders.iter().find_map(|order| if let Order::Wedge(ballot) = order { Some(*ballot) } else { None })
    }

    /// Looks whenever it orders to, until it begins a ballot.
    fn look_until_ballot(agreement: &mut Agreement, mut at: Instant, sight: &Sight) -> (Instant, Ballot) {
        for _ in 0..10_000 {
            agreement.take(ToAgreement::Look(moment(at), sight.clone()));
            let orders = orders(agreement);
            if let Some(ballot) = wedge(&orders) {
                return (at, ballot);
            }
            let due = |order: &Order| if let Order::LookAt(due) = order { Some(*due) } else { None };
            at = orders.iter().filter_map(due).min().expect("it looks again").max(at);
        }
        panic!("it begins no ballot");
    }

    /// The members it proposes if its data plane stops so long after it looked, and all members answer.
    fn proposed(sight: &Sight, stops_after_ns: u64) -> Vec<Member> {
        let mut agreement = begun();
        let (looked_at, mut ballot) = look_until_ballot(&mut agreement, Instant(0), sight);
        let moment = moment(looked_at + stops_after_ns);
        loop {
            agreement.take(ToAgreement::Wedged(moment, ballot, held()));
            match wedge(&orders(&mut agreement)) {
                Some(next) => ballot = next,
                None => break,
            }
        }
        for rank in [1, 2] {
            let (from, is_known, instance) = (member(rank), true, InstanceId(1));
            let step = Step::State { held: held(), accepted: None, birth_floor: 0 };
            agreement.take(ToAgreement::Step { moment, from, is_known, instance, ballot, step });
        }
        let value = |order| match order {
            Order::Send { step: Step::Propose(value), .. } => Some(value.members),
            _ => None,
        };
        orders(&mut agreement).into_iter().find_map(value).expect("it proposes once all have answered")
    }

    #[test]
    fn a_ballot_begun_on_an_old_sight_leaves_no_member_out() {
        let deaf = sight([0b011, 0b011, 0b100], &[]);
        assert_eq!(proposed(&deaf, STALE_NS), [0, 1].map(member), "what it saw is fresh");
        assert_eq!(proposed(&deaf, STALE_NS + 1), [0, 1, 2].map(member));
    }

    #[test]
    fn a_ballot_begun_on_an_old_sight_takes_no_joiner_in() {
        let joins = sight([ALL; 3], &[member(3)]);
        assert_eq!(proposed(&joins, STALE_NS), [0, 1, 2, 3].map(member), "what it saw is fresh");
        assert_eq!(proposed(&joins, STALE_NS + 1), [0, 1, 2].map(member));
    }

    #[test]
    fn a_proposer_without_a_quorum_waits_twice_as_long_each_time_up_to_a_bound() {
        let mut agreement = begun();
        let joins = sight([ALL; 3], &[member(3)]);
        let (mut at, mut ballot) = look_until_ballot(&mut agreement, Instant(0), &joins);
        let takeover_after_ns = agreement.rules.timing.takeover_after_ns;
        let waits = [(); 6].map(|()| {
            agreement.take(ToAgreement::Wedged(moment(at), ballot, held()));
            assert_eq!(wedge(&orders(&mut agreement)), None);
            let begun_at = at;
            (at, ballot) = look_until_ballot(&mut agreement, at, &joins);
            at.since(begun_at) / takeover_after_ns
        });
        assert_eq!(waits, [4, 8, 16, 32, 32, 32], "in takeover times");
    }
}
