//! A member behind threads of its own: it learns of views as any application of a threaded node does.
//!
//! Its thread sleeps until there is an event or a message is due; deliveries wait in their ring meanwhile, because each
//! carries the time at which the node delivered it.

use super::member::{
    BURST, DETECTORS, Deliveries, Figures, Installed, MemberReport, Order, PAYLOAD, PUBLISH_EVERY_NS, Task,
};
use crate::Failure;
use crate::script::{self, broken, now_ns, report};
use bourdon::{Event, Idler, NodeEvent, Publication, Subscription, ThreadedNode, TopicId};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::Duration;

/// The most messages that one poll takes.
const LIMIT: usize = 1_024;

/// Plays a member until stdin ends.
pub(super) fn play(task: Task) -> Result<(), Failure> {
    let node = start(&task)?;
    let idler = Idler::new(task.settings.threads.idle);
    let (deliveries, figures) = (Deliveries::default(), Figures::default());
    let mut member = Member { task, node, idler, publish_at_ns: 0, deliveries, entered: None, figures };
    let orders = script::listen();
    while member.step(&orders)? {}
    Ok(())
}

type Started = (ThreadedNode, Publication, Subscription);

fn start(task: &Task) -> Result<Started, Failure> {
    ThreadedNode::start(&task.settings).map_err(|error| Failure::Unusable(error.to_string()))
}

struct Member {
    task: Task,
    node: Started,
    idler: Idler,
    publish_at_ns: u64,
    deliveries: Deliveries,
    /// A view in which nothing has been delivered yet.
    entered: Option<u64>,
    figures: Figures,
}

impl Member {
    /// One round; returns false when stdin has ended.
    fn step(&mut self, orders: &Receiver<Order>) -> Result<bool, Failure> {
        match orders.try_recv() {
            Ok(Order::Mark) => {
                self.deliveries.longest_ns = 0;
                report(&MemberReport::Marked);
            }
            Ok(Order::Tell) => {
                report(&MemberReport::Figures(Figures { delivered: self.deliveries.count, ..self.figures }));
            }
            Err(TryRecvError::Empty) => {}
            Err(TryRecvError::Disconnected) => return Ok(false),
        }
        self.publish();
        let work = self.hear()? + self.deliver();
        let until_due = Duration::from_nanos(self.publish_at_ns.saturating_sub(now_ns()));
        let node = &self.node.0;
        self.idler.idle(work, |longest| sleep(node, longest.min(until_due))).map_err(broken)?;
        Ok(true)
    }

    fn publish(&mut self) {
        let (now_ns, topic, publication) = (now_ns(), TopicId(1), &mut self.node.1);
        if self.task.flat_out {
            // Refused for now: the ring is full.
            let _ = (0..BURST).try_for_each(|_| publication.try_publish(topic, &PAYLOAD));
        }
        if now_ns >= self.publish_at_ns {
            self.publish_at_ns = (self.publish_at_ns + PUBLISH_EVERY_NS).max(now_ns);
            let _ = publication.try_publish(topic, &PAYLOAD);
        }
    }

    /// Takes what was delivered. Returns how much.
    fn deliver(&mut self) -> usize {
        let (deliveries, entered) = (&mut self.deliveries, self.entered);
        let mut longest_ns = None;
        let count = self.node.2.poll(LIMIT, |delivery| {
            deliveries.note(delivery.delivered_at.0);
            if longest_ns.is_none() && entered.is_some_and(|epoch| delivery.epoch.0 >= epoch) {
                longest_ns = Some(deliveries.longest_ns);
            }
        });
        if let (Some(longest_ns), Some(epoch)) = (longest_ns, entered) {
            self.entered = None;
            report(&MemberReport::Outage { epoch, longest_ns });
        }
        count
    }

    /// Handles events. Returns how many.
    fn hear(&mut self) -> Result<usize, Failure> {
        self.node.0.clear_events();
        let mut count = 0;
        while let Some(event) = self.node.0.poll_event() {
            let (at_ns, rank) = (now_ns(), self.task.settings.process.rank);
            count += 1;
            match event {
                NodeEvent::Group(Event::View { epoch, members, sequencer }) if members >> rank & 1 == 1 => {
                    let (epoch, sequencer) = (epoch.0, sequencer.0);
                    report(&MemberReport::View(Installed { epoch, members, sequencer, at_ns }));
                    self.entered = Some(epoch);
                }
                NodeEvent::Group(Event::Suspected(rank, why)) => {
                    report(&MemberReport::Suspected { rank: rank.0, at_ns });
                    let place = DETECTORS.iter().position(|other| *other == why);
                    place.into_iter().for_each(|place| self.figures.suspicions[place] += 1);
                }
                NodeEvent::Group(Event::Removed(_)) => {
                    self.node = start(&self.task)?;
                    return Ok(count);
                }
                event @ NodeEvent::Group(Event::ConfigurationDiffers(_) | Event::IdentityConflict(_)) => {
                    return Err(broken(event));
                }
                _ => {}
            }
        }
        Ok(count)
    }
}

/// Sleeps until there is an event, at most for `longest`.
fn sleep(node: &ThreadedNode, longest: Duration) -> std::io::Result<()> {
    let timeout = Timespec { tv_sec: longest.as_secs() as i64, tv_nsec: longest.subsec_nanos().into() };
    match poll(&mut [PollFd::new(&node.events_fd(), PollFlags::IN)], Some(&timeout)) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
