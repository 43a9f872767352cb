//! The disk alone, as a link: each message is written to a file that was filled before, and synced.

use super::Task;
use crate::{Failure, Link, broken};
use std::fs::File;
use std::os::unix::fs::FileExt;

/// Bytes of the file: a round writes less, or begins again at the front.
const FILE_BYTES: usize = 16 << 20;

/// A file, and the message that was stored last.
pub(crate) struct Disk {
    file: File,
    offset: usize,
    stored: Vec<u8>,
}

/// Fills a file with zeros and syncs it, so that later writes need neither space nor metadata.
pub(crate) fn open(task: &Task) -> Result<Disk, Failure> {
    let file = File::options().create_new(true).write(true).open(&task.directory).map_err(broken)?;
    file.write_all_at(&vec![0; FILE_BYTES], 0).and_then(|()| file.sync_all()).map_err(broken)?;
    Ok(Disk { file, offset: 0, stored: Vec::new() })
}

impl Link for Disk {
    fn try_send(&mut self, message: &[u8]) -> Result<bool, Failure> {
        if self.offset + message.len() > FILE_BYTES {
            self.offset = 0;
        }
        self.file.write_all_at(message, self.offset as u64).and_then(|()| self.file.sync_data()).map_err(broken)?;
        self.offset += message.len();
        self.stored.clear();
        self.stored.extend_from_slice(message);
        Ok(true)
    }

    fn poll(&mut self, mut on_message: impl FnMut(&[u8])) -> Result<usize, Failure> {
        let count = usize::from(!self.stored.is_empty());
        if count > 0 {
            on_message(&self.stored);
            self.stored.clear();
        }
        Ok(count)
    }
}
