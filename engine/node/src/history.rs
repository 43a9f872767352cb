//! One subscription over an archive on this host and the live group.
//!
//! A subscriber that joins late, falls behind or is restarted reads the archive, and goes on live where the two meet:
//! `docs/archive.md`. [`Merge`] decides; here are the archive's thread, the clock, and what is live: an inline node, or
//! a subscription of a node with threads of its own.
//!
//! It takes all that is live, of whatever topic, so that a hole in the order numbers shows a loss, whatever caused it.
//! It never holds the group up: while the application is slow, messages are lost live, and the archive has them.

mod latest;
mod live;

pub use live::Live;

use crate::config::{Order, Settings};
use crate::delivery::Delivery;
use crate::inline::InlineNode;
use crate::node_error::Error;
use crate::patterns::{Filter, Pattern};
use crate::subscribe::{Overrun, Subscribe};
use crate::threaded::{Node, Subscription};
use bourdon_archive::{Archive, Batch, Error as ArchiveError, Merge, Mode, Output, Position, Replay, Rule, StartAt};
use bourdon_protocol::Message;
use bourdon_wire::Instant;
use latest::Latest;
use std::path::PathBuf;
use std::time::Duration;

/// Live messages taken in one poll while the archive is read.
const LIVE_LIMIT: usize = 4_096;
/// How soon it is looked whether more of the archive has been read.
const LOOK_AGAIN: Duration = Duration::from_millis(1);
/// Keys of which the newest message waits, with [`Overrun::Latest`]: more than the instruments of an exchange.
const KEYS_MAX: usize = 65_536;

/// What distinguishes messages of one topic, with [`Overrun::Latest`].
type Key = Box<dyn for<'a> Fn(&Message<'a>) -> &'a [u8] + Send>;

/// Which archive a subscription reads, where it begins, and what it does when the application is too slow.
///
/// ```no_run
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use bourdon::{History, InlineNode, Overrun, Settings, StartAt};
/// use std::time::Duration;
///
/// let mut settings = Settings::load("bourdon.toml".as_ref())?;
/// settings.process.role = bourdon::settings::Role::Observer;
/// let history = History::at("/var/lib/bourdon/archive").from(StartAt::Oldest).overrun(Overrun::Replay);
/// let mut prices = history.follow(InlineNode::join(&settings)?, &settings, &["md.**".parse()?])?;
/// loop {
///     if prices.poll(256, |delivery| println!("{delivery}"))? == 0 {
///         prices.wait(Duration::from_millis(100))?;
///     }
/// }
/// # }
/// ```
#[must_use]
pub struct History {
    directory: PathBuf,
    start: StartAt,
    resumed: Option<Position>,
    overrun: Overrun,
    keys_max: usize,
    key: Option<Key>,
}

impl History {
    /// The archive in this directory, which a process on this host records: a subscription over it begins with the
    /// oldest message, and returns to it after a loss.
    pub fn at(directory: impl Into<PathBuf>) -> Self {
        let (start, overrun, keys_max) = (StartAt::Oldest, Overrun::Replay, KEYS_MAX);
        Self { directory: directory.into(), start, resumed: None, overrun, keys_max, key: None }
    }

    /// Where it begins.
    pub fn from(self, start: StartAt) -> Self {
        Self { start, ..self }
    }

    /// It goes on where an earlier subscription was; where none was, it begins as [`History::from`] gives.
    pub fn resume(self, position: impl Into<Option<Position>>) -> Self {
        Self { resumed: position.into(), ..self }
    }

    /// What happens when messages come faster than the application takes them: [`Overrun::Replay`] (the default)
    /// returns to the archive, [`Overrun::Skip`] goes on live and hands out how many were lost, and
    /// [`Overrun::Latest`] hands out the newest message of each key. [`Overrun::Hold`] is refused: a subscription with
    /// an archive holds up no process.
    pub fn overrun(self, overrun: Overrun) -> Self {
        Self { overrun, ..self }
    }

    /// With [`Overrun::Latest`]: a key is a topic and these bytes of a message, part of its payload for one. Without
    /// this a key is a topic. The newest messages of 65,536 keys, or of `keys_max`, wait at most; with more, the
    /// application gets the oldest of them before more is taken.
    pub fn keyed(self, keys_max: usize, key: impl for<'a> Fn(&Message<'a>) -> &'a [u8] + Send + 'static) -> Self {
        Self { keys_max: keys_max.max(1), key: Some(Box::new(key)), ..self }
    }

    /// Subscribes to these topics, or to all if there are none, at a node that this thread polls. The settings are
    /// those that the node was joined with.
    ///
    /// # Errors
    /// If the archive can't be read, or is of another instance than the position.
    pub fn follow(
        self,
        node: InlineNode,
        settings: &Settings,
        patterns: &[Pattern],
    ) -> Result<HistorySubscription<InlineNode>, Error> {
        HistorySubscription::new(self, node, settings, patterns)
    }
}

impl Node {
    /// As [`Node::subscribe`], of these topics, or of all if there are none, over an archive.
    ///
    /// # Errors
    /// As [`Node::subscribe`]; if the archive can't be read, or is of another instance than the position.
    pub fn subscribe_history(
        &self,
        history: History,
        patterns: &[Pattern],
    ) -> Result<HistorySubscription<Subscription>, Error> {
        let live = self.subscribe(Subscribe::all().overrun(Overrun::Skip))?;
        HistorySubscription::new(history, live, self.settings(), patterns)
    }
}

impl std::fmt::Debug for History {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { directory, start, resumed, overrun, .. } = self;
        let mut text = f.debug_struct("History");
        text.field("directory", directory).field("start", start).field("resumed", resumed).field("overrun", overrun);
        text.finish_non_exhaustive()
    }
}

/// How a subscription over an archive stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Progress {
    /// Whether it replays or is live.
    pub mode: Mode,
    /// Where it is. All that lies before was handed out.
    pub position: Position,
    /// How many messages of the group lie between and the newest that came live; 0 before the first.
    pub behind_messages: u64,
    /// How much later the newest was published than the last one that was handed out.
    pub behind_ns: u64,
    /// Bytes of live messages that wait.
    pub waiting_bytes: usize,
    /// How often it has returned to the archive.
    pub switches: u64,
    /// Messages that were lost for good: skipped, or missing in the archive.
    pub lost: u64,
    /// Messages that a newer one of their key has replaced.
    pub replaced: u64,
}

/// A subscription over an archive and what is live: an [`InlineNode`], or a [`Subscription`].
///
/// Messages come in total order, without gap or duplicate, whatever is lost live, as long as the archive has them.
/// [`Delivery::Notice`](crate::Delivery) reports each change between archive and live at its place, and what the
/// archive lacks. Events come when they are reported, not at their place among messages that are replayed; of losses
/// that the archive makes good there is no event.
#[derive(Debug)]
pub struct HistorySubscription<L> {
    live: L,
    source: Source,
    latest: Option<Latest>,
}

impl<L: Live> HistorySubscription<L> {
    fn new(history: History, live: L, settings: &Settings, patterns: &[Pattern]) -> Result<Self, Error> {
        let History { directory, start, resumed, overrun, keys_max, key } = history;
        if overrun == Overrun::Hold {
            let what =
                "a subscription with an archive holds up no process: replay, skip, or take the latest".to_owned();
            return Err(Error::Unsupported { setting: "Overrun::Hold", what });
        }
        let found = match Archive::open(&directory) {
            Ok(archive) => Some(archive.instance()),
            Err(error) if error.is_empty() => None,
            Err(error) => return Err(error.into()),
        };
        if let (Some(found), Some(Position { instance: expected, .. })) = (found, resumed)
            && ![0, found].contains(&expected)
        {
            return Err(ArchiveError::OtherInstance { found, expected }.into());
        }
        let is_dense = settings.group.order == Order::Total;
        let rule = Rule { start, is_dense, skips: overrun == Overrun::Skip };
        let latest = (overrun == Overrun::Latest).then(|| Latest::new(keys_max, key));
        let filter = Filter::new(patterns, &settings.group.topics);
        Ok(Self { live, source: Source::new(rule, resumed, filter, directory)?, latest })
    }

    /// Takes what is live and what was read of the archive, and hands out at most `limit` messages, with events and
    /// notices among them. Returns how much was done: 0 means that there is nothing now.
    ///
    /// # Errors
    /// If the node has ended, the archive can't be read, or the group has formed again as another instance.
    pub fn poll(&mut self, limit: usize, mut on_delivery: impl FnMut(Delivery<'_>)) -> Result<usize, Error> {
        let Some(latest) = &mut self.latest else {
            return self.source.poll(&mut self.live, limit, |delivery, _| on_delivery(delivery));
        };
        let count =
            self.source.poll(&mut self.live, latest.room().min(LIVE_LIMIT), |delivery, before| match delivery {
                Delivery::Message(message) => latest.put(&message, before),
                other => on_delivery(other),
            })?;
        Ok(count.max(latest.take(limit, |message| on_delivery(Delivery::Message(message)))))
    }

    /// Sleeps until there may be something, at most for `longest`.
    ///
    /// # Errors
    /// If the node has ended.
    pub fn wait(&mut self, longest: Duration) -> Result<(), Error> {
        let is_busy = self.source.is_busy() || self.latest.as_ref().is_some_and(|latest| !latest.is_empty());
        self.live.wait(if is_busy { longest.min(LOOK_AGAIN) } else { longest })
    }

    /// Where it is. All that lies before was handed out: with it, another subscription goes on.
    pub fn position(&self) -> Position {
        let waiting = self.latest.as_ref().and_then(Latest::position);
        waiting.unwrap_or_else(|| self.source.merge.position())
    }

    /// How it stands.
    pub fn progress(&self) -> Progress {
        let (merge, position) = (&self.source.merge, self.position());
        let (newest_order, newest_ns) = merge.newest();
        Progress {
            mode: merge.mode(),
            position,
            behind_messages: newest_order.saturating_sub(position.order),
            behind_ns: newest_ns.saturating_sub(self.source.last_ns),
            waiting_bytes: merge.queue_bytes(),
            switches: merge.switches(),
            lost: merge.lost(),
            replaced: self.latest.as_ref().map_or(0, Latest::replaced),
        }
    }

    /// What is live.
    pub fn live(&self) -> &L {
        &self.live
    }

    /// What is live. What is polled here directly is lost to this subscription, and is read of the archive.
    pub fn live_mut(&mut self) -> &mut L {
        &mut self.live
    }
}

/// The merge, and what it needs of the world.
#[derive(Debug)]
struct Source {
    merge: Merge,
    replay: Replay,
    batch: Batch,
    /// How much of the batch has been taken.
    taken: usize,
    filter: Filter,
    begun: std::time::Instant,
    /// When the last message that was handed out was published.
    last_ns: u64,
}

impl Source {
    fn new(rule: Rule, resumed: Option<Position>, filter: Filter, directory: PathBuf) -> Result<Self, Error> {
        let (merge, replay, begun) = (Merge::new(rule, resumed), Replay::start(directory)?, std::time::Instant::now());
        Ok(Self { merge, replay, batch: Batch::default(), taken: 0, filter, begun, last_ns: 0 })
    }

    /// Hands out at most `limit` messages, each with the position before it.
    fn poll(
        &mut self,
        live: &mut impl Live,
        limit: usize,
        mut hand_out: impl FnMut(Delivery<'_>, Position),
    ) -> Result<usize, Error> {
        self.settle(&mut hand_out)?;
        let mut handed = 0;
        let live_limit = if self.merge.mode() == Mode::Live { limit } else { LIVE_LIMIT };
        let count = self.take_live(live, live_limit, &mut handed, &mut hand_out)?;
        let read = self.take_read(limit, &mut handed, &mut hand_out)?;
        // Also at the limit it is noticed that nothing waits any more.
        while handed < limit || self.merge.queue_bytes() == 0 {
            let before = self.merge.position();
            let Some(waiting) = self.merge.pop() else { break };
            handed += 1;
            report(&mut self.merge, &mut hand_out);
            if let Some(message) = waiting.message() {
                self.last_ns = message.send_time_ns;
                hand_out(Delivery::Message(message), before);
            } else if let Some(event) = waiting.event() {
                hand_out(Delivery::Event(event), before);
            }
        }
        self.settle(&mut hand_out)?;
        Ok(count + read + handed)
    }

    /// Asks for what is to be read, and hands out what has changed.
    fn settle(&mut self, hand_out: &mut impl FnMut(Delivery<'_>, Position)) -> Result<(), Error> {
        report(&mut self.merge, hand_out);
        if let Some((from, place)) = self.merge.take_request() {
            self.replay.request(from, place)?;
        }
        Ok(())
    }

    fn take_live(
        &mut self,
        live: &mut impl Live,
        limit: usize,
        handed: &mut usize,
        hand_out: &mut impl FnMut(Delivery<'_>, Position),
    ) -> Result<usize, Error> {
        let (merge, filter, last_ns, mut failure) = (&mut self.merge, &self.filter, &mut self.last_ns, None);
        let count = live.poll(limit, |delivery| {
            let before = merge.position();
            match delivery {
                Delivery::Message(message) => match merge.live(&message, filter.name(&message), filter.wants(&message))
                {
                    Ok(true) => {
                        (*handed, *last_ns) = (*handed + 1, message.send_time_ns);
                        report(merge, hand_out);
                        hand_out(Delivery::Message(message), before);
                    }
                    Ok(false) => {}
                    Err(error) => failure = Some(error),
                },
                Delivery::Event(event) if !merge.event(&event) => {}
                Delivery::Skipped(count) if !merge.skipped(count) => {}
                other => hand_out(other, before),
            }
        })?;
        failure.map_or(Ok(count), |error| Err(error.into()))
    }

    fn take_read(
        &mut self,
        limit: usize,
        handed: &mut usize,
        hand_out: &mut impl FnMut(Delivery<'_>, Position),
    ) -> Result<usize, Error> {
        let mut count = 0;
        loop {
            while *handed < limit
                && let Some(archived) = self.batch.get(self.taken)
            {
                (self.taken, count) = (self.taken + 1, count + 1);
                let before = self.merge.position();
                let output = self.merge.archived(self.batch.instance, &archived)?;
                report(&mut self.merge, hand_out);
                match output {
                    Some(Output::Message(message)) if self.filter.wants(&message) => {
                        (*handed, self.last_ns) = (*handed + 1, message.send_time_ns);
                        hand_out(Delivery::Message(message), before);
                    }
                    Some(Output::Event(event)) => hand_out(Delivery::Event(event), before),
                    _ => {}
                }
            }
            if self.taken < self.batch.len() {
                return Ok(count); // the application has had enough
            }
            let now = Instant(self.begun.elapsed().as_nanos() as u64);
            if let Some(end) = self.batch.end.take() {
                self.merge.end(end?, now);
            }
            self.merge.keep_time(now);
            let Some(batch) = self.replay.next()? else { return Ok(count) };
            (self.batch, self.taken, count) = (batch, 0, count + 1);
        }
    }

    /// Whether there is soon something to do.
    fn is_busy(&self) -> bool {
        match self.merge.mode() {
            Mode::Live => false,
            Mode::AtEnd => self.merge.queue_bytes() > 0,
            Mode::Replay | Mode::Joining => true,
        }
    }
}

/// Hands out what has changed, in front of the message that shows it.
#[inline]
fn report(merge: &mut Merge, hand_out: &mut impl FnMut(Delivery<'_>, Position)) {
    while let Some(notice) = merge.take_notice() {
        hand_out(Delivery::Notice(notice), merge.position());
    }
}
