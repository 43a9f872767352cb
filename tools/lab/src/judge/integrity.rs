//! 1: a message is delivered at most once, with the bytes that it was sent with.
//!
//! No file holds what was sent, so bytes are compared among the processes that delivered. A retracted message may come
//! again; only an observer at `reliable`, which ran ahead of an agreement, may retract.

use super::{Case, Verdict};
use std::collections::HashMap;

pub(super) fn judge(case: &Case<'_>, verdict: &mut Verdict) {
    let name = |message: &u32| case.histories.message(*message);
    for incarnation in &case.histories.incarnations {
        for message in &incarnation.duplicates {
            verdict.add(1, incarnation, format!("delivered {} twice", name(message)));
        }
        for message in &incarnation.retracted_unseen {
            verdict.add(1, incarnation, format!("took {} back, which it had not delivered", name(message)));
        }
        if incarnation.retractions > 0 && (incarnation.member || case.uniform()) {
            let invariant = if case.uniform() { 11 } else { 7 };
            verdict.add(
                invariant,
                incarnation,
                format!("took {} deliveries back, which it never may", incarnation.retractions),
            );
        }
    }
    let mut bytes: HashMap<u32, (u64, usize)> = HashMap::new();
    for (index, incarnation) in case.histories.incarnations.iter().enumerate() {
        for delivery in &incarnation.deliveries {
            let (hash, first) = *bytes.entry(delivery.message).or_insert((delivery.hash, index));
            if hash != delivery.hash {
                let other = case.histories.incarnations[first].shown();
                let message = name(&delivery.message);
                let detail = format!("{message} hashes to {:016x}, but to {hash:016x} at {other}", delivery.hash);
                verdict.add(1, incarnation, detail);
            }
        }
    }
}
