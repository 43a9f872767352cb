//! Direct messages of a threaded node: commands go to the data agent, news come back.
//!
//! They are rare, so news are values in a mailbox of [`NEWS_MAX`]. News that do not fit stay where they are, in the
//! protocol's own bounded queues: then messages are refused, and their senders learn of it.

use crate::inline::InlineNode;
use crate::mailbox::Sender;
use bourdon_protocol::{CallId, DirectMessage, DirectOutcome, DirectRefusal};
use bourdon_wire::Rank;
use std::sync::mpsc::TrySendError;

/// News that the application has not fetched.
pub(crate) const NEWS_MAX: usize = 256;

/// The receivers of a direct message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DirectTo<'a> {
    /// One member.
    Rank(Rank),
    /// The nearest of some members; of all others, if none is named.
    Any(&'a [Rank]),
    /// All processes of the group that receive from the network.
    All,
}

/// A threaded node's news of direct messages.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DirectNews {
    /// A message was received.
    Received(DirectMessage),
    /// A message that was sent has ended; [`send_direct`](crate::Node::send_direct) returned the call's name.
    Ended(DirectOutcome),
    /// A message could not be sent.
    Refused(CallId, DirectRefusal),
}

/// A direct message to send.
#[derive(Debug)]
pub(crate) struct DirectCommand {
    /// The application's name of the call.
    call: CallId,
    to: Receivers,
    payload: Vec<u8>,
}

/// As [`DirectTo`].
#[derive(Debug)]
enum Receivers {
    Rank(Rank),
    Any(Vec<Rank>),
    All,
}

impl DirectCommand {
    pub(crate) fn new(call: CallId, to: DirectTo<'_>, payload: &[u8]) -> Self {
        let to = match to {
            DirectTo::Rank(rank) => Receivers::Rank(rank),
            DirectTo::Any(ranks) => Receivers::Any(ranks.to_vec()),
            DirectTo::All => Receivers::All,
        };
        Self { call, to, payload: payload.to_vec() }
    }
}

/// The data agent's end.
pub(crate) struct Post {
    news: Sender<DirectNews>,
    /// What did not fit.
    waiting: Option<DirectNews>,
    /// The protocol's names of calls under way, and the application's.
    tickets: Vec<(CallId, CallId)>,
}

impl Post {
    pub(crate) fn new(news: Sender<DirectNews>) -> Self {
        Self { news, waiting: None, tickets: Vec::new() }
    }

    /// Sends a message. Returns false if the application has no room for the news that it was refused.
    #[must_use]
    pub(crate) fn send(&mut self, node: &mut InlineNode, command: DirectCommand) -> bool {
        let DirectCommand { call: ticket, to, payload } = command;
        let call = match to {
            Receivers::Rank(rank) => node.send_to(rank, &payload).map(Some),
            Receivers::Any(ranks) => node.send_any(&ranks, &payload).map(Some),
            Receivers::All => node.broadcast(&payload).map(|()| None),
        };
        match call {
            Ok(call) => {
                self.tickets.extend(call.map(|call| (call, ticket)));
                true
            }
            Err(refusal) => self.news.try_send(DirectNews::Refused(ticket, refusal)).is_ok(),
        }
    }

    /// Moves what there is to the application. Returns how much.
    pub(crate) fn collect(&mut self, node: &mut InlineNode) -> usize {
        let mut count = 0;
        while let Some(news) = self.waiting.take().or_else(|| self.next(node)) {
            match self.news.try_send(news) {
                Ok(()) => count += 1,
                Err(TrySendError::Full(news)) => {
                    self.waiting = Some(news);
                    break;
                }
                Err(TrySendError::Disconnected(_)) => break,
            }
        }
        count
    }

    fn next(&mut self, node: &mut InlineNode) -> Option<DirectNews> {
        let Some(mut outcome) = node.poll_outcome() else { return node.poll_direct().map(DirectNews::Received) };
        let (DirectOutcome::Done { call, .. } | DirectOutcome::Failed { call, .. }) = &mut outcome;
        let place = self.tickets.iter().position(|(own, _)| own == call)?;
        *call = self.tickets.swap_remove(place).1;
        Some(DirectNews::Ended(outcome))
    }
}
