//! Pings: whether a member is alive on the unicast path, and what time it is at the sequencer.

use super::{Process, Standing};
use crate::config::Order;
use crate::data::ordering::Ordering;
use crate::data::realtime::GroupTime;
use crate::mutant::Mutant;
use crate::outbox::Destination;
use crate::view::Member;
use bourdon_wire::records::{self};
use bourdon_wire::{Instant, Kind};
use zerocopy::IntoBytes;

impl Process {
    pub(super) fn ping(&mut self, now: Instant) {
        let (presence, outbox, counters) = (&self.cx.presence, &mut self.cx.outbox, &mut self.cx.counters);
        let (rng, own) = (&mut self.data.rng, self.cx.config.address);
        self.detector.pings(now, rng, |rank, nonce| {
            let record = records::Ping { nonce: nonce.into(), reply_to: own, answer: 0.into() };
            if let Some(address) = presence.address(rank) {
                let (to, parts) = (Destination::Peer(address), [record.as_bytes(), &[]]);
                outbox.record(now, to, Kind::Ping, parts, counters);
            }
        });
    }

    /// Whether this process knows the group's time, or does not need it.
    #[inline]
    pub(super) fn announces_time(&self) -> bool {
        self.cx.clock_sync.is_known() || self.cx.config.order != Order::RealTime
    }

    /// A view begins: from now on its sequencer's clock is the group's clock.
    pub(super) fn begin_time(&mut self, now: Instant) {
        if self.cx.config.order == Order::RealTime && self.cx.config.mutant != Some(Mutant::ClockUncorrected) {
            self.cx.clock_sync.enter(now, Some(self.data.view.sequencer) == self.data.own());
        } else if self.cx.config.order == Order::RealTime {
            self.cx.clock_sync.enter(now, true);
        }
    }

    pub(super) fn ask_the_time(&mut self, now: Instant) {
        let nonce = self.cx.clock_sync.ask(now, self.data.rng.u64(..));
        let record = records::Ping { nonce: nonce.into(), reply_to: self.cx.config.address, answer: 0.into() };
        if let Some(address) = self.cx.presence.address(self.data.view.sequencer) {
            let (to, parts) = (Destination::Peer(address), [record.as_bytes(), &[]]);
            self.cx.send(now, to, Kind::Ping, parts);
        }
    }

    /// Passes the group's time to delivery.
    #[inline]
    pub(super) fn set_clock(&mut self, now: Instant) {
        if self.cx.config.order != Order::RealTime {
            return;
        }
        let offset_ns = self.cx.wall(now).wrapping_sub(now.0);
        let is_over = !self.data.end.is_open();
        if let Ordering::RealTime(real_time) = &mut self.data.ordering {
            let bound_ns = self.cx.clock_sync.bound_ns(now).unwrap_or(0);
            let is_known = self.cx.clock_sync.is_known();
            real_time.time = GroupTime { offset_ns, bound_ns, is_known, is_over };
        }
    }

    /// Takes the ping of a process that is not in this process's view: it may ask for the time, or whether a member has
    /// moved. Or the answer to such a ping, of a process in no view.
    pub(super) fn on_strangers_ping(&mut self, now: Instant, from: Member, body: &[u8]) {
        let Some((ping, _)) = records::Ping::read(body) else { return };
        if ping.answer.get() != 0 {
            self.note_move(now, from, ping);
        } else if ping.reply_to.is_reachable() && self.standing() == Standing::Member {
            self.pong(now, ping);
        }
    }

    pub(super) fn pong(&mut self, now: Instant, ping: &records::Ping) {
        let record = records::Ping { answer: 1.into(), reply_to: self.cx.config.address, ..*ping };
        let (to, parts) = (Destination::Peer(ping.reply_to), [record.as_bytes(), &[]]);
        self.cx.send(now, to, Kind::Ping, parts);
    }

    pub(super) fn on_ping(&mut self, now: Instant, from: Member, sent_ns: u64, body: &[u8]) {
        let Some((ping, _)) = records::Ping::read(body) else { return };
        if ping.answer.get() != 0 {
            if self.note_move(now, from, ping) {
                return;
            }
            let own_ns = now.0.wrapping_add(self.cx.config.wall_offset_ns);
            let is_reference = from.rank == self.data.view.sequencer;
            if !(is_reference && self.cx.clock_sync.answer(now, ping.nonce.get(), sent_ns, own_ns)) {
                self.detector.pong(from.rank, now, ping.nonce.get());
            } else {
                self.cx.outbox.set_wall_offset(self.cx.wall(now).wrapping_sub(now.0));
            }
        } else if ping.reply_to.is_reachable() {
            self.pong(now, ping);
        }
    }
}
