//! Reads an archive for a subscription, on a thread of its own.
//!
//! Reading a segment takes milliseconds, and a process that does not poll loses messages. So a thread reads ahead, a
//! few batches at most, from each position that is asked for to the archive's end.

use crate::archive::{Archive, Archived};
use crate::entry::Entry;
use crate::error::Error;
use bourdon_log::{Damage, Record};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, SyncSender, TryRecvError, channel, sync_channel};

/// Records of a batch at most, and batches that the thread is ahead.
const BATCH: usize = 1_024;
const BATCHES_AHEAD: usize = 4;
/// A batch ends once it has so many bytes: records have up to 16 MiB.
const BATCH_BYTES: usize = 1 << 20;

/// A part of an archive.
#[derive(Debug, Default)]
pub struct Batch {
    /// The group's instance.
    pub instance: u64,
    items: Vec<Item>,
    /// The payloads of the records, one behind the other.
    bytes: Vec<u8>,
    /// The archive was read to its end: the position after the last record, or why it can't be read further.
    pub end: Option<Result<u64, Error>>,
}

#[derive(Clone, Copy, Debug)]
enum Item {
    /// Its payload stands in the batch from the end of the record before on.
    Record {
        position: u64,
        epoch: u64,
        time_ns: u64,
        start: usize,
        end: usize,
    },
    Damage(Damage),
}

impl Batch {
    /// How many records and damages it has.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether it has neither.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// One of them.
    pub fn get(&self, index: usize) -> Option<Archived<'_>> {
        Some(match *self.items.get(index)? {
            Item::Damage(damage) => Archived::Damage(damage),
            Item::Record { position, epoch, time_ns, start, end } => {
                let bytes = &self.bytes[start..end];
                Archived::Record(Record { position, epoch, time_ns, bytes }, Entry::decode(bytes))
            }
        })
    }

    fn add(&mut self, archived: &Archived<'_>) {
        self.items.push(match archived {
            Archived::Damage(damage) => Item::Damage(*damage),
            Archived::Record(record, _) => {
                let (start, Record { position, epoch, time_ns, bytes }) = (self.bytes.len(), *record);
                self.bytes.extend_from_slice(bytes);
                Item::Record { position, epoch, time_ns, start, end: self.bytes.len() }
            }
        });
    }

    fn is_full(&self) -> bool {
        self.items.len() >= BATCH || self.bytes.len() >= BATCH_BYTES
    }
}

/// What is asked of the thread.
#[derive(Clone, Copy, Debug)]
struct Request {
    from: u64,
    /// What lies before this epoch and order number need not be read.
    place: (u64, u64),
}

/// The thread that reads an archive. It ends with this.
#[derive(Debug)]
pub struct Replay {
    requests: Sender<Request>,
    batches: Receiver<Batch>,
}

impl Replay {
    /// Starts the thread. The archive need not be there yet.
    ///
    /// # Errors
    /// If no thread can be started.
    pub fn start(path: PathBuf) -> Result<Self, Error> {
        let (requests, wanted) = channel();
        let (sender, batches) = sync_channel(BATCHES_AHEAD);
        std::thread::Builder::new()
            .name("bourdon-archive".into())
            .spawn(move || serve(&path, &wanted, &sender))
            .map_err(|_| Error::ThreadEnded)?;
        Ok(Self { requests, batches })
    }

    /// Asks for the archive from this position to its end. What lies before this epoch and order number may be left
    /// out. The answer is batches, of which the last has an `end`; only then the next request is made.
    ///
    /// # Errors
    /// If the thread has ended.
    pub fn request(&self, from: u64, place: (u64, u64)) -> Result<(), Error> {
        self.requests.send(Request { from, place }).map_err(|_| Error::ThreadEnded)
    }

    /// The next batch; none if the thread has not read it yet.
    ///
    /// # Errors
    /// If the thread has ended.
    pub fn next(&self) -> Result<Option<Batch>, Error> {
        match self.batches.try_recv() {
            Ok(batch) => Ok(Some(batch)),
            Err(TryRecvError::Empty) => Ok(None),
            Err(TryRecvError::Disconnected) => Err(Error::ThreadEnded),
        }
    }
}

/// The thread.
fn serve(path: &Path, requests: &Receiver<Request>, batches: &SyncSender<Batch>) {
    // A record that its recorder is writing looks damaged; one that stays so is.
    let mut torn_at = None;
    for request in requests {
        let (mut batch, mut is_over, before) = (Batch::default(), false, torn_at.take());
        let read = Archive::open(path).and_then(|archive| {
            let from = archive.seek(request.from, request.place)?;
            batch.instance = archive.instance();
            archive.read(from, |archived| {
                if let Archived::Damage(Damage { was_synced: false, from, .. }) = archived
                    && before != Some(from)
                {
                    torn_at = Some(from);
                    return ControlFlow::Break(());
                }
                batch.add(&archived);
                if batch.is_full() {
                    let full =
                        std::mem::replace(&mut batch, Batch { instance: archive.instance(), ..Batch::default() });
                    is_over = batches.send(full).is_err();
                }
                if is_over { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            })
        });
        batch.end = Some(match read {
            Ok(end) => Ok(torn_at.unwrap_or(end)),
            // It has not been begun: it may be yet.
            Err(Error::Open { source: bourdon_log::Error::Empty, .. }) => Ok(request.from),
            Err(error) => Err(error),
        });
        if is_over || batches.send(batch).is_err() {
            return;
        }
    }
}
