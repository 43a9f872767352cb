//! Restarts of members that have stored what they reported: one, some, all.

use crate::common::net::Net;
use bourdon_protocol::{Config, Event, Order, Reliability, Standing, ends_stored_state};

const MS: u64 = 1_000_000;

fn configure(config: &mut Config) {
    (config.order, config.reliability) = (Order::Total, Reliability::Durable);
    config.snapshots = false;
}

/// Three members in their first view.
fn formed() -> Net {
    let mut net = Net::new(3, 0, configure);
    net.sync_ns = MS;
    net.run(200 * MS);
    let standing = [0, 1, 2].map(|member| net.process(member).standing());
    assert!(net.agree(&[0, 1, 2], 3), "they form: {standing:?} {:?}", net.processes[0].events);
    net
}

fn instance(net: &mut Net, index: usize) -> (u64, u64) {
    let view = net.process(index).view();
    (view.instance.0, view.epoch.0)
}

#[test]
fn nothing_is_delivered_before_a_majority_has_stored_it() {
    let mut net = formed();
    net.sync_ns = 20 * MS;
    net.run(50 * MS);
    net.publish(0, b"x").unwrap();
    net.run(15 * MS);
    assert_eq!(net.messages(0), [], "no disk has synced it");
    assert_eq!(net.process(0).own_acknowledged().map(|next| next.0), Some(0));
    net.run(50 * MS);
    for member in 0..3 {
        assert_eq!(net.messages(member), [(0, 0)]);
    }
    assert_eq!(net.process(0).own_acknowledged().map(|next| next.0), Some(1));
}

#[test]
fn a_member_that_restarts_comes_back_as_the_same_and_nothing_is_lost() {
    let mut net = formed();
    for member in 0..3 {
        net.publish(member, b"before").unwrap();
    }
    net.run(50 * MS);
    let (born, _) = instance(&mut net, 0);
    net.kill(1);
    net.publish(0, b"meanwhile").unwrap();
    net.run(5 * MS);
    net.restore(1, 99);
    net.run(300 * MS);
    assert!(net.agree(&[0, 2], 3));
    let view = net.process(0).view().clone();
    assert_eq!(*net.process(1).view(), view);
    assert_eq!(net.process(1).incarnation().0, 1, "the same incarnation");
    assert_eq!(instance(&mut net, 1), (born, 2), "an ordinary view change");
    net.publish(1, b"after").unwrap();
    net.run(50 * MS);
    let all = net.messages(0);
    assert_eq!(all.len(), 5);
    assert_eq!(net.messages(1), all, "what it had is delivered again, and the rest once");
    assert_eq!(net.messages(2), all);
}

#[test]
fn all_members_restart_and_the_group_goes_on_in_its_instance() {
    let mut net = formed();
    for round in 0..3 {
        for member in 0..3 {
            net.publish(member, b"x").unwrap();
        }
        net.run(50 * MS);
        let (born, epoch) = instance(&mut net, 0);
        (0..3).for_each(|member| net.kill(member));
        (0..3).for_each(|member| net.restore(member, 100 + round));
        net.run(300 * MS);
        let (instance_now, epoch_now) = instance(&mut net, 0);
        assert_eq!(instance_now, born);
        assert!(epoch_now > epoch, "view {epoch_now} after {epoch}");
        for member in 0..3 {
            assert_eq!(net.process(member).standing(), Standing::Member);
            assert_eq!(net.process(member).view().members.len(), 3, "{round}");
            let expected = 3 * (round as usize + 1);
            let delivered = net.process(member).delivered_order().0 as usize;
            assert_eq!(delivered, expected, "member {member} in round {round}");
        }
    }
}

#[test]
fn a_message_that_no_majority_stored_is_delivered_to_all_or_none() {
    let mut net = formed();
    net.sync_ns = 50 * MS;
    net.run(200 * MS);
    net.publish(0, b"lost").unwrap();
    net.run(10 * MS);
    (0..3).for_each(|member| net.kill(member));
    (0..3).for_each(|member| net.restore(member, 7));
    net.run(2000 * MS);
    for member in 0..3 {
        assert_eq!(net.messages(member), net.messages(0));
        assert_eq!(net.process(member).view().members.len(), 3);
    }
}

#[test]
fn a_member_that_the_others_left_out_meanwhile_joins_as_another_incarnation() {
    let mut net = formed();
    net.publish(0, b"x").unwrap();
    net.run(50 * MS);
    net.kill(2);
    net.run(3000 * MS);
    assert_eq!(net.process(0).view().members.len(), 2, "the others go on");
    net.restore(2, 9);
    net.run(3000 * MS);
    assert!(net.processes[2].events.iter().any(|event| matches!(event, Event::Removed(_))));
    assert_eq!(net.process(0).view().members.len(), 3);
    assert_ne!(net.process(2).incarnation().0, 1);
}

#[test]
fn a_member_without_records_starts_as_any_other() {
    let mut net = formed();
    net.kill(2);
    net.processes[2].synced = 0;
    net.restore(2, 9);
    net.run(3000 * MS);
    assert_eq!(net.process(0).view().members.len(), 3);
    assert_eq!(net.process(2).standing(), Standing::Member);
}

// ---- the application's state ---------------------------------------------------------------------------------------

/// As [`formed`], for applications that give snapshots: theirs is the sequences of what was delivered.
fn formed_with_states() -> Net {
    let mut net = Net::new(3, 0, |config| {
        configure(config);
        config.snapshots = true;
    });
    net.sync_ns = MS;
    net.run(200 * MS);
    assert!(net.agree(&[0, 1, 2], 3));
    net
}

fn publish_one_each(net: &mut Net) {
    for member in 0..3 {
        net.publish(member, b"x").unwrap();
    }
    net.run(50 * MS);
}

fn states_stored(net: &Net, member: usize) -> usize {
    let one = &net.processes[member];
    one.disk[..one.synced].iter().filter(|record| ends_stored_state(record, crate::common::GROUP)).count()
}

#[test]
fn an_application_goes_on_from_the_last_state_that_was_stored() {
    let mut net = formed_with_states();
    for round in 0..4 {
        publish_one_each(&mut net);
        let before = [0, 1, 2].map(|member| net.processes[member].state.clone());
        assert!(before.iter().all(|state| *state == before[0]), "round {round}");
        assert_eq!(before[0].len(), 8 * 3 * (round + 1), "round {round}");
        (0..3).for_each(|member| net.kill(member));
        (0..3).for_each(|member| net.restore(member, 100 + round as u32));
        for (before, one) in before.iter().zip(&net.processes) {
            assert!(before.starts_with(&one.state), "round {round}: {:?}", one.state);
        }
        net.run(300 * MS);
        assert!((0..3).all(|member| net.processes[member].state == before[member]), "round {round}");
        assert!((0..3).all(|member| states_stored(&net, member) == round + 2), "one in each view, round {round}");
        // What the stored state has is not delivered again.
        assert!((0..3).all(|member| net.messages(member).len() <= 3), "round {round}");
    }
}

#[test]
fn a_view_of_which_much_is_stored_ends_with_the_same_members_in_the_next() {
    let mut net = Net::new(3, 0, |config| {
        configure(config);
        config.snapshots = true;
        config.limits.stored_view_bytes = 20_000;
    });
    net.sync_ns = MS;
    net.run(200 * MS);
    let (born, mut epoch) = instance(&mut net, 0);
    let mut published = 0_usize;
    for _ in 0..3 {
        for _ in 0..100 {
            published += usize::from(net.publish(1, &[7; 200]).is_ok()); // a view change refuses it
            net.run(2 * MS);
        }
        net.run(100 * MS);
        let (instance_now, epoch_now) = instance(&mut net, 0);
        assert_eq!(instance_now, born);
        assert!(epoch_now > epoch && epoch_now <= epoch + 2, "view {epoch_now} after {epoch}");
        epoch = epoch_now;
        assert!((0..3).all(|member| net.process(member).view().members.len() == 3));
        assert!((0..3).all(|member| net.messages(member).len() == published), "none is lost");
        assert!((0..3).all(|member| states_stored(&net, member) as u64 == epoch), "a state in each view");
    }
}

#[test]
fn a_joiner_reports_nothing_as_held_before_its_application_has_given_the_state_it_began_with() {
    let mut net = formed_with_states();
    publish_one_each(&mut net);
    net.kill(2);
    net.run(3000 * MS);
    net.start(2, 50);
    net.processes[2].answers_after_ns = 1000 * MS;
    net.run(700 * MS);
    assert_eq!(net.process(2).standing(), Standing::Member);
    publish_one_each(&mut net);
    assert_eq!(net.processes[2].disk.len(), 0, "its state comes first");
    assert_eq!(net.messages(2).len(), 3, "the others are a quorum");
    // It crashes, and comes back as a process that knows nothing: it takes another member's state.
    net.kill(2);
    net.restore(2, 51);
    net.processes[2].answers_after_ns = 0;
    net.run(3000 * MS);
    assert_eq!((net.process(2).standing(), net.process(2).view().members.len()), (Standing::Member, 3));
    assert_eq!(net.processes[2].state, net.processes[0].state);
    // Now it crashes with a state.
    publish_one_each(&mut net);
    assert_eq!(states_stored(&net, 2), 1);
    let before = net.processes[2].state.clone();
    (0..3).for_each(|member| net.kill(member));
    (0..3).for_each(|member| net.restore(member, 60));
    net.run(300 * MS);
    assert_eq!(net.processes[2].state, before);
    assert_eq!(net.process(2).view().members.len(), 3);
}

#[test]
fn a_member_whose_application_declines_stores_its_votes_all_the_same() {
    let mut net = formed_with_states();
    publish_one_each(&mut net);
    net.kill(2);
    net.run(3000 * MS);
    net.start(2, 50);
    net.processes[2].declines = true;
    net.run(3000 * MS);
    publish_one_each(&mut net);
    assert!(net.processes[2].synced > 0 && states_stored(&net, 2) == 0);
    let incarnation = net.process(2).incarnation();
    net.kill(2);
    net.restore(2, 51);
    net.run(300 * MS);
    assert_eq!((net.process(2).incarnation(), net.process(2).view().members.len()), (incarnation, 3));
}
