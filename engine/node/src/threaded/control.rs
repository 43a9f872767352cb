//! The control thread: runs the coordinator of a threaded node, so that no lock or election holds up a message.
//!
//! A request for a lock costs searches, and a grant a system call that wakes the caller. On the data agent's thread
//! each of them would delay the messages behind it. Here the data agent only passes values: what it learns goes to this
//! thread, what the coordinator gives comes back ([`DataEnd`]). Both ways are bounded. What finds one full waits on its
//! own side, in order, and is counted; neither thread waits for the other.
//!
//! Each thread watches the other. If the control thread hears nothing of the data agent for several times as long as
//! the detectors wait, the others have gone on without this member: it holds no lock and leads nothing. If the control
//! thread takes nothing for [`CONTROL_LEASE_NS`], the data agent stops ([`DataEnd::is_halted`]): a member that can't
//! release its locks must not stay in the group.
//!
//! Invariants: values arrive in order, each once. The data agent makes a system call here only to wake this thread when
//! it sleeps.

use crate::clock::Clock;
use crate::inline::Node;
use crate::mailbox::{Receiver, Sender, mailbox};
use crate::threaded::commands::{COMMANDS_MAX, LockCommand, LockCommands};
use crate::threaded::locks::broker::Broker;
use bourdon_port::Waker;
use bourdon_protocol::{Coordinator, FromCoordinator, ToCoordinator};
use bourdon_ring::signal::{Flag, Sleeper, WatermarkReader, WatermarkWriter, doorbell, watermark};
use bourdon_wire::Instant;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::collections::VecDeque;
use std::sync::mpsc::TrySendError;
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

/// Values on their way to the control thread: what some milliseconds of a storm of locks make.
const TO_CONTROL_MAX: usize = 4096;
/// Values on their way back: each is one message to send, and the data agent takes them every round.
const TO_DATA_MAX: usize = 1024;
/// How many of them it takes a round, so that a storm can't starve the network.
const TAKE_MAX: usize = 64;
/// How often the data agent reports that it runs: several times in what the detectors wait.
const ALIVE_NS: u64 = 10_000_000;
/// How many times as long as the detectors wait the data agent may be silent before its locks are given up. A host with
/// more work than cores delays a thread for longer than the detectors wait, and the others trust it again.
const SILENCE_FACTOR: u64 = 4;
/// How long the control thread may take nothing. Longer than a loaded host keeps a thread waiting, and short enough
/// that the others do not wait long for the locks of a member whose control thread is gone.
const CONTROL_LEASE_NS: u64 = 1_000_000_000;
/// How long the control thread sleeps at least: what is overdue waits for the data agent.
const SLEEP_MIN_NS: u64 = 1_000_000;

/// From the data agent.
#[derive(Debug)]
enum Mail {
    /// For the coordinator.
    Report(ToCoordinator),
    /// The data agent ran at this time.
    Alive(Instant),
}

/// Everything about the control thread that is made before it runs.
pub(crate) struct Prepared {
    mail: Receiver<Mail>,
    taken: WatermarkWriter,
    commands: Receiver<LockCommand>,
    sleeper: Sleeper,
    waker: Waker,
}

/// The ways to the control thread.
pub(crate) struct Ways {
    /// For the application's threads.
    pub(crate) commands: LockCommands,
    /// For the data agent.
    pub(crate) data: ToControl,
    /// Wakes it.
    pub(crate) waker: Waker,
}

/// The data agent's way.
pub(crate) struct ToControl {
    mail: Sender<Mail>,
    taken: WatermarkReader,
}

/// What the control thread needs of a data agent that runs.
pub(crate) struct FromData {
    pub(crate) coordinator: Box<Coordinator>,
    pub(crate) orders: Sender<FromCoordinator>,
    /// After so long without a sign of it, the other members suspect this one.
    pub(crate) suspect_after_ns: u64,
}

/// Makes the mailboxes.
pub(crate) fn prepare() -> std::io::Result<(Prepared, Ways)> {
    let ((sleeper, bell), waker) = (doorbell(), Waker::new()?);
    let ring = || {
        let (mut bell, waker) = (bell.clone(), waker.clone());
        move || {
            if bell.must_ring() {
                waker.wake();
            }
        }
    };
    let (to_mail, mail) = mailbox(TO_CONTROL_MAX, ring());
    let (to_broker, commands) = mailbox(COMMANDS_MAX, ring());
    let (taken, taken_by) = watermark(0);
    let data = ToControl { mail: to_mail, taken: taken_by };
    let ways = Ways { commands: to_broker, data, waker: waker.clone() };
    Ok((Prepared { mail, taken, commands, sleeper, waker }, ways))
}

/// The data agent's end.
pub(crate) struct DataEnd {
    control: ToControl,
    orders: Receiver<FromCoordinator>,
    sent: u64,
    alive_due: Instant,
    /// How much was sent when the control thread had last taken all of an earlier mark, and when that was.
    mark: (u64, Instant),
    /// When the lease was last looked at.
    looked_at: Instant,
    /// Rounds in which the way to the control thread was full.
    pub(crate) full: u64,
}

impl DataEnd {
    /// Its end, and the control thread's way back; `ring` wakes the data agent.
    pub(crate) fn new(
        control: ToControl,
        now: Instant,
        ring: impl FnMut() + Send + 'static,
    ) -> (Self, Sender<FromCoordinator>) {
        let (sender, orders) = mailbox(TO_DATA_MAX, ring);
        (Self { control, orders, sent: 0, alive_due: now, mark: (0, now), looked_at: now, full: 0 }, sender)
    }

    /// Whether the coordinator has given something.
    #[inline]
    pub(crate) fn has_orders(&self) -> bool {
        self.orders.has_values()
    }

    /// Passes values both ways. Returns how many the coordinator had given.
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
            if let Err(TrySendError::Full(Mail::Report(report))) = self.control.mail.try_send(Mail::Report(report)) {
                node.return_report(report);
                self.full += 1;
                break;
            }
            self.sent += 1;
        }
        if node.now() >= self.alive_due {
            self.show_life(node.now());
        }
        count
    }

    #[cold]
    fn show_life(&mut self, now: Instant) {
        self.alive_due = now + ALIVE_NS;
        self.sent += u64::from(self.control.mail.try_send(Mail::Alive(now)).is_ok());
        if self.control.taken.get() >= self.mark.0 {
            self.mark = (self.sent, now);
        }
    }

    /// How long the data agent may sleep until it must report that it runs.
    pub(crate) fn sleep_max(&self, now: Instant) -> Duration {
        Duration::from_nanos(self.alive_due.since(now))
    }

    /// Whether the control thread has taken nothing for its lease.
    #[inline]
    pub(crate) fn is_halted(&mut self, now: Instant) -> bool {
        // This thread itself stood still meanwhile, and the other one probably with it.
        if now.since(self.looked_at) > CONTROL_LEASE_NS / 2 {
            self.mark.1 = now;
        }
        self.looked_at = now;
        now.since(self.mark.1) > CONTROL_LEASE_NS && self.control.taken.get() < self.mark.0
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
    pub(crate) fn start(self, data: FromData, data_ended: Flag, is_member: bool) -> std::io::Result<ControlThread> {
        let Self { mail, taken, commands, sleeper, waker } = self;
        let FromData { coordinator, orders, suspect_after_ns } = data;
        let (end, clock) = (Flag::new(), Clock::start());
        let agent = ControlAgent {
            coordinator,
            broker: Broker::new(is_member),
            mail,
            taken,
            taken_count: 0,
            commands,
            asked: Vec::new(),
            orders,
            backlog: VecDeque::new(),
            sleeper,
            waker: waker.clone(),
            clock,
            ran_at: clock.now(),
            silence_max_ns: SILENCE_FACTOR * suspect_after_ns,
            ends: [end.clone(), data_ended],
        };
        let builder = Builder::new().name("bourdon-control".to_owned());
        let thread = Some(builder.spawn(move || agent.run())?);
        Ok(ControlThread { thread, end, waker })
    }
}

impl Drop for ControlThread {
    fn drop(&mut self) {
        self.end.set();
        self.waker.wake();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join(); // its panic has been printed; the node's own outcome is the data agent's
        }
    }
}

struct ControlAgent {
    coordinator: Box<Coordinator>,
    broker: Broker,
    mail: Receiver<Mail>,
    taken: WatermarkWriter,
    taken_count: u64,
    commands: Receiver<LockCommand>,
    /// What was taken of them in this round.
    asked: Vec<LockCommand>,
    orders: Sender<FromCoordinator>,
    /// What the data agent had no room for. The coordinator gives nothing more until this is gone.
    backlog: VecDeque<FromCoordinator>,
    sleeper: Sleeper,
    waker: Waker,
    clock: Clock,
    /// When the data agent last ran, by its own report.
    ran_at: Instant,
    /// It may be silent for so long.
    silence_max_ns: u64,
    /// Set when this thread or the data agent must end, or has.
    ends: [Flag; 2],
}

impl ControlAgent {
    fn run(mut self) {
        while !self.ends.iter().any(Flag::is_set) {
            if self.work() == 0 {
                self.sleep();
            }
        }
    }

    /// One round. Returns how much there was to do.
    fn work(&mut self) -> usize {
        // Commands that are here now are carried out after all mail that is here now: an application that sends one
        // because of an event finds that the coordinator knows of it.
        while self.asked.len() < COMMANDS_MAX
            && let Some(command) = self.commands.take()
        {
            self.asked.push(command);
        }
        let now = self.clock.now();
        let mut count = 0;
        while count < TO_CONTROL_MAX
            && let Some(mail) = self.mail.take()
        {
            count += 1;
            match mail {
                Mail::Report(report) => self.coordinator.take(now, report),
                Mail::Alive(at) => self.ran_at = at,
            }
        }
        self.taken_count += count as u64;
        self.taken.advance(self.taken_count);
        self.coordinator.note_silence(now.since(self.ran_at) > self.silence_max_ns);
        let asked = self.asked.len();
        for command in self.asked.drain(..) {
            self.broker.carry_out(&mut self.coordinator, now, command);
        }
        if now >= self.coordinator.due() {
            self.coordinator.tend(now);
        }
        count += asked + self.broker.work(&mut self.coordinator, now);
        if self.backlog.is_empty() {
            let backlog = &mut self.backlog;
            self.coordinator.transmit(now, |order| backlog.push_back(order));
        }
        while let Some(order) = self.backlog.pop_front() {
            if let Err(TrySendError::Full(order)) = self.orders.try_send(order) {
                self.backlog.push_front(order);
                break;
            }
        }
        count
    }

    /// Sleeps until there is mail or a command, or something is due.
    fn sleep(&mut self) {
        let due = self.coordinator.due().min(self.broker.due()).min(self.ran_at + self.silence_max_ns);
        let now = self.clock.now();
        let is_held_up = !self.backlog.is_empty() || now >= due;
        let left_ns = if is_held_up { SLEEP_MIN_NS } else { due.since(now) };
        self.sleeper.lie_down();
        // From here on a thread that adds work sees that it must ring; work added before is seen here.
        if !self.mail.has_values() && !self.commands.has_values() && !self.ends.iter().any(Flag::is_set) {
            let timeout =
                Timespec { tv_sec: (left_ns / 1_000_000_000) as i64, tv_nsec: (left_ns % 1_000_000_000) as i64 };
            let mut fds = [PollFd::new(&self.waker, PollFlags::IN)];
            let _ = poll(&mut fds, Some(&timeout)); // interrupted or not: it looks again
            self.waker.clear();
        }
        self.sleeper.get_up();
    }
}
