//! Bytes sent for bytes received: each kind of request from a stranger's address, to each kind of process, at most 3.

use crate::common::{self, Bench, GROUP, MTU, Step, Value, as_incarnation, control, data, message, nak_to};
use bourdon_protocol::{Client, Destination, DirectContent, DirectKind, Feedback, Order, Role, To};
use bourdon_wire::records::{
    ClientRequest, Direct, DirectCall, Heartbeat, Ping, Transfer, ViewAsk, ballot_steps, direct_steps, heartbeat_flags,
    transfer_steps,
};
use bourdon_wire::{Address, ClientId, Epoch, FRAME_HEADER_BYTES, Kind, Rank};
use std::net::SocketAddr;
use zerocopy::{FromZeros, IntoBytes};

/// The bound.
const TIMES: usize = 3;
const QUESTIONS: usize = 10_000;

fn in_epoch(datagram: &[u8], epoch: u64) -> Vec<u8> {
    common::in_epoch(datagram, u32::try_from(epoch).unwrap())
}

/// An address that has never received anything of the group's.
fn stranger() -> Address {
    SocketAddr::from(([192, 0, 2, 7], 7)).into()
}

/// Which process gets the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    Member,
    Sequencer,
    Observer,
    /// A member whose application makes snapshots.
    Donor,
    /// A member of the second view, which retains the first.
    Later,
}

const ALL: [Asked; 5] = [Asked::Member, Asked::Sequencer, Asked::Observer, Asked::Donor, Asked::Later];

fn bench(asked: Asked, members: u16) -> Bench {
    let role = match asked {
        Asked::Observer => Role::Observer,
        Asked::Sequencer => Role::Member(Rank(0)),
        _ => Role::Member(Rank(1)),
    };
    let mut config = Bench::config(Order::Total, members, role);
    config.snapshots = asked == Asked::Donor;
    let mut bench = Bench::with(config);
    for rank in (0..members).filter(|rank| role != Role::Member(Rank(*rank))) {
        bench.take(&bench.heartbeat(rank, |_| {}));
    }
    for number in 0..8 {
        if role != Role::Observer {
            bench.publish(&[1; MTU - 72]);
        }
        bench.take(&data(2, number, number, 0, &[message(&[2; MTU - 72])]));
    }
    bench.settle();
    if asked == Asked::Later {
        let cut: Vec<u64> = (0..members).map(|rank| if rank == 1 || rank == 2 { 8 } else { 0 }).collect();
        let all: Vec<u16> = (0..members).collect();
        bench.take(&Step::with(ballot_steps::DECIDE, (1, 0), Value(&all, 0, &cut)).from(0));
        bench.settle();
        assert_eq!(bench.process.view().epoch, Epoch(2), "the second view was entered");
    }
    bench
}

/// The bytes that are sent to the stranger now.
fn answered(bench: &mut Bench) -> usize {
    let mut bytes_out = 0;
    bench.process.transmit(bench.now, |to, bytes, segment_bytes| {
        if to == Destination::Peer(stranger()) {
            bytes_out += bytes.len();
        }
        bytes.len().div_ceil(segment_bytes)
    });
    bench.process.deliver(bench.now, usize::MAX, |_| {});
    while bench.process.poll_event().is_some() {}
    while let Some(request) = bench.process.poll_request() {
        // The application replies to one request, and drops the other.
        let (kind, payload) = match request.call % 2 {
            0 => (DirectKind::Reply(request.call), &[4; 1_000][..]),
            _ => (DirectKind::Decline(request.call), &[][..]),
        };
        let content = DirectContent { kind, payload, lasts_ns: request.patience_ns };
        let _ = bench.process.send(bench.now, To::Address(request.address), &content);
    }
    if let Some(ticket) = bench.process.begin_snapshot(bench.now) {
        let state = bourdon_protocol::SnapshotAnswer::State(vec![3; 100_000]);
        bench.process.finish_snapshot(bench.now, ticket, state);
    }
    bytes_out
}

/// Sends so many requests, and holds the replies to the bound after each request.
fn hold(name: &str, bench: &mut Bench, mut question: impl FnMut(&Bench, usize) -> Vec<u8>) -> (usize, usize) {
    let (mut bytes_in, mut bytes_out) = (0, 0);
    for turn in 0..QUESTIONS {
        let question = question(bench, turn);
        bytes_in += question.len();
        bench.take(&question);
        bytes_out += answered(bench);
        bench.wait(300_000);
        bytes_out += answered(bench);
        assert!(bytes_out <= TIMES * bytes_in, "{name}: {bytes_out} bytes sent in reply to {bytes_in} after {turn}");
    }
    (bytes_in, bytes_out)
}

fn zeroed<T: FromZeros>(change: impl FnOnce(&mut T)) -> T {
    let mut record = T::new_zeroed();
    change(&mut record);
    record
}

fn heartbeat(bench: &Bench, rank: u16, incarnation: u32, epoch: u64, heartbeat_flags: u16) -> Vec<u8> {
    let change =
        |heartbeat: &mut Heartbeat| (heartbeat.address, heartbeat.flags) = (stranger(), heartbeat_flags.into());
    in_epoch(&as_incarnation(&bench.heartbeat(rank, change), incarnation), epoch)
}

fn transfer_ask(donor: u16, ticket: u32, count: u32) -> Vec<u8> {
    let record: Transfer = zeroed(|record: &mut Transfer| {
        record.step = transfer_steps::REQUEST_SNAPSHOT.into();
        (record.donor, record.ticket) = (donor.into(), ticket.into());
        (record.reply_to, record.count) = (stranger(), count.into());
    });
    control(0xFFFF, Kind::Transfer, &[record.as_bytes()])
}

fn direct(step: u16, sender_id: u64) -> Vec<u8> {
    let record: Direct = zeroed(|record: &mut Direct| {
        (record.step, record.sender_id, record.reply_to) = (step.into(), sender_id.into(), stranger());
    });
    control(0xFFFE, Kind::Direct, &[record.as_bytes()])
}

/// A request beside the stream, whose sender waits for as long as it may.
fn direct_request(sender_id: u64, sequence: u64) -> Vec<u8> {
    let record: Direct = zeroed(|record: &mut Direct| {
        (record.step, record.sender_id, record.reply_to) =
            (direct_steps::REQUEST.into(), (sender_id + 1).into(), stranger());
        record.sequence = sequence.into();
    });
    let call = DirectCall { call: (sender_id + sequence).into(), patience_ns: u64::MAX.into() };
    control(0xFFFE, Kind::Direct, &[record.as_bytes(), call.as_bytes()])
}

fn request(client: u64, sequence: u64) -> Vec<u8> {
    let record: ClientRequest = zeroed(|record: &mut ClientRequest| {
        (record.client, record.sequence, record.reply_to) = (client.into(), sequence.into(), stranger());
    });
    control(0xFFFE, Kind::ClientRequest, &[record.as_bytes()])
}

fn view_ask() -> Vec<u8> {
    let ask: ViewAsk = zeroed(|ask: &mut ViewAsk| ask.reply_to = stranger());
    control(0xFFFF, Kind::ViewAsk, &[ask.as_bytes()])
}

fn ping() -> Vec<u8> {
    let ping: Ping = zeroed(|ping: &mut Ping| ping.reply_to = stranger());
    control(0, Kind::Ping, &[ping.as_bytes()])
}

/// All processes receive what is sent to all, so no process replies to such a request from an address that has proved
/// nothing: any number of them would reply.
#[test]
fn nor_by_many_processes_where_a_question_was_sent_to_all() {
    for asked in ALL {
        let mut bench = bench(asked, 3);
        for turn in 0..1_000 {
            let questions = [
                nak_to(0xFFFF, stranger(), (turn % 3) as u16, &[(0, u32::MAX)]),
                view_ask(),
                transfer_ask(1, turn, 40),
                ping(),
                direct(direct_steps::PROBE, turn.into()),
                direct(direct_steps::SEND, turn.into()),
                direct_request(turn.into(), 0),
                request(u64::from(turn) / 20, u64::from(turn) % 20),
            ];
            for (place, question) in questions.iter().enumerate() {
                bench.process.take_in(bench.now, question, None, true);
                bench.wait(300_000);
                assert_eq!(answered(&mut bench), 0, "question {place} to {asked:?} after {turn}");
            }
        }
    }
}

/// Each kind of request in every form that has another reply.
fn every_question(members: u16) {
    let from = move |turn: usize| (turn % usize::from(members)) as u16;
    for asked in ALL {
        let name = |kind: &str| format!("{kind} to {asked:?} of {members}");
        let each = |kind: &str, question: &mut dyn FnMut(&Bench, usize) -> Vec<u8>| {
            let (bytes_in, bytes_out) = hold(&name(kind), &mut bench(asked, members), question);
            println!("{:40} {:.3}", name(kind), bytes_out as f64 / bytes_in as f64);
        };
        each("nak", &mut |_, turn| nak_to(0xFFFF, stranger(), from(turn), &[(0, u32::MAX)]));
        each("nak of a retained view", &mut |_, turn| {
            in_epoch(&nak_to(0xFFFF, stranger(), from(turn), &[(0, u32::MAX)]), 1 + turn as u64 % 2)
        });
        each("view ask", &mut |_, turn| in_epoch(&view_ask(), turn as u64 % 3));
        each("transfer", &mut |_, turn| transfer_ask(1, (turn / 100) as u32, (turn % 40) as u32));
        each("ping", &mut |_, _| ping());
        each("direct probe", &mut |_, turn| direct(direct_steps::PROBE, turn as u64));
        each("direct send", &mut |_, turn| direct(direct_steps::SEND, turn as u64));
        each("direct request", &mut |_, turn| direct_request(turn as u64, 0));
        each("direct request again", &mut |_, turn| direct_request(turn as u64 / 40, turn as u64 % 40 / 2));
        each("client request", &mut |_, turn| request(turn as u64 / 20, turn as u64 % 20));
        let flags = [0, heartbeat_flags::FORMED, heartbeat_flags::WEDGED, heartbeat_flags::LEARNER];
        for incarnation in [1, 2] {
            for epoch in [0, 1, 2, 3] {
                each("heartbeat", &mut |bench, turn| {
                    heartbeat(bench, from(turn), incarnation, epoch, flags[turn / 7 % flags.len()])
                });
            }
        }
        each("heartbeat, then nak", &mut |bench, turn| match turn % 2 {
            0 => heartbeat(bench, from(turn / 2), 1, bench.process.view().epoch.0, heartbeat_flags::FORMED),
            _ => in_epoch(&nak_to(2, stranger(), 1, &[(0, u32::MAX)]), bench.process.view().epoch.0),
        });
        each("heartbeat, then ballot", &mut |bench, turn| match turn % 2 {
            0 => heartbeat(bench, 2, 1, bench.process.view().epoch.0, heartbeat_flags::FORMED),
            _ => in_epoch(&Step::of(ballot_steps::PREPARE, (1, 2)).from(2), bench.process.view().epoch.0),
        });
    }
}

#[test]
fn a_strangers_address_is_answered_with_at_most_three_bytes_a_byte() {
    every_question(3);
}

#[test]
fn nor_in_a_view_of_64_whose_records_are_long() {
    every_question(64);
}

/// Before the first view only an address's own claim is known of it.
#[test]
fn nor_before_the_first_view() {
    let mut config = Bench::config(Order::Total, 64, Role::Member(Rank(1)));
    config.view = None;
    let mut bench = Bench::with(config);
    hold("forming", &mut bench, |bench, turn| match turn {
        0 => heartbeat(bench, 2, 1, 0, 0),
        _ => in_epoch(&Step::of(ballot_steps::PREPARE, (1 + turn as u64 / 20, 2)).from(2), 0),
    });
}

/// Where each datagram is acknowledged, the acknowledgement goes to its sender's address, not to the address that a
/// stranger gives.
#[test]
fn nor_with_acknowledgements() {
    for asked in [Asked::Member, Asked::Observer] {
        let mut bench = bench(asked, 64);
        let mut config = bench.process.config().clone();
        config.feedback = Feedback::AckEach;
        bench = Bench::with(config);
        for rank in [0, 2, 3] {
            bench.take(&bench.heartbeat(rank, |_| {}));
        }
        hold("rows", &mut bench, |bench, turn| match turn % 3 {
            0 => heartbeat(bench, 2, 1, 1, heartbeat_flags::FORMED),
            1 => heartbeat(bench, 2, 2, 1, heartbeat_flags::FORMED),
            _ => data(2, turn as u64 / 3, 0, 0, &[]),
        });
    }
}

/// A client that hears a stranger's heartbeat first sends its messages to that address only once a reply has come.
#[test]
fn a_client_sends_no_messages_to_an_address_that_has_not_answered() {
    let bench = Bench::member(Order::Total, 3, 0);
    let mut client = Client::new(bench.now, GROUP, ClientId(1), common::address(500), MTU);
    while client.has_room() {
        client.publish(Default::default(), &[1; MTU - 64 - FRAME_HEADER_BYTES - ClientRequest::BYTES]);
    }
    let (mut now, mut bytes_in, mut bytes_out) = (bench.now, 0, 0);
    for turn in 0..QUESTIONS {
        let heartbeat = heartbeat(&bench, 0, 1, 1, heartbeat_flags::FORMED);
        bytes_in += heartbeat.len();
        client.on_datagram(now, &heartbeat, true);
        client.transmit(now, |to, bytes, _| {
            bytes_out += if to == Destination::Peer(stranger()) { bytes.len() } else { 0 };
            1
        });
        now = now + 10_000_000;
        assert!(bytes_out <= TIMES * bytes_in, "{bytes_out} bytes sent for {bytes_in} after {turn}");
    }
}
