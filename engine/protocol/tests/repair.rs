//! Repair, case by case.

use crate::common::{
    self, Bench, Effect, MS, MTU, To, address, control, data, deliver, message, nak, nak_with, port, sends_control,
    unavailable,
};
use bourdon_protocol::{Counter, Event, Flow, Order, Role, Start};
use bourdon_wire::records::{Challenge, Nak};
use bourdon_wire::{Datagram, Kind, Rank, Sequence};

use zerocopy::IntoBytes;

fn datagram(number: u64) -> Vec<u8> {
    data(0, number, number, 0, &[message(b"x")])
}

#[test]
fn a_gap_is_asked_for_at_once_in_ranges_of_its_sender() {
    let mut bench = Bench::member(Order::Fifo, 3, 1).formed();
    for number in [0, 3, 4, 6] {
        bench.take(&datagram(number));
    }
    bench.timers();
    assert_eq!(bench.news(), [sends_control("nak 0 1x2,5x1", To::Port(port(0))), deliver("0:0")]);
}

#[test]
fn requests_double_their_patience_and_turn_to_other_holders() {
    let mut bench = Bench::member(Order::Fifo, 4, 1).formed();
    bench.take(&datagram(1));
    let mut asked = Vec::new();
    for _ in 0..600 {
        bench.now = bench.process.next_deadline();
        bench.timers();
        for effect in bench.effects() {
            if let Effect::Control(what, To::Port(to)) = effect
                && what.starts_with("nak")
            {
                asked.push((bench.now.0 / MS, to));
            }
        }
    }
    // Retries after 1, 2, 4, 8, 16, then every 20 ms; after eight rounds without any repair, twice as long each time up
    // to a second. From the third on every second retry goes to another holder.
    let expected = [(0, 100), (1, 100), (3, 103), (7, 100), (15, 102), (31, 100)];
    assert_eq!(asked[..6], expected);
    let pauses: Vec<_> = asked.windows(2).map(|pair| pair[1].0 - pair[0].0).collect();
    assert_eq!(pauses[5..15], [20, 20, 20, 20, 40, 80, 160, 320, 640, 1000], "{asked:?}");
}

#[test]
fn a_lost_tail_is_heard_of_by_heartbeat() {
    let mut bench = Bench::member(Order::Fifo, 2, 1).formed();
    bench.take(&bench.heartbeat(0, |heartbeat| heartbeat.next_number = 2.into()));
    bench.timers();
    assert_eq!(bench.news(), [sends_control("nak 0 0x2", To::Port(port(0)))]);
}

#[test]
fn mere_reordering_is_given_its_grace() {
    let mut config = Bench::config(Order::Fifo, 2, Role::Member(Rank(1)));
    config.timing.reorder_grace_ns = 50_000;
    let mut bench = Bench::with(config).formed();
    bench.take(&datagram(1));
    bench.wait(49_999);
    assert_eq!(bench.news(), []);
    bench.take(&datagram(0));
    bench.wait(1);
    assert_eq!(bench.news(), [deliver("0:0"), deliver("0:1")]);
    assert_eq!(bench.process.counters().get(Counter::NaksSent), 0);
}

/// A request for an earlier gap took a later one along, before it had had its grace.
#[test]
fn issue_reordering_beside_a_loss_was_given_no_grace() {
    let mut config = Bench::config(Order::Fifo, 2, Role::Member(Rank(1)));
    config.timing.reorder_grace_ns = 50_000;
    let mut bench = Bench::with(config).formed();
    bench.take(&datagram(1));
    bench.wait(40_000);
    bench.take(&datagram(3));
    bench.wait(10_000);
    assert_eq!(bench.news(), [sends_control("nak 0 0x1", To::Port(port(0)))]);
    bench.take(&datagram(2));
    bench.take(&datagram(5));
    bench.wait(50_000);
    assert_eq!(bench.news(), [sends_control("nak 0 4x1", To::Port(port(0)))]);
}

/// An observer that paces earns its requests. It spent one whenever a timer made it look at its gaps.
#[test]
fn issue_reordering_used_up_the_requests_of_an_observer() {
    let mut config = Bench::config(Order::Fifo, 1, Role::Observer);
    (config.flow, config.start, config.limits.receivers) = (Flow::Paced, Start::Live, 9);
    let mut bench = Bench::with(config).formed();
    bench.take(&datagram(0));
    let looks = 40;
    for number in (0..looks).flat_map(|look| [2 * look + 2, 2 * look + 1]) {
        bench.take(&datagram(number));
        bench.wait(number % 2 * MS);
        bench.effects();
    }
    bench.take(&datagram(2 * looks + 2));
    bench.wait(2 * MS);
    assert_eq!(bench.process.counters().get(Counter::NaksSent), 1);
}

fn sender() -> Bench {
    let mut bench = Bench::member(Order::Fifo, 4, 0).formed();
    for _ in 0..5 {
        bench.publish(&[1; MTU - 72]);
    }
    bench.settle();
    bench
}

#[test]
fn a_requester_is_answered_alone_until_a_third_requests() {
    let mut bench = sender();
    let repairs = |bench: &mut Bench, requester: u16| {
        bench.take(&nak(requester, port(requester), 0, &[(2, 1)]));
        bench.news()
    };
    assert_eq!(repairs(&mut bench, 1), [Effect::Repair(0, 2, To::Port(101))]);
    assert_eq!(repairs(&mut bench, 1), [], "a repair is under way already");
    assert_eq!(repairs(&mut bench, 2), [Effect::Repair(0, 2, To::Port(102))]);
    assert_eq!(repairs(&mut bench, 3), [Effect::Repair(0, 2, To::All)]);
    assert_eq!(repairs(&mut bench, 1), [], "the multicast repair reaches all");
    assert_eq!(bench.process.counters().get(Counter::RepairsRefused), 2);
    bench.now = bench.now + MS;
    assert_eq!(repairs(&mut bench, 1), [Effect::Repair(0, 2, To::Port(101))]);
}

#[test]
fn what_was_never_sent_is_no_answer() {
    let mut bench = sender();
    bench.take(&nak(1, port(1), 0, &[(5, 1), (u64::MAX, u32::MAX), (4, u32::MAX)]));
    assert_eq!(bench.news(), [Effect::Repair(0, 4, To::Port(101))]);
}

#[test]
fn no_request_is_worth_more_than_the_log_or_the_budget() {
    let mut config = Bench::config(Order::Fifo, 2, Role::Member(Rank(0)));
    config.limits.repairs_per_s = 1;
    let mut bench = Bench::with(config).formed();
    for _ in 0..20 {
        bench.publish(&[1; MTU - 72]);
    }
    bench.settle();
    for _ in 0..100 {
        bench.take(&nak(1, port(1), 0, &[(0, u32::MAX); 64]));
        bench.now = bench.now + MS;
    }
    let sent = bench.process.counters().get(Counter::RepairsSent);
    assert!(sent <= 1024 + 1, "{sent} repairs");
    assert!(bench.process.memory_use().outbox_bytes <= 3 << 19);
}

#[test]
fn a_request_of_nowhere_is_not_answered() {
    let mut bench = sender();
    let mut broadcast = nak(1, 0, 0, &[(0, 1)]);
    bench.take(&broadcast);
    assert_eq!(bench.news(), []);
    broadcast = nak(1, port(0), 0, &[(0, 1)]);
    bench.take(&broadcast);
    assert_eq!(bench.news(), [], "its own request came back");
}

#[test]
fn another_holder_answers_from_what_it_received() {
    let mut bench = Bench::member(Order::Fifo, 3, 1).formed();
    bench.take(&datagram(0));
    bench.settle();
    bench.take(&nak(2, port(2), 0, &[(0, 3)]));
    assert_eq!(bench.news(), [Effect::Repair(0, 0, To::Port(102))]);
}

fn one_of_many(seed: u64) -> Bench {
    let mut config = Bench::config(Order::Fifo, 3, Role::Member(Rank(1)));
    config.limits.receivers = 30;
    config.seed = seed;
    Bench::with(config).formed()
}

#[test]
fn among_many_receivers_requests_wait_and_anothers_keeps_them_quiet() {
    let mut bench = one_of_many(1);
    bench.take(&datagram(1));
    bench.timers();
    assert_eq!(bench.news(), [], "a random time first");
    bench.take(&nak(2, port(2), 0, &[(0, 1)]));
    let heard_at = bench.now;
    assert_eq!(bench.process.counters().get(Counter::NaksSuppressed), 1);
    while !bench.news().iter().any(|effect| *effect == sends_control("nak 0 0x1", To::All)) {
        bench.now = bench.process.next_deadline();
        bench.timers();
    }
    assert!(bench.now.since(heard_at) >= MS, "the other receiver's repair had the time to come");
}

#[test]
fn receivers_that_waited_for_a_lost_repair_do_not_request_at_one_moment() {
    const RECEIVERS: u64 = 100;
    let asked_after_ns = |seed| {
        let mut bench = one_of_many(seed);
        bench.take(&datagram(1));
        bench.take(&nak(2, port(2), 0, &[(0, 1)]));
        let heard_at = bench.now;
        while bench.process.counters().get(Counter::NaksSent) == 0 {
            bench.now = bench.process.next_deadline();
            bench.timers();
        }
        bench.now.since(heard_at)
    };
    let mut all: Vec<u64> = (0..RECEIVERS).map(asked_after_ns).collect();
    all.sort_unstable();
    // Receivers that send a request before the first receiver's request can have reached them: a few, not all.
    let (first, one_way_ns) = (all[0], MS / 20);
    let crossed = all.iter().filter(|at| **at < first + one_way_ns).count();
    assert!(crossed < 10, "{crossed} of {RECEIVERS} send a request at once");
}

#[test]
fn others_requests_do_not_keep_a_receiver_quiet_for_ever() {
    let mut bench = one_of_many(2);
    bench.take(&datagram(1));
    for _ in 0..200 {
        bench.take(&nak(2, port(2), 0, &[(0, 1)]));
        bench.wait(MS / 10);
    }
    assert!(bench.process.counters().get(Counter::NaksSent) > 0);
}

#[test]
fn where_requests_are_suppressed_repairs_go_to_all() {
    let mut config = Bench::config(Order::Fifo, 2, Role::Member(Rank(0)));
    config.limits.receivers = 30;
    let mut bench = Bench::with(config).formed();
    bench.publish(b"x");
    bench.settle();
    bench.take(&nak(1, port(1), 0, &[(0, 1)]));
    assert_eq!(bench.news(), [Effect::Repair(0, 0, To::All)]);
}

#[test]
fn what_is_no_longer_retained_is_reported_gone() {
    let mut bench = Bench::member(Order::Fifo, 1, 0);
    for _ in 0..100 {
        bench.publish(&[1; MTU - 72]);
        bench.settle();
    }
    bench.take(&nak(0xFFFF, 900, 0, &[(0, 1)]));
    assert_eq!(
        bench.news(),
        [sends_control("challenge", To::Port(900))],
        "an observer has not proved that it receives"
    );
    let cookie = bench.cookie(900);
    bench.take(&nak_with(0xFFFF, address(900), 0, &[(0, 1)], cookie));
    assert_eq!(bench.news(), [sends_control("gone 0 before 37", To::Port(900))]);
}

#[test]
fn an_observer_repeats_its_request_with_the_cookie() {
    let mut config = Bench::config(Order::Fifo, 1, Role::Observer);
    config.start = bourdon_protocol::Start::Live;
    let mut bench = Bench::with(config);
    bench.take(&data(0, 0, 0, 0, &[message(b"a")]));
    bench.take(&bench.heartbeat(0, |heartbeat| heartbeat.next_number = 1.into()));
    bench.effects();
    bench.take(&data(0, 2, 2, 0, &[message(b"c")]));
    bench.timers();
    let cookie_fields = |bench: &mut Bench| {
        let mut fields = Vec::new();
        bench.process.transmit(bench.now, |_, bytes, segment_bytes| {
            let datagram = Datagram::parse(bytes, common::GROUP).unwrap();
            let naks = datagram.frames().filter(|frame| frame.kind() == Some(Kind::Nak));
            fields.extend(naks.map(|frame| Nak::read(frame.body).unwrap().0.cookie.get()));
            bytes.len().div_ceil(segment_bytes)
        });
        fields
    };
    let nonces = cookie_fields(&mut bench);
    assert!(nonces.len() == 1 && nonces[0] != 0, "{nonces:?}");
    let challenge = |asked: u64| {
        let record = Challenge { asked: asked.into(), cookie: 77.into() };
        control(0, Kind::Challenge, &[record.as_bytes()])
    };
    bench.take(&challenge(nonces[0] + 1));
    bench.timers();
    assert_eq!(cookie_fields(&mut bench), [0; 0], "a forged challenge");
    bench.take(&challenge(nonces[0]));
    bench.timers();
    assert_eq!(cookie_fields(&mut bench), [77], "at once");
    bench.take(&challenge(nonces[0]));
    bench.timers();
    assert_eq!(cookie_fields(&mut bench), [0; 0], "a second copy changes nothing");
}

#[test]
fn a_cookie_is_for_one_address_and_for_a_while() {
    let mut bench = sender();
    let cookie = bench.cookie(900);
    let asks = |bench: &mut Bench, port: u16, cookie: u64| {
        bench.take(&nak_with(0xFFFF, address(port), 0, &[(2, 1)], cookie));
        bench.news()
    };
    assert_eq!(asks(&mut bench, 901, cookie), [sends_control("challenge", To::Port(901))]);
    assert_eq!(asks(&mut bench, 900, cookie), [Effect::Repair(0, 2, To::Port(900))]);
    bench.now = bench.now + 29_000 * MS;
    assert_eq!(asks(&mut bench, 900, cookie), [Effect::Repair(0, 2, To::Port(900))]);
    bench.now = bench.now + 31_000 * MS;
    assert_eq!(asks(&mut bench, 900, cookie), [sends_control("challenge", To::Port(900))]);
}

/// A receiver that requests everything over and over leaves the next receiver its share, and is as fast as if alone.
#[test]
fn one_asker_does_not_use_up_anothers_share() {
    let mut config = Bench::config(Order::Fifo, 3, Role::Member(Rank(0)));
    config.limits.repairs_per_s = 1000;
    config.limits.log_bytes = 2048 * MTU;
    config.limits.receive_log_bytes = 2048 * MTU;
    config.limits.window_bytes = 2048 * MTU;
    let mut bench = Bench::with(config);
    for rank in [1, 2] {
        bench.take(&bench.heartbeat(rank, |heartbeat| heartbeat.window_bytes = (2048 * MTU as u32).into()));
    }
    bench.settle();
    for _ in 0..1500 {
        bench.publish(&[1; MTU - 72]);
    }
    bench.settle();
    let sent = |bench: &mut Bench, requester: u16, first: u64| {
        let before = bench.process.counters().get(Counter::RepairsSent);
        bench.take(&nak(requester, port(requester), 0, &[(first, 750)]));
        bench.effects();
        bench.process.counters().get(Counter::RepairsSent) - before
    };
    assert_eq!([sent(&mut bench, 1, 0), sent(&mut bench, 1, 750)], [750, 274], "alone: the whole budget, as before");
    let mut of_greedy = 0;
    for turn in 0..1000 {
        bench.now = bench.now + MS;
        of_greedy += sent(&mut bench, 1, if turn % 2 == 0 { 0 } else { 750 });
    }
    assert!((450..=700).contains(&of_greedy), "{of_greedy} in a second, at first from what is shared out");
    assert_eq!(sent(&mut bench, 2, 0), 512, "its share is whole");
}

#[test]
fn an_observer_crosses_a_hole_and_reports_what_it_lost() {
    let mut bench = Bench::new(Order::Fifo, 1, Role::Observer).formed();
    bench.take(&datagram(0));
    bench.take(&datagram(5));
    bench.timers();
    assert_eq!(bench.news(), [sends_control("nak 0 1x4", To::Port(port(0))), deliver("0:0")]);
    bench.take(&unavailable(0, 0, 4));
    assert_eq!(bench.news(), [], "what follows the hole is not here yet");
    bench.take(&datagram(4));
    let gap = Event::Gap { sender: Rank(0), from: Sequence(1), to: Sequence(4) };
    assert_eq!(bench.news(), [Effect::Event(gap), deliver("0:4"), deliver("0:5")]);
    assert_eq!(bench.process.counters().get(Counter::Gaps), 3);
}

#[test]
fn a_message_cut_by_a_hole_is_lost_and_reported() {
    let mut bench = Bench::new(Order::Fifo, 1, Role::Observer).formed();
    bench.take(&data(0, 0, 0, 0, &[common::piece(9, 0, b"abc")]));
    bench.take(&data(0, 2, 0, 0, &[common::piece(9, 6, b"ghi"), message(b"next")]));
    bench.timers();
    bench.take(&unavailable(0, 0, 2));
    let gap = Event::Gap { sender: Rank(0), from: Sequence(0), to: Sequence(1) };
    assert_eq!(bench.news()[1..], [Effect::Event(gap), deliver("0:1")]);
    assert_eq!(bench.process.counters().get(Counter::Gaps), 1);
}

#[test]
fn a_member_never_gives_up_and_none_answers_for_another() {
    let mut bench = Bench::member(Order::Fifo, 3, 1).formed();
    bench.take(&datagram(5));
    bench.take(&unavailable(0, 0, 5));
    assert_eq!(bench.delivered(), [""; 0]);
    let mut bench = Bench::new(Order::Fifo, 2, Role::Observer).formed();
    bench.take(&datagram(5));
    bench.take(&unavailable(1, 0, 5));
    assert_eq!(bench.delivered(), [""; 0]);
}

#[test]
fn a_request_asks_for_no_more_than_the_askers_socket_holds() {
    let mut bench = Bench::new(Order::Fifo, 1, Role::Observer).formed();
    bench.take(&bench.heartbeat(0, |heartbeat| heartbeat.next_number = 60.into()));
    bench.timers();
    assert_eq!(bench.news(), [sends_control("nak 0 0x8", To::Port(port(0)))]);
    bench.wait(MS);
    let rest = bench.news();
    assert!(
        matches!(&rest[..], [Effect::Control(what, _)] if what == "nak 0 0x2"),
        "a quarter is requested again, as nothing came: {rest:?}"
    );
}
