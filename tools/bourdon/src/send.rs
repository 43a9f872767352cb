//! `bourdon send`: messages to one member, to the nearest of several, or to all that hear the network, beside the
//! stream.
//!
//! It is a client, in no view: it hears the members' heartbeats, measures their round-trip times, and reports for each
//! message which member took it. Messages to one member arrive in the order given; the next few are sent while the
//! first is in flight.

use crate::exit::{Failure, print};
use crate::place::{Messages, Where, unheard};
use bourdon::error::RequestError;
use bourdon::id::{Address, Rank};
use bourdon::{Call, ClientNode, DirectMessage, Refusal, Reply, Settings, To};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::sync::mpsc::{Receiver, TryRecvError, sync_channel};
use std::time::{Duration, Instant};

/// How long to look for members; members send heartbeats at least every 100 ms.
const LOOK: Duration = Duration::from_secs(5);
/// How long to listen on after the first member, so that all reachable members are known.
const GATHER: Duration = Duration::from_millis(150);
/// The longest sleep.
const SLEEP: Duration = Duration::from_millis(100);
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
    let (settings, _) = args.at.settings()?;
    let mut node = ClientNode::open(&settings).map_err(|why| args.at.unusable(why))?;
    if let Some(why) = node.fallback() {
        eprintln!("bourdon: {why}");
    }
    if !args.all_hosts {
        find_members(&args, &settings, &mut node)?;
    }
    let input = messages(&args, &node);
    let mut sender = Sender { args: &args, node, next: None, sent: 0, calls: Vec::new(), failed: 0 };
    let mut is_open = true;
    while is_open || sender.next.is_some() || !sender.calls.is_empty() {
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
        sender.node.poll().map_err(Failure::broken)?;
        took |= sender.report_all()?;
        while let Some(message) = sender.node.poll_direct() {
            eprintln!("bourdon: {}", received(&message));
        }
        if !took {
            sender.node.wait(SLEEP).map_err(Failure::broken)?;
        }
    }
    sender.node.poll().map_err(Failure::broken)?; // what was sent last leaves
    match sender.failed {
        0 => Ok(()),
        failed => Err(Failure::broken(format!("{failed} messages were not taken"))),
    }
}

/// Listens until the members that the messages are for have been heard.
fn find_members(args: &Args, settings: &Settings, node: &mut ClientNode) -> Result<(), Failure> {
    let began = Instant::now();
    let mut heard_at = None;
    let wanted: Vec<u16> = args.to.iter().chain(&args.among).copied().collect();
    loop {
        node.poll().map_err(Failure::broken)?;
        let members = node.members();
        let has = |rank: &u16| members.contains(&Rank(*rank));
        if heard_at.is_none() && !members.is_empty() {
            heard_at = Some(Instant::now());
        }
        let gathered = heard_at.is_some_and(|at| at.elapsed() >= GATHER);
        let complete = if wanted.is_empty() { gathered } else { wanted.iter().all(has) };
        if complete || (gathered && args.any && wanted.iter().any(has)) {
            return Ok(());
        }
        if began.elapsed() >= LOOK {
            if members.is_empty() {
                return Err(unheard(settings, LOOK.as_secs()));
            }
            let ranks = |ranks: &[u16]| ranks.iter().map(u16::to_string).collect::<Vec<_>>().join(", ");
            let there: Vec<u16> = members.iter().map(|rank| rank.0).collect();
            return Err(Failure::unusable(format!(
                "member {} was not heard within {} s, only {}: list the members with `bourdon view`",
                ranks(&wanted),
                LOOK.as_secs(),
                ranks(&there)
            )));
        }
        node.wait(SLEEP).map_err(Failure::broken)?;
    }
}

struct Sender<'a> {
    args: &'a Args,
    node: ClientNode,
    /// Messages that were read and not sent yet.
    next: Option<Vec<u8>>,
    /// How many were sent.
    sent: u64,
    /// Those that are under way, with their numbers: people count from one.
    calls: Vec<(u64, Call)>,
    failed: u64,
}

impl Sender<'_> {
    /// Sends the next message, if it can be now.
    fn send(&mut self) -> Result<bool, Failure> {
        let Some(payload) = &self.next else { return Ok(false) };
        let among: Vec<Rank> = self.args.among.iter().copied().map(Rank).collect();
        let to = match self.args.to {
            _ if self.args.all_hosts => To::All,
            Some(rank) => To::Rank(Rank(rank)),
            None if among.is_empty() => To::Nearest,
            None => To::Among(&among),
        };
        match self.node.try_send(to, payload) {
            Ok(call) => {
                self.sent += 1;
                self.calls.push((self.sent, call));
            }
            Err(Refusal::TooMany { .. }) => return Ok(false),
            Err(Refusal::NoReceiver | Refusal::Unheard(_)) => {
                return Err(Failure::broken("the members that it may go to are no longer heard: see `bourdon view`"));
            }
            Err(Refusal::TooLarge { limit_bytes }) => {
                return Err(Failure::unusable(format!(
                    "a direct message is at most {limit_bytes} bytes long, what one datagram has room for: split it, \
                         publish it, or raise limits.mtu_bytes"
                )));
            }
            Err(refusal) => return Err(Failure::unusable(refusal)),
        }
        self.next = None;
        Ok(true)
    }

    /// Reports the calls that have ended. Returns whether there were any.
    fn report_all(&mut self) -> Result<bool, Failure> {
        let mut ended = Vec::new();
        self.calls.retain_mut(|(number, call)| {
            let outcome = call.try_reply();
            let is_under_way = outcome.is_none();
            ended.extend(outcome.map(|outcome| (*number, outcome)));
            is_under_way
        });
        let any = !ended.is_empty();
        for (number, outcome) in ended {
            self.report(number, outcome)?;
        }
        Ok(any)
    }

    fn report(&mut self, number: u64, outcome: Result<Reply, RequestError>) -> Result<(), Failure> {
        let failure = match outcome {
            Ok(reply) => return self.print(&taken(number, &reply), &taken_object(number, &reply)),
            Err(failure) => failure,
        };
        let (why, attempts) = match failure {
            RequestError::Unanswered { why: Some(why), attempts, .. } => (why.to_string(), attempts),
            failure => (failure.to_string(), 0),
        };
        self.failed += 1;
        let text = format!("message {number} was not taken: {why}");
        eprintln!("bourdon: {text}");
        if !self.args.json {
            return Ok(());
        }
        let object = json!({
            "message": number, "taken_by": null, "address": null, "rtt_ns": null, "attempts": attempts, "failed": why,
        });
        self.print(&text, &object)
    }

    fn print(&self, text: &str, object: &Value) -> Result<(), Failure> {
        print(&if self.args.json { format!("{object}\n") } else { format!("{text}\n") })
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
fn messages(args: &Args, node: &ClientNode) -> Receiver<Result<Vec<u8>, Failure>> {
    let (sender, receiver) = sync_channel(READ_AHEAD);
    if let Some(message) = &args.message {
        let _ = sender.send(Ok(message.clone().into_bytes()));
        return receiver;
    }
    let waker = node.waker();
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
