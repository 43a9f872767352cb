//! A channel that leans on the detectors of its group: their judgements decide soon, its own detectors late.

use crate::common::{Bench, MS, net::Net};
use bourdon_protocol::control::detector::{Judgement, Why};
use bourdon_protocol::{Event, Order, Role, Timing};
use bourdon_wire::{Incarnation, Instant, Rank};

/// Three members that lean, in their first view.
fn three() -> Net {
    let mut net = Net::new(3, 0, |config| config.timing = Timing::default().leaning());
    net.run(500 * MS);
    assert!(net.agree(&[0, 1, 2], 3));
    net
}

/// The group's detectors report this at the members 0 and 1.
fn judge(net: &mut Net, watched: u64, suspects: u64) {
    for index in [0, 1] {
        let (now, others) = (net.now, !(1 << index));
        net.process(index).judge(now, Judgement { watched: watched & others, suspects: suspects & others });
    }
}

#[test]
fn a_judgement_evicts_in_milliseconds() {
    let mut net = three();
    net.kill(2);
    judge(&mut net, 0b111, 0b100);
    net.run(20 * MS);
    assert!(net.agree(&[0, 1], 2));
    assert!(net.heard(0, Event::Suspected(Rank(2), Why::Group)) && net.heard(1, Event::Suspected(Rank(2), Why::Group)));
}

/// The word against a member outlasts the view in which it came.
#[test]
fn a_member_suspected_while_the_view_changes_is_evicted_by_the_next() {
    let mut net = Net::new(5, 0, |config| config.timing = Timing::default().leaning());
    net.run(500 * MS);
    net.kill(3);
    let judge = |net: &mut Net, suspects| {
        for index in [0, 1, 2] {
            let now = net.now;
            net.process(index).judge(now, Judgement { watched: 0b11111 & !(1 << index), suspects });
        }
    };
    judge(&mut net, 0b01000);
    while !net.process(0).is_wedged() {
        net.run(20_000);
    }
    judge(&mut net, 0b11000); // it lives, and replies to this ballot
    net.run(40 * MS);
    assert_eq!(net.views(0).iter().map(|(_, members)| *members).collect::<Vec<_>>(), [0b11111, 0b10111, 0b00111]);
}

#[test]
fn a_judgement_taken_back_before_the_ballot_evicts_no_member() {
    let mut net = three();
    judge(&mut net, 0b111, 0b100);
    net.run(5 * MS);
    assert_eq!(net.process(0).suspects(), 0b100);
    judge(&mut net, 0b111, 0);
    net.run(5_000 * MS);
    assert!(net.heard(0, Event::Trusted(Rank(2))));
    assert_eq!(net.views(0), [(1, 0b111)]);
    let figures = net.process(0).detector().figures(Why::Group);
    assert_eq!((figures.suspicions, figures.false_positives, figures.false_negatives), (1, 1, 0));
}

/// The group removes a member because it suspects it; that is no word that the member is well.
#[test]
fn a_peer_that_the_group_no_longer_watches_stays_suspected() {
    let mut net = three();
    let (now, suspected) = (net.now, Judgement { watched: 0b110, suspects: 0b100 });
    net.process(0).judge(now, suspected);
    net.run(MS);
    let (now, removed) = (net.now, Judgement { watched: 0b010, suspects: 0 });
    net.process(0).judge(now, removed);
    net.run(100 * MS);
    assert_eq!(net.process(0).suspects(), 0b100);
    // The group has admitted it again.
    let (now, admitted) = (net.now, Judgement { watched: 0b110, suspects: 0 });
    net.process(0).judge(now, admitted);
    net.run(MS);
    assert_eq!(net.process(0).suspects(), 0);
    assert_eq!(net.views(0), [(1, 0b111)], "the opinion of one member evicts none");
}

#[test]
fn another_incarnation_has_no_word_against_it() {
    let mut net = three();
    net.kill(2);
    judge(&mut net, 0b111, 0b100);
    net.run(100 * MS);
    assert!(net.agree(&[0, 1], 2));
    net.start(2, 2);
    net.run(500 * MS);
    assert!(net.agree(&[0, 1, 2], 3), "the last word was of another incarnation");
    // The group removes the earlier incarnation later than the channel: nothing is reported of this one.
    judge(&mut net, 0b111, 0b100);
    judge(&mut net, 0b011, 0);
    net.run(3_000 * MS);
    assert!(net.agree(&[0, 1, 2], 3) && net.process(0).suspects() == 0);
}

#[test]
fn its_own_detectors_are_the_backstop() {
    let mut net = three();
    judge(&mut net, 0b111, 0);
    net.kill(2);
    net.run(400 * MS);
    assert_eq!(net.process(0).suspects() | net.process(1).suspects(), 0);
    net.run(800 * MS);
    assert!(net.agree(&[0, 1], 2));
    assert!(!net.heard(0, Event::Suspected(Rank(2), Why::Group)));
}

/// Regular heartbeats come too seldom to repeat it.
#[test]
fn a_lost_report_of_a_suspicion_is_repeated_soon() {
    let mut net = three();
    net.kill(2);
    let until = net.now + 2 * MS;
    judge(&mut net, 0b111, 0b100);
    net.lose = Box::new(|_, _| true);
    net.run(2 * MS);
    assert!(net.now >= until);
    net.lose = Box::new(|_, _| false);
    net.run(40 * MS);
    assert!(net.agree(&[0, 1], 2));
}

#[test]
fn a_member_reports_what_its_detectors_find_of_the_others_in_its_view() {
    let mut net = Net::new(3, 1, |_| {});
    assert_eq!(net.process(0).judgement(), None);
    net.run(500 * MS);
    let trusted = Some(Judgement { watched: 0b110, suspects: 0 });
    assert_eq!(net.process(0).judgement(), trusted);
    assert_eq!(net.process(3).judgement(), None, "an observer has no detectors");
    let suspected = Some(Judgement { watched: 0b110, suspects: 0b100 });
    net.kill(2);
    while net.process(0).suspects() == 0 {
        assert_eq!(net.process(0).judgement(), trusted);
        net.run(MS);
    }
    assert_eq!(net.process(0).judgement(), suspected);
    net.run(200 * MS);
    assert!(net.agree(&[0, 1], 2) && net.process(0).judgement() == suspected);
    net.start(2, 2);
    net.run(500 * MS);
    assert!(net.agree(&[0, 1, 2], 3) && net.process(0).judgement() == trusted);
}

/// Member 0 was not the one that noticed the crash, and the channels that lean on it must know of it all the same.
#[test]
fn a_member_that_others_removed_counts_as_suspected() {
    let mut net = Net::new(3, 0, |config| config.timing = Timing::patient());
    net.run(500 * MS);
    net.kill(2);
    let now = net.now;
    net.process(1).on_evidence(now, Rank(2), Incarnation(1));
    net.run(1_000 * MS);
    assert!(
        net.agree(&[0, 1], 2) && !net.processes[0].events.iter().any(|event| matches!(event, Event::Suspected(..)))
    );
    assert_eq!(net.process(0).judgement(), Some(Judgement { watched: 0b110, suspects: 0b100 }));
}

#[test]
fn a_member_that_left_is_not_suspected_and_no_detector_has_missed_it() {
    let mut net = Net::new(3, 0, |_| {});
    net.run(500 * MS);
    let now = net.now;
    net.process(2).leave(now);
    net.run(500 * MS);
    assert!(net.agree(&[0, 1], 2));
    assert_eq!(net.process(0).judgement(), Some(Judgement { watched: 0b010, suspects: 0 }));
    for why in Why::ALL {
        assert_eq!(net.process(0).detector().figures(why).false_negatives, 0, "{why:?}");
    }
}

/// The group may evict this process as soon as the detectors of its group suspect it.
#[test]
fn a_silent_data_plane_is_noticed_as_soon_as_in_the_group() {
    for (timing, silent_ms) in [(Timing::default(), 320), (Timing::default().leaning(), 320)] {
        let mut config = Bench::config(Order::Total, 2, Role::Member(Rank(0)));
        config.timing = timing;
        let mut control = Bench::with(config).process.release_control();
        let mut silent_at = None;
        for ms in 0..5_000 {
            control.look(Instant(ms * MS), Instant(0));
            silent_at = silent_at.or(control.is_silent().then_some(ms));
        }
        assert!(silent_at.is_some_and(|at| at >= silent_ms && at < 2 * silent_ms), "{silent_at:?}");
    }
}

/// All members of a channel lean, or none.
#[test]
fn a_member_that_does_not_lean_is_configured_otherwise() {
    let mut config = Bench::config(Order::Total, 2, Role::Member(Rank(0)));
    let before = config.fingerprint();
    config.timing = config.timing.leaning();
    assert_ne!(config.fingerprint(), before);
}

/// A channel of a group whose links stall is no less patient than the group.
#[test]
fn leaning_shortens_no_time_of_the_group() {
    let (patient, leaning) = (Timing::patient(), Timing::patient().leaning());
    assert_eq!(leaning.detector.suspect_after_ns, patient.detector.suspect_after_ns);
    assert_eq!(leaning.detector.phi_deviation_min_ns, patient.detector.phi_deviation_min_ns);
    assert_eq!(leaning.membership, patient.membership);
    assert_eq!((leaning.heartbeat_max_ns, leaning.detector.heartbeat_ns), (100 * MS, 100 * MS));
}
