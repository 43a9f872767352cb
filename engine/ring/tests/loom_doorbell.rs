//! The doorbell under loom: no wake is lost, and a frame that is not taken is offered again.
//! Run by `RUSTFLAGS="--cfg loom" cargo test -p bourdon-ring --release --test loom_doorbell`.
#![cfg(loom)]

use bourdon_ring::{signal, spsc};
use loom::sync::{Arc, Condvar, Mutex};
use loom::thread;

/// Stands in for the kernel's eventfd: a wake before the sleep is not lost.
#[derive(Default)]
struct Event {
    rung: Mutex<bool>,
    changed: Condvar,
}

impl Event {
    fn wake(&self) {
        *self.rung.lock().unwrap() = true;
        self.changed.notify_one();
    }

    fn sleep(&self) {
        let mut rung = self.rung.lock().unwrap();
        while !*rung {
            rung = self.changed.wait(rung).unwrap();
        }
        *rung = false;
    }
}

/// The sleeper takes all frames and sleeps in between; loom reports a deadlock if a wake is lost.
fn sleeper_takes_everything(ringers: u32, frames: u32, preemptions: usize) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.check(move || {
        let (mut sleeper, bell) = signal::doorbell();
        let event = Arc::new(Event::default());
        let mut consumers = Vec::new();
        let threads: Vec<_> = (0..ringers)
            .map(|_| {
                let (mut producer, consumer) = spsc::channel(64);
                consumers.push(consumer);
                let (mut bell, event) = (bell.clone(), Arc::clone(&event));
                thread::spawn(move || {
                    for tag in 0..frames {
                        producer.try_push(tag, &[]).unwrap();
                        if bell.must_ring() {
                            event.wake();
                        }
                    }
                })
            })
            .collect();
        let mut taken = 0;
        while taken < ringers * frames {
            let mut take = || consumers.iter_mut().map(|consumer| consumer.read(8, |_, _| {}) as u32).sum::<u32>();
            match take() {
                0 => {}
                count => {
                    taken += count;
                    continue;
                }
            }
            sleeper.lie_down();
            match take() {
                0 => event.sleep(),
                count => taken += count,
            }
            sleeper.get_up();
        }
        for thread in threads {
            thread.join().unwrap();
        }
    });
}

#[test]
fn one_ringer_never_leaves_the_sleeper_asleep() {
    sleeper_takes_everything(1, 2, 3);
}

#[test]
fn two_ringers_never_leave_the_sleeper_asleep() {
    sleeper_takes_everything(2, 1, 2);
}
