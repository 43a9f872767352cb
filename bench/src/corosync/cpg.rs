//! Corosync's closed process groups: the few calls of `libcpg` that a member needs.
//!
//! There is no Rust interface to this library that a build could rely on, and a build must not need it: a user
//! measuring without this peer need not have it. So the library is opened when it is first needed, and its calls are
//! declared here by hand after `corosync/cpg.h`. This is foreign code, hence the unsafe: it stays in this file, and the
//! interface of this file is safe.
//!
//! The library calls back within `cpg_dispatch`, in the same thread. The callbacks copy their arguments into an inbox
//! of the thread, and the caller reads it when the dispatch has returned: no pointer outlives its callback.
//!
//! Invariant: the functions are those of the library in the same struct, which is never closed before them.

#![allow(unsafe_code)]

use libloading::Library;
use std::cell::RefCell;
use std::ffi::{c_int, c_uint, c_void};
use std::io::IoSlice;
use std::os::fd::{BorrowedFd, RawFd};

/// The library's name, with the version of its interface.
const LIBRARY: &str = "libcpg.so.4";
const NAME_LENGTH: usize = 128;
/// Deliveries taken by one call: a client that only delivers would never send.
const DISPATCH_LIMIT: usize = 256;

const CS_OK: c_int = 1;
const CS_ERR_TRY_AGAIN: c_int = 6;
const CPG_TYPE_AGREED: c_int = 2;
const CPG_FLOW_CONTROL_ENABLED: c_int = 1;
const CS_DISPATCH_ONE_NONBLOCKING: c_int = 4;

#[repr(C)]
struct Name {
    length: u32,
    value: [u8; NAME_LENGTH],
}

type Deliver = unsafe extern "C" fn(u64, *const Name, u32, u32, *mut c_void, usize);
type Change = unsafe extern "C" fn(u64, *const Name, *const c_void, usize, *const c_void, usize, *const c_void, usize);

#[repr(C)]
struct Callbacks {
    deliver: Deliver,
    change: Change,
}

/// What the callbacks of this thread received since it was last read.
#[derive(Default)]
struct Inbox {
    /// The payloads, one behind the other.
    bytes: Vec<u8>,
    /// For each payload its sender's node id and where it ends.
    ends: Vec<(u32, usize)>,
    /// How many members the group has.
    members: usize,
}

thread_local! {
    static INBOX: RefCell<Inbox> = RefCell::default();
}

/// # Safety
/// `bytes` points to `length` readable bytes.
unsafe extern "C" fn on_deliver(_: u64, _: *const Name, node: u32, _: u32, bytes: *mut c_void, length: usize) {
    // SAFETY: the library passes a message of this length, which lives until the callback returns.
    let payload = unsafe { std::slice::from_raw_parts(bytes.cast::<u8>(), length) };
    INBOX.with_borrow_mut(|inbox| {
        inbox.bytes.extend_from_slice(payload);
        let end = inbox.bytes.len();
        inbox.ends.push((node, end));
    });
}

/// # Safety
/// None is needed: only a number is looked at. The type is the library's.
unsafe extern "C" fn on_change(
    _: u64,
    _: *const Name,
    _: *const c_void,
    members: usize,
    _: *const c_void,
    _: usize,
    _: *const c_void,
    _: usize,
) {
    INBOX.with_borrow_mut(|inbox| inbox.members = members);
}

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CpgError {
    #[error("can't load {LIBRARY}: {0}")]
    Missing(#[from] libloading::Error),
    #[error("{call} answers {code} (see corotypes.h)")]
    Refused { call: &'static str, code: c_int },
    #[error("can't wait for the corosync daemon: {0}")]
    Wait(#[from] rustix::io::Errno),
}

/// The library and its calls.
struct Calls {
    initialize: unsafe extern "C" fn(*mut u64, *const Callbacks) -> c_int,
    join: unsafe extern "C" fn(u64, *const Name) -> c_int,
    mcast_joined: unsafe extern "C" fn(u64, c_int, *const IoSlice<'_>, c_uint) -> c_int,
    dispatch: unsafe extern "C" fn(u64, c_int) -> c_int,
    fd_get: unsafe extern "C" fn(u64, *mut c_int) -> c_int,
    flow_control_state_get: unsafe extern "C" fn(u64, *mut c_int) -> c_int,
    finalize: unsafe extern "C" fn(u64) -> c_int,
    _library: Library,
}

impl Calls {
    fn load() -> Result<Self, CpgError> {
        // SAFETY: loading runs only the library's own and libqb's initialisation, which require nothing of this
        // program.
        let library = unsafe { Library::new(LIBRARY) }?;
        // SAFETY: the signatures are those of cpg.h for this version of the interface, which the name carries; the
        // pointers are kept beside the library.
        unsafe {
            Ok(Self {
                initialize: *library.get(b"cpg_initialize\0")?,
                join: *library.get(b"cpg_join\0")?,
                mcast_joined: *library.get(b"cpg_mcast_joined\0")?,
                dispatch: *library.get(b"cpg_dispatch\0")?,
                fd_get: *library.get(b"cpg_fd_get\0")?,
                flow_control_state_get: *library.get(b"cpg_flow_control_state_get\0")?,
                finalize: *library.get(b"cpg_finalize\0")?,
                _library: library,
            })
        }
    }
}

fn checked(call: &'static str, code: c_int) -> Result<(), CpgError> {
    if code == CS_OK { Ok(()) } else { Err(CpgError::Refused { call, code }) }
}

/// Whether the library is there.
pub(crate) fn is_there() -> Result<(), CpgError> {
    Calls::load().map(drop)
}

/// A member of a closed process group, through the daemon of its host.
pub(crate) struct Cpg {
    calls: Calls,
    handle: u64,
    fd: RawFd,
}

impl Drop for Cpg {
    fn drop(&mut self) {
        // SAFETY: the handle is open, and is not used afterwards.
        unsafe { (self.calls.finalize)(self.handle) };
    }
}

impl Cpg {
    /// Connects to the daemon and asks to join a group.
    pub(crate) fn join(group: &str) -> Result<Self, CpgError> {
        let (calls, mut handle) = (Calls::load()?, 0);
        let callbacks = Callbacks { deliver: on_deliver, change: on_change };
        // SAFETY: both pointers are good for the call; the library copies the callbacks.
        checked("cpg_initialize", unsafe { (calls.initialize)(&mut handle, &callbacks) })?;
        let mut cpg = Self { calls, handle, fd: -1 };
        let length = group.len().min(NAME_LENGTH);
        let mut name = Name { length: length as u32, value: [0; NAME_LENGTH] };
        name.value[..length].copy_from_slice(&group.as_bytes()[..length]);
        // SAFETY: the name is good for the call.
        checked("cpg_join", unsafe { (cpg.calls.join)(handle, &name) })?;
        // SAFETY: the pointer is good for the call.
        checked("cpg_fd_get", unsafe { (cpg.calls.fd_get)(handle, &mut cpg.fd) })?;
        Ok(cpg)
    }

    /// How many members the group has, as far as is known.
    pub(crate) fn members(&self) -> usize {
        INBOX.with_borrow(|inbox| inbox.members)
    }

    /// Multicasts in agreed order; false where the daemon can't take more now.
    pub(crate) fn try_multicast(&self, payload: &[u8]) -> Result<bool, CpgError> {
        let mut state = 0;
        // SAFETY: the pointer is good for the call.
        let code = unsafe { (self.calls.flow_control_state_get)(self.handle, &mut state) };
        checked("cpg_flow_control_state_get", code)?;
        if state == CPG_FLOW_CONTROL_ENABLED {
            return Ok(false);
        }
        let piece = IoSlice::new(payload); // the same in memory as an iovec
        // SAFETY: one piece of readable memory, good for the call, which copies it.
        match unsafe { (self.calls.mcast_joined)(self.handle, CPG_TYPE_AGREED, &piece, 1) } {
            CS_ERR_TRY_AGAIN => Ok(false),
            code => checked("cpg_mcast_joined", code).map(|()| true),
        }
    }

    /// Lets the library put arrived messages into the inbox.
    pub(crate) fn gather(&self) -> Result<(), CpgError> {
        for _ in 0..DISPATCH_LIMIT {
            // SAFETY: the handle is open; the callbacks are functions of this program and borrow nothing of the caller.
            match unsafe { (self.calls.dispatch)(self.handle, CS_DISPATCH_ONE_NONBLOCKING) } {
                CS_ERR_TRY_AGAIN => break,
                code => checked("cpg_dispatch", code)?,
            }
        }
        Ok(())
    }

    /// Delivers arrived messages, with their sender's node id; returns how many there were.
    pub(crate) fn dispatch(&self, mut on_delivery: impl FnMut(u32, &[u8])) -> Result<usize, CpgError> {
        self.gather()?;
        INBOX.with_borrow_mut(|inbox| {
            let mut start = 0;
            for (node, end) in &inbox.ends {
                on_delivery(*node, &inbox.bytes[start..*end]);
                start = *end;
            }
            let count = inbox.ends.len();
            inbox.bytes.clear();
            inbox.ends.clear();
            Ok(count)
        })
    }

    /// Sleeps until a message has arrived, at most this long.
    pub(crate) fn wait(&self, longest: std::time::Duration) -> Result<(), CpgError> {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        // SAFETY: the library keeps the descriptor open until the handle is finalised, which is when this is dropped.
        let fd = unsafe { BorrowedFd::borrow_raw(self.fd) };
        let longest = Timespec { tv_sec: longest.as_secs() as i64, tv_nsec: longest.subsec_nanos().into() };
        match poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&longest)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}
