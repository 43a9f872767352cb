//! Clients that take turns at one lock, each in a separate thread, and their figures.
//!
//! One client alone shows what a lock costs; three that request it again at once show what a hand-over costs. All times
//! are of one clock, so the rounds of a system verify the measurement: if two clients held the lock at one time, the
//! round fails. They also show how long a client may wait: how many entries other clients made between its request and
//! its grant. A first come, first served lock of three clients lets at most a few others enter first (clients that
//! requested before the server received the request); a lock that is polled until it is free may let in any number.
//!
//! A starving client must not continue alone when the others have made all their entries, because its last waits would
//! then belong to another measurement. So the clients draw entries from one shared count as they begin them, and all
//! end together.

use super::{Limits, Round};
use crate::Failure;
use crate::row::histogram;
use std::sync::{Barrier, Mutex, PoisonError};
use std::time::Instant;

/// Entries of each client before any are counted: connections are opened, scripts loaded, memory touched.
const WARM_UP: u32 = 5;

/// A client that acquires a lock and releases it.
pub(crate) trait Client: Send {
    /// Returns as soon as the lock is held.
    fn acquire(&mut self) -> Result<(), Failure>;
    fn release(&mut self) -> Result<(), Failure>;
}

/// One time that a client held the lock, in nanoseconds since the round began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) client: usize,
    pub(super) asked_ns: u64,
    pub(super) got_ns: u64,
    /// When it began to release it.
    pub(super) left_ns: u64,
}

/// Entries begun so far.
#[derive(Default)]
struct Entries(Mutex<u64>);

impl Entries {
    /// Counts another entry.
    fn one_more(&self) -> u64 {
        let mut begun = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *begun = begun.saturating_add(1);
        *begun
    }

    /// Lets no client begin another entry.
    fn end(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = u64::MAX;
    }
}

/// Lets clients acquire and release with no pause until there were enough entries or the time is over.
pub(crate) fn take_turns<C: Client>(mut clients: Vec<C>, limits: &Limits) -> Result<Round, Failure> {
    for client in &mut clients {
        for _ in 0..WARM_UP {
            client.acquire()?;
            client.release()?;
        }
    }
    let (begun, together, epoch) = (Entries::default(), Barrier::new(clients.len()), Instant::now());
    let entries: Result<Vec<Vec<Entry>>, Failure> = std::thread::scope(|scope| {
        let (begun, together) = (&begun, &together);
        let threads: Vec<_> = clients
            .iter_mut()
            .enumerate()
            .map(|(index, client)| {
                scope.spawn(move || {
                    together.wait();
                    let entries = enter(index, client, limits, begun, epoch);
                    if entries.is_err() {
                        begun.end(); // the others need not go on
                    }
                    entries
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().expect("a client does not panic")).collect()
    });
    judge(entries?.concat())
}

/// One client's part.
fn enter(
    index: usize,
    client: &mut impl Client,
    limits: &Limits,
    begun: &Entries,
    epoch: Instant,
) -> Result<Vec<Entry>, Failure> {
    let now_ns = || epoch.elapsed().as_nanos() as u64;
    let (mut entries, deadline) = (Vec::new(), Instant::now() + limits.duration);
    while begun.one_more() <= limits.entries && Instant::now() < deadline {
        let asked_ns = now_ns();
        client.acquire()?;
        let got_ns = now_ns();
        let left_ns = now_ns();
        client.release()?;
        entries.push(Entry { client: index, asked_ns, got_ns, left_ns });
    }
    Ok(entries)
}

/// The figures of all clients' entries. Fails where two entries overlap.
pub(super) fn judge(mut entries: Vec<Entry>) -> Result<Round, Failure> {
    entries.sort_by_key(|entry| entry.got_ns);
    if let Some([first, second]) = entries.array_windows().find(|[first, second]| second.got_ns < first.left_ns) {
        return Err(Failure::Broken(format!("two clients held the lock at one time: {first:?} and {second:?}")));
    }
    let mut acquire = histogram();
    entries.iter().for_each(|entry| acquire.saturating_record(entry.got_ns - entry.asked_ns));
    let overtaken = entries.iter().enumerate().map(|(index, entry)| {
        // None of these entries is its own: it requests again after its release.
        entries[..index].iter().rev().take_while(|other| other.got_ns > entry.asked_ns).count() as u64
    });
    Ok(Round { max_overtaken: overtaken.max(), acquire, messages_per_entry: None })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Condvar, Mutex};
    use std::time::Duration;

    fn entry(client: usize, asked_ns: u64, got_ns: u64, left_ns: u64) -> Entry {
        Entry { client, asked_ns, got_ns, left_ns }
    }

    #[test]
    fn a_client_overtaken_by_others_is_counted() {
        let entries = vec![entry(0, 0, 10, 11), entry(0, 12, 20, 21), entry(1, 5, 30, 31), entry(0, 22, 40, 41)];
        let round = judge(entries).expect("no two overlap");
        assert_eq!((round.max_overtaken, round.acquire.len(), round.acquire.max()), (Some(2), 4, 25));
    }

    #[test]
    fn a_lock_held_twice_is_no_lock() {
        let Err(Failure::Broken(why)) = judge(vec![entry(0, 0, 10, 20), entry(1, 0, 19, 30)]) else {
            panic!("two overlap");
        };
        assert!(why.contains("at one time"), "{why}");
    }

    /// A lock in memory.
    struct InMemory {
        held: Arc<(Mutex<bool>, Condvar)>,
    }

    impl Client for InMemory {
        fn acquire(&mut self) -> Result<(), Failure> {
            let (held, freed) = &*self.held;
            let mut held = freed.wait_while(held.lock().unwrap(), |held| *held).unwrap();
            *held = true;
            Ok(())
        }

        fn release(&mut self) -> Result<(), Failure> {
            *self.held.0.lock().unwrap() = false;
            self.held.1.notify_one();
            Ok(())
        }
    }

    #[test]
    fn clients_make_as_many_entries_as_are_asked_for() {
        let held = Arc::default();
        let clients = (0..3).map(|_| InMemory { held: Arc::clone(&held) }).collect();
        let limits = Limits { entries: 1_000, duration: Duration::from_secs(600) };
        assert_eq!(take_turns(clients, &limits).expect("it is a lock").acquire.len(), 1_000);
    }
}
