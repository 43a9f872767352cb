//! View change: from epoch e to e + 1 by one decision among the members of e.
//!
//! When a member dies, the others have received different things of it. If each simply went on without it, they would
//! deliver different messages; if one of them decided alone and died, two of them might decide differently. So the next
//! view and the *cut* (how far each stream of e is delivered before it) are one value, and the members of e agree on it
//! by ballots, as in Paxos:
//!
//! 1. `PREPARE` asks for a promise. Who promises is *wedged*: it sends, orders, acknowledges and delivers nothing more in
//!    e, for good, and takes part in no lower ballot. There is no way back but a decision.
//! 2. `STATE` is the promise: what its sender holds of each stream, and the value it has accepted, if any.
//! 3. With the states of a quorum of e the proposer chooses. A value accepted before is taken unchanged, the one of the
//!    highest ballot; only if there is none does it make one: of those who answered, those it wishes for, and joiners;
//!    the cut is the *union* of what those who answered hold.
//! 4. `ACCEPT` answers `PROPOSE` only once the whole cut is here. A quorum of e *and* a quorum of e + 1 decide. That of e
//!    makes the value the only one; that of e + 1 keeps the cut among those who go on. So a joiner, which follows e and
//!    holds the cut like anybody, counts for e + 1, and never for e: else one crash could leave a group that had accepted
//!    a joiner with too few of e + 1 to go on for ever.
//!
//! Uniform delivery is safe at a majority because of the union: whatever a majority held is held by one of any quorum
//! that answers. Each stream's part of the cut is what some member holds of it *without a gap*: what stands beyond a gap
//! at every holder can't have been delivered, save in unordered channels, whose ranges beyond gaps are united as well.
//!
//! Deviation: the cut counts datagrams of each stream, not order numbers. How far the total order reaches follows from
//! it: everybody has the same datagrams, walks the order in them and stops at the same message.
//!
//! Pure and without time: when to begin, to wait and to try again is its caller's (`process/change.rs`).
//!
//! Invariants: 4 (one value an epoch), 5, 7, 8, 11 by the union. Sources: Lamport, "The part-time parliament" (1998);
//! Birman and Joseph, "Exploiting virtual synchrony in distributed systems" (1987).

use crate::mutant::Mutant;
use crate::view::{Member, View, bit};
use alloc::vec::Vec;
use bourdon_wire::{BIRTHS_END, DatagramNumber, Epoch, InstanceId, Rank};

/// A round and who began it; higher ones win. Zero is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ballot(pub u64);

impl Ballot {
    fn after(self, own: Rank) -> Self {
        Self(((self.0 >> 16) + 1) << 16 | u64::from(own.0))
    }

    /// Who began it.
    pub fn proposer(self) -> Rank {
        Rank(self.0 as u16)
    }
}

/// Datagrams of one stream beyond a gap.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Range {
    /// Whose stream.
    pub rank: Rank,
    /// The first of them.
    pub first: DatagramNumber,
    /// How many.
    pub count: u16,
}

/// Datagrams of all streams of an epoch: what somebody holds, or what is to be delivered before the next view.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Cut {
    /// By rank: every datagram below.
    pub ends: Vec<DatagramNumber>,
    /// And these, where messages are delivered unordered.
    pub ranges: Vec<Range>,
    /// How many barriers have been reached, and so are complete at the cut.
    pub phase: u64,
}

/// What is decided.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Value {
    /// The next view's members, oldest first.
    pub members: Vec<Member>,
    /// Its sequencer.
    pub sequencer: Rank,
    /// What is delivered before it.
    pub cut: Cut,
    /// The instance of the group: the proposer's candidate in the first view's value, the same ever after.
    pub instance: InstanceId,
    /// The instance's birth: made in the first view's value, the same ever after.
    pub birth: u64,
}

impl Value {
    /// The view that follows.
    pub fn view(&self, epoch: Epoch) -> View {
        let (instance, birth) = (self.instance, self.birth);
        View { epoch, members: self.members.clone(), sequencer: self.sequencer, instance, birth }
    }
}

/// What one member says to another, or to all, about a ballot.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    /// Promise this ballot.
    Prepare,
    /// Promised.
    State {
        /// What the sender holds.
        held: Cut,
        /// What it has accepted, and in which ballot.
        accepted: Option<(Ballot, Value)>,
        /// Before the first view: the highest birth of an instance that the sender knows of.
        birth_floor: u64,
    },
    /// Accept this.
    Propose(Value),
    /// Accepted.
    Accept,
    /// A higher ballot, the one named, was promised.
    Refuse,
    /// This was decided.
    Decide(Value),
}

/// What a proposer would like.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Wish {
    /// The members of e to go on with, those who answer.
    pub keep: u64,
    /// Who comes in.
    pub joiners: Vec<Member>,
    /// Who is to give the order, if it is in the next view; else it stays, or goes to the oldest.
    pub sequencer: Option<Rank>,
    /// Before the first view: what the instance is to be called, and what time it is, in milliseconds since 1970.
    pub origin: Option<(InstanceId, u64)>,
}

/// Who promised, what it holds, and what it has accepted.
type Promise = (Member, Cut, Option<(Ballot, Value)>);

/// The first view's birth: now, or above every birth that a founding member knows of.
pub(crate) fn birth_above(now_ms: u64, floor: u64) -> u64 {
    now_ms.max(floor.saturating_add(1)).min(BIRTHS_END - 1)
}

/// A ballot of our own.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Leading {
    ballot: Ballot,
    wish: Wish,
    states: Vec<Promise>,
    value: Option<Value>,
    accepts: u64,
    /// The highest birth that those who promised know of.
    birth_floor: u64,
}

/// One member's part in deciding what follows its view.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ViewChange {
    own: Member,
    view: View,
    promised: Ballot,
    accepted: Option<(Ballot, Value)>,
    /// Proposed to us and not accepted yet: something of its cut may be missing.
    proposed: Option<(Ballot, Value)>,
    leading: Option<Leading>,
    decided: Option<Value>,
    /// Before the first view: the highest birth of an instance that this process knows of.
    birth_floor: u64,
    mutant: Option<Mutant>,
}

/// What to make of a step that came in.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Reaction {
    /// Nothing.
    None,
    /// Answer its sender.
    Answer(Ballot, Step),
    /// A value was proposed: get its cut, then call [`ViewChange::fetched`].
    Fetch,
    /// Our ballot came further: see [`ViewChange::may_choose`] and [`ViewChange::may_decide`].
    Progress,
    /// It is decided.
    Decided,
}

impl ViewChange {
    /// At the beginning of a view.
    pub fn new(own: Member, view: View, mutant: Option<Mutant>) -> Self {
        let (promised, accepted, proposed) = (Ballot(0), None, None);
        Self { own, view, promised, accepted, proposed, leading: None, decided: None, birth_floor: 0, mutant }
    }

    /// Whether a ballot was promised: nothing more is sent, ordered, acknowledged or delivered in this epoch.
    pub fn is_wedged(&self) -> bool {
        self.promised != Ballot(0)
    }

    /// What was decided.
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
    pub fn note_birth(&mut self, birth: u64) {
        self.birth_floor = self.birth_floor.max(birth);
    }

    /// The value whose cut is to be got: decided, or proposed in the ballot promised last.
    pub fn wanted(&self) -> Option<&Value> {
        self.decided.as_ref().or(self.proposed.as_ref().map(|(_, value)| value))
    }

    /// The ballot we lead, if we do.
    pub fn leads(&self) -> Option<Ballot> {
        self.leading.as_ref().map(|leading| leading.ballot)
    }

    /// Another life of a process came before the first view: what the one before had promised is void.
    pub fn replace(&mut self, member: Member) {
        debug_assert!(self.view.epoch == Epoch(0));
        for known in self.view.members.iter_mut().filter(|known| known.rank == member.rank) {
            known.incarnation = member.incarnation;
        }
        self.leading = None;
    }

    // ---- the proposer ---------------------------------------------------------------------------------------------

    /// Begins a ballot higher than any seen; our own state is its first. What to send: `PREPARE`, to all.
    pub fn lead(&mut self, wish: Wish, held: Cut) -> (Ballot, Step) {
        let ballot = self.promised.after(self.own.rank);
        let old = self.leading.take().filter(|_| self.mutant == Some(Mutant::StaleState));
        self.promised = ballot;
        self.proposed = None;
        let mut states = old.map_or_else(Vec::new, |old| old.states);
        states.retain(|(member, ..)| *member != self.own);
        states.push((self.own, held, self.accepted.clone()));
        let birth_floor = self.birth_floor;
        self.leading = Some(Leading { ballot, wish, states, value: None, accepts: 0, birth_floor });
        (ballot, Step::Prepare)
    }

    fn answered(&self) -> u64 {
        let states = self.leading.as_ref().map_or(&[][..], |leading| &leading.states);
        states.iter().fold(0, |bits, (member, ..)| bits | bit(member.rank))
    }

    /// Who has not answered our ballot's last step, of those it was meant for.
    pub fn awaited(&self) -> u64 {
        let Some(leading) = &self.leading else { return 0 };
        match &leading.value {
            None => leading.wish.keep & !self.answered(),
            Some(value) => {
                let members = value.members.iter().filter(|member| self.view.incarnation(member.rank).is_some());
                members.fold(0, |bits, member| bits | bit(member.rank)) & !leading.accepts
            }
        }
    }

    /// Whether a value can be chosen; `all` of those wished for have answered, or at least a quorum has.
    pub fn may_choose(&self, all: bool) -> bool {
        let Some(leading) = self.leading.as_ref().filter(|leading| leading.value.is_none()) else { return false };
        let answered = self.answered();
        let enough = self.quorum(answered) || self.mutant == Some(Mutant::StateFromAny);
        enough && (!all || leading.wish.keep & !answered == 0)
    }

    fn quorum(&self, votes: u64) -> bool {
        let half = self.mutant == Some(Mutant::HalfIsQuorum);
        self.view.is_quorum(votes)
            || (half && 2 * (votes & self.view.bits()).count_ones() as usize >= self.view.members.len())
    }

    /// Chooses the value of our ballot. What to send: `PROPOSE`, to all. Call once [`ViewChange::may_choose`] says so.
    pub fn choose(&mut self) -> Option<(Ballot, Step)> {
        let leading = self.leading.as_ref()?;
        let value = self.adopted(leading).or_else(|| self.made(leading))?;
        let leading = self.leading.as_mut()?;
        leading.value = Some(value.clone());
        let ballot = leading.ballot;
        self.proposed = Some((ballot, value.clone()));
        Some((ballot, Step::Propose(value)))
    }

    /// The value accepted in the highest ballot that was reported. Before the first view everybody must accept, so a
    /// value that was not decided can be dropped: whoever it was decided with would have gone on.
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

    fn made(&self, leading: &Leading) -> Option<Value> {
        let (answered, wish) = (self.answered(), &leading.wish);
        let beyond = self.mutant == Some(Mutant::ViewBeyondResponders);
        let stays = |rank| wish.keep & bit(rank) != 0 && (beyond || answered & bit(rank) != 0);
        let life = |member: &Member| {
            let state = leading.states.iter().find(|(from, ..)| from.rank == member.rank);
            state.map_or(*member, |(from, ..)| *from)
        };
        let mut members: Vec<_> = self.view.members.iter().filter(|m| stays(m.rank)).map(life).collect();
        let continuing = members.len();
        let is_new = |joiner: &&Member| self.view.incarnation(joiner.rank).is_none();
        members.extend(wish.joiners.iter().filter(is_new).take(continuing));
        let is_in = |rank: &Rank| members.iter().any(|member| member.rank == *rank);
        let old = Some(self.view.sequencer);
        let sequencer =
            wish.sequencer.filter(is_in).or(old.filter(is_in)).or(members.first().map(|first| first.rank))?;
        let (instance, birth) = match leading.wish.origin {
            Some((candidate, now_ms)) if self.view.epoch == Epoch(0) => {
                (candidate, birth_above(now_ms, leading.birth_floor))
            }
            _ => (self.view.instance, self.view.birth),
        };
        Some(Value { members, sequencer, cut: self.union(leading), instance, birth })
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

    /// Whether our value may be decided; `all` members that go on have accepted, or at least enough have.
    pub fn may_decide(&self, all: bool) -> bool {
        let Some(leading) = &self.leading else { return false };
        let Some(value) = &leading.value else { return false };
        let next = value.view(self.view.epoch.next());
        let continuing = next.members.iter().filter(|member| self.view.incarnation(member.rank).is_some());
        let continuing = continuing.fold(0, |bits, member| bits | bit(member.rank));
        let by_all = continuing & !leading.accepts == 0;
        match self.mutant {
            Some(Mutant::AcceptFromAny) => leading.accepts != 0,
            Some(Mutant::DecideByAll) => by_all,
            Some(Mutant::JoinerCounted) => {
                let joiners = (next.members.len() as u32).saturating_sub(continuing.count_ones());
                let votes = (leading.accepts & self.view.bits()).count_ones() + joiners;
                2 * votes as usize > self.view.members.len()
            }
            _ => {
                let enough = self.quorum(leading.accepts) && next.is_quorum(leading.accepts);
                enough && (!all || by_all)
            }
        }
    }

    /// Decides our value. What to send: `DECIDE`, to all. Call once [`ViewChange::may_decide`] says so.
    pub fn decide(&mut self) -> Option<(Ballot, Step)> {
        let leading = self.leading.as_ref()?;
        let value = leading.value.clone()?;
        self.decided = Some(value.clone());
        Some((leading.ballot, Step::Decide(value)))
    }

    /// Whether our ballot's value takes a joiner in, which may then accept it.
    pub fn invites(&self, joiner: Member) -> bool {
        let value = self.leading.as_ref().and_then(|leading| leading.value.as_ref());
        value.is_some_and(|value| value.members.contains(&joiner))
    }

    /// What our ballot needs said again: `PREPARE`, `PROPOSE` or `DECIDE`.
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

    /// Takes a step of a member of this view in. `held` says what we hold, once wedged.
    pub fn on_step(&mut self, from: Member, ballot: Ballot, step: Step, held: impl FnOnce() -> Cut) -> Reaction {
        if let Step::Decide(value) = step {
            self.decided.get_or_insert(value);
            return Reaction::Decided;
        }
        if self.decided.is_some() || ballot == Ballot(0) {
            return Reaction::None; // whoever asks is answered with the decision, by our caller
        }
        match step {
            Step::Prepare if ballot < self.promised => Reaction::Answer(self.promised, Step::Refuse),
            Step::Prepare => {
                self.promise(ballot);
                // What was accepted before the first view can be dropped: see `adopted`.
                let accepted = self.accepted.clone().filter(|_| self.view.epoch != Epoch(0));
                Reaction::Answer(ballot, Step::State { held: held(), accepted, birth_floor: self.birth_floor })
            }
            Step::State { held, accepted, birth_floor } => {
                let reaction = self.on_state(from, ballot, held, accepted);
                if let (Reaction::Progress, Some(leading)) = (&reaction, &mut self.leading) {
                    leading.birth_floor = leading.birth_floor.max(birth_floor);
                }
                reaction
            }
            Step::Propose(value) => self.on_propose(ballot, value),
            Step::Accept => {
                let Some(leading) = self.leading.as_mut().filter(|l| l.ballot == ballot) else { return Reaction::None };
                let invited = leading.value.as_ref().is_some_and(|value| value.members.contains(&from));
                if invited || self.view.epoch != Epoch(0) && self.view.contains(from) {
                    leading.accepts |= bit(from.rank);
                }
                Reaction::Progress
            }
            Step::Refuse => {
                if ballot > self.promised && self.is_wedged() {
                    // The next ballot of ours goes beyond it.
                    self.promise(ballot);
                }
                Reaction::None
            }
            Step::Decide(_) => Reaction::Decided,
        }
    }

    fn promise(&mut self, ballot: Ballot) {
        if ballot > self.promised {
            self.promised = ballot;
            self.leading = None;
            self.proposed = None;
        }
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
            return Reaction::Answer(self.promised, Step::Refuse);
        }
        if self.view.epoch == Epoch(0) && !value.members.contains(&self.own) {
            return Reaction::None; // meant for an earlier life of ours
        }
        if ballot > self.promised {
            self.promise(ballot);
        }
        self.proposed = Some((ballot, value));
        Reaction::Fetch
    }

    /// The whole cut of what was proposed is here: accepts it. What to send: `ACCEPT`, to the ballot's proposer; if that
    /// is ourselves it has been counted.
    pub fn fetched(&mut self) -> Option<(Ballot, Step)> {
        if self.decided.is_some() {
            return None;
        }
        let (ballot, value) = self.proposed.clone()?;
        self.accepted = Some((ballot, value));
        if let Some(leading) = self.leading.as_mut().filter(|leading| leading.ballot == ballot) {
            leading.accepts |= bit(self.own.rank);
        }
        Some((ballot, Step::Accept))
    }
}

impl Range {
    /// One past the last.
    pub(crate) fn end(&self) -> DatagramNumber {
        self.first + u64::from(self.count)
    }

    /// Each of them that is not below a number.
    pub(crate) fn numbers_from(&self, least: DatagramNumber) -> impl Iterator<Item = DatagramNumber> + use<> {
        (self.first.max(least).0..self.end().0).map(DatagramNumber)
    }

    /// Whether a datagram of a stream is in it.
    pub(crate) fn has(&self, rank: Rank, number: DatagramNumber) -> bool {
        self.rank == rank && number >= self.first && number < self.end()
    }
}

impl Cut {
    /// Joins ranges that meet, and takes those into the ends that follow them without a gap.
    fn unite(&mut self) {
        self.ranges.sort_unstable();
        let mut united: Vec<Range> = Vec::with_capacity(self.ranges.len());
        for range in self.ranges.drain(..) {
            let end = range.end();
            match self.ends.get_mut(range.rank.index()) {
                Some(known) if range.first <= *known => {
                    *known = (*known).max(end);
                    continue;
                }
                Some(_) => {}
                None => continue,
            }
            match united.last_mut() {
                // What can't be counted in one range stays two.
                Some(last)
                    if last.rank == range.rank
                        && range.first <= last.end()
                        && end.since(last.first) <= u64::from(u16::MAX) =>
                {
                    last.count = end.max(last.end()).since(last.first) as u16;
                }
                _ => united.push(range),
            }
        }
        self.ranges = united;
    }
}
