//! Bourdon: ordered, reliable group communication for processes that must hear the same messages in the same order.
//!
//! ```no_run
//! use bourdon::{Delivery, InlineNode, Settings, Topic};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mut settings = Settings::default();
//! settings.group.name = "prices".into();
//! settings.group.members = 1;
//! let mut node = InlineNode::join(&settings)?;
//! node.try_publish(&Topic::new("es")?, b"4750.25")?;
//! node.poll(64, |delivery| match delivery {
//!     Delivery::Message(message) => println!("{} {:?}", message.sequence, message.payload),
//!     other => println!("{other:?}"),
//! })?;
//! # Ok(())
//! # }
//! ```
//!
//! A [`InlineNode`] runs in the thread that polls it: the lowest latency. A [`Node`] has threads of its own and is
//! reached through rings:
//!
//! ```no_run
//! use bourdon::{Node, Settings, Subscribe, Topic};
//! use std::time::Duration;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let settings = Settings::load("bourdon.toml".as_ref())?;
//! let node = Node::open(&settings)?;
//! let (mut publication, mut subscription) = (node.publication()?, node.subscribe(Subscribe::all())?);
//! node.join()?;
//! let number = publication.publish(&Topic::new("es")?, b"4750.25", Duration::from_secs(5))?; // waits for the group
//! publication.wait_acknowledged(number, Duration::from_secs(1))?;
//! while let Some(delivery) = subscription.next(Duration::from_secs(1))? {
//!     println!("{delivery:?}");
//! }
//! node.close(Duration::from_secs(5))?;
//! # Ok(())
//! # }
//! ```
//!
//! What accepted and acknowledged mean, which refusals pass, and how a node ends: `docs/publishing.md`. What a
//! subscription gets, and how it waits: `docs/receiving.md`.
//!
//! Subscribers choose by patterns where messages are published by name (`docs/topics.md`). A group may have
//! channels, streams with an address and a guarantee of their own ([`Channels`], `docs/channels.md`).
//!
//! Members lock names ([`Node::lock`], [`InlineNode::request_lock`]) and elect leaders ([`Node::election`],
//! [`InlineNode::election`]), each under a [`FencingToken`] (`docs/locks.md`).
//!
//! A [`ClientNode`] publishes through a member without joining the group. Every node leaves its figures in a
//! [`counters`] file that any tool of the same user can read. `docs/architecture.md` is the map of the whole.

#[cfg(test)]
extern crate self as bourdon; // what the tests of this crate and those of its folder `tests` share names it so

mod admin;
mod builder;
mod channels;
mod claim;
mod client_node;
mod close;
mod closed;
mod config;
pub mod counters;
mod deadline;
mod delivery;
mod directory;
mod discover;
mod identity;
mod idle;
mod inline;
mod links;
mod locks;
mod mailbox;
mod node_error;
mod patterns;
mod placement;
mod reports;
mod request;
mod snapshot;
mod subscribe;
mod threaded;
mod topic;
mod transport;

/// Why a call failed, an enum for each kind of call. What refuses a message is the [`Refusal`], and what ends a node
/// the [`Error`], both at the top level.
pub mod error {
    pub use crate::config::SettingsError;
    pub use crate::directory::DirectoryError;
    pub use crate::locks::{LockError, Lost};
    pub use crate::patterns::PatternError;
    pub use crate::placement::PlacementError;
    pub use crate::request::RequestError;
    pub use crate::threaded::NotAcknowledged;
    pub use bourdon_port::PortError;
    pub use bourdon_protocol::{CoordinationRefusal, DirectFailure, Loss};
    pub use bourdon_wire::NameError;
}

/// Parts of an [`Event`].
pub mod event {
    pub use bourdon_protocol::control::detector::Why;
    pub use bourdon_protocol::{Reach, Waiting};
}

/// Numbers and names of processes, views, messages and topics.
pub mod id {
    pub use bourdon_protocol::Member;
    pub use bourdon_wire::{
        Address, ClientId, Epoch, GroupId, Incarnation, InstanceId, MessageName, OrderNumber, Rank, Sequence, TopicId,
        TopicName,
    };
}

/// What a node is configured with, a section each.
pub mod settings {
    pub use crate::config::*;
}

/// Subscriptions under a tokio runtime.
#[cfg(feature = "tokio")]
pub mod stream {
    pub use crate::threaded::received::{OwnedMessage, Received};
    pub use crate::threaded::stream::Stream;
}

/// The clock by which a node delivers, and how a loop that polls a node rests.
pub mod time {
    pub use crate::idle::Idler;
    pub use bourdon_engine::Clock;
    pub use bourdon_wire::Instant;
}

/// Topics by patterns, for a loop that filters by itself.
pub mod topics {
    pub use crate::patterns::{Filter, Pattern, Verdict};
}

pub use bourdon_port::Waker;
pub use bourdon_protocol::{
    ClientEvent, DirectMessage, Event, FencingToken, GroupState, Message, Refusal, Standing, To, View,
};
pub use builder::NodeBuilder;
pub use channels::Channels;
pub use claim::Claim;
pub use client_node::ClientNode;
pub use close::CloseReport;
pub use closed::Closed;
pub use config::{Settings, Start};
pub use deadline::{Canceller, Deadline};
pub use delivery::Delivery;
pub use discover::{Discovery, discover};
pub use inline::InlineNode;
pub use locks::{Election, ElectionState, Guard, LockRequest};
pub use node_error::Error;
pub use request::{Call, Reply, Request};
pub use snapshot::{Snapshot, SnapshotRequest};
pub use subscribe::{Overrun, Subscribe};
pub use threaded::{Info, Node, Publication, Subscription};
pub use topic::{Payload, Topic};
