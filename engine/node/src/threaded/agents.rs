//! The threads of a node: data agents, which run the groups, and one control thread, which decides for them.
//!
//! A process that is in several groups needs no threads for each: a group that is silent costs a look a round. So the
//! groups of a node share its agents. A new group goes to the agent that runs the fewest, and stays there: what a group
//! has is touched by one thread only, and two busy groups do not wait for each other where there are two agents.
//!
//! Invariants: the threads end when the last handle is dropped, which is after the last group has ended. A panic of a
//! thread reaches the handle that notices first, and the threads run no more groups. No lock is held during a wait.

use super::agent::Agent;
use super::control::ControlThread;
use super::duty::Duty;
use super::elsewhere::{Elsewhere, Question, Ways};
use super::end::{join, lock};
use crate::config::{IdleStrategy, ThreadSettings};
use crate::idle::Idler;
use crate::mailbox::{Sender, mailbox};
use crate::node_error::Error;
use crate::placement::{Places, place_current_thread};
use bourdon_port::Waker;
use bourdon_ring::signal::{Bell, Flag, doorbell};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex};
use std::thread::{Builder, JoinHandle};

/// Groups that were joined and not taken.
const ARRIVALS_MAX: usize = 16;

/// The threads; a clone is another handle.
#[derive(Clone, Debug)]
pub(crate) struct Agents(Arc<Threads>);

#[derive(Debug)]
struct Threads {
    idle: IdleStrategy,
    data: Vec<DataThread>,
    control: ControlThread,
    stop: Flag,
}

#[derive(Debug)]
struct DataThread {
    thread: Mutex<Option<JoinHandle<()>>>,
    arrivals: Sender<Duty>,
    waker: Waker,
    groups: Groups,
    bells: Bells,
}

/// The groups that a data agent was handed: whether each has ended, and what wakes its port.
type Groups = Arc<Mutex<Vec<(Flag, Waker)>>>;

/// Announce work to a data agent that sleeps.
#[derive(Clone, Debug)]
pub(crate) struct Bells {
    /// Work of any kind.
    pub(crate) work: Bell,
    /// Room in a subscription's ring, while delivery waits for it.
    pub(crate) room: Bell,
}

/// A group's place at a data agent.
#[derive(Debug)]
pub(crate) struct Place {
    agents: Agents,
    agent: usize,
}

impl Agents {
    /// Starts the threads.
    ///
    /// # Errors
    /// If a core can't be used, or the kernel grants no thread.
    pub(crate) fn start(settings: &ThreadSettings) -> Result<Self, Error> {
        let io = |doing| move |source| Error::Io { doing, source };
        let places = Places::of(settings)?;
        let control = ControlThread::start(places.idle).map_err(io("starting the control thread"))?;
        let mut threads = Threads { idle: places.idle, data: Vec::new(), control, stop: Flag::new() };
        let (ways, mut all) = (Ways::default(), Vec::new());
        for index in 0..settings.data_agents {
            let (started, way) = DataThread::start(index, &places, &threads.stop, &ways)?;
            threads.data.push(started);
            all.push(way);
        }
        let _ = ways.set(all); // none was set before
        Ok(Self(Arc::new(threads)))
    }

    /// What the data agents do while nothing comes.
    pub(crate) fn idle(&self) -> IdleStrategy {
        self.0.idle
    }

    /// A place at the data agent that runs the fewest groups.
    ///
    /// # Errors
    /// If a panic has ended the threads.
    pub(crate) fn place(&self) -> Result<Place, Error> {
        let running = self.0.data.iter().enumerate().filter(|(_, agent)| !agent.has_ended());
        let fewest = running.min_by_key(|(_, agent)| agent.groups());
        let agent = fewest.filter(|_| !self.0.control.has_panicked()).map(|(agent, _)| agent);
        agent.map(|agent| Place { agents: self.clone(), agent }).ok_or(Error::ThreadsGone)
    }
}

impl Place {
    fn thread(&self) -> &DataThread {
        &self.agents.0.data[self.agent]
    }

    /// What announces work to the agent.
    pub(crate) fn bells(&self) -> &Bells {
        &self.thread().bells
    }

    /// The control thread.
    pub(crate) fn control(&self) -> &ControlThread {
        &self.agents.0.control
    }

    /// Whether its threads take groups: no panic has ended them.
    pub(crate) fn is_running(&self) -> bool {
        !self.thread().has_ended() && !self.control().has_panicked()
    }

    /// Another place at the same data agent.
    pub(crate) fn beside(&self) -> Self {
        Self { agents: self.agents.clone(), agent: self.agent }
    }

    /// The threads, for one more group.
    pub(crate) fn agents(&self) -> &Agents {
        &self.agents
    }

    /// Hands a group over to the agent; `ended` is set when it has ended.
    pub(crate) fn run(&self, group: Duty, ended: Flag) {
        let waker = group.waker();
        self.thread().arrivals.send(group);
        lock(&self.thread().groups).push((ended, waker));
    }

    /// Passes the panic of one of the threads on, which has ended or is about to.
    pub(crate) fn panic(&self) -> ! {
        let control = self.control();
        match if control.has_panicked() { control.end() } else { join(&self.thread().thread) } {
            Err(panic) => std::panic::resume_unwind(panic),
            Ok(()) => panic!("a thread of this node has panicked"),
        }
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.stop.set();
        let ended: Vec<_> = self.data.iter().map(DataThread::end).chain([self.control.end()]).collect();
        if let (Some(Err(panic)), false) = (ended.into_iter().find(Result::is_err), std::thread::panicking()) {
            std::panic::resume_unwind(panic);
        }
    }
}

impl DataThread {
    fn start(index: usize, places: &Places, stop: &Flag, ways: &Ways) -> Result<(Self, Sender<Question>), Error> {
        let io = |source| Error::Io { doing: "starting a data agent", source };
        let ((sleeper, work), (gate, room), waker) = (doorbell(), doorbell(), Waker::new().map_err(io)?);
        let bells = Bells { work, room };
        let groups = Groups::default();
        let (own, others, mut bell) = (waker.clone(), Arc::clone(&groups), bells.work.clone());
        let ring = move || {
            if bell.must_ring() {
                wake(&own, &others);
            }
        };
        let (sender, arrivals) = mailbox(ARRIVALS_MAX, ring.clone());
        let (elsewhere, way) = Elsewhere::new(ways, index, ring);
        let stop = stop.clone();
        let agent = Agent { groups: Vec::new(), arrivals, elsewhere, sleeper, gate, waker: waker.clone(), stop };
        let (idler, core) = (Idler::new(places.idle), places.core(index));
        let (placed, placement) = sync_channel(1);
        let name = if index == 0 { "bourdon-data".to_owned() } else { format!("bourdon-data-{index}") };
        let run = move || {
            let outcome = place_current_thread(core);
            let is_placed = outcome.is_ok();
            let _ = placed.send(outcome);
            if is_placed {
                agent.run(idler);
            }
        };
        let thread = Mutex::new(Some(Builder::new().name(name).spawn(run).map_err(io)?));
        let started = Self { thread, arrivals: sender, waker, groups, bells };
        placement.recv().expect("the thread reports where it runs")?;
        Ok((started, way))
    }

    /// How many groups it runs.
    fn groups(&self) -> usize {
        let mut groups = lock(&self.groups);
        groups.retain(|(ended, _)| !ended.is_set());
        groups.len()
    }

    fn has_ended(&self) -> bool {
        lock(&self.thread).as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Ends the thread, for which the flag is up.
    fn end(&self) -> std::thread::Result<()> {
        wake(&self.waker, &self.groups);
        join(&self.thread)
    }
}

/// Wakes a data agent, in whichever port it sleeps.
fn wake(own: &Waker, groups: &Groups) {
    own.wake();
    lock(groups).iter().for_each(|(_, waker)| waker.wake());
}
