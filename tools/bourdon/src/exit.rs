//! How a command ends: the three exit codes and the one place where a failure is printed.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::fmt::Display;
use std::io::Write;
use std::process::ExitCode;

/// Why a command did not end well.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The check it makes failed, or what it ran broke: exit 1.
    Broken(String),
    /// Bad usage, input or environment: exit 2.
    Unusable(String),
}

impl Failure {
    pub(crate) fn broken(why: impl Display) -> Self {
        Self::Broken(why.to_string())
    }

    pub(crate) fn unusable(why: impl Display) -> Self {
        Self::Unusable(why.to_string())
    }
}

/// Writes a command's result to stdout; a full disk or a closed reader is an error, not a panic.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Failure::broken(format!("can't write to stdout: {error}")))
        }
        _ => Ok(()),
    }
}

/// Writes a note to stderr and ignores errors: a process that holds a lock, or must release it, waits for no reader.
pub(crate) fn note(text: &str) {
    let mut stderr = std::io::stderr().lock();
    let takes = poll(&mut [PollFd::new(&stderr, PollFlags::OUT)], Some(&Timespec { tv_sec: 0, tv_nsec: 0 }));
    if takes.is_ok_and(|count| count > 0) {
        let _ = writeln!(stderr, "bourdon: {text}");
    }
}

/// Prints the failure on stderr and turns it into an exit code.
pub(crate) fn code(outcome: Result<(), Failure>) -> ExitCode {
    let (why, code) = match outcome {
        Ok(()) => return ExitCode::SUCCESS,
        Err(Failure::Broken(why)) => (why, 1),
        Err(Failure::Unusable(why)) => (why, 2),
    };
    if !why.is_empty() {
        note(&why);
    }
    ExitCode::from(code)
}
