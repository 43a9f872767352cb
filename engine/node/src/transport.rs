//! Picks the transport: the one file of the engine that knows their implementations.
//!
//! A user names what is wanted and a host decides what is possible: containers forbid `io_uring`, old kernels lack it.
//! The pick falls back to what does the same job on any kernel and says why, instead of failing or keeping quiet.

use crate::settings::{IdleStrategy, Settings, Transport};
use bourdon_port::{Arrival, Echo, Idle, Limits, Port, PortError, To, Waker};
use bourdon_portable::PortablePort;
use bourdon_udp::{UdpOptions, UdpPort};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// The transports a node can run on.
// One node has one of these for its whole life, so the difference in size costs nothing.
#[allow(clippy::large_enum_variant)]
#[derive(Debug)]
pub enum AnyPort {
    /// UDP multicast by spinning sockets or `io_uring`.
    Udp(UdpPort),
    /// UDP multicast by mio.
    Portable(PortablePort),
}

/// A port, and why it is not the one that was asked for, if it is not.
#[derive(Debug)]
pub(crate) struct Picked {
    /// The port.
    pub(crate) port: AnyPort,
    /// Why the node fell back to it.
    pub(crate) fallback: Option<String>,
}

/// Opens the transport that the settings name, or what stands in for it.
///
/// # Errors
/// If no transport can be opened; the text says what to do.
pub(crate) fn pick(settings: &Settings, echo: Echo) -> Result<Picked, PortError> {
    let options = UdpOptions {
        interface: settings.network.interface.clone(),
        sources: settings.network.sources.clone(),
        ttl: settings.network.ttl,
        receive_buffer_bytes: settings.network.receive_buffer_bytes,
        idle: match settings.threads.idle {
            IdleStrategy::Park | IdleStrategy::Backoff => Idle::Park, // both sleep in the port
            IdleStrategy::Spin | IdleStrategy::Yield => Idle::Spin,
        },
        echo: Some(echo),
        offload: settings.network.offload,
        receive_timestamps: settings.network.receive_timestamps,
        datagram_max_bytes: settings.limits.mtu_bytes,
        ..UdpOptions::new(settings.group.address)
    };
    match settings.network.transport {
        Transport::Portable => Ok(Picked { port: AnyPort::Portable(PortablePort::open(&options)?), fallback: None }),
        Transport::Udp => match UdpPort::open(&options) {
            Ok(port) => Ok(Picked { port: AnyPort::Udp(port), fallback: None }),
            Err(why @ PortError::Unavailable { .. }) => {
                let port = AnyPort::Portable(PortablePort::open(&options)?);
                Ok(Picked { port, fallback: Some(format!("{why}; using the portable transport instead")) })
            }
            Err(error) => Err(error),
        },
    }
}

macro_rules! each {
    ($self:ident, $port:ident => $call:expr) => {
        match $self {
            AnyPort::Udp($port) => $call,
            AnyPort::Portable($port) => $call,
        }
    };
}

impl AnyPort {
    /// Hears one more source of the group, which was opened with some.
    ///
    /// # Errors
    /// If the group was joined without sources, or the kernel refuses.
    pub fn join_source(&self, source: IpAddr) -> Result<(), PortError> {
        each!(self, port => port.join_source(source))
    }

    /// Hears a source no longer; without the last one, nobody.
    ///
    /// # Errors
    /// If the source was not joined.
    pub fn leave_source(&self, source: IpAddr) -> Result<(), PortError> {
        each!(self, port => port.leave_source(source))
    }
}

impl Port for AnyPort {
    #[inline]
    fn send(&mut self, to: To, bytes: &[u8], segment_bytes: usize) -> Result<usize, PortError> {
        each!(self, port => port.send(to, bytes, segment_bytes))
    }

    #[inline]
    fn receive(&mut self, limit: usize, on_datagram: impl FnMut(Arrival<'_>)) -> Result<usize, PortError> {
        each!(self, port => port.receive(limit, on_datagram))
    }

    fn wait(&mut self, timeout: Duration) -> Result<(), PortError> {
        each!(self, port => port.wait(timeout))
    }

    fn waker(&self) -> Waker {
        each!(self, port => port.waker())
    }

    fn can_broadcast(&self) -> bool {
        each!(self, port => port.can_broadcast())
    }

    fn limits(&self) -> Limits {
        each!(self, port => port.limits())
    }

    fn local_address(&self) -> SocketAddr {
        each!(self, port => port.local_address())
    }

    fn io(&self) -> &str {
        each!(self, port => port.io())
    }
}
