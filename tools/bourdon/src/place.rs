//! Where `publish`, `subscribe` and `send` find a group: by a configuration file, or an address and an interface.
//!
//! This module also reads and writes messages in a stream of bytes: one message a line, or each behind its length. A
//! line or a length beyond the group's limit is refused before it is read into memory.

use crate::exit::Failure;
use bourdon::Settings;
use bourdon::error::SettingsError;
use bourdon::settings::{ArchiveSettings, IdleStrategy, Role, Transport};
use std::fmt::Display;
use std::io::{BufRead, Read, Write};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

/// The group or one of its channels, and where it is.
#[derive(Debug, clap::Args)]
pub(crate) struct Where {
    /// The group's name, or GROUP/CHANNEL
    pub(crate) group: String,
    /// The group's configuration [default: bourdon.toml]
    #[arg(long, value_name = "FILE", conflicts_with_all = ["group_address", "interface", "peers"])]
    config: Option<PathBuf>,
    /// The group's or channel's multicast address and port, instead of a configuration
    #[arg(long, value_name = "A:P")]
    group_address: Option<SocketAddr>,
    /// The interface its traffic uses [default: lo]
    #[arg(long, value_name = "NAME", requires = "group_address")]
    interface: Option<String>,
    /// Receive only datagrams that this address sends to the group; may be given several times
    #[arg(long, value_name = "A", conflicts_with = "peers")]
    source: Vec<IpAddr>,
    /// The members' TCP addresses where the group has no multicast, with commas: all to subscribe, any to publish or
    /// send
    #[arg(long, value_name = "A:P,…", value_delimiter = ',', conflicts_with_all = ["group_address", "interface"])]
    peers: Vec<SocketAddr>,
}

/// The same, and the format of messages in a stream of bytes.
#[derive(Debug, clap::Args)]
pub(crate) struct Place {
    #[command(flatten)]
    pub(crate) at: Where,
    /// Messages are framed: a length (u32, little-endian), then that many bytes
    #[arg(long)]
    pub(crate) frames: bool,
}

impl Where {
    /// The failure to open the group, with the names that the user gave the place by.
    pub(crate) fn unusable(&self, why: impl Display) -> Failure {
        let by_options = self.group_address.is_some() || !self.peers.is_empty();
        Failure::unusable(if by_options { in_options(&why) } else { why.to_string() })
    }

    /// The settings, and whether they come from the members' configuration rather than from defaults for the address.
    pub(crate) fn settings(&self) -> Result<(Settings, bool), Failure> {
        let mut settings = Settings::default();
        settings.group.name.clone_from(&self.group);
        if !self.peers.is_empty() {
            settings.network.transport = Transport::Tcp;
            settings.network.peers.clone_from(&self.peers);
            settings.process.role = Role::Observer; // it lists as many as it likes
            return Ok((settings, false));
        }
        let Some(address) = self.group_address else {
            let path = self.config.as_deref().unwrap_or(Path::new("bourdon.toml"));
            let mut settings = load(path)?;
            settings.archive = ArchiveSettings::default(); // the node whose file it is records
            if !self.source.is_empty() {
                settings.network.sources.clone_from(&self.source);
            }
            let name = &settings.group.name;
            if *name == self.group {
                return Ok((settings, true));
            }
            let channel = self.group.strip_prefix(name.as_str()).and_then(|rest| rest.strip_prefix('/'));
            let Some(channel) = channel else {
                let path = path.display();
                return Err(Failure::unusable(format!(
                    "{path} is about group {name:?}, not {:?}: name another file with --config, or an address with \
                         --group-address",
                    self.group
                )));
            };
            return Ok((settings.for_channel(channel).map_err(Failure::unusable)?, true));
        };
        settings.group.address = address;
        if let Some(interface) = &self.interface {
            settings.network.interface.clone_from(interface);
        }
        settings.network.sources.clone_from(&self.source);
        Ok((settings, false))
    }
}

/// These settings for a client: it shares the host with the member whose configuration it may have, and leaves it its
/// cores.
pub(crate) fn of_client(mut settings: Settings) -> Settings {
    settings.process.role = Role::Client;
    let threads = &mut settings.threads;
    (threads.core, threads.data_agents, threads.idle) = (None, 1, IdleStrategy::Park);
    settings
}

/// An error of a command that has options instead of a configuration: the library names keys, the user has options.
pub(crate) fn in_options(why: &impl Display) -> String {
    let options = [
        ("network.interface", "--interface"),
        ("group.address", "--group-address"),
        ("network.sources", "--source"),
        ("network.peers", "--peers"),
    ];
    options.iter().fold(why.to_string(), |why, (key, option)| why.replace(key, option))
}

/// Reads a configuration; the user must fix any error in it.
pub(crate) fn load(path: &Path) -> Result<Settings, Failure> {
    Settings::load(path).map_err(|error| match error {
        SettingsError::Unreadable { .. } => Failure::unusable(format!("{error}; name the file with --config")),
        error => Failure::unusable(error),
    })
}

/// The error that no member of a group was heard, with the addresses that were tried.
pub(crate) fn unheard(settings: &Settings, seconds: u64) -> Failure {
    let (name, address, interface) = (&settings.group.name, settings.group.address, &settings.network.interface);
    if settings.network.transport == Transport::Tcp {
        let peers: Vec<String> = settings.network.peers.iter().map(SocketAddr::to_string).collect();
        let peers = peers.join(", ");
        return Failure::unusable(format!(
            "no member of group {name:?} answered over tcp at {peers} within {seconds} s: check name and addresses, \
                 and that a member runs"
        ));
    }
    if settings.network.transport == Transport::Shm {
        return Failure::unusable(format!(
            "no member of group {name:?} was heard on {address} by shared memory within {seconds} s: check name and \
                 address, and that a member runs on this host, as this user"
        ));
    }
    Failure::unusable(format!(
        "no member of group {name:?} was heard on {address} over {interface} within {seconds} s: check name, address \
             and interface, and that a member runs"
    ))
}

/// Reads messages from a stream.
pub(crate) struct Messages<R> {
    source: R,
    frames: bool,
    max_bytes: usize,
    count: u64,
}

impl<R: BufRead> Messages<R> {
    pub(crate) fn new(source: R, frames: bool, max_bytes: usize) -> Self {
        Self { source, frames, max_bytes, count: 0 }
    }

    /// The next message, or none at the end.
    pub(crate) fn next(&mut self) -> Result<Option<Vec<u8>>, Failure> {
        let message = if self.frames { self.frame() } else { self.line() }?;
        self.count += 1;
        Ok(message)
    }

    fn too_long(&self, what: &str) -> Failure {
        let (number, max_bytes) = (self.count + 1, self.max_bytes);
        Failure::unusable(format!(
            "{what} {number} is longer than {max_bytes} bytes, the group's limits.max_message_bytes: split it"
        ))
    }

    fn line(&mut self) -> Result<Option<Vec<u8>>, Failure> {
        let mut line = Vec::new();
        let limit = self.max_bytes as u64 + 1;
        let read = self.source.by_ref().take(limit).read_until(b'\n', &mut line);
        if read.map_err(|error| Failure::unusable(format!("reading stdin: {error}")))? == 0 {
            return Ok(None);
        }
        if line.last() == Some(&b'\n') {
            line.pop();
        }
        if line.len() > self.max_bytes { Err(self.too_long("line")) } else { Ok(Some(line)) }
    }

    fn frame(&mut self) -> Result<Option<Vec<u8>>, Failure> {
        let cut = |error| Failure::unusable(format!("stdin ends within a frame: {error}"));
        let at_end = self.source.fill_buf().map_err(cut)?.is_empty();
        if at_end {
            return Ok(None);
        }
        let mut length = [0; 4];
        self.source.read_exact(&mut length).map_err(cut)?;
        let length = u32::from_le_bytes(length) as usize;
        if length > self.max_bytes {
            return Err(self.too_long("frame"));
        }
        let mut frame = vec![0; length];
        self.source.read_exact(&mut frame).map_err(cut)?;
        Ok(Some(frame))
    }
}

/// Writes a message to a stream.
pub(crate) fn write_message(out: &mut impl Write, frames: bool, payload: &[u8]) -> std::io::Result<()> {
    if frames {
        out.write_all(&(payload.len() as u32).to_le_bytes())?;
        return out.write_all(payload);
    }
    out.write_all(payload)?;
    out.write_all(b"\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(bytes: &[u8], frames: bool, max_bytes: usize) -> Result<Vec<Vec<u8>>, Failure> {
        let mut messages = Messages::new(bytes, frames, max_bytes);
        std::iter::from_fn(|| messages.next().transpose()).collect()
    }

    #[test]
    fn messages_come_back_as_written() {
        let messages = [&b"one"[..], b"", b"three"];
        for frames in [false, true] {
            let mut bytes = Vec::new();
            for message in messages {
                write_message(&mut bytes, frames, message).expect("memory takes it");
            }
            assert_eq!(all(&bytes, frames, 5).expect("it is whole"), messages);
        }
        assert_eq!(all(b"no newline at the end", false, 100).expect("it counts"), [b"no newline at the end"]);
    }

    #[test]
    fn what_is_too_long_or_cut_is_refused() {
        assert!(matches!(all(b"ok\ntoo long", false, 7), Err(Failure::Unusable(why)) if why.contains("line 2")));
        assert!(matches!(all(&[8, 0, 0, 0], true, 7), Err(Failure::Unusable(why)) if why.contains("frame 1")));
        assert!(matches!(all(&[8, 0, 0, 0, 1], true, 8), Err(Failure::Unusable(why)) if why.contains("ends within")));
        assert!(matches!(all(&[8, 0], true, 8), Err(Failure::Unusable(_))));
        assert!(all(b"exactly\n", false, 7).is_ok());
    }
}
