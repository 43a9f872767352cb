//! Why nothing more comes from a node.

use std::sync::{Arc, OnceLock};

/// The node has ended, and all that it delivered was handed out.
///
/// ```
/// # use bourdon::*;
/// # fn show(prices: &mut Subscription) {
/// match prices.next(Deadline::NEVER) {
///     Err(Closed::PortFailed { why }) => eprintln!("open another node: {why}"),
///     Err(closed) => println!("{closed}"),
///     Ok(_) => {}
/// }
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Closed {
    /// It was closed, dropped, or stopped by a request on its admin socket.
    #[error("the node has ended: it was closed or dropped, or stopped on its admin socket")]
    Ended,
    /// Its port failed: the text gives the reason and what to do. Mend that, and open another node.
    #[error("the node has ended, because its port failed: {why}; mend that, and open another node")]
    PortFailed {
        /// The port's error.
        why: Box<str>,
    },
    /// One of its threads has panicked: a bug of Bourdon. [`Node::close`](crate::Node::close) passes the panic on.
    #[error("the node has ended by a panic of one of its threads, which is a bug of Bourdon: open another node")]
    Panicked,
}

/// Why a node has ended; a clone is the same. One that has ended without a reason has panicked.
#[derive(Clone, Debug, Default)]
pub(crate) struct WhyClosed(Arc<OnceLock<Closed>>);

impl WhyClosed {
    /// Gives the reason; the first one holds.
    pub(crate) fn set(&self, why: Closed) {
        let _ = self.0.set(why);
    }

    /// The reason, of a node that has ended.
    #[cold]
    pub(crate) fn get(&self) -> Closed {
        self.0.get().cloned().unwrap_or(Closed::Panicked)
    }
}
