//! The directory where the nodes of one user leave what other processes may read: counters files and admin sockets.
//!
//! In a place that every user can write, like `/dev/shm`, another user can take a name first: a symbolic link
//! there makes a node write where it should not, and a directory of another user's lets that user swap the files. So
//! the directory is opened without following links, looked at through that descriptor, refused unless it is this
//! user's alone to write, and every name in it is used relative to the descriptor.
//!
//! Invariant: a [`Directory`] belongs to this user, and no other user can write it.

use rustix::fs::{AtFlags, Mode, OFlags};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

/// How the names of admin sockets end.
pub(crate) const SOCKET_SUFFIX: &str = ".sock";
/// The longest path of a socket: `sun_path` has 108 bytes, the last of them zero.
const SOCKET_PATH_MAX_BYTES: usize = 107;
/// Only its owner may read it.
const PRIVATE: Mode = Mode::RWXU;

/// An open directory of this user's.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    fd: OwnedFd,
}

/// Why a directory is not used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DirectoryError {
    /// It can't be made, opened or written: name another.
    #[error("can't use {} for counters and the admin socket: {source}; name another with \
         threads.directory", path.display())]
    Io {
        /// The directory.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Other users can write to it, and so replace the files in it: name another, or take their right away.
    #[error("{} is not this user's alone to write (uid {owner}, mode {mode:o}): name another with \
         threads.directory or, if only this user's processes use it, run `chmod go-w {0}`", path.display())]
    Shared {
        /// The directory.
        path: PathBuf,
        /// Its owner's user id.
        owner: u32,
        /// Its mode.
        mode: u32,
    },
    /// No default directory can be used: the text names each with the reason.
    #[error("no directory for counters and the admin socket can be used: {tried}; name another with threads.directory")]
    NoneUsable {
        /// Each directory, and why not.
        tried: String,
    },
    /// The path of a socket in it is longer than the kernel takes: name a shorter directory.
    #[error("the admin socket's path {} has {bytes} bytes, and the kernel takes at most {SOCKET_PATH_MAX_BYTES}: name \
         a shorter directory with threads.directory", path.display())]
    TooLong {
        /// The socket's path.
        path: PathBuf,
        /// How long it is.
        bytes: usize,
    },
}

impl DirectoryError {
    /// The directory and why not, without what to do.
    fn reason(&self) -> String {
        match self {
            Self::Io { path, source } => format!("can't use {}: {source}", path.display()),
            Self::Shared { path, owner, mode } => {
                format!("{} is not this user's alone to write (uid {owner}, mode {mode:o})", path.display())
            }
            other => other.to_string(),
        }
    }
}

impl Directory {
    /// Opens the directory, made if it is not there; without a name, the first default that works.
    ///
    /// # Errors
    /// If it can't be made or is not this user's alone.
    pub fn open(path: Option<&Path>) -> Result<Self, DirectoryError> {
        match path {
            Some(path) => Self::open_at(path, true),
            None => Self::first_of(&Self::defaults(), Ok).map(|(directory, _)| directory),
        }
    }

    /// What `place` makes in the named directory, or in the first default in which it can be made; for a default that
    /// is not the first, with the reasons why those before it can't be used.
    pub(crate) fn place_in<T>(
        path: Option<&Path>,
        mut place: impl FnMut(Self) -> Result<T, DirectoryError>,
    ) -> Result<(T, Option<String>), DirectoryError> {
        match path {
            Some(path) => Ok((place(Self::open_at(path, true)?)?, None)),
            None => Self::first_of(&Self::defaults(), place),
        }
    }

    /// A file system that is full, read-only or made without room for files is no reason not to start: the next
    /// directory may do.
    fn first_of<T>(
        paths: &[PathBuf],
        mut place: impl FnMut(Self) -> Result<T, DirectoryError>,
    ) -> Result<(T, Option<String>), DirectoryError> {
        let mut refused: Vec<String> = Vec::new();
        for path in paths {
            match Self::open_at(path, true).and_then(&mut place) {
                Ok(placed) => {
                    let at = path.display();
                    let used = || format!("{}; counters and the admin socket are in {at} instead", refused.join("; "));
                    return Ok((placed, (!refused.is_empty()).then(used)));
                }
                Err(error) => refused.push(error.reason()),
            }
        }
        Err(DirectoryError::NoneUsable { tried: refused.join("; ") })
    }

    /// The directories that exist already, to search for nodes.
    ///
    /// # Errors
    /// If the named directory can't be used.
    pub fn existing(path: Option<&Path>) -> Result<Vec<Self>, DirectoryError> {
        match path {
            Some(path) => Ok(vec![Self::open_at(path, false)?]),
            None => Ok(Self::defaults().iter().filter_map(|path| Self::open_at(path, false).ok()).collect()),
        }
    }

    /// `$XDG_RUNTIME_DIR/bourdon` is cleared at the end of the session; `/dev/shm` and `/tmp` are everywhere.
    fn defaults() -> Vec<PathBuf> {
        let uid = rustix::process::geteuid().as_raw();
        let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|path| path.is_absolute());
        let runtime = runtime.map(|path| path.join("bourdon"));
        let shared = ["/dev/shm", "/tmp"].map(|path| Path::new(path).join(format!("bourdon-{uid}")));
        runtime.into_iter().chain(shared).collect()
    }

    fn open_at(path: &Path, create: bool) -> Result<Self, DirectoryError> {
        let io = |source: rustix::io::Errno| DirectoryError::Io { path: path.to_owned(), source: source.into() };
        if create {
            match rustix::fs::mkdir(path, PRIVATE) {
                Ok(()) | Err(rustix::io::Errno::EXIST) => {}
                Err(error) => return Err(io(error)),
            }
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::open(path, flags, Mode::empty()).map_err(io)?;
        let stat = rustix::fs::fstat(&fd).map_err(io)?;
        let others_write = Mode::from_raw_mode(stat.st_mode).intersects(Mode::WGRP | Mode::WOTH);
        if stat.st_uid != rustix::process::geteuid().as_raw() || others_write {
            let (owner, mode) = (stat.st_uid, stat.st_mode & 0o7777);
            return Err(DirectoryError::Shared { path: path.to_owned(), owner, mode });
        }
        Ok(Self { path: path.to_owned(), fd })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A path to `name` that leads through the open descriptor: short enough for any socket address, and no other
    /// directory whatever happens to this one's name.
    pub(crate) fn through(&self, name: &str) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}/{name}", self.fd.as_raw_fd()))
    }

    /// Whether the commands, which connect by the path, reach a socket of this name.
    pub(crate) fn check_socket(&self, name: &str) -> Result<(), DirectoryError> {
        let path = self.path.join(name);
        let bytes = path.as_os_str().len();
        if bytes > SOCKET_PATH_MAX_BYTES { Err(DirectoryError::TooLong { path, bytes }) } else { Ok(()) }
    }

    /// The names of its entries.
    pub(crate) fn names(&self) -> io::Result<Vec<String>> {
        let entries = rustix::fs::Dir::read_from(&self.fd)?;
        let names = entries.filter_map(|entry| entry.ok()?.file_name().to_str().ok().map(str::to_owned));
        Ok(names.collect())
    }

    /// Removes an entry; a missing entry is no error.
    pub(crate) fn remove(&self, name: &str) {
        let _ = rustix::fs::unlinkat(&self.fd, name, AtFlags::empty());
    }
}

impl AsFd for Directory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_that_others_may_write_or_too_long_for_a_socket_is_refused() {
        let base = tempfile::tempdir().expect("a directory can be made");
        let directory = Directory::open(Some(base.path())).expect("it is this user's");
        let room = SOCKET_PATH_MAX_BYTES - base.path().as_os_str().len() - 1;
        directory.check_socket(&"x".repeat(room)).expect("it just fits");
        let why = directory.check_socket(&"x".repeat(room + 1)).expect_err("a byte too long").to_string();
        assert!(why.contains("108 bytes") && why.contains("threads.directory"), "{why}");
        rustix::fs::chmod(base.path(), Mode::from_raw_mode(0o1777)).expect("it is this user's");
        let why = Directory::open(Some(base.path())).expect_err("others may write it").to_string();
        assert!(why.contains("name another") && why.contains("chmod go-w") && !why.contains("remove"), "{why}");
    }

    #[test]
    fn a_default_without_room_is_passed_over_and_named() {
        let base = tempfile::tempdir().expect("a directory can be made");
        let at = |name: &str| base.path().join(name);
        std::fs::write(at("file"), b"").expect("there is room");
        let paths = ["none/below", "file", "full", "good"].map(at);
        let place = |directory: Directory| match directory.path().ends_with("full") {
            true => Err(DirectoryError::Io { path: directory.path, source: io::ErrorKind::StorageFull.into() }),
            false => Ok(directory.path),
        };
        let (path, note) = Directory::first_of(&paths, place).expect("the last has room");
        let note = note.expect("three were passed over");
        assert_eq!(path, paths[3]);
        assert!(paths.iter().all(|path| note.contains(&*path.display().to_string())), "{note}");
        assert!(note.contains("no storage space") && note.ends_with("good instead"), "{note}");
        assert_eq!(Directory::first_of(&paths[3..], place).expect("it has room").1, None);
        let why = Directory::first_of(&paths[..3], place).expect_err("none has room").to_string();
        assert!(paths[..3].iter().all(|path| why.contains(&*path.display().to_string())), "{why}");
        assert!(why.ends_with("name another with threads.directory"), "{why}");
    }
}
