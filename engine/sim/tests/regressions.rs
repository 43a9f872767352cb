//! Bugs that were found once, each with a seed that showed it.
//!
//! A seed that fails is worth more than the explanation of why it can't fail again.

use bourdon_sim::{ElectionPlan, Kinds, Mode, MutexPlan, Options, Plan, run_plan};

/// Seeds of turbulent plans.
fn assert_turbulent(seeds: &[u64]) {
    for seed in seeds {
        let report = run_plan(&Plan::turbulent(*seed), *seed, Options { mode: Mode::Both, ..Options::default() });
        assert!(report.failures.is_empty(), "{:#?}", report.failures);
    }
}

/// Seeds of competing ballots.
fn assert_duels(seeds: &[u64]) {
    for seed in seeds {
        let report = run_plan(&Plan::duel(*seed), *seed, Options { mode: Mode::Both, ..Options::default() });
        assert!(report.failures.is_empty(), "{:#?}", report.failures);
    }
}

fn assert_drawn(seeds: &[u64]) {
    for seed in seeds {
        let report = run_plan(&Plan::draw(*seed), *seed, Options { mode: Mode::Both, ..Options::default() });
        assert!(report.failures.is_empty(), "{:#?}", report.failures);
    }
}

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

/// A member acknowledged what came after it had promised a ballot: too few of those who answered held it.
#[test]
fn issue_acknowledged_after_the_promise() {
    assert_drawn(&[61, 110]);
}

/// A time that had passed was waited for again and again: a ballot's, at who led none any more or waited for the first view.
#[test]
fn issue_looked_at_without_end() {
    assert_drawn(&[25, 65, 112, 123, 215]);
}

/// A client of a group of one was never answered.
#[test]
fn issue_client_of_a_group_of_one() {
    assert_drawn(&[16, 26, 43]);
}

/// A client's message that another had overtaken was taken for delivered.
#[test]
fn issue_overtaken_client_message_is_passed_over() {
    assert_drawn(&[12, 37, 52, 62, 80]);
}

/// A client was told that a message to be published anew was taken, because the next one was too long.
#[test]
fn issue_client_told_too_much_after_a_skip() {
    assert_drawn(&[1005]);
}

/// A barrier was completed by some after their promise; or was shown by one that crashed, and not at the cut.
#[test]
fn issue_barrier_across_a_view_change() {
    assert_drawn(&[65, 257, 298, 195, 513, 541]);
}

/// Barriers in total order: the sequencer told nobody that it waited; an acknowledgement, or a marker passed before, stood
/// in front of a marker that nobody walked to.
#[test]
fn issue_barrier_in_total_order_never_came() {
    assert_drawn(&[147, 150, 177, 252]);
}

/// A member to be gave up what it could not have; ran ahead of a cut; came back in the life that had been let in and out.
#[test]
fn issue_member_to_be_with_a_state_of_its_own() {
    assert_drawn(&[21, 377, 506]);
    assert_turbulent(&[877, 981]);
}

/// A donor that had been removed gave a snapshot of nothing.
#[test]
fn issue_snapshot_of_one_removed() {
    assert_drawn(&[248]);
}

/// Who heard nobody of its view any more asked only the dead for what it missed of the cut.
#[test]
fn issue_cut_asked_of_the_dead() {
    assert_drawn(&[85]);
}

/// Unordered delivery ran ahead of a cut, of a quorum, of a snapshot, and came back to what it had delivered.
#[test]
fn issue_unordered_runs_ahead() {
    assert_drawn(&[359, 389]);
    assert_turbulent(&[787, 832]);
}

/// An observer that began at the oldest of a later view counted from zero.
#[test]
fn issue_oldest_observer_of_a_later_view() {
    assert_drawn(&[167]);
}

/// A member that came back took nothing in of what its earlier life had sent, and did not wait for a barrier's message.
#[test]
fn issue_own_earlier_life_is_not_heard() {
    assert_turbulent(&[209, 243, 410, 828, 831, 510, 937]);
}

/// A joiner had delivered all of a stream of which the cut named only what lay beyond a gap: as the numbers were equal, it
/// entered the view with what nobody else had.
#[test]
fn issue_joiner_ahead_of_a_cut_with_gaps() {
    assert_drawn(&[377]);
}

/// Who followed had entered a datagram that the cut left out, and went on in it: to messages and markers that nobody else
/// was shown.
#[test]
fn issue_went_on_in_a_datagram_beyond_the_cut() {
    assert_duels(&[871, 2715, 11378]);
}

/// Who followed had completed a barrier by a marker that the cut left out, and came in a phase ahead.
#[test]
fn issue_joiner_a_barrier_ahead_of_the_cut() {
    assert_duels(&[11126]);
}

/// A joiner's snapshot held what the cut left out, of datagrams that it had never had itself.
#[test]
fn issue_snapshot_from_beyond_the_cut() {
    assert_duels(&[12133]);
}

/// The only one who knew a decision was left out by it, or by the next, and told nobody; who came in with a view knew how
/// the one before had ended, and was not believed.
#[test]
fn issue_decision_known_only_to_one_left_out() {
    assert_duels(&[3783]);
}

/// The last member left, and waited for ever for a view without members.
#[test]
fn issue_last_member_leaves() {
    let liveness = Options { mode: Mode::Liveness, ..Options::default() };
    let report = run_plan(&Plan::draw(1324), 1324, liveness);
    assert!(report.failures.is_empty(), "{:#?}", report.failures);
}

/// A joiner knew how the view ends, and those who were in it did not, because whoever had told it was gone.
#[test]
fn issue_decision_known_only_to_a_joiner() {
    assert_turbulent(&[3195]);
    assert_drawn(&[23325]);
}

/// A snapshot stood in the middle of a datagram that the cut then named beyond a gap: its first messages came again.
#[test]
fn issue_snapshot_in_the_middle_of_a_range() {
    assert_turbulent(&[14464]);
}

/// A client's message was delivered through another member, with one before it given up: nobody told the client.
#[test]
fn issue_client_not_told_after_one_was_given_up() {
    assert_drawn(&[6181, 9181, 9591, 11407, 15469]);
}

/// An observer went on from a barrier before the members did, and was ahead of a cut that left a marker out.
#[test]
fn issue_observer_a_barrier_ahead_of_the_cut() {
    assert_drawn(&[9607, 11530, 13280]);
}

/// What an observer had given up, or had been shown ahead of a gap, beyond the cut was not retracted.
#[test]
fn issue_given_up_or_early_beyond_the_cut() {
    assert_drawn(&[2185, 6717, 17831]);
}

/// Seeds of single cells of the matrix.
fn assert_cells(cells: &[(&str, u64)]) {
    for (cell, seed) in cells {
        let plan = Plan::guarantee(*seed, cell.parse().expect("a cell"));
        let report = run_plan(&plan, *seed, Options { mode: Mode::Both, ..Options::default() });
        assert!(report.failures.is_empty(), "{cell} {seed}: {:#?}", report.failures);
    }
}

/// Gaps were given up while a ballot was under way, and at a view's end what was missing of one who is gone held it up.
#[test]
fn issue_gaps_at_the_end_of_a_lossy_view() {
    assert_cells(&[("best-effort/total", 112), ("best-effort/total/barriers", 493), ("unreliable/fifo", 21)]);
}

/// A barrier that somebody had got to was completed before the rest of the cut, or not by one who had never heard of it.
#[test]
fn issue_barriers_at_the_end_of_a_lossy_view() {
    assert_cells(&[
        ("unreliable/fifo/barriers", 54),
        ("best-effort/unordered/barriers", 52),
        ("best-effort/fifo/barriers", 112),
        ("best-effort/total/barriers", 133),
    ]);
}

/// Messages whose order was lost waited for ever, or were passed over in silence, or numbered otherwise elsewhere.
#[test]
fn issue_the_order_itself_is_lost() {
    assert_cells(&[
        ("unreliable/total", 17),
        ("unreliable/total", 65),
        ("unreliable/total", 66),
        ("unreliable/total", 398),
        ("unreliable/total/barriers", 128),
        ("unreliable/total/barriers", 305),
        ("unreliable/total/barriers", 3050),
    ]);
}

/// Two sequencers, or two lives of a member, gave out the same numbers; an observer counted from where nobody did.
#[test]
fn issue_numbers_are_given_out_twice() {
    assert_cells(&[("unreliable/total", 1037), ("best-effort/total", 2), ("best-effort/total", 3118)]);
}

/// What a header said was lost before a view's first message was never told, or only after the barrier.
#[test]
fn issue_a_loss_is_not_told() {
    assert_cells(&[
        ("unreliable/total/barriers", 188),
        ("unreliable/unordered/barriers", 1183),
        ("best-effort/total/barriers", 3289),
    ]);
}

/// An answer was delivered because its first piece, which says what it waits for, had been taken in before.
#[test]
fn issue_a_cause_is_forgotten_with_the_first_piece() {
    assert_cells(&[("best-effort/causal", 1098), ("unreliable/causal", 1397), ("unreliable/causal/barriers", 46)]);
}

/// Clocks: bounds that left out stamps ahead of the clock, and samples of another reference's time.
#[test]
fn issue_a_clock_is_further_off_than_it_says() {
    assert_cells(&[("reliable/realtime", 82), ("stable/realtime", 80), ("unreliable/realtime", 312)]);
}

/// A question that took longer than the time to the next one was never answered.
#[test]
fn issue_a_clock_is_never_known() {
    assert_cells(&[("stable/realtime", 18), ("uniform/realtime/barriers", 13)]);
}

/// Seeds of plans of locks and elections.
fn assert_locks(mutex: MutexPlan, election: ElectionPlan, seeds: &[u64]) {
    let kinds = Kinds { mutex: Some(mutex), election: Some(election) };
    for seed in seeds {
        let report = run_plan(&Plan::locks(*seed, kinds), *seed, Options { mode: Mode::Both, ..Options::default() });
        assert!(report.failures.is_empty(), "{:#?}", report.failures);
    }
}

/// A campaign begun before all had told what they bring was never begun, and nobody was told of it.
#[test]
fn issue_campaign_before_all_had_told() {
    assert_locks(MutexPlan::Central, ElectionPlan::Bully, &[46, 67]);
    assert_locks(MutexPlan::Central, ElectionPlan::Ring, &[18, 63, 72]);
}

/// Who was cut off from the quorum after it had been fenced was elected all the same.
#[test]
fn issue_leader_without_a_quorum() {
    assert_locks(MutexPlan::Lamport, ElectionPlan::Bully, &[7, 112]);
}

/// One that stood by when there was nobody to lead any more was not taken for the winner.
#[test]
fn issue_standby_after_the_campaign() {
    assert_locks(MutexPlan::Lamport, ElectionPlan::Bully, &[145, 124]);
}

/// A refusal came after the word of whoever went first: the one refused waited for ever.
#[test]
fn issue_refused_for_one_who_has_gone() {
    assert_locks(MutexPlan::Lamport, ElectionPlan::Bully, &[113, 168]);
}

/// Of several announcements refused only the last was remembered, and it was withdrawn; who led was forgotten where another
/// had been accepted.
#[test]
fn issue_refused_announcement_is_forgotten() {
    assert_locks(MutexPlan::RicartAgrawala, ElectionPlan::Bully, &[333, 463]);
}

/// Two announcements in a ring were withdrawn for each other, and nobody began anew.
#[test]
fn issue_ring_withdrawn_twice() {
    assert_locks(MutexPlan::RicartAgrawala, ElectionPlan::Ring, &[124]);
}

/// A lock that its process had given up was granted to it afterwards.
#[test]
fn issue_granted_after_it_was_given_up() {
    assert_locks(MutexPlan::TokenRing, ElectionPlan::Ring, &[160]);
}

/// A round begun because the leader was suspected ended at it; when it resigned, nobody began another.
#[test]
fn issue_ring_round_ended_by_a_leader() {
    let plan = Plan::locks(552, Kinds { mutex: None, election: Some(ElectionPlan::Ring) });
    let report = run_plan(&plan, 552, Options { mode: Mode::Both, ..Options::default() });
    assert!(report.failures.is_empty(), "{:#?}", report.failures);
}

/// A leadership that had been passed by was shown after a later one.
#[test]
fn issue_leader_passed_by_is_shown_late() {
    let plan = Plan::locks(4214, Kinds { mutex: Some(MutexPlan::Central), election: None });
    let report = run_plan(&plan, 4214, Options { mode: Mode::Both, ..Options::default() });
    assert!(report.failures.is_empty(), "{:#?}", report.failures);
}

/// Who had announced itself and gave that up did not show who had said meanwhile that it led.
#[test]
fn issue_leader_passed_by_is_not_shown() {
    for (mutex, seed) in [(MutexPlan::Replicated, 1023), (MutexPlan::Replicated, 10_788), (MutexPlan::Lamport, 10_419)]
    {
        let plan = Plan::locks(seed, Kinds { mutex: Some(mutex), election: None });
        let report = run_plan(&plan, seed, Options { mode: Mode::Both, ..Options::default() });
        assert!(report.failures.is_empty(), "{:#?}", report.failures);
    }
}
