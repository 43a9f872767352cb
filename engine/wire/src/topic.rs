//! Names of topics, as they travel with messages.
//!
//! A topic is sent as 16 bits of its name's hash. That is enough to select a topic whose name the receiver knows, and
//! useless to a receiver that selects names by a pattern, and two names may share it. So a message may carry its name.
//! Every message carries it by itself: then a late joiner, a lost datagram, a repair and a fragment need no table, no
//! request and no bound (`docs/decisions/names-travel-with-messages.md`).
//!
//! Invariants: a [`TopicName`] is 1 to [`NAME_MAX_BYTES`] bytes of parts joined by dots; no part is empty; no character
//! is a blank, a control character, invisible, or a character that patterns use.
//! [`Frames::check`](crate::Frames::check) accepts no other.

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
    /// It has a character that a reader can't see, or that turns the text around it: remove it.
    #[error(
        "character {place} of the name is U+{:04X}: a name has no control characters, no invisible characters and none \
         that change the direction of text; remove it", u32::from(*.character)
    )]
    Hidden {
        /// The character.
        character: char,
        /// How many characters stand in front of it, plus one.
        place: usize,
    },
}

/// Invisible characters, and those that change the direction of text: two names that differ by one of them look alike.
/// These are general category Cf and the property `Default_Ignorable_Code_Point` of Unicode 16
/// (`DerivedCoreProperties.txt`), which UTS #39 and #55 keep out of identifiers, and the blank Braille pattern.
const HIDDEN: [(char, char); 26] = [
    ('\u{ad}', '\u{ad}'),
    ('\u{34f}', '\u{34f}'),
    ('\u{600}', '\u{605}'),
    ('\u{61c}', '\u{61c}'),
    ('\u{6dd}', '\u{6dd}'),
    ('\u{70f}', '\u{70f}'),
    ('\u{890}', '\u{891}'),
    ('\u{8e2}', '\u{8e2}'),
    ('\u{115f}', '\u{1160}'),
    ('\u{17b4}', '\u{17b5}'),
    ('\u{180b}', '\u{180f}'),
    ('\u{200b}', '\u{200f}'),
    ('\u{2028}', '\u{202e}'),
    ('\u{2060}', '\u{206f}'),
    ('\u{2800}', '\u{2800}'),
    ('\u{3164}', '\u{3164}'),
    ('\u{fe00}', '\u{fe0f}'),
    ('\u{feff}', '\u{feff}'),
    ('\u{ffa0}', '\u{ffa0}'),
    ('\u{fff0}', '\u{fffb}'),
    ('\u{110bd}', '\u{110bd}'),
    ('\u{110cd}', '\u{110cd}'),
    ('\u{13430}', '\u{1343f}'),
    ('\u{1bca0}', '\u{1bca3}'),
    ('\u{1d173}', '\u{1d17a}'),
    ('\u{e0000}', '\u{e0fff}'),
];

fn is_hidden(character: char) -> bool {
    let is_listed = || HIDDEN.iter().any(|(first, last)| (*first..=*last).contains(&character));
    character.is_control() || character >= HIDDEN[0].0 && is_listed()
}

/// Whether a text has no character that a reader can't see or that turns the text around it.
///
/// # Errors
/// The first such character and its place.
pub fn check_visible(text: &str) -> Result<(), NameError> {
    let found = (1..).zip(text.chars()).find(|(_, character)| is_hidden(*character));
    found.map_or(Ok(()), |(place, character)| Err(NameError::Hidden { character, place }))
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
    check_visible(name)?;
    let is_strange = |c: &char| c.is_whitespace() || *c == '*' || *c == '>';
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
