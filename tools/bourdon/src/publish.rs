//! `bourdon publish`: sends lines or frames of stdin to a group as a client of one of its members. Each message carries
//! its topic's name, so that subscribers can choose by patterns.
//!
//! Reading stdin blocks, and a blocked client can't retransmit a lost request. So a thread reads messages, passes them
//! over a bounded queue, and wakes the thread that runs the protocol.

use crate::exit::Failure;
use crate::place::{Messages, Place, unheard};
use crate::wait::{Wait, why};
use bourdon::id::TopicName;
use bourdon::{ClientEvent, ClientNode, GroupState};
use std::sync::mpsc::{Receiver, TryRecvError, sync_channel};
use std::time::{Duration, Instant};

/// Messages read ahead: enough for the client's window, few enough to notice a stop soon.
const READ_AHEAD: usize = 256;
/// How long to look for a member; members send heartbeats at least every 100 ms.
const LOOK_S: u64 = 5;
/// The longest sleep, so that a member's silence is noticed.
const SLEEP: Duration = Duration::from_millis(100);

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    place: Place,
    /// The topic's name: parts joined by dots
    topic: TopicName,
    /// Report at the end what was published, as one JSON object
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: Args) -> Result<(), Failure> {
    let (settings, _) = args.place.at.settings()?;
    let mut node = ClientNode::open(&settings).map_err(|why| args.place.at.unusable(why))?;
    if let Some(why) = node.fallback() {
        eprintln!("bourdon: {why}");
    }
    let (mut published, mut bytes) = (0u64, 0u64);
    let mut input = Some(read_stdin(&args, &node));
    let (mut failed, mut wait) = (None, Wait::default());
    while input.is_some() || !node.is_idle() {
        let mut took = false;
        while node.has_room()
            && let Some(messages) = &input
        {
            match messages.try_recv() {
                Ok(Ok(payload)) => {
                    node.publish_named(&args.topic, &payload);
                    (took, published, bytes) = (true, published + 1, bytes + payload.len() as u64);
                }
                Ok(Err(failure)) => (failed, input) = (Some(failure), None),
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => input = None,
            }
        }
        node.poll().map_err(Failure::broken)?;
        let gone = |what: &str| Failure::broken(format!("{what}; of {published} messages sent, not all were taken"));
        let event = node.poll_event();
        let waits = !node.is_idle() && !matches!(event, Some(ClientEvent::Taken(_)));
        if let Some(seconds) = wait.report(Instant::now(), waits) {
            eprintln!("bourdon: no message has been taken for {seconds} s: {}", why(node.group_state()));
        }
        match event {
            Some(ClientEvent::NoAnswer) => {
                let is_formed = node.group_state() == GroupState::Formed;
                let what = if is_formed { "the member no longer answers".to_owned() } else { why(node.group_state()) };
                return Err(gone(&what));
            }
            Some(event @ ClientEvent::TooManyClients) => return Err(gone(&event.to_string())),
            Some(event @ ClientEvent::TooLarge(_)) => return Err(Failure::unusable(event)),
            _ => {}
        }
        if node.unheard_for().is_some_and(|waited| waited >= Duration::from_secs(LOOK_S)) {
            return Err(unheard(&settings, LOOK_S));
        }
        if !took {
            node.wait(SLEEP).map_err(Failure::broken)?;
        }
    }
    if args.json {
        let (group, topic) = (&args.place.at.group, args.topic.as_str());
        let report = serde_json::json!({
            "group": group, "topic": topic, "messages": published, "bytes": bytes, "io": node.io(),
        });
        println!("{report}");
    }
    failed.map_or(Ok(()), Err)
}

/// The messages of stdin, and an error at the end if reading failed.
fn read_stdin(args: &Args, node: &ClientNode) -> Receiver<Result<Vec<u8>, Failure>> {
    let (sender, receiver) = sync_channel(READ_AHEAD);
    let max_bytes = node.max_message_bytes() - args.topic.wire_bytes();
    let (frames, waker) = (args.place.frames, node.waker());
    std::thread::spawn(move || {
        let mut messages = Messages::new(std::io::stdin().lock(), frames, max_bytes);
        while let Some(message) = messages.next().transpose() {
            let is_last = message.is_err();
            if sender.send(message).is_err() || is_last {
                break;
            }
            waker.wake();
        }
        drop(sender);
        waker.wake();
    });
    receiver
}
