//! Direct messages of a threaded node: orders go to the data agent, news come back.
//!
//! They are rare, so each way is the plainest bounded thing there is: orders are frames in the ring that carries the
//! application's other orders, news a channel of [`NEWS_MAX`]. News that do not fit stay where they are, in the
//! protocol's own bounded queues: then messages are refused, and their senders learn of it.

use crate::inline::Node;
use bourdon_port::Waker;
use bourdon_protocol::{CallId, DirectMessage, DirectOutcome, DirectRefusal};
use bourdon_wire::Rank;
use std::sync::mpsc::{SyncSender, TrySendError};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

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
pub enum DirectNews {
    /// A message was received.
    Received(DirectMessage),
    /// A message that was sent has ended; [`send_direct`](crate::ThreadedNode::send_direct) returned the call's name.
    Ended(DirectOutcome),
    /// A message could not be sent.
    Refused(CallId, DirectRefusal),
}

/// In front of an order's payload.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(crate) struct DirectOrder {
    ticket: u64,
    /// Bit r: rank r may take it.
    among: u64,
    /// 0 one, 1 any, 2 all.
    way: u64,
}

impl DirectOrder {
    pub(crate) fn new(ticket: u64, to: DirectTo<'_>) -> Self {
        let bits = |ranks: &[Rank]| ranks.iter().filter(|rank| **rank <= Rank::MAX).fold(0, |bits, r| bits | 1 << r.0);
        let (way, among) = match to {
            DirectTo::Rank(rank) => (0, u64::from(rank.0)),
            DirectTo::Any(ranks) => (1, bits(ranks)),
            DirectTo::All => (2, 0),
        };
        Self { ticket, among, way }
    }
}

/// The data agent's end.
pub(crate) struct Post {
    news: SyncSender<DirectNews>,
    waker: Waker,
    /// What did not fit.
    waiting: Option<DirectNews>,
    /// The protocol's names of calls under way, and the application's.
    tickets: Vec<(CallId, CallId)>,
}

impl Post {
    pub(crate) fn new(news: SyncSender<DirectNews>, waker: Waker) -> Self {
        Self { news, waker, waiting: None, tickets: Vec::new() }
    }

    /// Sends what the application ordered.
    pub(crate) fn send(&mut self, node: &mut Node, frame: &[u8]) {
        let (order, payload) = DirectOrder::read_from_prefix(frame).expect("an order begins with its head");
        let ticket = CallId(order.ticket);
        let ranks: Vec<Rank> = (0..64).filter(|rank| order.among >> rank & 1 == 1).map(Rank).collect();
        let call = match order.way {
            0 => node.send_to(Rank(order.among as u16), payload).map(Some),
            1 => node.send_any(&ranks, payload).map(Some),
            _ => node.broadcast(payload).map(|()| None),
        };
        match call {
            Ok(call) => self.tickets.extend(call.map(|call| (call, ticket))),
            // An application that fetches no news misses some of these, as with events.
            Err(refusal) => drop(self.news.try_send(DirectNews::Refused(ticket, refusal))),
        }
        self.waker.wake();
    }

    /// Moves what there is to the application. Returns how much.
    pub(crate) fn collect(&mut self, node: &mut Node) -> usize {
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
        if count > 0 {
            self.waker.wake();
        }
        count
    }

    fn next(&mut self, node: &mut Node) -> Option<DirectNews> {
        let Some(mut outcome) = node.poll_outcome() else { return node.poll_direct().map(DirectNews::Received) };
        let (DirectOutcome::Done { call, .. } | DirectOutcome::Failed { call, .. }) = &mut outcome;
        let place = self.tickets.iter().position(|(own, _)| own == call)?;
        *call = self.tickets.swap_remove(place).1;
        Some(DirectNews::Ended(outcome))
    }
}
