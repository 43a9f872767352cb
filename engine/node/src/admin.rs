//! The requests of the admin socket: one JSON object a line, answered by one JSON object a line.
//!
//! `{"request":"stat"}`, `{"request":"view"}`, `{"request":"errors"}`, `{"request":"sync"}` (answered once the barrier
//! is complete), `{"request":"recover"}` (`admin/recovery.rs`), `{"request":"leave"}`, `{"request":"stop"}`; and two
//! that turn the connection into a session (`admin/sessions.rs`): `{"request":"lock","name":…}` and
//! `{"request":"elect","name":…}`. Everything else is answered with `{"error": ...}` and what to do.
//!
//! A list of errors that grows with their number fills memory while no client reads it; so only distinct ones are kept,
//! with counts and times, and at most [`DISTINCT_MAX`] of them.

pub(crate) mod recovery;
pub(crate) mod server;
pub(crate) mod sessions;
pub(crate) mod view;

use crate::admin::recovery::Ended;
use crate::admin::sessions::{PartName, SessionRequest, SessionWait};
use bourdon_protocol::Event;
use bourdon_ring::counters::Reader;
use bourdon_wire::{Epoch, InstanceId, TopicName};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::fmt::Display;
use std::time::Duration;

/// Distinct events remembered: every kind for every rank of a small group.
const DISTINCT_MAX: usize = 64;

/// A parsed request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Request {
    Stat,
    View,
    Errors,
    Sync,
    Recover(Option<Ended>),
    Leave,
    Stop,
    Session(SessionRequest),
}

/// A request, as its line holds it.
#[derive(Deserialize)]
#[serde(tag = "request", rename_all = "lowercase", deny_unknown_fields)]
enum Line {
    // With braces, because otherwise serde silently accepts fields that these variants do not have.
    Stat {},
    View {},
    Errors {},
    Sync {},
    Recover {
        instance: Option<String>,
        #[serde(default)]
        epoch: u64,
    },
    Leave {},
    Stop {},
    Lock {
        name: String,
        #[serde(default, rename = "try")]
        tries: bool,
        timeout_ns: Option<u64>,
    },
    Elect {
        name: String,
        #[serde(default)]
        part: PartName,
    },
}

/// Parses a line, or returns what is wrong with it.
pub(crate) fn parse(line: &[u8]) -> Result<Request, Value> {
    let wrong = |error: &dyn Display, help: &str| json!({ "error": format!("{error}; {help}") });
    let line = serde_json::from_slice::<Line>(line).map_err(|error| {
        let help = "send one line like {\"request\":\"stat\"}; requests are stat, view, errors, sync, \
            recover, leave, stop, lock and elect, the last two with a name";
        wrong(&error, help)
    })?;
    let named = |name: &str| TopicName::new(name).map_err(|error| wrong(&error, "names are made like those of topics"));
    Ok(match line {
        Line::Stat {} => Request::Stat,
        Line::View {} => Request::View,
        Line::Errors {} => Request::Errors,
        Line::Sync {} => Request::Sync,
        Line::Recover { instance: None, .. } => Request::Recover(None),
        Line::Recover { instance: Some(instance), epoch } => {
            let instance = u64::from_str_radix(&instance, 16).map_err(|error| {
                wrong(&error, "an instance has up to 16 hexadecimal digits, 0 before the first view")
            })?;
            Request::Recover(Some(Ended { instance: InstanceId(instance), epoch: Epoch(epoch) }))
        }
        Line::Leave {} => Request::Leave,
        Line::Stop {} => Request::Stop,
        Line::Lock { name, tries, timeout_ns } => {
            let wait = match timeout_ns {
                _ if tries => SessionWait::Try,
                Some(ns) => SessionWait::For(Duration::from_nanos(ns)),
                None => SessionWait::Forever,
            };
            Request::Session(SessionRequest::Lock { name: named(&name)?, wait })
        }
        Line::Elect { name, part } => {
            Request::Session(SessionRequest::Elect { name: named(&name)?, part: part.into() })
        }
    })
}

/// Every cell by its label.
pub(crate) fn stat(labels: &[String], cells: &Reader) -> Value {
    let value = |(index, label): (usize, &String)| (label.clone(), Value::from(cells.get(index)));
    json!({ "stat": labels.iter().enumerate().map(value).collect::<Map<_, _>>() })
}

/// The distinct events so far.
#[derive(Debug, Default)]
pub(crate) struct EventLog {
    entries: Vec<Entry>,
    /// Events not remembered because there were too many distinct ones.
    forgotten: u64,
}

#[derive(Debug)]
struct Entry {
    text: String,
    count: u64,
    first_ns: u64,
    last_ns: u64,
}

impl EventLog {
    pub(crate) fn note(&mut self, now_ns: u64, event: Event) {
        let text = event.to_string();
        if let Some(entry) = self.entries.iter_mut().find(|entry| entry.text == text) {
            entry.count += 1;
            entry.last_ns = now_ns;
        } else if self.entries.len() < DISTINCT_MAX {
            self.entries.push(Entry { text, count: 1, first_ns: now_ns, last_ns: now_ns });
        } else {
            self.forgotten += 1;
        }
    }

    pub(crate) fn answer(&self) -> Value {
        let entry = |entry: &Entry| {
            let Entry { text, count, first_ns, last_ns } = entry;
            json!({ "text": text, "count": count, "first_ns": first_ns, "last_ns": last_ns })
        };
        json!({ "errors": self.entries.iter().map(entry).collect::<Vec<_>>(), "forgotten": self.forgotten })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bourdon_protocol::Event;
    use bourdon_wire::{Rank, Sequence};

    #[test]
    fn only_requests_are_requests() {
        assert_eq!(parse(br#"{"request":"stat"}"#), Ok(Request::Stat));
        for line in [&b"stat"[..], b"", b"{}", br#"{"request":"fly"}"#, br#"{"request":"stat","x":1}"#, b"\xff"] {
            let error = parse(line).expect_err("this is no request");
            assert!(error["error"].as_str().is_some_and(|text| text.contains("requests are")), "{error}");
        }
        let named = |name| TopicName::new(name).expect("it is one");
        let lock = |wait| Ok(Request::Session(SessionRequest::Lock { name: named("a.b"), wait }));
        assert_eq!(parse(br#"{"request":"lock","name":"a.b"}"#), lock(SessionWait::Forever));
        assert_eq!(parse(br#"{"request":"lock","name":"a.b","try":true}"#), lock(SessionWait::Try));
        let timed = parse(br#"{"request":"lock","name":"a.b","timeout_ns":5}"#);
        assert_eq!(timed, lock(SessionWait::For(Duration::from_nanos(5))));
        let elect = |part| Ok(Request::Session(SessionRequest::Elect { name: named("x"), part }));
        assert_eq!(parse(br#"{"request":"elect","name":"x"}"#), elect(bourdon_protocol::Participation::Campaign));
        assert_eq!(
            parse(br#"{"request":"elect","name":"x","part":"watch"}"#),
            elect(bourdon_protocol::Participation::Watch)
        );
        assert_eq!(parse(br#"{"request":"recover"}"#), Ok(Request::Recover(None)));
        let ended = Ended { instance: InstanceId(0xa), epoch: Epoch(3) };
        let recover = parse(br#"{"request":"recover","instance":"000000000000000a","epoch":3}"#);
        assert_eq!(recover, Ok(Request::Recover(Some(ended))));
        assert!(parse(br#"{"request":"recover","instance":"x"}"#).is_err());
        let error = parse(br#"{"request":"lock","name":"a b"}"#).expect_err("a space is in no name");
        assert!(error["error"].as_str().is_some_and(|text| text.contains("like those of topics")), "{error}");
    }

    #[test]
    fn events_are_counted_and_bounded() {
        let mut log = EventLog::default();
        let gap = |to| Event::Gap { sender: Rank(0), from: Sequence(0), to: Sequence(to) };
        for to in 0..100 {
            log.note(to, gap(to));
            log.note(to + 1, gap(0));
        }
        let answer = log.answer();
        assert_eq!(answer["errors"].as_array().map(Vec::len), Some(DISTINCT_MAX));
        assert_eq!(answer["errors"][0]["count"], 101);
        assert_eq!(answer["errors"][0]["last_ns"], 100);
        assert_eq!(answer["forgotten"], 100 - DISTINCT_MAX as u64);
    }
}
