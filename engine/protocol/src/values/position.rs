//! A position: exactly what has been delivered, in every stream and of every client.
//!
//! The data plane records its position, and can resume at one. A donor sends a position with a snapshot, so it has an
//! encoding. The decoder reads bytes of another process: it refuses numbers that no process reaches, and more streams
//! than there are ranks.

use super::run::Run;
use alloc::vec::Vec;
use bourdon_wire::{ClientId, DatagramNumber, Epoch, OrderNumber, Rank, Sequence};

/// No honest number comes near this, as everywhere (`docs/wire.md`).
const NUMBERS_END: u64 = 1 << 63;

/// How far delivery has come in a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) number: DatagramNumber,
    /// Frames of that datagram already passed.
    pub(crate) walked: u16,
    /// The next message.
    pub(crate) sequence: Sequence,
}

/// Exactly what has been delivered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Position {
    pub(crate) epoch: Epoch,
    pub(crate) order: OrderNumber,
    pub(crate) run: Option<Run>,
    pub(crate) phase: u64,
    /// By rank.
    pub(crate) streams: Vec<Place>,
    /// What has been delivered of each client: first and one past the last of each run.
    pub(crate) clients: Vec<(ClientId, Sequence, Sequence)>,
    /// The table of replicated locks, in its own form.
    pub(crate) locks: Vec<u8>,
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn word(&mut self) -> Option<u64> {
        let (word, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u64::from_le_bytes(*word))
    }
}

impl Position {
    /// What a view begins with beyond its own numbers: how far each client was delivered, and the table of locks.
    pub(crate) fn between_views(epoch: Epoch, clients: Vec<(ClientId, Sequence, Sequence)>, locks: Vec<u8>) -> Self {
        Self { epoch, order: OrderNumber(0), run: None, phase: 0, streams: Vec::new(), clients, locks }
    }

    /// Encodes it as bytes, in front of the application's.
    pub(crate) fn write(&self, bytes: &mut Vec<u8>) {
        assert!(self.streams.len() <= Rank::MAX.index() + 1, "one place a rank, as its reader demands");
        let run = self.run.unwrap_or(Run { rank: Rank::OBSERVER, first: Sequence(0), count: 0 });
        let head = [self.epoch.0, self.order.0, u64::from(run.rank.0), run.first.0, u64::from(run.count), self.phase];
        let counts = [self.streams.len() as u64, self.clients.len() as u64];
        let streams = self.streams.iter().flat_map(|p| [p.number.0, u64::from(p.walked), p.sequence.0]);
        let clients = self.clients.iter().flat_map(|(client, first, end)| [client.0, first.0, end.0]);
        let words = head.into_iter().chain(counts).chain(streams).chain(clients);
        let words = words.chain([self.locks.len() as u64]);
        words.for_each(|word| bytes.extend_from_slice(&word.to_le_bytes()));
        bytes.extend_from_slice(&self.locks);
    }

    /// Decodes it from bytes; returns also the bytes that follow.
    pub(crate) fn read(bytes: &[u8]) -> Option<(Self, &[u8])> {
        let mut reader = Reader(bytes);
        let mut head = [0; 8];
        for word in &mut head {
            *word = reader.word()?;
        }
        let [epoch, order, run_rank, run_first, run_count, phase, streams, clients] = head;
        let run = Run { rank: Rank(run_rank as u16), first: Sequence(run_first), count: run_count as u32 };
        let honest = [epoch, order, run_first, phase].iter().all(|number| *number < NUMBERS_END);
        if !honest || streams > u64::from(Rank::MAX.0) + 1 || clients > bytes.len() as u64 / 24 {
            return None;
        }
        let mut places = Vec::with_capacity(streams as usize);
        for _ in 0..streams {
            let (number, walked, sequence) = (reader.word()?, reader.word()?, reader.word()?);
            let walked = u16::try_from(walked).ok().filter(|_| number.max(sequence) < NUMBERS_END)?;
            places.push(Place { number: DatagramNumber(number), walked, sequence: Sequence(sequence) });
        }
        let mut known = Vec::with_capacity(clients as usize);
        for _ in 0..clients {
            known.push((ClientId(reader.word()?), Sequence(reader.word()?), Sequence(reader.word()?)));
        }
        let length = usize::try_from(reader.word()?).ok()?;
        let (locks, rest) = reader.0.split_at_checked(length)?;
        let position = Self {
            epoch: Epoch(epoch),
            order: OrderNumber(order),
            run: Some(run).filter(|run| u64::from(run.rank.0) < streams),
            phase,
            streams: places,
            clients: known,
            locks: locks.to_vec(),
        };
        Some((position, rest))
    }
}
