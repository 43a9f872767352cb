//! Publishers that send more slowly for observers that lose too much.

use crate::common::net::{Net, Output};
use crate::common::{self, Bench, Effect, GROUP, MS, To, control, data, message, nak_with};
use bourdon_protocol::{
    Config, Counter, Destination, Flow, HeldBy, Order, Outgoing, Rate, Refusal, Role, Standing, Start,
};
use bourdon_wire::records::{Challenge, Congestion};
use bourdon_wire::{Datagram, Kind, Rank};
use std::cell::Cell;
use std::collections::HashSet;
use std::rc::Rc;
use zerocopy::IntoBytes;

const PAYLOAD: [u8; 1000] = [7; 1000];
const STEP_NS: u64 = 200_000;
const FLOOR: u64 = 2_000_000;
/// What the slowest observer's link bears, in bytes a second, and what it queues.
const BEARS: u64 = 20_000_000;
const QUEUE_BYTES: i64 = 200_000;

fn paced(config: &mut Config) {
    (config.flow, config.snapshots, config.start) = (Flow::Paced, false, Start::Live);
    config.rate.floor_bytes_per_s = FLOOR;
}

fn limited(config: &mut Config) {
    config.snapshots = false;
    config.rate = Rate { limit_bytes_per_s: Some(5_000_000), floor_bytes_per_s: FLOOR };
}

/// Only the observers ask; the member does not pace for them.
fn not_granted(config: &mut Config) {
    paced(config);
    if matches!(config.role, Role::Member(_)) {
        config.flow = Flow::Free;
    }
}

/// A link that bears so many bytes a second, and drops what is beyond its queue: the bytes that it takes now.
#[derive(Clone, Default)]
struct Link(Rc<Cell<i64>>);

impl Link {
    /// Data to this process passes this link.
    fn before(self, net: &mut Net, index: usize) {
        net.alter = Box::new(move |_, to, datagram| {
            if to != index || datagram.len() < 600 {
                return 1;
            }
            let left = self.0.get() - datagram.len() as i64;
            self.0.set(left.max(-1));
            usize::from(left >= 0)
        });
    }

    fn pass(&self, ns: u64) {
        let earned = (BEARS * ns / 1_000_000_000) as i64;
        self.0.set((self.0.get() + earned).min(QUEUE_BYTES));
    }
}

/// Offers 100 MB a second for so long; returns how many messages were taken.
fn publish(net: &mut Net, link: &Link, ns: u64) -> u64 {
    publish_from(net, 0, link, ns)
}

fn publish_from(net: &mut Net, index: usize, link: &Link, ns: u64) -> u64 {
    let mut taken = 0;
    for _ in 0..ns / STEP_NS {
        link.pass(STEP_NS);
        taken += (0..20).take_while(|_| net.publish(index, &PAYLOAD).is_ok()).count() as u64;
        net.run(STEP_NS);
    }
    taken
}

fn received(net: &Net, index: usize) -> u64 {
    let messages = net.processes[index].shown.iter().filter(|output| matches!(output, Output::Message(..)));
    messages.count() as u64
}

fn rate(net: &mut Net) -> u64 {
    net.run(20_000_000); // a heartbeat shows it
    net.process(0).counters().get(Counter::RateBytesPerS)
}

#[test]
fn a_publisher_sends_what_its_slowest_observer_can_bear() {
    let mut net = Net::new(1, 3, paced);
    net.run(100_000_000);
    let link = Link::default();
    link.clone().before(&mut net, 1);
    publish(&mut net, &link, 1_000_000_000);
    let before = received(&net, 1);
    let repairs = net.process(0).counters().get(Counter::RepairsSent);
    let taken = publish(&mut net, &link, 1_000_000_000);
    let delivered = received(&net, 1) - before;
    let bears = BEARS / 1_000;
    let repairs = net.process(0).counters().get(Counter::RepairsSent) - repairs;
    assert!((bears * 7 / 10..bears * 11 / 10).contains(&taken), "{taken} of {bears}, {repairs} repairs");
    assert!(delivered >= taken * 95 / 100, "{delivered} of {taken}");
    assert!(received(&net, 2) > received(&net, 1), "the others lost nothing");
    // The link gets better, and the rate rises.
    net.alter = Box::new(|_, _, _| 1);
    publish(&mut net, &link, 4_000_000_000);
    assert!(rate(&mut net) > 2 * BEARS, "{}", rate(&mut net));
}

#[test]
fn no_observer_slows_a_publisher_below_its_floor() {
    let mut net = Net::new(1, 2, paced);
    net.run(100_000_000);
    let mut count = 0;
    net.alter = Box::new(move |_, to, datagram| {
        count += usize::from(to == 1 && datagram.len() > 600);
        usize::from(to != 1 || datagram.len() < 600 || count % 16 == 0)
    });
    let link = Link::default();
    publish(&mut net, &link, 2_000_000_000);
    assert!((FLOOR..FLOOR * 5 / 4).contains(&rate(&mut net)), "{}", rate(&mut net));
    let taken = publish(&mut net, &link, 1_000_000_000);
    assert!(taken >= FLOOR * 6 / 10 / 1_408, "{taken}: repairs take a quarter");
}

#[test]
fn a_member_that_paces_for_none_sends_as_it_likes() {
    let mut net = Net::new(1, 1, not_granted);
    net.run(100_000_000);
    let link = Link::default();
    link.clone().before(&mut net, 1);
    assert_eq!(publish(&mut net, &link, 500_000_000), 20 * 2_500);
    assert_eq!(rate(&mut net), 0, "no limit");
    assert_eq!(net.process(0).counters().get(Counter::RatesLowered), 0);
}

#[test]
fn a_configured_limit_is_kept_and_named() {
    let mut net = Net::new(1, 1, limited);
    net.run(100_000_000);
    let taken = publish(&mut net, &Link::default(), 1_000_000_000);
    // In a run each datagram but the last is as long as the longest.
    assert!((3_400..5_100).contains(&taken), "{taken}");
    while net.publish(0, &PAYLOAD).is_ok() {}
    assert_eq!(net.publish(0, &PAYLOAD), Err(Refusal::Paced));
    let (.., holder) = net.process(0).window().unwrap();
    assert_eq!(holder, Some(HeldBy::Rate));
    // The process wakes its owner once there is room.
    let (due, now) = (net.process(0).next_deadline(), net.now);
    assert!(due.since(now) < 20_000_000, "{due:?} at {now:?}");
    net.run(20_000_000);
    assert!(net.publish(0, &PAYLOAD).is_ok());
    let received = received(&net, 1);
    assert!(received >= taken, "{received} of {taken}: nothing is lost");
}

/// A report from an address that has not proved that it receives slows no publisher down.
#[test]
fn a_forged_report_slows_no_publisher_down() {
    let mut bench = Bench::with(Config { flow: Flow::Paced, ..Bench::config(Order::Fifo, 1, Role::Member(Rank(0))) });
    for _ in 0..10 {
        bench.publish(&PAYLOAD);
    }
    bench.effects();
    let report = |cookie: u64| Congestion {
        reply_to: common::address(9),
        cookie: cookie.into(),
        from: 5.into(),
        lost: u16::MAX.into(),
        rank: 0.into(),
    };
    bench.take(&control(0xFFFF, Kind::Congestion, &[report(1).as_bytes()]));
    let lowered = |bench: &Bench| bench.process.counters().get(Counter::RatesLowered);
    assert_eq!((lowered(&bench), bench.process.counters().get(Counter::ChallengesSent)), (0, 1));
    bench.effects();
    let cookie = bench.cookie(9);
    bench.take(&control(0xFFFF, Kind::Congestion, &[report(cookie).as_bytes()]));
    assert_eq!(lowered(&bench), 1);
    // The same losses lower it once, whatever is reported of them.
    bench.take(&control(0xFFFF, Kind::Congestion, &[report(cookie).as_bytes()]));
    assert_eq!(lowered(&bench), 1);
}

/// Any process can name a member's address: a report needs the cookie of that address all the same.
#[test]
fn issue_a_report_that_named_a_member_needed_no_cookie() {
    let config = Config { flow: Flow::Paced, ..Bench::config(Order::Fifo, 2, Role::Member(Rank(0))) };
    let mut bench = Bench::with(config).formed();
    for _ in 0..10 {
        bench.publish(&PAYLOAD);
    }
    bench.effects();
    let report = Congestion {
        reply_to: common::address(common::port(1)),
        cookie: 1.into(),
        from: 5.into(),
        lost: u16::MAX.into(),
        rank: 0.into(),
    };
    bench.take(&control(0xFFFF, Kind::Congestion, &[report.as_bytes()]));
    let counters = bench.process.counters();
    assert_eq!((counters.get(Counter::RatesLowered), counters.get(Counter::ChallengesSent)), (0, 1));
}

/// The first report of an observer that holds no cookie yet is challenged: it sends the report again with the cookie.
/// What goes to all is not challenged, so that first report goes to the publisher alone.
#[test]
fn issue_the_first_report_was_not_repeated_after_the_challenge() {
    for (receivers, repeated_to) in [(8, To::Port(common::port(0))), (9, To::All)] {
        let mut config = Bench::config(Order::Fifo, 1, Role::Observer);
        (config.flow, config.start, config.limits.receivers) = (Flow::Paced, Start::Live, receivers);
        let mut bench = Bench::with(config).formed();
        let mut first = Vec::new();
        for number in (0..300).filter(|number| number % 3 > 0 || *number == 0) {
            bench.take(&data(0, number, number, 0, &[message(&PAYLOAD)]));
            bench.wait(MS / 10);
            first = reports(&mut bench);
            if !first.is_empty() {
                break;
            }
            bench.effects();
        }
        assert!(matches!(first[..], [(To::Port(100), _)]), "{receivers}: {first:?}");
        let challenge = |asked: u64| Challenge { asked: asked.into(), cookie: 77.into() };
        bench.take(&control(0, Kind::Challenge, &[challenge(first[0].1).as_bytes()]));
        assert_eq!(reports(&mut bench), [(repeated_to, 77)], "{receivers}");
        // Another challenge, as when the cookie is renewed: the report is not repeated once more.
        bench.wait(200 * MS);
        reports(&mut bench);
        bench.take(&control(0, Kind::Challenge, &[challenge(77).as_bytes()]));
        assert_eq!(reports(&mut bench), [], "{receivers}");
    }
}

/// A member that starts again knows nothing of the cookies that it issued before: no observer reports with one of them.
#[test]
fn issue_a_publisher_that_started_again_was_not_paced() {
    let mut net = Net::new(3, 2, |config| {
        paced(config);
        (config.limits.receivers, config.secret) = (9, [config.seed, 1]);
    });
    net.run(1_000_000_000);
    net.kill(2);
    net.run(1_000_000_000);
    net.start(2, 2);
    net.run(1_000_000_000);
    assert_eq!(net.process(2).standing(), Standing::Member);
    let link = Link::default();
    link.clone().before(&mut net, 3);
    publish_from(&mut net, 2, &link, 500_000_000);
    assert!(net.process(2).counters().get(Counter::RatesLowered) > 0);
    assert_eq!(net.process(2).counters().get(Counter::AnswersRefused), 0, "a report came with an old cookie");
}

/// A cookie that was not renewed in time may be invalid: what goes with it to all is not challenged.
#[test]
fn issue_a_report_to_all_carried_an_old_cookie() {
    let mut config = Bench::config(Order::Fifo, 1, Role::Observer);
    (config.flow, config.start, config.limits.receivers) = (Flow::Paced, Start::Live, 9);
    let mut bench = Bench::with(config).formed();
    let number = Cell::new(0_u64);
    let report = |bench: &mut Bench| {
        for _ in 0..300 {
            let next = number.replace(number.get() + 1);
            if !next.is_multiple_of(3) || next == 0 {
                bench.take(&data(0, next, next, 0, &[message(&PAYLOAD)]));
            }
            bench.wait(MS / 10);
            if let [report] = reports(bench)[..] {
                return report;
            }
        }
        panic!("a third was lost");
    };
    let (to, nonce) = report(&mut bench);
    assert_eq!(to, To::Port(common::port(0)));
    let challenge = Challenge { asked: nonce.into(), cookie: 77.into() };
    bench.take(&control(0, Kind::Challenge, &[challenge.as_bytes()]));
    assert_eq!(reports(&mut bench), [(To::All, 77)]);
    // No challenge renews it; it is valid for 30 s at least, and would be renewed after 20 s.
    for (wait_ms, to) in [(19_000, To::All), (1_000, To::Port(common::port(0)))] {
        for _ in 0..wait_ms / 100 {
            bench.wait(100 * MS);
            bench.take(&bench.heartbeat(0, |beat| beat.next_number = number.get().into()));
            bench.effects();
        }
        assert_eq!(report(&mut bench), (to, 77), "after {wait_ms} ms");
    }
}

/// Where the reports go that the process sends now, and their cookies.
fn reports(bench: &mut Bench) -> Vec<(To, u64)> {
    let mut reports = Vec::new();
    bench.process.transmit(bench.now, |to, bytes, segment_bytes| {
        for datagram in bytes.chunks(segment_bytes) {
            let datagram = Datagram::parse(datagram, GROUP).unwrap();
            let to = if to == Destination::Group { To::All } else { To::Port(common::port(0)) };
            let frames = datagram.frames().filter(|frame| frame.kind() == Some(Kind::Congestion));
            reports.extend(frames.map(|frame| (to, Congestion::read(frame.body).unwrap().0.cookie.get())));
        }
        bytes.len().div_ceil(segment_bytes)
    });
    reports
}

/// A burst of repairs that is counted in bytes was more datagrams than the sender remembered: it answered the first of
/// them again at once.
#[test]
fn issue_repairs_of_short_datagrams_were_repeated_within_a_round_trip() {
    let rate = Rate { limit_bytes_per_s: Some(400_000_000), floor_bytes_per_s: 1_000_000 };
    let mut config = Bench::config(Order::Fifo, 1, Role::Member(Rank(0)));
    (config.rate, config.limits.log_bytes) = (rate, 1 << 24);
    let mut bench = Bench::with(config);
    for _ in 0..6_000 {
        bench.wait(MS / 100);
        bench.effects();
        bench.publish(&[7; 8]);
    }
    bench.effects();
    bench.wait(200 * MS);
    bench.effects();
    let cookie = bench.cookie(9);
    let mut repaired = HashSet::new();
    for _ in 0..2 {
        bench.take(&nak_with(0xFFFF, common::address(9), 0, &[(0, 6_000)], cookie));
        for effect in bench.effects() {
            if let Effect::Repair(_, number, _) = effect {
                assert!(repaired.insert(number), "{number} twice");
            }
        }
    }
    assert!(repaired.len() > 4_000, "{}", repaired.len());
}

/// A receiver requests old long datagrams again and again, while the publisher sends short ones.
#[test]
fn issue_repairs_of_long_datagrams_took_the_rate_from_short_ones() {
    let rate = Rate { limit_bytes_per_s: Some(1_000_000), floor_bytes_per_s: 100_000 };
    let mut config = Config { rate, ..Bench::config(Order::Fifo, 1, Role::Member(Rank(0))) };
    config.limits.log_bytes = 1 << 24;
    let mut bench = Bench::with(config);
    let publish = |bench: &mut Bench, payload: &[u8]| {
        let taken = bench.process.try_publish(bench.now, &Outgoing::default(), payload).is_ok();
        let repairs = bench.effects().iter().filter(|effect| matches!(effect, Effect::Repair(..))).count();
        (u64::from(taken), repairs as u64)
    };
    let mut long = 0;
    while long < 64 {
        bench.wait(MS);
        long += publish(&mut bench, &PAYLOAD).0;
    }
    bench.wait(200 * MS);
    bench.effects();
    let cookie = bench.cookie(9);
    let (mut taken, mut repairs) = (0, 0);
    for _ in 0..4_000 {
        bench.wait(MS / 4);
        bench.take(&nak_with(0xFFFF, common::address(9), 0, &[(0, 64)], cookie));
        let (message, repaired) = publish(&mut bench, &[7; 20]);
        (taken, repairs) = (taken + message, repairs + repaired);
    }
    let repairs_bytes = repairs * PAYLOAD.len() as u64;
    assert!((50_000..=270_000).contains(&repairs_bytes), "{repairs_bytes} of 1,000,000 in this second");
    assert_eq!(taken, 4_000, "less than half of the rate is used");
}
