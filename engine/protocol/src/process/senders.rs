//! Which process a datagram comes from: a member of the view, this process itself, or a stranger.

use super::{Process, Standing};
use crate::config::Config;
use crate::control::detector::Path;
use crate::counters::Counter;
use crate::data::DATA_CHANNEL;
use crate::event::Event;
use crate::mutant::Mutant;
use crate::view::{Member, bit};
use bourdon_wire::records;
use bourdon_wire::{Datagram, DatagramHeader, InstanceId, Instant, Kind};

impl Process {
    /// Whether a datagram of this epoch does not come from a member in its incarnation of this view. If it does, the
    /// member is marked as heard.
    #[inline]
    pub(super) fn is_stranger(
        &mut self,
        now: Instant,
        datagram: &Datagram<'_>,
        kernel_receive_ns: Option<u64>,
    ) -> bool {
        let header = datagram.header;
        if header.instance() != self.data.view.instance && self.cx.config.mutant != Some(Mutant::OtherInstanceBelieved)
        {
            if !self.keep_ahead(header, datagram.bytes, kernel_receive_ns) {
                self.cx.count(Counter::DiscardedInstance);
            }
            return true;
        }
        if header.epoch() != self.data.view.epoch {
            let across = self.cx.config.mutant == Some(Mutant::DataAcrossEpochs) && header.channel() == DATA_CHANNEL;
            if !(across && header.epoch().next() == self.data.view.epoch) {
                if !self.keep_ahead(header, datagram.bytes, kernel_receive_ns) {
                    self.cx.count(Counter::DiscardedEpoch);
                }
                return true;
            }
        }
        let rank = header.rank();
        if self.is_own(header) {
            return true;
        }
        if self.data.incarnation(rank) == Some(header.incarnation()) {
            if !header.is_retransmitted() {
                self.detector.heard(rank, now, Path::Multicast);
                if let Some(news) = self.path_mtu.arrived(rank, datagram.bytes.len()) {
                    self.on_path_news(now, news);
                }
            }
            return false;
        }
        self.cx.count(Counter::DiscardedSender);
        true
    }

    /// Whether a datagram carries this process's rank: an echo, or another process with the same rank.
    #[inline]
    pub(super) fn is_own(&mut self, header: &DatagramHeader) -> bool {
        if Some(header.rank()) != self.cx.config.rank() {
            return false;
        }
        // A follower of a view that has an earlier incarnation of itself needs what that incarnation sent.
        let own = Member { rank: header.rank(), incarnation: header.incarnation() };
        if self.standing() == Standing::Following
            && own.incarnation != self.cx.config.incarnation
            && self.data.view.contains(own)
        {
            return false;
        }
        // A restarted member fetches what it had sent and not stored.
        if own.incarnation == self.cx.config.incarnation && header.channel() == DATA_CHANNEL && self.is_restored() {
            return false;
        }
        if header.incarnation() == self.cx.config.incarnation {
            self.cx.count(Counter::DiscardedOwn);
        } else {
            self.cx.count(Counter::DiscardedSender);
            // Datagrams of our earlier incarnation may still be in flight or be retransmitted; an earlier incarnation
            // of ours in another instance may have been resumed.
            let instances = [header.instance(), self.data.view.instance];
            let is_ours = instances[0] == instances[1] || instances.contains(&InstanceId::NONE);
            if is_ours && self.is_another_process(header) && self.cx.presence.refuse(own) {
                self.cx.event(Event::RankClaimed(header.rank()));
            }
        }
        true
    }

    /// Whether a datagram has this process's rank and incarnation.
    pub(super) fn has_own_identity(&self, header: &DatagramHeader) -> bool {
        Some(header.rank()) == self.cx.config.rank() && header.incarnation() == self.cx.config.incarnation
    }

    /// Another process with this process's rank shows, as any member does, that its instance is alive.
    pub(super) fn on_rivals_frame(&mut self, now: Instant, header: &DatagramHeader, kind: Option<Kind>, body: &[u8]) {
        let hears = matches!(self.standing(), Standing::Forming | Standing::Outside | Standing::Member);
        if hears
            && kind == Some(Kind::Heartbeat)
            && self.is_another_process(header)
            && let Some((heartbeat, _)) = records::Heartbeat::read(body)
        {
            self.note_sighting(now, header, heartbeat);
        }
    }

    pub(super) fn on_own_heartbeat(&mut self, header: &DatagramHeader, body: &[u8]) {
        self.cx.count(Counter::DiscardedOwn);
        if let Some((heartbeat, _)) = records::Heartbeat::read(body) {
            self.note_collision(header, heartbeat);
        }
    }
}

/// The bit of a process's own rank, if it has one.
pub(super) fn own_bit(config: &Config) -> u64 {
    config.rank().map_or(0, bit)
}
