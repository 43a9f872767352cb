//! What a process delivered, line by line: the writing side, for members of the lab and of a demo.
//!
//! It shares nothing with the reading side but the format.
//!
//! Tab-separated: `D view order|- publisher seq after|- hash` a delivery (hash: the first 16 hexadecimal digits of the
//! payload's SHA-256), `V view members`, `B n` a barrier, `G publisher from to` a gap, `R publisher seq` a retraction.
//!
//! Lines are written out before any consequence of them leaves the process: at the end of each batch, before
//! acknowledgements are sent, and before the process kills itself. A SIGKILL loses no line of a delivered message.

use sha2::{Digest, Sha256};
use std::fmt::Display;
use std::fs::File;
use std::io::Write;
use std::path::Path;

/// The fewest bytes of lines that are written together.
const BATCH_BYTES: usize = 1 << 16;

/// One delivery, as a line records it. A publisher is any source that gives its messages unique names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delivered<P> {
    /// The view it is delivered in.
    pub view: u64,
    /// Its number in the total order.
    pub order: Option<u64>,
    /// The publisher's name.
    pub publisher: P,
    /// The publisher's number for it.
    pub sequence: u64,
    /// The message it answers.
    pub after: Option<(P, u64)>,
    /// The payload's [`hash`].
    pub hash: u64,
}

/// The hash of a payload in a line: the first eight bytes of its SHA-256.
pub fn hash(payload: &[u8]) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = <[u8; 32]>::from(Sha256::digest(payload));
    u64::from_be_bytes([a, b, c, d, e, f, g, h])
}

/// A history file that is being written.
#[derive(Debug)]
pub struct History {
    file: File,
    lines: Vec<u8>,
    /// The instance of the views written last.
    instance: u64,
    failed: Option<String>,
}

impl History {
    /// Begins a new file.
    ///
    /// # Errors
    /// If the file can't be made.
    pub fn create(path: &Path) -> Result<Self, String> {
        let file = File::create(path).map_err(|error| format!("can't write {}: {error}", path.display()))?;
        Ok(Self { file, lines: Vec::new(), instance: 0, failed: None })
    }

    /// Sets the instance of the group that the following views belong to.
    pub fn instance(&mut self, instance: u64) {
        if self.instance != instance {
            self.instance = instance;
            self.line(format_args!("I\t{instance:016x}"));
        }
    }

    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        let _ = self.lines.write_fmt(line); // memory takes it
        self.lines.push(b'\n');
        if self.lines.len() >= BATCH_BYTES {
            self.flush();
        }
    }

    /// Records a delivery.
    pub fn delivery(&mut self, delivered: &Delivered<impl Display>) {
        let Delivered { view, order, publisher, sequence, after, hash } = delivered;
        let order = order.map_or_else(|| "-".to_owned(), |order| order.to_string());
        let after =
            after.as_ref().map_or_else(|| "-".to_owned(), |(publisher, sequence)| format!("{publisher}:{sequence}"));
        self.line(format_args!("D\t{view}\t{order}\t{publisher}\t{sequence}\t{after}\t{hash:016x}"));
    }

    /// Records an installed view.
    pub fn view(&mut self, epoch: u64, members: &[u16]) {
        let members: Vec<_> = members.iter().map(u16::to_string).collect();
        self.line(format_args!("V\t{epoch}\t{}", members.join(",")));
    }

    /// Records the state that it begins with: how many messages were delivered, and the sum of their hashes.
    pub fn state(&mut self, count: u64, sum: u64) {
        self.line(format_args!("S\t{count}\t{sum:016x}"));
    }

    /// Records a barrier.
    pub fn barrier(&mut self, number: u64) {
        self.line(format_args!("B\t{number}"));
    }

    /// Records the messages `from..to` of a publisher as given up.
    pub fn gap(&mut self, publisher: impl Display, from: u64, to: u64) {
        self.line(format_args!("G\t{publisher}\t{from}\t{to}"));
    }

    /// Records the messages `from..to` of a publisher as retracted.
    pub fn retraction(&mut self, publisher: impl Display, from: u64, to: u64) {
        for sequence in from..to {
            self.line(format_args!("R\t{publisher}\t{sequence}"));
        }
    }

    /// Writes out the collected lines.
    pub fn flush(&mut self) {
        if let Err(error) = self.file.write_all(&self.lines) {
            self.failed.get_or_insert_with(|| format!("can't write the history: {error}"));
        }
        self.lines.clear();
    }

    /// The first write error, if there was one.
    pub fn failure(&self) -> Option<&str> {
        self.failed.as_deref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_have_the_format_that_the_judge_reads() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("member-3.tsv");
        let mut history = History::create(&path).unwrap();
        history.view(4, &[2, 0]);
        let hash = hash(b"abc");
        let first = Delivered { view: 4, order: Some(9), publisher: 2, sequence: 7, after: Some((0, 5)), hash };
        history.delivery(&first);
        history.delivery(&Delivered { order: None, after: None, sequence: 8, ..first });
        history.barrier(1);
        history.flush();
        let text = std::fs::read_to_string(&path).unwrap();
        let first = "V\t4\t2,0\nD\t4\t9\t2\t7\t0:5\tba7816bf8f01cfea\nD\t4\t-\t2\t8\t-\tba7816bf8f01cfea\nB\t1\n";
        assert_eq!(text, first);
    }
}
