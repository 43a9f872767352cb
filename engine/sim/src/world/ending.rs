//! The end of a run. Once nothing goes wrong any more, everything must arrive and all processes come together, in
//! bounded time; after that, no process may ask for anything.

use super::{Phase, What, World};
use crate::checkers::{Checkers, Completeness, Cost, Progress, is_lost};
use crate::demand::Demand;
use crate::history::Lineage;
use crate::options::Mode;
use crate::violation::{Verdict, Violation};
use bourdon_protocol::Counter;
use bourdon_wire::Rank;

/// How long everything may take to arrive once nothing goes wrong any more. The slowest plans need some seconds:
/// windows of sixteen datagrams, a round trip of milliseconds, hundreds of messages of several datagrams.
const DRAIN_NS: u64 = 30_000_000_000;
/// How often the world checks whether everything has arrived.
const LOOK_NS: u64 = 5_000_000;
/// When everything has arrived, requests for repair must cease: no process has sent a request for so long. Longer than
/// a few heartbeats and the longest retry.
const SETTLE_NS: u64 = 60_000_000;

impl World<'_> {
    pub(super) fn freeze(&mut self) {
        if self.mode == Mode::Safety {
            self.phase = Phase::Over;
            return;
        }
        self.calm_down();
        self.phase = Phase::Draining { until_ns: self.now_ns + DRAIN_NS };
        self.push(self.now_ns + LOOK_NS, What::Look);
    }

    pub(super) fn look(&mut self) -> Verdict {
        let members = usize::from(self.plan.members);
        let ended = self.demands.has(Demand::Decision).then(|| self.checkers.views.crashes());
        if is_lost(&self.nodes, members, self.checkers.views.latest(), ended) {
            self.checkers.views.is_lost_rightly(&self.history, &self.nodes[..members])?;
            (self.lost, self.phase) = (true, Phase::Over);
            return Ok(());
        }
        match self.phase {
            Phase::Draining { until_ns } => match self.drained() {
                Ok(()) => self.phase = Phase::Settling { until_ns, naks: 0, since_ns: self.now_ns },
                Err(missing) if self.now_ns >= until_ns => return Err(missing),
                Err(_) => {}
            },
            Phase::Settling { until_ns, naks, since_ns } => {
                let now_naks = self.count(Counter::NaksSent);
                if now_naks == naks && self.now_ns - since_ns >= SETTLE_NS {
                    self.phase = Phase::Over;
                } else if self.now_ns >= until_ns {
                    self.naks_when_done = now_naks - naks;
                    self.phase = Phase::Over;
                } else if now_naks != naks {
                    self.phase = Phase::Settling { until_ns, naks: now_naks, since_ns: self.now_ns };
                }
            }
            _ => {}
        }
        self.push(self.now_ns + LOOK_NS, What::Look);
        Ok(())
    }

    fn drained(&self) -> Verdict {
        let (members, latest) = (usize::from(self.plan.members), self.checkers.views.latest());
        Progress { nodes: &self.nodes, members, latest }.check()?;
        let wants = |node: &crate::node::Node| node.is_alive() && node.quota + node.wanted > 0;
        if let Some(member) = self.nodes.iter().position(wants) {
            return Err(Violation::new("completeness", format!("member {member} has messages left to publish")));
        }
        self.observers_follow()?;
        if let Some(client) = self.clients.iter().position(|client| client.is_busy()) {
            return Err(Violation::new("completeness", format!("client {client} has messages left to publish")));
        }
        self.locks_are_settled()?;
        let datagrams = self.datagrams();
        let (plan, history, nodes) = (self.plan, &self.history, &self.nodes[..]);
        Completeness { plan, history, nodes, datagrams: datagrams.as_deref() }.check()
    }

    /// Whether every observer follows the group as it is since the last restart.
    fn observers_follow(&self) -> Verdict {
        let observers = self.nodes.iter().skip(usize::from(self.plan.members)).filter(|node| node.process.is_some());
        let mut lineages = observers.map(|node| &self.history.lineages[node.lineage]);
        match lineages.find(|lineage| lineage.generation != self.generation) {
            Some(Lineage { process, generation, .. }) => {
                let last = self.generation;
                let detail =
                    format!("observer {process} follows generation {generation} of the group; the last is {last}");
                Err(Violation::new("instance", detail))
            }
            None => Ok(()),
        }
    }

    /// By member: datagrams of its stream, where there has been one view only, and no member ever went.
    fn datagrams(&self) -> Option<Vec<u64>> {
        let is_whole = self.network.faults.recovery == 0; // no process has counted in an earlier instance
        let only = is_whole && self.checkers.views.latest().is_some_and(|latest| latest.view.epoch.0 == 1);
        let members = self.nodes.iter().take(usize::from(self.plan.members));
        let received =
            members.enumerate().map(|(rank, node)| Some(node.process.as_ref()?.received(Rank(rank as u16)).0));
        received.collect::<Option<Vec<_>>>().filter(|_| only)
    }

    pub(super) fn count(&self, counter: Counter) -> u64 {
        let processes = self.nodes.iter().filter_map(|node| node.process.as_ref());
        processes.map(|process| process.counters().get(counter)).sum()
    }

    pub(super) fn end(&self) -> Verdict {
        if !self.lost {
            let ends_early = self.mode == Mode::Safety;
            self.instances
                .end(ends_early, |generation| self.past.get(generation as usize).unwrap_or(&self.checkers))?;
        }
        if self.mode != Mode::Liveness {
            self.checkers.end(&self.history)?;
            if !self.lost {
                let members = &self.nodes[..usize::from(self.plan.members)];
                self.checkers.observers.end(&self.history, members, &self.checkers.views)?;
            }
        }
        let (processes, naks_when_done) = (self.nodes.len() as u64, self.naks_when_done);
        let Some(datagrams) = self.datagrams() else {
            // What is asked of dead members, and fetched of past views, is not in proportion to anything.
            return Checkers::cost(&Cost { processes, naks_when_done, ..Cost::default() });
        };
        let fetched: u64 = datagrams.iter().sum::<u64>() * self.plan.observers.len() as u64;
        let trouble = self.network.trouble.iter().sum::<u64>()
            + self.count(Counter::DiscardedWindow)
            // What came before its receiver was in the view, the only one.
            + self.nodes.iter().map(|node| node.data_refused).sum::<u64>()
            + self.idle_trouble
            + fetched;
        let (naks, repairs) = (self.count(Counter::NaksSent), self.count(Counter::RepairsSent));
        Checkers::cost(&Cost { processes, naks, repairs, trouble, naks_when_done })
    }
}
