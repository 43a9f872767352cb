//! Processes that are configured otherwise than this process: reported, asked to prove that they receive, and counted.
//!
//! `control/configurations.rs` has the rule. A request for the view with a nonce in place of a cookie is answered by a
//! challenge that repeats the nonce, from a process in a view and from one that forms the first view alike.

use super::{Process, Standing};
use crate::config::{Agreed, Difference};
use crate::control::configurations::Announced;
use crate::event::Event;
use crate::outbox::Destination;
use crate::view::{Member, bit};
use bourdon_wire::records::{Challenge, Heartbeat, ViewAsk, ViewInfo, heartbeat_flags};
use bourdon_wire::{Address, DatagramHeader, Epoch, Frame, InstanceId, Instant, Kind, Rank};
use zerocopy::IntoBytes;

impl Process {
    /// Handles a frame of a process that is configured otherwise, or its answer; returns whether that is all there is
    /// to do with it.
    pub(super) fn on_other_configuration(&mut self, now: Instant, header: &DatagramHeader, frame: &Frame<'_>) -> bool {
        let (rank, incarnation) = (header.rank(), header.incarnation());
        match frame.kind() {
            Some(Kind::Heartbeat) => {
                let Some((heartbeat, _)) = Heartbeat::read(frame.body) else { return false };
                let differs = heartbeat.configuration.get() != self.cx.config.fingerprint();
                if differs {
                    self.hear_otherwise(now, header, heartbeat);
                }
                differs
            }
            Some(Kind::Challenge) => Challenge::read(frame.body)
                .is_some_and(|(challenge, _)| self.configurations.answer(rank, incarnation, challenge.asked.get())),
            Some(Kind::View) => {
                let nonce = ViewInfo::read_all(frame.body).map_or(0, |(info, _)| info.nonce.get());
                self.configurations.answer(rank, incarnation, nonce)
            }
            _ => false,
        }
    }

    #[cold]
    fn hear_otherwise(&mut self, now: Instant, header: &DatagramHeader, heartbeat: &Heartbeat) {
        let from = Member { rank: header.rank(), incarnation: header.incarnation() };
        let is_own_rank = Some(from.rank) == self.cx.config.rank();
        if is_own_rank && !self.is_another_process(header) {
            return;
        }
        if !is_own_rank {
            self.cx.presence.note_differs(from, Some(now));
        }
        let configuration = heartbeat.configuration.get();
        let is_formed = heartbeat.flags.get() & heartbeat_flags::FORMED != 0;
        let members = Agreed::read(configuration).map_or(0, |agreed| u64::MAX >> (64 - u32::from(agreed.members)));
        let announced = Announced {
            configuration,
            instance: if is_formed { header.instance() } else { InstanceId::NONE },
            electorate: if is_formed { heartbeat.members.get() } else { members },
            address: heartbeat.address,
        };
        let own = self.cx.config.fingerprint();
        if self.configurations.hear(now, from, announced) {
            self.cx.event(Event::ConfigurationDiffers(from.rank, Difference { own, other: configuration }));
        }
        if !matches!(self.standing(), Standing::Forming | Standing::Outside) {
            return;
        }
        if let Some((address, nonce)) = self.configurations.ask(now, from.rank, &mut self.identity.rng) {
            self.ask_for_proof(now, address, nonce);
        }
        let (alike, members) = (self.of_own_configuration(), self.cx.config.members);
        if let Some((rank, other)) = self.configurations.outvoted(now, alike, members) {
            self.cx.event(Event::Outvoted(rank, Difference { own, other }));
        }
    }

    /// How many ranks, with this process's, announce this process's configuration.
    fn of_own_configuration(&self) -> u32 {
        let own = self.cx.config.rank().map_or(0, bit);
        let ranks = (0..self.cx.config.members).map(Rank);
        let alike = ranks.filter(|rank| {
            self.cx.presence.get(*rank).is_some_and(|peer| peer.introduced && peer.differs_at.is_none())
        });
        alike.fold(own, |bits, rank| bits | bit(rank)).count_ones()
    }

    fn ask_for_proof(&mut self, now: Instant, address: Address, nonce: u64) {
        let ask = ViewAsk { reply_to: self.cx.config.address, nonce: nonce.into(), cookie: nonce.into() };
        let header = self.cx.header(InstanceId::NONE, Epoch(0));
        self.cx.send_as(header, now, Destination::Peer(address), Kind::ViewAsk, [ask.as_bytes(), &[]]);
    }
}
