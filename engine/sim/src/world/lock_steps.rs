//! What an application does with locks and elections when its time has come, and what it makes of the news.

use crate::checkers::Checkers;
use crate::locker::{LockRequest, Locker, Stake, WISHES_MAX};
use crate::network::hits;
use crate::plan::LockPlan;
use crate::violation::{Verdict, Violation};
use bourdon_protocol::{Coordination, CoordinationRefusal, LockId, LockNews, Loss, Patience, Process, Standing};
use bourdon_wire::Instant;
use fastrand::Rng;

/// How long an application that was refused waits at most before it asks again.
const AGAIN_NS: u64 = 5_000_000;

/// Where and when an application acts.
pub(crate) struct Scene<'a> {
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

impl Locker {
    /// Requests, gives back, withdraws, takes part and resigns, each when it is due.
    pub(crate) fn act(&mut self, process: &mut Process, scene: &mut Scene<'_>) -> Verdict {
        self.give_back(process, scene)?;
        if process.standing() != Standing::Member {
            return Ok(());
        }
        while self.left > 0 && self.requests.len() < WISHES_MAX && scene.now_ns >= self.next_ns {
            self.ask(process, scene)?;
        }
        for place in 0..self.stakes.len() {
            self.stand(place, process, scene)?;
        }
        Ok(())
    }

    fn give_back(&mut self, process: &mut Process, scene: &mut Scene<'_>) -> Verdict {
        while let Some(at) = self.requests.iter().position(|request| scene.now_ns >= request.until_ns) {
            let request = self.requests.remove(at);
            let mutexes = &mut scene.checkers.mutexes;
            match request.held {
                Some(token) => mutexes.released(scene.index, request.place, token)?,
                None => mutexes.ended(scene.index, request.id),
            }
            if !process.unlock(request.id) {
                return Err(odd(scene, format!("does not know {request:?}")));
            }
        }
        Ok(())
    }

    fn ask(&mut self, process: &mut Process, scene: &mut Scene<'_>) -> Verdict {
        let (plan, rng) = (scene.plan, &mut *scene.rng);
        let place = rng.usize(0..plan.names);
        let patient_ns = rng.u64(1..=plan.patience_ns.max(1));
        let patience = if hits(rng, plan.try_permille) {
            Patience::Try
        } else if hits(rng, plan.deadline_permille) {
            Patience::Until(scene.now + patient_ns)
        } else {
            Patience::Forever
        };
        let cancels = hits(rng, plan.cancel_permille);
        match process.lock(LockPlan::name(place), patience) {
            Ok(id) => {
                scene.checkers.mutexes.asked(scene.index, id, place, scene.now_ns);
                let until_ns = if cancels { scene.now_ns + patient_ns } else { u64::MAX };
                self.requests.push(LockRequest { id, place, patience, held: None, until_ns });
                self.left -= 1;
                // Some applications ask again at once.
                let pause_ns = if hits(rng, 100) { 0 } else { rng.u64(0..=plan.pause_ns) };
                self.next_ns = scene.now_ns + pause_ns;
                Ok(())
            }
            Err(refusal) => {
                self.next_ns = scene.now_ns + rng.u64(1..AGAIN_NS);
                reasonable(scene, refusal)
            }
        }
    }

    fn stand(&mut self, place: usize, process: &mut Process, scene: &mut Scene<'_>) -> Verdict {
        let (stake, name) = (&mut self.stakes[place], LockPlan::name(place));
        if scene.now_ns < stake.next_ns {
            return Ok(());
        }
        if stake.leads && stake.taken {
            if scene.is_ending {
                stake.next_ns = u64::MAX;
                return Ok(());
            }
            *stake = Stake { next_ns: scene.now_ns + scene.rng.u64(0..2 * AGAIN_NS), ..Stake::default() };
            scene.checkers.elections.gave_up(scene.index, place);
            process.resign(name);
            return Ok(());
        }
        if stake.taken {
            return Ok(());
        }
        match process.elect(name, scene.plan.participation(scene.index as u16)) {
            Ok(()) => stake.taken = true,
            Err(refusal) => {
                stake.next_ns = scene.now_ns + scene.rng.u64(1..AGAIN_NS);
                return reasonable(scene, refusal);
            }
        }
        Ok(())
    }

    /// Takes in what the process reports.
    pub(crate) fn hear(&mut self, news: Coordination, scene: &mut Scene<'_>) -> Verdict {
        match news {
            Coordination::Lock(id, news) => self.hear_lock(id, news, scene),
            Coordination::Leader(name, leadership) => {
                let Some(place) = LockPlan::place(&name) else { return Err(odd(scene, format!("elects {name:?}"))) };
                let stake = &mut self.stakes[place];
                let leads = leadership.is_some_and(|leadership| leadership.leader.index() == scene.index);
                stake.leads = leads && stake.taken;
                if stake.leads {
                    let resigns = scene.plan.resign_ns > 0;
                    let for_ns = if resigns { scene.rng.u64(0..=scene.plan.resign_ns) } else { u64::MAX };
                    stake.next_ns = scene.now_ns.saturating_add(for_ns);
                }
                let Checkers { views, elections, .. } = &mut *scene.checkers;
                elections.reported(views, scene.index, place, leadership)
            }
            Coordination::Deposed(name, _) => {
                let place = LockPlan::place(&name).unwrap_or_default();
                self.stakes[place].leads = false;
                scene.checkers.elections.gave_up(scene.index, place);
                Ok(())
            }
        }
    }

    fn hear_lock(&mut self, id: LockId, news: LockNews, scene: &mut Scene<'_>) -> Verdict {
        let Some(at) = self.requests.iter().position(|request| request.id == id) else {
            return Err(odd(scene, format!("reports {news:?} of {id:?}, which is over")));
        };
        let request = self.requests[at];
        let is_right = match news {
            LockNews::Granted(_) => request.held.is_none(),
            LockNews::Busy => request.held.is_none() && request.patience == Patience::Try,
            LockNews::TimedOut => {
                request.held.is_none() && matches!(request.patience, Patience::Until(at) if scene.now >= at)
            }
            LockNews::Lost(why) => why != Loss::TooMany,
        };
        if !is_right {
            return Err(odd(scene, format!("reports {news:?} of {request:?}")));
        }
        let Checkers { views, mutexes, .. } = &mut *scene.checkers;
        if let LockNews::Granted(token) = news {
            let until_ns = scene.now_ns + scene.rng.u64(0..=scene.plan.hold_ns);
            self.requests[at] = LockRequest { held: Some(token), until_ns, ..request };
            return mutexes.granted(views, scene.index, id, (request.place, token), scene.now_ns);
        }
        match request.held {
            Some(token) => mutexes.lost(scene.index, request.place, token),
            None => mutexes.ended(scene.index, id),
        }
        self.requests.remove(at);
        Ok(())
    }
}

/// Passes a refusal that a run may bring about.
fn reasonable(scene: &Scene<'_>, refusal: CoordinationRefusal) -> Verdict {
    match refusal {
        CoordinationRefusal::Outside | CoordinationRefusal::Forming | CoordinationRefusal::NoMajority => Ok(()),
        CoordinationRefusal::NeedsTotalOrder | CoordinationRefusal::TooMany => {
            Err(odd(scene, format!("refuses: {refusal}")))
        }
    }
}

fn odd(scene: &Scene<'_>, what: String) -> Violation {
    Violation::new("mutex", format!("process {} {what}", scene.index))
}
