//! After: a message waits for a message of another group.
//!
//! Groups are independent: a process may deliver a fill on `trades` before the order on `orders` that it fills,
//! although the sender of the fill had delivered the order first. If the engine guessed such dependencies, every
//! channel would wait for every other, so the sender states them: a message may name one message of another group
//! ([`MessageName`]), and a process that takes part in both groups delivers it, and what its order puts behind it, only
//! after the named message.
//!
//! The caller that runs a process knows the other groups. It gives the process a function that returns whether a named
//! message has *passed*. The process calls that function at each attempt to deliver, so it stores no state of other
//! groups that could be full or stale. It calls the function only for a frame in which a message begins, and only if
//! the frame has the extension.
//!
//! Nothing waits for ever. A named message counts as passed where this process takes no part in that group or cannot go
//! on in it, and where that group is in a later view or the rank is not in it
//! ([`Process::has_passed`](crate::Process::has_passed)). At the end of its own view a message waits for no other
//! group, because a view change must not depend on another group: the dependency is given up.
//!
//! Invariant: while its view goes on, no message is delivered before a message that it names, where both are delivered.

use bourdon_wire::{Frame, MessageName, flags};

/// Returns whether a message of another group need not be waited for any longer.
pub type Satisfied<'a> = &'a dyn Fn(&MessageName) -> bool;

/// For a process that waits for no other group.
pub(crate) fn always(_: &MessageName) -> bool {
    true
}

/// Whether a message begins in this frame that must come after another message which has not passed.
#[inline]
pub(crate) fn is_held(frame: &Frame<'_>, passed: Satisfied<'_>) -> bool {
    const BEGINS: u16 = flags::FIRST | flags::AFTER;
    frame.flags & (flags::KIND | BEGINS) == BEGINS
        && frame.data().and_then(|head| head.after).is_some_and(|name| !passed(&name))
}
