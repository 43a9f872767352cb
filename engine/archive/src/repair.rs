//! Repairs an archive from another one of the same instance of the group.
//!
//! Two processes record the same messages in the same order, at other positions. So what is damaged in one stands in
//! the other between the same two messages. The records are written again only if the other archive has as many there
//! as are damaged, and they fill their place; else the damage stays. The group must be in total order.

use crate::archive::{Archive, Archived};
use crate::entry::{Entry, Recorded};
use crate::error::Error;
use bourdon_log::{Damage, Directory, Log, Record, Settings};
use std::ops::ControlFlow;
use std::path::Path;

/// What was repaired.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Repaired {
    /// Damages that were repaired.
    pub damages: u64,
    /// Records that were written again.
    pub records: u64,
    /// Damage that the other archive has no copy of.
    pub left: Vec<Damage>,
}

/// A message's name in its instance: sender, incarnation, sequence, and the phase of a barrier's own.
type Name = (u16, u32, u64, Option<u64>);

fn name(recorded: &Recorded<'_>) -> Name {
    (recorded.sender, recorded.incarnation, recorded.sequence, recorded.barrier)
}

/// Damage, and what stands around it.
struct Hole {
    damage: Damage,
    /// The place of the last message in front of it that has an order number.
    place: (u64, u64),
    before: Option<Name>,
    after: Option<Name>,
}

/// A record of the other archive.
struct Copy {
    epoch: u64,
    time_ns: u64,
    bytes: Vec<u8>,
}

/// Repairs the archive in `directory` from the one in `from`.
///
/// # Errors
/// If one of them can't be opened, they are of two instances, or the archive can't be written.
pub fn repair(directory: &Path, from: &Path) -> Result<Repaired, Error> {
    let (own, other) = (Archive::open(directory)?, Archive::open(from)?);
    let (expected, found) = (own.instance(), other.instance());
    if expected != found {
        return Err(Error::OtherInstance { found, expected });
    }
    let holes = holes(&own)?;
    let failed = |source| Error::Record { path: directory.into(), source };
    let locked = Directory::lock(directory).map_err(Error::Directory)?;
    let mut log = Log::open(locked, Settings::new(expected)).map_err(Error::Directory)?;
    let mut repaired = Repaired::default();
    for hole in holes {
        let copies = copies(&other, &hole)?;
        let record = |(position, copy): (u64, &Copy)| {
            let Copy { epoch, time_ns, ref bytes } = *copy;
            (position, epoch, time_ns, bytes.clone())
        };
        let rows: Vec<_> = (hole.damage.from..).zip(&copies).map(record).collect();
        let records: Vec<Record<'_>> = rows
            .iter()
            .map(|(position, epoch, time_ns, bytes)| Record {
                position: *position,
                epoch: *epoch,
                time_ns: *time_ns,
                bytes,
            })
            .collect();
        match log.repair(&hole.damage, &records) {
            Ok(()) => {
                repaired.damages += 1;
                repaired.records += records.len() as u64;
            }
            Err(bourdon_log::Error::Unfit { .. } | bourdon_log::Error::NoSuchDamage { .. }) => {
                repaired.left.push(hole.damage);
            }
            Err(error) => return Err(failed(error)),
        }
    }
    log.close().map_err(failed)?;
    Ok(repaired)
}

fn holes(own: &Archive) -> Result<Vec<Hole>, Error> {
    let (mut holes, mut place, mut before): (Vec<Hole>, _, _) = (Vec::new(), (0, 0), None);
    let mut open = 0; // the first that has nothing behind it yet
    own.read(0, |archived| {
        match archived {
            Archived::Damage(damage) => holes.push(Hole { damage, place, before, after: None }),
            Archived::Record(record, Some(Entry::Message(message))) => {
                before = Some(name(&message));
                place = message.order.map_or(place, |order| (record.epoch, order));
                holes[open..].iter_mut().for_each(|hole| hole.after = before);
                open = holes.len();
            }
            Archived::Record(..) => {}
        }
        ControlFlow::Continue(())
    })?;
    Ok(holes)
}

/// The other archive's records between the same two messages; too few or too many if it does not have them all.
fn copies(other: &Archive, hole: &Hole) -> Result<Vec<Copy>, Error> {
    let wanted = (hole.damage.to - hole.damage.from) as usize;
    let (mut copies, mut has_begun, mut begins) = (Vec::new(), hole.before.is_none(), None);
    other.read(other.seek(0, hole.place)?, |archived| {
        let (record, entry) = match archived {
            Archived::Record(record, Some(entry)) => (record, entry),
            Archived::Record(..) => return ControlFlow::Continue(()),
            Archived::Damage(_) => {
                copies.clear();
                has_begun &= hole.before.is_none();
                return ControlFlow::Continue(());
            }
        };
        let copy = || Copy { epoch: record.epoch, time_ns: record.time_ns, bytes: record.bytes.to_vec() };
        match entry {
            Entry::Begins { .. } => begins = Some(copy()),
            Entry::Message(message) if Some(name(&message)) == hole.after => return ControlFlow::Break(()),
            Entry::Message(message) if !has_begun => has_begun = Some(name(&message)) == hole.before,
            Entry::Message(_) => copies.push(copy()),
            _ => {}
        }
        let is_full = hole.after.is_none() && copies.len() == wanted;
        if is_full || hole.before.is_some() && copies.len() > wanted {
            return ControlFlow::Break(());
        }
        if copies.len() > wanted {
            copies.remove(0); // what lies in front of the archive's first message
        }
        ControlFlow::Continue(())
    })?;
    // An archive begins with where its recorder began.
    if hole.damage.from == 0
        && let Some(begins) = begins
    {
        copies.truncate(wanted);
        if copies.len() == wanted {
            copies.remove(0);
        }
        copies.insert(0, begins);
    }
    Ok(copies)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recorder::Recorder;
    use bourdon_log::Retention;
    use bourdon_protocol::Message;
    use bourdon_wire::{Epoch, Incarnation, InstanceId, Instant, OrderNumber, Rank, Sequence, TopicId};

    const COUNT: u64 = 2_000;

    fn payload(number: u64) -> Vec<u8> {
        [&number.to_le_bytes()[..], &vec![7; (number % 90) as usize]].concat()
    }

    fn record(path: &Path, from: u64, to: u64) {
        let recorder = Recorder::open(path.into(), "prices", Retention::default()).expect("it is ours");
        let mut recorder = recorder.with_segments_of(1 << 20);
        for number in from..to {
            let payload = payload(number);
            let message = Message {
                sender: Rank((number % 3) as u16),
                incarnation: Incarnation(1),
                instance: InstanceId(9),
                sequence: Sequence(number / 3),
                order: Some(OrderNumber(number)),
                epoch: Epoch(1 + number / 500),
                late: false,
                topic: TopicId(1),
                name: Some("md.es"),
                send_time_ns: number,
                kernel_receive_ns: None,
                delivered_at: Instant(0),
                client: None,
                barrier: None,
                payload: &payload,
            };
            recorder.record(&message, message.name).expect("it records");
        }
        recorder.close().expect("it ends");
    }

    /// What an archive has: its payloads, and how many records are damaged.
    fn content(path: &Path) -> (Vec<Vec<u8>>, usize) {
        let (mut payloads, mut damaged) = (Vec::new(), 0);
        let archive = Archive::open(path).expect("it is there");
        let read = archive.read(0, |archived| {
            match archived {
                Archived::Record(_, Some(Entry::Message(message))) => payloads.push(message.payload.to_vec()),
                Archived::Record(..) => {}
                Archived::Damage(damage) => damaged += (damage.to - damage.from) as usize,
            }
            ControlFlow::Continue(())
        });
        read.expect("it is read");
        (payloads, damaged)
    }

    /// Flips a bit in each of these messages.
    fn damage(path: &Path, numbers: &[u64]) {
        let segment = path.join(format!("{:016x}.segment", 1));
        let mut bytes = std::fs::read(&segment).expect("readable");
        for number in numbers {
            let payload = payload(*number);
            let at = bytes.windows(payload.len()).position(|window| window == payload).expect("it stands there");
            bytes[at + 3] ^= 1;
        }
        std::fs::write(&segment, bytes).expect("it can be written");
    }

    #[test]
    fn two_hundred_damages_are_repaired_and_what_no_peer_has_stays_damaged() {
        let folder = tempfile::tempdir().expect("a folder");
        let [own, peer] = ["own", "peer"].map(|name| folder.path().join(name));
        record(&own, 0, COUNT);
        record(&peer, 20, COUNT); // its recorder began later
        let whole = content(&own);
        let mut rng = fastrand::Rng::with_seed(3);
        let mut numbers: Vec<u64> = rng.choose_multiple(21..COUNT - 1, 200);
        numbers.sort_unstable();
        damage(&own, &numbers);
        assert_eq!(content(&own).1, 200);
        let repaired = repair(&own, &peer).expect("it is repaired");
        assert_eq!((repaired.records, repaired.left.len()), (200, 0));
        assert!(content(&own) == whole, "as it was recorded");
        damage(&own, &[5, 1_000]);
        let repaired = repair(&own, &peer).expect("it is repaired");
        assert_eq!((repaired.records, repaired.left.len()), (1, 1), "the peer has no message 5");
        assert_eq!(content(&own).1, 1);
    }

    #[test]
    fn the_archive_of_another_instance_repairs_nothing() {
        let folder = tempfile::tempdir().expect("a folder");
        let [own, peer] = ["own", "peer"].map(|name| folder.path().join(name));
        record(&own, 0, 5);
        let log = Log::open(Directory::lock(&peer).expect("ours"), Settings::new(8));
        let mut log = log.expect("it opens");
        log.append(0, 0, b"x").expect("it takes it");
        log.close().expect("it ends");
        assert!(matches!(repair(&own, &peer), Err(Error::OtherInstance { found: 8, expected: 9 })));
    }
}
