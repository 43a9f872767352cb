//! What a subscription is to receive, and from where on.

use crate::config::{Flow, Reliability, Role, Settings, Start};
use crate::node_error::Error;
use crate::patterns::{Filter, Pattern};

/// Bytes of the ring of a subscription to events alone.
const EVENTS_RING_BYTES: usize = 1 << 16;

/// What becomes of messages that a subscription's ring has no room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Overrun {
    /// This process delivers nothing more until there is room: the default of a member, and of an observer with
    /// `flow.mode = "gating"`. Another observer can't hold messages.
    Hold,
    /// They are skipped; [`Delivery::Skipped`](crate::Delivery::Skipped) counts them at their place. The default of an
    /// observer that does not gate.
    Skip,
    /// They are read again from an archive: with [`History`](crate::History), whose default it is.
    Replay,
    /// Of each topic or key the newest is kept: with [`History`](crate::History).
    Latest,
}

/// What a [`Subscription`](crate::Subscription) is to receive. Events that have their place among the messages come to
/// every subscription.
///
/// Topics are chosen by patterns: a topic's name in which a part may be `*`, which stands for one part, and the last
/// part may be `**`, which stands for one part or more.
///
/// ```
/// use bourdon::Subscribe;
///
/// let everything = Subscribe::all();
/// let trades = Subscribe::to("md.*.trades").and("news").events();
/// let no_messages = Subscribe::none().events();
/// # let _ = (everything, trades, no_messages);
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct Subscribe {
    topics: Topics,
    events: bool,
    snapshots: bool,
    requests: bool,
    overrun: Option<Overrun>,
    start: Option<Start>,
}

#[derive(Clone, Debug)]
enum Topics {
    All,
    /// Of any of these patterns.
    Of(Vec<String>),
}

impl Subscribe {
    fn new(topics: Topics) -> Self {
        Self { topics, events: false, snapshots: false, requests: false, overrun: None, start: None }
    }

    /// All messages, also of topics that have no known name.
    pub fn all() -> Self {
        Self::new(Topics::All)
    }

    /// No messages.
    pub fn none() -> Self {
        Self::new(Topics::Of(Vec::new()))
    }

    /// The messages of a topic, or of all topics that a pattern stands for.
    pub fn to(pattern: &str) -> Self {
        Self::none().and(pattern)
    }

    /// Also the messages of this topic or pattern.
    pub fn and(mut self, pattern: &str) -> Self {
        match &mut self.topics {
            Topics::All => {}
            Topics::Of(patterns) => patterns.push(pattern.to_owned()),
        }
        self
    }

    /// Also the events that have no place among the messages, such as suspicions and waits, in the order in which they
    /// were reported. 256 are kept for a subscriber that does not read; then
    /// [`Event::Missed`](crate::Event::Missed) counts those that were not.
    ///
    /// ```
    /// let reports = bourdon::Subscribe::none().events();
    /// # let _ = reports;
    /// ```
    pub fn events(self) -> Self {
        Self { events: true, ..self }
    }

    /// Also requests for a snapshot of the application's state, and snapshots
    /// ([`Delivery::SnapshotRequest`](crate::Delivery)). They come to the first subscription that takes them.
    ///
    /// Only a subscription that has received everything is asked for the state: one that was made before the process
    /// delivered its first message, or before the process was given a snapshot. Without one this process declines, and
    /// a joiner asks another member.
    ///
    /// A process that has joined, and a member at `durable`, take them only with `process.snapshots`. There a snapshot
    /// that comes waits for a subscription that takes it, and nothing is delivered meanwhile: the process follows its
    /// view, does not become a member, and reports [`Event::Waiting`](crate::Event::Waiting).
    ///
    /// ```
    /// let state = bourdon::Subscribe::to("commands").snapshots();
    /// # let _ = state;
    /// ```
    pub fn snapshots(self) -> Self {
        Self { snapshots: true, ..self }
    }

    /// Also [requests](crate::Request) of other processes. They come to the first subscription that takes them; without
    /// one they are declined.
    ///
    /// ```
    /// let service = bourdon::Subscribe::none().requests();
    /// # let _ = service;
    /// ```
    pub fn requests(self) -> Self {
        Self { requests: true, ..self }
    }

    /// What becomes of messages that its ring has no room for.
    ///
    /// ```
    /// use bourdon::{Overrun, Subscribe};
    ///
    /// let screen = Subscribe::to("md.**").overrun(Overrun::Skip); // a member need not wait for a screen
    /// # let _ = screen;
    /// ```
    pub fn overrun(self, overrun: Overrun) -> Self {
        Self { overrun: Some(overrun), ..self }
    }

    /// Where it begins. A process begins where `process.start` names; a subscription that is made after
    /// [`Node::join`](crate::Node::join) begins live. Any other beginning is refused. [`Start::Oldest`] and
    /// [`Start::Snapshot`] are for observers.
    ///
    /// ```
    /// use bourdon::{Start, Subscribe};
    ///
    /// let live = Subscribe::all().from(Start::Live);
    /// # let _ = live;
    /// ```
    pub fn from(self, start: Start) -> Self {
        Self { start: Some(start), ..self }
    }

    pub(crate) fn takes_snapshots(&self) -> bool {
        self.snapshots
    }

    /// What that means for a process with these settings.
    pub(crate) fn chosen(&self, settings: &Settings, is_before_join: bool) -> Result<Chosen, Error> {
        let filter = match &self.topics {
            Topics::All => Some(Filter::default()),
            Topics::Of(patterns) if patterns.is_empty() => None,
            Topics::Of(patterns) => {
                let patterns: Result<Vec<_>, _> = patterns.iter().map(|pattern| Pattern::new(pattern)).collect();
                Some(Filter::new(&patterns?, &settings.group.topics))
            }
        };
        let unsupported = |setting, what| Err(Error::Unsupported { setting, what });
        if self.snapshots && !settings.process.snapshots {
            let is_durable = settings.group.reliability == Reliability::Durable;
            let is_stored = is_durable && settings.process.role == Role::Member && settings.storage.snapshots;
            if is_stored || !is_before_join {
                let what = if is_stored {
                    "a durable member stores them, and reads its storage when it opens: set process.snapshots"
                } else {
                    "this process has joined without them: subscribe before join, or set process.snapshots"
                };
                return unsupported("Subscribe::snapshots", what.to_owned());
            }
        }
        let begins = if is_before_join { settings.process.start } else { Start::Live };
        if let Some(start) = self.start.filter(|start| *start != begins) {
            let what =
                format!("this process begins {begins:?}, not {start:?}: set process.start, and subscribe before join");
            return unsupported("Subscribe::from", what);
        }
        let holds = settings.process.role == Role::Member || settings.flow.mode == Flow::Gating;
        let keeps_all = match self.overrun {
            None => holds,
            Some(Overrun::Skip) => false,
            Some(Overrun::Hold) if holds => true,
            Some(Overrun::Hold) => {
                let what = "only an observer with flow.mode = \"gating\" holds messages: set that, or skip them";
                return unsupported("Overrun::Hold", what.to_owned());
            }
            Some(Overrun::Replay | Overrun::Latest) => {
                let what = "a subscription without an archive holds messages, or skips them: give it one (History)";
                return unsupported("Subscribe::overrun", what.to_owned());
            }
        };
        let ring_bytes = settings.threads.subscription_ring_bytes;
        let ring_bytes = if filter.is_some() { ring_bytes } else { ring_bytes.min(EVENTS_RING_BYTES) };
        let Self { events, snapshots, requests, .. } = *self;
        Ok(Chosen { filter, keeps_all, events, snapshots, requests, ring_bytes })
    }
}

/// The messages of a topic, or of all topics that a pattern stands for.
impl From<&str> for Subscribe {
    fn from(pattern: &str) -> Self {
        Self::to(pattern)
    }
}

/// What a subscription gets.
pub(crate) struct Chosen {
    /// None takes no message.
    pub(crate) filter: Option<Filter>,
    /// What its ring has no room for stops delivery.
    pub(crate) keeps_all: bool,
    /// Whether it gets events that have no place among the messages.
    pub(crate) events: bool,
    /// Whether it gets requests for snapshots, and snapshots.
    pub(crate) snapshots: bool,
    /// Whether it gets requests of other processes.
    pub(crate) requests: bool,
    pub(crate) ring_bytes: usize,
}
