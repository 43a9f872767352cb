//! Clique: the largest set in which all members hear each other.
//!
//! It is quick to leave out, one after the other, the member that the most others don't hear. But in a ring of broken
//! links that leaves out more members than necessary. The largest clique is found exactly instead, by branch and bound.
//! A branch is given up when it can't beat the best set so far: the remaining candidates are divided into groups in
//! which no member hears another, and a clique has at most one member of each group.
//!
//! Members are tried from the oldest on, first with the member and then without it, and only a larger set replaces the
//! best. So of the largest sets the search finds the set with the older members, compared from the oldest on; all
//! members with the same reports find the same set.
//!
//! The problem is NP-hard, and links could be broken to make it so. After [`NODES_MAX`] branches the search returns the
//! best set so far, which is no worse than taking members greedily by age. Source: Tomita and Seki (2003), the
//! colouring bound.

/// Branches tried at most: a few milliseconds at 64 members. Crashes, members that hear badly and cuts between sites
/// need fewer than 200.
pub const NODES_MAX: u32 = 4096;

struct Search<'a> {
    hears: &'a [u64; 64],
    best: u64,
    nodes: u32,
    nodes_max: u32,
}

/// The largest clique that contains all of `required` and otherwise only `candidates`. Bit 0 is the oldest; `hears[i]`
/// must be symmetric, and `required` a clique.
pub fn largest(hears: &[u64; 64], required: u64, candidates: u64) -> u64 {
    let mut search = Search { hears, best: required, nodes: 0, nodes_max: NODES_MAX };
    let candidates = bits(required).fold(candidates & !required, |left, i| left & hears[i]);
    debug_assert!(is_clique(hears, required), "{required:b} is no clique");
    search.expand(required, candidates);
    assert!(search.best & required == required && search.best & !(required | candidates) == 0);
    assert!(is_clique(hears, search.best), "{:b} is no clique", search.best);
    search.best
}

/// Whether all of a set hear each other.
fn is_clique(hears: &[u64; 64], set: u64) -> bool {
    bits(set).all(|i| set & !hears[i] & !(1 << i) == 0)
}

pub(crate) fn bits(mut set: u64) -> impl Iterator<Item = usize> {
    core::iter::from_fn(move || {
        let lowest = (set != 0).then(|| set.trailing_zeros() as usize)?;
        set &= set - 1;
        Some(lowest)
    })
}

impl Search<'_> {
    /// Tries all cliques of `set` and some of `candidates`, each of which hears all of `set`. At most 64 deep.
    fn expand(&mut self, set: u64, mut candidates: u64) {
        debug_assert!(set & candidates == 0, "a candidate is not in the set yet");
        if set.count_ones() > self.best.count_ones() {
            self.best = set;
        }
        while candidates != 0 {
            if set.count_ones() + self.bound(candidates) <= self.best.count_ones() || self.nodes >= self.nodes_max {
                return;
            }
            self.nodes += 1;
            let oldest = candidates.trailing_zeros() as usize;
            candidates &= !(1 << oldest);
            let heard = candidates & self.hears[oldest];
            self.expand(set | 1 << oldest, heard);
            if heard.count_ones() + 1 >= candidates.count_ones() {
                // A member that all the others hear, or all but one, can replace that one: no set without it is larger.
                return;
            }
        }
    }

    /// How many of the candidates a clique can have at most.
    fn bound(&self, mut candidates: u64) -> u32 {
        let mut groups = 0;
        while candidates != 0 {
            groups += 1;
            let mut group = candidates;
            while group != 0 {
                let one = group.trailing_zeros() as usize;
                candidates &= !(1 << one);
                group &= !(1 << one) & !self.hears[one];
            }
        }
        groups
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    /// All members hear each other, except the given pairs.
    fn graph(members: usize, broken: impl IntoIterator<Item = (usize, usize)>) -> [u64; 64] {
        let mut hears = [0; 64];
        hears[..members].fill(all(members));
        for (a, b) in broken {
            hears[a] &= !(1 << b);
            hears[b] &= !(1 << a);
        }
        hears
    }

    fn all(members: usize) -> u64 {
        u64::MAX >> (64 - members)
    }

    fn search(hears: &[u64; 64], nodes_max: u32) -> (u64, u32) {
        let mut search = Search { hears, best: 0, nodes: 0, nodes_max };
        search.expand(0, u64::MAX);
        (search.best, search.nodes)
    }

    /// What this file's header promises for usual failures.
    #[test]
    fn usual_trouble_costs_few_branches() {
        let observers = graph(64, (0..10).flat_map(|bad| (0..64).map(move |i| (bad, i))));
        let pairs = graph(64, (0..32).map(|i| (2 * i, 2 * i + 1)));
        let sites = graph(64, (0..30).flat_map(|a| (30..64).map(move |b| (a, b))));
        let cases = [
            (graph(64, []), u64::MAX),
            (observers, u64::MAX << 10),
            (pairs, 0x5555_5555_5555_5555), // of each pair the older
            (sites, u64::MAX << 30),
        ];
        for (hears, expected) in cases {
            let (best, nodes) = search(&hears, NODES_MAX);
            assert_eq!(best, expected);
            assert!(nodes < 200, "{nodes} branches");
        }
    }

    #[test]
    fn a_search_cut_short_is_no_worse_than_greed() {
        let mut rng = fastrand::Rng::with_seed(1);
        let broken: Vec<_> = (0..64).flat_map(|a| (0..a).map(move |b| (a, b))).filter(|_| rng.u8(..10) < 2).collect();
        let hears = graph(64, broken);
        let ((best, nodes), (exact, _)) = (search(&hears, 64), search(&hears, NODES_MAX));
        assert_eq!(nodes, 64);
        let greedy = (0..64).fold(0u64, |set, i| if set & !hears[i] == 0 { set | 1 << i } else { set });
        assert!(bits(best).all(|i| best & !hears[i] & !(1 << i) == 0));
        assert!(greedy.count_ones() <= best.count_ones() && best.count_ones() < exact.count_ones());
    }

    /// Compares with a search of all subsets, which starts with the subset of the oldest members.
    #[test]
    fn small_graphs_agree_with_trying_everything() {
        let mut rng = fastrand::Rng::with_seed(2);
        for round in 0..2000 {
            let members = 1 + round % 8;
            let pairs = (0..members).flat_map(|a| (0..a).map(move |b| (a, b)));
            let share = rng.f64();
            let hears = graph(members, pairs.filter(|_| rng.f64() < share).collect::<Vec<_>>());
            let required = if rng.bool() { 1 << rng.usize(..members) } else { 0 };
            let clique = |set: u64| bits(set).all(|i| set & !hears[i] & !(1 << i) == 0);
            let sets = (1..=all(members)).filter(|set| clique(*set) && set & required == required);
            // Reversed bits grow with the age of the members in the set.
            let expected = sets.max_by_key(|set| (set.count_ones(), set.reverse_bits())).unwrap();
            assert_eq!(largest(&hears, required, all(members)), expected, "{hears:x?}");
        }
    }
}
