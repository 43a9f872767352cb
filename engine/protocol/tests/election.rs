//! Elections: which member leads, in how many messages, and what happens when leaders die, resign or are cut off.

use crate::common::net::Net;
use bourdon_protocol::{
    Config, Coordination, ElectionKind, FencingToken, Leadership, Loss, Participation, Reliability,
};
use bourdon_wire::records::link_steps as steps;
use bourdon_wire::{Incarnation, Rank, TopicName};

const MS: u64 = 1_000_000;

const KINDS: [fn(&mut Config); 2] = [
    |config| config.election = ElectionKind::Bully,
    |config| (config.election, config.reliability) = (ElectionKind::Ring, Reliability::BestEffort),
];

fn name() -> TopicName {
    TopicName::new("chief").unwrap()
}

fn group(members: u16, configure: fn(&mut Config)) -> Net {
    let mut net = Net::new(members, 0, configure);
    net.run(100 * MS);
    net
}

fn stand(net: &mut Net, member: usize, participation: Participation) {
    net.process(member).elect(name(), participation).unwrap();
}

fn live(net: &Net) -> Vec<usize> {
    (0..net.processes.len()).filter(|index| net.processes[*index].process.is_some()).collect()
}

/// The leader that all live members report.
fn leader(net: &mut Net) -> Leadership {
    let shown: Vec<_> = live(net).into_iter().map(|member| net.process(member).leader(&name())).collect();
    assert!(shown.iter().all(|leadership| *leadership == shown[0]), "{shown:?}");
    shown[0].expect("a member leads")
}

/// What the members have sent so far, of each of these steps.
fn sent<const N: usize>(net: &mut Net, which: [u16; N]) -> [u64; N] {
    which.map(|step| live(net).into_iter().map(|member| net.process(member).link_messages_sent(step)).sum())
}

/// No member suspects another except on evidence, so that one member notices before the others.
const EVIDENCE_ONLY: fn(&mut Config) = |config| {
    let detector = &mut config.timing.detector;
    (detector.push, detector.pull, detector.phi, detector.evidence) = (false, false, false, true);
};

const COUNTED: [u16; 3] = [steps::ELECTION, steps::OK, steps::COORDINATOR];

/// All stand, the highest leads and dies, and `notices` alone knows it at first. What the election costs: ELECTION, OK,
/// COORDINATOR.
fn bully_without_the_highest(members: u16, notices: usize) -> [u64; 3] {
    let (n, mut net) = (usize::from(members), group(members, EVIDENCE_ONLY));
    (0..n).for_each(|member| stand(&mut net, member, Participation::Campaign));
    net.run(50 * MS);
    assert_eq!(leader(&mut net).leader, Rank(members - 1));
    net.kill(n - 1);
    let before = sent(&mut net, COUNTED);
    let now = net.now;
    net.process(notices).on_evidence(now, Rank(members - 1), Incarnation(1));
    net.process(notices).on_timer(now);
    net.run(3_000 * MS);
    assert_eq!(leader(&mut net).leader, Rank(members - 2));
    let after = sent(&mut net, COUNTED);
    [0, 1, 2].map(|step| after[step] - before[step])
}

#[test]
fn the_bully_costs_what_the_textbook_states() {
    for members in 3..=9u16 {
        let n = u64::from(members);
        let best = bully_without_the_highest(members, usize::from(members) - 2);
        assert_eq!(best, [1, 0, n - 2], "{n} members, at best");
        let worst = bully_without_the_highest(members, 0);
        assert_eq!(worst, [n * (n - 1) / 2, (n - 1) * (n - 2) / 2, n - 2], "{n} members, at worst");
    }
}

#[test]
fn the_ring_costs_what_the_textbook_states() {
    for members in 3..=9u16 {
        let (n, mut net) = (u64::from(members), group(members, KINDS[1]));
        (1..usize::from(members)).for_each(|member| stand(&mut net, member, Participation::StandBy));
        net.run(50 * MS);
        assert_eq!(sent(&mut net, COUNTED), [0, 0, 0], "a member that does not stand starts nothing");
        // The ring goes by rank, so the next after the highest is the lowest.
        stand(&mut net, 0, Participation::Campaign);
        net.run(100 * MS);
        assert_eq!(leader(&mut net).leader, Rank(members - 1));
        assert_eq!(sent(&mut net, COUNTED), [2 * n - 1, 0, n], "{n} members: 3N − 1");
    }
}

#[test]
fn the_next_leads_when_the_leader_dies_under_a_higher_token() {
    for configure in KINDS {
        let mut net = group(5, configure);
        (0..5).for_each(|member| stand(&mut net, member, Participation::Campaign));
        net.run(50 * MS);
        let mut last = FencingToken::default();
        for highest in [4, 3] {
            let leadership = leader(&mut net);
            assert!(leadership.leader == Rank(highest) && leadership.token > last, "{leadership:?} after {last:?}");
            last = leadership.token;
            net.kill(usize::from(highest));
            net.run(3_000 * MS);
        }
        assert!(leader(&mut net).token > last);
    }
}

#[test]
fn a_leader_that_resigns_leads_no_more_and_another_does() {
    for configure in KINDS {
        let mut net = group(4, configure);
        (0..4).for_each(|member| stand(&mut net, member, Participation::Campaign));
        net.run(50 * MS);
        let before = leader(&mut net);
        assert_eq!(before.leader, Rank(3));
        net.process(3).resign(name());
        net.run(50 * MS);
        let after = leader(&mut net);
        assert!(after.leader == Rank(2) && after.token > before.token, "{after:?}");
        // It may stand again, and does not replace the leader.
        stand(&mut net, 3, Participation::Campaign);
        net.run(50 * MS);
        assert_eq!(leader(&mut net), after);
    }
}

#[test]
fn a_leader_stays_when_others_come_and_go() {
    for configure in KINDS {
        let mut net = group(5, configure);
        stand(&mut net, 1, Participation::Campaign);
        net.run(50 * MS);
        (2..5).for_each(|member| stand(&mut net, member, Participation::Campaign));
        stand(&mut net, 0, Participation::Watch);
        net.run(50 * MS);
        let before = leader(&mut net);
        assert_eq!(before.leader, Rank(1));
        net.kill(4);
        net.run(3_000 * MS);
        assert_eq!(leader(&mut net), before);
        net.start(4, 2);
        net.run(5_000 * MS);
        stand(&mut net, 4, Participation::Campaign);
        net.run(50 * MS);
        assert_eq!(leader(&mut net), before, "a member that comes back learns the leader");
    }
}

#[test]
fn a_leader_without_a_majority_is_none() {
    for configure in KINDS {
        let mut net = group(3, configure);
        (0..3).for_each(|member| stand(&mut net, member, Participation::Campaign));
        net.run(50 * MS);
        let before = leader(&mut net);
        net.lose = Box::new(|from, to| (from == 2) != (to == 2));
        net.run(3_000 * MS);
        let process = net.process(2);
        let news: Vec<Coordination> = std::iter::from_fn(|| process.poll_coordination()).collect();
        assert!(news.contains(&Coordination::Deposed(name(), Loss::NoMajority)), "{news:?}");
        assert_eq!(net.process(2).leads().count(), 0);
        assert_eq!(net.process(2).leader(&name()), None);
        let after = net.process(0).leader(&name()).unwrap();
        assert!(after.leader == Rank(1) && after.token > before.token);
        net.lose = Box::new(|_, _| false);
        net.run(5_000 * MS);
        assert_eq!(leader(&mut net), after, "a leader that comes back does not lead again by itself");
    }
}

#[test]
fn a_member_without_a_majority_does_not_know_the_leader() {
    for configure in KINDS {
        let mut net = group(5, configure);
        (0..5).for_each(|member| stand(&mut net, member, Participation::Campaign));
        net.run(50 * MS);
        let before = leader(&mut net);
        while net.process(0).poll_coordination().is_some() {}
        net.lose = Box::new(|from, to| (from < 1) != (to < 1));
        net.run(3_000 * MS);
        assert_eq!(net.process(0).leader(&name()), None, "others may have elected another");
        let process = net.process(0);
        let news: Vec<Coordination> = std::iter::from_fn(|| process.poll_coordination()).collect();
        assert!(news.contains(&Coordination::Leader(name(), None)), "{news:?}");
        net.lose = Box::new(|_, _| false);
        net.run(5_000 * MS);
        assert_eq!(leader(&mut net), before, "it learns the leader again");
    }
}

#[test]
fn two_that_announce_themselves_at_once_leave_one_leader() {
    let mut net = group(5, KINDS[0]);
    // Neither has heard of the other when it finds itself the highest.
    stand(&mut net, 1, Participation::Campaign);
    stand(&mut net, 4, Participation::Campaign);
    stand(&mut net, 3, Participation::Campaign);
    net.run(100 * MS);
    let leadership = leader_of(&mut net, &[1, 3, 4]);
    assert_eq!(leadership.leader, Rank(4), "the highest goes first");
}

fn leader_of(net: &mut Net, members: &[usize]) -> Leadership {
    let shown: Vec<_> = members.iter().map(|member| net.process(*member).leader(&name())).collect();
    assert!(shown.iter().all(|leadership| *leadership == shown[0]), "{shown:?}");
    shown[0].expect("a member leads")
}
