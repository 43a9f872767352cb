//! Which cores the data agents of a node take, by what the host has.
//!
//! Two threads of one physical core share its execution units; two agents there are hardly faster than one. Agents on
//! two sockets send each cache line that they share across the sockets' link. An agent that spins on the only core
//! starves the control thread and the application, and one that spins beyond its cgroup's quota is stopped for the rest
//! of each period. So the choice is made from the topology, by a function without a host behind it: [`choose`].
//!
//! Rules:
//! 1. One agent a physical core; of its threads the first.
//! 2. The agents share a socket where one has cores enough. Of several such sockets it is the last: interrupts and
//!    other processes tend to be on the first.
//! 3. The first physical core of the host is left to others where there is a choice.
//! 4. Agents spin if a physical core is left beside them and the quota allows all that. Where agents take all cores,
//!    they back off. Where there are too few cores, or the quota is smaller than the agents, they are not pinned, and
//!    park.
//!
//! Source: sysfs-devices-system-cpu (`topology/`), cgroup-v2 (`cpu.max`).

use crate::config::IdleStrategy;
use std::collections::BTreeMap;
use std::path::Path;

/// A processor, as the scheduler counts them: a thread of a physical core.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Processor {
    /// Its number, as in `threads.core`.
    pub(crate) id: usize,
    /// Its physical core's number in its socket.
    pub(crate) core: usize,
    pub(crate) socket: usize,
}

/// What this process may use of a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Topology {
    pub(crate) processors: Vec<Processor>,
    /// The cgroup's quota, in thousandths of a processor, if it has one.
    pub(crate) quota_milli: Option<u64>,
}

/// Where the agents run, and what they do while nothing comes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Choice {
    /// By agent: the processor that it is pinned to. Empty: none is pinned.
    pub(crate) processors: Vec<usize>,
    pub(crate) idle: IdleStrategy,
}

impl Topology {
    /// Of this host, for this process: the processors of its affinity mask, and the quota of its cgroup. A processor
    /// whose topology the kernel does not show counts as a core of its own.
    pub(crate) fn of_host(usable: &[usize]) -> Self {
        let processors = usable.iter().map(|id| {
            let number = |name: &str| {
                let path = format!("/sys/devices/system/cpu/cpu{id}/topology/{name}");
                std::fs::read_to_string(path).ok().and_then(|text| text.trim().parse().ok())
            };
            let (core, socket) = (number("core_id").unwrap_or(*id), number("physical_package_id").unwrap_or(0));
            Processor { id: *id, core, socket }
        });
        Self { processors: processors.collect(), quota_milli: quota_milli(Path::new("/sys/fs/cgroup")) }
    }
}

/// The smallest quota of this process's cgroup and those above it.
fn quota_milli(root: &Path) -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    let own = text.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let folders = Path::new(own).ancestors().map(|folder| root.join(folder));
    folders.filter_map(|folder| parse_quota(&std::fs::read_to_string(folder.join("cpu.max")).ok()?)).min()
}

/// The quota that `cpu.max` holds: `max` or microseconds, and the period.
fn parse_quota(text: &str) -> Option<u64> {
    let mut words = text.split_whitespace().map(str::parse::<u64>);
    let (quota_us, period_us) = (words.next()?.ok()?, words.next()?.ok()?);
    quota_us.checked_mul(1000)?.checked_div(period_us)
}

/// The processors for so many agents: see the rules above.
pub(crate) fn choose(topology: &Topology, agents: usize) -> Choice {
    let unpinned = Choice { processors: Vec::new(), idle: IdleStrategy::Park };
    // By socket: the first usable thread of each physical core, in the order of their numbers.
    let mut sockets: BTreeMap<usize, BTreeMap<usize, usize>> = BTreeMap::new();
    for processor in &topology.processors {
        let first = sockets.entry(processor.socket).or_default().entry(processor.core).or_insert(processor.id);
        *first = processor.id.min(*first);
    }
    let cores: usize = sockets.values().map(BTreeMap::len).sum();
    let quota_milli = topology.quota_milli.unwrap_or(u64::MAX);
    let needed_milli = |processors: usize| 1000 * processors as u64;
    if agents == 0 || cores < agents || cores == 1 || quota_milli < needed_milli(agents) {
        return unpinned;
    }
    let host_first = sockets.values().flat_map(BTreeMap::values).min().copied();
    // The last comes first: what is left over is at the host's beginning.
    let ids = |socket: &BTreeMap<usize, usize>| {
        let mut ids: Vec<usize> = socket.values().copied().collect();
        ids.sort_unstable_by_key(|id| (Some(*id) == host_first, *id));
        ids
    };
    let has_room = |socket: &&BTreeMap<usize, usize>| {
        let is_first = socket.values().any(|id| Some(*id) == host_first);
        socket.len() >= agents + usize::from(is_first && cores > agents)
    };
    let mut processors = match sockets.values().rev().find(has_room) {
        Some(socket) => ids(socket),
        None => {
            let mut all: Vec<_> = sockets.values().rev().flat_map(ids).collect();
            all.sort_by_key(|id| Some(*id) == host_first);
            all
        }
    };
    processors.truncate(agents);
    let has_spare = cores > agents && quota_milli >= needed_milli(agents + 1);
    Choice { processors, idle: if has_spare { IdleStrategy::Spin } else { IdleStrategy::Backoff } }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A host: threads of a core have numbers that lie all cores apart, as Linux numbers them.
    fn host(sockets: usize, cores: usize, threads: usize) -> Topology {
        let all = sockets * cores;
        let processor = |id: usize| Processor { id, core: id % all % cores, socket: id % all / cores };
        Topology { processors: (0..all * threads).map(processor).collect(), quota_milli: None }
    }

    fn chosen(topology: &Topology, agents: usize) -> (Vec<usize>, IdleStrategy) {
        let choice = choose(topology, agents);
        (choice.processors, choice.idle)
    }

    #[test]
    fn hosts_that_people_have() {
        use IdleStrategy::{Backoff, Park, Spin};
        assert_eq!(chosen(&host(1, 1, 1), 1), (vec![], Park), "the application would starve");
        assert_eq!(chosen(&host(1, 1, 2), 1), (vec![], Park), "two threads are one core");
        assert_eq!(chosen(&host(1, 2, 1), 1), (vec![1], Spin));
        assert_eq!(chosen(&host(1, 2, 1), 2), (vec![1, 0], Backoff));
        assert_eq!(chosen(&host(1, 4, 2), 3), (vec![1, 2, 3], Spin));
        assert_eq!(chosen(&host(1, 4, 2), 5), (vec![], Park));
        assert_eq!(chosen(&host(2, 8, 2), 8), (vec![8, 9, 10, 11, 12, 13, 14, 15], Spin), "a socket");
        assert_eq!(chosen(&host(2, 2, 1), 3), (vec![2, 3, 1], Spin), "no socket is large enough");
        let container = Topology { quota_milli: Some(1500), ..host(1, 8, 1) };
        assert_eq!(chosen(&container, 1), (vec![1], Backoff), "it would be stopped for a part of each period");
        assert_eq!(chosen(&container, 2), (vec![], Park));
        // An affinity mask with threads of two cores only, the first of which is not the host's.
        let mask = |topology: Topology, usable: &[usize]| Topology {
            processors: topology.processors.into_iter().filter(|processor| usable.contains(&processor.id)).collect(),
            quota_milli: None,
        };
        assert_eq!(chosen(&mask(host(1, 4, 2), &[2, 6, 7]), 1), (vec![7], Spin));
    }

    #[test]
    fn the_rules_hold_on_each_host_of_up_to_64_cores() {
        let quotas = [None, Some(500), Some(1_000), Some(4_000), Some(64_000)];
        for (sockets, cores, threads) in [1, 2].into_iter().flat_map(|sockets| {
            let threads = move |cores| [1, 2].map(|threads| (sockets, cores, threads));
            (1..=64 / sockets).flat_map(threads)
        }) {
            for (agents, quota_milli) in (1..=66).flat_map(|agents| quotas.map(|quota| (agents, quota))) {
                let topology = Topology { quota_milli, ..host(sockets, cores, threads) };
                let (all, choice) = (sockets * cores, choose(&topology, agents));
                let context = format!("{sockets} x {cores} x {threads}, {agents} agents, {quota_milli:?}: {choice:?}");
                let quota = quota_milli.unwrap_or(u64::MAX);
                let can_pin = all >= agents && all > 1 && quota >= 1000 * agents as u64;
                if !can_pin {
                    assert_eq!((choice.processors.len(), choice.idle), (0, IdleStrategy::Park), "{context}");
                    continue;
                }
                let spins = all > agents && quota >= 1000 * (agents as u64 + 1);
                assert_eq!(choice.idle == IdleStrategy::Spin, spins, "{context}");
                let used: Vec<_> = choice
                    .processors
                    .iter()
                    .map(|id| topology.processors.iter().find(|it| it.id == *id).expect("it may be used"))
                    .collect();
                let mut physical: Vec<_> = used.iter().map(|it| (it.socket, it.core)).collect();
                physical.sort_unstable();
                physical.dedup();
                assert_eq!(physical.len(), agents, "a physical core each: {context}");
                assert!(all == agents || !choice.processors.contains(&0), "the first core is left: {context}");
                let fits = cores >= agents && (sockets > 1 || cores > agents || all == agents);
                assert!(!fits || used.iter().all(|it| it.socket == used[0].socket), "one socket: {context}");
            }
        }
    }

    #[test]
    fn a_quota_is_read_and_anything_else_is_none() {
        for (text, quota) in
            [("max 100000\n", None), ("150000 100000\n", Some(1500)), ("5 0", None), ("", None), ("-1 3", None)]
        {
            assert_eq!(parse_quota(text), quota, "{text:?}");
        }
    }

    #[test]
    fn this_host_is_read() {
        let usable = super::super::usable_cores();
        let topology = Topology::of_host(&usable);
        assert_eq!(topology.processors.iter().map(|it| it.id).collect::<Vec<_>>(), usable);
    }
}
