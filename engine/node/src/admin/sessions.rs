//! Locks and elections on the admin socket: a connection is what holds them.
//!
//! A command that is killed can't give its lock back, and a lease that expires takes the lock from a holder that is
//! alive but slow. The kernel knows better: it closes the connection of a process that is gone, however it ended. So a
//! request for a lock or an election turns its connection into a session. The session sends one line for each change. A
//! client that closes it, or shuts down its writing side, gives up what it stood for.
//!
//! `{"request":"lock","name":"x"}`, with `"try":true` or `"timeout_ns":N` to wait less; answered by lines like
//!
//! `{"lock":{"name":"x","state":"granted","ahead":null,"token":{"birth":1764338400000,"epoch":2,"number":7},`
//! `"why":null}}`.
//! States are `pending` (the group is not there yet), `waiting`, `granted`, and the states that end the session:
//! `busy`, `timed-out`, `lost` and `refused`.
//!
//! `{"request":"elect","name":"x"}`, with `"part"` one of `watch`, `stand-by` and `campaign` (the default); answered by
//! lines like `{"elect":{"name":"x","state":"known","leader":1,"token":{…},"own":false,"why":null}}`. States are
//! `pending`, `known`, and `refused` and `lost`, which end the session.
//!
//! Invariant: a client that does not read has one line waiting for it, about the latest state; the states between are
//! skipped.

use crate::locks::request::Watcher;
use crate::locks::state::{LockState, Wait};
use crate::locks::{Election, ElectionState, LockError, LockRequest, Locks};
use bourdon_protocol::{FencingToken, Participation};
use bourdon_wire::TopicName;
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What a session asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SessionRequest {
    Lock { name: TopicName, wait: SessionWait },
    Elect { name: TopicName, part: Participation },
}

/// How long a lock is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SessionWait {
    Try,
    For(Duration),
    Forever,
}

/// A part, as a line names it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum PartName {
    Watch,
    StandBy,
    #[default]
    Campaign,
}

impl From<PartName> for Participation {
    fn from(name: PartName) -> Self {
        match name {
            PartName::Watch => Self::Watch,
            PartName::StandBy => Self::StandBy,
            PartName::Campaign => Self::Campaign,
        }
    }
}

/// The request that a connection holds.
#[derive(Debug)]
pub(crate) enum Session {
    Lock {
        request: LockRequest,
        /// It does not wait.
        tries: bool,
    },
    Elect {
        election: Election,
        /// Why it does not stand, until that is reported.
        refused: Option<LockError>,
    },
}

impl Session {
    /// Begins; `wake` is called after each change.
    pub(crate) fn begin(locks: &Locks, request: &SessionRequest, wake: impl Fn() + Send + Sync + 'static) -> Self {
        let wake: Watcher = Arc::new(wake);
        match request {
            SessionRequest::Lock { name, wait } => {
                let wait = match wait {
                    SessionWait::Try => Wait::No,
                    SessionWait::For(time) => Instant::now().checked_add(*time).map_or(Wait::Forever, Wait::Until),
                    SessionWait::Forever => Wait::Forever,
                };
                Self::Lock { request: locks.request(*name, wait, Some(wake)), tries: wait == Wait::No }
            }
            SessionRequest::Elect { name, part } => {
                let mut election = locks.election(*name, Some(Arc::clone(&wake)));
                let refused = if *part == Participation::Watch { None } else { election.stand(*part).err() };
                if refused.is_some() {
                    wake();
                }
                Self::Elect { election, refused }
            }
        }
    }

    /// The line for what has changed, if anything has, and whether it is the last.
    pub(crate) fn news(&mut self) -> Option<(Value, bool)> {
        match self {
            Self::Lock { request, tries } => request.news().map(|state| lock_line(request.name(), state, *tries)),
            Self::Elect { election, refused } => {
                let mut state = match refused.take() {
                    Some(error) => ElectionState { over: Some(error), ..election.state() },
                    None => election.news()?,
                };
                state.own &= state.over.is_none();
                Some(elect_line(election.name(), &state))
            }
        }
    }
}

fn token_object(token: FencingToken) -> Value {
    json!({ "birth": token.birth, "epoch": token.epoch.0, "number": token.number })
}

/// The name of an error and its text: scripts know a lock that was only tried from one that was waited for.
fn end(error: LockError, tries: bool) -> (&'static str, String) {
    match error {
        LockError::Busy { .. } if tries => ("busy", "the lock is not free".to_owned()),
        LockError::Busy { .. } => ("timed-out", "the lock was not granted in time".to_owned()),
        LockError::Lost(_) => ("lost", error.to_string()),
        LockError::Name(_) | LockError::Refused(_) | LockError::Stands | LockError::Granted | LockError::Cancelled => {
            ("refused", error.to_string())
        }
    }
}

fn lock_line(name: &TopicName, state: LockState, tries: bool) -> (Value, bool) {
    let (word, ahead, token, why) = match state {
        LockState::Pending(why) => ("pending", None, None, why.map(|why| why.to_string())),
        LockState::Waiting { ahead } => ("waiting", Some(ahead), None, None),
        LockState::Held(token) => ("granted", None, Some(token_object(token)), None),
        LockState::Over(error) => {
            let (word, why) = end(error, tries);
            (word, None, None, Some(why))
        }
    };
    let line = json!({ "name": name.as_str(), "state": word, "ahead": ahead, "token": token, "why": why });
    (json!({ "lock": line }), matches!(state, LockState::Over(_)))
}

fn elect_line(name: &TopicName, state: &ElectionState) -> (Value, bool) {
    let (word, why) = match (state.over, state.pending) {
        (Some(error), _) => {
            let (word, why) = end(error, false);
            (word, Some(why))
        }
        (None, Some(pending)) => ("pending", Some(pending.to_string())),
        (None, None) => ("known", state.deposed.map(|why| why.to_string())),
    };
    let (leader, token) = if state.over.is_none() { (state.leader, state.token) } else { (None, None) };
    let line = json!({
        "name": name.as_str(),
        "state": word,
        "leader": leader.map(|leader| leader.0),
        "token": token.map(token_object),
        "own": state.own,
        "why": why,
    });
    (json!({ "elect": line }), state.over.is_some())
}
