//! What the bridge waits for: on stderr soon after the wait began, again while it lasts, and at the end in `--json`.

use crate::failure::note;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Display;
use std::io::Read;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// No usual wait is longer.
const FIRST: Duration = Duration::from_millis(1_500);
/// Between two reports of one wait.
const INTERVAL: Duration = Duration::from_secs(10);
/// Between two reports of progress.
const PROGRESS_EVERY: Duration = Duration::from_secs(10);
/// The longest sleep, so that a signal is noticed soon.
pub(crate) const TICK: Duration = Duration::from_millis(100);

/// What both directions share: the signal to end, and the waits.
#[derive(Clone, Default)]
pub(crate) struct Run(Arc<Mutex<Waits>>);

#[derive(Default)]
struct Waits {
    /// A signal came.
    is_over: bool,
    current: Option<Wait>,
    /// For each cause, how often it was waited for and how long.
    past: BTreeMap<&'static str, (u64, Duration)>,
    progress: Option<(Instant, u64)>,
}

struct Wait {
    class: &'static str,
    since: Instant,
    reported_at: Option<Instant>,
}

impl Run {
    /// Ends with SIGINT, SIGTERM and SIGHUP.
    pub(crate) fn until_signal() -> std::io::Result<Self> {
        use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
        let (mut reader, writer) = UnixStream::pair()?;
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            signal_hook::low_level::pipe::register(signal, writer.try_clone()?)?;
        }
        let run = Self::default();
        let shared = run.clone();
        std::thread::Builder::new().name("signals".into()).spawn(move || {
            let _ = reader.read(&mut [0]); // there is no other end but the signals
            shared.lock().is_over = true;
        })?;
        Ok(run)
    }

    pub(crate) fn is_over(&self) -> bool {
        self.lock().is_over
    }

    /// It waits for this now; `class` is the cause as scripts read it.
    pub(crate) fn waits(&self, class: &'static str, why: impl Display) {
        let (mut waits, now) = (self.lock(), Instant::now());
        if waits.current.as_ref().is_none_or(|wait| wait.class != class) {
            waits.end(now);
            waits.current = Some(Wait { class, since: now, reported_at: None });
        }
        let Some(wait) = &mut waits.current else { return };
        if now >= wait.reported_at.map_or(wait.since + FIRST, |at| at + INTERVAL) {
            wait.reported_at = Some(now);
            note(format!("waits since {:.1} s: {why}", (now - wait.since).as_secs_f64()));
        }
    }

    /// It goes on.
    pub(crate) fn goes_on(&self) {
        self.lock().end(Instant::now());
    }

    /// Reports now and then how many messages it has carried.
    pub(crate) fn progress(&self, count: u64, place: impl FnOnce() -> String) {
        let (mut waits, now) = (self.lock(), Instant::now());
        let (at, before) = *waits.progress.get_or_insert((now, count));
        if now - at >= PROGRESS_EVERY && count > before {
            waits.progress = Some((now, count));
            note(format!("carried {count} messages, {}", place()));
        }
    }

    /// The waits that were reported, or would have been.
    pub(crate) fn object(&self) -> Value {
        let past = &self.lock().past;
        let rows = past.iter().map(
            |(class, (count, waited))| json!({ "for": class, "count": count, "waited_ns": waited.as_nanos() as u64 }),
        );
        rows.collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Waits> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner) // counters: none is half done
    }
}

impl Waits {
    fn end(&mut self, now: Instant) {
        let Some(wait) = self.current.take() else { return };
        let (count, waited) = self.past.entry(wait.class).or_default();
        (*count, *waited) = (*count + 1, *waited + (now - wait.since));
        if wait.reported_at.is_some() {
            note("goes on");
        }
    }
}
