//! The judges: one family of invariants a file, and not a line shared with the protocol.
//!
//! A checker that uses the protocol's own bookkeeping agrees with the protocol's mistakes. So these keep their own: what
//! was published is what the applications published, what happened before what follows from what they had been shown.
//! The cheap ones judge every delivery and every step, so that a failure is found where it happens; completeness and the
//! cost of repair are judged when the run is over.

mod acknowledgement;
mod causal;
mod completeness;
mod fifo;
mod integrity;
mod memory;
mod repair;
mod total;
mod watermarks;
mod window;

pub(crate) use completeness::{Completeness, Start};
pub(crate) use integrity::Sent;
pub(crate) use repair::Cost;

use crate::history::History;
use crate::plan::{OrderPlan, Plan};
use bourdon_protocol::{Delivery, Process};

/// A broken invariant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Its name.
    pub invariant: &'static str,
    /// What was seen.
    pub detail: String,
}

impl Violation {
    pub(crate) fn new(invariant: &'static str, detail: impl Into<String>) -> Self {
        Self { invariant, detail: detail.into() }
    }
}

pub(crate) type Verdict = Result<(), Violation>;

/// Every invariant: its number in DESIGN §7, its name, and what it says.
pub const INVARIANTS: &[(&str, &str, &str)] = &[
    ("1, 2", integrity::NAME, "delivered at most once, only if sent, bytes as sent"),
    ("9", fifo::NAME, "a sender's messages in the order it sent them"),
    ("10", causal::NAME, "no message before what its sender had been shown when it sent it"),
    ("7, 8", total::NAME, "one message a number, the same at all, without gaps at members"),
    ("2, 7", completeness::NAME, "faults frozen, everything published is delivered everywhere or reported as a gap"),
    ("13", acknowledgement::NAME, "nobody is believed to have received what it has not"),
    ("14", watermarks::NAME, "watermarks never fall"),
    ("15", window::NAME, "no window is exceeded, nothing is forgotten before all have it"),
    ("22", repair::NAME, "requests and repairs in proportion to what was lost, none once all is well"),
    ("20", "steps", "a run takes a bounded number of steps"),
    ("23", memory::NAME, "queues stay within their bounds"),
];

/// All checkers of one run.
#[derive(Debug)]
pub(crate) struct Checkers {
    integrity: integrity::Integrity,
    fifo: Option<fifo::Fifo>,
    causal: Option<causal::Causal>,
    total: total::Total,
    watermarks: watermarks::Watermarks,
    window: window::Window,
    memory: memory::Memory,
}

impl Checkers {
    pub(crate) fn new(plan: &Plan) -> Self {
        let ordered = plan.order != OrderPlan::Unordered;
        let causal = matches!(plan.order, OrderPlan::Causal | OrderPlan::Total);
        Self {
            integrity: integrity::Integrity::default(),
            fifo: ordered.then(|| fifo::Fifo::new(plan)),
            causal: causal.then(|| causal::Causal::new(plan.members)),
            total: total::Total::new(plan),
            watermarks: watermarks::Watermarks::default(),
            window: window::Window::new(plan),
            memory: memory::Memory::new(plan),
        }
    }

    /// A client is about to send; what it sends may be published by a member at any time.
    pub(crate) fn client_sends(&mut self, sent: Sent) {
        self.integrity.client_sends(sent);
    }

    /// Judges one delivery, its place only for `safety`, and notes it.
    pub(crate) fn delivered(
        &mut self,
        history: &mut History,
        process: usize,
        delivery: &Delivery<'_>,
        safety: bool,
    ) -> Verdict {
        self.integrity.delivered(history, process, delivery)?;
        if safety {
            self.ordered(history, process, delivery)?;
        }
        history.deliver(process, delivery.sender.0, delivery.sequence.0);
        Ok(())
    }

    fn ordered(&mut self, history: &History, process: usize, delivery: &Delivery<'_>) -> Verdict {
        let (sender, sequence) = (delivery.sender.0, delivery.sequence.0);
        self.total.delivered(process, (sender, sequence), delivery.order.map(|order| order.0))?;
        if let Some(fifo) = &mut self.fifo {
            fifo.delivered(process, sender, sequence)?;
        }
        if let Some(causal) = &mut self.causal {
            causal.delivered(history, process, sender, sequence)?;
        }
        Ok(())
    }

    /// Judges a process that has just made a step.
    pub(crate) fn stepped(&mut self, processes: &[&Process], stepped: usize) -> Verdict {
        acknowledgement::stepped(processes, stepped)?;
        self.watermarks.stepped(processes, stepped)?;
        self.window.stepped(processes, stepped)?;
        self.memory.stepped(processes[stepped])
    }

    /// Judges what applications were shown, when the run is over.
    pub(crate) fn end(&self, history: &History, plan: &Plan) -> Verdict {
        self.integrity.end(history, plan)
    }

    /// Whether every client's message that the group allows was published, and no other.
    pub(crate) fn clients_done(&self, plan: &Plan) -> Verdict {
        self.integrity.clients_done(plan)
    }

    /// Judges what repair cost.
    pub(crate) fn cost(cost: &Cost) -> Verdict {
        repair::end(cost)
    }
}
