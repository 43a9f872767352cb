//! Channels: several streams of one group, each with an address, a guarantee and members of its own.
//!
//! Trades must come in one order and survive crashes; quotes are worth nothing once they are late. In one stream the
//! quotes would wait for the trades, and a member that wants only one would pay for both. So a channel is a stream of
//! its own *with a view of its own*: one more [`InlineNode`], whose group is `group/channel`. Then each guarantee has
//! its own windows, view changes and order; a process outside a channel receives, acknowledges and holds up nothing of
//! it; what is lost in one can't look like a gap in another, whatever they share: another group's datagrams
//! are discarded before anything is counted by number. `docs/decisions/a-channel-has-its-own-view.md` has the price.
//!
//! Nothing is promised about the order of two messages on different channels, unless one names the other
//! ([`Topic::after`](crate::Topic::after)): a process that joined both with one [`Channels`] delivers them in that
//! order.
//!
//! [`Channels`] runs those that one thread has joined. A member is numbered in a channel by its place among
//! `channel.members`; a process that is not among them observes.
//!
//! Invariants: two channels of a group differ in name, in address, and over tcp in every address; a channel that was
//! left is gone, sockets and all, once its [`Event::Left`] has come, or after [`Channels::LEAVE_MAX_NS`] without a
//! majority to let it go; one channel that fails to open leaves the others as they were.

use crate::config::{Settings, SettingsError, in_channel};
use crate::delivery::Delivery;
use crate::inline::InlineNode;
use crate::node_error::Error;
use bourdon_engine::DELIVER_LIMIT;
use bourdon_port::{PortError, Sleep};
use bourdon_protocol::Event;
use bourdon_protocol::control::detector::Judgement;
use bourdon_wire::{GroupId, Instant, MessageName};
use std::sync::Arc;
use std::time::Duration;

/// The channels that one thread has joined.
///
/// ```
/// # use bourdon::*;
/// # fn show(settings: &Settings) -> Result<(), Box<dyn std::error::Error>> {
/// let mut channels = Channels::new(settings)?;
/// channels.join("trades")?;
/// loop {
///     if channels.poll(|channel, delivery| println!("{channel}: {delivery}"))? == 0 {
///         channels.wait(std::time::Duration::from_millis(100))?;
///     }
/// }
/// # }
/// ```
#[derive(Debug)]
pub struct Channels {
    settings: Settings,
    joined: Vec<Joined>,
    /// The channel that is polled first.
    turn: usize,
}

#[derive(Debug)]
struct Joined {
    name: Arc<str>,
    node: InlineNode,
    /// When it is dropped at the latest, if it leaves.
    leave_by: Option<Instant>,
    /// If it leans on the group's detectors.
    leaning: Option<Leaning>,
}

#[derive(Debug)]
struct Leaning {
    /// The group's ranks of its members.
    members: Vec<u16>,
    /// What it was last passed.
    judgement: Judgement,
}

impl Channels {
    /// How long a member that leaves waits for the others to let it go: several view changes. Then it is gone like one
    /// that crashed.
    pub const LEAVE_MAX_NS: u64 = 10_000_000_000;

    /// The channels of a group, none of them joined.
    ///
    /// # Errors
    /// If the settings contradict themselves.
    pub fn new(settings: &Settings) -> Result<Self, Error> {
        settings.check()?;
        Ok(Self { settings: settings.clone(), joined: Vec::new(), turn: 0 })
    }

    /// Joins a channel, in the role that the configuration gives this process.
    ///
    /// # Errors
    /// If there is no such channel, it is joined already or still being left, or the network can't be used.
    pub fn join(&mut self, name: &str) -> Result<(), Error> {
        if self.get(name).is_some() {
            let (channel, what) = (name.to_owned(), "it is joined, or being left, already".to_owned());
            return Err(SettingsError::Channel { channel, what }.into());
        }
        let settings = self.settings.for_channel(name)?;
        let node = InlineNode::join_beside(&settings)?;
        let leaning = settings.detector.leans.map(|members| Leaning { members, judgement: Judgement::default() });
        self.joined.push(Joined { name: name.into(), node, leave_by: None, leaning });
        Ok(())
    }

    /// Passes what the group's detectors suspect to the channels that lean on them; call it after each poll of the
    /// group's node. A process that never does notices failures in those channels after a second.
    ///
    /// ```
    /// # use bourdon::*;
    /// # fn show(channels: &mut Channels, group: &mut InlineNode) -> Result<(), error::PortError> {
    /// group.poll(64, |delivery| println!("{delivery}"))?;
    /// channels.lean_on(group);
    /// # Ok(())
    /// # }
    /// ```
    pub fn lean_on(&mut self, group: &InlineNode) {
        let Some(judgement) = group.engine.process().judgement() else { return };
        for Joined { node, leaning, .. } in &mut self.joined {
            let Some(leaning) = leaning else { continue };
            let judgement = in_channel(judgement, &leaning.members);
            if core::mem::replace(&mut leaning.judgement, judgement) != judgement {
                node.engine.judge(judgement);
            }
        }
    }

    /// Leaves a channel. A member goes on until the others have a view without it, a process that a view may be about
    /// to admit until no view can. All others, as an observer, are gone with the next poll. [`Event::Left`] reports
    /// each.
    pub fn leave(&mut self, name: &str) {
        let Some(index) = self.joined.iter().position(|joined| &*joined.name == name) else { return };
        let joined = &mut self.joined[index];
        joined.node.leave();
        joined.leave_by = joined.leave_by.or(Some(joined.node.engine.now() + Self::LEAVE_MAX_NS));
    }

    /// Drops the channels that were left, or that were being left for too long.
    fn drop_left(&mut self) {
        self.joined.retain_mut(|joined| {
            let stays = joined.leave_by.is_none_or(|by| joined.node.engine.now() < by);
            if !stays {
                joined.node.give_up(); // it had its time
            }
            stays
        });
    }

    /// The channels joined, in the order of joining, those being left included.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.joined.iter().map(|joined| &*joined.name)
    }

    /// A channel that was joined, to read.
    pub fn get(&self, name: &str) -> Option<&InlineNode> {
        self.joined.iter().find(|joined| &*joined.name == name).map(|joined| &joined.node)
    }

    /// A channel that was joined, to publish on.
    pub fn get_mut(&mut self, name: &str) -> Option<&mut InlineNode> {
        self.joined.iter_mut().find(|joined| &*joined.name == name).map(|joined| &mut joined.node)
    }

    /// The group that a channel is, for [`Message::message_name`](crate::Message::message_name).
    pub fn group(&self, name: &str) -> Option<GroupId> {
        self.get(name).map(|node| node.engine.process().config().group)
    }

    /// Polls every channel once, each time another channel first. Returns how much was done.
    ///
    /// # Errors
    /// If a port is broken.
    pub fn poll(&mut self, mut on_delivery: impl FnMut(&str, Delivery<'_>)) -> Result<usize, PortError> {
        let mut work_count = 0;
        let count = self.joined.len();
        self.turn = (self.turn + 1) % count.max(1);
        for place in 0..count {
            let (before, rest) = self.joined.split_at_mut((self.turn + place) % count);
            let Some((joined, behind)) = rest.split_first_mut() else { break };
            let (name, leave_by) = (&joined.name, &mut joined.leave_by);
            let others = || before.iter().chain(&*behind).map(|other| other.node.engine.process());
            let passed = |message: &MessageName| others().all(|process| process.has_passed(message));
            work_count += joined.node.poll_after(DELIVER_LIMIT, &passed, |delivery| {
                if let Delivery::Event(Event::Left(_)) = delivery {
                    *leave_by = Some(Instant(0));
                }
                on_delivery(name, delivery);
            })?;
        }
        self.drop_left();
        Ok(work_count)
    }

    /// Sleeps until something may have come on one of the channels or something is due, at most for `longest`. Returns
    /// at once where a port spins.
    ///
    /// # Errors
    /// If a port is broken.
    pub fn wait(&mut self, longest: Duration) -> Result<(), PortError> {
        match &mut self.joined[..] {
            [] => {
                std::thread::sleep(longest);
                return Ok(());
            }
            [only] => return only.node.wait(longest), // one system call, where a sleep for several takes three
            _ => {}
        }
        let sleepers = self.joined.iter_mut().map(|joined| joined.node.sleeper(longest));
        // None as soon as one channel has something to do.
        if let Some(sleeps) = sleepers.collect::<Result<Option<Vec<_>>, _>>()? {
            Sleep::all(&sleeps)?;
        }
        self.joined.iter_mut().try_for_each(|joined| joined.node.engine.end_sleep())
    }
}
