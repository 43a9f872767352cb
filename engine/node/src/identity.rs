//! What makes a node distinct from every other, and a group's instance later than every earlier one.
//!
//! The protocol draws nothing from the system. So the node draws its incarnation, its candidate for the instance's name
//! and its seed from the system's randomness: clock bits repeat when one rank is started twice at a time. And it stores
//! the highest birth of an instance that it was in, one small file for each group's name and addresses: so fencing
//! tokens grow over a restart of all members even if their clocks were set back meanwhile (`docs/locks.md`), and a
//! process that starts again beside an older instance waits for the later one (`docs/protocols/discovery.md`).
//!
//! Invariant: the stored birth never falls; a file is replaced whole or not at all.

use crate::config::{Settings, Transport};
use bourdon_wire::{BIRTH_FLOORS_END, GroupId, Incarnation, InstanceId};
use std::fs::{self, File};
use std::hash::{BuildHasher, RandomState};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

/// More than the digits of any birth.
const BIRTH_TEXT_MAX_BYTES: u64 = 32;

/// What a node draws when it starts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Drawn {
    pub(crate) incarnation: Incarnation,
    pub(crate) candidate: InstanceId,
    pub(crate) seed: u64,
    /// Keys the cookies that addresses prove themselves with.
    pub(crate) secret: [u64; 2],
}

impl Drawn {
    /// Draws from the system's randomness.
    ///
    /// # Panics
    /// If the kernel has no `getrandom`: none this node runs on.
    pub(crate) fn new() -> Self {
        let word = || {
            let mut bytes = [0; 8];
            let count = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
            assert_eq!(count, Ok(bytes.len()), "the kernel gives 8 random bytes at once");
            u64::from_ne_bytes(bytes)
        };
        // Zero is none.
        let incarnation = Incarnation((word() as u32).max(1));
        Self { incarnation, candidate: InstanceId(word().max(1)), seed: word(), secret: [word(), word()] }
    }
}

/// The file with the highest birth known.
#[derive(Debug)]
pub(crate) struct BirthFile {
    path: Option<PathBuf>,
    /// What it holds.
    stored: u64,
    /// Why a birth could not be stored, until it is fetched.
    problem: Option<&'static str>,
    /// A full disk stays full: the user learns it once.
    is_reported: bool,
}

/// Why a birth can't be kept, and what is lost by it.
fn lost(path: &Path, error: &dyn std::fmt::Display) -> String {
    let path = path.display();
    format!(
        "can't keep the group's birth in {path}: {error}; fencing tokens may repeat after a restart of all members \
             with clocks set back; name another directory with process.state_directory"
    )
}

impl BirthFile {
    /// Reads the group's file, and writes it to see that this can be done; else the reason, with what is lost by it.
    pub(crate) fn open(settings: &Settings) -> (Self, Option<String>) {
        let file = |path, stored| Self { path, stored, problem: None, is_reported: false };
        let Some(directory) = settings.process.state_directory.clone().or_else(default_directory) else {
            let error = "neither XDG_STATE_HOME nor HOME is set";
            return (file(None, 0), Some(lost(Path::new("a file"), &error)));
        };
        let path = directory.join(file_name(settings));
        let stored = match read(&path) {
            Ok(birth) => birth,
            Err(error) => return (file(None, 0), Some(lost(&path, &error))),
        };
        let written = fs::create_dir_all(&directory).and_then(|()| write(&path, stored));
        match written {
            Ok(()) => (file(Some(path), stored), None),
            Err(error) => (file(None, stored), Some(lost(&path, &error))),
        }
    }

    /// The highest birth known from earlier runs.
    pub(crate) fn floor(&self) -> u64 {
        self.stored
    }

    /// Stores a birth if it is higher; [`BirthFile::poll_problem`] reports a failure.
    #[inline]
    pub(crate) fn note(&mut self, birth: u64) {
        if birth > self.stored {
            self.store(birth);
        }
    }

    #[cold]
    fn store(&mut self, birth: u64) {
        self.stored = birth;
        let Some(path) = &self.path else { return }; // reported at the start
        // Another process of the group on this host may have stored a higher one.
        let outcome = read(path).and_then(|other| if other < birth { write(path, birth) } else { Ok(()) });
        if let Err(error) = outcome
            && !std::mem::replace(&mut self.is_reported, true)
        {
            // Once a node: so its text may stay.
            self.problem = Some(lost(path, &error).leak());
        }
    }

    /// Why a birth could not be stored since the start, once.
    #[inline]
    pub(crate) fn poll_problem(&mut self) -> Option<&'static str> {
        self.problem.take()
    }
}

/// A group is known by its name and its addresses: two groups of one name run side by side on other addresses.
fn file_name(settings: &Settings) -> String {
    let addresses = match settings.network.transport {
        Transport::Tcp => settings.network.peers.iter().map(|peer| format!("{peer},")).collect(),
        Transport::Udp | Transport::Portable | Transport::Auto | Transport::Xdp | Transport::Shm => {
            settings.group.address.to_string()
        }
    };
    format!("{:08x}-{:08x}.birth", GroupId::of(&settings.group.name).0, GroupId::of(&addresses).0)
}

fn default_directory() -> Option<PathBuf> {
    let named = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let state = named("XDG_STATE_HOME").or_else(|| named("HOME").map(|home| home.join(".local/state")));
    state.map(|state| state.join("bourdon"))
}

/// The birth in a file; 0 if there is no file. Only a file is opened, and no more than a birth is read of it.
fn read(path: &Path) -> io::Result<u64> {
    let invalid = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what);
    match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(error),
        Ok(found) if !found.is_file() => return Err(invalid("it is no file; remove it")),
        Ok(_) => {}
    }
    let mut text = Vec::new();
    File::open(path)?.take(BIRTH_TEXT_MAX_BYTES).read_to_end(&mut text)?;
    let birth = str::from_utf8(&text).ok().and_then(|text| text.trim_end().parse().ok());
    birth.filter(|birth| *birth < BIRTH_FLOORS_END).ok_or_else(|| invalid("it holds no birth; remove it"))
}

fn write(path: &Path, birth: u64) -> io::Result<()> {
    // Several nodes of one process, or of one id in several containers, may store at once.
    let beside = path.with_extension(format!("birth-{:016x}", RandomState::new().hash_one(std::process::id())));
    let written = write_whole(&beside, birth).and_then(|()| fs::rename(&beside, path));
    if written.is_err() {
        let _ = fs::remove_file(&beside); // what is there on a full disk is worth nothing
    }
    written
}

fn write_whole(path: &Path, birth: u64) -> io::Result<()> {
    let mut file = File::create(path)?;
    writeln!(file, "{birth}")?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(directory: &Path) -> Settings {
        let mut settings = Settings::default();
        settings.process.state_directory = Some(directory.to_owned());
        settings
    }

    #[test]
    fn a_birth_is_stored_and_never_falls() {
        let directory = tempfile::tempdir().expect("a directory can be made");
        let settings = settings(&directory.path().join("state"));
        let (mut file, problem) = BirthFile::open(&settings);
        assert_eq!((file.floor(), problem), (0, None));
        file.note(1_764_338_400_000);
        file.note(5);
        let (mut other, problem) = BirthFile::open(&settings);
        assert_eq!((other.floor(), problem), (1_764_338_400_000, None));
        other.note(1_764_338_400_001);
        assert_eq!(BirthFile::open(&settings).0.floor(), 1_764_338_400_001);
    }

    #[test]
    fn groups_of_one_name_on_other_addresses_have_births_of_their_own() {
        let directory = tempfile::tempdir().expect("a directory can be made");
        let multicast = settings(directory.path());
        BirthFile::open(&multicast).0.note(5);
        let mut others = vec![multicast.clone()];
        others[0].group.address.set_port(9_999);
        for peer in ["127.0.0.1:7400", "127.0.0.2:7400"] {
            let mut mesh = multicast.clone();
            mesh.network.transport = Transport::Tcp;
            mesh.network.peers = vec![peer.parse().expect("it is an address")];
            others.push(mesh);
        }
        for other in others {
            let (mut file, problem) = BirthFile::open(&other);
            assert_eq!((file.floor(), problem), (0, None));
            file.note(7);
        }
        assert_eq!(BirthFile::open(&multicast).0.floor(), 5);
    }

    #[test]
    fn what_is_no_birth_is_refused_unread() {
        let directory = tempfile::tempdir().expect("a directory can be made");
        let settings = settings(directory.path());
        let (file, _) = BirthFile::open(&settings);
        let path = file.path.expect("the directory can be written");
        for text in [&b"281474976710655"[..], b"", b"\xff\xfe", &[b'1'; 1000]] {
            fs::write(&path, text).unwrap();
            let (file, problem) = BirthFile::open(&settings);
            assert!(problem.is_some_and(|problem| problem.contains("remove it")), "{text:?}");
            assert_eq!((file.floor(), file.path), (0, None));
        }
        fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("/dev/zero", &path).unwrap();
        let (_, problem) = BirthFile::open(&settings);
        assert!(problem.is_some_and(|problem| problem.contains("no file")));
    }

    #[test]
    fn a_file_that_cannot_be_read_or_written_is_reported_with_what_is_lost() {
        let directory = tempfile::tempdir().expect("a directory can be made");
        let settings = settings(directory.path());
        drop(BirthFile::open(&settings));
        let path = fs::read_dir(directory.path()).expect("it is there").next().expect("a file").expect("it is there");
        for damage in ["", "soon", "-1", "18446744073709551615"] {
            fs::write(path.path(), damage).expect("it can be written");
            let (file, problem) = BirthFile::open(&settings);
            assert!(problem.is_some_and(|text| text.contains("tokens may repeat") && text.contains("remove it")));
            assert_eq!(file.floor(), 0);
        }
        // A directory that is a file.
        let mut elsewhere = settings.clone();
        elsewhere.process.state_directory = Some(path.path().join("below"));
        let (_, problem) = BirthFile::open(&elsewhere);
        assert!(problem.is_some_and(|text| text.contains("process.state_directory")));
    }

    #[test]
    fn a_birth_that_cannot_be_stored_later_is_reported_once() {
        let directory = tempfile::tempdir().expect("a directory can be made");
        let settings = settings(&directory.path().join("state"));
        let (mut file, problem) = BirthFile::open(&settings);
        assert_eq!((problem, file.poll_problem()), (None, None));
        let path = file.path.clone().expect("the directory can be written");
        fs::remove_dir_all(directory.path().join("state")).expect("it is there");
        file.note(7);
        let text = file.poll_problem().expect("the directory is gone");
        let named = format!("birth in {}", path.display());
        for part in [&*named, "tokens may repeat", "process.state_directory"] {
            assert!(text.contains(part), "{text}");
        }
        file.note(8);
        assert_eq!(file.poll_problem(), None);
    }

    #[test]
    fn incarnations_are_drawn_and_not_read_from_a_clock() {
        let drawn: Vec<u32> = (0..100).map(|_| Drawn::new().incarnation.0).collect();
        let distinct: std::collections::BTreeSet<_> = drawn.iter().collect();
        assert_eq!(distinct.len(), drawn.len());
        assert!(drawn.iter().all(|incarnation| *incarnation != 0));
    }
}
