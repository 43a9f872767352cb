//! The systems of a run: Bourdon, and the peers that are measured beside it.
//!
//! The client libraries of most peers are linked into a program of their own, `bourdon-peers` (`bench/peers/`): it has
//! a workspace of its own, because building those libraries needs tools that building Bourdon does not.

use crate::hosts::Hosts;
use crate::joins;
use crate::storm::Storm;
use crate::worker::Spec;
use crate::{Common, Failure, Peer, Transport};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The program of the peers.
const PROGRAM: &str = "bourdon-peers";
/// The variable that names it.
const VARIABLE: &str = "BOURDON_PEERS";
/// Builds it.
const BUILD: &str = "cargo build --release --manifest-path bench/peers/Cargo.toml";
/// Where that command leaves it.
const BUILT: &str = "bench/peers/target/release";

/// A system that is measured.
#[derive(Clone, Debug)]
pub(crate) struct System {
    /// None is Bourdon itself.
    pub(crate) peer: Option<Peer>,
    /// The program that runs its ends.
    program: PathBuf,
    /// What moves Bourdon's datagrams, where it is not the transport of the run.
    transport: Option<Transport>,
    /// What is asked of it beside the messages.
    pub(crate) storm: Option<Storm>,
}

impl System {
    /// Its name in rows.
    pub(crate) fn name(&self) -> String {
        match (self.peer, self.transport) {
            (Some(peer), _) => peer.name(),
            (None, Some(transport)) => format!("bourdon-{}", transport.name()),
            (None, None) if self.storm.is_some() => "bourdon-storm".to_owned(),
            (None, None) => "bourdon".to_owned(),
        }
    }

    /// The same over another transport than the run's.
    pub(crate) fn over(&self, transport: Transport) -> Self {
        Self { transport: Some(transport), ..self.clone() }
    }

    /// The same, with requests beside the messages.
    pub(crate) fn in_storm(&self, storm: Storm) -> Self {
        Self { storm: Some(storm), ..self.clone() }
    }

    /// What the rows of its transport say.
    pub(crate) fn transport(&self, common: &Common) -> String {
        match self.peer {
            None => self.transport.unwrap_or(common.transport).name(),
            Some(Peer::RawXdp) => "af_xdp",
            Some(Peer::Raw | Peer::Aeron | Peer::Corosync) => "udp",
            Some(Peer::Zeromq | Peer::Nats | Peer::Jetstream) => "tcp",
            Some(Peer::AeronIpc | Peer::Iceoryx2) => "shared-memory",
            Some(Peer::Crossbeam | Peer::Rtrb | Peer::Disruptor) => "ring",
        }
        .to_owned()
    }

    /// Whether its ends can be on two hosts here. Aeron's can't: both of its sockets for a group are bound to the same
    /// port of all addresses, and on an interface that is not `lo` the kernel's early demultiplexing hands the status
    /// messages to the one for data.
    pub(crate) fn spans_hosts(&self, common: &Common) -> bool {
        matches!(self.peer, None | Some(Peer::Raw | Peer::RawXdp)) && self.transport(common) != Transport::Shm.name()
    }

    /// Whether its ends can be on one host: an interface takes one program, and `lo` none.
    pub(crate) fn shares_a_host(&self, common: &Common) -> bool {
        self.peer != Some(Peer::RawXdp) && self.transport(common) != Transport::Xdp.name()
    }

    /// The command that runs a worker of it, on one of several hosts or on this one.
    pub(crate) fn command(&self, host: Option<(&Hosts, u16)>) -> Command {
        let mut command = match host {
            None => Command::new(&self.program),
            Some((hosts, index)) => {
                let mut command = hosts.enter(index);
                command.arg(&self.program);
                command
            }
        };
        command.arg("worker");
        command
    }

    /// The spec for this system.
    pub(crate) fn spec(&self, spec: &Spec) -> Spec {
        let seats = self.storm.and_then(|storm| storm.joins_per_s).map_or(0, joins::seats);
        let transport = self.transport.unwrap_or(spec.transport);
        Spec { peer: self.peer, transport, storm: self.storm, members: spec.members + seats, ..spec.clone() }
    }
}

/// Leaves out, and names, the systems that can't be measured at a place.
pub(crate) fn measurable(systems: &[System], place: &str, can: impl Fn(&System) -> bool) -> Vec<System> {
    let (measured, others): (Vec<_>, Vec<_>) = systems.iter().cloned().partition(can);
    others.iter().for_each(|system| eprintln!("{} can't be measured {place}", system.name()));
    measured
}

impl Common {
    /// The peers of a run: the named ones, or the default ones. One that the measurement does not support is refused.
    pub(crate) fn peers(&self, supported: &[Peer], default: &[Peer]) -> Result<Vec<Peer>, Failure> {
        if self.no_peer {
            return Ok(Vec::new());
        }
        if let Some(other) = self.peer.iter().find(|wanted| !supported.contains(wanted)) {
            let names: Vec<String> = supported.iter().map(|peer| peer.name()).collect();
            return Err(Failure::Unusable(format!(
                "{} is no peer of this measurement; take --peer {} or --no-peer",
                other.name(),
                names.join(",")
            )));
        }
        let mut peers = if self.peer.is_empty() { default.to_vec() } else { Vec::new() };
        self.peer.iter().for_each(|peer| {
            if !peers.contains(peer) {
                peers.push(*peer)
            }
        });
        Ok(peers)
    }

    /// The systems of a run: Bourdon first, then over these transports as well.
    pub(crate) fn systems(
        &self,
        supported: &[Peer],
        default: &[Peer],
        also: &[Transport],
    ) -> Result<Vec<System>, Failure> {
        let own =
            std::env::current_exe().map_err(|error| Failure::Unusable(format!("no path to this program: {error}")))?;
        let mut systems = vec![System { peer: None, program: own.clone(), transport: None, storm: None }];
        systems.extend(also.iter().map(|transport| systems[0].over(*transport)).collect::<Vec<_>>());
        for peer in self.peers(supported, default)? {
            let is_own = matches!(peer, Peer::Raw | Peer::RawXdp);
            let program = if is_own { own.clone() } else { self.peers_program(&own)? };
            systems.push(System { peer: Some(peer), program, transport: None, storm: None });
        }
        Ok(systems)
    }

    /// The program of the peers: the named one, or one that was built.
    fn peers_program(&self, own: &Path) -> Result<PathBuf, Failure> {
        let named = self.peers_program.clone().or_else(|| std::env::var_os(VARIABLE).map(PathBuf::from));
        let candidates: Vec<PathBuf> = match named {
            Some(named) => vec![named],
            None => vec![own.with_file_name(PROGRAM), Path::new(BUILT).join(PROGRAM)],
        };
        candidates.iter().find(|path| path.is_file()).cloned().ok_or_else(|| {
            let places: Vec<String> = candidates.iter().map(|path| path.display().to_string()).collect();
            Failure::Unusable(format!(
                "the peers' program is not at {}: build it with `{BUILD}`, name it with --peers-program or \
                 {VARIABLE}, or measure without these peers (--no-peer)",
                places.join(" nor at ")
            ))
        })
    }
}
