//! A segmented, append-only log on disk.
//!
//! **Problem.** A member that acknowledges a message must still have it after power was lost at any instant. A file to
//! which records are appended does not give that: the disk writes sectors in any order and tears a record, a flipped
//! bit in the middle makes a naive reader cut off all that follows, a segment that is used again still has valid
//! records of its earlier use, a new file is gone unless its directory was synced, and after a failed sync the kernel
//! holds pages that it no longer writes.
//!
//! **Rule.** Records have positions without gaps, so a missing one is noticed. A record's checksum covers where it
//! stands: instance, segment generation, offset, epoch and position. Each record gives the position up to which the log
//! was synced when it was written, so recovery distinguishes the torn end of the log, which no owner has acknowledged,
//! from damage in the middle. Only an end after which nothing valid follows is cut; damage is reported with its range
//! of positions, the records beyond it are read, and [`Log::repair`] writes it again from another member's copy.
//!
//! [`format`](mod@format) and [`scan`](mod@scan) are pure: bytes in, records out. [`Log`] and [`Reader`] do their input
//! and output through [`Disk`] and [`File`], which [`Directory`] implements with plain files, and tests with a
//! simulated disk that loses, tears and reorders writes. The page is `docs/log.md`.

mod damage;
mod directory;
mod disk;
mod error;
pub mod format;
mod ledger;
mod log;
mod mutant;
mod reader;
pub mod scan;
mod segment;
#[doc(hidden)]
pub mod sim_disk;

pub use damage::Damage;
pub use directory::{Directory, PlainFile};
pub use disk::{Disk, File};
pub use error::Error;
pub use format::Record;
pub use ledger::{DAMAGED_MAX, Found, Ledger, Mark};
pub use log::{Log, Pruned, Recovery, Retention, Settings, prepare};
pub use mutant::Mutant;
pub use reader::{Entry, Reader};
pub use segment::Segment;
