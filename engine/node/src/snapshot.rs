//! The application's state, for a process that joins.
//!
//! A joiner goes on from the state of another member. That member's application may run on another thread, behind the
//! protocol: by the time it answers, more was delivered. So a request is an item among the messages, and what is given
//! for it is the state at its place, whenever it is given. The answer goes back by mailbox to the thread that runs the
//! group, from either face of a node.
//!
//! Invariants: each request is answered once; one that is dropped declines. Nothing is delivered between the place at
//! which a joiner's process goes on and the [`Snapshot`] that its application gets.

use crate::mailbox::{Receiver, Sender, mailbox};
use bourdon_port::Waker;
use bourdon_protocol::{Refusal, SnapshotAnswer, SnapshotTicket};
use std::fmt;
use std::sync::mpsc::TrySendError;

/// Answers that the thread which runs the group has not taken: it takes all of them each round.
const ANSWERS_MAX: usize = 16;

type Answer = (SnapshotTicket, SnapshotAnswer);

/// A process joins, and goes on from the state of this application.
///
/// What was delivered before this item must be in the state that is given, and nothing that is delivered behind it.
/// The answer may come later, from any thread: then the application copies its state here, or applies what is behind
/// this item later. Where the view has changed by then, the state is discarded, and the joiner asks again. A joiner
/// waits half a minute for an answer, then it asks another member. It asks another also if a member has published more
/// since than its log keeps (`limits.log_bytes`): an application that answers later than that under load lets no
/// process join.
///
/// A request that is dropped declines: the joiner asks another member. So does one that waits in the ring of a
/// subscription that is dropped.
///
/// ```no_run
/// use bourdon::{Delivery, InlineNode, Settings};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let mut settings = Settings::load("bourdon.toml".as_ref())?;
/// settings.process.snapshots = true;
/// let mut node = InlineNode::join(&settings)?;
/// let (mut sum, mut refused) = (0, None);
/// node.poll(64, |delivery| match delivery {
///     Delivery::Message(message) => sum += message.payload.len() as u64,
///     Delivery::SnapshotRequest(request) => refused = request.give(&sum.to_le_bytes()).err(),
///     Delivery::Snapshot(snapshot) => sum = snapshot.bytes().try_into().map_or(0, u64::from_le_bytes),
///     other => println!("{other:?}"),
/// })?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[must_use = "a request that is dropped declines"]
pub struct SnapshotRequest {
    /// None once it was answered.
    ticket: Option<SnapshotTicket>,
    answers: Sender<Answer>,
    limit_bytes: usize,
}

impl SnapshotRequest {
    /// Gives the application's state at the place of this request. It is copied here, and sent to the joiner by the
    /// thread that runs the group.
    ///
    /// # Errors
    /// [`Refusal::TooLarge`] if it is longer than `limits.max_snapshot_bytes`: the joiner can't join, and reports
    /// [`Event::SnapshotTooLarge`](crate::Event::SnapshotTooLarge). [`Refusal::Closed`] if the node has ended.
    /// [`Refusal::TooMany`] if an inline node is not polled, and has not taken the last answers.
    pub fn give(mut self, state: &[u8]) -> Result<(), Refusal> {
        if state.len() <= self.limit_bytes {
            return self.answer(SnapshotAnswer::State(state.to_vec()));
        }
        self.answer(SnapshotAnswer::TooLarge)?;
        Err(Refusal::TooLarge { limit_bytes: self.limit_bytes })
    }

    fn answer(&mut self, answer: SnapshotAnswer) -> Result<(), Refusal> {
        let Some(ticket) = self.ticket.take() else { return Ok(()) };
        self.answers.try_send((ticket, answer)).map_err(|error| match error {
            TrySendError::Full(_) => Refusal::TooMany { limit: ANSWERS_MAX },
            TrySendError::Disconnected(_) => Refusal::Closed,
        })
    }
}

impl Drop for SnapshotRequest {
    fn drop(&mut self) {
        let _ = self.answer(SnapshotAnswer::Declined); // if it is lost, the joiner asks another member later
    }
}

/// The state that this application begins with: that of another member's application or, at `durable`, its own.
/// Everything that is delivered behind this item came after that state, and what was delivered before is in it, or
/// void.
pub struct Snapshot(Vec<u8>);

impl Snapshot {
    pub(crate) fn new(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// The bytes that the other application gave; none if it gives no snapshots (`process.snapshots`).
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Snapshot({} bytes)", self.0.len())
    }
}

/// The requests that a node has handed out, and the answers to them.
#[derive(Debug)]
pub(crate) struct SnapshotRequests {
    sender: Sender<Answer>,
    answers: Receiver<Answer>,
    limit_bytes: usize,
}

impl SnapshotRequests {
    /// Of a node whose port is woken by this waker.
    pub(crate) fn new(limit_bytes: usize, waker: Waker) -> Self {
        let (sender, answers) = mailbox(ANSWERS_MAX, move || waker.wake());
        Self { sender, answers, limit_bytes }
    }

    /// One more.
    pub(crate) fn request(&self, ticket: SnapshotTicket) -> SnapshotRequest {
        SnapshotRequest { ticket: Some(ticket), answers: self.sender.clone(), limit_bytes: self.limit_bytes }
    }

    /// The next answer.
    #[inline]
    pub(crate) fn take(&mut self) -> Option<Answer> {
        self.answers.take()
    }
}
