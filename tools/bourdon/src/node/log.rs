//! The lines of a node's log, on stderr: when, how grave, which member, and what.
//!
//! A log is read beside the logs of other members and of other programs, long after: so each line has its time, in UTC,
//! and the name of its member. A log that takes no more stops no node.

use crate::exit::write_line;
use std::fmt::Display;
use std::time::SystemTime;

/// How grave a line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Level {
    Info,
    Warning,
}

/// The log of one stream.
#[derive(Clone, Debug)]
pub(super) struct Log {
    /// The group or channel, and this process's part in it.
    name: String,
}

impl Log {
    /// The log of this member of a group or channel; of an observer without a rank.
    pub(super) fn new(group: &str, rank: Option<u16>) -> Self {
        let part = rank.map_or_else(|| "observer".to_owned(), |rank| format!("member {rank}"));
        Self { name: format!("{group} {part}") }
    }

    pub(super) fn write(&self, level: Level, text: impl Display) {
        write_line(&self.line(SystemTime::now(), level, text));
    }

    fn line(&self, at: SystemTime, level: Level, text: impl Display) -> String {
        let level = match level {
            Level::Info => "info",
            Level::Warning => "warning",
        };
        format!("{} {level} {}: {text}", humantime::format_rfc3339_millis(at), self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, UNIX_EPOCH};

    #[test]
    fn a_line_has_its_time_its_level_and_its_member() {
        let at = UNIX_EPOCH + Duration::from_millis(1_700_000_000_123);
        let line = Log::new("prices/trades", Some(2)).line(at, Level::Warning, "no majority");
        assert_eq!(line, "2023-11-14T22:13:20.123Z warning prices/trades member 2: no majority");
        let line = Log::new("prices", None).line(at, Level::Info, "view 1: members 0");
        assert_eq!(line, "2023-11-14T22:13:20.123Z info prices observer: view 1: members 0");
    }
}
