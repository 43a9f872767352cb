//! A session with a node of this host: a lock or an election that lasts as long as the connection to its admin socket.
//!
//! Two sources are awaited at a time, the node's lines and signals, so both are descriptors and one poll(2) waits for
//! all. The node notices by itself that this process has ended, however it ended: the kernel closes the connection.

use crate::admin::{Which, find};
use crate::exit::Failure;
use crate::place::load;
use crate::probe::Probe;
use bourdon::Settings;
use bourdon::counters::Found;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// The longest line that a node sends; a usual line has about 300 bytes.
const LINE_MAX_BYTES: usize = 1 << 16;

/// Which node to use.
#[derive(Debug, clap::Args)]
pub(crate) struct At {
    /// The group's name, or GROUP/CHANNEL [default: the group whose member runs here, not its channels]
    #[arg(long, value_name = "GROUP")]
    pub(crate) group: Option<String>,
    /// Where the nodes keep their counters, if threads.directory is set
    #[arg(long, value_name = "DIR")]
    pub(crate) directory: Option<PathBuf>,
    /// A node's configuration: it names the group and the directory, and of several members here that node is asked
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
}

impl At {
    /// The members of the selected group that run here: the member that --config describes, then the others by rank.
    pub(crate) fn members(&self) -> Result<Vec<Found>, Failure> {
        let (mut group, mut directory, mut own_pid) = (self.group.clone(), self.directory.clone(), None);
        if let Some(path) = &self.config {
            let settings = load(path)?;
            directory = directory.or_else(|| settings.threads.directory.clone());
            own_pid = described(&settings, directory.as_ref());
            group = group.or(Some(settings.group.name));
            // The first node creates the directory.
            if directory.as_ref().is_some_and(|directory| !directory.exists()) {
                return Err(no_node(group.as_deref()));
            }
        }
        let mut members = find(&Which { group: group.clone(), directory })?;
        members.retain(|node| node.description.role == "member");
        match &group {
            Some(group) => members.retain(|node| node.description.group == *group),
            // A node that runs channels only has no other.
            None if members.iter().any(is_of_group) => members.retain(is_of_group),
            None => {}
        }
        let groups: BTreeSet<&str> = members.iter().map(|node| node.description.group.as_str()).collect();
        match groups.len() {
            0 => Err(no_node(group.as_deref())),
            1 => {
                members.sort_by_key(|node| (Some(node.pid) != own_pid, node.description.rank));
                Ok(members)
            }
            _ => {
                let groups = groups.into_iter().collect::<Vec<_>>().join(", ");
                Err(Failure::unusable(format!("members of several groups run here ({groups}): name one of them")))
            }
        }
    }
}

/// Whether it is a group's own stream, rather than a channel's.
fn is_of_group(node: &Found) -> bool {
    !node.description.group.contains('/')
}

/// The process that a configuration describes. A channel may number its members otherwise, but the process is the same.
fn described(settings: &Settings, directory: Option<&PathBuf>) -> Option<u32> {
    let which = Which { group: Some(settings.group.name.clone()), directory: directory.cloned() };
    let is_it = |node: &&Found| {
        let node = &node.description;
        node.role == "member" && node.group == settings.group.name && node.rank == Some(settings.process.rank)
    };
    find(&which).ok()?.iter().find(is_it).map(|node| node.pid)
}

fn no_node(group: Option<&str>) -> Failure {
    let of = group.map(|group| format!(" of group {group:?}")).unwrap_or_default();
    Failure::unusable(format!(
        "no member{of} of this user runs here, and locks and leaders are for members: start one with `bourdon node`"
    ))
}

/// The connection.
#[derive(Debug)]
pub(crate) struct Session {
    stream: UnixStream,
    input: Vec<u8>,
    /// The name that the lines are about.
    key: &'static str,
    /// The process of the node.
    pub(crate) pid: u32,
    /// Whether it answers.
    pub(crate) probe: Probe,
    /// Whether it has answered this request.
    pub(crate) is_answered: bool,
}

/// What a node sends.
#[derive(Debug)]
pub(crate) enum NodeReply {
    Line(Value),
    Nothing,
    /// The node sends no more: its process is gone.
    Gone,
}

impl Session {
    /// Begins with the first member that accepts the session.
    pub(crate) fn begin(at: &At, key: &'static str, mut request: Value) -> Result<Self, Failure> {
        request["request"] = key.into();
        let mut why = String::new();
        for member in at.members()? {
            let path = member.directory.join(format!("{}.sock", member.stem));
            let open = || {
                let mut stream = UnixStream::connect(&path)?;
                stream.write_all(format!("{request}\n").as_bytes())?;
                stream.set_nonblocking(true)?;
                Ok::<_, std::io::Error>(stream)
            };
            match open() {
                Ok(stream) => {
                    let (input, pid, probe) = (Vec::new(), member.pid, Probe::new(path, member.pid));
                    return Ok(Self { stream, input, key, pid, probe, is_answered: false });
                }
                Err(error) => why = format!("process {} at {}: {error}", member.pid, path.display()),
            }
        }
        Err(Failure::broken(why))
    }

    /// The node's next line, if it is there already.
    pub(crate) fn next(&mut self) -> Result<NodeReply, Failure> {
        loop {
            if let Some(end) = self.input.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.input.drain(..=end).collect();
                self.is_answered = true;
                return self.understood(&line);
            }
            let mut bytes = [0; 4096];
            match self.stream.read(&mut bytes) {
                Ok(0) => return Ok(NodeReply::Gone),
                Ok(_) if self.input.len() > LINE_MAX_BYTES => return Ok(NodeReply::Gone),
                Ok(count) => self.input.extend_from_slice(&bytes[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(NodeReply::Nothing),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Ok(NodeReply::Gone),
            }
        }
    }

    fn understood(&self, line: &[u8]) -> Result<NodeReply, Failure> {
        let pid = self.pid;
        let text = String::from_utf8_lossy(line);
        let mut answer: Value = serde_json::from_slice(line)
            .map_err(|error| Failure::broken(format!("process {pid} answered {text:?}: {error}")))?;
        match answer["error"].as_str() {
            Some(error) => Err(Failure::broken(format!("process {pid}: {error}"))),
            None => Ok(NodeReply::Line(answer[self.key].take())),
        }
    }

    /// Sleeps until the node sends a line, one of the signals comes, or the deadline; an earlier end does no harm.
    pub(crate) fn sleep(&self, signals: &[&UnixStream], until: Option<Instant>) -> Result<(), Failure> {
        Self::sleep_without(&[signals, &[&self.stream]].concat(), until)
    }

    /// The same without the node.
    pub(crate) fn sleep_without(signals: &[&UnixStream], until: Option<Instant>) -> Result<(), Failure> {
        let left = until.map(|until| until.saturating_duration_since(Instant::now()));
        let left = left.map(|left| Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() });
        let mut descriptors: Vec<_> = signals.iter().map(|signals| PollFd::new(*signals, PollFlags::IN)).collect();
        match poll(&mut descriptors, left.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(Failure::broken(error)),
        }
    }
}

/// Whether stdout takes a line now, or will before one of the signals comes: a reader that does not read must not keep
/// this process from ending.
pub(crate) fn may_print(signals: &UnixStream) -> Result<bool, Failure> {
    let stdout = std::io::stdout();
    let mut descriptors = [PollFd::new(&stdout, PollFlags::OUT), PollFd::new(signals, PollFlags::IN)];
    loop {
        match poll(&mut descriptors, None) {
            Ok(_) => return Ok(!descriptors[0].revents().is_empty()),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(Failure::broken(error)),
        }
    }
}

/// A descriptor that becomes readable with any of these signals.
pub(crate) fn signals(numbers: &[i32]) -> Result<UnixStream, Failure> {
    let signals = crate::node::readable_with(numbers).map_err(Failure::unusable)?;
    signals.set_nonblocking(true).map_err(Failure::unusable)?;
    Ok(signals)
}

/// Whether a signal has come since the last call.
pub(crate) fn has_come(mut signals: &UnixStream) -> bool {
    matches!(signals.read(&mut [0; 64]), Ok(count) if count > 0)
}

/// A time given in seconds.
pub(crate) fn seconds(text: &str) -> Result<Duration, String> {
    let value: f64 = text.parse().map_err(|_| "a number of seconds, like 30 or 0.5".to_owned())?;
    let is_sane = (0.0..=365.0 * 86_400.0).contains(&value);
    if is_sane { Ok(Duration::from_secs_f64(value)) } else { Err("0 seconds to a year".to_owned()) }
}

/// A request for a name.
pub(crate) fn named(name: &str) -> Result<Value, Failure> {
    bourdon::id::TopicName::new(name).map_err(|error| Failure::unusable(format!("{name:?} names nothing: {error}")))?;
    Ok(json!({ "name": name }))
}
