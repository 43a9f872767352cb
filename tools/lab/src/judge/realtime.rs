//! Real time: messages that came in time are delivered in the order of sending.
//!
//! A delivery in time has the group time of its sending in place of the order number; a late message has none and may
//! stand anywhere. Within a view the times never fall, equal times are ordered by publisher, and a message has the same
//! time wherever it was delivered in one view. The simulator, which knows the true times, judges whether they are true.
//!
//! This is not checked across views: the end of a view waits for nothing, and a message that is published again has a
//! new time.

use super::{Case, Verdict};
use crate::history::SNAPSHOT;
use std::collections::HashMap;

pub(super) fn judge(case: &Case<'_>, verdict: &mut Verdict) {
    if case.rules.order != super::Order::Realtime {
        return;
    }
    let mut times: HashMap<(u64, u32), u64> = HashMap::new();
    for incarnation in &case.histories.incarnations {
        let mut last: Option<(u32, u64, u32)> = None;
        for delivery in incarnation.kept().filter(|delivery| delivery.segment != SNAPSHOT) {
            let Some(time) = delivery.order else { continue };
            let message = || case.histories.message(delivery.message);
            let (publisher, _) = case.histories.messages[delivery.message as usize];
            let before = last.replace((delivery.segment, time, publisher));
            if let Some((_, earlier, _)) = before.filter(|(segment, ..)| *segment == delivery.segment)
                && time < earlier
            {
                let detail = format!(
                    "delivered {}, sent at {time}, after one sent at {earlier}, and did not call it late",
                    message()
                );
                verdict.add(12, incarnation, detail);
            }
            let known = *times.entry((delivery.view, delivery.message)).or_insert(time);
            if known != time {
                verdict.add(12, incarnation, format!("delivered {} as sent at {time}, others at {known}", message()));
            }
        }
    }
}
