//! Why publications wait: two cells, which the data agent writes and publishers read.
//!
//! The agent must not wait for a lock that an application's thread holds, so the reason is a number, and its detail
//! another. A publisher that reads them while they change may see the detail of another moment; the reason is right.
//!
//! A publisher reads the first cell with each message: the agent writes it only when it changes.

use bourdon_protocol::{Ranks, Refusal};
use bourdon_ring::counters::{Reader, Writer, in_memory};
use bourdon_wire::Rank;

/// The first cell where nothing is held up.
const NONE: u64 = 0;

/// Both ends; nothing is held up.
pub(crate) fn cells() -> (Writer, Reader) {
    in_memory(2)
}

fn code(reason: Refusal) -> (u64, u64) {
    match reason {
        Refusal::Window { slowest: Some(rank) } => (1, rank.0.into()),
        Refusal::Window { slowest: None } => (2, 0),
        Refusal::Paced => (3, 0),
        Refusal::ViewChange => (4, 0),
        Refusal::Barrier => (5, 0),
        Refusal::Forming { missing } => (6, missing.0),
        Refusal::Outside => (7, 0),
        Refusal::NoMajority { missing } => (8, missing.0),
        Refusal::Closed => (9, 0),
        Refusal::NoReceiver => (10, 0),
        Refusal::TooMany { limit } => (11, limit as u64),
        Refusal::NoNetwork => (13, 0),
        Refusal::TooManyClients { limit } => (14, limit as u64),
        // No message is refused for these by a group that could take it later; the ring is full.
        _ => (12, 0),
    }
}

fn reason(code: u64, detail: u64) -> Option<Refusal> {
    Some(match code {
        NONE => return None,
        1 => Refusal::Window { slowest: Some(Rank(detail as u16)) },
        2 => Refusal::Window { slowest: None },
        3 => Refusal::Paced,
        4 => Refusal::ViewChange,
        5 => Refusal::Barrier,
        6 => Refusal::Forming { missing: Ranks(detail) },
        7 => Refusal::Outside,
        8 => Refusal::NoMajority { missing: Ranks(detail) },
        9 => Refusal::Closed,
        10 => Refusal::NoReceiver,
        11 => Refusal::TooMany { limit: detail as usize },
        13 => Refusal::NoNetwork,
        14 => Refusal::TooManyClients { limit: detail as usize },
        _ => Refusal::Queue,
    })
}

/// Whether a message that is refused for this reason waits in its ring. Any other is dropped, but for one that the end
/// of the node reports.
pub(crate) fn may_pass(refusal: Refusal) -> bool {
    refusal.is_transient() || refusal == Refusal::Closed
}

/// Writes the reason, if it is another than before. Returns whether publishers may go on that were refused before, or
/// are refused for good.
pub(crate) fn write(cells: &mut Writer, reason: Option<Refusal>) -> bool {
    let (code, detail) = reason.filter(|reason| may_pass(*reason)).map_or((NONE, 0), code);
    let before = cells.get(0);
    if (before, cells.get(1)) != (code, detail) {
        cells.set(1, detail);
        cells.set(0, code);
    }
    before != code && (is_refused(before) || is_refused(code))
}

/// Whether messages wait in their rings.
pub(crate) fn is_held_up(cells: &Writer) -> bool {
    cells.get(0) != NONE
}

/// Whether publishers are refused for this, though their rings have room.
#[inline]
fn is_refused(code: u64) -> bool {
    (6..=10).contains(&code) || code == 13
}

/// Why a publisher is refused though its ring has room: an outage, or the end of the node.
#[inline]
pub(crate) fn refusal(cells: &Reader) -> Option<Refusal> {
    let code = cells.get(0);
    if is_refused(code) { reason(code, cells.get(1)) } else { None }
}

/// The reason.
pub(crate) fn read(cells: &Reader) -> Option<Refusal> {
    reason(cells.get(0), cells.get(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_come_back_and_outages_and_the_end_refuse_at_once() {
        let (mut writer, reader) = cells();
        assert_eq!((read(&reader), refusal(&reader)), (None, None));
        let waits = [
            Refusal::Window { slowest: Some(Rank(9)) },
            Refusal::Window { slowest: None },
            Refusal::Paced,
            Refusal::ViewChange,
            Refusal::Barrier,
            Refusal::TooMany { limit: 32 },
        ];
        for reason in waits {
            assert!(!write(&mut writer, Some(reason)) && may_pass(reason) && is_held_up(&writer));
            assert_eq!((read(&reader), refusal(&reader)), (Some(reason), None));
        }
        let refuses = [
            Refusal::Forming { missing: Ranks(1 << 63) },
            Refusal::Outside,
            Refusal::NoMajority { missing: Ranks(5) },
            Refusal::NoReceiver,
            Refusal::NoNetwork,
            Refusal::Closed,
        ];
        for reason in refuses {
            assert!(write(&mut writer, Some(reason)) && may_pass(reason));
            assert_eq!((read(&reader), refusal(&reader)), (Some(reason), Some(reason)));
        }
        assert!(write(&mut writer, None) && !is_held_up(&writer));
        assert_eq!(read(&reader), None);
        assert!(!may_pass(Refusal::Role) && !may_pass(Refusal::TooLarge { limit_bytes: 1 }));
    }
}
