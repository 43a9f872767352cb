//! The simulator as a whole: honest seeds pass, planted bugs are caught, equal seeds run equally.

use bourdon_protocol::Mutant;
use bourdon_sim::{Family, Mode, Options, Plan, Report, check_mutants, enumerate_crashes, play, run, run_plan};

/// The seeds of this file: few enough for every build.
const SEEDS: std::ops::Range<u64> = 0..200;
/// The rarest bug that a test here plants shows within these.
const MUTANT_SEEDS: std::ops::Range<u64> = 0..600;

fn options(mode: Mode) -> Options {
    Options { mode, threads: 2, ..Options::default() }
}

fn assert_clean(report: &Report) {
    assert!(report.failures.is_empty(), "{:#?}", report.failures);
}

#[test]
fn honest_seeds_break_nothing() {
    let report = run(SEEDS, options(Mode::Both), &|_| {});
    assert_clean(&report);
    assert_eq!(report.seeds, 200);
    // A world in which nothing happens breaks nothing either.
    let faults = report.faults;
    for (what, count) in [
        ("drop", faults.drop),
        ("duplicate", faults.duplicate),
        ("reorder", faults.reorder),
        ("delay", faults.delay),
        ("corrupt", faults.corrupt),
        ("overflow", faults.overflow),
        ("pause", faults.pause),
        ("cut", faults.cut),
        ("refuse", faults.refuse),
        ("partition", faults.partition),
        ("crash", faults.crash),
        ("restart", faults.restart),
        ("hand_over", faults.hand_over),
        ("evidence", faults.evidence),
        ("drift", faults.drift),
    ] {
        assert!(count > 20, "{what}: {count}");
    }
    assert!(report.delivered > 50_000, "{}", report.delivered);
}

/// Publishers that wait for observers: what crashes, is paused or cut off holds none of them up for good.
#[test]
fn gates_break_nothing() {
    let report = run(SEEDS, Options { family: Some(Family::Gated), ..options(Mode::Both) }, &|_| {});
    assert_clean(&report);
    assert!(report.faults.crash > 50 && report.delivered > 1_000_000, "{report:?}");
}

/// Members that come back with what their disks have, one, some or all at once: nothing that was acknowledged is lost,
/// nothing is delivered twice or in another order, and the group is whole again.
#[test]
fn restarts_with_a_disk_lose_nothing() {
    let report = run(0..60, Options { family: Some(Family::Durable), ..options(Mode::Both) }, &|_| {});
    assert_clean(&report);
    assert!(report.faults.restored > 400 && report.delivered > 20_000, "{report:?}");
}

/// Power fails in calls of members to their disks: `bourdon sim --enumerate-crashes` plays all.
#[test]
fn crashes_in_calls_to_a_disk_break_nothing() {
    let report = enumerate_crashes(Some(300), options(Mode::Both));
    assert_clean(&report);
    assert!(report.seeds > 50 && report.faults.restored > 100, "{:?}", report.faults);
    let mutate = Some(Mutant::AckBeforeSync);
    let report = enumerate_crashes(Some(300), Options { mutate, ..options(Mode::Both) });
    assert!(!report.failures.is_empty(), "a member that acknowledges before it has stored is caught");
}

/// Paths on which long datagrams vanish for seconds: the process that lacks them is named, the others go on, repairs do
/// not flood, and once the path is mended everything arrives.
#[test]
fn paths_that_carry_no_long_datagrams_break_nothing() {
    let report = run(0..16, Options { family: Some(Family::BlackHole), ..options(Mode::Both) }, &|_| {});
    assert_clean(&report);
    assert!(report.faults.narrow > 16 && report.delivered > 30_000, "{report:?}");
}

#[test]
fn pacing_breaks_nothing() {
    let report = run(SEEDS, Options { family: Some(Family::Paced), ..options(Mode::Both) }, &|_| {});
    assert_clean(&report);
    assert!(report.faults.crash > 50 && report.delivered > 1_000_000, "{report:?}");
}

/// Control planes beside their processes, as on a control thread: whatever is late, and whichever of the two stalls.
#[test]
fn late_hand_overs_break_nothing() {
    let report = run(SEEDS, Options { family: Some(Family::Apart), ..options(Mode::Both) }, &|_| {});
    assert_clean(&report);
    assert!(report.grants > 3_000 && report.leaderships > 400 && report.faults.crash > 50, "{report:?}");
}

/// Detectors of another group, which suspect members that live and learn late of members that crashed.
#[test]
fn wrong_judgements_break_nothing() {
    let report = run(SEEDS, Options { family: Some(Family::Judged), ..options(Mode::Both) }, &|_| {});
    assert_clean(&report);
    assert!(report.faults.judgement > 2_000 && report.faults.crash > 50, "{report:?}");
}

#[test]
fn faults_without_end_break_no_promise_of_safety() {
    assert_clean(&run(SEEDS, options(Mode::Safety), &|_| {}));
}

/// The bugs that show so rarely that `bourdon sim --mutate` has to find them.
const RARE: [Mutant; 9] = [
    Mutant::VectorNeverWhole,
    Mutant::LateOrderObeyed,
    Mutant::LateLinkSent,
    Mutant::LateCommandPublished,
    Mutant::DeliverAfterPromise,
    Mutant::CutRecomputed,
    Mutant::AcceptBeforeFetch,
    Mutant::StaleState,
    Mutant::GrantBeforeAnnounced,
];

#[test]
fn planted_bugs_are_caught() {
    let often: Vec<Mutant> =
        Mutant::ALL.into_iter().filter(|mutant| !mutant.is_harmless() && !RARE.contains(mutant)).collect();
    let report = check_mutants(MUTANT_SEEDS, options(Mode::Both), &often, &|_| {});
    assert_eq!(report.missed, Some(vec![]));
}

#[test]
fn harmless_changes_are_not_flagged() {
    let harmless: Vec<Mutant> = Mutant::ALL.into_iter().filter(|mutant| mutant.is_harmless()).collect();
    let report = check_mutants(0..160, options(Mode::Both), &harmless, &|_| {});
    assert_eq!(report.flagged, Some(vec![]), "{:#?}", report.failures);
}

#[test]
fn the_same_seed_runs_the_same_on_any_number_of_threads() {
    let one = run(0..40, Options { threads: 1, ..options(Mode::Both) }, &|_| {});
    let two = run(0..40, Options { threads: 2, ..options(Mode::Both) }, &|_| {});
    assert_eq!(one, two);
    let other = run(1..41, options(Mode::Both), &|_| {});
    assert_ne!(one.digest, other.digest);
    let plan = Plan::draw(7);
    assert_eq!(play(&plan, 7, Options::default()), play(&plan, 7, Options::default()));
}

#[test]
fn a_plan_read_back_plays_the_same() {
    for seed in 0..20 {
        let plan = Plan::draw(seed);
        assert_eq!(plan.check(), Ok(()));
        let text = toml::to_string(&plan).unwrap();
        assert_eq!(toml::from_str::<Plan>(&text).unwrap(), plan, "{text}");
        let text = serde_json::to_string(&plan).unwrap();
        assert_eq!(serde_json::from_str::<Plan>(&text).unwrap(), plan, "{text}");
    }
}

#[test]
fn a_panic_is_a_failure_of_its_seed() {
    let mut plan = Plan::draw(3);
    plan.mtu_bytes = 1;
    assert!(plan.check().is_err());
    let report = run_plan(&plan, 3, options(Mode::Both));
    assert_eq!(report.failures.len(), 1);
    assert_eq!(report.failures[0].invariant, "panic");
    assert_eq!(report.failures[0].replay, "bourdon sim --seed 3 --seeds 1");
}

#[test]
fn the_report_has_the_shape_that_tools_rely_on() {
    let report = run(0..2, options(Mode::Both), &|_| {});
    let value = serde_json::to_value(&report).unwrap();
    for key in ["seeds", "steps", "delivered", "faults", "failures"] {
        assert!(value.get(key).is_some(), "{key}");
    }
    assert!(value["faults"]["drop"].is_u64() && value.get("caught").is_none());
    let report = check_mutants(0..40, options(Mode::Safety), &[Mutant::IgnoreWindow], &|_| {});
    let value = serde_json::to_value(&report).unwrap();
    assert_eq!(value["caught"], serde_json::json!(["ignore-window"]));
    let replay = value["failures"][0]["replay"].as_str().unwrap();
    assert!(replay.ends_with(" --seeds 1 --safety --mutate ignore-window"), "{replay}");
}
