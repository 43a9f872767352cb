//! Joins a group of the measurement, and waits until it has formed.

use crate::Failure;
use crate::worker::{Spec, WorkerReport, report};
use bourdon::settings::Role;
use bourdon::{Event, Node};
use std::time::{Duration, Instant};

/// An answer later than this is lost.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);

/// Joins and waits until every member has been heard.
pub(crate) fn join(spec: &Spec, role: Role, rank: u16) -> Result<Node, Failure> {
    let settings = spec.node(role, rank);
    let mut node = Node::join(&settings).map_err(|error| Failure::Unusable(error.to_string()))?;
    if role == Role::Member && rank > 0 {
        report(&WorkerReport::Ready); // the others wait for this one, and this one for them
    }
    let deadline = Instant::now() + PATIENCE;
    while !node.process().is_formed() {
        // Nothing of the view is delivered yet: a member that has formed sooner may have begun to publish.
        let limit = usize::from(node.process().view().members.is_empty());
        node.poll_at_most(limit, |_| {}).map_err(broken)?;
        while let Some(event) = node.poll_event() {
            if let Event::ConfigurationDiffers(rank) = event {
                return Err(Failure::Broken(format!("member {rank} is configured otherwise")));
            }
        }
        if Instant::now() > deadline {
            return Err(Failure::Unusable("the other member was not heard: does multicast work on lo?".into()));
        }
    }
    Ok(node)
}

pub(crate) fn broken(error: impl std::fmt::Display) -> Failure {
    Failure::Broken(error.to_string())
}
