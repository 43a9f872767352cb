//! iceoryx2: publish and subscribe through shared memory, without a daemon.
//!
//! A sample is loaned from the publisher's segment, filled by a copy, and sent by its offset. With one receiver that
//! has no room, the send fails and the message is offered again; with several it waits inside the send, because the
//! other receivers have the sample already.

use crate::PATIENCE;
use crate::cleaner::Cleaner;
use ::iceoryx2::config::Config;
use ::iceoryx2::port::publisher::Publisher;
use ::iceoryx2::port::subscriber::Subscriber;
use ::iceoryx2::port::{BackpressureAction, SendError};
use ::iceoryx2::prelude::*;
use ::iceoryx2::service::port_factory::publish_subscribe::PortFactory as PubSub;
use bourdon::settings::Flow;
use bourdon_bench::worker::{self, WorkerKind};
use bourdon_bench::{Failure, Link, Spec};
use std::time::Instant;

/// Samples that a receiver may be behind.
const SAMPLES: usize = 4096;
/// Samples that one poll takes at most.
const POLL_LIMIT: usize = 256;

/// One end.
pub(crate) struct Iceoryx2 {
    publisher: Option<Publisher<ipc::Service, [u8], ()>>,
    subscriber: Option<Subscriber<ipc::Service, [u8], ()>>,
    _files: Cleaner,
}

fn unusable(doing: &'static str) -> impl Fn(String) -> Failure {
    move |error| Failure::Unusable(format!("iceoryx2: {doing}: {error}"))
}

fn text(error: impl std::fmt::Debug) -> String {
    format!("{error:?}")
}

/// Settings under which all files of this run have names of their own.
fn config(spec: &Spec) -> Result<Config, Failure> {
    let mut config = Config::default();
    let name = |name: &str| FileName::new(name.as_bytes()).map_err(text).map_err(unusable("no file name"));
    config.global.prefix = name(&format!("{}-iox2-", spec.group))?;
    let root = format!("/dev/shm/{}-iox2-root", spec.group);
    config.global.set_root_path(&Path::new(root.as_bytes()).map_err(text).map_err(unusable("no folder"))?);
    Ok(config)
}

/// A service of messages of any length.
type Service = PubSub<ipc::Service, [u8], ()>;

/// Opens an end and waits until it is connected.
pub(crate) fn open(spec: &Spec) -> Result<Iceoryx2, Failure> {
    set_log_level(LogLevel::Error);
    let near = spec.role.is_near();
    // Each end makes files, and one may be killed before another has begun.
    let files = Cleaner::start(&format!("{}-iox2-", spec.group))?;
    let node = NodeBuilder::new().config(&config(spec)?).signal_handling_mode(SignalHandlingMode::Disabled);
    let node = node.create::<ipc::Service>().map_err(text).map_err(unusable("no node"))?;
    let receivers = if spec.role.replies() { 1 } else { usize::from(spec.receivers) };
    let samples = (spec.window_bytes as usize / spec.size_bytes.max(1) as usize).clamp(16, SAMPLES);
    let service = |direction: &str| {
        let name = ServiceName::new(direction).map_err(text).map_err(unusable("no service name"))?;
        let service = node.service_builder(&name).publish_subscribe::<[u8]>();
        let service = service.enable_safe_overflow(false).history_size(0).subscriber_max_buffer_size(samples);
        let service = service.max_publishers(1).max_subscribers(receivers).max_nodes(receivers + 1);
        service.open_or_create().map_err(text).map_err(unusable("no service"))
    };
    let (outward, inward) = if near { ("there", "back") } else { ("back", "there") };
    let mut end = Iceoryx2 { publisher: None, subscriber: None, _files: files };
    let mut awaited = Vec::new();
    if spec.role != WorkerKind::Publisher {
        let service: Service = service(inward)?;
        let subscriber = service.subscriber_builder().buffer_size(samples).create();
        end.subscriber = Some(subscriber.map_err(text).map_err(unusable("can't subscribe"))?);
        awaited.push((service, 1, 0));
    }
    if spec.role != WorkerKind::Receiver {
        let service: Service = service(outward)?;
        let when_full = when_full(spec, receivers);
        let publisher = service.publisher_builder().initial_max_slice_len(spec.size_bytes as usize);
        let publisher = publisher.set_backpressure_handler(move |_| when_full);
        end.publisher = Some(publisher.create().map_err(text).map_err(unusable("can't publish"))?);
        awaited.push((service, 0, receivers));
    }
    wait_for(&awaited)?;
    worker::describe(serde_json::json!({ "version": crate::version("iceoryx2"), "samples": samples }));
    Ok(end)
}

/// Waits until each service has so many publishers and so many subscribers.
fn wait_for(awaited: &[(Service, usize, usize)]) -> Result<(), Failure> {
    let deadline = Instant::now() + PATIENCE;
    let has_come = |(service, publishers, subscribers): &(Service, usize, usize)| {
        let ports = service.dynamic_config();
        ports.number_of_publishers() >= *publishers && ports.number_of_subscribers() >= *subscribers
    };
    while !awaited.iter().all(has_come) {
        if Instant::now() > deadline {
            return Err(Failure::Unusable("iceoryx2: the other end did not open the service within 10 s".into()));
        }
        std::thread::yield_now();
    }
    Ok(())
}

/// What a send does about a receiver that has no room.
fn when_full(spec: &Spec, receivers: usize) -> BackpressureAction {
    match (spec.flow, receivers) {
        (Flow::Gating, 1) => BackpressureAction::DiscardDataAndFail,
        (Flow::Gating, _) => BackpressureAction::Retry,
        _ => BackpressureAction::DiscardData,
    }
}

impl Link for Iceoryx2 {
    fn try_send(&mut self, message: &[u8]) -> Result<bool, Failure> {
        let publisher = self.publisher.as_ref().expect("only an end that sends is given messages");
        let failed = |error: String| Failure::Broken(format!("iceoryx2: a message was not sent: {error}"));
        let sample = publisher.loan_slice_uninit(message.len()).map_err(text).map_err(failed)?;
        match sample.write_from_slice(message).send() {
            Ok(_) => Ok(true),
            Err(SendError::UnableToDeliver) => Ok(false),
            Err(error) => Err(failed(text(error))),
        }
    }

    fn poll(&mut self, mut on_message: impl FnMut(&[u8])) -> Result<usize, Failure> {
        let Some(subscriber) = &self.subscriber else { return Ok(0) };
        let mut count = 0;
        while count < POLL_LIMIT {
            let received = subscriber.receive();
            let received =
                received.map_err(|error| Failure::Broken(format!("iceoryx2: nothing can arrive: {error:?}")))?;
            let Some(sample) = received else { break };
            on_message(sample.payload());
            count += 1;
        }
        Ok(count)
    }
}
