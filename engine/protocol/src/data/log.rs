//! The log of one stream: its datagrams stay where they were first written.
//!
//! The same bytes are needed many times: to send, to retransmit, to hold back until their turn, to deliver. Copying
//! them from queue to queue costs more than everything else the engine does. So a stream has one log, a ring of slots
//! as long as a datagram: the sender packs messages straight into its slot, the receiver copies a datagram once from
//! the kernel's buffer into its slot, and every later use borrows it from there. Slots are adjacent, so that a run of
//! them is one piece of memory that segmentation offload takes as it is.
//!
//! Invariant: slot `number mod capacity` holds that datagram or an older one of the same residue; a lookup of a number
//! never returns the bytes of another.

use alloc::vec;
use alloc::vec::Vec;
use bourdon_wire::DatagramNumber;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Slot {
    /// The datagram it holds; `u64::MAX` for none.
    number: u64,
    /// When the kernel received it, in nanoseconds since the UNIX epoch; 0 if unknown.
    pub(crate) kernel_receive_ns: u64,
    length: u16,
    /// How many messages end in it.
    pub(crate) messages: u16,
    /// Its whole messages were delivered ahead of their turn (unordered).
    pub(crate) delivered_early: bool,
}

/// The smallest page size: touching one byte in each page maps all of them.
const PAGE_BYTES: usize = 4096;

/// What a datagram with one short message takes, wherever its slot begins in a cache line.
const SHORT_BYTES: usize = 192;
const LINE_BYTES: usize = 64;

#[derive(Debug)]
pub(crate) struct Log {
    bytes: Vec<u8>,
    slots: Vec<Slot>,
    mtu: usize,
}

impl Log {
    /// A log of `slots` datagrams (a power of two) of at most `mtu` bytes.
    pub(crate) fn new(mtu: usize, slots: usize, prefault: bool) -> Self {
        assert!(slots.is_power_of_two() && mtu <= usize::from(u16::MAX), "the configuration was checked");
        let empty = Slot { number: u64::MAX, kernel_receive_ns: 0, length: 0, messages: 0, delivered_early: false };
        let mut bytes = vec![0; mtu * slots];
        if prefault {
            // The allocator returns zeroed memory that is not mapped yet.
            bytes.chunks_mut(PAGE_BYTES).for_each(|page| page[0] = core::hint::black_box(0));
        }
        Self { bytes, slots: vec![empty; slots], mtu }
    }

    /// Clears everything: the same memory for another stream.
    pub(crate) fn clear(&mut self) {
        self.slots.iter_mut().for_each(|slot| slot.number = u64::MAX);
    }

    pub(crate) fn capacity(&self) -> u64 {
        self.slots.len() as u64
    }

    #[inline]
    fn index(&self, number: DatagramNumber) -> usize {
        number.0 as usize & (self.slots.len() - 1)
    }

    #[inline]
    pub(crate) fn slot(&self, number: DatagramNumber) -> Option<&Slot> {
        Some(&self.slots[self.index(number)]).filter(|slot| slot.number == number.0)
    }

    #[inline]
    pub(crate) fn slot_mut(&mut self, number: DatagramNumber) -> Option<&mut Slot> {
        let index = self.index(number);
        Some(&mut self.slots[index]).filter(|slot| slot.number == number.0)
    }

    #[inline]
    pub(crate) fn holds(&self, number: DatagramNumber) -> bool {
        self.slots[self.index(number)].number == number.0
    }

    /// A datagram's bytes, if it is still here.
    #[inline]
    pub(crate) fn get(&self, number: DatagramNumber) -> Option<&[u8]> {
        self.entry(number).map(|(_, bytes)| bytes)
    }

    /// A datagram's slot and bytes, if it is still here.
    #[inline]
    pub(crate) fn entry(&self, number: DatagramNumber) -> Option<(&Slot, &[u8])> {
        let index = self.index(number);
        let slot = &self.slots[index];
        let start = index * self.mtu;
        debug_assert!(usize::from(slot.length) <= self.mtu, "a slot holds one datagram");
        (slot.number == number.0).then(|| (slot, &self.bytes[start..start + usize::from(slot.length)]))
    }

    /// The whole of a number's slot, whatever it held before.
    #[inline(always)]
    pub(crate) fn space(&mut self, number: DatagramNumber) -> &mut [u8] {
        let start = self.index(number) * self.mtu;
        &mut self.bytes[start..start + self.mtu]
    }

    /// Reads the cache lines that a number's datagram will take if it is short, so that they are near when it comes.
    pub(crate) fn warm(&self, number: DatagramNumber) {
        let index = self.index(number);
        let lines = self.bytes[index * self.mtu..][..SHORT_BYTES.min(self.mtu)].iter().step_by(LINE_BYTES);
        lines.for_each(|byte| _ = core::hint::black_box(*byte));
        core::hint::black_box(self.slots[index].number);
    }

    /// Copies a datagram into its slot.
    #[inline]
    pub(crate) fn put(&mut self, number: DatagramNumber, bytes: &[u8], messages: u16, kernel_receive_ns: u64) {
        let start = self.index(number) * self.mtu;
        self.bytes[start..start + bytes.len()].copy_from_slice(bytes);
        self.fill(number, bytes.len(), messages, kernel_receive_ns);
    }

    /// Records what a number's slot now holds.
    #[inline]
    pub(crate) fn fill(&mut self, number: DatagramNumber, length: usize, messages: u16, kernel_receive_ns: u64) {
        let index = self.index(number);
        let before = self.slots[index].number;
        debug_assert!(before == u64::MAX || before <= number.0, "{number} would replace {before}, which is newer");
        debug_assert!(length > 0, "a datagram has a header");
        debug_assert!(length <= self.mtu && number.0 != u64::MAX, "the largest number marks an empty slot");
        self.slots[index] =
            Slot { number: number.0, kernel_receive_ns, length: length as u16, messages, delivered_early: false };
    }

    /// The datagrams from `first` up to `end` that one send can take: a run of full datagrams, the last one perhaps
    /// shorter, adjacent in memory. Returns how many they are as well.
    #[inline]
    pub(crate) fn run(&self, first: DatagramNumber, end: DatagramNumber) -> (&[u8], usize) {
        debug_assert!(first < end && self.holds(first), "a run is of datagrams that are here");
        let start = self.index(first);
        let most = (end.since(first) as usize).min(self.slots.len() - start);
        let (mut bytes, mut count) = (0, 0);
        for slot in &self.slots[start..start + most] {
            (bytes, count) = (bytes + usize::from(slot.length), count + 1);
            if usize::from(slot.length) != self.mtu {
                break;
            }
        }
        let mut numbers = (first.0..end.0).take(count);
        debug_assert!(numbers.all(|number| self.holds(DatagramNumber(number))), "a run has no gap");
        (&self.bytes[start * self.mtu..start * self.mtu + bytes], count)
    }

    /// The same datagrams in a log that is as small as they allow; `None` if that would not be smaller.
    pub(crate) fn refit(&self) -> Option<Self> {
        let numbers = || self.slots.iter().map(|slot| slot.number).filter(|number| *number != u64::MAX);
        // Room for the next datagram: what is retained is counted from there.
        let span = numbers().max().map_or(0, |newest| newest - numbers().min().unwrap_or(newest) + 3);
        let slots = usize::try_from(span).unwrap_or(usize::MAX).checked_next_power_of_two()?;
        if slots >= self.slots.len() {
            return None;
        }
        let mut log = Self::new(self.mtu, slots, false);
        for slot in self.slots.iter().filter(|slot| slot.number != u64::MAX) {
            let number = DatagramNumber(slot.number);
            let bytes = self.get(number)?;
            log.space(number)[..bytes.len()].copy_from_slice(bytes);
            let index = log.index(number);
            assert!(log.slots[index].number == u64::MAX, "the smaller log has a slot for each datagram");
            log.slots[index] = *slot;
        }
        Some(log)
    }

    /// The bytes that it takes.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes.len() + Self::slot_bytes(self.slots.len())
    }

    /// The bytes that the slots of a log take besides the datagrams.
    pub(crate) const fn slot_bytes(slots: usize) -> usize {
        slots * size_of::<Slot>()
    }

    pub(crate) fn mtu(&self) -> usize {
        self.mtu
    }
}
