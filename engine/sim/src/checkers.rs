//! The checkers: one family of invariants a file. They share no line with the protocol.
//!
//! A checker that uses the protocol's own bookkeeping agrees with the protocol's mistakes. So the checkers keep their
//! own: what was published is what the applications published, what happened before what follows from what had been
//! delivered to them, and the members that decided follow from the members that had stopped. The cheap checkers judge
//! every delivery, every step and every view, so that a failure is found where it happens. Completeness and the cost of
//! repair are judged when the run is over. `docs/simulator.md`, "What is checked", lists their names and what each
//! requires.

mod acknowledgement;
mod agreement;
mod barrier;
mod causal;
mod clients;
mod completeness;
mod continuation;
mod election;
mod fifo;
mod instance;
mod integrity;
mod memory;
mod mutex;
mod observers;
mod path;
mod places;
mod progress;
mod quorum;
mod realtime;
mod relay;
mod repair;
mod snapshot;
mod total;
mod views;
mod watermarks;
mod window;

pub(crate) use completeness::Completeness;
pub(crate) use election::{Elections, Voter};
pub(crate) use instance::Instances;
pub(crate) use mutex::may_hold;
pub(crate) use path::Narrow;
pub(crate) use progress::{Progress, is_lost};
pub(crate) use repair::Cost;
pub(crate) use views::Installed;

use crate::demand::Demands;
use crate::history::{Delivered, Gap, History, Lineage};
use crate::plan::Plan;
use crate::violation::{Verdict, Violation};
use bourdon_protocol::{Member, Message, Order, Process, Standing, View};
use bourdon_wire::{Incarnation, Rank};

/// All checkers of one run.
#[derive(Debug)]
pub(crate) struct Checkers {
    ordered: bool,
    /// Two members may carry a client's message; then one copy is passed over. So are commands of replicated locks.
    skips: bool,
    /// Messages may be lost, and each loss is reported.
    lossy: bool,
    /// Coordinators run beside their processes.
    apart: bool,
    causal: Option<causal::Causal>,
    realtime: realtime::RealTime,
    relay: relay::Relay,
    total: total::Total,
    clients: clients::Clients,
    pub(crate) views: views::Views,
    agreement: agreement::Agreement,
    pub(crate) observers: observers::Observers,
    watermarks: watermarks::Watermarks,
    window: window::Window,
    memory: memory::Memory,
    pub(crate) mutexes: mutex::Mutexes,
    pub(crate) elections: Elections,
}

impl Checkers {
    pub(crate) fn new(plan: &Plan, demands: Demands) -> Self {
        let causal = matches!(plan.order, Order::Causal | Order::Total);
        Self {
            ordered: plan.order != Order::Unordered,
            skips: plan.clients > 0 && !plan.is_calm() || plan.is_lossy() || plan.has_commands(),
            lossy: plan.is_lossy(),
            apart: plan.hand_over.is_some(),
            causal: causal.then(|| causal::Causal::new(plan.is_lossy())),
            realtime: realtime::RealTime::new(plan),
            relay: relay::Relay::new(plan.relay),
            total: total::Total::new(plan),
            clients: clients::Clients::new(plan),
            views: views::Views::new(plan, demands),
            agreement: agreement::Agreement::new(plan),
            observers: observers::Observers::new(plan, demands),
            watermarks: watermarks::Watermarks::default(),
            window: window::Window::new(plan),
            memory: memory::Memory::new(plan),
            mutexes: mutex::Mutexes::new(plan, demands),
            elections: Elections::default(),
        }
    }

    /// Judges one delivery and records it; its place is judged only for `safety`.
    pub(crate) fn delivered(
        &mut self,
        history: &mut History,
        lineage: usize,
        delivery: &Message<'_>,
        safety: bool,
    ) -> Verdict {
        let shown = integrity::delivered(history, lineage, delivery)?;
        self.observers.delivered(&history.lineages[lineage], shown.id, delivery.epoch.0);
        if safety {
            if !self.lossy {
                self.agreement.delivered(history, shown.id, delivery.epoch.0)?;
            }
            places::delivered(history, lineage, &shown, delivery.epoch.0)?;
            barrier::delivered(history, lineage, shown.id, delivery.barrier)?;
            if delivery.barrier.is_none() {
                self.total.delivered(history, lineage, shown.id, delivery, self.skips)?;
                self.clients.delivered(history, lineage, shown.id, delivery)?;
                if self.ordered {
                    fifo::delivered(history, lineage, &shown, self.skips)?;
                }
            }
            if let Some(causal) = &mut self.causal {
                causal.delivered(history, lineage, shown.id)?;
            }
        }
        let after = &mut history.lineages[lineage];
        // Two members may carry a client's message and send it at different times.
        if !delivery.late && delivery.barrier.is_none() && delivery.client.is_none() {
            after.timely.push((delivery.epoch.0, shown.id));
        }
        if delivery.barrier.is_none() {
            let next = &mut after.next[usize::from(shown.sender)];
            *next = (*next).max(shown.sequence + 1);
            after.order = delivery.order.filter(|_| self.total.applies()).map_or(after.order, |order| order.0 + 1);
        }
        history.deliver(lineage, shown);
        Ok(())
    }

    /// A process of these checkers' generation, which a later one follows, delivered a message: a client that is in
    /// neither of the two groups keeps its order in both.
    pub(crate) fn delivered_by_zombie(
        &mut self,
        history: &mut History,
        lineage: usize,
        delivery: &Message<'_>,
    ) -> Verdict {
        match history.resolve(delivery) {
            Ok(id) => self.clients.delivered(history, lineage, id, delivery),
            Err(_) => Ok(()), // another checker judges that
        }
    }

    /// Judges a view that a process has just entered. `moved`: it comes from the view before, and all of that was
    /// delivered.
    pub(crate) fn installed(
        &mut self,
        history: &History,
        lineage: usize,
        process: &Process,
        moved: bool,
        safety: bool,
    ) -> Verdict {
        self.views.installed(&history.lineages[lineage], process, moved, safety)?;
        let shown = &history.lineages[lineage];
        let epoch = process.view().epoch.0;
        if safety && moved && epoch > 1 && shown.whole && !self.lossy {
            self.agreement.closed(history, shown, epoch - 1)?;
        }
        if moved && epoch > 1 && process.standing() == Standing::Member && !self.apart {
            let own = Member { rank: Rank(shown.process as u16), incarnation: process.incarnation() };
            self.mutexes.closed(&self.views, own, process.lock_grants(), epoch - 1)?;
        }
        Ok(())
    }

    /// Judges a report to a process that a barrier is complete; `others` are the members that share its view.
    pub(crate) fn synced(
        &self,
        history: &History,
        lineage: usize,
        others: impl Iterator<Item = usize>,
        view: &View,
    ) -> Verdict {
        // Where messages may be lost, what a sender that is gone had sent is not reported as lost.
        let is_gone = |publisher: Option<(u16, u32)>| {
            self.lossy
                && publisher
                    .is_some_and(|(rank, incarnation)| view.incarnation(Rank(rank)) != Some(Incarnation(incarnation)))
        };
        barrier::complete(history, lineage, others, is_gone)
    }

    /// Judges what a process's application took over from another's.
    pub(crate) fn resumed(lineage: &Lineage, process: &Process) -> Verdict {
        snapshot::resumed(lineage, process)
    }

    /// Judges a process that has just made a step.
    pub(crate) fn stepped(&mut self, processes: &[Option<&Process>], stepped: usize) -> Verdict {
        let Some(process) = processes[stepped] else { return Ok(()) };
        self.views.stepped(process);
        self.observers.stepped(process);
        acknowledgement::stepped(processes, process)?;
        self.watermarks.stepped(process, stepped, processes.len())?;
        self.window.stepped(processes, process)?;
        self.memory.stepped(process)
    }

    /// A process is back with all that it had reported to others.
    pub(crate) fn restored(&mut self, index: usize, member: Member) {
        self.views.restored(member);
        self.watermarks.restored(index);
    }

    /// A process and its application are gone.
    pub(crate) fn crashed(&mut self, index: usize) {
        self.mutexes.crashed(index);
        self.elections.crashed(index);
    }

    /// A process sent a datagram to all.
    pub(crate) fn offered(&mut self, index: usize, datagram: &[u8]) {
        self.relay.offered(index, datagram);
    }

    /// A process, at this lineage, reports messages as lost.
    pub(crate) fn lost(&self, lineage: &Lineage, gap: &Gap) -> Verdict {
        if self.ordered { places::lost(lineage, gap) } else { Ok(()) }
    }

    /// An observer, at this lineage, reports messages as void.
    pub(crate) fn retracted(&mut self, (index, lineage): (usize, &Lineage), void: Gap) {
        self.observers.retracted(lineage, void);
        self.causal.iter_mut().for_each(|causal| causal.retracted(index));
    }

    /// Whether a process has entered this generation's first view.
    pub(crate) fn has_formed(&self) -> bool {
        self.views.entered_first().next().is_some()
    }

    /// Judges a process that has just sent all it had to send.
    pub(crate) fn sent(&self, process: &Process, index: usize) -> Verdict {
        self.relay.stepped(process, index)
    }

    /// Judges what was delivered to the applications, when the run is over.
    pub(crate) fn end(&self, history: &History) -> Verdict {
        self.realtime.end(history)?;
        self.clients.end(history)?;
        if self.ordered { integrity::end(history) } else { Ok(()) }
    }

    /// Judges a group after some of its paths have carried no long datagrams for seconds.
    pub(crate) fn path(narrow: &Narrow) -> Verdict {
        path::narrowed(narrow)
    }

    /// Judges what repair cost.
    pub(crate) fn cost(cost: &Cost) -> Verdict {
        repair::end(cost)
    }
}

/// Distinguishes one delivery from another in a report.
fn describe(history: &History, shown: &Delivered) -> String {
    format!("{} (as {}:{})", history.name(shown.id), shown.sender, shown.sequence)
}
