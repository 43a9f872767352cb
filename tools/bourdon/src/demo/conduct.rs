//! Starts a demo's processes, drives them, and judges what they delivered.
//!
//! A conductor that waits for an answer that never comes leaves processes behind and a user in the dark. So every wait
//! here is for any process's next word, with a limit; a process that ends, or says that it is stuck, ends the demo with
//! its name; and whatever happens, dropping the [`Cast`] kills and reaps every process it started.
//!
//! Judged: every process delivered every message once, with no gap; in total order each delivered sequence is a prefix
//! of the longest; with one publisher the payloads, hashed in delivery order, are the input's.

use super::input::{Record, Source};
use super::link::{Assignment, Order, Said, Tally};
use super::process::hex;
use super::schedule::{Rate, Schedule};
use crate::exit::Failure;
use bourdon::settings::{Order as DeliveryOrder, Role, Settings};
use indicatif::{ProgressBar, ProgressStyle};
use sha2::{Digest, Sha256};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

/// How long the processes may take to find each other.
const FORMING_LIMIT: Duration = Duration::from_secs(8);
/// How long nothing may be delivered anywhere beyond what the recording says; a silent member is named well before.
const STALL_LIMIT: Duration = Duration::from_secs(8);
/// How long an answer to a question may take.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);
/// And once something has failed: a process that hangs must not keep the others' results from the user.
const ANSWER_LIMIT_FAILED: Duration = Duration::from_secs(1);
/// Between the order to go and the first message: time for the order to reach everyone.
const HEAD_START_NS: u64 = 50_000_000;
/// Other addresses to try when a demo's own one is taken.
const ADDRESS_ATTEMPTS: u32 = 4;

/// What a demo is to do.
pub(crate) struct Plan {
    pub(crate) settings: Settings,
    pub(crate) observers: u16,
    pub(crate) publishers: u16,
    pub(crate) source: Source,
    pub(crate) rate: Rate,
    pub(crate) max_gap_ns: u64,
    pub(crate) fault_seed: u64,
    /// Whether the address was ours to choose.
    pub(crate) retry_address: bool,
}

/// What became of it.
pub(crate) struct Outcome {
    pub(crate) messages: u64,
    pub(crate) order_agrees: bool,
    pub(crate) input_sha256: String,
    pub(crate) io: String,
    pub(crate) gaps_shortened: u64,
    pub(crate) wall_ns: u64,
    pub(crate) rows: Vec<Row>,
    /// What went wrong, in words; empty when all went well.
    pub(crate) failures: Vec<String>,
}

/// One process's part in it.
pub(crate) struct Row {
    pub(crate) role: Role,
    pub(crate) rank: u16,
    pub(crate) delivered: u64,
    pub(crate) tally: Option<Tally>,
    pub(crate) killed: bool,
}

impl Row {
    pub(crate) fn name(&self) -> String {
        let role = if self.role == Role::Member { "member" } else { "observer" };
        format!("{role}:{}", self.rank)
    }
}

enum Word {
    Said(Said),
    Ended,
}

/// The processes of a demo.
struct Cast {
    children: Vec<(Child, ChildStdin)>,
    words: Receiver<(usize, Word)>,
    sender: Sender<(usize, Word)>,
}

impl Drop for Cast {
    fn drop(&mut self) {
        for (child, _) in &mut self.children {
            let _ = child.kill();
        }
        for (child, _) in &mut self.children {
            let _ = child.wait();
        }
    }
}

impl Cast {
    fn start(plan: &Plan, settings: &Settings, messages: u64) -> Result<Self, Failure> {
        let (sender, words) = channel();
        let mut cast = Self { children: Vec::new(), words, sender };
        for index in 0..plan.settings.group.members + plan.observers {
            let mut assignment = Assignment {
                settings: settings.clone(),
                publishers: plan.publishers,
                messages,
                source: plan.source.clone(),
                rate: plan.rate,
                max_gap_ns: plan.max_gap_ns,
            };
            (assignment.settings.process.role, assignment.settings.process.rank) = part(plan, index);
            // Every receiver draws its own faults from the one seed.
            assignment.settings.faults.seed = plan.fault_seed.wrapping_mul(1_000).wrapping_add(u64::from(index));
            cast.spawn(&assignment)?;
        }
        Ok(cast)
    }

    fn spawn(&mut self, assignment: &Assignment) -> Result<(), Failure> {
        let unusable = |error: std::io::Error| Failure::unusable(format!("can't start a process: {error}"));
        let program = std::env::current_exe().map_err(unusable)?;
        let mut command = Command::new(program);
        command.arg("demo-process").stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().map_err(unusable)?;
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
        let (mut stdin, stdout) = (stdin.expect("stdin is piped"), stdout.expect("stdout is piped"));
        let index = self.children.len();
        let sender = self.sender.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines() {
                let Some(said) = line.ok().and_then(|line| serde_json::from_str(&line).ok()) else { break };
                let _ = sender.send((index, Word::Said(said)));
            }
            let _ = sender.send((index, Word::Ended));
        });
        let told = tell(&mut stdin, assignment);
        self.children.push((child, stdin));
        told.map_err(unusable)
    }

    fn order(&mut self, index: usize, order: &Order) {
        // A process that is gone is noticed by its last word.
        let _ = tell(&mut self.children[index].1, order);
    }

    fn order_all(&mut self, order: &Order) {
        (0..self.children.len()).for_each(|index| self.order(index, order));
    }

    fn hear(&self, limit: Duration) -> Option<(usize, Word)> {
        self.words.recv_timeout(limit).ok()
    }

    /// How a process ended, in words.
    fn epitaph(&mut self, index: usize) -> String {
        match self.children[index].0.wait() {
            Ok(status) => match status.signal() {
                Some(signal) => format!("was killed by signal {signal}"),
                None => format!("ended with exit code {}", status.code().unwrap_or(-1)),
            },
            Err(error) => format!("ended ({error})"),
        }
    }
}

fn tell(stdin: &mut ChildStdin, what: &impl serde::Serialize) -> std::io::Result<()> {
    let mut line = serde_json::to_string(what).map_err(std::io::Error::other)?;
    line.push('\n');
    stdin.write_all(line.as_bytes())?;
    stdin.flush()
}

fn part(plan: &Plan, index: u16) -> (Role, u16) {
    let members = plan.settings.group.members;
    if index < members { (Role::Member, index) } else { (Role::Observer, index - members) }
}

/// Runs a demo from beginning to end.
pub(crate) fn run(plan: &Plan, records: &[Record]) -> Result<Outcome, Failure> {
    let began = Instant::now();
    let schedule = Schedule::new(records, plan.rate, plan.max_gap_ns);
    let mut performance = Performance::new(plan, records, &schedule);
    let mut cast = performance.gather()?;
    performance.perform(&mut cast);
    performance.collect(&mut cast);
    performance.judge(&mut cast);
    drop(cast);
    performance.outcome.wall_ns = began.elapsed().as_nanos() as u64;
    Ok(performance.outcome)
}

struct Performance<'a> {
    plan: &'a Plan,
    length: Option<Duration>,
    outcome: Outcome,
    bar: ProgressBar,
}

impl<'a> Performance<'a> {
    fn new(plan: &'a Plan, records: &[Record], schedule: &Schedule) -> Self {
        let mut sha = Sha256::new();
        for record in records {
            sha.update((record.payload.len() as u32).to_le_bytes());
            sha.update(&record.payload);
        }
        let rows = (0..plan.settings.group.members + plan.observers).map(|index| {
            let (role, rank) = part(plan, index);
            Row { role, rank, delivered: 0, tally: None, killed: false }
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
        Self { plan, length, outcome, bar }
    }

    /// Starts everybody and waits until all have heard each other.
    fn gather(&mut self) -> Result<Cast, Failure> {
        let mut settings = self.plan.settings.clone();
        for attempt in 1.. {
            let mut cast = Cast::start(self.plan, &settings, self.outcome.messages)?;
            match self.wait_until_ready(&mut cast) {
                Ok(()) => return Ok(cast),
                Err(Failure::Unusable(why))
                    if why.contains("in use") && self.plan.retry_address && attempt < ADDRESS_ATTEMPTS =>
                {
                    settings.group.address = super::own_address(std::process::id(), attempt);
                }
                Err(failure) => return Err(failure),
            }
        }
        unreachable!("the last attempt returns")
    }

    fn wait_until_ready(&mut self, cast: &mut Cast) -> Result<(), Failure> {
        self.bar.set_message("gathering");
        let deadline = Instant::now() + FORMING_LIMIT;
        let mut ready = vec![false; self.outcome.rows.len()];
        while !ready.iter().all(|ready| *ready) {
            match cast.hear(deadline.saturating_duration_since(Instant::now())) {
                Some((index, Word::Said(Said::Ready { io, fallback, receive_buffer_bytes }))) => {
                    ready[index] = true;
                    self.note_io(index, &io, fallback.as_deref(), receive_buffer_bytes);
                }
                Some((_, Word::Said(Said::Unusable { why }))) => return Err(Failure::unusable(why)),
                Some((index, Word::Said(Said::Stuck { why }))) => {
                    return Err(Failure::broken(format!("{}: {why}", self.outcome.rows[index].name())));
                }
                Some((index, Word::Ended)) => {
                    let (name, how) = (self.outcome.rows[index].name(), cast.epitaph(index));
                    return Err(Failure::broken(format!("{name} {how} before the group had formed")));
                }
                Some(_) => {}
                None => {
                    let rows = self.outcome.rows.iter().zip(&ready).filter(|(_, ready)| !**ready);
                    let missing: Vec<String> = rows.map(|(row, _)| row.name()).collect();
                    return Err(Failure::broken(format!(
                        "{} did not hear every member within {} s: is multicast working on interface {}?",
                        missing.join(", "),
                        FORMING_LIMIT.as_secs(),
                        self.plan.settings.network.interface,
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
                eprintln!("bourdon: {why}");
            }
            let asked_bytes = self.plan.settings.network.receive_buffer_bytes;
            if receive_buffer_bytes < asked_bytes {
                eprintln!(
                    "bourdon: the kernel granted a receive buffer of {receive_buffer_bytes} bytes instead of \
                     {asked_bytes}; for full speed raise net.core.rmem_max"
                );
            }
        }
    }

    /// Lets the records flow until everybody has all of them, or something breaks.
    fn perform(&mut self, cast: &mut Cast) {
        self.bar.set_message("replaying");
        let start_ns = bourdon::Clock::start().now().0 + HEAD_START_NS;
        cast.order_all(&Order::Go { start_ns });
        let recorded_gap = self.length.map_or(Duration::ZERO, |_| Duration::from_nanos(self.plan.max_gap_ns));
        let mut last_progress = Instant::now();
        while self.outcome.rows.iter().any(|row| !row.killed && row.delivered < self.outcome.messages) {
            match cast.hear(Duration::from_millis(250)) {
                Some((index, Word::Said(Said::Progress { delivered }))) => {
                    self.outcome.rows[index].delivered = delivered;
                    last_progress = Instant::now();
                }
                Some((index, Word::Said(Said::Stuck { why }))) => {
                    let failure = format!("{}: {why}", self.outcome.rows[index].name());
                    return self.outcome.failures.push(failure);
                }
                Some((index, Word::Ended)) => {
                    let row = &mut self.outcome.rows[index];
                    row.killed = true;
                    let failure = format!("{} {}", row.name(), cast.epitaph(index));
                    self.outcome.failures.push(failure);
                    if self.outcome.rows[index].role == Role::Member {
                        return; // with a static view the group can't go on without it
                    }
                }
                Some(_) => {}
                None if last_progress.elapsed() > STALL_LIMIT + recorded_gap => {
                    let slowest = self.outcome.rows.iter().filter(|row| !row.killed).min_by_key(|row| row.delivered);
                    let name = slowest.map_or_else(String::new, Row::name);
                    let failure =
                        format!("nothing was delivered for {} s; {name} is furthest behind", STALL_LIMIT.as_secs());
                    return self.outcome.failures.push(failure);
                }
                None => {}
            }
            let least = self.outcome.rows.iter().filter(|row| !row.killed).map(|row| row.delivered).min();
            self.bar.set_position(least.unwrap_or(0));
        }
    }

    /// Asks everybody for the result.
    fn collect(&mut self, cast: &mut Cast) {
        cast.order_all(&Order::Finish);
        let limit = if self.outcome.failures.is_empty() { ANSWER_LIMIT } else { ANSWER_LIMIT_FAILED };
        let deadline = Instant::now() + limit;
        while self.outcome.rows.iter().any(|row| !row.killed && row.tally.is_none()) {
            match cast.hear(deadline.saturating_duration_since(Instant::now())) {
                Some((index, Word::Said(Said::Result(tally)))) => {
                    self.outcome.rows[index].delivered = tally.delivered;
                    self.outcome.rows[index].tally = Some(*tally);
                }
                Some((index, Word::Ended)) => {
                    self.outcome.rows[index].killed = true;
                    let failure = format!("{} {}", self.outcome.rows[index].name(), cast.epitaph(index));
                    self.outcome.failures.push(failure);
                }
                Some(_) => {}
                None => break,
            }
        }
        self.bar.finish_and_clear();
        let silent: Vec<String> =
            self.outcome.rows.iter().filter(|row| !row.killed && row.tally.is_none()).map(Row::name).collect();
        if !silent.is_empty() {
            let seconds = limit.as_secs();
            self.outcome.failures.push(format!("{} did not answer within {seconds} s", silent.join(", ")));
        }
    }

    /// Compares what was delivered with the input and with each other.
    fn judge(&mut self, cast: &mut Cast) {
        self.outcome.order_agrees = self.is_prefix_of_longest(cast);
        let total = matches!(self.plan.settings.group.order, DeliveryOrder::Total | DeliveryOrder::TotalCausal);
        let mut failures = Vec::new();
        if total && !self.outcome.order_agrees {
            failures.push("the processes delivered in different orders".to_owned());
        }
        for row in &self.outcome.rows {
            let Some(tally) = &row.tally else { continue };
            if self.outcome.failures.is_empty() && tally.delivered != self.outcome.messages {
                let (delivered, messages) = (tally.delivered, self.outcome.messages);
                failures.push(format!("{} delivered {delivered} of {messages} messages", row.name()));
            }
            if tally.duplicates > 0 {
                failures.push(format!("{} delivered {} messages twice", row.name(), tally.duplicates));
            }
            if tally.gaps > 0 {
                failures.push(format!("{} gave up {} messages", row.name(), tally.gaps));
            }
            let whole = tally.delivered == self.outcome.messages;
            let ordered =
                total || matches!(self.plan.settings.group.order, DeliveryOrder::Fifo | DeliveryOrder::Causal);
            if whole && ordered && self.plan.publishers == 1 && tally.payload_sha256 != self.outcome.input_sha256 {
                failures.push(format!("{} delivered other bytes than the input's", row.name()));
            }
        }
        self.outcome.failures.extend(failures);
    }

    /// Whether every delivered sequence is a prefix of the longest one.
    fn is_prefix_of_longest(&self, cast: &mut Cast) -> bool {
        let told: Vec<usize> =
            (0..self.outcome.rows.len()).filter(|index| self.outcome.rows[*index].tally.is_some()).collect();
        let delivered = |index: &usize| self.outcome.rows[*index].delivered;
        let Some(longest) = told.iter().copied().max_by_key(delivered) else { return false };
        let counts: Vec<u64> = told.iter().map(delivered).collect();
        cast.order(longest, &Order::Chain { counts: counts.clone() });
        for (index, count) in told.iter().zip(&counts) {
            cast.order(*index, &Order::Chain { counts: vec![*count] });
        }
        let mut expected = None;
        let mut own = vec![None; self.outcome.rows.len()];
        let deadline = Instant::now() + ANSWER_LIMIT;
        while expected.is_none() || told.iter().any(|index| own[*index].is_none()) {
            match cast.hear(deadline.saturating_duration_since(Instant::now())) {
                // The longest one is asked first for all counts, then for its own.
                Some((index, Word::Said(Said::Chain { hashes }))) if index == longest && expected.is_none() => {
                    expected = Some(hashes);
                }
                Some((index, Word::Said(Said::Chain { hashes }))) => own[index] = hashes.first().copied(),
                Some(_) => {}
                None => return false,
            }
        }
        let expected = expected.unwrap_or_default();
        told.iter().zip(&expected).all(|(index, hash)| hash.is_some() && own[*index] == Some(*hash))
    }
}
