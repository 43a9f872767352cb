//! The ranges of counts, times and sizes: a value outside its range is refused by name.
//!
//! A time of zero makes a busy loop of heartbeats or requests, and a time of years wraps when it is added to the clock;
//! a limit of zero refuses everything that it bounds, much later and without its name.

use super::SettingsError;

/// No time of the protocol is longer: a longer one is a mistaken unit.
pub(super) const HOUR_NS: u64 = 3_600_000_000_000;

/// Whether a value is in its range.
pub(super) fn in_range<T: Into<u64>>(what: &'static str, value: T, least: T, most: T) -> Result<(), SettingsError> {
    let (value, least, most) = (value.into(), least.into(), most.into());
    if (least..=most).contains(&value) { Ok(()) } else { Err(SettingsError::Range { what, value, least, most }) }
}

/// Whether a size is at most its bound.
pub(super) fn is_at_most(what: &'static str, bytes: usize, most: usize) -> Result<(), SettingsError> {
    if bytes <= most { Ok(()) } else { Err(SettingsError::TooLarge { what, bytes, most }) }
}
