//! A member of the group whose locks and elections are measured, in a separate process.
//!
//! It executes commands, a line at a time: acquire the lock again and again for a while, stand for election, report its
//! figures. Between commands it serves the others, as any member does. A member that learns that it was removed joins
//! again.

use crate::Failure;
use crate::script::{broken, now_ns, report};
use bourdon::counters::Counter;
use bourdon::error::LockError;
use bourdon::id::Rank;
use bourdon::settings::Settings;
use bourdon::time::Idler;
use bourdon::{Election, Event, FencingToken, InlineNode, LockRequest, Standing};
use serde::{Deserialize, Serialize};
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::Duration;

/// The lock, and the election.
pub(super) const NAME: &str = "bench";

/// The configuration of a member: the first line it reads.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Task {
    pub(crate) settings: Settings,
    /// The member has threads of its own.
    pub(crate) threaded: bool,
}

/// When a lock was requested, was granted, and began to be released.
pub(super) type Entry = [u64; 3];

/// Sent by the harness, a line each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Order {
    /// Acquire the lock and release it, at most this often and at most until then.
    Enter { entries: u64, until_ns: u64 },
    /// Stand for election.
    Stand,
    /// Report the figures.
    Count,
}

/// The leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Leader {
    pub(crate) rank: u16,
    epoch: u64,
    number: u64,
    /// When this member learned of it.
    pub(crate) at_ns: u64,
}

impl Leader {
    /// A leader of which this process learns now.
    pub(super) fn now((leader, token): (Rank, FencingToken)) -> Self {
        Self { rank: leader.0, epoch: token.epoch.0, number: token.number, at_ns: now_ns() }
    }

    pub(super) fn token(&self) -> (u64, u64) {
        (self.epoch, self.number)
    }
}

/// Sent by a member, a line each.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum MemberReport {
    View {
        epoch: u64,
        members: u64,
    },
    /// The requested entries, and the messages since the last report, if they can be counted.
    Entered {
        entries: Vec<Entry>,
        messages: Option<u64>,
    },
    Leader(Option<Leader>),
    Counted {
        election_messages: Option<u64>,
    },
    Unusable(String),
    Broken(String),
}

/// Plays a member until there are no more orders.
pub(super) fn play(task: Task, orders: &Receiver<Order>) -> Result<(), Failure> {
    let mut member = Member::new(task)?;
    while member.step(orders)? {}
    Ok(())
}

fn join(settings: &Settings) -> Result<InlineNode, Failure> {
    InlineNode::join(settings).map_err(|error| Failure::Unusable(error.to_string()))
}

/// Its entries in progress.
#[derive(Debug)]
struct Entering {
    left: u64,
    until_ns: u64,
    asked_ns: u64,
    asks: Option<LockRequest>,
    entries: Vec<Entry>,
}

struct Member {
    settings: Settings,
    node: InlineNode,
    idler: Idler,
    entering: Option<Entering>,
    election: Option<Election>,
    messages: u64,
}

impl Member {
    fn new(task: Task) -> Result<Self, Failure> {
        let (node, idler) = (join(&task.settings)?, Idler::new(task.settings.threads.idle));
        Ok(Self { settings: task.settings, node, idler, entering: None, election: None, messages: 0 })
    }

    /// One round; returns false when stdin has ended.
    fn step(&mut self, orders: &Receiver<Order>) -> Result<bool, Failure> {
        match orders.try_recv() {
            Ok(Order::Enter { entries, until_ns }) => {
                let asks = None;
                self.entering = Some(Entering { left: entries, until_ns, asked_ns: 0, asks, entries: Vec::new() });
            }
            Ok(Order::Stand) => self.stand()?,
            Ok(Order::Count) => {
                let election_messages = Some(self.node.counters().get(Counter::ElectionMessages));
                report(&MemberReport::Counted { election_messages });
            }
            Err(TryRecvError::Empty) => {}
            Err(TryRecvError::Disconnected) => return Ok(false),
        }
        self.ask()?;
        let mut events = Vec::new();
        let work = self.node.poll(usize::MAX, |delivery| events.extend(delivery.event())).map_err(broken)?;
        let heard = self.hear(events)?;
        let node = &mut self.node;
        let busy = work + usize::from(heard);
        self.idler.idle(busy, |sleep| node.wait(sleep.min(Duration::from_millis(5)))).map_err(broken)?;
        Ok(true)
    }

    fn stand(&mut self) -> Result<(), Failure> {
        self.election = None; // of the incarnation before
        let mut election = self.node.election(NAME).map_err(broken)?;
        election.campaign().map_err(broken)?;
        self.election = Some(election);
        Ok(())
    }

    fn ask(&mut self) -> Result<(), Failure> {
        let now_ns = now_ns();
        let Some(entering) = self.entering.as_mut().filter(|entering| entering.asks.is_none()) else { return Ok(()) };
        if entering.left == 0 || now_ns >= entering.until_ns {
            let entries = core::mem::take(&mut entering.entries);
            self.entering = None;
            let counters = self.node.counters();
            let messages = counters.get(Counter::LockMessages) + counters.get(Counter::OrderRunsSent);
            report(&MemberReport::Entered {
                entries,
                messages: Some(messages - core::mem::replace(&mut self.messages, messages)),
            });
            return Ok(());
        }
        entering.asked_ns = now_ns;
        entering.asks = Some(self.node.request_lock(NAME).map_err(broken)?);
        Ok(())
    }

    /// Takes the lock and gives it back, once it is granted.
    fn enter(&mut self) -> Result<bool, Failure> {
        let Some(entering) = &mut self.entering else { return Ok(false) };
        let Some(request) = &mut entering.asks else { return Ok(false) };
        let Some(guard) = request.try_guard().map_err(broken)? else { return Ok(false) };
        let got_ns = now_ns();
        entering.entries.push([entering.asked_ns, got_ns, now_ns()]);
        (entering.asks, entering.left) = (None, entering.left - 1);
        drop(guard);
        Ok(true)
    }

    fn hear(&mut self, events: Vec<Event>) -> Result<bool, Failure> {
        let mut heard = self.enter()?;
        if let Some(election) = &mut self.election {
            // An election ends with its node's incarnation; a removed member stands again below.
            let news = match election.try_next() {
                Err(LockError::Lost(_)) => None,
                news => news.map_err(broken)?,
            };
            if let Some(state) = news.filter(|state| state.pending.is_none()) {
                heard = true;
                report(&MemberReport::Leader(state.leader.zip(state.token).map(Leader::now)));
            }
        }
        for event in events {
            match event {
                Event::View { epoch, members, .. } if self.node.standing() == Standing::Member => {
                    report(&MemberReport::View { epoch: epoch.0, members: members.0 });
                }
                Event::Removed(_) => {
                    self.node = join(&self.settings)?;
                    self.stand()?;
                }
                Event::ConfigurationDiffers(..) | Event::IdentityConflict { .. } => {
                    return Err(broken(event));
                }
                _ => {}
            }
        }
        Ok(heard)
    }
}
