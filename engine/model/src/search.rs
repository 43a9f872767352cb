//! Visits every state, breadth first, until one breaks a property or there are no more.

use crate::budget::{Budget, Spent};
use crate::group::{Action, Group, STOPPED};
use crate::properties::Property;
use crate::state::State;
use stateright::report::{ReportData, ReportDiscovery, Reporter};
use stateright::{Checker, HasDiscoveries, Model};
use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

/// The result.
#[derive(Debug)]
pub struct Search {
    /// How many states were generated, including those met before.
    pub generated: usize,
    /// How many different states there are.
    pub states: usize,
    /// How many steps the longest of the shortest ways has.
    pub depth: usize,
    /// Whether all states were visited.
    pub exhausted: bool,
    /// If not: what was used up before, unless a property did not hold.
    pub spent: Option<Spent>,
    /// The property that did not hold, and the trace to it.
    pub broken: Option<(Property, Vec<Action>)>,
}

/// Stops the search when its budget is spent, and reports at intervals how far it came.
struct Watch {
    budget: Budget,
    spent: Arc<OnceLock<Spent>>,
    /// When it last reported; none for a search that is silent.
    reported_at: Option<Instant>,
}

impl Reporter<Group> for Watch {
    fn report_checking(&mut self, data: ReportData) {
        if let Some(spent) = self.budget.spent() {
            self.spent.get_or_init(|| spent);
        }
        if let Some(reported_at) = &mut self.reported_at
            && reported_at.elapsed() >= Duration::from_secs(1)
        {
            *reported_at = Instant::now();
            eprintln!("{:>11} states, {:>2} steps deep", data.unique_states, data.max_depth.saturating_sub(1));
        }
    }

    fn report_discoveries(&mut self, _: &Group, _: BTreeMap<&'static str, ReportDiscovery<Group>>) {}

    fn delay(&self) -> Duration {
        Duration::from_millis(50)
    }
}

/// Searches a group; with `reports` it prints its progress.
pub fn search(group: &Group, budget: Budget, reports: bool) -> Search {
    let spent = Arc::<OnceLock<Spent>>::default();
    let bounded = Group { spent: Arc::clone(&spent), ..group.clone() };
    let mut watch = Watch { budget, spent, reported_at: reports.then(Instant::now) };
    let checker = bounded.checker().finish_when(ends()).spawn_bfs().join_and_report(&mut watch);
    let stopped = checker.discovery(STOPPED).is_some();
    let broken = failure(&checker).map(|found| shortest(group, found));
    Search {
        generated: checker.state_count(),
        states: checker.unique_state_count(),
        depth: checker.max_depth().saturating_sub(1),
        exhausted: broken.is_none() && !stopped,
        spent: watch.spent.get().copied().filter(|_| stopped),
        broken,
    }
}

/// What ends a search early.
fn ends() -> HasDiscoveries {
    let names = Property::ALL.iter().map(|property| property.name());
    HasDiscoveries::AnyOf(names.chain([STOPPED]).collect())
}

fn failure(checker: &impl Checker<Group>) -> Option<(Property, Vec<Action>)> {
    let found = Property::ALL.iter().filter_map(|property| {
        let path: stateright::Path<State, Action> = checker.discovery(property.name())?;
        Some((*property, path.into_actions()))
    });
    found.min_by_key(|(_, actions)| actions.len())
}

/// The search checks its finds in batches, so the first that it names need not be the nearest: search again below it.
fn shortest(group: &Group, mut found: (Property, Vec<Action>)) -> (Property, Vec<Action>) {
    loop {
        // The first state is at depth 1, and states at the bound itself are left out.
        let below = found.1.len() + 1;
        let checker = group.clone().checker().target_max_depth(below).finish_when(ends());
        match failure(&checker.spawn_bfs().join()) {
            Some(nearer) if nearer.1.len() < found.1.len() => found = nearer,
            _ => return found,
        }
    }
}
