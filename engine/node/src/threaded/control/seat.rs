//! One group at the control thread: its control plane, the application's requests, and the way to its data agent.
//!
//! Invariant: what was asked for before the node was stopped is done before its data plane ends.

use super::way::{MAIL_A_ROUND, Mail, PlaneEnd, ToData};
use crate::config::{Role, Settings, group_of, in_channel};
use crate::locks::broker::Broker;
use crate::locks::commands::{COMMANDS_MAX, LockCommand};
use crate::mailbox::Receiver;
use crate::threaded::end::Outcome;
use bourdon_protocol::control::detector::Judgement;
use bourdon_protocol::{ControlPlane, FromControl};
use bourdon_ring::signal::Flag;
use bourdon_wire::Instant;
use std::collections::VecDeque;
use std::sync::mpsc::TrySendError;

/// How long the control thread sleeps at least: what is overdue waits for the data agent.
const SLEEP_MIN_NS: u64 = 1_000_000;

/// A group's place at the control thread.
pub(super) struct Seat {
    /// The group's name.
    group: String,
    /// If it is a channel that leans on the detectors of its group: its members' ranks in that.
    leans: Option<Vec<u16>>,
    /// What its own detectors suspect, by the last report, and whether that is new.
    judgement: Option<Judgement>,
    is_judgement_new: bool,
    /// What the detectors of its group suspect, which the data agent had no room for.
    judged: Option<Judgement>,
    plane: Box<ControlPlane>,
    broker: Broker,
    commands: Receiver<LockCommand>,
    taken_count: u64,
    /// Commands taken that wait until all mail before them has been taken.
    asked: Vec<LockCommand>,
    /// What the data agent had no room for. The control plane gives nothing more until this is gone.
    backlog: VecDeque<FromControl>,
    is_stopping: bool,
    /// The data plane has ended; and whether this was known in the last round.
    ended: Flag,
    is_over: bool,
    end: PlaneEnd,
    /// Dropped last: the group's handle waits for it, so that requests have their last answer.
    _outcome: Outcome,
}

impl Seat {
    pub(super) fn new(
        settings: &Settings,
        plane: Box<ControlPlane>,
        commands: Receiver<LockCommand>,
        ended: Flag,
        end: PlaneEnd,
        outcome: Outcome,
    ) -> Self {
        Self {
            group: settings.group.name.clone(),
            leans: settings.detector.leans.clone(),
            judgement: None,
            is_judgement_new: false,
            judged: None,
            plane,
            broker: Broker::new(settings.process.role == Role::Member),
            commands,
            taken_count: 0,
            asked: Vec::new(),
            backlog: VecDeque::new(),
            is_stopping: false,
            ended,
            is_over: false,
            end,
            _outcome: outcome,
        }
    }

    /// Looks whether the data plane has ended. Then no member is suspected by its detectors any more.
    pub(super) fn note_end(&mut self) {
        self.is_over = self.ended.is_set();
        if let Some(judgement) = self.judgement.as_mut().filter(|_| self.is_over) {
            judgement.suspects = 0;
            self.is_judgement_new = true;
        }
    }

    /// Whether it had ended when that was last looked at.
    pub(super) fn is_over(&self) -> bool {
        self.is_over
    }

    /// Whether it has a lock or an election.
    pub(super) fn is_engaged(&self) -> bool {
        self.plane.coordinator.is_engaged()
    }

    /// Whether there is something to do at once.
    pub(super) fn has_news(&self) -> bool {
        self.end.mail.has_values() || self.commands.has_values() || self.ended.is_set()
    }

    // ---- judgements ------------------------------------------------------------------------------------------------

    /// What the detectors suspect, if that was reported since the last call.
    pub(super) fn take_judgement(&mut self) -> Option<Judgement> {
        self.judgement.filter(|_| std::mem::take(&mut self.is_judgement_new))
    }

    /// What the detectors suspect, by the last report.
    pub(super) fn judgement(&self) -> Option<Judgement> {
        self.judgement
    }

    /// Whether this is a channel that leans on the detectors of that group.
    pub(super) fn leans_on(&self, group: &Self) -> bool {
        self.leans.is_some() && group_of(&self.group) == Some(&group.group)
    }

    /// Passes on to the data agent what the detectors of its group suspect.
    pub(super) fn judge(&mut self, judgement: Judgement) {
        let Some(ranks) = &self.leans else { return };
        self.judged = Some(in_channel(judgement, ranks));
        self.give_judgement();
    }

    fn give_judgement(&mut self) {
        if let Some(judgement) = self.judged
            && !matches!(self.end.orders.try_send(ToData::Judgement(judgement)), Err(TrySendError::Full(_)))
        {
            self.judged = None;
        }
    }

    // ---- rounds ---------------------------------------------------------------------------------------------------

    /// For how long the control thread may sleep.
    pub(super) fn idle_ns(&self, now: Instant) -> u64 {
        let due = self.plane.due().min(self.broker.due()).min(self.plane.look_due());
        let is_held_up = !self.backlog.is_empty() || self.judged.is_some() || now >= due;
        if is_held_up { SLEEP_MIN_NS } else { due.since(now) }
    }

    /// One round. Returns how much there was to do.
    pub(super) fn work(&mut self, now: Instant) -> usize {
        while self.asked.len() < COMMANDS_MAX
            && let Some(command) = self.commands.take()
        {
            self.asked.push(command);
        }
        let mut count = self.take_mail(now);
        self.plane.look(now, Instant(self.end.ran_at.get()));
        // An application that asks because of an event finds that the control plane knows of it: a command is carried
        // out after all mail that was here when it was taken.
        if count < MAIL_A_ROUND {
            count += self.asked.len();
            for command in self.asked.drain(..) {
                self.broker.carry_out(&mut self.plane.coordinator, now, command);
            }
        }
        if now >= self.plane.due() {
            self.plane.tend(now);
        }
        count += self.broker.work(&mut self.plane.coordinator, now);
        count += self.give(now);
        if self.is_stopping && count == 0 && self.backlog.is_empty() && !self.end.settled.is_set() {
            self.end.settled.set();
            self.end.data.wake();
        }
        count
    }

    fn take_mail(&mut self, now: Instant) -> usize {
        let mut count = 0;
        // What the data agent has no room for comes first: what it sends meanwhile waits on its own side.
        while count < MAIL_A_ROUND
            && self.backlog.is_empty()
            && let Some(mail) = self.end.mail.take()
        {
            count += 1;
            match mail {
                Mail::Report(report) => self.plane.take(now, report),
                Mail::Judgement(judgement) => (self.judgement, self.is_judgement_new) = (Some(judgement), true),
                Mail::Probe => {}
                Mail::Stopping => self.is_stopping = true,
            }
        }
        self.taken_count += count as u64;
        self.end.taken.advance(self.taken_count);
        count
    }

    /// Gives the data agent what the control plane has for it. Returns how much found room.
    fn give(&mut self, now: Instant) -> usize {
        self.give_judgement();
        if self.backlog.is_empty() {
            let backlog = &mut self.backlog;
            self.plane.transmit(now, |order| backlog.push_back(order));
        }
        let mut count = 0;
        while let Some(order) = self.backlog.pop_front() {
            if let Err(TrySendError::Full(ToData::Order(order))) = self.end.orders.try_send(ToData::Order(order)) {
                self.backlog.push_front(order);
                break;
            }
            count += 1;
        }
        count
    }
}
