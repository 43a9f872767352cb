//! The own stream: a message's way from the application's call to the network.
//!
//! ```text
//! publish ▶ flow ▶ pack ▶ log ▶ send
//! ```
//!
//! A message is accepted or refused before any of it is written, because what is in the log can't be taken back: its
//! number is assigned. This process itself receives every sealed datagram, sent or not: it will be sent, so delivery
//! here need not wait for the network to take it.
//!
//! Invariants: a refused message leaves no trace in the log; the window never exceeds the log.

use super::ordering::Ordering;
use super::pack::{Claim, Outgoing, Packer, extension_bytes};
use super::pipeline::Pipeline;
use super::stability::Enough;
use crate::counters::{Counter, Counters};
use crate::mutant::Mutant;
use crate::refusal::Refusal;
use bourdon_wire::{FRAME_HEADER_BYTES, Sequence, TopicId};

impl Pipeline {
    /// The longest message that is taken.
    pub(crate) fn longest_message_bytes(&self) -> usize {
        let limits = &self.config.limits;
        let window = self.outbound.as_ref().map_or(0, |outbound| outbound.flow.window() as usize);
        limits.max_message_bytes.min(window * limits.mtu_bytes / 4)
    }

    /// Whether a message of this length can be taken now. `whole`: only in one frame.
    #[inline]
    pub(crate) fn admit(&mut self, outgoing: &Outgoing, length: usize, whole: bool) -> Result<(), Refusal> {
        if !self.end.is_open() {
            return Err(Refusal::ViewChange);
        }
        let Some(outbound) = &mut self.outbound else { return Err(Refusal::Role) };
        if self.barrier.is_placed() {
            return Err(Refusal::Barrier);
        }
        let vector = match &mut self.ordering {
            Ordering::Causal(causal) => {
                let log = &self.streams[outbound.rank.index()].log;
                causal.prepare(&self.streams, outbound.rank, false);
                let follows = outbound.packer.continues(log, extension_bytes(outgoing, causal.vector()) + length);
                if !follows && self.config.mutant != Some(Mutant::VectorNeverWhole) {
                    causal.prepare(&self.streams, outbound.rank, true);
                }
                causal.vector()
            }
            _ => &[],
        };
        let log = &self.streams[outbound.rank.index()].log;
        let body_bytes = extension_bytes(outgoing, vector) + length;
        if length > self.config.limits.max_message_bytes || !Packer::is_whole(log, body_bytes) {
            let limits = &self.config.limits;
            let frame_bytes = limits.frame_bytes() - FRAME_HEADER_BYTES - (body_bytes - length);
            let quarter_bytes = outbound.flow.window() as usize * limits.mtu_bytes / 4;
            let limit_bytes = limits.max_message_bytes.min(if whole { frame_bytes } else { quarter_bytes });
            if length > limit_bytes {
                return Err(Refusal::TooLarge { limit_bytes });
            }
        }
        if outbound.packer.last_datagram(log, body_bytes) >= outbound.flow.data_limit
            && self.config.mutant != Some(Mutant::IgnoreWindow)
        {
            outbound.flow.refuse();
            return Err(Refusal::Window { slowest: None }); // `Process::refused` gives the receiver
        }
        if !outbound.packer.fits_open(log, body_bytes) && outbound.packer.first_free() >= outbound.flow.paced {
            return Err(Refusal::Window { slowest: None });
        }
        Ok(())
    }

    /// Packs a plain message if the open datagram has room for it, or none is open and the window has room for one: the
    /// common cases, in which little need be checked.
    #[inline(always)]
    pub(crate) fn append(&mut self, topic: TopicId, payload: &[u8]) -> Option<Sequence> {
        let outbound = self.outbound.as_mut()?;
        if payload.len() > self.config.limits.max_message_bytes
            || matches!(self.ordering, Ordering::Causal(_))
            || !self.end.is_open()
            || self.barrier.is_placed()
        {
            return None;
        }
        let may_break = self.config.mutant.is_some();
        debug_assert!(may_break || outbound.keeps_window(), "a datagram is open beyond the limit");
        let log = &mut self.streams[outbound.rank.index()].log;
        if let Some(sequence) = outbound.packer.append(log, topic, payload) {
            return Some(sequence);
        }
        // Real-time order takes nothing before the group's time is known.
        if outbound.packer.is_open() || matches!(self.ordering, Ordering::RealTime(_)) {
            return None;
        }
        let limit = outbound.flow.data_limit.min(outbound.flow.paced);
        outbound.packer.begin_with(log, limit, topic, payload)
    }

    /// Claims space for one admitted message that fits a datagram. `None` for an observer.
    #[inline]
    pub(crate) fn claim<'a>(
        &'a mut self,
        wall_ns: u64,
        outgoing: &Outgoing,
        length: usize,
        counters: &'a mut Counters,
    ) -> Option<Claim<'a>> {
        let outbound = self.outbound.as_mut()?;
        debug_assert!(self.end.is_open() && !self.barrier.is_placed(), "the message was admitted");
        let log = &mut self.streams[outbound.rank.index()].log;
        Some(outbound.packer.claim(log, outgoing, self.ordering.causal(), length, wall_ns, counters))
    }

    /// Packs an admitted message of any length. `None` for an observer.
    #[inline]
    pub(crate) fn publish(
        &mut self,
        wall_ns: u64,
        outgoing: &Outgoing,
        payload: &[u8],
        counters: &mut Counters,
    ) -> Option<Sequence> {
        debug_assert!(self.end.is_open() && !self.barrier.is_placed(), "the message was admitted");
        let body_bytes = payload.len();
        let outbound = self.outbound.as_mut()?;
        let log = &mut self.streams[outbound.rank.index()].log;
        let mut causal = self.ordering.causal();
        let vector = causal.as_ref().map_or(&[][..], |causal| causal.vector());
        if Packer::is_whole(log, extension_bytes(outgoing, vector) + body_bytes) {
            let mut claim = outbound.packer.claim(log, outgoing, causal, body_bytes, wall_ns, counters);
            claim.copy_from_slice(payload);
            return Some(claim.commit());
        }
        counters.add(Counter::Published, 1);
        let sequence = outbound.packer.fragments(log, outgoing, vector, payload, wall_ns);
        if let Some(causal) = &mut causal {
            causal.sent();
        }
        let may_break = self.config.mutant.is_some();
        debug_assert!(may_break || outbound.keeps_window(), "a datagram is open beyond the limit");
        Some(sequence)
    }

    /// Makes the messages that were just put in order deliverable here, before they are sent.
    #[inline]
    pub(crate) fn close_early(&mut self, wall_ns: u64) {
        let Some(outbound) = &mut self.outbound else { return };
        if outbound.packer.is_open() {
            let stream = &mut self.streams[outbound.rank.index()];
            outbound.packer.close_early(&mut stream.log, wall_ns);
            debug_assert!(stream.window.next <= outbound.packer.open, "no datagram is taken back");
            stream.window.next = outbound.packer.open;
            stream.window.known_end = outbound.packer.open;
            stream.window.complete = outbound.packer.next_sequence;
        }
    }

    /// Offers everything packed to the network, or everything sealed; returns whether it took all.
    #[inline]
    pub(crate) fn transmit(
        &mut self,
        wall_ns: u64,
        seals: bool,
        counters: &mut Counters,
        send: &mut impl FnMut(&[u8], usize) -> usize,
    ) -> bool {
        // Where nothing is agreed on, what was packed goes out in any case: no receiver will request it.
        if !self.end.is_open() && !self.is_lossy() && self.config.mutant != Some(Mutant::SendAfterPromise) {
            return true;
        }
        let Some(outbound) = &mut self.outbound else { return true };
        let packer = &mut outbound.packer;
        let stream = &mut self.streams[outbound.rank.index()];
        // An open datagram that others may know of already, as its order was closed early, is not taken back.
        let seals = seals || stream.window.next > packer.open;
        if seals && packer.is_open() {
            packer.close(&mut stream.log, false, wall_ns);
        }
        packer.settle();
        while packer.sent < packer.open {
            let (bytes, offered) = stream.log.run(packer.sent, packer.open);
            let taken = send(bytes, stream.log.mtu().min(bytes.len()));
            debug_assert!(taken <= offered, "{taken} of {offered} datagrams");
            packer.sent = packer.sent + taken as u64;
            self.flow_stale = true;
            counters.add(Counter::DatagramsSent, taken as u64);
            if taken < offered {
                break;
            }
        }
        debug_assert!(stream.window.next <= packer.open && packer.sent <= packer.open, "no datagram is taken back");
        // A sealed datagram is delivered here like that of any other member; sent or not, it will be sent.
        stream.window.next = packer.open;
        stream.window.known_end = packer.open;
        stream.window.complete = packer.complete();
        debug_assert!(stream.counts_complete(), "what is not sealed is not complete: {:?}", stream.window);
        self.stops_stale = true;
        packer.sent == packer.open
    }

    /// Recomputes the window if anything it depends on has moved, once it is half used up: until then no publication
    /// needs to know how much further it reaches.
    #[inline]
    pub(crate) fn refresh_flow(&mut self) {
        if self.needs_flow() {
            self.update_flow();
        }
    }

    #[inline]
    fn needs_flow(&self) -> bool {
        self.flow_stale && self.outbound.as_ref().is_some_and(|own| own.flow.is_half_used(own.packer.open))
    }

    /// Whether something is packed and not sent, or is to be packed before anything else is sent.
    #[inline]
    pub(crate) fn has_to_send(&self) -> bool {
        self.outbound.as_ref().is_some_and(|own| own.packer.is_open() || own.packer.sent < own.packer.open)
            || self.needs_flow()
            || self.barrier.is_active()
            || self.has_order_to_give()
    }

    /// Another observer gates: the window ends where it has room.
    pub(crate) fn lower_limit(&mut self) {
        if let Some(outbound) = &mut self.outbound {
            let open = outbound.packer.open;
            outbound.flow.lower(if outbound.packer.is_open() { open.next() } else { open });
        }
    }

    pub(crate) fn update_flow(&mut self) {
        self.flow_stale = false;
        if let Some(outbound) = &mut self.outbound {
            let own = &self.streams[outbound.rank.index()];
            // What the network has not taken is still needed, also where this process has delivered it already.
            let floor = own.slots_from().min(outbound.packer.sent);
            outbound.flow.update(&self.stability, floor, &own.log);
            let (limit, log_end) = (outbound.flow.limit, floor + own.log.capacity());
            debug_assert!(self.config.mutant.is_some() || limit <= log_end, "the window ends where the log does");
            if self.config.mutant == Some(Mutant::ForgetAtMajority) {
                let (own, quorum) = (&self.streams[outbound.rank.index()], Enough::Quorum);
                let held = self.stability.held_by_enough(outbound.rank, own.window.next, &self.view, quorum);
                outbound.flow.forget_below(held, &own.log);
            }
        }
    }
}
