//! What a threaded node reports to its application and to the clients of its admin socket, and in which words.
//!
//! Events are values in a mailbox for each receiver. An application that fetches none must not stop the engine, so an
//! event that finds its mailbox full is dropped and counted (`events_dropped`).

use crate::threaded::waits::Waiting;
use crate::transport::Reach;
use bourdon_protocol::{Event, Refusal};

/// Events that a receiver has not fetched: as many as the protocol itself keeps.
pub(crate) const EVENTS_MAX: usize = 256;

/// News from a threaded node.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum NodeEvent {
    /// The group's.
    Group(Event),
    /// Messages that a publication had accepted were dropped: the group can't take them, or this process was removed
    /// from it before they were delivered.
    Dropped {
        /// The publication's place among those that the node was started with.
        publication: usize,
        /// The number of the first of them.
        first: u64,
        /// The number of the last.
        last: u64,
        /// Why the group can't take them, the last reason.
        refusal: Option<Refusal>,
    },
    /// A barrier that the application asked for was refused.
    SyncRefused(Refusal),
    /// Over the transport `auto`: how peers are reached has changed.
    Reached(Reach),
    /// This process is in no view yet.
    Waiting(Waiting),
    /// The group's birth could not be stored after the start: the path, the reason and what is lost by it.
    BirthNotStored(Box<str>),
    /// The control thread takes nothing: this node has stopped sending, acknowledging and delivering.
    Halted,
    /// The control thread is back, and this node goes on.
    Resumed,
}

impl From<Event> for NodeEvent {
    fn from(event: Event) -> Self {
        Self::Group(event)
    }
}

impl NodeEvent {
    /// Its name for machines: the same in every version.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Group(event) => event.name(),
            Self::Dropped { .. } => "publication_dropped",
            Self::SyncRefused(_) => "sync_refused",
            Self::Reached(_) => "reached",
            Self::Waiting(_) => "waiting",
            Self::BirthNotStored(_) => "birth_not_stored",
            Self::Halted => "halted",
            Self::Resumed => "resumed",
        }
    }
}

impl std::fmt::Display for NodeEvent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Group(event) => event.fmt(f),
            Self::Dropped { publication, first, last, refusal } => {
                let why = "this process was removed from the group before they were delivered";
                let why = refusal.map_or_else(|| why.to_owned(), |refusal| refusal.to_string());
                write!(f, "messages {first} to {last} of publication {publication} were dropped: {why}")
            }
            Self::SyncRefused(refusal) => write!(f, "there is no barrier: {refusal}"),
            Self::Reached(reach) => reach.fmt(f),
            Self::Waiting(waiting) => waiting.fmt(f),
            Self::BirthNotStored(why) => f.write_str(why),
            Self::Halted => f.write_str(
                "the control thread has taken nothing for 1 s: this node sends, acknowledges and delivers nothing \
                     until it goes on; a debugger may have stopped it, or the host is overloaded",
            ),
            Self::Resumed => f.write_str("the control thread goes on, and this node with it"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bourdon_wire::{Epoch, Rank};

    #[test]
    fn every_event_has_a_text() {
        let rank = Rank(5);
        let refusals = [
            Refusal::Window { slowest: None },
            Refusal::Forming { missing: 0 },
            Refusal::ViewChange,
            Refusal::TooLarge { limit_bytes: 1 << 20 },
            Refusal::Role,
            Refusal::Barrier,
            Refusal::NoMajority { missing: 0 },
            Refusal::Outside,
        ];
        let refused = refusals.into_iter().flat_map(|refusal| {
            let dropped = NodeEvent::Dropped { publication: 0, first: 3, last: 4, refusal: Some(refusal) };
            [dropped, NodeEvent::SyncRefused(refusal)]
        });
        let reached = [NodeEvent::Reached(Reach { by_multicast: 3, by_mesh: 4 })];
        let unstored = [NodeEvent::BirthNotStored("can't keep it".into())];
        let first = Waiting { missing: 0b110, members: 3, waited_ns: 1 << 40, ..Waiting::default() };
        let followed =
            Waiting { outside: true, followed: Some(Epoch(7)), rank_in_use: Some(rank), in_lost_instance: 1, ..first };
        let waiting = [first, followed].map(NodeEvent::Waiting);
        let group = [NodeEvent::Group(Event::Majority), NodeEvent::Halted, NodeEvent::Resumed];
        for event in group.into_iter().chain(refused).chain(reached).chain(unstored).chain(waiting) {
            assert!(event.to_string().contains(' ') && !event.name().contains(' '), "{event:?}");
        }
    }
}
