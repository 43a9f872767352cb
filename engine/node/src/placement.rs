//! Where a thread runs and how precisely it wakes.
//!
//! Left to the scheduler, a thread moves between cores and loses its caches; and the kernel may
//! end a timed sleep 50 µs late, to save power by waking several threads at once, which is fifty times the cost of the
//! work that is due. So the data agent is pinned if a core is named, and asks for timers that are as exact as they get.
//!
//! Pinning to a core that does not exist must not pass silently: the thread would run anywhere.
//!
//! Which cores those are, the user names (`threads.core`) or the host's topology decides (`threads.pin`,
//! `topology.rs`).
//!
//! The control thread has to share the cores that are left, and must not interrupt a data agent.
//!
//! Source: sched_setaffinity(2), PR_SET_TIMERSLACK(2const), sched(7) on `SCHED_BATCH`.

mod topology;

use crate::config::{IdleStrategy, ThreadSettings};
use core_affinity::CoreId;
use std::num::NonZeroU64;
use topology::{Choice, Topology, choose};

/// Why a thread can't be put where it should run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PlacementError {
    /// `threads.core` names a core that this process may not use: choose one of those that it may.
    #[error("threads.core is {core}, but this process may use cores {usable:?} only: choose one of them")]
    NoSuchCore {
        /// The core that was named.
        core: usize,
        /// Those that this process may use.
        usable: Vec<usize>,
    },
    /// The data agents need more cores from `threads.core` on than there are: use fewer agents or an earlier core.
    #[error(
        "threads.core is {first}, so {agents} data agents (threads.data_agents) take cores {first} to {}, but this \
             process may use cores {usable:?} only: use fewer agents, another core, or leave threads.core out",
        first + agents - 1
    )]
    TooFewCores {
        /// `threads.core`.
        first: usize,
        /// `threads.data_agents`.
        agents: usize,
        /// The cores that this process may use.
        usable: Vec<usize>,
    },
    /// The kernel did not pin a thread: leave `threads.core` out.
    #[error("the kernel refused to pin a thread to core {core}: leave threads.core out to run unpinned")]
    Refused {
        /// The core.
        core: usize,
    },
}

/// Where the data agents of a node run, and what they do while nothing comes.
#[derive(Clone, Debug)]
pub(crate) struct Places {
    /// By agent; empty if none is pinned.
    cores: Vec<usize>,
    pub(crate) idle: IdleStrategy,
}

impl Places {
    /// By these settings, on this host.
    ///
    /// # Errors
    /// If the settings name a core that this process may not use.
    pub(crate) fn of(settings: &ThreadSettings) -> Result<Self, PlacementError> {
        let agents = settings.data_agents;
        let choice = || choose(&Topology::of_host(&usable_cores()), agents);
        let Choice { processors: cores, idle } = match settings.core {
            Some(first) => {
                check_cores(first, agents)?;
                Choice { processors: (first..first + agents).collect(), ..choice() }
            }
            None if settings.pin => choice(),
            // An agent that the scheduler moves would spin beside the thread that it waits for.
            None => Choice { processors: Vec::new(), idle: IdleStrategy::Park },
        };
        Ok(Self { cores, idle: if settings.idle == IdleStrategy::Auto { idle } else { settings.idle } })
    }

    /// The core of an agent, if it is pinned.
    pub(crate) fn core(&self, agent: usize) -> Option<usize> {
        self.cores.get(agent).copied()
    }
}

/// The cores this process may use.
pub(crate) fn usable_cores() -> Vec<usize> {
    core_affinity::get_core_ids().unwrap_or_default().into_iter().map(|core| core.id).collect()
}

/// Whether this process may use a core for each data agent, from this one on.
///
/// # Errors
/// If there is no such core for this process.
pub(crate) fn check_cores(first: usize, agents: usize) -> Result<(), PlacementError> {
    let usable = usable_cores();
    if !usable.contains(&first) {
        return Err(PlacementError::NoSuchCore { core: first, usable });
    }
    let all_usable = (first..first + agents).all(|core| usable.contains(&core));
    if all_usable { Ok(()) } else { Err(PlacementError::TooFewCores { first, agents, usable }) }
}

/// Prepares the calling thread to be an agent: exact timers, and pinned to `core` if one is given.
///
/// # Errors
/// If there is no such core for this process, or the kernel refuses it.
pub(crate) fn place_current_thread(core: Option<usize>) -> Result<(), PlacementError> {
    // One nanosecond: zero would mean the default. A kernel that refuses leaves timers late, not wrong.
    let _ = rustix::thread::set_current_timer_slack(NonZeroU64::new(1));
    let Some(core) = core else { return Ok(()) };
    let usable = usable_cores();
    if !usable.contains(&core) {
        return Err(PlacementError::NoSuchCore { core, usable });
    }
    if core_affinity::set_for_current(CoreId { id: core }) { Ok(()) } else { Err(PlacementError::Refused { core }) }
}

/// Lets the calling thread take no core from a thread that runs: when it wakes it waits for its turn, and has its share
/// of the cores all the same. On a host with fewer cores than threads, a control thread that wakes 10,000 times a
/// second for locks would otherwise interrupt a data agent as often.
pub(crate) fn yield_to_agents() {
    let no_priority = libc::sched_param { sched_priority: 0 };
    // SAFETY: the call reads the parameter, which lives until it returns, and changes how this thread is scheduled, no
    // memory. A kernel or a sandbox that refuses leaves the thread as it was.
    #[allow(unsafe_code)]
    let _ = unsafe { libc::sched_setscheduler(0, libc::SCHED_BATCH, &no_priority) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_is_pinned_and_its_timers_are_exact() {
        std::thread::spawn(|| {
            let core = *usable_cores().last().expect("this process runs somewhere");
            place_current_thread(Some(core)).expect("a usable core can be used");
            assert_eq!(usable_cores(), [core]);
            assert_eq!(rustix::thread::current_timer_slack().expect("always allowed"), 1);
        })
        .join()
        .expect("the thread passes");
    }

    #[test]
    fn a_thread_that_yields_to_agents_is_scheduled_in_batches() {
        std::thread::spawn(|| {
            yield_to_agents();
            let stat = std::fs::read_to_string("/proc/thread-self/stat").expect("it is there");
            // proc(5): the 41st field, and the 39th behind the name.
            let policy = stat.rsplit_once(')').and_then(|(_, fields)| fields.split_whitespace().nth(38));
            assert_eq!(policy, Some(&*libc::SCHED_BATCH.to_string()));
        })
        .join()
        .expect("the thread passes");
    }

    #[test]
    fn a_core_that_is_not_there_is_refused_by_name() {
        let refused = place_current_thread(Some(100_000)).expect_err("no host has so many");
        assert!(refused.to_string().contains("threads.core is 100000"), "{refused}");
    }
}
