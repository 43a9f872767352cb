//! One member that acquires a lock again and again; `bourdon-lab locks` starts, kills, stops and judges such members.
//!
//! Once granted, the member enters a resource that checks tokens (`bourdon_lab::locks::journal`), works a while, and
//! commits. It polls during the first half of the work, so it notices when the lock is lost. It does not poll during
//! the second half, as real work does not: a member that is stopped there comes back stale and still tries to commit. A
//! member that the resource refuses holds a lock that has been granted to another member by now. It waits until its
//! node reports the loss. If no report comes, it gives up, and the judge interprets that.
//!
//! It prints on stdout, a line each: `joined`, `inside`, `out`, `gave-up`. It ends when stdin ends, or when it was
//! removed from the group; the harness that started it starts its next incarnation.

use super::{Failure, ending_of, named};
use bourdon::error::{LockError, Loss, Lost};
use bourdon::settings::{MutexKind, Profile, Settings};
use bourdon::{Event, FencingToken, Guard, InlineNode, LockRequest, Standing};
use bourdon_lab::locks::journal::{Grant, Incarnation, Journal, Kind, Token, now_ns};
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::mpsc::TryRecvError;
use std::time::Duration;

/// The lock.
const LOCK: &str = "counter";
/// The longest sleep: no work here is more urgent.
const LONGEST_SLEEP: Duration = Duration::from_millis(5);
/// The longest sleep of a member that works between polls.
const WORKING_SLEEP: Duration = Duration::from_micros(100);
/// The node reports a lost lock within this time. Otherwise the lock is not lost, and two members held it. Many view
/// changes long.
const REPORTED_WITHIN_NS: u64 = 5_000_000_000;

/// One member of a group that shares a lock in the lab
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// How many members the group has
    #[arg(long)]
    members: u16,
    #[arg(long)]
    rank: u16,
    /// How often this member was started, this time included
    #[arg(long)]
    incarnation: u32,
    /// The group's name
    #[arg(long)]
    group: String,
    /// Its multicast address
    #[arg(long)]
    address: SocketAddr,
    /// replicated, central, lamport, ricart-agrawala or token-ring
    #[arg(long, value_parser = named::<MutexKind>)]
    algorithm: MutexKind,
    /// default or fast
    #[arg(long, value_parser = named::<Profile>)]
    profile: Profile,
    /// The resource
    #[arg(long)]
    journal: PathBuf,
    /// How long to stay inside, on average
    #[arg(long, value_name = "US")]
    inside: u64,
    #[arg(long)]
    seed: u64,
    /// Every this many entries, enter without the lock, to check that the judge detects it
    #[arg(long, default_value_t = 0)]
    cheat: u64,
    /// Report on stderr what happens
    #[arg(long)]
    talk: bool,
}

/// The state of this member.
#[derive(Debug)]
enum Place {
    Outside,
    Waiting {
        requested_ns: u64,
    },
    Inside {
        grant: Grant,
        read: u64,
        half_ns: u64,
        until_ns: u64,
    },
    /// The resource has reported that another member has the lock; the node has not reported it.
    Stale {
        grant: Grant,
        since_ns: u64,
    },
}

struct Locker {
    own: Incarnation,
    node: InlineNode,
    journal: Journal,
    place: Place,
    /// The request while it waits, and the lock while it is held; none for an entry without it.
    request: Option<LockRequest>,
    guard: Option<Guard>,
    /// The last request was refused.
    is_refused: bool,
    is_member: bool,
    inside_ns: u64,
    entries: u64,
    cheat: u64,
    rng: fastrand::Rng,
    talk: bool,
}

pub(crate) fn run(args: Args) -> Result<(), Failure> {
    let _ = rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL));
    let own = Incarnation { rank: args.rank, incarnation: args.incarnation };
    let mut settings = Settings::default();
    settings.group.name = args.group;
    settings.group.address = args.address;
    settings.group.members = args.members;
    settings.group.mutex = Some(args.algorithm);
    settings.process.rank = args.rank;
    settings.network.interface = "lo".to_owned();
    settings.detector.profile = args.profile;
    let journal = Journal::open(&args.journal).map_err(Failure::unusable)?;
    let node = InlineNode::join(&settings).map_err(Failure::unusable)?;
    let waker = node.waker();
    // Whatever ends this wait ends the process.
    let ended = ending_of(|| _ = std::io::stdin().read(&mut [0]), move || waker.wake());
    let mut locker = Locker {
        own,
        node,
        journal,
        place: Place::Outside,
        request: None,
        guard: None,
        is_refused: false,
        is_member: false,
        inside_ns: args.inside * 1_000,
        entries: 0,
        cheat: args.cheat,
        rng: fastrand::Rng::with_seed(args.seed ^ u64::from(own.rank) << 32 ^ u64::from(own.incarnation)),
        talk: args.talk,
    };
    while ended.try_recv() == Err(TryRecvError::Empty) && locker.step()? {}
    locker.give_up()
}

/// If the process that started this one does not read, it has ended, and then stdin ends too.
fn print(what: &str) {
    let _ = writeln!(std::io::stdout(), "{what}");
}

fn token(token: FencingToken) -> Token {
    Token { epoch: token.epoch.0, number: token.number }
}

impl Locker {
    fn talk(&self, what: std::fmt::Arguments<'_>) {
        if self.talk {
            eprintln!("{} {}: {what}", now_ns() / 1_000 % 100_000_000, self.own);
        }
    }

    /// Polls, handles events, works on; returns false if this incarnation is over.
    fn step(&mut self) -> Result<bool, Failure> {
        let mut events = Vec::new();
        let work = self.node.poll(usize::MAX, |delivery| events.extend(delivery.event())).map_err(Failure::broken)?;
        self.look_at_lock()?;
        if !self.hear(events)? {
            return Ok(false);
        }
        let sleep = self.go_on()?;
        if work == 0 {
            self.node.wait(sleep).map_err(Failure::broken)?;
        }
        Ok(true)
    }

    fn hear(&mut self, events: Vec<Event>) -> Result<bool, Failure> {
        for event in events {
            self.talk(format_args!("{event}"));
            match event {
                Event::View { epoch, .. } => {
                    let node = &self.node;
                    if node.standing() == Standing::Member && node.view().epoch == epoch && !self.is_member {
                        self.is_member = true;
                        print("joined");
                    }
                }
                Event::Removed(_) | Event::Left(_) => return Ok(false),
                Event::IdentityConflict { .. } | Event::Outvoted(..) => {
                    return Err(Failure::broken(event));
                }
                _ => {}
            }
        }
        Ok(true)
    }

    fn look_at_lock(&mut self) -> Result<(), Failure> {
        match self.place {
            Place::Outside => Ok(()),
            Place::Waiting { requested_ns } => {
                let Some(request) = &mut self.request else { return Ok(()) };
                match request.try_guard() {
                    Ok(None) => return Ok(()),
                    Ok(Some(guard)) => {
                        let token = token(guard.token());
                        (self.request, self.guard) = (None, Some(guard));
                        return self.enter(token, requested_ns);
                    }
                    Err(error @ (LockError::Lost(_) | LockError::Refused(_))) => self.talk(format_args!("{error}")),
                    Err(error) => return Err(Failure::broken(error)),
                }
                (self.request, self.place, self.is_refused) = (None, Place::Outside, true);
                Ok(())
            }
            Place::Inside { grant, .. } | Place::Stale { grant, .. } => {
                let Some(why) = self.guard.as_ref().and_then(Guard::lost) else { return Ok(()) };
                self.talk(format_args!("{why}"));
                let how = if why == Lost::Group(Loss::NoMajority) { Kind::CutOff } else { Kind::Lost };
                self.journal.end(grant, how).map_err(Failure::broken)?;
                self.release();
                Ok(())
            }
        }
    }

    fn enter(&mut self, token: Token, requested_ns: u64) -> Result<(), Failure> {
        let granted_ns = now_ns();
        let grant = Grant { holder: self.own, token, requested_ns, granted_ns };
        match self.journal.begin(grant).map_err(Failure::broken)? {
            Ok(read) => {
                print("inside");
                let half_ns = granted_ns + self.rng.u64(..=self.inside_ns);
                let until_ns = half_ns + self.rng.u64(..=self.inside_ns);
                self.place = Place::Inside { grant, read, half_ns, until_ns };
                self.entries += 1;
            }
            Err(_) => self.place = Place::Stale { grant, since_ns: now_ns() },
        }
        Ok(())
    }

    /// Does the work that is due; returns how long there is none.
    fn go_on(&mut self) -> Result<Duration, Failure> {
        match self.place {
            Place::Outside if self.cheat > 0 && self.entries % self.cheat == self.cheat - 1 => {
                self.entries += 1;
                let highest = self.journal.lines().map_err(Failure::broken)?.last().map(|line| line.highest);
                let Token { epoch, number } = highest.unwrap_or_default();
                self.enter(Token { epoch, number: number + 1 }, now_ns())?;
                Ok(Duration::ZERO)
            }
            Place::Outside => {
                if std::mem::take(&mut self.is_refused) || self.node.standing() != Standing::Member {
                    return Ok(LONGEST_SLEEP); // for now
                }
                self.request = Some(self.node.request_lock(LOCK).map_err(Failure::broken)?);
                self.place = Place::Waiting { requested_ns: now_ns() };
                Ok(Duration::ZERO)
            }
            Place::Waiting { .. } => Ok(LONGEST_SLEEP),
            Place::Stale { grant, since_ns } if self.guard.is_none() || now_ns() - since_ns > REPORTED_WITHIN_NS => {
                self.journal.end(grant, Kind::Abandoned).map_err(Failure::broken)?;
                print("gave-up");
                self.release();
                Ok(Duration::ZERO)
            }
            Place::Stale { .. } => Ok(LONGEST_SLEEP),
            Place::Inside { half_ns, .. } if now_ns() < half_ns => Ok(WORKING_SLEEP),
            Place::Inside { grant, read, until_ns, .. } => {
                std::thread::sleep(Duration::from_nanos(until_ns.saturating_sub(now_ns()))); // the work
                if !self.journal.commit(grant, read).map_err(Failure::broken)? {
                    self.place = Place::Stale { grant, since_ns: now_ns() };
                    return Ok(Duration::ZERO);
                }
                print("out");
                self.release();
                Ok(Duration::ZERO)
            }
        }
    }

    fn release(&mut self) {
        (self.guard, self.place) = (None, Place::Outside);
    }

    /// Ends in order: no other process is left in doubt whether this member still holds the lock.
    fn give_up(&mut self) -> Result<(), Failure> {
        match self.place {
            Place::Inside { grant, .. } | Place::Stale { grant, .. } => {
                self.journal.end(grant, Kind::Abandoned).map_err(Failure::broken)
            }
            _ => Ok(()),
        }
    }
}
