//! Round trips through threaded nodes, for orientation: both ends hand over to an agent thread behind rings.
//!
//! Four threads need four cores; on fewer the idle strategy decides, so figures are quoted with it.

use crate::Failure;
use crate::worker::{Spec, WorkerReport, report};
use bourdon::settings::Role;
use bourdon::{Publication, PublishError, Rank, Subscription, ThreadedNode, TopicId};
use std::time::Duration;

const TOPIC: TopicId = TopicId(1);
/// The most messages that one poll takes.
const LIMIT: usize = 256;
/// How long one sleep lasts at most.
const SLEEP: Duration = Duration::from_millis(50);

fn broken(error: impl std::fmt::Display) -> Failure {
    Failure::Broken(error.to_string())
}

/// A member behind its own thread.
pub(crate) struct Threaded {
    _node: ThreadedNode,
    publication: Publication,
    subscription: Subscription,
    /// Whether the application's thread sleeps as well, or polls and yields.
    parks: bool,
}

impl Threaded {
    pub(crate) fn start(spec: &Spec, rank: u16) -> Result<Self, Failure> {
        let settings = spec.node(Role::Member, rank);
        let started = ThreadedNode::start(&settings).map_err(|error| Failure::Unusable(error.to_string()))?;
        let (node, publication, subscription) = started;
        Ok(Self { _node: node, publication, subscription, parks: spec.idle == crate::Idle::Park })
    }

    /// Publishes, trying again while the group forms or the ring is full.
    pub(crate) fn publish(&mut self, payload: &[u8]) -> Result<(), Failure> {
        loop {
            match self.publication.try_publish(TOPIC, payload) {
                Ok(()) => return Ok(()),
                Err(PublishError::RingFull { .. }) => std::thread::yield_now(),
                Err(error) => return Err(broken(error)),
            }
        }
    }

    /// Waits for the next messages of `sender`.
    pub(crate) fn receive(&mut self, sender: Rank, mut on_payload: impl FnMut(&[u8])) -> Result<(), Failure> {
        let mut found = false;
        while !found {
            let count = self.subscription.poll(LIMIT, |message| {
                if message.sender == sender {
                    found = true;
                    on_payload(message.payload);
                }
            });
            if count == 0 {
                if self.subscription.has_ended() {
                    return Err(broken("the node ended"));
                }
                if self.parks {
                    self.subscription.wait(SLEEP).map_err(broken)?;
                } else {
                    std::thread::yield_now();
                }
            }
        }
        Ok(())
    }
}

/// The far end: answers every message of member 0.
pub(crate) fn echo(spec: &Spec) -> Result<(), Failure> {
    let mut node = Threaded::start(spec, 1)?;
    report(&WorkerReport::Ready);
    loop {
        let mut answers = Vec::new();
        node.receive(Rank(0), |payload| answers.push(payload.to_vec()))?;
        for answer in &answers {
            node.publish(answer)?;
        }
    }
}
