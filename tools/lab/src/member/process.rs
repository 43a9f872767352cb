//! One member for the lab: it publishes, delivers, and records what it delivered, until it is removed or stopped.
//!
//! `bourdon-lab rounds` injects faults into it and judges its history. The judge must tell messages apart by name
//! alone, across kills: a message that only a killed process delivered may exist nowhere else, and the next incarnation
//! publishes other messages in its place. So a publisher is an incarnation (`RANK.INCARNATION`). Each publisher numbers
//! its messages, and each payload holds its publisher, its number and the message that it answers, so that the history
//! is made of the received bytes.
//!
//! A file named `observer-RANK.tsv` makes it an observer, which only delivers. With `--short-state` a state is a count
//! and a sum, so that a long campaign over a bad network does not measure how fast states are sent.
//!
//! A joiner first gets a member's state: all history lines of that member. The joiner writes them as its own before its
//! first view. A process that gets state twice, or is removed, ends; the harness that started it starts its next
//! incarnation.
//!
//! Invariant: a line is in the file before any consequence of it leaves the process.

use super::messages::{LINE_BYTES, Line, Name, Publisher, bytes_of, line, payload, read_line, words_of, write_line};
use super::names::Names;
use super::{Failure, ending_of, named};
use bourdon::settings::{Order, Profile, Reliability, Role, Settings, Transport};
use bourdon::{
    Coordination, Delivery, Event, InstanceId, LockNews, Node, NodeEvent, Patience, Port, Rank, Reach, Refusal,
    Sequence, Standing, TopicId, TopicName,
};
use bourdon_lab::history::writer::History;
use bourdon_lab::interrupt::Interrupt;
use std::fmt;
use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::mpsc::TryRecvError;
use std::time::Duration;

/// The longest sleep: no work here is more urgent.
const LONGEST_SLEEP: Duration = Duration::from_millis(10);
/// One message in this many answers the message that its publisher delivered last.
const ANSWER_EVERY: u64 = 8;
/// The most history lines: the state for a joiner stays below the largest snapshot.
const LINES_MAX: usize = 4_000_000;

/// One member of a lab's group
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// How many members the group has
    #[arg(long)]
    members: u16,
    /// The file to write; its name gives this member's rank: member-RANK.tsv, or member-RANK.INCARNATION.tsv
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
    /// default, fast or patient
    #[arg(long, default_value = "default", value_parser = named::<Profile>)]
    profile: Profile,
    /// How often the whole group was started before: part of every message's name
    #[arg(long, default_value_t = 0)]
    generation: u16,
    /// Send joiners a count and a sum of what was delivered, not all lines: a state that stays small
    #[arg(long)]
    short_state: bool,
    /// Where the group's highest birth is stored
    #[arg(long, value_name = "DIRECTORY")]
    state_directory: Option<PathBuf>,
    /// Take a lock once a member, and append its token to this file: the birth, the epoch and the number
    #[arg(long, value_name = "FILE")]
    tokens: Option<PathBuf>,
    /// Report on stderr what happens
    #[arg(long)]
    talk: bool,
}

pub(crate) fn run(args: Args) -> Result<(), Failure> {
    let Some((role, own)) = Publisher::of(&args.history, args.generation) else {
        let path = args.history.display();
        return Err(Failure::unusable(format!("{path} is not named member-RANK.tsv or observer-RANK.INCARNATION.tsv")));
    };
    let settings = settings(&args, role, own)?;
    // Before the first thread, so that no signal is missed.
    let interrupt = Interrupt::watch().map_err(Failure::unusable)?;
    let history = History::create(&args.history).map_err(Failure::unusable)?;
    let node = Node::join(&settings).map_err(Failure::unusable)?;
    let waker = node.port().waker();
    let ended = ending_of(move || interrupt.wait(), move || waker.wake());
    let deliveries = Deliveries {
        history,
        short_state: args.short_state,
        lines: Vec::new(),
        names: Names::default(),
        instance: InstanceId::NONE,
        view: 0,
        count: 0,
        sum: 0,
        last: None,
        foreign: 0,
    };
    let interval_ns = 1_000_000_000 / args.rate;
    let talk = args.talk;
    let mut member = Member {
        own,
        is_member: settings.process.role == Role::Member,
        node,
        deliveries,
        entered: Vec::new(),
        published: 0,
        interval_ns,
        due_ns: 0,
        has_state: false,
        tokens: args.tokens,
        has_asked: false,
        reach: None,
        talk,
    };
    member.print(format_args!("begins"));
    while ended.try_recv() == Err(TryRecvError::Empty) && member.step()? {}
    member.print(format_args!("ends"));
    Ok(())
}

fn settings(args: &Args, role: &str, own: Publisher) -> Result<Settings, Failure> {
    let mut settings = Settings::default();
    settings.group.name = "lab".to_owned();
    settings.group.members = args.members;
    settings.group.order = args.order;
    settings.group.reliability = args.reliability;
    settings.process.role = match role {
        "member" => Role::Member,
        "observer" => Role::Observer,
        _ => return Err(Failure::unusable(format!("a history is a member's or an observer's, not {role:?}'s"))),
    };
    settings.process.rank = own.rank;
    settings.process.snapshots = true;
    settings.process.state_directory.clone_from(&args.state_directory);
    settings.network.interface.clone_from(&args.interface);
    settings.network.transport = args.transport;
    settings.network.peers.clone_from(&args.peers);
    settings.detector.profile = args.profile;
    Ok(settings)
}

/// What this process delivered, or took over from another process's state.
struct Deliveries {
    history: History,
    /// Its state is [`Deliveries::count`] and [`Deliveries::sum`], not all lines.
    short_state: bool,
    lines: Vec<u8>,
    /// The names of this instance's messages.
    names: Names,
    instance: InstanceId,
    /// The last view that was installed.
    view: u64,
    /// How many messages were delivered, including those of the initial state.
    count: u64,
    /// The sum of their hashes.
    sum: u64,
    last: Option<Name>,
    /// Messages that no lab member published.
    foreign: u64,
}

impl Deliveries {
    fn deliver(&mut self, delivery: &Delivery<'_>) {
        let Some(line) = line(delivery) else {
            self.foreign += 1;
            return;
        };
        let sender = (delivery.sender.0, delivery.incarnation);
        self.names.note(sender, delivery.sequence.0, line.view, (line.publisher, line.sequence));
        self.note(&line);
        self.lines.extend((!self.short_state).then(|| write_line(&line)).into_iter().flatten());
    }

    /// A view begins; `instance` is that of the group.
    fn enter(&mut self, instance: InstanceId, view: u64, members: &[u16]) {
        if self.instance != instance {
            self.names.clear();
        }
        (self.instance, self.view) = (instance, view);
        self.history.instance(instance.0);
        self.history.view(view, members);
    }

    fn gap(&mut self, sender: Rank, from: Sequence, to: Sequence) {
        let missing = self.names.missing(sender.0, from.0..to.0);
        if missing.is_empty() {
            self.history.gap(sender.0, from.0, to.0); // the judge is to see that there was one
        }
        missing.iter().for_each(|(publisher, numbers)| self.history.gap(publisher, numbers.start, numbers.end));
    }

    fn retraction(&mut self, sender: Rank, from: Sequence, to: Sequence) {
        for (publisher, number) in self.names.take(sender.0, from.0..to.0, self.view) {
            self.history.retraction(publisher, number, number + 1);
        }
    }

    fn note(&mut self, line: &Line) {
        self.history.delivery(line);
        self.last = Some((line.publisher, line.sequence));
        (self.count, self.sum) = (self.count + 1, self.sum.wrapping_add(line.hash));
    }
}

struct Member {
    own: Publisher,
    /// Whether it publishes; an observer does not.
    is_member: bool,
    node: Node,
    deliveries: Deliveries,
    /// The members of the last recorded view, the most senior first.
    entered: Vec<u16>,
    published: u64,
    interval_ns: u64,
    /// When the next message is to be published.
    due_ns: u64,
    /// Whether it began with a member's state.
    has_state: bool,
    /// The file that the token is written to, until it is written.
    tokens: Option<PathBuf>,
    /// Whether it has requested the lock.
    has_asked: bool,
    /// The last report about the lock.
    reach: Option<Reach>,
    talk: bool,
}

impl Member {
    fn print(&self, what: fmt::Arguments<'_>) {
        if self.talk {
            eprintln!("{} {}: {what}", self.node.clock().wall_ns() / 1_000_000 % 1_000_000, self.own);
        }
    }

    /// Publishes, delivers and handles events; returns false if this incarnation is over.
    fn step(&mut self) -> Result<bool, Failure> {
        self.publish()?;
        let deliveries = &mut self.deliveries;
        // This comes first, because a member that is removed still records what it delivered.
        let work = self.node.poll(|delivery| deliveries.deliver(&delivery));
        // The next poll sends whatever follows from a delivery.
        self.deliveries.history.flush();
        let work = work.map_err(Failure::broken)?;
        self.check()?;
        let goes_on = self.hear()? && self.take_token()?;
        if self.reach != self.node.reach() {
            self.reach = self.node.reach();
            self.reach.iter().for_each(|reach| self.print(format_args!("{}", NodeEvent::Reached(*reach))));
        }
        self.deliveries.history.flush();
        if work == 0 && goes_on {
            let until_due = Duration::from_nanos(self.due_ns.saturating_sub(self.node.clock().now().0));
            // Only a member publishes: for any other process the time at which it is due has passed.
            let longest = if self.is_member { until_due.min(LONGEST_SLEEP) } else { LONGEST_SLEEP };
            self.node.wait(longest).map_err(Failure::broken)?;
        }
        Ok(goes_on)
    }

    fn check(&self) -> Result<(), Failure> {
        if let Some(why) = self.deliveries.history.failure() {
            return Err(Failure::broken(why));
        }
        if self.deliveries.foreign > 0 {
            return Err(Failure::broken("something else publishes in the lab's group"));
        }
        if self.deliveries.lines.len() > LINES_MAX * LINE_BYTES {
            return Err(Failure::broken(
                "this campaign is too long for the state that members hand over: fewer rounds",
            ));
        }
        Ok(())
    }

    fn publish(&mut self) -> Result<(), Failure> {
        let now_ns = self.node.clock().now().0;
        if now_ns < self.due_ns || !self.is_member {
            return Ok(());
        }
        // A process that was stopped does not catch up.
        self.due_ns = (self.due_ns + self.interval_ns).max(now_ns);
        let answers = self.published % ANSWER_EVERY == ANSWER_EVERY - 1;
        let payload = payload((self.own, self.published), self.deliveries.last.filter(|_| answers));
        match self.node.try_publish(TopicId::of("lab"), &payload) {
            Ok(_) => self.published += 1,
            Err(refusal @ (Refusal::TooLarge { .. } | Refusal::Observer)) => return Err(Failure::broken(refusal)),
            Err(_) => {} // for now
        }
        Ok(())
    }

    /// Handles all events; returns false if this incarnation is over.
    fn hear(&mut self) -> Result<bool, Failure> {
        while let Some(event) = self.node.poll_event() {
            self.print(format_args!("{}", NodeEvent::Group(event)));
            match event {
                Event::View { epoch, members, .. } => self.enter(epoch.0, members),
                Event::SnapshotWanted => {
                    let lines = std::mem::take(&mut self.deliveries.lines);
                    let sums: Vec<u8> = bytes_of([self.deliveries.count, self.deliveries.sum]).collect();
                    let given = self.node.give_snapshot(if self.deliveries.short_state { &sums } else { &lines });
                    self.deliveries.lines = lines;
                    given.map_err(|refusal| Failure::broken(format!("a process can't join: {refusal}")))?;
                }
                // Its lines are already in the file and may differ from the lines of the second state.
                Event::SnapshotReady if self.has_state => return Ok(false),
                Event::SnapshotReady => self.restore()?,
                Event::Removed(_) | Event::Left(_) => return Ok(false),
                Event::SnapshotTooLarge { .. } | Event::IdentityConflict(_) | Event::ConfigurationDiffers(_) => {
                    return Err(Failure::broken(NodeEvent::Group(event)));
                }
                // A member must never do this, so it is recorded for the judge.
                Event::Gap { sender, from, to } => self.deliveries.gap(sender, from, to),
                Event::Retracted { sender, from, to } => self.deliveries.retraction(sender, from, to),
                _ => {}
            }
        }
        Ok(true)
    }

    /// Records a view that this process is in; a joiner follows earlier views that it is not in.
    fn enter(&mut self, epoch: u64, members: u64) {
        let process = self.node.process();
        let view = process.view();
        let is_in = process.standing() == Standing::Member || !self.is_member;
        let ranks: Vec<u16> = if view.epoch.0 == epoch {
            view.members.iter().map(|member| member.rank.0).collect()
        } else if self.entered.is_empty() {
            return; // it followed: the view that it is in comes next
        } else {
            // The process has installed the next view already: members that stay keep their places, joiners come last.
            let is_member = |rank: &u16| members >> rank & 1 == 1;
            let stayed: Vec<u16> = self.entered.iter().copied().filter(is_member).collect();
            let joined = (0..64).filter(|rank| is_member(rank) && !stayed.contains(rank));
            stayed.iter().copied().chain(joined).collect()
        };
        if is_in {
            self.deliveries.enter(view.instance, epoch, &ranks);
            self.entered = ranks;
        }
    }

    fn restore(&mut self) -> Result<(), Failure> {
        self.has_state = true;
        let state = self.node.take_snapshot().unwrap_or_default();
        if self.deliveries.short_state {
            let [count, sum] = words_of(&state).ok_or_else(|| Failure::broken("a member's state is cut short"))?;
            (self.deliveries.count, self.deliveries.sum) = (count, sum);
            self.deliveries.history.state(count, sum);
            return Ok(());
        }
        for bytes in state.chunks(LINE_BYTES) {
            let line = read_line(bytes).ok_or_else(|| Failure::broken("a member's state is cut short"))?;
            self.deliveries.note(&line);
            self.deliveries.lines.extend(write_line(&line));
        }
        Ok(())
    }

    /// Requests the lock once a member, and records the token that is granted.
    fn take_token(&mut self) -> Result<bool, Failure> {
        while let Some(news) = self.node.poll_coordination() {
            let Coordination::Lock(id, LockNews::Granted(token)) = news else { continue };
            self.node.unlock(id);
            let Some(path) = self.tokens.take() else { continue };
            let file = std::fs::OpenOptions::new().create(true).append(true).open(&path);
            let noted = file.and_then(|mut file| writeln!(file, "{} {} {}", token.birth, token.epoch.0, token.number));
            noted.map_err(|error| Failure::unusable(format!("can't write {}: {error}", path.display())))?;
            self.print(format_args!("has the lock under token {}:{}:{}", token.birth, token.epoch.0, token.number));
        }
        if self.tokens.is_some() && !self.has_asked && self.node.process().standing() == Standing::Member {
            let lock = TopicName::new("lab").map_err(Failure::unusable)?;
            self.has_asked = self.node.lock(lock, Patience::Forever).is_ok(); // refused for now: asked again
        }
        Ok(true)
    }
}

const _: () = assert!(LINES_MAX * LINE_BYTES < 256 << 20, "below the default max_snapshot_bytes");
