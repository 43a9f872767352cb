//! Starts a demo's processes, drives them, and judges what they delivered.
//!
//! A demo that waits for an answer that never comes leaves processes behind and shows the user nothing. So every wait
//! here is for the next report of any process, with a limit. A process that ends, or reports that it is stuck, ends the
//! demo with its name. In every case, dropping the [`Children`] kills and reaps every process that it started.
//!
//! Where messages may be lost, a loss is no fault. Where they may be or were lost, orders are compared by the messages
//! that two processes have in common. Otherwise the demo checks that every process that was not killed delivered every
//! message once, with no gap. In total order each delivered sequence is a prefix of the longest one, at `uniform`,
//! `stable` and `durable` also the sequences of killed processes, by their histories. With one publisher the payloads,
//! hashed in delivery order, are the input's.

use super::children::{Children, Word};
use super::input::{Record, Source};
use super::kill::{Kill, Victim, name_of};
use super::link::{Assignment, Order, ProcessReport, Tally};
use super::names::names;
use super::process::{hex, history_file};
use super::proof;
use super::schedule::{Rate, Schedule};
use crate::exit::{Failure, note};
use bourdon::settings::{Flow, Order as DeliveryOrder, Reliability, Role, Settings, Start, Transport};
use indicatif::{ProgressBar, ProgressStyle};
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// How long the processes may take to find each other.
const FORMING_LIMIT: Duration = Duration::from_secs(8);
/// The longest time without a delivery anywhere, beyond the recording's own gaps; a silent member is named well before.
const STALL_LIMIT: Duration = Duration::from_secs(8);
/// Where messages may be lost: after this long without a message, no more messages are expected.
const QUIET: Duration = Duration::from_millis(1_500);
/// How often due work is checked while no process reports.
const LOOK: Duration = Duration::from_millis(20);
/// How long a process may take to answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);
/// The same once something has failed: a process that hangs must not keep the others' results from the user.
const ANSWER_LIMIT_FAILED: Duration = Duration::from_secs(1);
/// Between the start command and the first message: time for the command to reach every process.
const HEAD_START_NS: u64 = 50_000_000;
/// How many other addresses to try when the demo's own address is taken.
const ADDRESS_ATTEMPTS: u32 = 4;

/// What a demo runs.
pub(crate) struct Plan {
    pub(crate) settings: Settings,
    pub(crate) observers: u16,
    pub(crate) publishers: u16,
    pub(crate) source: Source,
    pub(crate) rate: Rate,
    pub(crate) max_gap_ns: u64,
    pub(crate) fault_seed: u64,
    pub(crate) kills: Vec<Kill>,
    pub(crate) restart_after: Option<Duration>,
    pub(crate) replies: bool,
    pub(crate) barrier_every: Option<u64>,
    pub(crate) history: Option<PathBuf>,
    /// Whether the demo chose the address.
    pub(crate) retry_address: bool,
    /// How many connections are to be closed.
    pub(crate) break_links: u64,
}

/// Whether every process can keep all records, to send them to a joiner.
pub(crate) fn can_be_kept(records: &[Record]) -> bool {
    let bytes: usize = records.iter().map(|record| record.payload.len() + KEPT_HEAD_BYTES).sum();
    bytes <= KEPT_MAX_BYTES
}

/// What is kept with each record.
const KEPT_HEAD_BYTES: usize = 64;
/// The most that each process keeps: half of the limit of a snapshot.
const KEPT_MAX_BYTES: usize = 128 << 20;

/// The outcome of a demo.
pub(crate) struct Outcome {
    pub(crate) messages: u64,
    pub(crate) order_agrees: bool,
    pub(crate) input_sha256: String,
    pub(crate) io: String,
    pub(crate) gaps_shortened: u64,
    pub(crate) wall_ns: u64,
    pub(crate) rows: Vec<Row>,
    /// The failures, in words; empty if there was none.
    pub(crate) failures: Vec<String>,
}

/// The outcome of one process.
pub(crate) struct Row {
    pub(crate) role: Role,
    pub(crate) rank: u16,
    pub(crate) delivered: u64,
    /// The number of messages given up so far.
    lost: u64,
    /// Whether it has nothing more to publish.
    published_all: bool,
    pub(crate) tally: Option<Tally>,
    pub(crate) killed: bool,
    /// Whether it is to be started again, or has been.
    pub(crate) restarts: bool,
    /// Its last report about the group.
    news: Option<String>,
}

impl Row {
    pub(crate) fn name(&self) -> String {
        name_of(self.role, self.rank)
    }

    /// Whether this process is finished.
    fn is_out(&self) -> bool {
        self.killed && !self.restarts
    }
}

fn assignment(plan: &Plan, settings: &Settings, messages: u64, history: Option<&Path>, index: u16) -> Assignment {
    let (role, rank) = part(plan, index);
    let kill = next_kill(&plan.kills, role, rank);
    // In turn, at even distances.
    let processes = u64::from(plan.settings.group.members + plan.observers);
    let breaks = (0..plan.break_links).filter(|count| count % processes == u64::from(index));
    let at = |count: u64| (u128::from(count + 1) * u128::from(messages) / u128::from(plan.break_links + 1)) as u64;
    let mut assignment = Assignment {
        settings: settings.clone(),
        publishers: plan.publishers,
        gates: if role == Role::Member && settings.flow.mode == Flow::Gating { plan.observers } else { 0 },
        messages,
        source: plan.source.clone(),
        rate: plan.rate,
        max_gap_ns: plan.max_gap_ns,
        kill_at: kill.map(|kill| kill.at),
        breaks_at: breaks.map(at).collect(),
        replies: plan.replies,
        barrier_every: plan.barrier_every,
        history: history.map(Path::to_owned),
        restarted: false,
        journal: None,
        start_ns: None,
    };
    (assignment.settings.process.role, assignment.settings.process.rank) = (role, rank);
    let storage = &mut assignment.settings.storage.directory;
    *storage = storage.take().filter(|_| role == Role::Member).map(|all| all.join(format!("member-{rank}")));
    assignment.journal = storage.as_ref().map(|directory| directory.with_extension("journal"));
    assignment.settings.storage.snapshots = false; // its journal has the state
    let archive = &mut assignment.settings.archive.directory;
    *archive = archive.take().map(|all| all.join(name_of(role, rank).replace(':', "-")));
    // Every receiver draws its own faults from the one seed.
    assignment.settings.faults.seed = plan.fault_seed.wrapping_mul(1_000).wrapping_add(u64::from(index));
    assignment
}

/// The kill that comes first for this process.
fn next_kill(kills: &[Kill], role: Role, rank: u16) -> Option<&Kill> {
    kills.iter().filter(|kill| kill.concerns(role, rank)).min_by_key(|kill| kill.at)
}

fn part(plan: &Plan, index: u16) -> (Role, u16) {
    let members = plan.settings.group.members;
    if index < members { (Role::Member, index) } else { (Role::Observer, index - members) }
}

/// Runs a demo from beginning to end.
pub(crate) fn run(plan: &Plan, records: &[Record]) -> Result<Outcome, Failure> {
    let began = Instant::now();
    let schedule = Schedule::new(records, plan.rate, plan.max_gap_ns);
    let mut performance = Run::new(plan, records, &schedule)?;
    let mut children = performance.gather()?;
    performance.perform(&mut children);
    performance.collect(&mut children);
    performance.judge(&mut children);
    drop(children);
    performance.outcome.wall_ns = began.elapsed().as_nanos() as u64;
    performance.note_killed()?;
    Ok(performance.outcome)
}

struct Run<'a> {
    plan: &'a Plan,
    /// The plan, with the address that was free.
    settings: Settings,
    length: Option<Duration>,
    outcome: Outcome,
    bar: ProgressBar,
    start_ns: u64,
    /// Killed processes that are to be started again, and when.
    restarts: Vec<(usize, Instant)>,
    /// The kills that have not happened yet.
    kills: Vec<Kill>,
    /// The names of the killed processes, one entry for each kill.
    killed: Vec<String>,
    /// The directory for histories that only the demo reads.
    own_history: Option<TempDir>,
    /// The directory for what durable members store.
    _storage: Option<TempDir>,
}

impl<'a> Run<'a> {
    fn new(plan: &'a Plan, records: &[Record], schedule: &Schedule) -> Result<Self, Failure> {
        let mut sha = Sha256::new();
        for record in records {
            sha.update((record.payload.len() as u32).to_le_bytes());
            sha.update(&record.payload);
        }
        let rows = (0..plan.settings.group.members + plan.observers).map(|index| {
            let (role, rank) = part(plan, index);
            Row {
                role,
                rank,
                delivered: 0,
                lost: 0,
                published_all: false,
                tally: None,
                killed: false,
                restarts: false,
                news: None,
            }
        });
        let outcome = Outcome {
            messages: records.len() as u64,
            order_agrees: false,
            input_sha256: hex(&sha.finalize()),
            io: String::new(),
            gaps_shortened: schedule.gaps_shortened,
            wall_ns: 0,
            rows: rows.collect(),
            failures: Vec::new(),
        };
        let bar = ProgressBar::new(outcome.messages); // draws on stderr, and only on a terminal
        let style =
            ProgressStyle::with_template("{msg:>10} {bar:40} {human_pos}/{human_len} at every process, {elapsed}");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        let length = schedule.length_ns().map(Duration::from_nanos);
        // A killed process's deliveries are known from its history.
        let wants_own = plan.history.is_none() && !plan.kills.is_empty();
        let made = wants_own.then(|| tempfile::tempdir().map_err(Failure::unusable)).transpose();
        let stores = plan.settings.group.reliability == Reliability::Durable;
        let storage = stores.then(|| tempfile::tempdir().map_err(Failure::unusable)).transpose()?;
        let mut settings = plan.settings.clone();
        settings.storage.directory = storage.as_ref().map(|directory| directory.path().to_owned());
        Ok(Self {
            plan,
            settings,
            length,
            outcome,
            bar,
            start_ns: 0,
            restarts: Vec::new(),
            kills: plan.kills.clone(),
            killed: Vec::new(),
            own_history: made?,
            _storage: storage,
        })
    }

    fn history(&self) -> Option<&Path> {
        self.plan.history.as_deref().or(self.own_history.as_ref().map(TempDir::path))
    }

    /// Writes the names of the killed processes, for a judge of the histories.
    fn note_killed(&self) -> Result<(), Failure> {
        let Some(directory) = &self.plan.history else { return Ok(()) };
        let lines: String = self.killed.iter().map(|name| format!("{name}\n")).collect();
        std::fs::write(directory.join("killed"), lines)
            .map_err(|error| Failure::broken(format!("can't write {}: {error}", directory.join("killed").display())))
    }

    /// Removes the histories that an earlier demo's restarted processes wrote there.
    fn clear_history(&self) -> Result<(), Failure> {
        let Some(directory) = self.history() else { return Ok(()) };
        for row in &self.outcome.rows {
            let later = (2..).map(|incarnation| directory.join(history_file(&row.name(), incarnation)));
            for file in later.take_while(|file| file.exists()) {
                let failed = |error| Failure::unusable(format!("can't remove {}: {error}", file.display()));
                std::fs::remove_file(&file).map_err(failed)?;
            }
        }
        Ok(())
    }

    fn assignment(&self, index: u16) -> Assignment {
        assignment(self.plan, &self.settings, self.outcome.messages, self.history(), index)
    }

    /// Starts all processes and waits until each has heard every member.
    fn gather(&mut self) -> Result<Children, Failure> {
        self.clear_history()?;
        for attempt in 1.. {
            let all = 0..self.outcome.rows.len() as u16;
            let mut children = Children::start(all.map(|index| self.assignment(index)))?;
            match self.wait_until_ready(&mut children) {
                Ok(()) => return Ok(children),
                Err(Failure::Unusable(why))
                    if why.contains("in use") && self.may_move() && attempt < ADDRESS_ATTEMPTS =>
                {
                    let given = (!self.plan.retry_address).then_some(self.settings.group.address);
                    super::choose_addresses(&mut self.settings, given, attempt)?;
                }
                Err(failure) => return Err(failure),
            }
        }
        unreachable!("the last attempt returns")
    }

    /// Whether other addresses can be tried: over tcp the demo chooses them, even if the group's address was given.
    fn may_move(&self) -> bool {
        self.plan.retry_address || self.settings.network.transport == Transport::Tcp
    }

    fn wait_until_ready(&mut self, children: &mut Children) -> Result<(), Failure> {
        self.bar.set_message("gathering");
        let deadline = Instant::now() + FORMING_LIMIT;
        let mut ready = vec![false; self.outcome.rows.len()];
        while !ready.iter().all(|ready| *ready) {
            match children.hear(deadline.saturating_duration_since(Instant::now())) {
                Some((index, Word::ProcessReport(ProcessReport::Ready { io, fallback, receive_buffer_bytes }))) => {
                    ready[index] = true;
                    self.note_io(index, &io, fallback.as_deref(), receive_buffer_bytes);
                }
                Some((_, Word::ProcessReport(ProcessReport::Unusable { why }))) => return Err(Failure::unusable(why)),
                Some((index, Word::ProcessReport(ProcessReport::Stuck { why }))) => {
                    return Err(Failure::broken(format!("{}: {why}", self.outcome.rows[index].name())));
                }
                Some((index, Word::Ended)) => {
                    let (name, how) = (self.outcome.rows[index].name(), children.exit_status(index));
                    return Err(Failure::broken(format!("{name} {how} before the group had formed")));
                }
                Some(_) => {}
                None => {
                    let rows = self.outcome.rows.iter().zip(&ready).filter(|(_, ready)| !**ready);
                    let missing: Vec<String> = rows.map(|(row, _)| row.name()).collect();
                    let interface = &self.plan.settings.network.interface;
                    let question = match self.settings.network.transport {
                        Transport::Tcp => "may its processes connect with each other on loopback?".to_owned(),
                        Transport::Shm => "may its processes share memory by Unix sockets?".to_owned(),
                        _ => format!("is multicast working on interface {interface}?"),
                    };
                    let (missing, seconds) = (missing.join(", "), FORMING_LIMIT.as_secs());
                    return Err(Failure::broken(format!(
                        "{missing} did not hear every member within {seconds} s: {question}"
                    )));
                }
            }
        }
        Ok(())
    }

    fn note_io(&mut self, index: usize, io: &str, fallback: Option<&str>, receive_buffer_bytes: usize) {
        if !self.outcome.io.split('+').any(|known| known == io) {
            if !self.outcome.io.is_empty() {
                self.outcome.io.push('+');
            }
            self.outcome.io.push_str(io);
        }
        if index == 0 {
            if let Some(why) = fallback {
                note(why);
            }
            let asked_bytes = self.plan.settings.network.receive_buffer_bytes;
            let has_buffer = !matches!(self.settings.network.transport, Transport::Tcp | Transport::Shm);
            if has_buffer && receive_buffer_bytes < asked_bytes {
                note(format!(
                    "the kernel granted a receive buffer of {receive_buffer_bytes} bytes instead of \
                     {asked_bytes}; for full speed raise net.core.rmem_max"
                ));
            }
        }
    }

    /// Lets the records flow until every process has all of them, or something breaks.
    fn perform(&mut self, children: &mut Children) {
        self.bar.set_message("replaying");
        self.start_ns = bourdon::time::Clock::start().now().0 + HEAD_START_NS;
        children.order_all(&Order::Go { start_ns: self.start_ns });
        let recorded_gap = self.length.map_or(Duration::ZERO, |_| Duration::from_nanos(self.plan.max_gap_ns));
        let mut last_progress = Instant::now();
        while !self.is_complete() {
            match children.hear(LOOK) {
                Some((index, Word::ProcessReport(ProcessReport::Progress { delivered, lost, published_all }))) => {
                    let row = &mut self.outcome.rows[index];
                    (row.delivered, row.lost, row.published_all) = (delivered, lost, published_all);
                    last_progress = Instant::now();
                }
                Some((index, Word::ProcessReport(ProcessReport::News { what }))) => self.note_news(index, what),
                Some((index, Word::ProcessReport(ProcessReport::Stuck { why } | ProcessReport::Unusable { why }))) => {
                    let failure = format!("{}: {why}", self.outcome.rows[index].name());
                    return self.outcome.failures.push(failure);
                }
                Some((index, Word::Ended)) => {
                    self.note_end(children, index);
                    last_progress = Instant::now();
                }
                Some(_) => {}
                None if self.is_quiet(last_progress) => return,
                None if last_progress.elapsed() > STALL_LIMIT + recorded_gap => return self.note_stall(),
                None => {}
            }
            let members = self.outcome.rows.iter().filter(|row| row.role == Role::Member);
            if { members }.all(Row::is_out) && !self.is_complete() {
                return self.outcome.failures.push("every member is gone: the demo can't go on".to_owned());
            }
            if let Err(failure) = self.restart_due(children) {
                return self.outcome.failures.push(format!("{failure:?}"));
            }
            let least = self.outcome.rows.iter().filter(|row| !row.is_out()).map(|row| row.delivered).min();
            self.bar.set_position(least.unwrap_or(0));
        }
    }

    fn is_complete(&self) -> bool {
        let waits = |row: &Row| !row.is_out() && row.delivered + row.lost < self.outcome.messages;
        self.restarts.is_empty() && !self.outcome.rows.iter().any(waits)
    }

    /// Whether messages may be lost and all remaining ones have come: no process reports what was lost with a sender.
    fn is_quiet(&self, last_progress: Instant) -> bool {
        let over = |row: &Row| row.is_out() || row.role == Role::Observer || row.published_all;
        self.is_lossy()
            && last_progress.elapsed() > QUIET
            && self.restarts.is_empty()
            && self.outcome.rows.iter().all(over)
    }

    fn is_lossy(&self) -> bool {
        self.plan.settings.group.reliability.is_lossy()
    }

    /// A process ended, as planned or not.
    fn note_end(&mut self, children: &mut Children, index: usize) {
        let exit_status = children.exit_status(index);
        let row = &self.outcome.rows[index];
        let kill = next_kill(&self.kills, row.role, row.rank).copied();
        match kill.filter(|_| exit_status.contains("signal 9")) {
            Some(kill) => {
                self.kills.retain(|other| *other != kill);
                if kill.victim == Victim::All {
                    let others = (0..self.outcome.rows.len()).filter(|other| *other != index);
                    let running: Vec<usize> = others.filter(|other| self.runs(*other)).collect();
                    running.iter().for_each(|other| children.kill(*other));
                    running.iter().for_each(|other| self.note_killed_row(*other));
                }
                self.note_killed_row(index);
            }
            None => {
                let failure = format!("{} {exit_status}", row.name());
                self.outcome.failures.push(failure);
                let row = &mut self.outcome.rows[index];
                (row.killed, row.restarts) = (true, false);
                self.killed.push(row.name());
            }
        }
    }

    /// Whether the process at this place runs: it is neither gone nor awaits its restart.
    fn runs(&self, index: usize) -> bool {
        !self.outcome.rows[index].is_out() && self.restarts.iter().all(|(waits, _)| *waits != index)
    }

    fn note_killed_row(&mut self, index: usize) {
        let row = &mut self.outcome.rows[index];
        row.killed = true;
        self.killed.push(row.name());
        if let Some(delay) = self.plan.restart_after {
            (row.restarts, row.delivered, row.lost, row.published_all) = (true, 0, 0, false);
            self.restarts.push((index, Instant::now() + delay));
        }
    }

    /// Keeps a process's last report; that it lacks a majority explains more than which member it suspects.
    fn note_news(&mut self, index: usize, what: String) {
        let news = &mut self.outcome.rows[index].news;
        if !news.as_ref().is_some_and(|known| known.contains("majority") && what.contains("suspected")) {
            *news = Some(what);
        }
    }

    fn note_stall(&mut self) {
        let waiting = self.outcome.rows.iter().filter(|row| !row.is_out());
        let slowest = waiting.min_by_key(|row| row.delivered);
        let name = slowest.map_or_else(String::new, Row::name);
        let mut failure = format!("nothing was delivered for {} s; {name} is furthest behind", STALL_LIMIT.as_secs());
        for row in &self.outcome.rows {
            if let Some(news) = &row.news {
                failure += &format!("; {} reported: {news}", row.name());
            }
        }
        self.outcome.failures.push(failure);
    }

    /// Starts the processes whose restart is due.
    fn restart_due(&mut self, children: &mut Children) -> Result<(), Failure> {
        while let Some(place) = self.restarts.iter().position(|(_, at)| *at <= Instant::now()) {
            let (index, _) = self.restarts.swap_remove(place);
            let mut again = self.assignment(index as u16);
            let row = &self.outcome.rows[index];
            let kill = next_kill(&self.kills, row.role, row.rank);
            (again.restarted, again.start_ns) = (true, Some(self.start_ns));
            again.kill_at = kill.map(|kill| kill.at);
            again.breaks_at.clear();
            again.settings.process.start = Start::Snapshot;
            children.restart(&again, index)?;
        }
        Ok(())
    }

    /// Requests the result of every process.
    fn collect(&mut self, children: &mut Children) {
        children.order_all(&Order::Finish);
        let limit = if self.outcome.failures.is_empty() { ANSWER_LIMIT } else { ANSWER_LIMIT_FAILED };
        let deadline = Instant::now() + limit;
        while self.outcome.rows.iter().any(|row| !row.is_out() && row.tally.is_none()) {
            match children.hear(deadline.saturating_duration_since(Instant::now())) {
                Some((index, Word::ProcessReport(ProcessReport::Result(tally)))) => {
                    self.outcome.rows[index].delivered = tally.delivered;
                    self.outcome.rows[index].tally = Some(*tally);
                }
                Some((index, Word::Ended)) => self.note_end(children, index),
                Some(_) => {}
                None => break,
            }
        }
        self.bar.finish_and_clear();
        let silent: Vec<String> =
            self.outcome.rows.iter().filter(|row| !row.is_out() && row.tally.is_none()).map(Row::name).collect();
        if !silent.is_empty() {
            let seconds = limit.as_secs();
            self.outcome.failures.push(format!("{} did not answer within {seconds} s", silent.join(", ")));
        }
    }

    /// Compares what was delivered with the input and with each other.
    fn judge(&mut self, children: &mut Children) {
        let has_gaps = self.outcome.rows.iter().any(|row| row.tally.as_ref().is_some_and(|tally| tally.gaps > 0));
        self.outcome.order_agrees =
            if self.is_lossy() || has_gaps { self.is_one_order(children) } else { self.is_prefix_of_longest(children) };
        let total = self.plan.settings.group.order == DeliveryOrder::Total;
        let mut failures = Vec::new();
        if total && !self.outcome.order_agrees {
            failures.push("the processes delivered in different orders".to_owned());
        }
        for row in &self.outcome.rows {
            let Some(tally) = &row.tally else { continue };
            let lossy = self.is_lossy(); // what is lost is no failure then
            let accounted = tally.delivered + tally.gaps;
            if !lossy && self.outcome.failures.is_empty() && accounted != self.outcome.messages {
                let (delivered, messages) = (tally.delivered, self.outcome.messages);
                failures.push(format!("{} delivered {delivered} of {messages} messages", row.name()));
            }
            if tally.duplicates > 0 {
                failures.push(format!("{} delivered {} messages twice", row.name(), tally.duplicates));
            }
            if !lossy && tally.gaps > 0 {
                failures.push(self.loss(row, tally.gaps));
            }
            let whole = !lossy && tally.delivered == self.outcome.messages;
            let ordered =
                total || matches!(self.plan.settings.group.order, DeliveryOrder::Fifo | DeliveryOrder::Causal);
            let (publishers, messages) = (u64::from(self.plan.publishers), self.outcome.messages);
            let share = |share: u64| (messages + publishers - 1 - share) / publishers;
            let uneven = (0..publishers).zip(&tally.shares).find(|(p, count)| share(*p) != **count);
            if whole && let Some((publisher, count)) = uneven {
                let expected = share(publisher);
                failures.push(format!(
                    "{} delivered {count} of the {expected} records of publisher {publisher}'s share",
                    row.name()
                ));
            }
            if whole && ordered && self.plan.publishers == 1 && tally.payload_sha256 != self.outcome.input_sha256 {
                failures.push(format!("{} delivered other bytes than the input's", row.name()));
            }
        }
        self.outcome.failures.extend(failures);
        self.judge_kills();
    }

    /// That a process of a group that loses no messages lost some.
    fn loss(&self, row: &Row, gaps: u64) -> String {
        let is_free = self.plan.settings.flow.mode != Flow::Gating && row.role == Role::Observer;
        let why = if is_free { ", as publishers did not wait for it (use --flow gating)" } else { "" };
        let order = if self.outcome.order_agrees { "; the order of what it delivered is kept" } else { "" };
        format!("{} lost {gaps} messages{why}{order}", row.name())
    }

    /// A planned kill that did not happen tested nothing.
    fn judge_kills(&mut self) {
        let (planned, left) = (self.plan.kills.len(), self.kills.len());
        if self.outcome.failures.is_empty() && left > 0 {
            let happened = planned - left;
            self.outcome.failures.push(format!("{happened} of {planned} kills happened: name lower message numbers"));
        }
    }

    /// What killed processes delivered, by their histories, as chains; only where these must agree with the other
    /// processes.
    fn killed_chains(&mut self) -> Vec<Vec<u64>> {
        let Some(directory) = self.history().map(Path::to_owned) else { return Vec::new() };
        let mut chains = Vec::new();
        for row in self.outcome.rows.iter_mut().filter(|row| row.killed) {
            let name = row.name();
            let files = (1..).map(|incarnation| directory.join(history_file(&name, incarnation)));
            for text in files.map_while(|file| std::fs::read_to_string(file).ok()) {
                let mut chain = vec![0];
                names(&text).for_each(|(rank, n)| chain.push(proof::link(*chain.last().unwrap_or(&0), rank, n)));
                if row.is_out() {
                    row.delivered = chain.len() as u64 - 1;
                }
                chains.push(chain);
            }
        }
        let judged = self.plan.settings.group.reliability.waits_for_others();
        chains.retain(|_| judged);
        chains
    }

    /// Whether the messages that any two processes have both delivered are in one order at both.
    fn is_one_order(&mut self, children: &mut Children) -> bool {
        self.killed_chains();
        let reported = |row: &Row| row.tally.is_some();
        let mut waiting = self.outcome.rows.iter().filter(|row| reported(row)).count();
        (0..self.outcome.rows.len())
            .filter(|index| reported(&self.outcome.rows[*index]))
            .for_each(|index| children.order(index, &Order::Names));
        let (mut all, deadline) = (Vec::new(), Instant::now() + ANSWER_LIMIT);
        while waiting > 0 {
            match children.hear(deadline.saturating_duration_since(Instant::now())) {
                Some((_, Word::ProcessReport(ProcessReport::Names { names }))) => {
                    all.push(names);
                    waiting -= 1;
                }
                Some(_) => {}
                None => return false,
            }
        }
        have_one_order(&all)
    }

    /// Whether every delivered sequence is a prefix of the longest one.
    fn is_prefix_of_longest(&mut self, children: &mut Children) -> bool {
        let killed = self.killed_chains();
        let reported: Vec<usize> =
            (0..self.outcome.rows.len()).filter(|index| self.outcome.rows[*index].tally.is_some()).collect();
        let counts: Vec<u64> = reported.iter().map(|index| self.outcome.rows[*index].delivered).collect();
        // Each process is asked for its chain at every length that another process has reached.
        let mut lengths = counts.clone();
        lengths.extend(killed.iter().map(|chain| chain.len() as u64 - 1));
        for index in &reported {
            children.order(*index, &Order::Chain { counts: lengths.clone() });
        }
        let mut answers = vec![None; self.outcome.rows.len()];
        let deadline = Instant::now() + ANSWER_LIMIT;
        while reported.iter().any(|index| answers[*index].is_none()) {
            match children.hear(deadline.saturating_duration_since(Instant::now())) {
                Some((index, Word::ProcessReport(ProcessReport::Chain { hashes }))) => answers[index] = Some(hashes),
                Some(_) => {}
                None => return false,
            }
        }
        let answers = reported.iter().map(|index| answers[*index].take().unwrap_or_default());
        let dead = killed.iter().map(|chain| lengths.iter().map(|n| chain.get(*n as usize).copied()).collect());
        let chains: Vec<Vec<Option<u64>>> = answers.chain(dead).collect();
        // At each length, all processes that reached it have the same chain.
        (0..lengths.len()).all(|place| {
            let mut hashes = chains.iter().filter_map(|chain| chain.get(place).copied().flatten());
            let first = hashes.next();
            hashes.all(|hash| Some(hash) == first)
        })
    }
}

/// Whether any two of these sequences of names have what is in both in one order.
fn have_one_order(all: &[Vec<u64>]) -> bool {
    all.iter().enumerate().all(|(index, one)| {
        let places: HashMap<u64, usize> = one.iter().enumerate().map(|(place, name)| (*name, place)).collect();
        let common = |other: &Vec<u64>| other.iter().filter_map(|name| places.get(name)).is_sorted();
        all[index + 1..].iter().all(common)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn issue_gaps_alone_were_called_another_order() {
        let all: Vec<u64> = (0..9).collect();
        assert!(have_one_order(&[all.clone(), vec![0, 1, 7, 8], vec![3, 8]]));
        assert!(!have_one_order(&[all, vec![0, 8, 7]]));
    }
}
