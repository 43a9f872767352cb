//! Measures amplification: bytes that real nodes answer, on sockets, to a stranger's address, for bytes of questions.
//!
//! An answer to a question whose reply address is another host's is a flood that costs the sender of the question
//! nothing. A protocol test counts the answers that a process hands out; what arrives at a socket also depends on the
//! node around it. So here a group of three members and an observer runs on `lo`, has published, and is asked each kind
//! of question: each process by unicast, and all at once by multicast. Every question names the address of a socket
//! that has never sent anything. What arrives there is counted.
//!
//! The questions are the best that a stranger can make after reading the group's traffic: they name the view, a
//! member's rank and its incarnation.
//!
//! Results go to stdout, as a table or with `--json` as one JSON object; exit 1 if a kind is answered with more than
//! three bytes a byte.

mod questions;

use bourdon::id::{Rank, TopicId};
use bourdon::settings::{IdleStrategy, Role};
use bourdon::{Delivery, InlineNode, Settings, Topic};
use bourdon_wire::records::Heartbeat;
use bourdon_wire::{Datagram, GroupId, Kind};
use questions::{KINDS, Target};
use serde::Serialize;
use socket2::{Domain, Socket, Type};
use std::error::Error;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::process::ExitCode;
use std::time::{Duration, Instant};

const NAME: &str = "amplification";
const MEMBERS: u16 = 3;
/// Questions of each kind to each node: enough for every budget and table to fill.
const QUESTIONS: usize = 2_000;
/// Questions between two reads of the sockets.
const BATCH: usize = 20;
/// The bound.
const TIMES_MAX: f64 = 3.0;
/// How long the group may take to form.
const PATIENCE: Duration = Duration::from_secs(20);

/// What one kind of question to one node was answered with.
#[derive(Debug, Serialize)]
struct Row {
    kind: &'static str,
    asked: &'static str,
    questions: usize,
    bytes_in: u64,
    bytes_out: u64,
    times: f64,
}

fn settings(address: SocketAddr, rank: Option<u16>, directory: &std::path::Path) -> Settings {
    let mut settings = Settings::default();
    settings.group.name = NAME.to_owned();
    settings.group.address = address;
    settings.group.members = MEMBERS;
    match rank {
        Some(rank) => settings.process.rank = rank,
        None => settings.process.role = Role::Observer,
    }
    settings.process.snapshots = rank == Some(2);
    settings.network.interface = "lo".to_owned();
    settings.network.receive_buffer_bytes = 1 << 20;
    settings.limits.log_bytes = 4 << 20;
    settings.limits.receive_log_bytes = 2 << 20;
    settings.threads.idle = IdleStrategy::Yield;
    settings.threads.directory = Some(directory.to_owned());
    settings
}

/// Lets every node do what it has to; a node that is asked for its state gives 100 KB.
fn poll(nodes: &mut [InlineNode]) -> Result<(), Box<dyn Error>> {
    for node in nodes {
        let mut request = None;
        node.poll(usize::MAX, |delivery| {
            if let Delivery::SnapshotRequest(asked) = delivery {
                request = Some(asked);
            }
        })?;
        request.map_or(Ok(()), |request| request.give(&[7; 100_000]))?;
    }
    Ok(())
}

fn poll_for(nodes: &mut [InlineNode], time: Duration) -> Result<(), Box<dyn Error>> {
    let end = Instant::now() + time;
    while Instant::now() < end {
        poll(nodes)?;
    }
    Ok(())
}

/// What has arrived at the stranger's socket.
fn arrived(stranger: &UdpSocket) -> u64 {
    let (mut bytes, mut datagram) = (0, [0; 65_536]);
    while let Ok(length) = stranger.recv(&mut datagram) {
        bytes += length as u64;
    }
    bytes
}

/// A group that has formed and published, the observer last.
fn form(directory: &std::path::Path) -> Result<(Vec<InlineNode>, SocketAddr), Box<dyn Error>> {
    let pid = std::process::id();
    let port = 20_000 + (pid % 16_384) as u16;
    let address = SocketAddr::from(([239, 77, (pid >> 8) as u8, pid as u8], port));
    let ranks = (0..MEMBERS).map(Some).chain([None]);
    let nodes: Result<Vec<_>, _> = ranks.map(|rank| InlineNode::join(&settings(address, rank, directory))).collect();
    let (mut nodes, end) = (nodes?, Instant::now() + PATIENCE);
    while nodes.iter().any(|node| node.view().epoch.0 == 0) {
        if Instant::now() > end {
            return Err(
                "the group has not formed on `lo`: does it have the multicast flag? (`ip link set lo multicast on`)"
                    .into(),
            );
        }
        poll(&mut nodes)?;
    }
    poll_for(&mut nodes, Duration::from_millis(200))?;
    for _ in 0..300 {
        for node in &mut nodes[..usize::from(MEMBERS)] {
            let _ = node.try_publish(&Topic::of_id(TopicId(1)), &[1; 1_300]);
        }
        poll(&mut nodes)?;
    }
    poll_for(&mut nodes, Duration::from_millis(200))?;
    Ok((nodes, address))
}

/// A socket that receives the group's traffic, as a stranger's can.
fn listen(group: SocketAddr) -> std::io::Result<UdpSocket> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, None)?;
    socket.set_reuse_address(true)?;
    socket.bind(&group.into())?;
    let std::net::IpAddr::V4(multicast) = group.ip() else { unreachable!("the group has an IPv4 address") };
    socket.join_multicast_v4(&multicast, &Ipv4Addr::LOCALHOST)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// The configuration's fingerprint, as a heartbeat that has arrived carries it.
fn read_fingerprint(listener: &UdpSocket) -> Option<u64> {
    let mut bytes = [0; 65_536];
    while let Ok(length) = listener.recv(&mut bytes) {
        let Ok(datagram) = Datagram::parse(&bytes[..length], GroupId::of(NAME)) else { continue };
        let mut frames = datagram.frames().filter(|frame| frame.kind() == Some(Kind::Heartbeat));
        if let Some((heartbeat, _)) = frames.next().and_then(|frame| Heartbeat::read(frame.body)) {
            return Some(heartbeat.configuration.get());
        }
    }
    None
}

fn measure() -> Result<Vec<Row>, Box<dyn Error>> {
    let directory = tempfile::tempdir()?;
    let (mut nodes, group) = form(directory.path())?;
    let stranger = UdpSocket::bind("127.0.0.1:0")?;
    stranger.set_nonblocking(true)?;
    let requester = UdpSocket::bind("127.0.0.1:0")?;
    let (listener, end) = (listen(group)?, Instant::now() + PATIENCE);
    let fingerprint = loop {
        poll(&mut nodes)?;
        match read_fingerprint(&listener) {
            Some(fingerprint) => break fingerprint,
            None if Instant::now() > end => return Err("no heartbeat of the group was received".into()),
            None => {}
        }
    };
    let mut rows = Vec::new();
    for kind in KINDS {
        for (index, asked) in [(0, "sequencer"), (1, "member"), (2, "donor"), (3, "observer"), (1, "all at once")] {
            let own = if index < usize::from(MEMBERS) { Rank(index as u16) } else { Rank::OBSERVER };
            let target =
                Target::of(nodes[index].view(), (own, Rank(2)), GroupId::of(NAME), fingerprint, stranger.local_addr()?);
            // The socket is bound to an address of `lo`, so its multicasts go out there.
            let to = if asked == "all at once" { group } else { nodes[index].local_address() };
            let (mut bytes_in, mut bytes_out) = (0, 0);
            for turn in 0..QUESTIONS {
                let question = (kind.question)(&target, turn as u64);
                bytes_in += requester.send_to(&question, to)? as u64;
                if turn % BATCH == BATCH - 1 {
                    poll_for(&mut nodes, Duration::from_micros(200))?;
                    bytes_out += arrived(&stranger);
                }
            }
            poll_for(&mut nodes, Duration::from_millis(30))?;
            bytes_out += arrived(&stranger);
            let times = bytes_out as f64 / bytes_in as f64;
            rows.push(Row { kind: kind.name, asked, questions: QUESTIONS, bytes_in, bytes_out, times });
        }
    }
    Ok(rows)
}

fn print(rows: &[Row]) {
    println!(
        "{:24} {:11} {:>9} {:>10} {:>10} {:>6}",
        "question", "asked", "questions", "bytes in", "bytes out", "times"
    );
    for row in rows {
        println!(
            "{:24} {:11} {:>9} {:>10} {:>10} {:>6.2}",
            row.kind, row.asked, row.questions, row.bytes_in, row.bytes_out, row.times
        );
    }
}

fn main() -> ExitCode {
    let rows = match measure() {
        Ok(rows) => rows,
        Err(error) => {
            eprintln!("amplification: {error}");
            return ExitCode::from(2);
        }
    };
    let most = rows.iter().map(|row| row.times).fold(0.0, f64::max);
    if std::env::args().any(|argument| argument == "--json") {
        println!("{}", serde_json::json!({ "rows": rows, "most": most, "bound": TIMES_MAX }));
    } else {
        print(&rows);
        println!("most: {most:.2} bytes a byte; the bound is {TIMES_MAX}");
    }
    if most <= TIMES_MAX { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
