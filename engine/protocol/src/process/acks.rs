//! Acknowledgements: rows that state how far this process holds each stream, and those of other members.

use super::Process;
use crate::config::Feedback;
use crate::counters::Counter;
use crate::data::stability;
use crate::mutant::Mutant;
use crate::outbox::Destination;
use alloc::vec::Vec;
use bourdon_wire::records::{self};
use bourdon_wire::{DatagramNumber, Instant, Kind, Rank};
use zerocopy::IntoBytes;

/// The rows that this process writes.
#[derive(Debug, Default)]
pub(super) struct Rows {
    /// How many it has written.
    progress: u64,
    /// The latest.
    bytes: Vec<u8>,
}

impl Process {
    pub(super) fn acknowledge(&mut self, now: Instant) {
        self.write_row();
        let parts = [&self.rows.bytes[..], &[]];
        self.cx.send(now, Destination::Group, Kind::Row, parts);
        self.row_sent();
    }

    pub(super) fn row_sent(&mut self) {
        self.cx.count(Counter::RowsSent);
        if let Some(outbound) = &mut self.data.outbound {
            outbound.ack.sent();
        }
    }

    pub(super) fn write_row(&mut self) {
        self.rows.progress += 1;
        let heard_from = self.data.view.bits() & !self.detector.suspects();
        let lie = self.cx.config.mutant == Some(Mutant::AckBeforeReceived);
        let (order, reached) = (self.data.delivered_order(), self.data.barrier.own_reached());
        let (row, entries) =
            stability::own_row(&self.data.streams, order, heard_from, self.rows.progress, reached, lie);
        self.rows.bytes.clear();
        self.rows.bytes.extend_from_slice(row.as_bytes());
        entries.for_each(|entry| self.rows.bytes.extend_from_slice(entry.as_bytes()));
    }

    /// Puts an acknowledgement that is nearly due into a datagram that is sent anyway.
    #[inline]
    pub(super) fn piggyback(&mut self, now: Instant, wall_ns: u64) {
        let worthwhile = self
            .data
            .outbound
            .as_ref()
            .is_some_and(|outbound| outbound.packer.is_open() && outbound.ack.is_worthwhile(now, &self.cx.config));
        if !worthwhile || !self.data.end.is_open() {
            return;
        }
        self.write_row();
        let Some(outbound) = &mut self.data.outbound else { return };
        let log = &mut self.data.streams[outbound.rank.index()].log;
        if outbound.packer.fits_open(log, self.rows.bytes.len()) {
            let body =
                outbound.packer.frame(log, bourdon_wire::TopicId(0), Kind::Row, 0, self.rows.bytes.len(), wall_ns);
            body.copy_from_slice(&self.rows.bytes);
            self.row_sent();
        }
    }

    /// Relays a datagram that has just come for the first time, or acknowledges it alone, if the configuration requires
    /// it.
    #[cold]
    pub(super) fn respond(&mut self, now: Instant, rank: Rank, bytes: &[u8]) {
        if self.cx.config.relay && self.data.outbound.is_some() && self.cx.config.mutant != Some(Mutant::RelayForgets) {
            self.cx.outbox.again(Destination::Group, bytes, Counter::Relayed, &mut self.cx.counters);
        }
        if self.cx.config.feedback == Feedback::AckEach
            && let Some(address) = self.cx.presence.address(rank).filter(|address| self.is_proven(*address))
        {
            self.write_row();
            let (to, parts) = (Destination::Peer(address), [&self.rows.bytes[..], &[]]);
            self.cx.send(now, to, Kind::Row, parts);
            self.row_sent();
        }
    }

    pub(super) fn on_row(&mut self, now: Instant, from: Rank, body: &[u8]) {
        let sent = self.data.outbound.as_ref().map_or(DatagramNumber(0), |outbound| outbound.packer.sent);
        let Some((row, entries)) = records::Row::read_all(body) else { return };
        self.data.barrier.note_row(from, row.reached_phase.get());
        if self.data.stability.merge(from, entries, sent) {
            self.data.note_rows();
            self.settle_clients(now);
            self.settle_grants(now);
        }
    }
}
