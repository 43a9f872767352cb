//! The histories that processes record of their deliveries.
//!
//! Each process writes one line for each event, as it happens, into its own file; a killed process leaves a last line
//! that may be cut short. The judges compare processes, so reading turns names into small numbers (a message is always
//! a `u32`), pairs each retraction with the delivery that it retracts, and records for each delivery the view and the
//! barrier before it. The contents of the files are never corrected: a duplicate stays a duplicate.
//!
//! A process that was restarted, or removed and admitted again, starts a new file, of a new *incarnation*
//! (`member-0.2.tsv`). Within an incarnation views only grow and nothing is delivered twice; a new incarnation may
//! begin with its snapshot's messages.
//!
//! Invariants: every line that ends is understood or the reading fails; `segment` and `phase` never fall within an
//! incarnation.

mod directory;
mod line;
pub mod writer;

pub use directory::read;

use std::collections::HashMap;

/// A message: an index into [`Histories::messages`].
pub type MessageId = u32;
/// A publisher: an index into [`Histories::publishers`].
pub type PublisherId = u32;

/// The `segment` of a delivery before the first view: part of a snapshot.
pub const SNAPSHOT: u32 = u32::MAX;

/// Why histories could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// A file or folder can't be read.
    #[error("can't read {path}: {source}")]
    Io {
        /// The file or folder.
        path: String,
        /// The system's error.
        source: std::io::Error,
    },
    /// There is nothing to judge.
    #[error("{0} holds no ROLE-RANK.tsv; name the folder that processes wrote their histories to")]
    Empty(String),
    /// A file's name is not the name of a process.
    #[error("{0} is not named ROLE-RANK.tsv or ROLE-RANK.INCARNATION.tsv, as in member-0.tsv, observer-1.2.tsv")]
    Name(String),
    /// A whole line is unknown.
    #[error("{path}:{line}: {why}; see docs/lab.md for the format")]
    Line {
        /// The file.
        path: String,
        /// The line number, from 1.
        line: usize,
        /// The error.
        why: String,
    },
}

/// One delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// The message.
    pub message: MessageId,
    /// The index of the installed view in [`Incarnation::views`], or [`SNAPSHOT`].
    pub segment: u32,
    /// The view that the line itself names.
    pub view: u64,
    /// Its number in the total order.
    pub order: Option<u64>,
    /// The message that it answers.
    pub after: Option<MessageId>,
    /// The beginning of its payload's SHA-256.
    pub hash: u64,
    /// The last barrier before it.
    pub phase: Option<u64>,
    /// Whether it was retracted later.
    pub retracted: bool,
}

/// An installed view.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct View {
    /// Its number.
    pub number: u64,
    /// Its members' ranks, the most senior first.
    pub members: Vec<String>,
}

/// A barrier that was passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Barrier {
    /// Its number.
    pub number: u64,
    /// The view in which it was passed, as [`Delivery::segment`].
    pub segment: u32,
    /// How many deliveries of this incarnation come before it.
    pub position: usize,
}

/// Messages of one publisher that a process recorded as given up: `from` to before `to`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// The publisher.
    pub publisher: PublisherId,
    /// The first message given up.
    pub from: u64,
    /// The first message after them.
    pub to: u64,
}

/// A state that an incarnation begins with, as a sum instead of all its messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct State {
    /// How many messages had been delivered.
    pub count: u64,
    /// The sum of their hashes, modulo 2^64.
    pub sum: u64,
}

/// The history of one process between its start and its end.
#[derive(Clone, Debug, Default)]
pub struct Incarnation {
    /// The process: `member:0`.
    pub name: String,
    /// Whether it is a member; otherwise it is an observer.
    pub member: bool,
    /// The number of this incarnation, from 1.
    pub number: u32,
    /// Whether this incarnation ended by a kill.
    pub killed: bool,
    /// The state that it began with, if it is a sum.
    pub state: Option<State>,
    /// Views in the order they were installed.
    pub views: Vec<View>,
    /// Deliveries in their order, including retracted deliveries.
    pub deliveries: Vec<Delivery>,
    /// Barriers in the order they were passed.
    pub barriers: Vec<Barrier>,
    /// The gaps.
    pub gaps: Vec<Gap>,
    /// Messages delivered again without having been retracted.
    pub duplicates: Vec<MessageId>,
    /// How many retractions there are.
    pub retractions: usize,
    /// Messages retracted that had not been delivered.
    pub retracted_unseen: Vec<MessageId>,
}

impl Incarnation {
    /// The name to print: `member:0`, and from the second incarnation on `member:0 (incarnation 2)`.
    pub fn shown(&self) -> String {
        if self.number == 1 { self.name.clone() } else { format!("{} (incarnation {})", self.name, self.number) }
    }

    /// Deliveries that were not retracted.
    pub fn kept(&self) -> impl Iterator<Item = &Delivery> {
        self.deliveries.iter().filter(|delivery| !delivery.retracted)
    }

    /// Whether a file of this name, without its extension, holds this history: `observer-0.2`.
    pub fn is_of_file(&self, stem: &str) -> bool {
        let name = self.name.replace(':', "-");
        stem == format!("{name}.{}", self.number) || (self.number == 1 && stem == name)
    }

    /// Whether it may have begun when others had already delivered messages.
    pub fn starts_late(&self) -> bool {
        !self.member || self.number > 1
    }

    /// Whether it recorded this message as given up.
    pub fn gave_up(&self, publisher: PublisherId, sequence: u64) -> bool {
        self.gaps.iter().any(|gap| gap.publisher == publisher && (gap.from..gap.to).contains(&sequence))
    }

    /// The last view it installed.
    pub fn last_view(&self) -> Option<u64> {
        self.views.last().map(|view| view.number)
    }
}

/// The histories of all processes of one run.
#[derive(Clone, Debug, Default)]
pub struct Histories {
    /// All incarnations; those of one process are in their order.
    pub incarnations: Vec<Incarnation>,
    /// The publishers, by [`PublisherId`].
    pub publishers: Vec<String>,
    /// The messages that were published or named, by [`MessageId`].
    pub messages: Vec<(PublisherId, u64)>,
    publisher_ids: HashMap<String, PublisherId>,
    message_ids: HashMap<(PublisherId, u64), MessageId>,
}

impl Histories {
    /// `publisher:sequence`, for people.
    pub fn message(&self, message: MessageId) -> String {
        let (publisher, sequence) = self.messages[message as usize];
        format!("{}:{sequence}", self.publishers[publisher as usize])
    }

    fn publisher_id(&mut self, name: &str) -> PublisherId {
        if let Some(id) = self.publisher_ids.get(name) {
            return *id;
        }
        let id = PublisherId::try_from(self.publishers.len()).expect("fewer than 2^32 publishers fit in memory");
        self.publishers.push(name.to_owned());
        self.publisher_ids.insert(name.to_owned(), id);
        id
    }

    fn message_id(&mut self, publisher: PublisherId, sequence: u64) -> MessageId {
        let next = MessageId::try_from(self.messages.len()).expect("fewer than 2^32 messages fit in memory");
        let id = *self.message_ids.entry((publisher, sequence)).or_insert(next);
        if id == next {
            self.messages.push((publisher, sequence));
        }
        id
    }
}
