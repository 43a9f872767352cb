//! A lock between real processes whose holders are killed while they hold it: at most one process holds it at a time,
//! and the next one gets it. And one campaign in which a member enters without the lock, to check that the judge
//! detects it.
//!
//! A short campaign of each; `docs/lab.md` has the long ones. Needs no root; where members can't run (no multicast on
//! `lo`) it reports that.

use bourdon_lab::locks::{Algorithm, Plan, Profile, Report, Unusable, run};
use std::time::Duration;

fn campaign(algorithm: Algorithm, hand_overs: u64, cheat: u64) -> Option<Report> {
    let folder = tempfile::tempdir().expect("a folder");
    let plan = Plan {
        lab: env!("CARGO_BIN_EXE_bourdon-lab").into(),
        members: 5,
        hand_overs,
        kill_every: 5,
        pause_share: 25,
        seed: 1,
        inside: Duration::from_millis(1),
        profile: Profile::Default,
        cheat,
        talk: false,
        folder: folder.path().to_owned(),
    };
    match run(&plan, algorithm, &|line| println!("{line}")) {
        Ok(report) => Some(report),
        Err(why @ Unusable::Members) => {
            crate::skipped::report(why);
            None
        }
        Err(why) => panic!("{why}"),
    }
}

#[test]
fn a_lock_outlives_its_holders() {
    let Some(report) = campaign(Algorithm::Replicated, 300, 0) else { return };
    assert_eq!((report.failed.as_deref(), &*report.verdict.violations), (None, &[][..]), "{report:#?}");
    assert!(report.verdict.hand_overs >= 300 && report.kills + report.stops >= 4, "{report:#?}");
    assert!(report.restarts >= report.kills, "{report:#?}");
}

#[test]
fn an_entry_without_the_lock_is_found() {
    let Some(report) = campaign(Algorithm::Lamport, 60, 10) else { return };
    let found = &report.verdict.violations;
    assert!(found.iter().any(|what| what.contains("began while it had the lock")), "{report:#?}");
}
