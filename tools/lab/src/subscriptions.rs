//! Subscriptions over an archive that are slow, stopped and killed while several publishers publish and members die:
//! each must write every message once and in order.
//!
//! Member 0 records. Each subscriber is a `bourdon subscribe --history`, whose output is read here. It is stopped
//! (SIGSTOP), or its output is not read, for longer than the members retain messages; or it is killed (SIGKILL) and
//! started again with its position: what it has written behind that position is discarded, as an application does that
//! stores its state together with the position. In between, the members but the first die and come back.
//!
//! Judged: what each publisher had acknowledged is in the archive once and in its order, and each subscriber has what
//! the archive has, in its order, without gap or duplicate.

mod subscriber;

use crate::hosts::{Process, ProcessError};
use serde::Serialize;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};
use subscriber::Subscriber;

const MEMBERS: u16 = 3;
const PUBLISHERS: usize = 3;
const SUBSCRIBERS: usize = 4;
/// Bytes of a message: with the rate, members retain less than a second of them.
const MESSAGE_BYTES: usize = 600;
/// How long a fault lasts: longer than what members retain, some shorter.
const FAULT_MS: std::ops::Range<u64> = 100..900;
/// Between two deaths of members.
const DEATH_EVERY: Duration = Duration::from_secs(5);
/// How often publishers publish, and faults begin and end.
const PACE: Duration = Duration::from_millis(5);
/// The longest time for any step.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the campaign runs.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The `bourdon` command.
    pub bourdon: PathBuf,
    /// How often subscribers must go from the archive to live.
    pub switches: u64,
    /// Messages that each publisher publishes in a second.
    pub rate: u64,
    /// The seed of all randomness.
    pub seed: u64,
    /// A new or empty folder.
    pub folder: PathBuf,
}

/// The outcome.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// How often subscribers went live: from the archive's end, after a loss or a start.
    pub switches: u64,
    /// Times that a subscriber was stopped.
    pub stops: u64,
    /// Times that its output was not read.
    pub pauses: u64,
    /// Times that it was killed.
    pub kills: u64,
    /// Deaths of members.
    pub deaths: u64,
    /// Messages that were published and acknowledged.
    pub published: u64,
    /// Messages in the archive.
    pub recorded: u64,
    /// Messages that subscribers wrote, all together.
    pub written: u64,
    /// Messages a second while publishers published.
    pub live_rate: u64,
    /// Messages a second of a subscriber that reads the whole archive.
    pub catch_up_rate: u64,
    /// What was wrong.
    pub failures: Vec<String>,
}

/// Why the campaign could not go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Of a process.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// Of a file or pipe.
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// A step took too long.
    #[error("not within 60 s: {0}")]
    Late(&'static str),
    /// A command failed.
    #[error("{0}")]
    Failed(String),
}

/// The files and commands of a group.
pub(crate) struct Group<'a> {
    plan: &'a Plan,
}

impl Group<'_> {
    fn config(&self, rank: u16) -> PathBuf {
        self.plan.folder.join(format!("node-{rank}.toml"))
    }

    fn archive(&self) -> PathBuf {
        self.plan.folder.join("archive")
    }

    fn write(&self) -> std::io::Result<()> {
        let folder = self.plan.folder.display();
        let pid = std::process::id();
        for rank in 0..MEMBERS {
            let records =
                if rank == 0 { format!("[archive]\ndirectory = \"{folder}/archive\"\n") } else { String::new() };
            let text = format!(
                "[group]\nname = \"lab-{pid}\"\naddress = \"239.77.{}.{}:{}\"\nmembers = {MEMBERS}\nreliability = \
                 \"uniform\"\n[process]\nrank = {rank}\n[network]\nreceive_buffer_bytes = 262144\n[limits]\nlog_bytes \
                 = 1048576\nreceive_log_bytes = 1048576\n[threads]\ndirectory = \"{folder}/run\"\n{records}",
                pid >> 8 & 255,
                pid & 255,
                20_000 + pid % 10_000,
            );
            std::fs::write(self.config(rank), text)?;
        }
        let run = self.plan.folder.join("run");
        std::fs::create_dir(&run)?;
        std::fs::set_permissions(run, std::os::unix::fs::PermissionsExt::from_mode(0o700))
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.plan.bourdon);
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command
    }

    fn name(&self) -> String {
        format!("lab-{}", std::process::id())
    }

    fn member(&self, rank: u16) -> Result<Process, ProcessError> {
        Process::start(&mut self.command(&["node", "--config", &self.config(rank).display().to_string()]))
    }

    fn replayed(&self, arguments: &[&str]) -> Result<Vec<u8>, Error> {
        let archive = self.archive().display().to_string();
        let mut command = self.command(&["archive"]);
        command.arg(arguments[0]).arg(archive).args(&arguments[1..]).stdout(Stdio::piped()).stderr(Stdio::piped());
        let output = command.output()?;
        if output.status.success() {
            return Ok(output.stdout);
        }
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        Err(Error::Failed(format!("bourdon archive {}: {text}", arguments[0])))
    }
}

/// Runs the campaign; `progress` gets the switches so far.
///
/// # Errors
/// If a process can't be run, or a step takes too long.
pub fn run(plan: &Plan, progress: &mut dyn FnMut(u64)) -> Result<Report, Error> {
    let group = Group { plan };
    group.write()?;
    let mut members: Vec<Process> = (0..MEMBERS).map(|rank| group.member(rank)).collect::<Result<_, _>>()?;
    let begun = Instant::now();
    while !group.archive().exists() {
        if begun.elapsed() > PATIENCE {
            return Err(Error::Late("member 0 records"));
        }
        std::thread::sleep(PACE);
    }
    let mut subscribers: Vec<Subscriber> =
        (0..SUBSCRIBERS).map(|number| Subscriber::start(&group, number)).collect::<Result<_, _>>()?;
    let begun = Instant::now();
    let mut report = Report::default();
    std::thread::scope(|scope| -> Result<(), Error> {
        let publishers: Vec<_> = (0..PUBLISHERS)
            .map(|number| {
                let (ends, end) = channel();
                let group = &group;
                (ends, scope.spawn(move || publish(group, number, &end)))
            })
            .collect();
        let injected = inject(&group, &mut members, &mut subscribers, &mut report, progress);
        if injected.is_err() {
            subscribers.iter().for_each(|subscriber| eprintln!("subscriber: {}", subscriber.last_line()));
        }
        for (ends, publisher) in publishers {
            drop(ends);
            let published = publisher.join().map_err(|_| Error::Failed("a publisher panicked".to_owned()))??;
            report.published += published;
        }
        injected
    })?;
    report.live_rate = (report.published as f64 / begun.elapsed().as_secs_f64()) as u64;
    judge(&group, subscribers, &mut report)?;
    Ok(report)
}

/// Publishes numbered lines until its sender is gone. Returns how many.
fn publish(group: &Group<'_>, number: usize, end: &Receiver<()>) -> Result<u64, Error> {
    let (config, topic) = (group.config(0).display().to_string(), format!("md.{number}"));
    let mut command = group.command(&["publish", &group.name(), &topic, "--config", &config]);
    let mut child = command.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let mut stdin = child.stdin.take().expect("piped");
    let (begun, padding) = (Instant::now(), "x".repeat(MESSAGE_BYTES));
    let (mut count, mut written) = (0, Ok(()));
    while written.is_ok() && end.recv_timeout(PACE) == Err(RecvTimeoutError::Timeout) {
        let due = (begun.elapsed().as_secs_f64() * group.plan.rate as f64) as u64;
        while count < due && written.is_ok() {
            written = writeln!(stdin, "{number} {count} {padding}");
            count += 1;
        }
    }
    drop(stdin);
    let output = child.wait_with_output()?;
    if output.status.success() {
        return Ok(count);
    }
    Err(Error::Failed(format!("publisher {number}: {}", String::from_utf8_lossy(&output.stderr))))
}

/// Faults one subscriber after another, and members, until there were enough switches.
fn inject(
    group: &Group<'_>,
    members: &mut [Process],
    subscribers: &mut [Subscriber],
    report: &mut Report,
    progress: &mut dyn FnMut(u64),
) -> Result<(), Error> {
    let mut rng = fastrand::Rng::with_seed(group.plan.seed);
    let (mut last, mut died_at, mut dead) = ((Instant::now(), 0), Instant::now(), None);
    while report.switches < group.plan.switches {
        for subscriber in subscribers.iter_mut().filter(|subscriber| subscriber.is_calm()) {
            let lasts = Duration::from_millis(rng.u64(FAULT_MS));
            match rng.u8(0..4) {
                0 => {
                    subscriber.kill_and_resume(group)?;
                    report.kills += 1;
                }
                1 => {
                    subscriber.pause(lasts);
                    report.pauses += 1;
                }
                _ => {
                    subscriber.stop(lasts)?;
                    report.stops += 1;
                }
            }
        }
        for subscriber in &mut *subscribers {
            subscriber.keep_time()?;
        }
        if died_at.elapsed() >= DEATH_EVERY {
            died_at = Instant::now();
            match dead.take() {
                None => {
                    let rank = rng.u16(1..MEMBERS);
                    members[usize::from(rank)].kill()?;
                    report.deaths += 1;
                    dead = Some(rank);
                }
                Some(rank) => members[usize::from(rank)] = group.member(rank)?,
            }
        }
        report.switches = subscribers.iter().map(Subscriber::switches).sum();
        if report.switches > last.1 {
            last = (Instant::now(), report.switches);
            progress(report.switches);
        }
        if last.0.elapsed() > PATIENCE {
            return Err(Error::Late("a subscriber goes live"));
        }
        std::thread::sleep(PACE);
    }
    if let Some(rank) = dead {
        members[usize::from(rank)] = group.member(rank)?;
    }
    Ok(())
}

/// Compares what was published, recorded and written.
fn judge(group: &Group<'_>, subscribers: Vec<Subscriber>, report: &mut Report) -> Result<(), Error> {
    let end = Instant::now();
    let recorded = loop {
        let rows = group.replayed(&["replay", "md.**", "--json"])?;
        let rows = subscriber::rows(&rows);
        if rows.len() as u64 >= report.published || end.elapsed() > PATIENCE {
            break rows;
        }
        std::thread::sleep(Duration::from_millis(100));
    };
    report.recorded = recorded.len() as u64;
    let mut next = [0; PUBLISHERS];
    for row in &recorded {
        let expected = &mut next[row.publisher.min(PUBLISHERS - 1)];
        if row.number != *expected && report.failures.len() < 10 {
            report.failures.push(format!("the archive has {row:?}, where message {expected} is expected"));
        }
        *expected = row.number + 1;
    }
    if report.recorded != report.published {
        report.failures.push(format!("{} messages were published, {} recorded", report.published, report.recorded));
    }
    for (number, subscriber) in subscribers.into_iter().enumerate() {
        let written = subscriber.finish(recorded.len(), PATIENCE)?;
        report.written += written.len() as u64;
        if let Some(why) = difference(&recorded, &written) {
            report.failures.push(format!("subscriber {number}: {why}"));
        }
    }
    report.catch_up_rate = catch_up(group, recorded.len())?;
    Ok(())
}

/// The first difference.
fn difference(recorded: &[subscriber::Row], written: &[subscriber::Row]) -> Option<String> {
    let at = recorded.iter().zip(written).position(|(recorded, written)| recorded != written);
    match at {
        Some(at) => {
            Some(format!("message {at} is {:?} in the archive, and {:?} was written", recorded[at], written[at]))
        }
        None if recorded.len() == written.len() => None,
        None => Some(format!("the archive has {} messages, and {} were written", recorded.len(), written.len())),
    }
}

/// How many messages a second a subscriber reads of the archive.
fn catch_up(group: &Group<'_>, count: usize) -> Result<u64, Error> {
    let (config, archive, count_text) =
        (group.config(0).display().to_string(), group.archive().display().to_string(), count.to_string());
    let name = group.name();
    let arguments = ["subscribe", &name, "md.**", "--config", &config, "--history", &archive, "--count", &count_text];
    let begun = Instant::now();
    let status = group.command(&arguments).status()?;
    if !status.success() {
        return Err(Error::Failed(format!("a subscriber that reads the archive ended with {status}")));
    }
    Ok((count as f64 / begun.elapsed().as_secs_f64()) as u64)
}

/// The position in a subscriber's file; none if it has not written one.
pub(crate) fn position(path: &Path) -> Option<u64> {
    let text = std::fs::read_to_string(path).ok()?;
    serde_json::from_str::<serde_json::Value>(&text).ok()?["order"].as_u64()
}

#[cfg(test)]
mod tests {
    use super::*;
    use subscriber::Row;

    fn row(order: u64) -> Row {
        Row { order, publisher: 0, number: order }
    }

    #[test]
    fn a_message_that_is_missing_or_comes_twice_is_found() {
        let recorded: Vec<Row> = (0..5).map(row).collect();
        assert_eq!(difference(&recorded, &recorded), None);
        let skipped: Vec<Row> = [0, 1, 3, 4].map(row).to_vec();
        let twice: Vec<Row> = [0, 1, 2, 2, 3, 4].map(row).to_vec();
        for written in [&skipped, &twice, &recorded[..4].to_vec()] {
            assert!(difference(&recorded, written).is_some());
        }
    }
}
