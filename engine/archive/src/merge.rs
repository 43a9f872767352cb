//! One subscription over an archive and the live group: decides what is delivered, and where the two meet.
//!
//! The place of a message is its epoch and order number, so the group must be in total order. The archive's order is
//! the group's. What comes live while the archive is read waits in a queue. The two meet once the archive has a message
//! of the queue, or the first of the queue is the one that comes next: then nothing lies between them. After each loss
//! the archive is read again, from the place that was reached.
//!
//! An order number alone is no place: what an observer delivered ahead of a view may become void, and the next view
//! uses its numbers again. A barrier's own message has no number, and is known by its phase and sender.
//!
//! Pure: messages, records and the time are arguments, and what is to be read is a request. In one poll the caller
//! hands over what is live ([`Merge::live`], [`Merge::event`]), then what was read ([`Merge::archived`],
//! [`Merge::end`]), and then takes what waits ([`Merge::pop`]), the next request and the notices.
//!
//! Invariants: what is delivered has rising places; with a recorder that records everything, nothing between two of
//! them is left out. Bound: [`QUEUE_MAX_BYTES`] of live messages wait; with more they are dropped, and the archive will
//! have them.

mod notice;
mod queue;
#[cfg(test)]
mod tests;

pub use notice::{Notice, Why};

use crate::archive::Archived;
use crate::entry::{Entry, Recorded};
use crate::error::Error;
use bourdon_log::Record;
use bourdon_protocol::{Event, Message};
use bourdon_wire::{Instant, Rank, Sequence};
use queue::Queue;
pub use queue::Waiting;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;

/// Bytes of live messages that wait while the archive is read.
const QUEUE_MAX_BYTES: usize = 64 << 20;
/// How soon the end of the archive is read again.
const READ_AGAIN_NS: u64 = 20_000_000;
/// A recorder that has not recorded a live message for so long records no more: a hundred times the interval of its
/// syncs.
const RECORDER_WAIT_NS: u64 = 5_000_000_000;

/// Where a subscription begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StartAt {
    /// With the oldest message of the archive.
    #[default]
    Oldest,
    /// With what is published from now on; the archive is read only after a loss.
    Live,
    /// At this position of the archive.
    Position(u64),
    /// With messages that were published at this time or later, in nanoseconds since 1970.
    Time(u64),
}

/// How far a subscription is: with it, another goes on behind the last message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Position {
    /// The group's instance; 0 if it is not known yet.
    pub instance: u64,
    /// The view of the last message.
    #[serde(default)]
    pub epoch: u64,
    /// The order number that comes next.
    pub order: u64,
    /// The phase of the last barrier that had messages of its own.
    #[serde(default)]
    pub phase: u64,
    /// The members whose messages at that barrier were delivered, a bit each.
    #[serde(default)]
    pub at_barrier: u64,
    /// The archive has been read up to here.
    pub archive: u64,
}

impl Position {
    fn place(&self) -> (u64, u64) {
        (self.epoch, self.order)
    }

    /// Whether what is at this place was delivered.
    fn has(&self, place: Place) -> bool {
        match place {
            Place::Order(epoch, order) => (epoch, order) < self.place(),
            Place::Barrier(phase, sender) => {
                phase < self.phase || phase == self.phase && self.at_barrier & bit(sender) != 0
            }
        }
    }

    fn advance(&mut self, place: Place) {
        match place {
            Place::Order(epoch, order) => (self.epoch, self.order) = (epoch, order + 1),
            Place::Barrier(phase, sender) => {
                let others = if phase == self.phase { self.at_barrier } else { 0 };
                (self.phase, self.at_barrier) = (phase, others | bit(sender));
            }
        }
    }
}

/// A group has at most 64 members.
fn bit(sender: u16) -> u64 {
    1_u64.checked_shl(sender.into()).unwrap_or(0)
}

/// The place of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// Its epoch and order number.
    Order(u64, u64),
    /// A barrier's own: its phase and sender.
    Barrier(u64, u16),
}

impl Place {
    fn of(message: &Message<'_>) -> Option<Self> {
        let order = message.order.map(|order| Self::Order(message.epoch.0, order.0));
        order.or(message.barrier.map(|phase| Self::Barrier(phase, message.sender.0)))
    }
}

/// What a subscription does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// It reads the archive.
    Replay,
    /// It has come to the archive's end, where more may come, and waits until the archive meets what waits.
    AtEnd,
    /// The two have met: it delivers what waits.
    Joining,
    /// It delivers what comes live.
    Live,
}

/// What an archived record is to the subscription.
#[derive(Clone, Copy, Debug)]
pub enum Output<'a> {
    /// A message that is to be delivered.
    Message(Message<'a>),
    /// An event among the messages.
    Event(Event),
}

/// What a subscription is to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    /// Where it begins.
    pub start: StartAt,
    /// Order numbers have no holes, as in every total order but that of real time: a hole is a loss.
    pub is_dense: bool,
    /// Once it is live it goes on live after a loss, and does not return to the archive.
    pub skips: bool,
}

/// Decides what one subscription delivers.
#[derive(Debug)]
pub struct Merge {
    rule: Rule,
    mode: Mode,
    position: Position,
    /// A place was reached: what comes next is known.
    has_place: bool,
    queue: Queue,
    /// The archive was read up to here.
    read_to: u64,
    /// The place behind the last archived message.
    cursor: (u64, u64),
    /// Records are missing behind that message: a recorder began there, or segments were removed.
    has_hole: bool,
    /// The archive is to be read.
    request: bool,
    /// From where it was read last.
    asked_from: u64,
    /// When the end of the archive was reached last.
    ended_at: Instant,
    /// Since when the archive has not grown, though live messages wait.
    waits_since: Option<Instant>,
    /// Behind the newest live message: the order number that comes next, and its time of publishing.
    newest: (u64, u64),
    switches: u64,
    lost: u64,
    notices: VecDeque<Notice>,
}

impl Merge {
    /// A subscription that begins, or goes on at a position at which one ended.
    pub fn new(rule: Rule, resumed: Option<Position>) -> Self {
        let resumed = resumed.filter(|position| position.instance != 0);
        let mut merge = Self {
            rule,
            mode: Mode::Live,
            position: resumed.unwrap_or_default(),
            has_place: resumed.is_some_and(|position| position.order > 0),
            queue: Queue::default(),
            read_to: resumed.map_or(0, |position| position.archive),
            cursor: (0, 0),
            has_hole: false,
            request: false,
            asked_from: 0,
            ended_at: Instant(0),
            waits_since: None,
            newest: (0, 0),
            switches: 0,
            lost: 0,
            notices: VecDeque::new(),
        };
        match rule.start {
            _ if resumed.is_some() => merge.replay(Why::Resumed),
            StartAt::Live => {}
            StartAt::Position(position) => {
                (merge.read_to, merge.position.archive) = (position, position);
                merge.replay(Why::Begun);
            }
            StartAt::Oldest | StartAt::Time(_) => merge.replay(Why::Begun),
        }
        merge
    }

    fn replay(&mut self, why: Why) {
        self.switches += u64::from(matches!(why, Why::Lost | Why::Slow));
        self.notices.push_back(Notice::Replay { from: self.read_to, why });
        (self.mode, self.request, self.asked_from) = (Mode::Replay, true, self.read_to);
    }

    // ---- what is live ---------------------------------------------------------------------------------------------

    /// A message came live, of whatever topic: all have a place. `name` is its topic's, as far as it is known. Returns
    /// whether it is to be delivered now.
    ///
    /// # Errors
    /// If it is of another instance than the subscription, or has no place.
    pub fn live(&mut self, message: &Message<'_>, name: Option<&str>, is_wanted: bool) -> Result<bool, Error> {
        self.check_instance(message.instance.0)?;
        let place = Place::of(message).ok_or(Error::NoOrder)?;
        if let Place::Order(_, order) = place {
            self.newest = (order + 1, message.send_time_ns);
            self.note_hole(order);
        }
        if self.mode == Mode::Live {
            let is_next = !self.position.has(place);
            if is_next {
                self.advance(place);
            }
            return Ok(is_next && is_wanted);
        }
        if self.queue.bytes() > QUEUE_MAX_BYTES {
            self.lose(Why::Slow); // the archive will have them
        }
        self.queue.push(message, place, name, is_wanted);
        Ok(false)
    }

    /// Something happened among the live messages. Returns whether it is to be handed out now: a loss that the archive
    /// makes good is not.
    pub fn event(&mut self, event: &Event) -> bool {
        let goes_on = self.rule.skips && matches!(self.mode, Mode::Live | Mode::Joining);
        match event {
            Event::Gap { from, to, .. } if goes_on => self.lost += to.0.saturating_sub(from.0),
            Event::Gap { .. } => {
                self.lose(Why::Lost);
                return !self.has_place && self.mode == Mode::Live;
            }
            Event::NewInstance { .. } => self.lose(Why::Lost),
            Event::Retracted { .. } if self.mode != Mode::Live => {
                self.queue.push_event(*event);
                return false;
            }
            _ => {}
        }
        true
    }

    /// Messages were left out here: the subscription's ring had no room for them. Returns whether that is to be handed
    /// out now.
    pub fn skipped(&mut self, count: u64) -> bool {
        let goes_on = self.rule.skips && matches!(self.mode, Mode::Live | Mode::Joining);
        if goes_on {
            self.lost += count;
        } else {
            self.lose(Why::Slow);
        }
        goes_on
    }

    /// A hole in the order numbers is a loss, also where no event reports it: a process that was removed from the group
    /// has missed what was delivered meanwhile.
    fn note_hole(&mut self, order: u64) {
        let is_joined = matches!(self.mode, Mode::Live | Mode::Joining);
        let own = Some(self.position.order).filter(|_| is_joined && self.has_place);
        let next = self.queue.next().or(own);
        if self.rule.is_dense && next.is_some_and(|next| order > next) && !(is_joined && self.rule.skips) {
            self.lose(Why::Lost);
        }
    }

    /// What waits follows a gap now; what was live returns to the archive.
    fn lose(&mut self, why: Why) {
        self.queue = Queue::default();
        if matches!(self.mode, Mode::Live | Mode::Joining) && self.has_place {
            self.replay(why);
        }
    }

    fn check_instance(&mut self, found: u64) -> Result<(), Error> {
        if self.position.instance == 0 {
            self.position.instance = found;
        }
        let expected = self.position.instance;
        if found == expected { Ok(()) } else { Err(Error::OtherInstance { found, expected }) }
    }

    fn advance(&mut self, place: Place) {
        self.position.advance(place);
        self.has_place = true;
    }

    // ---- what is read ---------------------------------------------------------------------------------------------

    /// The archive is to be read: from this position on, where what lies before this epoch and order number may be left
    /// out.
    pub fn take_request(&mut self) -> Option<(u64, (u64, u64))> {
        std::mem::take(&mut self.request).then(|| (self.read_to, self.position.place()))
    }

    /// Something was read, of the archive of this instance. Returns what is to be handed out for it.
    ///
    /// # Errors
    /// If it is of another instance than the subscription.
    pub fn archived<'a>(&mut self, instance: u64, archived: &Archived<'a>) -> Result<Option<Output<'a>>, Error> {
        self.check_instance(instance)?;
        let (record, entry) = match archived {
            Archived::Damage(damage) => {
                self.read_to = damage.to;
                self.lost += damage.to - damage.from;
                self.notices.push_back(Notice::Damage(*damage));
                return Ok(None);
            }
            Archived::Record(record, entry) => (record, entry),
        };
        self.has_hole |= record.position > self.read_to;
        self.read_to = record.position + 1;
        let is_beyond = self.cursor >= self.position.place();
        Ok(match *entry {
            Some(Entry::Message(recorded)) => self.take(instance, record, &recorded, is_beyond),
            Some(Entry::Lost { count, .. }) if is_beyond => {
                self.lost += count;
                self.notices.push_back(Notice::NotRecorded { count });
                None
            }
            Some(Entry::Retracted { sender, from, to }) if is_beyond => {
                let (sender, from, to) = (Rank(sender), Sequence(from), Sequence(to));
                Some(Output::Event(Event::Retracted { sender, from, to }))
            }
            Some(Entry::Begins { .. }) => {
                self.has_hole = true;
                None
            }
            _ => None,
        })
    }

    fn take<'a>(
        &mut self,
        instance: u64,
        record: &Record<'a>,
        recorded: &Recorded<'a>,
        is_beyond: bool,
    ) -> Option<Output<'a>> {
        let message = recorded.message(instance, record.epoch, record.time_ns);
        let place = Place::of(&message)?;
        if let Place::Order(epoch, order) = place {
            (self.cursor, self.position.archive) = ((epoch, order + 1), record.position);
            if std::mem::take(&mut self.has_hole) && self.has_place && order > self.position.order {
                self.notices.push_back(Notice::Hole { from: self.position.order, to: order });
            }
        }
        // A barrier's own message has the place behind the one before it, and no time of publishing.
        let is_new = !self.position.has(place) && (is_beyond || matches!(place, Place::Order(..)));
        if is_new {
            self.advance(place);
        }
        let is_early = matches!(self.rule.start, StartAt::Time(since_ns) if record.time_ns < since_ns);
        (is_new && !is_early).then_some(Output::Message(message))
    }

    /// The archive was read up to its end, before this position.
    pub fn end(&mut self, end: u64, now: Instant) {
        self.read_to = self.read_to.max(end);
        if self.read_to > self.asked_from {
            self.waits_since = None;
        }
        (self.mode, self.ended_at) = (Mode::AtEnd, now);
    }

    /// Goes on live if the archive and the queue meet; if they do not, has the archive's end read again.
    pub fn keep_time(&mut self, now: Instant) {
        if self.mode != Mode::AtEnd || self.request {
            return;
        }
        let meets = self.queue.discard(|place| self.position.has(place)) || self.follows();
        if meets || self.queue.is_empty() {
            self.waits_since = None;
            if meets {
                self.mode = Mode::Joining;
            }
            return;
        }
        let waited_ns = now.0.saturating_sub(self.waits_since.get_or_insert(now).0);
        if waited_ns > RECORDER_WAIT_NS {
            let to = self.queue.first().map_or(self.position.order, |(_, order)| order);
            self.notices.push_back(Notice::NoRecorder { from: self.position.order, to });
            (self.mode, self.waits_since) = (Mode::Joining, None);
        } else if now.0.saturating_sub(self.ended_at.0) >= READ_AGAIN_NS {
            (self.request, self.asked_from) = (true, self.read_to);
        }
    }

    /// Whether nothing lies between what was reached and the first message of the queue.
    fn follows(&self) -> bool {
        let (own_epoch, own_order) = self.position.place();
        self.queue.first().is_some_and(|(epoch, order)| order == own_order && (epoch == own_epoch || order == 0))
    }

    /// The next of what waits, once the archive and the queue have met. When nothing waits any more, it is live.
    pub fn pop(&mut self) -> Option<Waiting> {
        while self.mode == Mode::Joining {
            let Some(waiting) = self.queue.pop() else {
                (self.mode, self.queue) = (Mode::Live, Queue::default());
                self.notices.push_back(Notice::Live { order: self.position.order });
                return None;
            };
            if let Some(place) = waiting.place() {
                self.advance(place);
            }
            if waiting.is_wanted() {
                return Some(waiting);
            }
        }
        None
    }

    // ---- how it stands --------------------------------------------------------------------------------------------

    /// The next report.
    pub fn take_notice(&mut self) -> Option<Notice> {
        self.notices.pop_front()
    }

    /// What it does.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// How far it is. All that lies before has been delivered.
    pub fn position(&self) -> Position {
        self.position
    }

    /// The order number behind the newest live message, and the time at which that was published; zeros before the
    /// first.
    pub fn newest(&self) -> (u64, u64) {
        self.newest
    }

    /// Bytes that wait.
    pub fn queue_bytes(&self) -> usize {
        self.queue.bytes()
    }

    /// How often it has returned to the archive.
    pub fn switches(&self) -> u64 {
        self.switches
    }

    /// Messages that it has not delivered and never will: lost when they were recorded, damaged, or skipped.
    pub fn lost(&self) -> u64 {
        self.lost
    }
}
