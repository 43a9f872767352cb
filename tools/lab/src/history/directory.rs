//! A folder of histories: one file for each incarnation, and the names of the killed processes.
//!
//! `killed` names a process once for each kill. So as many of its first incarnations ended by a kill, and the next
//! incarnation, if there is one, did not. An incarnation that has a successor has ended, whatever the file holds.

use super::line::{Line, parse};
use super::{Barrier, Delivery, Gap, Histories, Incarnation, MessageId, ReadError, SNAPSHOT, State, View};
use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

/// Reads all histories of a folder.
///
/// # Errors
/// If the folder holds no history, or a whole line of a history is unknown.
pub fn read(folder: &Path) -> Result<Histories, ReadError> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(io(folder))? {
        let path = entry.map_err(io(folder))?.path();
        if path.extension().is_some_and(|extension| extension == "tsv") {
            let name = process(&path).ok_or_else(|| ReadError::Name(path.display().to_string()))?;
            files.push((name, path));
        }
    }
    if files.is_empty() {
        return Err(ReadError::Empty(folder.display().to_string()));
    }
    files.sort();
    let killed = killed(&folder.join("killed"))?;
    let mut histories = Histories::default();
    for ((name, number), path) in &files {
        let mut incarnation = read_incarnation(&mut histories, path)?;
        incarnation.member = name.starts_with("member:");
        incarnation.killed = killed.get(name).is_some_and(|times| number <= times)
            || files.iter().any(|((other, later), _)| other == name && later > number);
        incarnation.name.clone_from(name);
        incarnation.number = *number;
        histories.incarnations.push(incarnation);
    }
    Ok(histories)
}

/// The process and incarnation that a file is named after.
fn process(path: &Path) -> Option<(String, u32)> {
    let (role, rest) = path.file_stem()?.to_str()?.split_once('-')?;
    let (rank, incarnation) =
        rest.split_once('.').map_or(Some((rest, 1)), |(rank, incarnation)| Some((rank, incarnation.parse().ok()?)))?;
    let named = !role.is_empty() && rank.parse::<u32>().is_ok() && incarnation > 0;
    named.then(|| (format!("{role}:{rank}"), incarnation))
}

/// How often each process was killed.
fn killed(path: &Path) -> Result<HashMap<String, u32>, ReadError> {
    let mut times = HashMap::new();
    match std::fs::read_to_string(path) {
        Ok(names) => names.split_whitespace().for_each(|name| *times.entry(name.to_owned()).or_default() += 1),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(io(path)(error)),
    }
    Ok(times)
}

fn io(path: &Path) -> impl FnOnce(std::io::Error) -> ReadError {
    let path = path.display().to_string();
    move |source| ReadError::Io { path, source }
}

fn read_incarnation(histories: &mut Histories, path: &Path) -> Result<Incarnation, ReadError> {
    let mut reader = BufReader::new(File::open(path).map_err(io(path))?);
    let mut writer = Writer { histories, incarnation: Incarnation::default(), standing: HashMap::new(), phase: None };
    let (mut text, mut number) = (Vec::new(), 0);
    loop {
        text.clear();
        reader.read_until(b'\n', &mut text).map_err(io(path))?;
        // A line without an end was being written when the process was killed.
        let Some(line) = text.strip_suffix(b"\n") else { return Ok(writer.incarnation) };
        number += 1;
        let line = std::str::from_utf8(line).map_err(|_| "it is not UTF-8".to_owned()).and_then(parse);
        match line {
            Ok(line) => writer.note(line),
            Err(why) => {
                return Err(ReadError::Line { path: PathBuf::from(path).display().to_string(), line: number, why });
            }
        }
    }
}

/// An incarnation, while its lines are read.
struct Writer<'a> {
    histories: &'a mut Histories,
    incarnation: Incarnation,
    /// The index of the delivery of each message that is delivered and not retracted.
    standing: HashMap<MessageId, usize>,
    phase: Option<u64>,
}

impl Writer<'_> {
    fn note(&mut self, line: Line<'_>) {
        match line {
            Line::Deliver { view, order, publisher, sequence, after, hash } => {
                let message = self.message(publisher, sequence);
                let after = after.map(|(publisher, sequence)| self.message(publisher, sequence));
                let (segment, phase) = (self.segment(), self.phase);
                self.deliver(Delivery { message, segment, view, order, after, hash, phase, retracted: false });
            }
            Line::View { number, members } => {
                let members = members.split(',').map(str::to_owned).collect();
                self.incarnation.views.push(View { number, members });
            }
            Line::Instance(_) => {} // the judge compares one instance's histories
            Line::Barrier(number) => {
                let (segment, position) = (self.segment(), self.incarnation.deliveries.len());
                self.phase = self.phase.max(Some(number));
                self.incarnation.barriers.push(Barrier { number, segment, position });
            }
            Line::State { count, sum } => self.incarnation.state = Some(State { count, sum }),
            Line::Gap { publisher, from, to } => {
                let publisher = self.histories.publisher_id(publisher);
                self.incarnation.gaps.push(Gap { publisher, from, to });
            }
            Line::Retract { publisher, sequence } => {
                let message = self.message(publisher, sequence);
                self.incarnation.retractions += 1;
                match self.standing.remove(&message) {
                    Some(position) => self.incarnation.deliveries[position].retracted = true,
                    None => self.incarnation.retracted_unseen.push(message),
                }
            }
        }
    }

    fn deliver(&mut self, delivery: Delivery) {
        if self.standing.insert(delivery.message, self.incarnation.deliveries.len()).is_some() {
            self.incarnation.duplicates.push(delivery.message);
        }
        self.incarnation.deliveries.push(delivery);
    }

    fn message(&mut self, publisher: &str, sequence: u64) -> MessageId {
        let publisher = self.histories.publisher_id(publisher);
        self.histories.message_id(publisher, sequence)
    }

    /// The segment of a delivery made now: the index of the last view, or [`SNAPSHOT`].
    fn segment(&self) -> u32 {
        u32::try_from(self.incarnation.views.len()).map_or(SNAPSHOT, |views| views.wrapping_sub(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn files_are_named_after_incarnations() {
        let named = |name: &str| process(Path::new(name));
        assert_eq!(named("member-0.tsv"), Some(("member:0".into(), 1)));
        assert_eq!(named("observer-12.3.tsv"), Some(("observer:12".into(), 3)));
        for name in ["member.tsv", "-0.tsv", "member-x.tsv", "member-0.x.tsv", "member-0.0.tsv"] {
            assert_eq!(named(name), None, "{name}");
        }
    }

    #[test]
    fn a_folder_is_read() {
        let folder = tempfile::tempdir().expect("a folder");
        let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).expect("written");
        write("member-0.tsv", "V\t1\t0,1\nD\t1\t0\t0\t0\t-\t00000000000000aa\nD\t1\t1\t0\t1\t-\t0000");
        write(
            "member-0.2.tsv",
            "D\t1\t0\t0\t0\t-\t00000000000000aa\nV\t3\t1,0\nB\t4\nD\t3\t1\t1\t0\t0:0\t00000000000000ab\n",
        );
        write(
            "observer-0.tsv",
            "V\t1\t0,1\nD\t1\t0\t0\t0\t-\t00000000000000aa\nR\t0\t0\nD\t1\t0\t0\t0\t-\t00000000000000aa\n",
        );
        write("killed", "member:0\n");
        let histories = read(folder.path()).expect("read");
        let [first, second, observer] = &histories.incarnations[..] else { panic!("{histories:?}") };
        assert!(first.killed && first.member && first.deliveries.len() == 1, "the last line is cut short");
        assert!(!second.killed && second.starts_late() && second.deliveries[0].segment == SNAPSHOT);
        assert_eq!((second.deliveries[1].segment, second.deliveries[1].phase), (0, Some(4)));
        assert_eq!(second.shown(), "member:0 (incarnation 2)");
        assert!(observer.deliveries[0].retracted && observer.kept().count() == 1 && observer.duplicates.is_empty());
    }

    #[test]
    fn what_can_t_be_read_is_reported() {
        let folder = tempfile::tempdir().expect("a folder");
        assert!(matches!(read(folder.path()), Err(ReadError::Empty(_))));
        fs::write(folder.path().join("member-0.tsv"), "V\t1\t0\nX\n").expect("written");
        let error = read(folder.path()).expect_err("an unknown line").to_string();
        assert!(error.contains("member-0.tsv:2"), "{error}");
    }
}
