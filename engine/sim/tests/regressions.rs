//! Bugs that were found once, each with a seed that showed it.
//!
//! A seed that fails is worth more than the explanation of why it can't fail again.

use bourdon_sim::{Mode, Options, Plan, run_plan};

fn assert_seeds(seeds: &[u64]) {
    for seed in seeds {
        // The order of a step in which they were found.
        let plan = Plan { order_early: false, ..Plan::draw(*seed) };
        let report = run_plan(&plan, *seed, Options { mode: Mode::Both, ..Options::default() });
        assert!(report.failures.is_empty(), "{:#?}", report.failures);
    }
}

/// A sender filled its own window before it knew that another member's is smaller.
#[test]
fn issue_window_opened_before_it_was_announced() {
    assert_seeds(&[42, 103]);
}

/// An observer that began at the oldest datagram took the first message it got for the sender's first: in total order
/// it delivered messages under others' numbers.
#[test]
fn issue_oldest_observer_miscounts_its_first_message() {
    assert_seeds(&[64, 144]);
}

/// An observer that began at the oldest began with the first datagram that came instead.
#[test]
fn issue_oldest_observer_starts_at_the_newest() {
    assert_seeds(&[22, 55]);
}

/// A hole as wide as the receive log could not be crossed: the datagram behind it was beyond the window for good.
#[test]
fn issue_hole_as_wide_as_the_log() {
    assert_seeds(&[11, 164]);
}

/// An observer that came late, or lost a datagram, missed what earlier messages had said of their causes.
#[test]
fn issue_causes_said_before_the_observer_came() {
    assert_seeds(&[275, 357]);
}

/// A message cut by a hole was neither delivered nor reported.
#[test]
fn issue_message_cut_by_a_hole_goes_unreported() {
    assert_seeds(&[38, 142]);
}

/// Messages whose place in the order was lost with the sequencer's datagrams were passed over in silence.
#[test]
fn issue_messages_whose_order_was_lost_go_unreported() {
    assert_seeds(&[7, 828, 1084, 2167]);
}

/// A client's message refused as too large left its sequence to the next one, which an old request could still claim.
#[test]
fn issue_client_reuses_a_refused_sequence() {
    assert_seeds(&[0, 12]);
}

/// In total order, an observer waited for a whole message that its log could not hold.
#[test]
fn issue_message_longer_than_the_observers_log() {
    assert_seeds(&[43, 418, 439]);
}

/// What an observer lost while it fetched the past was not reported.
#[test]
fn issue_loss_before_the_first_message_goes_unreported() {
    assert_seeds(&[1718, 1900, 2406, 2755]);
}
