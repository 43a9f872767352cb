//! The order of delivery of one view, and what it keeps.

use super::causal::Causal;
use super::realtime::RealTime;
use super::total::TotalOrder;
use super::unordered::Unordered;
use crate::config::{Config, Order};
use crate::view::{Beginning, View};
use bourdon_wire::OrderNumber;

#[derive(Debug)]
pub(crate) enum Ordering {
    Fifo,
    Unordered(Unordered),
    Causal(Causal),
    Total(TotalOrder),
    RealTime(RealTime),
}

impl Ordering {
    pub(super) fn new(config: &Config, view: &View, beginning: &Beginning) -> Self {
        let members = usize::from(config.members);
        match config.order {
            Order::Unordered => Self::Unordered(Unordered::default()),
            Order::Fifo => Self::Fifo,
            Order::Causal => Self::Causal(Causal::new(members)),
            Order::RealTime => Self::RealTime(RealTime::new(members)),
            Order::Total => Self::Total(TotalOrder::new(view.sequencer, beginning.order)),
        }
    }

    /// From which order number on nothing is delivered in this view.
    pub(crate) fn end(&self) -> OrderNumber {
        match self {
            Self::Total(total) => total.end,
            _ => OrderNumber(u64::MAX),
        }
    }

    /// The view has ended: in total order nothing is delivered from this number on.
    pub(crate) fn end_at(&mut self, end: OrderNumber) {
        if let Self::Total(total) = self {
            total.end = end;
        }
    }

    #[inline]
    pub(super) fn causal(&mut self) -> Option<&mut Causal> {
        match self {
            Self::Causal(causal) => Some(causal),
            _ => None,
        }
    }
}
