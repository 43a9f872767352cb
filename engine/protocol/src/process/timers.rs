//! When a process must act although nothing has come, and what it does then.

use super::{Process, Standing};
use crate::config::Role;
use bourdon_wire::{Instant, Rank};

impl Process {
    /// When [`Process::on_timer`] must be called, at the latest.
    #[inline]
    pub fn next_deadline(&self) -> Instant {
        let mut deadline =
            self.change_due().min(self.transfer.due()).min(self.cx.clock_sync.due).min(self.direct.due());
        deadline = deadline.min(self.control.due());
        if self.speaks() {
            deadline = deadline.min(self.heartbeat.due);
        }
        if self.standing() == Standing::Member {
            deadline = deadline.min(self.detector.due());
        }
        if let Some(outbound) = &self.data.outbound {
            deadline = deadline.min(outbound.ack.due);
        }
        if let Some(reports) = &self.data.reports {
            deadline = deadline.min(reports.due);
        }
        if let Some(pacer) = &self.pacer {
            deadline = deadline.min(pacer.due());
        }
        debug_assert!(self.data.streams.iter().all(|stream| stream.nak_sender.due >= self.data.nak_due));
        deadline.min(self.delivery_due()).min(self.data.nak_due).min(self.data.meters_due)
    }

    /// When [`Process::deliver`] must be called even if nothing has arrived: a message was held, or a gap is given up.
    #[inline]
    pub fn delivery_due(&self) -> Instant {
        if self.transfer.holds_back() { Instant::NEVER } else { self.data.delivery_due() }
    }

    /// Does what is due.
    pub fn on_timer(&mut self, now: Instant) {
        self.note_step(now);
        if self.standing() == Standing::Member && now >= self.detector.due() {
            self.ping(now);
            self.look(now);
        }
        if self.direct.is_calling() {
            self.tend_direct(now); // the detectors may just have suspected its receiver
        }
        if now >= self.change_due() {
            self.tend_view(now);
        }
        if now >= self.data.nak_due {
            for index in 0..self.data.streams.len() {
                if now >= self.data.streams[index].nak_sender.due {
                    self.ask(now, Rank(index as u16));
                }
            }
        }
        if now >= self.transfer.due() {
            self.request_parts(now);
        }
        if now >= self.cx.clock_sync.due {
            self.ask_the_time(now);
        }
        if now >= self.control.due() {
            self.control.tend(now);
        }
        if self.speaks() && now >= self.heartbeat.due {
            self.beat(now);
            self.tend_donor(now);
            self.past.tend(now, &self.cx.config);
            self.tend_gates(now);
            self.show_rate();
            if let Some(outbound) = self.data.outbound.as_mut().filter(|_| self.data.end.is_open()) {
                outbound.ack.due = now;
            }
        }
        if self.data.outbound.as_ref().is_some_and(|outbound| now >= outbound.ack.due) {
            self.acknowledge(now);
        }
        if self.data.reports.as_ref().is_some_and(|reports| now >= reports.due) {
            self.report_progress(now);
        }
        if now >= self.data.meters_due {
            self.judge_losses(now);
        }
        if self.pacer.as_ref().is_some_and(|pacer| now >= pacer.due()) {
            self.pace(now, 0);
        }
    }

    /// Whether this process sends heartbeats: observers and leavers that have left do not, nor one that must not be
    /// taken for a process that forms the first view.
    #[inline]
    pub(super) fn speaks(&self) -> bool {
        let is_silent = match self.standing() {
            Standing::Gone => true,
            Standing::Outside => !self.may_form(),
            _ => false,
        };
        matches!(self.cx.config.role, Role::Member(_)) && !is_silent
    }
}
