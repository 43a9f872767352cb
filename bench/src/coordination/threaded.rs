//! A member behind threads of its own: its locks and elections are those that any thread of an application asks for.
//!
//! It waits for each grant on the thread that executes the orders, as a caller of [`Node::lock`] does. A
//! second thread waits for news of the election and reports it, so that its time is when a sleeping caller learns of
//! the leader.

use super::member::{Entry, Leader, MemberReport, NAME, Order, Task};
use crate::Failure;
use crate::script::{broken, now_ns, report};
use bourdon::{Election, Event, Node, Subscribe, Subscription};
use bourdon_ring::signal::Flag;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

/// How often it looks for events of the group; a view is no figure of a measurement.
const LOOK: Duration = Duration::from_millis(1);
/// How long one wait for news of the election lasts.
const NEWS: Duration = Duration::from_millis(50);

/// Plays a member until there are no more orders.
pub(super) fn play(task: &Task, orders: &Receiver<Order>) -> Result<(), Failure> {
    let start = || -> Result<_, bourdon::Error> {
        let node = Node::open(&task.settings)?;
        let events = node.subscribe(Subscribe::none().events())?;
        node.join()?;
        Ok(Member { node, events, ends: Flag::new() })
    };
    let mut member = start().map_err(|error| Failure::Unusable(error.to_string()))?;
    loop {
        match orders.recv_timeout(LOOK) {
            Ok(Order::Enter { entries, until_ns }) => member.enter(entries, until_ns)?,
            Ok(Order::Stand) => member.stand()?,
            Ok(Order::Count) => report(&MemberReport::Counted { election_messages: None }),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
        }
        member.hear()?;
    }
}

struct Member {
    node: Node,
    events: Subscription,
    ends: Flag,
}

impl Member {
    fn enter(&self, entries: u64, until_ns: u64) -> Result<(), Failure> {
        let mut entered: Vec<Entry> = Vec::new();
        while (entered.len() as u64) < entries && now_ns() < until_ns {
            let asked_ns = now_ns();
            let guard = self.node.lock(NAME, Duration::MAX).map_err(broken)?;
            let got_ns = now_ns();
            entered.push([asked_ns, got_ns, now_ns()]);
            drop(guard);
        }
        report(&MemberReport::Entered { entries: entered, messages: None });
        Ok(())
    }

    fn stand(&self) -> Result<(), Failure> {
        let mut election = self.node.election(NAME).map_err(broken)?;
        election.campaign().map_err(broken)?;
        let ends = self.ends.clone();
        let thread = std::thread::Builder::new().name("election".to_owned());
        thread.spawn(move || watch(election, &ends)).map(drop).map_err(broken)
    }

    fn hear(&mut self) -> Result<(), Failure> {
        while let Some(delivery) = self.events.try_next().map_err(broken)? {
            let Some(event) = delivery.event() else { continue };
            match event {
                Event::View { epoch, members, .. } => {
                    report(&MemberReport::View { epoch: epoch.0, members: members.0 });
                }
                event @ (Event::ConfigurationDiffers(..) | Event::IdentityConflict { .. }) => {
                    return Err(broken(event));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.ends.set();
    }
}

fn watch(mut election: Election, ends: &Flag) {
    let mut shown = None;
    while !ends.is_set() {
        let Ok(news) = election.next(NEWS) else { return }; // the node has ended
        let Some(leader) = news.map(|state| state.leader.zip(state.token)) else { continue };
        if leader != shown {
            shown = leader;
            report(&MemberReport::Leader(leader.map(Leader::now)));
        }
    }
}
