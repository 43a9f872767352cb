//! Opens and closes the bypass in a thread of its own.
//!
//! The thread that sends and receives never waits for the host. Opening the bypass takes tens of milliseconds: the
//! kernel resets the interface's queues for the program, and zeroes and pins the frames' memory. Closing it takes as
//! long: the kernel waits until no processor uses what is freed. And for a moment after a close the queues are still
//! taken. So after a change of the host another thread does both, one after the other, while the port goes on over
//! sockets.
//!
//! Invariant: one bypass of a port exists at a time, and none after the port: each thread first waits for the one
//! before it.

use crate::XdpOptions;
use crate::bypass::Bypass;
use bourdon_port::PortError;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};

type Outcome = Option<Result<Bypass, PortError>>;

/// The thread that opens or closes, if one does.
#[derive(Debug, Default)]
pub(crate) struct Opener(Option<JoinHandle<Outcome>>);

impl Opener {
    /// Closes `old`, and then opens a bypass for `new`: how, and for which address. What was being opened is closed.
    ///
    /// # Errors
    /// If the host refuses a thread; `old` is closed all the same.
    pub(crate) fn start(
        &mut self,
        old: Option<Bypass>,
        new: Option<(Arc<XdpOptions>, SocketAddr)>,
    ) -> Result<(), PortError> {
        let before = self.0.take();
        let work = move || {
            drop(old);
            drop(before.map(JoinHandle::join));
            new.map(|(options, own)| Bypass::open(options, own))
        };
        let started = Builder::new().name("bourdon-xdp".to_owned()).spawn(work);
        self.0 =
            Some(started.map_err(|source| PortError::Io { doing: "starting a thread that opens af_xdp", source })?);
        Ok(())
    }

    /// What came of the opening, once.
    pub(crate) fn outcome(&mut self) -> Outcome {
        let thread = self.0.take_if(|thread| thread.is_finished())?;
        thread.join().expect("opening the bypass does not panic")
    }
}

impl Drop for Opener {
    fn drop(&mut self) {
        drop(self.0.take().map(JoinHandle::join));
    }
}
