//! Requests and messages beside the stream, as the application's threads make them at a node with threads of its own.
//!
//! A thread that waits for a reply sleeps on a descriptor of its own, which the data agent rings with the outcome. It
//! keeps none between its calls: descriptors are few, so a call takes one that an earlier call has left, or makes one.
//!
//! At its deadline it asks the data agent once more, which alone knows whether the call was sent.
//!
//! Invariants: a call that waits makes no system call but its sleep, and asks for the outcome only when it was woken.

use crate::deadline::{Canceller, Deadline, sleep};
use crate::request::{Call, Completion, Outbound, Outcome, RequestError, Ring};
use crate::threaded::commands::{COMMANDS_MAX, Command, Commands};
use crate::threaded::direct::CallCommand;
use crate::threaded::end::lock;
use bourdon_port::Waker;
use bourdon_protocol::{DirectKind, Refusal};
use bourdon_ring::signal::{Bell, Sleeper, doorbell};
use std::sync::Mutex;
use std::sync::mpsc::TrySendError;
use std::time::Duration;

/// The kinds of calls.
pub(crate) const KINDS: [DirectKind; 2] = [DirectKind::Message, DirectKind::Request(0)];

/// How long after its deadline a call waits for the data agent's word of what became of it.
const GRACE: Duration = Duration::from_millis(100);

/// What a thread sleeps on that waits for an outcome.
struct Waiter {
    sleeper: Sleeper,
    bell: Bell,
    waker: Waker,
}

/// Waiters that are kept for later calls.
const SPARE_MAX: usize = 32;

/// The application's end.
pub(crate) struct Caller {
    commands: Commands,
    /// The longest payload of a message, and of a request.
    limits: [usize; 2],
    spare: Mutex<Vec<Waiter>>,
    /// Rung with each outcome that no thread waits for.
    events: Waker,
    canceller: Canceller,
}

impl Caller {
    /// `limits` are the longest payloads of a message and of a request; `events` is rung with outcomes that no thread
    /// waits for.
    pub(crate) fn new(commands: Commands, limits: [usize; 2], events: Waker, canceller: Canceller) -> Self {
        Self { commands, limits, spare: Mutex::new(Vec::new()), events, canceller }
    }

    /// Begins a call, and comes back at once.
    pub(crate) fn try_call(&self, outbound: &Outbound<'_>) -> Result<Call, Refusal> {
        self.begin(outbound, Ring { bell: None, waker: self.events.clone() })
    }

    fn begin(&self, outbound: &Outbound<'_>, ring: Ring) -> Result<Call, Refusal> {
        let limit_bytes = self.limits[usize::from(outbound.is_request)];
        if outbound.payload.len() > limit_bytes {
            return Err(Refusal::TooLarge { limit_bytes });
        }
        let (completion, call) = Completion::new(outbound.deadline, Some(ring));
        let command = CallCommand::new(outbound, completion).ok_or(Refusal::Unreachable)?;
        self.commands.try_send(Command::Call(command)).map_err(|error| match error {
            TrySendError::Full(_) => Refusal::TooMany { limit: COMMANDS_MAX },
            TrySendError::Disconnected(_) => Refusal::Closed,
        })?;
        Ok(call)
    }

    /// Makes a call, and waits for its outcome.
    pub(crate) fn call(&self, outbound: &Outbound<'_>) -> Outcome {
        let mut waiter = self.waiter().map_err(|_| Refusal::TooMany { limit: lock(&self.spare).len() })?;
        let ring = Ring { bell: Some(waiter.bell.clone()), waker: waiter.waker.clone() };
        let mut call = self.begin(outbound, ring)?;
        let outcome = self.wait(&mut call, &mut waiter, outbound.deadline);
        let mut spare = lock(&self.spare);
        if spare.len() < SPARE_MAX {
            spare.push(waiter);
        }
        outcome
    }

    fn wait(&self, call: &mut Call, waiter: &mut Waiter, deadline: Deadline) -> Outcome {
        let mut until = deadline;
        loop {
            let mut outcome = call.try_outcome();
            if outcome.is_none() && self.canceller.is_cancelled() {
                return Err(RequestError::LATE);
            }
            if outcome.is_none() && until.has_passed() {
                if until != deadline || self.commands.try_send(Command::EndLateCalls).is_err() {
                    return Err(RequestError::LATE);
                }
                until = GRACE.into();
            }
            if outcome.is_none() {
                sleep(&mut waiter.sleeper, &waiter.waker, (until, &self.canceller), || {
                    outcome = call.try_outcome();
                    outcome.is_some()
                });
            }
            if let Some(outcome) = outcome {
                return outcome;
            }
        }
    }

    fn waiter(&self) -> std::io::Result<Waiter> {
        if let Some(waiter) = lock(&self.spare).pop() {
            return Ok(waiter);
        }
        let ((sleeper, bell), waker) = (doorbell(), Waker::new()?);
        Ok(Waiter { sleeper, bell, waker })
    }
}

impl std::fmt::Debug for Caller {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Caller").finish_non_exhaustive()
    }
}
