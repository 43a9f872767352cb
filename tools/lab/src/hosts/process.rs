//! A program that runs on a host, and the signals sent to it.

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};
use std::process::{Child, Command, ExitStatus};

/// Why an operation on a process failed.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// It could not be started.
    #[error("can't start {program}: {source}")]
    Start {
        /// The failed operation.
        program: String,
        /// The system's error.
        source: std::io::Error,
    },
    /// It has ended by itself.
    #[error("the process has ended already: {0}")]
    Ended(ExitStatus),
    /// Another error.
    #[error("can't signal or wait for the process: {0}")]
    Io(#[from] std::io::Error),
}

/// A running program; it is killed when this is dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
}

impl Process {
    /// Starts a command, most often a [`Host`](super::Host)'s.
    ///
    /// # Errors
    /// If it can't be started.
    pub fn start(command: &mut Command) -> Result<Self, ProcessError> {
        let child = command.spawn().map_err(|source| {
            let program = command.get_args().last().unwrap_or(command.get_program());
            ProcessError::Start { program: program.to_string_lossy().into_owned(), source }
        })?;
        Ok(Self { child })
    }

    /// The child, for its pipes.
    pub fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Ends it as a power failure would (SIGKILL), and waits until it is gone.
    ///
    /// # Errors
    /// If it had ended by itself.
    pub fn kill(&mut self) -> Result<(), ProcessError> {
        self.signal(Signal::KILL)?;
        self.child.wait()?;
        Ok(())
    }

    /// Stops it (SIGSTOP), and waits until it is stopped.
    ///
    /// # Errors
    /// If it has ended.
    pub fn stop(&mut self) -> Result<(), ProcessError> {
        self.signal(Signal::STOP)?;
        // NOWAIT: if it has ended instead, its status is left for `ended`.
        let options = WaitIdOptions::STOPPED | WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        waitid(WaitId::Pid(Pid::from_child(&self.child)), options).map_err(std::io::Error::from)?;
        Ok(())
    }

    /// Resumes it (SIGCONT).
    ///
    /// # Errors
    /// If it has ended.
    pub fn resume(&mut self) -> Result<(), ProcessError> {
        self.signal(Signal::CONT)
    }

    /// Asks it to end (SIGTERM).
    ///
    /// # Errors
    /// If it has ended.
    pub fn terminate(&mut self) -> Result<(), ProcessError> {
        self.signal(Signal::TERM)
    }

    /// How it ended, if it has.
    ///
    /// # Errors
    /// If the system call fails.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>, ProcessError> {
        Ok(self.child.try_wait()?)
    }

    /// Waits until it has ended.
    ///
    /// # Errors
    /// If the system call fails.
    pub fn wait(&mut self) -> Result<ExitStatus, ProcessError> {
        Ok(self.child.wait()?)
    }

    fn signal(&mut self, signal: Signal) -> Result<(), ProcessError> {
        if let Some(status) = self.ended()? {
            return Err(ProcessError::Ended(status));
        }
        // Not reaped yet, so the id is still its own.
        let pid = Pid::from_child(&self.child);
        Ok(kill_process(pid, signal).map_err(std::io::Error::from)?)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended; `wait` leaves no zombie.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
