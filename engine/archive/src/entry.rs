//! What an archive's records hold: messages as a process delivered them, what it lost, and where it began.
//!
//! Total: any bytes have an answer. The layout stands in `docs/archive.md`.

use bourdon_protocol::Message;
use bourdon_wire::{Epoch, Incarnation, InstanceId, Instant, OrderNumber, Rank, Sequence, TopicId};

/// Bytes before the topic's name.
const HEADER_BYTES: usize = 32;
const MESSAGE: u8 = 1;
const LOST: u8 = 2;
const BEGINS: u8 = 3;
const RETRACTED: u8 = 4;
const AT_BARRIER: u8 = 5;
/// The order number of a message of a group without a total order.
const NO_ORDER: u64 = u64::MAX;

/// The payload of one record of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry<'a> {
    /// A message that was delivered.
    Message(Recorded<'a>),
    /// So many messages were lost here, of one member or of all.
    Lost {
        /// The member, if it is known.
        sender: Option<u16>,
        /// How many.
        count: u64,
    },
    /// A recorder began here; what was published before it, since the record in front, is not in the archive.
    Begins {
        /// The group's name.
        group: &'a str,
    },
    /// These sequences of a member, delivered before, became void: the observer had run ahead of a view.
    Retracted {
        /// The member.
        sender: u16,
        /// The first of them.
        from: u64,
        /// The first after them.
        to: u64,
    },
}

/// A message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recorded<'a> {
    /// The topic's id.
    pub topic: u16,
    /// The topic's name, if the message or the configuration gave it.
    pub name: Option<&'a str>,
    /// The publisher's rank.
    pub sender: u16,
    /// The publisher's incarnation.
    pub incarnation: u32,
    /// The publisher's numbering of its messages.
    pub sequence: u64,
    /// The order number, if it has one.
    pub order: Option<u64>,
    /// The phase of the barrier, if it is a barrier's own message.
    pub barrier: Option<u64>,
    /// Whether a client sent it, through its publisher.
    pub is_from_client: bool,
    /// The application's bytes.
    pub payload: &'a [u8],
}

impl<'a> Recorded<'a> {
    /// The message as it was delivered, in this instance of the group, from a record with this epoch and time.
    pub fn message(&self, instance: u64, epoch: u64, time_ns: u64) -> Message<'a> {
        Message {
            sender: Rank(self.sender),
            incarnation: Incarnation(self.incarnation),
            instance: InstanceId(instance),
            sequence: Sequence(self.sequence),
            order: self.order.map(OrderNumber),
            epoch: Epoch(epoch),
            late: false,
            topic: TopicId(self.topic),
            name: self.name,
            send_time_ns: if self.barrier.is_some() { 0 } else { time_ns },
            kernel_receive_ns: None,
            delivered_at: Instant(0),
            client: None,
            barrier: self.barrier,
            payload: self.payload,
        }
    }
}

impl<'a> Entry<'a> {
    /// The entry for a delivered message.
    pub fn of(message: &Message<'a>, name: Option<&'a str>) -> Self {
        Self::Message(Recorded {
            topic: message.topic.0,
            name,
            sender: message.sender.0,
            incarnation: message.incarnation.0,
            sequence: message.sequence.0,
            order: message.order.map(|order| order.0),
            barrier: message.barrier,
            is_from_client: message.client.is_some(),
            payload: message.payload,
        })
    }

    /// Writes the entry behind what `out` holds.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let mut header = [0; HEADER_BYTES];
        let (kind, sender, sequence, order, name, payload) = match *self {
            Self::Message(recorded) => {
                header[4..8].copy_from_slice(&recorded.incarnation.to_le_bytes());
                header[24..26].copy_from_slice(&recorded.topic.to_le_bytes());
                header[26] = recorded.is_from_client.into();
                let (kind, order) = match recorded.barrier {
                    Some(phase) => (AT_BARRIER, phase),
                    None => (MESSAGE, recorded.order.unwrap_or(NO_ORDER)),
                };
                (kind, recorded.sender, recorded.sequence, order, recorded.name.unwrap_or(""), recorded.payload)
            }
            Self::Lost { sender, count } => (LOST, sender.unwrap_or(u16::MAX), count, NO_ORDER, "", &[][..]),
            Self::Retracted { sender, from, to } => (RETRACTED, sender, from, to, "", &[][..]),
            Self::Begins { group } => (BEGINS, u16::MAX, 0, NO_ORDER, group, &[][..]),
        };
        let name = &name.as_bytes()[..name.len().min(usize::from(u8::MAX))];
        (header[0], header[1]) = (kind, name.len() as u8);
        header[2..4].copy_from_slice(&sender.to_le_bytes());
        header[8..16].copy_from_slice(&sequence.to_le_bytes());
        header[16..24].copy_from_slice(&order.to_le_bytes());
        out.extend_from_slice(&header);
        out.extend_from_slice(name);
        out.extend_from_slice(payload);
    }

    /// The entry that these bytes are; none if a later release wrote them, or they are no archive's.
    pub fn decode(bytes: &'a [u8]) -> Option<Self> {
        let (header, rest) = bytes.split_first_chunk::<HEADER_BYTES>()?;
        let name = std::str::from_utf8(rest.get(..usize::from(header[1]))?).ok()?;
        let payload = &rest[name.len()..];
        let number = |at: usize| header[at..].first_chunk().map_or(0, |chunk| u64::from_le_bytes(*chunk));
        let short = |at: usize| u16::from_le_bytes([header[at], header[at + 1]]);
        let (sender, sequence) = (short(2), number(8));
        match header[0] {
            kind @ (MESSAGE | AT_BARRIER) => Some(Self::Message(Recorded {
                topic: short(24),
                name: (!name.is_empty()).then_some(name),
                sender,
                incarnation: u32::from_le_bytes([header[4], header[5], header[6], header[7]]),
                sequence,
                order: Some(number(16)).filter(|order| kind == MESSAGE && *order != NO_ORDER),
                barrier: Some(number(16)).filter(|_| kind == AT_BARRIER),
                is_from_client: header[26] == 1,
                payload,
            })),
            LOST => Some(Self::Lost { sender: Some(sender).filter(|sender| *sender != u16::MAX), count: sequence }),
            RETRACTED => Some(Self::Retracted { sender, from: sequence, to: number(16) }),
            BEGINS => Some(Self::Begins { group: name }),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_come_back_and_any_bytes_have_an_answer() {
        let recorded = Recorded {
            topic: 7,
            name: Some("md.es"),
            sender: 2,
            incarnation: 9,
            sequence: 11,
            order: Some(12),
            barrier: None,
            is_from_client: false,
            payload: b"price",
        };
        let mut bytes = Vec::new();
        for entry in [
            Entry::Message(recorded),
            Entry::Message(Recorded { name: None, order: None, payload: b"", ..recorded }),
            Entry::Message(Recorded { order: None, barrier: Some(3), ..recorded }),
            Entry::Message(Recorded { is_from_client: true, ..recorded }),
            Entry::Lost { sender: Some(1), count: 5 },
            Entry::Lost { sender: None, count: 5 },
            Entry::Begins { group: "prices" },
            Entry::Retracted { sender: 3, from: 4, to: 6 },
        ] {
            bytes.clear();
            entry.encode(&mut bytes);
            assert_eq!(Entry::decode(&bytes), Some(entry));
            for length in 0..bytes.len() {
                let _ = Entry::decode(&bytes[..length]);
            }
        }
        bytes[0] = 99;
        assert_eq!(Entry::decode(&bytes), None);
    }
}
