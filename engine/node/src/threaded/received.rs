//! Items of a subscription that outlive their place in its ring.

use super::frames::Delivered;
use crate::delivery::Delivery;
use bourdon_protocol::{Event, Message};
use std::fmt;

/// What a subscription gave, owned: it may be held over an `await`, and sent to another thread.
#[derive(Debug)]
#[non_exhaustive]
pub enum Received {
    /// A message, copied out of the ring.
    Message(OwnedMessage),
    /// Anything else.
    Other(Delivery<'static>),
}

impl Received {
    /// The message, if it is one.
    pub fn message(&self) -> Option<Message<'_>> {
        match self {
            Self::Message(message) => Some(message.get()),
            Self::Other(_) => None,
        }
    }

    /// The event, if it is one.
    pub fn event(&self) -> Option<Event> {
        match self {
            Self::Message(_) => None,
            Self::Other(delivery) => delivery.event(),
        }
    }
}

/// A copy of a message.
#[derive(Clone)]
pub struct OwnedMessage {
    frame: Box<[u8]>,
}

impl OwnedMessage {
    pub(super) fn new(frame: &[u8]) -> Self {
        Self { frame: frame.into() }
    }

    /// The message.
    pub fn get(&self) -> Message<'_> {
        Delivered::read(&self.frame)
    }
}

impl fmt::Debug for OwnedMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.get().fmt(f)
    }
}
