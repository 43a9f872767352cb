//! Locks and elections, with the same verbs at a node with threads and at one that the application polls.
//!
//! The coordinator belongs to one thread: the control thread of a threaded node, or the thread that polls an inline
//! one. A caller wants to ask from anywhere, to hold a lock as a value, and to learn when it is lost; at a threaded
//! node, to sleep until it has it. So a request sends that thread commands (`commands.rs`), and has a cell that the
//! thread writes its state to (`request.rs`); its part is `broker.rs`, the same at both nodes.
//!
//! **A lock can be lost while it is held.** A member that reaches no majority any more, or was removed, holds nothing,
//! whatever its application believes; and an application that was paused learns of it late. [`Guard::lost`] gives what
//! is known, [`Guard::token`] is what makes it safe: the resource refuses a token lower than one it has seen
//! (`docs/locks.md`).
//!
//! Invariants: a waiting caller is released when the node ends; a loss of the majority and a removal it waits out, up
//! to its deadline. Dropping a [`Guard`], a [`LockRequest`] or an [`Election`] gives up what it stood for. At a node
//! one election at most stands for a name: two would each believe that they lead. The thread that polls an inline node
//! waits for nothing that it would have to do itself: it panics instead. Bounds: those of the commands under way; the
//! broker has its own.

pub(crate) mod broker;
pub(crate) mod commands;
pub(crate) mod inline;
pub(crate) mod request;
pub(crate) mod state;

pub use state::{ElectionState, LockError, Lost};

use crate::deadline::{Canceller, Deadline};
use bourdon_protocol::{CoordinationRefusal, FencingToken, Participation};
use bourdon_wire::TopicName;
use commands::{LockCommand, Route};
use request::{Answer, Request, Watcher};
use state::{LockState, Wait};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The way of a node's requests for locks and elections; clones are the same.
#[derive(Clone, Debug)]
pub(crate) struct Locks {
    route: Route,
    /// Ends waits, at a node with threads.
    canceller: Option<Canceller>,
    /// The election that stands for each name.
    standing: Arc<Mutex<BTreeMap<TopicName, Arc<Request<ElectionState>>>>>,
}

impl Locks {
    pub(crate) fn new(route: Route, canceller: Option<Canceller>) -> Self {
        Self { route, canceller, standing: Arc::default() }
    }

    /// Waits for a lock, until then at the latest.
    pub(crate) fn lock(&self, name: &str, deadline: Deadline) -> Result<Guard, LockError> {
        let mut request = self.request(TopicName::new(name)?, Wait::until(deadline.at()), None);
        // The group ends a wait that has an end; it alone knows how long the queue is then.
        request.wait(Deadline::NEVER)?.ok_or(LockError::Cancelled)
    }

    /// Asks for a lock and comes back at once; `watcher` is called after each change, by the thread that answers.
    pub(crate) fn request(&self, name: TopicName, wait: Wait, watcher: Option<Watcher>) -> LockRequest {
        let request = Request::new(LockState::Pending(None), watcher);
        self.route.send(LockCommand::Lock(name, wait, Answer::new(&request)));
        LockRequest { name, claim: Some(Claim { request, locks: self.clone() }), seen: 0 }
    }

    /// Watches an election; `watcher` as above.
    pub(crate) fn election(&self, name: TopicName, watcher: Option<Watcher>) -> Election {
        let request = Request::new(ElectionState::default(), watcher);
        self.route.send(LockCommand::Elect(name, Answer::new(&request)));
        Election { request, name, locks: self.clone(), seen: 0 }
    }

    fn standing(&self) -> MutexGuard<'_, BTreeMap<TopicName, Arc<Request<ElectionState>>>> {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner) // no assignment is left half done
    }

    fn check_wait(&self) {
        assert!(
            !self.route.is_polled_here(),
            "this thread polls the node and would wait for itself: poll the node, and use try_guard, try_next or lost"
        );
    }
}

/// What is given up when it is dropped.
#[derive(Debug)]
struct Claim {
    request: Arc<Request<LockState>>,
    locks: Locks,
}

impl Drop for Claim {
    fn drop(&mut self) {
        if !matches!(self.request.state(), LockState::Over(_)) {
            self.locks.route.send(LockCommand::Unlock(Arc::clone(&self.request)));
        }
    }
}

/// A request for a lock, made by `request_lock` of a node. It waits in the group's queue until its guard is handed out,
/// or until it is dropped. While the group is still forming, or the node is in no view, it waits for that as well.
///
/// ```no_run
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let mut node = bourdon::InlineNode::join(&bourdon::Settings::load("bourdon.toml".as_ref())?)?;
/// let mut request = node.request_lock("backup.nightly")?;
/// let guard = loop {
///     node.poll(64, |_| {})?;
///     if let Some(guard) = request.try_guard()? {
///         break guard;
///     }
/// };
/// println!("held under {}", guard.token());
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[must_use = "dropping it withdraws the request"]
pub struct LockRequest {
    name: TopicName,
    /// None once the guard has it.
    claim: Option<Claim>,
    seen: u64,
}

impl LockRequest {
    /// The lock's name.
    pub fn name(&self) -> &TopicName {
        &self.name
    }

    /// The lock, if it has been granted; `None` while the request waits.
    ///
    /// # Errors
    /// Why it will not be granted any more; [`LockError::Granted`] if its guard was handed out before.
    pub fn try_guard(&mut self) -> Result<Option<Guard>, LockError> {
        let claim = self.claim.as_ref().ok_or(LockError::Granted)?;
        let state = claim.request.state();
        self.settle(state)
    }

    /// Sleeps until the lock is granted, at most until the deadline: `None` if it was not, or if the wait was
    /// cancelled. The request goes on waiting then.
    ///
    /// ```
    /// # use bourdon::*;
    /// # use std::time::Duration;
    /// # fn show(request: &mut LockRequest) -> Result<(), error::LockError> {
    /// while request.wait(Duration::from_secs(1))?.is_none() {
    ///     println!("{:?} come before this request", request.ahead());
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`LockRequest::try_guard`].
    ///
    /// # Panics
    /// On the thread that polls the [`InlineNode`](crate::InlineNode) that made it: that thread would wait for itself.
    pub fn wait(&mut self, deadline: impl Into<Deadline>) -> Result<Option<Guard>, LockError> {
        let claim = self.claim.as_ref().ok_or(LockError::Granted)?;
        claim.locks.check_wait();
        let is_settled = |state: &LockState, _| matches!(state, LockState::Held(_) | LockState::Over(_));
        let state = claim.request.wait(deadline.into(), claim.locks.canceller.as_ref(), is_settled);
        self.settle(state)
    }

    fn settle(&mut self, state: LockState) -> Result<Option<Guard>, LockError> {
        match state {
            LockState::Held(token) => Ok(self.claim.take().map(|claim| Guard { name: self.name, claim, token })),
            LockState::Over(error) => Err(error),
            LockState::Pending(_) | LockState::Waiting { .. } => Ok(None),
        }
    }

    /// The fewest holders and requests that come before it, once it waits in the group; only replicated and Lamport's
    /// locks know the requests of other members. It is looked up some times a second from the first call on.
    pub fn ahead(&self) -> Option<usize> {
        match self.claim.as_ref()?.request.state_with_place() {
            LockState::Waiting { ahead } => Some(ahead),
            _ => None,
        }
    }

    /// Why the group does not take the request yet, if that is so.
    pub fn pending(&self) -> Option<CoordinationRefusal> {
        match self.claim.as_ref()?.request.state() {
            LockState::Pending(why) => why,
            _ => None,
        }
    }

    /// Its state, if that has changed since the last call.
    pub(crate) fn news(&mut self) -> Option<LockState> {
        self.claim.as_ref()?.request.news(&mut self.seen)
    }
}

/// A lock that is held until this is dropped, or until it is lost. It may outlive its node, and is lost then.
///
/// ```no_run
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let write = |_: bourdon::FencingToken| {};
/// use std::time::Duration;
///
/// let settings = bourdon::Settings::load("bourdon.toml".as_ref())?;
/// let node = bourdon::Node::open(&settings)?;
/// node.join()?;
/// let guard = node.lock("backup.nightly", Duration::from_secs(30))?;
/// while guard.lost().is_none() {
///     write(guard.token()); // the resource refuses a lower token than it has seen
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[must_use = "dropping it releases the lock"]
pub struct Guard {
    name: TopicName,
    claim: Claim,
    token: FencingToken,
}

impl Guard {
    /// The lock's name.
    pub fn name(&self) -> &TopicName {
        &self.name
    }

    /// Higher than the tokens of all earlier holders of this lock: hand it to the resource with each write. Tokens of
    /// other names do not compare with it.
    pub fn token(&self) -> FencingToken {
        self.token
    }

    /// Why it is lost, if that is known.
    pub fn lost(&self) -> Option<Lost> {
        lost(&self.claim.request.state())
    }

    /// Sleeps until it is lost, at most until the deadline, or until the wait is cancelled.
    ///
    /// ```
    /// # use bourdon::*;
    /// # use std::time::Duration;
    /// # fn show(guard: &Guard) {
    /// if let Some(why) = guard.wait_lost(Duration::from_secs(60)) {
    ///     eprintln!("end what needed the lock: {why}");
    /// }
    /// # }
    /// ```
    ///
    /// # Panics
    /// As [`LockRequest::wait`].
    pub fn wait_lost(&self, deadline: impl Into<Deadline>) -> Option<Lost> {
        self.claim.locks.check_wait();
        let canceller = self.claim.locks.canceller.as_ref();
        lost(&self.claim.request.wait(deadline.into(), canceller, |state, _| lost(state).is_some()))
    }
}

fn lost(state: &LockState) -> Option<Lost> {
    match state {
        LockState::Over(LockError::Lost(why)) => Some(*why),
        _ => None,
    }
}

/// An election that this node watches, and may stand in; made by `election` of a node. Dropped, it resigns. It may
/// outlive its node, and is over then.
///
/// ```no_run
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use bourdon::Deadline;
///
/// let settings = bourdon::Settings::load("bourdon.toml".as_ref())?;
/// let node = bourdon::Node::open(&settings)?;
/// node.join()?;
/// let mut election = node.election("prices.writer")?;
/// election.campaign()?;
/// while let Some(state) = election.next(Deadline::NEVER)? {
///     println!("{state}"); // "this candidacy leads, token …"
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Election {
    request: Arc<Request<ElectionState>>,
    name: TopicName,
    locks: Locks,
    seen: u64,
}

impl Election {
    /// The election's name.
    pub fn name(&self) -> &TopicName {
        &self.name
    }

    /// Stands, and begins an election if there is no leader. A leader leads until it resigns, is removed or reaches no
    /// majority: a candidate of higher rank that stands later does not depose it. Which candidate then wins is the rule
    /// of [`ElectionKind`](crate::settings::ElectionKind).
    ///
    /// ```
    /// # use bourdon::*;
    /// # fn show(node: &Node) -> Result<(), error::LockError> {
    /// let mut writer = node.election("writer")?;
    /// writer.campaign()?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`LockError::Stands`] if another election of this node stands for this name; or why the election is over.
    pub fn campaign(&mut self) -> Result<(), LockError> {
        self.stand(Participation::Campaign)
    }

    /// Stands, and leaves it to others to begin the first election. Once there has been a leader, it is a candidate
    /// like any other.
    ///
    /// # Errors
    /// As [`Election::campaign`].
    pub fn stand_by(&mut self) -> Result<(), LockError> {
        self.stand(Participation::StandBy)
    }

    pub(crate) fn stand(&mut self, participation: Participation) -> Result<(), LockError> {
        if let Some(error) = self.request.state().over {
            return Err(error);
        }
        let mut standing = self.locks.standing();
        if participation > Participation::Watch {
            let other = standing.get(&self.name).filter(|other| !Arc::ptr_eq(other, &self.request));
            if other.is_some_and(|other| other.state().over.is_none()) {
                return Err(LockError::Stands);
            }
            standing.insert(self.name, Arc::clone(&self.request));
        } else {
            self.stand_down(&mut standing);
        }
        // Still locked, so that commands are sent in the order in which elections stand.
        self.locks.route.send(LockCommand::Stand(self.name, participation, Arc::clone(&self.request)));
        Ok(())
    }

    /// Resigns if it leads, and stands no more; it still learns which member leads.
    pub fn resign(&mut self) {
        let _ = self.stand(Participation::Watch); // if it is over, there is nothing to resign
    }

    fn stand_down(&self, standing: &mut BTreeMap<TopicName, Arc<Request<ElectionState>>>) {
        if standing.get(&self.name).is_some_and(|own| Arc::ptr_eq(own, &self.request)) {
            standing.remove(&self.name);
        }
    }

    /// The election's state.
    pub fn state(&self) -> ElectionState {
        self.request.state()
    }

    /// The election's state, if that has changed since it was last returned; of several changes the last.
    ///
    /// ```
    /// # use bourdon::*;
    /// # fn show(writer: &mut Election) -> Result<(), error::LockError> {
    /// if let Some(state) = writer.try_next()? {
    ///     println!("{state}");
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Why nothing more will come: the node has ended, or can never take part.
    pub fn try_next(&mut self) -> Result<Option<ElectionState>, LockError> {
        match self.news() {
            Some(state) => state.over.map_or(Ok(Some(state)), Err),
            None => self.request.state().over.map_or(Ok(None), Err),
        }
    }

    /// As [`Election::try_next`]; sleeps until there is a change, at most until the deadline, or until the wait is
    /// cancelled.
    ///
    /// ```
    /// # use bourdon::*;
    /// # fn show(writer: &mut Election) -> Result<(), error::LockError> {
    /// while let Some(state) = writer.next(Deadline::NEVER)? {
    ///     if state.own {
    ///         println!("lead under {:?}", state.token);
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Election::try_next`].
    ///
    /// # Panics
    /// As [`LockRequest::wait`].
    pub fn next(&mut self, deadline: impl Into<Deadline>) -> Result<Option<ElectionState>, LockError> {
        self.locks.check_wait();
        let (seen, canceller) = (self.seen, self.locks.canceller.as_ref());
        self.request.wait(deadline.into(), canceller, |state, version| version != seen || state.over.is_some());
        self.try_next()
    }

    /// The election's state, over or not, if that has changed since the last call.
    pub(crate) fn news(&mut self) -> Option<ElectionState> {
        self.request.news(&mut self.seen)
    }
}

impl Drop for Election {
    fn drop(&mut self) {
        let mut standing = self.locks.standing();
        self.stand_down(&mut standing);
        if self.request.state().over.is_none() {
            self.locks.route.send(LockCommand::LeaveElection(self.name, Arc::clone(&self.request)));
        }
    }
}
