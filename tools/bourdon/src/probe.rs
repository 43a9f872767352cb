//! Whether the node of a session answers at all.
//!
//! A lock that is not granted, or is kept, and a node that is stopped look alike: no line comes. So a request of its
//! own is sent to the node from time to time, over a connection of its own, and its answer awaited. At most one is
//! under way: a node that does not answer is not loaded further.

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// A node that is this late is reported: it answers between two rounds of its work.
pub(crate) const LATE: Duration = Duration::from_secs(2);
/// Between an answer and the next request.
const ASK_INTERVAL: Duration = Duration::from_secs(1);
/// Between two reports.
const REPORT_INTERVAL: Duration = Duration::from_secs(3);
/// Between two looks for the answer.
const LOOK: Duration = Duration::from_millis(250);

/// The request under way, or the time of the next.
#[derive(Debug)]
pub(crate) struct Probe {
    path: PathBuf,
    pid: u32,
    /// The connection (none if not even that was accepted), and when it was begun.
    asked: Option<(Option<UnixStream>, Instant)>,
    next_at: Instant,
    reported_at: Option<Instant>,
}

impl Probe {
    pub(crate) fn new(path: PathBuf, pid: u32) -> Self {
        Self { path, pid, asked: None, next_at: Instant::now(), reported_at: None }
    }

    /// For how long the node has not answered; zero if it does.
    pub(crate) fn silence(&mut self) -> Duration {
        let now = Instant::now();
        if let Some((stream, since)) = &mut self.asked {
            let read = stream.as_mut().map(|stream| stream.read(&mut [0; 64]));
            match read {
                Some(Err(error)) if error.kind() == ErrorKind::WouldBlock => return now - *since,
                // Its queue of connections was full: it may have room now.
                None => {
                    let since = *since;
                    self.asked = Some((self.request(), since));
                    return now - since;
                }
                // An end, too, is an answer: the session reports it.
                Some(_) => (self.asked, self.reported_at, self.next_at) = (None, None, now + ASK_INTERVAL),
            }
        } else if now >= self.next_at {
            self.asked = Some((self.request(), now));
        }
        Duration::ZERO
    }

    /// The report that the node does not answer, each few seconds.
    pub(crate) fn report(&mut self) -> Option<String> {
        let silence = self.silence();
        let is_due = self.reported_at.is_none_or(|at| at.elapsed() >= REPORT_INTERVAL);
        if silence < LATE || !is_due {
            return None;
        }
        self.reported_at = Some(Instant::now());
        Some(self.describe(silence))
    }

    /// The report if the node has not answered for this long.
    pub(crate) fn silent_for(&mut self, limit: Duration) -> Option<String> {
        let silence = self.silence();
        (silence >= limit).then(|| self.describe(silence))
    }

    fn describe(&self, silence: Duration) -> String {
        let (pid, seconds) = (self.pid, silence.as_secs());
        format!("the node (process {pid}) has not answered for {seconds} s; it may be stopped")
    }

    /// When to look again.
    pub(crate) fn look_at(&self) -> Instant {
        if self.asked.is_some() { Instant::now() + LOOK } else { self.next_at }
    }

    /// Does not wait, whatever the node does.
    fn request(&self) -> Option<UnixStream> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None).ok()?;
        connect(&socket, &SocketAddrUnix::new(&*self.path).ok()?).ok()?;
        let mut stream = UnixStream::from(socket);
        stream.write_all(b"{\"request\":\"stat\"}\n").ok()?;
        Some(stream)
    }
}
