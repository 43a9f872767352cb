//! The part of the thread that has the coordinator: carries out commands, asks the coordinator, hands its news out.
//!
//! The coordinator refuses what can't be asked for now (the group is still forming, this process is outside); an
//! application that starts with its node would have to try again and again. So requests that may wait are kept here
//! until they can be put to the group. So is one that waited for its turn when the group lost its majority: it is
//! asked for again, behind those that came meanwhile. The coordinator keeps one participation for each process and
//! election: the strongest among this node's candidacies, which is to campaign, then to stand by, then to watch.
//!
//! Invariants: every request is in `pending` or in `asked`, and leaves them with its last answer; of the candidacies
//! for one name at most one stands, which `locks.rs` sees to. Bounds: [`REQUESTS_MAX`], [`SEATS_MAX`],
//! [`PLACES_A_LOOK`].

use super::commands::LockCommand;
use super::request::{Answer, Request};
use super::state::{ElectionState, LockError, LockState, Lost, Wait};
use bourdon_protocol::{
    Coordination, CoordinationRefusal, Coordinator, LockId, LockNews, LockStanding, Loss, Participation, Patience,
};
use bourdon_wire::{Instant, TopicName};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Requests for locks at a node, waiting or granted: more than an application has threads.
const REQUESTS_MAX: usize = 4096;
/// Candidacies at a node, watching ones included.
const SEATS_MAX: usize = 1024;
/// How often the places of requests that wait are looked up: as fast as users read.
const PLACES_NS: u64 = 20_000_000;
/// How many are looked up at a time: each costs a search.
const PLACES_A_LOOK: usize = 16;

/// A request that the group does not take yet.
#[derive(Debug)]
struct Pending {
    name: TopicName,
    patience: Patience,
    answer: Answer<LockState>,
}

/// A request that the group has taken.
#[derive(Debug)]
struct Asked {
    request: Pending,
    /// Whether it was granted: then it can be lost.
    is_held: bool,
}

/// The candidacies for one name.
#[derive(Debug, Default)]
struct Race {
    seats: Vec<(Participation, Answer<ElectionState>)>,
    /// The part that the coordinator has taken.
    taken: Option<Participation>,
}

/// All requests of a node.
#[derive(Debug)]
pub(crate) struct Broker {
    is_member: bool,
    pending: Vec<Pending>,
    asked: BTreeMap<LockId, Asked>,
    races: BTreeMap<TopicName, Race>,
    /// Some race may want another part than the coordinator has taken.
    is_unsettled: bool,
    places_due: Instant,
    /// The request at which the next lookup begins.
    look_from: LockId,
}

impl Broker {
    pub(crate) fn new(is_member: bool) -> Self {
        Self {
            is_member,
            pending: Vec::new(),
            asked: BTreeMap::new(),
            races: BTreeMap::new(),
            is_unsettled: false,
            places_due: Instant(0),
            look_from: LockId(0),
        }
    }

    /// When a request that is kept here ends, or places are looked up; what the coordinator reports comes by itself.
    pub(crate) fn due(&self) -> Instant {
        let end = |pending: &Pending| if let Patience::Until(at) = pending.patience { at } else { Instant::NEVER };
        let watched = if self.asked.is_empty() { Instant::NEVER } else { self.places_due };
        self.pending.iter().map(end).min().unwrap_or(Instant::NEVER).min(watched)
    }

    /// Carries out a command.
    pub(crate) fn carry_out(&mut self, coordinator: &mut Coordinator, now: Instant, command: LockCommand) {
        match command {
            LockCommand::Lock(name, wait, answer) => self.lock(coordinator, now, (name, wait), answer),
            LockCommand::Unlock(request) => self.unlock(coordinator, &request),
            LockCommand::Elect(name, answer) => self.elect(coordinator, name, answer),
            LockCommand::Stand(name, participation, request) => self.stand(coordinator, name, participation, &request),
            LockCommand::LeaveElection(name, request) => self.leave_election(&name, &request),
        }
    }

    /// Hands out news and passes on what waits. Returns how much there was.
    pub(crate) fn work(&mut self, coordinator: &mut Coordinator, now: Instant) -> usize {
        let mut count = 0;
        while let Some(news) = coordinator.poll_news() {
            count += 1;
            self.hand_out(coordinator, now, news);
        }
        if !self.pending.is_empty() || self.is_unsettled {
            count += self.put_forward(coordinator, now);
        }
        if !self.asked.is_empty() && now >= self.places_due {
            self.places_due = now + PLACES_NS;
            self.look_at_places(coordinator);
        }
        count
    }

    // ---- locks ----------------------------------------------------------------------------------------------------

    /// Requests a lock.
    fn lock(
        &mut self,
        coordinator: &mut Coordinator,
        now: Instant,
        (name, wait): (TopicName, Wait),
        answer: Answer<LockState>,
    ) {
        let patience = match wait {
            Wait::No => Patience::Try,
            Wait::Forever => Patience::Forever,
            Wait::Until(at) => {
                let left = at.saturating_duration_since(std::time::Instant::now());
                let left_ns = u64::try_from(left.as_nanos()).unwrap_or(u64::MAX);
                Patience::Until(Instant(now.0.saturating_add(left_ns)))
            }
        };
        let pending = Pending { name, patience, answer };
        let room = self.pending.len() + self.asked.len() < REQUESTS_MAX;
        if !room {
            return over(&pending.answer, CoordinationRefusal::TooMany.into());
        }
        if let Some(pending) = self.ask(coordinator, now, pending) {
            self.pending.push(pending);
        }
    }

    /// Releases a lock, or withdraws the request.
    fn unlock(&mut self, coordinator: &mut Coordinator, request: &Arc<Request<LockState>>) {
        self.pending.retain(|pending| !pending.answer.is_of(request));
        let id = self.asked.iter().find(|(_, asked)| asked.request.answer.is_of(request)).map(|(id, _)| *id);
        if let Some(id) = id {
            self.asked.remove(&id);
            coordinator.unlock(id);
        }
    }

    /// Passes a request to the group; returns it if it must wait for the group itself.
    fn ask(&mut self, coordinator: &mut Coordinator, now: Instant, pending: Pending) -> Option<Pending> {
        match coordinator.lock(pending.name, pending.patience) {
            Ok(id) => {
                if let Some(LockStanding::Waiting { ahead }) = coordinator.lock_standing(id) {
                    pending.answer.set(|state| *state = LockState::Waiting { ahead });
                }
                self.asked.insert(id, Asked { request: pending, is_held: false });
                None
            }
            Err(refusal) if pending.is_late(now) || !self.may_pass(coordinator, refusal) => {
                over(&pending.answer, refusal.into());
                None
            }
            Err(refusal) => {
                pending.answer.set(|state| *state = LockState::Pending(Some(refusal)));
                Some(pending)
            }
        }
    }

    /// Whether what is refused now may become possible later by itself.
    fn may_pass(&self, coordinator: &Coordinator, refusal: CoordinationRefusal) -> bool {
        let waits = matches!(
            refusal,
            CoordinationRefusal::Forming | CoordinationRefusal::Outside | CoordinationRefusal::NoMajority
        );
        waits && self.is_member && !coordinator.has_left()
    }

    fn hand_out(&mut self, coordinator: &Coordinator, now: Instant, news: Coordination) {
        match news {
            Coordination::Lock(id, LockNews::Granted(token)) => {
                if let Some(asked) = self.asked.get_mut(&id) {
                    asked.is_held = true;
                    asked.request.answer.set(|state| *state = LockState::Held(token));
                }
            }
            Coordination::Lock(id, news) => {
                let Some(Asked { request, is_held }) = self.asked.remove(&id) else { return };
                let waits_on = !is_held && !request.is_late(now) && self.is_member && !coordinator.has_left();
                match news {
                    LockNews::Lost(why) if waits_on && why != Loss::TooMany => self.pending.push(request),
                    LockNews::Lost(why) => over(&request.answer, Lost::Group(why).into()),
                    LockNews::Busy | LockNews::TimedOut | LockNews::Granted(_) => over_without_lock(&request.answer),
                }
            }
            Coordination::Leader(name, _) => self.show_leader(coordinator, &name, None),
            Coordination::Deposed(name, why) => self.show_leader(coordinator, &name, Some(why)),
        }
    }

    // ---- elections ------------------------------------------------------------------------------------------------

    /// Watches an election.
    fn elect(&mut self, coordinator: &Coordinator, name: TopicName, answer: Answer<ElectionState>) {
        self.is_unsettled = true;
        let seats: usize = self.races.values().map(|race| race.seats.len()).sum();
        let refused = if seats >= SEATS_MAX {
            Some(CoordinationRefusal::TooMany)
        } else if !self.is_member {
            Some(CoordinationRefusal::Outside)
        } else {
            None
        };
        match refused {
            Some(refusal) => answer.set(|state| state.over = Some(refusal.into())),
            None => self.races.entry(name).or_default().seats.push((Participation::Watch, answer)),
        }
        if self.race_is_on(name) {
            self.show_leader(coordinator, &name, None);
        }
    }

    /// Changes the part of a candidacy.
    fn stand(
        &mut self,
        coordinator: &Coordinator,
        name: TopicName,
        participation: Participation,
        request: &Arc<Request<ElectionState>>,
    ) {
        self.is_unsettled = true;
        if let Some(race) = self.races.get_mut(&name) {
            let own = race.seats.iter_mut().filter(|(_, answer)| answer.is_of(request));
            own.for_each(|(part, _)| *part = participation);
            let standing = race.seats.iter().filter(|(part, _)| *part > Participation::Watch).count();
            debug_assert!(standing <= 1, "two candidacies of this node stand for {name:?}");
        }
        if self.race_is_on(name) {
            self.show_leader(coordinator, &name, None); // it may have begun to lead, or be no candidacy any more
        }
    }

    /// Ends a candidacy.
    fn leave_election(&mut self, name: &TopicName, request: &Arc<Request<ElectionState>>) {
        self.is_unsettled = true;
        if let Some(race) = self.races.get_mut(name) {
            race.seats.retain(|(_, answer)| !answer.is_of(request));
        }
    }

    fn race_is_on(&self, name: TopicName) -> bool {
        self.races.get(&name).is_some_and(|race| race.taken.is_some())
    }

    /// Reports the election's state to every candidacy for a name.
    fn show_leader(&self, coordinator: &Coordinator, name: &TopicName, deposed: Option<Loss>) {
        let Some(race) = self.races.get(name) else { return };
        let leader = coordinator.leader(name);
        let own_rank = coordinator.rank();
        for (participation, answer) in &race.seats {
            let own = *participation > Participation::Watch
                && leader.is_some_and(|leadership| Some(leadership.leader) == own_rank);
            let deposed = deposed.filter(|_| *participation > Participation::Watch);
            answer.set(|state| state.take(leader, own, deposed));
        }
    }

    // ---- what waits -----------------------------------------------------------------------------------------------

    /// Passes to the group what it may take by now. Returns how much it took.
    #[cold]
    fn put_forward(&mut self, coordinator: &mut Coordinator, now: Instant) -> usize {
        let mut count = 0;
        for pending in std::mem::take(&mut self.pending) {
            match self.ask(coordinator, now, pending) {
                Some(pending) => self.pending.push(pending),
                None => count += 1,
            }
        }
        let names: Vec<TopicName> =
            self.races.iter().filter(|(_, race)| race.is_due()).map(|(name, _)| *name).collect();
        count += names.into_iter().filter(|name| self.run(coordinator, *name)).count();
        self.is_unsettled = self.races.values().any(Race::is_due);
        count
    }

    /// Gives the coordinator the part that the candidacies want. Returns whether it took it.
    fn run(&mut self, coordinator: &mut Coordinator, name: TopicName) -> bool {
        let Some(race) = self.races.get_mut(&name) else { return false };
        match (race.wanted(), race.taken) {
            (None, taken) => {
                if taken.is_some() {
                    coordinator.leave_election(name);
                }
                self.races.remove(&name);
                return taken.is_some();
            }
            (Some(Participation::Watch), Some(_)) => {
                coordinator.resign(name);
                race.taken = Some(Participation::Watch);
            }
            (Some(wanted), _) => match coordinator.elect(name, wanted) {
                Ok(()) => race.taken = Some(wanted),
                Err(refusal) => {
                    self.put_off(coordinator, name, refusal);
                    return false;
                }
            },
        }
        self.show_leader(coordinator, &name, None);
        true
    }

    /// The coordinator does not take a part: not yet, or never.
    fn put_off(&mut self, coordinator: &Coordinator, name: TopicName, refusal: CoordinationRefusal) {
        let waits = self.may_pass(coordinator, refusal);
        let Some(race) = self.races.get_mut(&name) else { return };
        for (_, answer) in &race.seats {
            answer.set(|state| {
                (state.pending, state.known) = (Some(refusal), true);
                state.over = if waits { state.over } else { Some(refusal.into()) };
            });
        }
        if !waits {
            race.seats.clear();
        }
    }

    /// Reports to some of the watchers at which place their requests wait.
    fn look_at_places(&mut self, coordinator: &Coordinator) {
        let watched = self.asked.range(self.look_from..).filter(|(_, asked)| asked.request.answer.is_watched());
        let (mut count, mut last) = (0, self.look_from);
        for (id, asked) in watched.take(PLACES_A_LOOK) {
            (count, last) = (count + 1, *id);
            if let Some(LockStanding::Waiting { ahead }) = coordinator.lock_standing(*id) {
                asked.request.answer.set(|state| *state = LockState::Waiting { ahead });
            }
        }
        // From the front again, unless some are left.
        self.look_from = if count == PLACES_A_LOOK { LockId(last.0 + 1) } else { LockId(0) };
    }
}

impl Pending {
    fn is_late(&self, now: Instant) -> bool {
        match self.patience {
            Patience::Try => true,
            Patience::Until(at) => now >= at,
            Patience::Forever => false,
        }
    }
}

impl Race {
    fn wanted(&self) -> Option<Participation> {
        self.seats.iter().map(|(participation, _)| *participation).max()
    }

    fn is_due(&self) -> bool {
        self.wanted() != self.taken || self.seats.is_empty()
    }
}

fn over(answer: &Answer<LockState>, error: LockError) {
    answer.set(|state| *state = LockState::Over(error));
}

/// The time to wait is over, or there was none.
fn over_without_lock(answer: &Answer<LockState>) {
    answer.set(|state| {
        let ahead = if let LockState::Waiting { ahead } = state { (*ahead).max(1) } else { 1 };
        *state = LockState::Over(LockError::Busy { ahead });
    });
}
