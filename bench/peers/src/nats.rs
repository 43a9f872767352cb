//! NATS: a server between the ends, one TCP connection to each.
//!
//! The near end starts the server (`nats-server`, on the path) and ends it. The protocol is lines and counted bytes, so
//! it is spoken here; a client library would add its tasks and channels to the measurement. What an end sends is
//! gathered until it flushes, or until there is enough for one write.
//!
//! The server needs a core too: an end that spins takes it away, so it yields instead, whatever `--idle` is.

use crate::PATIENCE;
use crate::cleaner::{self, Cleaner};
use crate::window::{Progress, Window};
use bourdon::settings::Flow;
use bourdon_bench::server::{self, Server};
use bourdon_bench::worker::{self, WorkerKind};
use bourdon_bench::{Failure, Idle, Link, Spec};
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

pub(crate) const PROGRAM: &str = "nats-server";
/// Bytes that are gathered before they are written.
const GATHER_BYTES: usize = 64 << 10;
/// Bytes that wait to be written before a message is refused.
const UNSENT_MAX: usize = 1 << 20;
/// How long to wait before connecting again.
const RETRY: Duration = Duration::from_millis(5);
/// The server's limits: the bench's largest message, and more than a window behind a receiver.
const LIMITS: &str = "max_payload: 2097152\nmax_pending: 268435456\nwrite_deadline: \"30s\"\n";
/// A receiver that has no message yet reports this often.
const REPORT_AGAIN: Duration = Duration::from_millis(10);
/// The subject of reports.
const REPORTS: &str = "reports";

/// One end.
pub(crate) struct Nats {
    connection: Connection,
    subject: String,
    window: Option<Window>,
    progress: Option<Progress>,
    /// When a receiver that waits for the first message reports again.
    report_at: Instant,
    /// The server ends before its files are removed.
    _server: Option<(Server, Cleaner)>,
}

pub(crate) fn broken(why: impl std::fmt::Display) -> Failure {
    Failure::Broken(format!("nats: {why}"))
}

/// Starts the server.
fn start(spec: &Spec) -> Result<(Server, Cleaner), Failure> {
    let cleaner = Cleaner::start(&format!("{}-nats-", spec.group))?;
    let file = |name: &str| cleaner::path(&format!("{}-nats-{name}", spec.group));
    std::fs::write(file("conf"), LIMITS).map_err(|error| Failure::Unusable(format!("nats: no settings: {error}")))?;
    let (port, settings) = (spec.address.port().to_string(), file("conf").display().to_string());
    let words = ["--addr", "127.0.0.1", "--port", &port, "--config", &settings];
    let arguments: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
    let server = Server::start(PROGRAM, &arguments, "NATS_", &file("log"))?;
    Ok((server, cleaner))
}

/// The version of the server, if it is installed.
pub(crate) fn installed() -> Result<String, Failure> {
    let missing = || Failure::Unusable("nats-server is not installed: apt-get install nats-server".into());
    server::version(PROGRAM).ok_or_else(missing)
}

/// Opens an end and waits until it is connected.
pub(crate) fn open(spec: &Spec) -> Result<Nats, Failure> {
    // Each end checks, so that none reports only that another one is missing.
    let version = installed()?;
    let near = spec.role.is_near();
    let mut server = near.then(|| start(spec)).transpose()?;
    let deadline = Instant::now() + PATIENCE;
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, spec.address.port()));
    let connection = loop {
        match Connection::open(address) {
            Ok(connection) => break connection,
            Err(failure) => {
                let dead = server.as_mut().is_some_and(|(server, _)| !server.runs());
                if dead || Instant::now() > deadline {
                    let (Failure::Unusable(why) | Failure::Broken(why)) = failure;
                    let why = format!("no connection to {address}: {why}");
                    return Err(server.map_or_else(|| broken(&why), |(server, _)| server.broken(&why)));
                }
                std::thread::sleep(RETRY);
            }
        }
    };
    let (outward, inward) = if near { ("there", "back") } else { ("back", "there") };
    let gated = spec.flow == Flow::Gating;
    let mut end = Nats {
        connection,
        subject: outward.into(),
        window: None,
        progress: None,
        report_at: Instant::now(),
        _server: server,
    };
    let inward = if spec.role == WorkerKind::Publisher { REPORTS } else { inward };
    end.connection.send(format!("SUB {inward} 1\r\nPING\r\n").as_bytes());
    end.wait_until(deadline, "the server did not answer", |end| end.connection.pongs > 0)?;
    match spec.role {
        WorkerKind::Publisher if gated => {
            end.window = Some(Window::new(spec.window_bytes, spec.size_bytes));
            let receivers = usize::from(spec.receivers);
            end.wait_until(deadline, "a receiver did not report", |end| {
                end.window.as_ref().is_some_and(|window| window.receivers() >= receivers)
            })?;
        }
        WorkerKind::Receiver if gated => end.progress = Some(Progress::new(spec.window_bytes, spec.size_bytes)),
        _ => {}
    }
    worker::describe(serde_json::json!({ "version": version.trim(), "over": "tcp", "idle": "yield" }));
    Ok(end)
}

impl Nats {
    fn wait_until(
        &mut self,
        deadline: Instant,
        or_else: &'static str,
        mut done: impl FnMut(&Self) -> bool,
    ) -> Result<(), Failure> {
        while !done(self) {
            self.poll(|_| {})?;
            if Instant::now() > deadline {
                return Err(Failure::Unusable(format!("nats: {or_else} within 10 s")));
            }
            std::thread::yield_now();
        }
        Ok(())
    }
}

impl Link for Nats {
    fn try_send(&mut self, message: &[u8]) -> Result<bool, Failure> {
        if self.window.as_ref().is_some_and(|window| !window.has_room()) {
            self.poll(|_| {})?;
            return Ok(false);
        }
        if self.connection.is_full()? {
            return Ok(false);
        }
        self.connection.publish(&self.subject, message);
        if let Some(window) = &mut self.window {
            window.count_sent();
        }
        Ok(true)
    }

    fn poll(&mut self, mut on_message: impl FnMut(&[u8])) -> Result<usize, Failure> {
        self.connection.write()?;
        let window = &mut self.window;
        let mut count = 0;
        self.connection.read(|_, message| match window {
            Some(window) => window.on_report(message),
            None => {
                on_message(message);
                count += 1;
            }
        })?;
        if let Some(progress) = &mut self.progress {
            let mut report = progress.count(count);
            // The publisher waits for a report of each receiver, and may not have subscribed to reports yet.
            if progress.is_empty() && Instant::now() >= self.report_at {
                self.report_at = Instant::now() + REPORT_AGAIN;
                report = Some(progress.report());
            }
            if let Some(report) = report {
                self.connection.publish(REPORTS, &report);
                self.connection.write()?;
            }
        }
        Ok(count)
    }

    fn flush(&mut self) -> Result<(), Failure> {
        self.connection.write()
    }

    fn wait(&mut self, _: Idle) -> Result<(), Failure> {
        std::thread::yield_now();
        Ok(())
    }
}

/// A connection to the server that never blocks.
pub(crate) struct Connection {
    stream: TcpStream,
    unsent: Vec<u8>,
    received: Vec<u8>,
    /// Answers to PING.
    pongs: u32,
}

impl Connection {
    pub(crate) fn open(address: SocketAddr) -> Result<Self, Failure> {
        let stream = TcpStream::connect(address).map_err(broken)?;
        stream.set_nodelay(true).and_then(|()| stream.set_nonblocking(true)).map_err(broken)?;
        let hello = b"CONNECT {\"verbose\":false,\"pedantic\":false,\"echo\":false}\r\n".to_vec();
        Ok(Self { stream, unsent: hello, received: Vec::new(), pongs: 0 })
    }

    /// Sends lines of the protocol, with the next write.
    pub(crate) fn send(&mut self, lines: &[u8]) {
        self.unsent.extend_from_slice(lines);
    }

    /// Sends a message to a subject, after which a space and a reply subject may stand.
    pub(crate) fn publish(&mut self, subject: &str, message: &[u8]) {
        // Formatting into the buffer cannot fail.
        let _ = write!(self.unsent, "PUB {subject} {}\r\n", message.len());
        self.unsent.extend_from_slice(message);
        self.unsent.extend_from_slice(b"\r\n");
    }

    /// Whether there is no room for another message, after a write if much has been gathered.
    pub(crate) fn is_full(&mut self) -> Result<bool, Failure> {
        if self.unsent.len() >= GATHER_BYTES {
            self.write()?;
        }
        Ok(self.unsent.len() >= UNSENT_MAX)
    }

    /// Waits until something has arrived, at most this long.
    pub(crate) fn wait(&mut self, longest: Duration) -> Result<(), Failure> {
        let stream = &self.stream;
        stream.set_read_timeout(Some(longest)).and_then(|()| stream.set_nonblocking(false)).map_err(broken)?;
        let _ = stream.peek(&mut [0]); // what it found, or why it failed, the next read finds again
        stream.set_nonblocking(true).map_err(broken)
    }

    /// Writes what the socket takes.
    pub(crate) fn write(&mut self) -> Result<(), Failure> {
        let mut written = 0;
        while written < self.unsent.len() {
            match self.stream.write(&self.unsent[written..]) {
                Ok(count) => written += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(broken(format_args!("the server is gone: {error}"))),
            }
        }
        self.unsent.drain(..written);
        Ok(())
    }

    /// Reads what has arrived, and passes on the messages in it, each with its subject.
    pub(crate) fn read(&mut self, mut on_message: impl FnMut(&[u8], &[u8])) -> Result<(), Failure> {
        let kept = self.received.len();
        self.received.resize(kept + GATHER_BYTES, 0);
        let count = match self.stream.read(&mut self.received[kept..]) {
            Ok(0) => return Err(broken("the server closed the connection: a receiver may have been too slow")),
            Ok(count) => count,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => 0,
            Err(error) => return Err(broken(format_args!("the server is gone: {error}"))),
        };
        self.received.truncate(kept + count);
        let mut parsed = 0;
        while let Some((length, event)) = parse(&self.received[parsed..])? {
            match event {
                Event::Message(subject, message) => on_message(subject, message),
                Event::Ping => self.unsent.extend_from_slice(b"PONG\r\n"),
                Event::Pong => self.pongs += 1,
                Event::Other => {}
            }
            parsed += length;
        }
        self.received.drain(..parsed);
        Ok(())
    }
}

/// What the server sent.
#[derive(Debug, PartialEq, Eq)]
enum Event<'a> {
    /// Its subject and its payload.
    Message(&'a [u8], &'a [u8]),
    Ping,
    Pong,
    Other,
}

/// The first event in these bytes and its length, if it is whole.
fn parse(bytes: &[u8]) -> Result<Option<(usize, Event<'_>)>, Failure> {
    let Some(end) = bytes.iter().position(|byte| *byte == b'\n') else { return Ok(None) };
    let line = bytes[..end].strip_suffix(b"\r").unwrap_or(&bytes[..end]);
    let begin = end + 1;
    let mut words = line.split(|byte| *byte == b' ');
    let event = match words.next().unwrap_or_default() {
        b"MSG" => {
            let subject = words.next().unwrap_or_default();
            let length = line.rsplit(|byte| *byte == b' ').next().unwrap_or_default();
            let length = std::str::from_utf8(length).ok().and_then(|length| length.parse::<usize>().ok());
            let length = length.ok_or_else(|| broken("the server sent a message without its length"))?;
            let whole = bytes.len() >= begin.saturating_add(length).saturating_add(2);
            return Ok(whole.then(|| (begin + length + 2, Event::Message(subject, &bytes[begin..begin + length]))));
        }
        b"PING" => Event::Ping,
        b"PONG" => Event::Pong,
        b"-ERR" => return Err(broken(String::from_utf8_lossy(line))),
        _ => Event::Other,
    };
    Ok(Some((begin, event)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_whole_or_none() {
        let stream = b"MSG there 1 4\r\na\r\nb\r\nPING\r\nMSG there 1 3\r\nabc\r";
        let first = parse(stream).ok().flatten().expect("it is whole");
        assert_eq!(first, (21, Event::Message(b"there", b"a\r\nb")));
        assert_eq!(parse(&stream[21..]).ok().flatten(), Some((6, Event::Ping)));
        assert!(matches!(parse(&stream[27..]), Ok(None)), "its last byte is missing");
        assert!(parse(b"-ERR 'Slow Consumer'\r\n").is_err());
        assert!(parse(b"MSG there 1 x\r\n").is_err());
    }
}
