//! The memory of a log: without a name, and of a size that no process can change.
//!
//! A memfd lives as long as a descriptor or a mapping of it. Sealed, it can't be cut short under a reader, which a
//! signal would end, and no process but its owner can map it to write.

use bourdon_port::PortError;
use bourdon_ring::log::{Reader, Writer, file_bytes};
use rustix::fs::{
    MemfdFlags, SealFlags, fcntl_add_seals, fcntl_get_seals, fcntl_getfl, fstat, ftruncate, memfd_create,
};
use rustix::io::Errno;
use rustix::process::{Resource, getrlimit};
use std::fs::File;
use std::os::fd::OwnedFd;

const SEALS: SealFlags = SealFlags::SHRINK.union(SealFlags::GROW).union(SealFlags::FUTURE_WRITE).union(SealFlags::SEAL);

/// Which memory it is, for as long as any process has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LogId {
    device: u64,
    inode: u64,
}

impl LogId {
    pub(crate) fn of(file: &File) -> rustix::io::Result<Self> {
        let status = fstat(file)?;
        Ok(Self { device: status.st_dev, inode: status.st_ino })
    }
}

/// Makes a log, and what other processes map it by.
///
/// # Errors
/// If the kernel lacks or forbids what it takes.
pub(crate) fn create(ring_bytes: usize) -> Result<(Writer, File), PortError> {
    let unavailable = |call: &str, error: std::io::Error| PortError::Unavailable {
        mechanism: "shm",
        why: format!("{call}: {error}"),
    };
    let bytes = file_bytes(ring_bytes) as u64;
    if let Some(limit) = getrlimit(Resource::Fsize).current.filter(|limit| *limit < bytes) {
        // The kernel would end the process by a signal.
        let why = format!(
            "the limit of file sizes (`ulimit -f`) is {limit} bytes and a log takes {bytes}: raise it, or lower \
             network.receive_buffer_bytes"
        );
        return Err(PortError::Unavailable { mechanism: "shm", why });
    }
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let memory = match memfd_create("bourdon-log", flags | MemfdFlags::NOEXEC_SEAL) {
        Err(Errno::INVAL) => memfd_create("bourdon-log", flags), // before Linux 6.3
        other => other,
    };
    let file = File::from(memory.map_err(|error| unavailable("memfd_create", error.into()))?);
    ftruncate(&file, bytes).map_err(|error| unavailable("ftruncate", error.into()))?;
    let log = Writer::map(&file).map_err(|error| unavailable("mmap", error))?;
    match fcntl_add_seals(&file, SEALS) {
        Ok(()) => Ok((log, file)),
        Err(Errno::INVAL) => Err(unavailable("F_SEAL_FUTURE_WRITE takes Linux 5.1", Errno::INVAL.into())),
        Err(error) => Err(unavailable("F_ADD_SEALS", error.into())),
    }
}

/// Maps what another process gave as its log.
///
/// # Errors
/// If it is none.
pub(crate) fn map(memory: OwnedFd) -> std::io::Result<(Reader, LogId)> {
    if !fcntl_get_seals(&memory)?.contains(SEALS) {
        return Err(std::io::Error::other("memory that is not sealed"));
    }
    let file = File::from(memory);
    Ok((Reader::map(&file)?, LogId::of(&file)?))
}

/// Whether a write to what another process gave as its eventfd blocks no writer: an object of the kernel without a type
/// of file, as an eventfd is, that does not wait. A process of the same user that makes it wait later could as well
/// stop this one by a signal.
pub(crate) fn is_eventfd(event: &OwnedFd) -> bool {
    let has_no_type = fstat(event).is_ok_and(|status| status.st_mode & 0o170_000 == 0);
    has_no_type && fcntl_getfl(event).is_ok_and(|flags| flags.contains(rustix::fs::OFlags::NONBLOCK))
}
