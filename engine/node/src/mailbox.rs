//! A mailbox: values from any threads to one that looks every round, and may sleep.
//!
//! Commands, events and answers are rare, but the thread that receives them also moves messages: it looks into its
//! mailboxes every round, and a look into a channel costs a fence each. Rings are cheaper to look at, but carry bytes:
//! each kind of value would be written and read by hand.
//!
//! So a mailbox is a bounded channel of values, and beside it a count of what was posted: a look is one load. After
//! each value the sender rings, which wakes the receiver if it sleeps. A value that can wait is sent without a ring.
//!
//! Invariants: a receiver that saw no value before it announced its sleep is rung for a value that comes later
//! (`bourdon_ring::signal`). A full mailbox gives the value back: the sender decides what becomes of it.

use bourdon_ring::signal::{WatermarkReader, WatermarkWriter, watermark};
use std::sync::mpsc::{self, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

/// Makes a mailbox for at most `bound` values; `ring` is called after each of them.
pub(crate) fn mailbox<T>(bound: usize, ring: impl FnMut() + Send + 'static) -> (Sender<T>, Receiver<T>) {
    let (values, receiver) = sync_channel(bound);
    let (posted, seen) = watermark(0);
    let bell = Mutex::new(Doorbell { posted, ring: Box::new(ring) });
    (Sender(Arc::new(Shared { values, bell })), Receiver { values: receiver, posted: seen, taken: 0 })
}

struct Shared<T> {
    values: SyncSender<T>,
    bell: Mutex<Doorbell>,
}

struct Doorbell {
    /// How many values were sent so far.
    posted: WatermarkWriter,
    ring: Box<dyn FnMut() + Send>,
}

/// The end of the threads that send; a clone is the same end.
pub(crate) struct Sender<T>(Arc<Shared<T>>);

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> std::fmt::Debug for Sender<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sender")
    }
}

impl<T> Sender<T> {
    /// Sends a value if there is room.
    ///
    /// # Errors
    /// The value, if the mailbox is full or its receiver is gone.
    pub(crate) fn try_send(&self, value: T) -> Result<(), TrySendError<T>> {
        self.0.values.try_send(value)?;
        self.announce(true);
        Ok(())
    }

    /// The same, without a ring: a receiver that sleeps takes the value after the next ring.
    ///
    /// # Errors
    /// As [`Sender::try_send`].
    pub(crate) fn try_send_silently(&self, value: T) -> Result<(), TrySendError<T>> {
        self.0.values.try_send(value)?;
        self.announce(false);
        Ok(())
    }

    /// Sends a value, and waits for room if there is none. If the receiver is gone, the value is dropped.
    pub(crate) fn send(&self, value: T) {
        if self.0.values.send(value).is_ok() {
            self.announce(true);
        }
    }

    fn announce(&self, rings: bool) {
        let mut bell = self.0.bell.lock().unwrap_or_else(PoisonError::into_inner);
        let posted = bell.posted.get() + 1;
        bell.posted.advance(posted);
        if rings {
            (bell.ring)();
        }
    }
}

/// The end of the thread that receives.
pub(crate) struct Receiver<T> {
    values: mpsc::Receiver<T>,
    posted: WatermarkReader,
    taken: u64,
}

impl<T> std::fmt::Debug for Receiver<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Receiver")
    }
}

impl<T> Receiver<T> {
    /// Whether there is a value that was not taken.
    #[inline]
    pub(crate) fn has_values(&self) -> bool {
        // A value may be taken before its sender has counted it.
        self.posted.get() > self.taken
    }

    /// The next value.
    #[inline]
    pub(crate) fn take(&mut self) -> Option<T> {
        if !self.has_values() {
            return None;
        }
        let value = self.values.try_recv().ok();
        self.taken += u64::from(value.is_some());
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bourdon_ring::signal::doorbell;
    use std::sync::mpsc::channel;

    #[test]
    fn a_full_mailbox_gives_the_value_back_and_an_abandoned_one_too() {
        let (sender, mut receiver) = mailbox(2, || {});
        assert!(!receiver.has_values() && receiver.take().is_none());
        assert!(sender.try_send(1).is_ok() && sender.clone().try_send(2).is_ok());
        assert!(matches!(sender.try_send(3), Err(TrySendError::Full(3))));
        assert_eq!((receiver.take(), receiver.take(), receiver.take()), (Some(1), Some(2), None));
        sender.send(4);
        assert!(receiver.has_values());
        drop(receiver);
        assert!(matches!(sender.try_send(5), Err(TrySendError::Disconnected(5))));
        sender.send(6);
    }

    #[test]
    fn a_silent_value_arrives_and_does_not_ring() {
        let (rings, rung) = channel();
        let (sender, mut receiver) = mailbox(2, move || rings.send(()).expect("the test listens"));
        assert!(sender.try_send_silently(1).is_ok() && receiver.has_values());
        assert_eq!(rung.try_iter().count(), 0);
        assert!(sender.try_send(2).is_ok());
        assert_eq!((receiver.take(), receiver.take(), rung.try_iter().count()), (Some(1), Some(2), 1));
    }

    #[test]
    fn every_value_of_every_thread_arrives_and_wakes_a_receiver_that_sleeps() {
        const SENDERS: u64 = 3;
        const EACH: u64 = 2_000;
        let ((mut sleeper, mut bell), (wake, woken)) = (doorbell(), channel());
        let ring = move || {
            if bell.must_ring() {
                wake.send(()).expect("the receiver waits");
            }
        };
        let (sender, mut receiver) = mailbox(8, ring);
        let threads: Vec<_> = (0..SENDERS)
            .map(|number| {
                let sender = sender.clone();
                std::thread::spawn(move || (0..EACH).for_each(|value| sender.send((number, value))))
            })
            .collect();
        let (mut next, mut count) = ([0; SENDERS as usize], 0);
        while count < SENDERS * EACH {
            sleeper.lie_down();
            if !receiver.has_values() {
                woken.recv().expect("a sender rings");
            }
            sleeper.get_up();
            while let Some((number, value)) = receiver.take() {
                assert_eq!(std::mem::replace(&mut next[number as usize], value + 1), value, "in order");
                count += 1;
            }
        }
        threads.into_iter().for_each(|thread| thread.join().expect("no panic"));
    }
}
