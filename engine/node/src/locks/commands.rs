//! What the application's threads and the admin thread ask of the thread that has the coordinator: commands, as values.
//!
//! The answer to a command is the state of a [`Request`]. At a threaded node the commands go to the control thread by a
//! mailbox; a command that finds it full waits for room, for microseconds. At an inline node the thread that polls it
//! carries them out, and a command may come from that very thread, which would wait for itself: so they are queued.
//! There a request is carried out by the call that makes it. What handles do later waits for the next poll: each
//! request is given up once, and of an election's parts the last counts.
//!
//! Invariant: a command that is never carried out is dropped with its [`Answer`], which ends the request. Bounds: what
//! is queued at an inline node is at most two commands for each request that the broker keeps.

use super::request::{Answer, Request};
use super::state::{ElectionState, LockState, Wait};
use crate::mailbox::Sender;
use bourdon_port::Waker;
use bourdon_protocol::Participation;
use bourdon_ring::signal::{WatermarkReader, WatermarkWriter, watermark};
use bourdon_wire::TopicName;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Commands that the control thread has not taken: it takes so many each round, so a caller that waits for room waits
/// for microseconds.
pub(crate) const COMMANDS_MAX: usize = 256;

/// A command to the thread that has the coordinator.
#[derive(Debug)]
pub(crate) enum LockCommand {
    /// Request a lock.
    Lock(TopicName, Wait, Answer<LockState>),
    /// Release a lock, or withdraw the request.
    Unlock(Arc<Request<LockState>>),
    /// Watch an election.
    Elect(TopicName, Answer<ElectionState>),
    /// Take this part in the election.
    Stand(TopicName, Participation, Arc<Request<ElectionState>>),
    /// Take no part in the election any more.
    LeaveElection(TopicName, Arc<Request<ElectionState>>),
}

/// The way to that thread; clones are the same.
#[derive(Clone, Debug)]
pub(crate) enum Route {
    /// To the control thread.
    Control(Sender<LockCommand>),
    /// To the thread that polls an inline node.
    Poller(Arc<Queue>),
    /// Of a client, which has no locks: commands are dropped.
    Nowhere,
}

impl Route {
    /// Sends a command.
    pub(crate) fn send(&self, command: LockCommand) {
        match self {
            Self::Control(sender) => sender.send(command),
            Self::Poller(queue) => queue.push(command),
            Self::Nowhere => {}
        }
    }

    /// Whether the caller is the thread that would have to carry out what it waits for.
    pub(crate) fn is_polled_here(&self) -> bool {
        matches!(self, Self::Poller(queue) if queue.queued().polled_by == here())
    }
}

/// The queue of an inline node.
pub(crate) struct Queue {
    queued: Mutex<Queued>,
    /// Of the node's port.
    waker: Waker,
}

struct Queued {
    commands: VecDeque<LockCommand>,
    /// How many commands were queued so far.
    posted: WatermarkWriter,
    polled_by: usize,
    /// The node has ended.
    is_over: bool,
}

impl std::fmt::Debug for Queue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Queue")
    }
}

impl Queue {
    fn queued(&self) -> MutexGuard<'_, Queued> {
        self.queued.lock().unwrap_or_else(PoisonError::into_inner) // no assignment is left half done
    }

    fn push(&self, command: LockCommand) {
        let mut queued = self.queued();
        if queued.is_over {
            drop(queued);
            drop(command); // outside: its answer may wake a thread
            return;
        }
        if let LockCommand::Stand(_, participation, of) = &command {
            let same = queued.commands.iter_mut().find_map(|command| match command {
                LockCommand::Stand(_, before, request) => Arc::ptr_eq(request, of).then_some(before),
                _ => None,
            });
            if let Some(before) = same {
                *before = *participation;
                return;
            }
        }
        queued.commands.push_back(command);
        let posted = queued.posted.get() + 1;
        queued.posted.advance(posted);
        // The polling thread itself looks for commands before it sleeps.
        if queued.polled_by != here() {
            self.waker.wake();
        }
    }
}

/// An inline node's end of its queue.
pub(crate) struct QueueEnd {
    queue: Arc<Queue>,
    posted: WatermarkReader,
    taken: u64,
    polled_by: usize,
}

impl std::fmt::Debug for QueueEnd {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("QueueEnd")
    }
}

impl QueueEnd {
    /// Makes the queue of an inline node whose port has this waker; the calling thread counts as the one that polls it.
    pub(crate) fn new(waker: Waker) -> Self {
        let (posted, seen) = watermark(0);
        let polled_by = here();
        let queued = Queued { commands: VecDeque::new(), posted, polled_by, is_over: false };
        Self { queue: Arc::new(Queue { queued: Mutex::new(queued), waker }), posted: seen, taken: 0, polled_by }
    }

    /// The way to this end.
    pub(crate) fn route(&self) -> Route {
        Route::Poller(Arc::clone(&self.queue))
    }

    /// Whether there is a command.
    #[inline]
    pub(crate) fn has_commands(&self) -> bool {
        self.posted.get() > self.taken
    }

    /// Notes that the calling thread polls the node now.
    #[inline]
    pub(crate) fn note_poller(&mut self) {
        if std::mem::replace(&mut self.polled_by, here()) != self.polled_by {
            self.queue.queued().polled_by = self.polled_by;
        }
    }

    /// All commands, in their order.
    pub(crate) fn take(&mut self) -> VecDeque<LockCommand> {
        let mut queued = self.queue.queued();
        self.taken = queued.posted.get();
        std::mem::take(&mut queued.commands)
    }
}

impl Drop for QueueEnd {
    fn drop(&mut self) {
        self.queue.queued().is_over = true;
        drop(self.take()); // the last answers, given without the queue's lock
    }
}

/// The calling thread, by the address of something that each has its own of.
#[inline]
fn here() -> usize {
    thread_local!(static HERE: u8 = const { 0 });
    HERE.with(|here| std::ptr::from_ref(here).addr())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end() -> QueueEnd {
        QueueEnd::new(Waker::new().expect("an eventfd can be made"))
    }

    #[test]
    fn of_an_elections_parts_the_last_counts_in_the_place_of_the_first() {
        let (mut end, name) = (end(), TopicName::new("one").expect("it is a name"));
        let requests = [(); 2].map(|()| Request::new(ElectionState::default(), None));
        let stand = |part, of: usize| end.route().send(LockCommand::Stand(name, part, Arc::clone(&requests[of])));
        for _ in 0..1000 {
            stand(Participation::Campaign, 0);
            stand(Participation::Watch, 0);
            stand(Participation::Campaign, 1);
        }
        assert!(end.has_commands());
        let parts: Vec<_> = end
            .take()
            .into_iter()
            .map(|command| match command {
                LockCommand::Stand(_, part, request) => (part, Arc::ptr_eq(&request, &requests[1])),
                other => panic!("{other:?} was not sent"),
            })
            .collect();
        assert_eq!(parts, [(Participation::Watch, false), (Participation::Campaign, true)]);
        assert!(!end.has_commands() && end.take().is_empty());
    }

    #[test]
    fn a_command_that_is_never_carried_out_ends_its_request() {
        let (end, name) = (end(), TopicName::new("one").expect("it is a name"));
        let (route, requests) = (end.route(), [(); 2].map(|()| Request::new(LockState::Pending(None), None)));
        let lock = |of: usize| route.send(LockCommand::Lock(name, Wait::Forever, Answer::new(&requests[of])));
        lock(0);
        drop(end);
        lock(1);
        assert!(requests.iter().all(|request| matches!(request.state(), LockState::Over(_))));
    }

    #[test]
    fn the_thread_that_polls_is_known_after_it_has_changed() {
        let mut end = end();
        let route = end.route();
        assert!(route.is_polled_here());
        let moved = route.clone();
        let polls = move || {
            assert!(!moved.is_polled_here());
            end.note_poller();
            (moved.is_polled_here(), end)
        };
        let (elsewhere, _end) = std::thread::spawn(polls).join().expect("no panic");
        assert!(elsewhere && !route.is_polled_here());
    }
}
