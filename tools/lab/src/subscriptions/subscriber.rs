//! One subscriber, its output, and what is done to it.

use super::{Error, Group, position};
use crate::hosts::Process;
use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How soon a subscriber that has lost something has noticed: some messages come in this time.
const NOTICES: Duration = Duration::from_millis(300);

/// A message as it was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) order: u64,
    pub(crate) publisher: usize,
    pub(crate) number: u64,
}

/// The messages of a command's JSON, a row each; an incomplete last line is left out.
pub(crate) fn rows(json: &[u8]) -> Vec<Row> {
    let mut rows = Vec::new();
    add(&mut rows, json);
    rows
}

/// Adds the messages of complete lines, and removes what became void: an observer may run ahead of a view.
fn add(rows: &mut Vec<Row>, json: &[u8]) {
    let complete = json.iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last + 1);
    for line in json[..complete].split(|byte| *byte == b'\n') {
        let Ok(object) = serde_json::from_slice::<serde_json::Value>(line) else { continue };
        if let (Some("void"), Some(from)) = (object["event"].as_str(), object["from"].as_u64()) {
            rows.truncate(rows.partition_point(|row| row.order < from));
        }
        rows.extend(row(&object));
    }
}

fn row(object: &serde_json::Value) -> Option<Row> {
    let mut words = object["payload"].as_str()?.split(' ');
    let publisher = words.next()?.parse().ok()?;
    Some(Row { order: object["order"].as_u64()?, publisher, number: words.next()?.parse().ok()? })
}

/// What its threads read.
#[derive(Default)]
struct State {
    written: Vec<Row>,
    is_paused: bool,
    switches: u64,
    /// It reads the archive.
    replays: bool,
    /// The last that it reported.
    last_line: String,
}

#[derive(Clone, Default)]
struct Output(Arc<Mutex<State>>);

impl Output {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("no reader panics")
    }
}

/// A subscriber.
pub(crate) struct Subscriber {
    process: Process,
    file: PathBuf,
    read: Output,
    reader: Option<JoinHandle<std::io::Result<()>>>,
    /// Until when a fault lasts.
    until: Option<Instant>,
    is_stopped: bool,
    /// When the last fault ended.
    fault_at: Instant,
}

impl Subscriber {
    pub(crate) fn start(group: &Group<'_>, number: usize) -> Result<Self, Error> {
        let file = group.plan.folder.join(format!("position-{number}"));
        let read = Output::default();
        let (process, reader) = spawn(group, &file, &read)?;
        let (fault_at, reader) = (Instant::now(), Some(reader));
        Ok(Self { process, file, read, reader, until: None, is_stopped: false, fault_at })
    }

    /// How often it went live.
    pub(crate) fn switches(&self) -> u64 {
        self.read.lock().switches
    }

    /// Whether it suffers no fault, and is live since; it notices a loss with what comes next.
    pub(crate) fn is_calm(&self) -> bool {
        let state = self.read.lock();
        self.until.is_none() && !state.replays && state.switches > 0 && self.fault_at.elapsed() > NOTICES
    }

    fn begin(&mut self, lasts: Duration) {
        self.fault_at = Instant::now() + lasts;
        self.until = Some(self.fault_at);
    }

    /// What it reported last.
    pub(crate) fn last_line(&self) -> String {
        self.read.lock().last_line.clone()
    }

    pub(crate) fn stop(&mut self, lasts: Duration) -> Result<(), Error> {
        self.begin(lasts);
        self.is_stopped = true;
        Ok(self.process.stop()?)
    }

    /// Its output is not read.
    pub(crate) fn pause(&mut self, lasts: Duration) {
        self.begin(lasts);
        self.read.lock().is_paused = true;
    }

    /// Ends a fault that is over.
    pub(crate) fn keep_time(&mut self) -> Result<(), Error> {
        if self.until.is_some_and(|until| until <= Instant::now()) {
            self.until = None;
            self.read.lock().is_paused = false;
            if std::mem::take(&mut self.is_stopped) {
                self.process.resume()?;
            }
        }
        Ok(())
    }

    /// Kills it, discards what it wrote behind its position, and starts it again there.
    pub(crate) fn kill_and_resume(&mut self, group: &Group<'_>) -> Result<(), Error> {
        self.begin(Duration::ZERO);
        self.process.kill()?;
        self.join()?;
        let next = position(&self.file).unwrap_or(0);
        {
            let written = &mut self.read.lock().written;
            written.truncate(written.partition_point(|row| row.order < next));
        }
        self.read.lock().replays = true;
        let (process, reader) = spawn(group, &self.file, &self.read)?;
        (self.process, self.reader) = (process, Some(reader));
        Ok(())
    }

    fn join(&mut self) -> Result<(), Error> {
        self.read.lock().is_paused = false;
        let ended = self.reader.take().map_or(Ok(Ok(())), JoinHandle::join);
        Ok(ended.map_err(|_| Error::Failed("a reader panicked".to_owned()))??)
    }

    /// Ends it once it has written so many messages, and a moment more: one too many is found then. Returns all.
    pub(crate) fn finish(mut self, count: usize, patience: Duration) -> Result<Vec<Row>, Error> {
        let begun = Instant::now();
        self.until = Some(begun);
        self.keep_time()?;
        while self.read.lock().written.len() < count && begun.elapsed() < patience {
            std::thread::sleep(Duration::from_millis(5));
        }
        self.process.terminate()?;
        self.join()?;
        let written = std::mem::take(&mut self.read.lock().written);
        Ok(written)
    }
}

fn spawn(
    group: &Group<'_>,
    file: &std::path::Path,
    read: &Output,
) -> Result<(Process, JoinHandle<std::io::Result<()>>), Error> {
    let (config, archive) = (group.config(0).display().to_string(), group.archive().display().to_string());
    let (name, file) = (group.name(), file.display().to_string());
    let arguments =
        ["subscribe", &name, "md.**", "--config", &config, "--history", &archive, "--position", &file, "--json"];
    let mut process = Process::start(group.command(&arguments).stdout(Stdio::piped()).stderr(Stdio::piped()))?;
    let stdout = process.child().stdout.take().expect("piped");
    let stderr = process.child().stderr.take().expect("piped");
    let (out, talk) = (read.clone(), read.clone());
    std::thread::spawn(move || {
        for line in BufReader::new(stderr).lines().map_while(Result::ok) {
            let mut state = talk.lock();
            let is_live = line.contains("live from order number");
            state.switches += u64::from(is_live);
            state.replays = !is_live && (state.replays || line.contains("the archive from position"));
            state.last_line = line;
        }
    });
    let reader = std::thread::spawn(move || read_rows(stdout, &out));
    Ok((process, reader))
}

fn read_rows(mut stdout: impl Read, read: &Output) -> std::io::Result<()> {
    let (mut bytes, mut block) = (Vec::new(), vec![0; 1 << 16]);
    loop {
        while read.lock().is_paused {
            std::thread::sleep(Duration::from_millis(5));
        }
        let count = stdout.read(&mut block)?;
        if count == 0 {
            return Ok(());
        }
        bytes.extend_from_slice(&block[..count]);
        let complete = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last + 1);
        add(&mut read.lock().written, &bytes[..complete]);
        bytes.drain(..complete);
    }
}
