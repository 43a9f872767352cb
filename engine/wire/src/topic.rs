//! Names of topics, as they travel with messages.
//!
//! A topic is sent as 16 bits of its name's hash. That is enough to select a topic whose name the receiver knows, and
//! useless to a receiver that selects names by a pattern, and two names may share it. So a message may carry its name.
//! Every message carries it by itself: then a late joiner, a lost datagram, a repair and a fragment need no table, no
//! request and no bound (`docs/decisions/names-travel-with-messages.md`).
//!
//! Invariants: a [`TopicName`] is 1 to [`NAME_MAX_BYTES`] bytes of parts joined by dots; no part is empty; no character
//! is a blank, a control character, or a character that patterns use. [`Frames::check`](crate::Frames::check) accepts
//! no other.

use crate::TopicId;
use core::fmt;

/// The longest name: three or four parts of ordinary length, and small beside a datagram.
pub const NAME_MAX_BYTES: usize = 64;

/// A topic's name; locks and elections have names of the same kind.
///
/// ```
/// # mod bourdon { pub mod id { pub use bourdon_wire::*; } }
/// use bourdon::id::TopicName;
///
/// let name = TopicName::new("md.es.trades")?;
/// assert_eq!((name.as_str(), name.wire_bytes()), ("md.es.trades", 13));
/// # Ok::<(), bourdon_wire::NameError>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicName {
    length: u8,
    /// Zero after the name.
    bytes: [u8; NAME_MAX_BYTES],
}

/// Why a name is not valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NameError {
    /// It is empty, or so many bytes long: shorten it.
    #[error("a name has 1 to {NAME_MAX_BYTES} bytes, not {0}")]
    Length(usize),
    /// Two dots stand together, or one at an end: remove it.
    #[error("a name is parts joined by dots, and no part is empty: md.es.trades")]
    EmptyPart,
    /// It has this character: replace it.
    #[error("{0:?} can't stand in a name: blanks, control characters, `*` and `>` can't")]
    Character(char),
}

impl TopicName {
    /// A name, if the text is valid.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn new(name: &str) -> Result<Self, NameError> {
        check_name(name)?;
        let mut bytes = [0; NAME_MAX_BYTES];
        bytes[..name.len()].copy_from_slice(name.as_bytes());
        Ok(Self { length: name.len() as u8, bytes })
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        let bytes = self.bytes.get(..usize::from(self.length)).unwrap_or_default();
        core::str::from_utf8(bytes).unwrap_or_default() // made from a str
    }

    /// The id of the name.
    pub fn id(&self) -> TopicId {
        TopicId::of(self.as_str())
    }

    /// How much longer a message is with the name.
    pub fn wire_bytes(&self) -> usize {
        1 + usize::from(self.length)
    }

    /// Writes it as `split_name` reads it: [`TopicName::wire_bytes`] bytes.
    ///
    /// # Panics
    /// If there is no room: a bug of the caller.
    pub fn write(&self, space: &mut [u8]) {
        let (length, rest) = space.split_at_mut(1);
        length[0] = self.length;
        rest[..usize::from(self.length)].copy_from_slice(&self.bytes[..usize::from(self.length)]);
    }
}

impl fmt::Debug for TopicName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TopicName({:?})", self.as_str())
    }
}

impl fmt::Display for TopicName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl core::str::FromStr for TopicName {
    type Err = NameError;

    fn from_str(name: &str) -> Result<Self, NameError> {
        Self::new(name)
    }
}

/// Whether a text is a topic's name.
///
/// # Errors
/// What is wrong with it.
pub fn check_name(name: &str) -> Result<(), NameError> {
    if name.is_empty() || name.len() > NAME_MAX_BYTES {
        return Err(NameError::Length(name.len()));
    }
    let is_strange = |c: &char| c.is_whitespace() || c.is_control() || *c == '*' || *c == '>';
    if let Some(character) = name.chars().find(is_strange) {
        return Err(NameError::Character(character));
    }
    if name.split('.').any(str::is_empty) { Err(NameError::EmptyPart) } else { Ok(()) }
}

/// The name at the start of `bytes`, behind its length, and what follows it. Whether the name is valid is not checked.
#[inline]
pub fn split_name(bytes: &[u8]) -> Option<(&str, &[u8])> {
    let (length, rest) = bytes.split_first()?;
    let (name, rest) = rest.split_at_checked(usize::from(*length))?;
    Some((core::str::from_utf8(name).ok()?, rest))
}

/// Whether a name that came with a message may be delivered: it is valid, and its id is the message's.
pub(crate) fn is_honest(name: &str, topic: TopicId) -> bool {
    check_name(name).is_ok() && TopicId::of(name) == topic
}
