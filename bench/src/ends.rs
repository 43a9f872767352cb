//! The ends of a measurement, over any [`Link`].
//!
//! A near end sends first: one message after the other ([`WorkerKind::Pinger`]), messages when they are due
//! ([`WorkerKind::Client`]), or a stream ([`WorkerKind::Publisher`]). A far end replies ([`WorkerKind::Echo`]) or
//! checks the stream ([`WorkerKind::Receiver`]). Each end is a process; the harness starts all of a round at once and
//! lets the near end begin when all are ready.
//!
//! Invariant: an end goes on serving its link after its report, until the harness ends it, because the other ends may
//! still need its acknowledgements and retransmissions.

use crate::worker::{Found, Spec, WorkerKind, WorkerReport, has_begun, pin, report};
use crate::{Failure, Link, durable, echo, latency, load, stream};

/// Plays the end that the spec describes over an open link: reports that it is ready, measures, reports the figures,
/// and serves the link until the harness ends this process.
///
/// # Errors
/// If the system failed, or its messages do not come back.
pub fn play(spec: &Spec, mut link: impl Link) -> Result<(), Failure> {
    report(&WorkerReport::Ready);
    while spec.role.is_near() && !has_begun() {
        serve(spec, &mut link)?;
    }
    let found = match spec.role {
        WorkerKind::DurablePublisher | WorkerKind::Disk => {
            return durable::publish(spec, &mut link).and_then(|()| hold(spec, link));
        }
        WorkerKind::DurableMember => return hold(spec, link),
        WorkerKind::Pinger => latency::ping(spec, &mut link)?,
        WorkerKind::Client => load::client(spec, &mut link)?,
        WorkerKind::Publisher => stream::publish(spec, &mut link)?,
        WorkerKind::Receiver => stream::receive(spec, &mut link)?,
        WorkerKind::Echo => return echo::serve(spec, &mut link),
        other => return Err(Failure::Broken(format!("{other:?} is no end of a link"))),
    };
    report(&WorkerReport::Found(found));
    hold(spec, link)
}

/// Serves a link until the harness ends this process.
fn hold(spec: &Spec, mut link: impl Link) -> Result<(), Failure> {
    loop {
        serve(spec, &mut link)?;
    }
}

fn serve(spec: &Spec, link: &mut impl Link) -> Result<(), Failure> {
    if link.poll(|_| {})? == 0 {
        link.wait(spec.idle)?;
    }
    Ok(())
}

/// Plays both ends of a stream in one process, for a system between threads: the publisher in this thread, the receiver
/// in another.
///
/// # Errors
/// As [`play`].
pub fn play_pair(spec: &Spec, mut sender: impl Link, mut receiver: impl Link + Send) -> Result<(), Failure> {
    report(&WorkerReport::Ready);
    while !has_begun() {
        spec.idle.pause();
    }
    std::thread::scope(|scope| {
        let far = scope.spawn(|| {
            pin(spec.core + 1);
            stream::receive(spec, &mut receiver)
        });
        let near = stream::publish(spec, &mut sender)?;
        let far = far.join().map_err(|_| Failure::Broken("the receiving thread panicked".into()))??;
        // CPU time is of the process, so it is both threads' already.
        report(&WorkerReport::Found(Found { sent: near.sent, cpu_ns: near.cpu_ns, ..far }));
        Ok(())
    })
}
