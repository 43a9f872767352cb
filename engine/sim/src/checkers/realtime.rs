//! Real time: messages in the order in which they were sent, except those that are flagged.
//!
//! Two things are promised, and both are judged without the protocol's own stamps. First, what was delivered in time
//! has one order: two applications that both delivered two messages in time delivered them in the same order. Second,
//! that is the order of sending by the world's clock, wherever two messages of one view were sent further apart than
//! the sum of both senders' clock bounds.
//!
//! The second is not required in runs in which a clock jumps: no bound holds for that.

use super::{Verdict, Violation};
use crate::history::{History, Id, Lineage};
use crate::plan::{Happening, Plan};
use bourdon_protocol::Order;

pub(super) const NAME: &str = "realtime";

/// Publishing and sealing are one step, and a step is one moment; clocks are read in whole nanoseconds.
const SLACK_NS: u64 = 2;

#[derive(Debug)]
pub(super) struct RealTime {
    applies: bool,
    clocks_hold: bool,
}

impl RealTime {
    pub(super) fn new(plan: &Plan) -> Self {
        let jumps = plan.events.iter().any(|event| event.what == Happening::ClockJump);
        Self { applies: plan.order == Order::RealTime, clocks_hold: !jumps }
    }

    pub(super) fn end(&self, history: &History) -> Verdict {
        if !self.applies {
            return Ok(());
        }
        for lineage in history.lineages.iter().filter(|_| self.clocks_hold) {
            in_order_of_sending(history, lineage)?;
        }
        for (index, first) in history.lineages.iter().enumerate() {
            history.lineages[..index].iter().try_for_each(|second| same_order(history, first, second))?;
        }
        Ok(())
    }
}

/// What was delivered in time, view by view.
fn timely(lineage: &Lineage) -> impl Iterator<Item = (u64, Id)> {
    lineage.timely.iter().copied()
}

fn in_order_of_sending(history: &History, lineage: &Lineage) -> Verdict {
    // The latest earliest-possible moment of sending so far, in this view.
    let (mut view, mut latest) = (0, (0, 0));
    for (epoch, id) in timely(lineage) {
        let message = &history.messages[id as usize];
        // A message published again after a view change was sent again.
        let Some((_, bound_ns)) = message.sent.filter(|(sent_in, _)| *sent_in == epoch) else { continue };
        if epoch != view {
            (view, latest) = (epoch, (0, 0));
        }
        if message.at_ns + bound_ns + SLACK_NS < latest.0 {
            let (process, name, before) = (lineage.process, history.name(id), history.name(latest.1));
            let detail = format!(
                "process {process} delivered {name}, sent at {} ± {bound_ns}, as timely after {before}, sent at ≥ {}",
                message.at_ns, latest.0
            );
            return Err(Violation::new(NAME, detail));
        }
        latest = latest.max((message.at_ns.saturating_sub(bound_ns), id));
    }
    Ok(())
}

fn same_order(history: &History, first: &Lineage, second: &Lineage) -> Verdict {
    let mut places = vec![None; history.messages.len()];
    for (place, (_, id)) in timely(second).enumerate() {
        places[id as usize] = Some(place);
    }
    let mut last = None;
    for (_, id) in timely(first) {
        let Some(place) = places[id as usize] else { continue };
        if let Some((before, earlier)) = last.filter(|(before, _)| place < *before) {
            let (one, other) = (first.process, second.process);
            let _ = before;
            let (name, earlier) = (history.name(id), history.name(earlier));
            let detail = format!("{name} was delivered after {earlier} at process {one} and before it at {other}");
            return Err(Violation::new(NAME, detail));
        }
        last = Some((place, id));
    }
    Ok(())
}
