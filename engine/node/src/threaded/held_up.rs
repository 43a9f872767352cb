//! Why publications wait: one cell, which the data agent writes and publishers read when their ring is full.
//!
//! The agent must not wait for a lock that an application's thread holds, so the reason is a number: 0 for none, else
//! one more than its place among [`REASONS`].

use bourdon_protocol::Refusal;
use bourdon_ring::counters::{Reader, Writer};

/// What passes by itself. The agent drops a message that is refused for another reason.
const REASONS: [Refusal; 6] =
    [Refusal::Window, Refusal::Forming, Refusal::ViewChange, Refusal::Barrier, Refusal::NoMajority, Refusal::Outside];

/// Whether a message that is refused for this reason can be taken later.
pub(crate) fn may_pass(refusal: Refusal) -> bool {
    REASONS.contains(&refusal)
}

/// Writes the reason, if it is another than before.
pub(crate) fn write(cell: &mut Writer, reason: Option<Refusal>) {
    let place = reason.map(|reason| REASONS.iter().position(|other| *other == reason).expect("it passes by itself"));
    let value = place.map_or(0, |place| place as u64 + 1);
    if cell.get(0) != value {
        cell.set(0, value);
    }
}

/// The group ends: nothing is taken any more.
const CLOSED: u64 = u64::MAX;

/// Nothing is taken any more.
pub(crate) fn close(cell: &mut Writer) {
    cell.set(0, CLOSED);
}

/// Whether nothing is taken any more.
#[inline]
pub(crate) fn is_closed(cell: &Reader) -> bool {
    cell.get(0) == CLOSED
}

/// The reason.
pub(crate) fn read(cell: &Reader) -> Option<Refusal> {
    cell.get(0).checked_sub(1).and_then(|place| REASONS.get(place as usize).copied())
}

#[cfg(test)]
mod tests {
    use super::*;
    use bourdon_ring::counters::in_memory;

    #[test]
    fn reasons_come_back() {
        let (mut writer, reader) = in_memory(1);
        assert_eq!(read(&reader), None);
        for reason in REASONS {
            write(&mut writer, Some(reason));
            assert_eq!(read(&reader), Some(reason));
        }
        write(&mut writer, None);
        assert_eq!(read(&reader), None);
        assert!(!may_pass(Refusal::Observer) && !may_pass(Refusal::TooLarge { limit_bytes: 1 }));
    }
}
