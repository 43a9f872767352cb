//! Hand-made histories: for each invariant a history that keeps it, and the smallest change that breaks it.
//!
//! Histories are written with blanks for tabs and `/` between lines; a delivery's hash is added from its name, unless
//! one is given.

use super::{Order, Reliability, Rules, Verdict, judge};
use crate::history;

const TOTAL: (Order, Reliability) = (Order::Total, Reliability::Reliable);
const FIFO: (Order, Reliability) = (Order::Fifo, Reliability::Reliable);
const CAUSAL: (Order, Reliability) = (Order::Causal, Reliability::Reliable);
const UNORDERED: (Order, Reliability) = (Order::Unordered, Reliability::Reliable);
const UNIFORM: (Order, Reliability) = (Order::Total, Reliability::Uniform);

fn line(text: &str) -> String {
    let mut fields: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
    if fields[0] == "D" && fields.len() == 6 {
        let sequence: u64 = fields[4].parse().expect("a sequence");
        fields.push(format!("{:08x}{sequence:08x}", fields[3].bytes().map(u64::from).sum::<u64>()));
    }
    fields.join("\t") + "\n"
}

fn verdict(rules: Rules, files: &[(&str, &str)], killed: &str) -> Verdict {
    let folder = tempfile::tempdir().expect("a folder");
    for (name, text) in files {
        let text: String = text.split('/').map(str::trim).filter(|text| !text.is_empty()).map(line).collect();
        std::fs::write(folder.path().join(format!("{name}.tsv")), text).expect("written");
    }
    std::fs::write(folder.path().join("killed"), killed).expect("written");
    judge(&history::read(folder.path()).expect("readable"), rules)
}

fn rules((order, reliability): (Order, Reliability)) -> Rules {
    Rules { order, reliability, allow_skips: false, running: false }
}

/// The invariants that are broken.
fn broken(promised: (Order, Reliability), files: &[(&str, &str)], killed: &str) -> Vec<u32> {
    let verdict = verdict(rules(promised), files, killed);
    let mut invariants: Vec<u32> = verdict.violations.iter().map(|violation| violation.invariant).collect();
    invariants.sort_unstable();
    invariants.dedup();
    invariants
}

/// `good` at both of two members is clean; with `bad` at the second, the `expected` invariants are broken.
fn pair(promised: (Order, Reliability), good: &str, bad: &str, expected: &[u32]) {
    assert_eq!(broken(promised, &[("member-0", good), ("member-1", good)], ""), [0; 0], "{good}");
    assert_eq!(broken(promised, &[("member-0", good), ("member-1", bad)], ""), expected, "{bad}");
}

#[test]
fn one_at_most_once_and_the_same_bytes() {
    let good = "V 1 0,1 / D 1 - 0 0 - / D 1 - 0 1 -";
    pair(UNORDERED, good, "V 1 0,1 / D 1 - 0 0 - / D 1 - 0 1 - / D 1 - 0 0 -", &[1]);
    pair(UNORDERED, good, "V 1 0,1 / D 1 - 0 0 - 00000000000000ff / D 1 - 0 1 -", &[1]);
    let (order, unreliable) = (Order::Unordered, Reliability::Unreliable);
    pair((order, unreliable), good, "V 1 0,1 / D 1 - 0 0 - / D 1 - 0 0 -", &[1]);
}

#[test]
fn one_what_was_taken_back_may_come_again() {
    let member = ("member-0", "V 1 0 / D 1 0 0 0 - / D 1 1 0 1 -");
    let again = "V 1 0 / D 1 0 0 1 - / R 0 1 / D 1 0 0 0 - / D 1 1 0 1 -";
    assert_eq!(broken(TOTAL, &[member, ("observer-0", again)], ""), [0; 0]);
    assert_eq!(broken(UNIFORM, &[member, ("observer-0", again)], ""), [11], "never at uniform");
    assert_eq!(broken(TOTAL, &[member, ("member-1", again)], ""), [7], "never by a member");
    let unseen = "V 1 0 / D 1 0 0 0 - / R 0 1 / D 1 1 0 1 -";
    assert_eq!(broken(TOTAL, &[member, ("observer-0", unseen)], ""), [1]);
}

#[test]
fn three_views_grow() {
    let good = "V 1 0,1 / V 2 0,1 / V 5 0,1";
    pair(TOTAL, good, "V 1 0,1 / V 2 0,1 / V 5 0,1 / V 5 0,1", &[3]);
    let restarted =
        |later| [("member-0", "V 1 0,1 / V 2 0,1 / V 3 0,1"), ("member-1", "V 1 0,1"), ("member-1.2", later)];
    assert_eq!(broken(TOTAL, &restarted("V 3 0,1"), "member:1"), [0; 0]);
    assert_eq!(broken(TOTAL, &restarted("V 1 0,1 / V 2 0,1 / V 3 0,1"), "member:1"), [3]);
}

#[test]
fn four_one_membership_a_view() {
    pair(TOTAL, "V 1 0,1 / V 2 1,0", "V 1 0,1 / V 2 0,1", &[4]);
}

#[test]
fn five_successors_share_a_majority() {
    let clean = |files: &[(&str, &str)]| assert_eq!(broken(TOTAL, files, ""), [0; 0]);
    clean(&[("member-0", "V 1 0,1,2,3 / V 2 0,1"), ("member-1", "V 1 0,1,2,3 / V 2 0,1")]);
    // The half without the most senior member goes on as well.
    let halves = [("member-0", "V 1 0,1,2,3 / V 2 0,1"), ("member-2", "V 1 0,1,2,3 / V 3 2,3")];
    assert_eq!(broken(TOTAL, &halves, ""), [5]);
    pair(TOTAL, "V 1 0,1,2 / V 2 0,1 / V 3 1,0,2", "V 1 0,1,2 / V 3 1,0,2", &[][..]);
    pair(TOTAL, "V 1 0,1,2 / V 2 0,1", "V 1 0,1,2 / V 2 0,1 / V 3 2,3", &[5]);
}

#[test]
fn six_a_message_has_one_view() {
    let good = "V 1 0,1 / D 1 - 0 0 - / V 2 0,1 / D 2 - 0 1 -";
    pair(FIFO, good, "V 1 0,1 / D 1 - 0 0 - / D 1 - 0 1 - / V 2 0,1", &[6, 7]);
    pair(FIFO, good, "V 1 0,1 / D 1 - 0 0 - / V 2 0,1 / D 1 - 0 1 -", &[6]);
    pair(FIFO, good, "D 1 - 0 0 - / V 1 0,1 / V 2 0,1 / D 2 - 0 1 -", &[6, 7]);
}

#[test]
fn six_binds_the_killed_only_at_uniform() {
    let survivor = ("member-0", "V 1 0,1,2 / D 1 0 0 0 - / V 2 0,1 / D 2 1 1 0 -");
    let other = ("member-1", survivor.1);
    let killed = ("member-2", "V 1 0,1,2 / D 1 0 0 0 - / D 1 1 1 0 -");
    assert_eq!(broken(TOTAL, &[survivor, other, killed], "member:2"), [0; 0]);
    assert_eq!(broken(UNIFORM, &[survivor, other, killed], "member:2"), [6]);
}

#[test]
fn seven_members_that_move_together_have_the_same() {
    for promised in [TOTAL, FIFO, CAUSAL, UNORDERED] {
        let good = "V 1 0,1 / D 1 0 0 0 - / D 1 1 1 0 - / V 2 0,1";
        pair(promised, good, "V 1 0,1 / D 1 0 0 0 - / V 2 0,1", &[7]);
    }
    // At the end of the run the same, unless it was stopped in the middle.
    let files = [("member-0", "V 1 0,1 / D 1 0 0 0 -"), ("member-1", "V 1 0,1")];
    assert_eq!(broken(TOTAL, &files, ""), [7]);
    assert_eq!(verdict(Rules { running: true, ..rules(TOTAL) }, &files, "").violations, []);
    assert_eq!(broken(TOTAL, &files, "member:1"), [0; 0], "a killed process may have less");
}

#[test]
fn seven_one_removed_may_have_more_but_is_named() {
    let files = [
        ("member-0", "V 1 0,1,2 / D 1 0 0 0 - / V 2 0,1 / D 2 1 0 1 -"),
        ("member-1", "V 1 0,1,2 / D 1 0 0 0 - / V 2 0,1 / D 2 1 0 1 -"),
        ("member-2", "V 1 0,1,2 / D 1 0 0 0 - / D 1 1 2 0 -"),
    ];
    let verdict = verdict(rules(TOTAL), &files, "");
    assert_eq!(verdict.violations, []);
    assert_eq!(verdict.left_behind, ["member:2"]);
}

#[test]
fn seven_observers_may_come_late_or_name_a_loss() {
    let member = ("member-0", "V 1 0 / D 1 0 0 0 - / D 1 1 0 1 - / D 1 2 0 2 -");
    let broken = |observer: &str| broken(TOTAL, &[member, ("observer-0", observer)], "");
    assert_eq!(broken("V 1 0 / D 1 1 0 1 - / D 1 2 0 2 -"), [0; 0]);
    assert_eq!(broken("V 1 0"), [0; 0]);
    assert_eq!(broken("V 1 0 / D 1 0 0 0 - / G 0 1 2 / D 1 2 0 2 -"), [0; 0]);
    assert_eq!(broken("V 1 0 / D 1 0 0 0 - / D 1 2 0 2 -"), [7, 8, 9]);
    assert_eq!(broken("V 1 0 / D 1 0 0 0 - / D 1 1 0 1 -"), [7]);
}

#[test]
fn seven_observers_come_late_only_once() {
    let member = ("member-0", "V 1 0 / D 1 - 0 0 - / V 2 0 / D 2 - 1 0 - / D 2 - 0 1 -");
    let broken = |observer: &str| broken(FIFO, &[member, ("observer-0", observer)], "");
    assert_eq!(broken("V 2 0 / D 2 - 0 1 -"), [0; 0]);
    assert_eq!(broken("V 1 0 / D 1 - 0 0 - / V 2 0 / D 2 - 0 1 -"), [7]);
}

/// A client's messages come through both members, and an observer begins to receive these at different places.
#[test]
fn seven_a_late_observer_may_lack_clients_messages_until_all_streams_have_begun() {
    let text = |text: &str| text.replace('c', "g1.1000.1").replace('a', "g1.0.1").replace('b', "g1.1.1");
    let early = "V 1 0,1 / D 1 - a 0 - / D 1 - c 0 -";
    let hole = "D 1 - c 2 - / D 1 - b 0 -";
    let member = text(&format!("{early} / D 1 - c 1 - / {hole} / D 1 - c 3 - / D 1 - c 4 - / V 2 0,1"));
    let promised = (Order::Fifo, Reliability::Uniform);
    let broken = |observer: &str| broken(promised, &[("member-0", &member), ("observer-0", &text(observer))], "");
    assert_eq!(broken(&format!("{early} / {hole} / D 1 - c 3 - / D 1 - c 4 - / V 2 0,1")), [0; 0]);
    assert_eq!(broken(&format!("{early} / D 1 - c 1 - / {hole} / D 1 - c 3 - / V 2 0,1")), [7, 11]);
    assert_eq!(broken(&format!("{early} / D 1 - c 1 - / {hole} / D 1 - c 4 - / V 2 0,1")), [0; 0], "indistinguishable");
}

#[test]
fn nine_a_publisher_named_after_its_generation_is_a_member() {
    let hole = "V 1 0,1 / D 1 - g2.0.1 0 - / D 1 - g2.0.1 2 -";
    assert_eq!(broken(FIFO, &[("member-0", hole), ("member-1", hole)], ""), [9]);
}

#[test]
fn seven_at_best_effort_losses_are_named() {
    let promised = (Order::Fifo, Reliability::BestEffort);
    let good = "V 1 0,1 / D 1 - 0 0 - / D 1 - 0 1 -";
    pair(promised, good, "V 1 0,1 / D 1 - 0 0 -", &[7]);
    pair(promised, good, "V 1 0,1 / D 1 - 0 0 - / G 0 1 2", &[]);
    pair(FIFO, good, "V 1 0,1 / D 1 - 0 0 - / G 0 1 2", &[7]);
    pair((Order::Fifo, Reliability::Unreliable), good, "V 1 0,1 / D 1 - 0 0 -", &[]);
}

#[test]
fn eight_one_order_without_holes() {
    let good = "V 1 0,1 / D 1 0 0 0 - / D 1 1 1 0 - / D 1 2 0 1 -";
    pair(TOTAL, good, "V 1 0,1 / D 1 0 0 0 - / D 1 2 0 1 - / D 1 1 1 0 -", &[8]);
    pair(TOTAL, good, "V 1 0,1 / D 1 0 1 0 - / D 1 1 0 0 - / D 1 2 0 1 -", &[8]);
    pair(TOTAL, good, "V 1 0,1 / D 1 0 0 0 - / D 1 - 1 0 - / D 1 2 0 1 -", &[8]);
    let skips = [("member-0", "V 1 0 / D 1 0 0 0 - / D 1 2 0 1 -")];
    assert_eq!(broken(TOTAL, &skips, ""), [8]);
    assert_eq!(verdict(Rules { allow_skips: true, ..rules(TOTAL) }, &skips, "").violations, []);
    assert_eq!(broken((Order::Total, Reliability::Unreliable), &skips, ""), [0; 0]);
}

#[test]
fn eight_a_number_may_be_given_again_after_a_death_but_not_at_uniform() {
    let survivor = "V 1 0,1,2 / D 1 0 0 0 - / V 2 0,1 / D 2 1 1 0 -";
    let files = |killed| [("member-0", survivor), ("member-1", survivor), ("member-2", killed)];
    let past_the_cut = files("V 1 0,1,2 / D 1 0 0 0 - / D 1 1 2 0 -");
    assert_eq!(broken(TOTAL, &past_the_cut, "member:2"), [0; 0]);
    assert_eq!(broken(UNIFORM, &past_the_cut, "member:2"), [8, 11]);
}

#[test]
fn nine_each_publisher_s_order() {
    for promised in [FIFO, CAUSAL] {
        let good = "V 1 0,1 / D 1 - 0 0 - / D 1 - 1 0 - / D 1 - 0 1 - / D 1 - 0 2 -";
        pair(promised, good, "V 1 0,1 / D 1 - 0 0 - / D 1 - 0 2 - / D 1 - 0 1 - / D 1 - 1 0 -", &[9]);
        pair(UNORDERED, good, "V 1 0,1 / D 1 - 0 0 - / D 1 - 0 2 - / D 1 - 0 1 - / D 1 - 1 0 -", &[]);
    }
    // All lack the same message: there is no process to compare with, but the numbers show it.
    let hole = "V 1 0,1 / D 1 - 0 0 - / D 1 - 0 2 -";
    assert_eq!(broken(FIFO, &[("member-0", hole), ("member-1", hole)], ""), [9]);
    assert_eq!(broken((Order::Fifo, Reliability::Unreliable), &[("member-0", hole)], ""), [0; 0]);
    let removed_between = "V 1 1,2,0 / D 1 - 0 0 - / V 2 1,2 / V 3 1,2,0 / D 3 - 0 2 -";
    assert_eq!(broken(FIFO, &[("member-1", removed_between)], ""), [0; 0]);
}

#[test]
fn nine_one_that_was_restarted_may_leave_some_out() {
    let other = "V 1 1,2,0 / D 1 - 0 0 - / V 2 1,2,0 / D 2 - 0 2 -";
    let restarted = ("member-0.2", "V 2 1,2,0 / D 2 - 0 2 -");
    let files = [("member-0", "V 1 1,2,0"), restarted, ("member-1", other), ("member-2", other)];
    assert_eq!(broken(FIFO, &files, "member:0"), [0; 0]);
    assert_eq!(broken(FIFO, &files[2..], ""), [9]);
    // Named after its incarnation, it has no such excuse, unless it was out of the view meanwhile.
    let named = |text: &str| text.replace(" - 0 ", " - 0.1 ");
    let (stayed, left) =
        (named(other), named(&other.replace("V 2 1,2,0", "V 2 1,2 / V 3 1,2,0").replace("D 2", "D 3")));
    let again = named(restarted.1);
    let same = [files[0], ("member-0.2", &again), ("member-1", &stayed), ("member-2", &stayed)];
    assert_eq!(broken(FIFO, &same, "member:0"), [9]);
    assert_eq!(broken(FIFO, &[files[0], ("member-1", &left), ("member-2", &left)], "member:0"), [0; 0]);
}

/// The textbook's case: 0 asks, 1 answers, and 2 must not see the answer first, although each is a first message.
#[test]
fn ten_the_textbook_s_causal_case() {
    let asked = "V 1 0,1,2 / D 1 - 0 0 - / D 1 - 1 0 0:0";
    let answered_first = "V 1 0,1,2 / D 1 - 1 0 0:0 / D 1 - 0 0 -";
    let files = |third| [("member-0", asked), ("member-1", asked), ("member-2", third)];
    assert_eq!(broken(CAUSAL, &files(asked), ""), [0; 0]);
    assert_eq!(broken(FIFO, &files(answered_first), ""), [0; 0], "FIFO allows it");
    let verdict = verdict(rules(CAUSAL), &files(answered_first), "");
    let golden = concat!(
        r#"{"deliveries":6,"processes":3,"last_view":1,"left_behind":[],"#,
        r#""violations":[{"invariant":10,"process":"member:2","#,
        r#""detail":"delivered 1:0 before 0:0, which its sender had delivered"}],"violations_not_listed":0}"#
    );
    assert_eq!(serde_json::to_string(&verdict).expect("plain data"), golden);
}

#[test]
fn ten_through_a_lost_answer_too() {
    let promised = (Order::Causal, Reliability::Unreliable);
    let all = ("member-0", "V 1 0,1,2 / D 1 - 0 0 - / D 1 - 1 0 0:0 / D 1 - 2 0 1:0");
    let lost = |third| broken(promised, &[all, ("member-1", all.1), ("member-2", third)], "");
    assert_eq!(lost("V 1 0,1,2 / D 1 - 0 0 - / D 1 - 2 0 1:0"), [0; 0]);
    assert_eq!(lost("V 1 0,1,2 / D 1 - 2 0 1:0 / D 1 - 0 0 -"), [10]);
}

#[test]
fn eleven_what_a_dead_one_delivered_all_deliver() {
    let survivor = "V 1 0,1,2 / D 1 0 0 0 - / V 2 0,1";
    let files = |killed| [("member-0", survivor), ("member-1", survivor), ("member-2", killed)];
    assert_eq!(broken(UNIFORM, &files("V 1 0,1,2"), "member:2"), [0; 0]);
    let more = files("V 1 0,1,2 / D 1 0 0 0 - / D 1 1 2 0 -");
    for reliability in [Reliability::Uniform, Reliability::Stable, Reliability::Durable] {
        assert_eq!(broken((Order::Total, reliability), &more, "member:2"), [11]);
    }
    assert_eq!(broken(TOTAL, &more, "member:2"), [0; 0], "reliable promises nothing about the dead");
}

#[test]
fn sixteen_nothing_crosses_a_barrier() {
    let good = "V 1 0,1 / D 1 - 0 0 - / B 1 / D 1 - 1 0 - / B 2 / D 1 - 0 1 -";
    pair(FIFO, good, "V 1 0,1 / D 1 - 0 0 - / D 1 - 1 0 - / B 1 / B 2 / D 1 - 0 1 -", &[16]);
    pair(FIFO, good, "V 1 0,1 / D 1 - 0 0 - / B 1 / D 1 - 1 0 - / B 1 / D 1 - 0 1 -", &[16]);
    let unreliable = (Order::Unordered, Reliability::Unreliable);
    pair(unreliable, good, "V 1 0,1 / D 1 - 0 0 - / B 1 / B 2 / D 1 - 0 1 -", &[]);
    pair(unreliable, good, "V 1 0,1 / B 1 / D 1 - 0 0 - / B 2 / D 1 - 0 1 -", &[16]);
    // A process that died in the next phase had passed the barrier with everything before it.
    let killed = [("member-0", good), ("member-1", "V 1 0,1 / B 1 / D 1 - 1 0 -")];
    assert_eq!(broken(FIFO, &killed, "member:1"), [16]);
    let late = [("member-0", good), ("observer-0", "V 1 0,1 / D 1 - 1 0 - / B 2 / D 1 - 0 1 -")];
    assert_eq!(broken(FIFO, &late, ""), [0; 0], "it can't know in which phase it came");
}

#[test]
fn nineteen_a_snapshot_holds_what_the_others_had() {
    let stayed = "V 1 0,1,2 / D 1 0 0 0 - / V 2 0,2 / D 2 1 0 1 - / V 3 0,2,1 / D 3 2 0 2 -";
    let files = |later| {
        let killed = ("member-1", "V 1 0,1,2");
        [("member-0", stayed), killed, ("member-1.2", later), ("member-2", stayed)]
    };
    let good = files("D 1 0 0 0 - / D 2 1 0 1 - / V 3 0,2,1 / D 3 2 0 2 -");
    assert_eq!(broken(TOTAL, &good, "member:1"), [0; 0]);
    assert_eq!(broken(TOTAL, &files("D 2 1 0 1 - / V 3 0,2,1 / D 3 2 0 2 -"), "member:1"), [19]);
    assert_eq!(
        broken(TOTAL, &files("V 3 0,2,1 / D 3 2 0 2 -"), "member:1"),
        [0; 0],
        "without a snapshot none is judged"
    );
    // When no process is left from the beginning, the others are compared with a process that began with a snapshot.
    let model = "D 1 0 0 0 - / V 2 0,1 / D 2 1 0 1 - / V 3 0,1,2";
    let (all, less) = ("D 1 0 0 0 - / D 2 1 0 1 - / V 3 0,1,2", "D 2 1 0 1 - / V 3 0,1,2");
    let files =
        |later| [("member-0", "V 1 0,2"), ("member-0.2", model), ("member-2", "V 1 0,2"), ("member-2.2", later)];
    assert_eq!(broken(TOTAL, &files(all), "member:0 member:2"), [0; 0]);
    assert_eq!(broken(TOTAL, &files(less), "member:0 member:2"), [19]);
}

#[test]
fn many_violations_are_counted_and_few_printed() {
    let twice: String = (0..200).map(|sequence| format!("D 1 - 0 {sequence} - / D 1 - 0 {sequence} - /")).collect();
    let verdict =
        verdict(rules((Order::Unordered, Reliability::Unreliable)), &[("member-0", &format!("V 1 0 /{twice}"))], "");
    assert_eq!((verdict.violations.len(), verdict.violations_not_listed), (super::PRINTED_AN_INVARIANT, 150));
}

#[test]
fn twelve_what_is_in_time_stands_by_the_time_of_its_sending() {
    let promised = (Order::Realtime, Reliability::Reliable);
    let good = "V 1 0,1 / D 1 100 0 0 - / D 1 200 1 0 - / D 1 300 0 1 -";
    pair(promised, good, "V 1 0,1 / D 1 100 0 0 - / D 1 300 0 1 - / D 1 200 1 0 -", &[12]);
    pair(promised, good, "V 1 0,1 / D 1 100 0 0 - / D 1 250 1 0 - / D 1 300 0 1 -", &[12]);
    // A late message is flagged, and may stand anywhere.
    pair(promised, good, "V 1 0,1 / D 1 100 0 0 - / D 1 300 0 1 - / D 1 - 1 0 -", &[]);
}
