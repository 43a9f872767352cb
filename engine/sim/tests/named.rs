//! Messages that carry their topic's name, through everything that seeds draw: the name is judged with the bytes.

use bourdon_sim::{Mode, Options, Plan, run_plan};

fn assert_clean(plan: Plan, seed: u64) -> u64 {
    let report = run_plan(&Plan { named: true, ..plan }, seed, Options { mode: Mode::Both, ..Options::default() });
    assert!(report.failures.is_empty(), "{:#?}", report.failures);
    report.delivered
}

#[test]
fn names_are_delivered_as_they_were_sent() {
    let delivered: u64 = (0..150).map(|seed| assert_clean(Plan::draw(seed), seed)).sum();
    assert!(delivered > 20_000, "{delivered}");
}

/// Views change all the time, so that messages are published again.
#[test]
fn names_survive_the_change_of_views() {
    let delivered: u64 = (0..60).map(|seed| assert_clean(Plan::turbulent(seed), seed)).sum();
    assert!(delivered > 5_000, "{delivered}");
}
