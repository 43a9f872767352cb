//! `bourdon send`: messages to one member, to the nearest of several, or to all that hear the network, beside the
//! stream.
//!
//! It is a client, in no view: it hears the members' heartbeats, measures their round-trip times, and reports for each
//! message which member took it. Messages to one member arrive in the order given; the next few are sent while the
//! first is in flight.

use crate::exit::{Failure, note, print};
use crate::place::{Messages, Where, of_client, unheard};
use bourdon::error::RequestError;
use bourdon::id::{Address, Rank};
use bourdon::{Call, DirectMessage, Node, Publication, Refusal, Reply, Settings, To, Waker};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::sync::mpsc::{Receiver, TryRecvError, sync_channel};
use std::time::{Duration, Instant};

/// How long to look for members; members send heartbeats at least every 100 ms.
const LOOK: Duration = Duration::from_secs(5);
/// How long to listen on after the first member, so that all reachable members are known.
const GATHER: Duration = Duration::from_millis(150);
/// Between two looks for members.
const PAUSE: Duration = Duration::from_millis(5);
/// The longest sleep.
const SLEEP: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
/// How long to wait at the end until what was sent last has left.
const CLOSE: Duration = Duration::from_secs(1);
/// Messages under way at once: as many as are sent at once.
const UNDER_WAY_MAX: usize = 32;
/// No datagram is longer; the group's own limit is checked when a line is sent.
const LINE_MAX_BYTES: usize = 1 << 16;
/// Messages read ahead.
const READ_AHEAD: usize = 32;

#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("recipient").required(true))]
pub(crate) struct Args {
    #[command(flatten)]
    at: Where,
    /// The message; without it, each line of stdin is a message
    message: Option<String>,
    /// To this member: acknowledged, sent again for up to 5 s, delivered at most once
    #[arg(long, value_name = "RANK", group = "recipient")]
    to: Option<u16>,
    /// To the nearest member, and to the next nearest if that member does not answer
    #[arg(long, group = "recipient")]
    any: bool,
    /// With --any: only to one of these members
    #[arg(
        long,
        value_name = "RANK,…",
        value_delimiter = ',',
        requires = "any",
        conflicts_with_all = ["to", "all_hosts"],
    )]
    among: Vec<u16>,
    /// To every process of the group that hears the network, once and unacknowledged
    #[arg(long, group = "recipient")]
    all_hosts: bool,
    /// Write the outcome of each message as a JSON object
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: Args) -> Result<(), Failure> {
    let settings = of_client(args.at.settings()?.0);
    let node = Node::open(&settings).map_err(|why| args.at.unusable(why))?;
    if let Some(why) = &node.info().fallback {
        note(why);
    }
    let group = node.publication().map_err(Failure::unusable)?;
    node.join().map_err(Failure::broken)?;
    let began = Instant::now();
    if !args.all_hosts {
        find_members(&settings, &group, began)?;
    }
    let has_read = Waker::new().map_err(Failure::broken)?;
    let input = messages(&args, &has_read);
    let is_heard = args.all_hosts;
    let mut sender = Sender { args: &args, node, began, next: None, sent: 0, calls: Vec::new(), is_heard, failed: 0 };
    let mut is_open = true;
    while is_open || sender.next.is_some() || !sender.calls.is_empty() {
        sender.node.clear_news();
        has_read.clear();
        let mut took = false;
        loop {
            if sender.next.is_none() {
                match input.try_recv() {
                    Ok(message) => sender.next = Some(message?),
                    Err(TryRecvError::Empty) => break,
                    Err(TryRecvError::Disconnected) => {
                        is_open = false;
                        break;
                    }
                }
            }
            if !sender.send()? {
                break;
            }
            took = true;
        }
        took |= sender.report_all()?;
        while let Some(message) = sender.node.poll_direct() {
            note(received(&message));
        }
        if !sender.node.is_running() {
            return Err(Failure::broken("the node has ended"));
        }
        if !took {
            let news = sender.node.news_fd();
            let mut fds = [PollFd::new(&news, PollFlags::IN), PollFd::new(&has_read, PollFlags::IN)];
            let _ = poll(&mut fds, Some(&SLEEP)); // interrupted or not: it looks again
        }
    }
    let failed = sender.failed;
    sender.node.close(CLOSE).map_err(Failure::broken)?; // what was sent last leaves
    match failed {
        0 => Ok(()),
        failed => Err(Failure::broken(format!("{failed} messages were not taken"))),
    }
}

/// Waits until a member has been heard, and for the others that are reachable.
fn find_members(settings: &Settings, group: &Publication, began: Instant) -> Result<(), Failure> {
    while group.held_up_by() == Some(Refusal::NoReceiver) {
        if began.elapsed() >= LOOK {
            return Err(unheard(settings, LOOK.as_secs()));
        }
        std::thread::sleep(PAUSE);
    }
    std::thread::sleep(GATHER);
    Ok(())
}

/// A message that is under way.
struct Sent {
    /// People count from one.
    number: u64,
    payload: Vec<u8>,
    call: Call,
}

struct Sender<'a> {
    args: &'a Args,
    node: Node,
    /// When it began to look for members.
    began: Instant,
    /// Messages that were read and not sent yet.
    next: Option<Vec<u8>>,
    /// How many were sent.
    sent: u64,
    calls: Vec<Sent>,
    /// A process that a message may go to was heard.
    is_heard: bool,
    failed: u64,
}

impl Sender<'_> {
    /// Sends the next message, if it can be now.
    fn send(&mut self) -> Result<bool, Failure> {
        // Until the first is taken, the others wait: their receivers may be unheard yet.
        if self.calls.len() >= if self.is_heard { UNDER_WAY_MAX } else { 1 } {
            return Ok(false);
        }
        let Some(payload) = self.next.take() else { return Ok(false) };
        let among: Vec<Rank> = self.args.among.iter().copied().map(Rank).collect();
        let to = match self.args.to {
            _ if self.args.all_hosts => To::All,
            Some(rank) => To::Rank(Rank(rank)),
            None if among.is_empty() => To::Nearest,
            None => To::Among(&among),
        };
        let call = self.node.try_send(to, &payload).map_err(|refusal| Failure::unusable(text_of(refusal)))?;
        self.sent += 1;
        self.calls.push(Sent { number: self.sent, payload, call });
        Ok(true)
    }

    /// Reports the calls that have ended. Returns whether there were any.
    fn report_all(&mut self) -> Result<bool, Failure> {
        let mut ended = Vec::new();
        for mut sent in std::mem::take(&mut self.calls) {
            match sent.call.try_reply() {
                Some(outcome) => ended.push((sent, outcome)),
                None => self.calls.push(sent),
            }
        }
        let any = !ended.is_empty();
        for (sent, outcome) in ended {
            self.report(sent, outcome)?;
        }
        Ok(any)
    }

    fn report(&mut self, sent: Sent, outcome: Result<Reply, RequestError>) -> Result<(), Failure> {
        let number = sent.number;
        let (why, attempts) = match outcome {
            Ok(reply) => {
                self.is_heard = true;
                return self.print(&taken(number, &reply), &taken_object(number, &reply));
            }
            Err(RequestError::Refused(Refusal::NoReceiver | Refusal::Unheard(_))) => return self.is_unheard(sent),
            Err(RequestError::Refused(refusal)) => return Err(Failure::unusable(text_of(refusal))),
            Err(RequestError::Unanswered { why: Some(why), attempts, .. }) => (why.to_string(), attempts),
            Err(failure) => (failure.to_string(), 0),
        };
        (self.is_heard, self.failed) = (true, self.failed + 1);
        let text = format!("message {number} was not taken: {why}");
        note(&text);
        if !self.args.json {
            return Ok(());
        }
        let object = json!({
            "message": number, "taken_by": null, "address": null, "rtt_ns": null, "attempts": attempts, "failed": why,
        });
        self.print(&text, &object)
    }

    /// None of the members that a message may go to has been heard: it is sent again, for a while.
    fn is_unheard(&mut self, sent: Sent) -> Result<(), Failure> {
        if self.is_heard {
            return Err(Failure::broken("the members that it may go to are no longer heard: see `bourdon view`"));
        }
        if self.began.elapsed() >= LOOK {
            let wanted: Vec<String> = self.args.to.iter().chain(&self.args.among).map(u16::to_string).collect();
            return Err(Failure::unusable(format!(
                "member {} was not heard within {} s: list the members with `bourdon view`",
                wanted.join(", "),
                LOOK.as_secs()
            )));
        }
        (self.next, self.sent) = (Some(sent.payload), self.sent - 1);
        std::thread::sleep(PAUSE);
        Ok(())
    }

    fn print(&self, text: &str, object: &Value) -> Result<(), Failure> {
        print(&if self.args.json { format!("{object}\n") } else { format!("{text}\n") })
    }
}

/// Why a message is refused, as people read it.
fn text_of(refusal: Refusal) -> String {
    match refusal {
        Refusal::TooLarge { limit_bytes } => format!(
            "a direct message is at most {limit_bytes} bytes long, what one datagram has room for: split it, publish \
                 it, or raise limits.mtu_bytes"
        ),
        refusal => refusal.to_string(),
    }
}

/// Which process has taken a message, as people read it; a message to all is taken without a sign of it.
fn taken(number: u64, reply: &Reply) -> String {
    let (Some(by), Some(address)) = (reply.from(), reply.address()) else {
        return "sent to all hosts of the network".to_owned();
    };
    let (ms, attempts) = (reply.rtt_ns() as f64 / 1e6, reply.attempts());
    let copies = if attempts == 1 { "copy" } else { "copies" };
    format!("message {number} was taken by member {by} at {address} in {ms:.3} ms, {attempts} {copies}")
}

/// The same as an object.
fn taken_object(number: u64, reply: &Reply) -> Value {
    let (Some(by), Some(address)) = (reply.from(), reply.address()) else {
        return json!({ "taken_by": null, "sent": true });
    };
    json!({
        "message": number, "taken_by": by.0, "address": address, "rtt_ns": reply.rtt_ns(),
        "attempts": reply.attempts(), "failed": null,
    })
}

/// The message given, or the lines of stdin as they come.
fn messages(args: &Args, has_read: &Waker) -> Receiver<Result<Vec<u8>, Failure>> {
    let (sender, receiver) = sync_channel(READ_AHEAD);
    if let Some(message) = &args.message {
        let _ = sender.send(Ok(message.clone().into_bytes()));
        return receiver;
    }
    let waker = has_read.clone();
    std::thread::spawn(move || {
        let mut lines = Messages::new(std::io::stdin().lock(), false, LINE_MAX_BYTES);
        while let Some(line) = lines.next().transpose() {
            let is_last = line.is_err();
            if sender.send(line).is_err() || is_last {
                break;
            }
            waker.wake();
        }
        drop(sender);
        waker.wake();
    });
    receiver
}

/// A direct message, as people read it.
pub(crate) fn received(message: &DirectMessage) -> String {
    let from = process(message.from, message.address);
    let how = if message.broadcast { " to all" } else { "" };
    format!("direct from {from}{how}: {}", text(&message.payload))
}

/// The same as an object.
pub(crate) fn received_object(message: &DirectMessage) -> Value {
    let payload = std::str::from_utf8(&message.payload).ok();
    let hex = || message.payload.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    json!({
        "event": "direct",
        "rank": (message.from <= Rank::MAX).then_some(message.from.0),
        "address": SocketAddr::from(message.address),
        "broadcast": message.broadcast,
        "payload": payload,
        "payload_hex": payload.is_none().then(hex),
    })
}

fn process(rank: Rank, address: Address) -> String {
    let at = SocketAddr::from(address);
    match rank {
        Rank::OBSERVER => format!("an observer at {at}"),
        Rank::CLIENT => format!("a client at {at}"),
        rank => format!("member {rank} at {at}"),
    }
}

/// Text as it is, except for characters that would control a terminal; bytes that are not text in hexadecimal.
fn text(payload: &[u8]) -> String {
    match std::str::from_utf8(payload) {
        Ok(text) => {
            text.chars().flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] }).collect()
        }
        Err(_) => payload.iter().map(|byte| format!("{byte:02x}")).collect(),
    }
}
