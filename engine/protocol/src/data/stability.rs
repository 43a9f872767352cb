//! Stability: which member holds which datagrams.
//!
//! A sender may discard a datagram only when every member has it, and may send more only when every member has room. A
//! sender that counts single acknowledgements waits for ever when one is lost; credits become wrong when a view
//! changes. So each member repeatedly reports a *row*: for each stream a watermark that never falls. The next row
//! replaces a lost row, and an old row changes nothing.
//!
//! The same rows determine what may be delivered uniformly: a datagram that a quorum holds is held by at least one
//! member of any quorum that replies to a ballot, so the cut of a view change includes it (`control/view_change.rs`).
//! This is checked for each datagram, order runs included, so it serves every order of delivery; a message is due once
//! enough members hold every datagram it depends on.
//!
//! Invariants: nothing is discarded before all members have it (the minimum over all rows); watermarks never fall,
//! whatever a row states. Source: the stability matrix of Birman and Joseph (ISIS, 1987); all-to-all rows as in
//! Derecho's SST (2019).

use super::stream::Stream;
use crate::view::{Member, View, bit};
use alloc::vec;
use alloc::vec::Vec;
use bourdon_wire::records::{Row, RowEntry};
use bourdon_wire::{DatagramNumber, FRAME_HEADER_BYTES, HEADER_BYTES, MTU_MIN_BYTES, OrderNumber, Rank};

// The row of the largest group fits the smallest datagram.
const _: () = assert!(
    HEADER_BYTES + FRAME_HEADER_BYTES + Row::BYTES + (Rank::MAX.index() + 1) * RowEntry::BYTES <= MTU_MIN_BYTES
);

/// How many members must hold a datagram before it is delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Enough {
    /// A quorum of the view.
    Quorum,
    /// All members but these: none, unless a bug is planted.
    AllBut(u64),
}

#[derive(Debug)]
pub(crate) struct Stability {
    own: Option<Rank>,
    /// How many ranks there are, in the view or not.
    members: usize,
    /// The members in the view.
    present: u64,
    /// By member, then stream.
    received: Vec<DatagramNumber>,
    delivered: Vec<DatagramNumber>,
    /// For the mutation check: the last row counts, not the highest.
    pub(crate) overwrites: bool,
    /// A sender holds its own datagrams without a row. At `durable` it does once it has stored them, as its row
    /// reports.
    pub(crate) senders_hold: bool,
}

impl Stability {
    pub(crate) fn new(own: Option<Rank>, members: usize, present: u64) -> Self {
        assert!(members <= Rank::MAX.index() + 1, "a bitmap names {members} members");
        assert!(own.is_none_or(|own| present & bit(own) != 0), "{own:?} is in the view");
        Self {
            own,
            members,
            present,
            received: vec![DatagramNumber(0); members * members],
            delivered: vec![DatagramNumber(0); members * members],
            overwrites: false,
            senders_hold: true,
        }
    }

    /// Merges a member's row; returns whether any entry rose. `own_end` is the first datagram of the own stream that no
    /// member can have: a row that claims more must not open the window for good.
    pub(crate) fn merge(&mut self, from: Rank, entries: &[RowEntry], own_end: DatagramNumber) -> bool {
        debug_assert!(from.index() < self.members, "a row is of a rank that the group has");
        let base = from.index() * self.members;
        let overwrites = self.overwrites;
        let mut rose = false;
        let mut raise = |mark: &mut DatagramNumber, to: u64| {
            rose |= to > mark.0;
            mark.0 = if overwrites { to } else { mark.0.max(to) };
        };
        let own = self.own.map(Rank::index);
        for (stream, entry) in entries.iter().enumerate().take(self.members) {
            let most = if Some(stream) == own { own_end.0 } else { u64::MAX };
            raise(&mut self.received[base + stream], entry.received.get().min(most));
            raise(&mut self.delivered[base + stream], entry.delivered.get().min(most));
        }
        rose
    }

    /// Another source has shown that a member has received each stream up to here.
    pub(crate) fn note(&mut self, member: Rank, marks: &[DatagramNumber]) {
        debug_assert!(member.index() < self.members && marks.len() <= self.members, "one mark a stream");
        let base = member.index() * self.members;
        for (known, mark) in self.received[base..].iter_mut().zip(marks).take(self.members) {
            *known = (*known).max(*mark);
        }
    }

    fn others(&self) -> impl Iterator<Item = usize> {
        let (own, present) = (self.own.map(Rank::index), self.present);
        (0..self.members).filter(move |member| Some(*member) != own && present & (1 << member) != 0)
    }

    /// Up to where enough members hold a stream for it to be delivered. `own` is how far this process, if it is a
    /// member, holds it itself. The sender of a datagram holds it, so the sender counts without a row.
    pub(crate) fn held_by_enough(
        &self,
        stream: Rank,
        own: DatagramNumber,
        view: &View,
        enough: Enough,
    ) -> DatagramNumber {
        let mark = |rank: Rank| match self.own {
            Some(this) if this == rank => own,
            _ if rank == stream && self.senders_hold => DatagramNumber(u64::MAX),
            _ => self.acknowledged(rank, stream),
        };
        let mut marks = [DatagramNumber(0); Rank::MAX.index() + 1];
        let mut count = 0;
        for member in &view.members {
            let mark = mark(member.rank);
            if matches!(enough, Enough::AllBut(suspected) if suspected & bit(member.rank) != 0) {
                continue;
            }
            marks[count] = mark;
            count += 1;
        }
        let marks = &mut marks[..count];
        if count == 0 {
            return DatagramNumber(0);
        }
        match enough {
            Enough::Quorum => {
                // Half of an even view is enough where the first member is in that half.
                let first = view.members.first().map_or(DatagramNumber(0), |first| mark(first.rank));
                marks.sort_unstable_by(|a, b| b.cmp(a));
                let majority = marks[view.quorum_count() - 1];
                let half = if count.is_multiple_of(2) { marks[count / 2 - 1].min(first) } else { DatagramNumber(0) };
                let held = majority.max(half);
                let holds = |member: &&Member| mark(member.rank) >= held;
                let holders = view.members.iter().filter(holds).fold(0, |bits, member| bits | bit(member.rank));
                debug_assert!(view.is_quorum(holders), "{holders:b} of {view:?} hold {stream} up to {held}");
                held
            }
            Enough::AllBut(_) => marks.iter().copied().min().unwrap_or_default(),
        }
    }

    /// Up to where every other member has delivered the stream; `None` where there is no other member.
    pub(crate) fn min_delivered(&self, stream: Rank) -> Option<(DatagramNumber, Rank)> {
        self.others()
            .map(|member| (self.delivered[member * self.members + stream.index()], Rank(member as u16)))
            .min_by_key(|(mark, _)| *mark)
    }

    /// Up to where every other member has received the stream.
    pub(crate) fn min_received(&self, stream: Rank) -> Option<DatagramNumber> {
        self.others().map(|member| self.received[member * self.members + stream.index()]).min()
    }

    /// By stream: what a member has delivered, as far as its rows show.
    pub(crate) fn delivered_by(&self, member: Rank) -> &[DatagramNumber] {
        let base = member.index() * self.members;
        &self.delivered[base..base + self.members]
    }

    /// What a member has acknowledged of a stream.
    pub(crate) fn acknowledged(&self, member: Rank, stream: Rank) -> DatagramNumber {
        self.received[member.index() * self.members + stream.index()]
    }
}

/// This process's own row. `lie`: for the mutation check.
pub(crate) fn own_row(
    streams: &[Stream],
    delivered_order: OrderNumber,
    heard_from: u64,
    progress: u64,
    reached_phase: u64,
    lie: bool,
) -> (Row, impl Iterator<Item = RowEntry>) {
    let row = Row {
        reached_phase: reached_phase.into(),
        delivered_order: delivered_order.0.into(),
        heard_from: heard_from.into(),
        progress: progress.into(),
    };
    let entries = streams.iter().map(move |stream| {
        let received = if lie { stream.window.known_end } else { stream.window.next };
        debug_assert!(lie || stream.floor() <= received, "only what has been received is delivered");
        if stream.stored < received || stream.slots_from() < stream.floor() {
            // A sender frees what all have delivered: a member that has not stored it yet may need it again.
            return RowEntry::new(received.min(stream.stored), stream.slots_from().min(stream.stored));
        }
        RowEntry::new(received, stream.floor())
    });
    (row, entries)
}
