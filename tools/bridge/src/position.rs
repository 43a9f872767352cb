//! How far a stream has been carried into a group, as the group itself knows it.
//!
//! A bridge that was killed left messages under way, and no file of its own shows which of them the group delivered.
//! So the group's order shows it: before the messages that it carries, the bridge publishes a *position* on a topic of
//! its own, with the stream sequence of the next message. Each further message of the same publisher and incarnation,
//! unless a client sent it through that member, is the next of the stream, up to the next position. Topic and payload
//! of what is carried are unchanged, and a subscriber that does not care for positions does not subscribe to them.
//!
//! A bridge that starts publishes a position without a sequence: a *beginning*. It holds the stream's lock by then, so
//! the messages of every bridge before it stand before its beginning, or are void. What an archive has up to the
//! beginning is therefore all that was carried ([`Known`]).
//!
//! Pure: the archive's records are arguments.

use bourdon_archive::{Archived, Entry, Recorded};
use serde::{Deserialize, Serialize};
use std::ops::ControlFlow;

/// What a bridge publishes on the topic `bridge.STREAM`, as JSON.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub(crate) struct Position {
    /// The stream.
    pub(crate) stream: String,
    /// When it was created: a stream that was created again has other messages at the same sequences.
    pub(crate) created: String,
    /// The token of the lock under which the bridge runs.
    pub(crate) token: String,
    /// The stream sequence of the publisher's next message; none at a beginning.
    pub(crate) next: Option<u64>,
}

impl Position {
    /// The name of the lock and of the topic.
    pub(crate) fn topic(stream: &str) -> String {
        format!("bridge.{stream}")
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("names and numbers")
    }

    /// The order number of the command by which the bridge acquired its lock: the number in its token. No message has
    /// it, so an archive lacks it.
    fn lock_command(&self) -> Option<u64> {
        u64::from_str_radix(self.token.get(32..)?, 16).ok()
    }

    fn decode(recorded: &Recorded<'_>, stream: &str) -> Option<Self> {
        let is_here = recorded.name == Some(Self::topic(stream).as_str());
        let position: Self = is_here.then(|| serde_json::from_slice(recorded.payload).ok())??;
        (position.stream == stream).then_some(position)
    }
}

/// What an archive shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Known {
    /// All before this stream sequence were carried, of the stream created then.
    Next { next: u64, created: String },
    /// Nothing was carried: the archive has the group's messages from the first on.
    Nothing,
    /// The archive lacks messages; all before this stream sequence were carried, perhaps more.
    Unknown { at_least: u64 },
}

/// A position, and what came behind it.
#[derive(Debug)]
struct Last {
    position: Position,
    next: u64,
    sender: u16,
    incarnation: u32,
    /// Its sequence, then those of the messages carried behind it. A bridge publishes positions often enough.
    sequences: Vec<u64>,
}

impl Last {
    fn next(&self) -> u64 {
        self.next + self.sequences.len() as u64 - 1
    }
}

/// Reads the group's order up to a beginning.
#[derive(Debug)]
pub(crate) struct Learner<'a> {
    stream: &'a str,
    /// The token of the beginning.
    token: &'a str,
    last: Option<Last>,
    /// Whether nothing is missing since the last position, or since the group's first message.
    is_whole: bool,
    /// The epoch and order number that were read last.
    place: Option<(u64, u64)>,
    /// The only order number that is missing: that of a command, perhaps, by which a bridge acquired its lock.
    command: Option<u64>,
    /// A recorder began since then.
    has_begun: bool,
    /// The beginning was read.
    is_over: bool,
}

impl<'a> Learner<'a> {
    pub(crate) fn new(stream: &'a str, token: &'a str) -> Self {
        Self { stream, token, last: None, is_whole: false, place: None, command: None, has_begun: true, is_over: false }
    }

    pub(crate) fn is_over(&self) -> bool {
        self.is_over
    }

    /// Whether reading more of what lies before would change nothing.
    pub(crate) fn has_position(&self) -> bool {
        self.last.is_some()
    }

    /// Takes what stands next in the archive; breaks at the beginning.
    pub(crate) fn take(&mut self, archived: &Archived<'_>) -> ControlFlow<()> {
        match archived {
            Archived::Record(record, Some(Entry::Message(recorded))) => self.take_message(record.epoch, recorded),
            Archived::Record(_, Some(Entry::Begins { .. })) => self.has_begun = true,
            Archived::Record(_, Some(Entry::Retracted { sender, from, .. })) => self.retract(*sender, *from),
            Archived::Record(_, Some(Entry::Lost { .. }) | None) | Archived::Damage(_) => {
                (self.is_whole, self.command) = (false, None);
            }
        }
        if self.is_over { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    fn take_message(&mut self, epoch: u64, recorded: &Recorded<'_>) {
        if let Some(order) = recorded.order {
            // What the recorder missed before it began shows in the order numbers. A member that restarts from its
            // storage delivers messages of the last view again.
            if std::mem::take(&mut self.has_begun) {
                let next = self.place.map_or(0, |(_, last)| last + 1);
                let was_whole = self.is_whole || self.place.is_none();
                let is_again = self.place.is_some_and(|last| last.0 == epoch && order < next);
                self.is_whole = was_whole && (order == next || is_again);
                self.command = Some(next).filter(|next| was_whole && order == next + 1);
            }
            self.place = Some((epoch, order)).max(self.place);
        }
        let (sender, incarnation, sequence) = (recorded.sender, recorded.incarnation, recorded.sequence);
        let position = Position::decode(recorded, self.stream);
        if let Some(position) = &position {
            self.is_whole |= self.command.is_some() && self.command == position.lock_command();
        }
        match position {
            Some(Position { next: None, token, .. }) => self.is_over = token == self.token,
            Some(position) => {
                let next = position.next.unwrap_or_default();
                self.last = Some(Last { position, next, sender, incarnation, sequences: vec![sequence] });
                self.is_whole = true;
            }
            None => {
                let is_own = |last: &&mut Last| (last.sender, last.incarnation) == (sender, incarnation);
                if recorded.barrier.is_none()
                    && !recorded.is_from_client
                    && let Some(last) = self.last.as_mut().filter(is_own)
                    && last.sequences.last() < Some(&sequence)
                {
                    last.sequences.push(sequence);
                }
            }
        }
    }

    /// The messages of this sender from this sequence on became void.
    fn retract(&mut self, sender: u16, from: u64) {
        let Some(last) = self.last.as_mut().filter(|last| last.sender == sender) else { return };
        if last.sequences[0] >= from {
            (self.last, self.is_whole, self.command) = (None, false, None);
        } else {
            last.sequences.retain(|sequence| *sequence < from);
        }
    }

    /// What the archive shows.
    pub(crate) fn known(&self) -> Known {
        match &self.last {
            Some(last) if self.is_whole => Known::Next { next: last.next(), created: last.position.created.clone() },
            None if self.is_whole => Known::Nothing,
            last => Known::Unknown { at_least: last.as_ref().map_or(0, Last::next) },
        }
    }
}

#[cfg(test)]
mod tests;
