//! Aeron: the C client, and the C driver in the same thread.
//!
//! Aeron's lowest latency on a host with few cores is its invoker mode: the application's own thread runs the driver's
//! duty cycle (`AERON_THREADING_MODE_INVOKER`) and the client's, between its sends and its polls, and no message is
//! handed from thread to thread. That is also how Bourdon runs inline. Over UDP each process has a driver of its own,
//! as two hosts would; over IPC the near end's driver serves all.
//!
//! Terms are allocated at once (not sparse), as Bourdon's logs are. `fc=min` with the size of the group makes the
//! publisher wait for all receivers from the first message on; with another `--flow` it is `fc=max`, and a slow
//! receiver loses messages.

use crate::PATIENCE;
use crate::cleaner::{self, Cleaner};
use bourdon::settings::Flow;
use bourdon_bench::worker::{self, WorkerKind};
use bourdon_bench::{Failure, Link, Peer, Spec};
use rusteron_media_driver::{
    Aeron as Client, AeronCError, AeronContext, AeronDriver, AeronDriverContext, AeronExclusivePublication,
    AeronFragmentClosureAssembler, AeronHeader, AeronOfferError, AeronSubscription, Handlers,
    bindings::aeron_threading_mode_enum,
};
use std::ffi::CString;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Instant;

const STREAM: i32 = 1001;
/// Bytes of a term; a log has three.
const TERM_BYTES: usize = 64 << 20;
/// Datagrams that one duty cycle sends, and receives with one system call: Aeron's default of 4 costs throughput.
const DATAGRAMS_PER_CALL: u32 = 16;
/// What a message takes in a term besides its own bytes.
const HEADER_BYTES: usize = 32;
/// Fragments that one poll takes at most.
const FRAGMENTS: usize = 256;
/// The client's duty cycle keeps it alive and notices new images; it need not run as often as the driver's.
const TURNS_PER_CLIENT_TURN: u32 = 64;

/// One end. The fields are dropped in this order: what the client made, the client, the driver, the files.
pub(crate) struct Aeron {
    publication: Option<AeronExclusivePublication>,
    subscription: Option<AeronSubscription>,
    assembler: AeronFragmentClosureAssembler,
    client: Client,
    driver: Option<AeronDriver>,
    /// Bytes offered since the driver last ran.
    offered_bytes: usize,
    /// Bytes that one duty cycle sends.
    burst_bytes: usize,
    turns: u32,
    _files: Option<Cleaner>,
}

fn unusable(doing: &'static str) -> impl Fn(AeronCError) -> Failure {
    move |error| Failure::Unusable(format!("aeron: {doing}: {error}"))
}

fn broken(doing: &'static str) -> impl Fn(AeronCError) -> Failure {
    move |error| Failure::Broken(format!("aeron: {doing}: {error}"))
}

fn c_string(text: &str) -> CString {
    CString::new(text).expect("paths and channels hold no zero byte")
}

/// The address of a group whose last byte is odd: Aeron receives status messages on the group after it.
fn odd(address: SocketAddr, back: bool) -> SocketAddr {
    let SocketAddr::V4(mut address) = address else { unreachable!("the bench chooses IPv4 groups") };
    let [a, b, c, d] = address.ip().octets();
    address.set_ip(Ipv4Addr::new(a, b, c, (d | 1) + if back { 2 } else { 0 }));
    address.into()
}

/// The channel of one direction.
fn channel(spec: &Spec, back: bool) -> String {
    if spec.peer == Some(Peer::AeronIpc) {
        return "aeron:ipc".into(); // the stream distinguishes the directions
    }
    let receivers = if spec.role.replies() { 1 } else { spec.receivers };
    let flow = if spec.flow == Flow::Gating { format!("min,g:/{receivers}") } else { "max".to_owned() };
    format!("aeron:udp?endpoint={}|interface=127.0.0.1|fc={flow}", odd(spec.address, back))
}

/// What a publisher may be ahead of a receiver. A datagram takes more of a socket's buffer than its own bytes, about
/// 2,300 for 1,408, so that only half a buffer can be announced and never overflow.
fn window_bytes(spec: &Spec) -> usize {
    spec.window_bytes as usize / 2
}

/// Starts a driver that this thread invokes.
fn driver(spec: &Spec, folder: &str) -> Result<AeronDriver, Failure> {
    let configure = || -> Result<AeronDriver, AeronCError> {
        let context = AeronDriverContext::new()?;
        context.set_dir(&c_string(folder))?;
        context.set_dir_delete_on_start(true)?;
        context.set_dir_delete_on_shutdown(true)?;
        context.set_threading_mode(aeron_threading_mode_enum::AERON_THREADING_MODE_INVOKER)?;
        context.set_mtu_length(spec.mtu_bytes as usize)?;
        context.set_term_buffer_length(TERM_BYTES)?;
        context.set_ipc_term_buffer_length(TERM_BYTES)?;
        context.set_term_buffer_sparse_file(false)?;
        context.set_perform_storage_checks(false)?;
        context.set_socket_so_rcvbuf(spec.window_bytes as usize)?;
        context.set_socket_so_sndbuf(spec.window_bytes as usize)?;
        context.set_rcv_initial_window_length(window_bytes(spec))?;
        context.set_sender_io_vector_capacity(DATAGRAMS_PER_CALL)?;
        context.set_receiver_io_vector_capacity(DATAGRAMS_PER_CALL)?;
        context.set_network_publication_max_messages_per_send(DATAGRAMS_PER_CALL)?;
        let driver = AeronDriver::new(&context)?;
        driver.start(true)?;
        driver.main_do_work()?;
        Ok(driver)
    };
    configure().map_err(unusable("the driver does not start"))
}

/// A client that this thread invokes.
fn client(folder: &str) -> Result<Client, Failure> {
    let connect = || -> Result<Client, AeronCError> {
        let context = AeronContext::new()?;
        context.set_dir(&c_string(folder))?;
        context.set_use_conductor_agent_invoker(true)?;
        let client = Client::new(&context)?;
        client.start()?;
        Ok(client)
    };
    connect().map_err(unusable("the client does not reach the driver"))
}

/// Opens an end and waits until it is connected.
pub(crate) fn open(spec: &Spec) -> Result<Aeron, Failure> {
    let (near, ipc) = (spec.role.is_near(), spec.peer == Some(Peer::AeronIpc));
    // One driver for all processes over IPC, and one in each over UDP.
    let owner = if ipc { "ipc".to_owned() } else { std::process::id().to_string() };
    let name = format!("{}-aeron-{owner}-", spec.group);
    let files = (!ipc || near).then(|| Cleaner::start(&name)).transpose()?;
    let folder = cleaner::path(&format!("{name}driver")).display().to_string();
    let driver = files.is_some().then(|| driver(spec, &folder)).transpose()?;
    let mut end = Aeron {
        publication: None,
        subscription: None,
        assembler: AeronFragmentClosureAssembler::new().map_err(unusable("no memory for fragments"))?,
        client: client(&folder)?,
        driver,
        offered_bytes: 0,
        burst_bytes: spec.mtu_bytes as usize * DATAGRAMS_PER_CALL as usize,
        turns: 0,
        _files: files,
    };
    end.connect(spec)?;
    worker::describe(serde_json::json!({
        "version": Client::version_text(),
        "driver": if ipc { "invoked by the near end" } else { "invoked by each end" },
        "term_bytes": TERM_BYTES,
        "receive_window_bytes": window_bytes(spec),
        "flow": if spec.flow == Flow::Gating { "min" } else { "max" },
        "datagrams_per_call": DATAGRAMS_PER_CALL,
    }));
    Ok(end)
}

impl Aeron {
    /// Publishes and subscribes, as the role requires, and waits for the other ends.
    fn connect(&mut self, spec: &Spec) -> Result<(), Failure> {
        let near = spec.role.is_near();
        // The near end's messages go there, the far end's go back.
        let (outward, inward) = (!near, near);
        if spec.role != WorkerKind::Publisher {
            let channel = c_string(&channel(spec, inward));
            let stream = STREAM + i32::from(inward);
            let request = self.client.async_add_subscription(&channel, stream, Handlers::NONE, Handlers::NONE);
            let request = request.map_err(unusable("can't subscribe"))?;
            self.subscription = Some(self.wait_for("no subscription within 10 s", |_| request.poll())?);
        }
        if spec.role != WorkerKind::Receiver {
            let channel = c_string(&channel(spec, outward));
            let request = self.client.async_add_exclusive_publication(&channel, STREAM + i32::from(outward));
            let request = request.map_err(unusable("can't publish"))?;
            self.publication = Some(self.wait_for("no publication within 10 s", |_| request.poll())?);
        }
        self.wait_for("the other end was not heard within 10 s: does multicast work on lo?", |end| {
            let publishes = end.publication.as_ref().is_none_or(AeronExclusivePublication::is_connected);
            let receives = end.subscription.as_ref().is_none_or(AeronSubscription::is_connected);
            Ok((publishes && receives).then_some(()))
        })
    }

    /// One duty cycle: the driver sends and receives.
    fn work(&mut self) -> Result<(), Failure> {
        self.offered_bytes = 0;
        if let Some(driver) = &self.driver {
            driver.main_do_work().map_err(broken("the driver failed"))?;
        }
        self.turns += 1;
        if self.turns == TURNS_PER_CLIENT_TURN {
            self.turns = 0;
            self.client.main_do_work().map_err(broken("the client failed"))?;
        }
        Ok(())
    }

    /// Works until something has come about.
    fn wait_for<T>(
        &mut self,
        or_else: &'static str,
        mut poll: impl FnMut(&Self) -> Result<Option<T>, AeronCError>,
    ) -> Result<T, Failure> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            self.work()?;
            if let Some(found) = poll(self).map_err(unusable(or_else))? {
                return Ok(found);
            }
            if Instant::now() > deadline {
                return Err(Failure::Unusable(format!("aeron: {or_else}")));
            }
        }
    }
}

impl Link for Aeron {
    fn try_send(&mut self, message: &[u8]) -> Result<bool, Failure> {
        let publication = self.publication.as_ref().expect("only an end that sends is given messages");
        match publication.offer(message) {
            Ok(_) => {
                self.offered_bytes += message.len() + HEADER_BYTES;
                // The driver sends while the messages are still in the cache.
                if self.offered_bytes >= self.burst_bytes {
                    self.work()?;
                }
                Ok(true)
            }
            Err(AeronOfferError::BackPressured | AeronOfferError::AdminAction) => {
                self.work()?;
                Ok(false)
            }
            Err(AeronOfferError::NotConnected) => Err(Failure::Broken("aeron: the receivers are gone".into())),
            Err(error) => Err(Failure::Broken(format!("aeron: a message was refused: {error:?}"))),
        }
    }

    fn poll(&mut self, on_message: impl FnMut(&[u8])) -> Result<usize, Failure> {
        self.work()?;
        let Some(subscription) = &self.subscription else { return Ok(0) };
        let mut state = (on_message, 0);
        let polled = self.assembler.poll(subscription, &mut state, deliver, FRAGMENTS);
        polled.map_err(broken("polling failed"))?;
        Ok(state.1)
    }

    fn flush(&mut self) -> Result<(), Failure> {
        self.work()
    }
}

/// Passes a message on and counts it.
fn deliver<F: FnMut(&[u8])>((on_message, count): &mut (F, usize), message: &[u8], _: AeronHeader) {
    on_message(message);
    *count += 1;
}
