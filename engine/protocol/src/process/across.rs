//! What another group needs to know of this process: see `data/after.rs`.

use super::{Process, Standing};
use bourdon_wire::MessageName;

impl Process {
    /// Whether another group need not wait for a message of this group: this process has delivered it or given it up,
    /// with all earlier messages of its sender; or the message will not come in its place. It will not come if this
    /// process is in no view and not about to form the first, or has lost the majority; if a later view than the
    /// message's has begun, so that the earlier view with all its messages is over; or if no member of that rank is in
    /// the view. A message of any other group has passed.
    pub fn has_passed(&self, name: &MessageName) -> bool {
        let takes_part = match self.standing() {
            Standing::Forming => true,
            Standing::Member | Standing::Following => !self.state.lacks_majority(),
            Standing::Outside | Standing::Gone => false,
        };
        let (epoch, rank) = (self.data.view.epoch, name.rank());
        if name.group() != self.cx.config.group || !takes_part || epoch > name.epoch() {
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
