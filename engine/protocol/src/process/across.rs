//! What a process knows for another group's sake: see `data/after.rs`.

use super::{Process, Standing};
use bourdon_wire::MessageName;

impl Process {
    /// Whether a message of this group need not be waited for in another: it was delivered or given up here, as was
    /// everything before it of its sender; or it will not come in its place. That is so where this process is in no view and
    /// not about to form the first, or has lost the majority; where a later view than the message's has begun, and the
    /// earlier one with all its messages is over; and where nobody of that rank is in the view. A message of any other group has passed.
    pub fn has_passed(&self, name: &MessageName) -> bool {
        let takes_part = match self.standing {
            Standing::Forming => true,
            Standing::Member | Standing::Following => !self.no_majority,
            Standing::Outside | Standing::Gone => false,
        };
        let (epoch, rank) = (self.data.view.epoch, name.rank());
        if name.group() != self.config.group || !takes_part || epoch > name.epoch() {
            return true;
        }
        epoch == name.epoch() && (!self.data.is_present(rank) || self.delivered(rank) > name.sequence())
    }

    /// Whether a message that could be delivered waits for another group's: call [`Process::deliver_after`] again once
    /// something has been delivered there.
    pub fn waits_elsewhere(&self) -> bool {
        self.data.waits_elsewhere()
    }
}
