//! A resource that checks fencing tokens: a counter in a file, which only the holder of the lock may increment.
//!
//! A member that was granted the lock begins an entry with its token, reads the counter, works a while, and commits the
//! next value. Between the two steps only the distributed lock excludes others; the file itself is locked only while a
//! line is written, as a storage service would take one request at a time. It refuses to begin under a token that is
//! not higher than all it has seen, and to commit once it has seen a higher one: so a holder that was paused and
//! resumed does no harm.
//!
//! A commit writes the value that was read, plus one, and ignores what the file holds by then: two members inside at
//! once lose an update here as they would anywhere, and the judge sees it.
//!
//! There is no record beside the log that a kill could leave incomplete: the last line holds the whole state (the
//! highest token, the counter), and a line is one `write`. Invariant: the text before the last line break is whole; a
//! rest behind it belongs to a killed writer, and the next writer cuts it off.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;

/// No line is longer: eight fields of at most two 20-digit numbers.
const LINE_MAX_BYTES: u64 = 320;

/// The monotonic clock that all processes of a host read.
pub fn now_ns() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// A fencing token; the epoch is compared first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Token {
    /// The view it was granted in.
    pub epoch: u64,
    /// Its number in the view.
    pub number: u64,
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.epoch, self.number)
    }
}

/// One incarnation of one member.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Incarnation {
    /// The member.
    pub rank: u16,
    /// How often it was started.
    pub incarnation: u32,
}

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.rank, self.incarnation)
    }
}

/// The kinds of line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// An entry begins.
    Begin,
    /// It was refused entry: its token was not higher than all before.
    NotLetIn,
    /// It incremented the counter and is out.
    Commit,
    /// Its commit was refused: a higher token had been seen.
    Refused,
    /// Its node reported that it is out of the group, and so holds the lock no more.
    Lost,
    /// Its node reported that it reaches no majority, and so holds the lock no more.
    CutOff,
    /// Its holder was stopped, or waited in vain for the report that it is stale, and gave up.
    Abandoned,
}

const KINDS: [(Kind, &str); 7] = [
    (Kind::Begin, "begin"),
    (Kind::NotLetIn, "not-let-in"),
    (Kind::Commit, "commit"),
    (Kind::Refused, "refused"),
    (Kind::Lost, "lost"),
    (Kind::CutOff, "cut-off"),
    (Kind::Abandoned, "abandoned"),
];

/// A grant, as its holder presents it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Grant {
    /// The holder.
    pub holder: Incarnation,
    /// The token.
    pub token: Token,
    /// When the holder requested it.
    pub requested_ns: u64,
    /// When the holder learned of it.
    pub granted_ns: u64,
}

/// The events at the resource, a line each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line {
    /// The kind.
    pub kind: Kind,
    /// The holder it concerns.
    pub grant: Grant,
    /// The highest token seen.
    pub highest: Token,
    /// The counter: the value read, or written.
    pub counter: u64,
    /// The time.
    pub at_ns: u64,
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, grant, highest, counter, at_ns } = self;
        let Grant { holder, token, requested_ns, granted_ns } = grant;
        let name = KINDS.iter().find(|(one, _)| one == kind).map_or("", |(_, name)| name);
        write!(f, "{name}\t{holder}\t{token}\t{highest}\t{counter}\t{at_ns}\t{requested_ns}\t{granted_ns}")
    }
}

impl Line {
    /// A line of the log; `None` if it is unknown.
    pub fn read(text: &str) -> Option<Self> {
        let mut fields = text.split('\t');
        let mut next = || fields.next();
        let name = next()?;
        let kind = KINDS.iter().find(|(_, known)| *known == name)?.0;
        let (rank, incarnation) = next()?.split_once('.')?;
        let holder = Incarnation { rank: rank.parse().ok()?, incarnation: incarnation.parse().ok()? };
        let (token, highest) = (token(next()?)?, token(next()?)?);
        let mut number = || next()?.parse::<u64>().ok();
        let (counter, at_ns, requested_ns, granted_ns) = (number()?, number()?, number()?, number()?);
        Some(Self { kind, grant: Grant { holder, token, requested_ns, granted_ns }, highest, counter, at_ns })
    }
}

fn token(text: &str) -> Option<Token> {
    let (epoch, number) = text.split_once(':')?;
    Some(Token { epoch: epoch.parse().ok()?, number: number.parse().ok()? })
}

/// The resource.
#[derive(Debug)]
pub struct Journal {
    file: File,
}

/// While it is alive, no member is served.
#[derive(Debug)]
pub struct Shut<'a>(&'a File);

impl Drop for Shut<'_> {
    fn drop(&mut self) {
        let _ = self.0.unlock(); // it is unlocked when the file is closed, at the latest
    }
}

impl Journal {
    /// Opens the resource; creates the file if there is none.
    ///
    /// # Errors
    /// If the file can't be opened.
    pub fn open(path: &Path) -> io::Result<Self> {
        Ok(Self { file: OpenOptions::new().create(true).append(true).read(true).open(path)? })
    }

    /// Begins an entry: returns the counter's value, or the higher token that was seen.
    ///
    /// # Errors
    /// If the file can't be read or written.
    pub fn begin(&mut self, grant: Grant) -> io::Result<Result<u64, Token>> {
        let _shut = lock(&self.file)?;
        let (highest, counter) = last(&self.file)?;
        if grant.token <= highest {
            append(&self.file, Kind::NotLetIn, grant, highest, counter)?;
            return Ok(Err(highest));
        }
        append(&self.file, Kind::Begin, grant, grant.token, counter)?;
        Ok(Ok(counter))
    }

    /// Ends an entry: the counter is now what was read, plus one. False if a higher token has been seen since.
    ///
    /// # Errors
    /// If the file can't be read or written.
    pub fn commit(&mut self, grant: Grant, read: u64) -> io::Result<bool> {
        let _shut = lock(&self.file)?;
        let (highest, counter) = last(&self.file)?;
        if grant.token < highest {
            append(&self.file, Kind::Refused, grant, highest, counter)?;
            return Ok(false);
        }
        append(&self.file, Kind::Commit, grant, highest, read + 1)?;
        Ok(true)
    }

    /// Records how a grant ended otherwise.
    ///
    /// # Errors
    /// If the file can't be read or written.
    pub fn end(&mut self, grant: Grant, how: Kind) -> io::Result<()> {
        let _shut = lock(&self.file)?;
        let (highest, counter) = last(&self.file)?;
        append(&self.file, how, grant, highest, counter)
    }

    /// Serves no member for a while, so that a member stopped meanwhile does not block all others.
    ///
    /// # Errors
    /// If the file can't be locked.
    pub fn shut(&self) -> io::Result<Shut<'_>> {
        lock(&self.file)
    }

    /// All lines.
    ///
    /// # Errors
    /// If the file can't be read, or a whole line is unknown.
    pub fn lines(&self) -> io::Result<Vec<Line>> {
        let _shut = lock(&self.file)?;
        let (mut file, mut text) = (&self.file, String::new());
        file.seek(SeekFrom::Start(0))?;
        file.read_to_string(&mut text)?;
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        let read = |line: &str| {
            Line::read(line).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, format!("unknown line: {line}")))
        };
        text[..whole].lines().map(read).collect()
    }
}

fn lock(file: &File) -> io::Result<Shut<'_>> {
    file.lock()?;
    Ok(Shut(file))
}

/// The highest token and the counter; cuts off what a killed writer left.
fn last(mut file: &File) -> io::Result<(Token, u64)> {
    let length = file.metadata()?.len();
    let start = length.saturating_sub(2 * LINE_MAX_BYTES);
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(start))?;
    file.read_to_end(&mut bytes)?;
    let Some(end) = bytes.iter().rposition(|byte| *byte == b'\n') else {
        file.set_len(start)?;
        return Ok((Token::default(), 0));
    };
    if end + 1 < bytes.len() {
        file.set_len(start + end as u64 + 1)?;
    }
    let begin = bytes[..end].iter().rposition(|byte| *byte == b'\n').map_or(0, |before| before + 1);
    let line = std::str::from_utf8(&bytes[begin..end]).ok().and_then(Line::read);
    let line = line.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "the journal's last line is unknown"))?;
    Ok((line.highest, line.counter))
}

fn append(mut file: &File, kind: Kind, grant: Grant, highest: Token, counter: u64) -> io::Result<()> {
    let line = Line { kind, grant, highest, counter, at_ns: now_ns() };
    file.write_all(format!("{line}\n").as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grant(rank: u16, number: u64) -> Grant {
        Grant { holder: Incarnation { rank, incarnation: 1 }, token: Token { epoch: 1, number }, ..Grant::default() }
    }

    #[test]
    fn a_stale_holder_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let (mut one, mut other) = (Journal::open(file.path()).unwrap(), Journal::open(file.path()).unwrap());
        assert_eq!(one.begin(grant(0, 1)).unwrap(), Ok(0));
        assert_eq!(other.begin(grant(1, 2)).unwrap(), Ok(0));
        assert!(!one.commit(grant(0, 1), 0).unwrap());
        assert!(other.commit(grant(1, 2), 0).unwrap());
        assert_eq!(one.begin(grant(0, 1)).unwrap(), Err(Token { epoch: 1, number: 2 }));
        one.end(grant(0, 1), Kind::Lost).unwrap();
        assert_eq!(one.begin(grant(0, 3)).unwrap(), Ok(1));
        let kinds: Vec<Kind> = one.lines().unwrap().iter().map(|line| line.kind).collect();
        let before = [Kind::Begin, Kind::Begin, Kind::Refused, Kind::Commit, Kind::NotLetIn, Kind::Lost, Kind::Begin];
        assert_eq!(kinds, before);
    }

    #[test]
    fn what_a_killed_writer_left_is_cut_off() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut journal = Journal::open(file.path()).unwrap();
        (&journal.file).write_all(b"begin\t0.1").unwrap();
        assert_eq!(journal.begin(grant(0, 1)).unwrap(), Ok(0));
        (&journal.file).write_all(b"commit\t0").unwrap();
        assert!(journal.commit(grant(0, 1), 0).unwrap());
        let lines = journal.lines().unwrap();
        assert_eq!((lines.len(), lines[1].kind, lines[1].counter), (2, Kind::Commit, 1));
        assert_eq!(Line::read(&lines[1].to_string()), Some(lines[1]));
    }
}
