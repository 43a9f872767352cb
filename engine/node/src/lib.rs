//! Bourdon: ordered, reliable group communication, for processes that must receive the same messages in one order.
//!
#![doc = include_str!("manual.md")]

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
mod history;
mod host;
mod identity;
mod idle;
mod inline;
mod links;
mod locks;
mod lone;
mod mailbox;
mod node_error;
mod patterns;
mod placement;
mod recording;
mod reports;
mod request;
mod snapshot;
mod storage;
mod subscribe;
mod threaded;
mod topic;
mod transport;

/// The Rust code of pages of the repository, compiled with the doc tests.
#[cfg(doctest)]
mod pages {
    #[doc = include_str!("../../../README.md")]
    mod readme {}
    #[doc = include_str!("../../../docs/channels.md")]
    mod channels {}
    #[doc = include_str!("../../../docs/locks.md")]
    mod locks {}
    #[doc = include_str!("../../../docs/publishing.md")]
    mod publishing {}
    #[doc = include_str!("../../../docs/receiving.md")]
    mod receiving {}
    #[doc = include_str!("../../../docs/requests.md")]
    mod requests {}
    #[doc = include_str!("../../../docs/topics.md")]
    mod topics {}
}

/// Parts of a subscription over an archive ([`History`]).
pub mod archive {
    pub use crate::history::{Live, Progress};
    pub use bourdon_archive::{Error, Mode, Notice, Position, Why};
}

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
    pub use bourdon_port::{InterfaceLoss, PortError};
    pub use bourdon_protocol::{ConfigError, CoordinationRefusal, DirectFailure, Loss};
    pub use bourdon_wire::NameError;
}

/// Parts of an [`Event`].
pub mod event {
    pub use bourdon_protocol::control::detector::Why;
    pub use bourdon_protocol::{
        Difference, InterfaceName, NarrowPaths, NetworkLoss, Ranks, Reach, SettingValue, Waiting,
    };
}

/// Numbers and names of processes, views, messages and topics.
pub mod id {
    pub use bourdon_protocol::Member;
    pub use bourdon_wire::{
        Address, ClientId, ClientTag, Epoch, GroupId, Incarnation, InstanceId, MessageName, OrderNumber, Rank,
        Sequence, TopicId, TopicName,
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

pub use bourdon_archive::StartAt;
pub use bourdon_port::Waker;
pub use bourdon_protocol::{DirectMessage, Event, FencingToken, Message, Refusal, Standing, To, View};
pub use builder::NodeBuilder;
pub use channels::Channels;
pub use claim::Claim;
pub use close::CloseReport;
pub use closed::Closed;
pub use config::{Settings, Start};
pub use deadline::{Canceller, Deadline};
pub use delivery::Delivery;
pub use discover::{Discovery, discover};
pub use history::{History, HistorySubscription};
pub use inline::InlineNode;
pub use locks::{Election, ElectionState, Guard, LockRequest};
pub use node_error::Error;
pub use request::{Call, Reply, Request};
pub use snapshot::{Snapshot, SnapshotRequest};
pub use subscribe::{Overrun, Subscribe};
pub use threaded::{Info, Node, Publication, Subscription};
pub use topic::{Payload, Topic};
