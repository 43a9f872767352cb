//! What one caller and the thread that answers share about one request: its state, and a way to sleep until it changes.
//!
//! A channel for each request would keep every change, and so grow with a caller that does not read; and a holder asks
//! "do I still hold it?" without taking the answer away from the next caller. So there is one cell with the latest
//! state: a change overwrites it, counts, and wakes the callers that sleep, unless none of them waits for a state like
//! it. The path is rare, so a mutex that both hold for an assignment will do.
//!
//! Invariants: the thread that answers never waits for anything under the mutex, and calls nothing of an application;
//! once no thread is left to answer, the last state records it ([`Answer`] sees to it when it is dropped).

use crate::deadline::{Canceller, Deadline, sleep_on};
use bourdon_port::Waker;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How often a caller looks that has nothing to sleep on.
const LOOK: Duration = Duration::from_millis(1);

/// The control thread calls it after each change: it must be quick, and must not ask for locks itself. Only the admin
/// thread has one, to be woken by.
pub(crate) type Watcher = Arc<dyn Fn() + Send + Sync>;

/// A state that can record that it is over because the node has ended.
pub(crate) trait State: Clone + PartialEq {
    /// The node has ended: records it, unless it was over before.
    fn end(&mut self);

    /// Whether a caller may sleep until there is a state like this.
    fn is_awaited(&self) -> bool;
}

struct Inner<S> {
    state: S,
    version: u64,
    /// What wakes the callers that sleep.
    sleepers: Vec<Waker>,
    watcher: Option<Watcher>,
    /// The caller reads its place in the queue.
    is_place_read: bool,
}

/// The shared cell.
pub(crate) struct Request<S>(Mutex<Inner<S>>);

thread_local! {
    /// What this thread sleeps on.
    static SLEEP: Option<Waker> = Waker::new().ok();
}

impl<S> std::fmt::Debug for Request<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Request")
    }
}

impl<S: State> Request<S> {
    pub(crate) fn new(state: S, watcher: Option<Watcher>) -> Arc<Self> {
        Arc::new(Self(Mutex::new(Inner { state, version: 0, sleepers: Vec::new(), watcher, is_place_read: false })))
    }

    fn inner(&self) -> MutexGuard<'_, Inner<S>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner) // no assignment is left half done
    }

    pub(crate) fn state(&self) -> S {
        self.inner().state.clone()
    }

    /// Whether its place in the queue is worth a search.
    fn is_watched(&self) -> bool {
        let inner = self.inner();
        inner.watcher.is_some() || inner.is_place_read
    }

    /// The state; its place is looked up from now on.
    pub(crate) fn state_with_place(&self) -> S {
        let mut inner = self.inner();
        inner.is_place_read = true;
        inner.state.clone()
    }

    /// The state, if it has changed since version `seen`, which is moved on.
    pub(crate) fn news(&self, seen: &mut u64) -> Option<S> {
        let inner = self.inner();
        (std::mem::replace(seen, inner.version) != inner.version).then(|| inner.state.clone())
    }

    /// Sleeps until the state is as wanted, at most until the deadline, or until the wait is cancelled.
    pub(crate) fn wait(
        &self,
        deadline: Deadline,
        canceller: Option<&Canceller>,
        is_wanted: impl Fn(&S, u64) -> bool,
    ) -> S {
        SLEEP.with(|waker| {
            loop {
                let mut inner = self.inner();
                let is_cancelled = canceller.is_some_and(Canceller::is_cancelled);
                if is_wanted(&inner.state, inner.version) || is_cancelled || deadline.has_passed() {
                    return inner.state.clone();
                }
                let Some(waker) = waker else {
                    drop(inner);
                    std::thread::sleep(LOOK); // the kernel had no descriptor for this thread
                    continue;
                };
                waker.clear();
                inner.sleepers.push(waker.clone());
                drop(inner);
                sleep_on(waker, deadline, canceller);
                self.inner().sleepers.retain(|sleeper| !sleeper.is_same(waker));
            }
        })
    }

    pub(crate) fn update(&self, change: impl FnOnce(&mut S)) {
        let mut inner = self.inner();
        let before = inner.state.clone();
        change(&mut inner.state);
        if inner.state == before {
            return;
        }
        inner.version += 1;
        let watcher = inner.watcher.clone();
        if inner.state.is_awaited() {
            inner.sleepers.drain(..).for_each(|sleeper| sleeper.wake());
        }
        drop(inner);
        if let Some(watcher) = watcher {
            if std::thread::panicking() {
                // It may be the watcher that panicked: a second panic would end the process, and leave callers waiting.
                let _ = catch_unwind(AssertUnwindSafe(|| watcher()));
            } else {
                watcher();
            }
        }
    }
}

/// The control thread's side of a request. Dropped with that thread, or with a command that it never took, it releases
/// callers that wait.
#[derive(Debug)]
pub(crate) struct Answer<S: State>(Arc<Request<S>>);

impl<S: State> Answer<S> {
    pub(crate) fn new(request: &Arc<Request<S>>) -> Self {
        Self(Arc::clone(request))
    }

    pub(crate) fn set(&self, change: impl FnOnce(&mut S)) {
        self.0.update(change);
    }

    pub(crate) fn is_watched(&self) -> bool {
        self.0.is_watched()
    }

    pub(crate) fn is_of(&self, request: &Arc<Request<S>>) -> bool {
        Arc::ptr_eq(&self.0, request)
    }
}

impl<S: State> Drop for Answer<S> {
    fn drop(&mut self) {
        self.0.update(State::end);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;

    impl State for Option<u32> {
        fn end(&mut self) {
            self.get_or_insert(u32::MAX);
        }

        fn is_awaited(&self) -> bool {
            self.is_none_or(|number| number % 2 == 0)
        }
    }

    #[test]
    fn changes_wake_and_count_and_what_is_the_same_does_not() {
        let (sender, calls) = channel();
        let request = Request::new(None::<u32>, Some(Arc::new(move || sender.send(()).expect("the test listens"))));
        let answer = Answer::new(&request);
        let mut seen = 0;
        assert_eq!(request.news(&mut seen), None);
        let sleeper = Arc::clone(&request);
        let sleeper = std::thread::spawn(move || sleeper.wait(Deadline::NEVER, None, |state, _| state.is_some()));
        answer.set(|state| *state = Some(8));
        assert_eq!(sleeper.join().expect("no panic"), Some(8));
        answer.set(|state| *state = Some(8));
        assert_eq!((request.news(&mut seen), request.news(&mut seen)), (Some(Some(8)), None));
        assert_eq!(calls.try_iter().count(), 1);
    }

    #[test]
    fn a_caller_sleeps_through_states_that_it_does_not_wait_for() {
        let request = Request::new(None::<u32>, None);
        let (answer, (looked, looks)) = (Answer::new(&request), channel());
        let sleeper = Arc::clone(&request);
        let sleeper = std::thread::spawn(move || {
            sleeper.wait(Deadline::NEVER, None, |state, _| {
                looked.send(()).expect("the test listens");
                *state == Some(8)
            })
        });
        looks.recv().expect("it looks before it sleeps");
        for passing in (1..2_000).step_by(2) {
            answer.set(|state| *state = Some(passing)); // the mutex is free once the caller sleeps
            std::thread::yield_now();
        }
        answer.set(|state| *state = Some(8));
        assert_eq!(sleeper.join().expect("no panic"), Some(8));
        assert_eq!(looks.try_iter().count(), 1, "one wake-up");
    }

    #[test]
    fn a_dropped_answer_releases_the_waiting_caller() {
        let request = Request::new(None::<u32>, None);
        assert_eq!(request.wait(Duration::ZERO.into(), None, |state, _| state.is_some()), None, "its time is over");
        drop(Answer::new(&request));
        assert_eq!(request.wait(Deadline::NEVER, None, |state, _| state.is_some()), Some(u32::MAX));
    }
}
