//! 1: a message is delivered at most once, with the bytes that it was sent with.
//!
//! No file holds what was sent, so bytes are compared among the processes that delivered. A retracted message may come
//! again; only an observer at `reliable`, which ran ahead of an agreement, may retract.

use super::{Case, Verdict};
use std::collections::HashMap;

pub(super) fn judge(case: &Case<'_>, verdict: &mut Verdict) {
    let name = |message: &u32| case.histories.message(*message);
    for life in &case.histories.lives {
        for message in &life.duplicates {
            verdict.add(1, life, format!("delivered {} twice", name(message)));
        }
        for message in &life.retracted_unseen {
            verdict.add(1, life, format!("took {} back, which it had not delivered", name(message)));
        }
        if life.retractions > 0 && (life.member || case.uniform()) {
            let invariant = if case.uniform() { 11 } else { 7 };
            verdict.add(invariant, life, format!("took {} deliveries back, which it never may", life.retractions));
        }
    }
    let mut bytes: HashMap<u32, (u64, usize)> = HashMap::new();
    for (index, life) in case.histories.lives.iter().enumerate() {
        for delivery in &life.deliveries {
            let (hash, first) = *bytes.entry(delivery.message).or_insert((delivery.hash, index));
            if hash != delivery.hash {
                let other = case.histories.lives[first].shown();
                let message = name(&delivery.message);
                let detail = format!("{message} hashes to {:016x}, but to {hash:016x} at {other}", delivery.hash);
                verdict.add(1, life, detail);
            }
        }
    }
}
