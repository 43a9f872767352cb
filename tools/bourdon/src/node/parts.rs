//! What one `bourdon node` runs: the group's own stream and its channels, on the same data agents and control thread.
//! Each is a threaded node, which is joined and left as the configuration requires.
//!
//! A process that must be restarted to join a channel leaves all its other channels during the restart. So SIGUSR1
//! makes it read its configuration again: it joins the channels that are new in it, leaves the channels that are gone,
//! and keeps all others running undisturbed. A configuration that can't be used changes nothing, and the node reports
//! why. (The signal is not SIGHUP, because a node must end when its terminal is closed.)
//!
//! Invariant: the process ends with the group's own stream, or with its last channel.

use super::input::{self, Input};
use super::limit::Limit;
use super::log::Level;
use super::{Reporter, interface};
use crate::exit::Failure;
use crate::place::load;
use bourdon::settings::Role;
use bourdon::settings::full_name;
use bourdon::{Channels, Event, Node, Settings, Subscribe, Subscription};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde_json::{Value, json};
use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// How often the streams that are being left, and the events that were left out, are checked.
const LOOK: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };

/// For how long a node that is stopped waits for the other members to acknowledge and release it.
const STOP_MAX: Duration = Duration::from_secs(1);

/// One stream.
struct Part {
    reporter: Reporter,
    node: Node,
    events: Subscription,
    is_member: bool,
    limit: Limit,
    /// If it is being left: the time at which it is stopped at the latest.
    leave_by: Option<Instant>,
    /// It can never join.
    is_refused: bool,
    has_view: bool,
}

enum Woken {
    ToEnd,
    ToReadAgain,
    ByEvents,
}

/// All streams that run.
pub(super) struct Parts {
    config: PathBuf,
    /// The channels named on the command line.
    wanted: Vec<String>,
    json: bool,
    /// As they were when each stream was started.
    settings: Value,
    running: Vec<Part>,
    /// What the first of them publishes from stdin.
    input: Option<Input>,
}

impl Parts {
    /// Starts the wanted streams, once the host has their interface; none if a signal to end comes first.
    pub(super) fn start(
        config: PathBuf,
        wanted: Vec<String>,
        json: bool,
        input: &input::Args,
        signals: &UnixStream,
    ) -> Result<Option<Self>, Failure> {
        let (settings, topic) = (load(&config)?, input.topic()?);
        if topic.is_some() && wanted.len() > 1 {
            return Err(Failure::unusable(
                "--publish publishes in one stream: give one --channel, or none for the group",
            ));
        }
        let mut parts = Self { config, wanted, json, settings: described(&settings), running: Vec::new(), input: None };
        let group = parts.wanted.is_empty().then_some(None);
        for stream in group.into_iter().chain(parts.channels(&settings)?.into_iter().map(Some)) {
            if !parts.run(stream, &settings, signals)? {
                return Ok(None);
            }
        }
        if let Some(topic) = topic {
            let first = &parts.running[0];
            let (publication, reporter) =
                (first.node.publication().map_err(Failure::unusable)?, first.reporter.clone());
            parts.input = Some(Input::start(input, topic, publication, settings.limits.max_message_bytes, reporter)?);
        }
        Ok(Some(parts))
    }

    /// Reports what is of the whole process.
    pub(super) fn reporter(&self) -> Reporter {
        Reporter { channel: None, ..self.running[0].reporter.clone() }
    }

    /// The channels to run: the named ones, or all channels that this process belongs to in its role in the group.
    fn channels(&self, settings: &Settings) -> Result<Vec<String>, Failure> {
        if !self.wanted.is_empty() {
            let prefix = full_name(&settings.group.name, "");
            let mut wanted: Vec<_> =
                self.wanted.iter().map(|name| name.strip_prefix(&prefix).unwrap_or(name)).collect();
            wanted.sort_unstable();
            wanted.dedup();
            return Ok(wanted.into_iter().map(str::to_owned).collect());
        }
        let mut channels = Vec::new();
        for channel in &settings.channels {
            let own = settings.for_channel(&channel.name).map_err(Failure::unusable)?;
            if own.process.role == settings.process.role {
                channels.push(channel.name.clone());
            }
        }
        Ok(channels)
    }

    /// Starts one stream; false if a signal to end comes first.
    fn run(&mut self, channel: Option<String>, settings: &Settings, signals: &UnixStream) -> Result<bool, Failure> {
        let own = match &channel {
            Some(name) => &settings.for_channel(name).map_err(Failure::unusable)?,
            None => settings,
        };
        let reporter = Reporter::new(self.json, channel.clone(), own);
        let opened = match self.running.first() {
            Some(first) => first.node.open_beside(own).map(Some),
            None => interface::open(own, &reporter, signals),
        };
        let started = opened.and_then(|node| {
            let Some(node) = node else { return Ok(None) };
            let events = node.subscribe(Subscribe::none().events())?;
            node.join()?;
            Ok(Some((node, events)))
        });
        let started = started.map_err(|error| match &channel {
            Some(name) if !error.to_string().starts_with("channel ") => {
                Failure::unusable(format!("channel {name:?}: {error}"))
            }
            _ => Failure::unusable(error),
        })?;
        let Some((node, events)) = started else { return Ok(false) };
        reporter.started(own, &node);
        let is_member = own.process.role == Role::Member;
        self.running.push(Part {
            reporter,
            node,
            events,
            is_member,
            limit: Limit::default(),
            leave_by: None,
            is_refused: false,
            has_view: false,
        });
        Ok(true)
    }

    /// Reports events until a signal comes or every stream has ended.
    pub(super) fn serve(&mut self, signals: &UnixStream, requests: &UnixStream) -> Result<(), Failure> {
        loop {
            self.running.iter_mut().for_each(Part::report);
            if self.running.iter().any(|part| part.is_refused) {
                return Err(Failure::unusable("this process ends: it can't join its group"));
            }
            if self.stop_ended()? {
                return Ok(());
            }
            if let Some(failure) = self.input.as_ref().and_then(Input::failure) {
                return Err(failure);
            }
            match self.sleep(signals, requests)? {
                Woken::ToEnd => return Ok(()),
                Woken::ToReadAgain => self.read_again(requests, signals),
                Woken::ByEvents => {}
            }
        }
    }

    fn sleep(&self, signals: &UnixStream, requests: &UnixStream) -> Result<Woken, Failure> {
        let events: Vec<_> = self.running.iter().flat_map(|part| [part.events.as_fd(), part.node.news_fd()]).collect();
        let mut fds = vec![PollFd::new(signals, PollFlags::IN), PollFd::new(requests, PollFlags::IN)];
        fds.extend(events.iter().map(|fd| PollFd::new(fd, PollFlags::IN)));
        let failed = self.input.as_ref().map(Input::failed_fd);
        fds.extend(failed.iter().map(|fd| PollFd::new(fd, PollFlags::IN)));
        let looks = self.running.iter().any(|part| part.leave_by.is_some() || part.limit.holds());
        match poll(&mut fds, looks.then_some(&LOOK)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(Failure::broken(format!("waiting for events: {error}"))),
        }
        Ok(match (fds[0].revents().is_empty(), fds[1].revents().is_empty()) {
            (false, _) => Woken::ToEnd,
            (true, false) => Woken::ToReadAgain,
            (true, true) => Woken::ByEvents,
        })
    }

    /// Stops the channels that have ended or have been left. Returns whether the process ends with them.
    fn stop_ended(&mut self) -> Result<bool, Failure> {
        let now = Instant::now();
        let is_over = |part: &mut Part| !part.node.is_running() || part.leave_by.is_some_and(|by| now >= by);
        let ended: Vec<_> = self.running.extract_if(.., is_over).collect();
        let mut ends = false;
        for Part { reporter, node, .. } in ended {
            node.close(Duration::ZERO).map_err(Failure::of_node)?; // it has left, or had its time for that
            // The end of the whole node is reported last.
            match reporter.channel {
                None => ends = true,
                Some(_) => reporter.print(Level::Info, "the channel was left", &mut json!({ "event": "stopped" })),
            }
        }
        Ok(ends || self.running.is_empty())
    }

    /// Reads the configuration again, joins new channels and leaves channels that are gone.
    fn read_again(&mut self, mut requests: &UnixStream, signals: &UnixStream) {
        let _ = requests.read(&mut [0; 64]);
        let read = load(&self.config).and_then(|settings| Ok((self.channels(&settings)?, settings)));
        let reporter = self.reporter();
        let (channels, settings) = match read {
            Ok(read) => read,
            Err(failure) => {
                let why = failure.into_why();
                let text = format!("{}; all streams run on unchanged", why.trim_end());
                return reporter.print(
                    Level::Warning,
                    &text,
                    &mut json!({ "event": "configuration_refused", "text": text }),
                );
            }
        };
        for part in &mut self.running {
            if part.reporter.channel.as_ref().is_some_and(|channel| !channels.contains(channel)) {
                part.leave();
            }
        }
        for channel in channels {
            if self.running.iter().all(|part| part.reporter.channel.as_ref() != Some(&channel))
                && let Err(failure) = self.run(Some(channel), &settings, signals)
            {
                let text = format!("{}; the channel was not joined", failure.into_why());
                reporter.print(Level::Warning, &text, &mut json!({ "event": "configuration_refused", "text": text }));
            }
        }
        let now = described(&settings);
        let waiting = changes(&self.settings, &now);
        let text = match &waiting[..] {
            [] => "the configuration was read again".to_owned(),
            keys => format!("the configuration was read again; these changes wait for a restart: {}", keys.join(", ")),
        };
        reporter.print(Level::Info, &text, &mut json!({ "event": "configuration_read", "waits_for_restart": waiting }));
        let runs = |name: &str| self.running.iter().any(|part| part.reporter.channel.as_deref() == Some(name));
        for (name, channel) in now["channel"].as_object().into_iter().flatten() {
            if self.settings["channel"].get(name).is_none() && runs(name) {
                self.settings["channel"][name] = channel.clone();
            }
        }
        if let Some(started) = self.settings["channel"].as_object_mut() {
            started.retain(|name, _| now["channel"].get(name).is_some());
        }
    }

    /// Stops all streams at once, because each waits a while for other processes.
    pub(super) fn stop(self) -> Result<(), Failure> {
        std::thread::scope(|scope| {
            let ending: Vec<_> =
                self.running.into_iter().map(|part| scope.spawn(|| part.node.close(STOP_MAX))).collect();
            let ended = ending.into_iter().map(|ending| ending.join().expect("ending a node does not panic"));
            ended.collect::<Result<Vec<_>, _>>().map(drop).map_err(Failure::of_node)
        })
    }
}

/// The settings as an object of sections; channels by name.
fn described(settings: &Settings) -> Value {
    let mut all = serde_json::to_value(settings).expect("settings are made of plain values");
    let channels = all["channel"].as_array().cloned().unwrap_or_default();
    all["channel"] = channels.into_iter().map(|it| (it["name"].as_str().unwrap_or_default().to_owned(), it)).collect();
    all
}

/// The keys that have other values than before, but for channels that are new or gone.
fn changes(before: &Value, now: &Value) -> Vec<String> {
    let sections = now.as_object().into_iter().flatten();
    let keys = sections.flat_map(|(section, keys)| {
        let keys = keys.as_object().into_iter().flatten();
        keys.filter_map(move |(key, value)| {
            let was = before[section].get(key)?;
            (was != value)
                .then(|| if section == "channel" { format!("channel {key:?}") } else { format!("{section}.{key}") })
        })
    });
    keys.collect()
}

impl Part {
    fn report(&mut self) {
        while let Ok(Some(delivery)) = self.events.try_next() {
            let Some(event) = delivery.event() else { continue };
            match event {
                Event::Left(_) if self.leave_by.is_some() => self.leave_by = Some(Instant::now()),
                // Only what a majority, or the process that has the rank, has proved.
                Event::Outvoted(..) | Event::IdentityConflict { .. } => self.is_refused = true,
                Event::View { .. } if !std::mem::replace(&mut self.has_view, true) => {
                    self.reporter.joined(&self.node.view());
                }
                _ => {}
            }
            if let Some((event, left_out)) = self.limit.admit(event, Instant::now()) {
                self.reporter.event(event, left_out);
            }
        }
        while let Some((event, left_out)) = self.limit.take_due(Instant::now()) {
            self.reporter.event(event, left_out);
        }
        self.node.clear_news();
        while let Some(message) = self.node.poll_direct() {
            self.reporter.direct(&message);
        }
    }

    /// A member waits until the other members release it.
    fn leave(&mut self) {
        if self.leave_by.is_none() {
            let waits = self.is_member && self.node.leave().is_ok();
            let longest = if waits { Duration::from_nanos(Channels::LEAVE_MAX_NS) } else { Duration::ZERO };
            self.leave_by = Some(Instant::now() + longest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bourdon::settings::{ChannelDetector, ChannelSettings};

    #[test]
    fn changes_that_wait_for_a_restart_are_named() {
        let channel = |name: &str| ChannelSettings::new(name, ([239, 1, 1, 1], 7000).into());
        let mut settings = Settings::default();
        settings.channels = vec![channel("trades"), channel("quotes")];
        let before = described(&settings);
        assert_eq!(changes(&before, &before), Vec::<String>::new());
        settings.channels[0].detector = ChannelDetector::Group;
        settings.channels[1] = channel("news"); // joined, and quotes left, without a restart
        (settings.threads.data_agents, settings.group.name) = (2, "other".to_owned());
        let mut waiting = changes(&before, &described(&settings));
        waiting.sort_unstable();
        assert_eq!(waiting, ["channel \"trades\"", "group.name", "threads.data_agents"]);
    }
}
