//! Bourdon as a link, for orientation: both ends hand over to an agent thread behind rings.
//!
//! Four threads need four cores; on fewer the idle strategy decides, so figures are quoted with it.

use crate::storm::{NodeFigures, RunningStorm, Storm};
use crate::worker::Spec;
use crate::{Failure, Idle, Link, Stage, broken, inline};
use bourdon::id::{Rank, TopicId};
use bourdon::settings::Role;
use bourdon::{Node, Publication, Subscribe, Subscription, Topic};
use std::sync::Arc;
use std::time::Duration;

const TOPIC: Topic = Topic::of_id(TopicId(1));
/// The most messages that one poll takes.
const LIMIT: usize = 256;
/// How long one sleep lasts at most.
const SLEEP: Duration = Duration::from_millis(50);

/// A member behind its own thread.
pub(crate) struct ThreadedLink {
    node: Arc<Node>,
    publication: Publication,
    subscription: Subscription,
    /// The other end.
    other: Rank,
    storm: Storm,
    running: Option<RunningStorm>,
}

/// Starts the node; its first messages are refused until the group is formed.
pub(crate) fn open(spec: &Spec) -> Result<ThreadedLink, Failure> {
    let own = u16::from(!spec.role.is_near());
    let start = || -> Result<_, bourdon::Error> {
        let node = Node::open(&spec.node(Role::Member, own))?;
        let (publication, subscription) = (node.publication()?, node.subscribe(Subscribe::all())?);
        node.join()?;
        Ok((node, publication, subscription))
    };
    let (node, publication, subscription) = start().map_err(|error| Failure::Unusable(error.to_string()))?;
    inline::check_bypass(spec, &node.info().io, node.info().fallback.as_deref())?;
    Ok(ThreadedLink {
        node: Arc::new(node),
        publication,
        subscription,
        other: Rank(1 - own),
        storm: spec.storm.unwrap_or_default(),
        running: None,
    })
}

impl Link for ThreadedLink {
    fn try_send(&mut self, message: &[u8]) -> Result<bool, Failure> {
        match self.publication.try_publish(&TOPIC, message) {
            Ok(_) => Ok(true),
            Err(refusal) if refusal.is_transient() => Ok(false),
            Err(error) => Err(broken(error)),
        }
    }

    fn poll(&mut self, mut on_message: impl FnMut(&[u8])) -> Result<usize, Failure> {
        let (other, mut count) = (self.other, 0);
        let polled = self.subscription.poll(LIMIT, |delivery| {
            if let Some(message) = delivery.message().filter(|message| message.sender == other) {
                count += 1;
                on_message(message.payload);
            }
        });
        polled.map(|_| count).map_err(broken)
    }

    /// The application's thread sleeps as well, or polls and yields.
    fn wait(&mut self, idle: Idle) -> Result<(), Failure> {
        if idle == Idle::Park {
            return self.subscription.wait(SLEEP).map(drop).map_err(broken);
        }
        std::thread::yield_now();
        Ok(())
    }

    fn enter(&mut self, stage: Stage) -> Result<Option<NodeFigures>, Failure> {
        match stage {
            Stage::WarmUp => self.running = Some(RunningStorm::start(self.storm, &self.node)?),
            Stage::Measured => self.running.iter().for_each(RunningStorm::measure),
            Stage::Done => return self.running.take().map(RunningStorm::end).transpose(),
        }
        Ok(None)
    }
}
