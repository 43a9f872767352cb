//! What a node gives its application: messages, and the events and snapshots that have their place among them.
//!
//! An application that learns of a view, or of messages that are lost, beside the messages does not know between which
//! two it happened. So both come in one sequence, on the thread that polls and through the rings to other threads.
//!
//! Invariants: between the messages that it lets through, each subscription gets the same events, and in the same
//! order, as the process itself; no message of a view comes after the next [`Event::View`].

use crate::request::Request;
use crate::snapshot::{Snapshot, SnapshotRequest};
use bourdon_archive::Notice;
use bourdon_protocol::{Event, Message};
use std::fmt;

/// What comes next.
///
/// ```
/// # use bourdon::*;
/// # fn show(delivery: Delivery<'_>) {
/// match delivery {
///     Delivery::Message(message) => println!("{} bytes of member {}", message.payload.len(), message.sender),
///     Delivery::Event(Event::Gap { sender, from, to }) => println!("lost: {from} to {to} of member {sender}"),
///     Delivery::Skipped(count) => println!("{count} messages came too fast"),
///     other => println!("{other}"), // there will be more kinds
/// }
/// # }
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub enum Delivery<'a> {
    /// A message.
    Message(Message<'a>),
    /// An event.
    Event(Event),
    /// So many messages were skipped here, because the ring of this subscription had no room: at an observer for which
    /// the group does not wait.
    Skipped(u64),
    /// A process joins and needs the application's state at this place, or this member, at `durable`, stores it. With
    /// [`Subscribe::snapshots`](crate::Subscribe::snapshots), or at an inline node with `process.snapshots`.
    SnapshotRequest(SnapshotRequest),
    /// The application goes on from this state, another member's: once this process has joined or come back.
    Snapshot(Snapshot),
    /// What a subscription over an archive reports: a change between archive and live, or what the archive lacks.
    Notice(Notice),
    /// A request of another process. It has no place in the order: it comes when it has arrived.
    Request(Request),
}

impl<'a> Delivery<'a> {
    /// The message, if it is one.
    #[inline]
    pub fn message(&self) -> Option<&Message<'a>> {
        match self {
            Self::Message(message) => Some(message),
            _ => None,
        }
    }

    /// The event, if it is one.
    #[inline]
    pub fn event(&self) -> Option<Event> {
        match self {
            Self::Event(event) => Some(*event),
            _ => None,
        }
    }
}

impl fmt::Display for Delivery<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Message(message) => {
                let Message { sender, sequence, payload, .. } = message;
                let topic = message.name.map_or_else(|| message.topic.to_string(), str::to_owned);
                write!(f, "message {sequence} of member {sender} on topic {topic}: {} bytes", payload.len())
            }
            Self::Event(event) => event.fmt(f),
            Self::Skipped(count) => write!(f, "{count} messages were skipped: this subscription did not read in time"),
            Self::SnapshotRequest(_) => f.write_str("a joiner asks for the application's state at this place"),
            Self::Snapshot(snapshot) => {
                write!(f, "the application's state at another member: {} bytes", snapshot.bytes().len())
            }
            Self::Notice(notice) => notice.fmt(f),
            Self::Request(request) => write!(f, "a request of {} bytes", request.payload().len()),
        }
    }
}
