//! Queries a node of this user on this host, over its admin socket: one line of JSON as the request, one as the answer.
//!
//! Nodes are found by their counters files (`bourdon stat` reads them). A node that does not answer in time hangs: that
//! is reported, and no command waits for it.

use crate::exit::Failure;
use bourdon::counters::Directory;
use bourdon::counters::{Found, list};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Which node to ask.
#[derive(Debug, clap::Args)]
pub(crate) struct Which {
    /// The group's name, or GROUP/CHANNEL [default: every group of this user on this host]
    pub(crate) group: Option<String>,
    /// Where the nodes keep their counters, if threads.directory is set
    #[arg(long, value_name = "DIR")]
    pub(crate) directory: Option<PathBuf>,
}

/// The nodes of a group and its channels, of one channel, or of all.
pub(crate) fn find(which: &Which) -> Result<Vec<Found>, Failure> {
    let mut found = Vec::new();
    for directory in Directory::existing(which.directory.as_deref()).map_err(Failure::unusable)? {
        found.extend(list(&directory).map_err(Failure::unusable)?);
    }
    if let Some(group) = &which.group {
        let is_channel = |name: &str| name.strip_prefix(group.as_str()).is_some_and(|rest| rest.starts_with('/'));
        found.retain(|node| node.description.group == *group || is_channel(&node.description.group));
    }
    if found.is_empty() {
        let of = which.group.as_ref().map(|group| format!(" of group {group:?}")).unwrap_or_default();
        return Err(Failure::unusable(format!(
            "no node{of} of this user runs here: start one with `bourdon node`, or name its directory with --directory"
        )));
    }
    Ok(found)
}

/// Sends a line to an admin socket and receives one: at most about the limit for each step. A node that is stopped
/// accepts no connection, so once its queue of connections is full that takes time as well.
fn exchange(path: &Path, request: &Value, limit: Duration) -> std::io::Result<String> {
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    set_socket_timeout(&socket, Timeout::Send, Some(limit))?;
    connect(&socket, &SocketAddrUnix::new(path)?)?;
    let mut stream = UnixStream::from(socket);
    stream.set_read_timeout(Some(limit))?;
    stream.write_all(format!("{request}\n").as_bytes())?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line)?;
    Ok(line)
}

/// Sends a node a request; returns the answer's value under `key`.
pub(crate) fn ask(node: &Found, request: &str, key: &str, limit: Duration) -> Result<Value, Failure> {
    ask_with(node, &json!({ "request": request }), key, limit)
}

/// The same, for a request with more than its name.
pub(crate) fn ask_with(node: &Found, request: &Value, key: &str, limit: Duration) -> Result<Value, Failure> {
    let path = node.directory.join(format!("{}.sock", node.stem));
    let name = || format!("process {} of group {:?}", node.pid, node.description.group);
    let broken = |error: std::io::Error| Failure::broken(format!("{} at {}: {error}", name(), path.display()));
    let line = exchange(&path, request, limit).map_err(|error| match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => {
            Failure::broken(format!("{} did not answer within {} s", name(), limit.as_secs_f64()))
        }
        _ => broken(error),
    })?;
    let mut answer: Value = serde_json::from_str(&line)
        .map_err(|error| Failure::broken(format!("{} answered {line:?}: {error}", name())))?;
    if let Some(error) = answer["error"].as_str() {
        return Err(Failure::broken(format!("{}: {error}", name())));
    }
    Ok(answer[key].take())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::net::{bind, listen};

    #[test]
    fn a_node_that_accepts_no_connection_is_waited_for_no_longer() {
        let directory = tempfile::tempdir().expect("a directory can be made");
        let path = directory.path().join("node.sock");
        let node = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None).expect("a socket");
        bind(&node, &SocketAddrUnix::new(&path).expect("a short path")).expect("a free path");
        listen(&node, 0).expect("it is bound");
        for _ in 0..3 {
            let error = exchange(&path, &json!({}), Duration::from_millis(10)).expect_err("it does not answer");
            assert_eq!(error.kind(), ErrorKind::WouldBlock); // the later ones: there is no room for a connection
        }
    }
}
