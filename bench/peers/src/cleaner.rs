//! Removes what a peer leaves in shared memory, however this process ends.
//!
//! Aeron and iceoryx2 keep their logs and segments in files on `/dev/shm`, hundreds of megabytes of memory, and the
//! bench kills an end that it no longer needs. A destructor does not run then. So a process outside the terminal's
//! process group waits for the end of its standard input, which is the end of this process, and removes the files.

use bourdon_bench::Failure;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// Where shared memory is a file.
const SHARED_MEMORY: &str = "/dev/shm";

/// The path of a file in shared memory.
pub(crate) fn path(name: &str) -> PathBuf {
    Path::new(SHARED_MEMORY).join(name)
}

/// A path prefix on `/dev/shm`; everything whose path begins with it is removed when this process ends.
pub(crate) struct Cleaner(Child);

impl Cleaner {
    /// Removes `/dev/shm/NAME*` when it is dropped, or when this process ends.
    pub(crate) fn start(name: &str) -> Result<Self, Failure> {
        let mut command = Command::new("sh");
        command.args(["-c", "cat; rm -rf -- \"$1\"*", "sh"]).arg(path(name)).process_group(0);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().map_err(|error| Failure::Unusable(format!("can't start sh: {error}")))?;
        Ok(Self(child))
    }
}

impl Drop for Cleaner {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}
