//! Locks and elections of a threaded node, for any thread of the application.
//!
//! The group's locks are the control thread's business: it alone has the coordinator. A caller wants to sleep until it
//! has the lock, to hold it as a value, and to learn when it is lost. So a [`Locks`] is a way to send that thread
//! commands (`commands.rs`), and each request has a cell that the thread writes its state to (`request.rs`);
//! its part is `broker.rs`.
//!
//! **A lock can be lost while it is held.** A member that reaches no majority any more, or was removed, holds nothing,
//! whatever its application believes; and an application that was paused learns of it late. [`Guard::lost`] gives what
//! is known, [`Guard::token`] is what makes it safe: the resource refuses a token lower than one it has seen
//! (`docs/locks.md`).
//!
//! Invariants: a waiting caller is released when the node ends, loses its majority or is removed. Dropping a [`Guard`],
//! a [`LockRequest`] or a [`Candidacy`] gives up what it stood for. At a node one at most stands in an election: two
//! would each believe that they lead. Bounds: those of the commands under way; the broker has its own.

pub(crate) mod broker;
pub(crate) mod commands;
pub(crate) mod request;
pub(crate) mod state;

pub use state::{ElectionState, LockError, LockState, Lost, Wait};

use bourdon_protocol::{FencingToken, Leadership, Participation};
use bourdon_wire::TopicName;
use commands::{LockCommand, LockCommands};
use request::{Answer, Request, Watcher};
use std::sync::{Arc, Once};
use std::time::{Duration, Instant};

/// Asks for locks and takes part in elections, from any thread; clones are the same.
#[derive(Clone, Debug)]
pub struct Locks(LockCommands);

impl Locks {
    /// Locks by the node that takes these commands.
    pub(crate) fn new(commands: LockCommands) -> Self {
        Self(commands)
    }

    /// Waits for a lock. While the group is still forming or the node outside, it waits for that as well.
    ///
    /// # Errors
    /// If it can't be granted: the node ended, was removed, reaches no majority; or the group grants no locks.
    pub fn lock(&self, name: TopicName) -> Result<Guard, LockError> {
        self.begin(name, Wait::Forever).wait()
    }

    /// Takes a lock if it is free.
    ///
    /// # Errors
    /// [`LockError::Busy`] if it is not, or why there are no locks now.
    pub fn try_lock(&self, name: TopicName) -> Result<Guard, LockError> {
        self.begin(name, Wait::No).wait()
    }

    /// As [`Locks::lock`], but not for longer than until then.
    ///
    /// # Errors
    /// [`LockError::TimedOut`], or what the group lacked all the time; else as [`Locks::lock`].
    pub fn lock_until(&self, name: TopicName, deadline: Instant) -> Result<Guard, LockError> {
        self.begin(name, Wait::Until(deadline)).wait()
    }

    /// Asks for a lock and comes back at once.
    pub fn begin(&self, name: TopicName, wait: Wait) -> LockRequest {
        self.begin_watched(name, wait, None)
    }

    /// The same; the control thread calls `watcher` after each change. It must be quick and must not ask for locks
    /// itself.
    pub fn begin_with(&self, name: TopicName, wait: Wait, watcher: impl Fn() + Send + Sync + 'static) -> LockRequest {
        self.begin_watched(name, wait, Some(Arc::new(watcher)))
    }

    fn begin_watched(&self, name: TopicName, wait: Wait, watcher: Option<Watcher>) -> LockRequest {
        let request = Request::new(LockState::Pending(None), watcher);
        self.0.send(LockCommand::Lock(name, wait, Answer::new(&request)));
        LockRequest { claim: Claim { request, name, locks: self.clone() }, seen: 0 }
    }

    /// Takes part in an election. If the group is still forming or the node outside, the part is taken once it can be.
    ///
    /// # Errors
    /// [`LockError::Stands`] if this node stands already, or why it can never take part.
    pub fn elect(&self, name: TopicName, participation: Participation) -> Result<Candidacy, LockError> {
        let candidacy = self.begin_election(name, participation, None);
        let state = candidacy.request.wait(None, |state, _| state.known || state.over.is_some());
        state.over.map_or(Ok(candidacy), Err)
    }

    /// The same, coming back at once; the control thread calls `watcher` after each change.
    pub fn elect_with(
        &self,
        name: TopicName,
        participation: Participation,
        watcher: impl Fn() + Send + Sync + 'static,
    ) -> Candidacy {
        self.begin_election(name, participation, Some(Arc::new(watcher)))
    }

    fn begin_election(&self, name: TopicName, participation: Participation, watcher: Option<Watcher>) -> Candidacy {
        let request = Request::new(ElectionState::NEW, watcher);
        self.0.send(LockCommand::Elect(name, participation, Answer::new(&request)));
        Candidacy { request, name, locks: self.clone(), seen: 0 }
    }
}

/// What is given up when it is dropped.
#[derive(Debug)]
struct Claim {
    request: Arc<Request<LockState>>,
    name: TopicName,
    locks: Locks,
}

impl Drop for Claim {
    fn drop(&mut self) {
        if !matches!(self.request.state(), LockState::Over(_)) {
            self.locks.0.send(LockCommand::Unlock(Arc::clone(&self.request)));
        }
    }
}

/// A request for a lock that may still be waiting; dropped, it waits no more.
#[derive(Debug)]
pub struct LockRequest {
    claim: Claim,
    seen: u64,
}

impl LockRequest {
    /// Its state.
    pub fn state(&self) -> LockState {
        self.claim.request.state()
    }

    /// Its state, if that has changed since the last call.
    pub fn news(&mut self) -> Option<LockState> {
        self.claim.request.news(&mut self.seen)
    }

    /// Sleeps until it is granted, or will not be.
    ///
    /// # Errors
    /// Why it will not be.
    pub fn wait(self) -> Result<Guard, LockError> {
        let is_settled = |state: &LockState, _| matches!(state, LockState::Held(_) | LockState::Over(_));
        match self.claim.request.wait(None, is_settled) {
            LockState::Held(token) => Ok(Guard { claim: self.claim, token }),
            LockState::Over(error) => Err(error),
            LockState::Pending(_) | LockState::Waiting { .. } => unreachable!("a wait without end ends when settled"),
        }
    }
}

/// A lock that is held until this is dropped, or until it is lost.
#[derive(Debug)]
#[must_use = "dropping it releases the lock"]
pub struct Guard {
    claim: Claim,
    token: FencingToken,
}

impl Guard {
    /// The lock's name.
    pub fn name(&self) -> &TopicName {
        &self.claim.name
    }

    /// Higher than the tokens of all earlier holders: hand it to the resource with each write.
    pub fn token(&self) -> FencingToken {
        self.token
    }

    /// Why it is lost, if that is known.
    pub fn lost(&self) -> Option<Lost> {
        lost(&self.claim.request.state())
    }

    /// Sleeps until it is lost, for so long at most.
    pub fn wait_lost(&self, timeout: Duration) -> Option<Lost> {
        let until = Instant::now().checked_add(timeout);
        lost(&self.claim.request.wait(until, |state, _| lost(state).is_some()))
    }

    /// Has the control thread call this when it is lost, or at once if it is. It must be quick and must not ask for
    /// locks itself; what takes longer belongs to a thread that it wakes.
    pub fn on_lost(&self, callback: impl Fn(Lost) + Send + Sync + 'static) {
        let (request, once) = (Arc::downgrade(&self.claim.request), Once::new());
        self.claim.request.watch(Arc::new(move || {
            if let Some(why) = request.upgrade().and_then(|request| lost(&request.state())) {
                once.call_once(|| callback(why));
            }
        }));
    }
}

fn lost(state: &LockState) -> Option<Lost> {
    match state {
        LockState::Over(LockError::Lost(why)) => Some(*why),
        _ => None,
    }
}

/// A part in an election, held until this is dropped.
#[derive(Debug)]
pub struct Candidacy {
    request: Arc<Request<ElectionState>>,
    name: TopicName,
    locks: Locks,
    seen: u64,
}

impl Candidacy {
    /// The election's name.
    pub fn name(&self) -> &TopicName {
        &self.name
    }

    /// The election's state.
    pub fn state(&self) -> ElectionState {
        self.request.state()
    }

    /// The leader, if there is one.
    pub fn leader(&self) -> Option<Leadership> {
        self.state().leader
    }

    /// The token of this candidacy's leadership, if it leads.
    pub fn leads(&self) -> Option<FencingToken> {
        let state = self.state();
        state.leader.filter(|_| state.own).map(|leadership| leadership.token)
    }

    /// The election's state, if that has changed since this or [`Candidacy::wait`] last reported it.
    pub fn news(&mut self) -> Option<ElectionState> {
        self.request.news(&mut self.seen)
    }

    /// Sleeps until something has changed, for so long at most. Of several changes meanwhile it returns the last.
    pub fn wait(&mut self, timeout: Duration) -> Option<ElectionState> {
        let (seen, until) = (self.seen, Instant::now().checked_add(timeout));
        self.request.wait(until, |_, version| version != seen);
        self.news()
    }

    /// Resigns if it leads, and stands no more; it still learns which member leads.
    pub fn resign(&self) {
        self.locks.0.send(LockCommand::Resign(self.name, Arc::clone(&self.request)));
    }
}

impl Drop for Candidacy {
    fn drop(&mut self) {
        if self.request.state().over.is_none() {
            self.locks.0.send(LockCommand::LeaveElection(self.name, Arc::clone(&self.request)));
        }
    }
}
