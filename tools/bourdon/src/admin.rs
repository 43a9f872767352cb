//! Queries a node of this user on this host, over its admin socket: one line of JSON as the request, one as the answer.
//!
//! Nodes are found by their counters files (`bourdon stat` reads them). A node that does not answer in time hangs: that
//! is reported, and no command waits for it.

use crate::exit::Failure;
use bourdon::counters::Directory;
use bourdon::counters::{Found, list};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
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

/// Sends a node a request; returns the answer's value under `key`.
pub(crate) fn ask(node: &Found, request: &str, key: &str, limit: Duration) -> Result<Value, Failure> {
    ask_with(node, &json!({ "request": request }), key, limit)
}

/// The same, for a request with more than its name.
pub(crate) fn ask_with(node: &Found, request: &Value, key: &str, limit: Duration) -> Result<Value, Failure> {
    let path = node.directory.join(format!("{}.sock", node.stem));
    let name = || format!("process {} of group {:?}", node.pid, node.description.group);
    let broken = |error: std::io::Error| Failure::broken(format!("{} at {}: {error}", name(), path.display()));
    let mut stream = UnixStream::connect(&path).map_err(broken)?;
    stream.set_read_timeout(Some(limit)).map_err(broken)?;
    stream.write_all(format!("{request}\n").as_bytes()).map_err(broken)?;
    let mut line = String::new();
    if let Err(error) = BufReader::new(stream).read_line(&mut line) {
        let late = matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut);
        let seconds = limit.as_secs();
        return Err(if late {
            Failure::broken(format!("{} did not answer within {seconds} s", name()))
        } else {
            broken(error)
        });
    }
    let mut answer: Value = serde_json::from_str(&line)
        .map_err(|error| Failure::broken(format!("{} answered {line:?}: {error}", name())))?;
    if let Some(error) = answer["error"].as_str() {
        return Err(Failure::broken(format!("{}: {error}", name())));
    }
    Ok(answer[key].take())
}
