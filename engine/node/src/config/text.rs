//! Settings as TOML text, and what is wrong with a text.
//!
//! A misspelt key is the most frequent mistake. So its refusal names the section and the key that was meant, if one is
//! near: the names of all keys are those of the defaults, serialized.

use super::{ChannelSettings, Settings, SettingsError};
use serde_json::{Map, Value};
use std::path::Path;

/// Reads settings from a file. A file without any setting is refused: a disk that was full, a copy that was
/// interrupted or a template without values leaves such a file, and the defaults are another group than the one meant.
pub(super) fn load(path: &Path) -> Result<Settings, SettingsError> {
    let bytes = std::fs::read(path).map_err(|source| SettingsError::Unreadable { path: path.to_owned(), source })?;
    let text = str::from_utf8(&bytes).ok().filter(|text| !text.contains('\0'));
    let Some(text) = text else {
        return Err(SettingsError::NoText { path: path.to_owned(), what: encoding(&bytes) });
    };
    let settings = parse(text, Some(path))?;
    if text.parse::<toml::Table>().is_ok_and(|table| table.is_empty()) {
        return Err(SettingsError::Empty { path: path.to_owned(), bytes: bytes.len() });
    }
    Ok(settings)
}

/// What a file is that is no text in UTF-8.
fn encoding(bytes: &[u8]) -> String {
    match bytes {
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => "it is UTF-16; save it as UTF-8".to_owned(),
        _ => match bytes.iter().position(|byte| *byte == 0) {
            Some(0) if bytes.iter().all(|byte| *byte == 0) => {
                format!("it has {} zero bytes and nothing else: it was not written to its end; restore it", bytes.len())
            }
            Some(place) => format!("byte {place} is zero: it was not written to its end; restore it"),
            None => "save it as UTF-8".to_owned(),
        },
    }
}

/// Reads settings from a text, which stands in this file if in any.
pub(super) fn parse(text: &str, path: Option<&Path>) -> Result<Settings, SettingsError> {
    let settings: Settings = toml::from_str(text).map_err(|source| {
        let path = path.map(Path::to_owned);
        match (unknown_key(text, &source), last_line(text, &source)) {
            (Some((line, what)), _) => SettingsError::UnknownKey { path, line, what },
            (None, Some((line, text))) => SettingsError::Truncated { path, line, text, source: Box::new(source) },
            (None, None) => SettingsError::Malformed { path, source: Box::new(source) },
        }
    })?;
    settings.check()?;
    Ok(settings)
}

/// The last line and its number, if the text is no TOML because it ends there.
fn last_line(text: &str, error: &toml::de::Error) -> Option<(usize, String)> {
    let whole = text.trim_end();
    let is_cut = text.parse::<toml::Table>().is_err() && error.span().is_some_and(|span| span.end >= whole.len());
    let line = whole.lines().last().filter(|_| is_cut)?;
    Some((whole.lines().count(), line.to_owned()))
}

/// The line of an unknown key, and what is wrong with it; none if that is not what is wrong with the text.
fn unknown_key(text: &str, error: &toml::de::Error) -> Option<(usize, String)> {
    let span = error.span().filter(|_| error.message().starts_with("unknown field"))?;
    let line = text.get(..span.start)?.matches('\n').count() + 1;
    let key = text.get(span)?.trim_matches(['"', '\'']);
    let (file, known) = (text.parse::<toml::Table>().ok()?, sections());
    if file.contains_key(key) && !known.contains_key(key) {
        return Some((line, unknown_section(key, &known)));
    }
    let has_key = |section: &str, keys: &Map<String, Value>| {
        !keys.contains_key(key) && file.get(section).is_some_and(|section| contains(section, key))
    };
    let (section, keys) = known.iter().find_map(|(section, keys)| {
        let keys = keys.as_object()?;
        has_key(section, keys).then_some((section, keys))
    })?;
    let hint = match (nearest(key, keys.keys()), home(key, &known)) {
        (Some(near), _) => format!("did you mean {near}?"),
        (None, Some(home)) => format!("it is a key of section [{home}]"),
        (None, None) => format!("its keys are {}", list(keys)),
    };
    Some((line, format!("section [{section}] has no key {key}: {hint}")))
}

/// What to do about a name that stands where a section's does.
fn unknown_section(name: &str, known: &Map<String, Value>) -> String {
    let hint = match (nearest(name, known.keys()), home(name, known)) {
        (Some(near), _) => format!("did you mean [{near}]?"),
        (None, Some(home)) => format!("it is a key of section [{home}]"),
        (None, None) => format!("the sections are {}", list(known)),
    };
    format!("there is no section {name}: {hint}")
}

/// Each section's keys.
fn sections() -> Map<String, Value> {
    let mut all = Settings::default();
    all.channels = vec![ChannelSettings::new("any", all.group.address)];
    let Ok(Value::Object(mut sections)) = serde_json::to_value(all) else { panic!("settings are sections") };
    for section in sections.values_mut() {
        if let Value::Array(channels) = section {
            *section = channels.remove(0);
        }
    }
    sections
}

/// Whether a section of a file has a key; a list of sections, whether one of them has.
fn contains(section: &toml::Value, key: &str) -> bool {
    match section {
        toml::Value::Table(keys) => keys.contains_key(key),
        toml::Value::Array(sections) => sections.iter().any(|section| contains(section, key)),
        _ => false,
    }
}

/// The section that has this key.
fn home<'a>(key: &str, known: &'a Map<String, Value>) -> Option<&'a String> {
    let (section, _) = known.iter().find(|(_, keys)| keys.get(key).is_some())?;
    Some(section)
}

fn list(names: &Map<String, Value>) -> String {
    names.keys().map(String::as_str).collect::<Vec<_>>().join(", ")
}

/// The name that a misspelt one was probably meant to be: one that it is the beginning of, or else the one with the
/// fewest edits, if these are at most a third of it.
fn nearest<'a>(word: &str, names: impl Iterator<Item = &'a String> + Clone) -> Option<&'a String> {
    let begins = |name: &&String| word.len() > 2 && name.starts_with(word);
    let near =
        || names.clone().map(|name| (edits(word, name), name)).min().filter(|(edits, _)| edits * 3 <= word.len());
    names.clone().find(begins).or_else(|| near().map(|(_, name)| name))
}

/// How many characters to insert, remove or replace to make one word of another (Levenshtein, 1966).
fn edits(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (index, have) in from.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], index + 1);
        for (place, want) in to.iter().enumerate() {
            let replaced = diagonal + usize::from(have != *want);
            diagonal = row[place + 1];
            row[place + 1] = replaced.min(diagonal + 1).min(row[place] + 1);
        }
    }
    row[to.len()]
}

#[cfg(test)]
mod tests {
    use super::edits;

    #[test]
    fn edits_are_counted() {
        for (from, to, count) in
            [("", "", 0), ("", "abc", 3), ("rank", "rank", 0), ("memebrs", "members", 2), ("rnk", "rank", 1)]
        {
            assert_eq!((edits(from, to), edits(to, from)), (count, count), "{from} {to}");
        }
    }
}
