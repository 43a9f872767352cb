//! Folders for a peer's files, which are removed when the harness ends.
//!
//! A database's files must be where the row reports them: on tmpfs nothing is ever flushed, and a store whose flushes
//! cost nothing is a different store. So a user that requests a disk does not get `/tmp` where that is tmpfs.
//!
//! A destructor removes nothing when the harness is interrupted or killed, and on tmpfs the files that are left take
//! memory. So a keeper removes the folder: a process outside the terminal's process group that ends when its standard
//! input ends, and that is when this process ends, however it ends (as in `hosts.rs`).

use crate::Failure;
use rustix::fs::{FsWord, statfs};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use tempfile::TempDir;

/// The type that `statfs` reports for tmpfs (`TMPFS_MAGIC` in `linux/magic.h`).
const TMPFS: FsWord = 0x0102_1994;
/// Where the host has a tmpfs that any user may write to.
const SHARED_MEMORY: &str = "/dev/shm";
/// Where a disk is if the folder for temporary files is not on a disk.
const OTHERWISE: &str = "/var/tmp";

/// Where files are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Storage {
    Disk,
    Tmpfs,
}

impl Storage {
    /// A folder that is on it.
    pub(crate) fn folder(self) -> Result<PathBuf, Failure> {
        let (candidates, advice) = match self {
            Self::Disk => (vec![std::env::temp_dir(), OTHERWISE.into()], "set TMPDIR to a folder on a disk"),
            Self::Tmpfs => (vec![PathBuf::from(SHARED_MEMORY)], "mount a tmpfs on /dev/shm"),
        };
        let fits = |folder: &PathBuf| is_tmpfs(folder).is_some_and(|tmpfs| tmpfs == (self == Self::Tmpfs));
        candidates
            .into_iter()
            .find(fits)
            .ok_or_else(|| Failure::Unusable(format!("no folder on {}: {advice}", format!("{self:?}").to_lowercase())))
    }
}

/// Whether a readable folder is on tmpfs.
pub(crate) fn is_tmpfs(folder: &Path) -> Option<bool> {
    statfs(folder).ok().map(|info| info.f_type == TMPFS)
}

/// The file system that a folder is on, and its device.
pub(crate) fn file_system(folder: &Path) -> String {
    let folder = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
    let mounts = std::fs::read_to_string("/proc/mounts").unwrap_or_default();
    let mounts = mounts.lines().filter_map(|line| {
        let mut words = line.split(' ');
        let (device, at, kind) = (words.next()?, words.next()?, words.next()?);
        folder.starts_with(at).then(|| (at.len(), format!("{kind} on {device}")))
    });
    // Of two mounts at one place the later one hides the other, and `max_by_key` takes the last.
    mounts.max_by_key(|(length, _)| *length).map_or_else(|| "unknown".to_owned(), |(_, name)| name)
}

/// A folder of this run's own, with a keeper that removes it.
pub(crate) struct Scratch {
    folder: TempDir,
    keeper: Child,
}

impl Scratch {
    pub(crate) fn make(storage: Storage) -> Result<Self, Failure> {
        Self::make_in(&storage.folder()?)
    }

    /// As [`Self::make`], in this folder.
    pub(crate) fn make_in(parent: &Path) -> Result<Self, Failure> {
        let unusable = |error: std::io::Error| Failure::Unusable(format!("can't make a folder for a peer: {error}"));
        let folder = tempfile::Builder::new().prefix("bourdon-bench-").tempdir_in(parent);
        let folder = folder.map_err(unusable)?;
        let mut command = Command::new("sh");
        command.args(["-c", "cat; rm -rf -- \"$1\"", "sh"]).arg(folder.path()).process_group(0);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        Ok(Self { folder, keeper: command.spawn().map_err(unusable)? })
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        let _ = self.keeper.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_where_it_was_asked_for_and_goes() {
        for storage in [Storage::Disk, Storage::Tmpfs] {
            let scratch = match Scratch::make(storage) {
                Ok(scratch) => scratch,
                Err(why) => {
                    crate::skipped::report(format_args!("{why:?}"));
                    continue;
                }
            };
            let path = scratch.path().to_owned();
            std::fs::write(path.join("file"), "x").expect("it can be written to");
            assert_eq!(is_tmpfs(&path), Some(storage == Storage::Tmpfs));
            drop(scratch);
            assert!(!path.exists());
        }
    }
}
