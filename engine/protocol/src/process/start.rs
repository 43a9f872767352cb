//! How a process begins: in the view it was given, alone, or forming the first view with others.

use super::Process;
use crate::control::view_change::birth_above;
use crate::view::{Beginning, Member, View};
use bourdon_wire::{Epoch, Instant, OrderNumber, Sequence};

impl Process {
    /// The birth of an instance that would form now.
    pub(super) fn birth_now(&self, now: Instant) -> u64 {
        birth_above(self.cx.wall(now) / 1_000_000, self.cx.config.birth_floor)
    }

    /// Enters the configured view, or prepares for the first.
    pub(super) fn begin(&mut self, now: Instant) {
        let members = self.cx.config.members;
        if let Some(view) = self.cx.config.view.clone() {
            let first = alloc::vec![Sequence(0); usize::from(members)];
            self.enter(now, view, &Beginning { order: OrderNumber(0), first, phase: 0 });
        } else if let Some(rank) = self.cx.config.rank() {
            let own = Member { rank, incarnation: self.cx.config.incarnation };
            if members == 1 {
                // There is no other member to agree with.
                let (instance, birth) = (self.cx.config.instance_candidate, self.birth_now(now));
                let view = View { instance, birth, ..View::of_all(Epoch(1), 1, own.incarnation, own.rank) };
                let beginning = Beginning { order: OrderNumber(0), first: alloc::vec![Sequence(0)], phase: 0 };
                return self.enter(now, view, &beginning);
            }
            self.begin_forming();
        }
    }
}
