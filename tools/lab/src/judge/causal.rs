//! 10: no answer is delivered before the message that it answers.
//!
//! A message names the message that its sender had delivered last. Where both are delivered, the named message comes
//! first. Where the named message was lost, the message that *it* answers still must not come later, so the chain is
//! followed until it reaches a message delivered here. One pointer for each message is enough: FIFO covers a sender's
//! own earlier messages.

use super::{Case, Verdict};
use crate::history::Incarnation;

pub(super) fn judge(case: &Case<'_>, verdict: &mut Verdict) {
    if !case.rules.order.is_causal() {
        return;
    }
    let mut answers: Vec<Option<u32>> = vec![None; case.histories.messages.len()];
    for delivery in case.histories.incarnations.iter().flat_map(Incarnation::kept) {
        answers[delivery.message as usize] = delivery.after;
    }
    for incarnation in &case.histories.incarnations {
        let mut position: Vec<Option<usize>> = vec![None; answers.len()];
        for (index, delivery) in incarnation.kept().enumerate() {
            position[delivery.message as usize].get_or_insert(index);
        }
        let judged = |delivery: &&_| !case.agreed() || case.binds(incarnation, delivery);
        for (index, delivery) in incarnation.kept().enumerate().filter(|(_, delivery)| judged(delivery)) {
            let Some(cause) = nearest_delivered(&answers, &position, delivery.after) else { continue };
            if position[cause as usize].is_some_and(|at| at >= index) {
                let (message, cause) = (case.histories.message(delivery.message), case.histories.message(cause));
                verdict.add(
                    10,
                    incarnation,
                    format!("delivered {message} before {cause}, which its sender had delivered"),
                );
            }
        }
    }
}

/// Follows answers from `from` to the first message that has a position.
fn nearest_delivered(answers: &[Option<u32>], position: &[Option<usize>], mut from: Option<u32>) -> Option<u32> {
    // A chain that is longer than the number of messages is a cycle.
    for _ in 0..answers.len() {
        let message = from?;
        if position[message as usize].is_some() {
            return Some(message);
        }
        from = answers[message as usize];
    }
    None
}
