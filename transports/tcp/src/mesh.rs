//! Which processes are connected: connections are dialled, accepted, greeted, given up and made again.
//!
//! A mesh in which both ends dial has two connections a pair and must agree, without a message, which connection ends.
//! Here a process dials the peers it is configured to dial: of two members the member of higher rank dials the other,
//! and a process that is no member dials all members, so that a pair has one connection by construction. Should two
//! dial each other all the same, or one come again before the other has noticed that it went, there is a rule that both
//! ends compute alike ([`Mesh::greet`]):
//!
//! - of two connections dialled by different ends, the one dialled by the greater address stays;
//! - of two dialled by one end, the newer stays: its end knows best that the other is done for.
//!
//! Nothing here waits. A dial that fails is due again after a pause that doubles; a connection that takes too long to
//! be made or greeted ends; all of that happens when the caller calls `upkeep`, and `next_due` gives the time for that
//! call.
//!
//! Invariants:
//! - One greeted connection for an address, whichever end dialled.
//! - At most [`CONNECTIONS_MAX`] that are greeted or dialled, and [`STRANGERS_MAX`] others.
//! - A place is used again only when the kernel has no request on it any more.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use bourdon_port::PortError;
use socket2::Socket;

use crate::connection::{Connection, Origin};
use crate::frame::{HELLO_BYTES, Hello};
use crate::options::{
    CONNECT_MAX, CONNECTIONS_MAX, ERRANDS_MAX, HELLO_MAX, OPEN_MAX, RETRY_GREETED_MAX, RETRY_MAX, RETRY_MIN,
    STRANGERS_MAX, TcpOptions,
};
use crate::socket;

/// A peer that we dial.
#[derive(Debug)]
struct Dial {
    address: SocketAddr,
    /// The address in its last hello, if that differs.
    known_as: Option<SocketAddr>,
    place: Option<usize>,
    /// Dialled because something was sent there, not because it is configured.
    is_errand: bool,
    next: Instant,
    retry: Duration,
}

/// All connections, by place.
#[derive(Debug)]
pub(crate) struct Mesh {
    pub(crate) listener: Socket,
    pub(crate) local: SocketAddr,
    pub(crate) places: Vec<Option<Box<Connection>>>,
    token: u64,
    hello: [u8; HELLO_BYTES],
    dials: Vec<Dial>,
    datagram_max_bytes: usize,
    /// When `upkeep` has something to do; none while all is well.
    next_due: Option<Instant>,
    /// Connections of which no hello has come.
    ungreeted: usize,
}

impl Mesh {
    /// Listens and begins to dial; waits a moment for the first connections.
    pub(crate) fn open(options: &TcpOptions) -> Result<Self, PortError> {
        let mut mesh = Self::begin(options)?;
        let until = Instant::now() + OPEN_MAX;
        loop {
            mesh.flush();
            let left = until.saturating_duration_since(Instant::now());
            let waits = |it: &&Connection| it.has_outgoing() && !it.is_broken;
            if left.is_zero() || !mesh.connections().any(|it| waits(&it)) {
                return Ok(mesh);
            }
            crate::connection::wait_writable(mesh.connections().filter(waits), left);
            mesh.connections_mut().for_each(|it| it.is_writable = true);
        }
    }

    /// Listens and begins to dial.
    pub(crate) fn begin(options: &TcpOptions) -> Result<Self, PortError> {
        let (listener, local) = socket::listen(options.listen)?;
        let now = Instant::now();
        let dial = |address| Dial::new(address, false, now);
        let mut mesh = Self {
            listener,
            local,
            places: Vec::new(),
            token: options.token,
            hello: Hello { token: options.token, address: local }.to_bytes(),
            dials: options.dial.iter().copied().filter(|address| *address != local).map(dial).collect(),
            datagram_max_bytes: options.datagram_max_bytes,
            next_due: Some(now),
            ungreeted: 0,
        };
        mesh.upkeep();
        Ok(mesh)
    }

    pub(crate) fn connections(&self) -> impl Iterator<Item = &Connection> {
        self.places.iter().flatten().map(|it| &**it)
    }

    pub(crate) fn connections_mut(&mut self) -> impl Iterator<Item = &mut Connection> {
        self.places.iter_mut().flatten().map(|it| &mut **it)
    }

    /// Gives the kernel what waits, on each connection that takes some.
    pub(crate) fn flush(&mut self) {
        for connection in self.connections_mut() {
            connection.flush();
        }
    }

    /// Takes in a connection that another process made to us. One too many ends the oldest stranger.
    pub(crate) fn admit(&mut self, accepted: OwnedFd) {
        let socket = Socket::from(accepted);
        if socket::set_up(&socket).is_err() {
            return; // it has ended already
        }
        if self.strangers() >= STRANGERS_MAX {
            let strangers = self.connections_mut().filter(|it| is_stranger(it));
            if let Some(oldest) = strangers.min_by_key(|it| it.since) {
                oldest.is_broken = true;
            }
        }
        self.insert(socket, Origin::Accepted);
    }

    /// Connections made to us whose other end has sent no hello.
    pub(crate) fn strangers(&self) -> usize {
        self.connections().filter(|it| is_stranger(it)).count()
    }

    fn insert(&mut self, socket: Socket, origin: Origin) -> usize {
        let connection = Box::new(Connection::new(socket, origin, &self.hello, self.datagram_max_bytes));
        self.ungreeted += 1;
        let deadline = connection.since + HELLO_MAX;
        self.due_by(deadline);
        match self.places.iter().position(Option::is_none) {
            Some(place) => {
                self.places[place] = Some(connection);
                place
            }
            None => {
                self.places.push(Some(connection));
                self.places.len() - 1
            }
        }
    }

    fn due_by(&mut self, at: Instant) {
        self.next_due = Some(self.next_due.map_or(at, |due| due.min(at)));
    }

    /// How many connections a newcomer would be one too many for.
    fn is_full(&self) -> bool {
        self.connections().filter(|it| it.address.is_some() && !it.is_broken).count() >= CONNECTIONS_MAX
    }

    /// Reads the hellos that have come. `reads`: whether to ask the sockets for them.
    pub(crate) fn greet_all(&mut self, reads: bool) {
        if self.ungreeted == 0 {
            return;
        }
        for place in 0..self.places.len() {
            let Some(connection) = self.places[place].as_deref_mut() else { continue };
            if connection.is_greeted || connection.is_broken {
                continue;
            }
            while reads && connection.pending().len() < HELLO_BYTES && connection.fill() {}
            if connection.pending().len() >= HELLO_BYTES {
                self.greet(place);
            }
        }
    }

    /// A whole hello has come at this place: learns the peer's identity, and lets one connection for it stay.
    fn greet(&mut self, place: usize) {
        let is_full = self.is_full();
        let (local, token) = (self.local, self.token);
        let Some(connection) = self.places[place].as_deref_mut() else { return };
        let hello = Hello::parse(connection.pending());
        let is_new = connection.address.is_none();
        let Some(hello) = hello.filter(|hello| hello.address != local && !(is_full && is_new)) else {
            connection.is_broken = true;
            return;
        };
        connection.skip(HELLO_BYTES);
        connection.address = Some(hello.address);
        connection.in_group = hello.token == token;
        connection.is_greeted = true;
        self.ungreeted -= 1;
        if let Origin::Dialled(dial) = connection.origin {
            self.dials[dial].known_as = Some(hello.address);
        }
        let (origin, since) = (connection.origin, connection.since);
        let we_dialled = |origin| matches!(origin, Origin::Dialled(_));
        let others = (0..self.places.len()).filter(|other| *other != place);
        let same = |other: &usize| {
            self.places[*other].as_ref().is_some_and(|it| it.address == Some(hello.address) && !it.is_broken)
        };
        let Some(other) = { others }.find(same) else { return };
        let Some(rival) = self.places[other].as_deref_mut() else { return };
        let stays = if we_dialled(origin) == we_dialled(rival.origin) {
            since >= rival.since
        } else {
            we_dialled(origin) == local_wins(local, hello.address)
        };
        if stays {
            rival.is_broken = true;
        } else if let Some(loser) = self.places[place].as_deref_mut() {
            loser.is_broken = true;
        }
    }

    /// The open or beginning connection with this process; dials it if there is none.
    pub(crate) fn peer(&mut self, address: SocketAddr) -> Option<&mut Connection> {
        let place = self
            .places
            .iter()
            .position(|it| it.as_ref().is_some_and(|it| it.address == Some(address) && !it.is_broken));
        let place = place.or_else(|| self.run_errand(address))?;
        self.places[place].as_deref_mut()
    }

    /// Dials a process that is not configured, if it may be tried again yet.
    fn run_errand(&mut self, address: SocketAddr) -> Option<usize> {
        if address == self.local || address.port() == 0 || address.is_ipv4() != self.local.is_ipv4() {
            return None;
        }
        let now = Instant::now();
        let known = |dial: &Dial| dial.address == address || dial.known_as == Some(address);
        let dial = match self.dials.iter().position(known) {
            Some(dial) => dial,
            None if self.dials.iter().filter(|dial| dial.is_errand).count() < ERRANDS_MAX => {
                self.dials.push(Dial::new(address, true, now));
                self.dials.len() - 1
            }
            None => {
                let free = self.dials.iter().position(|dial| dial.is_errand && dial.place.is_none())?;
                self.dials[free] = Dial::new(address, true, now);
                free
            }
        };
        if self.dials[dial].next > now {
            return None;
        }
        self.dial(dial, now);
        self.dials[dial].place
    }

    fn dial(&mut self, index: usize, now: Instant) {
        let dial = &mut self.dials[index];
        let address = dial.address;
        dial.next = now + dial.retry;
        dial.retry = (2 * dial.retry).min(RETRY_MAX);
        let is_errand = dial.is_errand;
        // Refused at once, or no way there: tried again when due.
        let Ok(socket) = socket::dial(self.local, address) else { return };
        let place = self.insert(socket, Origin::Dialled(index));
        self.dials[index].place = Some(place);
        if let Some(connection) = self.places[place].as_deref_mut() {
            connection.address = Some(address);
            connection.in_group = !is_errand;
        }
    }

    /// When `upkeep` is due next.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        self.next_due
    }

    /// Ends what takes too long, and dials the peers that are due.
    pub(crate) fn upkeep(&mut self) {
        let Some(due) = self.next_due else { return };
        let now = Instant::now();
        if now < due {
            return;
        }
        self.next_due = None;
        let mut dues = Vec::new();
        for connection in self.connections_mut().filter(|it| !it.is_greeted && !it.is_broken) {
            let longest = if connection.origin == Origin::Accepted { HELLO_MAX } else { CONNECT_MAX.max(HELLO_MAX) };
            let end = connection.since + longest;
            connection.is_broken = end <= now;
            dues.push(end.max(now));
        }
        for index in 0..self.dials.len() {
            let dial = &self.dials[index];
            if dial.is_errand || dial.place.is_some() || self.is_reached(dial) {
                continue;
            }
            if dial.next <= now {
                self.dial(index, now);
            }
            dues.push(self.dials[index].next);
        }
        dues.into_iter().for_each(|at| self.due_by(at));
    }

    /// Whether that process has connected with us by itself.
    fn is_reached(&self, dial: &Dial) -> bool {
        self.connections().any(|it| {
            it.is_greeted && !it.is_broken && (it.address == Some(dial.address) || it.address == dial.known_as)
        })
    }

    /// Removes what has ended, as far as `may_go` lets each. Returns whether something is left that has ended.
    pub(crate) fn sweep(&mut self, mut may_go: impl FnMut(usize, &mut Connection) -> bool) {
        for place in 0..self.places.len() {
            let Some(connection) = self.places[place].as_deref_mut().filter(|it| it.is_broken) else { continue };
            let address = connection.address.take();
            if let Origin::Dialled(index) = connection.origin
                && self.dials[index].place == Some(place)
            {
                let (dial, now) = (&mut self.dials[index], Instant::now());
                dial.place = None;
                // One that held was good: it is tried at once. One that did not waits longer each time.
                if connection.is_greeted && now.saturating_duration_since(connection.since) > RETRY_MAX {
                    (dial.retry, dial.next) = (RETRY_MIN, now);
                } else if connection.is_greeted {
                    dial.retry = dial.retry.min(RETRY_GREETED_MAX);
                    dial.next = dial.next.min(now + RETRY_GREETED_MAX);
                }
            }
            if !connection.is_greeted {
                connection.is_greeted = true;
                self.ungreeted -= 1;
            }
            if may_go(place, connection) {
                self.places[place] = None;
            }
            // A peer that dialled us may be a peer that we dial, too.
            if address.is_some() {
                self.due_by(Instant::now());
            }
        }
    }
}

impl Dial {
    fn new(address: SocketAddr, is_errand: bool, now: Instant) -> Self {
        Self { address, known_as: None, place: None, is_errand, next: now, retry: RETRY_MIN }
    }
}

fn is_stranger(connection: &Connection) -> bool {
    !connection.is_greeted && connection.origin == Origin::Accepted && !connection.is_broken
}

/// Of two ends that dialled each other, whether ours keeps its connection.
fn local_wins(local: SocketAddr, peer: SocketAddr) -> bool {
    local > peer
}
