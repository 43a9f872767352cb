//! Membership: whom the next view should have, when, and who says so.
//!
//! Suspicion is one process's opinion. If it evicted, a bad observer would evict everybody; if all opinions were added
//! up, one bad observer would still do. If a link fails in one direction only, the two ends blame each other for ever,
//! and whoever tries to please both loops. So everybody reports whom it hears, and everybody draws the same conclusion
//! from the same reports.
//!
//! 1. *Choice.* The largest set in which everyone hears everyone, older members preferred ([`clique`]). Somebody whose
//!    report is not fresh is taken to hear all: whether the others hear it decides. Never in the set: who has evidence,
//!    and whom more than half of the others don't hear.
//! 2. *Eviction.* Who is not in the set goes only for a reason: evidence, at once; not heard by more than half of the
//!    other members (itself and those with evidence not counted), after `confirm_after_ns`; left out for
//!    `asymmetric_after_ns` whatever the reason. Until then it stays in the view. Several who fall within one
//!    `confirm_after_ns` go together.
//! 3. *Proposer.* The most senior of the set proposes at once, the next after `takeover_after_ns`, and so on. Who is not
//!    in the set that the others will choose comes after them all, with the largest set it is in itself.
//! 4. *Majority.* Who can't reach a quorum of the view proposes nothing, and can only stop: after `confirm_after_ns`,
//!    or `asymmetric_after_ns` if those it reaches do reach one. So does who would be left with none.
//!
//! All this is opinion and may differ between members; what becomes the view is decided with ballots.
//!
//! Invariants: a proposal contains the proposer and is a quorum of the view; nobody is left out of it without a reason;
//! each wait is bounded, flapping or not.

pub mod clique;
pub mod rejoin;

pub use rejoin::RejoinDelay;

use super::quorum::{bitmap, is_quorum};
use bourdon_wire::{Instant, Rank};
use clique::bits;

/// As many members as a bitmap of 64 bits can name.
const MEMBERS_MAX: usize = Rank::MAX.index() + 1;

/// How long a choice must stand before it is acted upon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MembershipTiming {
    /// Most others not hearing a member must last longer than a heartbeat: reports of one cause are in then.
    pub confirm_after_ns: u64,
    /// Each member waits this long for the one before it to propose: several ballots' worth.
    pub takeover_after_ns: u64,
    /// A member that some hear and some don't is left out after this: long, because half of them hold it for healthy.
    pub asymmetric_after_ns: u64,
    /// Who was left out may rejoin after this.
    pub rejoin_min_ns: u64,
    /// And at the latest after this, however often it was left out.
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
    /// For hosts with cores to spare; goes with the detectors' fast profile.
    pub fn fast() -> Self {
        Self {
            confirm_after_ns: 4_000_000,
            takeover_after_ns: 10_000_000,
            asymmetric_after_ns: 100_000_000,
            ..Self::default()
        }
    }

    /// For connections that stall; goes with the detectors' patient profile. A step of a ballot may take a stall, so the
    /// next proposer waits for more than one, and a member that only some hear may be in the middle of one.
    pub fn patient() -> Self {
        Self {
            confirm_after_ns: 50_000_000,
            takeover_after_ns: 400_000_000,
            asymmetric_after_ns: 3_000_000_000,
            ..Self::default()
        }
    }
}

/// What a member knows when it is asked.
#[derive(Clone, Copy, Debug)]
pub struct Situation<'a> {
    /// The view's members, the most senior first.
    pub view: &'a [Rank],
    /// This process, one of them.
    pub own: Rank,
    /// Bit r of `heard[m]`: member m says that it hears r. This process's own is what its detectors say.
    pub heard: &'a [u64; MEMBERS_MAX],
    /// Bit m: m's report is fresh. This process's own always is.
    pub fresh: u64,
    /// Bit r: this process has hard evidence that r is gone.
    pub evidence: u64,
    /// How many processes wait to come in.
    pub joiners: usize,
    /// The fewest members a view may have, beyond the rule of quorums.
    pub members_min: usize,
    /// How long things must last.
    pub timing: &'a MembershipTiming,
}

/// What is to be done about the view.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing: everyone hears everyone.
    Content,
    /// Nothing yet; ask again when something changes, at the latest then.
    Wait {
        /// When the situation as it is calls for something else.
        until: Instant,
    },
    /// Propose a view of these members of the old one, as a bitmap of ranks.
    Propose {
        /// Bit r: rank r stays.
        members: u64,
    },
    /// Stop and say so: no quorum of the view can be reached.
    NoMajority,
}

/// Since when things are as they are.
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

impl Situation<'_> {
    /// Whether one member says that it hears another; who has not reported lately is believed to.
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

    /// By place in the view: who hears each other, both ways and as themselves.
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

    /// By place: the set that everybody with these reports would choose, and the largest one with this process. `gone`,
    /// by rank, are in neither.
    fn choose(&self, links: &[u64; MEMBERS_MAX], gone: u64) -> (u64, u64) {
        let candidates = self.places(|rank| gone & 1 << rank.index() == 0);
        let own = 1 << self.own_place();
        let common = clique::largest(links, 0, candidates);
        (common, if common & own != 0 { common } else { clique::largest(links, own, candidates) })
    }

    /// For how long this process may hope for a quorum, if not for ever: not for long when it has none even by way of
    /// others, and for as long as an asymmetry may last when it only has none by itself.
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
    /// For a view just installed: whatever was wrong in the one before has to last anew.
    pub fn new() -> Self {
        let never = [None; MEMBERS_MAX];
        Self { evidence: never, unheard: never, left_out: never, unreachable: None }
    }

    /// Decides what to do. To be asked whenever the situation may have changed, and when a wait is over.
    pub fn update(&mut self, now: Instant, situation: &Situation) -> Verdict {
        let (view, timing) = (bitmap(situation.view), situation.timing);
        let others = || situation.view.iter().filter(|rank| **rank != situation.own);
        let unheard = others().filter(|rank| situation.is_unheard(**rank)).fold(0, |set, rank| set | 1 << rank.index());
        let links = situation.links();
        let (common, chosen) = situation.choose(&links, situation.evidence | unheard);
        let members = situation.ranks(chosen);
        // When each of those not chosen may be evicted.
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
            return if now >= until { Verdict::NoMajority } else { Verdict::Wait { until } };
        }
        if members == view {
            return Verdict::Content;
        }
        // Who is not in the set that the others choose comes after all of that.
        let before = |set: u64| u64::from((set & ((1 << situation.own_place()) - 1)).count_ones());
        let place = before(chosen) + if common == chosen { 0 } else { u64::from(common.count_ones()) };
        decide(now, situation, &ripe_at, place)
    }
}

/// Whether those who are ripe are to be evicted now, by who is at this `place` among the proposers.
fn decide(now: Instant, situation: &Situation, ripe_at: &[Instant; MEMBERS_MAX], place: u64) -> Verdict {
    let (view, timing) = (bitmap(situation.view), situation.timing);
    let evicted = bits(view).filter(|rank| ripe_at[*rank] <= now).fold(0, |set, rank| set | 1 << rank);
    let next = bits(view & !evicted).map(|rank| ripe_at[rank]).min().unwrap_or(Instant::NEVER);
    if evicted == 0 {
        return Verdict::Wait { until: next };
    }
    let members = view & !evicted;
    let remain = members.count_ones() as usize;
    if !is_quorum(situation.view, members) || remain + situation.joiners.min(remain) < situation.members_min {
        return Verdict::NoMajority;
    }
    let ripe = || bits(evicted).map(|rank| ripe_at[rank]);
    let (first, last) = (ripe().min().unwrap_or(now), ripe().max().unwrap_or(now));
    // Whoever is about to follow goes along, but nobody is waited for longer than that.
    let together = first + timing.confirm_after_ns;
    let batched = if now < together && next <= together { next } else { last };
    let until = batched + place * timing.takeover_after_ns;
    if now >= until { Verdict::Propose { members } } else { Verdict::Wait { until: until.min(next) } }
}
