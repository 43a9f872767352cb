//! The order of delivery of one view, and what it keeps.

use super::causal::Causal;
use super::realtime::RealTime;
use super::total::TotalOrder;
use super::unordered::Unordered;
use crate::config::{Config, Order};
use crate::view::{Beginning, View};

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

    #[inline]
    pub(super) fn causal(&mut self) -> Option<&mut Causal> {
        match self {
            Self::Causal(causal) => Some(causal),
            _ => None,
        }
    }
}
