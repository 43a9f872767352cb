//! Bugs that were found once. Each is a file in `plans`: the whole plan of each run that showed it, and the seed of its
//! dice.
//!
//! A run that failed is worth more than the explanation of why it cannot fail again.

use bourdon_sim::{Demand, Demands, Options, Regression};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/plans")
}

/// Plays the runs of one file, and asserts every invariant that is judged in every run.
fn assert_mended(name: &str) {
    assert_kept(name, Demands::KEPT);
}

/// Plays the runs of one file, and asserts every invariant that is demanded.
fn assert_kept(name: &str, demands: Demands) {
    let path = folder().join(format!("{name}.toml"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let regression: Regression = toml::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert_eq!(regression.check(), Ok(()), "{name}");
    assert!(!regression.runs.is_empty(), "{name} has no run");
    let report = regression.play(Options { demands, ..Options::default() });
    assert!(report.failures.is_empty(), "{name}: {}\n{:#?}", regression.about, report.failures);
}

/// One test for each file, under the file's name.
macro_rules! regressions {
    ($($name:ident,)*) => {
        $(
            #[test]
            fn $name() {
                assert_mended(&stringify!($name).replace('_', "-"));
            }
        )*

        /// Every file in the folder.
        const NAMES: &[&str] = &[$(stringify!($name)),*];
    };
}

regressions! {
    window_opened_before_it_was_announced,
    oldest_observer_miscounts_its_first_message,
    oldest_observer_starts_at_the_newest,
    hole_as_wide_as_the_log,
    causes_stated_before_the_observer_came,
    message_cut_by_a_hole_goes_unreported,
    messages_whose_order_was_lost_go_unreported,
    client_reuses_a_refused_sequence,
    message_longer_than_the_observers_log,
    loss_before_the_first_message_goes_unreported,
    acknowledged_after_the_promise,
    timer_due_again_and_again,
    client_of_a_group_of_one,
    overtaken_client_message_is_passed_over,
    client_answered_before_what_comes_first_is_held,
    client_answered_too_much_after_a_skip,
    barrier_across_a_view_change,
    barrier_in_total_order_never_came,
    member_to_be_with_a_state_of_its_own,
    snapshot_of_a_removed_member,
    cut_requested_from_dead_members,
    unordered_runs_ahead,
    oldest_observer_of_a_later_view,
    own_earlier_incarnation_is_not_heard,
    joiner_ahead_of_a_cut_with_gaps,
    went_on_in_a_datagram_beyond_the_cut,
    joiner_a_barrier_ahead_of_the_cut,
    snapshot_from_beyond_the_cut,
    decision_known_only_to_a_member_left_out,
    last_member_leaves,
    decision_known_only_to_a_joiner,
    snapshot_in_the_middle_of_a_range,
    client_not_answered_after_a_message_was_given_up,
    observer_a_barrier_ahead_of_the_cut,
    given_up_or_early_beyond_the_cut,
    gaps_at_the_end_of_a_lossy_view,
    barriers_at_the_end_of_a_lossy_view,
    the_order_itself_is_lost,
    numbers_are_given_out_twice,
    a_loss_is_not_reported,
    a_cause_is_forgotten_with_the_first_piece,
    a_clock_is_further_off_than_it_reports,
    a_clock_is_never_known,
    campaign_before_all_had_announced,
    leader_without_a_quorum,
    standby_after_the_campaign,
    refused_for_a_leader_that_has_gone,
    refused_announcement_is_forgotten,
    ring_withdrawn_twice,
    granted_after_it_was_given_up,
    ring_round_ended_by_a_leader,
    leader_passed_by_is_shown_late,
    leader_passed_by_is_not_shown,
    link_message_taken_by_another_member,
    settled_by_a_view_before_the_removal,
    order_lost_at_the_end_of_a_view,
    first_data_read_with_the_first_view,
    removed_member_forms_the_next_group,
    data_read_with_the_decision,
    data_before_the_decision,
    delivered_again_beyond_the_cut,
    leaver_alone_with_a_crashed_member,
    joiner_left_and_was_let_in,
    joiner_left_as_it_was_admitted,
    order_runs_stepped_over_before_a_hole,
    barrier_message_taken_for_a_number,
    answer_later_than_the_next_request,
    marker_lost_in_a_hole,
    earlier_heartbeat_hides_the_decision,
    client_request_of_an_earlier_instance,
    taken_by_the_earlier_instance,
    earlier_members_take_the_group_over,
    observer_crosses_a_restart_silently,
    observer_hears_the_earlier_group_first,
    observer_began_beyond_the_cut,
    snapshot_ahead_of_the_cut,
    observer_begins_between_two_copies,
    observer_gives_up_what_members_hold,
    one_crash_loses_stable_messages,
    token_repeats_after_a_restart,
    view_below_a_quorum,
    leavers_while_the_group_forms,
    only_later_incarnations_answer,
    short_epochs_crowd_out_an_earlier_one,
    client_overtakes_what_another_member_took,
    barrier_of_a_cut_given_up_goes_unreported,
    cut_given_up_before_the_oldest_came_goes_unreported,
    client_between_two_groups,
    observer_takes_a_later_group_for_a_copy,
    asked_again_for_what_is_gone,
    data_before_the_view_counts_as_loss,
    follower_stays_in_a_lossy_barrier,
    joiner_loses_the_last_marker_below_reliable,
    repairs_filled_the_outbox_before_relays,
    second_hole_behind_a_wedge,
    leaver_takes_the_decision_with_it,
    bully_forgets_a_refused_winner,
    joiner_admitted_after_it_ran_ahead_of_the_cut,
    client_message_is_published_again_after_its_view,
    given_up_cut_is_left_undelivered,
    loss_is_reported_twice_in_total_order,
    loss_is_reported_twice_at_a_known_end,
    observer_delivers_beyond_where_the_members_stopped,
    epoch_ends_while_a_run_is_delivered,
    member_enters_a_view_and_is_out_at_once,
    a_lost_group_is_made_again_by_hand,
    a_restarted_member_forgets_the_locks,
    newer_instance_at_a_higher_epoch_is_not_believed,
    message_arrives_after_the_agreed_barrier,
}

#[test]
fn an_observer_delivers_the_end_of_its_view() {
    assert_kept("epoch-ends-while-a-run-is-delivered", Demands::KEPT.with(Demand::Observers));
}

#[test]
fn observers_get_an_epoch_that_short_ones_follow() {
    assert_kept("short-epochs-crowd-out-an-earlier-one", Demands::KEPT.with(Demand::Observers));
}

#[test]
fn a_retraction_takes_no_barriers_message() {
    assert_kept("barrier-message-taken-for-a-number", Demands::KEPT.with(Demand::Observers));
}

#[test]
fn every_file_is_played() {
    let files = std::fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let named = NAMES.iter().map(|name| format!("{}.toml", name.replace('_', "-")));
    assert_eq!(files.collect::<BTreeSet<_>>(), named.collect::<BTreeSet<_>>());
}
