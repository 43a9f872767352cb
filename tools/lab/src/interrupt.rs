//! SIGINT and SIGTERM: between two steps a campaign checks whether one came, and then ends as after an error.
//!
//! A harness that a signal kills leaves its namespaces behind; its own `Drop`s remove them exactly. The signal is only
//! recorded, as a byte in a socket that stays there, so every check gets the same answer.

use rustix::net::RecvFlags;
use signal_hook::consts::{SIGINT, SIGTERM};
use std::os::unix::net::UnixStream;

/// Watches for SIGINT and SIGTERM from its creation on.
#[derive(Debug)]
pub struct Interrupt {
    reader: UnixStream,
}

impl Interrupt {
    /// Begins to watch; the signals no longer end this process.
    ///
    /// # Errors
    /// If no handler can be installed.
    pub fn watch() -> std::io::Result<Self> {
        let (reader, writer) = UnixStream::pair()?;
        for signal in [SIGINT, SIGTERM] {
            signal_hook::low_level::pipe::register(signal, writer.try_clone()?)?;
        }
        Ok(Self { reader })
    }

    /// Whether a signal came.
    pub fn came(&self) -> bool {
        self.look(RecvFlags::PEEK | RecvFlags::DONTWAIT)
    }

    /// Returns once a signal came; whatever else ends the wait is taken for one.
    pub fn wait(&self) {
        self.look(RecvFlags::PEEK);
    }

    fn look(&self, flags: RecvFlags) -> bool {
        rustix::net::recv(&self.reader, &mut [0u8; 1][..], flags).is_ok_and(|(bytes, _)| bytes > 0)
    }
}
