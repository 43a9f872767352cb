//! A group's messages in its order, behind a place: from the archive on this host, then live.
//!
//! An observer that does not poll loses messages, and a server may take none for hours. So the observer has a thread of
//! its own, which hands over at most what its channel has room for; once there is none it returns to the archive
//! ([`Merge`]), which has what it leaves out.

use crate::failure::{Failure, note};
use crate::headers::Place;
use bourdon::topics::{Filter, Pattern, Verdict};
use bourdon::{Delivery, Event, InlineNode, Message, Settings, time};
use bourdon_archive::{Batch, Error, Merge, Mode, Notice, Output, Position, Replay, Rule, StartAt};
use bytes::Bytes;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tokio::sync::mpsc::error::TryRecvError;
use tokio::sync::mpsc::{Receiver, Sender, channel};

/// Messages that wait to be published: some round trips' worth.
const ROOM: usize = 1_024;
/// Messages that are taken at a time; while there is no room for so many the archive is read.
const POLL: usize = 128;
/// The longest sleep, and the one while the archive is read or there is no room.
const SLEEP: Duration = Duration::from_millis(100);
const LOOK_AGAIN: Duration = Duration::from_millis(1);

/// A message of the group.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) place: Place,
    /// Rank, incarnation and sequence.
    pub(crate) publisher: (u16, u32, u64),
    pub(crate) topic: String,
    pub(crate) send_time_ns: u64,
    pub(crate) payload: Bytes,
}

/// What comes next.
#[derive(Debug)]
pub(crate) enum Item {
    Message(Row),
    /// So many messages, or order numbers, are missing here: the archive does not have them.
    Missing(u64),
    /// So many messages that were handed over became void.
    Retracted(u64),
    /// The archive ends before what is live and does not grow: nothing more comes.
    NoRecorder(String),
}

/// A source that runs; it ends with this.
pub(crate) struct Source {
    items: Receiver<Result<Item, Failure>>,
}

impl Source {
    /// Begins behind this place, or with the archive's oldest message.
    pub(crate) fn start(
        settings: Settings,
        patterns: &[Pattern],
        archive: &Path,
        after: Option<Place>,
    ) -> Result<Self, Failure> {
        let (sender, items) = channel(ROOM);
        let filter = Filter::new(patterns, &settings.group.topics);
        let archive = archive.to_owned();
        let serve = move || {
            let reader = Reader::open(archive, filter, after, sender.clone());
            let outcome = reader.and_then(|reader| reader.run(&settings));
            if let Err(failure) = outcome {
                let _ = sender.blocking_send(Err(failure));
            }
        };
        std::thread::Builder::new().name("source".into()).spawn(serve).map_err(Failure::broken)?;
        Ok(Self { items })
    }

    /// The next item.
    pub(crate) async fn next(&mut self) -> Result<Item, Failure> {
        self.items.recv().await.unwrap_or_else(|| Err(Failure::broken("the thread that reads the group has ended")))
    }

    /// The next item that is there already.
    pub(crate) fn try_next(&mut self) -> Result<Option<Item>, Failure> {
        match self.items.try_recv() {
            Ok(item) => item.map(Some),
            Err(TryRecvError::Empty) => Ok(None),
            Err(TryRecvError::Disconnected) => Err(Failure::broken("the thread that reads the group has ended")),
        }
    }
}

/// The thread's part.
struct Reader {
    filter: Filter,
    sender: Sender<Result<Item, Failure>>,
    merge: Merge,
    replay: Replay,
    batch: Batch,
    /// How much of the batch has been taken.
    taken: usize,
    begun: Instant,
    /// Nothing more is to be handed over.
    is_over: bool,
}

impl Reader {
    fn open(
        path: PathBuf,
        filter: Filter,
        after: Option<Place>,
        sender: Sender<Result<Item, Failure>>,
    ) -> Result<Self, Failure> {
        let resumed = after.map(|place| Position {
            instance: place.instance,
            epoch: place.epoch,
            order: place.order + 1,
            ..Position::default()
        });
        let merge = Merge::new(Rule { start: StartAt::Oldest, is_dense: true, skips: false }, resumed);
        let replay = Replay::start(path).map_err(of_archive)?;
        let (batch, begun) = (Batch::default(), Instant::now());
        Ok(Self { filter, sender, merge, replay, batch, taken: 0, begun, is_over: false })
    }

    /// Until the other end is gone.
    fn run(mut self, settings: &Settings) -> Result<(), Failure> {
        let mut node = InlineNode::join(settings).map_err(Failure::unusable)?;
        while !self.is_over && !self.sender.is_closed() {
            let mut failure = None;
            if self.merge.mode() == Mode::Live && !self.has_room() {
                self.merge.skipped(0);
            }
            let polled = node.poll(POLL, |delivery| {
                failure = self.take(&delivery).err().or(failure.take());
            });
            let work_count = polled.map_err(Failure::broken)? + self.advance()?;
            failure.map_or(Ok(()), Err)?;
            if work_count == 0 {
                node.wait(self.longest_sleep()).map_err(Failure::broken)?;
            }
        }
        Ok(())
    }

    /// Whether there is room for all that one poll may bring.
    fn has_room(&self) -> bool {
        self.sender.capacity() >= 2 * POLL && !self.is_over
    }

    /// Takes what is live.
    fn take(&mut self, delivery: &Delivery<'_>) -> Result<(), Failure> {
        match delivery {
            Delivery::Message(message) => {
                let (verdict, name) = (self.filter.judge(message), self.filter.name(message));
                if self.merge.live(message, name, verdict == Verdict::Wanted).map_err(of_archive)? {
                    hand_over(&self.sender, &self.filter, message);
                }
            }
            Delivery::Event(event) => {
                if self.merge.event(event) {
                    note_retracted(&self.sender, event);
                }
                match event {
                    Event::Outvoted(..) => return Err(Failure::unusable(event)),
                    Event::View { .. } | Event::NewInstance { .. } => note(event),
                    Event::Waiting(waiting) => note(waiting),
                    _ => {}
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Takes what the archive has, and what waits, as far as there is room. Returns how much that was.
    fn advance(&mut self) -> Result<usize, Failure> {
        let mut count = 0;
        self.settle()?;
        while self.has_room() {
            let now = time::Instant(self.begun.elapsed().as_nanos() as u64);
            if let Some(archived) = self.batch.get(self.taken) {
                (self.taken, count) = (self.taken + 1, count + 1);
                match self.merge.archived(self.batch.instance, &archived).map_err(of_archive)? {
                    Some(Output::Message(message)) if self.filter.judge(&message) == Verdict::Wanted => {
                        hand_over(&self.sender, &self.filter, &message);
                    }
                    Some(Output::Event(event)) => note_retracted(&self.sender, &event),
                    _ => {}
                }
                self.settle()?;
                continue;
            }
            if let Some(end) = self.batch.end.take() {
                self.merge.end(end.map_err(of_archive)?, now);
            }
            self.merge.keep_time(now);
            self.settle()?;
            (self.batch, self.taken) = match self.replay.next().map_err(of_archive)? {
                Some(batch) => (batch, 0),
                None => break,
            };
        }
        while self.has_room()
            && let Some(waiting) = self.merge.pop()
        {
            count += 1;
            if let Some(message) = waiting.message() {
                hand_over(&self.sender, &self.filter, &message);
            }
            waiting.event().iter().for_each(|event| note_retracted(&self.sender, event));
        }
        self.settle()?;
        Ok(count)
    }

    /// Asks for what is to be read, and reports what has changed.
    fn settle(&mut self) -> Result<(), Failure> {
        while let Some(notice) = self.merge.take_notice() {
            match notice {
                Notice::NoRecorder { from, to } if to > from => {
                    // What comes live from here on follows a gap.
                    send(&self.sender, Item::NoRecorder(notice.to_string()));
                    self.is_over = true;
                    return Ok(());
                }
                Notice::Hole { from, to } => send(&self.sender, Item::Missing(to - from)),
                Notice::NotRecorded { count } => send(&self.sender, Item::Missing(count)),
                Notice::Damage(damage) => send(&self.sender, Item::Missing(damage.to - damage.from)),
                _ => {}
            }
            note(notice);
        }
        if let Some((from, place)) = self.merge.take_request() {
            self.replay.request(from, place).map_err(of_archive)?;
        }
        Ok(())
    }

    fn longest_sleep(&self) -> Duration {
        match self.merge.mode() {
            Mode::Live => SLEEP,
            Mode::AtEnd if self.merge.queue_bytes() == 0 => SLEEP,
            _ => LOOK_AGAIN,
        }
    }
}

/// Hands over; there is room, or the other end is gone.
fn send(sender: &Sender<Result<Item, Failure>>, item: Item) {
    let sent = sender.try_send(Ok(item));
    debug_assert!(!matches!(sent, Err(tokio::sync::mpsc::error::TrySendError::Full(_))), "room was left");
}

/// A barrier's own message has no place in the order, and is not carried.
fn hand_over(sender: &Sender<Result<Item, Failure>>, filter: &Filter, message: &Message<'_>) {
    let Some(order) = message.order else { return };
    send(
        sender,
        Item::Message(Row {
            place: Place { instance: message.instance.0, epoch: message.epoch.0, order: order.0 },
            publisher: (message.sender.0, message.incarnation.0, message.sequence.0),
            topic: filter.name(message).map_or_else(|| format!("topic-{}", message.topic.0), str::to_owned),
            send_time_ns: message.send_time_ns,
            payload: Bytes::copy_from_slice(message.payload),
        }),
    );
}

fn note_retracted(sender: &Sender<Result<Item, Failure>>, event: &Event) {
    if let Event::Retracted { from, to, .. } = event {
        send(sender, Item::Retracted(to.0.saturating_sub(from.0)));
    }
}

fn of_archive(error: Error) -> Failure {
    if error.is_unfit() { Failure::unusable(error) } else { Failure::broken(error) }
}
