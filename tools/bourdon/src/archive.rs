//! `bourdon archive`: reads what `bourdon subscribe --archive` has recorded.
//!
//! All but `prune` also read an archive that is being written. Damage never ends a command: it is reported with its
//! positions, what stands beyond it is read, and the exit code is 1.

pub(crate) mod options;

use crate::demo::Rate;
use crate::exit::{Failure, note, print};
use crate::place::write_message;
use bourdon::topics::Pattern;
use bourdon_archive::{Archive, Archived, Entry, Recorded, wall_ns};
use bourdon_log::{Damage, Directory, Log, Record, Retention, Settings};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Show what an archive holds: its group's instance, positions, times, topics and publishers
    Describe(Place),
    /// Read everything, and report each damage; exit code 1 if there is any
    Verify(Place),
    /// Write messages to stdout, as `bourdon subscribe` does
    Replay(Replay),
    /// Remove the oldest segments
    Prune(Prune),
    /// Write everything as JSON, an object a line: messages with payloads in hexadecimal, losses, damage
    Export(Export),
}

#[derive(Debug, clap::Args)]
struct Place {
    /// The directory that was recorded to
    #[arg(value_name = "DIR")]
    directory: PathBuf,
    /// Write one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
struct Replay {
    /// The directory that was recorded to
    #[arg(value_name = "DIR")]
    directory: PathBuf,
    /// Only topics that match one of these, as in `subscribe`
    #[arg(value_name = "PATTERN")]
    patterns: Vec<Pattern>,
    /// From this position of the archive on
    #[arg(long, value_name = "N", default_value_t = 0)]
    from: u64,
    /// To this position, without it
    #[arg(long, value_name = "N", default_value_t = u64::MAX)]
    to: u64,
    /// Published at this time or later, in nanoseconds since 1970
    #[arg(long, value_name = "NS", default_value_t = 0)]
    since: u64,
    /// Published before this time, in nanoseconds since 1970
    #[arg(long, value_name = "NS", default_value_t = u64::MAX)]
    until: u64,
    /// How fast: real, xN (such as x100) or max
    #[arg(long, default_value = "max")]
    rate: Rate,
    /// End after this many messages
    #[arg(long, value_name = "N", default_value_t = u64::MAX)]
    count: u64,
    /// Write each message behind its length (u32, little-endian)
    #[arg(long, conflicts_with = "json")]
    frames: bool,
    /// Write each message as a JSON object a line, and between them what was lost or is damaged
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
struct Prune {
    #[command(flatten)]
    place: Place,
    /// Keep at most this many bytes, whole segments
    #[arg(long, value_name = "BYTES", required_unless_present = "seconds")]
    bytes: Option<u64>,
    /// Keep what is younger than this
    #[arg(long, value_name = "S")]
    seconds: Option<u64>,
}

#[derive(Debug, clap::Args)]
struct Export {
    /// The directory that was recorded to
    #[arg(value_name = "DIR")]
    directory: PathBuf,
    /// Write to this file, which must not exist, instead of stdout
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// The output is JSON in any case
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: Args) -> Result<(), Failure> {
    match args.command {
        Command::Describe(place) => describe(&place),
        Command::Verify(place) => verify(&place),
        Command::Replay(args) => replay(&args),
        Command::Prune(args) => prune(&args),
        Command::Export(args) => export(&args),
    }
}

fn open(path: &Path) -> Result<Archive, Failure> {
    Archive::open(path).map_err(Failure::unusable)
}

/// What a whole archive holds.
#[derive(Default)]
struct Content {
    group: Option<String>,
    first: Option<u64>,
    end: u64,
    messages: u64,
    payload_bytes: u64,
    lost: u64,
    retracted: u64,
    begun: u64,
    unknown: u64,
    out_of_order: u64,
    first_time_ns: Option<u64>,
    last_time_ns: Option<u64>,
    topics: BTreeMap<String, u64>,
    senders: BTreeMap<u16, u64>,
    last_order: Option<u64>,
    damage: Vec<Damage>,
}

impl Content {
    fn of(reader: &Archive) -> Result<Self, Failure> {
        let mut content =
            Self { first: reader.segments().first().map(|first| first.first_position), ..Self::default() };
        let end = reader.read(0, |archived| {
            match archived {
                Archived::Record(record, entry) => content.add(&record, entry),
                Archived::Damage(damage) => content.damage.push(damage),
            }
            ControlFlow::Continue(())
        });
        content.end = end.map_err(Failure::broken)?;
        Ok(content)
    }

    fn add(&mut self, record: &Record<'_>, entry: Option<Entry<'_>>) {
        match entry {
            Some(Entry::Message(message)) => {
                self.messages += 1;
                self.payload_bytes += message.payload.len() as u64;
                self.first_time_ns.get_or_insert(record.time_ns);
                self.last_time_ns = Some(record.time_ns);
                let topic = message.name.map_or_else(|| format!("#{}", message.topic), str::to_owned);
                *self.topics.entry(topic).or_default() += 1;
                *self.senders.entry(message.sender).or_default() += 1;
                let is_behind = message.order.is_some_and(|order| self.last_order.is_some_and(|last| order <= last));
                self.out_of_order += u64::from(is_behind);
                self.last_order = message.order.or(self.last_order);
            }
            Some(Entry::Lost { count, .. }) => self.lost += count,
            Some(Entry::Retracted { from, to, .. }) => self.retracted += to.saturating_sub(from),
            Some(Entry::Begins { group }) => {
                self.begun += 1;
                self.group = Some(group.to_owned());
            }
            None => self.unknown += 1,
        }
    }

    fn damaged(&self) -> u64 {
        self.damage.iter().map(|damage| damage.to - damage.from).sum()
    }
}

fn describe(place: &Place) -> Result<(), Failure> {
    let reader = open(&place.directory)?;
    let content = Content::of(&reader)?;
    let (segments, bytes) = (reader.segments().len(), reader.segments().iter().map(|s| s.bytes).sum::<u64>());
    if place.json {
        return print(&format!(
            "{}\n",
            json!({
                "instance": format!("{:016x}", reader.instance()), "group": content.group, "segments": segments,
                "bytes": bytes, "first_position": content.first, "end_position": content.end,
                "messages": content.messages, "payload_bytes": content.payload_bytes, "lost": content.lost,
                "retracted": content.retracted, "recordings": content.begun,
                "damaged": content.damaged(), "first_time_ns": content.first_time_ns,
                "last_time_ns": content.last_time_ns, "topics": content.topics, "publishers": content.senders,
            })
        ));
    }
    let group = content.group.as_deref().unwrap_or("unknown");
    let mut text = format!(
        "group {group:?}, instance {:016x}\n{segments} segments, {bytes} bytes, positions {} to {}\n{} messages, {} \
             bytes of payload, {} recordings, {} lost, {} damaged\n",
        reader.instance(),
        content.first.unwrap_or(0),
        content.end,
        content.messages,
        content.payload_bytes,
        content.begun,
        content.lost,
        content.damaged(),
    );
    if let (Some(first), Some(last)) = (content.first_time_ns, content.last_time_ns) {
        let time = |ns| humantime::format_rfc3339_micros(std::time::UNIX_EPOCH + Duration::from_nanos(ns));
        text += &format!("published from {} to {}\n", time(first), time(last));
    }
    for (topic, count) in &content.topics {
        text += &format!("  topic {topic}: {count}\n");
    }
    for (sender, count) in &content.senders {
        text += &format!("  publisher {sender}: {count}\n");
    }
    print(&text)
}

fn of_damage(damage: &Damage) -> Value {
    json!({
        "from": damage.from, "to": damage.to, "segment": format!("{:016x}.segment", damage.generation),
        "start": damage.start, "end": damage.end, "was_synced": damage.was_synced,
    })
}

fn verify(place: &Place) -> Result<(), Failure> {
    let reader = open(&place.directory)?;
    let content = Content::of(&reader)?;
    let headers: Vec<String> =
        reader.segments().iter().filter(|s| s.header_is_damaged).map(bourdon_log::Segment::name).collect();
    let is_good = content.damage.is_empty() && headers.is_empty() && content.unknown == 0 && content.out_of_order == 0;
    if place.json {
        let damage: Vec<Value> = content.damage.iter().map(of_damage).collect();
        let (messages, unknown, out_of_order) = (content.messages, content.unknown, content.out_of_order);
        print(&format!(
            "{}\n",
            json!({
                "ok": is_good, "messages": messages, "damage": damage, "headers_damaged": headers,
                "unknown": unknown, "out_of_order": out_of_order, "lost": content.lost,
            })
        ))?;
    } else {
        for damage in &content.damage {
            let doubt = if damage.was_synced { "" } else { "; they may never have been synced" };
            print(&format!("damaged {damage}{doubt}\n"))?;
        }
        for name in &headers {
            print(&format!("damaged header of {name}\n"))?;
        }
        let (messages, unknown, out_of_order) = (content.messages, content.unknown, content.out_of_order);
        print(&format!("{messages} messages are whole; {unknown} unknown records, {out_of_order} out of order\n"))?;
    }
    if is_good {
        Ok(())
    } else {
        Err(Failure::broken("the archive is damaged: record it again, or restore it from a copy"))
    }
}

fn row(record: &Record<'_>, message: &Recorded<'_>) -> Value {
    let text = std::str::from_utf8(message.payload).ok();
    json!({
        "position": record.position, "topic": message.name, "topic_id": message.topic, "sender": message.sender,
        "incarnation": message.incarnation, "sequence": message.sequence, "order": message.order,
        "epoch": record.epoch, "send_time_ns": record.time_ns, "payload": text,
        "payload_hex": text.is_none().then(|| hex(message.payload)),
    })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Replay {
    fn wants(&self, record: &Record<'_>, message: &Recorded<'_>) -> bool {
        let by_topic = |pattern: &Pattern| message.name.is_some_and(|name| pattern.matches(name));
        (self.since..self.until).contains(&record.time_ns)
            && (self.patterns.is_empty() || self.patterns.iter().any(by_topic))
    }
}

/// Writes messages at their pace.
struct Player<'a> {
    args: &'a Replay,
    out: BufWriter<io::StdoutLock<'static>>,
    written: u64,
    /// When the first message was written, and when it was published.
    began: Option<(Instant, u64)>,
    damaged: u64,
}

impl Player<'_> {
    fn play(&mut self, archived: Archived<'_>) -> io::Result<()> {
        let (record, entry) = match archived {
            Archived::Record(record, entry) => (record, entry),
            Archived::Damage(damage) if damage.from >= self.args.to => return Ok(()),
            Archived::Damage(damage) => {
                self.damaged += damage.to - damage.from;
                note(format!("messages can't be read {damage}"));
                return self.report(json!({ "event": "damage", "damage": of_damage(&damage) }));
            }
        };
        match entry {
            Some(Entry::Message(message)) if self.args.wants(&record, &message) => self.write(&record, &message),
            Some(Entry::Lost { sender, count }) => {
                note(format!("{count} messages were lost here when they were recorded"));
                self.report(json!({ "event": "lost", "sender": sender, "count": count }))
            }
            Some(Entry::Retracted { sender, from, to }) => {
                note(format!("messages {from} to {} of member {sender} became void", to.saturating_sub(1)));
                self.report(json!({ "event": "retracted", "sender": sender, "from": from, "to": to }))
            }
            _ => Ok(()),
        }
    }

    fn report(&mut self, object: Value) -> io::Result<()> {
        if self.args.json { writeln!(self.out, "{object}") } else { Ok(()) }
    }

    fn write(&mut self, record: &Record<'_>, message: &Recorded<'_>) -> io::Result<()> {
        if let Rate::Times(times) = self.args.rate {
            let (began, first_ns) = *self.began.get_or_insert((Instant::now(), record.time_ns));
            let after = Duration::from_nanos((record.time_ns.saturating_sub(first_ns) as f64 / times) as u64);
            let rest = after.saturating_sub(began.elapsed());
            if !rest.is_zero() {
                self.out.flush()?;
                std::thread::sleep(rest);
            }
        }
        self.written += 1;
        if self.args.json {
            return writeln!(self.out, "{}", row(record, message));
        }
        write_message(&mut self.out, self.args.frames, message.payload)
    }
}

fn replay(args: &Replay) -> Result<(), Failure> {
    let reader = open(&args.directory)?;
    let out = BufWriter::new(io::stdout().lock());
    let mut player = Player { args, out, written: 0, began: None, damaged: 0 };
    let mut played = Ok(());
    let read = reader.read(args.from, |archived| {
        let is_over = matches!(archived, Archived::Record(record, _) if record.position >= args.to);
        if is_over || player.written >= args.count {
            return ControlFlow::Break(());
        }
        played = player.play(archived);
        if played.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    });
    read.map_err(Failure::broken)?;
    match played.and_then(|()| player.out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Failure::broken(format!("writing: {error}"))),
        _ if player.damaged > 0 => Err(Failure::broken(format!("{} messages can't be read", player.damaged))),
        _ => Ok(()),
    }
}

fn prune(args: &Prune) -> Result<(), Failure> {
    let directory = &args.place.directory;
    let reader = open(directory)?; // so that no directory is made
    let settings = Settings::new(reader.instance());
    let opened = Directory::lock(directory).and_then(|locked| Log::open(locked, settings));
    let mut log = opened.map_err(Failure::unusable)?;
    let age_ns = args.seconds.map(|seconds| seconds.saturating_mul(1_000_000_000));
    let pruned = log.prune(Retention { bytes: args.bytes, age_ns }, wall_ns()).map_err(Failure::broken)?;
    let (first, left) = (log.first(), log.segments().len());
    if args.place.json {
        return print(&format!(
            "{}\n",
            json!({ "removed": pruned.segments, "bytes": pruned.bytes, "segments": left, "first_position": first })
        ));
    }
    print(&format!(
        "removed {} segments, {} bytes; {left} are left, from position {first} on\n",
        pruned.segments, pruned.bytes
    ))
}

fn export(args: &Export) -> Result<(), Failure> {
    let reader = open(&args.directory)?;
    let Some(path) = &args.output else {
        let mut out = BufWriter::new(io::stdout().lock());
        return export_to(&reader, &mut out).map(|_| ());
    };
    let can_not = |error| Failure::unusable(format!("{}: {error}: name a file that does not exist", path.display()));
    let mut out = BufWriter::new(File::create_new(path).map_err(can_not)?);
    export_to(&reader, &mut out)?;
    let synced = out.into_inner().map_err(io::IntoInnerError::into_error).and_then(|file| file.sync_all());
    synced.map_err(|error| Failure::broken(format!("writing {}: {error}", path.display())))
}

fn export_to(reader: &Archive, out: &mut impl Write) -> Result<(), Failure> {
    let (mut written, mut damaged) = (Ok(()), 0);
    let read = reader.read(0, |archived| {
        let object = match archived {
            Archived::Damage(damage) => {
                damaged += damage.to - damage.from;
                json!({ "event": "damage", "damage": of_damage(&damage) })
            }
            Archived::Record(record, entry) => match entry {
                Some(Entry::Message(message)) => {
                    let mut row = row(&record, &message);
                    row["payload_hex"] = hex(message.payload).into();
                    row
                }
                Some(Entry::Lost { sender, count }) => {
                    json!({ "event": "lost", "position": record.position, "sender": sender, "count": count })
                }
                Some(Entry::Retracted { sender, from, to }) => {
                    let position = record.position;
                    json!({ "event": "retracted", "position": position, "sender": sender, "from": from, "to": to })
                }
                Some(Entry::Begins { group }) => {
                    json!({ "event": "begins", "position": record.position, "group": group, "at_ns": record.time_ns })
                }
                None => json!({ "event": "unknown", "position": record.position, "hex": hex(record.bytes) }),
            },
        };
        written = writeln!(out, "{object}");
        if written.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    });
    read.map_err(Failure::broken)?;
    match written.and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Failure::broken(format!("writing: {error}"))),
        _ if damaged > 0 => Err(Failure::broken(format!("{damaged} messages can't be read"))),
        _ => Ok(()),
    }
}
