//! Bourdon: ordered, reliable group communication for processes that must hear the same messages in the same order.
//!
//! ```no_run
//! use bourdon::{Node, Settings, TopicId};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mut settings = Settings::default();
//! settings.group.name = "prices".into();
//! settings.group.members = 1;
//! let mut node = Node::join(&settings)?;
//! node.try_publish(TopicId::of("es"), b"4750.25")?;
//! node.poll(|message| println!("{} {:?}", message.sequence, message.payload))?;
//! # Ok(())
//! # }
//! ```
//!
//! A [`Node`] runs in the thread that polls it. `docs/architecture.md` is the map of the whole.

mod clock;
mod inline;
pub mod settings;
mod transport;

pub use bourdon_port::{Port, PortError};
pub use bourdon_protocol::{
    Claim, Client, ClientEvent, Counter, Counters, Delivery, Event, Outgoing, Process, Refusal,
};
pub use bourdon_wire::{ClientId, Epoch, GroupId, Instant, OrderNumber, Rank, Sequence, TopicId};
pub use clock::Clock;
pub use inline::{Engine, Node, NodeError};
pub use settings::{Settings, SettingsError};
pub use transport::AnyPort;
