//! The state machine: an order book, changed by one event at a time and by nothing else.
//!
//! What makes it replicable is what is missing: no clock, no randomness, no map whose order differs from process to
//! process. The same events in the same order give the same book, byte for byte, so copies are compared by a hash.

use std::collections::BTreeMap;

/// A change of the book.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Event {
    pub(crate) action: Action,
    pub(crate) is_bid: bool,
    pub(crate) size: u32,
    pub(crate) price: i64,
    pub(crate) order: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// A new order rests in the book.
    Add,
    /// So much of it is taken back.
    Cancel,
    /// Its price and size are now these.
    Modify,
    /// So much of it was traded.
    Trade,
    /// The book is empty.
    Clear,
}

/// An event as it is published: 22 bytes, integers little-endian.
pub(crate) type EventBytes = [u8; 22];

const ACTIONS: [Action; 5] = [Action::Add, Action::Cancel, Action::Modify, Action::Trade, Action::Clear];

impl Event {
    pub(crate) fn to_bytes(self) -> EventBytes {
        let mut bytes = [0; size_of::<EventBytes>()];
        (bytes[0], bytes[1]) = (self.action as u8, self.is_bid.into());
        bytes[2..6].copy_from_slice(&self.size.to_le_bytes());
        bytes[6..14].copy_from_slice(&self.price.to_le_bytes());
        bytes[14..].copy_from_slice(&self.order.to_le_bytes());
        bytes
    }

    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let bytes: &EventBytes = bytes.try_into().ok()?;
        let word = |range: std::ops::Range<usize>| bytes[range].try_into().ok();
        Some(Self {
            action: *ACTIONS.get(usize::from(bytes[0]))?,
            is_bid: bytes[1] == 1,
            size: u32::from_le_bytes(bytes[2..6].try_into().ok()?),
            price: i64::from_le_bytes(word(6..14)?),
            order: u64::from_le_bytes(word(14..22)?),
        })
    }
}

/// All orders that rest, by number.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Book {
    /// Events applied: this book's position in the order.
    pub(crate) events: u64,
    pub(crate) traded: u64,
    orders: BTreeMap<u64, Event>,
}

impl Book {
    pub(crate) fn apply(&mut self, event: Event) {
        self.events += 1;
        match event.action {
            Action::Add | Action::Modify => drop(self.orders.insert(event.order, event)),
            Action::Cancel | Action::Trade => {
                if let Some(resting) = self.orders.get_mut(&event.order) {
                    let taken = event.size.min(resting.size);
                    resting.size -= taken;
                    self.traded += if event.action == Action::Trade { u64::from(taken) } else { 0 };
                    if resting.size == 0 {
                        self.orders.remove(&event.order);
                    }
                }
            }
            Action::Clear => self.orders.clear(),
        }
    }

    /// The highest price bid and the lowest offered.
    pub(crate) fn best(&self) -> (Option<i64>, Option<i64>) {
        let prices = |is_bid: bool| self.orders.values().filter(move |o| o.is_bid == is_bid).map(|o| o.price);
        (prices(true).max(), prices(false).min())
    }

    pub(crate) fn resting(&self) -> usize {
        self.orders.len()
    }

    /// The whole state as bytes: what a member gives to a joiner.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let head = [self.events, self.traded].into_iter().flat_map(u64::to_le_bytes);
        head.chain(self.orders.values().flat_map(|order| order.to_bytes())).collect()
    }

    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (head, rest) = bytes.split_first_chunk::<16>()?;
        let number = |at: usize| head[at..at + 8].try_into().map(u64::from_le_bytes).ok();
        let orders = rest.chunks(size_of::<EventBytes>()).map(Event::from_bytes);
        let orders = orders.map(|order| order.map(|order| (order.order, order))).collect::<Option<_>>()?;
        Some(Self { events: number(0)?, traded: number(8)?, orders })
    }

    /// FNV-1a over the state.
    pub(crate) fn hash(&self) -> u64 {
        let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        self.to_bytes().into_iter().fold(0xcbf2_9ce4_8422_2325, step)
    }
}
