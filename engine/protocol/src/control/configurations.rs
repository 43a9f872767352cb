//! Configurations: which other configurations processes of this group announce, and whether one of them is the group's.
//!
//! A process that is configured otherwise than the others can't take part, and its user waits for it in vain. So it
//! should end. But which process is wrong? A single heartbeat decides nothing: it may come from a single wrong process,
//! from an earlier run, or be forged. The configuration of a majority is the group's: of the members of a view, or,
//! while no view exists, of the ranks that the configuration has. A process counts for its configuration while its
//! heartbeats are fresh, once they have been heard for [`SETTLED_NS`], and only after it has repeated a nonce from the
//! address that it announces.
//!
//! Invariants: a process that was ever in a view is never outvoted; what one rank announces is one vote; recordings and
//! heartbeats from addresses that do not receive are none.

use crate::view::Member;
use alloc::vec::Vec;
use bourdon_wire::{Address, Incarnation, InstanceId, Instant, Rank};

/// A heartbeat counts for so long.
const FRESH_NS: u64 = 1_000_000_000;
/// How long another configuration must have been heard before it counts: members that start one after the other, and a
/// member that ends, announce what holds no longer.
const SETTLED_NS: u64 = 1_000_000_000;
/// For how long the first view waits once members of a view that runs are heard: until they count, and have answered.
const HOLD_NS: u64 = SETTLED_NS + SETTLED_NS / 2;
/// A process listens for so many of the longest pauses between heartbeats before it forms the first view: a group that
/// runs is heard meanwhile, though some of its heartbeats are lost.
const LISTEN_HEARTBEATS: u64 = 5;
/// But no longer than this: where heartbeats are rare, as in channels, the group has listened before.
const LISTEN_MAX_NS: u64 = 100_000_000;
/// How often one process is asked, and how often any is.
const ASK_NS: u64 = 50_000_000;
const ASK_ANY_NS: u64 = 3_000_000;

/// What a process of another configuration announces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Announced {
    /// See [`Agreed`](crate::Agreed).
    pub(crate) configuration: u64,
    /// Its instance, if it is in a view.
    pub(crate) instance: InstanceId,
    /// The ranks of which a majority decides, as bits: the members of its view, or all that its configuration has.
    pub(crate) electorate: u64,
    /// Where it is reached.
    pub(crate) address: Address,
}

#[derive(Debug)]
struct Heard {
    from: Member,
    announced: Announced,
    since: Instant,
    at: Instant,
    nonce: u64,
    asked_at: Instant,
    has_answered: bool,
}

/// What processes of other configurations announce.
#[derive(Debug, Default)]
pub(crate) struct Configurations {
    /// At most one for each rank.
    heard: Vec<Heard>,
    asked_at: Instant,
    /// Before this no first view is formed.
    listens_until: Instant,
    /// Since when members of a view that runs are heard.
    runs_since: Option<Instant>,
    was_in_view: bool,
    is_outvoted: bool,
}

impl Configurations {
    /// Notes a heartbeat; returns whether this is the first of that incarnation.
    pub(crate) fn hear(&mut self, now: Instant, from: Member, announced: Announced) -> bool {
        if announced.instance != InstanceId::NONE {
            self.runs_since.get_or_insert(now);
        }
        let fresh = Heard { from, announced, since: now, at: now, nonce: 0, asked_at: Instant(0), has_answered: false };
        let Some(heard) = self.heard.iter_mut().find(|heard| heard.from.rank == from.rank) else {
            self.heard.push(fresh);
            debug_assert!(self.heard.len() <= Rank::MAX.index() + 1, "at most one for each rank");
            return true;
        };
        let is_first = heard.from != from;
        let known = &heard.announced;
        let is_same = (known.configuration, known.address) == (announced.configuration, announced.address);
        if is_first || !is_same || now.since(heard.at) > FRESH_NS {
            *heard = fresh;
        } else {
            (heard.announced, heard.at) = (announced, now);
        }
        is_first
    }

    /// The process that is to prove that it receives, if one is to be asked now: its rank, its address, and the nonce
    /// that it is to repeat.
    pub(crate) fn ask(&mut self, now: Instant, rank: Rank, rng: &mut fastrand::Rng) -> Option<(Address, u64)> {
        let may = !self.was_in_view && !self.is_outvoted && now.since(self.asked_at) >= ASK_ANY_NS;
        let heard = self.heard.iter_mut().find(|heard| heard.from.rank == rank).filter(|_| may)?;
        let is_due = !heard.has_answered && (heard.nonce == 0 || now.since(heard.asked_at) >= ASK_NS);
        if !is_due || !heard.announced.address.is_reachable() {
            return None;
        }
        if heard.nonce == 0 {
            heard.nonce = rng.u64(1..);
        }
        (heard.asked_at, self.asked_at) = (now, now);
        Some((heard.announced.address, heard.nonce))
    }

    /// A process repeats a word; returns whether it is the nonce that it was asked with.
    pub(crate) fn answer(&mut self, rank: Rank, incarnation: Incarnation, word: u64) -> bool {
        let from = Member { rank, incarnation };
        let heard = self.heard.iter_mut().find(|heard| heard.from == from && heard.nonce != 0 && heard.nonce == word);
        heard.is_some_and(|heard| {
            heard.has_answered = true;
            true
        })
    }

    /// This process prepares for the first view, and listens for a group that runs.
    pub(crate) fn listen(&mut self, now: Instant, heartbeat_max_ns: u64) {
        self.listens_until = now + (LISTEN_HEARTBEATS * heartbeat_max_ns).min(LISTEN_MAX_NS);
    }

    /// This process is in a view, or follows one: it belongs to the group.
    pub(crate) fn enter(&mut self) {
        self.was_in_view = true;
    }

    /// Until when this process forms no view: it still listens, or a view runs with another configuration, and votes of
    /// its members are still to come. It waits for those once: heartbeats that are forged don't keep it from forming.
    pub(crate) fn undecided_until(&self, now: Instant) -> Option<Instant> {
        let until = self.runs_since.map_or(self.listens_until, |since| self.listens_until.max(since + HOLD_NS));
        (now < until).then_some(until)
    }

    /// The configuration of the group, if a majority has another one than this process, and a member that has it; once.
    /// Of a view only more than half as many members as this process has configured count: a process that formed a
    /// group of one by mistake ends no others. Before a view, `own` of `members` ranks are configured as this one is.
    pub(crate) fn outvoted(&mut self, now: Instant, own: u32, members: u16) -> Option<(Rank, u64)> {
        if self.was_in_view || self.is_outvoted {
            return None;
        }
        let counts = |heard: &&Heard| {
            let settled = now.since(heard.since) >= SETTLED_NS && now.since(heard.at) < FRESH_NS;
            settled && heard.has_answered && heard.announced.electorate & crate::view::bit(heard.from.rank) != 0
        };
        let decides = |one: &&Heard| {
            let ours = &one.announced;
            let agrees = |other: &&Heard| {
                let theirs = &other.announced;
                (theirs.configuration, theirs.instance, theirs.electorate)
                    == (ours.configuration, ours.instance, ours.electorate)
            };
            let votes = self.heard.iter().filter(counts).filter(agrees).count();
            let is_right = if ours.instance == InstanceId::NONE {
                2 * own <= u32::from(members)
            } else {
                2 * votes > usize::from(members)
            };
            is_right && 2 * votes > ours.electorate.count_ones() as usize
        };
        let found = self.heard.iter().filter(counts).filter(decides).min_by_key(|heard| heard.from.rank);
        let verdict = found.map(|heard| (heard.from.rank, heard.announced.configuration));
        self.is_outvoted = verdict.is_some();
        verdict
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn announced(configuration: u64, instance: u64, electorate: u64) -> Announced {
        let address = Address::from(core::net::SocketAddr::from(([10, 0, 0, 1], 7)));
        Announced { configuration, instance: InstanceId(instance), electorate, address }
    }

    fn member(rank: u16) -> Member {
        Member { rank: Rank(rank), incarnation: Incarnation(1) }
    }

    /// Heartbeats of these ranks for so long; those of `proven` repeat the nonce.
    fn hear(configurations: &mut Configurations, ranks: &[u16], proven: &[u16], announced: Announced, until_ns: u64) {
        let mut rng = fastrand::Rng::with_seed(7);
        for now in (SECOND..=until_ns).step_by(20_000_000).map(Instant) {
            for rank in ranks {
                configurations.hear(now, member(*rank), announced);
                let asked = configurations.ask(Instant(now.0 + u64::from(*rank) * ASK_ANY_NS), Rank(*rank), &mut rng);
                if let Some((_, nonce)) = asked.filter(|_| proven.contains(rank)) {
                    assert!(!configurations.answer(Rank(*rank), Incarnation(1), nonce + 1));
                    assert!(configurations.answer(Rank(*rank), Incarnation(1), nonce));
                }
            }
        }
    }

    #[test]
    fn a_majority_that_proves_to_receive_decides_and_nothing_less() {
        let now = 5 * SECOND;
        for (ranks, proven, electorate, decides) in [
            (&[0, 1][..], &[0, 1][..], 0b111, true),
            (&[0, 1], &[0], 0b111, false),
            (&[0, 1], &[], 0b111, false),
            (&[0], &[0], 0b111, false),
            (&[0], &[0], 0b1, true),
            (&[0, 1], &[0, 1], 0b1111, false),
            (&[3, 4], &[3, 4], 0b111, false),
        ] {
            for (instance, own) in [(9, 1), (9, 2), (0, 1), (0, 2)] {
                let mut configurations = Configurations::default();
                hear(&mut configurations, ranks, proven, announced(5, instance, electorate), now);
                let expected = decides && if instance == 0 { own == 1 } else { proven.len() > 1 };
                let verdict = configurations.outvoted(Instant(now), own, 3);
                assert_eq!(verdict.is_some(), expected, "{ranks:?} {proven:?} {electorate:b} {instance}");
                assert_eq!(configurations.outvoted(Instant(now), own, 3), None, "once");
            }
        }
    }

    #[test]
    fn what_is_new_or_silent_decides_nothing() {
        let settles = |until_ns, now_ns| {
            let mut configurations = Configurations::default();
            hear(&mut configurations, &[0, 1], &[0, 1], announced(5, 9, 0b111), until_ns);
            configurations.outvoted(Instant(now_ns), 1, 3).is_some()
        };
        assert!(!settles(2 * SECOND - 1, 2 * SECOND - 1), "not for a second yet");
        assert!(settles(2 * SECOND, 2 * SECOND));
        assert!(!settles(2 * SECOND, 3 * SECOND + 1), "silent since");
    }

    #[test]
    fn the_first_view_waits_once_for_the_votes_of_a_view_that_runs() {
        let mut configurations = Configurations::default();
        hear(&mut configurations, &[0, 1], &[], announced(5, 0, 0b111), SECOND);
        assert_eq!(configurations.undecided_until(Instant(SECOND)), None, "no view runs");
        hear(&mut configurations, &[0, 1], &[], announced(5, 9, 0b111), 9 * SECOND);
        let until = Instant(SECOND + HOLD_NS);
        assert_eq!(configurations.undecided_until(Instant(until.0 - 1)), Some(until));
        assert_eq!(configurations.undecided_until(until), None);
    }

    #[test]
    fn a_process_that_was_in_a_view_is_never_outvoted() {
        let mut configurations = Configurations::default();
        configurations.enter();
        hear(&mut configurations, &[0, 1], &[], announced(5, 9, 0b111), 9 * SECOND);
        assert_eq!(configurations.outvoted(Instant(9 * SECOND), 1, 3), None);
    }

    #[test]
    fn two_configurations_share_no_votes() {
        let mut configurations = Configurations::default();
        hear(&mut configurations, &[0], &[0], announced(5, 9, 0b111), 5 * SECOND);
        hear(&mut configurations, &[1], &[1], announced(6, 9, 0b111), 5 * SECOND);
        assert_eq!(configurations.outvoted(Instant(5 * SECOND), 1, 3), None);
    }
}
