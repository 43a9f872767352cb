//! The processes that a demo has started.
//!
//! Invariant: what is heard comes from a process that runs, or has just ended by itself. What a process wrote before
//! the demo killed it is dropped.

use super::link::{Assignment, Order, ProcessReport};
use crate::exit::Failure;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

pub(super) enum Word {
    ProcessReport(ProcessReport),
    Ended,
}

/// The process at one place of the demo.
struct Started {
    child: Child,
    stdin: ChildStdin,
    /// Counts the processes at this place that the demo killed.
    life: u32,
}

/// The processes of a demo. Dropping it kills and reaps all.
pub(super) struct Children {
    children: Vec<Started>,
    words: Receiver<(usize, u32, Word)>,
    sender: Sender<(usize, u32, Word)>,
}

impl Drop for Children {
    fn drop(&mut self) {
        for started in &mut self.children {
            let _ = started.child.kill();
        }
        for started in &mut self.children {
            let _ = started.child.wait();
        }
    }
}

impl Children {
    /// Starts one process for each assignment.
    pub(super) fn start(assignments: impl Iterator<Item = Assignment>) -> Result<Self, Failure> {
        let (sender, words) = channel();
        let mut children = Self { children: Vec::new(), words, sender };
        for (index, assignment) in assignments.enumerate() {
            let started = children.spawn(&assignment, index, 0)?;
            children.children.push(started);
        }
        Ok(children)
    }

    /// Starts the process at this place again, after it has ended.
    pub(super) fn restart(&mut self, assignment: &Assignment, index: usize) -> Result<(), Failure> {
        let life = self.children[index].life;
        self.children[index] = self.spawn(assignment, index, life)?;
        Ok(())
    }

    fn spawn(&self, assignment: &Assignment, index: usize, life: u32) -> Result<Started, Failure> {
        let unusable = |error: std::io::Error| Failure::unusable(format!("can't start a process: {error}"));
        let program = std::env::current_exe().map_err(unusable)?;
        let mut command = Command::new(program);
        command.arg("demo-process").stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().map_err(unusable)?;
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
        let (mut stdin, stdout) = (stdin.expect("stdin is piped"), stdout.expect("stdout is piped"));
        let sender = self.sender.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines() {
                let Some(report) = line.ok().and_then(|line| serde_json::from_str(&line).ok()) else { break };
                let _ = sender.send((index, life, Word::ProcessReport(report)));
            }
            let _ = sender.send((index, life, Word::Ended));
        });
        if let Err(error) = send(&mut stdin, assignment) {
            let _ = child.kill();
            let _ = child.wait();
            return Err(unusable(error));
        }
        Ok(Started { child, stdin, life })
    }

    /// Kills a process (SIGKILL), and hears nothing more of it.
    pub(super) fn kill(&mut self, index: usize) {
        let started = &mut self.children[index];
        started.life += 1;
        let _ = started.child.kill();
        let _ = started.child.wait();
    }

    pub(super) fn order(&mut self, index: usize, order: &Order) {
        // The end of a process's stdout reports that it is gone.
        let _ = send(&mut self.children[index].stdin, order);
    }

    pub(super) fn order_all(&mut self, order: &Order) {
        (0..self.children.len()).for_each(|index| self.order(index, order));
    }

    pub(super) fn hear(&self, limit: Duration) -> Option<(usize, Word)> {
        let deadline = Instant::now() + limit;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let (index, life, word) = self.words.recv_timeout(left).ok()?;
            if self.children.get(index).is_none_or(|started| started.life == life) {
                return Some((index, word));
            }
        }
    }

    /// How a process ended, in words.
    pub(super) fn exit_status(&mut self, index: usize) -> String {
        match self.children[index].child.wait() {
            Ok(status) => match status.signal() {
                Some(signal) => format!("was killed by signal {signal}"),
                None => format!("ended with exit code {}", status.code().unwrap_or(-1)),
            },
            Err(error) => format!("ended ({error})"),
        }
    }
}

fn send(stdin: &mut ChildStdin, what: &impl serde::Serialize) -> std::io::Result<()> {
    let mut line = serde_json::to_string(what).map_err(std::io::Error::other)?;
    line.push('\n');
    stdin.write_all(line.as_bytes())?;
    stdin.flush()
}
