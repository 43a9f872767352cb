//! The way between a group's data plane and its control plane: two mailboxes, and what each side watches of the other.
//!
//! The data agent has one end, [`DataEnd`], the control thread the other, [`PlaneEnd`]. Both mailboxes are bounded.
//! What finds one full waits on its own side, in order, and is counted; neither thread waits for the other.
//!
//! A wake-up costs more than the work behind it. What the coordinator can do nothing about yet is sent without one, and
//! so is what only a request can wait for, while there is none ([`Urgency`]): the control thread takes it when it wakes
//! next.
//!
//! Invariants: values arrive in order, each once. The data agent makes a system call here only to wake the control
//! thread when it sleeps.

use crate::inline::InlineNode;
use crate::mailbox::{Receiver, Sender, mailbox};
use bourdon_port::Waker;
use bourdon_protocol::control::detector::Judgement;
use bourdon_protocol::{FromControl, ToControl, ToCoordinator};
use bourdon_ring::signal::{Bell, Flag, WatermarkReader, WatermarkWriter, watermark};
use bourdon_wire::Instant;
use std::sync::mpsc::TrySendError;

/// Values on their way to the control thread: what some milliseconds of a storm of locks make.
const TO_CONTROL_MAX: usize = 4096;
/// How many of them it takes before it fetches the control plane's news, whose number is bounded.
pub(super) const MAIL_A_ROUND: usize = 64;
/// Values on their way back: each is one message to send, and the data agent takes them every round.
const TO_DATA_MAX: usize = 1024;
/// How many of them it takes a round, so that a storm can't starve the network.
const TAKE_MAX: usize = 64;
/// Values that wait at the data agent for room: more means that the control thread can't keep up, and the data agent
/// stops until it has caught up.
const WAITING_MAX: usize = 65_536;
/// How many values are sent without a ring before the next one rings: a round of the control thread.
const SILENT_MAX: usize = MAIL_A_ROUND;
/// How long the control thread may take nothing. Longer than a loaded host keeps a thread waiting, and short enough
/// that the others do not wait long for the locks of a member whose control thread is gone.
const CONTROL_LEASE_NS: u64 = 1_000_000_000;
/// How often the data agent sends something to take, if there is nothing else.
const PROBE_NS: u64 = CONTROL_LEASE_NS / 4;

/// How soon the control thread must take a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Urgency {
    /// At once.
    Always,
    /// At once if it has a lock or an election.
    Engaged,
    /// Before what follows.
    Never,
}

/// From the data agent.
#[derive(Debug)]
pub(super) enum Mail {
    /// For the control plane.
    Report(ToControl),
    /// What the group's detectors suspect, for the channels that lean on them.
    Judgement(Judgement),
    /// To be taken.
    Probe,
    /// The node is being stopped: settle what was asked for before.
    Stopping,
}

impl Mail {
    fn urgency(&self) -> Urgency {
        match self {
            // A command takes effect once a quorum holds it, which is reported as well, or once its view has ended.
            Self::Report(ToControl::Coordinator(ToCoordinator::Ordered { .. })) => Urgency::Never,
            Self::Report(ToControl::Coordinator(ToCoordinator::Held { .. })) => Urgency::Engaged,
            _ => Urgency::Always,
        }
    }
}

/// From the control thread.
#[derive(Debug)]
pub(super) enum ToData {
    /// From the control plane.
    Order(FromControl),
    /// What the detectors of the group that this is a channel of suspect.
    Judgement(Judgement),
}

/// What wakes the control thread.
#[derive(Clone, Debug)]
pub(super) struct Rings {
    /// Rung while it sleeps.
    pub(super) asleep: Bell,
    /// Rung while it sleeps and has a lock or an election.
    pub(super) engaged: Bell,
    pub(super) waker: Waker,
}

/// The control thread's end.
pub(super) struct PlaneEnd {
    pub(super) mail: Receiver<Mail>,
    pub(super) taken: WatermarkWriter,
    /// When the data agent last ran.
    pub(super) ran_at: WatermarkReader,
    pub(super) settled: Flag,
    pub(super) gone: Flag,
    pub(super) orders: Sender<ToData>,
    /// Wakes the data agent.
    pub(super) data: Waker,
}

impl Drop for PlaneEnd {
    fn drop(&mut self) {
        self.gone.set();
        self.data.wake();
    }
}

/// Both ends. `rings` wakes the control thread; `ring` wakes the data agent if it sleeps, `data` in any case.
pub(super) fn ends_of(
    rings: Rings,
    now: Instant,
    ring: impl FnMut() + Send + 'static,
    data: Waker,
) -> (DataEnd, PlaneEnd) {
    let (to_mail, mail) = mailbox(TO_CONTROL_MAX, || {}); // the data agent rings by itself
    let (sender, orders) = mailbox(TO_DATA_MAX, ring);
    let ((taken, taken_by), (ran_at, ran_at_by)) = (watermark(0), watermark(now.0));
    let (settled, gone) = (Flag::new(), Flag::new());
    let end = DataEnd {
        mail: to_mail,
        taken: taken_by,
        ran_at,
        settled: settled.clone(),
        gone: gone.clone(),
        control: rings,
        orders,
        sent: 0,
        mark: (0, now),
        probe_due: now,
        looked_at: now,
        is_stopping: false,
        judgement: Judgement::default(),
        silent: 0,
        full: 0,
    };
    (end, PlaneEnd { mail, taken, ran_at: ran_at_by, settled, gone, orders: sender, data })
}

/// The data agent's end.
pub(crate) struct DataEnd {
    mail: Sender<Mail>,
    taken: WatermarkReader,
    /// When the data agent last ran.
    ran_at: WatermarkWriter,
    settled: Flag,
    gone: Flag,
    control: Rings,
    orders: Receiver<ToData>,
    sent: u64,
    /// How much was sent when the control thread had last taken all of an earlier mark, and when that was.
    mark: (u64, Instant),
    probe_due: Instant,
    /// When the lease was last looked at.
    looked_at: Instant,
    is_stopping: bool,
    /// What was last reported of the detectors.
    judgement: Judgement,
    /// Values sent without a ring since the last ring.
    silent: usize,
    /// Rounds in which the way to the control thread was full.
    pub(crate) full: u64,
}

impl DataEnd {
    /// Both threads run from now on.
    pub(crate) fn begin(&mut self, now: Instant) {
        self.ran_at.advance(now.0);
        (self.mark.1, self.probe_due, self.looked_at) = (now, now, now);
    }

    /// Whether the control plane has given something.
    #[inline]
    pub(crate) fn has_orders(&self) -> bool {
        self.orders.has_values()
    }

    /// Passes values both ways. Returns how many the control plane had given.
    #[inline]
    pub(crate) fn exchange(&mut self, node: &mut InlineNode) -> usize {
        let mut count = 0;
        while count < TAKE_MAX
            && let Some(order) = self.orders.take()
        {
            count += 1;
            match order {
                ToData::Order(order) => node.engine.obey(order),
                ToData::Judgement(judgement) => node.engine.judge(judgement),
            }
        }
        while let Some(report) = node.engine.poll_report() {
            if let Err(Mail::Report(report)) = self.send(Mail::Report(report)) {
                node.engine.return_report(report);
                self.full += 1;
                break;
            }
        }
        let now = node.engine.now();
        self.ran_at.advance(now.0);
        if self.taken.get() >= self.mark.0 {
            self.mark = (self.sent, now);
        }
        if now >= self.probe_due {
            self.probe_due = now + PROBE_NS;
            let _ = self.send(Mail::Probe); // a full way has enough to take
        }
        count
    }

    /// Reports what the detectors suspect, if that has changed: no member, while this process is in no view. Returns
    /// whether it has been reported.
    #[cold]
    pub(crate) fn report_judgement(&mut self, node: &InlineNode) -> bool {
        let judgement = node.engine.process().judgement().unwrap_or(Judgement { suspects: 0, ..self.judgement });
        let is_known = judgement == self.judgement || self.send(Mail::Judgement(judgement)).is_ok();
        if is_known {
            self.judgement = judgement;
        }
        is_known
    }

    /// Sends it, or gives it back if there is no room.
    fn send(&mut self, mail: Mail) -> Result<(), Mail> {
        let urgency = if self.silent >= SILENT_MAX { Urgency::Always } else { mail.urgency() };
        match self.mail.try_send_silently(mail) {
            Err(TrySendError::Full(mail)) => Err(mail),
            Ok(()) | Err(TrySendError::Disconnected(_)) => {
                self.sent += 1;
                self.ring(urgency);
                Ok(())
            }
        }
    }

    /// Wakes the control thread, if it sleeps and the value that was sent requires it.
    fn ring(&mut self, urgency: Urgency) {
        let Rings { asleep, engaged, waker } = &mut self.control;
        let rings = match urgency {
            Urgency::Always => asleep.must_ring(),
            Urgency::Engaged => engaged.must_ring(),
            Urgency::Never => false,
        };
        if rings {
            waker.wake();
        }
        self.silent = if rings || urgency == Urgency::Always { 0 } else { self.silent + 1 };
    }

    /// Whether the data agent must stand still: the control thread has taken nothing for its lease, or can't keep up.
    #[inline]
    pub(crate) fn is_halted(&mut self, now: Instant, node: &InlineNode) -> bool {
        // This thread itself stood still meanwhile, and the other one probably with it.
        if now.since(self.looked_at) > CONTROL_LEASE_NS / 2 {
            self.mark.1 = now;
        }
        self.looked_at = now;
        now.since(self.mark.1) > CONTROL_LEASE_NS && self.taken.get() < self.mark.0
            || node.engine.process().reports_waiting() > WAITING_MAX
    }

    /// Whether the control thread has panicked.
    #[inline]
    pub(crate) fn is_gone(&self) -> bool {
        self.gone.is_set()
    }

    /// The node is being stopped: whether what was asked for before has been settled and passed on.
    pub(crate) fn settles(&mut self, node: &InlineNode) -> bool {
        if !self.is_stopping {
            self.is_stopping = self.send(Mail::Stopping).is_ok();
        }
        self.settled.is_set() && !self.has_orders() && !node.engine.process().has_to_send()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bourdon_ring::signal::{Sleeper, doorbell};
    use rustix::event::{PollFd, PollFlags, Timespec, poll};

    /// Whether the control thread was woken since the last call.
    fn is_woken(waker: &Waker) -> bool {
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        let woken = poll(&mut [PollFd::new(waker, PollFlags::IN)], Some(&now)).expect("an eventfd can be polled") > 0;
        waker.clear();
        woken
    }

    fn ends() -> (DataEnd, PlaneEnd, [Sleeper; 2], Waker) {
        let waker = Waker::new().expect("eventfds are allowed");
        let ((sleeper, asleep), (engaged_sleeper, engaged)) = (doorbell(), doorbell());
        let rings = Rings { asleep, engaged, waker: waker.clone() };
        let (data, plane) = ends_of(rings, Instant(0), || {}, waker.clone());
        (data, plane, [sleeper, engaged_sleeper], waker)
    }

    fn held() -> Mail {
        Mail::Report(ToControl::Coordinator(ToCoordinator::Held { batch: 1 }))
    }

    #[test]
    fn a_control_thread_without_requests_sleeps_through_the_locks_of_others() {
        let (mut data, mut plane, [mut sleeper, _], waker) = ends();
        sleeper.lie_down();
        for _ in 0..SILENT_MAX {
            assert!(data.send(held()).is_ok() && !is_woken(&waker));
        }
        assert!(data.send(held()).is_ok() && is_woken(&waker), "what waits is bounded");
        sleeper.get_up();
        sleeper.lie_down();
        assert!(data.send(Mail::Probe).is_ok() && is_woken(&waker));
        assert_eq!(std::iter::from_fn(|| plane.mail.take()).count(), SILENT_MAX + 2);
    }

    #[test]
    fn a_control_thread_with_a_request_is_woken_once_a_quorum_holds_the_command() {
        let (mut data, _plane, [mut sleeper, mut engaged], waker) = ends();
        sleeper.lie_down();
        engaged.lie_down();
        data.ring(Urgency::Never); // as for a command that has only its place in the order
        assert!(!is_woken(&waker));
        assert!(data.send(held()).is_ok() && is_woken(&waker));
        assert!(data.send(held()).is_ok() && !is_woken(&waker), "once");
    }
}
