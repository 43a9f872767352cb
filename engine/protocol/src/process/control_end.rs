//! Where a process meets its control plane (`control.rs`): in values only.
//!
//! The process reports what it sees and has done, and obeys what the control plane orders. Usually it holds the control
//! plane itself, and hands each value over at once. A node that runs the control plane on another thread takes it out
//! ([`Process::release_control`]) and carries the values. `change.rs` carries out orders about views, `coordinate.rs`
//! those about locks and elections.

use super::Process;
use crate::config::Config;
use crate::control::agreement::ToAgreement;
use crate::control::coordinator::{Coordinator, ToCoordinator};
use crate::control::{ControlPlane, FromControl, ToControl};
use alloc::boxed::Box;
use alloc::collections::VecDeque;
use bourdon_wire::Instant;

/// Steps of ballots that wait for the control plane: a member that repeats one every 5 ms fills this in seconds, and a
/// flood of forged steps takes no more of what the process may keep for its control thread.
const STEPS_WAITING_MAX: usize = 1024;
/// A decision still finds room behind so many: what other members know must not be lost among steps that may be forged.
const STEPS_BEFORE_DECISION_MAX: usize = 2 * STEPS_WAITING_MAX;

/// The process's end of what it exchanges with the control plane.
#[derive(Debug)]
pub(super) struct ControlEnd {
    /// The control plane, unless another thread has it, or it is at work.
    pub(super) here: Option<Box<ControlPlane>>,
    /// Another thread has it.
    pub(super) is_apart: bool,
    /// What the control plane has not taken.
    reports: VecDeque<ToControl>,
    /// How many of these are steps of ballots.
    steps: usize,
    /// Parts in views begun and ended so far: see `control/agreement.rs`.
    pub(super) parts: u64,
}

impl ControlEnd {
    pub(super) fn new(config: &Config) -> Self {
        let here = Some(Box::new(ControlPlane::new(config)));
        Self { here, is_apart: false, reports: VecDeque::new(), steps: 0, parts: 0 }
    }

    /// Adds a report, to be handed over with the next one, or when the process delivers or transmits.
    pub(super) fn push(&mut self, report: ToCoordinator) {
        self.reports.push_back(ToControl::Coordinator(report));
    }

    /// This process takes part in the end of a view from now on, or does not any more.
    pub(super) fn push_part(&mut self, report: ToAgreement) {
        debug_assert!(matches!(report, ToAgreement::Begun { .. } | ToAgreement::Ended), "a part begins or ends");
        self.parts += 1;
        self.reports.push_back(ToControl::Agreement(Box::new(report)));
    }

    /// Whether one more step of a ballot, one that announces a decision or another, must be dropped: its sender repeats
    /// it.
    pub(super) fn is_full_of_steps(&self, decides: bool) -> bool {
        self.steps >= if decides { STEPS_BEFORE_DECISION_MAX } else { STEPS_WAITING_MAX }
    }

    fn pop(&mut self) -> Option<ToControl> {
        let report = self.reports.pop_front()?;
        self.steps -= usize::from(report.is_step());
        Some(report)
    }

    /// When something is due, if the control plane is here.
    #[inline]
    pub(super) fn due(&self) -> Instant {
        self.here.as_ref().map_or(Instant::NEVER, |control| control.due())
    }

    pub(super) fn tend(&mut self, now: Instant) {
        self.here.iter_mut().for_each(|control| control.tend(now));
    }

    /// Whether anything waits to be handed over.
    #[inline]
    pub(super) fn has_reports(&self) -> bool {
        !self.reports.is_empty()
    }

    pub(super) fn held(&self) -> usize {
        self.here.as_ref().map_or(0, |control| control.held()) + self.reports.len()
    }

    /// # Panics
    /// If the control plane runs on another thread: the node asks it there.
    pub(super) fn coordinator(&self) -> &Coordinator {
        &self.here.as_ref().expect("this process holds its control plane").coordinator
    }

    pub(super) fn coordinator_mut(&mut self) -> &mut Coordinator {
        &mut self.here.as_mut().expect("this process holds its control plane").coordinator
    }
}

impl Process {
    /// Whether commands or link messages of locks and elections wait to be sent.
    #[inline]
    pub(super) fn coordination_due(&self) -> bool {
        self.coordination.has_commands()
            || self.control.here.as_ref().is_some_and(|control| control.coordinator.is_due())
    }

    /// Takes the control plane out. From then on the caller hands it what [`Process::poll_report`] gives, in that
    /// order, and hands the process, through [`Process::obey`], what the control plane gives.
    ///
    /// # Panics
    /// If it was taken out before.
    pub fn release_control(&mut self) -> Box<ControlPlane> {
        let mut control = self.control.here.take().expect("a control plane is taken out once");
        self.control.is_apart = true;
        let may = self.release_coordinator();
        control.coordinator.note_may(may);
        control
    }

    /// The next value for a control plane on another thread.
    #[inline]
    pub fn poll_report(&mut self) -> Option<ToControl> {
        if self.control.reports.is_empty() {
            self.report_standing();
        }
        self.control.pop()
    }

    /// Gives a value back for which there is no room; [`Process::poll_report`] returns it first.
    pub fn return_report(&mut self, report: ToControl) {
        self.control.steps += usize::from(report.is_step());
        self.control.reports.push_front(report);
    }

    /// How many values the control plane on another thread has not taken.
    pub fn reports_waiting(&self) -> usize {
        self.control.reports.len()
    }

    /// Does what the control plane orders: between other steps, as when a datagram has come.
    pub fn obey(&mut self, now: Instant, order: FromControl) {
        match order {
            FromControl::Agreement(order) => self.obey_agreement(now, *order),
            FromControl::Coordinator(order) => self.obey_coordinator(now, order),
        }
    }

    /// Reports to the control plane, and hands the report over if the control plane is here. A look replaces one that
    /// was not taken, so a flood of heartbeats takes no memory.
    pub(super) fn report(&mut self, now: Instant, report: ToControl) {
        if report.is_look() {
            self.control.reports.pop_back_if(|last| last.is_look());
        }
        self.control.steps += usize::from(report.is_step());
        self.control.reports.push_back(report);
        self.pass_reports(now);
    }

    /// Hands over what waits, if the control plane is here, and does what it orders: before an owner looks whether
    /// reports wait. Other calls do this by themselves.
    #[cold]
    pub fn pass_reports(&mut self, now: Instant) {
        let Some(mut control) = self.control.here.take() else { return };
        while let Some(report) = self.control.pop() {
            control.take(now, report);
            while let Some(order) = control.poll_order() {
                self.obey(now, order); // it may report more
            }
        }
        self.control.here = Some(control);
    }
}
