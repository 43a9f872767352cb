//! Clients' messages in causal and total order: each where all deliver it, and in the client's own order.
//!
//! When a client changes members, the order may hold two copies of a message; all members pass over the second. An
//! observer that began between the copies must not deliver the second as the first. So, at an observer, a message that
//! members and the observer delivered is in a view and under a number at which a member delivered it.
//!
//! An observer that reported a gap may have lost the first copy with it, and an observer that begins with the oldest
//! datagrams that are retained does not know what came before them: the checker demands neither.

use super::{Verdict, Violation};
use crate::history::{History, Id};
use crate::plan::Plan;
use bourdon_protocol::{Message, Order, Start};
use std::collections::BTreeMap;

pub(super) const NAME: &str = "clients";

/// A view and an order number in it.
type Place = (u64, u64);

#[derive(Debug)]
pub(super) struct Clients {
    is_judged: bool,
    /// By process: whether it begins at one place in the order.
    live: Vec<bool>,
    /// By lineage and client: the lowest sequence that may come.
    next: BTreeMap<(usize, u64), u64>,
    /// Where members delivered clients' messages.
    places: BTreeMap<Id, Vec<Place>>,
    /// Where observers delivered them.
    observed: Vec<(usize, Id, Place)>,
}

impl Clients {
    pub(super) fn new(plan: &Plan) -> Self {
        let observers = plan.observers.iter().map(|observer| observer.start != Start::Oldest);
        Self {
            is_judged: plan.clients > 0 && !plan.is_lossy() && matches!(plan.order, Order::Causal | Order::Total),
            live: (0..plan.members).map(|_| true).chain(observers).collect(),
            next: BTreeMap::new(),
            places: BTreeMap::new(),
            observed: Vec::new(),
        }
    }

    pub(super) fn delivered(&mut self, history: &History, lineage: usize, id: Id, delivery: &Message<'_>) -> Verdict {
        let Some(tag) = delivery.client.filter(|_| self.is_judged) else { return Ok(()) };
        let shown = &history.lineages[lineage];
        let place = (delivery.epoch.0, delivery.order.map_or(0, |order| order.0));
        if shown.member {
            self.places.entry(id).or_default().push(place);
        } else {
            self.observed.push((lineage, id, place));
        }
        let next = self.next.entry((lineage, tag.client().0)).or_default();
        let (due, sequence) = (*next, tag.sequence().0);
        *next = due.max(sequence + 1);
        if sequence < due && self.live[shown.process] && shown.gaps.is_empty() {
            let (process, name) = (shown.process, history.name(id));
            let detail = format!("process {process} delivered {name} after the client's message {}", due - 1);
            return Err(Violation::new(NAME, detail));
        }
        Ok(())
    }

    /// Judges observers' places, when the run is over.
    pub(super) fn end(&self, history: &History) -> Verdict {
        for (lineage, id, place) in &self.observed {
            let shown = &history.lineages[*lineage];
            let Some(places) = self.places.get(id).filter(|places| !places.contains(place)) else { continue };
            if self.live[shown.process] && shown.gaps.is_empty() && shown.has(*id) {
                let (process, name) = (shown.process, history.name(*id));
                let detail = format!("observer {process} delivered {name} at {place:?}, the members at {places:?}");
                return Err(Violation::new(NAME, detail));
            }
        }
        Ok(())
    }
}
