//! One member or observer of a demo, in a process of its own.
//!
//! It publishes the records of its shares at their intended times, delivers the messages of all publishers, and keeps a
//! proof of its deliveries (`proof.rs`). After its last delivery it serves retransmissions until the demo ends it. If
//! the demo requires it, it kills itself at an exact message. A process that was started again, or that the other
//! members had given up, takes over the state of a member and continues from there. A durable member that was started
//! again has its own (`journal.rs`).

use super::journal::Journal;
use super::kill::name_of;
use super::link::{Assignment, Order, ProcessReport, Tally};
use super::proof::Proof;
use super::schedule::Schedule;
use super::share::Shares;
use crate::exit::Failure;
use crate::place::in_options;
use bourdon::counters::Counter;
use bourdon::id::Rank;
use bourdon::settings::Role;
use bourdon::{Delivery, Event, InlineNode, Snapshot, Topic};
use bourdon_lab::history::writer::History;
use sha2::Digest;
use std::io::{BufRead, Write};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

/// Messages published between two polls of the network: a few full segmentation runs.
const PUBLISH_BURST: usize = 2_048;
/// The longest sleep: how late a command of the demo is noticed where nothing wakes the node.
const LONGEST_SLEEP: Duration = Duration::from_millis(50);
/// How often progress is reported.
const PROGRESS_NS: u64 = 50_000_000;

fn send_report(report: &ProcessReport) {
    let mut line = serde_json::to_string(report).expect("plain data becomes JSON");
    line.push('\n');
    // If the demo no longer reads, it has ended; the end of stdin ends this process too.
    let _ = std::io::stdout().write_all(line.as_bytes());
    let _ = std::io::stdout().flush();
}

/// Runs one process of a demo, as commanded on stdin.
pub(crate) fn run() -> Result<(), Failure> {
    // Two ways to notice that the demo died: the kernel's signal comes sooner, the end of stdin is certain.
    let _ = rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL));
    let mut first = String::new();
    let read = std::io::stdin().read_line(&mut first);
    let assignment = read.ok().and_then(|_| serde_json::from_str::<Assignment>(&first).ok());
    let Some(assignment) = assignment else {
        return Err(Failure::unusable("this command is part of `bourdon demo`, which starts it itself"));
    };
    let mut orders = None;
    loop {
        let mut process = match DemoProcess::new(assignment.clone()) {
            Ok(process) => process,
            Err(why) => {
                send_report(&ProcessReport::Unusable { why });
                return Ok(());
            }
        };
        let orders = orders.get_or_insert_with(|| listen(&process.node));
        match process.serve(orders) {
            Ok(StateLost) => {
                drop(process);
                forget(&assignment)?;
            }
            Err(why) => {
                send_report(&ProcessReport::Stuck { why });
                // The demo decides what happens next: it may still request the result.
                process.answer(orders);
                return Ok(());
            }
        }
    }
}

/// The group's storage holds a view of this member whose state the application had not kept before its crash: it joins
/// with nothing, and takes a member's state.
struct StateLost;

/// Removes what this member has stored: to the others it is a member whose disk is lost.
fn forget(assignment: &Assignment) -> Result<(), Failure> {
    for path in assignment.settings.storage.directory.iter().chain(&assignment.journal) {
        let removed = if path.is_dir() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) };
        removed.map_err(|error| Failure::broken(format!("can't remove {}: {error}", path.display())))?;
    }
    Ok(())
}

fn listen(node: &InlineNode) -> Receiver<Order> {
    let (sender, orders) = channel();
    let waker = node.waker();
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines() {
            let Some(order) = line.ok().and_then(|line| serde_json::from_str(&line).ok()) else { break };
            if sender.send(order).is_err() {
                break;
            }
            waker.wake();
        }
        std::process::exit(0);
    });
    orders
}

struct DemoProcess {
    assignment: Assignment,
    node: InlineNode,
    shares: Option<Shares>,
    proof: Proof,
    start_ns: Option<u64>,
    published: u64,
    views: u64,
    /// The incarnation number: of the process, and after each removal.
    incarnation: u32,
    restarted: bool,
    /// Its incarnation in the last view that it kept, if it is a durable member that was started again; none once it
    /// has entered a view.
    kept_as: Option<Option<u32>>,
    /// It was removed, and has not taken a member's state since.
    awaits_state: bool,
    /// The result is wanted.
    must_finish: bool,
    /// How many barriers this process has requested.
    barriers: u64,
    /// How many connections it has closed.
    links_broken: u64,
    has_reported_ready: bool,
    reported_progress: (u64, u64),
    has_reported_all: bool,
}

impl DemoProcess {
    fn new(assignment: Assignment) -> Result<Self, String> {
        let settings = &assignment.settings;
        let shares = if settings.process.role == Role::Member {
            let records = assignment.source.load().map_err(|failure| format!("{failure:?}"))?;
            let schedule = Schedule::new(&records, assignment.rate, assignment.max_gap_ns);
            Some(Shares::new(records, schedule, assignment.publishers))
        } else {
            None
        };
        let mut incarnation = 1;
        while assignment.restarted && file_of(&assignment, incarnation).is_some_and(|file| file.exists()) {
            incarnation += 1;
        }
        let mut proof = begin_proof(&assignment, incarnation)?;
        let kept_as = resume(&assignment, &mut proof)?.filter(|_| assignment.restarted);
        let node = InlineNode::join(settings).map_err(|error| in_options(&error))?;
        let (start_ns, restarted) = (assignment.start_ns, assignment.restarted);
        Ok(Self {
            assignment,
            node,
            shares,
            proof,
            start_ns,
            published: 0,
            views: 0,
            incarnation,
            restarted,
            kept_as,
            awaits_state: false,
            must_finish: false,
            barriers: 0,
            links_broken: 0,
            has_reported_ready: false,
            reported_progress: (0, 0),
            has_reported_all: false,
        })
    }

    /// Runs until the demo ends it, or the process must begin with nothing.
    fn serve(&mut self, orders: &Receiver<Order>) -> Result<StateLost, String> {
        loop {
            while let Ok(order) = orders.try_recv() {
                match order {
                    Order::Go { start_ns } => self.start_ns = Some(start_ns),
                    order => self.obey(order),
                }
            }
            self.publish()?;
            let (proof, clock, kill_at) = (&mut self.proof, *self.node.clock(), self.assignment.kill_at);
            let mut events = Vec::new();
            let (mut snapshot, mut request) = (None, None); // both come last in a poll
            let work = self.node.poll(usize::MAX, |delivery| match delivery {
                Delivery::Message(message) => {
                    proof.deliver(&message, clock.wall_ns());
                    if kill_at.is_some_and(|at| proof.count() >= at) {
                        die(proof);
                    }
                }
                Delivery::Event(event) => events.push(event),
                Delivery::Snapshot(state) => snapshot = Some(state),
                Delivery::SnapshotRequest(asked) => request = Some(asked),
                _ => {}
            });
            let work = work.map_err(|error| error.to_string())?;
            if let Some(history) = &mut self.proof.history {
                history.flush();
                history.failure().map_or(Ok(()), |why| Err(why.to_owned()))?;
            }
            self.proof.journal.as_mut().map_or(Ok(()), Journal::flush)?;
            self.break_link();
            if self.has_lost_state(&events, snapshot.is_some()) {
                return Ok(StateLost);
            }
            self.hear(events, snapshot)?;
            if let Some(request) = request {
                let state = self.proof.snapshot();
                request.give(&state).map_err(|refusal| format!("a process can't join: {refusal}"))?;
            }
            self.report_progress();
            self.finish();
            if work == 0 {
                let sleep = self.until_next_record().min(LONGEST_SLEEP);
                if !sleep.is_zero() {
                    self.node.wait(sleep).map_err(|error| error.to_string())?;
                }
            }
        }
    }

    /// Closes a connection when it is due; if there is none now, it closes the next one.
    fn break_link(&mut self) {
        let due = self.assignment.breaks_at.get(self.links_broken as usize);
        if due.is_some_and(|at| self.proof.count() >= *at) && self.node.break_one_link() {
            self.links_broken += 1;
        }
    }

    /// Publishes the records that are due, as far as the group accepts them.
    fn publish(&mut self) -> Result<(), String> {
        let (Some(shares), Some(start_ns)) = (&mut self.shares, self.start_ns) else { return Ok(()) };
        let offset_ns = self.node.clock().wall_offset_ns();
        for _ in 0..PUBLISH_BURST {
            let Some(next) = shares.next() else { return Ok(()) };
            let now_ns = self.node.clock().now().0;
            let intended_ns = match shares.schedule.at_ns(next.index) {
                Some(at_ns) if start_ns + at_ns > now_ns => return Ok(()),
                Some(at_ns) => start_ns + at_ns,
                None => *shares.first_try_ns.get_or_insert(now_ns),
            };
            let last = self.proof.last.filter(|_| self.assignment.replies);
            let (topic, payload) = shares.message(next, self.published, last);
            let topic = Topic::of_id(topic).sent_at_ns(intended_ns.wrapping_add(offset_ns));
            match self.node.try_publish(&topic, &payload) {
                Ok(_) => {
                    shares.published(next);
                    self.published += 1;
                }
                Err(refusal) if refusal.is_transient() => return Ok(()),
                Err(refusal) => return Err(refusal.to_string()),
            }
        }
        Ok(())
    }

    fn until_next_record(&self) -> Duration {
        let due_ns = self.shares.as_ref().and_then(|shares| {
            let next = shares.next()?;
            Some(self.start_ns? + shares.schedule.at_ns(next.index)?)
        });
        due_ns.map_or(LONGEST_SLEEP, |due| Duration::from_nanos(due.saturating_sub(self.node.clock().now().0)))
    }

    /// Handles the events of the node, and the snapshot that came behind them.
    fn hear(&mut self, mut events: Vec<Event>, snapshot: Option<Snapshot>) -> Result<(), String> {
        // A snapshot's messages come before the view from which the joiner continues.
        let followed = events.pop_if(|event| snapshot.is_some() && matches!(event, Event::View { .. }));
        self.hear_events(events)?;
        snapshot.map_or(Ok(()), |snapshot| self.take_state(snapshot.bytes()))?;
        self.hear_events(followed)?;
        self.request_barrier();
        Ok(())
    }

    fn hear_events(&mut self, events: impl IntoIterator<Item = Event>) -> Result<(), String> {
        for event in events {
            match event {
                Event::View { epoch, members, .. } => self.enter(epoch.0, members.0),
                Event::Synced { phase, .. } => self.on_history(|history| history.barrier(phase)),
                Event::Gap { sender, from, to } => self.on_history(|h| h.gap(sender.0, from.0, to.0)),
                Event::Retracted { sender, from, to } => {
                    self.on_history(|history| history.retraction(sender.0, from.0, to.0));
                    self.proof.retract(sender.0, from.0..to.0);
                }
                Event::Removed(_) => self.begin_again(event)?,
                Event::SnapshotTooLarge { .. } => return Err(event.to_string()),
                // Once the group has formed, such an event comes from a process outside the group.
                Event::RankClaimed(_) if self.has_reported_ready => {}
                Event::IdentityConflict { rank, .. } | Event::RankClaimed(rank) => {
                    return Err(format!("another process uses rank {rank} as well"));
                }
                Event::Outvoted(..) => return Err(event.to_string()),
                Event::Suspected(..) | Event::NoMajority => {
                    send_report(&ProcessReport::News { what: event.to_string() })
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn on_history(&mut self, write: impl FnOnce(&mut History)) {
        if let Some(history) = &mut self.proof.history {
            write(history);
        }
    }

    fn enter(&mut self, epoch: u64, members: u64) {
        let Rank(rank) = self.node.rank().unwrap_or(Rank::OBSERVER);
        let is_in = members >> u32::from(rank).min(63) & 1 == 1;
        let view = self.node.view();
        let oldest_first: Vec<u16> = if view.epoch.0 == epoch {
            view.members.iter().map(|member| member.rank.0).collect()
        } else {
            (0..64).filter(|rank| members >> rank & 1 == 1).collect()
        };
        // A view that a joiner only follows is not its own: what it delivers there belongs to its initial state.
        if is_in || self.assignment.settings.process.role == Role::Observer {
            self.views += 1;
            let instance = self.node.view().instance;
            self.on_history(|history| {
                history.instance(instance.0);
                history.view(epoch, &oldest_first);
            });
        }
        self.proof.enter(members, self.own_incarnation().unwrap_or(0));
        if let Some(shares) = &mut self.shares {
            if is_in && !self.proof.is_stopped() {
                shares.own(&self.proof.owners, rank, &self.proof.done);
            } else {
                shares.let_go();
            }
        }
    }

    /// The other members continued without this process: what it has delivered may differ from their deliveries.
    fn begin_again(&mut self, event: Event) -> Result<(), String> {
        if !self.assignment.settings.process.snapshots {
            return Err(event.to_string());
        }
        send_report(&ProcessReport::News { what: event.to_string() });
        self.awaits_state = true;
        self.bump_incarnation()
    }

    /// A member's state replaces what was delivered here, if anything: a joiner may have to join again.
    fn take_state(&mut self, state: &[u8]) -> Result<(), String> {
        if self.proof.count() > 0 {
            self.bump_incarnation()?;
        }
        (self.awaits_state, self.kept_as) = (false, None);
        self.proof.journal = None;
        self.proof.restore(state)?;
        if self.assignment.kill_at.is_some_and(|at| self.proof.count() >= at) {
            die(&mut self.proof);
        }
        if let Some(path) = &self.assignment.journal {
            self.proof.journal = Some(Journal::begin(path, state)?);
        }
        Ok(())
    }

    fn own_incarnation(&self) -> Option<u32> {
        let own = self.node.rank()?;
        self.node.view().members.iter().find(|member| member.rank == own).map(|member| member.incarnation.0)
    }

    /// Whether the node is back in a view that it had joined with a state that was not kept.
    fn has_lost_state(&mut self, events: &[Event], has_snapshot: bool) -> bool {
        let enters = events.iter().any(|event| matches!(event, Event::View { .. }));
        let Some(kept_as) = self.kept_as.take_if(|_| enters) else { return false };
        !has_snapshot && kept_as != self.own_incarnation() && self.node.view().epoch.0 > 1
    }

    fn bump_incarnation(&mut self) -> Result<(), String> {
        self.incarnation += 1;
        self.restarted = true;
        self.reported_progress = (0, 0);
        if let Some(shares) = &mut self.shares {
            shares.let_go();
        }
        self.proof = begin_proof(&self.assignment, self.incarnation)?;
        Ok(())
    }

    /// The lowest member requests a barrier each time this many messages have been delivered.
    fn request_barrier(&mut self) {
        let Some(every) = self.assignment.barrier_every else { return };
        let lowest = self.node.view().bits().trailing_zeros() as u16;
        if self.node.rank() == Some(Rank(lowest)) {
            let due = self.proof.count() / every;
            if due > self.barriers && self.node.sync(None).is_ok() {
                self.barriers = due;
            }
        }
    }

    /// Reports to the demo what it should know by now.
    fn report_progress(&mut self) {
        let gates = self.node.counters().get(Counter::GatingObservers);
        if !self.has_reported_ready && self.node.is_formed() && gates >= u64::from(self.assignment.gates) {
            self.has_reported_ready = true;
            send_report(&ProcessReport::Ready {
                io: self.node.io().to_owned(),
                fallback: self.node.fallback().map(str::to_owned),
                receive_buffer_bytes: self.node.receive_buffer_bytes(),
            });
        }
        let (delivered, now_ns) = (self.proof.count(), self.node.clock().now().0);
        let (lost, (report, reported_ns)) = (self.node.counters().get(Counter::Gaps), self.reported_progress);
        let complete = delivered + lost >= self.assignment.messages;
        let published_all =
            self.start_ns.is_some() && self.shares.as_ref().is_none_or(|shares| shares.next().is_none());
        let news = delivered + lost > report || published_all != self.has_reported_all;
        if news && (complete || published_all != self.has_reported_all || now_ns >= reported_ns + PROGRESS_NS) {
            (self.reported_progress, self.has_reported_all) = ((delivered + lost, now_ns), published_all);
            send_report(&ProcessReport::Progress { delivered, lost, published_all });
        }
    }

    /// Only answers until the demo ends: the node can't go on.
    fn answer(&mut self, orders: &Receiver<Order>) {
        self.awaits_state = false; // it will never come
        while let Ok(order) = orders.recv() {
            self.obey(order);
            self.finish();
        }
    }

    /// Reports the result if it is wanted; a process that was removed first takes a member's state again.
    fn finish(&mut self) {
        if self.must_finish && !self.awaits_state {
            self.must_finish = false;
            self.node.end_recording(); // the demo kills its processes once it has their results
            send_report(&ProcessReport::Result(Box::new(self.tally())));
        }
    }

    fn obey(&mut self, order: Order) {
        match order {
            Order::Go { .. } => {}
            Order::Finish => self.must_finish = true,
            Order::Names => send_report(&ProcessReport::Names { names: self.proof.names.clone() }),
            Order::Chain { counts } => {
                let at = |count: &u64| match *count {
                    0 => Some(0),
                    count => self.proof.chain.get(count as usize - 1).copied(),
                };
                send_report(&ProcessReport::Chain { hashes: counts.iter().map(at).collect() });
            }
        }
    }

    fn tally(&self) -> Tally {
        let (counters, proof) = (self.node.counters(), &self.proof);
        Tally {
            delivered: proof.count(),
            duplicates: proof.duplicates,
            gaps: counters.get(Counter::Gaps),
            payload_sha256: hex(&proof.payloads.clone().finalize()),
            shares: proof.done.clone(),
            views: self.views,
            restarted: self.restarted,
            latency_ns: proof.latency_ns.iter_recorded().map(|v| (v.value_iterated_to(), v.count_at_value())).collect(),
            naks_sent: counters.get(Counter::NaksSent),
            repairs_received: counters.get(Counter::RepairsReceived),
            links_broken: self.links_broken,
        }
    }
}

fn begin_proof(assignment: &Assignment, incarnation: u32) -> Result<Proof, String> {
    let settings = &assignment.settings;
    let history = file_of(assignment, incarnation).map(|path| History::create(&path)).transpose()?;
    let (members, keeps) = (settings.group.members, settings.process.snapshots);
    Ok(Proof::new(members, assignment.publishers, assignment.messages, keeps, history))
}

/// Where this incarnation writes what it delivers.
fn file_of(assignment: &Assignment, incarnation: u32) -> Option<PathBuf> {
    let process = &assignment.settings.process;
    let name = name_of(process.role, process.rank);
    assignment.history.as_ref().map(|directory| directory.join(history_file(&name, incarnation)))
}

/// The file of this incarnation of a process in a directory of histories.
pub(super) fn history_file(name: &str, incarnation: u32) -> String {
    let incarnation = if incarnation > 1 { format!(".{incarnation}") } else { String::new() };
    format!("{}{incarnation}.tsv", name.replace(':', "-"))
}

/// Goes on from what this member delivered before its crash, if it is durable: returns its incarnation then.
fn resume(assignment: &Assignment, proof: &mut Proof) -> Result<Option<Option<u32>>, String> {
    let Some(path) = &assignment.journal else { return Ok(None) };
    let (journal, bytes) = Journal::open(path)?;
    proof.resume(journal, &bytes).map(Some)
}

/// Dies at once, like a killed process: nothing more is sent, and no record of a delivery is lost.
fn die(proof: &mut Proof) -> ! {
    if let Some(history) = &mut proof.history {
        history.flush();
    }
    let _ = proof.journal.as_mut().map(Journal::flush);
    let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    unreachable!("a process does not outlive SIGKILL")
}

/// Bytes as lower-case hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
