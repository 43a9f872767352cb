//! What receivers send back to one sender: the order of magnitude of each feedback mode.

use bourdon_sim::{FeedbackMode, FeedbackOutcome, FeedbackPlan, Loss, play_feedback};

const OBSERVERS: u32 = 50;
const MESSAGES: u64 = 300;

fn play(mode: FeedbackMode, loss: Loss) -> FeedbackOutcome {
    let plan = FeedbackPlan { mode, loss, loss_rate: 0.05, observers: OBSERVERS, messages: MESSAGES, seed: 1 };
    let outcome = play_feedback(&plan);
    assert!(outcome.is_complete() && outcome.reported_lost == 0, "{plan:?}: {outcome:?}");
    assert_eq!((outcome.published, outcome.expected), (MESSAGES, MESSAGES * u64::from(OBSERVERS)), "{plan:?}");
    assert!(outcome.repairs > 0 && !outcome.repair_ns.is_empty(), "nothing was lost: {plan:?}");
    outcome
}

#[test]
fn acknowledgements_cost_one_datagram_a_message_and_receiver() {
    for loss in Loss::RANDOM {
        let outcome = play(FeedbackMode::AckEach, loss);
        let acks = outcome.feedback - outcome.naks;
        assert!(acks >= outcome.expected, "{loss:?}: {acks} acknowledgements of {}", outcome.expected);
    }
}

#[test]
fn requests_cost_less_and_suppressed_ones_least() {
    for (loss, at_least) in [(Loss::Independent, 1), (Loss::Correlated, 8)] {
        let (plain, suppressed) = (play(FeedbackMode::Nak, loss), play(FeedbackMode::SuppressedNak, loss));
        assert!(plain.feedback < plain.expected / 4, "{loss:?}: {} requests", plain.feedback);
        let (few, many) = (suppressed.feedback, plain.feedback);
        assert!(few * at_least < many, "{loss:?}: {few} requests with suppression, {many} without");
    }
}

#[test]
fn what_is_lost_for_good_is_reported() {
    let (mode, loss) = (FeedbackMode::Nak, Loss::Independent);
    let plan = FeedbackPlan { mode, loss, loss_rate: 0.3, observers: OBSERVERS, messages: MESSAGES, seed: 1 };
    let outcome = play_feedback(&plan);
    assert!(outcome.is_complete() && outcome.reported_lost > 0, "{outcome:?}");
}

#[test]
fn one_seed_is_one_run() {
    let (mode, loss) = (FeedbackMode::SuppressedNak, Loss::Independent);
    assert_eq!(play(mode, loss), play(mode, loss));
}

#[test]
fn a_message_that_was_not_shown_is_missed() {
    let mut outcome = play(FeedbackMode::Nak, Loss::Correlated);
    outcome.delivered -= 1;
    assert!(!outcome.is_complete());
}

/// The few slowest receivers set the rate, and what they send is a small part of the data.
#[test]
fn a_publisher_paces_for_the_few_slowest_receivers() {
    let (mode, loss) = (FeedbackMode::SuppressedNak, Loss::Overload);
    let plan = FeedbackPlan { mode, loss, loss_rate: 0.0, observers: OBSERVERS, messages: 10_000, seed: 1 };
    let outcome = play_feedback(&plan);
    assert!(outcome.is_complete() && outcome.reports > 0, "{} reports", outcome.reports);
    // Their links bear two of the five messages that are offered.
    assert!((3_000..5_000).contains(&outcome.published), "{}", outcome.published);
    assert_eq!(outcome.needless_naks, 0, "what is only reordered is not requested");
    let reports = outcome.report_bytes;
    assert!(reports * 100 < outcome.data_bytes, "{reports} bytes of {}", outcome.data_bytes);
    assert!(outcome.reported_lost * 20 < outcome.expected, "{} of {}", outcome.reported_lost, outcome.expected);
}
