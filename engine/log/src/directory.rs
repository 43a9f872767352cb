//! A directory of plain files, written through the kernel's pages and synced with `fdatasync`.

use crate::disk::{Disk, File};
use crate::error::Error;
use rustix::fs::{
    Access, AtFlags, Dir, FallocateFlags, FlockOperation, Mode, OFlags, accessat, fallocate, flock, fstat, fsync,
    mkdir, mkdirat, open, openat, renameat, unlinkat,
};
use rustix::io::Errno;
use rustix::process::geteuid;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// How much of a new file one call fills with zeros.
const ZEROS_BYTES: usize = 1 << 20;

/// An open directory.
#[derive(Debug)]
pub struct Directory {
    fd: OwnedFd,
}

impl Directory {
    /// Opens a directory to write a log, and locks it until it is dropped. It is made if it is not there.
    ///
    /// # Errors
    /// If it can't be made or written, belongs to another user, may be written by others, or another process has it.
    pub fn lock(path: &Path) -> Result<Self, Error> {
        let no_directory = |source: Errno| Error::NoDirectory { path: path.into(), source: source.into() };
        match mkdir(path, Mode::RWXU) {
            Ok(()) => sync_parent(path).map_err(no_directory)?,
            Err(Errno::EXIST) => {}
            // A directory that exists on a disk that can't be written is reported as such below.
            Err(_) if path.is_dir() => {}
            Err(error) => return Err(no_directory(error)),
        }
        let directory = Self::read(path)?;
        let stat = fstat(&directory.fd).map_err(no_directory)?;
        let (owner, user, mode) = (stat.st_uid, geteuid().as_raw(), stat.st_mode & 0o7777);
        if owner != user {
            return Err(Error::OtherOwner { path: path.into(), owner, user });
        }
        if mode & 0o022 != 0 {
            return Err(Error::OthersMayWrite { path: path.into(), mode });
        }
        accessat(&directory.fd, ".", Access::WRITE_OK | Access::EXEC_OK, AtFlags::EACCESS)
            .map_err(|source| Error::ReadOnly { path: path.into(), source: source.into() })?;
        match flock(&directory.fd, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(directory),
            Err(Errno::WOULDBLOCK) => Err(Error::Locked { path: path.into() }),
            Err(error) => Err(no_directory(error)),
        }
    }

    /// Opens a directory to read a log, also while another process writes to it.
    ///
    /// # Errors
    /// If it can't be opened.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = open(path, flags, Mode::empty())
            .map_err(|source| Error::NoDirectory { path: path.into(), source: source.into() })?;
        Ok(Self { fd })
    }

    fn open_with(&self, name: &str, flags: OFlags) -> io::Result<PlainFile> {
        let fd = openat(&self.fd, name, flags | OFlags::CLOEXEC | OFlags::NOFOLLOW, Mode::RUSR | Mode::WUSR)?;
        Ok(PlainFile(std::fs::File::from(fd)))
    }
}

/// A new directory's name is in its parent, which must be synced.
fn sync_parent(path: &Path) -> Result<(), Errno> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fsync(open(parent, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
}

impl Disk for Directory {
    type File = PlainFile;

    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in Dir::read_from(&self.fd)? {
            names.push(entry?.file_name().to_string_lossy().into_owned());
        }
        Ok(names)
    }

    fn open(&self, name: &str) -> io::Result<PlainFile> {
        match self.open_with(name, OFlags::RDWR) {
            // A reader need not be allowed to write.
            Err(error) if matches!(error.raw_os_error(), Some(code) if is_no_permission(code)) => {
                self.open_with(name, OFlags::RDONLY)
            }
            opened => opened,
        }
    }

    fn create(&self, name: &str) -> io::Result<PlainFile> {
        self.open_with(name, OFlags::RDWR | OFlags::CREATE | OFlags::EXCL)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        Ok(renameat(&self.fd, from, &self.fd, to)?)
    }

    fn move_into(&self, directory: &str, names: &[String]) -> io::Result<()> {
        match mkdirat(&self.fd, directory, Mode::RWXU) {
            Ok(()) => fsync(&self.fd)?,
            Err(Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let into = openat(&self.fd, directory, flags, Mode::empty())?;
        for name in names {
            renameat(&self.fd, name, &into, name)?;
        }
        fsync(&into)?;
        Ok(fsync(&self.fd)?)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        Ok(unlinkat(&self.fd, name, AtFlags::empty())?)
    }

    fn sync(&self) -> io::Result<()> {
        Ok(fsync(&self.fd)?)
    }
}

fn is_no_permission(code: i32) -> bool {
    [Errno::ACCESS, Errno::PERM, Errno::ROFS].iter().any(|error| error.raw_os_error() == code)
}

/// A file of a [`Directory`].
#[derive(Debug)]
pub struct PlainFile(std::fs::File);

impl File for PlainFile {
    fn length(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        self.0.read_exact_at(bytes, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }

    fn allocate(&self, length: u64) -> io::Result<()> {
        match fallocate(&self.0, FallocateFlags::empty(), 0, length) {
            // Not every file system can reserve; then the zeros find out whether there is room.
            Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS) => {}
            Err(error) => return Err(error.into()),
        }
        let zeros = vec![0; ZEROS_BYTES.min(length as usize)];
        let mut offset = 0;
        while offset < length {
            let bytes = zeros.len().min((length - offset) as usize);
            self.0.write_all_at(&zeros[..bytes], offset)?;
            offset += bytes as u64;
        }
        Ok(())
    }

    fn truncate(&self, length: u64) -> io::Result<()> {
        self.0.set_len(length)
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync_data()
    }
}
