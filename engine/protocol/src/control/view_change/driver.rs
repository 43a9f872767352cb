//! The driver of a view change: which step is due, and what the data plane must do.
//!
//! `ViewChange` defines what may be promised, chosen, accepted and decided, but not when: a proposer waits for slow
//! members, but not for ever; another member takes over a ballot that makes no progress; a cut is fetched before it is
//! accepted. If the node and the model each implemented that, the model would check one implementation and the node
//! would run another. So it is implemented here once, as a state machine without time, sockets or messages' bytes:
//! inputs are steps, reports of the data plane, timers and suspicions; outputs are [`Command`]s. The node, the
//! simulator and the model run this code.
//!
//! The caller carries out the commands in their order, and reports the results. A report may be late: it names the
//! ballot of its command, and one of an earlier ballot, or after the decision, changes nothing.
//!
//! | command | the caller | and then |
//! |---|---|---|
//! | [`Command::Send`] | sends the step | |
//! | [`Command::Wedge`] | sends, orders, acknowledges and delivers no more | [`Driver::on_wedged`] with what it holds |
//! | [`Command::Fetch`] | fetches what is missing of a cut | [`Driver::on_cut_held`] once all of it is held |
//! | [`Command::Conclude`] | fetches the decided cut, delivers to it | [`Driver::on_concluded`] once all is delivered |
//! | [`Command::Install`] | enters the next view, which gets a driver of its own | |
//! | [`Command::Arm`] | sets a timer, for good or until it is set again | [`Driver::on_timer`] when it expires |
//!
//! The driver holds whether the epoch is wedged, and with which cut it ends; the data plane learns both only from these
//! commands.
//!
//! A proposer never leaves out a member because it suspects that member: it only does not wait for it. A takeover keeps
//! every member except those with evidence of their crash.
//!
//! Invariants: nothing but a decision ends a wedged epoch; `Conclude` and `Install` are given once; every wait ends by
//! a timer. Timers that expire late, twice or for an earlier ballot do no harm.

use super::{Ballot, Implausible, Proposal, Reaction, Step, Value, ViewChange, continuing};
use crate::mutant::Mutant;
use crate::values::cut::Cut;
use crate::view::{Member, View, bit};
use alloc::collections::VecDeque;
use bourdon_wire::{Epoch, Rank};

/// What the detectors report of the members of the view.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DetectorReport {
    /// Bit r: rank r is not heard. A proposer does not wait for it.
    pub suspects: u64,
    /// Bit r: there is evidence that rank r is gone.
    pub evidence: u64,
    /// Bit r: no long datagrams come from rank r, and the view is to change for that: what only rank r holds can't be
    /// fetched.
    pub narrow: u64,
}

/// What a driver waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Timer {
    /// Until this member repeats the step of its own ballot.
    Repeat,
    /// How long a proposer waits for members that are not suspected and do not answer.
    Patience,
    /// How long a member lets another's ballot make no progress before it takes over. The time differs between members.
    Takeover,
}

/// The members that a step is sent to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum To {
    /// All of the group.
    All,
    /// One member.
    Member(Rank),
}

/// What the caller must do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Send a step.
    Send {
        /// The members to send it to.
        to: To,
        /// The ballot of the step.
        ballot: Ballot,
        /// The step.
        step: Step,
    },
    /// Stop all activity in this epoch, as the promise of this ballot requires, and report what this member holds.
    Wedge(Ballot),
    /// Fetch what is missing of a proposed cut, at the latest from the members in `stay`.
    Fetch {
        /// The ballot in which it was proposed.
        ballot: Ballot,
        /// The cut.
        cut: Cut,
        /// The members that go on to the next view.
        stay: u64,
    },
    /// The cut is decided: fetch it, deliver up to it and no message beyond it.
    Conclude {
        /// The cut.
        cut: Cut,
        /// The members that go on to the next view.
        stay: u64,
    },
    /// Enter the next view.
    Install(Value),
    /// Set a timer.
    Arm(Timer),
}

/// Commands to carry out, in order.
pub type Commands = VecDeque<Command>;

/// What must be sent once the data plane has reported what it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Pending {
    /// `PREPARE` of this member's own ballot.
    Prepare,
    /// `STATE` for another member's ballot.
    State,
}

/// One member's driver of one view's change.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Driver {
    change: ViewChange,
    pending: Option<Pending>,
    /// Whether this member's own ballot still waits for members that are not suspected.
    is_patient: bool,
    /// Whether the decided cut was handed to the data plane.
    concludes: bool,
    mutant: Option<Mutant>,
    own: Member,
}

impl Driver {
    /// A driver at the beginning of a view. The next view has at least `members_min` members.
    pub fn new(own: Member, view: View, members_min: usize, mutant: Option<Mutant>) -> Self {
        let change = ViewChange::new(own, view, members_min, mutant);
        Self { change, pending: None, is_patient: true, concludes: false, mutant, own }
    }

    /// The ballots.
    pub fn ballots(&self) -> &ViewChange {
        &self.change
    }

    /// Before the first view: another incarnation of a process was heard.
    pub fn replace(&mut self, member: Member) {
        self.change.replace(member);
    }

    /// Before the first view: the highest birth of an instance that this process knows of.
    pub fn note_birth(&mut self, birth: u64) {
        self.change.note_birth(birth);
    }

    // ---- inputs ---------------------------------------------------------------------------------------------------

    /// Begins a ballot.
    pub fn lead(&mut self, proposal: Proposal, out: &mut Commands) {
        let own = bit(self.own.rank);
        assert!((proposal.keep | proposal.leavers) & own != 0, "a proposal contains the proposer: {proposal:?}");
        if self.change.decided().is_some() {
            return;
        }
        self.change.lead(proposal);
        self.is_patient = true;
        self.pending = Some(Pending::Prepare);
        self.wedge(out);
    }

    /// Takes up what this member had stored before it was restarted, and begins a ballot: it sends nothing more in this
    /// view, so the view must end.
    pub fn restore(
        &mut self,
        promised: Ballot,
        accepted: Option<(Ballot, Value)>,
        detectors: &DetectorReport,
        out: &mut Commands,
    ) {
        self.change.restore(promised, accepted);
        self.lead_again(detectors, out);
    }

    /// The data plane is wedged, as the promise of `ballot` requires, and holds this.
    pub fn on_wedged(&mut self, ballot: Ballot, held: Cut, detectors: &DetectorReport, out: &mut Commands) {
        if ballot != self.change.promised() || self.change.decided().is_some() {
            return;
        }
        match self.pending.take() {
            Some(Pending::Prepare) => {
                self.change.on_held(held);
                self.repeat(out);
                out.push_back(Command::Arm(Timer::Patience));
                self.advance(detectors, out);
            }
            Some(Pending::State) => {
                let (ballot, step) = self.change.state(held);
                out.push_back(Command::Send { to: To::Member(ballot.proposer()), ballot, step });
            }
            None => {}
        }
    }

    /// A step was received from a member of this view, or from a joiner that this member's own value invites.
    ///
    /// # Errors
    /// If no member can have sent it; nothing has changed then.
    pub fn on_step(
        &mut self,
        from: Member,
        ballot: Ballot,
        step: Step,
        detectors: &DetectorReport,
        out: &mut Commands,
    ) -> Result<(), Implausible> {
        // What only this member holds would be in the cut, and no other could fetch it: as if its state was lost.
        let is_narrow = detectors.narrow & bit(from.rank) != 0 && self.change.leaves_out(from.rank);
        if is_narrow && matches!(step, Step::State { .. }) {
            return Ok(());
        }
        let (before, has_value) = (self.change.promised(), self.change.wanted().is_some());
        let reaction = self.change.on_step(from, ballot, step)?;
        assert!(self.change.promised() >= before, "no promise is taken back: {before:?}");
        if self.change.promised() > before {
            self.pending = None;
            self.wedge(out);
            out.push_back(Command::Arm(Timer::Takeover));
        }
        match reaction {
            Reaction::None => {}
            Reaction::Promised => {
                self.pending = Some(Pending::State);
                if self.change.promised() == before {
                    self.wedge(out); // asked again: this member may hold more by now
                }
            }
            Reaction::Refused(promised) => {
                out.push_back(Command::Send { to: To::Member(from.rank), ballot: promised, step: Step::Refuse });
            }
            Reaction::Proposed => {
                if !has_value {
                    out.push_back(Command::Arm(Timer::Takeover)); // the ballot has made progress
                }
                self.fetch(out);
            }
            Reaction::Progress => self.advance(detectors, out),
            Reaction::Decided => self.conclude(out),
        }
        Ok(())
    }

    /// This member holds all of the cut that it had to fetch for `ballot`.
    pub fn on_cut_held(&mut self, ballot: Ballot, detectors: &DetectorReport, out: &mut Commands) {
        if self.change.proposed_in() != Some(ballot) && self.mutant != Some(Mutant::StaleCutHeld) {
            return;
        }
        let Some((ballot, step)) = self.change.accept() else { return };
        if self.change.leads() == Some(ballot) {
            return self.advance(detectors, out);
        }
        out.push_back(Command::Send { to: To::Member(ballot.proposer()), ballot, step });
    }

    /// The reports of the detectors have changed.
    pub fn on_detector_report(&mut self, detectors: &DetectorReport, out: &mut Commands) {
        self.advance(detectors, out);
    }

    /// A timer has expired.
    pub fn on_timer(&mut self, timer: Timer, detectors: &DetectorReport, out: &mut Commands) {
        let (leads, forming) = (self.change.leads(), self.change.view().epoch == Epoch(0));
        if self.change.decided().is_some() {
            return;
        }
        if self.pending.is_some() {
            // Nothing can be sent before the data plane has reported, and each wait ends by a timer.
            out.push_back(Command::Arm(timer));
            return;
        }
        match timer {
            Timer::Repeat if leads.is_some() => self.repeat(out),
            Timer::Patience if leads.is_some() => {
                let stage = self.change.again();
                self.is_patient = false;
                self.advance(detectors, out);
                // Not even a quorum answers: the next ballot reaches members that have been restored since.
                if self.change.decided().is_none() && self.change.again() == stage && !forming {
                    self.lead_again(detectors, out);
                }
            }
            Timer::Takeover if leads.is_none() && self.change.is_wedged() && !forming => {
                self.lead_again(detectors, out)
            }
            Timer::Repeat | Timer::Patience | Timer::Takeover => {}
        }
    }

    /// The decided cut has been delivered.
    pub fn on_concluded(&mut self, out: &mut Commands) {
        let Some(value) = self.change.decided().cloned() else { return };
        assert!(self.concludes, "nothing is concluded that was not decided");
        out.push_back(Command::Install(value));
    }

    // ---- steps and commands ---------------------------------------------------------------------------------------

    /// Begins a ballot that keeps every member except those with evidence of their crash: suspicion is one member's
    /// opinion.
    fn lead_again(&mut self, detectors: &DetectorReport, out: &mut Commands) {
        let all = self.change.view().bits();
        let keep = match self.mutant {
            Some(Mutant::TakeoverAlone) => all & !detectors.suspects,
            _ => all & !(detectors.evidence | detectors.narrow),
        };
        self.lead(Proposal { keep: keep | bit(self.own.rank), ..Proposal::default() }, out);
    }

    /// Takes this member's own ballot as far as the answers allow.
    fn advance(&mut self, detectors: &DetectorReport, out: &mut Commands) {
        if self.change.leads().is_none() || self.change.decided().is_some() || self.pending.is_some() {
            return;
        }
        let awaited = self.change.awaited() & !(detectors.suspects | detectors.evidence);
        if self.is_patient && awaited != 0 {
            return;
        }
        if let Some((ballot, step)) = self.change.choose(detectors.suspects) {
            self.is_patient = true;
            out.push_back(Command::Send { to: To::All, ballot, step });
            out.push_back(Command::Arm(Timer::Repeat));
            out.push_back(Command::Arm(Timer::Patience));
            self.fetch(out);
        } else if let Some((ballot, step)) = self.change.decide() {
            out.push_back(Command::Send { to: To::All, ballot, step });
            self.conclude(out);
        }
    }

    fn repeat(&mut self, out: &mut Commands) {
        let Some((ballot, step)) = self.change.again() else { return };
        out.push_back(Command::Send { to: To::All, ballot, step });
        out.push_back(Command::Arm(Timer::Repeat));
    }

    fn wedge(&mut self, out: &mut Commands) {
        out.push_back(Command::Wedge(self.change.promised()));
    }

    fn fetch(&mut self, out: &mut Commands) {
        let (Some(value), Some(ballot)) = (self.change.wanted(), self.change.proposed_in()) else { return };
        assert!(self.change.is_wedged(), "a cut is fetched after a promise");
        out.push_back(Command::Fetch { ballot, cut: value.cut.clone(), stay: self.stay(value) });
    }

    fn conclude(&mut self, out: &mut Commands) {
        let Some(value) = self.change.decided().filter(|_| !self.concludes) else { return };
        out.push_back(Command::Conclude { cut: value.cut.clone(), stay: self.stay(value) });
        self.concludes = true;
    }

    /// The members of this view that go on to the next, in the same incarnation.
    fn stay(&self, value: &Value) -> u64 {
        continuing(self.change.view(), value)
    }

    /// Whether a value may follow this view: the members that continue are a quorum of it.
    pub fn may_install(&self, value: &Value) -> bool {
        self.change.allows(value) || self.mutant.is_some()
    }
}
