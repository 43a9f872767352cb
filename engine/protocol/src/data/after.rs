//! After: a message waits for one of another group.
//!
//! Groups know nothing of each other: a fill on `trades` may be shown before the order on `orders` that it fills, though
//! whoever published the fill had been shown the order. Guessing at such ties would make every channel wait for every other,
//! so they are said: a message may name one message of another group ([`MessageName`]), and a process that takes part in
//! both groups delivers it, and what its order puts behind it, only after that one.
//!
//! Who runs a process knows the others; the process is told by a function whether a name has *passed*, asked each time
//! anew, so nothing is kept here that could be full or stale. Only the frame in which a message begins is asked about, and
//! where no frame has the extension nothing is asked.
//!
//! Nothing waits for ever: a name has passed where this process takes no part in that group or cannot go on in it, where
//! that group is in a later view or the rank is not in it ([`Process::has_passed`](crate::Process::has_passed)); and at the
//! end of its own view a message waits for nobody, because a view change must not hang on another group. There the tie is
//! given up.
//!
//! Invariant: while its view goes on, no message is delivered before one that it names, where both are delivered.

use super::pipeline::Pipeline;
use bourdon_wire::{Frame, MessageName, flags};

/// Says of a message of another group whether it need not be waited for any longer.
pub type Passed<'a> = &'a dyn Fn(&MessageName) -> bool;

/// For who waits for nothing.
pub(crate) fn always(_: &MessageName) -> bool {
    true
}

/// Whether a message begins in this frame that is to come after another which has not passed.
#[inline]
pub(crate) fn is_held(frame: &Frame<'_>, passed: Passed<'_>) -> bool {
    const BEGINS: u16 = flags::FIRST | flags::AFTER;
    frame.flags & (flags::KIND | BEGINS) == BEGINS
        && frame.data().and_then(|head| head.after).is_some_and(|name| !passed(&name))
}

impl Pipeline {
    /// Whether the next message of some stream waits for another group.
    pub(crate) fn waits_elsewhere(&self) -> bool {
        self.end.is_open() && self.streams.iter().any(|stream| stream.waits_elsewhere)
    }
}
