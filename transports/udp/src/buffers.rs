//! Buffers lent to the kernel, which picks one for each packet that comes.
//!
//! A receive that names its own buffer must be set up again for each packet. A buffer ring is memory shared with the
//! kernel: this side appends buffers at the tail, the kernel takes them at the head, and one request goes on receiving
//! as long as there are any. The kernel keeps its head to itself, so that only the tail is ever published here.
//!
//! Packets queue in the socket, not here: the buffers only have to cover what one system call hands over. Few are
//! better than many, because a buffer just read is still in the cache when it is filled again.
//!
//! Invariants:
//! - Each buffer is either lent to the kernel or in one completion, never both, and goes back once.
//! - The memory outlives the ring it is lent to: see the order of fields in `ring.rs`.
//!
//! Source: `io_uring_register_buf_ring`(3), `io_uring_setup_buf_ring`(3).

use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::IoUring;
use io_uring::types::BufRingEntry;
use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};

use crate::message::CONTROL_BYTES;
use crate::receive::PACKET_MAX_BYTES;

/// The kernel's own header, control messages, then the packet; up to a cache line.
const BUFFER_BYTES: usize = (16 + CONTROL_BYTES + PACKET_MAX_BYTES).next_multiple_of(64);

/// The ring's entries come first, the buffers after this many bytes: keeps both page-aligned.
const ENTRIES_BYTES: usize = 4096;

/// One buffer ring and its buffers.
#[derive(Debug)]
pub(crate) struct Buffers {
    memory: NonNull<u8>,
    /// A power of two, as the kernel wants it.
    count: u16,
    /// Counts the buffers lent since the start; wraps.
    tail: u16,
}

// SAFETY: the mapping belongs to this value alone and is not tied to a thread; the kernel does not care which thread
// publishes the tail.
unsafe impl Send for Buffers {}

impl Buffers {
    /// Registers `count` buffers, all lent, as `group` of `ring`.
    pub(crate) fn register(ring: &IoUring, group: u16, count: u16) -> io::Result<Self> {
        assert!(count.is_power_of_two() && usize::from(count) * size_of::<BufRingEntry>() <= ENTRIES_BYTES);
        let length = Self::mapping_bytes(count);
        // SAFETY: a fresh private mapping at an address of the kernel's choice overlaps nothing.
        let memory = unsafe {
            mmap_anonymous(std::ptr::null_mut(), length, ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE)
        }?;
        let memory = NonNull::new(memory.cast::<u8>()).expect("a mapping is never at address 0");
        let mut buffers = Self { memory, count, tail: 0 };
        // SAFETY: the entries lie at the start of the mapping, page-aligned, with room for `count` of them; the caller
        // keeps the mapping until the ring has ended.
        unsafe { ring.submitter().register_buf_ring_with_flags(memory.as_ptr() as u64, count, group, 0) }?;
        for id in 0..count {
            buffers.write_entry(id);
        }
        buffers.publish();
        Ok(buffers)
    }

    fn mapping_bytes(count: u16) -> usize {
        ENTRIES_BYTES + usize::from(count) * BUFFER_BYTES
    }

    /// The buffer `id`, which the kernel has filled with `length` bytes and not got back yet.
    pub(crate) fn filled(&self, id: u16, length: usize) -> &[u8] {
        assert!(id < self.count && length <= BUFFER_BYTES, "the kernel names buffers it was lent");
        // SAFETY: the buffer lies within the mapping by the assertion and is initialised, since fresh mappings are
        // zero. The kernel gave it back by the completion that names it and does not write to it before `lend`, which
        // needs `&mut self` and so ends this borrow.
        unsafe { std::slice::from_raw_parts(self.buffer(id), length) }
    }

    /// Gives buffer `id` back to the kernel.
    pub(crate) fn lend(&mut self, id: u16) {
        assert!(id < self.count);
        self.write_entry(id);
        self.publish();
    }

    fn buffer(&self, id: u16) -> *const u8 {
        // SAFETY: `id` is below `count`, as all callers check, so the offset stays within the mapping.
        unsafe { self.memory.as_ptr().add(ENTRIES_BYTES + usize::from(id) * BUFFER_BYTES) }
    }

    fn write_entry(&mut self, id: u16) {
        let slot = usize::from(self.tail & (self.count - 1));
        let address = self.buffer(id) as u64;
        // SAFETY: `slot` is below `count`, so the entry lies within the mapping, aligned, since its start is
        // page-aligned. The kernel reads it only once the tail has passed it, and at most `count` are lent at a time,
        // so it has been read before. The entry is plain data and was zero to begin with.
        let entry = unsafe { &mut *self.memory.cast::<BufRingEntry>().as_ptr().add(slot) };
        entry.set_addr(address);
        entry.set_len(BUFFER_BYTES as u32);
        entry.set_bid(id);
        self.tail = self.tail.wrapping_add(1);
    }

    fn publish(&self) {
        // SAFETY: the mapping's start is the first entry of the ring, initialised as a fresh mapping is; the tail lies
        // in its reserved field, aligned for u16, and is written by this thread alone while the kernel reads it.
        let tail = unsafe { AtomicU16::from_ptr(BufRingEntry::tail(self.memory.cast().as_ptr()).cast_mut()) };
        // Release pairs with the kernel's acquire of the tail: it sees the entries written before.
        tail.store(self.tail, Ordering::Release);
    }
}

impl Drop for Buffers {
    fn drop(&mut self) {
        // SAFETY: this is the whole mapping made in `register`. The ring it was lent to has ended before (the order of
        // fields in `ring.rs`), and a ring that has ended cancels its requests without touching their buffers.
        let _ = unsafe { munmap(self.memory.as_ptr().cast(), Self::mapping_bytes(self.count)) };
    }
}
