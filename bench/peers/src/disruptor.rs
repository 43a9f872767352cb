//! `disruptor`: the ring of the LMAX Disruptor, one producer and one poller, between two threads.

use crate::slot::{POLL_LIMIT, Ring, Slot};
use ::disruptor::{
    BusySpin, EventPoller, Polling, Producer, SingleConsumerBarrier, SingleProducer, SingleProducerBarrier,
    build_single_producer,
};
use bourdon_bench::{Failure, Link};

struct End<const N: usize> {
    outward: SingleProducer<Slot<N>, SingleConsumerBarrier>,
    inward: EventPoller<Slot<N>, SingleProducerBarrier>,
}

impl<const N: usize> Link for End<N> {
    fn try_send(&mut self, message: &[u8]) -> Result<bool, Failure> {
        Ok(self.outward.try_publish(|slot| slot.fill(message)).is_ok())
    }

    fn poll(&mut self, mut on_message: impl FnMut(&[u8])) -> Result<usize, Failure> {
        match self.inward.take(POLL_LIMIT as u64) {
            Ok(mut slots) => {
                let mut count = 0;
                for slot in &mut slots {
                    on_message(slot.message());
                    count += 1;
                }
                Ok(count)
            }
            Err(Polling::NoEvents | Polling::Shutdown) => Ok(0),
        }
    }
}

/// The kind of ring.
pub(crate) struct Disruptor;

impl Ring for Disruptor {
    const PACKAGE: &'static str = "disruptor";

    fn pair<const N: usize>() -> (impl Link + Send, impl Link + Send) {
        let ((there, there_end), (back, back_end)) = (ring::<N>(), ring::<N>());
        (End { outward: there, inward: back_end }, End { outward: back, inward: there_end })
    }
}

fn ring<const N: usize>()
-> (SingleProducer<Slot<N>, SingleConsumerBarrier>, EventPoller<Slot<N>, SingleProducerBarrier>) {
    let (poller, builder) = build_single_producer(Slot::<N>::COUNT, Slot::<N>::empty, BusySpin).new_event_poller();
    (builder.build(), poller)
}
