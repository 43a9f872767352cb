//! The application that requests locks and takes part in elections.
//!
//! It does what such applications do: requests, holds for a while, gives back, loses patience, resigns and comes again.
//! At times it makes two requests at once. When its process ends it forgets what it has requested and holds, but not
//! how many requests it still has to make.

use crate::checkers::{Checkers, Verdict, Violation};
use crate::network::hits;
use crate::plan::LockPlan;
use bourdon_protocol::{
    Coordination, CoordinationRefusal, FencingToken, LockId, LockNews, Loss, Part, Patience, Process, Standing,
};
use bourdon_wire::Instant;
use fastrand::Rng;

/// Requests of one application at a time.
const WISHES_MAX: usize = 2;
/// How long an application that was refused waits at most before it asks again.
const AGAIN_NS: u64 = 5_000_000;

/// A request under way or granted.
#[derive(Clone, Copy, Debug)]
struct Wish {
    id: LockId,
    place: usize,
    patience: Patience,
    held: Option<FencingToken>,
    /// When it is given back, or withdrawn.
    until_ns: u64,
}

/// An election, as this application sees it.
#[derive(Clone, Copy, Debug, Default)]
struct Stake {
    taken: bool,
    /// When it takes part, or resigns.
    next_ns: u64,
    leads: bool,
}

/// One application's part in locks and elections.
#[derive(Debug, Default)]
pub(crate) struct Locker {
    /// How many requests it still has to make.
    left: u32,
    next_ns: u64,
    wishes: Vec<Wish>,
    stakes: Vec<Stake>,
}

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
    pub(crate) fn new(plan: &LockPlan, member: u16) -> Self {
        let left = if plan.askers.contains(&member) { plan.entries } else { 0 };
        Self { left, stakes: vec![Stake::default(); plan.names], ..Self::default() }
    }

    /// Its process is gone.
    pub(crate) fn crash(&mut self) {
        self.wishes.clear();
        self.stakes.iter_mut().for_each(|stake| *stake = Stake::default());
    }

    /// Whether it will ask again, or has yet to take part somewhere.
    pub(crate) fn is_busy(&self) -> bool {
        self.left > 0 || self.stakes.iter().any(|stake| !stake.taken)
    }

    /// Whether it takes part in an election.
    pub(crate) fn takes_part(&self, place: usize) -> bool {
        self.stakes[place].taken
    }

    /// When it wants to act, while its process is a member.
    pub(crate) fn due(&self) -> u64 {
        let asks = self.left > 0 && self.wishes.len() < WISHES_MAX;
        let asks_ns = if asks { self.next_ns } else { u64::MAX };
        let stakes = self.stakes.iter().filter(|stake| !stake.taken || stake.leads).map(|stake| stake.next_ns);
        self.wishes.iter().map(|wish| wish.until_ns).chain(stakes).fold(asks_ns, u64::min)
    }

    /// Requests, gives back, withdraws, takes part and resigns, each when it is due.
    pub(crate) fn act(&mut self, process: &mut Process, scene: &mut Scene<'_>) -> Verdict {
        self.give_back(process, scene)?;
        if process.standing() != Standing::Member {
            return Ok(());
        }
        while self.left > 0 && self.wishes.len() < WISHES_MAX && scene.now_ns >= self.next_ns {
            self.ask(process, scene)?;
        }
        for place in 0..self.stakes.len() {
            self.stand(place, process, scene)?;
        }
        Ok(())
    }

    fn give_back(&mut self, process: &mut Process, scene: &mut Scene<'_>) -> Verdict {
        while let Some(at) = self.wishes.iter().position(|wish| scene.now_ns >= wish.until_ns) {
            let wish = self.wishes.remove(at);
            let mutexes = &mut scene.checkers.mutexes;
            match wish.held {
                Some(token) => mutexes.released(scene.index, wish.place, token)?,
                None => mutexes.ended(scene.index, wish.id),
            }
            if !process.unlock(wish.id) {
                return Err(odd(scene, format!("does not know {wish:?}")));
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
                self.wishes.push(Wish { id, place, patience, held: None, until_ns });
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
        match process.elect(name, scene.plan.part(scene.index as u16)) {
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
                elections.told(views, scene.index, place, leadership)
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
        let Some(at) = self.wishes.iter().position(|wish| wish.id == id) else {
            return Err(odd(scene, format!("reports {news:?} of {id:?}, which is over")));
        };
        let wish = self.wishes[at];
        let is_right = match news {
            LockNews::Granted(_) => wish.held.is_none(),
            LockNews::Busy => wish.held.is_none() && wish.patience == Patience::Try,
            LockNews::TimedOut => {
                wish.held.is_none() && matches!(wish.patience, Patience::Until(at) if scene.now >= at)
            }
            LockNews::Lost(why) => why != Loss::TooMany,
        };
        if !is_right {
            return Err(odd(scene, format!("reports {news:?} of {wish:?}")));
        }
        let Checkers { views, mutexes, .. } = &mut *scene.checkers;
        if let LockNews::Granted(token) = news {
            let until_ns = scene.now_ns + scene.rng.u64(0..=scene.plan.hold_ns);
            self.wishes[at] = Wish { held: Some(token), until_ns, ..wish };
            return mutexes.granted(views, scene.index, id, (wish.place, token), scene.now_ns);
        }
        match wish.held {
            Some(token) => mutexes.lost(scene.index, wish.place, token),
            None => mutexes.ended(scene.index, id),
        }
        self.wishes.remove(at);
        Ok(())
    }

    /// Whether a member may lead, and whether it sees to it that there is a leader.
    pub(crate) fn parts(plan: &LockPlan, member: usize) -> (bool, bool) {
        let part = plan.part(member as u16);
        (part >= Part::StandBy, part == Part::Campaign)
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
