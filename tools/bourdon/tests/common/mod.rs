//! Groups of a test's own, and the command run as its users run it.
#![allow(dead_code)] // each test file uses its share

use serde_json::Value;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, ChildStderr, ChildStdout, Command, Output, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;
use tempfile::TempDir;

static NEXT: AtomicU16 = AtomicU16::new(0);

/// A group for one test, in its own directory.
pub(crate) struct World {
    pub(crate) directory: TempDir,
    pub(crate) address: String,
}

/// Ends its process if the test did not.
pub(crate) struct Running(pub(crate) Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl World {
    pub(crate) fn new() -> Self {
        let (number, pid) = (NEXT.fetch_add(1, Ordering::Relaxed), std::process::id());
        let port = 20_000 + pid as u16 % 16_384 + number * 7;
        let address = format!("239.77.{}.{}:{port}", pid >> 8 & 0xff, pid & 0xff);
        Self { directory: tempfile::tempdir().expect("a directory can be made"), address }
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn runtime(&self) -> String {
        self.path().join("runtime").display().to_string()
    }

    /// Writes a configuration; `more` is further TOML.
    pub(crate) fn configure(&self, name: &str, members: u16, rank: u16, more: &str) -> String {
        let (address, runtime) = (&self.address, self.runtime());
        let text = format!(
            "[group]\nname = \"prices\"\naddress = \"{address}\"\nmembers = {members}\n[process]\nrank = \
                 {rank}\n[threads]\ndirectory = \"{runtime}\"\n{more}"
        );
        let path = self.path().join(name);
        std::fs::write(&path, text).expect("it can be written");
        path.display().to_string()
    }

    /// Starts a node and reads its events up to the first.
    pub(crate) fn node(&self, config: &str) -> (Running, BufReader<ChildStdout>, Value) {
        let mut child = bourdon(&["node", "--config", config, "--json"]).spawn().expect("it runs");
        let mut events = BufReader::new(child.stdout.take().expect("piped"));
        let node = Running(child);
        let started = next(&mut events);
        (node, events, started)
    }

    pub(crate) fn names(&self) -> Vec<String> {
        let Ok(entries) = std::fs::read_dir(self.runtime()) else { return Vec::new() };
        entries.map(|entry| entry.expect("readable").file_name().to_string_lossy().into_owned()).collect()
    }
}

pub(crate) fn bourdon(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bourdon"));
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// The next event but for the reports that a slow start waits.
pub(crate) fn next(events: &mut impl BufRead) -> Value {
    loop {
        let event = next_of_all(events);
        if event["event"] != "waiting" {
            return event;
        }
    }
}

pub(crate) fn next_of_all(events: &mut impl BufRead) -> Value {
    let mut line = String::new();
    events.read_line(&mut line).expect("readable");
    serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line:?}"))
}

pub(crate) fn run(arguments: &[&str], stdin: &[u8]) -> Output {
    let mut child = bourdon(arguments).spawn().expect("it runs");
    // The process may end without reading all input.
    let _ = child.stdin.take().expect("piped").write_all(stdin);
    child.wait_with_output().expect("it ends")
}

pub(crate) fn fails(arguments: &[&str], stdin: &[u8], code: i32, expected: &str) {
    let output = run(arguments, stdin);
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {text}");
    assert!(text.contains(expected), "{arguments:?} should print {expected:?}: {text}");
    assert!(output.stdout.is_empty());
}

pub(crate) fn signal(child: &Child, name: &str) {
    let status = Command::new("kill").args(["-s", name, &child.id().to_string()]).status().expect("kill(1) is there");
    assert!(status.success());
}

/// Starts a subscriber and waits until it observes the group.
pub(crate) fn subscribe(arguments: &[&str]) -> (Running, BufReader<ChildStderr>) {
    let mut child = bourdon(&[&["subscribe"], arguments].concat()).spawn().expect("it runs");
    let mut talk = BufReader::new(child.stderr.take().expect("piped"));
    let mut text = String::new();
    while !text.contains("observing") {
        assert_ne!(talk.read_line(&mut text).expect("readable"), 0, "it ended early: {text}");
    }
    (Running(child), talk)
}

/// Longer than any subscriber takes on a loaded host; reached only by failing tests.
const OUTPUT_PATIENCE: Duration = Duration::from_secs(90);

pub(crate) fn output(subscriber: &mut Running) -> Vec<u8> {
    let mut stdout = subscriber.0.stdout.take().expect("piped");
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = sender.send(stdout.read_to_end(&mut bytes).map(|_| bytes));
    });
    // One that waits for ever fails its test, which kills it.
    let bytes = receiver.recv_timeout(OUTPUT_PATIENCE).expect("it ends").expect("readable");
    assert!(subscriber.0.wait().expect("it ends").success());
    bytes
}
