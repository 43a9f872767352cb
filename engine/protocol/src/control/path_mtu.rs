//! Path MTU: whether datagrams as long as the data arrive.
//!
//! Heartbeats are short. Where a path drops long datagrams, because its MTU is smaller than the configured one or a
//! device in it drops fragments, heartbeats pass and data does not: detectors trust the member, and the group waits for
//! its acknowledgements for ever.
//!
//! So while a process of the group sends long datagrams, every process pads some of its heartbeats to that length, and
//! reports with each heartbeat how many padded heartbeats it has sent. A receiver that hears the reports and misses
//! [`MISSES`] padded heartbeats in a row, with no other datagram of that length from the same sender between them,
//! *lacks* long datagrams from that sender. It reports so in its own heartbeats, and processes pad for as long as any
//! process lacks theirs: a single one that arrives shows that the path is mended. What is known of a rank outlasts its
//! incarnation, because another incarnation has the same path.
//!
//! Membership takes a link without long datagrams for a broken one (`Process::sight`), but only while a quorum of the
//! view is left that hears each other by long datagrams: where all long datagrams die, eviction mends nothing.
//!
//! Invariants: nothing is lacking while a peer's padded heartbeats or its data arrive; no report counts that names a
//! length that no datagram of the group can have. Source: RFC 8899 (packetization layer path MTU discovery: probe the
//! path with padding, and judge the probes alone).

use crate::config::Config;
use crate::view::{bit, ranks};
use alloc::vec;
use alloc::vec::Vec;
use bourdon_wire::records::PathReport;
use bourdon_wire::{Incarnation, Instant, Rank};

/// A datagram is long beyond the 576 bytes, with an IP and a UDP header, that every host and path takes (RFC 791).
pub(crate) const LONG_MIN_BYTES: usize = 548;
/// One of so many regular heartbeats is padded: at the usual MTU less is sent for padding than for heartbeats.
const PADDED_EVERY: u64 = 10;
/// All members together pad no more: each host receives that, and it is a hundredth of what a link of 1 Gbit/s carries.
/// A full group at the usual MTU stays below it.
const PADDING_MAX_BYTES_PER_S: u64 = 1_250_000;
/// So many padded heartbeats in a row are missed before a receiver lacks long datagrams: at 30 % loss, seven in a
/// hundred thousand runs of that length are lost by chance.
const MISSES: u8 = 8;
/// A stream sends long datagrams for so many padded heartbeats after its last one: more than a receiver must miss.
const HOLD: u64 = 12;
/// A report may be so many padded heartbeats ahead of the one before it: reports are lost as well.
const AHEAD_MAX: u64 = 64;
/// So many padded heartbeats long some members must lack others' long datagrams before membership acts on it: by then
/// all that have the same path have noticed.
const CONFIRM: u64 = 4;

const _: () = assert!(HOLD > MISSES as u64, "a path is judged while its sender still pads");

/// How far a process's padded heartbeats are apart.
fn interval_ns(config: &Config) -> u64 {
    let group_bytes = u64::from(config.members) * config.limits.mtu_bytes as u64;
    (PADDED_EVERY * config.timing.heartbeat_max_ns).max(group_bytes * 1_000_000_000 / PADDING_MAX_BYTES_PER_S)
}

/// The length of datagrams, and when they were last needed.
#[derive(Clone, Copy, Debug, Default)]
struct Longest {
    bytes: usize,
    at: Instant,
}

impl Longest {
    fn note(&mut self, now: Instant, bytes: usize, hold_ns: u64) {
        if bytes > 0 && (bytes >= self.bytes || self.is_over(now, hold_ns)) {
            *self = Self { bytes, at: now };
        }
    }

    fn is_over(&self, now: Instant, hold_ns: u64) -> bool {
        now.since(self.at) > hold_ns
    }

    fn bytes(&self, now: Instant, hold_ns: u64) -> usize {
        if self.is_over(now, hold_ns) { 0 } else { self.bytes }
    }
}

#[derive(Clone, Copy, Debug)]
struct Peer {
    incarnation: Option<Incarnation>,
    /// How many padded heartbeats its last report announced.
    announced: Option<u64>,
    misses: u8,
    missed_at: Instant,
    /// A datagram of so many bytes from it ends the misses.
    proof_bytes: usize,
    /// The length that does not come from it; 0 while it does.
    lacked_bytes: usize,
    /// What its stream sends.
    data: Longest,
    /// The ranks whose long datagrams it lacks, of which length, and when it last reported that.
    lacks: u64,
    lacks_bytes: usize,
    reported_at: Instant,
}

impl Peer {
    const NEW: Self = Self {
        incarnation: None,
        announced: None,
        misses: 0,
        missed_at: Instant(0),
        proof_bytes: usize::MAX,
        lacked_bytes: 0,
        data: Longest { bytes: 0, at: Instant(0) },
        lacks: 0,
        lacks_bytes: 0,
        reported_at: Instant(0),
    };
}

/// What a report or a long datagram has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PathChange {
    /// No long datagrams come from the sender.
    Lost,
    /// They come again.
    Restored,
}

/// A change: at which process (`None` for this one), in what comes from which rank, and of which length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PathNews {
    pub(crate) change: PathChange,
    pub(crate) at: Option<Rank>,
    pub(crate) from: Rank,
    pub(crate) bytes: usize,
}

/// The paths from every rank to this process, and what others report of theirs.
#[derive(Debug)]
pub(crate) struct PathMtu {
    own: Option<Rank>,
    mtu_bytes: usize,
    /// Whether this process pads: over a stream there are no datagrams to be too long.
    pads: bool,
    interval_ns: u64,
    peers: Vec<Peer>,
    /// The longest datagram of the own stream since the last heartbeat.
    sent_bytes: usize,
    data: Longest,
    padded: u64,
    padded_bytes: usize,
    pad_due: Instant,
    /// Since when a quorum has heard each other by long datagrams while a member lacked some.
    confirmed_since: Option<Instant>,
    counts: bool,
}

impl PathMtu {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            own: config.rank(),
            mtu_bytes: config.limits.mtu_bytes,
            pads: config.pads_heartbeats,
            interval_ns: interval_ns(config),
            peers: vec![Peer::NEW; usize::from(config.members)],
            sent_bytes: 0,
            data: Longest::default(),
            padded: 0,
            padded_bytes: 0,
            pad_due: Instant(0),
            confirmed_since: None,
            counts: false,
        }
    }

    fn hold_ns(&self) -> u64 {
        HOLD * self.interval_ns
    }

    /// Datagrams of the own stream were sent, the longest so long.
    #[inline]
    pub(crate) fn sent(&mut self, bytes: usize) {
        self.sent_bytes = self.sent_bytes.max(bytes);
    }

    /// What follows the heartbeat that is sent now, and the least length of its datagram; `None` if there is nothing to
    /// report. `is_awaited`: members have not acknowledged all of the own stream. `audible`: the ranks heard lately.
    pub(crate) fn beat(&mut self, now: Instant, is_awaited: bool, audible: u64) -> Option<(PathReport, usize)> {
        let hold_ns = self.hold_ns();
        let sent_bytes = core::mem::take(&mut self.sent_bytes);
        self.data.note(now, if sent_bytes > LONG_MIN_BYTES { sent_bytes } else { 0 }, hold_ns);
        if is_awaited && !self.data.is_over(now, hold_ns) {
            self.data.at = now; // a receiver that lacks it acknowledges nothing
        }
        let wanted_bytes = self.wanted_bytes(now);
        let (missing, missing_bytes) = self.missing(audible);
        if !self.pads || wanted_bytes == 0 && missing == 0 {
            return None;
        }
        let is_padded = wanted_bytes > 0 && now >= self.pad_due;
        if is_padded {
            (self.padded, self.padded_bytes) = (self.padded + 1, wanted_bytes);
            self.pad_due = now + self.interval_ns;
        }
        let report = PathReport {
            padded: self.padded.into(),
            missing: missing.into(),
            padded_bytes: (self.padded_bytes as u16).into(),
            data_bytes: (self.data.bytes(now, hold_ns) as u16).into(),
            missing_bytes: (missing_bytes as u16).into(),
            reserved: 0.into(),
        };
        Some((report, if is_padded { wanted_bytes } else { 0 }))
    }

    /// How long padded heartbeats must be now: as the longest datagrams of any stream, or as those that a process
    /// lacks; 0 for none.
    fn wanted_bytes(&self, now: Instant) -> usize {
        let hold_ns = self.hold_ns();
        let own = self.own.map_or(0, bit);
        let lacked = |peer: &Peer| {
            let lacks = peer.lacks & own != 0 && now.since(peer.reported_at) <= hold_ns;
            if lacks { peer.lacks_bytes } else { 0 }
        };
        let fresh_ns = 2 * self.interval_ns; // its sender announces it for as long as it counts
        let of_peers = self.peers.iter().map(|peer| peer.data.bytes(now, fresh_ns).max(lacked(peer)));
        of_peers.fold(self.data.bytes(now, hold_ns), usize::max).min(self.mtu_bytes)
    }

    /// The ranks of those heard lately whose long datagrams do not come, and their length.
    pub(crate) fn missing(&self, audible: u64) -> (u64, usize) {
        let lacked = self.peers.iter().enumerate().filter(|(rank, _)| audible & 1 << rank != 0);
        lacked
            .filter(|(_, peer)| peer.lacked_bytes > 0)
            .fold((0, 0), |(missing, most), (rank, peer)| (missing | 1 << rank, most.max(peer.lacked_bytes)))
    }

    /// The ranks whose long datagrams do not come to a member, as it reported lately.
    pub(crate) fn missing_at(&self, now: Instant, rank: Rank) -> u64 {
        let peer = self.peers.get(rank.index()).filter(|peer| now.since(peer.reported_at) <= self.hold_ns());
        peer.map_or(0, |peer| peer.lacks)
    }

    /// Whether a report can come from a process of this group.
    fn is_plausible(&self, from: Rank, report: &PathReport) -> bool {
        let lengths = [report.padded_bytes, report.data_bytes, report.missing_bytes];
        let is_length = |bytes: usize| bytes == 0 || (LONG_MIN_BYTES + 1..=self.mtu_bytes).contains(&bytes);
        let all = u64::MAX >> (u64::BITS as usize - self.peers.len().clamp(1, 64));
        let (missing, is_named) = (report.missing.get(), report.missing_bytes.get() != 0);
        lengths.iter().all(|bytes| is_length(usize::from(bytes.get())))
            && missing & !all == 0
            && missing & bit(from) == 0
            && (missing != 0) == is_named
    }

    /// A report came in a datagram of so many bytes. False if no process can have sent it.
    pub(crate) fn hear(
        &mut self,
        now: Instant,
        (from, incarnation): (Rank, Incarnation),
        report: &PathReport,
        datagram_bytes: usize,
        mut news: impl FnMut(PathNews),
    ) -> bool {
        if from.index() >= self.peers.len() || !self.is_plausible(from, report) {
            return false;
        }
        let spacing_ns = self.interval_ns / 2;
        // A rank that is no longer heard is no longer reported, and its path is not restored by that.
        let is_heard = |(rank, peer): (usize, &Peer)| {
            let is_heard = now.since(peer.reported_at) <= spacing_ns || self.own == Some(Rank(rank as u16));
            u64::from(is_heard) << rank
        };
        let heard = self.peers.iter().enumerate().map(is_heard).fold(0, |heard, bit| heard | bit);
        let peer = &mut self.peers[from.index()];
        if peer.incarnation.replace(incarnation) != Some(incarnation) {
            (peer.announced, peer.misses) = (None, 0);
        }
        peer.data = Longest { bytes: report.data_bytes.get().into(), at: now };
        let (lacks, lacks_bytes) = (report.missing.get(), usize::from(report.missing_bytes.get()));
        let before = core::mem::replace(&mut peer.lacks, lacks);
        let before_bytes = core::mem::replace(&mut peer.lacks_bytes, lacks_bytes);
        peer.reported_at = now;
        let at = Some(from);
        for from in ranks(lacks & !before) {
            news(PathNews { change: PathChange::Lost, at, from, bytes: lacks_bytes });
        }
        for from in ranks(before & !lacks & heard) {
            news(PathNews { change: PathChange::Restored, at, from, bytes: before_bytes });
        }
        let (padded, padded_bytes) = (report.padded.get(), usize::from(report.padded_bytes.get()));
        let ahead = peer.announced.replace(padded).map_or(0, |announced| padded.wrapping_sub(announced));
        let is_padded = padded_bytes > 0 && datagram_bytes >= padded_bytes;
        // Of reports that piled up while this process did not run, one counts.
        let is_spaced = peer.misses == 0 || now.since(peer.missed_at) >= spacing_ns;
        if !is_padded && padded_bytes > 0 && (1..=AHEAD_MAX).contains(&ahead) && is_spaced {
            (peer.misses, peer.missed_at) = ((peer.misses + 1).min(MISSES), now);
            peer.proof_bytes = if peer.lacked_bytes > 0 { peer.lacked_bytes } else { padded_bytes };
            if peer.misses == MISSES && peer.lacked_bytes == 0 {
                peer.lacked_bytes = padded_bytes;
                news(PathNews { change: PathChange::Lost, at: None, from, bytes: padded_bytes });
            }
        }
        if let Some(restored) = self.arrived(from, datagram_bytes) {
            news(restored);
        }
        true
    }

    /// A datagram came that this rank itself sent by multicast.
    #[inline]
    pub(crate) fn arrived(&mut self, from: Rank, bytes: usize) -> Option<PathNews> {
        let peer = self.peers.get_mut(from.index())?;
        if bytes < peer.proof_bytes { None } else { self.prove(from) }
    }

    #[cold]
    fn prove(&mut self, from: Rank) -> Option<PathNews> {
        let peer = &mut self.peers[from.index()];
        let bytes = core::mem::take(&mut peer.lacked_bytes);
        (peer.misses, peer.proof_bytes) = (0, usize::MAX);
        (bytes > 0).then_some(PathNews { change: PathChange::Restored, at: None, from, bytes })
    }

    /// Notes whether the view can change for links without long datagrams: whether there are any, and a quorum is left
    /// without them. Returns when membership takes them for broken: once that has lasted.
    pub(crate) fn note_quorum(&mut self, now: Instant, leaves_quorum: bool) -> Instant {
        self.confirmed_since = leaves_quorum.then(|| self.confirmed_since.unwrap_or(now));
        let due = self.confirmed_since.map_or(Instant::NEVER, |since| since + CONFIRM * self.interval_ns);
        self.counts = now >= due;
        due
    }

    /// Whether membership takes links without long datagrams for broken.
    pub(crate) fn counts(&self) -> bool {
        self.counts
    }
}
