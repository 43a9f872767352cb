//! Which members the next view should have, case by case.

use bourdon_protocol::control::membership::{Membership, MembershipTiming, RejoinDelay, Situation, Verdict};
use bourdon_wire::{Instant, Rank};

const MS: u64 = 1_000_000;
const ALL: [u16; 5] = [0, 1, 2, 3, 4];

/// All members of a view and what they report; links are cut and members fail.
struct World {
    view: Vec<Rank>,
    /// Which member hears which.
    heard: [u64; 64],
    dead: u64,
    evidence: u64,
    members: Vec<Membership>,
    timing: MembershipTiming,
    now: Instant,
}

impl World {
    fn new(ranks: &[u16]) -> Self {
        Self {
            view: ranks.iter().map(|rank| Rank(*rank)).collect(),
            heard: [u64::MAX; 64],
            dead: 0,
            evidence: 0,
            members: vec![Membership::new(); 64],
            timing: MembershipTiming { confirm_after_ns: 20 * MS, ..MembershipTiming::default() },
            now: Instant(0),
        }
    }

    fn set(&mut self, from: u16, to: u16, hears: bool) {
        let row = &mut self.heard[to as usize];
        *row = if hears { *row | 1 << from } else { *row & !(1 << from) };
    }

    /// `to` does not hear `from` any more.
    fn cut(&mut self, from: u16, to: u16) {
        self.set(from, to, false);
    }

    fn cut_both(&mut self, side: &[u16], other: &[u16]) {
        for (a, b) in side.iter().flat_map(|a| other.iter().map(move |b| (*a, *b))) {
            self.cut(a, b);
            self.cut(b, a);
        }
    }

    fn crash(&mut self, rank: u16) {
        self.dead |= 1 << rank;
        (0..64).for_each(|to| self.cut(rank, to));
    }

    /// What a member decides, by the reports that reach it.
    fn ask(&mut self, rank: u16) -> Verdict {
        let mut known = [0; 64];
        let mut fresh = 0;
        for member in &self.view {
            let reaches = self.heard[rank as usize] & 1 << member.index() != 0;
            if member.0 == rank || reaches && self.dead & 1 << member.index() == 0 {
                fresh |= 1 << member.index();
                known[member.index()] = self.heard[member.index()];
            } else {
                known[member.index()] = 0xDEAD; // stale: does not count
            }
        }
        let situation = Situation {
            view: &self.view,
            own: Rank(rank),
            heard: &known,
            fresh,
            evidence: self.evidence & !(1 << rank),
            joiners: 0,
            members_min: 0,
            timing: &self.timing,
        };
        self.members[rank as usize].update(self.now, &situation)
    }

    /// Evaluates all living members every millisecond for that long: each verdict once, when it is new.
    fn run(&mut self, ms: u64) -> Vec<(u64, u16, Verdict)> {
        let mut last = [None; 64];
        let mut verdicts = Vec::new();
        for _ in 0..ms {
            for rank in self.view.clone() {
                if self.dead & 1 << rank.index() != 0 {
                    continue;
                }
                let verdict = self.ask(rank.0);
                let is_news = !matches!(verdict, Verdict::Wait { .. }) && last[rank.index()] != Some(verdict);
                last[rank.index()] = Some(verdict);
                if is_news {
                    verdicts.push((self.now.0 / MS, rank.0, verdict));
                }
                if let Verdict::Wait { until } = verdict {
                    assert!(until > self.now, "waits for what is past");
                }
            }
            self.now = self.now + MS;
        }
        verdicts
    }
}

fn propose(members: &[u16]) -> Verdict {
    Verdict::Propose { members: members.iter().fold(0, |set, rank| set | 1 << rank) }
}

#[test]
fn nothing_is_wrong() {
    let mut world = World::new(&[3, 1, 2]);
    assert_eq!(world.run(5), [(0, 3, Verdict::Content), (0, 1, Verdict::Content), (0, 2, Verdict::Content)]);
}

#[test]
fn an_old_report_counts_against_no_member() {
    let mut world = World::new(&ALL);
    world.heard = [0; 64];
    world.heard[2] = u64::MAX;
    let (view, timing) = (&world.view, &world.timing);
    let heard = &world.heard;
    let situation = Situation { view, own: Rank(2), heard, fresh: 0, evidence: 0, joiners: 0, members_min: 0, timing };
    assert_eq!(Membership::new().update(Instant(0), &situation), Verdict::Content);
}

/// The members that are gone were older and, by their last reports, agreed; they are not what the others choose. 3 and
/// 6 are not enough by themselves, so 4 is the first to propose.
#[test]
fn the_dead_are_not_waited_for() {
    let mut world = World::new(&[0, 1, 2, 3, 4, 5, 6]);
    world.cut(3, 6);
    (0..3).for_each(|rank| world.crash(rank));
    assert_eq!(world.run(100), [(70, 4, propose(&[3, 4, 5, 6]))]);
}

#[test]
fn one_of_three_crashes() {
    let mut world = World::new(&[0, 1, 2]);
    world.crash(2);
    assert_eq!(world.ask(0), Verdict::Wait { until: Instant(20 * MS) });
    assert_eq!(world.run(200), [(20, 0, propose(&[0, 1])), (70, 1, propose(&[0, 1]))]);
}

#[test]
fn one_of_five_crashes() {
    let mut world = World::new(&ALL);
    world.crash(3);
    let rest = propose(&[0, 1, 2, 4]);
    assert_eq!(world.run(200), [(20, 0, rest), (70, 1, rest), (120, 2, rest), (170, 4, rest)]);
}

#[test]
fn two_of_five_crash_and_go_together() {
    let mut world = World::new(&ALL);
    world.crash(4);
    assert_eq!(world.run(15), []);
    world.crash(2);
    assert_eq!(world.run(50), [(35, 0, propose(&[0, 1, 3]))]);
}

#[test]
fn the_leader_is_dead_and_the_next_proposes() {
    let mut world = World::new(&[4, 0, 1, 2, 3]);
    world.crash(4);
    assert_eq!(world.run(60), [(20, 0, propose(&[0, 1, 2, 3]))]);
}

#[test]
fn evidence_needs_no_confirmation() {
    let mut world = World::new(&ALL);
    world.evidence = 1 << 1;
    assert_eq!(world.ask(0), propose(&[0, 2, 3, 4]));
    assert_eq!(world.ask(2), Verdict::Wait { until: Instant(50 * MS) });
}

/// 0 does not hear 2: {0, 1} and {1, 2} are as large, and the older stay. The youngest comes after both.
#[test]
fn one_link_of_three_fails_in_one_direction() {
    let mut world = World::new(&[0, 1, 2]);
    world.cut(2, 0);
    assert_eq!(world.ask(1), Verdict::Wait { until: Instant(1000 * MS) });
    let verdicts = world.run(1200);
    let expected = [(1000, 0, propose(&[0, 1])), (1050, 1, propose(&[0, 1])), (1150, 2, propose(&[1, 2]))];
    assert_eq!(verdicts, expected);
}

#[test]
fn a_link_that_comes_back_in_time_costs_no_member_the_view() {
    let mut world = World::new(&[0, 1, 2]);
    world.cut(2, 0);
    assert_eq!(world.run(990), []);
    world.set(2, 0, true);
    assert!(world.run(20).iter().all(|(_, _, verdict)| *verdict == Verdict::Content));
    world.cut(2, 0);
    assert_eq!(world.run(990), []);
}

#[test]
fn a_bad_observer_is_left_out_and_no_other() {
    for bad in ALL {
        let mut world = World::new(&ALL);
        ALL.into_iter().filter(|from| *from != bad).for_each(|from| world.cut(from, bad));
        let others: Vec<_> = ALL.into_iter().filter(|rank| *rank != bad).collect();
        let verdicts = world.run(1030);
        assert_eq!(verdicts, [(20, bad, Verdict::NoMajority), (1000, others[0], propose(&others))]);
    }
}

#[test]
fn no_member_hears_one_that_hears_all() {
    let mut world = World::new(&ALL);
    ALL.into_iter().filter(|to| *to != 0).for_each(|to| world.cut(0, to));
    let verdicts = world.run(60);
    assert_eq!(verdicts, [(20, 0, Verdict::NoMajority), (20, 1, propose(&[1, 2, 3, 4]))]);
}

#[test]
fn of_an_even_split_the_side_with_the_first_member_goes_on() {
    let mut world = World::new(&[2, 0, 1, 3]);
    world.cut_both(&[2, 3], &[0, 1]);
    let verdicts = world.run(60);
    assert_eq!(verdicts, [(20, 2, propose(&[2, 3])), (20, 0, Verdict::NoMajority), (20, 1, Verdict::NoMajority)]);
}

/// In a ring of five where each hears its neighbours only, all have a quorum, and yet no three hear each other.
#[test]
fn a_member_left_without_a_quorum_stops_when_all_doubt_is_over() {
    let mut world = World::new(&ALL);
    ALL.into_iter().for_each(|rank| world.cut_both(&[rank], &[(rank + 2) % 5]));
    let verdicts = world.run(1100);
    assert_eq!(verdicts.len(), 5);
    assert!(verdicts.iter().all(|(at, _, verdict)| (*at, *verdict) == (1000, Verdict::NoMajority)), "{verdicts:?}");
}

#[test]
fn of_two_the_first_survives() {
    let mut world = World::new(&[1, 0]);
    world.crash(0);
    assert_eq!(world.run(60), [(20, 1, propose(&[1]))]);
    let mut world = World::new(&[1, 0]);
    world.crash(1);
    assert_eq!(world.run(60), [(20, 0, Verdict::NoMajority)]);
    let mut world = World::new(&[1, 0]);
    world.cut(0, 1);
    assert_eq!(world.run(60), [(20, 1, propose(&[1])), (20, 0, Verdict::NoMajority)]);
}

#[test]
fn three_of_five_crash_and_the_others_stop() {
    let mut world = World::new(&ALL);
    [0, 3, 4].into_iter().for_each(|rank| world.crash(rank));
    assert_eq!(world.run(60), [(20, 1, Verdict::NoMajority), (20, 2, Verdict::NoMajority)]);
    let mut world = World::new(&[0, 1]);
    world.evidence = 1 << 0;
    world.dead = 1 << 0;
    assert_eq!(world.run(60), [(20, 1, Verdict::NoMajority)]);
}

/// 3 is dead, and some members hear 4: the dead member is evicted, the doubtful member stays until its time is up.
#[test]
fn doubt_about_one_does_not_hold_up_the_eviction_of_another() {
    let mut world = World::new(&ALL);
    world.crash(3);
    world.cut(4, 0);
    assert_eq!(world.run(60), [(20, 0, propose(&[0, 1, 2, 4]))]);
    assert_eq!(world.run(1000)[..2], [(60, 0, propose(&[0, 1, 2, 4])), (70, 1, propose(&[0, 1, 2, 4]))]);
    assert_eq!(world.ask(0), propose(&[0, 1, 2]));
}

/// 4 comes and goes faster than anything can be confirmed; 3 is dead.
#[test]
fn flapping_evicts_no_member_and_blocks_nothing() {
    let mut world = World::new(&ALL);
    world.crash(3);
    let mut verdicts = Vec::new();
    for flap in 0..100 {
        ALL.into_iter().filter(|to| *to != 4).for_each(|to| world.set(4, to, flap % 2 == 0));
        verdicts.extend(world.run(15).into_iter().filter(|(_, rank, _)| *rank != 4));
    }
    assert!(verdicts.iter().all(|(_, _, verdict)| *verdict == propose(&[0, 1, 2, 4])), "{verdicts:?}");
    assert_eq!(verdicts[0], (30, 0, propose(&[0, 1, 2, 4])));
}

#[test]
fn flapping_of_a_healthy_group_is_no_reason() {
    let mut world = World::new(&[0, 1, 2]);
    for flap in 0..200 {
        world.set(2, 0, flap % 2 == 0);
        world.set(0, 2, flap % 3 == 0);
        world.set(1, 2, flap % 5 != 0);
        let verdicts = world.run(19);
        assert!(verdicts.iter().all(|(_, _, verdict)| *verdict == Verdict::Content), "{verdicts:?}");
    }
}

/// Whatever is reported: a proposal is a quorum that includes its proposer and no member with evidence against it;
/// opinions that other members did not share, or that did not last, evict no member.
#[test]
fn any_reports_lead_to_proposals_that_may_be_made() {
    let mut rng = fastrand::Rng::with_seed(3);
    let mut proposals = 0;
    for _ in 0..3000 {
        let count = rng.u16(1..=9);
        let mut ranks: Vec<_> = (0..count).collect();
        rng.shuffle(&mut ranks);
        let mut world = World::new(&ranks);
        world.evidence = rng.u64(..) & rng.u64(..) & rng.u64(..);
        let share = rng.f64() * 0.6;
        for _ in 0..6 {
            for (from, to) in ranks.iter().flat_map(|a| ranks.iter().map(move |b| (*a, *b))) {
                world.set(from, to, rng.f64() >= share);
            }
            for (_, rank, verdict) in world.run(rng.u64(1..40)) {
                if let Verdict::Propose { members } = verdict {
                    proposals += 1;
                    assert!(members & 1 << rank != 0);
                    assert_eq!(members & world.evidence & !(1 << rank), 0);
                    assert!(bourdon_protocol::control::quorum::is_quorum(&world.view, members));
                }
            }
        }
    }
    assert!(proposals > 1000, "{proposals}");
}

#[test]
fn a_view_of_the_largest_size() {
    let ranks: Vec<_> = (0..64).rev().collect();
    let mut world = World::new(&ranks);
    world.crash(63);
    assert_eq!(world.run(30), [(20, 62, Verdict::Propose { members: u64::MAX >> 1 })]);
}

#[test]
fn a_member_left_out_again_and_again_waits_ever_longer() {
    let timing = MembershipTiming::default();
    let mut delay = RejoinDelay::new();
    assert!(delay.may_rejoin(Instant(0)));
    let mut now = Instant(0);
    let mut waited = Vec::new();
    for _ in 0..9 {
        let until = delay.left_out(now, &timing);
        assert!(!delay.may_rejoin(Instant(until.0 - 1)) && delay.may_rejoin(until));
        waited.push(until.since(now) / timing.rejoin_min_ns);
        delay.joined(until);
        now = until + 1000 * MS;
    }
    assert_eq!(waited, [1, 2, 4, 8, 16, 32, 64, 100, 100]);
    delay.joined(now);
    now = now + timing.rejoin_max_ns;
    assert_eq!(delay.left_out(now, &timing).since(now), timing.rejoin_min_ns);
}
