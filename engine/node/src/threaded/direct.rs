//! Direct messages and requests of a threaded node, at its data agent: calls come as commands, their outcomes go to the
//! calls, messages of other processes to a mailbox, their requests to a subscription's ring.
//!
//! A call that the protocol has no room for waits here for its turn, requests and messages each in their order: a
//! message does not wait for the replies to requests. A call whose receiver was not heard yet waits apart, so that it
//! holds up none. Messages and requests of others that the
//! application does not fetch stay in the protocol's own bounded queues: then they are refused, and their senders learn
//! of it.

use crate::deadline::Deadline;
use crate::mailbox::Sender;
use crate::request::{Calling, Completion, Outbound, Request, RequestError};
use crate::threaded::outlet::Outlet;
use bourdon_protocol::{DirectMessage, Refusal, To};
use bourdon_wire::{Address, Rank};
use std::collections::VecDeque;
use std::sync::mpsc::TrySendError;

/// Messages that the application has not fetched.
pub(crate) const MESSAGES_MAX: usize = 256;
/// Requests, and messages, that wait for room in the protocol; and calls that wait for a receiver.
const WAITING_MAX: usize = 256;

/// A direct message or a request to send.
#[derive(Debug)]
pub(crate) struct CallCommand {
    to: Receivers,
    payload: Vec<u8>,
    is_request: bool,
    deadline: Deadline,
    /// Whether its caller waits until a receiver is heard.
    awaits_receiver: bool,
    completion: Completion,
}

/// As [`To`].
#[derive(Debug)]
enum Receivers {
    Rank(Rank),
    Nearest,
    Among(Vec<Rank>),
    Address(Address),
    All,
}

impl CallCommand {
    /// None where the receivers are of a kind that is not known here.
    pub(crate) fn new(outbound: &Outbound<'_>, completion: Completion) -> Option<Self> {
        let to = match outbound.to {
            To::Rank(rank) => Receivers::Rank(rank),
            To::Nearest => Receivers::Nearest,
            To::Among(ranks) => Receivers::Among(ranks.to_vec()),
            To::Address(address) => Receivers::Address(address),
            To::All => Receivers::All,
            _ => return None,
        };
        let Outbound { payload, is_request, deadline, awaits_receiver, .. } = *outbound;
        Some(Self { to, payload: payload.to_vec(), is_request, deadline, awaits_receiver, completion })
    }

    /// Begins the call. Gives it back if it has to wait, and why.
    fn begin(self, node: &mut impl Calling) -> Option<(Self, Refusal)> {
        let Self { to, payload, is_request, deadline, awaits_receiver, completion } = self;
        let outbound = Outbound {
            to: match &to {
                Receivers::Rank(rank) => To::Rank(*rank),
                Receivers::Nearest => To::Nearest,
                Receivers::Among(ranks) => To::Among(ranks),
                Receivers::Address(address) => To::Address(*address),
                Receivers::All => To::All,
            },
            payload: &payload,
            is_request,
            deadline,
            awaits_receiver,
        };
        match node.begin(&outbound, completion) {
            Ok(()) => None,
            Err((refusal, completion))
                if !deadline.has_passed() && (is_full(refusal) || awaits_receiver && refusal.is_unavailable()) =>
            {
                Some((Self { to, payload, is_request, deadline, awaits_receiver, completion }, refusal))
            }
            Err((refusal, completion)) => {
                completion.complete(Err(refusal.into()));
                None
            }
        }
    }
}

/// The data agent's end.
pub(crate) struct Post {
    messages: Sender<DirectMessage>,
    /// A message that did not fit.
    unread: Option<DirectMessage>,
    /// Messages that wait for room, and requests.
    waiting: [VecDeque<CallCommand>; 2],
    /// Calls that wait for a receiver, and what they were refused for.
    unheard: Vec<(CallCommand, Refusal)>,
    /// A request that did not fit its ring.
    held: Option<Request>,
}

impl Post {
    pub(crate) fn new(messages: Sender<DirectMessage>) -> Self {
        Self { messages, unread: None, waiting: [VecDeque::new(), VecDeque::new()], unheard: Vec::new(), held: None }
    }

    /// Begins a call, or queues it behind those that wait.
    pub(crate) fn call(&mut self, node: &mut impl Calling, command: CallCommand) {
        let waiting = &mut self.waiting[usize::from(command.is_request)];
        if waiting.len() >= WAITING_MAX {
            command.completion.complete(Err(RequestError::Refused(Refusal::TooMany { limit: WAITING_MAX })));
        } else if !waiting.is_empty() {
            waiting.push_back(command);
        } else if let Some((command, refusal)) = command.begin(node) {
            self.keep(command, refusal);
        }
    }

    /// Keeps a call that has to wait, before those that came later.
    fn keep(&mut self, command: CallCommand, refusal: Refusal) {
        if is_full(refusal) {
            self.waiting[usize::from(command.is_request)].push_front(command);
        } else if self.unheard.len() < WAITING_MAX {
            self.unheard.push((command, refusal));
        } else {
            command.completion.complete(Err(refusal.into()));
        }
    }

    /// Moves what there is to the application. Returns how much.
    pub(crate) fn work(&mut self, node: &mut impl Calling, outlets: &mut [Outlet]) -> usize {
        if !self.unheard.is_empty() {
            for (command, _) in std::mem::take(&mut self.unheard) {
                if let Some((command, refusal)) = command.begin(node) {
                    self.keep(command, refusal);
                }
            }
        }
        for kind in 0..self.waiting.len() {
            while let Some(command) = self.waiting[kind].pop_front() {
                if let Some((command, refusal)) = command.begin(node) {
                    self.keep(command, refusal);
                    if is_full(refusal) {
                        break;
                    }
                }
            }
        }
        self.collect_messages(node) + self.collect_requests(node, outlets)
    }

    /// Ends the calls whose deadline has passed, with what is known of them.
    pub(crate) fn end_late(&mut self, node: &mut impl Calling) {
        for (late, refusal) in self.unheard.extract_if(.., |(command, _)| command.deadline.has_passed()) {
            late.completion.complete(Err(refusal.into()));
        }
        for waiting in &mut self.waiting {
            let (late, rest): (VecDeque<_>, VecDeque<_>) =
                waiting.drain(..).partition(|command| command.deadline.has_passed());
            *waiting = rest;
            let refusal = Refusal::TooMany { limit: WAITING_MAX };
            late.into_iter().for_each(|late| late.completion.complete(Err(refusal.into())));
        }
        node.end_late();
    }

    fn collect_messages(&mut self, node: &mut impl Calling) -> usize {
        let mut count = 0;
        while let Some(message) = self.unread.take().or_else(|| node.next_message()) {
            match self.messages.try_send(message) {
                Ok(()) => count += 1,
                Err(TrySendError::Full(message)) => {
                    self.unread = Some(message);
                    break;
                }
                Err(TrySendError::Disconnected(_)) => break,
            }
        }
        count
    }

    /// Requests go to the first subscription that takes them; without one they are dropped, and so declined.
    fn collect_requests(&mut self, node: &mut impl Calling, outlets: &mut [Outlet]) -> usize {
        let mut outlet = outlets.iter_mut().find(|outlet| outlet.takes_requests());
        let mut count = 0;
        while let Some(request) = self.held.take().or_else(|| node.next_request()) {
            let unfit = outlet.as_mut().and_then(|outlet| outlet.put_request(request).err());
            if unfit.is_some() {
                self.held = unfit;
                break;
            }
            count += 1;
        }
        if let Some(outlet) = outlet.filter(|_| count > 0) {
            outlet.show();
        }
        count
    }

    /// Whether calls wait for their turn. Those that wait for a receiver may wait for ever: they end with the node.
    pub(crate) fn owes(&self) -> bool {
        self.waiting.iter().any(|waiting| !waiting.is_empty())
    }
}

/// Whether a call waits for those before it.
fn is_full(refusal: Refusal) -> bool {
    matches!(refusal, Refusal::TooMany { .. })
}
