//! What the bypass must know of an interface.
//!
//! Source: netdevice(7); `include/uapi/linux/ethtool.h`.

use crate::frame::Mac;
use crate::refusal::unavailable;
use bourdon_port::{InterfaceLoss, PortError};
use socket2::{Domain, Socket, Type};
use std::io;
use std::os::fd::AsRawFd;

/// An Ethernet interface.
#[derive(Clone, Debug)]
pub(crate) struct Interface {
    pub(crate) name: String,
    pub(crate) index: u32,
    pub(crate) mac: Mac,
    /// The queues that frames come in by.
    pub(crate) queues: u32,
}

const GET_CHANNELS: u32 = 0x3c; // ETHTOOL_GCHANNELS

/// `struct ethtool_channels`.
#[repr(C)]
#[derive(Default)]
struct Channels {
    command: u32,
    receive_max: u32,
    send_max: u32,
    other_max: u32,
    combined_max: u32,
    receive: u32,
    send: u32,
    other: u32,
    combined: u32,
}

impl Interface {
    pub(crate) fn find(name: &str) -> Result<Self, PortError> {
        let missing = || PortError::Interface {
            name: name.to_owned(),
            loss: InterfaceLoss::NoInterface,
            why: "there is none of this name".to_owned(),
        };
        let io = |doing| move |source: io::Error| PortError::Io { doing, source };
        let socket = Socket::new(Domain::IPV4, Type::DGRAM, None).map_err(io("opening a socket"))?;
        if name.is_empty() || name.len() >= libc::IFNAMSIZ || name.contains('\0') {
            return Err(missing());
        }
        let index = rustix::net::netdevice::name_to_index(&socket, name).map_err(|_| missing())?;
        let mac = mac(&socket, name).map_err(io("asking for the interface's Ethernet address"))?;
        let Some(mac) = mac else {
            return Err(unavailable(format!(
                "{name} is no Ethernet interface: name another with network.interface, or set network.transport = \
                 \"udp\""
            )));
        };
        Ok(Self { name: name.to_owned(), index, mac, queues: queues(&socket, name) })
    }
}

fn request(name: &str) -> libc::ifreq {
    // SAFETY: ifreq is plain C data for which all zeroes is a valid value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (target, source) in request.ifr_name.iter_mut().zip(name.as_bytes()) {
        *target = *source as libc::c_char;
    }
    request
}

/// The interface's Ethernet address; none if it is of another kind.
fn mac(socket: &Socket, name: &str) -> io::Result<Option<Mac>> {
    let mut request = request(name);
    // SAFETY: the call reads the name, which is terminated because `find` has checked its length, and writes the member
    // read below; `request` lives through the call.
    if unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFHWADDR, &mut request) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call succeeded, so the kernel has written this member of the union.
    let address = unsafe { request.ifr_ifru.ifru_hwaddr };
    let is_ethernet = address.sa_family == libc::ARPHRD_ETHER;
    Ok(is_ethernet.then(|| std::array::from_fn(|i| address.sa_data[i] as u8)))
}

/// How many queues frames come in by; one where the driver does not tell.
fn queues(socket: &Socket, name: &str) -> u32 {
    let mut channels = Channels { command: GET_CHANNELS, ..Channels::default() };
    let mut request = request(name);
    request.ifr_ifru.ifru_data = (&raw mut channels).cast();
    // SAFETY: the call reads the name, as above, and reads and writes the structure that the request points to, which
    // is the one of this command; both live through the call.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL, &mut request) };
    if result == 0 { (channels.receive + channels.combined).max(1) } else { 1 }
}
