//! What a member of a view keeps: see `process/member.rs`.

use crate::control::membership::Membership;
use crate::control::view_change::driver::Driver;
use bourdon_wire::Epoch;

/// What a member of a view keeps.
#[derive(Debug)]
pub(in crate::process) struct Joined {
    pub(in crate::process) driver: Driver,
    pub(in crate::process) membership: Membership,
    /// Whether it reaches no quorum of its view.
    pub(in crate::process) no_majority: bool,
}

impl Joined {
    pub(in crate::process) fn new(driver: Driver) -> Self {
        let view = driver.ballots().view();
        assert!(view.epoch > Epoch(0) && !driver.ballots().is_wedged(), "a member begins in a view: {view:?}");
        Self { driver, membership: Membership::new(), no_majority: false }
    }
}
