//! How a process begins: in the view it was given, alone, forming the first view with others, or outside of a group
//! that it must not found again.

use super::Process;
use crate::view::Beginning;
use bourdon_wire::{Instant, OrderNumber, Sequence};

impl Process {
    /// Enters the configured view, or prepares for the first.
    pub(super) fn begin(&mut self, now: Instant) {
        let members = self.cx.config.members;
        if let Some(view) = self.cx.config.view.clone() {
            let first = alloc::vec![Sequence(0); usize::from(members)];
            self.enter(now, view, &Beginning { order: OrderNumber(0), first, phase: 0 });
        } else if self.cx.config.rank().is_some() && self.may_form() {
            if members == 1 {
                return self.found_alone(now); // there is no other member to agree with
            }
            self.begin_forming(now);
        }
    }
}
