//! Crossbeam's `ArrayQueue`: a bounded queue of many producers and consumers, between two threads.

use crate::slot::{POLL_LIMIT, Ring, Slot};
use bourdon_bench::{Failure, Link};
use crossbeam_queue::ArrayQueue;
use std::sync::Arc;

struct End<const N: usize> {
    outward: Arc<ArrayQueue<Slot<N>>>,
    inward: Arc<ArrayQueue<Slot<N>>>,
}

impl<const N: usize> Link for End<N> {
    fn try_send(&mut self, message: &[u8]) -> Result<bool, Failure> {
        Ok(self.outward.push(Slot::holding(message)).is_ok())
    }

    fn poll(&mut self, mut on_message: impl FnMut(&[u8])) -> Result<usize, Failure> {
        let mut count = 0;
        while count < POLL_LIMIT {
            let Some(slot) = self.inward.pop() else { break };
            on_message(slot.message());
            count += 1;
        }
        Ok(count)
    }
}

/// The kind of ring.
pub(crate) struct Crossbeam;

impl Ring for Crossbeam {
    const PACKAGE: &'static str = "crossbeam-queue";

    fn pair<const N: usize>() -> (impl Link + Send, impl Link + Send) {
        let (there, back) = (Arc::new(ArrayQueue::new(Slot::<N>::COUNT)), Arc::new(ArrayQueue::new(Slot::<N>::COUNT)));
        (End::<N> { outward: there.clone(), inward: back.clone() }, End { outward: back, inward: there })
    }
}
