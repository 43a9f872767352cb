//! 9: each publisher's messages are delivered in the order that it sent them.
//!
//! From `reliable` on no message is left out either, as long as the publisher stays: a removed member may lose its last
//! messages and come back with later ones, and a client that gives up belongs to no member. A publisher that is named
//! after an incarnation (`0.2`) never comes back. An observer records what it gave up.

use super::{Case, Verdict};
use crate::history::{Incarnation, SNAPSHOT};

/// The last message of a publisher that a process delivered.
#[derive(Clone, Copy)]
struct Last {
    sequence: u64,
    segment: u32,
}

pub(super) fn judge(case: &Case<'_>, verdict: &mut Verdict) {
    if !case.rules.order.is_fifo() {
        return;
    }
    for incarnation in &case.histories.incarnations {
        let mut last: Vec<Option<Last>> = vec![None; case.histories.publishers.len()];
        for delivery in incarnation.kept() {
            let (publisher, sequence) = case.histories.messages[delivery.message as usize];
            let before = last[publisher as usize].replace(Last { sequence, segment: delivery.segment });
            let Some(before) = before else { continue };
            let message = case.histories.message(delivery.message);
            if sequence <= before.sequence {
                verdict.add(9, incarnation, format!("delivered {message} after {}", before.sequence));
            } else if case.agreed() && stays(case, incarnation, publisher, before.segment, delivery.segment) {
                let mut between = before.sequence + 1..sequence;
                if let Some(missing) = between.find(|sequence| !incarnation.gave_up(publisher, *sequence)) {
                    let detail = format!("delivered {message} after {} and never {missing}", before.sequence);
                    verdict.add(9, incarnation, detail);
                }
            }
        }
    }
}

/// Whether a publisher was a member, without a break, in all of an incarnation's views from one to another.
fn stays(case: &Case<'_>, incarnation: &Incarnation, publisher: u32, from: u32, to: u32) -> bool {
    let name = &case.histories.publishers[publisher as usize];
    let (rank, of_one_life) = (super::rank_of(name), name.contains('.'));
    let process = format!("member:{rank}");
    let comes_back = || case.histories.incarnations.iter().any(|other| other.name == process && other.number > 1);
    if from == SNAPSHOT || (!of_one_life && comes_back()) {
        return false;
    }
    incarnation.views[from as usize..=to as usize].iter().all(|view| view.members.iter().any(|member| member == rank))
}
