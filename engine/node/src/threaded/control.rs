//! The control thread: runs the control plane of a threaded node, so that no lock, election or ballot holds up a
//! message.
//!
//! A request for a lock costs searches, a grant a system call that wakes the caller, a ballot passes over the states of
//! all members. On the data agent's thread each of them would delay the messages behind it. Here the data agent only
//! passes values: what it learns goes to this thread, what the control plane gives comes back ([`DataEnd`]). Both ways
//! are bounded. What finds one full waits on its own side, in order, and is counted; neither thread waits for the
//! other.
//!
//! Each thread watches the other. If the data agent stands still for several times as long as the detectors wait, this
//! process holds no lock and leads nothing: the others suspect it by then, because the data agent sends the heartbeats.
//! If the control thread takes nothing of what it was sent for [`CONTROL_LEASE_NS`], the data agent stops
//! ([`DataEnd::is_halted`]): a member that can't release its locks must not stay in the group. A control thread that
//! has panicked ends the node.
//!
//! A wake-up costs more than the work behind it. What the coordinator can do nothing about yet is sent without one, and
//! so is what only a request can wait for, while there is none ([`Urgency`]): this thread takes it when it wakes next.
//! Where the data agent spins, this thread spins for [`SPIN_NS`] after its last work before it sleeps, while it has a
//! lock or an election. A thread that yields instead would take turns with the data agent on a host with few cores.
//!
//! Invariants: values arrive in order, each once. The data agent makes a system call here only to wake this thread when
//! it sleeps. What was asked for before the node was stopped is done before the data agent ends.

use crate::clock::Clock;
use crate::config::IdleStrategy;
use crate::inline::Node;
use crate::mailbox::{Receiver, Sender, mailbox};
use crate::threaded::locks::broker::Broker;
use crate::threaded::locks::commands::{COMMANDS_MAX, LockCommand, LockCommands};
use bourdon_port::Waker;
use bourdon_protocol::{ControlPlane, FromControl, ToControl, ToCoordinator};
use bourdon_ring::signal::{Bell, Flag, Sleeper, WatermarkReader, WatermarkWriter, doorbell, watermark};
use bourdon_wire::Instant;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::collections::VecDeque;
use std::sync::mpsc::TrySendError;
use std::thread::{Builder, JoinHandle};

/// Values on their way to the control thread: what some milliseconds of a storm of locks make.
const TO_CONTROL_MAX: usize = 4096;
/// How many of them it takes before it fetches the control plane's news, whose number is bounded.
const MAIL_A_ROUND: usize = 64;
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
/// How long the control thread sleeps at least: what is overdue waits for the data agent.
const SLEEP_MIN_NS: u64 = 1_000_000;

/// How long this thread looks for an answer before it sleeps, where the data agent spins: as long as a lock takes
/// that no other member requests.
const SPIN_NS: u64 = 100_000;

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
enum Mail {
    /// For the control plane.
    Report(ToControl),
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

/// Everything about the control thread that is made before it runs.
pub(crate) struct Prepared {
    mail: Receiver<Mail>,
    taken: WatermarkWriter,
    ran_at: WatermarkReader,
    settled: Flag,
    gone: Flag,
    commands: Receiver<LockCommand>,
    sleeper: Sleeper,
    /// Down only while it has a lock or an election.
    engaged: Sleeper,
    waker: Waker,
}

/// The ways to the control thread.
pub(crate) struct Ways {
    /// For the application's threads.
    pub(crate) commands: LockCommands,
    /// For the data agent.
    pub(crate) data: WayToControl,
    /// Wakes it.
    pub(crate) waker: Waker,
}

/// The data agent's way.
pub(crate) struct WayToControl {
    mail: Sender<Mail>,
    taken: WatermarkReader,
    /// When the data agent last ran.
    ran_at: WatermarkWriter,
    settled: Flag,
    gone: Flag,
    /// Whether it sleeps, and whether it sleeps with a lock or an election.
    bells: [Bell; 2],
    waker: Waker,
}

/// What the control thread needs of a data agent that runs.
pub(crate) struct FromData {
    pub(crate) plane: Box<ControlPlane>,
    pub(crate) orders: Sender<FromControl>,
    /// Wakes the data agent.
    pub(crate) waker: Waker,
}

/// Makes the mailboxes.
pub(crate) fn prepare() -> std::io::Result<(Prepared, Ways)> {
    let ((sleeper, bell), (engaged, engaged_bell), waker) = (doorbell(), doorbell(), Waker::new()?);
    let ring = || {
        let (mut bell, waker) = (bell.clone(), waker.clone());
        move || {
            if bell.must_ring() {
                waker.wake();
            }
        }
    };
    let (to_mail, mail) = mailbox(TO_CONTROL_MAX, || {}); // the data agent rings by itself
    let (to_broker, commands) = mailbox(COMMANDS_MAX, ring());
    let (taken, taken_by) = watermark(0);
    let (ran_at, ran_at_by) = watermark(0);
    let (settled, gone) = (Flag::new(), Flag::new());
    let data = WayToControl {
        mail: to_mail,
        taken: taken_by,
        ran_at,
        settled: settled.clone(),
        gone: gone.clone(),
        bells: [bell, engaged_bell],
        waker: waker.clone(),
    };
    let ways = Ways { commands: to_broker, data, waker: waker.clone() };
    Ok((Prepared { mail, taken, ran_at: ran_at_by, settled, gone, commands, sleeper, engaged, waker }, ways))
}

/// The data agent's end.
pub(crate) struct DataEnd {
    control: WayToControl,
    orders: Receiver<FromControl>,
    sent: u64,
    /// How much was sent when the control thread had last taken all of an earlier mark, and when that was.
    mark: (u64, Instant),
    probe_due: Instant,
    /// When the lease was last looked at.
    looked_at: Instant,
    is_stopping: bool,
    /// Values sent without a ring since the last ring.
    silent: usize,
    /// Rounds in which the way to the control thread was full.
    pub(crate) full: u64,
}

impl DataEnd {
    /// Its end, and the control thread's way back; `ring` wakes the data agent.
    pub(crate) fn new(
        mut control: WayToControl,
        now: Instant,
        ring: impl FnMut() + Send + 'static,
    ) -> (Self, Sender<FromControl>) {
        let (sender, orders) = mailbox(TO_DATA_MAX, ring);
        control.ran_at.advance(now.0);
        let (mark, is_stopping) = ((0, now), false);
        (
            Self { control, orders, sent: 0, mark, probe_due: now, looked_at: now, is_stopping, silent: 0, full: 0 },
            sender,
        )
    }

    /// Whether the control plane has given something.
    #[inline]
    pub(crate) fn has_orders(&self) -> bool {
        self.orders.has_values()
    }

    /// Passes values both ways. Returns how many the control plane had given.
    #[inline]
    pub(crate) fn exchange(&mut self, node: &mut Node) -> usize {
        let mut count = 0;
        while count < TAKE_MAX
            && let Some(order) = self.orders.take()
        {
            count += 1;
            node.obey(order);
        }
        while let Some(report) = node.poll_report() {
            if let Err(Mail::Report(report)) = self.send(Mail::Report(report)) {
                node.return_report(report);
                self.full += 1;
                break;
            }
        }
        let now = node.now();
        self.control.ran_at.advance(now.0);
        if self.control.taken.get() >= self.mark.0 {
            self.mark = (self.sent, now);
        }
        if now >= self.probe_due {
            self.probe_due = now + PROBE_NS;
            let _ = self.send(Mail::Probe); // a full way has enough to take
        }
        count
    }

    /// Sends it, or gives it back if there is no room.
    fn send(&mut self, mail: Mail) -> Result<(), Mail> {
        let urgency = if self.silent >= SILENT_MAX { Urgency::Always } else { mail.urgency() };
        match self.control.mail.try_send_silently(mail) {
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
        let WayToControl { bells: [asleep, engaged], waker, .. } = &mut self.control;
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
    pub(crate) fn is_halted(&mut self, now: Instant, node: &Node) -> bool {
        // This thread itself stood still meanwhile, and the other one probably with it.
        if now.since(self.looked_at) > CONTROL_LEASE_NS / 2 {
            self.mark.1 = now;
        }
        self.looked_at = now;
        now.since(self.mark.1) > CONTROL_LEASE_NS && self.control.taken.get() < self.mark.0
            || node.process().reports_waiting() > WAITING_MAX
    }

    /// Whether the control thread has panicked.
    #[inline]
    pub(crate) fn is_gone(&self) -> bool {
        self.control.gone.is_set()
    }

    /// The node is being stopped: whether what was asked for before has been settled and passed on.
    pub(crate) fn settles(&mut self, node: &Node) -> bool {
        if !self.is_stopping {
            self.is_stopping = self.send(Mail::Stopping).is_ok();
        }
        self.control.settled.is_set() && !self.has_orders() && !node.process().has_to_send()
    }
}

/// The running control thread.
#[derive(Debug)]
pub(crate) struct ControlThread {
    thread: Option<JoinHandle<()>>,
    end: Flag,
    waker: Waker,
}

impl Prepared {
    /// Starts the thread. It ends when the data agent has ended, or when the returned value is dropped.
    pub(crate) fn start(
        self,
        data: FromData,
        data_ended: Flag,
        (is_member, idle): (bool, IdleStrategy),
    ) -> std::io::Result<ControlThread> {
        let (end, waker, clock) = (Flag::new(), self.waker.clone(), Clock::start());
        let agent = ControlAgent {
            broker: Broker::new(is_member),
            taken_count: 0,
            asked: Vec::new(),
            backlog: VecDeque::new(),
            is_stopping: false,
            spin_ns: if idle == IdleStrategy::Spin { SPIN_NS } else { 0 },
            clock,
            ends: [end.clone(), data_ended],
            ways: self,
            data,
        };
        let builder = Builder::new().name("bourdon-control".to_owned());
        let thread = Some(builder.spawn(move || agent.run())?);
        Ok(ControlThread { thread, end, waker })
    }
}

impl ControlThread {
    /// Ends the thread.
    ///
    /// # Errors
    /// Its panic.
    pub(crate) fn join(mut self) -> std::thread::Result<()> {
        self.end()
    }

    fn end(&mut self) -> std::thread::Result<()> {
        self.end.set();
        self.waker.wake();
        self.thread.take().map_or(Ok(()), JoinHandle::join)
    }
}

impl Drop for ControlThread {
    fn drop(&mut self) {
        let _ = self.end(); // `join` is for callers that want the panic
    }
}

struct ControlAgent {
    ways: Prepared,
    data: FromData,
    broker: Broker,
    taken_count: u64,
    /// Commands taken that wait until all mail before them has been taken.
    asked: Vec<LockCommand>,
    /// What the data agent had no room for. The control plane gives nothing more until this is gone.
    backlog: VecDeque<FromControl>,
    is_stopping: bool,
    /// How long it spins after its last work, while it has a lock or an election.
    spin_ns: u64,
    clock: Clock,
    /// Set when this thread or the data agent must end, or has.
    ends: [Flag; 2],
}

impl Drop for ControlAgent {
    fn drop(&mut self) {
        self.ways.gone.set();
        self.data.waker.wake();
    }
}

impl ControlAgent {
    fn run(mut self) {
        let mut worked_at = self.clock.now();
        while !self.has_ended() {
            let count = self.work();
            if self.spin_ns > 0 && count > 0 {
                worked_at = self.clock.now();
            }
            if count > 0 {
                continue;
            }
            if self.spins(worked_at) {
                std::hint::spin_loop();
            } else {
                self.sleep();
            }
        }
    }

    /// Whether this thread looks again at once, because an answer may come sooner than a wake-up.
    fn spins(&self, worked_at: Instant) -> bool {
        let is_engaged = self.spin_ns > 0 && self.data.plane.coordinator.is_engaged();
        is_engaged && self.clock.now().since(worked_at) < self.spin_ns
    }

    fn has_ended(&self) -> bool {
        self.ends.iter().any(Flag::is_set)
    }

    /// One round. Returns how much there was to do.
    fn work(&mut self) -> usize {
        while self.asked.len() < COMMANDS_MAX
            && let Some(command) = self.ways.commands.take()
        {
            self.asked.push(command);
        }
        let now = self.clock.now();
        let mut count = self.take_mail(now);
        self.data.plane.look(now, Instant(self.ways.ran_at.get()));
        // An application that asks because of an event finds that the control plane knows of it: a command is carried
        // out after all mail that was here when it was taken.
        if count < MAIL_A_ROUND {
            count += self.asked.len();
            for command in self.asked.drain(..) {
                self.broker.carry_out(&mut self.data.plane.coordinator, now, command);
            }
        }
        if now >= self.data.plane.due() {
            self.data.plane.tend(now);
        }
        count += self.broker.work(&mut self.data.plane.coordinator, now);
        count += self.give(now);
        if self.is_stopping && count == 0 && self.backlog.is_empty() && !self.ways.settled.is_set() {
            self.ways.settled.set();
            self.data.waker.wake();
        }
        count
    }

    fn take_mail(&mut self, now: Instant) -> usize {
        let mut count = 0;
        // What the data agent has no room for comes first: what it sends meanwhile waits on its own side.
        while count < MAIL_A_ROUND
            && self.backlog.is_empty()
            && let Some(mail) = self.ways.mail.take()
        {
            count += 1;
            match mail {
                Mail::Report(report) => self.data.plane.take(now, report),
                Mail::Probe => {}
                Mail::Stopping => self.is_stopping = true,
            }
        }
        self.taken_count += count as u64;
        self.ways.taken.advance(self.taken_count);
        count
    }

    /// Gives the data agent what the control plane has for it. Returns how much found room.
    fn give(&mut self, now: Instant) -> usize {
        if self.backlog.is_empty() {
            let backlog = &mut self.backlog;
            self.data.plane.transmit(now, |order| backlog.push_back(order));
        }
        let mut count = 0;
        while let Some(order) = self.backlog.pop_front() {
            if let Err(TrySendError::Full(order)) = self.data.orders.try_send(order) {
                self.backlog.push_front(order);
                break;
            }
            count += 1;
        }
        count
    }

    /// Sleeps until there is mail or a command, or something is due.
    fn sleep(&mut self) {
        let now = self.clock.now();
        let due = self.data.plane.due().min(self.broker.due()).min(self.data.plane.look_due());
        let is_engaged = self.data.plane.coordinator.is_engaged();
        let is_held_up = !self.backlog.is_empty() || now >= due;
        let left_ns = if is_held_up { SLEEP_MIN_NS } else { due.since(now) };
        let Prepared { mail, commands, sleeper, engaged, waker, .. } = &mut self.ways;
        sleeper.lie_down();
        if is_engaged {
            engaged.lie_down();
        }
        // From here on a thread that adds work sees that it must ring; work added before is seen here.
        if !mail.has_values() && !commands.has_values() && !self.ends.iter().any(Flag::is_set) {
            let seconds = (left_ns / 1_000_000_000) as i64;
            let timeout = Timespec { tv_sec: seconds, tv_nsec: (left_ns % 1_000_000_000) as i64 };
            let mut fds = [PollFd::new(&*waker, PollFlags::IN)];
            let _ = poll(&mut fds, Some(&timeout)); // interrupted or not: it looks again
            waker.clear();
        }
        sleeper.get_up();
        engaged.get_up();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether the control thread was woken since the last call.
    fn is_woken(waker: &Waker) -> bool {
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        let woken = poll(&mut [PollFd::new(waker, PollFlags::IN)], Some(&now)).expect("an eventfd can be polled") > 0;
        waker.clear();
        woken
    }

    fn held() -> Mail {
        Mail::Report(ToControl::Coordinator(ToCoordinator::Held { batch: 1 }))
    }

    #[test]
    fn a_control_thread_without_requests_sleeps_through_the_locks_of_others() {
        let (mut prepared, ways) = prepare().expect("eventfds are allowed");
        let (mut data, _orders) = DataEnd::new(ways.data, Instant(0), || {});
        prepared.sleeper.lie_down();
        for _ in 0..SILENT_MAX {
            assert!(data.send(held()).is_ok() && !is_woken(&ways.waker));
        }
        assert!(data.send(held()).is_ok() && is_woken(&ways.waker), "what waits is bounded");
        prepared.sleeper.get_up();
        prepared.sleeper.lie_down();
        assert!(data.send(Mail::Probe).is_ok() && is_woken(&ways.waker));
        assert_eq!(std::iter::from_fn(|| prepared.mail.take()).count(), SILENT_MAX + 2);
    }

    #[test]
    fn a_control_thread_with_a_request_is_woken_once_a_quorum_holds_the_command() {
        let (mut prepared, ways) = prepare().expect("eventfds are allowed");
        let (mut data, _orders) = DataEnd::new(ways.data, Instant(0), || {});
        prepared.sleeper.lie_down();
        prepared.engaged.lie_down();
        data.ring(Urgency::Never); // as for a command that has only its place in the order
        assert!(!is_woken(&ways.waker));
        assert!(data.send(held()).is_ok() && is_woken(&ways.waker));
        assert!(data.send(held()).is_ok() && !is_woken(&ways.waker), "once");
    }
}
