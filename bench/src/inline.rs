//! Bourdon as a link: a node that runs in the measuring thread.
//!
//! Round trips and streams to one receiver run between two members of one group, in total order. A fan-out goes from a
//! group of one member to observers.

use crate::worker::{Spec, WorkerKind};
use crate::{Failure, Idle, Link, Transport, broken};
use bourdon::counters::Counter;
use bourdon::id::{Rank, TopicId};
use bourdon::settings::{Flow, Reliability, Role};
use bourdon::time::Idler;
use bourdon::{Delivery, Event, InlineNode, Refusal, Topic};
use std::time::{Duration, Instant};

const TOPIC: Topic = Topic::of_id(TopicId(1));
/// How long the other processes may take to join.
const PATIENCE: Duration = Duration::from_secs(15);
/// The longest sleep of a node that parks.
const SLEEP: Duration = Duration::from_millis(20);

/// A node of a measurement.
pub(crate) struct InlineLink {
    node: InlineNode,
    /// The node's own rank: its own messages are delivered to it too, and are none of the other end's.
    own: Rank,
    /// Whether its own messages are taken instead: those that are delivered here are acknowledged.
    takes_own: bool,
    /// How many members each view must have.
    members: u16,
    idler: Idler,
    worked: bool,
    /// Events of the latest polls.
    events: Vec<Event>,
}

/// Joins the group, and waits until it has formed and every gate is known.
pub(crate) fn open(spec: &Spec) -> Result<InlineLink, Failure> {
    let observed = spec.members == 1;
    let (role, rank) = match spec.role {
        WorkerKind::Receiver if observed => (Role::Observer, 0),
        kind => (Role::Member, spec.durable.as_ref().map_or(u16::from(!kind.is_near()), |task| task.rank)),
    };
    let mut settings = spec.node(role, rank);
    if let Some(task) = &spec.durable {
        settings.group.reliability = Reliability::Durable;
        settings.storage.directory = Some(task.directory.clone());
    }
    let node = InlineNode::join(&settings).map_err(|error| Failure::Unusable(error.to_string()))?;
    check_bypass(spec, node.io(), node.fallback())?;
    let own = if role == Role::Observer { Rank::OBSERVER } else { Rank(rank) };
    let mut link = InlineLink {
        node,
        own,
        takes_own: spec.durable.is_some(),
        members: spec.members,
        idler: Idler::new(settings.threads.idle),
        worked: false,
        events: Vec::new(),
    };
    let gates = if observed && role == Role::Member && spec.flow == Flow::Gating { spec.receivers } else { 0 };
    let deadline = Instant::now() + PATIENCE;
    loop {
        let formed = link.node.is_formed();
        if formed && link.node.counters().get(Counter::GatingObservers) >= gates.into() {
            return Ok(link);
        }
        if Instant::now() > deadline {
            return Err(Failure::Unusable(if formed {
                format!("not all of {gates} observers asked to be waited for within {} s", PATIENCE.as_secs())
            } else {
                "the other member was not heard: does multicast work on lo?".to_owned()
            }));
        }
        // No end publishes before all are ready.
        let events = &mut link.events;
        link.worked = link.node.poll(usize::MAX, |delivery| events.extend(delivery.event())).map_err(broken)? > 0;
        link.wait(spec.idle)?;
        for event in link.events.drain(..) {
            if let Event::ConfigurationDiffers(rank, _) = event {
                return Err(broken(format!("member {rank} is configured otherwise")));
            }
        }
    }
}

/// Figures of a node that was to bypass the kernel's stack and does not would be those of sockets.
pub(crate) fn check_bypass(spec: &Spec, io: &str, fallback: Option<&str>) -> Result<(), Failure> {
    if spec.transport != Transport::Xdp || io.starts_with("af_xdp") {
        return Ok(());
    }
    Err(Failure::Unusable(fallback.unwrap_or("the kernel's stack is not bypassed").to_owned()))
}

impl InlineLink {
    /// A member that is evicted loses messages of the other, and comes back: the measurement would wait for them.
    #[inline]
    fn check_view(&mut self) -> Result<(), Failure> {
        for event in self.events.drain(..) {
            let fell_apart = match event {
                Event::Removed(_) => true,
                Event::View { members, .. } => members.len() < self.members.into(),
                _ => false,
            };
            if fell_apart {
                return Err(broken("a member was evicted: it ended, or the host did not run it for seconds"));
            }
        }
        Ok(())
    }
}

impl Link for InlineLink {
    #[inline]
    fn try_send(&mut self, message: &[u8]) -> Result<bool, Failure> {
        match self.node.try_publish(&TOPIC, message) {
            Ok(_) => Ok(true),
            Err(refusal) if !refusal.is_unavailable() && refusal.is_transient() => Ok(false),
            Err(Refusal::Forming { .. }) => Ok(false),
            Err(refusal) => Err(broken(refusal)),
        }
    }

    #[inline]
    fn poll(&mut self, mut on_message: impl FnMut(&[u8])) -> Result<usize, Failure> {
        let (own, takes_own, mut count) = (self.own, self.takes_own, 0);
        let events = &mut self.events;
        let work = self.node.poll(usize::MAX, |delivery| match delivery {
            Delivery::Message(message) if (message.sender == own) == takes_own => {
                count += 1;
                on_message(message.payload);
            }
            delivery => events.extend(delivery.event()),
        });
        let work = work.map_err(broken)?;
        self.worked = work > 0;
        if self.worked {
            self.idler.idle(work, |_| Ok::<(), Failure>(()))?;
        }
        self.check_view()?; // a view that a timer has brought is no work
        Ok(count)
    }

    #[inline]
    fn flush(&mut self) -> Result<(), Failure> {
        self.node.flush().map_err(broken)
    }

    #[inline]
    fn wait(&mut self, _idle: Idle) -> Result<(), Failure> {
        if self.worked {
            return Ok(());
        }
        let node = &mut self.node;
        self.idler.idle(0, |sleep| node.wait(sleep.min(SLEEP))).map_err(broken)
    }
}
