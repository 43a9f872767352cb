//! Waits for the network interface of a node that starts before its host has it.
//!
//! A host that boots starts its services while interfaces still come up, and a node that ended then would stay away
//! from its group until an operator starts it. So it waits, as a node does whose interface vanishes later, and reports
//! that at intervals that double. A library can't know whether its application wants that: there the start is an error.

use super::log::Level;
use super::{Reporter, event};
use bourdon::error::PortError;
use bourdon::event::NetworkLoss;
use bourdon::{Error, Event, Node, Settings};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde_json::json;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// How often a start is tried again: as often as a node that runs looks for an interface that it lost.
const RETRY: Timespec = Timespec { tv_sec: 0, tv_nsec: 200_000_000 };
/// The first interval between two reports, and the longest.
const INTERVALS: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(60));

/// Opens a node, once its interface can be used; none if a signal to end comes first.
pub(super) fn open(settings: &Settings, reporter: &Reporter, signals: &UnixStream) -> Result<Option<Node>, Error> {
    let (mut reported, mut interval, mut due) = (None, INTERVALS.0, Instant::now());
    loop {
        let error = match Node::open(settings) {
            Ok(node) => return Ok(Some(node)),
            Err(error) => error,
        };
        let Some(lost) = error.network_lost() else { return Err(error) };
        if reported != Some(lost) || Instant::now() >= due {
            report(reporter, lost, &error);
            interval = if reported == Some(lost) { (2 * interval).min(INTERVALS.1) } else { INTERVALS.0 };
            (reported, due) = (Some(lost), Instant::now() + interval);
        }
        let mut fds = [PollFd::new(signals, PollFlags::IN)];
        if matches!(poll(&mut fds, Some(&RETRY)), Ok(1..)) {
            reporter.print(Level::Info, "the node has stopped", &mut json!({ "event": "stopped" }));
            return Ok(None);
        }
    }
}

/// Reports what the node waits for; of a name that may be spelt wrong, which interfaces there are.
fn report(reporter: &Reporter, lost: Event, error: &Error) {
    let (mut text, mut object) = (event::text(lost, 0), event::object(lost, 0));
    if let (Event::NetworkLost { why: NetworkLoss::NoInterface, .. }, Error::Port(PortError::Interface { why, .. })) =
        (lost, error)
    {
        text += &format!(" ({why})");
        object["text"] = text.clone().into();
    }
    reporter.print(Level::Warning, &text, &mut object);
}
