//! Paths that carry short datagrams only (`control/path_mtu.rs`): what a process reports of them, and what follows.

use super::Process;
use super::discovery::LOST_NS;
use crate::control::agreement::Sight;
use crate::control::membership::leaves_quorum;
use crate::control::path_mtu::{PathChange, PathNews};
use crate::counters::Counter;
use crate::event::{Event, NarrowPaths};
use crate::mutant::Mutant;
use crate::ranks::Ranks;
use crate::view::{Member, bit};
use bourdon_wire::records::{Heartbeat, PathReport};
use bourdon_wire::{Instant, Rank};
use zerocopy::IntoBytes;

impl Process {
    /// The ranks whose heartbeats came lately, in the view or not.
    fn audible(&self, now: Instant) -> u64 {
        let is_heard = |rank: &u16| {
            let peer = self.cx.presence.get(Rank(*rank));
            peer.is_some_and(|peer| peer.introduced && now.since(peer.heard_at) <= LOST_NS)
        };
        (0..self.cx.config.members).filter(is_heard).fold(0, |audible, rank| audible | bit(Rank(rank)))
    }

    /// The ranks of those heard lately whose long datagrams do not come.
    pub(super) fn narrow_paths(&self, now: Instant) -> u64 {
        self.path_mtu.missing(self.audible(now)).0
    }

    /// The paths between this process and those heard lately that carry short datagrams only.
    #[cold]
    pub fn paths_without_long(&self, now: Instant) -> NarrowPaths {
        let own = self.cx.config.rank().map_or(0, bit);
        let lacks = |rank: &u16| self.path_mtu.missing_at(now, Rank(*rank)) & own != 0;
        let to = (0..self.cx.config.members).filter(lacks).map(Rank).collect();
        NarrowPaths { from: Ranks(self.narrow_paths(now)), to }
    }

    /// Whether the long datagrams of a member of the view do not come; those of others say nothing about the view.
    pub(super) fn is_narrow_to_view(&self, now: Instant) -> bool {
        self.narrow_paths(now) & self.data.view.bits() != 0
    }

    /// Sends a heartbeat, with a report of paths if there is one; some are padded.
    pub(super) fn send_heartbeat(&mut self, now: Instant, record: &Heartbeat) {
        let own = self.data.own();
        let is_awaited = own.is_some_and(|own| {
            let sent = self.data.outbound.as_ref().map(|outbound| outbound.packer.sent);
            sent.is_some_and(|sent| self.data.stability.min_received(own).is_some_and(|received| received < sent))
        });
        let audible = self.audible(now);
        let (report, least_bytes) = match self.path_mtu.beat(now, is_awaited, audible) {
            Some(beat) if self.cx.config.mutant != Some(Mutant::HeartbeatsShort) => beat,
            _ => {
                let (to, parts) = (crate::outbox::Destination::Group, [record.as_bytes(), &[]]);
                return self.cx.send(now, to, bourdon_wire::Kind::Heartbeat, parts);
            }
        };
        self.cx.counters.add(Counter::HeartbeatsPadded, u64::from(least_bytes > 0));
        let parts = (record.as_bytes(), report.as_bytes());
        self.cx.outbox.heartbeat(now, parts, least_bytes, &mut self.cx.counters);
    }

    /// A report came in a datagram of so many bytes.
    pub(super) fn on_path_report(&mut self, now: Instant, from: Member, datagram_bytes: usize, body: &[u8]) {
        let Some((report, _)) = PathReport::read(body) else { return };
        let is_earlier = self.data.view.incarnation(from.rank).is_some_and(|known| known != from.incarnation);
        if is_earlier || !self.cx.presence.knows(from) {
            return self.cx.count(Counter::DiscardedSender);
        }
        let (mut news, sender) = (alloc::vec::Vec::new(), (from.rank, from.incarnation));
        if !self.path_mtu.hear(now, sender, report, datagram_bytes, |change| news.push(change)) {
            return self.cx.count(Counter::DiscardedImplausible);
        }
        if let Some(stream) = self.data.streams.get_mut(from.rank.index()) {
            stream.nak_sender.note_longest(report.data_bytes.get().into());
        }
        news.into_iter().for_each(|change| self.on_path_news(now, change));
    }

    /// Reports a change of a path, and acts on it.
    #[cold]
    pub(super) fn on_path_news(&mut self, now: Instant, PathNews { change, at, from, bytes }: PathNews) {
        let at = at.or(self.cx.config.rank());
        let bytes = bytes as u16;
        self.cx.event(match change {
            PathChange::Lost => Event::LongDatagramsLost { at, from, bytes },
            PathChange::Restored => Event::LongDatagramsRestored { at, from, bytes },
        });
        self.look_due = now;
        if at != self.cx.config.rank() {
            return;
        }
        self.cx.counters.set(Counter::NarrowPaths, self.narrow_paths(now).count_ones().into());
        if change == PathChange::Lost {
            self.heartbeat.report(now, &self.cx.config.timing);
        } else {
            self.data.hurry_repairs(now);
        }
    }

    /// Takes links that carry no long datagrams for broken ones: the members in `sight` do not hear each other there.
    /// Where no quorum would be left, nothing is taken so, because no view would be better; the group waits and has
    /// reported why.
    pub(super) fn break_narrow_paths(&mut self, now: Instant, own: Rank, sight: &mut Sight) {
        let mut long = sight.heard;
        let mut lacks = 0;
        for member in &self.data.view.members {
            let missing = match member.rank == own {
                true => self.narrow_paths(now),
                false if sight.fresh & bit(member.rank) != 0 => self.path_mtu.missing_at(now, member.rank),
                false => 0,
            };
            lacks |= missing & self.data.view.bits();
            long[member.rank.index()] &= !missing;
            sight.joiners.retain(|joiner| missing & bit(joiner.rank) == 0);
        }
        let members: alloc::vec::Vec<Rank> = self.data.view.members.iter().map(|member| member.rank).collect();
        let known = sight.fresh | bit(own);
        let leaves_quorum = lacks != 0 && leaves_quorum(&members, &long, known);
        let due = self.path_mtu.note_quorum(now, leaves_quorum);
        if self.path_mtu.counts() {
            sight.heard = long;
        } else {
            self.look_due = self.look_due.min(due);
        }
    }
}
