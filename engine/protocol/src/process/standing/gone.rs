//! What a process that has left for good keeps: see `process/gone.rs`.

use bourdon_wire::{Epoch, Instant};

/// What a process that has left keeps.
#[derive(Debug)]
pub(in crate::process) struct Gone {
    /// The first epoch without this process, and when it stops at the latest: until then it answers processes that have
    /// missed its leave.
    pub(in crate::process) farewell: Option<(Epoch, Instant)>,
    /// Bit r: rank r was heard in the view after this process's last.
    pub(in crate::process) successors: u64,
}

impl Gone {
    pub(in crate::process) fn new(farewell: Option<(Epoch, Instant)>) -> Self {
        assert!(farewell.is_none_or(|(epoch, _)| epoch > Epoch(1)), "a process leaves a view: {farewell:?}");
        Self { farewell, successors: 0 }
    }
}
