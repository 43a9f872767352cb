//! Where the group is: a configuration, or for an observer an address and an interface.

use crate::failure::Failure;
use bourdon::settings::{Flow, FlowSettings, Order, Reliability, Role, Transport};
use bourdon::{Discovery, Settings, discover};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long to look for a member; members send heartbeats at least every 100 ms.
const LOOK: Duration = Duration::from_secs(5);

/// The group or one of its channels, and the members' configuration.
#[derive(Debug, clap::Args)]
pub(crate) struct Configured {
    /// The group's name, or GROUP/CHANNEL
    pub(crate) group: String,
    /// The group's configuration [default: bourdon.toml]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// The same, or the group's address.
#[derive(Debug, clap::Args)]
pub(crate) struct Place {
    #[command(flatten)]
    pub(crate) at: Configured,
    /// The group's or channel's multicast address and port, instead of a configuration
    #[arg(long, value_name = "A:P", conflicts_with_all = ["config", "peers"])]
    group_address: Option<SocketAddr>,
    /// The interface its traffic uses [default: lo]
    #[arg(long, value_name = "NAME", requires = "group_address")]
    interface: Option<String>,
    /// The members' TCP addresses where the group has no multicast, with commas
    #[arg(long, value_name = "A:P,…", value_delimiter = ',', conflicts_with = "config")]
    peers: Vec<SocketAddr>,
}

impl Configured {
    fn settings(&self) -> Result<Settings, Failure> {
        let path = self.config.as_deref().unwrap_or(Path::new("bourdon.toml"));
        let settings = Settings::load(path).map_err(Failure::unusable)?;
        let name = &settings.group.name;
        if *name == self.group {
            return Ok(settings);
        }
        match self.group.strip_prefix(name.as_str()).and_then(|rest| rest.strip_prefix('/')) {
            Some(channel) => settings.for_channel(channel).map_err(Failure::unusable),
            None => Err(Failure::unusable(format!(
                "{} is about group {name:?}, not {:?}: name another file with --config",
                path.display(),
                self.group
            ))),
        }
    }

    /// The settings of the member that the configuration describes.
    pub(crate) fn member(&self) -> Result<Settings, Failure> {
        let mut settings = self.settings()?;
        // A session that is lost must not publish what waits in it: the next one learns without that.
        settings.threads.drop_timeout_ns = 0;
        if settings.process.role != Role::Member {
            return Err(Failure::unusable(
                "a bridge into a group is one of its members: set process.role = \"member\", and a rank of its own",
            ));
        }
        check(&settings)?;
        Ok(settings)
    }
}

impl Place {
    /// The settings of a free observer: neither a server nor a reader that has an archive holds the publishers back.
    pub(crate) fn observer(&self) -> Result<Settings, Failure> {
        let mut settings = match self.group_address {
            None if self.peers.is_empty() => self.at.settings()?,
            address => {
                let mut settings = Settings::default();
                settings.group.name.clone_from(&self.at.group);
                settings.process.role = Role::Observer;
                match address {
                    Some(address) => settings.group.address = address,
                    None => {
                        settings.network.transport = Transport::Tcp;
                        settings.network.peers.clone_from(&self.peers);
                    }
                }
                if let Some(interface) = &self.interface {
                    settings.network.interface.clone_from(interface);
                }
                learn(&mut settings)?;
                settings
            }
        };
        check(&settings)?;
        settings.process.role = Role::Observer;
        settings.flow.mode = Flow::Free;
        settings.flow.gating_timeout_ns = FlowSettings::default().gating_timeout_ns;
        settings.flow.rate_floor_bytes_per_s = None;
        Ok(settings)
    }
}

/// Learns from the members what only their configuration holds.
fn learn(settings: &mut Settings) -> Result<(), Failure> {
    match discover(settings, LOOK).map_err(Failure::unusable)? {
        Discovery::Found => Ok(()),
        Discovery::Silence => Err(Failure::unusable(format!(
            "no member of group {:?} was heard within {} s: check name, address and interface, and that a member runs",
            settings.group.name,
            LOOK.as_secs()
        ))),
        _ => Err(Failure::unusable(
            "the group's configuration is of another release, or does not fit the defaults: give it with --config",
        )),
    }
}

/// A bridge carries each message once, at its place: there must be one, and no message may be lost.
fn check(settings: &Settings) -> Result<(), Failure> {
    let (order, reliability) = (settings.group.order, settings.group.reliability);
    if order != Order::Total {
        let order = order.name();
        return Err(Failure::unusable(format!("a bridge needs group.order = \"total\": the group has {order}")));
    }
    if reliability < Reliability::Reliable {
        let reliability = reliability.name();
        return Err(Failure::unusable(format!(
            "a bridge needs group.reliability = \"reliable\" or above: the group has {reliability}, which loses some"
        )));
    }
    Ok(())
}
