//! One member for the lab: it publishes, delivers, and writes down what it was shown, until it is removed or told to end.
//!
//! `bourdon-lab rounds` makes trouble for it and judges what it wrote. The judge must be able to tell messages apart by
//! name alone, across kills: a message that only a killed process was shown may be nobody's, and the next life publishes
//! others in its place. So a publisher is a life (`RANK.LIFE`), messages are counted by it, and each payload says whose
//! it is, which it is and which message it answers, so that what is written down comes from the bytes that came.
//!
//! One that joins first gets a member's state: all lines of that member, which it writes as its own before its first
//! view. One that gets state twice, or is removed, ends; whoever started it starts its next life.
//!
//! Invariant: a line is in the file before anything that follows from it leaves the process.

use crate::exit::Failure;
use crate::history::{Delivered, History, hash};
use crate::node::signals;
use bourdon::settings::{Order, Profile, Reliability, Settings, Transport};
use bourdon::{Delivery, Event, Node, NodeEvent, Port, Reach, Refusal, Standing, TopicId};
use std::fmt;
use std::io::Read;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::time::Duration;

/// The longest sleep: nothing here is in more of a hurry.
const LONGEST_SLEEP: Duration = Duration::from_millis(10);
/// Every so many messages of a publisher answers the last one it was shown.
const ANSWER_EVERY: u64 = 8;
/// Most lines: what is handed to one that joins stays below the largest snapshot.
const LINES_MAX: usize = 4_000_000;
/// Bytes of a line in a snapshot.
const LINE_BYTES: usize = 56;
/// Stands where there is nothing.
const NONE: u64 = u64::MAX;

/// One member of a lab's group
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// How many members the group has
    #[arg(long)]
    members: u16,
    /// The file to write; its name says who this is: member-RANK.tsv, or member-RANK.LIFE.tsv
    #[arg(long, value_name = "FILE")]
    history: PathBuf,
    /// The interface that all traffic uses
    #[arg(long, default_value = "eth0")]
    interface: String,
    /// udp, portable, tcp or auto
    #[arg(long, default_value = "udp", value_parser = named::<Transport>)]
    transport: Transport,
    /// Over tcp or auto: the members' addresses, by rank
    #[arg(long, value_delimiter = ',')]
    peers: Vec<SocketAddr>,
    /// How many messages to publish a second
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    rate: u64,
    /// unordered, fifo, causal, total or total-causal
    #[arg(long, default_value = "total", value_parser = named::<Order>)]
    order: Order,
    /// reliable, uniform or stable
    #[arg(long, default_value = "reliable", value_parser = named::<Reliability>)]
    reliability: Reliability,
    /// default or fast
    #[arg(long, default_value = "default", value_parser = named::<Profile>)]
    profile: Profile,
    /// Say on stderr what happens
    #[arg(long)]
    talk: bool,
}

/// A value by the name it has in a configuration.
pub(crate) fn named<T: serde::de::DeserializeOwned>(name: &str) -> Result<T, String> {
    serde_json::from_value(name.into()).map_err(|error| error.to_string())
}

/// One life of one member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Publisher {
    rank: u16,
    life: u32,
}

impl fmt::Display for Publisher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.rank, self.life)
    }
}

impl Publisher {
    /// As a history's file is named after it.
    fn of(history: &Path) -> Option<Self> {
        let name = history.file_stem()?.to_str()?.strip_prefix("member-")?;
        let (rank, life) = name.split_once('.').unwrap_or((name, "1"));
        Some(Self { rank: rank.parse().ok()?, life: life.parse().ok()? })
    }

    fn word(self) -> u64 {
        u64::from(self.rank) << 32 | u64::from(self.life)
    }

    fn of_word(word: u64) -> Self {
        Self { rank: (word >> 32) as u16, life: word as u32 }
    }
}

type Line = Delivered<Publisher>;
type Name = (Publisher, u64);

fn name_words(name: Option<Name>) -> [u64; 2] {
    name.map_or([NONE; 2], |(publisher, number)| [publisher.word(), number])
}

fn name_of(words: [u64; 2]) -> Option<Name> {
    (words != [NONE; 2]).then(|| (Publisher::of_word(words[0]), words[1]))
}

fn bytes_of<const N: usize>(words: [u64; N]) -> impl Iterator<Item = u8> {
    words.into_iter().flat_map(u64::to_le_bytes)
}

fn words_of<const N: usize>(bytes: &[u8]) -> Option<[u64; N]> {
    let mut words = [0; N];
    if bytes.len() != 8 * N {
        return None;
    }
    for (word, bytes) in words.iter_mut().zip(bytes.chunks_exact(8)) {
        *word = u64::from_le_bytes(bytes.try_into().ok()?);
    }
    Some(words)
}

fn payload(name: Name, after: Option<Name>) -> Vec<u8> {
    let ([publisher, number], [after, after_number]) = (name_words(Some(name)), name_words(after));
    bytes_of([publisher, number, after, after_number]).collect()
}

/// What to write down of a message, if it is one of ours.
fn line(delivery: &Delivery<'_>) -> Option<Line> {
    let [publisher, sequence, after, after_sequence] = words_of(delivery.payload)?;
    Some(Delivered {
        view: delivery.epoch.0,
        order: delivery.order.map(|order| order.0),
        publisher: Publisher::of_word(publisher),
        sequence,
        after: name_of([after, after_sequence]),
        hash: hash(delivery.payload),
    })
}

fn write_line(line: &Line) -> impl Iterator<Item = u8> {
    let [after, after_sequence] = name_words(line.after);
    let order = line.order.unwrap_or(NONE);
    bytes_of([line.view, order, line.publisher.word(), line.sequence, after, after_sequence, line.hash])
}

fn read_line(bytes: &[u8]) -> Option<Line> {
    let [view, order, publisher, sequence, after, after_sequence, hash] = words_of(bytes)?;
    let order = (order != NONE).then_some(order);
    let (publisher, after) = (Publisher::of_word(publisher), name_of([after, after_sequence]));
    Some(Delivered { view, order, publisher, sequence, after, hash })
}

pub(crate) fn run(args: Args) -> Result<(), Failure> {
    let Some(own) = Publisher::of(&args.history) else {
        let path = args.history.display();
        return Err(Failure::unusable(format!("{path} is not named member-RANK.tsv or member-RANK.LIFE.tsv")));
    };
    let mut settings = Settings::default();
    settings.group.name = "lab".to_owned();
    settings.group.members = args.members;
    settings.group.order = args.order;
    settings.group.reliability = args.reliability;
    settings.process.rank = own.rank;
    settings.process.snapshots = true;
    settings.network.interface.clone_from(&args.interface);
    settings.network.transport = args.transport;
    settings.network.peers.clone_from(&args.peers);
    settings.detector.profile = args.profile;
    // Before the first thread, so that no signal is missed.
    let signals = signals().map_err(Failure::unusable)?;
    let history = History::create(&args.history).map_err(Failure::unusable)?;
    let node = Node::join(&settings).map_err(Failure::unusable)?;
    let ended = ending(signals, &node);
    let shown = Shown { history, lines: Vec::new(), last: None, foreign: 0 };
    let interval_ns = 1_000_000_000 / args.rate;
    let talk = args.talk;
    let mut member =
        LabMember { own, node, shown, published: 0, interval_ns, due_ns: 0, has_state: false, reach: None, talk };
    member.say(format_args!("begins"));
    while ended.try_recv() == Err(TryRecvError::Empty) && member.step()? {}
    member.say(format_args!("ends"));
    Ok(())
}

/// Disconnected once this process is asked to end.
fn ending(mut signals: impl Read + Send + 'static, node: &Node) -> Receiver<()> {
    let (sender, ended) = channel();
    let waker = node.port().waker();
    std::thread::spawn(move || {
        let _ = signals.read(&mut [0]); // whatever ends this wait ends the process
        drop(sender);
        waker.wake();
    });
    ended
}

/// What was delivered here, or before, elsewhere.
struct Shown {
    history: History,
    lines: Vec<u8>,
    last: Option<Name>,
    /// Messages that no lab member published.
    foreign: u64,
}

impl Shown {
    fn note(&mut self, line: &Line) {
        self.history.delivery(line);
        self.last = Some((line.publisher, line.sequence));
        self.lines.extend(write_line(line));
    }
}

struct LabMember {
    own: Publisher,
    node: Node,
    shown: Shown,
    published: u64,
    interval_ns: u64,
    /// When the next message is to be published.
    due_ns: u64,
    /// It began with a member's state.
    has_state: bool,
    /// What was last said about it.
    reach: Option<Reach>,
    talk: bool,
}

impl LabMember {
    fn say(&self, what: fmt::Arguments<'_>) {
        if self.talk {
            eprintln!("{} {}: {what}", self.node.clock().wall_ns() / 1_000_000 % 1_000_000, self.own);
        }
    }

    /// Publishes, delivers, hears the news; false if this life is over.
    fn step(&mut self) -> Result<bool, Failure> {
        self.publish()?;
        let shown = &mut self.shown;
        let work = self.node.poll(|delivery| match line(&delivery) {
            Some(line) => shown.note(&line),
            None => shown.foreign += 1,
        });
        // What follows from a delivery is sent by the next poll.
        self.shown.history.flush();
        let work = work.map_err(Failure::broken)?;
        self.check()?;
        let goes_on = self.hear()?;
        if self.reach != self.node.reach() {
            self.reach = self.node.reach();
            self.reach.iter().for_each(|reach| self.say(format_args!("{}", NodeEvent::Reached(*reach))));
        }
        self.shown.history.flush();
        if work == 0 && goes_on {
            let until_due = Duration::from_nanos(self.due_ns.saturating_sub(self.node.clock().now().0));
            self.node.wait(until_due.min(LONGEST_SLEEP)).map_err(Failure::broken)?;
        }
        Ok(goes_on)
    }

    fn check(&self) -> Result<(), Failure> {
        if let Some(why) = self.shown.history.failure() {
            return Err(Failure::broken(why));
        }
        if self.shown.foreign > 0 {
            return Err(Failure::broken("something else publishes in the lab's group"));
        }
        if self.shown.lines.len() > LINES_MAX * LINE_BYTES {
            return Err(Failure::broken(
                "this campaign is too long for the state that members hand over: fewer rounds",
            ));
        }
        Ok(())
    }

    fn publish(&mut self) -> Result<(), Failure> {
        let now_ns = self.node.clock().now().0;
        if now_ns < self.due_ns {
            return Ok(());
        }
        // Whoever stood still does not make up for it.
        self.due_ns = (self.due_ns + self.interval_ns).max(now_ns);
        let answers = self.published % ANSWER_EVERY == ANSWER_EVERY - 1;
        let payload = payload((self.own, self.published), self.shown.last.filter(|_| answers));
        match self.node.try_publish(TopicId::of("lab"), &payload) {
            Ok(_) => self.published += 1,
            Err(refusal @ (Refusal::TooLarge { .. } | Refusal::Observer)) => return Err(Failure::broken(refusal)),
            Err(_) => {} // for now
        }
        Ok(())
    }

    fn hear(&mut self) -> Result<bool, Failure> {
        while let Some(event) = self.node.poll_event() {
            self.say(format_args!("{}", NodeEvent::Group(event)));
            match event {
                Event::View { epoch, .. } => self.enter(epoch.0),
                Event::SnapshotWanted => {
                    let lines = std::mem::take(&mut self.shown.lines);
                    let given = self.node.give_snapshot(&lines);
                    self.shown.lines = lines;
                    given.map_err(|refusal| Failure::broken(format!("somebody can't join: {refusal}")))?;
                }
                // Its lines are already in the file and may be others than the second state's.
                Event::SnapshotReady if self.has_state => return Ok(false),
                Event::SnapshotReady => self.restore()?,
                Event::Removed(_) | Event::Left(_) => return Ok(false),
                Event::SnapshotTooLarge { .. } | Event::IdentityConflict(_) | Event::ConfigurationDiffers(_) => {
                    return Err(Failure::broken(NodeEvent::Group(event)));
                }
                // A member never may: the judge is to see it.
                Event::Gap { sender, from, to } => self.shown.history.gap(sender.0, from.0, to.0),
                Event::Retracted { sender, from, to } => self.shown.history.retraction(sender.0, from.0, to.0),
                _ => {}
            }
        }
        Ok(true)
    }

    /// Writes a view down that this process is in; those that it only follows are others'.
    fn enter(&mut self, epoch: u64) {
        let process = self.node.process();
        let view = process.view();
        if process.standing() == Standing::Member && view.epoch.0 == epoch {
            let ranks: Vec<u16> = view.members.iter().map(|member| member.rank.0).collect();
            self.shown.history.instance(view.instance);
            self.shown.history.view(epoch, &ranks);
        }
    }

    fn restore(&mut self) -> Result<(), Failure> {
        self.has_state = true;
        let state = self.node.take_snapshot().unwrap_or_default();
        for bytes in state.chunks(LINE_BYTES) {
            let line = read_line(bytes).ok_or_else(|| Failure::broken("a member's state is cut short"))?;
            self.shown.note(&line);
        }
        Ok(())
    }
}

const _: () = assert!(LINES_MAX * LINE_BYTES < 256 << 20, "below the default max_snapshot_bytes");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_says_whose_it_is() {
        let of = |name: &str| Publisher::of(Path::new(name)).map(|publisher| publisher.to_string());
        assert_eq!(of("/tmp/member-3.tsv").as_deref(), Some("3.1"));
        assert_eq!(of("member-0.12.tsv").as_deref(), Some("0.12"));
        for name in ["observer-0.tsv", "member-x.tsv", "member-0.x.tsv", "member-.tsv"] {
            assert_eq!(of(name), None, "{name}");
        }
    }

    #[test]
    fn lines_and_payloads_are_read_back() {
        let publisher = Publisher { rank: 4, life: 3 };
        let line = Delivered { view: 2, order: Some(7), publisher, sequence: 9, after: Some((publisher, 8)), hash: 5 };
        for line in [line, Delivered { order: None, after: None, ..line }] {
            let bytes: Vec<u8> = write_line(&line).collect();
            assert_eq!((read_line(&bytes), bytes.len()), (Some(line), LINE_BYTES));
            assert_eq!(read_line(&bytes[1..]), None);
        }
        let words = words_of(&payload((publisher, 1), None)).unwrap();
        assert_eq!(words, [publisher.word(), 1, NONE, NONE]);
    }
}
