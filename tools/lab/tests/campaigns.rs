//! Groups on separate hosts, with faults of every kind, before a judge that shares no code with them.
//!
//! A few rounds of each kind, to check that the lab works at all. `docs/lab.md` has the campaign. Without root there is
//! no lab, and these tests are skipped.

use bourdon_lab::hosts::Lab;
use bourdon_lab::judge::{Order, Reliability, Rules};
use bourdon_lab::rounds::{FaultKind, Plan, run};
use std::time::Duration;

const MEMBERS: usize = 3;
const ROUNDS: usize = 3;
/// The limit of every wait of a round: no figure is checked here, and the host may be busy.
const PATIENCE: Duration = Duration::from_secs(60);

fn campaign(fault: FaultKind, reliability: Reliability, name: &str) {
    if let Err(why) = Lab::new(1) {
        crate::skipped::report(why);
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let program = env!("CARGO_BIN_EXE_bourdon-lab");
    let file = "{dir}/member-{rank}{incarnation}.tsv";
    let plan = Plan {
        members: MEMBERS,
        rounds: ROUNDS,
        fault,
        member: format!("{program} member --members {{members}} --reliability {name} --history {file}"),
        folder: folder.path().to_owned(),
        patience: PATIENCE,
        rules: Rules { order: Order::Total, reliability, allow_skips: false, running: true },
    };
    let report = run(&plan, &|line| println!("{line}")).expect("it can be run");
    assert_eq!(report.failed, None, "{report:?}");
    assert_eq!(report.verdict.violations, [], "{report:?}");
    assert!(report.rounds.len() == ROUNDS && report.restarts as usize >= ROUNDS, "{report:?}");
    assert!(report.verdict.deliveries > 0 && report.verdict.last_view > Some(ROUNDS as u64), "{report:?}");
}

#[test]
fn the_killed_are_replaced() {
    campaign(FaultKind::Kill, Reliability::Reliable, "reliable");
    campaign(FaultKind::Kill, Reliability::Uniform, "uniform");
}

#[test]
fn the_stopped_are_left_out_and_come_back() {
    campaign(FaultKind::Stop, Reliability::Uniform, "uniform");
}

#[test]
fn those_cut_off_are_left_out_and_come_back() {
    campaign(FaultKind::Cut, Reliability::Uniform, "uniform");
}

#[test]
fn of_two_that_hear_each_other_one_way_only_one_is_left_out() {
    campaign(FaultKind::CutOneWay, Reliability::Reliable, "reliable");
}
