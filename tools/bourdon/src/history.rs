//! What a process delivered, line by line, so that a judge that shares no code with the engine can check it.
//!
//! Tab-separated: `D view order|- publisher seq after|- hash` a delivery (hash: the first 16 hexadecimal digits of the
//! payload's SHA-256), `V view members`, `B n` a barrier, `G publisher from to` a gap, `R publisher seq` a retraction.
//!
//! Lines are written out before any consequence of them leaves the process: at the end of each batch, before
//! acknowledgements are sent, and before the process kills itself. A SIGKILL loses no line of a delivered message.

use bourdon::InstanceId;
use sha2::{Digest, Sha256};
use std::fmt::Display;
use std::fs::File;
use std::io::Write;
use std::path::Path;

/// The fewest bytes of lines that are written together.
const BATCH_BYTES: usize = 1 << 16;

/// One delivery, as a line records it. A publisher is any source that gives its messages unique names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Delivered<P> {
    pub(crate) view: u64,
    pub(crate) order: Option<u64>,
    pub(crate) publisher: P,
    pub(crate) sequence: u64,
    /// The message it answers.
    pub(crate) after: Option<(P, u64)>,
    pub(crate) hash: u64,
}

/// The hash of a payload in a line: the first eight bytes of its SHA-256.
pub(crate) fn hash(payload: &[u8]) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = <[u8; 32]>::from(Sha256::digest(payload));
    u64::from_be_bytes([a, b, c, d, e, f, g, h])
}

/// A history file that is being written.
#[derive(Debug)]
pub(crate) struct History {
    file: File,
    lines: Vec<u8>,
    /// The instance of the views written last.
    instance: InstanceId,
    failed: Option<String>,
}

impl History {
    /// Begins a new file.
    pub(crate) fn create(path: &Path) -> Result<Self, String> {
        let file = File::create(path).map_err(|error| format!("can't write {}: {error}", path.display()))?;
        Ok(Self { file, lines: Vec::new(), instance: InstanceId::NONE, failed: None })
    }

    /// Sets the instance of the group that the following views belong to.
    pub(crate) fn instance(&mut self, instance: InstanceId) {
        if self.instance != instance {
            self.instance = instance;
            self.line(format_args!("I\t{:016x}", instance.0));
        }
    }

    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        let _ = self.lines.write_fmt(line); // memory takes it
        self.lines.push(b'\n');
        if self.lines.len() >= BATCH_BYTES {
            self.flush();
        }
    }

    pub(crate) fn delivery(&mut self, delivered: &Delivered<impl Display>) {
        let Delivered { view, order, publisher, sequence, after, hash } = delivered;
        let order = order.map_or_else(|| "-".to_owned(), |order| order.to_string());
        let after =
            after.as_ref().map_or_else(|| "-".to_owned(), |(publisher, sequence)| format!("{publisher}:{sequence}"));
        self.line(format_args!("D\t{view}\t{order}\t{publisher}\t{sequence}\t{after}\t{hash:016x}"));
    }

    pub(crate) fn view(&mut self, epoch: u64, members: &[u16]) {
        let members: Vec<_> = members.iter().map(u16::to_string).collect();
        self.line(format_args!("V\t{epoch}\t{}", members.join(",")));
    }

    /// Records the state that it begins with: how many messages were delivered, and the sum of their hashes.
    pub(crate) fn state(&mut self, count: u64, sum: u64) {
        self.line(format_args!("S\t{count}\t{sum:016x}"));
    }

    pub(crate) fn barrier(&mut self, number: u64) {
        self.line(format_args!("B\t{number}"));
    }

    pub(crate) fn gap(&mut self, publisher: impl Display, from: u64, to: u64) {
        self.line(format_args!("G\t{publisher}\t{from}\t{to}"));
    }

    pub(crate) fn retraction(&mut self, publisher: impl Display, from: u64, to: u64) {
        for sequence in from..to {
            self.line(format_args!("R\t{publisher}\t{sequence}"));
        }
    }

    /// Writes out the collected lines.
    pub(crate) fn flush(&mut self) {
        if let Err(error) = self.file.write_all(&self.lines) {
            self.failed.get_or_insert_with(|| format!("can't write the history: {error}"));
        }
        self.lines.clear();
    }

    /// The first write error, if there was one.
    pub(crate) fn failure(&self) -> Option<&str> {
        self.failed.as_deref()
    }
}

/// The names of the deliveries in a history, in order; a last line that was cut off does not count.
pub(crate) fn names(text: &str) -> impl Iterator<Item = (u16, u64)> {
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    whole.lines().filter_map(|line| {
        let mut fields = line.split('\t');
        let is_delivery = fields.next()? == "D";
        let publisher = fields.nth(2)?.parse().ok()?;
        let sequence = fields.next()?.parse().ok()?;
        is_delivery.then_some((publisher, sequence))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_back_and_a_cut_line_is_none() {
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
        assert_eq!(names(&text).collect::<Vec<_>>(), [(2, 7), (2, 8)]);
        assert_eq!(names(&text[..text.len() - 8]).count(), 1);
    }
}
