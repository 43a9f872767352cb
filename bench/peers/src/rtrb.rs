//! `rtrb`: a wait-free ring of one producer and one consumer, between two threads.

use crate::slot::{POLL_LIMIT, Ring, Slot};
use ::rtrb::{Consumer, Producer, RingBuffer};
use bourdon_bench::{Failure, Link};

struct End<const N: usize> {
    outward: Producer<Slot<N>>,
    inward: Consumer<Slot<N>>,
}

impl<const N: usize> Link for End<N> {
    fn try_send(&mut self, message: &[u8]) -> Result<bool, Failure> {
        Ok(self.outward.push(Slot::holding(message)).is_ok())
    }

    fn poll(&mut self, mut on_message: impl FnMut(&[u8])) -> Result<usize, Failure> {
        let mut count = 0;
        while count < POLL_LIMIT {
            let Ok(slot) = self.inward.pop() else { break };
            on_message(slot.message());
            count += 1;
        }
        Ok(count)
    }
}

/// The kind of ring.
pub(crate) struct Rtrb;

impl Ring for Rtrb {
    const PACKAGE: &'static str = "rtrb";

    fn pair<const N: usize>() -> (impl Link + Send, impl Link + Send) {
        let (there, there_end) = RingBuffer::<Slot<N>>::new(Slot::<N>::COUNT);
        let (back, back_end) = RingBuffer::<Slot<N>>::new(Slot::<N>::COUNT);
        (End { outward: there, inward: back_end }, End { outward: back, inward: there_end })
    }
}
