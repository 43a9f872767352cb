//! The data agent: a thread that runs the engines of some groups.
//!
//! A core that polls one group has time for more: a service may be in ten groups that are silent most of the time. So
//! an agent runs any number of them, a round of each in turn (`hosted.rs`), and sleeps in all their ports at once. A
//! group is handed over by mailbox when it is joined, and ends by itself; the agent and the other groups go on.
//!
//! Invariants: a round of the agent is a round of each of its groups; what ends one group ends no other; only a panic
//! ends all. It sleeps only while none of its groups has work, and is woken by the waker of any of their ports.

use crate::idle::Idler;
use crate::mailbox::Receiver;
use crate::threaded::duty::Duty;
use crate::threaded::elsewhere::Elsewhere;
use bourdon_port::{Sleep, Waker};
use bourdon_ring::signal::{Flag, Sleeper};
use bourdon_wire::{Instant, MessageName};
use rustix::event::{PollFd, PollFlags, poll};
use std::convert::Infallible;
use std::os::fd::AsFd;
use std::time::Duration;

/// How long a round is recent at least.
const RECENT_NS: u64 = 1_000_000_000;
/// How long an agent sleeps at most while one of its groups is being stopped, or stands still because its control
/// thread does.
const SHORT_SLEEP: Duration = Duration::from_millis(1);

/// The longest rounds of this second and of the one before: the round that installs a view hides all later ones from a
/// figure that never falls.
#[derive(Debug, Default)]
struct RecentCycles {
    until: Instant,
    longest_ns: u64,
    before_ns: u64,
}

impl RecentCycles {
    /// Notes a round that ended now. Returns the longest one.
    #[inline]
    fn note(&mut self, now: Instant, cycle_ns: u64) -> u64 {
        if now >= self.until {
            self.before_ns = std::mem::take(&mut self.longest_ns);
            self.until = now + RECENT_NS;
        }
        self.longest_ns = self.longest_ns.max(cycle_ns);
        self.longest_ns.max(self.before_ns)
    }
}

/// Sleeps in the ports of all groups, but of those that stand still: they take in nothing that would end the sleep.
fn sleep_in_all(groups: &mut [Duty], waker: &Waker, longest: Duration) {
    let mut sleeps = vec![Sleep { readable: waker.as_fd(), longest }];
    let mut may_sleep = true;
    for group in groups.iter_mut().filter(|group| !group.is_halted()) {
        match group.sleeper(longest) {
            Ok(Some(sleep)) => sleeps.push(sleep),
            Ok(None) => may_sleep = false,
            // No descriptor is left for it, perhaps: a port that is broken reports it when it is used.
            Err(_) => sleeps[0].longest = sleeps[0].longest.min(SHORT_SLEEP),
        }
    }
    if may_sleep && Sleep::all(&sleeps).is_err() {
        std::thread::sleep(SHORT_SLEEP); // the kernel has no memory for a list of descriptors
    }
    waker.clear();
    groups.iter_mut().filter(|group| !group.is_halted()).for_each(Duty::end_sleep);
}

/// The agent's state.
pub(crate) struct Agent {
    pub(crate) groups: Vec<Duty>,
    /// Groups that were joined.
    pub(crate) arrivals: Receiver<Duty>,
    /// What it asks the other agents, and they ask it.
    pub(crate) elsewhere: Elsewhere,
    /// Rung by publishers, senders of commands, and for a new group.
    pub(crate) sleeper: Sleeper,
    /// Rung by subscribers that made room, while delivery waits for it.
    pub(crate) gate: Sleeper,
    /// Wakes an agent that has another number of groups than one; the waker of the only group's port wakes any other.
    pub(crate) waker: Waker,
    /// The agent ends once it has no group.
    pub(crate) stop: Flag,
}

impl Agent {
    /// Runs until it is stopped and all its groups have ended.
    pub(crate) fn run(mut self, mut idler: Idler) {
        let mut woke_at: Option<Instant> = None;
        let (mut longest_ns, mut recent) = (0, RecentCycles::default());
        loop {
            while let Some(group) = self.arrivals.take() {
                self.groups.push(group);
            }
            let groups = &self.groups;
            self.elsewhere.answer(|name| groups.iter().all(|group| group.has_passed(name)));
            if self.groups.is_empty() {
                woke_at = None;
                if self.stop.is_set() {
                    return;
                }
                self.sleep_alone();
                continue;
            }
            let (mut work_count, mut now) = (0, Instant(0));
            for place in 0..self.groups.len() {
                let (before, rest) = self.groups.split_at_mut(place);
                let Some((group, behind)) = rest.split_first_mut() else { break };
                let others = || before.iter().chain(&*behind);
                let passed = |name: &MessageName| match others().find(|other| other.is_named(name)) {
                    Some(other) => other.has_passed(name),
                    None => self.elsewhere.has_passed(name),
                };
                work_count += group.round(&passed);
                now = now.max(group.now());
            }
            self.elsewhere.note(now);
            if let Some(before) = woke_at.replace(now) {
                let cycle_ns = now.since(before);
                longest_ns = longest_ns.max(cycle_ns);
                let longest_recent_ns = recent.note(now, cycle_ns);
                self.groups.iter_mut().for_each(|group| group.note_cycles(longest_ns, longest_recent_ns));
            }
            self.groups.iter_mut().for_each(Duty::update_counters);
            let count = self.groups.len();
            self.groups.extract_if(.., Duty::is_over).for_each(Duty::finish);
            if self.groups.len() < count {
                continue; // others may have waited for a group that is gone
            }
            if self.groups.iter().all(Duty::is_halted) {
                std::thread::sleep(SHORT_SLEEP); // for their control thread, whatever the idle strategy
                continue;
            }
            let slept: Result<(), Infallible> = idler.idle(work_count, |longest| {
                woke_at = None;
                self.sleep(longest);
                Ok(())
            });
            match slept {
                Ok(()) => {}
            }
        }
    }

    /// Sleeps until the network, a timer, a publisher, a subscriber, the control thread or a new group has something.
    fn sleep(&mut self, longest: Duration) {
        let mut is_gated = false;
        for group in &mut self.groups {
            is_gated |= group.prepare_sleep();
        }
        self.sleeper.lie_down();
        if is_gated {
            self.gate.lie_down();
        }
        // From here on every thread that adds work sees that it must ring; work added before is seen here.
        let has_values = self.arrivals.has_values() || self.elsewhere.has_values();
        if !has_values && !self.groups.iter_mut().any(Duty::has_news) {
            self.wait(longest);
        }
        self.gate.get_up();
        self.sleeper.get_up();
    }

    fn wait(&mut self, longest: Duration) {
        let is_short = self.groups.iter().any(Duty::sleeps_shortly);
        let longest = if is_short { longest.min(SHORT_SLEEP) } else { longest };
        self.groups.iter_mut().for_each(Duty::note_sleep);
        match &mut self.groups[..] {
            [only] => only.wait(longest),
            groups => sleep_in_all(groups, &self.waker, longest),
        }
    }

    /// Sleeps without a group, until one is joined or the agent must end.
    fn sleep_alone(&mut self) {
        self.sleeper.lie_down();
        if !self.arrivals.has_values() && !self.elsewhere.has_values() && !self.stop.is_set() {
            let _ = poll(&mut [PollFd::new(&self.waker, PollFlags::IN)], None); // interrupted or not: it looks again
            self.waker.clear();
        }
        self.sleeper.get_up();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_round_is_recent_for_a_second_at_least_and_for_two_at_most() {
        let mut recent = RecentCycles::default();
        let begun = Instant(7 * RECENT_NS);
        assert_eq!(recent.note(begun, 10), 10);
        assert_eq!(recent.note(begun + (RECENT_NS - 1), 500), 500);
        assert_eq!(recent.note(begun + (2 * RECENT_NS - 1), 20), 500, "it is a second old");
        assert_eq!(recent.note(begun + (3 * RECENT_NS - 1), 30), 30, "it is two seconds old");
    }
}
