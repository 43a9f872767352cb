//! Control datagrams and repairs waiting to be sent.
//!
//! They are rare and short-lived, so they are written one after the other into one buffer that is emptied whenever the
//! network has taken them all: nothing is allocated once the buffer has grown to its bound.

use crate::counters::{Counter, Counters};
use alloc::collections::VecDeque;
use alloc::vec;
use alloc::vec::Vec;
use bourdon_wire::{
    Address, CONTROL_CHANNEL, DatagramHeader, FRAME_HEADER_BYTES, FrameHeader, HEADER_BYTES, Instant, Kind, TopicId,
    seal,
};
use zerocopy::IntoBytes;

/// Repairs are queued up to so many bytes: one repair budget's worth of a burst. What is dropped is requested again.
const REPAIRS_MAX_BYTES: usize = 1 << 20;
/// The outbox never holds more bytes: beyond the repairs there is room for what no process requests again, as relayed
/// datagrams, and for heartbeats and ballots. A datagram beyond this is dropped and counted.
const OUTBOX_MAX_BYTES: usize = REPAIRS_MAX_BYTES + (1 << 19);
// The room that repairs can't take holds several of the largest datagrams.
const _: () = assert!(OUTBOX_MAX_BYTES - REPAIRS_MAX_BYTES >= 4 * u16::MAX as usize);

/// The most datagrams offered in one run: no transport sends more in one call.
const RUN_MAX: usize = 128;

/// Where a datagram goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Destination {
    /// All processes of the group.
    Group,
    /// One process.
    Peer(Address),
    /// Every process that hears the network, whichever groups it joined.
    Broadcast,
}

fn put_frame(body: &mut [u8], kind: Kind, parts: [&[u8]; 2]) {
    let length = parts[0].len() + parts[1].len();
    body[..8].copy_from_slice(FrameHeader::new(length, TopicId(0), kind, 0).as_bytes());
    body[8..8 + parts[0].len()].copy_from_slice(parts[0]);
    body[8 + parts[0].len()..].copy_from_slice(parts[1]);
}

/// One record, followed by its list, as a datagram that is stored and not sent.
pub(crate) fn sealed(header: DatagramHeader, kind: Kind, parts: [&[u8]; 2], wall_ns: u64) -> Vec<u8> {
    sealed_frames(header, &[(kind, parts)], wall_ns)
}

/// A datagram with these frames.
pub(crate) fn sealed_frames(header: DatagramHeader, frames: &[(Kind, [&[u8]; 2])], wall_ns: u64) -> Vec<u8> {
    let mut bytes = vec![0; HEADER_BYTES];
    for (kind, parts) in frames {
        let start = bytes.len();
        bytes.resize(start + FRAME_HEADER_BYTES + parts[0].len() + parts[1].len(), 0);
        put_frame(&mut bytes[start..], *kind, *parts);
    }
    let length = bytes.len() - HEADER_BYTES;
    seal(&mut bytes, header, frames.len() as u16, length, wall_ns);
    bytes
}

#[derive(Debug)]
struct Entry {
    to: Destination,
    start: usize,
    end: usize,
}

#[derive(Debug)]
pub(crate) struct Outbox {
    bytes: Vec<u8>,
    entries: VecDeque<Entry>,
    header: DatagramHeader,
    wall_offset_ns: u64,
}

impl Outbox {
    pub(crate) fn new(header: DatagramHeader, wall_offset_ns: u64) -> Self {
        debug_assert_eq!(header.channel(), CONTROL_CHANNEL);
        Self { bytes: Vec::new(), entries: VecDeque::new(), header, wall_offset_ns }
    }

    /// What to add to `now` for the times in headers from now on.
    pub(crate) fn set_wall_offset(&mut self, wall_offset_ns: u64) {
        self.wall_offset_ns = wall_offset_ns;
    }

    /// The header of records from now on.
    pub(crate) fn enter(&mut self, header: DatagramHeader) {
        debug_assert_eq!(header.channel(), CONTROL_CHANNEL);
        self.header = header;
    }

    /// Queues one record, followed by its list or payload, as a datagram of its own.
    pub(crate) fn record(
        &mut self,
        now: Instant,
        to: Destination,
        kind: Kind,
        parts: [&[u8]; 2],
        counters: &mut Counters,
    ) {
        self.record_as(self.header, now, to, kind, parts, counters);
    }

    /// The same with another header: of another epoch.
    pub(crate) fn record_as(
        &mut self,
        header: DatagramHeader,
        now: Instant,
        to: Destination,
        kind: Kind,
        parts: [&[u8]; 2],
        counters: &mut Counters,
    ) {
        let length = parts[0].len() + parts[1].len();
        debug_assert_eq!(header.channel(), CONTROL_CHANNEL);
        let frames = size_of::<FrameHeader>() + length;
        let Some(datagram) = self.reserve(to, HEADER_BYTES + frames, counters) else { return };
        put_frame(&mut datagram[HEADER_BYTES..], kind, parts);
        let wall_ns = now.0.wrapping_add(self.wall_offset_ns);
        let start = self.entries.back().map_or(0, |entry| entry.start);
        seal(&mut self.bytes[start..], header, 1, frames, wall_ns);
        counters.add(Counter::ControlSent, 1);
    }

    /// Queues a heartbeat, and after it in the same datagram a report of paths; the datagram is at least so long.
    pub(crate) fn heartbeat(
        &mut self,
        now: Instant,
        (heartbeat, report): (&[u8], &[u8]),
        least_bytes: usize,
        counters: &mut Counters,
    ) {
        let frames = 2 * FRAME_HEADER_BYTES + heartbeat.len() + report.len();
        let length = least_bytes.max(HEADER_BYTES + frames);
        let Some(datagram) = self.reserve(Destination::Group, length, counters) else { return };
        let mut rest = &mut datagram[HEADER_BYTES..];
        for (kind, body) in [(Kind::Heartbeat, heartbeat), (Kind::PathReport, report)] {
            let frame;
            (frame, rest) = rest.split_at_mut(FRAME_HEADER_BYTES + body.len());
            frame[..FRAME_HEADER_BYTES].copy_from_slice(FrameHeader::new(body.len(), TopicId(0), kind, 0).as_bytes());
            frame[FRAME_HEADER_BYTES..].copy_from_slice(body);
        }
        let wall_ns = now.0.wrapping_add(self.wall_offset_ns);
        let start = self.entries.back().map_or(0, |entry| entry.start);
        seal(&mut self.bytes[start..], self.header, 2, frames, wall_ns);
        counters.add(Counter::ControlSent, 1);
    }

    /// Queues a repair: a stream's datagram unchanged.
    pub(crate) fn repair(&mut self, to: Destination, bytes: &[u8], counters: &mut Counters) {
        if self.bytes.len() + bytes.len() > REPAIRS_MAX_BYTES {
            return counters.add(Counter::DiscardedOutbox, 1);
        }
        self.again(to, bytes, Counter::RepairsSent, counters);
    }

    /// Queues a stream's datagram unchanged: a repair, a relayed datagram, or a marker.
    pub(crate) fn again(&mut self, to: Destination, bytes: &[u8], why: Counter, counters: &mut Counters) {
        if let Some(datagram) = self.reserve(to, bytes.len(), counters) {
            datagram.copy_from_slice(bytes);
            bourdon_wire::mark_retransmitted(datagram);
            counters.add(why, 1);
        }
    }

    /// Queues a datagram as it was received.
    pub(crate) fn forward(&mut self, to: Destination, bytes: &[u8], why: Counter, counters: &mut Counters) {
        if let Some(datagram) = self.reserve(to, bytes.len(), counters) {
            datagram.copy_from_slice(bytes);
            counters.add(why, 1);
        }
    }

    fn reserve(&mut self, to: Destination, length: usize, counters: &mut Counters) -> Option<&mut [u8]> {
        let start = self.bytes.len();
        debug_assert!(length >= HEADER_BYTES, "a datagram has a header");
        debug_assert!(!self.entries.is_empty() || start == 0, "an empty outbox keeps no bytes");
        if start + length > OUTBOX_MAX_BYTES {
            counters.add(Counter::DiscardedOutbox, 1);
            return None;
        }
        debug_assert!(self.entries.back().is_none_or(|last| last.end == start), "one behind the other");
        self.bytes.resize(start + length, 0);
        self.entries.push_back(Entry { to, start, end: start + length });
        Some(&mut self.bytes[start..])
    }

    /// Datagrams waiting, and the bytes kept for them.
    pub(crate) fn held(&self) -> (usize, usize) {
        (self.entries.len(), self.bytes.len())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Offers everything queued; what the network does not take stays. Returns whether all was taken.
    ///
    /// Datagrams of one length to one destination that stand one behind the other, as repairs do, are offered as one
    /// run: a receiver that is behind costs its sender no system call for each datagram.
    pub(crate) fn drain(&mut self, send: &mut impl FnMut(Destination, &[u8], usize) -> usize) -> bool {
        while let Some((to, start, end, segment_bytes)) = self.front_run() {
            let taken = send(to, &self.bytes[start..end], segment_bytes);
            debug_assert!(taken <= (end - start).div_ceil(segment_bytes), "no more than was offered");
            self.entries.drain(..taken.min(self.entries.len()));
            if taken < (end - start).div_ceil(segment_bytes) {
                return false;
            }
        }
        self.bytes.clear();
        true
    }

    /// The datagrams at the front that can go out in one run: where they go, where they are, and their length. The last
    /// may be shorter.
    fn front_run(&self) -> Option<(Destination, usize, usize, usize)> {
        let first = self.entries.front()?;
        let length = first.end - first.start;
        let mut end = first.end;
        for entry in self.entries.iter().skip(1).take(RUN_MAX - 1) {
            let next = entry.end - entry.start;
            if entry.to != first.to || next > length {
                break;
            }
            end = entry.end;
            if next < length {
                break;
            }
        }
        Some((first.to, first.start, end, length))
    }
}
