//! The stream: a connection that comes back by itself, and the calls that are repeated until the server answers.
//!
//! Every call here may be repeated: each reads, or is refused unless it comes at its place.

use crate::failure::{Failure, note};
use crate::wait::{Run, TICK};
use async_nats::jetstream::context::{ContextBuilder, GetStreamErrorKind};
use async_nats::jetstream::message::StreamMessage;
use async_nats::jetstream::stream::{Info, RawMessageErrorKind, Stream};
use async_nats::jetstream::{Context, ErrorCode};
use async_nats::{Client, ConnectOptions, Event, ServerAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// How long the server may take to answer: many times a round trip between continents.
const ANSWERS_WITHIN: Duration = Duration::from_secs(3);
/// The longest pause between two attempts to connect.
const CONNECT_PAUSE_MAX: Duration = Duration::from_secs(2);
/// Between two attempts of a call.
const PAUSE: Duration = Duration::from_millis(200);
/// The most publishes under way: what one round trip holds at some 10,000 messages a second.
pub(crate) const UNDER_WAY_MAX: usize = 256;

/// Sessions that end while their publishes have time for an answer: each takes a pause and a look at the stream.
const SESSIONS_MAX: usize = 16;

/// Where the stream is.
#[derive(Debug, clap::Args)]
#[group(id = "stream_place")]
pub(crate) struct Place {
    /// The servers, with commas: nats://HOST:PORT, tls://HOST:PORT, with USER:PASSWORD@ before the host if need be
    #[arg(long, value_name = "URL,…", value_delimiter = ',', default_value = "nats://127.0.0.1:4222")]
    nats: Vec<ServerAddr>,
    /// A file of credentials for the servers
    #[arg(long, value_name = "FILE")]
    credentials: Option<PathBuf>,
    /// The stream's name
    #[arg(long, value_name = "NAME")]
    pub(crate) stream: String,
    /// What stands before the topic in a subject, with a dot between [default: bourdon.GROUP]
    #[arg(long, value_name = "PREFIX")]
    subject_prefix: Option<String>,
}

impl Place {
    pub(crate) fn prefix(&self, group: &str) -> String {
        self.subject_prefix.clone().unwrap_or_else(|| format!("bourdon.{group}"))
    }
}

/// A connection, and the stream.
pub(crate) struct Nats {
    pub(crate) client: Client,
    pub(crate) context: Context,
    stream: String,
    servers: String,
    connections: Arc<Mutex<u64>>,
    run: Run,
}

/// Why a call has no result.
pub(crate) enum Trouble {
    /// It may have one later.
    Transient(String),
    /// The user must act first.
    Final(String),
}

impl Trouble {
    pub(crate) fn transient(why: impl std::fmt::Display) -> Self {
        Self::Transient(why.to_string())
    }
}

impl Nats {
    /// Begins to connect.
    pub(crate) async fn open(place: &Place, run: &Run) -> Result<Self, Failure> {
        let connections = Arc::new(Mutex::new(0));
        let counter = Arc::clone(&connections);
        let mut options = ConnectOptions::new();
        if let Some(path) = &place.credentials {
            let unreadable = |error| Failure::unusable(format!("{}: {error}", path.display()));
            options = options.credentials_file(path).await.map_err(unreadable)?;
        }
        let options = options
            .name("bourdon-bridge")
            .retry_on_initial_connect()
            .request_timeout(Some(ANSWERS_WITHIN))
            .reconnect_delay_callback(|attempts| PAUSE.saturating_mul(attempts as u32).min(CONNECT_PAUSE_MAX))
            .event_callback(move |event| {
                match &event {
                    Event::Connected => *counter.lock().unwrap_or_else(PoisonError::into_inner) += 1,
                    Event::Disconnected | Event::LameDuckMode | Event::SlowConsumer(_) => {}
                    Event::Draining | Event::Closed | Event::ServerError(_) | Event::ClientError(_) => {}
                }
                note(format!("nats: {event}"));
                std::future::ready(())
            });
        let servers = place.nats.iter().map(|server| format!("{}:{}", server.host(), server.port()));
        let servers = servers.collect::<Vec<_>>().join(", ");
        let client =
            options.connect(&place.nats).await.map_err(|why| Failure::unusable(format!("{servers}: {why}")))?;
        // What a session that ended leaves under way counts until its time is over.
        let context = ContextBuilder::new().timeout(ANSWERS_WITHIN).ack_timeout(ANSWERS_WITHIN);
        let context = context.max_ack_inflight(SESSIONS_MAX * UNDER_WAY_MAX).build(client.clone());
        Ok(Self { client, context, stream: place.stream.clone(), servers, connections, run: run.clone() })
    }

    /// How often it has connected.
    pub(crate) fn connections(&self) -> u64 {
        *self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn is_connected(&self) -> bool {
        self.client.connection_state() == async_nats::connection::State::Connected
    }

    /// Reports that it waits for the server.
    pub(crate) fn waits(&self, why: &str) {
        let servers = &self.servers;
        if self.is_connected() {
            self.run.waits("stream", format!("{servers}: stream {:?}: {why}", self.stream));
        } else {
            self.run.waits("server", format!("no server answers at {servers}: is one running there?"));
        }
    }

    /// Sleeps between two attempts.
    pub(crate) async fn pause(&self) {
        tokio::time::sleep(PAUSE).await;
    }

    /// Calls until there is a result, or the user must act. None after a signal.
    pub(crate) async fn persist<T, F>(&self, mut call: impl FnMut() -> F) -> Result<Option<T>, Failure>
    where
        F: Future<Output = Result<T, Trouble>>,
    {
        while !self.run.is_over() {
            if !self.is_connected() {
                self.waits("");
                tokio::time::sleep(TICK).await;
                continue;
            }
            match call().await {
                Ok(result) => return Ok(Some(result)),
                Err(Trouble::Final(why)) => return Err(Failure::unusable(why)),
                Err(Trouble::Transient(why)) => self.waits(&why),
            }
            self.pause().await;
        }
        Ok(None)
    }

    /// The stream, and how far it is.
    pub(crate) async fn stream(&self) -> Result<Option<(Stream, Info)>, Failure> {
        self.persist(|| async {
            let found = self.context.get_stream(&self.stream).await;
            found.map(|stream| (stream.cached_info().clone(), stream)).map(|(info, stream)| (stream, info)).map_err(
                |error| match error.kind() {
                    GetStreamErrorKind::JetStream(why) if why.error_code() == ErrorCode::STREAM_NOT_FOUND => {
                        Trouble::Final(format!(
                            "{}: there is no stream {:?}: create it first, as in `nats stream add {}`",
                            self.servers, self.stream, self.stream
                        ))
                    }
                    GetStreamErrorKind::EmptyName | GetStreamErrorKind::InvalidStreamName => {
                        Trouble::Final(format!("{:?} is no name of a stream", self.stream))
                    }
                    _ => Trouble::transient(error),
                },
            )
        })
        .await
    }

    /// The message at this place of the stream; none if it was removed.
    pub(crate) async fn message(
        &self,
        stream: &Stream,
        sequence: u64,
    ) -> Result<Option<Option<StreamMessage>>, Failure> {
        self.persist(|| async {
            match stream.get_raw_message(sequence).await {
                Ok(message) => Ok(Some(message)),
                Err(error) if error.kind() == RawMessageErrorKind::NoMessageFound => Ok(None),
                Err(error) => Err(Trouble::transient(error)),
            }
        })
        .await
    }
}

/// Whether a stream that takes `pattern` takes any subject below this prefix.
pub(crate) fn takes(pattern: &str, prefix: &str) -> bool {
    let mut wanted = pattern.split('.');
    for part in prefix.split('.') {
        match wanted.next() {
            Some(">") => return true,
            Some(token) if token == "*" || token == part => {}
            _ => return false,
        }
    }
    wanted.next().is_some()
}

#[cfg(test)]
mod tests {
    use super::takes;

    #[test]
    fn a_stream_takes_subjects_below_a_prefix() {
        for pattern in [">", "bourdon.>", "bourdon.*.>", "bourdon.prices.>", "bourdon.prices.*", "bourdon.*.md.es"] {
            assert!(takes(pattern, "bourdon.prices"), "{pattern}");
        }
        for pattern in ["bourdon.prices", "bourdon.*", "other.>", "prices.>"] {
            assert!(!takes(pattern, "bourdon.prices"), "{pattern}");
        }
    }
}
