//! ZeroMQ over TCP on the loopback interface: XPUB and SUB one way, a PAIR for round trips.
//!
//! The library sends and receives in a thread of its own, which shares the core of the end that it belongs to: an end
//! that spins would only keep it from its work, so it yields instead, whatever `--idle` is.

use crate::PATIENCE;
use crate::window::{Progress, Window};
use bourdon::settings::Flow;
use bourdon_bench::worker::{self, WorkerKind};
use bourdon_bench::{Failure, Idle, Link, Spec};
use std::time::Instant;
use zmq::{Context, DONTWAIT, Message, Socket, SocketType};

/// Messages that one poll takes at most.
const POLL_LIMIT: usize = 256;
/// What the two ends of a pair exchange to learn that they are connected.
const HELLO: &[u8] = b"hello";

/// One end.
pub(crate) struct Zeromq {
    data: Socket,
    /// Reports of receivers: their way to the publisher.
    reports: Option<Socket>,
    window: Option<Window>,
    progress: Option<Progress>,
    message: Message,
    sends: bool,
    receives: bool,
    _context: Context,
}

fn unusable(doing: &'static str) -> impl Fn(zmq::Error) -> Failure {
    move |error| Failure::Unusable(format!("zeromq: {doing}: {error}"))
}

fn broken(error: zmq::Error) -> Failure {
    Failure::Broken(format!("zeromq: {error}"))
}

/// A socket that lingers no message when it is closed.
fn socket(context: &Context, kind: SocketType, hwm: i32) -> Result<Socket, Failure> {
    let make = || -> zmq::Result<Socket> {
        let socket = context.socket(kind)?;
        socket.set_linger(0)?;
        socket.set_sndhwm(hwm)?;
        socket.set_rcvhwm(hwm)?;
        Ok(socket)
    };
    make().map_err(unusable("no socket"))
}

/// Opens an end and waits until it is connected.
pub(crate) fn open(spec: &Spec) -> Result<Zeromq, Failure> {
    let context = Context::new();
    let address = |index: u16| format!("tcp://127.0.0.1:{}", spec.address.port() + index);
    let gated = spec.flow == Flow::Gating;
    // A publisher that waits for its receivers must never meet the limit at which ZeroMQ drops.
    let hwm =
        if gated && !spec.role.replies() { 0 } else { (spec.window_bytes / spec.size_bytes.max(1)).max(2) as i32 };
    let (kind, bind) = match spec.role {
        WorkerKind::Publisher => (zmq::XPUB, true),
        WorkerKind::Receiver => (zmq::SUB, false),
        role => (zmq::PAIR, role.is_near()),
    };
    let data = socket(&context, kind, hwm)?;
    if kind == zmq::XPUB {
        // Else it reports only the first of several equal subscriptions.
        data.set_xpub_verbose(true).map_err(unusable("no reports of subscriptions"))?;
    }
    let reports = if spec.role.replies() || !gated {
        None
    } else {
        Some(socket(&context, if bind { zmq::PULL } else { zmq::PUSH }, 0)?)
    };
    for (socket, address) in [(Some(&data), address(0)), (reports.as_ref(), address(1))] {
        let Some(socket) = socket else { continue };
        let bound = if bind { socket.bind(&address) } else { socket.connect(&address) };
        bound.map_err(|error| Failure::Unusable(format!("zeromq: {address}: {error}")))?;
    }
    let (window, progress) = match (spec.role, gated) {
        (WorkerKind::Publisher, true) => (Some(Window::new(spec.window_bytes, spec.size_bytes)), None),
        (WorkerKind::Receiver, true) => (None, Some(Progress::new(spec.window_bytes, spec.size_bytes))),
        _ => (None, None),
    };
    let (sends, receives) = (spec.role != WorkerKind::Receiver, spec.role != WorkerKind::Publisher);
    let mut end =
        Zeromq { data, reports, window, progress, message: Message::new(), sends, receives, _context: context };
    match spec.role {
        WorkerKind::Publisher => end.wait_for_receivers(usize::from(spec.receivers))?,
        WorkerKind::Receiver => end.subscribe()?,
        _ => end.greet(bind)?,
    }
    let (major, minor, patch) = zmq::version();
    worker::describe(serde_json::json!({
        "version": format!("{major}.{minor}.{patch}"),
        "sockets": if spec.role.replies() { "pair" } else { "xpub, sub" },
        "over": "tcp",
        "idle": "yield",
    }));
    Ok(end)
}

impl Zeromq {
    /// Receives into `message`, if there is one.
    fn receive(socket: &Socket, message: &mut Message) -> Result<bool, Failure> {
        match socket.recv(message, DONTWAIT) {
            Ok(()) => Ok(true),
            Err(zmq::Error::EAGAIN) => Ok(false),
            Err(error) => Err(broken(error)),
        }
    }

    fn send(socket: &Socket, message: &[u8]) -> Result<bool, Failure> {
        match socket.send(message, DONTWAIT) {
            Ok(()) => Ok(true),
            Err(zmq::Error::EAGAIN) => Ok(false),
            Err(error) => Err(broken(error)),
        }
    }

    fn subscribe(&mut self) -> Result<(), Failure> {
        self.data.set_subscribe(b"").map_err(unusable("can't subscribe"))?;
        if let (Some(reports), Some(progress)) = (&self.reports, &mut self.progress) {
            Self::send(reports, &progress.report())?;
        }
        Ok(())
    }

    /// Waits until all have subscribed, and, if the publisher waits for them, reported once.
    fn wait_for_receivers(&mut self, receivers: usize) -> Result<(), Failure> {
        let (deadline, mut subscribed) = (Instant::now() + PATIENCE, 0);
        while subscribed < receivers || self.window.as_ref().is_some_and(|window| window.receivers() < receivers) {
            // An XPUB socket receives a 1 for each subscription.
            if Self::receive(&self.data, &mut self.message)? {
                subscribed += usize::from(self.message.first() == Some(&1));
            }
            self.take_reports()?;
            if Instant::now() > deadline {
                return Err(Failure::Unusable(format!(
                    "zeromq: {subscribed} of {receivers} receivers came within 10 s"
                )));
            }
            std::thread::yield_now();
        }
        Ok(())
    }

    /// The two ends of a pair greet each other.
    fn greet(&mut self, near: bool) -> Result<(), Failure> {
        let (deadline, mut greeted) = (Instant::now() + PATIENCE, near);
        loop {
            greeted = greeted || Self::send(&self.data, HELLO)?;
            if greeted && Self::receive(&self.data, &mut self.message)? {
                return if near { Self::send(&self.data, HELLO).map(|_| ()) } else { Ok(()) };
            }
            if Instant::now() > deadline {
                return Err(Failure::Unusable("zeromq: the other end did not connect within 10 s".into()));
            }
            std::thread::yield_now();
        }
    }

    fn take_reports(&mut self) -> Result<(), Failure> {
        if let (Some(reports), Some(window)) = (&self.reports, &mut self.window) {
            while Self::receive(reports, &mut self.message)? {
                window.on_report(&self.message);
            }
        }
        Ok(())
    }
}

impl Link for Zeromq {
    fn try_send(&mut self, message: &[u8]) -> Result<bool, Failure> {
        assert!(self.sends, "only an end that sends is given messages");
        if self.window.as_ref().is_some_and(|window| !window.has_room()) {
            self.take_reports()?;
            return Ok(false);
        }
        let sent = Self::send(&self.data, message)?;
        if let Some(window) = self.window.as_mut().filter(|_| sent) {
            window.count_sent();
        }
        Ok(sent)
    }

    fn poll(&mut self, mut on_message: impl FnMut(&[u8])) -> Result<usize, Failure> {
        self.take_reports()?;
        let mut count = 0;
        while self.receives && count < POLL_LIMIT && Self::receive(&self.data, &mut self.message)? {
            on_message(&self.message);
            count += 1;
        }
        if let (Some(reports), Some(progress)) = (&self.reports, &mut self.progress)
            && let Some(report) = progress.count(count)
        {
            Self::send(reports, &report)?;
        }
        Ok(count)
    }

    fn wait(&mut self, _: Idle) -> Result<(), Failure> {
        std::thread::yield_now();
        Ok(())
    }
}
