//! Where a durable member's records are stored: see `docs/protocols/durable.md`.

use crate::Item;
use bourdon_port::PortError;
use bourdon_protocol::{Again, Event, Message};
use std::fmt::Debug;

/// How the storage of a member is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoreState {
    /// How many times it was damaged, and set aside.
    pub set_aside: u16,
    /// For how long the oldest record has waited that is handed over and not stored; 0 if there is none.
    pub waited_ns: u64,
    /// Whether the disk is full.
    pub is_full: bool,
}

/// Stores records in their order, beside the thread that polls.
pub trait Store: Debug + Send {
    /// What is stored: from the beginning of the last view but one, or earlier. Called before the first record is
    /// appended.
    ///
    /// # Errors
    /// If it can't be read, or is damaged.
    fn read(&mut self) -> Result<Vec<Box<[u8]>>, PortError>;

    /// Takes a record, to be stored behind all before it.
    fn append(&mut self, record: &[u8]);

    /// Has what was appended stored, without waiting for it. Returns how many records are stored by now: those that
    /// were read count.
    ///
    /// # Errors
    /// If a record can't be stored: the process must end, as by a crash.
    fn stored(&mut self) -> Result<u64, PortError>;

    /// How it is.
    fn state(&self) -> StoreState;
}

/// What a restarted member delivers again.
#[derive(Debug)]
pub(crate) enum Kept {
    /// A message, its topic's name and its payload.
    Message(Message<'static>, Option<Box<str>>, Box<[u8]>),
    Event(Event),
}

impl Kept {
    pub(crate) fn new(again: Again<'_>) -> Self {
        match again {
            Again::Event(event) => Self::Event(event),
            Again::Message(message) => {
                let (name, payload) = (message.name.map(Box::from), Box::from(message.payload));
                Self::Message(Message { name: None, payload: &[], ..*message }, name, payload)
            }
        }
    }

    pub(crate) fn hand_out(&self, on_item: &mut impl FnMut(Item<'_>)) {
        match self {
            Self::Event(event) => on_item(Item::Event(*event)),
            Self::Message(message, name, payload) => {
                on_item(Item::Message(&Message { name: name.as_deref(), payload, ..*message }));
            }
        }
    }
}
