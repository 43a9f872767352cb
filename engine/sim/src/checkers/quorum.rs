//! What a quorum is, to the checkers: they share no code with the protocol.

use bourdon_protocol::{Member, View};

/// More than half, or half with the first member.
pub(super) fn is_quorum(view: &View, mut votes: impl FnMut(&Member) -> bool) -> bool {
    let count = view.members.iter().filter(|member| votes(member)).count();
    let first = view.members.first().is_some_and(&mut votes);
    2 * count > view.members.len() || (2 * count == view.members.len() && first)
}
