//! Clients and the member that publishes their messages, case by case.

use crate::common::{
    self, Bench, Effect, GROUP, MTU, Step, To, Value, address, control, data, in_epoch, in_instance, message, row, run,
    sends, sends_control,
};
use bourdon_protocol::{Client, ClientEvent, Destination, Order, Refusal};
use bourdon_wire::records::ballot_steps::{DECIDE, PREPARE};
use bourdon_wire::records::{ClientAnswer, ClientPlace, ClientRequest, refusals, request_flags};
use bourdon_wire::{ClientId, ClientTag, Epoch, Fragment, Instant, Kind, Rank, Sequence, TopicId, flags};
use zerocopy::IntoBytes;

fn request(client: u64, sequence: u64, request_flags: u16, payload: &[u8]) -> Vec<u8> {
    request_after((sequence as u16, 0), client, sequence, request_flags, payload)
}

/// How many messages before it no member has answered, and how far before those the last one stands that was taken.
fn request_after(
    (under_way, since_taken): (u16, u16),
    client: u64,
    sequence: u64,
    request_flags: u16,
    payload: &[u8],
) -> Vec<u8> {
    let record = ClientRequest {
        client: client.into(),
        sequence: sequence.into(),
        reply_to: address(700),
        flags: request_flags.into(),
        under_way: under_way.into(),
        since_taken: since_taken.into(),
    };
    control(Rank::CLIENT.0, Kind::ClientRequest, &[record.as_bytes(), payload])
}

/// A message of the client in a member's stream.
fn tagged(sequence: u64, payload: &[u8]) -> (u16, Vec<u8>) {
    let tag = ClientTag::new(ClientId(5), Sequence(sequence));
    (flags::WHOLE | flags::CLIENT, [tag.as_bytes(), payload].concat())
}

fn answered(bench: &mut Bench, request: &[u8]) -> Vec<Effect> {
    bench.take(request);
    bench.news()
}

fn answer(taken: u64, refusal: u64) -> Effect {
    sends_control(&format!("answer 5 taken {taken} refusal {refusal}"), To::Port(700))
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
fn a_member_that_cannot_publish_answers_busy_and_an_observer_nothing() {
    let mut bench = Bench::member(Order::Fifo, 2, 0);
    bench.settle();
    assert_eq!(answered(&mut bench, &request(5, 0, 0, b"abc")), [answer(0, refusals::BUSY)]);
    let mut bench = Bench::new(Order::Fifo, 1, bourdon_protocol::Role::Observer);
    bench.effects();
    assert_eq!(answered(&mut bench, &request(5, 0, 0, b"abc")), []);
}

#[test]
fn the_answer_waits_until_a_quorum_holds_the_message() {
    let mut bench = Bench::member(Order::Fifo, 5, 1).formed();
    assert_eq!(answered(&mut bench, &request(5, 0, 0, b"abc"))[0], sends(0, &["3 bytes"]));
    assert_eq!(answered(&mut bench, &request(5, 0, 0, b"abc")), [answer(0, refusals::NONE)], "not yet");
    let entries = |n: u64| [(0, 0), (n, 0), (0, 0), (0, 0), (0, 0)];
    bench.take(&row(2, &entries(1)));
    assert_eq!(bench.news(), [], "two of five");
    bench.take(&row(3, &entries(1)));
    assert_eq!(bench.news(), [answer(1, refusals::NONE)]);
    bench.take(&row(4, &entries(1)));
    assert_eq!(bench.news(), [], "reported once");
}

/// A view change that loses a message loses those that may only come after it.
#[test]
fn the_answer_waits_until_a_quorum_holds_all_that_comes_first() {
    for (order, own) in [(Order::Total, 0), (Order::Total, 1), (Order::Causal, 1)] {
        let mut bench = Bench::member(order, 7, own).formed();
        bench.take(&data(3, 0, 0, 0, &[message(b"earlier")]));
        bench.take(&request(5, 0, 0, b"abc"));
        if order == Order::Total && own != 0 {
            bench.take(&data(0, 0, 0, 0, &[run(3, 0, 1), run(own, 0, 1)]));
        }
        bench.delivered();
        let mut entries = [(0, 0); 7];
        for stream in [0, own] {
            entries[stream as usize] = (1, 0);
        }
        for member in [2, 4, 5] {
            bench.take(&row(member, &entries));
        }
        assert_eq!(bench.news(), [], "no quorum holds the message before it");
        entries[3] = (1, 0);
        for member in [2, 4] {
            bench.take(&row(member, &entries));
        }
        assert_eq!(bench.news(), [answer(1, refusals::NONE)], "{order:?} at {own}");
    }
}

/// The member that took it died before it replied, and the client has turned to this member.
#[test]
fn what_another_member_carried_is_delivered_once() {
    let mut bench = Bench::member(Order::Fifo, 3, 1).formed();
    bench.take(&data(0, 0, 0, 0, &[tagged(0, b"a"), tagged(1, b"b")]));
    assert_eq!(bench.news(), [common::deliver("0:0"), common::deliver("0:1")]);
    bench.take(&data(2, 0, 0, 0, &[tagged(1, b"b"), tagged(2, b"c"), tagged(u64::MAX, b"?")]));
    assert_eq!(bench.delivered(), ["2:1", "2:2"], "1 was delivered before, whichever member published it");
    let mut bench = Bench::member(Order::Fifo, 3, 1).formed();
    bench.take(&data(0, 0, 0, 0, &[tagged(0, b"a"), tagged(1, b"b")]));
    bench.news();
    assert_eq!(answered(&mut bench, &request(5, 1, 0, b"b")), [answer(2, refusals::NONE)]);
    assert_eq!(answered(&mut bench, &request(5, 2, 0, b"c"))[0], sends(0, &["1 bytes"]), "the next");
}

/// An observer that missed the first copy, in the view that has ended, would deliver the second.
#[test]
fn what_another_member_carried_is_not_published_again() {
    let mut bench = Bench::member(Order::Total, 3, 1).formed();
    assert_eq!(answered(&mut bench, &request(5, 0, 0, b"abc")), [sends(0, &["3 bytes"])]);
    bench.take(&data(2, 0, 0, 0, &[tagged(0, b"abc")]));
    bench.take(&data(0, 0, 0, 0, &[run(2, 0, 1)]));
    assert_eq!(bench.news(), [common::ordered("2:0", 0)]);
    bench.take(&Step::with(DECIDE, (1, 2), Value(&[1, 2], 1, &[1, 1, 1])).from(2));
    bench.news();
    assert_eq!(bench.process.view().epoch, Epoch(2));
    bench.take(&in_epoch(&bench.heartbeat(2, |_| {}), 2));
    assert_eq!(bench.news(), [sends(0, &["0 bytes"])], "the copy keeps its number alone");
    assert_eq!(bench.publish(b"next"), 1);
}

/// A fragment of a message of 3,000 bytes: 1,000 of them.
fn fragment(sequence: u64, offset: usize) -> Vec<u8> {
    let payload = vec![offset as u8; 1000];
    request(5, sequence, request_flags::FRAGMENT, &[Fragment::new(3000, offset).as_bytes(), &payload[..]].concat())
}

/// What the member answers to a fragment: what was taken, why not, what it publishes next, and how much of that is
/// here.
fn received(bench: &mut Bench, sequence: u64, offset: usize) -> (u64, u64, u64, u32) {
    let (answer, place) = reply(bench, &fragment(sequence, offset));
    let place = place.expect("a fragment is long enough");
    (answer.taken.get(), answer.refusal.get(), place.next.get(), place.received_bytes.get())
}

#[test]
fn a_message_in_fragments_is_published_once_it_is_whole() {
    let mut bench = Bench::member(Order::Fifo, 1, 0);
    bench.settle();
    assert_eq!(received(&mut bench, 0, 1000), (0, refusals::NONE, 0, 0), "the first was lost");
    for _ in 0..2 {
        assert_eq!(received(&mut bench, 0, 0), (0, refusals::NONE, 0, 1000));
    }
    assert_eq!(received(&mut bench, 0, 1000), (0, refusals::NONE, 0, 2000));
    assert_eq!(received(&mut bench, 1, 0), (0, refusals::NONE, 0, 2000), "not before the first message is whole");
    assert_eq!(bench.process.memory_use().client_bytes, 2000);
    let last = answered(&mut bench, &fragment(0, 2000));
    assert_eq!(last.iter().filter(|effect| matches!(effect, Effect::Data(..))).count(), 3000_usize.div_ceil(MTU - 80));
    assert_eq!(last[last.len() - 2..], [answer(1, refusals::NONE), common::deliver("0:0")]);
    assert_eq!(answered(&mut bench, &fragment(0, 2000)), [answer(1, refusals::NONE)], "once");
    assert_eq!(bench.process.memory_use().client_bytes, 0);
    assert_eq!(received(&mut bench, 1, 0), (1, refusals::NONE, 1, 1000), "the next");
    let cookie = cookie(&mut bench);
    bench.take(&alone(5, 1, request_flags::GOODBYE, cookie));
    bench.settle();
    assert_eq!(bench.process.memory_use().client_bytes, 0, "its client has ended");
}

#[test]
fn a_message_that_cannot_be_published_now_needs_its_last_fragment_again() {
    let mut bench = Bench::member(Order::Fifo, 3, 1).formed();
    bench.take(&Step::of(PREPARE, (1, 0)).from(0));
    bench.news();
    assert_eq!(received(&mut bench, 0, 0), (0, refusals::NONE, 0, 1000));
    assert_eq!(received(&mut bench, 0, 1000), (0, refusals::NONE, 0, 2000));
    for _ in 0..2 {
        assert_eq!(received(&mut bench, 0, 2000), (0, refusals::BUSY, 0, 2000));
    }
}

#[test]
fn of_a_message_in_fragments_that_is_too_long_nothing_is_kept() {
    let mut bench = Bench::member(Order::Fifo, 1, 0);
    bench.settle();
    let body = [Fragment::new(8 * MTU + 1, 0).as_bytes(), &[0; 1000][..]].concat();
    let too_long = request(5, 0, request_flags::FRAGMENT, &body);
    assert_eq!(answered(&mut bench, &too_long), [answer(0, refusals::TOO_LARGE)]);
    assert_eq!(bench.process.memory_use().client_bytes, 0);
}

/// The client went on at another member, which began the message again and has published it.
#[test]
fn a_message_that_another_member_published_is_not_collected_further() {
    let mut bench = Bench::member(Order::Fifo, 3, 1).formed();
    assert_eq!(received(&mut bench, 0, 0), (0, refusals::NONE, 0, 1000));
    bench.take(&data(0, 0, 0, 0, &[tagged(0, b"the same, as far as this member knows")]));
    assert_eq!(bench.delivered(), ["0:0"]);
    assert_eq!(received(&mut bench, 0, 1000), (1, refusals::NONE, 1, 0));
    assert_eq!(received(&mut bench, 1, 0), (1, refusals::NONE, 1, 1000));
    assert_eq!(bench.process.memory_use().client_bytes, 1000, "of the next alone");
}

#[test]
fn a_member_about_to_change_views_answers_busy() {
    let mut bench = Bench::member(Order::Fifo, 3, 1).formed();
    bench.take(&Step::of(PREPARE, (1, 0)).from(0));
    bench.news();
    assert_eq!(answered(&mut bench, &request(5, 0, 0, b"abc")), [answer(0, refusals::BUSY)]);
}

#[test]
fn a_member_serves_so_many_clients_and_no_more() {
    let mut bench = Bench::member(Order::Fifo, 1, 0);
    for client in 0..1024 {
        bench.take(&request(client, 7, 0, b""));
    }
    bench.settle();
    let late = answered(&mut bench, &request(5000, 0, 0, b""));
    assert_eq!(late, [sends_control("answer 5000 taken 0 refusal 3", To::Port(700))]);
    bench.now = bench.now + 61_000_000_000;
    bench.take(&bench.heartbeat(0, |_| {}));
    assert_eq!(answered(&mut bench, &request(5000, 0, 0, b"x"))[0], sends(0, &["1 bytes"]), "the quietest is replaced");
}

/// A request without a message: as long as its answer, with a word behind it.
fn alone(client: u64, sequence: u64, request_flags: u16, word: u64) -> Vec<u8> {
    request_after((0, 0), client, sequence, request_flags, &word.to_le_bytes())
}

/// What the member sends a client at its request.
fn reply(bench: &mut Bench, request: &[u8]) -> (ClientAnswer, Option<ClientPlace>) {
    bench.take(request);
    let mut reply = None;
    bench.process.transmit(bench.now, |to, bytes, _| {
        let datagram = bourdon_wire::Datagram::parse(bytes, GROUP).unwrap();
        for frame in datagram.frames().filter(|frame| frame.kind() == Some(Kind::ClientAnswer)) {
            assert_eq!(to, Destination::Peer(address(700)));
            let (answer, place) = ClientAnswer::read_all(frame.body).unwrap();
            reply = Some((*answer, place.copied()));
        }
        1
    });
    bench.effects();
    reply.expect("it is answered")
}

/// The cookie for the clients of this test.
fn cookie(bench: &mut Bench) -> u64 {
    reply(bench, &alone(5, 0, request_flags::HELLO, 0)).1.expect("the request is long enough").cookie.get()
}

/// A member that serves as many clients as it can: client 5 has published a message.
fn full() -> Bench {
    let mut bench = Bench::member(Order::Fifo, 1, 0);
    bench.settle();
    bench.take(&request(5, 0, 0, b"abc"));
    for client in 1000..2023 {
        bench.take(&request(client, 7, 0, b""));
    }
    bench.settle();
    assert_eq!(bench.process.memory_use().clients, 1024);
    bench
}

#[test]
fn a_goodbye_frees_the_place_at_once() {
    let mut bench = full();
    assert_eq!(reply(&mut bench, &request(3000, 0, 0, b"x")).0.refusal.get(), refusals::TOO_MANY_CLIENTS);
    let cookie = cookie(&mut bench);
    let (answer, _) = reply(&mut bench, &alone(5, 1, request_flags::GOODBYE, cookie));
    assert_eq!((answer.refusal.get(), answer.taken.get()), (refusals::GONE, 1));
    assert_eq!(answered(&mut bench, &request(3000, 0, 0, b"x"))[0], sends(1, &["1 bytes"]));
    let (answer, _) = reply(&mut bench, &alone(5, 1, request_flags::GOODBYE, cookie));
    assert_eq!(answer.refusal.get(), refusals::GONE, "a recorded one changes nothing");
}

/// What was delivered of a client is known when its place is another's.
#[test]
fn a_late_request_of_a_client_that_has_ended_is_answered_without_a_place() {
    let mut bench = full();
    let cookie = cookie(&mut bench);
    bench.take(&alone(5, 1, request_flags::GOODBYE, cookie));
    bench.settle();
    for payload in [&b"abc"[..], b"forged"] {
        assert_eq!(answered(&mut bench, &request(5, 0, 0, payload)), [answer(1, refusals::NONE)]);
    }
    assert_eq!(bench.process.memory_use().clients, 1023);
    let mut other = Bench::member(Order::Fifo, 3, 1).formed();
    other.take(&data(0, 0, 0, 0, &[tagged(0, b"abc")]));
    assert_eq!(other.delivered(), ["0:0"]);
    other.take(&data(2, 0, 0, 0, &[tagged(0, b"abc"), tagged(1, b"d")]));
    assert_eq!(other.delivered(), ["2:1"], "and a late copy of its message is passed over at all members");
}

/// An earlier instance took what comes before: this one never delivers it.
#[test]
fn what_was_delivered_beyond_a_gap_is_answered_without_a_place() {
    let mut bench = Bench::member(Order::Fifo, 3, 1).formed();
    bench.take(&data(0, 0, 0, 0, &[tagged(7, b"a"), tagged(8, b"b")]));
    bench.news();
    assert_eq!(answered(&mut bench, &request_after((1, 0), 5, 8, 0, b"b")), [answer(9, refusals::NONE)]);
    assert_eq!(bench.process.memory_use().clients, 0);
}

#[test]
fn a_forged_goodbye_frees_no_place() {
    let mut bench = full();
    let cookie = cookie(&mut bench);
    let mut elsewhere = alone(5, 1, request_flags::GOODBYE, cookie);
    for forged in [alone(5, 1, request_flags::GOODBYE, 0), alone(5, 1, request_flags::GOODBYE, cookie + 1), {
        let port = u16::to_le_bytes(700);
        let at = elsewhere.windows(2).rposition(|bytes| bytes == port).expect("the address has a port");
        elsewhere[at] += 1; // the datagram is damaged as well: it is discarded
        elsewhere
    }] {
        bench.take(&forged);
        bench.effects();
        assert_eq!(bench.process.memory_use().clients, 1024);
    }
    let (answer, place) = reply(&mut bench, &alone(5, 1, request_flags::GOODBYE, 0));
    assert_eq!((answer.refusal.get(), place.map(|place| place.cookie.get())), (refusals::NONE, Some(cookie)));
    assert_eq!(answered(&mut bench, &request(5, 1, 0, b"d"))[0], sends(1, &["1 bytes"]), "the client goes on");
}

#[test]
fn a_client_with_pending_messages_keeps_its_place() {
    let mut bench = Bench::member(Order::Fifo, 5, 1).formed();
    bench.take(&request(5, 0, 0, b"abc"));
    bench.effects();
    let cookie = cookie(&mut bench);
    let (answer, _) = reply(&mut bench, &alone(5, 1, request_flags::GOODBYE, cookie));
    assert_eq!((answer.refusal.get(), bench.process.memory_use().clients), (refusals::NONE, 1), "no quorum holds it");
    for member in [2, 3] {
        bench.take(&row(member, &[(0, 0), (1, 0), (0, 0), (0, 0), (0, 0)]));
    }
    bench.effects();
    let (answer, _) = reply(&mut bench, &alone(5, 1, request_flags::GOODBYE, cookie));
    assert_eq!((answer.refusal.get(), bench.process.memory_use().clients), (refusals::GONE, 0));
}

/// A client that has heard of its member, and what it sends: sequence, flags, length.
struct Bank {
    client: Client,
    now: Instant,
}

impl Bank {
    fn new() -> Self {
        let mut client = Client::new(Instant(0), GROUP, ClientId(5), address(700), MTU);
        let member = Bench::member(Order::Fifo, 1, 0);
        client.on_datagram(Instant(0), &member.heartbeat(0, |_| {}), true);
        let mut bank = Self { client, now: Instant(0) };
        bank.hears(0, refusals::NONE); // the member is where its heartbeat announced
        bank
    }

    fn sends(&mut self) -> Vec<(u64, u16, usize)> {
        let mut sent = Vec::new();
        self.client.transmit(self.now, |to, bytes, _| {
            assert_eq!(to, Destination::Peer(address(100)));
            let datagram = bourdon_wire::Datagram::parse(bytes, GROUP).unwrap();
            let frame = datagram.frames().next().unwrap();
            let (request, payload) = ClientRequest::read(frame.body).unwrap();
            sent.push((request.sequence.get(), request.flags.get(), payload.len()));
            1
        });
        sent
    }

    /// Of each fragment that it sends: the message's sequence, where it begins, and its length.
    fn sends_fragments(&mut self) -> Vec<(u64, usize, usize)> {
        let mut sent = Vec::new();
        self.client.transmit(self.now, |_, bytes, _| {
            let datagram = bourdon_wire::Datagram::parse(bytes, GROUP).unwrap();
            let message = ClientRequest::read_all(datagram.frames().next().unwrap().body).unwrap();
            let offset = message.fragment.map_or(0, Fragment::offset);
            sent.push((message.request.sequence.get(), offset, message.payload.len()));
            1
        });
        sent
    }

    /// The member publishes this message next, and has so many bytes of it.
    fn hears_received(&mut self, next: u64, received_bytes: usize) {
        let record = ClientAnswer::new(ClientId(5), Sequence(0), refusals::NONE);
        let place = ClientPlace {
            cookie: 7.into(),
            max_message_bytes: (1 << 20).into(),
            received_bytes: (received_bytes as u32).into(),
            next: next.into(),
        };
        let answer = control(0, Kind::ClientAnswer, &[record.as_bytes(), place.as_bytes()]);
        self.client.on_datagram(self.now, &answer, false);
    }

    fn instances_of_next_requests(&mut self) -> Vec<u64> {
        self.now = self.client.next_deadline();
        let mut sent = Vec::new();
        self.client.transmit(self.now, |_, bytes, _| {
            sent.push(bourdon_wire::Datagram::parse(bytes, GROUP).unwrap().header.instance().0);
            1
        });
        sent
    }

    /// A member of this instance answers that it has taken nothing.
    fn hears_in(&mut self, instance: u64) {
        let record = ClientAnswer::new(ClientId(5), Sequence(0), refusals::BUSY);
        let answer = control(0, Kind::ClientAnswer, &[record.as_bytes()]);
        self.client.on_datagram(self.now, &in_instance(&answer, instance), false);
    }

    /// The same reply, with a cookie.
    fn hears_cookie(&mut self, taken: u64, refusal: u64, cookie: u64) {
        let record = ClientAnswer::new(ClientId(5), Sequence(taken), refusal);
        let place = ClientPlace {
            cookie: cookie.into(),
            max_message_bytes: (1 << 20).into(),
            received_bytes: 0.into(),
            next: taken.into(),
        };
        let answer = control(0, Kind::ClientAnswer, &[record.as_bytes(), place.as_bytes()]);
        self.client.on_datagram(self.now, &answer, false);
    }

    fn hears(&mut self, taken: u64, refusal: u64) {
        let record = ClientAnswer::new(ClientId(5), Sequence(taken), refusal);
        self.client.on_datagram(self.now, &control(0, Kind::ClientAnswer, &[record.as_bytes()]), false);
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

/// The bytes of a long message in one request.
const PART: usize = MTU - 64 - 8 - 40 - 8;

/// So many fragments of message 0 from the `first` on.
fn fragments(first: usize, count: usize) -> Vec<(u64, usize, usize)> {
    (first..first + count).map(|number| (0, number * PART, PART)).collect()
}

#[test]
fn a_client_sends_a_long_message_in_fragments_from_where_its_member_has_come() {
    let mut bank = Bank::new();
    bank.client.publish(TopicId(1), &vec![1; 50 * PART + 5]);
    bank.client.publish(TopicId(1), b"short");
    assert_eq!(bank.sends_fragments(), fragments(0, 32), "no more under way");
    bank.hears_received(0, 10 * PART);
    assert_eq!(bank.sends_fragments(), fragments(32, 10));
    bank.now = bank.client.next_deadline();
    assert_eq!(bank.sends_fragments(), fragments(10, 32), "what was lost, again");
    bank.hears_received(0, 42 * PART);
    let rest = [fragments(42, 8), vec![(0, 50 * PART, 5), (1, 0, 5)]].concat();
    assert_eq!(bank.sends_fragments(), rest);
    bank.hears_received(1, 0);
    bank.now = bank.client.next_deadline();
    assert_eq!(bank.sends_fragments(), [(0, 50 * PART, 5), (1, 0, 5)], "the member has it: to get an answer");
    bank.hears_received(0, 0);
    bank.now = bank.client.next_deadline();
    assert_eq!(bank.sends_fragments(), fragments(0, 32), "another process at its address");
    bank.hears_received(u64::MAX, usize::MAX);
    bank.now = bank.client.next_deadline();
    assert_eq!(bank.sends_fragments(), [(0, 50 * PART, 5), (1, 0, 5)], "no reply makes it skip a message");
    bank.hears(2, refusals::NONE);
    assert!(bank.client.is_idle());
}

#[test]
fn a_client_keeps_no_more_than_it_can_send_soon() {
    let mut bank = Bank::new();
    assert!(bank.client.has_room());
    bank.client.publish(TopicId(1), &vec![1; (1 << 20) - 1]);
    assert!(bank.client.has_room());
    bank.client.publish(TopicId(1), b"x");
    assert!(!bank.client.has_room(), "1 MiB");
}

#[test]
fn a_client_without_a_place_sends_one_fragment() {
    let mut bank = Bank::new();
    bank.client.publish(TopicId(1), &vec![0; 100 * PART]);
    assert_eq!(bank.sends_fragments().len(), 32);
    for _ in 0..3 {
        bank.hears(0, refusals::TOO_MANY_CLIENTS);
        assert_eq!(bank.sends_fragments(), []);
        bank.now = bank.client.next_deadline();
        assert_eq!(bank.sends_fragments(), fragments(0, 1));
    }
    bank.hears_received(0, PART);
    assert_eq!(bank.sends_fragments(), fragments(1, 32), "it has a place");
}

#[test]
fn a_client_without_a_place_sends_one_message_ever_more_rarely_and_goes_on() {
    let mut bank = Bank::new();
    for length in 1..=3 {
        bank.client.publish(TopicId(1), &vec![0; length]);
    }
    assert_eq!(bank.sends().len(), 3);
    let mut pauses = Vec::new();
    for round in 0..6 {
        bank.hears(0, refusals::TOO_MANY_CLIENTS);
        assert_eq!(bank.client.unavailable(bank.now), Some(Refusal::TooManyClients { limit: 1024 }));
        assert_eq!(bank.client.poll_event(), Some(ClientEvent::TooManyClients).filter(|_| round == 0));
        assert_eq!(bank.sends(), []);
        pauses.push((bank.client.next_deadline().0 - bank.now.0) / 1_000_000);
        bank.now = bank.client.next_deadline();
        assert_eq!(bank.sends(), [(0, 0, 1)]);
    }
    assert_eq!(pauses, [40, 80, 160, 320, 320, 320]);
    bank.hears(1, refusals::NONE);
    assert_eq!(bank.client.unavailable(bank.now), None);
    assert_eq!(bank.sends(), [(1, 0, 2), (2, 0, 3)], "it has a place");
}

#[test]
fn a_client_that_ends_sends_a_goodbye_a_few_times() {
    let goodbye = [(1, request_flags::GOODBYE, 8)];
    let mut bank = Bank::new();
    bank.client.publish(TopicId(1), b"x");
    bank.sends();
    bank.client.leave();
    assert!(bank.client.has_left(), "without a cookie there is no way");
    bank.hears_cookie(0, refusals::NONE, 77);
    assert!(!bank.client.has_left());
    assert_eq!(bank.sends(), [], "a message is pending");
    bank.hears_cookie(1, refusals::NONE, 77);
    assert_eq!(bank.client.next_deadline(), Instant(0));
    for _ in 0..5 {
        assert_eq!((bank.sends(), bank.sends()), (goodbye.to_vec(), Vec::new()));
        bank.now = bank.client.next_deadline();
    }
    assert!(bank.client.has_left() && bank.sends().is_empty());

    let mut bank = Bank::new();
    bank.hears_cookie(0, refusals::NONE, 77);
    bank.client.publish(TopicId(1), b"x");
    bank.sends();
    bank.hears(1, refusals::NONE);
    bank.client.leave();
    assert_eq!(bank.sends(), goodbye);
    bank.hears_cookie(1, refusals::NONE, 78);
    assert_eq!(bank.sends(), goodbye, "at once with the cookie of now");
    bank.hears_cookie(1, refusals::GONE, 78);
    assert!(bank.client.has_left());
    assert_eq!((bank.sends(), bank.client.next_deadline()), (Vec::new(), Instant::NEVER));
}

/// A sequence once given to a message is never given to another: an old copy of the request may still be under way.
#[test]
fn a_refused_message_uses_its_sequence_up() {
    let mut bank = Bank::new();
    bank.client.publish(TopicId(1), &[0; 900]);
    bank.client.publish(TopicId(1), &[0; 2]);
    bank.sends();
    bank.hears(0, refusals::TOO_LARGE);
    bank.hears(0, refusals::TOO_LARGE);
    assert_eq!(bank.client.poll_event(), Some(ClientEvent::TooLarge(Sequence(0))));
    assert_eq!(bank.client.poll_event(), None, "reported once");
    assert_eq!(bank.sends(), [(0, request_flags::SKIP, 0), (1, 0, 2)]);
    bank.hears(2, refusals::NONE);
    assert!(bank.client.is_idle());
}

/// An older group that was frozen answers beside the newer one: a client that believed each in turn published a message
/// in the one after a later message of the other.
#[test]
fn a_client_does_not_go_back_to_an_instance_that_it_left() {
    let mut bank = Bank::new();
    bank.client.publish(TopicId(1), b"x");
    assert_eq!(bank.instances_of_next_requests(), [1]);
    bank.hears_in(2);
    assert_eq!(bank.instances_of_next_requests(), [2], "the group was restarted");
    bank.hears_in(1);
    assert_eq!(bank.instances_of_next_requests(), [2], "its members of before resumed");
    bank.hears_in(2);
    while bank.client.poll_event() != Some(ClientEvent::NoAnswer) {
        assert_eq!(bank.instances_of_next_requests(), [2]);
    }
    bank.hears_in(1);
    assert_eq!(bank.instances_of_next_requests(), [1], "only the older group is left");
}

/// Members of an older group that were frozen for a moment go on beside the newer one. A client of the newer group that
/// heard its own member no longer published to the older one.
#[test]
fn a_client_does_not_turn_to_an_instance_that_formed_before_its_own() {
    let mut client = Client::new(Instant(0), GROUP, ClientId(5), address(700), MTU);
    let group = Bench::member(Order::Fifo, 2, 0);
    let born = |rank, birth: u64| group.heartbeat(rank, |heartbeat| heartbeat.birth = birth.into());
    client.on_datagram(Instant(0), &born(0, 2_000), true);
    let mut bank = Bank { client, now: Instant(0) };
    bank.hears(0, refusals::NONE);
    bank.client.publish(TopicId(1), b"x");
    let older = in_instance(&born(1, 1_000), 9);
    while bank.client.poll_event() != Some(ClientEvent::NoAnswer) {
        bank.client.on_datagram(bank.now, &older, true);
        bank.sends(); // to its own member only
        bank.now = bank.client.next_deadline();
    }
    bank.client.on_datagram(bank.now, &older, true);
    let mut receivers = Vec::new();
    for _ in 0..20 {
        bank.now = bank.client.next_deadline();
        bank.client.on_datagram(bank.now, &older, true);
        bank.client.transmit(bank.now, |to, _, _| {
            receivers.push(to);
            1
        });
    }
    assert!(receivers.contains(&Destination::Peer(address(101))), "only the older group is left: {receivers:?}");
}

/// A client that was started beside such a group may hear that one first.
#[test]
fn a_client_turns_to_an_instance_that_formed_after_its_own() {
    let mut client = Client::new(Instant(0), GROUP, ClientId(5), address(700), MTU);
    let group = Bench::member(Order::Fifo, 2, 0);
    let born = |rank, birth: u64| group.heartbeat(rank, |heartbeat| heartbeat.birth = birth.into());
    client.on_datagram(Instant(0), &born(0, 1_000), true);
    let mut bank = Bank { client, now: Instant(0) };
    bank.hears(0, refusals::NONE);
    bank.client.publish(TopicId(1), b"x");
    bank.client.on_datagram(bank.now, &in_instance(&born(1, 2_000), 9), true);
    let mut receivers = Vec::new();
    bank.client.transmit(bank.now, |to, _, _| {
        receivers.push(to);
        1
    });
    assert_eq!(receivers, [Destination::Peer(address(101))], "it greets a member of the later one");
    bank.hears_in(9);
    bank.client.on_datagram(bank.now, &born(0, 1_000), true);
    assert_eq!(bank.instances_of_next_requests(), [9]);
}

#[test]
fn a_client_without_an_answer_reports_it() {
    let mut bank = Bank::new();
    bank.client.publish(TopicId(1), b"x");
    for _ in 0..400 {
        bank.sends();
        bank.now = bank.client.next_deadline();
    }
    assert_eq!(bank.client.poll_event(), Some(ClientEvent::NoAnswer));
}

#[test]
fn a_client_greets_a_member_before_it_sends_messages() {
    let mut client = Client::new(Instant(0), GROUP, ClientId(5), address(700), MTU);
    let member = Bench::member(Order::Fifo, 1, 0);
    let mut bank = Bank {
        client: {
            client.publish(TopicId(1), b"abc");
            client
        },
        now: Instant(0),
    };
    let heard = |bank: &mut Bank| bank.client.on_datagram(bank.now, &member.heartbeat(0, |_| {}), true);
    heard(&mut bank);
    assert_eq!(bank.sends(), [(0, request_flags::HELLO, 8)]);
    bank.now = Instant(1_000_000_000);
    assert_eq!(bank.sends(), [], "one request for each heartbeat");
    heard(&mut bank);
    assert_eq!(bank.sends(), [(0, request_flags::HELLO, 8)]);
    bank.hears(0, refusals::NONE);
    assert_eq!(bank.sends(), [(0, 0, 3)]);
}

#[test]
fn a_greeting_is_answered_and_publishes_nothing() {
    let mut bench = Bench::member(Order::Fifo, 1, 0);
    bench.settle();
    assert_eq!(answered(&mut bench, &request(5, 0, request_flags::HELLO, b"")), [answer(0, refusals::NONE)]);
    assert_eq!(answered(&mut bench, &request(5, 0, 0, b"abc"))[0], sends(0, &["3 bytes"]));
    assert_eq!(answered(&mut bench, &request(5, 0, request_flags::HELLO, b"")), [answer(1, refusals::NONE)]);
}

/// A quorum holds what another member took of a client, and the sequencer may not be among it: a later message that
/// this member published at once could get the earlier place in the order.
#[test]
fn a_member_publishes_after_it_has_delivered_what_another_took() {
    for order in [Order::Total, Order::Causal] {
        let mut bench = Bench::member(order, 3, 1).formed();
        let second = request_after((0, 1), 5, 1, 0, b"b");
        assert_eq!(answered(&mut bench, &second), [answer(0, refusals::NONE)], "the first is not here yet");
        bench.take(&data(0, 0, 0, 0, &[tagged(0, b"a")]));
        assert_eq!(bench.delivered(), ["0:0"]);
        let sent = answered(&mut bench, &second);
        assert!(sent.iter().any(|effect| matches!(effect, Effect::Data(..))), "it was delivered: {sent:?}");
    }
}
