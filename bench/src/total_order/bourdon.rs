//! A member that is a Bourdon node, run inline.

use super::member::{Ordered, play};
use crate::Failure;
use crate::task::Task;
use crate::worker::Spec;
use bourdon::id::TopicId;
use bourdon::settings::{Reliability, Role};
use bourdon::time::Idler;
use bourdon::{Delivery, Event, InlineNode, Refusal, Topic};
use std::time::Duration;

const TOPIC: Topic = Topic::of_id(TopicId(1));

/// A node and what it does while nothing arrives.
struct Member {
    node: InlineNode,
    idler: Idler,
}

/// A level of reliability by its name in the settings, if this build has it.
pub(super) fn reliability(name: &str) -> Result<Reliability, String> {
    serde_json::from_value(name.into()).map_err(|error| format!("group.reliability = {name:?}: {error}"))
}

fn broken(error: impl std::fmt::Display) -> Failure {
    Failure::Broken(error.to_string())
}

/// Plays a member.
pub(crate) fn run(spec: &Spec, task: &Task) -> Result<(), Failure> {
    let mut settings = spec.node(Role::Member, task.rank);
    settings.network.interface.clone_from(&task.interface);
    settings.network.multicast_loop = task.interface == "lo"; // elsewhere each host has one process
    settings.group.reliability = reliability(&task.reliability).map_err(Failure::Unusable)?;
    let node = InlineNode::join(&settings).map_err(|error| Failure::Unusable(error.to_string()))?;
    let mut member = Member { node, idler: Idler::new(settings.threads.idle) };
    play(&mut member, spec.size_bytes, task)
}

impl Ordered for Member {
    #[inline]
    fn try_send(&mut self, payload: &[u8]) -> Result<bool, Failure> {
        match self.node.try_publish(&TOPIC, payload) {
            Ok(_) => Ok(true),
            Err(refusal) if !refusal.is_unavailable() && refusal.is_transient() => Ok(false),
            Err(Refusal::Forming { .. }) => Ok(false),
            Err(refusal) => Err(broken(refusal)),
        }
    }

    #[inline]
    fn poll(&mut self, mut on_delivery: impl FnMut(u16, &[u8])) -> Result<usize, Failure> {
        let mut events = Vec::new();
        let work = self.node.poll(usize::MAX, |delivery| match delivery {
            Delivery::Message(message) => on_delivery(message.sender.0, message.payload),
            delivery => events.extend(delivery.event()),
        });
        let work = work.map_err(broken)?;
        for event in events {
            // Members end at different times: a view without a finished member is expected; a loss would show in the
            // counts.
            if matches!(event, Event::ConfigurationDiffers(..) | Event::Removed(_) | Event::Gap { .. }) {
                return Err(broken(format!("the group fell apart: {event:?}")));
            }
        }
        Ok(work)
    }

    #[inline]
    fn idle(&mut self, work_count: usize, longest: Duration) -> Result<(), Failure> {
        let node = &mut self.node;
        self.idler.idle(work_count, |sleep| node.wait(sleep.min(longest))).map_err(broken)
    }

    fn others_cpu_ns(&self) -> u64 {
        0
    }
}
