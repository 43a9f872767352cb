//! Membership: which members the next view should have, when, and which member proposes it.
//!
//! Suspicion is one process's opinion. If a suspicion evicted, a member that loses the others' datagrams would evict
//! every other member; if a member were evicted as soon as any member suspects it, that single member would still do
//! so. If a link fails in one direction only, the two ends suspect each other for ever, and a rule that evicts the
//! suspected one and then admits it again never ends. So every member reports which members it hears, and every member
//! draws the same conclusion from the same reports.
//!
//! 1. *Choice.* The largest set in which all members hear each other, older members preferred ([`clique`]). A member
//!    whose report is not fresh is assumed to hear all: whether the others hear it decides. Never in the set: a member
//!    with evidence against it, and a member that more than half of the others don't hear.
//! 2. *Eviction.* A member that is not in the set is evicted only for a reason: evidence, at once; not heard by more
//!    than half of the other members (itself and members with evidence not counted), after `confirm_after_ns`; left out
//!    for `asymmetric_after_ns`, whatever the reason. Until then it stays in the view. Members that fail within one
//!    `confirm_after_ns` are evicted together.
//! 3. *Proposer.* The most senior member of the set proposes at once, the next after `takeover_after_ns`, and so on. A
//!    member that is not in the set that the others will choose proposes after all of them; it proposes the largest set
//!    that contains itself.
//! 4. *Majority.* A member that can't reach a quorum of the view proposes nothing, and can only stop: after
//!    `confirm_after_ns`, or `asymmetric_after_ns` if the members it reaches do reach a quorum. A member that would be
//!    left without a quorum also stops.
//!
//! These conclusions may differ between members for a while; ballots decide which proposal becomes the view.
//!
//! Invariants: a proposal contains the proposer and is a quorum of the view; no member is left out of it without a
//! reason; each wait is bounded, even if links flap.

pub mod clique;
pub mod rejoin;

pub use rejoin::RejoinDelay;

use super::quorum::{bitmap, is_quorum};
use bourdon_wire::{Instant, Rank};
use clique::bits;

/// As many members as a bitmap of 64 bits can name.
pub(crate) const MEMBERS_MAX: usize = Rank::MAX.index() + 1;
const _: () = assert!(MEMBERS_MAX <= u64::BITS as usize);

/// How long a choice must stand before a member acts on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MembershipTiming {
    /// For how long most others must not hear a member. It is longer than a heartbeat: by then all reports of one cause
    /// have arrived.
    pub confirm_after_ns: u64,
    /// Each member waits this long for the member before it to propose: the time of several ballots.
    pub takeover_after_ns: u64,
    /// A member that some hear and some don't is left out after this: long, because half of them consider it healthy.
    pub asymmetric_after_ns: u64,
    /// A member that was left out may rejoin after this.
    pub rejoin_min_ns: u64,
    /// It may rejoin at the latest after this, however often it was left out.
    pub rejoin_max_ns: u64,
}

impl Default for MembershipTiming {
    fn default() -> Self {
        Self {
            confirm_after_ns: 12_000_000,
            takeover_after_ns: 50_000_000,
            asymmetric_after_ns: 1_000_000_000,
            rejoin_min_ns: 100_000_000,
            rejoin_max_ns: 10_000_000_000,
        }
    }
}

impl MembershipTiming {
    /// For hosts with cores to spare; belongs to the detectors' fast profile.
    pub fn fast() -> Self {
        Self {
            confirm_after_ns: 4_000_000,
            takeover_after_ns: 10_000_000,
            asymmetric_after_ns: 100_000_000,
            ..Self::default()
        }
    }

    /// For connections that stall; belongs to the detectors' patient profile. A step of a ballot may take as long as a
    /// stall, so the next proposer waits for more than one stall, and a member that only some hear may be in the middle
    /// of a stall.
    pub fn patient() -> Self {
        Self {
            confirm_after_ns: 50_000_000,
            takeover_after_ns: 400_000_000,
            asymmetric_after_ns: 3_000_000_000,
            ..Self::default()
        }
    }
}

/// What a member knows when it decides.
#[derive(Clone, Copy, Debug)]
pub struct Situation<'a> {
    /// The view's members, the most senior first.
    pub view: &'a [Rank],
    /// This process, one of them.
    pub own: Rank,
    /// Bit r of `heard[m]`: member m reports that it hears r. This process's own entry is what its detectors report.
    pub heard: &'a [u64; MEMBERS_MAX],
    /// Bit m: m's report is fresh. This process's own always is.
    pub fresh: u64,
    /// Bit r: this process has hard evidence that r is gone.
    pub evidence: u64,
    /// How many processes wait to join.
    pub joiners: usize,
    /// The fewest members a view may have, beyond the rule of quorums.
    pub members_min: usize,
    /// How long each condition must last.
    pub timing: &'a MembershipTiming,
}

/// What this member must do about the view.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing: all members hear each other.
    Content,
    /// Nothing yet; update again when something changes, at the latest at this time.
    Wait {
        /// When the unchanged situation requires something else.
        until: Instant,
    },
    /// Propose a view of these members of the old one, as a bitmap of ranks.
    Propose {
        /// Bit r: rank r stays.
        members: u64,
    },
    /// Stop and report it: this member can reach no quorum of the view.
    NoMajority,
}

/// Since when each condition holds.
#[derive(Clone, Debug)]
pub struct Membership {
    evidence: [Option<Instant>; MEMBERS_MAX],
    unheard: [Option<Instant>; MEMBERS_MAX],
    left_out: [Option<Instant>; MEMBERS_MAX],
    unreachable: Option<Instant>,
}

/// Notes since when something holds without a break.
fn note(since: &mut Option<Instant>, holds: bool, now: Instant) -> Option<Instant> {
    *since = holds.then(|| since.unwrap_or(now));
    *since
}

/// Whether members that hear each other, as these are reported to do, are a quorum of the view. A member without a
/// report counts as hearing all.
pub(crate) fn leaves_quorum(view: &[Rank], heard: &[u64; MEMBERS_MAX], known: u64) -> bool {
    let hears = |one: Rank, other: Rank| known & 1 << one.index() == 0 || heard[one.index()] & 1 << other.index() != 0;
    let mut links = [0; MEMBERS_MAX];
    for (i, one) in view.iter().enumerate() {
        let is_mutual = |other: &Rank| one == other || hears(*one, *other) && hears(*other, *one);
        links[i] = (0..).zip(view).filter(|(_, other)| is_mutual(other)).fold(0, |set, (i, _)| set | 1 << i);
    }
    let all = u64::MAX >> (MEMBERS_MAX - view.len().clamp(1, MEMBERS_MAX));
    let largest = bits(clique::largest(&links, 0, all)).fold(0, |set, i| set | 1 << view[i].index());
    is_quorum(view, largest)
}

impl Situation<'_> {
    /// Whether one member reports that it hears another; a member without a recent report is assumed to hear it.
    fn hears(&self, one: Rank, other: Rank) -> bool {
        let reported = one == self.own || self.fresh & 1 << one.index() != 0;
        one == other || !reported || self.heard[one.index()] & 1 << other.index() != 0
    }

    /// Whether more than half of the others don't hear a member.
    fn is_unheard(&self, rank: Rank) -> bool {
        let others = self.view.iter().filter(|r| **r != rank && self.evidence & 1 << r.index() == 0);
        let (deaf, all) = others.fold((0, 0), |(deaf, all), r| (deaf + usize::from(!self.hears(*r, rank)), all + 1));
        2 * deaf > all
    }

    /// By place in the view: which members hear each other, in both directions; each hears itself.
    fn links(&self) -> [u64; MEMBERS_MAX] {
        let mut links = [0; MEMBERS_MAX];
        for (i, one) in self.view.iter().enumerate() {
            let mutual = |other: &Rank| self.hears(*one, *other) && self.hears(*other, *one);
            links[i] = self.places(mutual);
        }
        links
    }

    fn places(&self, holds: impl Fn(&Rank) -> bool) -> u64 {
        (0..).zip(self.view).filter(|(_, rank)| holds(rank)).fold(0, |set, (i, _)| set | 1 << i)
    }

    fn own_place(&self) -> usize {
        self.view.iter().position(|rank| *rank == self.own).expect("own rank is in the view")
    }

    /// By place: the set that every member with these reports would choose, and the largest set with this process.
    /// Members in `gone`, by rank, are in neither.
    fn choose(&self, links: &[u64; MEMBERS_MAX], gone: u64) -> (u64, u64) {
        let candidates = self.places(|rank| gone & 1 << rank.index() == 0);
        let own = 1 << self.own_place();
        let common = clique::largest(links, 0, candidates);
        (common, if common & own != 0 { common } else { clique::largest(links, own, candidates) })
    }

    /// For how long this process may wait for a quorum, if not for ever: briefly if it reaches none even through
    /// others, and for as long as an asymmetry may last if it only reaches none directly.
    fn patience_ns(&self, links: &[u64; MEMBERS_MAX]) -> Option<u64> {
        let alive = self.places(|rank| self.evidence & 1 << rank.index() == 0) | 1 << self.own_place();
        let near = links[self.own_place()] & alive;
        let (mut connected, mut last) = (near, 0);
        while connected != last {
            last = connected;
            connected = bits(last).fold(last, |set, i| set | links[i] & alive);
        }
        match [near, connected].map(|set| is_quorum(self.view, self.ranks(set))) {
            [true, _] => None,
            [false, true] => Some(self.timing.asymmetric_after_ns),
            [false, false] => Some(self.timing.confirm_after_ns),
        }
    }

    fn ranks(&self, places: u64) -> u64 {
        bits(places).fold(0, |set, i| set | 1 << self.view[i].index())
    }
}

impl Default for Membership {
    fn default() -> Self {
        Self::new()
    }
}

impl Membership {
    /// For a view just installed: each condition must last for its whole time again.
    pub fn new() -> Self {
        let never = [None; MEMBERS_MAX];
        Self { evidence: never, unheard: never, left_out: never, unreachable: None }
    }

    /// Decides what to do. Call it whenever the situation may have changed, and when a wait is over.
    pub fn update(&mut self, now: Instant, situation: &Situation) -> Verdict {
        let (view, timing) = (bitmap(situation.view), situation.timing);
        let others = || situation.view.iter().filter(|rank| **rank != situation.own);
        let unheard = others().filter(|rank| situation.is_unheard(**rank)).fold(0, |set, rank| set | 1 << rank.index());
        let links = situation.links();
        let (common, chosen) = situation.choose(&links, situation.evidence | unheard);
        let members = situation.ranks(chosen);
        assert!(members & 1 << situation.own.index() != 0, "every choice of a member contains it");
        assert!(members & !view == 0, "a choice is of the view's members");
        // When each member that is not chosen may be evicted.
        let mut ripe_at = [Instant::NEVER; MEMBERS_MAX];
        for rank in others().map(|rank| rank.index()) {
            let bit = 1 << rank;
            let evidence = note(&mut self.evidence[rank], situation.evidence & bit != 0, now);
            let unheard = note(&mut self.unheard[rank], unheard & bit != 0, now);
            let left_out = note(&mut self.left_out[rank], members & bit == 0, now);
            let unheard = unheard.map(|since| since + timing.confirm_after_ns);
            let left_out = left_out.map(|since| since + timing.asymmetric_after_ns);
            ripe_at[rank] = [evidence, unheard, left_out].into_iter().flatten().min().unwrap_or(Instant::NEVER);
        }
        let patience_ns = situation.patience_ns(&links);
        let unreachable = note(&mut self.unreachable, patience_ns.is_some(), now);
        if let (Some(since), Some(patience_ns)) = (unreachable, patience_ns) {
            let until = since + patience_ns;
            assert!(since <= now, "time does not go back: unreachable since {since:?} at {now:?}");
            return if now >= until { Verdict::NoMajority } else { Verdict::Wait { until } };
        }
        if members == view {
            return Verdict::Content;
        }
        // A member that is not in the set that the others choose comes after all of that set.
        let before = |set: u64| u64::from((set & ((1 << situation.own_place()) - 1)).count_ones());
        let place = before(chosen) + if common == chosen { 0 } else { u64::from(common.count_ones()) };
        decide(now, situation, &ripe_at, place)
    }
}

/// Whether the member at this `place` among the proposers must now evict the members whose time has come.
fn decide(now: Instant, situation: &Situation, ripe_at: &[Instant; MEMBERS_MAX], place: u64) -> Verdict {
    let (view, timing) = (bitmap(situation.view), situation.timing);
    let evicted = bits(view).filter(|rank| ripe_at[*rank] <= now).fold(0, |set, rank| set | 1 << rank);
    let next = bits(view & !evicted).map(|rank| ripe_at[rank]).min().unwrap_or(Instant::NEVER);
    if evicted == 0 {
        assert!(next > now && next < Instant::NEVER, "each wait is bounded: until {next:?} at {now:?}");
        return Verdict::Wait { until: next };
    }
    let members = view & !evicted;
    let remain = members.count_ones() as usize;
    if !is_quorum(situation.view, members) || remain + situation.joiners.min(remain) < situation.members_min {
        return Verdict::NoMajority;
    }
    assert!(members & 1 << situation.own.index() != 0, "a proposal contains the proposer");
    let ripe = || bits(evicted).map(|rank| ripe_at[rank]);
    let (first, last) = (ripe().min().unwrap_or(now), ripe().max().unwrap_or(now));
    // Members that are to be evicted soon are evicted in the same step, but the proposer waits for them no longer than
    // that.
    let together = first + timing.confirm_after_ns;
    let batched = if now < together && next <= together { next } else { last };
    let until = batched + place * timing.takeover_after_ns;
    if now >= until { Verdict::Propose { members } } else { Verdict::Wait { until: until.min(next) } }
}
