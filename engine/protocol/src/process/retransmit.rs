//! Retransmission: a receiver asks for the datagrams it lacks, and a holder sends them again.

use super::senders::own_bit;
use super::{Process, Standing};
use crate::config::Role;
use crate::counters::{Counter, Counters};
use crate::data::DATA_CHANNEL;
use crate::data::pacing::Pacer;
use crate::data::pipeline::Pipeline;
use crate::data::repair::{ATTEMPTS_AT_SENDER, Answer, DATA_PART, Earnings};
use crate::mutant::Mutant;
use crate::outbox::{Destination, Outbox};
use crate::values::position::Position;
use crate::view::{bit, ranks};
use bourdon_wire::records::{self};
use bourdon_wire::{Address, DatagramNumber, Epoch, InstanceId, Instant, Kind, Rank};
use zerocopy::IntoBytes;

/// Where the rate is limited, repairs come in bursts of this part of a second's, and of so many at least.
const BURSTS_PER_S: u64 = 40;
const BURST_MIN: u64 = 16;

impl Process {
    pub(super) fn ask(&mut self, now: Instant, rank: Rank) {
        // What a view ends with is needed at once.
        let is_earned = self.data.asks_all() && !self.data.meters.is_empty() && self.data.end.is_open();
        let stream = &mut self.data.streams[rank.index()];
        if is_earned && !stream.nak_sender.may_ask_all(now, &stream.window) {
            return self.data.note_nak_due();
        }
        let is_far = self.no_holder_is_near(now);
        self.data.streams[rank.index()].nak_sender.doubt(now, is_far);
        let Some(attempts) = self.data.collect_missing(now, rank) else { return };
        if is_earned {
            self.data.streams[rank.index()].nak_sender.spend_request();
        }
        let (to, cookie) = if self.data.asks_all() {
            (Destination::Group, 0) // repairs go to all as well: no address need be proved
        } else {
            let holder = self.holder_to_ask(now, rank, attempts);
            let to = self.cx.presence.address(holder).map_or(Destination::Group, Destination::Peer);
            (to, self.word_for_repair(holder, rank))
        };
        let nak = records::Nak {
            rank: rank.0.into(),
            channel: DATA_CHANNEL.0.into(),
            reply_to: self.cx.config.address,
            cookie: cookie.into(),
            ranges: (self.data.ranges.len() as u16).into(),
        };
        // The receiver checks the epoch: it may have gone on to the next.
        let header = self.cx.header(self.data.view.instance, self.data.view.epoch);
        let parts = [nak.as_bytes(), self.data.ranges.as_bytes()];
        let times = if self.cx.config.mutant == Some(Mutant::AskTwice) { 2 } else { 1 };
        for _ in 0..times {
            self.cx.send_as(header, now, to, Kind::Nak, parts);
            self.cx.count(Counter::NaksSent);
        }
    }

    /// Whether no member's long datagrams come to this process.
    fn no_holder_is_near(&self, now: Instant) -> bool {
        let others = self.data.view.bits() & !own_bit(&self.cx.config) & !self.detector.suspects();
        self.cx.counters.get(Counter::NarrowPaths) > 0 && others & !self.narrow_paths(now) == 0
    }

    /// The sender first; then, every other time, another member. A suspected member is never asked, nor one whose long
    /// datagrams do not come while another is left.
    pub(super) fn holder_to_ask(&self, now: Instant, rank: Rank, attempts: u8) -> Rank {
        let cut = !self.data.end.is_open();
        let others = self.data.view.bits() & !own_bit(&self.cx.config);
        let alive = others & !self.detector.suspects();
        // Members that have gone on to the next view are not heard in this view, but have what is missing.
        let alive = if alive == 0 || (cut && attempts > ATTEMPTS_AT_SENDER) { others } else { alive };
        let is_narrow = self.cx.counters.get(Counter::NarrowPaths) > 0;
        let near = if is_narrow { alive & !self.narrow_paths(now) } else { alive };
        let alive = if near == 0 { alive } else { near };
        let early = attempts <= ATTEMPTS_AT_SENDER && !cut || attempts.is_multiple_of(2);
        if early && alive & bit(rank) != 0 {
            return rank;
        }
        let others = others & alive & !bit(rank);
        let count = others.count_ones() as usize;
        let turn = usize::from(attempts / 2) + usize::from(rank.0);
        ranks(others).nth(if count == 0 { 0 } else { turn % count }).unwrap_or(rank)
    }

    pub(super) fn on_nak(&mut self, now: Instant, epoch: Epoch, body: &[u8]) {
        let Some((nak, ranges)) = records::Nak::read_all(body) else { return };
        let rank = Rank(nak.rank.get());
        if rank.0 >= self.cx.config.members
            || nak.channel.get() != DATA_CHANNEL.0
            || nak.reply_to == self.cx.config.address
        {
            return;
        }
        self.cx.count(Counter::NaksReceived);
        let asks_all = self.data.asks_all();
        let inside = !matches!(self.standing(), Standing::Outside | Standing::Gone);
        let current = inside && epoch == self.data.view.epoch;
        if current && asks_all && Some(rank) != self.data.own() {
            // This request was multicast to all: its repair will reach us too.
            let suppressed = self.data.suppress(now, rank, ranges);
            self.cx.counters.add(Counter::NaksSuppressed, suppressed);
            let sender_lives = self.data.is_present(rank) && !self.detector.is_suspected(rank);
            if sender_lives && self.data.end.is_open() {
                return;
            }
        }
        if !nak.reply_to.is_reachable() || matches!(self.cx.config.role, Role::Observer) {
            return;
        }
        // Repairs that go to all can't flood a stranger; the budget bounds them.
        let proven = if asks_all {
            self.is_proven(nak.reply_to)
        } else {
            self.is_proven_by(now, epoch, nak.reply_to, nak.cookie.get())
        };
        if !proven && !asks_all {
            return;
        }
        let earlier = if current { None } else { self.past.data_of(epoch) };
        let data = match earlier {
            _ if current => &mut self.data,
            Some(data) => data,
            None => return self.cx.count(Counter::DiscardedEpoch),
        };
        let requester = proven.then_some(nak.reply_to);
        let queued_bytes = self.cx.outbox.held().1;
        let earnings = earnings(data, self.pacer.as_ref(), &self.cx.counters);
        let gone = answer(data, &mut self.cx.outbox, &mut self.cx.counters, (now, earnings), (nak, ranges), requester);
        if gone {
            let (oldest, instance) = (oldest_retained(data), data.view.instance);
            self.answer_unavailable(now, (instance, epoch), rank, nak.reply_to, oldest);
        }
        // Repairs are part of what this member sends.
        let repairs_bytes = self.cx.outbox.held().1 - queued_bytes;
        self.pacer.iter_mut().for_each(|pacer| pacer.charge_repairs(repairs_bytes));
        self.pace(now, 0);
    }

    pub(super) fn answer_unavailable(
        &mut self,
        now: Instant,
        (instance, epoch): (InstanceId, Epoch),
        rank: Rank,
        to: Address,
        oldest: DatagramNumber,
    ) {
        let record = records::Unavailable {
            rank: rank.0.into(),
            channel: DATA_CHANNEL.0.into(),
            reserved: 0.into(),
            oldest_number: oldest.0.into(),
        };
        let header = self.cx.header(instance, epoch);
        let (to, parts) = (Destination::Peer(to), [record.as_bytes(), &[]]);
        self.cx.send_as(header, now, to, Kind::Unavailable, parts);
    }

    /// A sender no longer retains what this process still misses. An observer gives it up; a joiner starts again with
    /// another snapshot, because a member may lack nothing.
    pub(super) fn on_unavailable(&mut self, now: Instant, from: Rank, body: &[u8]) {
        let Some((record, _)) = records::Unavailable::read(body) else { return };
        let rank = Rank(record.rank.get());
        let may_lack = self.standing() == Standing::Following || self.data.is_lossy();
        if rank == from && may_lack && self.data.streams[rank.index()].window.started {
            if matches!(self.cx.config.role, Role::Member(_)) && !self.data.is_lossy() {
                let window = &self.data.streams[rank.index()].window;
                // A sender can't have evicted what it has not announced.
                if record.oldest_number.get().min(window.known_end.0) > window.next.0 {
                    self.lose_view(); // a member may have no gaps
                }
                return;
            }
            let stream = &mut self.data.streams[rank.index()];
            // A sender can't have evicted what it has not announced.
            let oldest = DatagramNumber(record.oldest_number.get().min(stream.window.known_end.0));
            let before = stream.window.next;
            stream.give_up_before(oldest);
            if stream.window.next > before {
                stream.nak_sender.replied(now); // what follows is missing as well
                self.data.note_nak_due();
            }
            self.entry.is_awaited = false; // what is here beyond it is delivered first
        }
    }
}

/// How many repairs this process may send: fewer than configured where its rate is limited, of which repairs are a
/// part.
fn earnings(data: &Pipeline, pacer: Option<&Pacer>, counters: &Counters) -> Earnings {
    let (limits, longest) = (&data.config.limits, data.config.limits.mtu_bytes);
    let all = Earnings::of_datagrams(u64::from(limits.repairs_per_s), counters.get(Counter::DatagramsSent), longest);
    // What a view ends with is needed at once, and is no part of the stream that observers are paced for.
    let Some(pacer) = pacer.filter(|pacer| pacer.is_limiting() && data.end.is_open()) else { return all };
    let per_s = pacer.rate().map_or(all.per_s, |rate| all.per_s.min(rate / DATA_PART));
    let burst = (per_s / BURSTS_PER_S).clamp(BURST_MIN * longest as u64, all.burst);
    Earnings::of_bytes(per_s, pacer.data_bytes(), burst)
}

/// Retransmits what was requested and is retained here; returns whether a part is gone for good. `requester`: the
/// requesting address, if it has proved that it receives.
fn answer(
    data: &mut Pipeline,
    outbox: &mut Outbox,
    counters: &mut Counters,
    (now, earnings): (Instant, Earnings),
    (nak, ranges): (&records::Nak, &[records::NakRange]),
    requester: Option<Address>,
) -> bool {
    let rank = Rank(nak.rank.get());
    let asks_all = data.asks_all();
    data.retransmit_handler.refill(now, earnings, requester);
    let own = Some(rank) == data.own();
    let newest = match &data.outbound {
        // Once nothing more is sent, what was packed and not sent can be requested as well.
        Some(outbound) if own && data.end.is_open() => outbound.packer.sent.0,
        _ => data.streams[rank.index()].window.known_end.0,
    };
    let stream = &data.streams[rank.index()];
    let (mut gone, mut left) = (false, stream.log.capacity());
    for range in ranges {
        let end = range.first.get().saturating_add(u64::from(range.count.get())).min(newest);
        let first = range.first.get().min(end);
        gone |= own && end - first > left;
        // All ranges together cost at most one pass over the log.
        let first = first.max(end.saturating_sub(left));
        left -= end - first;
        for number in first..end {
            let number = DatagramNumber(number);
            let Some(bytes) = stream.log.get(number) else {
                gone |= own;
                continue;
            };
            let to = match data.retransmit_handler.answer(
                now,
                (rank, number, bytes.len()),
                nak.reply_to,
                asks_all,
                &data.config.timing,
            ) {
                Answer::Unicast => Destination::Peer(nak.reply_to),
                Answer::Multicast => Destination::Group,
                Answer::No => {
                    counters.add(Counter::RepairsRefused, 1);
                    if data.retransmit_handler.is_exhausted() {
                        return gone; // the rest need not be walked: a receiver that still misses it asks again
                    }
                    continue;
                }
            };
            outbox.repair(to, bytes, counters);
        }
    }
    gone
}

/// The oldest datagram of its own stream that this process can still retransmit.
pub(super) fn oldest_retained(data: &Pipeline) -> DatagramNumber {
    let Some(outbound) = &data.outbound else { return DatagramNumber(0) };
    let capacity = data.streams[outbound.rank.index()].log.capacity();
    DatagramNumber((outbound.packer.open.0 + 1).saturating_sub(capacity))
}

/// Whether a member can no longer retransmit what follows this position in its stream, if its log is as long as the log
/// of this process.
pub(super) fn is_outdated(data: &Pipeline, position: &Position) -> bool {
    let Some(outbound) = &data.outbound else { return false };
    let capacity = data.streams[outbound.rank.index()].log.capacity();
    let oldest = |rank: Rank| match rank == outbound.rank {
        true => oldest_retained(data),
        false => DatagramNumber(data.streams[rank.index()].window.known_end.0.saturating_sub(capacity)),
    };
    data.view.members.iter().any(|member| position.streams[member.rank.index()].number < oldest(member.rank))
}
