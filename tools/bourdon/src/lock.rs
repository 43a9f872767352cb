//! `bourdon lock NAME -- COMMAND`: runs a command while holding a lock of the group.
//!
//! A script that acquires a lock, works and releases it leaves the lock held when it is killed, and works on when the
//! lock is lost. Here the lock is a connection to a member on this host: the lock is released when this process ends,
//! however it ends, and the command is ended when the lock is lost. The command can't outlive this process either:
//! before the command begins, `held.rs` asks the kernel to kill it with its parent.
//!
//! A command that is being ended may still write while another process holds the lock. So it gets its token, and the
//! store that it writes to must refuse a token lower than the highest it has seen: `BOURDON_TOKEN` sorts as tokens do.
//!
//! Exit codes: the command's own, or 128 + the signal that ended it; 1 if the lock was lost, not free or not granted in
//! time; 2 if no member runs here, the group grants no locks, or there is no command. With --json, `exit_code` is the
//! command's only.

use crate::exit::{Failure, note, print};
use crate::probe::LATE;
use crate::session::{At, NodeReply, Session, has_come, named, seconds, signals};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use serde_json::{Value, json};
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGTERM};
use std::ffi::OsString;
use std::io::IsTerminal;
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

/// How long a lock request waits before this is reported.
const PATIENT: Duration = Duration::from_millis(300);
/// A node that has not answered for this long keeps no lock: the group may have removed it, and granted the lock to
/// another member.
const NODE_SILENT_MAX: Duration = LATE;
/// How long after the request's timeout the node may take to answer that the lock was not granted.
const ANSWERS_WITHIN: Duration = Duration::from_secs(1);

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The lock's name, like a topic's: words with dots between
    name: String,
    #[command(flatten)]
    at: At,
    /// Do not wait: end with 1 if the lock is not free
    #[arg(long = "try", conflicts_with = "timeout")]
    tries: bool,
    /// How many seconds to wait for the lock; 0 is --try [default: for ever]
    #[arg(long, value_name = "S", value_parser = seconds)]
    timeout: Option<Duration>,
    /// If the lock is lost: how many seconds the command has to end after SIGTERM before it is killed
    #[arg(long, value_name = "S", default_value = "5", value_parser = seconds)]
    grace: Duration,
    /// Print one JSON object at the end, after the command's own output
    #[arg(long)]
    json: bool,
    /// The command to run
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// The outcome.
#[derive(Debug, Default)]
struct Report {
    token: Option<[u64; 3]>,
    waited: Duration,
    held: Option<Duration>,
    exit: Option<ExitStatus>,
    lost: Option<String>,
    /// Why no command was run.
    refused: Option<String>,
    /// The group grants no locks, or not now: the user must act first.
    is_unusable: bool,
}

/// The signals that this command handles.
struct Signals {
    interrupt: UnixStream,
    terminate: UnixStream,
    hang_up: UnixStream,
    child: UnixStream,
}

impl Signals {
    fn new() -> Result<Self, Failure> {
        Ok(Self {
            interrupt: signals(&[SIGINT])?,
            terminate: signals(&[SIGTERM])?,
            hang_up: signals(&[SIGHUP])?,
            child: signals(&[SIGCHLD])?,
        })
    }

    fn all(&self) -> [&UnixStream; 4] {
        [&self.interrupt, &self.terminate, &self.hang_up, &self.child]
    }

    /// The signals that have come and are passed on to the command.
    fn come(&self) -> impl Iterator<Item = Signal> {
        let [interrupt, terminate, hang_up, _] = self.all();
        let pairs = [(interrupt, Signal::INT), (terminate, Signal::TERM), (hang_up, Signal::HUP)];
        pairs.into_iter().filter(|(signals, _)| has_come(signals)).map(|(_, signal)| signal)
    }
}

pub(crate) fn run(args: Args) -> Result<(), Failure> {
    let mut request = named(&args.name)?;
    let timeout = args.timeout.filter(|timeout| !timeout.is_zero());
    let tries = args.tries || timeout != args.timeout;
    let args = Args { tries, timeout, ..args };
    if tries {
        request["try"] = true.into();
    }
    if let Some(timeout) = args.timeout {
        request["timeout_ns"] = (timeout.as_nanos() as u64).into();
    }
    let signals = Signals::new()?;
    let mut session = Session::begin(&args.at, "lock", request)?;
    let mut report = Report::default();
    wait(&args, &mut session, &signals, &mut report)?;
    if report.token.is_some() {
        hold(&args, &mut session, &signals, &mut report)?;
    }
    drop(session); // the lock is free before any process learns that this is over
    if args.json {
        print(&format!("{}\n", report.object(&args.name)))?;
    }
    report.end(&args.name)
}

/// Waits until the lock is granted or the request is refused.
fn wait(args: &Args, session: &mut Session, signals: &Signals, report: &mut Report) -> Result<(), Failure> {
    let (name, asked_at) = (&args.name, Instant::now());
    let patient_until = asked_at + PATIENT;
    // The node enforces the timeout; a stopped node can't.
    let answers_until = args.timeout.map(|timeout| asked_at + timeout + ANSWERS_WITHIN);
    let (mut waits, mut printed) = (String::new(), String::new());
    let mut pending = None;
    loop {
        match session.next()? {
            NodeReply::Gone => report.refused = Some(format!("the node (process {}) is gone", session.pid)),
            NodeReply::Line(line) => match line["state"].as_str() {
                Some("granted") => {
                    let number = |key: &str| line["token"][key].as_u64().unwrap_or_default();
                    report.token = Some([number("birth"), number("epoch"), number("number")]);
                }
                Some("waiting") => {
                    let ahead = line["ahead"].as_u64().unwrap_or_default();
                    waits = if ahead == 0 { String::new() } else { format!(", at place {} of the queue", ahead + 1) };
                    continue;
                }
                Some("pending") => {
                    pending = line["why"].as_str().map(str::to_owned);
                    waits = pending.iter().map(|why| format!(": {why}")).collect();
                    continue;
                }
                state => {
                    let why = line["why"].as_str().or(state).unwrap_or("no reason given").to_owned();
                    // If the awaited condition has not come in time, the user has nothing to fix.
                    let is_late = pending.as_ref() == Some(&why);
                    report.is_unusable = state == Some("refused") && !is_late;
                    report.refused = Some(if is_late { format!("not granted in time: {why}") } else { why });
                }
            },
            NodeReply::Nothing => {
                if signals.come().next().is_some() {
                    report.refused = Some("interrupted while it waited".to_owned());
                } else if answers_until.is_some_and(|until| Instant::now() >= until) {
                    report.is_unusable = true;
                    report.refused =
                        Some(format!("the node (process {}) does not answer; it may be stopped", session.pid));
                } else if args.tries
                    && let Some(why) = session.probe.silent_for(LATE)
                {
                    (report.is_unusable, report.refused) = (true, Some(why));
                } else {
                    let is_patient = printed.is_empty() && Instant::now() < patient_until;
                    let text = format!("waiting for lock {name:?}{waits}");
                    if !is_patient && text != printed {
                        note(&text);
                        printed = text;
                    }
                    session.probe.report().iter().for_each(note);
                    let look_at = is_patient.then_some(patient_until).into_iter().chain([session.probe.look_at()]);
                    session.sleep(&signals.all(), look_at.chain(answers_until).min())?;
                    continue;
                }
            }
        }
        report.waited = asked_at.elapsed();
        return Ok(());
    }
}

/// Runs the command, and ends it if the lock is lost.
fn hold(args: &Args, session: &mut Session, signals: &Signals, report: &mut Report) -> Result<(), Failure> {
    let granted_at = Instant::now();
    let mut command = RunningCommand::start(args, report.token.unwrap_or_default())?;
    let mut kill_at = None;
    loop {
        // The signals come before the check of the child: a later signal wakes the sleep below.
        has_come(&signals.child);
        signals.come().for_each(|signal| command.pass_on(signal));
        if let Some(status) = command.child.try_wait().map_err(Failure::broken)? {
            (report.exit, report.held) = (Some(status), Some(granted_at.elapsed()));
            return Ok(());
        }
        if report.lost.is_none() {
            report.lost = match session.next()? {
                NodeReply::Gone => {
                    Some(format!("the node (process {}) is gone: others may have the lock by now", session.pid))
                }
                NodeReply::Line(line) if line["state"] == "lost" => {
                    Some(line["why"].as_str().unwrap_or("no reason given").to_owned())
                }
                _ => {
                    let silent = session.probe.silent_for(NODE_SILENT_MAX);
                    silent.map(|why| format!("{why}, and others may have the lock by now"))
                }
            };
            if let Some(why) = &report.lost {
                command.end(Signal::TERM);
                kill_at = Instant::now().checked_add(args.grace);
                note(format!("lock {:?} is lost: {why}; ending the command", args.name));
            }
        } else if kill_at.is_some_and(|at| Instant::now() >= at) {
            command.end(Signal::KILL);
            kill_at = None;
        }
        // The connection to a node that is gone stays readable for ever, so from then on only signals are awaited.
        if report.lost.is_none() {
            session.sleep(&signals.all(), Some(session.probe.look_at()))?;
        } else {
            Session::sleep_without(&signals.all(), kill_at)?;
        }
    }
}

/// The command that runs.
struct RunningCommand {
    child: Child,
    pid: Pid,
    /// Whether it leads a process group of its own.
    has_group: bool,
}

impl RunningCommand {
    fn start(args: &Args, [birth, epoch, number]: [u64; 3]) -> Result<Self, Failure> {
        let own = std::env::current_exe().map_err(Failure::unusable)?;
        let mut command = Command::new(own);
        command.arg("held").arg(std::process::id().to_string()).arg("--").args(&args.command);
        command.env("BOURDON_LOCK", &args.name);
        command.env("BOURDON_LOCK_EPOCH", epoch.to_string()).env("BOURDON_LOCK_NUMBER", number.to_string());
        command.env("BOURDON_TOKEN", format!("{birth:016x}{epoch:016x}{number:016x}"));
        // A process group of its own could not read a terminal. So with a terminal the command stays in this process
        // group, which gets Ctrl-C as a whole.
        let has_group = !std::io::stdin().is_terminal();
        if has_group {
            command.process_group(0);
        }
        let child = command.spawn().map_err(|error| Failure::broken(format!("can't start the command: {error}")))?;
        let pid = Pid::from_child(&child);
        Ok(Self { child, pid, has_group })
    }

    /// Ends the command, and its descendants if it has a process group.
    fn end(&self, signal: Signal) {
        // The command may have ended by itself.
        let _ = if self.has_group { kill_process_group(self.pid, signal) } else { kill_process(self.pid, signal) };
    }

    fn pass_on(&self, signal: Signal) {
        // The terminal has sent Ctrl-C to both processes.
        if self.has_group || signal != Signal::INT {
            self.end(signal);
        }
    }
}

impl Report {
    fn exit_code(&self) -> Option<i32> {
        self.exit.map(|status| status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default()))
    }

    fn object(&self, name: &str) -> Value {
        json!({
            "name": name,
            "token": self.token.map(|[birth, epoch, number]| {
                json!({ "birth": birth, "epoch": epoch, "number": number })
            }),
            "waited_ns": self.waited.as_nanos() as u64,
            "held_ns": self.held.map(|held| held.as_nanos() as u64),
            "exit_code": self.exit_code(),
            "lost": self.lost,
            "not_granted": self.refused,
        })
    }

    fn end(self, name: &str) -> Result<(), Failure> {
        let code = self.exit_code();
        match (self.refused, self.lost, code) {
            (Some(why), ..) if self.is_unusable => Err(Failure::unusable(format!("lock {name:?}: {why}"))),
            (Some(why), ..) => Err(Failure::broken(format!("lock {name:?}: {why}"))),
            (None, Some(_), _) => Err(Failure::broken(format!("lock {name:?} was lost, and the command ended"))),
            (None, None, Some(0) | None) => Ok(()),
            (None, None, Some(code)) => std::process::exit(code),
        }
    }
}
