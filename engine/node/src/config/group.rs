//! `[group]`: what describes the group itself.

use super::SettingsError;
use super::ranges::{HOUR_NS, in_range};
use bourdon_protocol::{ElectionKind, MutexKind, Order, Quorum, Reliability};
use bourdon_wire::{Rank, TopicId};
use serde::{Deserialize, Serialize};
use std::net::{Ipv4Addr, SocketAddr};

/// The group: what all its processes must agree on.
///
/// ```toml
/// [group]
/// name = "default"
/// address = "239.255.74.1:7401"
/// members = 1
/// order = "total"
/// reliability = "reliable"
/// relay = false
/// deadline_ns = 0
/// ack_each = false
/// sequencer = 0
/// quorum = "view"
/// # mutex = "replicated" # default
/// election = "bully"
/// topics = []
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct GroupSettings {
    /// The group's name. Every datagram carries its hash; a process discards datagrams of other groups on its address.
    ///
    /// Default `"default"`. An empty name is refused ([`NoName`](super::SettingsError::NoName)), and so is one with a
    /// character that is invisible or turns the text around it ([`Name`](super::SettingsError::Name)). The same at all
    /// processes: with another name a process is in another group.
    pub name: String,
    /// The group's multicast address and port, IPv4 or IPv6. 239.0.0.0/8 is free for private use.
    ///
    /// Default `239.255.74.1:7401`. Port 0 is refused ([`NoPort`](super::SettingsError::NoPort)). An address that can't
    /// work on [`network.interface`](super::NetworkSettings::interface) is refused when the node is opened, by an error
    /// that names one that can. The same at all processes: they don't hear each other otherwise.
    pub address: SocketAddr,
    /// The number of members. The first view has them all, later views those that are alive.
    ///
    /// Default 1. From 1 to 64 ([`Range`](super::SettingsError::Range)). The same at all processes.
    pub members: u16,
    /// The order of delivery.
    ///
    /// Default [`Order::Total`]. The same at all processes.
    pub order: Order,
    /// When a message is delivered, and what may be lost.
    ///
    /// Default [`Reliability::Reliable`]. The same at all processes.
    pub reliability: Reliability,
    /// Whether every member relays each datagram that it receives for the first time: n members send n datagrams for
    /// one.
    ///
    /// Default `false`. The same at all processes.
    pub relay: bool,
    /// At [`Reliability::BestEffort`]: how long a receiver waits for a missing message while its sender lives, in
    /// nanoseconds. It reports the loss then and goes on. 0 for never.
    ///
    /// Default 0. From 0 to an hour ([`Range`](super::SettingsError::Range)). With another reliability it is refused
    /// ([`Protocol`](super::SettingsError::Protocol)). Each process may have its own.
    pub deadline_ns: u64,
    /// Whether every receiver acknowledges every datagram at once: for comparison only, many receivers drown a sender.
    ///
    /// Default `false`. The same at all processes.
    pub ack_each: bool,
    /// The rank of the first sequencer, the member that puts the messages in order: best the member that publishes
    /// most. When it is gone the oldest member takes over.
    ///
    /// Default 0. From 0 to `members` − 1 ([`Range`](super::SettingsError::Range)). The same at all processes.
    pub sequencer: u16,
    /// Of which members more than half, or half with the oldest, must continue into the next view.
    ///
    /// Default [`Quorum::View`]. The same at all processes.
    pub quorum: Quorum,
    /// Which algorithm grants [locks](crate::Node::lock).
    ///
    /// Default [`MutexKind::Replicated`]; where the order is not total or messages may be lost, each request for a lock
    /// is refused then. Given by name, `replicated` is refused there at the start
    /// ([`NoEffect`](super::SettingsError::NoEffect)). The same at all processes.
    pub mutex: Option<MutexKind>,
    /// Which algorithm elects [leaders](crate::Node::election).
    ///
    /// Default [`ElectionKind::Bully`]. The same at all processes.
    pub election: ElectionKind,
    /// The names of the topics in use, for messages that are published by id only: a pattern matches them by these
    /// names.
    ///
    /// Default: none. A text that is no topic's name is refused ([`Topic`](super::SettingsError::Topic)), and so are
    /// two names with one 16-bit id ([`TopicsCollide`](super::SettingsError::TopicsCollide)). Each process may have its
    /// own.
    pub topics: Vec<String>,
}

impl Default for GroupSettings {
    fn default() -> Self {
        Self {
            name: "default".to_owned(),
            address: SocketAddr::from((Ipv4Addr::new(239, 255, 74, 1), 7401)),
            members: 1,
            order: Order::Total,
            reliability: Reliability::Reliable,
            relay: false,
            deadline_ns: 0,
            ack_each: false,
            sequencer: 0,
            quorum: Quorum::View,
            mutex: None,
            election: ElectionKind::Bully,
            topics: Vec::new(),
        }
    }
}

impl GroupSettings {
    /// Whether it has a name, a port, members, and topics that differ.
    pub(super) fn check(&self) -> Result<(), SettingsError> {
        if self.name.trim().is_empty() {
            return Err(SettingsError::NoName);
        }
        bourdon_wire::check_visible(&self.name)
            .map_err(|source| SettingsError::Name { name: self.name.clone(), source })?;
        if self.address.port() == 0 {
            return Err(SettingsError::NoPort(self.address));
        }
        in_range("group.members", self.members, 1, Rank::MAX.0 + 1)?;
        in_range("group.sequencer", self.sequencer, 0, self.members - 1)?;
        in_range("group.deadline_ns", self.deadline_ns, 0, HOUR_NS)?;
        for (index, second) in self.topics.iter().enumerate() {
            bourdon_wire::check_name(second).map_err(|source| SettingsError::Topic { name: second.clone(), source })?;
            let collides = |first: &&String| TopicId::of(first) == TopicId::of(second) && *first != second;
            if let Some(first) = self.topics[..index].iter().find(collides) {
                return Err(SettingsError::TopicsCollide { first: first.clone(), second: second.clone() });
            }
        }
        Ok(())
    }
}
