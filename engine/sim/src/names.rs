//! The topics that carry a name, in plans in which messages are published by name.

use bourdon_wire::TopicId;

/// The topics that have names, in plans that publish by name.
pub(crate) const NAMES: [&str; 3] = ["md.es.trades", "md.es.quotes", "a"];

/// The name that a message of this topic carries.
pub(crate) fn name_of(topic: u16) -> Option<&'static str> {
    NAMES.into_iter().find(|name| TopicId::of(name).0 == topic)
}
