//! Clients and the member that carries their messages, case by case.

mod common;

use bourdon_protocol::{Client, ClientEvent, Order};
use bourdon_wire::records::{ClientAnswer, ClientRequest, refusals, request_flags};
use bourdon_wire::{ClientId, Instant, Kind, Rank, Sequence, TopicId};
use common::{Bench, Effect, GROUP, MTU, To, address, control, says, sends};
use zerocopy::IntoBytes;

fn request(client: u64, sequence: u64, request_flags: u16, payload: &[u8]) -> Vec<u8> {
    let record = ClientRequest {
        client: client.into(),
        sequence: sequence.into(),
        reply_to: address(700),
        flags: request_flags.into(),
        under_way: (sequence as u32).into(),
    };
    control(Rank::CLIENT.0, Kind::ClientRequest, &[record.as_bytes(), payload])
}

fn answered(bench: &mut Bench, request: &[u8]) -> Vec<Effect> {
    bench.take(request);
    bench.news()
}

fn answer(taken: u64, refusal: u64) -> Effect {
    says(&format!("answer 5 taken {taken} refusal {refusal}"), To::Port(700))
}

#[test]
fn a_request_is_published_once_and_answered_each_time() {
    let mut bench = Bench::member(Order::Fifo, 1, 0);
    bench.settle();
    let first = answered(&mut bench, &request(5, 0, 0, b"abc"));
    assert_eq!(first, [sends(0, &["3 bytes"]), answer(1, refusals::NONE), common::deliver("0:0")]);
    assert_eq!(answered(&mut bench, &request(5, 0, 0, b"abc")), [answer(1, refusals::NONE)]);
    assert_eq!(answered(&mut bench, &request(5, 2, 0, b"too early")), [answer(1, refusals::NONE)]);
    assert_eq!(answered(&mut bench, &request(5, 1, 0, b""))[0], sends(1, &["0 bytes"]));
}

#[test]
fn a_refused_message_keeps_its_sequence_until_it_is_skipped() {
    let mut bench = Bench::member(Order::Fifo, 1, 0);
    bench.settle();
    let large = vec![0; 8 * MTU + 1];
    assert_eq!(answered(&mut bench, &request(5, 0, 0, &large)), [answer(0, refusals::TOO_LARGE)]);
    assert_eq!(answered(&mut bench, &request(5, 1, 0, b"next")), [answer(0, refusals::NONE)]);
    assert_eq!(answered(&mut bench, &request(5, 0, request_flags::SKIP, b"")), [answer(1, refusals::NONE)]);
    assert_eq!(answered(&mut bench, &request(5, 0, 0, &large)), [answer(1, refusals::NONE)], "an old copy");
    assert_eq!(answered(&mut bench, &request(5, 1, 0, b"next"))[0], sends(0, &["4 bytes"]));
}

#[test]
fn a_member_that_cannot_publish_says_busy_and_an_observer_nothing() {
    let mut bench = Bench::member(Order::Fifo, 2, 0);
    bench.settle();
    assert_eq!(answered(&mut bench, &request(5, 0, 0, b"abc")), [answer(0, refusals::BUSY)]);
    let mut bench = Bench::new(Order::Fifo, 1, bourdon_protocol::Role::Observer);
    assert_eq!(answered(&mut bench, &request(5, 0, 0, b"abc")), []);
}

#[test]
fn a_member_serves_so_many_clients_and_no_more() {
    let mut bench = Bench::member(Order::Fifo, 1, 0);
    for client in 0..1024 {
        bench.take(&request(client, 7, 0, b""));
    }
    bench.settle();
    let late = answered(&mut bench, &request(5000, 0, 0, b""));
    assert_eq!(late, [says("answer 5000 taken 0 refusal 3", To::Port(700))]);
    bench.now = bench.now + 61_000_000_000;
    bench.take(&bench.heartbeat(0, |_| {}));
    assert_eq!(answered(&mut bench, &request(5000, 0, 0, b"x"))[0], sends(0, &["1 bytes"]), "the quietest gave way");
}

/// A client that has heard of its member, and what it sends: sequence, flags, length.
struct Bank {
    client: Client,
    now: Instant,
}

impl Bank {
    fn new() -> Self {
        let mut client = Client::new(Instant(0), GROUP, ClientId(5), address(700));
        let member = Bench::member(Order::Fifo, 1, 0);
        client.on_datagram(Instant(0), &member.heartbeat(0, |_| {}));
        Self { client, now: Instant(0) }
    }

    fn sends(&mut self) -> Vec<(u64, u16, usize)> {
        let mut sent = Vec::new();
        self.client.transmit(self.now, |to, bytes| {
            assert_eq!(to, address(100));
            let datagram = bourdon_wire::Datagram::parse(bytes, GROUP).unwrap();
            let frame = datagram.frames().next().unwrap();
            let (request, payload) = ClientRequest::read(frame.body).unwrap();
            sent.push((request.sequence.get(), request.flags.get(), payload.len()));
            true
        });
        sent
    }

    fn hears(&mut self, taken: u64, refusal: u64) {
        let record = ClientAnswer::new(ClientId(5), Sequence(taken), refusal);
        self.client.on_datagram(self.now, &control(0, Kind::ClientAnswer, &[record.as_bytes()]));
    }
}

#[test]
fn a_client_sends_again_from_the_watermark() {
    let mut bank = Bank::new();
    for length in 1..=3 {
        bank.client.publish(TopicId(1), &vec![0; length]);
    }
    assert_eq!(bank.sends(), [(0, 0, 1), (1, 0, 2), (2, 0, 3)]);
    assert_eq!(bank.sends(), []);
    bank.hears(1, refusals::NONE);
    assert_eq!(bank.client.poll_event(), Some(ClientEvent::Taken(Sequence(1))));
    bank.now = bank.client.next_deadline();
    assert_eq!(bank.sends(), [(1, 0, 2), (2, 0, 3)]);
    bank.hears(u64::MAX, refusals::NONE);
    assert!(bank.client.is_idle());
    assert_eq!(bank.client.poll_event(), Some(ClientEvent::Taken(Sequence(3))));
}

/// A sequence once given to a message is never given to another: an old copy of the request may still be on its way.
#[test]
fn a_refused_message_uses_its_sequence_up() {
    let mut bank = Bank::new();
    bank.client.publish(TopicId(1), &[0; 900]);
    bank.client.publish(TopicId(1), &[0; 2]);
    bank.sends();
    bank.hears(0, refusals::TOO_LARGE);
    bank.hears(0, refusals::TOO_LARGE);
    assert_eq!(bank.client.poll_event(), Some(ClientEvent::TooLarge(Sequence(0))));
    assert_eq!(bank.client.poll_event(), None, "said once");
    assert_eq!(bank.sends(), [(0, request_flags::SKIP, 0), (1, 0, 2)]);
    bank.hears(2, refusals::NONE);
    assert!(bank.client.is_idle());
}

#[test]
fn a_client_without_an_answer_says_so() {
    let mut bank = Bank::new();
    bank.client.publish(TopicId(1), b"x");
    for _ in 0..400 {
        bank.sends();
        bank.now = bank.client.next_deadline();
    }
    assert_eq!(bank.client.poll_event(), Some(ClientEvent::NoAnswer));
}
