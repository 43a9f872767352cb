//! A member behind threads of its own: it learns of views as any application of a threaded node does.
//!
//! Its thread sleeps until there is an event or a message is due; deliveries wait in their ring meanwhile, because each
//! carries the time at which the node delivered it.

use super::member::{
    BURST, DETECTORS, Deliveries, Figures, Installed, MemberReport, Order, PAYLOAD, PUBLISH_EVERY_NS, Task,
};
use crate::Failure;
use crate::script::{self, broken, now_ns, report};
use bourdon::counters::Directory;
use bourdon::id::{Rank, TopicId};
use bourdon::time::Idler;
use bourdon::{Event, Node, Publication, Subscribe, Subscription, Topic};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::Duration;

/// The most messages that one poll takes.
const LIMIT: usize = 1_024;

/// Plays a member until stdin ends.
pub(super) fn play(task: Task) -> Result<(), Failure> {
    let node = Started::new(&task)?;
    let idler = Idler::new(task.settings.threads.idle);
    let (deliveries, figures) = (Deliveries::default(), Figures::default());
    let mut member = Member { task, node, idler, publish_at_ns: 0, deliveries, entered: None, figures };
    let orders = script::listen();
    while member.step(&orders)? {}
    Ok(())
}

/// A node, and its events.
type Joined = (Node, Subscription);

/// The group with its messages, and its channels beside it.
struct Started {
    group: Joined,
    publication: Publication,
    messages: Subscription,
    channels: Vec<Joined>,
}

impl Started {
    fn new(task: &Task) -> Result<Self, Failure> {
        let start = || -> Result<_, bourdon::Error> {
            let joined = |node: Node| -> Result<_, bourdon::Error> {
                let events = node.subscribe(Subscribe::none().events())?;
                node.join()?;
                Ok((node, events))
            };
            let group = Node::open(&task.settings)?;
            let (publication, messages) = (group.publication()?, group.subscribe(Subscribe::all())?);
            let group = joined(group)?;
            let channels = task.settings.channels.iter().map(|channel| joined(group.0.channel(&channel.name)?));
            let channels = channels.collect::<Result<_, _>>()?;
            Ok(Self { group, publication, messages, channels })
        };
        start().map_err(|error| Failure::Unusable(error.to_string()))
    }
}

/// How many control datagrams a node has sent.
fn control_sent(node: &Node) -> u64 {
    let files = Directory::open(None).ok().and_then(|directory| bourdon::counters::list(&directory).ok());
    let path = &node.info().counters_path;
    let own = files.into_iter().flatten().find(|file| path.ends_with(format!("{}.counters", file.stem)));
    own.and_then(|file| file.values().find(|(name, _)| *name == "control_sent").map(|(_, sent)| sent)).unwrap_or(0)
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
                let delivered = self.deliveries.count;
                let control_sent = [
                    control_sent(&self.node.group.0),
                    self.node.channels.iter().map(|(node, _)| control_sent(node)).sum(),
                ];
                report(&MemberReport::Figures(Figures { delivered, control_sent, ..self.figures }));
            }
            Err(TryRecvError::Empty) => {}
            Err(TryRecvError::Disconnected) => return Ok(false),
        }
        self.publish();
        let work = self.hear()? + self.deliver()?;
        let until_due = Duration::from_nanos(self.publish_at_ns.saturating_sub(now_ns()));
        let events = || self.node.channels.iter().chain([&self.node.group]).map(|(_, events)| events);
        self.idler.idle(work, |longest| sleep(events(), longest.min(until_due))).map_err(broken)?;
        Ok(true)
    }

    fn publish(&mut self) {
        let (now_ns, topic, publication) = (now_ns(), Topic::of_id(TopicId(1)), &mut self.node.publication);
        if self.task.flat_out {
            // Refused for now: the ring is full.
            let _ = (0..BURST).try_for_each(|_| publication.try_publish(&topic, &PAYLOAD).map(drop));
        }
        if now_ns >= self.publish_at_ns {
            self.publish_at_ns = (self.publish_at_ns + PUBLISH_EVERY_NS).max(now_ns);
            let _ = publication.try_publish(&topic, &PAYLOAD);
        }
    }

    /// Takes what was delivered. Returns how much.
    fn deliver(&mut self) -> Result<usize, Failure> {
        let (deliveries, entered) = (&mut self.deliveries, self.entered);
        let mut longest_ns = None;
        let polled = self.node.messages.poll(LIMIT, |delivery| {
            let Some(message) = delivery.message() else { return };
            deliveries.note(message.delivered_at.0);
            if longest_ns.is_none() && entered.is_some_and(|epoch| message.epoch.0 >= epoch) {
                longest_ns = Some(deliveries.longest_ns);
            }
        });
        if let (Some(longest_ns), Some(epoch)) = (longest_ns, entered) {
            self.entered = None;
            report(&MemberReport::Outage { epoch, longest_ns });
        }
        polled.map_err(broken)
    }

    /// Handles events. Returns how many.
    fn hear(&mut self) -> Result<usize, Failure> {
        let mut count = 0;
        while let Some(delivery) = self.node.group.1.try_next().map_err(broken)? {
            let Some(event) = delivery.event() else { continue };
            let (at_ns, rank) = (now_ns(), self.task.settings.process.rank);
            count += 1;
            match event {
                Event::View { epoch, members, sequencer, .. } if members.contains(Rank(rank)) => {
                    let (epoch, members, sequencer) = (epoch.0, members.0, sequencer.0);
                    report(&MemberReport::View(Installed { epoch, members, sequencer, at_ns }));
                    self.entered = Some(epoch);
                }
                Event::Suspected(rank, why) => {
                    report(&MemberReport::Suspected { rank: rank.0, at_ns });
                    let place = DETECTORS.iter().position(|other| *other == why);
                    place.into_iter().for_each(|place| self.figures.suspicions[place] += 1);
                }
                Event::Removed(_) => {
                    self.node.channels.clear(); // their counters files have the names of the next ones
                    self.node = Started::new(&self.task)?;
                    return Ok(count);
                }
                event @ (Event::ConfigurationDiffers(..) | Event::IdentityConflict { .. }) => {
                    return Err(broken(event));
                }
                _ => {}
            }
        }
        for (channel, (_, events)) in self.node.channels.iter_mut().enumerate() {
            while let Some(delivery) = events.try_next().map_err(broken)? {
                count += 1;
                if let Some(Event::View { members, .. }) = delivery.event() {
                    report(&MemberReport::ChannelView { channel, members: members.0, at_ns: now_ns() });
                }
            }
        }
        Ok(count)
    }
}

/// Sleeps until there is an event, at most for `longest`.
fn sleep<'a>(subscriptions: impl Iterator<Item = &'a Subscription>, longest: Duration) -> std::io::Result<()> {
    let timeout = Timespec { tv_sec: longest.as_secs() as i64, tv_nsec: longest.subsec_nanos().into() };
    let mut fds: Vec<_> = subscriptions.map(|events| PollFd::new(events, PollFlags::IN)).collect();
    match poll(&mut fds, Some(&timeout)) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
