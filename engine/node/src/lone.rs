//! A group of one member forms alone, so nothing would tell its process that a group of this name runs already. So it
//! listens first, for ten of a member's heartbeats. A process that is heard is asked to repeat a nonce: a recording and
//! a forged heartbeat of an address that does not receive keep no process out.
//!
//! Larger groups do not listen. While their members wait for each other, they mostly hear a group that runs; members
//! that all start within a heartbeat may not.

use crate::config::{Role, Settings, Transport};
use crate::node_error::Error;
use crate::transport::{Picked, pick};
use bourdon_engine::Clock;
use bourdon_port::{Echo, Port, To};
use bourdon_protocol::{Config, Difference};
use bourdon_wire::records::{Challenge, Heartbeat, ViewAsk, heartbeat_flags};
use bourdon_wire::{
    CONTROL_CHANNEL, Datagram, DatagramHeader, ECHO_OFFSET, Epoch, FRAME_HEADER_BYTES, FrameHeader, HEADER_BYTES,
    Incarnation, InstanceId, Kind, Rank, TopicId, echo_bytes, seal,
};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;
use zerocopy::IntoBytes;

/// A member sends a heartbeat every 10 ms.
const LISTEN_NS: u64 = 100_000_000;
/// How long a process that was heard has to answer, on a busy host.
const ANSWER_NS: u64 = 300_000_000;
/// How often it is asked.
const ASK_NS: u64 = 50_000_000;
/// How many members are asked: an earlier heartbeat may be a recording or a forgery, so the latest ones count.
const FOUND_MAX: usize = 8;
/// How many datagrams are read between two looks at the clock.
const DATAGRAMS: usize = 256;

/// A member of a group of this name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Found {
    rank: Rank,
    incarnation: Incarnation,
    instance: InstanceId,
    configuration: u64,
    address: SocketAddr,
}

/// Refuses to form a group of one member beside a group of the same name that runs.
pub(crate) fn check(settings: &Settings, config: &Config) -> Result<(), Error> {
    let has_one_place = settings.network.transport != Transport::Tcp; // where all processes are heard
    let forms_alone = settings.process.role == Role::Member && settings.group.members == 1;
    if !has_one_place || !forms_alone || settings.detector.leans.is_some() {
        return Ok(());
    }
    // A port of its own: the node's is used by one thread only.
    let mut listener = settings.clone();
    if settings.network.transport != Transport::Shm {
        listener.network.transport = Transport::Portable;
    }
    let echo = Echo { offset: ECHO_OFFSET, bytes: echo_bytes(Rank::OBSERVER, CONTROL_CHANNEL, config.incarnation) };
    // With `auto` there may be no multicast.
    let Ok(Picked { mut port, .. }) = pick(&listener, echo) else { return Ok(()) };
    let Some(found) = listen(&mut port, config)? else { return Ok(()) };
    let differs = Difference { own: config.fingerprint(), other: found.configuration };
    let named = |(key, own, other)| format!("{key} is {own} here and {other} there");
    let differs: Vec<_> = differs.settings().map(named).collect();
    Err(Error::GroupRuns {
        group: settings.group.name.clone(),
        rank: found.rank,
        address: found.address,
        instance: found.instance,
        own: config.instance_candidate,
        differs: if differs.is_empty() { String::new() } else { format!(" ({})", differs.join(", ")) },
    })
}

/// A member that was heard and has answered, if there is one.
fn listen(port: &mut impl Port, config: &Config) -> Result<Option<Found>, Error> {
    let (clock, nonce) = (Clock::start(), config.instance_candidate.0); // random, and no secret
    let (mut found, mut answered) = (VecDeque::<Found>::new(), None);
    let (mut until, mut ask_at) = (clock.now() + LISTEN_NS, clock.now());
    let longest = until + ANSWER_NS;
    while answered.is_none() {
        let now = clock.now();
        let left_ns = until.since(now);
        if left_ns == 0 {
            return Ok(None);
        }
        if now >= ask_at {
            ask_at = now + ASK_NS;
            let ask = request(config, port.local_address(), nonce);
            for member in &found {
                port.send(To::Peer(member.address), &ask, ask.len())?;
            }
            port.flush()?;
        }
        port.wait(Duration::from_nanos(left_ns.min(ASK_NS)))?;
        port.receive(DATAGRAMS, |arrival| {
            let Ok(datagram) = Datagram::parse(arrival.bytes, config.group) else { return };
            if !arrival.to_all {
                answered = answered.or(found.iter().find(|member| answers(&datagram, member, nonce)).copied());
            }
            let Some(heard) = member(&datagram, config.incarnation).filter(|heard| !found.contains(heard)) else {
                return;
            };
            if found.len() == FOUND_MAX {
                found.pop_front();
            }
            ask_at = if found.is_empty() { now } else { ask_at };
            until = (now + ANSWER_NS).min(longest);
            found.push_back(heard);
        })?;
    }
    Ok(answered)
}

/// The member that a heartbeat of a formed group comes from.
fn member(datagram: &Datagram<'_>, own: Incarnation) -> Option<Found> {
    let header = datagram.header;
    let frame = datagram.frames().find(|frame| frame.kind() == Some(Kind::Heartbeat))?;
    let (heartbeat, _) = Heartbeat::read(frame.body)?;
    let is_formed = heartbeat.flags.get() & heartbeat_flags::FORMED != 0 && header.instance() != InstanceId::NONE;
    let is_other = header.rank() <= Rank::MAX && header.incarnation() != own && heartbeat.address.is_reachable();
    (is_formed && is_other).then(|| Found {
        rank: header.rank(),
        incarnation: header.incarnation(),
        instance: header.instance(),
        configuration: heartbeat.configuration.get(),
        address: heartbeat.address.into(),
    })
}

/// Whether a datagram is that member's answer: a challenge that repeats the nonce.
fn answers(datagram: &Datagram<'_>, found: &Found, nonce: u64) -> bool {
    let header = datagram.header;
    let is_its = (header.rank(), header.incarnation()) == (found.rank, found.incarnation);
    let repeats = |body| Challenge::read(body).is_some_and(|(challenge, _)| challenge.asked.get() == nonce);
    is_its && datagram.frames().any(|frame| frame.kind() == Some(Kind::Challenge) && repeats(frame.body))
}

/// A request for the view with a nonce in place of a cookie: a member answers it with a challenge.
fn request(config: &Config, reply_to: SocketAddr, nonce: u64) -> Vec<u8> {
    let ask = ViewAsk { reply_to: reply_to.into(), nonce: nonce.into(), cookie: nonce.into() };
    let header = DatagramHeader::new(
        config.group,
        InstanceId::NONE,
        Epoch(0),
        Rank::OBSERVER,
        config.incarnation,
        CONTROL_CHANNEL,
    );
    let body = ask.as_bytes();
    let mut bytes = vec![0; HEADER_BYTES];
    bytes.extend(FrameHeader::new(body.len(), TopicId(0), Kind::ViewAsk, 0).as_bytes());
    bytes.extend(body);
    seal(&mut bytes, header, 1, FRAME_HEADER_BYTES + body.len(), 0);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use bourdon_engine::Engine;
    use bourdon_port::memory::{Hub, MemoryOptions, MemoryPort};
    use bourdon_protocol::Role;
    use bourdon_ring::signal::Flag;
    use bourdon_wire::GroupId;

    fn open(hub: &Hub, incarnation: u32) -> MemoryPort {
        let bytes = echo_bytes(Rank(0), CONTROL_CHANNEL, Incarnation(incarnation));
        let echo = Some(Echo { offset: ECHO_OFFSET, bytes });
        let options = MemoryOptions::new(SocketAddr::from(([239, 0, 0, 1], 4000)));
        hub.open(MemoryOptions { echo, ..options }).expect("a port")
    }

    fn config(incarnation: u32) -> Config {
        let mut config = Config::new(GroupId(7), 1, Role::Member(Rank(0)));
        (config.incarnation, config.seed) = (Incarnation(incarnation), incarnation.into());
        config.instance_candidate = InstanceId(incarnation.into());
        config
    }

    /// A group of one member that runs.
    fn group(hub: &Hub, incarnation: u32) -> Engine<MemoryPort> {
        Engine::new(open(hub, incarnation), config(incarnation)).expect("a configuration")
    }

    #[test]
    fn a_member_is_found_that_is_heard_after_a_recording_of_another() {
        let hub = Hub::new();
        let (mut recorder, mut recorded) = (open(&hub, 0), Vec::new());
        let mut earlier = group(&hub, 1);
        let is_heartbeat = |bytes: &[u8]| {
            Datagram::parse(bytes, GroupId(7)).is_ok_and(|datagram| member(&datagram, Incarnation(3)).is_some())
        };
        while !is_heartbeat(&recorded) {
            earlier.poll(1, &|_| true, |_| {}).expect("a port in memory");
            recorder.receive(1, |arrival| recorded = arrival.bytes.to_vec()).expect("a port in memory");
        }
        drop(earlier);
        let mut port = open(&hub, 3);
        recorder.send(To::Group, &recorded, recorded.len()).expect("a port in memory");
        let (mut runs, has_ended) = (group(&hub, 2), Flag::new());
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !has_ended.is_set() {
                    runs.poll(1, &|_| true, |_| {}).expect("a port in memory");
                }
            });
            let found = listen(&mut port, &config(3));
            has_ended.set();
            assert_eq!(found.expect("a port in memory").map(|found| found.incarnation), Some(Incarnation(2)));
        });
    }
}
