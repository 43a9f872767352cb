//! UDP multicast past the kernel's stack, by AF_XDP: the same datagrams on the wire as over [`UdpPort`], so that
//! processes over either hear each other.
//!
//! A send by a socket runs the whole stack down to the receiver's queue, 1.7 to 3 µs of it. Here a program in the
//! interface's driver takes this port's datagrams off before the stack ([`program`]), into memory that this process and
//! the kernel share ([`socket`]), and what this process sends goes from there to the driver with its headers made here
//! ([`frame`]).
//!
//! Beneath the bypass the port keeps a [`UdpPort`] open. It joins the group, so that IGMP and MLD stay with the kernel;
//! it holds this process's address and port; it receives what the program leaves to the kernel (fragments, broadcasts,
//! what other processes of this host send) and sends what the bypass can't: broadcasts, and datagrams to peers whose
//! Ethernet address the kernel has yet to find out ([`neighbours`]). Other processes of this host on the same interface
//! hear this one by copies ([`local`]). Where the bypass can't be had, the `UdpPort` does everything, and
//! [`XdpPort::refused`] has the reason. So it does after a change of the host, until a thread has opened the bypass
//! again ([`opener`]).
//!
//! One process an interface bypasses the kernel: the kernel attaches one program to an interface. Where an interface
//! has several queues, there is a socket on each, because the network card chooses the queue of a frame.
//!
//! Source: the kernel's `Documentation/networking/af_xdp.rst`; Høiland-Jørgensen et al., "The eXpress Data Path"
//! (CoNEXT 2018).
#![allow(unsafe_code)] // system calls, and memory shared with the kernel; each block carries its proof

mod bpf;
mod bypass;
mod frame;
mod interface;
mod local;
mod neighbours;
mod opener;
mod program;
mod raw;
mod refusal;
mod ring;
mod socket;

use bourdon_port::{Arrival, HostChange, Idle, Limits, Port, PortError, Sleep, To, Waker};
use bourdon_udp::{UdpOptions, UdpPort};
use bypass::Bypass;
use opener::Opener;
pub use raw::RawXdp;
use rustix::event::epoll;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How a port past the kernel's stack is opened.
#[derive(Clone, Debug)]
pub struct XdpOptions {
    /// What it has in common with a port over sockets, and how the port beneath is opened.
    pub udp: UdpOptions,
    /// Whether the network card shall write into the frames itself; few drivers can, and a port that is refused it
    /// bypasses nothing.
    pub zero_copy: bool,
}

/// While nothing but the bypass brings datagrams, one of so many receives looks at the kernel's sockets as well: two
/// system calls, which would cost as much as a receive in which nothing comes.
const LOOK_BENEATH: u32 = 64;
/// How long after a change of the host a bypass that was refused is tried again, and again.
const TRY_AGAIN: Duration = Duration::from_secs(1);

/// A port past the kernel's stack, or over sockets alone where that can't be had.
#[derive(Debug)]
pub struct XdpPort {
    bypass: Option<Bypass>,
    opener: Opener,
    /// When the bypass is tried again, if it was refused after a change of the host.
    try_at: Option<Instant>,
    beneath: UdpPort,
    options: Arc<XdpOptions>,
    /// The sources as they were joined and left; they count if the port was opened with some.
    sources: Mutex<Vec<IpAddr>>,
    refused: Option<PortError>,
    /// Readable while there is anything to receive from either; with the descriptor of the port beneath that it
    /// watches.
    asleep: Option<(OwnedFd, i32)>,
    /// Receives since the last look beneath.
    unlooked: u32,
}

impl XdpPort {
    /// Opens the bypass above a port that was opened with `options.udp`. It may wait for the host, a second at most
    /// for each queue; the port never does later.
    pub fn open(beneath: UdpPort, options: XdpOptions) -> Self {
        let options = Arc::new(options);
        let (bypass, refused) = match Bypass::open(options.clone(), beneath.local_address()) {
            Ok(bypass) => (Some(bypass), None),
            Err(why) => (None, Some(why)),
        };
        let sources = Mutex::new(options.udp.sources.clone());
        let (opener, try_at) = (Opener::default(), None);
        Self { bypass, opener, try_at, beneath, options, sources, refused, asleep: None, unlooked: 0 }
    }

    /// Why the kernel's stack is not bypassed, if it is not.
    pub fn refused(&self) -> Option<&PortError> {
        self.refused.as_ref()
    }

    /// Whether the host has no place for the port: nothing is sent and nothing comes until it has.
    pub fn is_cut_off(&self) -> bool {
        self.beneath.is_cut_off()
    }

    /// Receives from one more source, of a group that was opened with some.
    ///
    /// # Errors
    /// If the group was joined without sources, or the kernel refuses.
    pub fn join_source(&self, source: IpAddr) -> Result<(), PortError> {
        self.beneath.join_source(source)?;
        self.sources.lock().unwrap_or_else(PoisonError::into_inner).push(source);
        Ok(())
    }

    /// Stops receiving from a source; without the last source, it receives from none.
    ///
    /// # Errors
    /// If the source was not joined.
    pub fn leave_source(&self, source: IpAddr) -> Result<(), PortError> {
        self.beneath.leave_source(source)?;
        self.sources.lock().unwrap_or_else(PoisonError::into_inner).retain(|joined| *joined != source);
        Ok(())
    }

    /// Goes over to sockets, and lets a thread open the bypass again if it `shall`.
    fn leave_bypass(&mut self, shall_reopen: bool) {
        (self.asleep, self.try_at, self.refused) = (None, None, None);
        let new = shall_reopen.then(|| (self.options.clone(), self.beneath.local_address()));
        if let Err(why) = self.opener.start(self.bypass.take(), new) {
            self.note_refusal(why);
        }
    }

    fn note_refusal(&mut self, why: PortError) {
        (self.refused, self.try_at) = (Some(why), Some(Instant::now() + TRY_AGAIN));
    }

    /// Goes on past the stack if a thread has opened the bypass.
    fn look_for_bypass(&mut self) {
        match self.opener.outcome() {
            Some(Ok(bypass)) => self.bypass = Some(bypass),
            Some(Err(why)) => self.note_refusal(why),
            None if self.try_at.is_some_and(|at| Instant::now() >= at) => self.leave_bypass(true),
            None => {}
        }
    }

    /// Whether the kernel's sockets are to be looked at now.
    fn looks_beneath(&mut self, has_come: bool) -> bool {
        let Some(bypass) = &self.bypass else { return true };
        self.unlooked += 1;
        let is_due = bypass.has_local() || !has_come && self.options.udp.idle == Idle::Park;
        if is_due || self.unlooked >= LOOK_BENEATH {
            self.unlooked = 0;
            return true;
        }
        false
    }
}

impl Port for XdpPort {
    #[inline]
    fn send(&mut self, to: To, bytes: &[u8], segment_bytes: usize) -> Result<usize, PortError> {
        if let Some(bypass) = &mut self.bypass {
            if let Some(taken) = bypass.send(to, bytes, segment_bytes) {
                return Ok(taken);
            }
            bypass.flush(); // what was sent before stays before what the kernel sends
        }
        self.beneath.send(to, bytes, segment_bytes)
    }

    fn flush(&mut self) -> Result<(), PortError> {
        if let Some(bypass) = &mut self.bypass {
            bypass.flush();
        }
        self.beneath.flush()
    }

    #[inline]
    fn receive(&mut self, limit: usize, mut on_datagram: impl FnMut(Arrival<'_>)) -> Result<usize, PortError> {
        let count = match &mut self.bypass {
            Some(bypass) => {
                let sources = self.sources.get_mut().unwrap_or_else(PoisonError::into_inner);
                let sources = (!self.options.udp.sources.is_empty()).then_some(&sources[..]);
                bypass.receive(limit, sources, &mut on_datagram)
            }
            None => 0,
        };
        if count < limit && self.looks_beneath(count > 0) {
            return Ok(count + self.beneath.receive(limit - count, on_datagram)?);
        }
        Ok(count)
    }

    fn wait(&mut self, timeout: Duration) -> Result<(), PortError> {
        if self.bypass.is_none() {
            return self.beneath.wait(timeout);
        }
        if let Some(sleep) = self.sleeper(timeout)? {
            Sleep::all(&[sleep])?;
        }
        self.beneath.wait(Duration::ZERO)
    }

    fn sleeper(&mut self, longest: Duration) -> Result<Option<Sleep<'_>>, PortError> {
        let Some(bypass) = &mut self.bypass else { return self.beneath.sleeper(longest) };
        bypass.flush();
        if !bypass.is_empty() {
            return Ok(None);
        }
        let Some(Sleep { readable, longest }) = self.beneath.sleeper(longest)? else { return Ok(None) };
        let watched = readable.as_raw_fd();
        if self.asleep.as_ref().is_none_or(|(_, before)| *before != watched) {
            let set = bypass.watch(readable);
            self.asleep = Some((set.map_err(|source| PortError::Io { doing: "creating an epoll", source })?, watched));
        }
        Ok(self.asleep.as_ref().map(|(set, _)| Sleep { readable: set.as_fd(), longest }))
    }

    fn waker(&self) -> Waker {
        self.beneath.waker()
    }

    fn can_broadcast(&self) -> bool {
        self.beneath.can_broadcast()
    }

    fn follow_host(&mut self) -> Result<Option<HostChange>, PortError> {
        let change = self.beneath.follow_host()?;
        match &change {
            Some(HostChange::Lost { .. }) => self.leave_bypass(false),
            Some(HostChange::Bound { .. }) => self.leave_bypass(true),
            None => match &mut self.bypass {
                Some(bypass) => bypass.look_around(),
                None => self.look_for_bypass(),
            },
        }
        Ok(change)
    }

    fn limits(&self) -> Limits {
        self.bypass.as_ref().map_or_else(|| self.beneath.limits(), Bypass::limits)
    }

    fn local_address(&self) -> SocketAddr {
        self.beneath.local_address()
    }

    fn io(&self) -> &str {
        match &self.bypass {
            Some(bypass) => bypass.io(),
            None => self.beneath.io(),
        }
    }
}

/// An `epoll` that watches these.
fn watch<'a>(descriptors: impl IntoIterator<Item = std::os::fd::BorrowedFd<'a>>) -> std::io::Result<OwnedFd> {
    let set = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    for descriptor in descriptors {
        epoll::add(&set, descriptor, epoll::EventData::new_u64(0), epoll::EventFlags::IN)?;
    }
    Ok(set)
}
