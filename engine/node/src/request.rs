//! Requests with replies, and messages to single processes: what the application has of them, and which are under way.
//!
//! An application that sends a message and awaits the answer as another message must match the two itself, and learns
//! by silence only that the receiver is gone, is full or does not care. Here a call has one handle, and its outcome
//! comes there: a reply, or why there is none. `docs/requests.md` has the guarantees; the datagrams are the protocol's
//! (`docs/protocols/direct.md`).
//!
//! A request that the application drops declines by itself, so that its sender does not wait for nothing. An answer may
//! come from any thread, and a node is polled by one: so answers go to it by mailbox, at both faces.
//!
//! Invariants: each call ends with one outcome, which a late reply does not change. Numbers of requests begin at a
//! random one: a reply to another process that had the same address before is none to this one. Bounds: calls of a
//! process, [`CALLS_MAX`]; requests that the application has not fetched wait in the protocol, which refuses more.

use crate::deadline::Deadline;
use crate::mailbox::{Receiver, Sender, mailbox};
use bourdon_port::Waker;
use bourdon_protocol::{
    CallId, DirectAnswer, DirectContent, DirectFailure, DirectKind, DirectMessage, DirectOutcome, DirectRequest,
    Refusal, To,
};
use bourdon_ring::signal::Bell;
use bourdon_wire::{Address, Incarnation, Rank};
use std::cell::Cell;
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::net::SocketAddr;
use std::sync::mpsc::{self, SyncSender, TryRecvError, TrySendError, sync_channel};
use std::time::{Duration, Instant};

/// Requests of a process that have no outcome yet: those that the protocol sends at once, and those taken and not
/// answered yet.
pub(crate) const CALLS_MAX: usize = 256;
/// Answers of the application that the node has not taken.
pub(crate) const ANSWERS_MAX: usize = 256;

/// What came back for a request, or for a message to single processes.
///
/// The reply to a message is the acknowledgement of the process that took it, and has no payload.
///
/// ```
/// # use bourdon::*;
/// # fn show(reply: &Reply) {
/// println!("{:?} from {:?} after {} µs", reply.payload(), reply.from(), reply.rtt_ns() / 1_000);
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    payload: Vec<u8>,
    from: Option<(Rank, Address)>,
    rtt_ns: u64,
    attempts: u32,
}

impl Reply {
    /// The bytes of the reply; of a message, none.
    pub fn payload(&self) -> &[u8] {
        &self.payload
    }

    /// The bytes of the reply, without a copy.
    pub fn into_payload(self) -> Vec<u8> {
        self.payload
    }

    /// The process that replied: a member by its rank. `None` for a message to all, which no process acknowledges.
    pub fn from(&self) -> Option<Rank> {
        self.from.map(|(rank, _)| rank)
    }

    /// The address of that process.
    pub fn address(&self) -> Option<SocketAddr> {
        self.from.map(|(_, address)| address.into())
    }

    /// Of a message, the round trip of the copy that was acknowledged; of a request, the time from the call to the
    /// reply. In nanoseconds.
    pub fn rtt_ns(&self) -> u64 {
        self.rtt_ns
    }

    /// How many copies of the message or request were sent before its acknowledgement came.
    pub fn attempts(&self) -> u32 {
        self.attempts
    }
}

/// Why a request, or a message to single processes, has no reply.
///
/// ```
/// # use bourdon::*;
/// # fn show(result: Result<Reply, error::RequestError>) {
/// use bourdon::error::RequestError;
///
/// match result {
///     Ok(reply) => println!("{:?}", reply.payload()),
///     Err(RequestError::Refused(refusal)) if refusal.is_transient() => {} // nothing was sent: again
///     Err(RequestError::Unanswered { .. }) => {} // it may have been executed: again only if that does no harm
///     Err(error) => println!("{error}"),
/// }
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// It was refused: no process has it.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// A process has taken the request, and its application has dropped it without a reply, or takes no requests.
    #[error("process {by} has dropped the request without a reply, or takes no requests")]
    Declined {
        /// Its rank.
        by: Rank,
    },
    /// No reply came by the deadline, or before the wait was cancelled. It may have been executed, and may be executed
    /// yet.
    #[error("no reply{}{}: the request may have been executed",
        .taken_by.map(|rank| format!(" from process {rank}, which has taken it")).unwrap_or_default(),
        .why.map(|why| format!(": {why}")).unwrap_or_default())]
    Unanswered {
        /// The process that has taken it, as far as that is known.
        taken_by: Option<Rank>,
        /// Why no process has taken it, or why the one that has will not reply, if that is known.
        why: Option<DirectFailure>,
        /// How many copies were sent.
        attempts: u32,
    },
}

impl RequestError {
    pub(crate) const LATE: Self = Self::Unanswered { taken_by: None, why: None, attempts: 0 };
}

/// The result of a call.
pub(crate) type Outcome = Result<Reply, RequestError>;

/// A request or a message that is under way: hands out its outcome once.
///
/// Dropped before, the call goes on, and its outcome is discarded.
#[must_use = "its outcome comes here"]
pub struct Call {
    outcome: mpsc::Receiver<Outcome>,
    deadline: Deadline,
    is_over: bool,
}

impl Call {
    /// The outcome, if there is one: after the deadline there is. It is handed out once; later calls return `None`.
    ///
    /// At an inline node it comes with a poll.
    ///
    /// ```
    /// # use bourdon::*;
    /// # fn show(call: &mut Call) {
    /// match call.try_reply() {
    ///     Some(Ok(reply)) => println!("{:?}", reply.payload()),
    ///     Some(Err(error)) => println!("{error}"),
    ///     None => {} // poll an inline node, and look again
    /// }
    /// # }
    /// ```
    pub fn try_reply(&mut self) -> Option<Result<Reply, RequestError>> {
        let outcome = self.try_outcome();
        let is_late = outcome.is_none() && !self.is_over && self.deadline.has_passed();
        self.is_over |= is_late;
        outcome.or_else(|| is_late.then_some(Err(RequestError::LATE)))
    }

    /// The outcome that its node has handed out.
    pub(crate) fn try_outcome(&mut self) -> Option<Outcome> {
        if self.is_over {
            return None;
        }
        let outcome = match self.outcome.try_recv() {
            Ok(outcome) => outcome,
            Err(TryRecvError::Disconnected) => Err(Refusal::Closed.into()), // its node was gone before
            Err(TryRecvError::Empty) => return None,
        };
        self.is_over = true;
        Some(outcome)
    }

    /// Its deadline: after it there is an outcome.
    pub fn deadline(&self) -> Deadline {
        self.deadline
    }
}

impl fmt::Debug for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Call").field("is_over", &self.is_over).finish_non_exhaustive()
    }
}

/// Wakes a thread that waits for an outcome.
pub(crate) struct Ring {
    /// Whether it sleeps; it must be woken in any case if there is none.
    pub(crate) bell: Option<Bell>,
    pub(crate) waker: Waker,
}

/// The node's end of a call: dropped without an outcome, the call is over all the same.
pub(crate) struct Completion {
    outcome: SyncSender<Outcome>,
    ring: Option<Ring>,
    /// Whether it was given to the protocol, and what is known then.
    sent: Option<RequestError>,
    is_over: bool,
}

impl Completion {
    /// Both ends; `ring` is rung with the outcome.
    pub(crate) fn new(deadline: Deadline, ring: Option<Ring>) -> (Self, Call) {
        let (sender, outcome) = sync_channel(1);
        let completion = Self { outcome: sender, ring, sent: None, is_over: false };
        (completion, Call { outcome, deadline, is_over: false })
    }

    pub(crate) fn complete(mut self, outcome: Outcome) {
        self.hand_over(outcome);
    }

    fn hand_over(&mut self, outcome: Outcome) {
        self.is_over = true;
        let _ = self.outcome.try_send(outcome); // the application may have dropped its handle
        if let Some(ring) = &mut self.ring
            && ring.bell.as_mut().is_none_or(Bell::must_ring)
        {
            ring.waker.wake();
        }
    }
}

impl Drop for Completion {
    fn drop(&mut self) {
        if !self.is_over {
            self.hand_over(Err(self.sent.unwrap_or(RequestError::Refused(Refusal::Closed))));
        }
    }
}

impl fmt::Debug for Completion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Completion").finish_non_exhaustive()
    }
}

/// A request that another process has sent to this one: [`Request::reply`] answers it.
///
/// It may be kept, and answered later and by another thread. Dropped without a reply it declines: its sender gets
/// [`RequestError::Declined`] at once.
pub struct Request {
    payload: Vec<u8>,
    from: Rank,
    address: Address,
    call: u64,
    /// When its sender stops waiting.
    until: Option<Instant>,
    limit_bytes: usize,
    answers: Sender<Answer>,
    is_answered: Cell<bool>,
}

impl Request {
    /// Its bytes.
    pub fn payload(&self) -> &[u8] {
        &self.payload
    }

    /// The rank of the process that asks; [`Rank::OBSERVER`] or [`Rank::CLIENT`] if it has none.
    pub fn from(&self) -> Rank {
        self.from
    }

    /// The address of that process.
    pub fn address(&self) -> SocketAddr {
        self.address.into()
    }

    /// Sends the reply, of one datagram at most. It is sent again until it is acknowledged, while the process that asks
    /// waits for it; a reply that is late is not sent.
    ///
    /// ```
    /// # use bourdon::*;
    /// # fn show(request: Request) -> Result<(), Refusal> {
    /// match request.payload() {
    ///     b"es" => request.reply(b"4750.25")?,
    ///     _ => drop(request), // declines
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Why it is not sent: it is [too large](Refusal::TooLarge), 256 answers [wait already](Refusal::TooMany), or the
    /// node has [ended](Refusal::Closed). Then the request is still to be answered. A second reply is refused as
    /// `Closed` as well.
    pub fn reply(&self, payload: &[u8]) -> Result<(), Refusal> {
        if self.is_answered.get() {
            return Err(Refusal::Closed);
        }
        if payload.len() > self.limit_bytes {
            return Err(Refusal::TooLarge { limit_bytes: self.limit_bytes });
        }
        self.answer(Some(payload.into()))?;
        self.is_answered.set(true);
        Ok(())
    }

    fn answer(&self, payload: Option<Vec<u8>>) -> Result<(), Refusal> {
        let answer = Answer { address: self.address, call: self.call, payload, until: self.until };
        self.answers.try_send(answer).map_err(|error| match error {
            TrySendError::Full(_) => Refusal::TooMany { limit: ANSWERS_MAX },
            TrySendError::Disconnected(_) => Refusal::Closed,
        })
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        if !self.is_answered.get() {
            let _ = self.answer(None); // if there is no room, its sender waits until its deadline
        }
    }
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (bytes, is_answered) = (self.payload.len(), self.is_answered.get());
        f.debug_struct("Request")
            .field("from", &self.from)
            .field("address", &self.address())
            .field("bytes", &bytes)
            .field("is_answered", &is_answered)
            .finish_non_exhaustive()
    }
}

/// An answer on its way to the node.
#[derive(Debug)]
pub(crate) struct Answer {
    address: Address,
    call: u64,
    /// None declines.
    payload: Option<Vec<u8>>,
    until: Option<Instant>,
}

/// What sends and receives direct messages: a process and its port.
pub(crate) trait Directs {
    fn send(&mut self, to: To<'_>, content: &DirectContent<'_>) -> Result<Option<CallId>, Refusal>;
    fn limit_bytes(&self, kind: DirectKind) -> usize;
    fn poll_outcome(&mut self) -> Option<DirectOutcome>;
    fn poll_answer(&mut self) -> Option<DirectAnswer>;
    fn poll_request(&mut self) -> Option<DirectRequest>;
    /// Whether it knows which incarnations there are: a process between two views does not.
    fn has_view(&self) -> bool {
        true
    }
    /// The incarnation that has this rank now, as far as that is known.
    fn incarnation(&self, rank: Rank) -> Option<Incarnation>;
}

/// A node or client that makes calls, at its data agent.
pub(crate) trait Calling {
    /// Begins a call; its completion comes back if it is refused.
    fn begin(&mut self, outbound: &Outbound<'_>, completion: Completion) -> Result<(), (Refusal, Completion)>;
    /// Ends the calls whose deadline has passed.
    fn end_late(&mut self);
    /// The next direct message.
    fn next_message(&mut self) -> Option<DirectMessage>;
    /// The next request of another process.
    fn next_request(&mut self) -> Option<Request>;
}

/// A call without an outcome.
#[derive(Debug)]
struct Pending {
    /// The protocol's name for it, until its outcome there.
    id: Option<CallId>,
    /// The request's number; none of a message.
    number: Option<u64>,
    begun_at: Instant,
    deadline: Deadline,
    /// The process that has taken the request.
    taken: Option<Taken>,
    completion: Completion,
}

/// The process that has taken a request.
#[derive(Clone, Copy, Debug)]
struct Taken {
    by: Rank,
    /// Of a member.
    incarnation: Option<Incarnation>,
    attempts: u32,
}

/// The calls of a node, and the way of its application's answers.
#[derive(Debug)]
pub(crate) struct Calls {
    pending: Vec<Pending>,
    /// The number of the next request.
    next: u64,
    answers: Receiver<Answer>,
    answers_in: Sender<Answer>,
    /// Answers that the protocol had no room for.
    held: Vec<Answer>,
}

/// A call to begin.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Outbound<'a> {
    pub(crate) to: To<'a>,
    pub(crate) payload: &'a [u8],
    pub(crate) is_request: bool,
    pub(crate) deadline: Deadline,
    /// Whether it waits until a receiver is heard, rather than being refused.
    pub(crate) awaits_receiver: bool,
}

impl Calls {
    /// `ring` is called for each answer, and wakes the thread that polls the node.
    pub(crate) fn new(ring: impl FnMut() + Send + 'static) -> Self {
        let (answers_in, answers) = mailbox(ANSWERS_MAX, ring);
        let next = RandomState::new().hash_one(std::process::id());
        Self { pending: Vec::new(), next, answers, answers_in, held: Vec::new() }
    }

    /// Begins a call. The caller gets the completion back if it is refused.
    pub(crate) fn begin(
        &mut self,
        node: &mut impl Directs,
        outbound: &Outbound<'_>,
        mut completion: Completion,
    ) -> Result<(), (Refusal, Completion)> {
        let Outbound { to, payload, is_request, deadline, .. } = *outbound;
        if is_request && self.requests() >= CALLS_MAX {
            self.end_late();
        }
        if is_request && self.requests() >= CALLS_MAX {
            return Err((Refusal::TooMany { limit: CALLS_MAX }, completion));
        }
        let number = is_request.then_some(self.next);
        let kind = number.map_or(DirectKind::Message, DirectKind::Request);
        let content = DirectContent { kind, payload, lasts_ns: remaining_ns(deadline) };
        let id = match node.send(to, &content) {
            Ok(id) => id,
            Err(refusal) => return Err((refusal, completion)),
        };
        self.next = self.next.wrapping_add(u64::from(is_request));
        completion.sent = Some(RequestError::LATE);
        if id.is_none() {
            completion.complete(Ok(Reply { payload: Vec::new(), from: None, rtt_ns: 0, attempts: 1 }));
            return Ok(());
        }
        let begun_at = Instant::now();
        self.pending.push(Pending { id, number, begun_at, deadline, taken: None, completion });
        Ok(())
    }

    /// How many requests have no reply yet. Messages end within seconds, and the protocol bounds them.
    fn requests(&self) -> usize {
        self.pending.iter().filter(|pending| pending.number.is_some()).count()
    }

    /// Ends the calls whose deadline has passed: each reports what is known of it as it is dropped.
    pub(crate) fn end_late(&mut self) {
        self.pending.retain(|pending| !pending.deadline.has_passed());
    }

    /// Whether an answer waits.
    #[inline]
    pub(crate) fn has_answers(&self) -> bool {
        self.answers.has_values() || !self.held.is_empty()
    }

    /// Whether there is an answer to take, so that the thread must not sleep. Where the protocol has no room, a
    /// datagram or a deadline of the protocol makes some, and ends a sleep.
    #[inline]
    pub(crate) fn has_new_answers(&self) -> bool {
        self.answers.has_values() && self.held.len() < ANSWERS_MAX
    }

    /// Whether a request was taken by a process that may since be gone.
    #[inline]
    pub(crate) fn is_waiting(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Hands the application's answers to the protocol, and outcomes to their calls. Returns how much there was.
    pub(crate) fn tend(&mut self, node: &mut impl Directs) -> usize {
        let mut count = 0;
        while self.held.len() < ANSWERS_MAX
            && let Some(answer) = self.answers.take()
        {
            self.held.push(answer);
        }
        let (before, mut full) = (self.held.len(), None);
        self.held.retain(|answer| {
            let waits = full == Some(answer.address) || !send_answer(node, answer);
            full = if waits { Some(answer.address) } else { full };
            waits // and those to other addresses pass it
        });
        count += before - self.held.len();
        // The acknowledgement of a request comes before its reply, or is not needed any more.
        while let Some(outcome) = node.poll_outcome() {
            self.note_outcome(node, outcome);
            count += 1;
        }
        while let Some(answer) = node.poll_answer() {
            self.note_answer(answer);
            count += 1;
        }
        count
    }

    fn take(&mut self, is_it: impl Fn(&Pending) -> bool) -> Option<Pending> {
        self.pending.iter().position(is_it).map(|index| self.pending.swap_remove(index))
    }

    fn note_outcome(&mut self, node: &impl Directs, outcome: DirectOutcome) {
        let (DirectOutcome::Done { call, .. } | DirectOutcome::Failed { call, .. }) = outcome;
        let Some(mut pending) = self.take(|pending| pending.id == Some(call)) else { return };
        pending.id = None;
        match outcome {
            DirectOutcome::Failed { why, attempts, .. } => {
                let why = Some(why);
                pending.completion.complete(Err(RequestError::Unanswered { taken_by: None, why, attempts }));
            }
            DirectOutcome::Done { by, address, rtt_ns, attempts, .. } if pending.number.is_none() => {
                let from = Some((by, address));
                pending.completion.complete(Ok(Reply { payload: Vec::new(), from, rtt_ns, attempts }));
            }
            DirectOutcome::Done { by, attempts, .. } => {
                pending.taken = Some(Taken { by, incarnation: node.incarnation(by), attempts });
                pending.completion.sent = Some(RequestError::Unanswered { taken_by: Some(by), why: None, attempts });
                self.pending.push(pending);
            }
        }
    }

    fn note_answer(&mut self, answer: DirectAnswer) {
        let Some(pending) = self.take(|pending| pending.number == Some(answer.call)) else { return }; // it is late
        let attempts = pending.taken.map_or(1, |taken| taken.attempts);
        let rtt_ns = u64::try_from(pending.begun_at.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let from = Some((answer.from, answer.address));
        let reply = answer.payload.map(|payload| Reply { payload, from, rtt_ns, attempts });
        pending.completion.complete(reply.ok_or(RequestError::Declined { by: answer.from }));
    }

    /// Ends the requests that were taken by processes that are gone.
    pub(crate) fn end_gone(&mut self, node: &impl Directs) {
        if !node.has_view() {
            return;
        }
        let is_gone = |taken: Taken| taken.incarnation.is_some() && node.incarnation(taken.by) != taken.incarnation;
        for pending in self.pending.extract_if(.., |pending| pending.taken.is_some_and(is_gone)) {
            let (taken_by, attempts) = pending.taken.map_or((None, 0), |taken| (Some(taken.by), taken.attempts));
            let why = Some(DirectFailure::Gone);
            pending.completion.complete(Err(RequestError::Unanswered { taken_by, why, attempts }));
        }
    }

    /// The next request of another process.
    pub(crate) fn next_request(&self, node: &mut impl Directs) -> Option<Request> {
        let DirectRequest { call, from, address, patience_ns, payload } = node.poll_request()?;
        Some(Request {
            payload,
            from,
            address,
            call,
            until: Instant::now().checked_add(Duration::from_nanos(patience_ns)),
            limit_bytes: node.limit_bytes(DirectKind::Reply(call)),
            answers: self.answers_in.clone(),
            is_answered: Cell::new(false),
        })
    }
}

/// Gives an answer to the protocol. Returns false if it has no room.
fn send_answer(node: &mut impl Directs, answer: &Answer) -> bool {
    let Answer { address, call, payload, until } = answer;
    let lasts_ns = remaining_ns(until.map_or(Deadline::NEVER, Deadline::from));
    if lasts_ns == 0 {
        return true; // none waits for it
    }
    let kind = if payload.is_some() { DirectKind::Reply(*call) } else { DirectKind::Decline(*call) };
    let content = DirectContent { kind, payload: payload.as_deref().unwrap_or_default(), lasts_ns };
    // Any other refusal is one of an address that was never valid: its sender gets no reply.
    !matches!(node.send(To::Address(*address), &content), Err(Refusal::TooMany { .. }))
}

fn remaining_ns(deadline: Deadline) -> u64 {
    deadline.remaining().map_or(u64::MAX, |remaining| u64::try_from(remaining.as_nanos()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests;
