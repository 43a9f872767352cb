//! Quorums, all of them.

use bourdon_protocol::control::quorum::{bitmap, is_quorum, threshold, tolerated};
use bourdon_wire::Rank;

/// Views whose seniority is not the order of their ranks.
fn views() -> impl Iterator<Item = Vec<Rank>> {
    (1..=7).map(|members| (0..members).map(|i| Rank((i * 3 + 5) % 7)).collect())
}

fn subsets(view: &[Rank]) -> impl Iterator<Item = u64> {
    (0..1u64 << view.len()).map(|places| {
        let chosen = view.iter().enumerate().filter(|(i, _)| places & 1 << i != 0);
        chosen.fold(0, |set, (_, rank)| set | 1 << rank.index())
    })
}

#[test]
fn any_two_quorums_share_a_member() {
    for view in views() {
        let quorums: Vec<_> = subsets(&view).filter(|votes| is_quorum(&view, *votes)).collect();
        assert!(!quorums.is_empty());
        assert!(quorums.iter().all(|a| quorums.iter().all(|b| a & b != 0)), "{view:?}");
    }
}

#[test]
fn of_two_sides_exactly_one_goes_on() {
    for view in views() {
        for side in subsets(&view) {
            assert_ne!(is_quorum(&view, side), is_quorum(&view, bitmap(&view) & !side), "{view:?} {side:b}");
        }
    }
}

#[test]
fn a_half_decides_with_the_first_member_only() {
    let view = [Rank(9), Rank(2), Rank(5), Rank(63)];
    assert!(is_quorum(&view, 1 << 9 | 1 << 63));
    assert!(!is_quorum(&view, 1 << 2 | 1 << 5));
    assert!(is_quorum(&view, 1 << 2 | 1 << 5 | 1 << 63));
    assert!(!is_quorum(&view, 1 << 9));
    assert!(is_quorum(&view[..2], 1 << 9) && !is_quorum(&view[..2], 1 << 2));
}

#[test]
fn strangers_have_no_vote() {
    let view = [Rank(1), Rank(2), Rank(3)];
    assert!(!is_quorum(&view, 1 << 1 | 1 << 4 | 1 << 5));
    assert!(!is_quorum(&[], u64::MAX));
}

#[test]
fn thresholds() {
    let rows: Vec<_> = (1..=7).map(|n| (threshold(n, true), threshold(n, false), tolerated(n))).collect();
    assert_eq!(rows, [(1, 1, 0), (1, 2, 1), (2, 2, 1), (2, 3, 2), (3, 3, 2), (3, 4, 3), (4, 4, 3)]);
}
