//! The far end of round trips: sends every message back.
//!
//! Replies that the system has no room for wait in a buffer here, in order; a client that sends more than the echo can
//! send back makes the buffer grow, and its own times with it.

use crate::worker::Spec;
use crate::{Failure, Link, broken};

/// Replies that wait longer than this many bytes show that the replies can't keep up at all.
const WAITING_BYTES: usize = 256 << 20;
/// Replies sent between two polls at most: a system whose poll is late for too long counts as dead.
const BURST: usize = 1_024;
/// Replies sent are removed from the front of the buffer once they are this many bytes: rarely, for it is a copy.
const SENT_BYTES: usize = 4 << 20;

/// Sends every message back, until the harness ends this process.
pub(crate) fn serve(spec: &Spec, link: &mut impl Link) -> Result<(), Failure> {
    let size = spec.size_bytes as usize;
    let (mut replies, mut sent) = (Vec::new(), 0);
    loop {
        let mut other_size = None;
        let came = link.poll(|message| {
            if message.len() == size {
                replies.extend_from_slice(message);
            } else {
                other_size = Some(message.len());
            }
        })?;
        if let Some(length) = other_size {
            return Err(broken(format!("a message of {length} bytes arrived where messages of {size} were sent")));
        }
        let before = sent;
        let until = replies.len().min(sent + BURST * size);
        while sent < until && link.try_send(&replies[sent..sent + size])? {
            sent += size;
        }
        if sent > before {
            link.flush()?;
        }
        if came == 0 && sent == before {
            link.wait(spec.idle)?;
        }
        if sent == replies.len() || sent > SENT_BYTES {
            replies.drain(..sent);
            sent = 0;
        }
        if replies.len() > WAITING_BYTES {
            return Err(broken(format!("more than {WAITING_BYTES} bytes of replies wait: the echo can't keep up")));
        }
    }
}
