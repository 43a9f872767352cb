//! Visits every state, breadth first, until one breaks a property or there are no more.

use crate::group::{Action, Group, OUT_OF_TIME};
use crate::properties::Property;
use crate::state::State;
use stateright::report::{ReportData, ReportDiscovery, Reporter};
use stateright::{Checker, HasDiscoveries, Model};
use std::collections::BTreeMap;
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
    /// The property that did not hold, and the trace to it.
    pub broken: Option<(Property, Vec<Action>)>,
}

/// Reports at intervals how far the search came.
struct Talk(Instant);

impl Reporter<Group> for Talk {
    fn report_checking(&mut self, data: ReportData) {
        if self.0.elapsed() >= Duration::from_secs(1) {
            self.0 = Instant::now();
            eprintln!("{:>11} states, {:>2} steps deep", data.unique_states, data.max_depth.saturating_sub(1));
        }
    }

    fn report_discoveries(&mut self, _: &Group, _: BTreeMap<&'static str, ReportDiscovery<Group>>) {}

    fn delay(&self) -> Duration {
        Duration::from_millis(50)
    }
}

/// Searches a group; with `talk` it reports its progress.
pub fn search(group: &Group, limit: Duration, talk: bool) -> Search {
    let began = Instant::now();
    let bounded = Group { until: Some(began + limit), ..group.clone() };
    let checker = bounded.checker().finish_when(ends()).spawn_bfs();
    let checker = if talk { checker.join_and_report(&mut Talk(began)) } else { checker.join() };
    let broken = failure(&checker).map(|found| shortest(group, found));
    Search {
        generated: checker.state_count(),
        states: checker.unique_state_count(),
        depth: checker.max_depth().saturating_sub(1),
        exhausted: broken.is_none() && checker.discovery(OUT_OF_TIME).is_none(),
        broken,
    }
}

/// What ends a search early.
fn ends() -> HasDiscoveries {
    let names = Property::ALL.iter().map(|property| property.name());
    HasDiscoveries::AnyOf(names.chain([OUT_OF_TIME]).collect())
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
