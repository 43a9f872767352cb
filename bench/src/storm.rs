//! A storm of requests for locks and of candidacies, beside the messages of a threaded node.
//!
//! Locks and elections must not delay messages. A caller that waits for each lock asks for fewer when locks are slow,
//! and so disturbs less. Here requests are due at a rate, as a client's messages are: one thread makes each when it is
//! due, and gives back at once what is granted. It sleeps in between, and looks for grants several times in the time in
//! which a grant counts as late.
//!
//! The storm begins with the warm-up, and counts in the measured time only. Its thread also watches the node's
//! counters.

use crate::schedule::Schedule;
use crate::script::now_ns;
use crate::{Failure, broken};
use bourdon::counters;
use bourdon::counters::Directory;
use bourdon::error::LockError;
use bourdon::{Election, LockRequest, Node};
use bourdon_ring::signal::Flag;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::sync::Arc;
use std::thread::{Builder, JoinHandle, park_timeout};
use std::time::Duration;

/// Over how many names requests for locks are spread: a request waits for the one before it of its name.
const LOCK_NAMES: u64 = 64;
/// Over how many names candidacies are spread: a node refuses a second one for a name.
const ELECTION_NAMES: u64 = 16;
/// What is not granted so long after it was due is late.
const LATE_NS: u64 = 10_000_000;
/// How often grants are looked for while requests are under way: a grant wakes no thread here.
const GRANTS_NS: u64 = 100_000;
/// How often the node's counters are read: the longest round of the last second is among them.
const LOOK_NS: u64 = 500_000_000;
/// Counters by label, because earlier nodes do not have them.
const RECENT_CYCLE: &str = "longest_recent_cycle_ns";
const CONTROL_FULL: &str = "control_full";

/// How many requests are due a second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Storm {
    pub(crate) locks_per_s: Option<u64>,
    pub(crate) elections_per_s: Option<u64>,
    /// Members that join and leave: see `joins.rs`.
    pub(crate) joins_per_s: Option<u64>,
}

/// What became of the requests of one kind in the measured time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Requests {
    pub(crate) due: u64,
    pub(crate) made: u64,
    pub(crate) granted: u64,
    pub(crate) refused: u64,
    /// Settled, or still open at the end, more than [`LATE_NS`] after it was due; of a join, in a view later than
    /// [`LATE_JOIN_NS`](crate::joins::LATE_JOIN_NS).
    pub(crate) late: u64,
    pub(crate) elapsed_ns: u64,
}

impl Requests {
    /// The sum of several rounds.
    pub(crate) fn sum<'a>(rounds: impl IntoIterator<Item = &'a Self>) -> Option<Self> {
        rounds.into_iter().copied().reduce(|sum, round| Self {
            due: sum.due + round.due,
            made: sum.made + round.made,
            granted: sum.granted + round.granted,
            refused: sum.refused + round.refused,
            late: sum.late + round.late,
            elapsed_ns: sum.elapsed_ns + round.elapsed_ns,
        })
    }

    fn per_s(&self, count: u64) -> u64 {
        (u128::from(count) * 1_000_000_000 / u128::from(self.elapsed_ns.max(1))) as u64
    }

    /// As a row reports it.
    pub(crate) fn object(&self) -> Value {
        json!({
            "offered_per_s": self.per_s(self.made),
            "granted_per_s": self.per_s(self.granted),
            "refused": self.refused,
            "late": self.late,
        })
    }

    /// As a line reports it.
    pub(crate) fn text(&self) -> String {
        let (offered, granted) = (self.per_s(self.made), self.per_s(self.granted));
        format!("{offered}/s offered, {granted}/s granted, {} refused, {} late", self.refused, self.late)
    }
}

/// What a threaded node counted, and what became of a storm beside it, in the measured time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeFigures {
    /// The longest round of the data agent, where the node forgets those before the measured time.
    pub(crate) longest_cycle_ns: Option<u64>,
    /// The same since the node started: the round that installs the first view is among them.
    pub(crate) longest_cycle_ever_ns: Option<u64>,
    /// Where the node has a control thread.
    pub(crate) control_full: Option<u64>,
    pub(crate) locks: Option<Requests>,
    pub(crate) elections: Option<Requests>,
    /// Of the process whose members join and leave.
    pub(crate) joins: Option<Requests>,
}

/// The thread that makes the requests and watches the node's counters.
pub(crate) struct RunningStorm {
    thread: JoinHandle<NodeFigures>,
    is_measured: Flag,
    is_over: Flag,
}

impl RunningStorm {
    /// Starts the thread; a storm without requests only watches.
    pub(crate) fn start(storm: Storm, node: &Arc<Node>) -> Result<Self, Failure> {
        let (is_measured, is_over) = (Flag::new(), Flag::new());
        let flags = (is_measured.clone(), is_over.clone());
        let (node, counters) = (Arc::clone(node), counters_of(node)?);
        let builder = Builder::new().name("storm".to_owned());
        let thread = builder.spawn(move || run(storm, &node, &counters, flags)).map_err(broken)?;
        Ok(Self { thread, is_measured, is_over })
    }

    /// Counts from now on.
    pub(crate) fn measure(&self) {
        self.is_measured.set();
        self.thread.thread().unpark();
    }

    /// Ends it.
    pub(crate) fn end(self) -> Result<NodeFigures, Failure> {
        self.is_over.set();
        self.thread.thread().unpark();
        self.thread.join().map_err(|_| broken("the storm's thread panicked"))
    }
}

/// Opens the counters file of a node, as another process would: what a node counts has no other reader.
fn counters_of(node: &Node) -> Result<counters::Found, Failure> {
    let path = &node.info().counters_path;
    let directories = Directory::existing(path.parent()).map_err(broken)?;
    let found = directories.iter().map(counters::list).collect::<Result<Vec<_>, _>>().map_err(broken)?;
    let own = found.into_iter().flatten().find(|found| path.file_stem() == Some(found.stem.as_ref()));
    own.ok_or_else(|| broken(format!("the node's counters file {} can't be read", path.display())))
}

/// A counter by its label, if this node has it.
fn counter(counters: &counters::Found, label: &str) -> Option<u64> {
    counters.values().find(|(is, _)| *is == label).map(|(_, value)| value)
}

/// The storm's thread.
fn run(storm: Storm, node: &Node, counters: &counters::Found, (is_measured, is_over): (Flag, Flag)) -> NodeFigures {
    let now = now_ns();
    let mut requests = storm.locks_per_s.map(|rate| Source::<LockRequest>::new("lock", LOCK_NAMES, rate, now));
    let mut candidacies = storm.elections_per_s.map(|rate| Source::<Election>::new("elect", ELECTION_NAMES, rate, now));
    let (mut counts, mut look_ns, mut longest_cycle_ns) = (false, now, None);
    while !is_over.is_set() {
        let now = now_ns();
        if !counts && is_measured.is_set() {
            (counts, look_ns, longest_cycle_ns) = (true, now, None);
            requests.iter_mut().for_each(|source| source.count_from(now));
            candidacies.iter_mut().for_each(|source| source.count_from(now));
        }
        if now >= look_ns {
            look_ns = now + LOOK_NS;
            longest_cycle_ns = longest_cycle_ns.max(counter(counters, RECENT_CYCLE));
        }
        let dues = [
            requests.as_mut().map(|source| source.work(node, now)),
            candidacies.as_mut().map(|source| source.work(node, now)),
        ];
        let until = dues.into_iter().flatten().min().unwrap_or(look_ns).min(look_ns);
        park_timeout(Duration::from_nanos(until.saturating_sub(now_ns())));
    }
    let now = now_ns();
    NodeFigures {
        longest_cycle_ns: longest_cycle_ns.max(counter(counters, RECENT_CYCLE)),
        longest_cycle_ever_ns: counter(counters, counters::NodeCell::LongestCycleNs.label()),
        control_full: counter(counters, CONTROL_FULL),
        locks: requests.map(|source| source.counted(now)),
        elections: candidacies.map(|source| source.counted(now)),
        joins: None,
    }
}

/// What is asked of a node and may be granted; dropped, it is given back.
trait Ask: Sized {
    fn ask(node: &Node, name: &str) -> Result<Self, LockError>;

    /// Whether it was granted or refused, if that has been settled.
    fn granted(&mut self) -> Option<bool>;
}

impl Ask for LockRequest {
    fn ask(node: &Node, name: &str) -> Result<Self, LockError> {
        node.request_lock(name)
    }

    fn granted(&mut self) -> Option<bool> {
        self.try_guard().map_or(Some(false), |guard| guard.map(|_| true))
    }
}

impl Ask for Election {
    fn ask(node: &Node, name: &str) -> Result<Self, LockError> {
        let mut election = node.election(name)?;
        election.campaign().map(|()| election)
    }

    fn granted(&mut self) -> Option<bool> {
        self.try_next().map_or(Some(false), |state| state.filter(|state| state.own).map(|_| true))
    }
}

/// The requests of one kind.
struct Source<R> {
    schedule: Schedule,
    names: Vec<String>,
    begun_ns: u64,
    /// The number of the next request.
    next: u64,
    /// When each was due.
    under_way: Vec<(u64, R)>,
    counts: Requests,
    counted_from: (u64, u64),
}

impl<R: Ask> Source<R> {
    fn new(kind: &str, names: u64, rate_per_s: u64, now: u64) -> Self {
        let name = |index| format!("storm.{kind}.{index}");
        Self {
            schedule: Schedule { rate_per_s, burst: 1 },
            names: (0..names).map(name).collect(),
            begun_ns: now,
            next: 0,
            under_way: Vec::new(),
            counts: Requests::default(),
            counted_from: (now, 0),
        }
    }

    fn count_from(&mut self, now: u64) {
        self.counts = Requests::default();
        self.counted_from = (now, self.schedule.due(now - self.begun_ns));
    }

    /// Makes what is due and gives back what is granted. Returns when to call it again.
    fn work(&mut self, node: &Node, now: u64) -> u64 {
        let counts = &mut self.counts;
        self.under_way.retain_mut(|(due_ns, request)| {
            let Some(granted) = request.granted() else { return true };
            counts.granted += u64::from(granted);
            counts.refused += u64::from(!granted);
            counts.late += u64::from(now.saturating_sub(*due_ns) > LATE_NS);
            false
        });
        for index in self.next..self.schedule.due(now - self.begun_ns) {
            let name = &self.names[(index % self.names.len() as u64) as usize];
            match R::ask(node, name) {
                Ok(request) => self.under_way.push((self.time_ns(index), request)),
                Err(_) => self.counts.refused += 1,
            }
            self.counts.made += 1;
            self.next = index + 1;
        }
        let look_at = if self.under_way.is_empty() { u64::MAX } else { now + GRANTS_NS };
        self.time_ns(self.next).min(look_at)
    }

    fn time_ns(&self, index: u64) -> u64 {
        self.begun_ns + self.schedule.time_ns(index)
    }

    fn counted(self, now: u64) -> Requests {
        let (from_ns, due_before) = self.counted_from;
        let overdue = self.under_way.iter().filter(|(due_ns, _)| now.saturating_sub(*due_ns) > LATE_NS);
        Requests {
            due: self.schedule.due(now - self.begun_ns) - due_before,
            late: self.counts.late + overdue.count() as u64,
            elapsed_ns: now - from_ns,
            ..self.counts
        }
    }
}
