//! The newest message of each key, while the application is slow.
//!
//! A key keeps its place: messages are handed out in the order in which their keys changed first. So a key that changes
//! often does not wait for ever, and all before the first place was handed out.

use super::Key;
use bourdon_archive::Position;
use bourdon_protocol::Message;
use bourdon_wire::TopicId;
use std::collections::{HashMap, VecDeque};

/// A key: its topic, the topic's name, and what the application takes of a message.
type Keyed = (TopicId, Box<[u8]>);

#[derive(Debug)]
struct Newest {
    message: Message<'static>,
    /// The name, then the payload.
    bytes: Vec<u8>,
    name_bytes: Option<usize>,
}

/// The newest messages.
pub(super) struct Latest {
    keys_max: usize,
    key: Option<Key>,
    newest: HashMap<Keyed, Newest>,
    /// The keys that wait, and the position before the first message of each.
    order: VecDeque<(Keyed, Position)>,
    replaced: u64,
}

impl std::fmt::Debug for Latest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Latest").field("keys", &self.order.len()).finish_non_exhaustive()
    }
}

impl Latest {
    pub(super) fn new(keys_max: usize, key: Option<Key>) -> Self {
        Self { keys_max, key, newest: HashMap::new(), order: VecDeque::new(), replaced: 0 }
    }

    /// How many messages it takes, whatever their keys.
    pub(super) fn room(&self) -> usize {
        self.keys_max - self.order.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    pub(super) fn replaced(&self) -> u64 {
        self.replaced
    }

    /// All before it was handed out; none if nothing waits.
    pub(super) fn position(&self) -> Option<Position> {
        self.order.front().map(|(_, position)| *position)
    }

    pub(super) fn put(&mut self, message: &Message<'_>, before: Position) {
        let name = message.name.unwrap_or("");
        let own = self.key.as_ref().map_or(&[][..], |key| key(message));
        let key = (message.topic, [name.as_bytes(), &[0], own].concat().into_boxed_slice());
        let newest = Newest {
            message: Message { name: None, payload: &[], ..*message },
            bytes: [name.as_bytes(), message.payload].concat(),
            name_bytes: message.name.map(str::len),
        };
        if self.newest.insert(key.clone(), newest).is_some() {
            self.replaced += 1;
        } else {
            self.order.push_back((key, before));
        }
    }

    /// Hands out at most so many. Returns how many.
    pub(super) fn take(&mut self, limit: usize, mut hand_out: impl FnMut(Message<'_>)) -> usize {
        let count = limit.min(self.order.len());
        for (key, _) in self.order.drain(..count) {
            let Newest { message, bytes, name_bytes } = self.newest.remove(&key).expect("it waits");
            let (name, payload) = bytes.split_at(name_bytes.unwrap_or(0));
            let name = name_bytes.and_then(|_| std::str::from_utf8(name).ok());
            hand_out(Message { name, payload, ..message });
        }
        count
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bourdon_wire::{Epoch, Incarnation, InstanceId, Instant, OrderNumber, Rank, Sequence};

    fn message<'a>(order: u64, name: &'a str, payload: &'a [u8]) -> Message<'a> {
        Message {
            sender: Rank(0),
            incarnation: Incarnation(1),
            instance: InstanceId(1),
            sequence: Sequence(order),
            order: Some(OrderNumber(order)),
            epoch: Epoch(1),
            late: false,
            topic: TopicId::of(name),
            name: Some(name),
            send_time_ns: 0,
            kernel_receive_ns: None,
            delivered_at: Instant(0),
            client: None,
            barrier: None,
            payload,
        }
    }

    #[test]
    fn the_newest_of_each_key_is_handed_out_in_the_order_in_which_the_keys_changed() {
        let mut latest = Latest::new(3, Some(Box::new(|message: &Message<'_>| &message.payload[..1])));
        let at = |order| Position { order, ..Position::default() };
        for (order, name, payload) in [(0, "es", b"a1"), (1, "nq", b"a1"), (2, "es", b"b1"), (3, "es", b"a2")] {
            latest.put(&message(order, name, payload), at(order));
        }
        assert_eq!((latest.room(), latest.replaced(), latest.position()), (0, 1, Some(at(0))));
        let mut taken = Vec::new();
        let mut take = |latest: &mut Latest, limit| {
            latest.take(limit, |message| taken.push((message.order, message.name == Some("es"), message.payload[1])))
        };
        assert_eq!((take(&mut latest, 1), latest.position()), (1, Some(at(1))));
        assert_eq!((take(&mut latest, 9), latest.position()), (2, None));
        let orders = [3, 1, 2].map(|order| Some(OrderNumber(order)));
        assert_eq!(taken, [(orders[0], true, b'2'), (orders[1], false, b'1'), (orders[2], true, b'1')]);
    }
}
