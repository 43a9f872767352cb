//! The current state of a growing history: the last view, and how much was delivered.
//!
//! It reads only what was added since the last call. It judges nothing, and leaves a line that it does not know to the
//! judge.

use std::fs::File;
use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::path::PathBuf;

/// A view as a process recorded it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) number: u64,
    /// Ranks; an invalid rank is left out, and so is missed.
    pub(crate) members: Vec<usize>,
}

/// One growing file.
#[derive(Debug)]
pub(crate) struct Tail {
    path: PathBuf,
    read: u64,
    /// The beginning of a line that has not ended.
    rest: String,
    pub(crate) view: Option<Seen>,
    pub(crate) delivered: u64,
}

impl Tail {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path, read: 0, rest: String::new(), view: None, delivered: 0 }
    }

    /// Reads what was added; a file that is not there yet counts as empty.
    pub(crate) fn look(&mut self) -> std::io::Result<()> {
        let mut file = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        file.seek(SeekFrom::Start(self.read))?;
        let mut added = Vec::new();
        self.read += file.read_to_end(&mut added)? as u64;
        self.take(&String::from_utf8_lossy(&added));
        Ok(())
    }

    fn take(&mut self, added: &str) {
        self.rest.push_str(added);
        let Some(end) = self.rest.rfind('\n') else { return };
        let rest = self.rest.split_off(end + 1);
        for line in std::mem::replace(&mut self.rest, rest).lines() {
            if line.starts_with("D\t") {
                self.delivered += 1;
            } else if line.starts_with(|first: char| first.is_ascii_digit()) {
                // A client's line: how many of its messages are acknowledged.
                self.delivered = line.parse().unwrap_or(self.delivered);
            } else if let Some((number, members)) = line.strip_prefix("V\t").and_then(|view| view.split_once('\t')) {
                let members = members.split(',').filter_map(|rank| rank.parse().ok()).collect();
                self.view = number.parse().ok().map(|number| Seen { number, members });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_count_when_they_end() {
        let mut tail = Tail::new(PathBuf::new());
        tail.take("V\t1\t0,1\nD\t1\t");
        assert_eq!((tail.view.clone(), tail.delivered), (Some(Seen { number: 1, members: vec![0, 1] }), 0));
        tail.take("0\t0\t0\t-\t00000000000000ff\nV\t2");
        assert_eq!((tail.view.as_ref().map(|view| view.number), tail.delivered), (Some(1), 1));
        tail.take("\t1\n");
        assert_eq!(tail.view, Some(Seen { number: 2, members: vec![1] }));
    }
}
