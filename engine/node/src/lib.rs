//! Bourdon: ordered, reliable group communication for processes that must hear the same messages in the same order.
//!
//! ```no_run
//! use bourdon::{Delivery, InlineNode, Settings, TopicId};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mut settings = Settings::default();
//! settings.group.name = "prices".into();
//! settings.group.members = 1;
//! let mut node = InlineNode::join(&settings)?;
//! node.try_publish(TopicId::of("es"), b"4750.25")?;
//! node.poll(|delivery| match delivery {
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
//! use bourdon::{Node, Settings, Subscribe, TopicId};
//! use std::time::Duration;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let settings = Settings::load("bourdon.toml".as_ref())?;
//! let node = Node::open(&settings)?;
//! let (mut publication, mut subscription) = (node.publication()?, node.subscribe(Subscribe::all())?);
//! node.join()?;
//! let number = publication.publish(TopicId::of("es"), b"4750.25", Duration::from_secs(5))?; // waits for the group
//! publication.wait_acknowledged(number, Duration::from_secs(1))?;
//! while let Some(delivery) = subscription.next(Duration::from_secs(1))? {
//!     println!("{delivery:?}");
//! }
//! node.close(Duration::from_secs(5))?;
//! # Ok(())
//! # }
//! ```
//!
//! What accepted and acknowledged mean, which refusals pass, and how a node ends: `docs/publishing.md`.
//!
//! Subscribers choose by [`Pattern`]s where messages are published by name (`docs/topics.md`). A group may have
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
pub mod channels;
mod client_node;
mod clock;
mod close;
mod closed;
mod config;
pub mod counters;
mod deadline;
mod delivery;
pub mod directory;
mod discover;
mod engine;
mod identity;
mod idle;
mod inline;
mod links;
mod locks;
mod mailbox;
pub mod placement;
mod reports;
mod threaded;
mod topics;
mod transport;

/// What a node is configured with, a section each.
pub mod settings {
    pub use crate::config::*;
}

pub use bourdon_port::{Port, PortError};
pub use bourdon_protocol::control::detector::{Figures, Gaps, Judgement, Why};
pub use bourdon_protocol::{
    CallId, Claim, Client, ClientEvent, CoordinationRefusal, Counter, Counters, DirectFailure, DirectMessage,
    DirectOutcome, DirectRefusal, Event, FencingToken, GroupState, Loss, Member, Message, Outgoing, Process, Reach,
    Refusal, Standing, View, Waiting,
};
pub use bourdon_wire::{
    Address, ClientId, Epoch, GroupId, Incarnation, InstanceId, Instant, MessageName, NameError, OrderNumber, Rank,
    Sequence, TopicId, TopicName,
};
pub use channels::Channels;
pub use client_node::ClientNode;
pub use clock::{Clock, Time};
pub use close::CloseReport;
pub use closed::Closed;
pub use config::{Settings, SettingsError, Start};
pub use deadline::{Canceller, Deadline};
pub use delivery::Delivery;
pub use discover::{Discovery, discover};
pub use engine::Engine;
pub use idle::Idler;
pub use inline::{Error, InlineNode};
pub use locks::{Election, ElectionState, Guard, LockError, LockRequest, Lost};
pub use threaded::{DirectNews, DirectTo};
pub use threaded::{Info, Node};
pub use threaded::{NotAcknowledged, Overrun, Publication, PublicationClaim, Subscribe, Subscription};
pub use topics::{Filter, Pattern, PatternError, Verdict};
pub use transport::{AnyPort, NodePort};
