//! Reads a stream from a sequence on, on the runtime's threads, a little ahead of the group.

use crate::failure::Failure;
use crate::nats::{Nats, Trouble};
use async_nats::jetstream::consumer::{DeliverPolicy, pull::OrderedConfig};
use async_nats::jetstream::stream::Stream;
use async_nats::jetstream::{Context, Message};
use futures_util::StreamExt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::runtime::Runtime;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::task::JoinHandle;

/// Messages read ahead: what a round trip holds, and few enough to have long ones in memory.
const READ_AHEAD: usize = 256;
/// After so long without a message the stream is looked at: whether it still is the one that was read.
const LOOK_AFTER: Duration = Duration::from_secs(5);
/// Between two attempts to read.
const PAUSE: Duration = Duration::from_millis(200);

/// A message of the stream.
#[derive(Debug)]
pub(super) struct Fed {
    pub(super) sequence: u64,
    pub(super) subject: String,
    pub(super) payload: bytes::Bytes,
    /// The instance of the group that it comes from, if a bridge published it.
    pub(super) instance: Option<u64>,
}

/// A stream that is read; it ends with this.
pub(super) struct Feed {
    messages: Receiver<Result<Fed, String>>,
    trouble: Arc<Mutex<Option<String>>>,
    task: JoinHandle<()>,
}

impl Feed {
    pub(super) fn start(runtime: &Runtime, nats: &Nats, stream: Stream, next: u64) -> Self {
        let (sender, messages) = channel(READ_AHEAD);
        let trouble = Arc::default();
        let created = stream.cached_info().created;
        let reader =
            Reader { stream, created, context: nats.context.clone(), next, sender, trouble: Arc::clone(&trouble) };
        Self { messages, trouble, task: runtime.spawn(reader.run()) }
    }

    /// The next message; none if it has not come in this time.
    pub(super) fn next(&mut self, runtime: &Runtime, longest: Duration) -> Result<Option<Fed>, Failure> {
        let fed = match self.messages.try_recv() {
            Ok(fed) => Some(fed),
            Err(_) => {
                runtime.block_on(async { tokio::time::timeout(longest, self.messages.recv()).await.ok() }).flatten()
            }
        };
        fed.transpose().map_err(Failure::Unusable)
    }

    /// Why nothing comes, if that is known.
    pub(super) fn trouble(&self) -> Option<String> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Reader {
    stream: Stream,
    created: async_nats::datetime::DateTime,
    context: Context,
    next: u64,
    sender: Sender<Result<Fed, String>>,
    trouble: Arc<Mutex<Option<String>>>,
}

impl Reader {
    async fn run(mut self) {
        while !self.sender.is_closed() {
            match self.read().await {
                Ok(()) => return,
                Err(Trouble::Final(why)) => return drop(self.sender.send(Err(why)).await),
                Err(Trouble::Transient(why)) => self.set_trouble(Some(why)),
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Reads with one consumer, which makes itself again where messages were lost between the server and here.
    async fn read(&mut self) -> Result<(), Trouble> {
        self.look().await?;
        let deliver_policy = DeliverPolicy::ByStartSequence { start_sequence: self.next };
        let config = OrderedConfig { deliver_policy, ..OrderedConfig::default() };
        let consumer = self.stream.create_consumer(config).await.map_err(Trouble::transient)?;
        let mut messages = consumer.messages().await.map_err(Trouble::transient)?;
        self.set_trouble(None);
        loop {
            let message = match tokio::time::timeout(LOOK_AFTER, messages.next()).await {
                Ok(Some(message)) => message.map_err(Trouble::transient)?,
                Ok(None) => return Err(Trouble::transient("its consumer has ended")),
                Err(_) => {
                    self.look().await?;
                    self.set_trouble(None);
                    continue;
                }
            };
            self.set_trouble(None);
            let fed = fed(message)?;
            if fed.sequence < self.next {
                continue;
            }
            self.next = fed.sequence + 1;
            if self.sender.send(Ok(fed)).await.is_err() {
                return Ok(());
            }
        }
    }

    /// Whether it still is the stream that was read.
    async fn look(&self) -> Result<(), Trouble> {
        let info = self.context.get_stream(&self.stream.cached_info().config.name).await.map_err(Trouble::transient)?;
        let info = info.cached_info();
        if info.created != self.created {
            return Err(Trouble::Final(format!(
                "stream {:?} was created again, on {}: its sequences are other messages now",
                info.config.name, info.created
            )));
        }
        if info.state.last_sequence + 1 < self.next {
            return Err(Trouble::Final(format!(
                "stream {:?} ends at sequence {}, and messages before {} were read: it has lost messages that it had \
                     acknowledged, as servers may that lose power between two syncs",
                info.config.name, info.state.last_sequence, self.next
            )));
        }
        Ok(())
    }

    fn set_trouble(&self, trouble: Option<String>) {
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = trouble;
    }
}

fn fed(message: Message) -> Result<Fed, Trouble> {
    let sequence = message.info().map_err(Trouble::transient)?.stream_sequence;
    let message = message.message;
    let instance = message.headers.as_ref().and_then(|headers| headers.get(crate::headers::INSTANCE));
    let instance = instance.and_then(|instance| u64::from_str_radix(instance.as_str(), 16).ok());
    Ok(Fed { sequence, subject: message.subject.to_string(), payload: message.payload, instance })
}
