//! Quorum: a set of members so large that no other such set can agree on something different.
//!
//! More than half of a view is a quorum, because two such sets share a member. With an even number of members a split
//! into halves would stop both sides, and in a group of two neither member could go on after the other's crash. So a
//! half is a quorum too, but only with the view's first member, which can be on one side only.
//!
//! Invariants: any two quorums of a view share a member; of any two halves of a view that together have all its
//! members, exactly one is a quorum. Every decision of a view uses the same rule.

use bourdon_wire::Rank;

/// A set of ranks as a bitmap: bit r is rank r.
pub fn bitmap(ranks: &[Rank]) -> u64 {
    ranks.iter().fold(0, |bits, rank| bits | 1 << rank.index())
}

// Any two quorums of so many members share a member: two without the first, and one with the first and one without. Two
// with the first share it. Of two halves, the half with the first member is a quorum.
const _: () = {
    let mut members = 1;
    while members <= Rank::MAX.index() + 1 {
        assert!(2 * threshold(members, false) > members);
        assert!(threshold(members, true) + threshold(members, false) > members);
        assert!(2 * threshold(members, true) <= members + 1 && threshold(members, false) <= members);
        members += 1;
    }
};

/// Whether the members that voted decide for the view, which is in the order of seniority. Votes of others don't count.
pub fn is_quorum(view: &[Rank], votes: u64) -> bool {
    let Some(first) = view.first() else { return false };
    debug_assert!(bitmap(view).count_ones() as usize == view.len(), "members are distinct: {view:?}");
    let with_first = votes & 1 << first.index() != 0;
    (votes & bitmap(view)).count_ones() as usize >= threshold(view.len(), with_first)
}

/// How many votes make a quorum of so many members, with or without the vote of the first member.
pub const fn threshold(members: usize, with_first: bool) -> usize {
    if with_first { members.div_ceil(2) } else { members / 2 + 1 }
}

/// How many members a view can lose and still go on; one less if the first is lost and the number of members is even.
pub const fn tolerated(members: usize) -> usize {
    members - threshold(members, true)
}
