//! A replicated state machine: one order book on five processes, the same on each, whichever is killed meanwhile, and
//! also if all are killed at once.
//!
//! ```sh
//! cargo run --release -p bourdon --example order_book                       # synthetic events
//! cargo run --release -p bourdon --example order_book -- FILE.dbn.zst       # recorded ones (market by order)
//! ```
//!
//! The recipe has three steps. *One*: a state machine that is changed by events only (`book.rs`). *Two*: publish the
//! events on a group in total order, and apply what is delivered, nothing else; every process then goes through the
//! same states. *Three*: give the state when it is asked for, and take the one that comes: a member that joins has
//! missed the events before, and a member that starts again has its storage. What is delivered to them afterwards
//! follows exactly on that state.
//!
//! The group is `durable`: what is delivered anywhere is on the disks of a majority, so what a process does outside
//! because of an event (for example, confirm a trade) is never undone, whatever crashes, be it all at once. At
//! `reliable` a member might act, crash, and be the only member that ever delivered the event.
//!
//! This program starts three members and two observers as processes. Member 0 publishes. Half-way member 2 loses its
//! disk, is killed (`kill -9`) and started again; it takes the book over from another member. After three quarters all
//! five are killed at once. The members go on from their disks, the observers from a member. The end is good if all
//! books are equal.

mod book;
mod input;

use book::{Book, Event};
use bourdon::id::TopicId;
use bourdon::settings::{Order, Reliability, Role, Start};
use bourdon::{Delivery, Event as GroupEvent, InlineNode, Settings, Topic};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::time::Duration;

const MEMBERS: u16 = 3;
const OBSERVERS: u16 = 2;
const PUBLISHER: u16 = 0;
/// The member that is killed alone.
const VICTIM: usize = 2;
const EVENTS: usize = 50_000;
/// How long the parent may wait for any process.
const PATIENCE: Duration = Duration::from_secs(60);
const TOPIC: Topic = Topic::of_id(TopicId::of("orders"));

/// A process's number, and a line it printed.
type Line = (usize, String);
type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let done = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["process", number, place, count, ref file @ ..] => replicate(number, place, count, file.first().copied()),
        ["--events", count, ref file @ ..] => run_all(count.parse().unwrap_or(EVENTS), file.first().copied()),
        ref file => run_all(EVENTS, file.first().copied()),
    };
    if let Err(error) = &done {
        eprintln!("order_book: {error}");
    }
    if done.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn load(count: usize, file: Option<&str>) -> Outcome<Vec<Event>> {
    Ok(match file {
        Some(path) => input::read(&PathBuf::from(path), count)?,
        None => input::synthetic(count),
    })
}

// ---- one process of the group -------------------------------------------------------------------------------------

/// Number 0 to 2 are the members, the others observers.
fn settings(number: u16, place: &str) -> Outcome<Settings> {
    let (address, directory) = place.split_once('=').ok_or("a place is an address and a directory")?;
    let mut settings = Settings::default();
    settings.group.name = "order-book".into();
    settings.group.address = address.parse()?;
    settings.group.members = MEMBERS;
    settings.group.order = Order::Total;
    settings.group.reliability = Reliability::Durable;
    settings.process.snapshots = true; // the book is given and taken, and stored
    if number < MEMBERS {
        settings.process.rank = number;
        settings.storage.directory = Some(member_directory(Path::new(directory), number));
    } else {
        (settings.process.role, settings.process.start) = (Role::Observer, Start::Snapshot);
    }
    Ok(settings)
}

fn member_directory(directory: &Path, number: u16) -> PathBuf {
    directory.join(format!("member-{number}"))
}

/// Keeps a copy of the book until the events are through and stdin is closed.
fn replicate(number: &str, place: &str, count: &str, file: Option<&str>) -> Outcome<()> {
    let (number, count): (u16, usize) = (number.parse()?, count.parse()?);
    let is_publisher = number == PUBLISHER;
    let events = if is_publisher { load(count, file)? } else { Vec::new() };
    let mut node = InlineNode::join(&settings(number, place)?)?;
    let orders = lines_of_stdin();
    let (mut book, mut sent, mut may_send, mut printed) = (Book::default(), 0, 0, 0);
    let (mut is_ready, mut has_sent) = (false, false);
    loop {
        match orders.try_recv() {
            Ok(order) => may_send = order.parse::<usize>()?,
            Err(TryRecvError::Disconnected) => return Ok(()),
            Err(TryRecvError::Empty) => {}
        }
        // Publishing changes nothing here: the publisher, too, applies an event when it is delivered to it.
        while sent < may_send.min(events.len()) {
            match node.try_publish(&TOPIC, &events[sent].to_bytes()) {
                Ok(_) => (sent, has_sent) = (sent + 1, true),
                Err(refusal) if refusal.is_transient() => break,
                Err(refusal) => return Err(refusal.into()),
            }
        }
        let mut failure = Ok(());
        let worked = node.poll(usize::MAX, |delivery| match delivery {
            Delivery::Message(message) => {
                if let Some(event) = Event::from_bytes(message.payload) {
                    book.apply(event); // here is the place to act outside: the event is uniform
                }
            }
            // The state as it is now, between two deliveries, goes to the joiner.
            Delivery::SnapshotRequest(request) => {
                failure = request.give(&book.to_bytes()).map_err(|why| why.to_string())
            }
            // It replaces whatever this process had; the next delivery follows on it.
            Delivery::Snapshot(state) => match Book::from_bytes(state.bytes()) {
                Some(restored) => {
                    book = restored;
                    print(&format!("restored {}", book.events));
                }
                None => failure = Err("the snapshot is no book".to_owned()),
            },
            // What it published before a crash has come by now, or never will: it goes on behind that.
            Delivery::Event(GroupEvent::View { .. }) if !has_sent => sent = book.events as usize,
            _ => {}
        })?;
        failure?;
        if !is_ready && node.is_formed() {
            is_ready = true;
            print("ready");
        }
        if printed == 0 && book.events as usize >= count / 2 {
            printed = 1;
            print("half");
        }
        if printed == 1 && book.events as usize >= count * 3 / 4 {
            printed = 2;
            print("three quarters");
        }
        if printed == 2 && book.events as usize >= count {
            printed = 3;
            let (bid, offer) = book.best();
            let price = |price: Option<i64>| price.map_or("-".to_owned(), |price| price.to_string());
            let (hash, resting, traded) = (book.hash(), book.resting(), book.traded);
            print(&format!("book {hash:016x} {} {} resting {resting} traded {traded}", price(bid), price(offer)));
        }
        if worked == 0 && (sent == may_send.min(events.len()) || !is_publisher) {
            node.wait(Duration::from_millis(20))?;
        }
    }
}

fn lines_of_stdin() -> Receiver<String> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                break;
            }
        }
    });
    receiver
}

fn print(line: &str) {
    let mut stdout = std::io::stdout().lock();
    // The parent has ended: stdin reports it as well.
    let _ = writeln!(stdout, "{line}").and_then(|()| stdout.flush());
}

// ---- all of them ---------------------------------------------------------------------------------------------------

/// The processes, and what they print.
struct Processes {
    address: String,
    directory: PathBuf,
    count: usize,
    file: Option<String>,
    children: Vec<Child>,
    /// Which process printed what.
    lines: Sender<Line>,
    printed: Receiver<Line>,
}

impl Processes {
    fn start(&self, number: usize) -> Outcome<Child> {
        let mut command = Command::new(std::env::current_exe()?);
        let place = format!("{}={}", self.address, self.directory.display());
        command.args(["process", &number.to_string(), &place, &self.count.to_string()]).args(&self.file);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let (lines, printed) = (child.stdout.take().ok_or("no stdout")?, self.lines.clone());
        std::thread::spawn(move || {
            for line in BufReader::new(lines).lines().map_while(Result::ok) {
                let _ = printed.send((number, line)); // at the end no receiver is left
            }
        });
        Ok(child)
    }

    /// The next line of any process.
    fn hear(&self) -> Outcome<Line> {
        self.printed.recv_timeout(PATIENCE).map_err(|_| "no process has printed anything for a minute".into())
    }

    fn start_all(&mut self) -> Outcome<()> {
        let all = usize::from(MEMBERS + OBSERVERS);
        self.children = (0..all).map(|number| self.start(number)).collect::<Outcome<_>>()?;
        let mut waiting: Vec<usize> = (0..all).collect();
        while !waiting.is_empty() {
            let (child, line) = self.hear()?;
            waiting.retain(|number| *number != child || line != "ready");
        }
        Ok(())
    }

    fn kill_all(&mut self) {
        for child in &mut self.children {
            let _ = child.kill(); // SIGKILL
        }
        for mut child in self.children.drain(..) {
            let _ = child.wait();
        }
    }

    fn wait_for(&self, number: usize, word: &str) -> Outcome<String> {
        loop {
            let (child, line) = self.hear()?;
            if child == number && line.starts_with(word) {
                return Ok(line);
            }
        }
    }

    /// Sends the publisher how many events it may have published.
    fn publish(&mut self, up_to: usize) -> Outcome<()> {
        let stdin = self.children[usize::from(PUBLISHER)].stdin.as_mut().ok_or("no stdin")?;
        Ok(writeln!(stdin, "{up_to}")?)
    }
}

impl Drop for Processes {
    fn drop(&mut self) {
        self.kill_all();
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

fn run_all(count: usize, file: Option<&str>) -> Outcome<()> {
    let count = load(count, file)?.len();
    let pid = std::process::id();
    let address = format!("239.255.{}.{}:{}", pid >> 8 & 0xff, pid & 0xff, 20_000 + pid % 10_000);
    let (lines, printed) = channel();
    let directory = std::env::temp_dir().join(format!("order-book-{pid}"));
    let (file, children) = (file.map(str::to_owned), Vec::new());
    let mut processes = Processes { address, directory, count, file, children, lines, printed };
    processes.start_all()?;
    println!("{MEMBERS} members and {OBSERVERS} observers are ready; {count} events, durable, in total order");

    processes.publish(count * 3 / 4)?;
    processes.wait_for(VICTIM, "half")?;
    processes.children[VICTIM].kill()?; // SIGKILL: it has no chance to leave
    processes.children[VICTIM].wait()?;
    std::fs::remove_dir_all(member_directory(&processes.directory, VICTIM as u16))?;
    println!("member {VICTIM} was killed after half of them, and its disk is lost");
    processes.children[VICTIM] = processes.start(VICTIM)?;
    let restored = processes.wait_for(VICTIM, "restored")?;
    let events = restored.trim_start_matches("restored ");
    println!("member {VICTIM} is back, with the book as it was after {events} events");
    processes.wait_for(VICTIM, "three quarters")?;
    processes.kill_all();
    println!("all were killed after three quarters of them");
    processes.start_all()?;
    processes.publish(count)?;

    let mut books = vec![None; processes.children.len()];
    while books.iter().any(Option::is_none) {
        let (child, line) = processes.hear()?;
        if let Some(book) = line.strip_prefix("book ") {
            books[child] = Some(book.to_owned());
        }
    }
    for (number, book) in books.iter().enumerate() {
        let role = if number < usize::from(MEMBERS) { "member" } else { "observer" };
        let rank = number % usize::from(MEMBERS);
        println!("{role} {rank}: book, best bid, best offer: {}", book.as_deref().unwrap_or_default());
    }
    if books.iter().all(|book| *book == books[0]) {
        println!("All books are equal.");
        return Ok(());
    }
    Err("the books differ".into())
}
