//! Direct messages: to one process, to the nearest, to all that hear the network; through loss, duplication and death.

use crate::common::net::{Net, address};
use crate::common::{GROUP, MS, MTU, control};
use bourdon_protocol::{
    CallId, Client, Destination, DirectAnswer, DirectContent, DirectFailure, DirectKind, DirectMessage, DirectOutcome,
    Refusal, To,
};
use bourdon_wire::records::{Direct, Heartbeat, direct_steps, heartbeat_flags};
use bourdon_wire::{Address, ClientId, Datagram, Incarnation, Instant, Kind, Rank};
use std::collections::BTreeMap;
use zerocopy::IntoBytes;

fn formed(members: u16, observers: u16) -> Net {
    let mut net = Net::new(members, observers, |_| {});
    net.run(100 * MS);
    net
}

fn plain(payload: &[u8]) -> DirectContent<'_> {
    DirectContent::message(payload)
}

fn content(kind: DirectKind, lasts_ns: u64) -> DirectContent<'static> {
    DirectContent { kind, payload: b"text", lasts_ns }
}

fn received(net: &mut Net, index: usize) -> Vec<DirectMessage> {
    let process = net.process(index);
    std::iter::from_fn(|| process.poll_direct()).collect()
}

fn texts(net: &mut Net, index: usize) -> Vec<String> {
    received(net, index).into_iter().map(|message| String::from_utf8(message.payload).unwrap()).collect()
}

fn outcome(net: &mut Net, index: usize) -> Option<DirectOutcome> {
    net.process(index).poll_outcome()
}

#[test]
fn one_process_receives_it_and_no_other() {
    let mut net = formed(3, 1);
    let now = net.now;
    let call = net.process(0).send(now, To::Rank(Rank(2)), &plain(b"hello")).unwrap().unwrap();
    net.run(MS);
    let message = DirectMessage { from: Rank(0), address: address(0), broadcast: false, payload: b"hello".to_vec() };
    assert_eq!(received(&mut net, 2), [message]);
    assert!(received(&mut net, 1).is_empty() && received(&mut net, 3).is_empty());
    let done = outcome(&mut net, 0).unwrap();
    assert!(matches!(done, DirectOutcome::Done { call: c, by: Rank(2), attempts: 1, .. } if c == call), "{done:?}");
    // The observer, which has no rank, replies to the address in the message.
    let now = net.now;
    net.process(3).send(now, To::Rank(Rank(1)), &plain(b"question")).unwrap();
    net.run(MS);
    let question = received(&mut net, 1).remove(0);
    assert_eq!(question.from, Rank::OBSERVER);
    let now = net.now;
    net.process(1).send(now, To::Address(question.address), &plain(b"answer")).unwrap();
    net.run(MS);
    assert_eq!(texts(&mut net, 3), ["answer"]);
}

#[test]
fn what_is_lost_comes_and_what_comes_twice_is_one_in_order() {
    let mut net = formed(2, 0);
    let mut rng = fastrand::Rng::with_seed(7);
    net.lose = Box::new(move |_, _| rng.u8(..) < 100);
    net.alter = Box::new(|_, _, _| 3);
    let (mut sent, mut got) = (0, Vec::new());
    let mut done = BTreeMap::new();
    while done.len() < 200 {
        let now = net.now;
        while sent < 200 && net.process(0).send(now, To::Rank(Rank(1)), &plain(sent.to_string().as_bytes())).is_ok() {
            sent += 1;
        }
        net.run(5 * MS);
        got.extend(texts(&mut net, 1));
        while let Some(outcome) = outcome(&mut net, 0) {
            let DirectOutcome::Done { call, .. } = outcome else { panic!("{outcome:?}") };
            assert_eq!(done.insert(call, ()), None);
        }
    }
    assert_eq!(got, (0..200).map(|n| n.to_string()).collect::<Vec<_>>(), "each once, in order");
}

#[test]
fn a_target_that_has_gone_is_reported_and_the_next_nearest_takes_it() {
    let mut net = formed(3, 1);
    net.kill(1);
    let now = net.now;
    net.process(3).send(now, To::Rank(Rank(1)), &plain(b"lost")).unwrap();
    let any = net.process(0).send(now, To::Among(&[Rank(1), Rank(2)]), &plain(b"job")).unwrap().unwrap();
    net.run(300 * MS);
    let taken = outcome(&mut net, 0).unwrap();
    assert!(matches!(taken, DirectOutcome::Done { call, by: Rank(2), .. } if call == any), "{taken:?}");
    assert_eq!(texts(&mut net, 2), ["job"]);
    net.run(6000 * MS);
    let failed = outcome(&mut net, 3).unwrap();
    assert!(matches!(failed, DirectOutcome::Failed { why: DirectFailure::Gone, .. }), "{failed:?}");
    let now = net.now;
    net.process(3).send(now, To::Address(address(1)), &plain(b"lost too")).unwrap();
    net.run(5001 * MS);
    let failed = outcome(&mut net, 3).unwrap();
    assert!(matches!(failed, DirectOutcome::Failed { why: DirectFailure::NoAnswer, .. }), "{failed:?}");
}

#[test]
fn a_suspicion_is_not_waited_for() {
    let mut net = formed(3, 0);
    net.kill(1);
    let now = net.now;
    net.process(0).send(now, To::Among(&[Rank(1), Rank(2)]), &plain(b"job")).unwrap();
    net.run(5 * MS);
    assert_eq!(outcome(&mut net, 0), None, "it went to the first of equals, which is dead");
    let now = net.now;
    net.process(0).on_evidence(now, Rank(1), Incarnation(1));
    net.run(30 * MS);
    assert!(matches!(outcome(&mut net, 0), Some(DirectOutcome::Done { by: Rank(2), .. })));
}

#[test]
fn a_full_queue_refuses_and_what_was_refused_comes_when_there_is_room() {
    let mut net = formed(2, 0);
    for sent in 0..257 {
        let now = net.now;
        net.process(0).send(now, To::Rank(Rank(1)), &plain(&[sent as u8])).unwrap();
        net.run(MS);
        assert_eq!(outcome(&mut net, 0).is_some(), sent < 256, "{sent}");
    }
    assert_eq!(net.process(1).memory_use().direct_messages, 256);
    assert_eq!(received(&mut net, 1).len(), 256);
    net.run(400 * MS);
    assert!(matches!(outcome(&mut net, 0), Some(DirectOutcome::Done { attempts: 2.., .. })));
    assert_eq!(received(&mut net, 1)[0].payload, [0]);
}

#[test]
fn a_receiver_that_never_fetches_is_busy_and_what_was_given_up_never_comes() {
    let mut net = formed(2, 0);
    for _ in 0..256 {
        let now = net.now;
        net.process(0).send(now, To::Rank(Rank(1)), &plain(b"x")).unwrap();
        net.run(MS);
        outcome(&mut net, 0).unwrap();
    }
    let now = net.now;
    net.process(0).send(now, To::Rank(Rank(1)), &plain(b"given up")).unwrap();
    net.run(5001 * MS);
    let failed = outcome(&mut net, 0).unwrap();
    assert!(matches!(failed, DirectOutcome::Failed { why: DirectFailure::Busy, .. }), "{failed:?}");
    received(&mut net, 1);
    let now = net.now;
    net.process(0).send(now, To::Rank(Rank(1)), &plain(b"the next")).unwrap();
    net.run(MS);
    assert_eq!(texts(&mut net, 1), ["the next"]);
}

#[test]
fn a_broadcast_reaches_all_others_once() {
    let mut net = formed(2, 2);
    net.alter = Box::new(|_, _, _| 2);
    for text in ["one", "two"] {
        let now = net.now;
        net.process(3).send(now, To::All, &plain(text.as_bytes())).unwrap();
        net.run(MS);
    }
    for index in 0..3 {
        let messages = received(&mut net, index);
        assert!(messages.iter().all(|message| message.broadcast && message.from == Rank::OBSERVER));
        assert_eq!(messages.len(), 2, "process {index}");
    }
    assert!(received(&mut net, 3).is_empty());
}

#[test]
fn what_cannot_be_sent_is_refused_with_the_reason() {
    let mut net = formed(2, 0);
    let now = net.now;
    let process = net.process(0);
    let limit_bytes = process.config().limits.mtu_bytes - 64 - 8 - 52;
    assert_eq!(
        process.send(now, To::Rank(Rank(1)), &plain(&vec![0; limit_bytes + 1])),
        Err(Refusal::TooLarge { limit_bytes })
    );
    assert!(process.send(now, To::Rank(Rank(1)), &plain(&vec![0; limit_bytes])).is_ok());
    assert_eq!(process.send(now, To::Rank(Rank(0)), &plain(b"")), Err(Refusal::Unreachable));
    assert_eq!(process.send(now, To::Rank(Rank(9)), &plain(b"")), Err(Refusal::Unreachable));
    assert_eq!(process.send(now, To::Among(&[Rank(9)]), &plain(b"")), Err(Refusal::NoReceiver));
    assert_eq!(process.send(now, To::Address(Address::default()), &plain(b"")), Err(Refusal::Unreachable));
    for _ in 1..32 {
        process.send(now, To::Rank(Rank(1)), &plain(b"")).unwrap();
    }
    assert_eq!(process.send(now, To::Rank(Rank(1)), &plain(b"")), Err(Refusal::TooMany { limit: 32 }));
}

#[test]
fn a_request_and_its_answers_pass_queues_that_are_full_of_messages() {
    let mut net = formed(2, 0);
    for index in [0, 1].repeat(256) {
        let now = net.now;
        net.process(index).send(now, To::Rank(Rank(1 - index as u16)), &plain(b"unfetched")).unwrap();
        net.run(MS);
        outcome(&mut net, index).unwrap();
    }
    let now = net.now;
    for call in [u64::MAX, 7] {
        net.process(0).send(now, To::Rank(Rank(1)), &content(DirectKind::Request(call), 20 * MS)).unwrap();
    }
    net.run(MS);
    assert!(net.process(1).has_direct_news() && net.process(1).poll_answer().is_none());
    for kind in [DirectKind::Reply(u64::MAX), DirectKind::Decline(7)] {
        let request = net.process(1).poll_request().unwrap();
        assert_eq!((request.patience_ns, &request.payload[..]), (20 * MS, &b"text"[..]));
        let now = net.now;
        net.process(1).send(now, To::Address(request.address), &content(kind, u64::MAX)).unwrap();
    }
    assert!(net.process(1).owes_direct() && !net.process(0).owes_direct());
    net.run(MS);
    assert!(!net.process(1).owes_direct());
    let answers: Vec<_> = std::iter::from_fn(|| net.process(0).poll_answer()).collect();
    let answer = |call, payload| DirectAnswer { call, from: Rank(1), address: address(1), payload };
    assert_eq!(answers, [answer(u64::MAX, Some(b"text".to_vec())), answer(7, None)]);
    assert_eq!(outcome(&mut net, 1), None, "an answer has no outcome");
}

#[test]
fn a_reply_to_an_observer_waits_for_the_proof_of_its_address_and_losses_do_not_end_that() {
    let mut net = formed(2, 1);
    let mut rng = fastrand::Rng::with_seed(7);
    net.lose = Box::new(move |_, _| rng.u8(..) < 100);
    let mut answers = Vec::new();
    for number in 0..5 {
        let now = net.now;
        net.process(2).send(now, To::Rank(Rank(1)), &content(DirectKind::Request(number), 2_000 * MS)).unwrap();
        for _ in 0..400 {
            net.run(5 * MS);
            let now = net.now;
            while let Some(request) = net.process(1).poll_request() {
                let reply = content(DirectKind::Reply(request.call), request.patience_ns);
                net.process(1).send(now, To::Address(request.address), &reply).unwrap();
            }
        }
        answers.extend(std::iter::from_fn(|| net.process(2).poll_answer()).map(|answer| answer.call));
        while outcome(&mut net, 2).is_some() {}
    }
    assert_eq!(answers, (0..5).collect::<Vec<_>>());
}

#[test]
fn answers_to_silent_addresses_leave_room_for_others_and_end_with_their_member() {
    let mut net = formed(3, 0);
    net.kill(2);
    let now = net.now;
    let mut reply =
        |now, to| net.process(0).send(now, To::Address(address(to)), &content(DirectKind::Reply(0), u64::MAX));
    for _ in 0..4 {
        reply(now, 2).unwrap();
    }
    assert_eq!(reply(now, 2), Err(Refusal::TooMany { limit: 4 }));
    for index in 0..27 {
        reply(now, 100 + index / 4).expect("there is room");
    }
    assert_eq!(reply(now, 1), Err(Refusal::TooMany { limit: 31 }), "their addresses may prove themselves yet");
    for _ in 0..4 {
        reply(now + 100 * MS, 1).expect("an answer that has waited for a proof makes room");
    }
    net.run(400 * MS);
    assert_eq!(std::iter::from_fn(|| net.process(1).poll_answer()).count(), 4);
    let now = net.now;
    let again = net.process(0).send(now, To::Address(address(2)), &content(DirectKind::Reply(0), u64::MAX));
    assert!(again.is_ok(), "its answers have ended with its view");
}

#[test]
fn a_request_is_given_up_with_its_senders_patience_and_answers_have_calls_of_their_own() {
    let mut net = formed(2, 0);
    net.lose = Box::new(|_, to| to == 1);
    for call in 0..32 {
        let now = net.now;
        net.process(0).send(now, To::Rank(Rank(1)), &content(DirectKind::Request(call), 40 * MS)).unwrap();
    }
    let now = net.now;
    let refused = net.process(0).send(now, To::Rank(Rank(1)), &content(DirectKind::Request(32), MS));
    assert_eq!(refused, Err(Refusal::TooMany { limit: 32 }));
    for call in 0..4 {
        net.process(0).send(now, To::Address(address(1)), &content(DirectKind::Reply(call), u64::MAX)).unwrap();
    }
    let refused = net.process(0).send(now, To::Rank(Rank(1)), &content(DirectKind::Decline(31), MS));
    assert_eq!(refused, Err(Refusal::TooMany { limit: 4 }));
    net.run(41 * MS);
    for _ in 0..32 {
        let failed = outcome(&mut net, 0);
        assert!(matches!(failed, Some(DirectOutcome::Failed { why: DirectFailure::NoAnswer, .. })), "{failed:?}");
    }
    let now = net.now;
    assert!(net.process(0).send(now, To::All, &content(DirectKind::Request(0), MS)).is_err(), "all would reply");
}

/// A client outside a group of two members, with datagrams written by hand.
struct Beside {
    client: Client,
    now: Instant,
}

impl Beside {
    fn new() -> Self {
        let client = Client::new(Instant(0), GROUP, ClientId(77), address(9), MTU);
        let mut beside = Self { client, now: Instant(1000 * MS) };
        [0, 1].into_iter().for_each(|rank| beside.beat(rank));
        beside
    }

    fn beat(&mut self, rank: u16) {
        let mut beat = Heartbeat::read(&[0; Heartbeat::BYTES]).unwrap().0.to_owned();
        beat.flags = heartbeat_flags::FORMED.into();
        beat.address = address(usize::from(rank));
        self.client.on_datagram(self.now, &control(rank, Kind::Heartbeat, &[beat.as_bytes()]), true);
    }

    /// What it sends now: destination and record.
    fn sends(&mut self) -> Vec<(Destination, Direct)> {
        let mut sent = Vec::new();
        self.client.transmit(self.now, |to, bytes, segment_bytes| {
            for datagram in bytes.chunks(segment_bytes) {
                let datagram = Datagram::parse(datagram, GROUP).unwrap();
                let frame = datagram.frames().next().unwrap();
                sent.push((to, *Direct::read(frame.body).unwrap().0));
            }
            bytes.len().div_ceil(segment_bytes)
        });
        sent
    }

    fn answer(&mut self, rank: u16, step: u16, record: Direct) {
        let record = Direct { step: step.into(), reply_to: address(usize::from(rank)), ..record };
        self.client.on_datagram(self.now, &control(rank, Kind::Direct, &[record.as_bytes()]), false);
    }
}

fn to(rank: usize) -> Destination {
    Destination::Peer(address(rank))
}

fn steps(sent: &[(Destination, Direct)]) -> Vec<(Destination, u16)> {
    sent.iter().map(|(to, record)| (*to, record.step.get())).collect()
}

#[test]
fn the_nearest_is_found_by_probes_and_left_when_it_is_silent() {
    let mut beside = Beside::new();
    let call = beside.client.send(beside.now, To::Nearest, &plain(b"job")).unwrap().unwrap();
    let probes = beside.sends();
    assert_eq!(steps(&probes), [(to(0), direct_steps::PROBE), (to(1), direct_steps::PROBE)]);
    beside.now = beside.now + MS;
    beside.answer(1, direct_steps::ECHO, probes[1].1);
    assert_eq!(beside.sends(), [], "0 may still be nearer: its probe went out earlier");
    beside.now = beside.now + MS;
    beside.answer(0, direct_steps::ECHO, probes[0].1);
    let sent = beside.sends();
    assert_eq!(steps(&sent), [(to(1), direct_steps::SEND)]);
    let mut copies = 1;
    for _ in 0..9 {
        beside.now = beside.now + 10 * MS;
        copies += steps(&beside.sends()).iter().filter(|sent| **sent == (to(1), direct_steps::SEND)).count();
    }
    assert_eq!(copies, 4, "after 10, 30 and 70 ms");
    beside.now = beside.now + 10 * MS;
    let over = beside.sends();
    assert_eq!(steps(&over), [(to(0), direct_steps::SEND)]);
    // The acknowledgement of either will do.
    beside.answer(1, direct_steps::TAKEN, sent[0].1);
    beside.answer(0, direct_steps::TAKEN, over[0].1);
    let done = beside.client.poll_outcome();
    let rtt_ns = 100 * MS;
    assert_eq!(done, Some(DirectOutcome::Done { call, by: Rank(1), address: address(1), rtt_ns, attempts: 5 }));
    assert_eq!(beside.client.poll_outcome(), None);
}

#[test]
fn a_target_named_twice_receives_it_once() {
    let mut net = formed(3, 0);
    net.lose = Box::new(|from, _| from == 1);
    let now = net.now;
    net.process(0).send(now, To::Among(&[Rank(1), Rank(1), Rank(1)]), &plain(b"job")).unwrap();
    net.run(5001 * MS);
    assert_eq!(texts(&mut net, 1), ["job"], "its acknowledgements are lost");
}

#[test]
fn a_target_that_answers_no_probe_is_not_waited_for_again() {
    let mut beside = Beside::new();
    beside.client.send(beside.now, To::Nearest, &plain(b"job")).unwrap();
    let probes = beside.sends();
    beside.answer(1, direct_steps::ECHO, probes[1].1);
    assert_eq!(beside.sends(), []);
    beside.now = beside.now + 20 * MS;
    let sent = beside.sends();
    assert_eq!(steps(&sent), [(to(1), direct_steps::SEND)]);
    beside.answer(0, direct_steps::TAKEN, sent[0].1);
    assert_eq!(beside.client.poll_outcome(), None, "0 was not probed");
    beside.answer(1, direct_steps::TAKEN, sent[0].1);
    assert!(matches!(beside.client.poll_outcome(), Some(DirectOutcome::Done { call: CallId(0), by: Rank(1), .. })));
}

#[test]
fn numbers_are_consecutive_and_the_oldest_under_way_is_sent() {
    let mut beside = Beside::new();
    for text in [b"a", b"b", b"c"] {
        beside.client.send(beside.now, To::Rank(Rank(0)), &plain(text)).unwrap();
    }
    beside.client.send(beside.now, To::Rank(Rank(1)), &plain(b"other")).unwrap();
    let numbers = |sent: &[(Destination, Direct)]| {
        sent.iter().map(|(to, record)| (*to, record.sequence.get(), record.oldest.get())).collect::<Vec<_>>()
    };
    let sent = beside.sends();
    assert_eq!(numbers(&sent), [(to(0), 0, 0), (to(0), 1, 0), (to(0), 2, 0), (to(1), 0, 0)]);
    beside.answer(0, direct_steps::TAKEN, sent[0].1);
    beside.answer(1, direct_steps::TAKEN, sent[3].1);
    beside.now = beside.now + 10 * MS;
    assert_eq!(numbers(&beside.sends()), [(to(0), 1, 1), (to(0), 2, 1)]);
}
