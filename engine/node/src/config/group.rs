//! `[group]`: what must be the same at every process of the group.

use super::SettingsError;
use bourdon_protocol::{ElectionKind, MutexKind, Order, Quorum, Reliability};
use bourdon_wire::TopicId;
use serde::{Deserialize, Serialize};
use std::net::{Ipv4Addr, SocketAddr};

/// What must be the same at every process of the group.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct GroupSettings {
    /// The group's name.
    pub name: String,
    /// Its multicast address and port.
    pub address: SocketAddr,
    /// How many members are configured.
    pub members: u16,
    /// The order of delivery.
    pub order: Order,
    /// How much may be lost.
    pub reliability: Reliability,
    /// Whether every member sends on what it receives for the first time.
    pub relay: bool,
    /// At best effort: after so long a gap is given up though its sender lives. 0 for never.
    pub deadline_ns: u64,
    /// Whether every receiver acknowledges every datagram at once, to compare.
    pub ack_each: bool,
    /// The rank of the member that puts messages in order.
    pub sequencer: u16,
    /// Of which members a quorum goes on from one view to the next.
    pub quorum: Quorum,
    /// Which algorithm grants locks.
    pub mutex: MutexKind,
    /// Which algorithm elects leaders.
    pub election: ElectionKind,
    /// The topics in use, if they are to be checked.
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
            mutex: MutexKind::Replicated,
            election: ElectionKind::Bully,
            topics: Vec::new(),
        }
    }
}

impl GroupSettings {
    /// Whether it has a name, a port, and topics that differ.
    pub(super) fn check(&self) -> Result<(), SettingsError> {
        if self.name.trim().is_empty() {
            return Err(SettingsError::NoName);
        }
        if self.address.port() == 0 {
            return Err(SettingsError::NoPort(self.address));
        }
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
