//! Observers that publishers wait for: the observer reports its progress, the member goes by it. `data/gates.rs` has
//! the rules.
//!
//! A report names the address to which the member may have to answer, and carries that member's cookie: an address that
//! has not proved that it receives holds no publisher up.

use super::{Process, Standing};
use crate::config::Flow;
use crate::counters::Counter;
use crate::data::flow::own_window;
use crate::data::gates::Noted;
use crate::event::Event;
use crate::mutant::Mutant;
use crate::outbox::Destination;
use bourdon_wire::records::{Progress, progress_flags};
use bourdon_wire::{DatagramHeader, DatagramNumber, Instant, Kind, Rank};
use zerocopy::IntoBytes;

/// An observer that gates reports at least so often: several times within the shortest timeout that is allowed.
const REPORT_NS: u64 = 50_000_000;
/// A member that has not answered with `ENDED` for so long has waited meanwhile.
const ENDED_AGAIN_NS: u64 = 10 * REPORT_NS;

impl Process {
    // ---- the observer ---------------------------------------------------------------------------------------------

    /// Reports to each member how far this observer has come in its stream.
    pub(super) fn report_progress(&mut self, now: Instant) {
        let Some(reports) = &mut self.data.reports else { return };
        reports.sent();
        reports.due = now + REPORT_NS;
        for index in 0..self.data.streams.len() {
            let (rank, stream) = (Rank(index as u16), &self.data.streams[index]);
            if !self.data.is_present(rank) || !stream.window.started {
                continue;
            }
            let delivered = stream.floor();
            let Some(address) = self.cx.presence.address(rank) else { continue };
            let record = Progress {
                reply_to: self.cx.config.address,
                cookie: self.word_for_report(rank).into(),
                delivered: delivered.0.into(),
                window: (own_window(&self.cx.config) as u32).into(),
                rank: rank.0.into(),
                flags: 0.into(),
            };
            self.cx.send(now, Destination::Peer(address), Kind::Progress, [record.as_bytes(), &[]]);
            self.cx.count(Counter::ProgressSent);
        }
    }

    /// A member's heartbeat came: this observer begins to report, or reports at once if the member waits for it.
    pub(super) fn hear_solicitation(&mut self, now: Instant, solicits: bool) {
        if let Some(reports) = self.data.reports.as_mut().filter(|reports| solicits || reports.due == Instant::NEVER) {
            reports.due = now;
        }
    }

    /// A member waits for this observer no longer.
    pub(super) fn on_gate_ended(&mut self, now: Instant, from: Rank, body: &[u8]) {
        let Some((record, _)) = Progress::read(body) else { return };
        let is_own = record.flags.get() & progress_flags::ENDED != 0 && self.data.reports.is_some();
        // The cookie is known to the two of them only.
        if !is_own || record.cookie.get() != self.word_for_report(from) {
            return;
        }
        // The member answers each report so, as long as it does not wait for this observer: that is one event.
        let Some(heard_at) = self.gates_ended.get_mut(from.index()) else { return };
        if heard_at.replace(now).is_none_or(|before| now.since(before) > ENDED_AGAIN_NS) {
            self.cx.event(Event::GateEnded(from));
        }
    }

    // ---- the member -----------------------------------------------------------------------------------------------

    /// An observer reports how far it has come in this member's stream.
    pub(super) fn on_progress(&mut self, now: Instant, header: &DatagramHeader, body: &[u8]) {
        let Some((record, _)) = Progress::read(body) else { return };
        let epoch = header.epoch();
        let is_current = self.standing() == Standing::Member && epoch == self.data.view.epoch;
        let (to, cookie) = (record.reply_to, record.cookie.get());
        if !is_current || Some(Rank(record.rank.get())) != self.data.own() || !to.is_reachable() {
            return;
        }
        if self.cx.config.flow != Flow::Gating || !self.has_cookie(now, epoch, to, cookie) {
            return;
        }
        self.cx.count(Counter::ProgressReceived);
        let Some(outbound) = &self.data.outbound else { return };
        let progress = (DatagramNumber(record.delivered.get()), u64::from(record.window.get()));
        match self.gates.note(now, (to, header.incarnation()), progress, outbound.packer.sent) {
            Noted::Begins => {
                self.apply_gates();
                self.data.lower_limit();
            }
            Noted::Gates => self.apply_gates(),
            Noted::Behind if self.cx.config.mutant == Some(Mutant::GateOutlivesRestart) => {}
            Noted::Behind => self.apply_gates(), // an earlier incarnation of it may have been a gate
            Noted::Ended => {
                let record = Progress { flags: progress_flags::ENDED.into(), ..*record };
                self.cx.send(now, Destination::Peer(to), Kind::Progress, [record.as_bytes(), &[]]);
            }
        }
    }

    /// Ends the gates that are silent or too slow.
    pub(super) fn tend_gates(&mut self, now: Instant) {
        let Some(outbound) = &mut self.data.outbound else { return };
        if self.gates.is_empty() {
            return;
        }
        let (holder, sent) = (outbound.flow.take_holder(), outbound.packer.sent);
        let cx = &mut self.cx;
        let (timeout_ns, mutant) = (cx.config.timing.gating_timeout_ns, cx.config.mutant);
        self.gates.tend(now, timeout_ns, (holder, sent), mutant, |address| {
            cx.counters.add(Counter::GatesEnded, 1);
            cx.event(Event::GateDropped(address));
        });
        self.apply_gates();
    }

    /// The gates may have moved: so does the window.
    pub(super) fn apply_gates(&mut self) {
        self.cx.counters.set(Counter::GatingObservers, self.gates.count() as u64);
        if let Some(outbound) = &mut self.data.outbound {
            outbound.flow.gate = self.gates.limit();
            self.data.update_flow();
        }
    }
}
