//! The control thread: runs the control planes of a threaded node's groups, so that no lock, election or ballot holds
//! up a message.
//!
//! A request for a lock costs searches, a grant a system call that wakes the caller, a ballot passes over the states of
//! all members. On the data agent's thread each of them would delay the messages behind it. Here the data agent only
//! passes values: what it learns goes to this thread, what the control plane gives comes back ([`way`]). One thread
//! serves all groups of the node ([`seat`]), whichever data agent runs them.
//!
//! Each thread watches the other. If the data agent stands still for several times as long as the detectors wait, this
//! process holds no lock and leads nothing: the others suspect it by then, because the data agent sends the heartbeats.
//! If the control thread takes nothing of what it was sent for a second, the data plane stops ([`DataEnd::is_halted`]):
//! a member that can't release its locks must not stay in the group. A control thread that has panicked ends the node.
//!
//! Where the data agent spins, this thread spins for [`SPIN_NS`] after its last work before it sleeps, while it has a
//! lock or an election. A thread that yields instead would take turns with the data agent on a host with few cores.
//! Where threads share a core, this one waits for its turn ([`yield_to_agents`]).

mod seat;
mod way;

pub(crate) use way::DataEnd;

use crate::config::{IdleStrategy, Settings};
use crate::inline::InlineNode;
use crate::locks::commands::{COMMANDS_MAX, LockCommand, Route};
use crate::mailbox::{Receiver, Sender, mailbox};
use crate::placement::yield_to_agents;
use crate::threaded::end::{Outcome, join};
use bourdon_engine::Clock;
use bourdon_port::{Port, Waker};
use bourdon_protocol::ControlPlane;
use bourdon_ring::signal::{Flag, Sleeper, doorbell};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use seat::Seat;
use std::sync::Mutex;
use std::thread::{Builder, JoinHandle, ThreadId};
use way::{PlaneEnd, Rings, ends_of};

/// How long this thread looks for an answer before it sleeps, where the data agent spins: as long as a lock takes
/// that no other member requests.
const SPIN_NS: u64 = 100_000;
/// Groups that were joined and not taken.
const ARRIVALS_MAX: usize = 16;

/// A group's seat, until the control plane has it. Requests wait in it meanwhile.
pub(crate) struct Vacancy {
    commands: Receiver<LockCommand>,
    ended: Flag,
    end: PlaneEnd,
    outcome: Outcome,
}

/// The running control thread.
#[derive(Debug)]
pub(crate) struct ControlThread {
    thread: Mutex<Option<JoinHandle<()>>>,
    id: ThreadId,
    end: Flag,
    has_panicked: Flag,
    rings: Rings,
    arrivals: Sender<Box<Seat>>,
}

impl ControlThread {
    /// Starts the thread, beside data agents that idle so.
    pub(crate) fn start(idle: IdleStrategy) -> std::io::Result<Self> {
        let ((sleeper, asleep), (engaged_sleeper, engaged), waker) = (doorbell(), doorbell(), Waker::new()?);
        let rings = Rings { asleep, engaged, waker: waker.clone() };
        let (sender, arrivals) = mailbox(ARRIVALS_MAX, ring(&rings));
        let (end, has_panicked) = (Flag::new(), Flag::new());
        let agent = ControlAgent {
            seats: Vec::new(),
            arrivals,
            sleeper,
            engaged: engaged_sleeper,
            waker,
            spin_ns: if idle == IdleStrategy::Spin { SPIN_NS } else { 0 },
            clock: Clock::start(),
            end: end.clone(),
            has_panicked: has_panicked.clone(),
        };
        let builder = Builder::new().name("bourdon-control".to_owned());
        let thread = builder.spawn(move || agent.run())?;
        let (id, thread) = (thread.thread().id(), Mutex::new(Some(thread)));
        Ok(Self { thread, id, end, has_panicked, rings, arrivals: sender })
    }

    /// Prepares to take a group's control plane over. `ring` wakes the group's data agent if it sleeps; `ended` is set
    /// when the group has ended, and [`ControlThread::waker`] woken; then the seat is dropped, `outcome` last. Returns
    /// the data agent's end, the way for requests, and the seat.
    pub(crate) fn prepare(
        &self,
        node: &InlineNode,
        ring_data: impl FnMut() + Send + 'static,
        (ended, outcome): (Flag, Outcome),
    ) -> (DataEnd, Route, Vacancy) {
        let (to_broker, commands) = mailbox(COMMANDS_MAX, ring(&self.rings));
        let (data, end) = ends_of(self.rings.clone(), node.engine.now(), ring_data, node.engine.port().waker());
        (data, Route::Control(to_broker), Vacancy { commands, ended, end, outcome })
    }

    /// Takes the control plane of a group over.
    pub(crate) fn take_over(&self, settings: &Settings, plane: Box<ControlPlane>, vacancy: Vacancy) {
        let Vacancy { commands, ended, end, outcome } = vacancy;
        self.arrivals.send(Box::new(Seat::new(settings, plane, commands, ended, end, outcome)));
    }

    /// Wakes the thread.
    pub(crate) fn waker(&self) -> &Waker {
        &self.rings.waker
    }

    pub(crate) fn has_panicked(&self) -> bool {
        self.has_panicked.is_set()
    }

    /// Whether the caller is this thread: in a callback of a lock or an election.
    pub(crate) fn is_current(&self) -> bool {
        self.id == std::thread::current().id()
    }

    /// Ends the thread; as [`join`].
    ///
    /// # Errors
    /// Its panic, the first time.
    pub(crate) fn end(&self) -> std::thread::Result<()> {
        self.end.set();
        self.rings.waker.wake();
        join(&self.thread)
    }
}

/// Wakes the thread if it sleeps.
fn ring(rings: &Rings) -> impl FnMut() + Send + use<> {
    let Rings { mut asleep, waker, .. } = rings.clone();
    move || {
        if asleep.must_ring() {
            waker.wake();
        }
    }
}

struct ControlAgent {
    seats: Vec<Seat>,
    arrivals: Receiver<Box<Seat>>,
    sleeper: Sleeper,
    /// Down only while it has a lock or an election.
    engaged: Sleeper,
    waker: Waker,
    /// How long it spins after its last work, while it has a lock or an election.
    spin_ns: u64,
    clock: Clock,
    end: Flag,
    has_panicked: Flag,
}

impl Drop for ControlAgent {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.has_panicked.set(); // before the groups see that their control plane is gone
        }
    }
}

impl ControlAgent {
    fn run(mut self) {
        yield_to_agents();
        let mut worked_at = self.clock.now();
        while !self.end.is_set() {
            while let Some(seat) = self.arrivals.take() {
                self.welcome(*seat);
            }
            let now = self.clock.now();
            let count: usize = self.seats.iter_mut().map(|seat| seat.work(now)).sum();
            self.seats.iter_mut().for_each(Seat::note_end);
            self.pass_judgements_on();
            self.seats.retain(|seat| !seat.is_over());
            if self.spin_ns > 0 && count > 0 {
                worked_at = self.clock.now();
            }
            if count > 0 {
                continue;
            }
            let is_engaged = self.seats.iter().any(Seat::is_engaged);
            // An answer may come sooner than a wake-up.
            if is_engaged && self.spin_ns > 0 && self.clock.now().since(worked_at) < self.spin_ns {
                std::hint::spin_loop();
            } else {
                self.sleep(is_engaged);
            }
        }
    }

    /// Takes a group in. A channel learns what its group's detectors suspect.
    fn welcome(&mut self, mut seat: Seat) {
        if let Some(judgement) = self.seats.iter().find(|group| seat.leans_on(group)).and_then(Seat::judgement) {
            seat.judge(judgement);
        }
        self.seats.push(seat);
    }

    /// Passes what a group's detectors suspect on to the channels that lean on them.
    fn pass_judgements_on(&mut self) {
        for place in 0..self.seats.len() {
            let Some(judgement) = self.seats[place].take_judgement() else { continue };
            let (before, rest) = self.seats.split_at_mut(place);
            let Some((group, behind)) = rest.split_first_mut() else { continue };
            let channels = before.iter_mut().chain(behind).filter(|seat| seat.leans_on(group));
            channels.for_each(|seat| seat.judge(judgement));
        }
    }

    /// Sleeps until there is mail or a command, or something is due.
    fn sleep(&mut self, is_engaged: bool) {
        let now = self.clock.now();
        let left_ns = self.seats.iter().map(|seat| seat.idle_ns(now)).min().unwrap_or(u64::MAX);
        self.sleeper.lie_down();
        if is_engaged {
            self.engaged.lie_down();
        }
        // From here on a thread that adds work sees that it must ring; work added before is seen here.
        if !self.arrivals.has_values() && !self.end.is_set() && !self.seats.iter().any(Seat::has_news) {
            let seconds = (left_ns / 1_000_000_000) as i64;
            let timeout = Timespec { tv_sec: seconds, tv_nsec: (left_ns % 1_000_000_000) as i64 };
            let mut fds = [PollFd::new(&self.waker, PollFlags::IN)];
            let _ = poll(&mut fds, Some(&timeout)); // interrupted or not: it looks again
            self.waker.clear();
        }
        self.sleeper.get_up();
        self.engaged.get_up();
    }
}
