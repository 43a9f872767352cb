//! The settings of channels: each is a group of its own, made from the group's settings and what it changes.

use super::{
    ElectionKind, Flow, FlowSettings, MutexKind, Order, Reliability, Role, Settings, SettingsError, Start, Transport,
};
use bourdon_protocol::control::detector::Judgement;
use bourdon_wire::check_name;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;

/// A channel: a stream of its own, with its own view, address and guarantee; there may be none, or several.
///
/// ```toml
/// [[channel]]
/// name = "trades" # required
/// address = "239.255.74.2:7401" # required
/// # order = "fifo" # default: the group's
/// # reliability = "uniform" # default: the group's
/// # mutex = "central" # default: the group's
/// # election = "ring" # default: the group's
/// # flow = "gating" # default: flow.mode
/// # members = [0] # default: all
/// detector = "own"
/// # peers = ["10.0.0.1:7403"] # default: none
/// # listen = "10.0.0.1:7403" # default: this member's own entry in peers
/// ```
///
/// What contradicts itself, another channel or the group is refused ([`Channel`](super::SettingsError::Channel)).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct ChannelSettings {
    /// The channel's name; on the network and in tools it is `group/name`.
    ///
    /// Required. It is made like a topic's name, without a slash, and no other channel has it. The same at all
    /// processes.
    pub name: String,
    /// The channel's multicast address and port.
    ///
    /// Required. It differs from the group's and from each other channel's. The same at all processes.
    pub address: SocketAddr,
    /// The order of delivery.
    ///
    /// Default: [`group.order`](super::GroupSettings::order). The same at all processes.
    pub order: Option<Order>,
    /// When a message is delivered, and what may be lost.
    ///
    /// Default: [`group.reliability`](super::GroupSettings::reliability). The same at all processes.
    pub reliability: Option<Reliability>,
    /// Which algorithm grants the channel's locks.
    ///
    /// Default: [`group.mutex`](super::GroupSettings::mutex). The same at all processes.
    pub mutex: Option<MutexKind>,
    /// Which algorithm elects the channel's leaders.
    ///
    /// Default: [`group.election`](super::GroupSettings::election). The same at all processes.
    pub election: Option<ElectionKind>,
    /// As [`flow.mode`](super::FlowSettings::mode), for the channel.
    ///
    /// Default: `flow.mode`. Each process may have its own.
    pub flow: Option<Flow>,
    /// The ranks of the group's members that are the channel's members. Their places in this list are their ranks in
    /// the channel. A process that is not listed observes the channel.
    ///
    /// Default: all members. Each rank is from 0 to `group.members` − 1 and stands once; an empty list is refused. The
    /// same at all processes.
    pub members: Option<Vec<u16>>,
    /// Which detectors watch the channel's members.
    ///
    /// Default [`ChannelDetector::Own`]. The same at all processes.
    #[serde(default)]
    pub detector: ChannelDetector,
    /// As [`network.peers`](super::NetworkSettings::peers), for the channel: its members' addresses, by their ranks in
    /// the channel. A channel has connections of its own.
    ///
    /// Default: none, which is refused over `tcp`. No address is the group's or another channel's. The same at all
    /// processes.
    pub peers: Option<Vec<SocketAddr>>,
    /// As [`network.listen`](super::NetworkSettings::listen), for the channel.
    ///
    /// Default: this member's own entry in `peers`. Each process has its own.
    pub listen: Option<SocketAddr>,
}

/// Which detectors watch the members of a channel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum ChannelDetector {
    /// `own`, the default: the channel's own, with the times of [`DetectorSettings`](super::DetectorSettings).
    #[default]
    Own,
    /// `group`: the group's. The channel has no links, and its own detectors suspect after a second, which notices what
    /// the group's can't.
    Group,
}

impl Settings {
    /// The settings of one channel, for a [`Node`](crate::Node) or [`InlineNode`](crate::InlineNode) of it: those of a
    /// group called `group/channel`.
    ///
    /// # Errors
    /// If there is no such channel.
    pub fn for_channel(&self, name: &str) -> Result<Self, SettingsError> {
        let Some(channel) = self.channels.iter().find(|channel| channel.name == name) else {
            let channels = self.channels.iter().map(|channel| channel.name.clone()).collect();
            let (group, channel) = (self.group.name.clone(), name.to_owned());
            return Err(SettingsError::NoChannel { group, channel, channels });
        };
        let mut settings = Self { channels: Vec::new(), ..self.clone() };
        settings.archive.directory = self.archive.directory.as_ref().map(|directory| directory.join(name));
        let group = &mut settings.group;
        group.name = full_name(&self.group.name, name);
        group.address = channel.address;
        group.order = channel.order.unwrap_or(group.order);
        group.reliability = channel.reliability.unwrap_or(group.reliability);
        // The group's algorithm is for its own order: a channel of another order has the default.
        let is_inherited = group.mutex != Some(MutexKind::Replicated) || group.has_total_order();
        group.mutex = channel.mutex.or(group.mutex.filter(|_| is_inherited));
        group.election = channel.election.unwrap_or(group.election);
        settings.flow.mode = channel.flow.unwrap_or(settings.flow.mode);
        if group.reliability != Reliability::BestEffort {
            group.deadline_ns = 0; // the group's own stream may have one all the same
        }
        if settings.flow.mode == Flow::Free {
            // Of the channels that wait for observers, or of the group's own stream.
            settings.flow.gating_timeout_ns = FlowSettings::default().gating_timeout_ns;
            settings.flow.rate_floor_bytes_per_s = None;
        }
        settings.network.peers = channel.peers.clone().unwrap_or_default();
        settings.network.listen = channel.listen;
        if channel.detector == ChannelDetector::Group {
            settings.network.links = false;
            let members = channel.members.clone();
            settings.detector.leans = Some(members.unwrap_or_else(|| (0..self.group.members).collect()));
        }
        if let Some(members) = &channel.members {
            let place = |rank: u16| members.iter().position(|member| *member == rank).map(|place| place as u16);
            group.members = members.len() as u16;
            group.sequencer = place(group.sequencer).unwrap_or(0);
            match place(settings.process.rank) {
                Some(rank) => settings.process.rank = rank,
                None if settings.process.role == Role::Client => {}
                None => (settings.process.role, settings.process.rank) = (Role::Observer, 0),
            }
        }
        if settings.process.role == Role::Member {
            settings.process.start = Start::Live; // what is set is for the channels that it observes
        }
        Ok(settings)
    }

    /// Whether a process with these settings may run: a member of a channel that leans on the detectors of its group
    /// runs beside the group, which supplies their judgements.
    pub(crate) fn check_leaning(&self, is_beside_group: bool) -> Result<(), SettingsError> {
        if is_beside_group || self.detector.leans.is_none() || self.process.role != Role::Member {
            return Ok(());
        }
        let channel = self.group.name.rsplit('/').next().unwrap_or_default().to_owned();
        let what = "it leans on the detectors of its group (channel.detector = \"group\"): run it beside the group, or \
                    set channel.detector = \"own\"";
        Err(SettingsError::Channel { channel, what: what.to_owned() })
    }
}

impl ChannelSettings {
    /// A channel that has all else from its group.
    pub fn new(name: &str, address: SocketAddr) -> Self {
        Self {
            name: name.to_owned(),
            address,
            order: None,
            reliability: None,
            mutex: None,
            election: None,
            flow: None,
            members: None,
            detector: ChannelDetector::Own,
            peers: None,
            listen: None,
        }
    }
}

/// What a judgement of the group's members reports about a channel's, whose ranks in the group these are.
pub(crate) fn in_channel(judgement: Judgement, members: &[u16]) -> Judgement {
    let has = |bits: u64, rank: u16| bits.checked_shr(rank.into()).is_some_and(|bits| bits & 1 != 0);
    let places = |bits| (0..).zip(members).filter(|(_, rank)| has(bits, **rank)).fold(0, |all, (i, _)| all | 1 << i);
    Judgement { watched: places(judgement.watched), suspects: places(judgement.suspects) }
}

/// The name of a channel's group.
pub fn full_name(group: &str, channel: &str) -> String {
    format!("{group}/{channel}")
}

/// The group's name in the name of a channel's group.
pub(crate) fn group_of(full_name: &str) -> Option<&str> {
    full_name.rsplit_once('/').map(|(group, _)| group)
}

/// Whether the channels are valid together, and each by itself.
pub(crate) fn check(settings: &Settings) -> Result<(), SettingsError> {
    let mut addresses = vec![("the group itself".to_owned(), settings.group.address)];
    for (index, channel) in settings.channels.iter().enumerate() {
        let refuse = |what: String| Err(SettingsError::Channel { channel: channel.name.clone(), what });
        if let Err(source) = check_name(&channel.name) {
            return refuse(format!("its name is made like a topic's: {source}"));
        }
        if channel.name.contains('/') {
            return refuse("a name with a slash is a group's and a channel's together".to_owned());
        }
        if settings.channels[..index].iter().any(|other| other.name == channel.name) {
            return refuse("another channel has this name".to_owned());
        }
        if let Some((other, address)) = addresses.iter().find(|(_, address)| *address == channel.address) {
            return refuse(format!("{address} is {other}'s address: give it another address or port"));
        }
        addresses.push((format!("channel {:?}", channel.name), channel.address));
        if let Some(members) = &channel.members {
            let repeats = (1..members.len()).any(|place| members[..place].contains(&members[place]));
            let strange = members.iter().find(|rank| **rank >= settings.group.members);
            if let Some(rank) = strange {
                return refuse(format!("members: {rank} is no rank of a group of {}", settings.group.members));
            }
            if members.is_empty() || repeats {
                return refuse("members: name each rank once, and at least one".to_owned());
            }
        }
        check_mesh(settings, index)?;
        let own = settings.for_channel(&channel.name).and_then(|settings| settings.check());
        if let Err(source) = own {
            return refuse(source.to_string());
        }
    }
    Ok(())
}

/// Whether a channel over tcp has addresses, and no other channel has them: what came to a port of two would be for one
/// of them only.
fn check_mesh(settings: &Settings, index: usize) -> Result<(), SettingsError> {
    let (network, channel) = (&settings.network, &settings.channels[index]);
    let refuse = |what: String| Err(SettingsError::Channel { channel: channel.name.clone(), what });
    let has_mesh = match network.transport {
        Transport::Tcp => true,
        Transport::Auto => !network.peers.is_empty(),
        Transport::Udp | Transport::Portable | Transport::Xdp | Transport::Shm => false,
    };
    let Some(peers) = channel.peers.as_ref().filter(|peers| !peers.is_empty()) else {
        let why = "peers is missing: over tcp each channel has connections of its own, so it lists addresses of its \
             own, by its members' ranks in it";
        return if has_mesh { refuse(why.to_owned()) } else { Ok(()) };
    };
    let members = channel.members.as_ref().map_or(usize::from(settings.group.members), Vec::len);
    if peers.len() != members {
        return refuse(format!(
            "peers has {} addresses: list all {members} members, by rank in the channel",
            peers.len()
        ));
    }
    let group = network.peers.iter().chain(&network.listen);
    let before = settings.channels[..index].iter();
    let taken = group.chain(before.flat_map(|other| other.peers.iter().flatten().chain(&other.listen)));
    match taken.into_iter().find(|address| peers.contains(address) || channel.listen == Some(**address)) {
        Some(address) => refuse(format!("{address} is the group's or another channel's: give it ports of its own")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::in_channel;
    use crate::config::{ChannelDetector, ChannelSettings, Settings};
    use bourdon_protocol::control::detector::Judgement;

    #[test]
    fn a_judgement_is_by_the_ranks_of_the_channel() {
        let judgement = Judgement { watched: 1 << 63 | 0b1011_0110, suspects: 1 << 63 | 0b0010_0010 };
        let all: Vec<u16> = (0..64).collect();
        assert_eq!(in_channel(judgement, &all), judgement);
        // The member 7 is trusted, 0 not watched, 63 and 5 are suspected.
        let some = in_channel(judgement, &[7, 0, 63, 5]);
        assert_eq!(some, Judgement { watched: 0b1101, suspects: 0b1100 });
        assert_eq!(in_channel(judgement, &[0, 3]), Judgement::default());
    }

    #[test]
    fn a_channel_that_leans_sends_fewer_heartbeats_than_its_group() {
        let mut settings = Settings::default();
        settings.group.name = "md".to_owned();
        let mut quotes = ChannelSettings::new("quotes", "239.7.7.7:7777".parse().expect("an address"));
        quotes.detector = ChannelDetector::Group;
        settings.channels = vec![quotes];
        let channel = settings.for_channel("quotes").expect("it is there");
        assert_eq!(channel.detector.leans, Some(vec![0]));
        let timing = |settings: &Settings| settings.protocol(1 << 20).timing;
        assert_eq!(timing(&channel), timing(&settings).leaning());
    }
}
