//! How a command ends: the exit codes and the one place where a failure is printed.

use bourdon::Error;
use bourdon::error::PortError;
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
    /// The group has not done it in the time that the user gave it: exit 3.
    Late(String),
}

impl Failure {
    pub(crate) fn broken(why: impl Display) -> Self {
        Self::Broken(why.to_string())
    }

    pub(crate) fn unusable(why: impl Display) -> Self {
        Self::Unusable(why.to_string())
    }

    /// Of what ended a node: the host's set-up may be at fault.
    pub(crate) fn of_node(error: impl Into<Error>) -> Self {
        match error.into() {
            Error::Port(error @ PortError::AddressReplaced { .. }) => Self::unusable(error),
            error => Self::broken(error),
        }
    }

    /// Of an archive, or a subscription over one.
    pub(crate) fn of_archive(error: bourdon_archive::Error) -> Self {
        if error.is_unfit() { Self::unusable(error) } else { Self::broken(error) }
    }

    /// What went wrong, and what to do.
    pub(crate) fn into_why(self) -> String {
        let (Self::Broken(why) | Self::Unusable(why) | Self::Late(why)) = self;
        why
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

/// Whether stdout has no reader any more.
pub(crate) fn is_stdout_closed() -> bool {
    let stdout = std::io::stdout();
    let mut fds = [PollFd::new(&stdout, PollFlags::empty())];
    let polled = poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }));
    polled.is_ok() && fds[0].revents().intersects(PollFlags::ERR | PollFlags::NVAL)
}

/// Writes a note to stderr.
pub(crate) fn note(text: impl Display) {
    write_line(&format!("bourdon: {text}"));
}

/// Writes a line to stderr and ignores errors: no command ends because its reports have no reader, and a process that
/// holds a lock, or must release it, waits for none.
pub(crate) fn write_line(line: &str) {
    let mut stderr = std::io::stderr().lock();
    let takes = poll(&mut [PollFd::new(&stderr, PollFlags::OUT)], Some(&Timespec { tv_sec: 0, tv_nsec: 0 }));
    if takes.is_ok_and(|count| count > 0) {
        let _ = writeln!(stderr, "{line}");
    }
}

/// Prints the failure on stderr and turns it into an exit code.
pub(crate) fn code(outcome: Result<(), Failure>) -> ExitCode {
    let Err(failure) = outcome else { return ExitCode::SUCCESS };
    let code = match failure {
        Failure::Broken(_) => 1,
        Failure::Unusable(_) => 2,
        Failure::Late(_) => 3,
    };
    let why = failure.into_why();
    if !why.is_empty() {
        note(why);
    }
    ExitCode::from(code)
}
