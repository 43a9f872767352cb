//! View change: from epoch e to e + 1 by one decision among the members of e.
//!
//! When a member crashes, the others have received different parts of its stream. If each simply went on without it,
//! they would deliver different messages; if one member decided alone and crashed, two members might decide
//! differently. So the next view and the *cut* (how far each stream of e is delivered before it) are one value, and the
//! members of e agree on it by ballots, as in Paxos:
//!
//! 1. `PREPARE` asks for a promise. A member that promises is *wedged*: it sends, orders, acknowledges and delivers
//!    nothing more in e, for good, and takes part in no lower ballot. Only a decision ends this state.
//! 2. `STATE` is the promise: what its sender holds of each stream, and the value it has accepted, if any.
//! 3. With the states of a quorum of e the proposer chooses. If a value was accepted before, it takes the value of the
//!    highest ballot unchanged. Only if there is none does it make a value: the members that answered, less those that
//!    the [`Proposal`] leaves out, and joiners; the cut is the *union* of what the members that answered hold.
//! 4. A member answers `PROPOSE` with `ACCEPT` only once it holds the whole cut. A quorum of e *and* a quorum of e + 1
//!    decide. The quorum of e makes the value unique; the quorum of e + 1 keeps the cut among the members that go on.
//!    So a joiner, which follows e and holds the cut like any member, counts for e + 1, and never for e: otherwise,
//!    after a single crash, a group that had accepted a joiner could have too few members of e + 1 to go on, for ever.
//!
//! **The continuing members are a quorum of e** ([`continues`]), members that asked to leave counted as consenting. A
//! ballot needs the answers of a quorum. If its value then left out members that had answered, only the few remaining
//! members would hold what a quorum held, and with it what `uniform` has delivered; a single crash would lose it. So a
//! member that answers is left out only for a reason that is not the proposer's own opinion: evidence of its crash, the
//! clique rule (`membership.rs`), or its wish to leave; and if those reasons together would leave less than a quorum,
//! all members that answered stay.
//!
//! Uniform delivery is safe at a majority because of the union: of any quorum that answers, at least one member holds
//! what a majority held. Each stream's part of the cut is what some member holds of it *without a gap*: what lies
//! beyond a gap at every holder can't have been delivered, except in unordered channels, whose ranges beyond gaps are
//! united as well.
//!
//! Deviation: the cut counts datagrams of each stream, not order numbers. How far the total order reaches follows from
//! it: every member has the same datagrams, walks the order in them and stops at the same message.
//!
//! This file has the ballots; [`driver`] decides when to begin, wait and repeat, and what the data plane must do.
//!
//! Invariants: one value is decided in each epoch; a quorum of the old view accepted it; members that go on have
//! delivered the same, in the same order; the union keeps what a quorum held, and so what `uniform` delivered; the
//! continuing members are a quorum of the old view. Sources: Lamport, "The part-time parliament" (1998); Birman and
//! Joseph, "Exploiting virtual synchrony in distributed systems" (1987).

pub mod driver;

use crate::mutant::Mutant;
use crate::values::cut::Cut;
use crate::view::{Member, View, bit};
use alloc::vec::Vec;
use bourdon_wire::{BIRTH_FLOORS_END, BIRTHS_END, Epoch, InstanceId, Rank};

/// How many ranks there are.
const RANKS: u64 = Rank::MAX.0 as u64 + 1;
const _: () = assert!(BIRTHS_END.is_multiple_of(RANKS), "each rank has a last birth");

/// A round and the member that began it; higher ballots win. Zero is no ballot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ballot(pub u64);

impl Ballot {
    fn after(self, own: Rank) -> Self {
        let next = Self(((self.0 >> 16) + 1) << 16 | u64::from(own.0));
        assert!(next > self && next.proposer() == own, "{next:?} of {own} after {self:?}");
        next
    }

    /// The member that began it.
    pub fn proposer(self) -> Rank {
        Rank(self.0 as u16)
    }
}

/// The value that is decided.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Value {
    /// The next view's members, oldest first.
    pub members: Vec<Member>,
    /// Its sequencer.
    pub sequencer: Rank,
    /// Members of e that asked to leave and are left out: bit r is rank r. They consent to a view without them.
    pub leavers: u64,
    /// What is delivered before it.
    pub cut: Cut,
    /// The instance of the group: the proposer's candidate in the first view's value, the same in all later values.
    pub instance: InstanceId,
    /// The instance's birth: set in the first view's value, the same in all later values.
    pub birth: u64,
}

impl Value {
    /// The view that follows.
    pub fn view(&self, epoch: Epoch) -> View {
        let (instance, birth) = (self.instance, self.birth);
        View { epoch, members: self.members.clone(), sequencer: self.sequencer, instance, birth }
    }
}

/// A message of one member to another, or to all, about a ballot.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    /// Promise this ballot.
    Prepare,
    /// The ballot was promised.
    State {
        /// What the sender holds.
        held: Cut,
        /// What it has accepted, and in which ballot.
        accepted: Option<(Ballot, Value)>,
        /// Before the first view: the highest birth of an instance that the sender knows of.
        birth_floor: u64,
    },
    /// Accept this value.
    Propose(Value),
    /// The value was accepted.
    Accept,
    /// A higher ballot, the one named, was promised.
    Refuse,
    /// This value was decided.
    Decide(Value),
}

/// What a proposer would like.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Proposal {
    /// The members of e to keep, if they answer. It leaves out only members with evidence of their crash, members that
    /// the clique rule leaves out, and leavers.
    pub keep: u64,
    /// The members of e that asked to leave.
    pub leavers: u64,
    /// The members that come in.
    pub joiners: Vec<Member>,
    /// The next sequencer, if it is in the next view; else the sequencer stays, or the oldest member becomes it.
    pub sequencer: Option<Rank>,
    /// Before the first view: the name of the instance, and the time in milliseconds since 1970.
    pub origin: Option<(InstanceId, u64)>,
}

/// A value that no member of the view can have chosen: it continues without a quorum, or names what does not exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a value that no member of this view can have chosen")]
pub struct Implausible;

/// Rule 26: whether a value may follow a view. The members that continue, with those that asked to leave, are a quorum
/// of the view, and the next view has at least `members_min` members, or more than the view: one that was recovered by
/// hand begins with fewer, and grows. Checked when a value is chosen, accepted, decided and installed.
pub fn continues(view: &View, value: &Value, members_min: usize) -> bool {
    let continuing = continuing(view, value);
    let present = view.bits();
    let in_new_incarnation =
        |member: &Member| view.epoch != Epoch(0) && !view.contains(*member) && present & bit(member.rank) != 0;
    let ranks = value.members.iter().fold(0, |bits, member| bits | bit(member.rank));
    let is_of_instance = view.epoch == Epoch(0) || (value.instance, value.birth) == (view.instance, view.birth);
    is_of_instance
        && value.leavers & !present == 0
        && value.leavers & ranks == 0
        && !value.members.iter().any(in_new_incarnation)
        && view.is_quorum(continuing | value.leavers)
        && value.members.len() >= members_min.min(view.members.len() + 1)
}

/// The members of a view that go on to the next, in the same incarnation; before the first view, by rank.
pub fn continuing(view: &View, value: &Value) -> u64 {
    let forming = view.epoch == Epoch(0);
    let stays = |member: &&Member| view.contains(**member) || forming && view.incarnation(member.rank).is_some();
    value.members.iter().filter(stays).fold(0, |bits, member| bits | bit(member.rank))
}

/// The member that promised, what it holds, and what it has accepted.
type Promise = (Member, Cut, Option<(Ballot, Value)>);

/// A birth to exceed; 0 if no clock can have given it.
pub(crate) fn floor_of(birth: u64) -> u64 {
    if birth < BIRTH_FLOORS_END { birth } else { 0 }
}

/// The first view's birth: the first from now on, and above every birth that a founding member knows of, that is the
/// founder's rank modulo the ranks there are. So no two founders give the same birth, and none of their tokens are
/// equal.
pub(crate) fn birth_above(now_ms: u64, floor: u64, founder: Rank) -> u64 {
    assert!(floor < BIRTHS_END, "the configuration was checked");
    let (least, rank) = (now_ms.max(floor + 1).min(BIRTHS_END - RANKS), u64::from(founder.0));
    least + (rank + RANKS - least % RANKS) % RANKS
}

/// A ballot that this member leads.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Leading {
    ballot: Ballot,
    proposal: Proposal,
    states: Vec<Promise>,
    value: Option<Value>,
    accepts: u64,
    /// The highest birth known to the members that promised.
    birth_floor: u64,
}

/// One member's part in the decision of what follows its view.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ViewChange {
    own: Member,
    view: View,
    /// The fewest members the next view may have, beyond the rule of quorums.
    members_min: usize,
    promised: Ballot,
    accepted: Option<(Ballot, Value)>,
    /// Proposed to this member and not accepted yet: a part of its cut may be missing.
    proposed: Option<(Ballot, Value)>,
    leading: Option<Leading>,
    decided: Option<Value>,
    /// Before the first view: the highest birth of an instance that this process knows of.
    birth_floor: u64,
    mutant: Option<Mutant>,
}

/// The reaction to a step that was received.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Reaction {
    /// Nothing.
    None,
    /// A ballot was promised: its proposer must get this member's state.
    Promised,
    /// A higher ballot was promised before: the sender must get its number.
    Refused(Ballot),
    /// A value was proposed: its cut must be fetched.
    Proposed,
    /// This member's own ballot made progress.
    Progress,
    /// A value is decided.
    Decided,
}

impl ViewChange {
    /// The state at the beginning of a view.
    pub fn new(own: Member, view: View, members_min: usize, mutant: Option<Mutant>) -> Self {
        let (promised, accepted, proposed) = (Ballot(0), None, None);
        let (leading, decided) = (None, None);
        Self { own, view, members_min, promised, accepted, proposed, leading, decided, birth_floor: 0, mutant }
    }

    /// Takes up what this member had stored before it was restarted: it promises and accepts nothing below that.
    pub(super) fn restore(&mut self, promised: Ballot, accepted: Option<(Ballot, Value)>) {
        assert!(!self.is_wedged() && self.accepted.is_none(), "a member is restored before it takes part");
        self.promised = accepted.as_ref().map_or(promised, |(ballot, _)| promised.max(*ballot));
        self.accepted = accepted;
    }

    /// Whether a ballot was promised: nothing more is sent, ordered, acknowledged or delivered in this epoch.
    pub fn is_wedged(&self) -> bool {
        self.promised != Ballot(0)
    }

    /// The view that this change ends.
    pub fn view(&self) -> &View {
        &self.view
    }

    /// The decided value.
    pub fn decided(&self) -> Option<&Value> {
        self.decided.as_ref()
    }

    /// The value accepted in the highest ballot so far.
    pub fn accepted(&self) -> Option<&Value> {
        self.accepted.as_ref().map(|(_, value)| value)
    }

    /// The highest ballot promised.
    pub fn promised(&self) -> Ballot {
        self.promised
    }

    /// Before the first view: the highest birth of an instance that this process knows of.
    pub(super) fn note_birth(&mut self, birth: u64) {
        self.birth_floor = self.birth_floor.max(floor_of(birth));
    }

    /// The value whose cut must be fetched: decided, or proposed in the ballot promised last.
    pub fn wanted(&self) -> Option<&Value> {
        self.decided.as_ref().or(self.proposed.as_ref().map(|(_, value)| value))
    }

    /// The ballot of the proposal that was received last.
    pub(super) fn proposed_in(&self) -> Option<Ballot> {
        self.proposed.as_ref().map(|(ballot, _)| *ballot)
    }

    /// The ballot this member leads, if it does.
    pub fn leads(&self) -> Option<Ballot> {
        self.leading.as_ref().map(|leading| leading.ballot)
    }

    /// Another incarnation of a process was heard before the first view: the promises of the earlier incarnation are
    /// void.
    pub(super) fn replace(&mut self, member: Member) {
        assert!(self.view.epoch == Epoch(0), "a view names incarnations");
        for known in self.view.members.iter_mut().filter(|known| known.rank == member.rank) {
            known.incarnation = member.incarnation;
        }
        self.leading = None;
    }

    /// Rule 26, which the mutants that break it switch off.
    pub(super) fn allows(&self, value: &Value) -> bool {
        self.breaks_continuation() || continues(&self.view, value, self.members_min)
    }

    fn breaks_continuation(&self) -> bool {
        let mutants = [Mutant::SmallView, Mutant::RespondersLeftOut, Mutant::TakeoverAlone];
        self.mutant.is_some_and(|mutant| mutants.contains(&mutant))
    }

    // ---- the proposer ---------------------------------------------------------------------------------------------

    /// Begins a ballot higher than any heard. The caller must then report this member's own state:
    /// [`ViewChange::on_held`].
    pub(super) fn lead(&mut self, proposal: Proposal) -> Ballot {
        assert!(self.decided.is_none(), "a decision ends the ballots");
        let ballot = self.promised.after(self.own.rank);
        let old = self.leading.take().filter(|_| self.mutant == Some(Mutant::StaleState));
        self.promised = ballot;
        self.proposed = None;
        let mut states = old.map_or_else(Vec::new, |old| old.states);
        states.retain(|(member, ..)| *member != self.own);
        let birth_floor = self.birth_floor;
        self.leading = Some(Leading { ballot, proposal, states, value: None, accepts: 0, birth_floor });
        ballot
    }

    /// What this member holds is the first state of its own ballot.
    pub(super) fn on_held(&mut self, held: Cut) {
        let state = (self.own, held, self.accepted.clone());
        if let Some(leading) = &mut self.leading {
            leading.states.push(state);
        }
    }

    /// The promise of the ballot promised last, to its proposer.
    pub(super) fn state(&self, held: Cut) -> (Ballot, Step) {
        assert!(self.is_wedged(), "a state is the promise of a ballot");
        // A value accepted before the first view can be dropped: see `adopted`.
        let accepted = self.accepted.clone().filter(|_| self.view.epoch != Epoch(0));
        (self.promised, Step::State { held, accepted, birth_floor: self.birth_floor })
    }

    /// Whether this member leads a ballot that leaves a rank out.
    pub(super) fn leaves_out(&self, rank: Rank) -> bool {
        let Some(Leading { proposal, .. }) = &self.leading else { return false };
        (proposal.keep | proposal.leavers) & bit(rank) == 0
    }

    fn answered(&self) -> u64 {
        let states = self.leading.as_ref().map_or(&[][..], |leading| &leading.states);
        states.iter().fold(0, |bits, (member, ..)| bits | bit(member.rank))
    }

    /// The members that the last step of this member's own ballot was sent to and that have not answered.
    pub(super) fn awaited(&self) -> u64 {
        let Some(leading) = &self.leading else { return 0 };
        match &leading.value {
            None => leading.proposal.keep & !self.answered(),
            Some(value) => continuing(&self.view, value) & !leading.accepts,
        }
    }

    /// Whether a value can be chosen: a quorum has answered.
    pub fn may_choose(&self) -> bool {
        let chooses = self.leading.as_ref().is_some_and(|leading| leading.value.is_none());
        chooses && (self.is_enough(self.answered()) || self.mutant == Some(Mutant::StateFromAny))
    }

    /// Whether these votes are enough members of e to decide.
    fn is_enough(&self, votes: u64) -> bool {
        let half = self.mutant == Some(Mutant::HalfIsQuorum);
        self.view.is_quorum(votes)
            || (half && 2 * (votes & self.view.bits()).count_ones() as usize >= self.view.members.len())
    }

    /// Chooses the value of this member's own ballot, if the answers allow a value; `suspects` count for nothing,
    /// except in the mutant that leaves them out. What to send: `PROPOSE`, to all.
    pub(super) fn choose(&mut self, suspects: u64) -> Option<(Ballot, Step)> {
        let leading = self.leading.as_ref().filter(|_| self.may_choose())?;
        let value = self.adopted(leading).or_else(|| self.made(leading, suspects))?;
        assert!(
            self.allows(&value) || self.is_enough_for_a_mutant(),
            "no quorum continues: {value:?} after {:?}",
            self.view
        );
        let leading = self.leading.as_mut()?;
        assert!(leading.value.is_none() && leading.accepts == 0, "a ballot has one value");
        leading.value = Some(value.clone());
        let ballot = leading.ballot;
        assert!(ballot == self.promised, "a member leads the ballot that it promised last");
        self.proposed = Some((ballot, value.clone()));
        Some((ballot, Step::Propose(value)))
    }

    /// Mutants that choose or decide without a quorum also break the rule that a quorum continues; the checkers must
    /// find them, not an assert.
    fn is_enough_for_a_mutant(&self) -> bool {
        self.mutant.is_some()
    }

    /// The value accepted in the highest ballot that was reported. Before the first view every member must accept, so a
    /// value that was not decided can be dropped: it can have been decided only with all of them.
    fn adopted(&self, leading: &Leading) -> Option<Value> {
        if self.view.epoch == Epoch(0) || self.mutant == Some(Mutant::AcceptedNotAdopted) {
            return None;
        }
        let accepted = leading.states.iter().filter_map(|(.., accepted)| accepted.as_ref());
        let highest = if self.mutant == Some(Mutant::LowestBallotAdopted) {
            accepted.min_by_key(|(ballot, _)| *ballot)
        } else {
            accepted.max_by_key(|(ballot, _)| *ballot)
        };
        let mut value = highest.map(|(_, value)| value.clone())?;
        if self.mutant == Some(Mutant::CutRecomputed) {
            value.cut = self.union(leading);
        }
        Some(value)
    }

    /// A new value: without the members that the wish leaves out, or, if those are too many, with all members that
    /// answered.
    fn made(&self, leading: &Leading, suspects: u64) -> Option<Value> {
        let keep = match self.mutant {
            Some(Mutant::RespondersLeftOut) => leading.proposal.keep & (!suspects | bit(self.own.rank)),
            Some(Mutant::SmallView) if self.view.epoch > Epoch(0) => bit(self.own.rank),
            _ => leading.proposal.keep,
        };
        let value = self.value_of(leading, keep, leading.proposal.leavers)?;
        if self.allows(&value) || self.mutant == Some(Mutant::ViewBeyondResponders) {
            return Some(value);
        }
        self.value_of(leading, self.view.bits(), 0).filter(|value| self.allows(value) || self.is_enough_for_a_mutant())
    }

    fn value_of(&self, leading: &Leading, keep: u64, leavers: u64) -> Option<Value> {
        let (answered, proposal) = (self.answered(), &leading.proposal);
        // With the states of too few members, only a view that goes beyond them continues a quorum.
        let beyond = [Mutant::ViewBeyondResponders, Mutant::StateFromAny].map(Some).contains(&self.mutant);
        let stays = |rank| keep & bit(rank) != 0 && (beyond || answered & bit(rank) != 0);
        let as_answered = |member: &Member| {
            let state = leading.states.iter().find(|(from, ..)| from.rank == member.rank);
            state.map_or(*member, |(from, ..)| *from)
        };
        let mut members: Vec<_> = self.view.members.iter().filter(|m| stays(m.rank)).map(as_answered).collect();
        let continuing = members.len();
        let is_new = |joiner: &&Member| self.view.incarnation(joiner.rank).is_none();
        members.extend(proposal.joiners.iter().filter(is_new).take(continuing));
        let is_in = |rank: &Rank| members.iter().any(|member| member.rank == *rank);
        let old = Some(self.view.sequencer);
        let sequencer =
            proposal.sequencer.filter(is_in).or(old.filter(is_in)).or(members.first().map(|first| first.rank))?;
        let (instance, birth) = match proposal.origin {
            Some((candidate, now_ms)) if self.view.epoch == Epoch(0) => {
                (candidate, birth_above(now_ms, leading.birth_floor, self.own.rank))
            }
            _ => (self.view.instance, self.view.birth),
        };
        let (leavers, cut) = (leavers & self.view.bits(), self.union(leading));
        let ranks = members.iter().fold(0, |bits, member| bits | bit(member.rank));
        assert!(ranks.count_ones() as usize == members.len(), "members are distinct by rank: {members:?}");
        assert!(ranks & bit(sequencer) != 0, "the sequencer is a member");
        let forms = self.view.epoch == Epoch(0);
        assert!(
            !forms || proposal.origin.is_none() || birth > leading.birth_floor,
            "a birth is above all that are known"
        );
        Some(Value { members, sequencer, leavers, cut, instance, birth })
    }

    fn union(&self, leading: &Leading) -> Cut {
        let mut states = leading.states.iter().map(|(_, held, _)| held);
        if self.mutant == Some(Mutant::CutLongestHolder) {
            let sum = |held: &&Cut| held.ends.iter().map(|end| end.0).sum::<u64>();
            return states.max_by_key(sum).cloned().unwrap_or_default();
        }
        let mut cut = states.next().cloned().unwrap_or_default();
        for held in states {
            for (end, other) in cut.ends.iter_mut().zip(&held.ends) {
                let intersect = self.mutant == Some(Mutant::CutIntersection);
                *end = if intersect { (*end).min(*other) } else { (*end).max(*other) };
            }
            cut.ranges.extend(&held.ranges);
            cut.phase = cut.phase.max(held.phase);
        }
        cut.unite();
        cut
    }

    /// Whether this member's own value may be decided: a quorum of e and a quorum of e + 1 have accepted it.
    pub fn may_decide(&self) -> bool {
        let Some(leading) = &self.leading else { return false };
        let Some(value) = &leading.value else { return false };
        let next = value.view(self.view.epoch.next());
        let continuing = continuing(&self.view, value);
        match self.mutant {
            Some(Mutant::AcceptFromAny) => leading.accepts != 0,
            Some(Mutant::DecideByAll) => continuing & !leading.accepts == 0,
            Some(Mutant::JoinerCounted) => {
                let joiners = (next.members.len() as u32).saturating_sub(continuing.count_ones());
                let votes = (leading.accepts & self.view.bits()).count_ones() + joiners;
                2 * votes as usize > self.view.members.len()
            }
            _ => self.is_enough(leading.accepts) && next.is_quorum(leading.accepts),
        }
    }

    /// Decides this member's own value, if it may be decided. What to send: `DECIDE`, to all.
    pub(super) fn decide(&mut self) -> Option<(Ballot, Step)> {
        let leading = self.leading.as_ref().filter(|_| self.may_decide())?;
        let value = leading.value.clone()?;
        assert!(
            self.allows(&value) || self.is_enough_for_a_mutant(),
            "no quorum continues: {value:?} after {:?}",
            self.view
        );
        assert!(self.decided.is_none(), "one value an epoch");
        self.decided = Some(value.clone());
        Some((leading.ballot, Step::Decide(value)))
    }

    /// Whether the value of this member's own ballot adds a joiner, which may then accept it.
    pub fn invites(&self, joiner: Member) -> bool {
        let value = self.leading.as_ref().and_then(|leading| leading.value.as_ref());
        value.is_some_and(|value| value.members.contains(&joiner))
    }

    /// The step of this member's own ballot that must be repeated: `PREPARE`, `PROPOSE` or `DECIDE`.
    pub fn again(&self) -> Option<(Ballot, Step)> {
        let leading = self.leading.as_ref()?;
        let step = match (&self.decided, &leading.value) {
            (Some(value), _) => Step::Decide(value.clone()),
            (None, Some(value)) => Step::Propose(value.clone()),
            (None, None) => Step::Prepare,
        };
        Some((leading.ballot, step))
    }

    // ---- every member ---------------------------------------------------------------------------------------------

    /// Receives a step of a member of this view.
    pub(super) fn on_step(&mut self, from: Member, ballot: Ballot, step: Step) -> Result<Reaction, Implausible> {
        let value = match &step {
            Step::Propose(value) | Step::Decide(value) | Step::State { accepted: Some((_, value)), .. } => Some(value),
            _ => None,
        };
        if value.is_some_and(|value| !self.allows(value)) {
            return Err(Implausible);
        }
        if let Step::Decide(value) = step {
            self.decided.get_or_insert(value);
            return Ok(Reaction::Decided);
        }
        if self.decided.is_some() || ballot == Ballot(0) {
            return Ok(Reaction::None); // a member that asks is answered with the decision, by our caller
        }
        Ok(match step {
            Step::Prepare if ballot < self.promised => Reaction::Refused(self.promised),
            Step::Prepare => {
                self.promise(ballot);
                Reaction::Promised
            }
            Step::State { held, accepted, birth_floor } => {
                let reaction = self.on_state(from, ballot, held, accepted);
                if let (Reaction::Progress, Some(leading)) = (&reaction, &mut self.leading) {
                    leading.birth_floor = leading.birth_floor.max(floor_of(birth_floor));
                }
                reaction
            }
            Step::Propose(value) => self.on_propose(ballot, value),
            Step::Accept => self.on_accept(from, ballot),
            Step::Refuse => {
                if ballot > self.promised && self.is_wedged() {
                    // The next ballot of this member is higher than it.
                    self.promise(ballot);
                }
                Reaction::None
            }
            Step::Decide(_) => Reaction::Decided,
        })
    }

    fn promise(&mut self, ballot: Ballot) {
        if ballot > self.promised {
            self.promised = ballot;
            self.leading = None;
            self.proposed = None;
        }
        assert!(self.is_wedged() && self.promised >= ballot, "{ballot:?} after {:?}", self.promised);
    }

    fn on_accept(&mut self, from: Member, ballot: Ballot) -> Reaction {
        let Some(leading) = self.leading.as_mut().filter(|leading| leading.ballot == ballot) else {
            return Reaction::None;
        };
        // No honest member accepts what was not proposed yet.
        let Some(value) = &leading.value else { return Reaction::None };
        let invited = value.members.contains(&from);
        // Before the first view only exactly the incarnations that the value names: others may be of an earlier run.
        if invited || self.view.epoch != Epoch(0) && self.view.contains(from) {
            leading.accepts |= bit(from.rank);
        }
        Reaction::Progress
    }

    fn on_state(&mut self, from: Member, ballot: Ballot, held: Cut, accepted: Option<(Ballot, Value)>) -> Reaction {
        let forming = self.view.epoch == Epoch(0);
        if !forming && !self.view.contains(from) {
            return Reaction::None;
        }
        let stale = self.mutant == Some(Mutant::StaleState);
        let Some(leading) = self.leading.as_mut().filter(|l| l.ballot == ballot || stale) else {
            return Reaction::None;
        };
        if leading.value.is_some() {
            return Reaction::None;
        }
        leading.states.retain(|(member, ..)| member.rank != from.rank);
        leading.states.push((from, held, accepted));
        Reaction::Progress
    }

    fn on_propose(&mut self, ballot: Ballot, value: Value) -> Reaction {
        if ballot < self.promised && self.mutant != Some(Mutant::AcceptBelowPromise) {
            return Reaction::Refused(self.promised);
        }
        if self.view.epoch == Epoch(0) && !value.members.contains(&self.own) {
            return Reaction::None; // meant for an earlier incarnation of this process
        }
        if ballot > self.promised {
            self.promise(ballot);
        }
        self.proposed = Some((ballot, value));
        Reaction::Proposed
    }

    /// This member holds the whole cut of the proposed value: accepts the value. What to send: `ACCEPT`, to the
    /// ballot's proposer; if that is this member, it has been counted.
    pub(super) fn accept(&mut self) -> Option<(Ballot, Step)> {
        if self.decided.is_some() {
            return None;
        }
        let (ballot, value) = self.proposed.clone()?;
        assert!(
            self.allows(&value) || self.is_enough_for_a_mutant(),
            "no quorum continues: {value:?} after {:?}",
            self.view
        );
        let is_latest = self.accepted.as_ref().is_none_or(|(before, _)| *before <= ballot) && ballot == self.promised;
        assert!(is_latest || self.mutant.is_some(), "{ballot:?} is accepted after {:?}", self.promised);
        self.accepted = Some((ballot, value));
        if let Some(leading) = self.leading.as_mut().filter(|leading| leading.ballot == ballot) {
            leading.accepts |= bit(self.own.rank);
        }
        Some((ballot, Step::Accept))
    }
}
