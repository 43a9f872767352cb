//! What a log needs of a disk: a directory of files, each read and written at offsets and synced.
//!
//! The log batches: it appends many records, then writes them with one call and syncs once. An implementation with
//! `io_uring` or without the kernel's pages fits behind these calls; all writes begin at multiples of eight bytes, and
//! a batch at a multiple of a block.

use std::io;

/// A directory, locked by its owner if it writes.
pub trait Disk {
    /// Its files.
    type File: File;

    /// The names in it.
    ///
    /// # Errors
    /// What the host reports.
    fn list(&self) -> io::Result<Vec<String>>;

    /// Opens a file, to read and, if the directory is locked, to write.
    ///
    /// # Errors
    /// What the host reports.
    fn open(&self, name: &str) -> io::Result<Self::File>;

    /// Creates an empty file. It survives a crash once [`sync`](Self::sync) has returned.
    ///
    /// # Errors
    /// What the host reports; also if the name exists.
    fn create(&self, name: &str) -> io::Result<Self::File>;

    /// Gives a file another name, in one step; it survives a crash once [`sync`](Self::sync) has returned.
    ///
    /// # Errors
    /// What the host reports.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Moves files into a directory in this one, which is made if it is not there. They survive a crash there once this
    /// has returned; if it fails, some may have been moved.
    ///
    /// # Errors
    /// What the host reports.
    fn move_into(&self, directory: &str, names: &[String]) -> io::Result<()>;

    /// Removes a name; it stays removed after a crash once [`sync`](Self::sync) has returned.
    ///
    /// # Errors
    /// What the host reports.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Makes creations, renames and removals survive a crash.
    ///
    /// # Errors
    /// What the host reports. What was done before it may or may not survive then.
    fn sync(&self) -> io::Result<()>;
}

/// An open file.
pub trait File {
    /// Its length.
    ///
    /// # Errors
    /// What the host reports.
    fn length(&self) -> io::Result<u64>;

    /// Reads bytes at an offset, all of them.
    ///
    /// # Errors
    /// What the host reports; also if the file ends before.
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()>;

    /// Writes bytes at an offset, all of them. They survive a crash once [`sync`](Self::sync) has returned; before it,
    /// any of their sectors may.
    ///
    /// # Errors
    /// What the host reports. Any part may have been written.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Fills a new file with zeros up to this length, so that later writes need neither space nor metadata.
    ///
    /// # Errors
    /// What the host reports; above all that the disk is full.
    fn allocate(&self, length: u64) -> io::Result<()>;

    /// Cuts the file at this length.
    ///
    /// # Errors
    /// What the host reports.
    fn truncate(&self, length: u64) -> io::Result<()>;

    /// Makes all that was written survive a crash.
    ///
    /// # Errors
    /// What the host reports. The kernel may have dropped what was written and report success the next time, so the
    /// owner must not go on.
    fn sync(&self) -> io::Result<()>;
}
