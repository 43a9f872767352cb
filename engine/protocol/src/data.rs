//! The data plane: every message passes through it. One protocol, one file; only [`pipeline`] connects them.

use bourdon_wire::ChannelId;

pub mod after;
pub(crate) mod barrier;
pub(crate) mod behind;
pub(crate) mod bucket;
pub(crate) mod causal;
pub(crate) mod cursor;
pub(crate) mod cut;
pub(crate) mod durable;
pub(crate) mod epoch_state;
pub(crate) mod fifo;
pub(crate) mod flow;
pub(crate) mod gates;
pub(crate) mod log;
pub(crate) mod loose;
pub(crate) mod loss;
pub(crate) mod ordering;
pub(crate) mod own_stream;
pub(crate) mod pacing;
pub mod pack;
pub(crate) mod pipeline;
pub(crate) mod publish;
pub(crate) mod realtime;
pub(crate) mod repair;
pub(crate) mod sequencer;
pub(crate) mod stability;
pub(crate) mod stream;
pub(crate) mod total;
pub(crate) mod unordered;
pub(crate) mod window;

/// The only channel so far.
pub(crate) const DATA_CHANNEL: ChannelId = ChannelId(0);
