//! The application that requests locks and takes part in elections.
//!
//! It does what such applications do: requests, holds for a while, gives back, loses patience, resigns and comes again.
//! At times it makes two requests at once. When its process ends it forgets what it has requested and holds, but not
//! how many requests it still has to make.

use crate::plan::LockPlan;
use bourdon_protocol::{FencingToken, LockId, Participation, Patience};

/// Requests of one application at a time.
pub(crate) const WISHES_MAX: usize = 2;

/// A request under way or granted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LockRequest {
    pub(crate) id: LockId,
    pub(crate) place: usize,
    pub(crate) patience: Patience,
    pub(crate) held: Option<FencingToken>,
    /// When it is given back, or withdrawn.
    pub(crate) until_ns: u64,
}

/// An election, as this application sees it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Stake {
    pub(crate) taken: bool,
    /// When it takes part, or resigns.
    pub(crate) next_ns: u64,
    pub(crate) leads: bool,
}

/// One application's part in locks and elections.
#[derive(Debug, Default)]
pub(crate) struct Locker {
    /// How many requests it still has to make.
    pub(crate) left: u32,
    pub(crate) next_ns: u64,
    pub(crate) requests: Vec<LockRequest>,
    pub(crate) stakes: Vec<Stake>,
}

impl Locker {
    pub(crate) fn new(plan: &LockPlan, member: u16) -> Self {
        let left = if plan.askers.contains(&member) { plan.entries } else { 0 };
        Self { left, stakes: vec![Stake::default(); plan.names], ..Self::default() }
    }

    /// Its process is gone.
    pub(crate) fn crash(&mut self) {
        self.requests.clear();
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
        let asks = self.left > 0 && self.requests.len() < WISHES_MAX;
        let asks_ns = if asks { self.next_ns } else { u64::MAX };
        let stakes = self.stakes.iter().filter(|stake| !stake.taken || stake.leads).map(|stake| stake.next_ns);
        self.requests.iter().map(|request| request.until_ns).chain(stakes).fold(asks_ns, u64::min)
    }

    /// Whether a member may lead, and whether it sees to it that there is a leader.
    pub(crate) fn parts(plan: &LockPlan, member: usize) -> (bool, bool) {
        let participation = plan.participation(member as u16);
        (participation >= Participation::StandBy, participation == Participation::Campaign)
    }
}
