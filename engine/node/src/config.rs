//! What a node is configured with: by code, from a text, or from a file, in one vocabulary.
//!
//! A misspelt key that is silently ignored is found in production; so unknown keys are refused, with their place in the
//! file, and everything that can be checked without the network is checked before any socket is opened.

mod archive;
mod channels;
mod detector;
mod effects;
mod faults;
mod flow;
mod group;
mod limits;
mod memory;
mod network;
mod process;
mod protocol;
mod ranges;
mod storage;
mod text;
mod threads;
mod timing;

pub use archive::ArchiveSettings;
pub use bourdon_protocol::{ElectionKind, Flow, MutexKind, Order, Quorum, Reliability, Start};
pub use channels::{ChannelDetector, ChannelSettings, full_name};
pub(crate) use channels::{group_of, in_channel};
pub use detector::{DetectorSettings, Profile};
pub use faults::FaultSettings;
pub use flow::FlowSettings;
pub use group::GroupSettings;
pub use limits::LimitSettings;
pub use network::{NetworkSettings, Transport};
pub use process::{ProcessSettings, Role};
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
pub use storage::StorageSettings;
pub use threads::{IdleStrategy, ThreadSettings};
pub use timing::TimingSettings;

/// What a node is configured with, a section for each field.
///
/// The same settings are made by code, from a text, or from a file (TOML), with the same names:
///
/// ```
/// use bourdon::Settings;
/// use bourdon::settings::{Order, Reliability};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let mut settings = Settings::default();
/// settings.group.members = 3;
/// settings.group.order = Order::Fifo;
/// settings.group.reliability = Reliability::Uniform;
/// settings.process.rank = 1;
/// settings.check()?;
///
/// let text = r#"
///     [group]
///     members = 3
///     order = "fifo"
///     reliability = "uniform"
///     [process]
///     rank = 1
/// "#;
/// assert_eq!(settings, text.parse()?);
///
/// let file = tempfile::NamedTempFile::new()?;
/// std::fs::write(&file, text)?;
/// assert_eq!(settings, Settings::load(file.path())?);
/// # Ok(())
/// # }
/// ```
///
/// Each section may be left out of a text, and each key of a section but a channel's name and address: it has its
/// default then. The text of each section's defaults stands at its type, [`GroupSettings`] for one, and `serde` writes
/// settings as text again. Names end with their unit; a time in nanoseconds is at most an hour.
///
/// What can be checked without the network is checked before a node opens a socket ([`check`](Self::check)). A
/// [`SettingsError`] names the key, its value and its range. What must be the same at all processes is marked so: a
/// process that hears another with a different value does not count it towards forming the group, and reports it
/// (`configuration_differs` in the admin view).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct Settings {
    /// `[group]`: the group that all its processes agree on.
    pub group: GroupSettings,
    /// `[[channel]]`, one for each: the group's channels besides its own stream. Default: none.
    #[serde(rename = "channel")]
    pub channels: Vec<ChannelSettings>,
    /// `[process]`: what this process is.
    pub process: ProcessSettings,
    /// `[storage]`: where a durable member stores what it reports to others.
    pub storage: StorageSettings,
    /// `[archive]`: where this process records what it delivers.
    pub archive: ArchiveSettings,
    /// `[network]`: how this process reaches the others.
    pub network: NetworkSettings,
    /// `[limits]`: sizes and rates.
    pub limits: LimitSettings,
    /// `[timing]`: how long things take.
    pub timing: TimingSettings,
    /// `[flow]`: whether publishers wait for observers, and how fast they send.
    pub flow: FlowSettings,
    /// `[detector]`: how failures are noticed.
    pub detector: DetectorSettings,
    /// `[threads]`: where a node runs and how it idles.
    pub threads: ThreadSettings,
    /// `[faults]`: faults injected on purpose.
    pub faults: FaultSettings,
}

/// Why a configuration can't be used. It comes before any socket is opened; the text gives the value and what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SettingsError {
    /// [`Settings::load`] can't read the file: name another.
    #[error("can't read {}: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The file sets nothing: it is empty, was truncated, or has only comments left.
    #[error(
        "{} sets nothing{}: name the group in it (group.name), or restore the file", path.display(), emptiness(*.bytes)
    )]
    Empty {
        /// The file.
        path: PathBuf,
        /// Its length.
        bytes: usize,
    },
    /// The text ends before a section's name, a key or a value does: restore the file.
    #[error("{} ends in the middle of line {line}, {text:?}: it is truncated; restore it: {source}", place(.path))]
    Truncated {
        /// The file, if the text stood in one.
        path: Option<PathBuf>,
        /// The last line, from 1.
        line: usize,
        /// What is there of it.
        text: String,
        /// What is missing.
        source: Box<toml::de::Error>,
    },
    /// The file is no text in UTF-8: save it as that.
    #[error("{} is no text in UTF-8: {what}", path.display())]
    NoText {
        /// The file.
        path: PathBuf,
        /// What it is, and what to do.
        what: String,
    },
    /// The text is no TOML, or has a value of the wrong type: mend the line that the error gives.
    #[error("{} is not a usable configuration: {source}", place(.path))]
    Malformed {
        /// The file, if the text stood in one.
        path: Option<PathBuf>,
        /// Where, and what is wrong.
        source: Box<toml::de::Error>,
    },
    /// The text has a key or a section that Bourdon does not know: `bourdon.toml, line 2: section [group] has no key
    /// memebrs: did you mean members?`
    #[error("{}, line {line}: {what}", place(.path))]
    UnknownKey {
        /// The file, if the text stood in one.
        path: Option<PathBuf>,
        /// The key's line, from 1.
        line: usize,
        /// The section, the key, and what to do.
        what: String,
    },
    /// Two of `group.topics` can't be distinguished where messages carry no names: rename one.
    #[error("topics {first:?} and {second:?} have the same 16-bit id: rename one of them")]
    TopicsCollide {
        /// One of them.
        first: String,
        /// The other.
        second: String,
    },
    /// One of `group.topics` is no topic's name.
    #[error("group.topics: {name:?}: {source}")]
    Topic {
        /// The text.
        name: String,
        /// What is wrong with it.
        source: bourdon_wire::NameError,
    },
    /// A channel's section contradicts itself or its group.
    #[error("channel {channel:?}: {what}")]
    Channel {
        /// Its name.
        channel: String,
        /// What is wrong, and what to do.
        what: String,
    },
    /// The configuration has no channel of this name: the text lists those that it has.
    #[error("there is no channel {channel:?} of group {group:?}: {}", known(.channels))]
    NoChannel {
        /// The group's name.
        group: String,
        /// The name asked for.
        channel: String,
        /// Those that there are.
        channels: Vec<String>,
    },
    /// `group.name` has a character that a reader can't see: another group's name looks the same.
    #[error("group.name: {name:?}: {source}")]
    Name {
        /// The name.
        name: String,
        /// Which character, and where.
        source: bourdon_wire::NameError,
    },
    /// A value has no effect beside another: the text names both keys.
    #[error("{key} is {value}, {why}")]
    NoEffect {
        /// The key.
        key: &'static str,
        /// Its value.
        value: String,
        /// Beside what it has no effect, and what to do.
        why: &'static str,
    },
    /// `group.name` is empty.
    #[error("the group's name (group.name) is empty: give it one, the same at every process of the group")]
    NoName,
    /// An address has port 0: no other process could send to it.
    #[error("{0} names no port: write it as 239.255.74.1:7401, with a port from 1 to 65535")]
    NoPort(SocketAddr),
    /// `network.interface` is no interface's name: `network.interface is "10.0.0.1", an address: give the name of the
    /// interface that has it`.
    #[error("network.interface is {name:?}, {why}")]
    Interface {
        /// What it is.
        name: String,
        /// What is wrong, and what to do.
        why: &'static str,
    },
    /// `network.peers` or `network.listen` does not suit the transport or the group: the text names the key.
    #[error("network.{what}")]
    Mesh {
        /// The key, what is wrong, and what to do.
        what: String,
    },
    /// One of `faults` is no percentage: `faults.drop_percent is 120 %; it must be 0 to 100`.
    #[error("{what} is {value} %; it must be 0 to 100")]
    Percent {
        /// Which.
        what: &'static str,
        /// Its value.
        value: f64,
    },
    /// A time or threshold of the detectors is out of range: `detector.phi_threshold is 400: it must be more than 0 and
    /// less than a day (or, for phi_threshold, 300)`.
    #[error("detector.{what} is {value}: it must be more than 0 and less than a day (or, for phi_threshold, 300)")]
    Detector {
        /// The key.
        what: &'static str,
        /// Its value, in nanoseconds if it is a time.
        value: f64,
    },
    /// All detectors are off: turn one on.
    #[error("detector: at least one of push, pull, phi and evidence must be on, or no failure is ever noticed")]
    NoDetector,
    /// A ring is too small for the longest message, or larger than any ring: `threads.publication_ring_bytes is 4096
    /// bytes: with this max_message_bytes it must be 4195328 to 1073741824`.
    #[error("threads.{what} is {bytes} bytes: with this max_message_bytes it must be {least} to {most}")]
    Ring {
        /// The key.
        what: &'static str,
        /// Its value.
        bytes: usize,
        /// The least.
        least: usize,
        /// The most.
        most: usize,
    },
    /// A number is out of range: `group.members is 65; it must be 1 to 64`.
    #[error("{what} is {value}; it must be {least} to {most}")]
    Range {
        /// The key.
        what: &'static str,
        /// Its value.
        value: u64,
        /// The least.
        least: u64,
        /// The most.
        most: u64,
    },
    /// A size is beyond what Bourdon can use: `limits.log_bytes is 99999999999 bytes; it must be at most 17179869184:
    /// lower it`.
    #[error("{what} is {bytes} bytes; it must be at most {most}: lower it")]
    TooLarge {
        /// The key.
        what: &'static str,
        /// Its value.
        bytes: usize,
        /// The most.
        most: usize,
    },
    /// The kernel grants less memory than the logs and rings need: lower the size, or raise the limit.
    #[error(
        "{what} is {bytes} bytes, and this process needs {count} of that size; the kernel grants it less memory: lower \
         it, or raise the limit (ulimit -v, vm.overcommit_memory)"
    )]
    NoMemory {
        /// The key.
        what: &'static str,
        /// Its value.
        bytes: usize,
        /// How many of that size this process needs.
        count: usize,
    },
    /// A member at the level `durable` has no place to store what it reports: set `storage.directory`.
    #[error("group.reliability is \"durable\" and storage.directory is not set: set it, or take \"uniform\"")]
    NoStorage,
    /// A channel can't be `durable`: only the group can.
    #[error("the reliability of channel {name} is \"durable\", which only a group's can be: take \"uniform\"")]
    ChannelNotStored {
        /// The channel.
        name: String,
    },
    /// Values that are right each for itself contradict each other: the text names them.
    #[error(transparent)]
    Protocol(#[from] bourdon_protocol::ConfigError),
}

impl Settings {
    /// Reads a configuration file: TOML, with the sections and keys of this type.
    ///
    /// ```no_run
    /// let settings = bourdon::Settings::load("bourdon.toml".as_ref())?;
    /// # Ok::<(), bourdon::error::SettingsError>(())
    /// ```
    ///
    /// # Errors
    /// If the file can't be read, has unknown keys, or contradicts itself; the text gives the place.
    pub fn load(path: &Path) -> Result<Self, SettingsError> {
        text::load(path)
    }

    /// Checks what can be checked without a network; [`load`](Self::load), parsing and every call that opens a node do
    /// so.
    ///
    /// # Errors
    /// What is wrong and what to do about it.
    pub fn check(&self) -> Result<(), SettingsError> {
        self.group.check()?;
        self.faults.check()?;
        self.process.check(self.group.members)?;
        self.check_mesh()?;
        self.detector.check()?;
        self.limits.check()?;
        self.network.check()?;
        self.threads.check(self.limits.max_message_bytes.max(self.limits.mtu_bytes))?;
        self.timing.check()?;
        self.flow.check()?;
        self.protocol(usize::MAX).check()?;
        self.check_effects()?;
        StorageSettings::check(self)?;
        ArchiveSettings::check(self)?;
        channels::check(self)
    }
}

impl FromStr for Settings {
    type Err = SettingsError;

    /// Reads TOML, as [`load`](Self::load) does; the errors name "the text" instead of a file.
    fn from_str(text: &str) -> Result<Self, SettingsError> {
        text::parse(text, None)
    }
}

/// Where a text stood.
fn place(path: &Option<PathBuf>) -> String {
    path.as_ref().map_or_else(|| "the text".to_owned(), |path| path.display().to_string())
}

/// What a file without settings has instead.
fn emptiness(bytes: usize) -> &'static str {
    if bytes == 0 { " (0 bytes)" } else { " (only blanks and comments)" }
}

fn known(channels: &[String]) -> String {
    match channels {
        [] => "the configuration names none (in a [[channel]] section)".to_owned(),
        names => format!("the configuration names {}", names.join(", ")),
    }
}
