//! A member of the group whose failures are measured, in a process of its own.
//!
//! It publishes every millisecond, and reports which views it installs and when, by the monotonic clock that all
//! processes of a host share. It also reports which members it suspects, so that the cause of a slow change can be
//! found, and the longest gap between two deliveries. A member that learns that it was removed joins again as a
//! restarted process would: without the delay that grows with each removal.

use crate::Failure;
use crate::script::{self, broken, report};
use bourdon::counters::Gaps;
use bourdon::event::Why;
use bourdon::id::TopicId;
use bourdon::settings::Settings;
use bourdon::time::Idler;
use bourdon::{Delivery, Event, InlineNode, Standing, Topic};
use serde::{Deserialize, Serialize};
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::Duration;

/// How often a message is published, unless the load is unlimited.
pub(super) const PUBLISH_EVERY_NS: u64 = 1_000_000;
/// Messages published between two polls of the network under unlimited load.
pub(super) const BURST: usize = 64;
/// Bytes of a message.
pub(super) const PAYLOAD: [u8; 64] = [7; 64];

/// The detectors measured, in the order of their figures: the members form no channel.
pub(super) const DETECTORS: [Why; 4] = [Why::Evidence, Why::Push, Why::Pull, Why::Phi];

/// The task of a member: the first line it reads.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Task {
    pub(super) settings: Settings,
    /// The member has threads of its own; it joins all channels of the settings then.
    pub(super) threaded: bool,
    /// Publish as much as the group accepts.
    pub(super) flat_out: bool,
}

/// Sent by the harness, a line each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Order {
    /// A fault follows: the longest gap counts from now on.
    Mark,
    /// Report the figures.
    Tell,
}

/// A view, installed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Installed {
    pub(super) epoch: u64,
    /// Bit r: rank r is a member.
    pub(super) members: u64,
    pub(super) sequencer: u16,
    pub(super) at_ns: u64,
}

/// A member's figures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Figures {
    pub(super) delivered: u64,
    pub(super) gaps: u64,
    pub(super) reached: [u64; 3],
    pub(super) reached_unfloored: [u64; 3],
    /// By place in [`DETECTORS`]: how often it suspected a peer.
    pub(super) suspicions: [u64; DETECTORS.len()],
    /// Control datagrams sent in the group, and in all its channels; of threaded members.
    pub(super) control_sent: [u64; 2],
}

/// Sent by a member, a line each.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum MemberReport {
    View(Installed),
    /// In a channel.
    ChannelView {
        channel: usize,
        members: u64,
        at_ns: u64,
    },
    Suspected {
        rank: u16,
        at_ns: u64,
    },
    Marked,
    /// The first delivery in this view came: the longest gap between two deliveries since the mark.
    Outage {
        epoch: u64,
        longest_ns: u64,
    },
    Figures(Figures),
    Unusable(String),
    Broken(String),
}

/// Plays a member until stdin ends.
pub(super) fn play(task: Task) -> Result<(), Failure> {
    let mut member = Member::new(task)?;
    let orders = script::listen();
    while member.step(&orders)? {}
    Ok(())
}

fn join(settings: &Settings) -> Result<InlineNode, Failure> {
    InlineNode::join(settings).map_err(|error| Failure::Unusable(error.to_string()))
}

/// When deliveries came.
#[derive(Debug, Default)]
pub(super) struct Deliveries {
    pub(super) count: u64,
    last_ns: u64,
    pub(super) longest_ns: u64,
    pub(super) since_view: u64,
}

impl Deliveries {
    pub(super) fn note(&mut self, at_ns: u64) {
        if self.count > 0 {
            self.longest_ns = self.longest_ns.max(at_ns.saturating_sub(self.last_ns));
        }
        self.last_ns = at_ns;
        self.count += 1;
        self.since_view += 1;
    }
}

struct Member {
    task: Task,
    node: InlineNode,
    idler: Idler,
    publish_at_ns: u64,
    deliveries: Deliveries,
    /// A view in which nothing has been delivered yet.
    entered: Option<u64>,
    /// The figures of earlier incarnations.
    before: Figures,
}

impl Member {
    fn new(task: Task) -> Result<Self, Failure> {
        let (node, idler) = (join(&task.settings)?, Idler::new(task.settings.threads.idle));
        let (deliveries, before) = (Deliveries::default(), Figures::default());
        Ok(Self { task, node, idler, publish_at_ns: 0, deliveries, entered: None, before })
    }

    /// One round; returns false when stdin has ended.
    fn step(&mut self, orders: &Receiver<Order>) -> Result<bool, Failure> {
        match orders.try_recv() {
            Ok(Order::Mark) => {
                self.deliveries.longest_ns = 0;
                report(&MemberReport::Marked);
            }
            Ok(Order::Tell) => report(&MemberReport::Figures(self.figures())),
            Err(TryRecvError::Empty) => {}
            Err(TryRecvError::Disconnected) => return Ok(false),
        }
        self.publish();
        let (deliveries, mut events) = (&mut self.deliveries, Vec::new());
        let work = self.node.poll(usize::MAX, |delivery| match delivery {
            Delivery::Message(message) => deliveries.note(message.delivered_at.0),
            delivery => events.extend(delivery.event()),
        });
        let work = work.map_err(broken)?;
        if let Some(epoch) = self.entered.filter(|_| self.deliveries.since_view > 0) {
            self.entered = None;
            report(&MemberReport::Outage { epoch, longest_ns: self.deliveries.longest_ns });
        }
        self.hear(events)?;
        let until_due = Duration::from_nanos(self.publish_at_ns.saturating_sub(self.node.clock().now().0));
        let node = &mut self.node;
        self.idler.idle(work, |sleep| node.wait(sleep.min(until_due))).map_err(broken)?;
        Ok(true)
    }

    fn publish(&mut self) {
        let now_ns = self.node.clock().now().0;
        let topic = Topic::of_id(TopicId(1));
        if self.task.flat_out {
            // Refused for now: the window is full, or the view changes.
            for _ in 0..BURST {
                if self.node.try_publish(&topic, &PAYLOAD).is_err() {
                    break;
                }
            }
        }
        if now_ns >= self.publish_at_ns {
            self.publish_at_ns = (self.publish_at_ns + PUBLISH_EVERY_NS).max(now_ns);
            let _ = self.node.try_publish(&topic, &PAYLOAD);
        }
    }

    fn hear(&mut self, events: Vec<Event>) -> Result<(), Failure> {
        for event in events {
            let at_ns = self.node.clock().now().0;
            match event {
                Event::View { epoch, members, sequencer, .. }
                    if self.node.standing() == Standing::Member && self.node.view().epoch == epoch =>
                {
                    let (epoch, members, sequencer) = (epoch.0, members.0, sequencer.0);
                    report(&MemberReport::View(Installed { epoch, members, sequencer, at_ns }));
                    (self.entered, self.deliveries.since_view) = (Some(epoch), 0);
                }
                Event::Suspected(rank, _) => report(&MemberReport::Suspected { rank: rank.0, at_ns }),
                Event::Removed(_) => {
                    self.before = self.figures();
                    self.node = join(&self.task.settings)?;
                    return Ok(());
                }
                Event::ConfigurationDiffers(..) | Event::IdentityConflict { .. } => {
                    return Err(broken(event));
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn figures(&self) -> Figures {
        let Gaps { count, reached, reached_unfloored } = self.node.gaps();
        let before = &self.before;
        let add = |before: [u64; 3], now: [u64; 3]| [0, 1, 2].map(|k| before[k] + now[k]);
        let suspicions = DETECTORS.map(|why| self.node.suspicions(why).suspicions);
        Figures {
            delivered: self.deliveries.count,
            gaps: before.gaps + count,
            reached: add(before.reached, reached),
            reached_unfloored: add(before.reached_unfloored, reached_unfloored),
            suspicions: [0, 1, 2, 3].map(|k| before.suspicions[k] + suspicions[k]),
            control_sent: [0; 2],
        }
    }
}
