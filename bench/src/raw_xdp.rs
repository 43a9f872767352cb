//! The floor past the kernel's stack: a socket of AF_XDP with nothing around it.
//!
//! Each end has an interface of its own, and hears only what the other sends: a frame goes to the wire alone. The
//! frames, the program and the headers are those of Bourdon over `xdp`; there are no sequence numbers, no members and
//! no sockets of the kernel beside them.

use crate::worker::{self, Spec};
use crate::{Failure, Link, ends};
use bourdon_udp::UdpOptions;
use bourdon_xdp::{RawXdp, XdpOptions};
use std::net::SocketAddr;

/// The most datagrams that one poll takes.
const LIMIT: usize = 64;

/// Plays an end of round trips.
pub(crate) fn play(spec: &Spec) -> Result<(), Failure> {
    let udp = UdpOptions {
        interface: spec.interface.clone(),
        multicast_loop: false,
        datagram_max_bytes: spec.mtu_bytes as usize,
        ..UdpOptions::new(spec.address)
    };
    let own = SocketAddr::new(spec.own_address.into(), spec.address.port());
    let opened = RawXdp::open(XdpOptions { udp, zero_copy: false }, own);
    let raw = opened.map_err(|error| Failure::Unusable(format!("raw-xdp: {error}")))?;
    worker::describe(serde_json::json!({ "io": raw.io() }));
    ends::play(spec, RawXdpLink(raw))
}

/// A socket that carries a message in each datagram.
struct RawXdpLink(RawXdp);

impl Link for RawXdpLink {
    #[inline]
    fn try_send(&mut self, message: &[u8]) -> Result<bool, Failure> {
        Ok(self.0.send(message))
    }

    #[inline]
    fn flush(&mut self) -> Result<(), Failure> {
        self.0.flush();
        Ok(())
    }

    #[inline]
    fn poll(&mut self, on_message: impl FnMut(&[u8])) -> Result<usize, Failure> {
        Ok(self.0.receive(LIMIT, on_message))
    }
}
