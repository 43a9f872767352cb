//! A server of NATS with JetStream on loopback.

use super::{PATIENCE, signal, until};
use crate::skipped;
use async_nats::jetstream::{self, stream};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tokio::runtime::Runtime;

/// The stream of a test.
pub(crate) const STREAM: &str = "PRICES";

/// A message of the stream: sequence, subject, headers and payload.
type Stored = (u64, String, async_nats::HeaderMap, Vec<u8>);

/// A server, and a client of the test.
pub(crate) struct Server {
    child: Option<Child>,
    pub(crate) port: u16,
    directory: String,
    runtime: Runtime,
    context: Option<jetstream::Context>,
}

impl Server {
    /// None, with a report that the test is skipped, if there is no such program.
    #[track_caller]
    pub(crate) fn start(directory: &Path) -> Option<Self> {
        if Command::new("nats-server").arg("--version").stdout(Stdio::null()).status().is_err() {
            skipped::report("there is no nats-server: apt-get install nats-server");
            return None;
        }
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let port = free.local_addr().expect("it has one").port();
        drop(free);
        let runtime = Runtime::new().expect("a runtime");
        let directory = directory.join("nats").display().to_string();
        let mut server = Self { child: None, port, directory, runtime, context: None };
        server.run();
        let url = format!("nats://127.0.0.1:{port}");
        let connect = async { jetstream::new(async_nats::connect(url).await.expect("it takes connections")) };
        server.context = Some(server.runtime.block_on(connect));
        Some(server)
    }

    pub(crate) fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    fn context(&self) -> &jetstream::Context {
        self.context.as_ref().expect("it was made at the start")
    }

    /// Starts the program, and waits until it listens.
    pub(crate) fn run(&mut self) {
        let port = self.port.to_string();
        let mut command = Command::new("nats-server");
        command.args(["-a", "127.0.0.1", "-p", &port, "-js", "-sd", &self.directory]);
        self.child = Some(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it runs"));
        until("the server listens", || TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).is_ok());
    }

    /// As `kill -9`.
    pub(crate) fn kill(&mut self) {
        let mut child = self.child.take().expect("it runs");
        child.kill().expect("it is ours");
        child.wait().expect("it ends");
    }

    pub(crate) fn signal(&self, name: &str) {
        signal(self.child.as_ref().expect("it runs").id(), name);
    }

    /// Makes the stream; the server drops repetitions within a second only.
    pub(crate) fn create(&self, subjects: &[&str]) {
        let config = stream::Config {
            name: STREAM.to_owned(),
            subjects: subjects.iter().map(|&subject| subject.to_owned()).collect(),
            duplicate_window: Duration::from_secs(1),
            ..stream::Config::default()
        };
        self.runtime.block_on(self.context().create_stream(config)).expect("it is created");
    }

    pub(crate) fn delete(&self) {
        self.runtime.block_on(self.context().delete_stream(STREAM)).expect("it is deleted");
    }

    /// Publishes messages, many at a time.
    pub(crate) fn publish(&self, messages: impl Iterator<Item = (String, Vec<u8>)>) {
        self.runtime.block_on(async {
            let mut acks = Vec::new();
            for (subject, payload) in messages {
                acks.push(self.context().publish(subject, payload.into()).await.expect("it is sent"));
                if acks.len() == 200 {
                    for ack in acks.drain(..) {
                        ack.await.expect("it is acknowledged");
                    }
                }
            }
            for ack in acks {
                ack.await.expect("it is acknowledged");
            }
        });
    }

    /// Publishes one message with headers.
    pub(crate) fn publish_with(&self, subject: &str, headers: &[(&str, &str)]) {
        let mut map = async_nats::HeaderMap::new();
        headers.iter().for_each(|(name, value)| map.insert(*name, *value));
        self.runtime.block_on(async {
            let sent =
                self.context().publish_with_headers(subject.to_owned(), map, "".into()).await.expect("it is sent");
            sent.await.expect("it is acknowledged");
        });
    }

    /// Removes a message.
    pub(crate) fn remove(&self, sequence: u64) {
        self.runtime.block_on(async {
            let stream = self.context().get_stream(STREAM).await.expect("it is there");
            stream.delete_message(sequence).await.expect("it is removed");
        });
    }

    /// The sequence at the stream's end; none while the server does not answer.
    pub(crate) fn last(&self) -> Option<u64> {
        let stream = self.runtime.block_on(self.context().get_stream(STREAM)).ok()?;
        Some(stream.cached_info().state.last_sequence)
    }

    /// All messages of the stream: subject, headers and payload.
    pub(crate) fn messages(&self) -> Vec<Stored> {
        use futures_util::StreamExt;
        let last = self.last().expect("the server answers");
        self.runtime.block_on(async {
            let stream = self.context().get_stream(STREAM).await.expect("it is there");
            let config = jetstream::consumer::pull::OrderedConfig::default();
            let consumer = stream.create_consumer(config).await.expect("it is created");
            let mut messages = consumer.messages().await.expect("it reads");
            let mut read: Vec<Stored> = Vec::new();
            while read.last().is_none_or(|(sequence, ..)| *sequence < last) {
                let next = tokio::time::timeout(PATIENCE, messages.next()).await.expect("it comes");
                let message = next.expect("there is more").expect("it is readable");
                let sequence = message.info().expect("it is of a stream").stream_sequence;
                let message = message.message;
                let headers = message.headers.unwrap_or_default();
                read.push((sequence, message.subject.to_string(), headers, message.payload.to_vec()));
            }
            read
        })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
