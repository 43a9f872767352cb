//! Which messages a subscriber wants: by topic, by prefix, by pattern.
//!
//! A subscriber to "all trades" can't name them, and can't hash what it can't name. So patterns are matched with names:
//! with the one that the message carries, if it was published by name, else with the one that `group.topics` gives to
//! its id, else with the one that the subscriber itself has named. A message whose name is unknown matches nothing.
//!
//! The grammar, all of it: a pattern is a topic's name in which a part may be `*`, which stands for exactly one part,
//! and the last part may be `**`, which stands for one part or more. `md.es.trades` is exact, `md.**` a prefix,
//! `md.*.trades` a wildcard, `**` everything. Not `>`, as others write it: unquoted, every shell takes that for a
//! redirection.
//!
//! Invariant: a subscriber that named a topic gets no message that carries another name, though both have one id. It
//! learns of such a namesake ([`Verdict::Namesake`]), because messages without names can't be distinguished.
//!
//! Bound: a name for each of the 65,536 ids at most, since `group.topics` may name none twice.

use bourdon_protocol::Message;
use bourdon_wire::{NameError, TopicId, check_name};
use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;

/// Which topics are meant.
///
/// ```
/// use bourdon::topics::Pattern;
///
/// let trades = Pattern::new("md.*.trades")?;
/// assert!(trades.matches("md.es.trades") && !trades.matches("md.trades"));
/// assert!(Pattern::new("md.**")?.matches("md.es.trades"));
/// # Ok::<(), bourdon::error::PatternError>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Pattern(Kind);

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Kind {
    /// Whatever has this id.
    Id(TopicId),
    /// One name, and its id.
    Exact(String, TopicId),
    /// A name with `*` or `**` among its parts.
    Wild(String),
}

/// Why a text is no pattern.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PatternError {
    /// A part of it has a form that no topic's name has: see [`NameError`].
    #[error("{pattern:?} is no pattern: {source}")]
    Name {
        /// The text.
        pattern: String,
        /// What is wrong with it.
        source: NameError,
    },
    /// A wildcard stands for a part of a part: give it the whole part.
    #[error("{0:?} is no pattern: `*` and `**` stand for whole parts, as in md.*.trades")]
    PartOfPart(String),
    /// Something follows `**`: put it at the end.
    #[error("{0:?} is no pattern: `**` stands for all the rest, so nothing can follow it")]
    NotLast(String),
    /// It has the wildcard `>` of other systems: write `**`.
    #[error("{0:?} is no pattern: write `**` for one part or more at the end, as in md.**")]
    Greater(String),
}

impl Pattern {
    /// Reads a pattern.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn new(pattern: &str) -> Result<Self, PatternError> {
        let owned = || pattern.to_owned();
        if pattern.contains('>') {
            return Err(PatternError::Greater(owned()));
        }
        let mut is_wild = false;
        for part in pattern.split('.') {
            match part {
                "*" | "**" => is_wild = true,
                part if part.contains('*') => return Err(PatternError::PartOfPart(owned())),
                _ => {}
            }
        }
        if pattern.split('.').rev().skip(1).any(|part| part == "**") {
            return Err(PatternError::NotLast(owned()));
        }
        // What is left must be a name once its wildcards are letters.
        let name = pattern.replace('*', "x");
        check_name(&name).map_err(|source| PatternError::Name { pattern: owned(), source })?;
        Ok(Self(if is_wild { Kind::Wild(owned()) } else { Kind::Exact(owned(), TopicId::of(pattern)) }))
    }

    /// Whether a topic of this name is meant.
    pub fn matches(&self, name: &str) -> bool {
        match &self.0 {
            Kind::Id(id) => TopicId::of(name) == *id,
            Kind::Exact(exact, _) => exact == name,
            Kind::Wild(pattern) => {
                let mut parts = name.split('.');
                for wanted in pattern.split('.') {
                    let part = parts.next();
                    match wanted {
                        "**" => return part.is_some(),
                        "*" if part.is_some() => {}
                        wanted if part == Some(wanted) => {}
                        _ => return false,
                    }
                }
                parts.next().is_none()
            }
        }
    }

    /// The one name it means, if it means one and this is its id.
    fn exact(&self, topic: TopicId) -> Option<&str> {
        match &self.0 {
            Kind::Exact(name, id) if *id == topic => Some(name),
            _ => None,
        }
    }
}

/// Whatever has this id, whatever its name.
impl From<TopicId> for Pattern {
    fn from(id: TopicId) -> Self {
        Self(Kind::Id(id))
    }
}

impl FromStr for Pattern {
    type Err = PatternError;

    fn from_str(pattern: &str) -> Result<Self, PatternError> {
        Self::new(pattern)
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::Id(id) => write!(f, "topic {id}"),
            Kind::Exact(text, _) | Kind::Wild(text) => f.write_str(text),
        }
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pattern({self})")
    }
}

/// Whether a message is wanted, and if not, whether the subscriber should know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Verdict {
    /// It is.
    Wanted,
    /// It is not.
    Unwanted,
    /// It is not, but it has the id of a topic that is: messages of the two topics without names can't be
    /// distinguished.
    Namesake,
    /// It carries no name and `group.topics` has none for it: no pattern can decide.
    Nameless,
}

/// All that one subscriber wants.
///
/// ```
/// # use bourdon::*;
/// # fn show(message: &Message<'_>) -> Result<(), error::PatternError> {
/// use bourdon::topics::{Filter, Pattern};
///
/// let filter = Filter::new(&[Pattern::new("md.**")?], &[]);
/// if filter.wants(message) {
///     println!("{:?}", filter.name(message));
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Everything, if there are none.
    patterns: Vec<Pattern>,
    /// The names that `group.topics` gives to ids.
    known: HashMap<TopicId, String>,
    has_wild: bool,
}

impl Filter {
    /// What any of these patterns means, or everything if there are none; `topics` are names in use, as in
    /// `group.topics`.
    pub fn new(patterns: &[Pattern], topics: &[String]) -> Self {
        Self {
            patterns: patterns.to_vec(),
            known: topics.iter().map(|name| (TopicId::of(name), name.clone())).collect(),
            has_wild: patterns.iter().any(|pattern| matches!(pattern.0, Kind::Wild(_))),
        }
    }

    /// The name of a message's topic, if it is known: from the message, `group.topics`, or the subscriber.
    pub fn name<'a>(&'a self, delivery: &Message<'a>) -> Option<&'a str> {
        let known = || self.known.get(&delivery.topic).map(String::as_str);
        delivery.name.or_else(known).or_else(|| self.patterns.iter().find_map(|pattern| pattern.exact(delivery.topic)))
    }

    /// Whether a message is wanted.
    #[inline]
    pub fn wants(&self, delivery: &Message<'_>) -> bool {
        self.patterns.is_empty() || self.judge(delivery) == Verdict::Wanted
    }

    /// Whether a message is wanted, and what the subscriber should know if not.
    pub fn judge(&self, delivery: &Message<'_>) -> Verdict {
        let by_id = |pattern: &Pattern| pattern.0 == Kind::Id(delivery.topic);
        if self.patterns.is_empty() || self.patterns.iter().any(by_id) {
            return Verdict::Wanted;
        }
        match self.name(delivery) {
            Some(name) if self.patterns.iter().any(|pattern| pattern.matches(name)) => Verdict::Wanted,
            Some(_) if self.patterns.iter().any(|pattern| pattern.exact(delivery.topic).is_some()) => Verdict::Namesake,
            None if self.has_wild => Verdict::Nameless,
            _ => Verdict::Unwanted,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bourdon_wire::{Epoch, Instant, Rank, Sequence};
    use proptest::prelude::*;

    fn pattern(text: &str) -> Pattern {
        Pattern::new(text).expect("it is one")
    }

    /// The grammar once more, written otherwise: all the names of up to four parts that a pattern stands for.
    fn oracle(pattern: &[&str], name: &[&str]) -> bool {
        match (pattern, name) {
            ([], []) => true,
            (["**"], [_, ..]) => true,
            ([first, pattern @ ..], [part, name @ ..]) => (first == part || *first == "*") && oracle(pattern, name),
            _ => false,
        }
    }

    fn parts(of: &'static [&'static str]) -> impl Strategy<Value = Vec<&'static str>> {
        prop::collection::vec(prop::sample::select(of), 1..5)
    }

    proptest! {
        #[test]
        fn a_pattern_means_what_the_grammar_defines(
            mut wanted in parts(&["a", "b", "ab", "*"]),
            rest in any::<bool>(),
            name in parts(&["a", "b", "ab", "c"]),
        ) {
            if rest {
                wanted.push("**");
            }
            prop_assert_eq!(pattern(&wanted.join(".")).matches(&name.join(".")), oracle(&wanted, &name));
        }

        #[test]
        fn any_text_is_read_or_refused_and_comes_back(text in "[a-c.*> é]{0,12}") {
            if let Ok(pattern) = Pattern::new(&text) {
                prop_assert_eq!(pattern.to_string(), text.clone());
                // A pattern without wildcards is a name and means itself only.
                let is_name = check_name(&text).is_ok();
                prop_assert_eq!(is_name, matches!(pattern.0, Kind::Exact(..)));
                prop_assert!(!is_name || pattern.matches(&text));
            }
        }
    }

    #[test]
    fn exact_prefix_and_wildcard() {
        for (text, meant, not_meant) in [
            ("md.es.trades", &["md.es.trades"][..], &["md.es", "md.es.trades.x", "MD.es.trades"][..]),
            ("md.**", &["md.es", "md.es.trades"], &["md", "mdx.es", "x.md.es"]),
            ("md.*.trades", &["md.es.trades", "md.nq.trades"], &["md.trades", "md.es.quotes", "md.es.x.trades"]),
            ("*.*", &["a.b"], &["a", "a.b.c"]),
            ("**", &["a", "a.b.c"], &[]),
        ] {
            meant.iter().for_each(|name| assert!(pattern(text).matches(name), "{text} {name}"));
            not_meant.iter().for_each(|name| assert!(!pattern(text).matches(name), "{text} {name}"));
        }
        for (bad, says) in [
            ("md.e*", "whole parts"),
            ("md.***", "whole parts"),
            ("**.md", "nothing can follow"),
            ("md.>", "write `**`"),
            ("md..es", "no part is empty"),
            ("", "1 to 64 bytes"),
            ("a b", "blanks"),
        ] {
            let error = Pattern::new(bad).expect_err(bad).to_string();
            assert!(error.contains(says), "{bad:?}: {error}");
        }
    }

    fn delivery<'a>(name: Option<&'a str>, topic: TopicId) -> Message<'a> {
        Message {
            sender: Rank(0),
            incarnation: bourdon_wire::Incarnation(1),
            instance: bourdon_wire::InstanceId(1),
            sequence: Sequence(0),
            order: None,
            epoch: Epoch(1),
            late: false,
            topic,
            name,
            send_time_ns: 0,
            kernel_receive_ns: None,
            delivered_at: Instant(0),
            client: None,
            barrier: None,
            payload: b"",
        }
    }

    /// Two names with one id, found by trying.
    fn namesakes() -> (String, String) {
        let first = "topic.0".to_owned();
        let id = TopicId::of(&first);
        let second = (1..).map(|number| format!("topic.{number}")).find(|name| TopicId::of(name) == id);
        (first, second.expect("65,536 ids run out"))
    }

    #[test]
    fn a_name_decides_and_the_id_only_where_there_is_none() {
        let (first, second) = namesakes();
        let id = TopicId::of(&first);
        let judge = |patterns: &[Pattern], topics: &[String], name: Option<&str>| {
            Filter::new(patterns, topics).judge(&delivery(name, id))
        };
        let exact = [pattern(&first)];
        assert_eq!(judge(&exact, &[], Some(&first)), Verdict::Wanted);
        assert_eq!(judge(&exact, &[], Some(&second)), Verdict::Namesake);
        assert_eq!(judge(&exact, &[], None), Verdict::Wanted);
        assert_eq!(
            judge(&exact, std::slice::from_ref(&second), None),
            Verdict::Namesake,
            "group.topics names its topic"
        );
        let wild = [pattern("topic.*")];
        assert_eq!(judge(&wild, &[], Some(&second)), Verdict::Wanted);
        assert_eq!(judge(&wild, &[], None), Verdict::Nameless);
        assert_eq!(judge(&wild, std::slice::from_ref(&first), None), Verdict::Wanted);
        assert_eq!(judge(&[pattern("x.**")], std::slice::from_ref(&first), None), Verdict::Unwanted);
        assert_eq!(judge(&[pattern("x")], &[], None), Verdict::Unwanted);
        assert_eq!(judge(&[id.into()], &[], Some(&second)), Verdict::Wanted, "a subscriber by id gets the id");
        assert!(Filter::default().wants(&delivery(None, id)), "no pattern means everything");
    }
}
