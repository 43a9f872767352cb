//! How the bridge ends, and what it prints meanwhile.

use bourdon::Error;
use std::fmt::Display;
use std::process::ExitCode;

/// Why it did not end well.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Something broke while it ran: exit 1.
    Broken(String),
    /// Bad usage, configuration or environment, which the user must change: exit 2.
    Unusable(String),
}

impl Failure {
    pub(crate) fn broken(why: impl Display) -> Self {
        Self::Broken(why.to_string())
    }

    pub(crate) fn unusable(why: impl Display) -> Self {
        Self::Unusable(why.to_string())
    }

    /// Of a node that ran, or the archive that it reads.
    pub(crate) fn of_node(error: Error) -> Self {
        match error {
            Error::Archive(error) if error.is_unfit() => Self::unusable(error),
            error => Self::broken(error),
        }
    }
}

/// Writes a note to stderr; without a reader it is lost, and the bridge goes on.
pub(crate) fn note(text: impl Display) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr(), "bourdon-bridge: {text}");
}

/// Prints the failure, and gives the exit code.
pub(crate) fn code(outcome: Result<(), Failure>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Broken(why)) => {
            note(why);
            ExitCode::from(1)
        }
        Err(Failure::Unusable(why)) => {
            note(why);
            ExitCode::from(2)
        }
    }
}
