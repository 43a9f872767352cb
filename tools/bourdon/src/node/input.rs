//! `bourdon node --publish`: what comes from stdin, published by the node itself.
//!
//! Its own thread waits for input and for room; the loop that serves the node's events hears from it only if it fails.

use super::Reporter;
use super::log::Level;
use crate::exit::Failure;
use crate::publish::{Publisher, read_stdin};
use bourdon::id::TopicName;
use bourdon::{Publication, Topic, Waker};
use serde_json::json;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::mpsc::{Receiver, channel};

/// What a node publishes from stdin.
#[derive(Clone, Debug, clap::Args)]
#[group(skip)] // the command has a group of this name
pub(crate) struct Args {
    /// Publish lines of stdin on this topic, as the member itself, and go on as a node at the end of the input
    #[arg(long, value_name = "TOPIC")]
    publish: Option<TopicName>,
    /// Messages of stdin are framed: a length (u32, little-endian), then that many bytes
    #[arg(long, requires = "publish")]
    frames: bool,
}

impl Args {
    /// The topic to publish on, if any.
    pub(super) fn topic(&self) -> Result<Option<Topic>, Failure> {
        self.publish.map(|name| Topic::new(name.as_str()).map_err(Failure::unusable)).transpose()
    }
}

/// The thread that publishes.
pub(super) struct Input {
    failure: Receiver<Failure>,
    has_failed: Waker,
}

impl Input {
    /// Begins to publish on this topic.
    pub(super) fn start(
        args: &Args,
        topic: Topic,
        publication: Publication,
        max_message_bytes: usize,
        reporter: Reporter,
    ) -> Result<Self, Failure> {
        let has_failed = Waker::new().map_err(Failure::broken)?;
        let (waker, frames) = (has_failed.clone(), args.frames);
        let (sender, failure) = channel();
        std::thread::spawn(move || {
            let mut report = |text: String, mut object: serde_json::Value| {
                object["event"] = "publishing_waits".into();
                reporter.print(Level::Warning, &text, &mut object);
            };
            let mut publisher = Publisher::new(publication, frames, None, &mut report);
            let (outcome, bytes) = publisher.run(&topic, &read_stdin(frames, max_message_bytes));
            let messages = publisher.published();
            match outcome {
                Ok(()) => {
                    let text = format!("all {messages} messages of stdin have been published");
                    let mut object = json!({ "event": "published", "messages": messages, "bytes": bytes });
                    reporter.print(Level::Info, &text, &mut object);
                }
                Err(failure) => {
                    let _ = sender.send(failure); // the node may have ended
                    waker.wake();
                }
            }
        });
        Ok(Self { failure, has_failed })
    }

    /// Becomes readable when it has failed.
    pub(super) fn failed_fd(&self) -> BorrowedFd<'_> {
        self.has_failed.as_fd()
    }

    /// Why it has ended before the end of the input.
    pub(super) fn failure(&self) -> Option<Failure> {
        self.failure.try_recv().ok()
    }
}
