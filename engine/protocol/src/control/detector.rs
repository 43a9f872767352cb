//! Failure detection: which peers are suspected, by which detector, and how often that was wrong.
//!
//! No other process can know whether a silent process has crashed or is slow. A single timeout for everything is either
//! too short for a loaded host or too long for a crash. And it watches a single path: it would not suspect a node whose
//! control thread still answers while its data path has stopped. So several detectors watch each peer, each usable
//! alone:
//!
//! - [`push`]: nothing came by multicast for too long. Any packet counts.
//! - [`pull`]: it was pinged by unicast and did not answer.
//! - [`phi`]: its heartbeats are later than its earlier heartbeats make likely.
//! - *evidence*: its process is known to be gone.
//! - *group*: in a channel that leans on the detectors of its group, those suspect it ([`Judgement`]).
//!
//! A peer is suspected while any of them suspects it, and trusted again as soon as none does; only evidence is final.
//! Suspicion is local: it evicts no member (see `control/membership.rs`).
//!
//! A member that was descheduled hears no heartbeats. [`Detector::look`] is called at [`Detector::due`]; when that
//! call, or any other input, comes late, this process has stalled. The detector then subtracts the lateness from every
//! peer's silence, and waits one more heartbeat interval, in which the process reads the datagrams that have piled up.
//! It waits so only once until the peer is heard: otherwise, on a host that stalls all the time, a crashed peer would
//! never be suspected.
//!
//! A channel that leans sends few heartbeats and pings of its own: its group's detectors watch the same processes, and
//! its own notice after a second what those can't, a path or a thread of the channel alone.
//!
//! Invariants: suspicion changes only in `look`; a peer with evidence stays suspected until it is watched again;
//! silence grows at most as fast as this process runs. Source: Chandra and Toueg (1996), class ◇P; phi: Hayashibara et
//! al. (2004).

pub mod phi;
pub mod pull;
pub mod push;

use alloc::vec::Vec;
use bourdon_wire::{Instant, Rank};
use phi::Phi;
use pull::Pull;
use push::Push;

/// As many peers as a bitmap of 64 bits can name.
const PEERS_MAX: usize = Rank::MAX.index() + 1;
const _: () = assert!(PEERS_MAX <= u64::BITS as usize);
// A peer's suspicions have a bit for each detector.
const _: () = assert!(Why::ALL.len() <= u8::BITS as usize);

/// Which detectors run, and how long each waits before it suspects a peer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DetectorTiming {
    /// Suspect a peer that is not heard by multicast.
    pub push: bool,
    /// Ping, and suspect a peer that does not answer.
    pub pull: bool,
    /// Suspect a peer whose heartbeats are overdue by their own measure.
    pub phi: bool,
    /// Accept hard evidence.
    pub evidence: bool,
    /// How often the peers' regular heartbeats come: the expectation before anything was measured, how often to look,
    /// and the grace after a stall of this process.
    pub heartbeat_ns: u64,
    /// A peer that is not heard by multicast for this long is suspected.
    pub suspect_after_ns: u64,
    /// A ping is sent this often.
    pub ping_interval_ns: u64,
    /// A peer that sends no pong for this long while pings are sent is suspected.
    pub pull_after_ns: u64,
    /// The phi at which a peer is suspected: one healthy gap in 10^phi counts as a failure.
    pub phi_threshold: f64,
    /// Heartbeats never count as more regular than this.
    pub phi_deviation_min_ns: u64,
    /// In a channel that leans on the detectors of its group: those suspect a silent process after so long.
    pub group_after_ns: Option<u64>,
}

impl Default for DetectorTiming {
    /// Few false evictions on a loaded host: eight heartbeats or four pings must be missed.
    fn default() -> Self {
        Self {
            push: true,
            pull: true,
            phi: true,
            evidence: true,
            heartbeat_ns: 10_000_000,
            suspect_after_ns: 80_000_000,
            ping_interval_ns: 10_000_000,
            pull_after_ns: 70_000_000,
            phi_threshold: 8.0,
            phi_deviation_min_ns: 8_000_000,
            group_after_ns: None,
        }
    }
}

impl DetectorTiming {
    /// For hosts with cores to spare: a crash is detected within about 10 ms, and so is any stall of that length.
    pub fn fast() -> Self {
        Self {
            heartbeat_ns: 2_000_000,
            suspect_after_ns: 10_000_000,
            ping_interval_ns: 3_000_000,
            pull_after_ns: 10_000_000,
            phi_deviation_min_ns: 1_000_000,
            ..Self::default()
        }
    }

    /// For connections over networks that lose packets: a connection stalls for the kernel's retransmission timeout,
    /// 200 ms and more, then for twice that if the retransmission is lost as well, then for four times that: at 10 %
    /// loss, a group of three sees the second of these every few seconds and the third about twice a minute. A peer is
    /// suspected when all three have passed (1.4 s), and phi expects gaps of that size from the start.
    pub fn patient() -> Self {
        Self {
            heartbeat_ns: 20_000_000,
            suspect_after_ns: 1_500_000_000,
            ping_interval_ns: 20_000_000,
            pull_after_ns: 1_500_000_000,
            phi_deviation_min_ns: 260_000_000,
            ..Self::default()
        }
    }

    /// For a channel that leans on its group's detectors, which have these times. Its own are the backstop: they
    /// suspect a peer after ten heartbeats or four pings at the earliest.
    pub fn leaning(self) -> Self {
        Self {
            heartbeat_ns: self.heartbeat_ns.max(100_000_000),
            suspect_after_ns: self.suspect_after_ns.max(1_000_000_000),
            ping_interval_ns: self.ping_interval_ns.max(250_000_000),
            pull_after_ns: self.pull_after_ns.max(1_000_000_000),
            phi_deviation_min_ns: self.phi_deviation_min_ns.max(100_000_000),
            group_after_ns: Some(self.suspect_after_ns),
            ..Self::default()
        }
    }

    fn enables(&self, why: Why) -> bool {
        match why {
            Why::Evidence => self.evidence,
            Why::Group => self.group_after_ns.is_some(),
            Why::Push => self.push,
            Why::Pull => self.pull,
            Why::Phi => self.phi,
        }
    }
}

/// The path by which a packet came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Path {
    /// By the group's address: the data path.
    Multicast,
    /// By this process's own address.
    Unicast,
}

/// Which detector suspects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Why {
    /// Its process is known to be gone.
    Evidence,
    /// The detectors of the group that this is a channel of suspect its process.
    Group,
    /// Nothing came by multicast.
    Push,
    /// Pings went unanswered.
    Pull,
    /// Its heartbeats are overdue.
    Phi,
}

impl Why {
    /// All of them, the strongest first.
    pub const ALL: [Self; 5] = [Self::Evidence, Self::Group, Self::Push, Self::Pull, Self::Phi];

    const fn bit(self) -> u8 {
        1 << self as u8
    }
}

/// What other detectors of the same processes report: those of the group that this is a channel of. Bit r: rank r.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Judgement {
    /// The peers that they watch, or watched until their failure.
    pub watched: u64,
    /// Those of them that they suspect, or that failed.
    pub suspects: u64,
}

/// The result of a look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It is suspected from now on; reported again when evidence joins another reason.
    Suspected(Why),
    /// It was heard again.
    Trusted,
}

/// How well one detector did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// How often it began to suspect a peer.
    pub suspicions: u64,
    /// How often the peer was heard again.
    pub false_positives: u64,
    /// How often a peer that it did not suspect was found gone, by evidence or by its removal.
    pub false_negatives: u64,
}

/// The phi reached when heartbeats came after all: a healthy gap should reach k once in 10^k.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gaps {
    /// How many gaps ended.
    pub count: u64,
    /// In how many of them phi had reached 1, 2 and 3.
    pub reached: [u64; 3],
    /// The same without the floor on the deviation, which makes phi smaller where heartbeats are regular.
    pub reached_unfloored: [u64; 3],
}

impl Gaps {
    fn note(&mut self, phi: &Phi, gap_ns: u64, timing: &DetectorTiming) {
        let unfloored = DetectorTiming { phi_deviation_min_ns: 0, ..*timing };
        let (floored, unfloored) = (phi.phi(gap_ns, timing), phi.phi(gap_ns, &unfloored));
        self.count += 1;
        for k in 0..self.reached.len() {
            self.reached[k] += u64::from(floored >= (k + 1) as f64);
            self.reached_unfloored[k] += u64::from(unfloored >= (k + 1) as f64);
        }
    }
}

/// How long a peer has been silent, without this process's own stalls.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Silence {
    since: Instant,
    /// This process stalled since the peer was heard.
    forgiven: bool,
}

impl Silence {
    pub(crate) fn new(now: Instant) -> Self {
        Self { since: now, forgiven: false }
    }

    pub(crate) fn ns(&self, now: Instant) -> u64 {
        now.since(self.since)
    }

    pub(crate) fn forgive(&mut self, stall_ns: u64, grace_ns: u64) {
        let grace_ns = if self.forgiven { 0 } else { grace_ns };
        (self.since, self.forgiven) = (self.since + stall_ns + grace_ns, true);
    }
}

#[derive(Debug)]
struct Peer {
    push: Push,
    pull: Pull,
    phi: Phi,
    unicast_at: Instant,
    evidence_at: Option<Instant>,
    /// It was heard long after its evidence, and this has been counted.
    refuted: bool,
    /// The group's detectors suspect it.
    judged: bool,
    /// Bit by [`Why`]: the detectors that suspect it, as of the last look.
    raised: u8,
}

impl Peer {
    fn new(now: Instant, timing: &DetectorTiming) -> Self {
        Self {
            push: Push::new(now),
            pull: Pull::new(now),
            phi: Phi::new(now, timing.heartbeat_ns),
            unicast_at: now,
            evidence_at: None,
            refuted: false,
            judged: false,
            raised: 0,
        }
    }

    fn level(&self, why: Why, now: Instant, timing: &DetectorTiming) -> f64 {
        match why {
            _ if !timing.enables(why) => 0.0,
            Why::Evidence => self.evidence_at.map_or(0.0, |_| f64::INFINITY),
            Why::Group => f64::from(u8::from(self.judged)),
            Why::Push => self.push.level(now, timing),
            Why::Pull => self.pull.level(now, timing),
            Why::Phi => self.phi.level(now, timing),
        }
    }

    /// The detectors that suspect it now. Once there is evidence, the other detectors' opinions are frozen: the peer's
    /// last packets may still come.
    fn suspecting(&self, now: Instant, timing: &DetectorTiming) -> u8 {
        if self.evidence_at.is_some() {
            return self.raised | Why::Evidence.bit();
        }
        Why::ALL.iter().filter(|why| self.level(**why, now, timing) >= 1.0).fold(0, |bits, why| bits | why.bit())
    }

    /// When the first detector that does not suspect it yet will suspect it, if nothing is heard.
    fn deadline(&self, timing: &DetectorTiming) -> Instant {
        let deadline = |why: &Why| match why {
            _ if self.evidence_at.is_some() || !timing.enables(*why) || self.raised & why.bit() != 0 => Instant::NEVER,
            Why::Evidence | Why::Group => Instant::NEVER,
            Why::Push => self.push.deadline(timing),
            Why::Pull => self.pull.deadline(timing),
            Why::Phi => self.phi.deadline(timing),
        };
        Why::ALL.iter().map(deadline).min().unwrap_or(Instant::NEVER)
    }
}

/// All detectors, over all peers.
#[derive(Debug)]
pub struct Detector {
    timing: DetectorTiming,
    own: Option<Rank>,
    peers: Vec<Option<Peer>>,
    suspects: u64,
    /// Bit r: rank r was removed because it failed, and has not been watched since.
    removed: u64,
    /// The last judgement passed in.
    judgement: Judgement,
    look_due: Instant,
    ping_due: Instant,
    /// Packets that arrive before this may have waited for us: their spacing shows nothing about the peer.
    backlog_until: Instant,
    figures: [Figures; Why::ALL.len()],
    gaps: Gaps,
}

impl Detector {
    /// Watches the ranks below `peers`, except this process's own.
    pub fn new(now: Instant, own: Option<Rank>, peers: usize, timing: &DetectorTiming) -> Self {
        let look_due = now + timing.heartbeat_ns.max(1);
        let mut detector = Self {
            timing: *timing,
            own,
            peers: (0..PEERS_MAX).map(|_| None).collect(),
            suspects: 0,
            removed: 0,
            judgement: Judgement::default(),
            look_due,
            ping_due: Instant::NEVER,
            backlog_until: Instant(0),
            figures: [Figures::default(); Why::ALL.len()],
            gaps: Gaps::default(),
        };
        (0..peers.min(PEERS_MAX)).for_each(|rank| detector.watch(Rank(rank as u16), now));
        detector
    }

    /// Watches a peer from now on, as if it had just been heard; what was known of it is forgotten, including evidence
    /// and judgements.
    pub fn watch(&mut self, rank: Rank, now: Instant) {
        if Some(rank) != self.own && rank <= Rank::MAX {
            self.left(rank);
            self.peers[rank.index()] = Some(Peer::new(now, &self.timing));
            self.ping_due = self.ping_due.min(now);
        }
    }

    /// A peer was removed because it failed. Detectors that did not suspect it missed the failure.
    pub fn forget(&mut self, rank: Rank) {
        let Some(peer) = self.drop_peer(rank) else { return };
        self.removed |= 1 << rank.index();
        if peer.evidence_at.is_none() {
            self.missed(peer.raised);
        }
    }

    /// A peer left voluntarily: no detector should have suspected it.
    pub fn left(&mut self, rank: Rank) {
        self.drop_peer(rank);
        self.removed &= !(1 << rank.index());
    }

    fn drop_peer(&mut self, rank: Rank) -> Option<Peer> {
        let peer = self.peers.get_mut(rank.index())?.take()?;
        self.suspects &= !(1 << rank.index());
        Some(peer)
    }

    /// Counts a false negative for all detectors that are not in `raised`.
    fn missed(&mut self, raised: u8) {
        let silent = |why: &&Why| self.timing.enables(**why) && raised & why.bit() == 0;
        for why in Why::ALL.iter().filter(silent) {
            self.figures[*why as usize].false_negatives += 1;
        }
    }

    /// A packet arrived that the peer itself sent.
    #[inline]
    pub fn heard(&mut self, rank: Rank, now: Instant, path: Path) {
        self.notice_stall(now);
        let Some(Some(peer)) = self.peers.get_mut(rank.index()) else { return };
        match path {
            Path::Multicast => peer.push.heard(now),
            Path::Unicast => peer.unicast_at = now,
        }
        if peer.raised != 0 {
            self.heard_suspect(rank, now, if path == Path::Multicast { Why::Push } else { Why::Pull });
        }
    }

    /// One of its regular heartbeats came. The caller must pass its packet to [`Self::heard`] as well.
    pub fn heartbeat(&mut self, rank: Rank, now: Instant) {
        self.notice_stall(now);
        let backlog = now < self.backlog_until;
        let Some(Some(peer)) = self.peers.get_mut(rank.index()) else { return };
        if let Some(gap_ns) = peer.phi.gap_ns(now).filter(|_| !backlog) {
            self.gaps.note(&peer.phi, gap_ns, &self.timing);
        }
        peer.phi.heartbeat(now, !backlog);
        self.heard_suspect(rank, now, Why::Phi);
    }

    /// It answered a ping; the answer is void unless the nonce is that of a ping not answered yet.
    pub fn pong(&mut self, rank: Rank, now: Instant, nonce: u64) {
        self.notice_stall(now);
        let Some(Some(peer)) = self.peers.get_mut(rank.index()) else { return };
        if peer.pull.pong(now, nonce) {
            peer.unicast_at = now;
            self.heard_suspect(rank, now, Why::Pull);
        }
    }

    /// A suspected peer was heard: looks soon if that may clear it, and counts it if there was evidence against it.
    fn heard_suspect(&mut self, rank: Rank, now: Instant, clears: Why) {
        let Some(Some(peer)) = self.peers.get_mut(rank.index()) else { return };
        match peer.evidence_at {
            None if peer.raised & clears.bit() != 0 => self.look_due = self.look_due.min(now),
            // Packets that were in flight when it went do not contradict the evidence.
            Some(at) if !peer.refuted && now.since(at) >= self.timing.suspect_after_ns => {
                peer.refuted = true;
                self.figures[Why::Evidence as usize].false_positives += 1;
            }
            _ => {}
        }
    }

    /// Its process is known to be gone: it exited, or its connection was reset.
    pub fn evidence(&mut self, rank: Rank, now: Instant) {
        let Some(Some(peer)) = self.peers.get_mut(rank.index()) else { return };
        if !self.timing.evidence || peer.evidence_at.is_some() {
            return;
        }
        peer.evidence_at = Some(now);
        let raised = peer.raised;
        assert!(raised & Why::Evidence.bit() == 0, "only evidence makes its detector suspect a peer");
        self.missed(raised | Why::Evidence.bit());
        self.look_due = self.look_due.min(now);
    }

    /// Takes a judgement of the group's detectors. What has changed in it counts for the peers watched here, and stands
    /// until they report otherwise, even if they watch the peer no longer. It does not count for an incarnation that is
    /// watched here only afterwards.
    pub fn judge(&mut self, now: Instant, judgement: Judgement) {
        debug_assert!(judgement.suspects & !judgement.watched == 0, "a suspect is watched: {judgement:?}");
        let before = core::mem::replace(&mut self.judgement, judgement);
        let changed = judgement.watched & (!before.watched | before.suspects ^ judgement.suspects);
        for (rank, peer) in self.peers.iter_mut().enumerate().filter(|(rank, _)| changed & 1 << rank != 0) {
            let Some(peer) = peer else { continue };
            let judged = judgement.suspects & 1 << rank != 0;
            if core::mem::replace(&mut peer.judged, judged) != judged {
                self.look_due = self.look_due.min(now);
            }
        }
    }

    /// When the next ping or look is due.
    #[inline]
    pub fn due(&self) -> Instant {
        self.look_due.min(self.ping_due)
    }

    /// The first input after a stall, whichever it is, subtracts the stall from every peer's silence.
    #[inline]
    fn notice_stall(&mut self, now: Instant) {
        let late_ns = now.since(self.look_due);
        if late_ns > self.timing.heartbeat_ns / 2 {
            self.forgive(now, late_ns);
        }
    }

    #[cold]
    fn forgive(&mut self, now: Instant, stall_ns: u64) {
        let grace_ns = self.timing.heartbeat_ns;
        for peer in self.peers.iter_mut().flatten() {
            peer.push.forgive(stall_ns, grace_ns);
            peer.pull.forgive(stall_ns, grace_ns);
            peer.phi.forgive(stall_ns, grace_ns);
        }
        (self.backlog_until, self.look_due) = (now + grace_ns, now);
    }

    /// Finds the peers that have become suspected, or no longer are.
    pub fn look(&mut self, now: Instant, mut changed: impl FnMut(Rank, Change)) {
        self.notice_stall(now);
        self.look_due = now + self.timing.heartbeat_ns.max(1);
        for (index, peer) in self.peers.iter_mut().enumerate() {
            let Some(peer) = peer else { continue };
            let (before, after) = (peer.raised, peer.suspecting(now, &self.timing));
            debug_assert!(after & Why::Evidence.bit() >= before & Why::Evidence.bit(), "evidence is final");
            debug_assert!(self.own != Some(Rank(index as u16)), "no process watches itself");
            peer.raised = after;
            for why in Why::ALL {
                let figures = &mut self.figures[why as usize];
                figures.suspicions += u64::from(after & !before & why.bit() != 0);
                figures.false_positives += u64::from(before & !after & why.bit() != 0);
            }
            let newly = Why::ALL.into_iter().find(|why| after & !before & why.bit() != 0);
            match newly {
                Some(why) if before == 0 || why == Why::Evidence => changed(Rank(index as u16), Change::Suspected(why)),
                None if before != 0 && after == 0 => changed(Rank(index as u16), Change::Trusted),
                _ => {}
            }
            self.suspects = self.suspects & !(1 << index) | u64::from(after != 0) << index;
            self.look_due = self.look_due.min(peer.deadline(&self.timing).max(now + 1));
        }
        debug_assert!(self.look_due > now, "one look at a time");
        let watched = |rank: usize| self.peers[rank].is_some();
        debug_assert!(
            (0..PEERS_MAX).all(|rank| self.suspects & 1 << rank == 0 || watched(rank)),
            "a suspect is watched"
        );
    }

    /// Passes to `send` the pings due now: the peer and the nonce. Pull must not watch a peer that can't be reached
    /// yet: a ping passed here counts as sent.
    pub fn pings(&mut self, now: Instant, rng: &mut fastrand::Rng, mut send: impl FnMut(Rank, u64)) {
        self.notice_stall(now);
        if now < self.ping_due {
            return;
        }
        self.ping_due = Instant::NEVER;
        if !self.timing.pull {
            return;
        }
        for (index, peer) in self.peers.iter_mut().enumerate() {
            let Some(peer) = peer else { continue };
            if peer.evidence_at.is_some() {
                continue;
            }
            if let Some(nonce) = peer.pull.ping(now, rng, &self.timing) {
                send(Rank(index as u16), nonce);
            }
            self.ping_due = self.ping_due.min(peer.pull.due());
        }
        // A first ping may be overdue before the next look.
        let deadlines = self.peers.iter().flatten().map(|peer| peer.deadline(&self.timing).max(now + 1));
        self.look_due = deadlines.fold(self.look_due, Instant::min);
    }

    /// The suspicion level of a peer: from 0, suspected from 1 on, infinite with evidence.
    pub fn level(&self, rank: Rank, now: Instant) -> f64 {
        let Some(Some(peer)) = self.peers.get(rank.index()) else { return 0.0 };
        Why::ALL.iter().map(|why| peer.level(*why, now, &self.timing)).fold(0.0, f64::max)
    }

    /// The suspicion level of a peer by one detector.
    pub fn level_by(&self, why: Why, rank: Rank, now: Instant) -> f64 {
        let Some(Some(peer)) = self.peers.get(rank.index()) else { return 0.0 };
        peer.level(why, now, &self.timing)
    }

    /// How long nothing came from a peer by one path; for unicast, own stalls are not subtracted.
    pub fn silence_ns(&self, rank: Rank, now: Instant, path: Path) -> u64 {
        let Some(Some(peer)) = self.peers.get(rank.index()) else { return 0 };
        match path {
            Path::Multicast => peer.push.silence_ns(now),
            Path::Unicast => now.since(peer.unicast_at),
        }
    }

    /// The round trip to a peer, as its answers to pings show.
    pub fn rtt_ns(&self, rank: Rank) -> Option<u64> {
        self.peers.get(rank.index())?.as_ref()?.pull.rtt_ns()
    }

    /// Whether a peer is watched.
    pub fn is_watching(&self, rank: Rank) -> bool {
        matches!(self.peers.get(rank.index()), Some(Some(_)))
    }

    /// Whether the last look found a peer suspect.
    pub fn is_suspected(&self, rank: Rank) -> bool {
        rank <= Rank::MAX && self.suspects & 1 << rank.index() != 0
    }

    /// Bit r: rank r is suspected.
    #[inline]
    pub fn suspects(&self) -> u64 {
        self.suspects
    }

    /// What is reported to a channel that leans on these detectors. A peer that was removed because it failed counts as
    /// suspected: another member may have noticed it first.
    pub fn judgement(&self) -> Judgement {
        let watched =
            (0..).zip(&self.peers).filter(|(_, peer)| peer.is_some()).fold(0, |all, (rank, _)| all | 1 << rank);
        Judgement { watched: watched | self.removed, suspects: self.suspects | self.removed }
    }

    /// Whether a peer is known to be gone.
    pub fn has_evidence(&self, rank: Rank) -> bool {
        matches!(self.peers.get(rank.index()), Some(Some(peer)) if peer.evidence_at.is_some())
    }

    /// The figures of one detector so far.
    pub fn figures(&self, why: Why) -> Figures {
        self.figures[why as usize]
    }

    /// The phi reached when heartbeats came, of all peers.
    pub fn gaps(&self) -> Gaps {
        self.gaps
    }
}
