//! A group, its recorder, a server and a bridge of a test's own.
#![allow(dead_code)] // each test file uses its share

mod proxy;
mod server;

pub(crate) use proxy::Proxy;
pub(crate) use server::Server;

use bourdon::settings::Flow;
use bourdon::{Delivery, Event, InlineNode, Node, Settings, Subscribe};
use bourdon_archive::Recorder;
use serde_json::Value;
use std::ffi::OsStr;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Longer than anything here takes on a loaded host; reached only by failing tests.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(5);

static NEXT: AtomicU16 = AtomicU16::new(0);

/// Topics and payloads that were delivered, but for positions.
pub(crate) type Deliveries = Arc<std::sync::Mutex<Vec<(String, Vec<u8>)>>>;

/// Messages and faults of a test: few, or as `BOURDON_BRIDGE_MESSAGES` and `BOURDON_BRIDGE_KILLS` give.
pub(crate) struct Size {
    pub(crate) messages: u64,
    pub(crate) kills: u64,
}

impl Size {
    pub(crate) fn of_test() -> Self {
        let number = |name: &str, short| match std::env::var(name) {
            Ok(text) => text.parse().unwrap_or_else(|error| panic!("{name} is {text:?}: {error}")),
            Err(_) => short,
        };
        Self { messages: number("BOURDON_BRIDGE_MESSAGES", 1_500), kills: number("BOURDON_BRIDGE_KILLS", 4) }
    }
}

/// A group, of which the first members run in this process; an archive of all that it delivers.
pub(crate) struct Group {
    pub(crate) directory: TempDir,
    address: String,
    pub(crate) members: Vec<Node>,
    recorder: Option<(Arc<AtomicBool>, JoinHandle<()>)>,
}

impl Group {
    /// A group of `members`.
    pub(crate) fn new(members: u16) -> Self {
        let (number, pid) = (NEXT.fetch_add(1, Ordering::Relaxed), std::process::id());
        let port = 20_000 + pid as u16 % 16_384 + number * 7;
        let address = format!("239.78.{}.{}:{port}", pid >> 8 & 0xff, pid & 0xff);
        let directory = tempfile::tempdir().expect("a directory can be made");
        let mut group = Self { directory, address, members: Vec::new(), recorder: None };
        for rank in 0..members {
            let settings: Settings = group.text(members, rank).parse().expect("they are right");
            group.members.push(Node::open(&settings).expect("it opens"));
        }
        group
    }

    fn text(&self, members: u16, rank: u16) -> String {
        let (address, runtime) = (&self.address, self.path().join("runtime").display().to_string());
        format!(
            "[group]\nname = \"prices\"\naddress = \"{address}\"\nmembers = {members}\nreliability = \
                 \"uniform\"\n[process]\nrank = {rank}\n[threads]\ndirectory = \"{runtime}\"\nidle = \"park\"\n"
        )
    }

    /// The members join, once the subscriptions that must miss nothing are made.
    pub(crate) fn join(&self) {
        self.members.iter().for_each(|member| member.join().expect("it joins"));
        until("there is a view", || self.members.iter().all(|member| !member.view().members.is_empty()));
    }

    /// The last members leave: bridges take their places.
    pub(crate) fn leave(&mut self, count: usize) {
        for member in self.members.split_off(self.members.len() - count).into_iter().rev() {
            member.close(PATIENCE).expect("it leaves");
        }
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn archive(&self) -> PathBuf {
        self.path().join("archive")
    }

    /// The configuration of a process, in a file.
    pub(crate) fn configuration(&self, members: u16, rank: u16) -> String {
        let path = self.path().join(format!("{rank}.toml"));
        std::fs::write(&path, self.text(members, rank)).expect("it can be written");
        path.display().to_string()
    }

    /// Starts to record, and waits until the recorder follows the group.
    pub(crate) fn record(&mut self, members: u16) {
        let mut settings: Settings = self.text(members, 0).parse().expect("they are right");
        settings.process.role = bourdon::settings::Role::Observer;
        settings.process.start = bourdon::Start::Oldest;
        settings.flow.mode = Flow::Free;
        let (stop, follows, path) =
            (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)), self.archive());
        let (is_over, has_view) = (Arc::clone(&stop), Arc::clone(&follows));
        let thread = std::thread::spawn(move || {
            let mut node = InlineNode::join(&settings).expect("it joins");
            let mut recorder = Recorder::open(path, "prices", bourdon_log::Retention::default()).expect("it records");
            while !is_over.load(Ordering::Relaxed) {
                let polled = node.poll(usize::MAX, |delivery| match delivery {
                    Delivery::Message(message) => recorder.record(&message, message.name).expect("it records"),
                    Delivery::Event(event) => {
                        recorder.record_event(&event).expect("it records");
                        has_view.fetch_or(matches!(event, Event::View { .. }), Ordering::Relaxed);
                    }
                    _ => {}
                });
                let count = polled.expect("it works");
                recorder.sync().expect("it syncs");
                if count == 0 {
                    node.wait(LOOK).expect("it waits");
                }
            }
            recorder.close().expect("it closes");
        });
        self.recorder = Some((stop, thread));
        until("the recorder follows the group", || follows.load(Ordering::Relaxed));
    }

    /// Ends the recorder.
    pub(crate) fn stop_recorder(&mut self) {
        let (stop, thread) = self.recorder.take().expect("it records");
        stop.store(true, Ordering::Relaxed);
        thread.join().expect("it ends well");
    }

    /// The payloads that a member delivers from now on, but for positions, by a thread.
    pub(crate) fn deliveries(&self, member: usize) -> Deliveries {
        let mut subscription = self.members[member].subscribe(Subscribe::all()).expect("it subscribes");
        let deliveries = Arc::new(std::sync::Mutex::new(Vec::new()));
        let shared = Arc::clone(&deliveries);
        std::thread::spawn(move || {
            while let Ok(Some(delivery)) = subscription.next(PATIENCE) {
                if let Delivery::Message(message) = delivery {
                    let topic = message.name.unwrap_or_default().to_owned();
                    if !topic.starts_with("bridge.") {
                        shared.lock().expect("whole").push((topic, message.payload.to_vec()));
                    }
                }
            }
        });
        deliveries
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some((stop, thread)) = self.recorder.take() {
            stop.store(true, Ordering::Relaxed);
            let _ = thread.join();
        }
    }
}

/// A bridge that runs; its stderr is kept.
pub(crate) struct Bridge {
    child: Child,
    talk: Arc<std::sync::Mutex<String>>,
}

impl Bridge {
    pub(crate) fn start<S: AsRef<OsStr>>(arguments: &[S]) -> Self {
        let mut child = command(arguments).spawn().expect("it runs");
        let talk = Arc::new(std::sync::Mutex::new(String::new()));
        let (shared, mut stderr) = (Arc::clone(&talk), child.stderr.take().expect("piped"));
        std::thread::spawn(move || {
            let mut bytes = [0; 4_096];
            while let Ok(count @ 1..) = stderr.read(&mut bytes) {
                let text = String::from_utf8_lossy(&bytes[..count]).into_owned();
                if std::env::var_os("BOURDON_BRIDGE_TALK").is_some() {
                    eprint!("{text}");
                }
                shared.lock().expect("whole").push_str(&text);
            }
        });
        Self { child, talk }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn talk(&self) -> String {
        self.talk.lock().expect("whole").clone()
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("it is ours").is_none()
    }

    /// Waits until it has found how far it has come.
    pub(crate) fn until_begun(&self) {
        until("the bridge begins", || self.talk().contains("stream \"PRICES\""));
    }

    /// As `kill -9`.
    pub(crate) fn kill(mut self) {
        self.child.kill().expect("it is ours");
        self.child.wait().expect("it ends");
    }

    /// Waits until it ends by itself. Returns its exit code.
    pub(crate) fn wait(&mut self) -> Option<i32> {
        until("the bridge ends", || !self.is_running());
        self.child.wait().expect("it ends").code()
    }

    /// Ends it by a signal. Returns what it counted.
    pub(crate) fn end(mut self) -> Value {
        signal(self.pid(), "TERM");
        let code = self.wait();
        let mut text = String::new();
        self.child.stdout.take().expect("piped").read_to_string(&mut text).expect("text");
        assert_eq!(code, Some(0), "{}", self.talk());
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text:?}: {}", self.talk()))
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn command<S: AsRef<OsStr>>(arguments: &[S]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bourdon-bridge"));
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Runs a bridge that is to be refused.
#[track_caller]
pub(crate) fn fails<S: AsRef<OsStr>>(arguments: &[S], expected: &str) {
    let output = command(arguments).output().expect("it runs");
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "it should print {expected:?}: {text}");
    assert!(text.contains(expected), "it should print {expected:?}: {text}");
}

pub(crate) fn signal(pid: u32, name: &str) {
    let status = Command::new("kill").args(["-s", name, &pid.to_string()]).status().expect("kill(1) is there");
    assert!(status.success());
}

/// Waits until this holds.
#[track_caller]
pub(crate) fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
        std::thread::sleep(LOOK);
    }
}
