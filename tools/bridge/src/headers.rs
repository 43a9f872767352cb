//! The headers of a message in a stream: where it stands in its group.
//!
//! The last message of a stream shows how far a bridge has come, so these are all the state that a bridge into a stream
//! has.

use async_nats::HeaderMap;
use std::fmt;

/// The group's instance, as 16 hexadecimal digits.
pub(crate) const INSTANCE: &str = "Bourdon-Instance";
/// The view in which the group delivered the message.
pub(crate) const EPOCH: &str = "Bourdon-Epoch";
/// Its number in the group's order.
pub(crate) const ORDER: &str = "Bourdon-Order";
/// Its publisher: rank, incarnation and sequence, with dots between.
pub(crate) const PUBLISHER: &str = "Bourdon-Publisher";
/// Its topic.
pub(crate) const TOPIC: &str = "Bourdon-Topic";
/// When it was published, in nanoseconds since 1970 by its publisher's clock.
pub(crate) const TIME: &str = "Bourdon-Time";
/// The run of the bridge that published it here.
pub(crate) const BRIDGE: &str = "Bourdon-Bridge";

/// The place of a message. A view may use order numbers again that became void in the view before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) instance: u64,
    pub(crate) epoch: u64,
    pub(crate) order: u64,
}

impl Place {
    /// The place in a message's headers; none if no bridge published it.
    pub(crate) fn of(headers: &HeaderMap) -> Option<Self> {
        let number = |name: &str, radix| u64::from_str_radix(headers.get(name)?.as_str(), radix).ok();
        Some(Self { instance: number(INSTANCE, 16)?, epoch: number(EPOCH, 10)?, order: number(ORDER, 10)? })
    }

    pub(crate) fn write(&self, headers: &mut HeaderMap) {
        headers.insert(INSTANCE, format!("{:016x}", self.instance));
        headers.insert(EPOCH, self.epoch.to_string());
        headers.insert(ORDER, self.order.to_string());
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "epoch {}, order number {}", self.epoch, self.order)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_comes_back_and_is_compared_by_view_first() {
        let place = Place { instance: u64::MAX - 7, epoch: 3, order: 4 };
        let mut headers = HeaderMap::new();
        place.write(&mut headers);
        assert_eq!(Place::of(&headers), Some(place));
        assert_eq!(Place::of(&HeaderMap::new()), None);
        assert!(place < Place { epoch: 4, order: 2, ..place });
    }
}
