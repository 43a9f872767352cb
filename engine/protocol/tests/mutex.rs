//! Locks: which member gets them, in how many messages, and what happens to them when members die.

use crate::common::net::Net;
use bourdon_protocol::{
    Config, Coordination, CoordinationRefusal, Counter, FencingToken, LockId, LockNews, LockStanding, Loss, MutexKind,
    Order, Patience, Reliability,
};
use bourdon_wire::records::link_steps as steps;
use bourdon_wire::{Incarnation, Rank, TopicName};

const MS: u64 = 1_000_000;

/// Every algorithm, and what it needs of a group.
const KINDS: [fn(&mut Config); 5] = [
    |config| config.mutex = MutexKind::Replicated,
    |config| config.mutex = MutexKind::Central,
    |config| config.mutex = MutexKind::Lamport,
    |config| config.mutex = MutexKind::RicartAgrawala,
    |config| {
        (config.mutex, config.order) = (MutexKind::TokenRing, Order::Unordered);
        config.reliability = Reliability::Unreliable;
    },
];

fn name(text: &str) -> TopicName {
    TopicName::new(text).unwrap()
}

fn group(members: u16, configure: fn(&mut Config)) -> Net {
    let mut net = Net::new(members, 0, configure);
    net.run(100 * MS);
    net
}

fn ask(net: &mut Net, member: usize, lock: &str) -> LockId {
    net.process(member).lock(name(lock), Patience::Forever).unwrap()
}

/// All news of a member's locks.
fn news(net: &mut Net, member: usize) -> Vec<(LockId, LockNews)> {
    let process = net.process(member);
    std::iter::from_fn(|| process.poll_coordination())
        .filter_map(|news| if let Coordination::Lock(id, news) = news { Some((id, news)) } else { None })
        .collect()
}

fn granted(net: &mut Net, member: usize, id: LockId) -> Option<FencingToken> {
    let news = news(net, member);
    assert!(news.len() <= 1, "{news:?}");
    match net.process(member).lock_standing(id) {
        Some(LockStanding::Held(token)) => Some(token),
        _ => None,
    }
}

fn messages(net: &mut Net) -> u64 {
    let live = net.processes.iter().filter_map(|one| one.process.as_ref());
    live.map(|process| process.counters().get(Counter::LockMessages)).sum()
}

/// A member enters and leaves; returns how many messages that took, and the token.
fn enter_once(net: &mut Net, member: usize) -> (u64, FencingToken) {
    let before = messages(net);
    let id = ask(net, member, "x");
    net.run(50 * MS);
    let (kind, all) = (net.process(member).config().mutex, net.processes.len());
    let token = granted(net, member, id).unwrap_or_else(|| panic!("{kind:?} of {all}: {member} waits"));
    assert!(net.process(member).unlock(id));
    net.run(50 * MS);
    (messages(net) - before, token)
}

#[test]
fn an_entry_costs_what_the_textbook_states() {
    for members in 3..=9u16 {
        let n = u64::from(members);
        let expected = [2, 3, 3 * (n - 1), 2 * (n - 1)];
        for (configure, expected) in KINDS.into_iter().zip(expected) {
            let mut net = group(members, configure);
            let mut last = FencingToken::default();
            for round in 0..3 {
                let member = 1 + round % (usize::from(members) - 1);
                let (count, token) = enter_once(&mut net, member);
                assert_eq!(count, expected, "{members} members, {:?}", net.process(0).config().mutex);
                assert!(token > last, "{token:?} after {last:?}");
                last = token;
            }
        }
        let mut net = group(members, KINDS[4]);
        for member in [1, 1, usize::from(members) - 1, 0, 2] {
            let (count, _) = enter_once(&mut net, member);
            assert!(count <= n, "{count} messages for a pass of {members} members");
        }
    }
}

#[test]
fn the_coordinators_own_entries_cost_nothing() {
    let mut net = group(4, KINDS[1]);
    assert_eq!(enter_once(&mut net, 0).0, 0);
}

#[test]
fn one_at_a_time_each_in_turn_under_growing_tokens() {
    for configure in KINDS {
        let mut net = group(5, configure);
        let kind = net.process(0).config().mutex;
        let mut ids: Vec<Option<LockId>> = (0..5).map(|member| Some(ask(&mut net, member, "x"))).collect();
        let mut tokens = Vec::new();
        for turn in 0..5 {
            net.run(10 * MS);
            let held: Vec<usize> = (0..5).filter(|member| net.process(*member).locks_held().count() > 0).collect();
            assert_eq!(held.len(), 1, "{kind:?} turn {turn}: {held:?}");
            let id = ids[held[0]].take().expect("each once");
            tokens.push(granted(&mut net, held[0], id).unwrap());
            assert!(net.process(held[0]).unlock(id));
        }
        assert!(tokens.is_sorted() && tokens.windows(2).all(|pair| pair[0] < pair[1]), "{kind:?}: {tokens:?}");
        net.run(10 * MS);
        assert!((0..5).all(|member| !net.process(member).has_lock_requests()));
    }
}

#[test]
fn requests_of_one_member_are_served_in_their_order() {
    for configure in KINDS {
        let mut net = group(3, configure);
        let ids: Vec<LockId> = (0..3).map(|_| ask(&mut net, 1, "x")).collect();
        net.run(5 * MS);
        assert_eq!(net.process(1).lock_standing(ids[2]), Some(LockStanding::Waiting { ahead: 2 }));
        for id in &ids {
            assert!(granted(&mut net, 1, *id).is_some());
            net.process(1).unlock(*id);
            net.run(5 * MS);
        }
    }
}

#[test]
fn a_trying_caller_learns_that_it_is_not_free() {
    for configure in KINDS {
        let mut net = group(3, configure);
        let kind = net.process(0).config().mutex;
        let held = ask(&mut net, 1, "x");
        net.run(5 * MS);
        assert!(granted(&mut net, 1, held).is_some());
        let tries: Vec<(usize, LockId)> =
            [0, 1, 2].map(|member| (member, net.process(member).lock(name("x"), Patience::Try).unwrap())).to_vec();
        net.run(5 * MS);
        for (member, id) in tries {
            assert_eq!(news(&mut net, member), [(id, LockNews::Busy)], "{kind:?} {member}");
        }
        net.process(1).unlock(held);
        net.run(5 * MS);
        let id = net.process(2).lock(name("x"), Patience::Try).unwrap();
        net.run(5 * MS);
        assert!(granted(&mut net, 2, id).is_some(), "{kind:?}");
    }
}

#[test]
fn a_caller_that_waits_until_a_deadline_learns_when_it_has_passed() {
    for configure in KINDS {
        let mut net = group(3, configure);
        let held = ask(&mut net, 0, "x");
        net.run(5 * MS);
        assert!(granted(&mut net, 0, held).is_some());
        let until = net.now + 20 * MS;
        let late = net.process(1).lock(name("x"), Patience::Until(until)).unwrap();
        let after = ask(&mut net, 2, "x");
        net.run(25 * MS);
        assert_eq!(news(&mut net, 1), [(late, LockNews::TimedOut)]);
        net.process(0).unlock(held);
        net.run(5 * MS);
        assert!(granted(&mut net, 2, after).is_some(), "the withdrawn request is out of the queue");
    }
}

#[test]
fn a_dead_holders_lock_goes_to_the_next_with_the_next_view() {
    for configure in KINDS {
        for victim in [0, 2] {
            let mut net = group(5, configure);
            let kind = net.process(0).config().mutex;
            let held = ask(&mut net, victim, "x");
            net.run(5 * MS);
            let before = granted(&mut net, victim, held).unwrap();
            let waiting: Vec<(usize, LockId)> = [1, 3, 4].map(|member| (member, ask(&mut net, member, "x"))).to_vec();
            net.run(5 * MS);
            net.kill(victim);
            net.run(3_000 * MS);
            let mut tokens = vec![before];
            for _ in 0..3 {
                let holder = waiting.iter().find(|(member, id)| {
                    matches!(net.process(*member).lock_standing(*id), Some(LockStanding::Held(_)))
                });
                let (member, id) = *holder.unwrap_or_else(|| panic!("{kind:?}, {victim} died: no member has it"));
                tokens.extend(granted(&mut net, member, id));
                net.process(member).unlock(id);
                net.run(20 * MS);
            }
            assert!(tokens.windows(2).all(|pair| pair[0] < pair[1]), "{kind:?}: {tokens:?}");
        }
    }
}

#[test]
fn a_holder_keeps_its_lock_when_another_member_dies() {
    for configure in KINDS {
        for victim in [0, 2] {
            let mut net = group(5, configure);
            let kind = net.process(0).config().mutex;
            let held = ask(&mut net, 1, "x");
            net.run(5 * MS);
            let token = granted(&mut net, 1, held).unwrap();
            net.kill(victim);
            net.run(3_000 * MS);
            assert_eq!(net.process(1).lock_standing(held), Some(LockStanding::Held(token)), "{kind:?}");
            let next = ask(&mut net, 3, "x");
            net.run(20 * MS);
            assert_eq!(granted(&mut net, 3, next), None, "{kind:?}: still held");
            net.process(1).unlock(held);
            net.run(20 * MS);
            assert!(granted(&mut net, 3, next).unwrap() > token, "{kind:?}");
        }
    }
}

#[test]
fn a_member_without_a_majority_loses_its_locks() {
    for configure in KINDS {
        let mut net = group(3, configure);
        let held = ask(&mut net, 2, "x");
        net.run(5 * MS);
        let before = granted(&mut net, 2, held).unwrap();
        net.lose = Box::new(|from, to| (from == 2) != (to == 2));
        net.run(3_000 * MS);
        assert!(news(&mut net, 2).contains(&(held, LockNews::Lost(Loss::NoMajority))));
        assert_eq!(net.process(2).locks_held().count(), 0);
        let refused = net.process(2).lock(name("x"), Patience::Forever);
        assert_eq!(refused, Err(CoordinationRefusal::NoMajority));
        let next = ask(&mut net, 0, "x");
        net.run(20 * MS);
        assert!(granted(&mut net, 0, next).unwrap() > before);
        // It comes back as another member, and waits like any other.
        net.lose = Box::new(|_, _| false);
        net.run(5_000 * MS);
        let again = ask(&mut net, 2, "x");
        net.run(20 * MS);
        assert_eq!(granted(&mut net, 2, again), None, "{:?}", net.process(2).config().mutex);
        net.process(0).unlock(next);
        net.run(20 * MS);
        assert!(granted(&mut net, 2, again).is_some());
    }
}

#[test]
fn a_joiner_has_the_table() {
    let mut net = group(3, KINDS[0]);
    let held = ask(&mut net, 1, "x");
    net.run(5 * MS);
    let token = granted(&mut net, 1, held).unwrap();
    net.kill(2);
    net.run(3_000 * MS);
    net.start(2, 2);
    net.run(5_000 * MS);
    assert!(net.process(2).view().incarnation(Rank(2)) >= Some(Incarnation(2)));
    let next = ask(&mut net, 2, "x");
    net.run(5 * MS);
    assert_eq!(net.process(2).lock_standing(next), Some(LockStanding::Waiting { ahead: 1 }));
    // The members that were there before die: only the newcomer and the remaining member know the queue.
    net.process(1).unlock(held);
    net.run(5 * MS);
    assert!(granted(&mut net, 2, next).unwrap() > token);
}

#[test]
fn link_messages_that_are_lost_or_come_twice_change_nothing() {
    for configure in KINDS {
        let mut net = group(4, configure);
        let mut turn = 0u32;
        net.alter = Box::new(move |_, _, _| {
            turn = turn.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            [0, 1, 1, 2][(turn >> 28) as usize % 4]
        });
        for _ in 0..10 {
            let ids: Vec<LockId> = (0..4).map(|member| ask(&mut net, member, "x")).collect();
            let mut open: Vec<usize> = (0..4).collect();
            for _ in 0..4 {
                let mut holder = None;
                for _ in 0..400 {
                    net.run(5 * MS);
                    let held: Vec<usize> =
                        (0..4).filter(|member| net.process(*member).locks_held().count() > 0).collect();
                    assert!(held.len() <= 1, "{held:?}");
                    holder = held.first().copied();
                    if holder.is_some() {
                        break;
                    }
                }
                let kind = net.process(0).config().mutex;
                let member = holder.unwrap_or_else(|| panic!("{kind:?}: {open:?} wait for ever"));
                open.retain(|other| *other != member);
                net.process(member).unlock(ids[member]);
            }
        }
    }
}

#[test]
fn replicated_locks_need_the_total_order() {
    let mut net = group(3, |config| config.order = Order::Fifo);
    let refused = net.process(0).lock(name("x"), Patience::Forever);
    assert_eq!(refused, Err(CoordinationRefusal::NeedsTotalOrder));
}

#[test]
fn steps_of_the_textbook_are_distinguished() {
    let mut net = group(5, KINDS[1]);
    enter_once(&mut net, 3);
    let sent = |net: &mut Net, step| (0..5).map(|member| net.process(member).link_messages_sent(step)).sum::<u64>();
    assert_eq!([steps::REQUEST, steps::GRANT, steps::RELEASE].map(|step| sent(&mut net, step)), [1, 1, 1]);
}
