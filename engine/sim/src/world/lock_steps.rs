//! What an application does with locks and elections when its time has come, and what it makes of the news.

use crate::checkers::Checkers;
use crate::locker::{LockRequest, Locker, Stake, WISHES_MAX};
use crate::network::hits;
use crate::plan::LockPlan;
use crate::violation::{Verdict, Violation};
use bourdon_protocol::{
    Coordination, CoordinationRefusal, Coordinator, LockId, LockNews, Loss, Participation, Patience, Process, Standing,
};
use bourdon_wire::{Instant, TopicName};
use fastrand::Rng;

/// How long an application that was refused waits at most before it asks again.
const AGAIN_NS: u64 = 5_000_000;

/// Where and when an application acts.
pub(crate) struct StepContext<'a> {
    pub(crate) index: usize,
    pub(crate) plan: &'a LockPlan,
    pub(crate) now_ns: u64,
    /// By the process's clock.
    pub(crate) now: Instant,
    /// No application resigns any more.
    pub(crate) is_ending: bool,
    pub(crate) rng: &'a mut Rng,
    pub(crate) checkers: &'a mut Checkers,
}

/// What an application requests locks from.
pub(crate) enum LockServer<'a> {
    /// The process, which holds its coordinator.
    Inline(&'a mut Process),
    /// The coordinator beside the process.
    Apart(&'a mut Coordinator),
}

impl LockServer<'_> {
    /// Whether the process is a member, as far as the application can know.
    fn may_be_member(&self) -> bool {
        match self {
            Self::Inline(process) => process.standing() == Standing::Member,
            Self::Apart(_) => true,
        }
    }

    fn lock(&mut self, name: TopicName, patience: Patience) -> Result<LockId, CoordinationRefusal> {
        match self {
            Self::Inline(process) => process.lock(name, patience),
            Self::Apart(coordinator) => coordinator.lock(name, patience),
        }
    }

    fn unlock(&mut self, id: LockId) -> bool {
        match self {
            Self::Inline(process) => process.unlock(id),
            Self::Apart(coordinator) => coordinator.unlock(id),
        }
    }

    fn elect(&mut self, name: TopicName, participation: Participation) -> Result<(), CoordinationRefusal> {
        match self {
            Self::Inline(process) => process.elect(name, participation),
            Self::Apart(coordinator) => coordinator.elect(name, participation),
        }
    }

    fn resign(&mut self, name: TopicName) {
        match self {
            Self::Inline(process) => process.resign(name),
            Self::Apart(coordinator) => coordinator.resign(name),
        }
    }

    pub(crate) fn poll_news(&mut self) -> Option<Coordination> {
        match self {
            Self::Inline(process) => process.poll_coordination(),
            Self::Apart(coordinator) => coordinator.poll_news(),
        }
    }
}

impl Locker {
    /// Requests, gives back, withdraws, takes part and resigns, each when it is due.
    pub(crate) fn act(&mut self, server: &mut LockServer<'_>, context: &mut StepContext<'_>) -> Verdict {
        self.give_back(server, context)?;
        if !server.may_be_member() {
            return Ok(());
        }
        while self.left > 0 && self.requests.len() < WISHES_MAX && context.now_ns >= self.next_ns {
            self.ask(server, context)?;
        }
        for place in 0..self.stakes.len() {
            self.stand(place, server, context)?;
        }
        Ok(())
    }

    fn give_back(&mut self, server: &mut LockServer<'_>, context: &mut StepContext<'_>) -> Verdict {
        while let Some(at) = self.requests.iter().position(|request| context.now_ns >= request.until_ns) {
            let request = self.requests.remove(at);
            let mutexes = &mut context.checkers.mutexes;
            match request.held {
                Some(token) => mutexes.released(context.index, request.place, token)?,
                None => mutexes.ended(context.index, request.id),
            }
            if !server.unlock(request.id) {
                return Err(odd(context, format!("does not know {request:?}")));
            }
        }
        Ok(())
    }

    fn ask(&mut self, server: &mut LockServer<'_>, context: &mut StepContext<'_>) -> Verdict {
        let (plan, rng) = (context.plan, &mut *context.rng);
        let place = rng.usize(0..plan.names);
        let patient_ns = rng.u64(1..=plan.patience_ns.max(1));
        let patience = if hits(rng, plan.try_permille) {
            Patience::Try
        } else if hits(rng, plan.deadline_permille) {
            Patience::Until(context.now + patient_ns)
        } else {
            Patience::Forever
        };
        let cancels = hits(rng, plan.cancel_permille);
        match server.lock(LockPlan::name(place), patience) {
            Ok(id) => {
                context.checkers.mutexes.asked(context.index, id, place, context.now_ns);
                let until_ns = if cancels { context.now_ns + patient_ns } else { u64::MAX };
                self.requests.push(LockRequest { id, place, patience, held: None, until_ns });
                self.left -= 1;
                // Some applications ask again at once.
                let pause_ns = if hits(rng, 100) { 0 } else { rng.u64(0..=plan.pause_ns) };
                self.next_ns = context.now_ns + pause_ns;
                Ok(())
            }
            Err(refusal) => {
                self.next_ns = context.now_ns + rng.u64(1..AGAIN_NS);
                reasonable(context, refusal)
            }
        }
    }

    fn stand(&mut self, place: usize, server: &mut LockServer<'_>, context: &mut StepContext<'_>) -> Verdict {
        let (stake, name) = (&mut self.stakes[place], LockPlan::name(place));
        if context.now_ns < stake.next_ns {
            return Ok(());
        }
        if stake.leads && stake.taken {
            if context.is_ending {
                stake.next_ns = u64::MAX;
                return Ok(());
            }
            *stake = Stake { next_ns: context.now_ns + context.rng.u64(0..2 * AGAIN_NS), ..Stake::default() };
            context.checkers.elections.gave_up(context.index, place);
            server.resign(name);
            return Ok(());
        }
        if stake.taken {
            return Ok(());
        }
        match server.elect(name, context.plan.participation(context.index as u16)) {
            Ok(()) => stake.taken = true,
            Err(refusal) => {
                stake.next_ns = context.now_ns + context.rng.u64(1..AGAIN_NS);
                return reasonable(context, refusal);
            }
        }
        Ok(())
    }

    /// Takes in what the process reports.
    pub(crate) fn hear(&mut self, news: Coordination, context: &mut StepContext<'_>) -> Verdict {
        match news {
            Coordination::Lock(id, news) => self.hear_lock(id, news, context),
            Coordination::Leader(name, leadership) => {
                let Some(place) = LockPlan::place(&name) else { return Err(odd(context, format!("elects {name:?}"))) };
                let stake = &mut self.stakes[place];
                let leads = leadership.is_some_and(|leadership| leadership.leader.index() == context.index);
                stake.leads = leads && stake.taken;
                if stake.leads {
                    let resigns = context.plan.resign_ns > 0;
                    let for_ns = if resigns { context.rng.u64(0..=context.plan.resign_ns) } else { u64::MAX };
                    stake.next_ns = context.now_ns.saturating_add(for_ns);
                }
                let Checkers { views, elections, .. } = &mut *context.checkers;
                elections.reported(views, context.index, place, leadership)
            }
            Coordination::Deposed(name, _) => {
                let place = LockPlan::place(&name).unwrap_or_default();
                self.stakes[place].leads = false;
                context.checkers.elections.gave_up(context.index, place);
                Ok(())
            }
        }
    }

    fn hear_lock(&mut self, id: LockId, news: LockNews, context: &mut StepContext<'_>) -> Verdict {
        let Some(at) = self.requests.iter().position(|request| request.id == id) else {
            return Err(odd(context, format!("reports {news:?} of {id:?}, which is over")));
        };
        let request = self.requests[at];
        let is_right = match news {
            LockNews::Granted(_) => request.held.is_none(),
            LockNews::Busy => request.held.is_none() && request.patience == Patience::Try,
            LockNews::TimedOut => {
                request.held.is_none() && matches!(request.patience, Patience::Until(at) if context.now >= at)
            }
            LockNews::Lost(why) => why != Loss::TooMany,
        };
        if !is_right {
            return Err(odd(context, format!("reports {news:?} of {request:?}")));
        }
        let Checkers { views, mutexes, .. } = &mut *context.checkers;
        if let LockNews::Granted(token) = news {
            let until_ns = context.now_ns + context.rng.u64(0..=context.plan.hold_ns);
            self.requests[at] = LockRequest { held: Some(token), until_ns, ..request };
            return mutexes.granted(views, context.index, id, (request.place, token), context.now_ns);
        }
        match request.held {
            Some(token) => mutexes.lost(context.index, request.place, token),
            None => mutexes.ended(context.index, id),
        }
        self.requests.remove(at);
        Ok(())
    }
}

/// Passes a refusal that a run may bring about.
fn reasonable(context: &StepContext<'_>, refusal: CoordinationRefusal) -> Verdict {
    match refusal {
        CoordinationRefusal::Outside | CoordinationRefusal::Forming | CoordinationRefusal::NoMajority => Ok(()),
        refusal => Err(odd(context, format!("refuses: {refusal}"))),
    }
}

fn odd(context: &StepContext<'_>, what: String) -> Violation {
    Violation::new("mutex", format!("process {} {what}", context.index))
}
