//! Follows changes of the host: opens the sockets again where the interface is, or what it has become.
//!
//! An interface that was removed and made again has another number, and one that got another lease has another address.
//! Sockets follow neither. A process that ended then would lose its place in the group for a change that passes in
//! milliseconds, so the port closes its sockets and opens others with the same settings: on the interface of the same
//! name, from the same unicast port if that is free. Where the host still has the address, the port's address is the
//! same afterwards, and no other process notices more than a few lost datagrams.
//!
//! While the interface can't be used the port is closed: what is sent is lost, nothing comes, and a wait sleeps on the
//! waker alone. Every socket and ring is closed and opened by the thread that receives, because a ring belongs to it.
//!
//! Invariants:
//! - A port keeps its address as long as its interface has it, also where another comes first.
//! - The waker stays the same: other threads hold clones of it.
//! - Nothing is opened before the old sockets are closed: two that share the unicast port would split its datagrams.

use crate::interface::Interface;
use crate::options::UdpOptions;
use crate::watch::Watch;
use crate::{Open, Receiver, UdpPort};
use bourdon_port::{HostChange, Idle, InterfaceLoss, Limits, PortError, Sleep, Waker};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// What a port is opened with again, and what it was when it was last open.
#[derive(Debug)]
pub(crate) struct Followed {
    options: UdpOptions,
    /// The sources as they were joined and left since.
    sources: Mutex<Vec<IpAddr>>,
    watch: Watch,
    /// The interface could not be looked up.
    must_look: bool,
    /// Why it is closed, as it was reported.
    loss: Option<InterfaceLoss>,
    pub(crate) limits: Limits,
    pub(crate) local_address: SocketAddr,
    pub(crate) group_source: Option<SocketAddr>,
    /// The sources whose multicasts are kept away.
    pub(crate) bypassed: Vec<SocketAddr>,
    pub(crate) io: &'static str,
}

impl Followed {
    pub(crate) fn new(options: &UdpOptions, open: &Open) -> Self {
        Self {
            options: options.clone(),
            sources: Mutex::new(options.sources.clone()),
            watch: Watch::open(),
            must_look: false,
            loss: None,
            limits: open.limits(),
            local_address: open.sockets.local_address(),
            group_source: open.sockets.group_source(),
            bypassed: Vec::new(),
            io: io(open),
        }
    }

    pub(crate) fn note_joined(&self, source: IpAddr) {
        let mut sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        if !sources.contains(&source) {
            sources.push(source);
        }
    }

    pub(crate) fn note_left(&self, source: IpAddr) {
        self.sources.lock().unwrap_or_else(PoisonError::into_inner).retain(|joined| *joined != source);
    }

    /// Opens the port again.
    fn open(&self, waker: &Waker) -> Result<Open, PortError> {
        let sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let receives_none = sources.is_empty() && !self.options.sources.is_empty();
        let mut options = UdpOptions { unicast_port: self.local_address.port(), ..self.options.clone() };
        if !receives_none {
            options.sources = sources;
        }
        let open = match Open::new(&options, waker) {
            Err(PortError::Unavailable { .. }) => Open::new(&UdpOptions { io_uring: false, ..options.clone() }, waker)?,
            opened => opened?,
        };
        if receives_none {
            options.sources.iter().try_for_each(|source| open.sockets.leave_source(*source))?;
        }
        if !self.bypassed.is_empty() {
            open.sockets.bypass(&self.bypassed);
        }
        Ok(open)
    }
}

/// What moves the bytes.
fn io(open: &Open) -> &'static str {
    match open.receiver {
        Receiver::Spin(_) => "socket-spin",
        Receiver::Park(_) => "io_uring",
        Receiver::Epoll(_) => "epoll",
    }
}

/// As [`Port::sleeper`](bourdon_port::Port::sleeper) of a port that is closed.
pub(crate) fn sleeper<'a>(followed: &Followed, waker: &'a Waker, longest: Duration) -> Option<Sleep<'a>> {
    (followed.options.idle == Idle::Park).then(|| Sleep { readable: waker.as_fd(), longest })
}

impl UdpPort {
    /// As [`Port::wait`](bourdon_port::Port::wait) of a port that is closed.
    pub(crate) fn wait_closed(&mut self, timeout: Duration) -> Result<(), PortError> {
        if let Some(sleep) = sleeper(&self.followed, &self.waker, timeout) {
            Sleep::all(&[sleep])?;
            self.waker.clear();
        }
        Ok(())
    }

    /// As [`Port::follow_host`](bourdon_port::Port::follow_host).
    pub(crate) fn follow(&mut self) -> Result<Option<HostChange>, PortError> {
        let (index, has_failed) = match &self.open {
            Some(open) => (Some(open.sockets.interface().index), open.sender.is_cut_off()),
            None => (None, true),
        };
        let has_failed = has_failed || self.followed.must_look;
        Ok(if self.followed.watch.is_due(index, has_failed) { self.look() } else { None })
    }

    #[cold]
    fn look(&mut self) -> Option<HostChange> {
        self.followed.must_look = false;
        let followed = &self.followed;
        let (name, kept) = (&followed.options.interface, followed.local_address.ip());
        let found = match Interface::look_up(name, followed.options.group, Some(kept)) {
            Ok(Ok(interface)) => interface,
            Ok(Err(loss)) => return self.close(loss),
            Err(_) => {
                self.followed.must_look = true; // no descriptor is left for it, perhaps
                return None;
            }
        };
        if let Some(open) = &mut self.open {
            open.sender.note_way();
            if found.index == open.sockets.interface().index && found.address.ip() == kept {
                return None;
            }
        }
        self.reopen()
    }

    fn close(&mut self, loss: InterfaceLoss) -> Option<HostChange> {
        self.open = None;
        let is_news = self.followed.loss.replace(loss) != Some(loss);
        is_news.then(|| HostChange::Lost { interface: self.followed.options.interface.clone(), loss })
    }

    fn reopen(&mut self) -> Option<HostChange> {
        self.open = None;
        let Ok(open) = self.followed.open(&self.waker) else { return self.close(InterfaceLoss::Refused) };
        let followed = &mut self.followed;
        let address = open.sockets.local_address();
        let before = std::mem::replace(&mut followed.local_address, address);
        (followed.loss, followed.limits, followed.io) = (None, open.limits(), io(&open));
        followed.group_source = open.sockets.group_source();
        self.open = Some(open);
        Some(HostChange::Bound { interface: followed.options.interface.clone(), address, before })
    }
}
