//! Archives in short, and what they show.

use super::*;
use bourdon_log::{Damage, Record};

const STREAM: &str = "S";
const OWN: &str = "token-2";

/// An archive in short: each line a record.
struct Script {
    entries: Vec<Kind>,
}

enum Kind {
    Begins,
    Lost,
    Damage,
    Retracted(u16, u64),
    /// Order, sender, incarnation, sequence, from a client, and the position if it is one.
    Message(u64, u16, u32, u64, bool, Option<Position>),
}

impl Script {
    fn known(&self) -> Known {
        let mut learner = Learner::new(STREAM, OWN);
        for kind in &self.entries {
            let payload;
            let topic = Position::topic(STREAM);
            let entry = match kind {
                Kind::Damage => {
                    let damage = Damage { from: 1, to: 2, generation: 1, start: 0, end: 8, was_synced: true };
                    let _ = learner.take(&Archived::Damage(damage));
                    continue;
                }
                Kind::Begins => Entry::Begins { group: "g" },
                Kind::Lost => Entry::Lost { sender: None, count: 1 },
                Kind::Retracted(sender, from) => Entry::Retracted { sender: *sender, from: *from, to: u64::MAX },
                Kind::Message(order, sender, incarnation, sequence, is_from_client, position) => {
                    payload = position.as_ref().map_or(b"price".to_vec(), Position::encode);
                    Entry::Message(Recorded {
                        topic: 1,
                        name: Some(position.as_ref().map_or("md.es", |_| topic.as_str())),
                        sender: *sender,
                        incarnation: *incarnation,
                        sequence: *sequence,
                        order: Some(*order),
                        barrier: None,
                        is_from_client: *is_from_client,
                        payload: &payload,
                    })
                }
            };
            let record = Record { position: 0, epoch: 1, time_ns: 0, bytes: b"" };
            if learner.take(&Archived::Record(record, Some(entry))).is_break() {
                break;
            }
        }
        learner.known()
    }
}

fn position(token: &str, next: Option<u64>) -> Option<Position> {
    Some(Position { stream: STREAM.to_owned(), created: "today".to_owned(), token: token.to_owned(), next })
}

fn next(next: u64) -> Known {
    Known::Next { next, created: "today".to_owned() }
}

/// Another member's message, a position of the bridge (rank 2), and two that it carried.
fn carried() -> Vec<Kind> {
    vec![
        Kind::Begins,
        Kind::Message(0, 0, 1, 0, false, None),
        Kind::Message(1, 2, 5, 0, false, position("token-1", Some(10))),
        Kind::Message(2, 2, 5, 1, false, None),
        Kind::Message(3, 0, 1, 1, false, None),
        Kind::Message(4, 2, 5, 2, false, None),
    ]
}

fn known(entries: impl IntoIterator<Item = Kind>) -> Known {
    Script { entries: entries.into_iter().collect() }.known()
}

#[test]
fn what_was_carried_is_counted_from_the_last_position() {
    assert_eq!(known(carried()), next(12));
    let again = [Kind::Message(5, 2, 5, 3, false, position("token-1", Some(40)))];
    assert_eq!(known(carried().into_iter().chain(again)), next(40));
}

#[test]
fn what_others_published_does_not_count() {
    let others = [
        Kind::Message(5, 2, 5, 3, true, None),  // a client, through the bridge
        Kind::Message(6, 2, 6, 0, false, None), // another process that has its rank now
        Kind::Message(7, 1, 5, 0, false, None),
    ];
    assert_eq!(known(carried().into_iter().chain(others)), next(12));
}

#[test]
fn what_stands_behind_the_own_beginning_does_not_count() {
    let later = [
        Kind::Message(5, 1, 3, 0, false, position("token-0", None)), // another bridge's beginning
        Kind::Message(6, 2, 5, 3, false, None),
        Kind::Message(7, 2, 9, 0, false, position(OWN, None)),
        Kind::Message(8, 2, 5, 4, false, None),
    ];
    assert_eq!(known(carried().into_iter().chain(later)), next(13));
}

#[test]
fn what_was_delivered_again_counts_once() {
    let again = [
        Kind::Begins,
        Kind::Message(2, 2, 5, 1, false, None),
        Kind::Message(3, 0, 1, 1, false, None),
        Kind::Message(4, 2, 5, 2, false, None),
        Kind::Message(5, 2, 5, 3, false, None),
    ];
    assert_eq!(known(carried().into_iter().chain(again)), next(13));
}

#[test]
fn what_became_void_does_not_count() {
    assert_eq!(known(carried().into_iter().chain([Kind::Retracted(2, 2)])), next(11));
    assert_eq!(known(carried().into_iter().chain([Kind::Retracted(0, 0)])), next(12));
    assert_eq!(known(carried().into_iter().chain([Kind::Retracted(2, 0)])), Known::Unknown { at_least: 0 });
}

#[test]
fn a_hole_makes_it_unknown_up_to_the_next_position() {
    for hole in [Kind::Lost, Kind::Damage] {
        let position = Kind::Message(7, 2, 5, 9, false, position("token-1", Some(30)));
        assert_eq!(known(carried().into_iter().chain([hole, position])), next(30));
    }
    assert_eq!(known(carried().into_iter().chain([Kind::Lost])), Known::Unknown { at_least: 12 });
    let restarted = |order| [Kind::Begins, Kind::Message(order, 0, 1, 9, false, None)];
    assert_eq!(known(carried().into_iter().chain(restarted(5))), next(12), "the recorder missed nothing");
    assert_eq!(known(carried().into_iter().chain(restarted(6))), Known::Unknown { at_least: 12 });
}

#[test]
fn the_command_that_acquired_a_lock_is_no_hole() {
    let other = |order| Kind::Message(order, 0, 1, 0, false, None);
    let beginning = |order, command: u64| {
        let token = format!("{}{command:016x}", "0".repeat(32));
        Kind::Message(order, 2, 1, 0, false, position(&token, None))
    };
    assert_eq!(known([Kind::Begins, other(1), beginning(2, 0)]), Known::Nothing);
    assert_eq!(known([Kind::Begins, other(1), beginning(2, 1)]), Known::Unknown { at_least: 0 }, "another's number");
    assert_eq!(known([Kind::Begins, other(2), beginning(3, 0)]), Known::Unknown { at_least: 0 }, "two are missing");
    let restarted = |command| [Kind::Begins, other(6), beginning(7, command)];
    assert_eq!(known(carried().into_iter().chain(restarted(5))), next(12));
    assert_eq!(known(carried().into_iter().chain(restarted(4))), Known::Unknown { at_least: 12 });
    let lost = [Kind::Begins, other(6), Kind::Lost, beginning(7, 5)];
    assert_eq!(known(carried().into_iter().chain(lost)), Known::Unknown { at_least: 12 });
}

#[test]
fn without_a_position_nothing_was_carried_if_the_archive_has_all() {
    let other = |order| Kind::Message(order, 0, 1, 0, false, None);
    assert_eq!(known([Kind::Begins, other(0), other(1)]), Known::Nothing);
    assert_eq!(known([Kind::Begins, other(3)]), Known::Unknown { at_least: 0 }, "it began late");
    assert_eq!(known([other(3)]), Known::Unknown { at_least: 0 }, "older segments were removed");
    assert_eq!(known([Kind::Begins, other(0), Kind::Lost]), Known::Unknown { at_least: 0 });
    assert_eq!(known([]), Known::Unknown { at_least: 0 });
}
