//! The control plane: rare decisions. It meets the data plane only in `process.rs`.
//!
//! What decides about views, locks and elections is one machine, [`ControlPlane`], that takes and gives values. An
//! inline node runs it in the same poll as the data plane; a threaded node on a thread of its own.

pub mod agreement;
pub(crate) mod clients;
pub(crate) mod clock_sync;
pub(crate) mod configurations;
pub(crate) mod cookie;
pub mod coordination;
pub mod coordinator;
pub mod detector;
pub(crate) mod direct;
pub mod discovery;
pub(crate) mod election;
pub(crate) mod heartbeat;
pub mod membership;
pub(crate) mod mutex;
pub(crate) mod path_mtu;
pub(crate) mod perfect_link;
pub(crate) mod plausibility;
pub(crate) mod presence;
pub mod quorum;
pub mod recovery;
pub(crate) mod state_transfer;
pub mod view_change;

use crate::config::Config;
use crate::view::Member;
use agreement::{Agreement, FromAgreement, ToAgreement};
use alloc::boxed::Box;
use bourdon_wire::Instant;
use coordinator::{Coordinator, FromCoordinator, ToCoordinator};

/// How many times as long as the detectors wait the data plane may stand still before this process counts as silent. A
/// host with more work than cores delays a thread for longer than the detectors wait, and the others trust it again.
const SILENCE_FACTOR: u64 = 4;
/// At least so long: below, any host delays a thread now and then.
const SILENCE_MIN_NS: u64 = 100_000_000;
/// How many times in that the control plane looks, while it has a lock or an election.
const LOOKS: u64 = 4;

/// From the data plane.
#[derive(Clone, Debug)]
pub enum ToControl {
    /// About views.
    Agreement(Box<ToAgreement>),
    /// About locks and elections.
    Coordinator(ToCoordinator),
}

impl ToControl {
    /// Whether the data plane only looks whether the view should change.
    pub(crate) fn is_look(&self) -> bool {
        let Self::Agreement(report) = self else { return false };
        matches!(**report, ToAgreement::Look(..) | ToAgreement::LookForming { .. })
    }

    /// Whether a step of a ballot has come.
    pub(crate) fn is_step(&self) -> bool {
        matches!(self, Self::Agreement(report) if matches!(**report, ToAgreement::Step { .. }))
    }
}

/// From the control plane.
#[derive(Clone, Debug)]
pub enum FromControl {
    /// About views.
    Agreement(Box<FromAgreement>),
    /// About locks and elections.
    Coordinator(FromCoordinator),
}

/// All that a process decides about views, locks and elections.
#[derive(Debug)]
pub struct ControlPlane {
    agreement: Agreement,
    /// Locks and elections, for the application.
    pub coordinator: Coordinator,
    /// When this last looked whether the data plane runs.
    looked_at: Instant,
    /// Since when the data plane counts as silent; later than it ran, if this thread itself stood still.
    silent_since: Instant,
    /// It may be silent for so long.
    silence_max_ns: u64,
}

impl ControlPlane {
    /// Of a process with this configuration.
    pub(crate) fn new(config: &Config) -> Self {
        let detector = &config.timing.detector;
        let suspect_after_ns = detector.suspect_after_ns.min(detector.group_after_ns.unwrap_or(u64::MAX));
        Self {
            agreement: Agreement::new(config),
            coordinator: Coordinator::new(config),
            looked_at: Instant(0),
            silent_since: Instant(0),
            silence_max_ns: SILENCE_MIN_NS.max(SILENCE_FACTOR * suspect_after_ns),
        }
    }

    // ---- on a thread of its own -----------------------------------------------------------------------------------

    /// Looks whether the data plane runs, which ran last at this time. A thread that stood still itself counts a
    /// silence from now on.
    pub fn look(&mut self, now: Instant, ran_at: Instant) {
        let stood_still = now.since(self.looked_at) > 2 * self.silence_max_ns / LOOKS;
        self.silent_since = if stood_still { now } else { self.silent_since.max(ran_at) };
        self.looked_at = now;
        self.coordinator.note_silence(self.is_silent());
    }

    /// Whether the data plane had been silent for longer than the group waits for it when this last looked.
    pub fn is_silent(&self) -> bool {
        self.looked_at.since(self.silent_since) > self.silence_max_ns
    }

    /// When to look again, at the latest.
    pub fn look_due(&self) -> Instant {
        if self.coordinator.is_engaged() { self.looked_at + self.silence_max_ns / LOOKS } else { Instant::NEVER }
    }

    // ---- values ---------------------------------------------------------------------------------------------------

    /// Takes the next value from the data plane.
    pub fn take(&mut self, now: Instant, value: ToControl) {
        match value {
            ToControl::Agreement(value) => self.agreement.take(*value),
            ToControl::Coordinator(value) => self.coordinator.take(now, value),
        }
    }

    /// Gives what the data plane must do at once.
    #[inline]
    pub(crate) fn poll_order(&mut self) -> Option<FromControl> {
        let table = || self.coordinator.poll_table().map(FromControl::Coordinator);
        self.agreement.poll_order().map(|order| FromControl::Agreement(Box::new(order))).or_else(table)
    }

    /// Gives what the data plane must do now.
    pub fn transmit(&mut self, now: Instant, mut give: impl FnMut(FromControl)) {
        while let Some(order) = self.poll_order() {
            give(order);
        }
        self.coordinator.transmit(now, |order| give(FromControl::Coordinator(order)));
    }

    /// When to call [`ControlPlane::tend`], at the latest. Views have no time here: the data plane looks.
    #[inline]
    pub fn due(&self) -> Instant {
        self.coordinator.due()
    }

    /// Does what is due.
    pub fn tend(&mut self, now: Instant) {
        self.coordinator.tend(now);
    }

    /// The members of the view that this process has accepted as the successor of its view: a proposer must choose that
    /// view, if no other view was accepted in a higher ballot.
    pub fn accepted_members(&self) -> Option<&[Member]> {
        self.agreement.accepted_members()
    }

    /// The number of entries kept.
    pub(crate) fn held(&self) -> usize {
        self.agreement.held() + self.coordinator.held()
    }
}
