//! What a node is configured with: in Rust by filling in this struct, on disk as `bourdon.toml`.
//!
//! A misspelt key that is silently ignored is found in production; so unknown keys are refused, with their place in the
//! file, and everything that can be checked without the network is checked before any socket is opened.

mod channels;
mod detector;
mod faults;
mod flow;
mod group;
mod network;
mod process;
mod protocol;
mod ranges;
mod sizes;
mod threads;
mod timing;

pub use bourdon_protocol::{ElectionKind, Flow, Limits, MutexKind, Order, Quorum, Rate, Reliability, Start};
pub use channels::{ChannelDetector, ChannelSettings, full_name};
pub(crate) use channels::{group_of, in_channel};
pub use detector::{DetectorSettings, Profile};
pub use faults::FaultSettings;
pub use flow::FlowSettings;
pub use group::GroupSettings;
pub use network::{NetworkSettings, Transport};
pub use process::{ProcessSettings, Role};
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
pub use threads::{IdleStrategy, ThreadSettings};
pub use timing::TimingSettings;

/// A node's whole configuration. `docs/configuration.md` lists the keys.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct Settings {
    /// What must be the same at every process of the group.
    pub group: GroupSettings,
    /// Its channels besides the group's own stream.
    #[serde(rename = "channel")]
    pub channels: Vec<ChannelSettings>,
    /// What this process is.
    pub process: ProcessSettings,
    /// How it reaches the others.
    pub network: NetworkSettings,
    /// The bounds.
    pub limits: Limits,
    /// How long things take.
    pub timing: TimingSettings,
    /// Whether publishers wait for observers.
    pub flow: FlowSettings,
    /// How failures are detected.
    pub detector: DetectorSettings,
    /// Where it runs.
    pub threads: ThreadSettings,
    /// Faults to inject on purpose.
    pub faults: FaultSettings,
}

/// Why a configuration can't be used. It comes before any socket is opened; the text gives the value and what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SettingsError {
    /// [`Settings::load`] can't read the file: name another.
    #[error("can't read {}: {source}; name the file with --config", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The file is no TOML, has an unknown key, or a value of the wrong type: mend the line that the text gives.
    #[error("{} is not a usable configuration: {source}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Where, and what is wrong.
        source: Box<toml::de::Error>,
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
    /// `group.name` is empty.
    #[error("the group's name (group.name) is empty: give it one, the same at every process of the group")]
    NoName,
    /// An address has port 0: no other process could send to it.
    #[error("{0} names no port: write it as 239.255.74.1:7401, with a port from 1 to 65535")]
    NoPort(SocketAddr),
    /// `network.peers` or `network.listen` does not suit the transport or the group: the text names the key.
    #[error("network.{what}")]
    Mesh {
        /// The key, what is wrong, and what to do.
        what: String,
    },
    /// One of `faults` is no percentage.
    #[error("{what} is {value} %: a percentage is between 0 and 100")]
    Percent {
        /// Which.
        what: &'static str,
        /// Its value.
        value: f64,
    },
    /// A time or threshold of the detectors is out of range.
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
    /// A ring is too small for the longest message, or larger than any ring.
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
    /// A number is out of range.
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
    /// A size is beyond what Bourdon can use: lower it.
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
    /// Values that are right each for itself contradict each other: the text names them.
    #[error(transparent)]
    Protocol(#[from] bourdon_protocol::ConfigError),
}

impl Settings {
    /// Reads a configuration file.
    ///
    /// # Errors
    /// If it can't be read, has unknown keys, or contradicts itself; the text gives the place.
    pub fn load(path: &Path) -> Result<Self, SettingsError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| SettingsError::Unreadable { path: path.to_owned(), source })?;
        let settings: Self = toml::from_str(&text)
            .map_err(|source| SettingsError::Malformed { path: path.to_owned(), source: Box::new(source) })?;
        settings.check()?;
        Ok(settings)
    }

    /// Checks what can be checked without a network.
    ///
    /// # Errors
    /// What is wrong and what to do about it.
    pub fn check(&self) -> Result<(), SettingsError> {
        self.group.check()?;
        self.faults.check()?;
        self.check_mesh()?;
        self.check_detector()?;
        self.check_sizes()?;
        self.check_ranges()?;
        self.protocol(usize::MAX).check()?;
        channels::check(self)
    }
}

fn known(channels: &[String]) -> String {
    match channels {
        [] => "the configuration names none (in a [[channel]] section)".to_owned(),
        names => format!("the configuration names {}", names.join(", ")),
    }
}
