//! Publishers that send more slowly for observers that lose too much: `data/pacing.rs` has the rules.
//!
//! A report carries the member's cookie, whatever address it names: an address that has not proved that it receives
//! slows no publisher down.

use super::{Process, Standing};
use crate::config::{Config, Flow, Role};
use crate::counters::Counter;
use crate::data::flow::HeldBy;
use crate::data::pacing::Pacer;
use crate::outbox::Destination;
use bourdon_wire::records::Congestion;
use bourdon_wire::{DatagramHeader, DatagramNumber, Instant, Kind, Rank};
use zerocopy::IntoBytes;

/// A member that has a limit or may get one.
pub(super) fn pacer(now: Instant, config: &Config) -> Option<Pacer> {
    let (limit, floor) = (config.rate.limit_bytes_per_s, config.rate.floor_bytes_per_s);
    let is_paced = limit.is_some() || config.flow >= Flow::Paced;
    (matches!(config.role, Role::Member(_)) && is_paced).then(|| Pacer::new(now, limit, floor))
}

impl Process {
    // ---- the member -----------------------------------------------------------------------------------------------

    /// Time has passed, and so many bytes were sent: moves the datagram up to which this member may send.
    #[inline]
    pub(super) fn pace(&mut self, now: Instant, bytes: usize) {
        let Some(pacer) = &mut self.pacer else { return };
        pacer.charge(bytes);
        pacer.pass(now);
        if let Some(outbound) = &mut self.data.outbound {
            outbound.flow.paced = pacer.room(outbound.packer.sent, self.cx.config.limits.mtu_bytes);
        }
    }

    /// A publication was refused; returns whether that is because it would be sent too fast.
    pub(super) fn is_paced(&mut self) -> bool {
        let holder = self.window().and_then(|(.., holder)| holder);
        let Some(pacer) = self.pacer.as_mut().filter(|_| holder == Some(HeldBy::Rate)) else { return false };
        pacer.refuse();
        self.cx.count(Counter::RefusedRate);
        true
    }

    /// An observer reports which part of a member's stream it loses.
    pub(super) fn on_congestion(&mut self, now: Instant, header: &DatagramHeader, body: &[u8]) {
        let Some((record, _)) = Congestion::read(body) else { return };
        let (rank, lost) = (Rank(record.rank.get()), record.lost.get());
        let epoch = header.epoch();
        if epoch != self.data.view.epoch || record.reply_to == self.cx.config.address {
            return;
        }
        if let Some(meter) = self.data.meters.get_mut(rank.index()) {
            meter.suppress(self.data.streams[rank.index()].window.known_end, lost);
            return;
        }
        let is_own = self.standing() == Standing::Member && Some(rank) == self.data.own();
        let (to, cookie) = (record.reply_to, record.cookie.get());
        if !is_own || !to.is_reachable() || self.cx.config.flow < Flow::Paced {
            return;
        }
        if !self.has_cookie(now, epoch, to, cookie) {
            return;
        }
        self.cx.count(Counter::CongestionReceived);
        let (Some(pacer), Some(outbound)) = (&mut self.pacer, &self.data.outbound) else { return };
        let sent = outbound.packer.sent;
        if pacer.lower(now, lost, DatagramNumber(record.from.get()), sent) {
            self.cx.count(Counter::RatesLowered);
            self.pace(now, 0);
        }
        self.show_rate();
    }

    /// Shows the rate in the counters.
    pub(super) fn show_rate(&mut self) {
        if let Some(pacer) = &self.pacer {
            self.cx.counters.set(Counter::RateBytesPerS, pacer.rate().unwrap_or(0));
        }
    }

    // ---- the observer ---------------------------------------------------------------------------------------------

    /// Judges what was lost of each stream, and reports it where it is too much.
    pub(super) fn judge_losses(&mut self, now: Instant) {
        self.data.meters_due = Instant::NEVER;
        for index in 0..self.data.meters.len() {
            let rank = Rank(index as u16);
            let end = self.data.streams[index].window.known_end;
            let backoff_ns = self.data.report_backoff_ns();
            let meter = &mut self.data.meters[index];
            let lost = if now >= meter.due { meter.judge(now, end, backoff_ns) } else { None };
            self.data.meters_due = self.data.meters_due.min(self.data.meters[index].due);
            if let Some(lost) = lost.filter(|_| self.data.is_present(rank)) {
                self.report_congestion(now, rank, lost);
            }
        }
    }

    pub(super) fn report_congestion(&mut self, now: Instant, rank: Rank, (from, lost): (DatagramNumber, u16)) {
        let address = self.cx.presence.address(rank);
        let (word, is_cookie) = self.word_for_losses(now, rank, (from, lost));
        let record = Congestion {
            reply_to: self.cx.config.address,
            cookie: word.into(),
            from: from.0.into(),
            lost: lost.into(),
            rank: rank.0.into(),
        };
        let to = match address {
            // What goes to all is not challenged: without a cookie, the report goes to the member alone.
            Some(address) if !self.data.asks_all() || !is_cookie => Destination::Peer(address),
            _ => Destination::Group,
        };
        self.cx.send(now, to, Kind::Congestion, [record.as_bytes(), &[]]);
        self.cx.count(Counter::CongestionSent);
    }
}
