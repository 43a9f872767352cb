//! The bypass with nothing around it: the floor that measurements compare a port with.
//!
//! No port of the kernel is beneath it, so broadcasts, fragments and processes of this host are not heard, and it takes
//! the group's datagrams for as long as it lives, whatever its process does.

use crate::XdpOptions;
use crate::bypass::Bypass;
use bourdon_port::{PortError, To};
use std::net::SocketAddr;
use std::sync::Arc;

/// One process's bypass of the stack: datagrams to a group, and from it.
#[derive(Debug)]
pub struct RawXdp(Bypass);

impl RawXdp {
    /// Opens it for the group of these options; its datagrams come from `own`, an address of the interface.
    ///
    /// # Errors
    /// If the bypass can't be had; the text gives what to do.
    pub fn open(options: XdpOptions, own: SocketAddr) -> Result<Self, PortError> {
        let bypass = Bypass::open(Arc::new(options), own)?;
        bypass.take_for_ever();
        Ok(Self(bypass))
    }

    /// Sends a datagram to the group, with the next [`RawXdp::flush`]; false if there is no room now.
    ///
    /// # Panics
    /// When it is longer than the options allow, or empty.
    #[inline]
    pub fn send(&mut self, datagram: &[u8]) -> bool {
        self.0.send(To::Group, datagram, datagram.len()) == Some(1)
    }

    /// Lets the kernel send what was written.
    #[inline]
    pub fn flush(&mut self) {
        self.0.flush();
    }

    /// Hands out up to `limit` datagrams that have come; returns how many.
    #[inline]
    pub fn receive(&mut self, limit: usize, mut on_datagram: impl FnMut(&[u8])) -> usize {
        self.0.receive(limit, None, &mut |arrival| on_datagram(arrival.bytes))
    }

    /// Which mode the kernel granted, as [`Port::io`](bourdon_port::Port::io) names it.
    pub fn io(&self) -> &'static str {
        self.0.io()
    }
}
