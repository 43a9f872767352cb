//! Live messages that wait while an archive is read.

use super::Place;
use bourdon_protocol::{Event, Message};

use std::collections::VecDeque;

/// What waits.
#[derive(Clone, Debug)]
pub struct Waiting(Kind);

#[derive(Clone, Debug)]
enum Kind {
    Message(Box<Row>),
    /// A message that is not subscribed to: it only has a place.
    Unwanted(Place),
    Event(Event),
}

/// A message, and its bytes: the name, then the payload.
#[derive(Clone, Debug)]
struct Row {
    place: Place,
    message: Message<'static>,
    name_bytes: Option<usize>,
    bytes: Box<[u8]>,
}

impl Waiting {
    pub(super) fn place(&self) -> Option<Place> {
        match &self.0 {
            Kind::Message(row) => Some(row.place),
            Kind::Unwanted(place) => Some(*place),
            Kind::Event(_) => None,
        }
    }

    pub(super) fn is_wanted(&self) -> bool {
        !matches!(self.0, Kind::Unwanted(_))
    }

    /// The message, if it is one.
    pub fn message(&self) -> Option<Message<'_>> {
        let Kind::Message(row) = &self.0 else { return None };
        let (name, payload) = row.bytes.split_at(row.name_bytes.unwrap_or(0));
        let name = row.name_bytes.and_then(|_| std::str::from_utf8(name).ok());
        Some(Message { name, payload, ..row.message })
    }

    /// The event, if it is one.
    pub fn event(&self) -> Option<Event> {
        if let Kind::Event(event) = &self.0 { Some(*event) } else { None }
    }

    fn bytes(&self) -> usize {
        let own = if let Kind::Message(row) = &self.0 { size_of::<Row>() + row.bytes.len() } else { 0 };
        size_of::<Self>() + own
    }
}

/// The messages that wait.
#[derive(Debug, Default)]
pub(super) struct Queue {
    waiting: VecDeque<Waiting>,
    bytes: usize,
    /// The order number behind the last.
    next: Option<u64>,
}

impl Queue {
    pub(super) fn push(&mut self, message: &Message<'_>, place: Place, name: Option<&str>, is_wanted: bool) {
        if let Place::Order(_, order) = place {
            self.next = Some(order + 1);
        }
        let kind = if is_wanted {
            let name_bytes = name.map(str::len);
            let bytes = [name.unwrap_or("").as_bytes(), message.payload].concat().into();
            Kind::Message(Box::new(Row { place, message: without_bytes(message), name_bytes, bytes }))
        } else {
            Kind::Unwanted(place)
        };
        self.add(Waiting(kind));
    }

    pub(super) fn push_event(&mut self, event: Event) {
        self.next = None; // numbers that became void are used again
        self.add(Waiting(Kind::Event(event)));
    }

    fn add(&mut self, waiting: Waiting) {
        self.bytes += waiting.bytes();
        self.waiting.push_back(waiting);
    }

    pub(super) fn pop(&mut self) -> Option<Waiting> {
        let waiting = self.waiting.pop_front()?;
        self.bytes -= waiting.bytes();
        Some(waiting)
    }

    /// Discards all up to the last message that is `had`. Returns whether there was one.
    pub(super) fn discard(&mut self, had: impl Fn(Place) -> bool) -> bool {
        let last = self.waiting.iter().rposition(|waiting| waiting.place().is_some_and(&had));
        let count = last.map_or(0, |last| last + 1);
        self.bytes -= self.waiting.drain(..count).map(|waiting| waiting.bytes()).sum::<usize>();
        count > 0
    }

    /// The first epoch and order number.
    pub(super) fn first(&self) -> Option<(u64, u64)> {
        self.waiting.iter().find_map(|waiting| match waiting.place() {
            Some(Place::Order(epoch, order)) => Some((epoch, order)),
            _ => None,
        })
    }

    /// The order number behind the last message, if one came.
    pub(super) fn next(&self) -> Option<u64> {
        self.next
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

fn without_bytes(message: &Message<'_>) -> Message<'static> {
    let Message { sender, incarnation, instance, sequence, order, epoch, late, topic, .. } = *message;
    let Message { send_time_ns, kernel_receive_ns, delivered_at, client, barrier, .. } = *message;
    Message {
        sender,
        incarnation,
        instance,
        sequence,
        order,
        epoch,
        late,
        topic,
        name: None,
        send_time_ns,
        kernel_receive_ns,
        delivered_at,
        client,
        barrier,
        payload: &[],
    }
}
