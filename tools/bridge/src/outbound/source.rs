//! A group's messages in its order, behind a place: a subscription over the archive on this host and the live group.
//!
//! An observer that does not poll loses messages, and a server may take none for hours. So the subscription has a
//! thread of its own, which hands over as many messages as its channel has room for; while there is none the
//! subscription falls behind, and goes on in the archive.

use crate::failure::{Failure, note};
use crate::headers::Place;
use bourdon::archive::{Notice, Position};
use bourdon::topics::{Filter, Pattern};
use bourdon::{Delivery, Event, History, HistorySubscription, InlineNode, Message, Settings};
use bytes::Bytes;
use std::path::PathBuf;
use std::time::Duration;
use tokio::sync::mpsc::error::TryRecvError;
use tokio::sync::mpsc::{Receiver, Sender, channel};

/// Messages that wait to be published: some round trips' worth.
const ROOM: usize = 1_024;
/// The longest sleep, and the one while there is no room.
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
    Void(u64),
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
        archive: PathBuf,
        after: Option<Place>,
    ) -> Result<Self, Failure> {
        let (sender, items) = channel(ROOM);
        let (filter, patterns) = (Filter::new(patterns, &settings.group.topics), patterns.to_vec());
        let serve = move || {
            let node = InlineNode::join(&settings).map_err(Failure::unusable);
            let history = History::at(archive).resume(after.map(behind));
            let subscription =
                node.and_then(|node| history.follow(node, &settings, &patterns).map_err(Failure::of_node));
            if let Err(failure) = subscription.and_then(|subscription| hand_over(subscription, &filter, &sender)) {
                let _ = sender.blocking_send(Err(failure)); // else the session has ended
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

fn behind(place: Place) -> Position {
    Position { instance: place.instance, epoch: place.epoch, order: place.order + 1, ..Position::default() }
}

/// Until the session has ended, or nothing more comes.
fn hand_over(
    mut subscription: HistorySubscription<InlineNode>,
    filter: &Filter,
    sender: &Sender<Result<Item, Failure>>,
) -> Result<(), Failure> {
    let mut is_over = false;
    while !is_over && !sender.is_closed() {
        let room = sender.capacity();
        let polled = subscription.poll(room, |delivery| {
            if let Some(item) = item(&delivery, filter)
                && !is_over
            {
                let is_last = matches!(item, Item::NoRecorder(_));
                is_over = sender.blocking_send(Ok(item)).is_err() || is_last;
            }
        });
        if polled.map_err(Failure::of_node)? == 0 {
            let longest = if room == 0 { LOOK_AGAIN } else { SLEEP };
            subscription.wait(longest).map_err(Failure::of_node)?;
        }
    }
    Ok(())
}

/// What there is to carry or to count. A barrier's own message has no place in the order, and is not carried.
fn item(delivery: &Delivery<'_>, filter: &Filter) -> Option<Item> {
    match delivery {
        Delivery::Message(message) => Some(Item::Message(row(message, filter)?)),
        Delivery::Notice(notice) => {
            note(notice);
            match *notice {
                // What comes live from here on follows a gap.
                Notice::NoRecorder { from, to } if to > from => Some(Item::NoRecorder(notice.to_string())),
                Notice::Hole { from, to } => Some(Item::Missing(to - from)),
                Notice::Void { from, to } => Some(Item::Void(to - from)),
                Notice::NotRecorded { count } => Some(Item::Missing(count)),
                Notice::Damage(damage) => Some(Item::Missing(damage.to - damage.from)),
                _ => None,
            }
        }
        Delivery::Event(event @ (Event::Waiting(_) | Event::NoMajority | Event::Majority)) => {
            note(event);
            None
        }
        _ => None,
    }
}

fn row(message: &Message<'_>, filter: &Filter) -> Option<Row> {
    Some(Row {
        place: Place { instance: message.instance.0, epoch: message.epoch.0, order: message.order?.0 },
        publisher: (message.sender.0, message.incarnation.0, message.sequence.0),
        topic: filter.name(message).map_or_else(|| format!("topic-{}", message.topic.0), str::to_owned),
        send_time_ns: message.send_time_ns,
        payload: Bytes::copy_from_slice(message.payload),
    })
}
