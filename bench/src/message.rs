//! What the ends write into a message, and what they learn from it: its number and a time.
//!
//! A system may lose messages, repeat them or change their order, and its figures are worthless if it does. So each
//! message carries its number, and each receiver counts. Times are read from the monotonic clock that all processes of
//! a host share.

/// What a message begins with: its number and a time.
const STAMP_BYTES: usize = 16;

/// Writes a message's number and time.
#[inline]
pub(crate) fn stamp(message: &mut [u8], number: u64, time_ns: u64) {
    message[..8].copy_from_slice(&number.to_le_bytes());
    message[8..STAMP_BYTES].copy_from_slice(&time_ns.to_le_bytes());
}

/// Reads a message's number and time; `None` if it is too short to be one of the harness.
#[inline]
pub(crate) fn read(message: &[u8]) -> Option<(u64, u64)> {
    let (number, rest) = message.split_first_chunk()?;
    let (time, _) = rest.split_first_chunk()?;
    Some((u64::from_le_bytes(*number), u64::from_le_bytes(*time)))
}

/// The messages of one sender, as they arrive.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Arrivals {
    /// The number after the highest that has arrived.
    pub(crate) expected: u64,
    pub(crate) received: u64,
    /// Messages that arrived after a later one, or twice.
    pub(crate) out_of_order: u64,
}

impl Arrivals {
    /// Counts the message of this number.
    #[inline]
    pub(crate) fn take(&mut self, number: u64) {
        self.out_of_order += u64::from(number < self.expected);
        self.expected = self.expected.max(number + 1);
        self.received += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_read_as_it_was_stamped() {
        let mut message = [7; 20];
        stamp(&mut message, 3, u64::MAX);
        assert_eq!(read(&message), Some((3, u64::MAX)));
        assert_eq!(read(&message[..15]), None);
    }

    #[test]
    fn a_message_that_is_late_or_arrives_twice_is_counted() {
        let mut arrivals = Arrivals::default();
        for number in [0, 1, 4, 2, 4, 5] {
            arrivals.take(number);
        }
        assert_eq!(arrivals, Arrivals { expected: 6, received: 6, out_of_order: 2 });
    }
}
