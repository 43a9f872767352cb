//! State transfer: how a process that joins late gets the state that the other processes have.
//!
//! A joiner that begins with the current messages lacks the state that they change; a joiner that receives the whole
//! history never catches up. So a *donor* (a member; the sequencer only if no other member can be it) records the
//! application's state together with the exact *position* at which it was taken: how far delivery has come in each
//! stream, the next order number, each client's watermark. The joiner takes the state, resumes every stream at that
//! position and receives what follows like any observer; nothing in between is missing or comes twice.
//!
//! The application may give its state later, after more deliveries: an application on another thread reads behind the
//! protocol. So the position, and the table of locks, are taken when the application is asked, at a place between two
//! deliveries; the state must be the one at that place, whenever it comes. What comes for another place is discarded.
//!
//! The snapshot is pulled in parts, a few at a time, so that a slow joiner delays no other process and requests a lost
//! part again; if a donor falls silent, the next donor replaces it and the transfer starts from the beginning.
//!
//! An observer that begins live takes only the position. If it began with the next datagram of each stream, it would
//! begin at a different place of the order in each stream. And if a client has sent a message through two members, the
//! observer could not know that the copy that it receives is the second, which all members skip.
//!
//! Invariant: the joiner's state is the donor's at the position, and nothing behind that position is missing or comes
//! twice. Bounds: one snapshot at a time at a donor, of at most `max_snapshot_bytes`; [`PARTS_AHEAD`] parts requested
//! ahead. Source: state transfer of Birman and Joseph (1987), after a learner's catch-up in Raft (Ongaro, 2014,
//! §4.2.1).

use crate::values::position::Position;
use alloc::vec::Vec;
use bourdon_wire::{Address, Instant, MTU_DEFAULT_BYTES, Rank};

/// Parts requested at once: some 40 KB, which fit any socket buffer.
pub(crate) const PARTS_AHEAD: u32 = 32;
/// How long a joiner waits before it asks again.
const RETRY_NS: u64 = 20_000_000;
/// How often it asks a silent donor before it turns to another.
const RETRIES: u32 = 100;
/// How often it asks a donor that replies that its application is still at work: half a minute.
const WAITS: u32 = 1_500;
/// A snapshot that no joiner has asked about for so long is dropped.
const IDLE_NS: u64 = 5_000_000_000;
/// A position that was not asked about for so long is replaced by another joiner's.
pub(crate) const POSITION_IDLE_NS: u64 = 100_000_000;

// The parts under way fit any socket buffer; a donor keeps a snapshot for longer than a joiner goes on asking for it,
// and a position for longer than a joiner waits before it asks again.
const _: () = assert!(PARTS_AHEAD as usize * MTU_DEFAULT_BYTES < 64 << 10);
const _: () = assert!(RETRY_NS * (RETRIES as u64) < IDLE_NS && RETRY_NS < POSITION_IDLE_NS);

/// A snapshot that was begun at a place of the order; the application's state there goes with it, whenever that comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotTicket(pub(crate) u64);

/// What an application answers when it is asked for its state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SnapshotAnswer {
    /// Its state at the place of the ticket.
    State(Vec<u8>),
    /// Its state is longer than `max_snapshot_bytes`.
    TooLarge,
    /// It gives none: the joiner takes another donor.
    Declined,
}

/// A snapshot that lacks the application's state, the table of locks, or both.
#[derive(Debug)]
pub(crate) struct Unfinished {
    /// Comes back with the state and with the table.
    pub(crate) ticket: SnapshotTicket,
    pub(crate) position: Position,
    pub(crate) state: Option<Vec<u8>>,
    pub(crate) table: Option<Vec<u8>>,
}

/// A snapshot that this process sends.
#[derive(Debug)]
pub(crate) struct Donor {
    pub(crate) ticket: u32,
    pub(crate) reply_to: Address,
    /// What was begun, while the application's state or the table of locks is awaited that belongs to it.
    pub(crate) unfinished: Option<Unfinished>,
    /// Position and state.
    pub(crate) bytes: Option<Vec<u8>>,
    pub(crate) checksum: u32,
    pub(crate) asked_at: Instant,
}

impl Unfinished {
    /// Position and state, once nothing is lacking.
    pub(crate) fn complete(unfinished: &mut Option<Self>) -> Option<Vec<u8>> {
        let whole = unfinished.take_if(|it| it.state.is_some() && it.table.is_some())?;
        let (table, state) = (whole.table?, whole.state?);
        let mut bytes = Vec::with_capacity(state.len() + table.len() + 256);
        Position { locks: table, ..whole.position }.write(&mut bytes);
        bytes.extend_from_slice(&state);
        Some(bytes)
    }
}

impl Donor {
    pub(crate) fn new(now: Instant, ticket: u32, reply_to: Address) -> Self {
        Self { ticket, reply_to, unfinished: None, bytes: None, checksum: 0, asked_at: now }
    }

    /// Whether it may give way to another joiner.
    pub(crate) fn is_idle(&self, now: Instant) -> bool {
        now.since(self.asked_at) >= IDLE_NS
    }

    /// What was begun with this ticket and lacks something.
    pub(crate) fn unfinished(&mut self, ticket: SnapshotTicket) -> Option<&mut Unfinished> {
        self.unfinished.as_mut().filter(|unfinished| unfinished.ticket == ticket)
    }

    /// Whether nothing is lacking from now on of what was begun.
    pub(crate) fn completes(&mut self) -> bool {
        let Some(bytes) = Unfinished::complete(&mut self.unfinished) else { return false };
        self.give(bytes);
        true
    }

    fn give(&mut self, bytes: Vec<u8>) {
        assert!(!bytes.is_empty(), "a snapshot begins with its position");
        self.checksum = crc32c::crc32c(&bytes);
        self.bytes = Some(bytes);
    }

    /// The bytes of one part.
    pub(crate) fn part(&self, part: u32, part_bytes: usize) -> Option<&[u8]> {
        let bytes = self.bytes.as_ref()?;
        let start = (part as usize).checked_mul(part_bytes)?;
        let here = bytes.get(start..)?;
        (!here.is_empty()).then(|| &here[..here.len().min(part_bytes)])
    }
}

/// A snapshot that this process fetches.
#[derive(Debug)]
pub(crate) struct SnapshotFetch {
    pub(crate) ticket: u32,
    pub(crate) donor: Rank,
    pub(crate) due: Instant,
    tries: u32,
    /// Replies that the snapshot is being made.
    waits: u32,
    part_bytes: usize,
    total_bytes: usize,
    checksum: u32,
    bytes: Vec<u8>,
    have: Vec<bool>,
    /// Every part below is here.
    first_missing: usize,
    /// Parts requested that have not arrived yet.
    under_way: u32,
}

/// The result of taking a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    /// Not part of our transfer, or a part that is here already.
    Nothing,
    /// More parts are needed.
    More,
    /// That was the last part.
    Whole,
    /// What came is not what was sent: the transfer must begin again.
    Damaged,
    /// The snapshot is longer than may be kept.
    TooLarge(u64),
}

impl SnapshotFetch {
    pub(crate) fn new(now: Instant, ticket: u32, donor: Rank) -> Self {
        Self {
            ticket,
            donor,
            due: now,
            tries: 0,
            waits: 0,
            part_bytes: 0,
            total_bytes: 0,
            checksum: 0,
            bytes: Vec::new(),
            have: Vec::new(),
            first_missing: 0,
            under_way: 0,
        }
    }

    /// What to request now: the first part and how many; a count of zero asks the donor to make a snapshot. `None` if
    /// this donor must be given up.
    pub(crate) fn ask(&mut self, now: Instant) -> Option<(u32, u32)> {
        assert!(self.first_missing < self.have.len().max(1), "a whole snapshot needs no more parts");
        self.tries += 1;
        self.due = now + RETRY_NS;
        if self.tries > RETRIES {
            return None;
        }
        if self.total_bytes == 0 {
            return Some((0, 0));
        }
        self.under_way = PARTS_AHEAD.min((self.have.len() - self.first_missing) as u32);
        Some((self.first_missing as u32, self.under_way))
    }

    /// Receives a part: its number, its bytes, and the length that it gives for the whole; a length of 0 means that the
    /// snapshot is being made.
    pub(crate) fn take(
        &mut self,
        now: Instant,
        part: u32,
        bytes: &[u8],
        (total, part_bytes, checksum): (u64, u32, u32),
        limit: usize,
    ) -> Taken {
        if total > limit as u64 {
            return Taken::TooLarge(total);
        }
        if part_bytes == 0 {
            return Taken::Nothing;
        }
        if total == 0 {
            if self.total_bytes == 0 {
                self.waits += 1;
                self.tries = if self.waits < WAITS { 0 } else { self.tries };
            }
            return Taken::Nothing; // else it came late, or twice: the donor has made the snapshot since
        }
        if self.total_bytes == 0 {
            (self.total_bytes, self.part_bytes, self.checksum) = (total as usize, part_bytes as usize, checksum);
            self.bytes = alloc::vec![0; self.total_bytes];
            self.have = alloc::vec![false; self.total_bytes.div_ceil(self.part_bytes)];
        }
        if total as usize != self.total_bytes || checksum != self.checksum || part_bytes as usize != self.part_bytes {
            return Taken::Damaged;
        }
        let start = part as usize * self.part_bytes;
        let Some(have) = self.have.get_mut(part as usize).filter(|have| !**have) else { return Taken::Nothing };
        debug_assert!(
            start < self.total_bytes && self.bytes.len() == self.total_bytes,
            "part {part} begins at {start}"
        );
        let length = self.part_bytes.min(self.total_bytes - start);
        if bytes.len() != length {
            return Taken::Nothing;
        }
        *have = true;
        self.bytes[start..start + length].copy_from_slice(bytes);
        (self.tries, self.due) = (0, now + RETRY_NS);
        while self.have.get(self.first_missing) == Some(&true) {
            self.first_missing += 1;
        }
        debug_assert!(self.first_missing <= self.have.len() && self.under_way <= PARTS_AHEAD);
        self.under_way = self.under_way.saturating_sub(1);
        if self.first_missing < self.have.len() {
            if self.under_way == 0 {
                self.due = now;
            }
            return Taken::More;
        }
        if crc32c::crc32c(&self.bytes) == self.checksum { Taken::Whole } else { Taken::Damaged }
    }

    /// The bytes of the whole snapshot.
    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// The bytes kept for it.
    pub(crate) fn held_bytes(&self) -> usize {
        self.bytes.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_that_the_snapshot_is_being_made_harms_no_transfer_that_has_begun() {
        let now = Instant(0);
        let mut fetch = SnapshotFetch::new(now, 1, Rank(0));
        let bytes = [7; 12];
        let (whole, promise) = ((12, 8, crc32c::crc32c(&bytes)), (0, 8, 0));
        let mut take = |part, bytes: &[u8], whole| fetch.take(now, part, bytes, whole, 100);
        assert_eq!(take(0, &[], promise), Taken::Nothing);
        assert_eq!(take(0, &bytes[..8], whole), Taken::More);
        assert_eq!(take(0, &[], promise), Taken::Nothing, "it was late on the way");
        assert_eq!(take(1, &bytes[8..], whole), Taken::Whole);
    }
}
