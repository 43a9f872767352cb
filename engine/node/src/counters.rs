//! The counters file: what a node counts, for any process of this user to read while it runs.
//!
//! A query disturbs a node, and a node that hangs does not answer. So it leaves its figures in a small mapped file, and
//! each reader maps it too. A process id does not show which files belong to nodes that still run: another process may
//! have the id by now, or the id means nothing in another container. A lock does show it: each
//! owner holds an exclusive `flock` on its file, which the kernel releases when the process ends, however it ends.
//!
//! The protocol counts in plain integers; a copy of them goes to the mapped cells about once a millisecond, by relaxed
//! stores: some fifty of them, nothing on the path of a message.
//!
//! Layout: a header, then a JSON description ([`Description`]: which node, where, and every cell's label and help
//! text), then the cells, 8 bytes each, native byte order (readers are on this host). Version 1.
//!
//! Invariants: a file appears under its name complete and locked; its name is unique on the host; a file that no
//! process locks is stale and removed by the next node or `bourdon stat`, its admin socket with it.
//!
//! Source: Aeron's counters file; flock(2); linkat(2) for files that appear complete.

pub use crate::directory::Directory;
use crate::recording::ArchiveFigures;
use bourdon_engine::Engine;
use bourdon_port::Port;
use bourdon_protocol::control::detector::Why;
pub use bourdon_protocol::control::detector::{Figures, Gaps};
pub use bourdon_protocol::{Counter, Counters};
use bourdon_ring::counters::{Reader, Writer, map_file, map_file_read_only};
use bourdon_wire::Instant;
use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{Ipv6Addr, SocketAddr};
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::sync::Arc;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

const MAGIC: [u8; 8] = *b"BOURDON\0";
/// The layout's version.
pub(crate) const VERSION: u32 = 1;
/// How the names of counters files end.
pub(crate) const SUFFIX: &str = ".counters";
/// No honest file is longer: the description of a few hundred cells is some tens of KiB.
const FILE_MAX_BYTES: u64 = 1 << 20;
/// Between two copies: often enough for users and for rates, seldom enough to cost nothing.
const COPY_INTERVAL_NS: u64 = 1_000_000;

/// The start of the file.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(crate) struct Header {
    magic: [u8; 8],
    version: u32,
    pid: u32,
    start_time_ns: u64,
    description_bytes: u32,
    cells_offset_bytes: u32,
    cells_count: u32,
    reserved: u32,
}

const HEADER_BYTES: usize = 40;
const _: () = assert!(size_of::<Header>() == HEADER_BYTES);

/// A node's identity, in its counters file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Description {
    /// `group.name`.
    pub group: String,
    /// `group.address`.
    pub group_address: String,
    /// `process.role`, as settings name it.
    pub role: String,
    /// `process.rank`; none at an observer.
    pub rank: Option<u16>,
    /// `group.members`.
    pub members: u16,
    /// The address and port at which others reached the node when it started; see [`Found::address`].
    pub address: String,
    /// What moves the bytes.
    pub io: String,
    /// What the node does differently from its settings, and why.
    pub fallback: Option<String>,
    /// `threads.idle`, as settings name it.
    pub idle: String,
    /// What the kernel granted as a receive buffer, in bytes, in its own accounting (twice what is asked).
    pub receive_buffer_bytes: u64,
    /// By cell: label and help text.
    pub cells: Vec<(String, String)>,
}

macro_rules! node_cells {
    ($($(#[$doc:meta])* $name:ident = $label:literal, $help:literal;)+) => {
        /// The cells beyond the protocol's counters.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[allow(missing_docs)] // the help text documents it
        pub enum NodeCell { $($name),+ }

        impl NodeCell {
            /// All of them, in order.
            pub const ALL: &'static [NodeCell] = &[$(NodeCell::$name),+];

            /// Its name in tools.
            pub const fn label(self) -> &'static str {
                match self { $(Self::$name => $label),+ }
            }

            /// Its help text.
            pub const fn help(self) -> &'static str {
                match self { $(Self::$name => $help),+ }
            }
        }
    };
}

node_cells! {
    UpdatedNs = "updated_ns", "when these figures were copied, in nanoseconds since the UNIX epoch";
    UpdatedMonotonicNs = "updated_monotonic_ns", "the same by the host's monotonic clock, which no person sets";
    IsFormed = "is_formed", "1 once every member has been heard";
    Epoch = "epoch", "the view's id";
    Members = "view_members", "bit r: rank r is in the view";
    Suspected = "suspected", "bit r: the member of rank r is suspected";
    LacksMajority = "lacks_majority", "1 while no majority of the view can be reached";
    NetworkLost = "network_lost", "1 while its interface is gone, down, or without the address";
    IpHigh = "ip_high", "the upper half of the IPv6 address at which others reach it (IPv4 mapped into it)";
    IpLow = "ip_low", "the lower half of that address";
    NarrowFrom = "narrow_from", "bit r: short datagrams come from the member of rank r, and no long ones";
    NarrowTo = "narrow_to", "bit r: short datagrams of this process reach the member of rank r, and no long ones";
    Phase = "phase", "barriers completed";
    PushFalse = "push_false_positives", "members suspected by push (silence) that were heard again";
    PullFalse = "pull_false_positives", "members suspected by pull (pings) that were heard again";
    PhiFalse = "phi_false_positives", "members suspected by phi accrual that were heard again";
    GroupFalse = "group_false_positives", "members suspected by the group's detectors that they trusted again";
    EvidenceFalse = "evidence_false_positives", "members heard again although there was hard evidence";
    PushMissed = "push_false_negatives", "members removed that push had not suspected";
    PullMissed = "pull_false_negatives", "members removed that pull had not suspected";
    PhiMissed = "phi_false_negatives", "members removed that phi accrual had not suspected";
    GroupMissed = "group_false_negatives", "members removed that the group's detectors had not suspected";
    DeliveredOrder = "delivered_order", "the number of the next message in total order";
    WindowOpen = "window_open", "the datagram of the own stream that is being filled";
    WindowLimit = "window_limit", "the first datagram of the own stream that may not be opened yet";
    Backlog = "backlog_datagrams", "sealed datagrams that wait for the network";
    PortDatagrams = "port_datagrams", "datagrams the port handed over, discarded ones included";
    LongestCycleNs = "longest_cycle_ns", "the longest round of the data agent, sleep excluded";
    RecentCycleNs = "longest_recent_cycle_ns", "the longest round of the last second, or of two, sleep excluded";
    Rounds = "rounds", "rounds of the data agent";
    Sleeps = "sleeps", "times the data agent slept";
    Gated = "gated_rounds", "rounds in which a full subscription ring held up delivery";
    Overruns = "overruns", "messages an observer skipped because a subscription ring was full";
    ControlFull = "control_full", "rounds in which the control thread had no room for what the data agent learned";
    PublicationsDropped = "publications_dropped", "messages taken from the application that the group can never take";
    WaitedNs = "waited_ns", "how long it has waited for a view, or as an observer for a majority";
    StorageWaitedNs = "storage_waited_ns", "how long the oldest record has waited that the disk has not taken";
    StorageFull = "storage_full", "1 while there is no room on the disk of storage.directory";
    StorageDamaged = "storage_damaged", "times that this member's storage was damaged and set aside";
    StorageRepaired = "storage_repaired", "times that it came back after that, with what the others have";
    Archived = "archived", "messages recorded in the archive";
    ArchiveLost = "archive_lost", "messages that the archive lacks: too many waited, a full disk, or a failure";
    ArchiveFailed = "archive_failed", "1 once recording to the archive has ended by a failure";
    EventsDropped = "events_dropped", "events that a thread of the application had not fetched in time";
}

/// How many cells a file of this version has.
pub(crate) const CELLS: usize = Counter::ALL.len() + NodeCell::ALL.len();

/// The label and help text of each cell.
pub(crate) fn cells() -> Vec<(String, String)> {
    let protocol = Counter::ALL.iter().map(|counter| (counter.label(), counter.help()));
    let node = NodeCell::ALL.iter().map(|cell| (cell.label(), cell.help()));
    protocol.chain(node).map(|(label, help)| (label.to_owned(), help.to_owned())).collect()
}

/// A node's own counters file; removed when this is dropped.
#[derive(Debug)]
pub(crate) struct CountersFile {
    directory: Arc<Directory>,
    stem: String,
    /// Holds the lock.
    _file: File,
}

impl CountersFile {
    /// Makes a file named after the node, which no other on this host has, and clears away stale ones.
    ///
    /// # Errors
    /// The file system's error.
    pub(crate) fn create(directory: Arc<Directory>, description: &Description) -> io::Result<(Self, CountersWriter)> {
        remove_stale(&directory);
        // Unlinked until it is complete and locked: no reader ever sees half a file or takes a new file for stale.
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(&*directory, ".", flags, Mode::RUSR | Mode::WUSR)?;
        rustix::fs::flock(&fd, FlockOperation::NonBlockingLockExclusive)?;
        let mut file = File::from(fd);
        let offset_bytes = write_front(&mut file, description)?;
        let (writer, reader) = map_file(&file, offset_bytes, CELLS)?;
        let stem = link(&directory, &file, description)?;
        // The admin socket takes an inode of its own.
        rustix::fs::openat(&*directory, ".", flags, Mode::RUSR | Mode::WUSR)
            .inspect_err(|_| directory.remove(&format!("{stem}{SUFFIX}")))?;
        let writer = CountersWriter { writer, reader, due: Instant(0) };
        Ok((Self { directory, stem, _file: file }, writer))
    }

    /// Where it is.
    pub(crate) fn path(&self) -> PathBuf {
        self.directory.path().join(format!("{}{SUFFIX}", self.stem))
    }

    /// Its name without the ending: the node's name on this host.
    pub(crate) fn stem(&self) -> &str {
        &self.stem
    }

    /// The directory it is in.
    pub(crate) fn directory(&self) -> &Arc<Directory> {
        &self.directory
    }
}

impl Drop for CountersFile {
    fn drop(&mut self) {
        self.directory.remove(&format!("{}{SUFFIX}", self.stem));
    }
}

fn write_front(file: &mut File, description: &Description) -> io::Result<usize> {
    let text = serde_json::to_vec(description)?;
    let offset_bytes = (HEADER_BYTES + text.len()).next_multiple_of(64);
    let header = Header {
        magic: MAGIC,
        version: VERSION,
        pid: std::process::id(),
        start_time_ns: bourdon_engine::Clock::start().wall_ns(),
        description_bytes: text.len() as u32,
        cells_offset_bytes: offset_bytes as u32,
        cells_count: CELLS as u32,
        reserved: 0,
    };
    file.write_all(header.as_bytes())?;
    file.write_all(&text)?;
    // Written, not only sized: on a full disk a page that is missing would end the process at its first use.
    file.write_all(&vec![0; offset_bytes - HEADER_BYTES - text.len() + 8 * CELLS])?;
    Ok(offset_bytes)
}

/// Gives the file the first free of the node's names.
fn link(directory: &Directory, file: &File, description: &Description) -> io::Result<String> {
    // 32 characters keep the whole name well below 255 bytes.
    let plain = |c: char| if c.is_ascii_alphanumeric() || c == '-' || c == '_' { c } else { '_' };
    let group: String = description.group.chars().take(32).map(plain).collect();
    let rank = description.rank.map(|rank| format!("-{rank}")).unwrap_or_default();
    let source = format!("/proc/self/fd/{}", file.as_raw_fd());
    for life in 0u32.. {
        let stem = format!("{group}.{}{rank}.{}-{life}", description.role, std::process::id());
        let name = format!("{stem}{SUFFIX}");
        match rustix::fs::linkat(rustix::fs::CWD, &source, directory, &name, AtFlags::SYMLINK_FOLLOW) {
            Ok(()) => return Ok(stem),
            Err(rustix::io::Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
    }
    unreachable!("no process has four billion nodes")
}

/// What only the node's own thread knows.
#[derive(Clone, Copy, Debug, Default)]
#[allow(missing_docs)] // see `NodeCell`
pub(crate) struct AgentFigures {
    pub longest_cycle_ns: u64,
    pub longest_recent_cycle_ns: u64,
    pub rounds: u64,
    pub sleeps: u64,
    pub gated: u64,
    pub overruns: u64,
    pub control_full: u64,
    pub publications_dropped: u64,
    pub waited_ns: u64,
    pub events_dropped: u64,
    pub network_lost: bool,
    pub archive: ArchiveFigures,
}

/// Copies a node's figures to its counters file.
pub(crate) struct CountersWriter {
    writer: Writer,
    reader: Reader,
    due: Instant,
}

impl std::fmt::Debug for CountersWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CountersWriter").field("due", &self.due).finish_non_exhaustive()
    }
}

impl CountersWriter {
    /// Copies the figures if the last copy is a millisecond old; call it after each poll.
    #[inline]
    pub(crate) fn update<P: Port>(&mut self, engine: &Engine<P>, figures: &AgentFigures) {
        if engine.now() >= self.due {
            self.copy(engine, figures);
        }
    }

    /// Copies the figures now: before a sleep.
    pub(crate) fn copy<P: Port>(&mut self, engine: &Engine<P>, figures: &AgentFigures) {
        self.due = engine.now() + COPY_INTERVAL_NS;
        let process = engine.process();
        for (index, value) in process.counters().values().iter().enumerate() {
            self.writer.set(index, *value);
        }
        let narrow = process.paths_without_long(engine.now());
        let ip = process.own_address().ip_bits();
        let storage = engine.storage().unwrap_or_default();
        let set_aside = u64::from(storage.set_aside);
        let (open, limit) = process.window().map_or((0, 0), |(open, limit, _)| (open.0, limit.0));
        let value = |cell| match cell {
            NodeCell::UpdatedNs => engine.now().0.wrapping_add(engine.clock().wall_offset_ns()),
            NodeCell::UpdatedMonotonicNs => engine.now().0,
            NodeCell::IsFormed => u64::from(process.is_formed()),
            NodeCell::Epoch => process.view().epoch.0,
            NodeCell::Members => process.view().bits(),
            NodeCell::Suspected => process.suspects(),
            NodeCell::LacksMajority => u64::from(process.lacks_majority()),
            NodeCell::NetworkLost => u64::from(figures.network_lost),
            NodeCell::IpHigh => (ip >> 64) as u64,
            NodeCell::IpLow => ip as u64,
            NodeCell::NarrowFrom => narrow.from.0,
            NodeCell::NarrowTo => narrow.to.0,
            NodeCell::Phase => process.phase(),
            NodeCell::PushFalse => process.detector().figures(Why::Push).false_positives,
            NodeCell::PullFalse => process.detector().figures(Why::Pull).false_positives,
            NodeCell::PhiFalse => process.detector().figures(Why::Phi).false_positives,
            NodeCell::GroupFalse => process.detector().figures(Why::Group).false_positives,
            NodeCell::EvidenceFalse => process.detector().figures(Why::Evidence).false_positives,
            NodeCell::PushMissed => process.detector().figures(Why::Push).false_negatives,
            NodeCell::PullMissed => process.detector().figures(Why::Pull).false_negatives,
            NodeCell::PhiMissed => process.detector().figures(Why::Phi).false_negatives,
            NodeCell::GroupMissed => process.detector().figures(Why::Group).false_negatives,
            NodeCell::DeliveredOrder => process.delivered_order().0,
            NodeCell::WindowOpen => open,
            NodeCell::WindowLimit => limit,
            NodeCell::Backlog => process.backlog(),
            NodeCell::PortDatagrams => engine.port_datagrams(),
            NodeCell::LongestCycleNs => figures.longest_cycle_ns,
            NodeCell::RecentCycleNs => figures.longest_recent_cycle_ns,
            NodeCell::Rounds => figures.rounds,
            NodeCell::Sleeps => figures.sleeps,
            NodeCell::Gated => figures.gated,
            NodeCell::Overruns => figures.overruns,
            NodeCell::ControlFull => figures.control_full,
            NodeCell::PublicationsDropped => figures.publications_dropped,
            NodeCell::WaitedNs => figures.waited_ns,
            NodeCell::StorageWaitedNs => storage.waited_ns,
            NodeCell::StorageFull => u64::from(storage.is_full),
            NodeCell::StorageDamaged => set_aside,
            NodeCell::StorageRepaired => set_aside - u64::from(process.config().storage_damaged > 0),
            NodeCell::Archived => figures.archive.recorded,
            NodeCell::ArchiveLost => figures.archive.lost,
            NodeCell::ArchiveFailed => figures.archive.has_failed.into(),
            NodeCell::EventsDropped => figures.events_dropped,
        };
        for cell in NodeCell::ALL {
            self.writer.set(Counter::ALL.len() + *cell as usize, value(*cell));
        }
    }

    /// For other threads of this process.
    pub(crate) fn reader(&self) -> Reader {
        self.reader.clone()
    }
}

/// A counters file that was found.
pub struct Found {
    /// Its name without the ending.
    pub stem: String,
    /// The directory it is in.
    pub directory: PathBuf,
    /// The node that left it.
    pub description: Description,
    /// Its process.
    pub pid: u32,
    /// When it started, in nanoseconds since the UNIX epoch.
    pub start_time_ns: u64,
    reader: Reader,
}

impl Found {
    /// The address and port at which others reach the node now: its host may have given it another.
    pub fn address(&self) -> String {
        let get = |cell: NodeCell| self.values().find(|(label, _)| *label == cell.label()).map(|(_, value)| value);
        let started = self.description.address.parse::<SocketAddr>();
        match (started, get(NodeCell::IpHigh), get(NodeCell::IpLow)) {
            (Ok(started), Some(high), Some(low)) if high | low != 0 => {
                let ip = Ipv6Addr::from(u128::from(high) << 64 | u128::from(low)).to_canonical();
                SocketAddr::new(ip, started.port()).to_string()
            }
            _ => self.description.address.clone(), // of another version, or not copied yet
        }
    }

    /// Every cell's label and value.
    pub fn values(&self) -> impl Iterator<Item = (&str, u64)> {
        self.description.cells.iter().enumerate().map(|(index, (label, _))| (label.as_str(), self.reader.get(index)))
    }
}

/// The counters files of running nodes in a directory; stale ones are removed, foreign and damaged ones passed over.
///
/// ```
/// # use bourdon::*;
/// # fn show() -> Result<(), Box<dyn std::error::Error>> {
/// use bourdon::counters::{Directory, list};
///
/// for node in list(&Directory::open(None)?)? {
///     for (label, value) in node.values() {
///         println!("{} {label} {value}", node.stem);
///     }
/// }
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// If the directory can't be read.
pub fn list(directory: &Directory) -> io::Result<Vec<Found>> {
    let mut names = directory.names()?;
    names.retain(|name| name.ends_with(SUFFIX));
    names.sort();
    Ok(names.iter().filter_map(|name| look(directory, name)).collect())
}

fn remove_stale(directory: &Directory) {
    let names = directory.names().unwrap_or_default();
    names.iter().filter(|name| name.ends_with(SUFFIX)).for_each(|name| drop(look(directory, name)));
}

fn look(directory: &Directory, name: &str) -> Option<Found> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::openat(directory, name, flags, Mode::empty()).ok()?);
    let metadata = file.metadata().ok()?;
    if !metadata.is_file() || metadata.len() > FILE_MAX_BYTES {
        return None;
    }
    let stem = name.strip_suffix(SUFFIX)?.to_owned();
    if rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared).is_ok() {
        directory.remove(&format!("{stem}{}", crate::directory::SOCKET_SUFFIX));
        directory.remove(name);
        return None;
    }
    parse(file, stem, directory.path().to_owned())
}

fn parse(mut file: File, stem: String, directory: PathBuf) -> Option<Found> {
    let mut front = [0; HEADER_BYTES];
    file.read_exact(&mut front).ok()?;
    let header = Header::read_from_bytes(&front).ok()?;
    if header.magic != MAGIC || header.version != VERSION || u64::from(header.description_bytes) > FILE_MAX_BYTES {
        return None;
    }
    let mut text = vec![0; header.description_bytes as usize];
    file.read_exact(&mut text).ok()?;
    let description: Description = serde_json::from_slice(&text).ok()?;
    let count = header.cells_count as usize;
    if description.cells.len() != count {
        return None;
    }
    let reader = map_file_read_only(&file, header.cells_offset_bytes as usize, count).ok()?;
    let (pid, start_time_ns) = (header.pid, header.start_time_ns);
    Some(Found { stem, directory, description, pid, start_time_ns, reader })
}
