//! Messages of groups that another data agent of the node runs, and that messages here come after.
//!
//! A message may come after one of another group, and an agent sees in the groups that it runs itself whether that one
//! has passed. A group of another agent it can't read: that is changed by the other thread. If it took such a message
//! as passed, the order would depend on which agent runs which group, and on no setting that names it.
//!
//! So an agent asks the others by mailbox, and holds the message back until each of them has shown that the named
//! message has passed in all its groups. Answers are flags: nothing is sent back, but for a ring that wakes the agent.
//! What is known to have passed is kept for each sender, because all its earlier messages have passed as well.
//!
//! Invariant: nothing is asked for a message of a group that this agent runs, nor where there is no other agent.
//! Bounds: a stream waits for one message at a time, and both agents forget what no stream waits for any more.

use crate::mailbox::{Receiver, Sender, mailbox};
use bourdon_ring::signal::Flag;
use bourdon_wire::{Instant, MessageName};
use std::cell::{Cell, RefCell};
use std::sync::{Arc, OnceLock, Weak};

/// Questions that an agent has not taken: it takes all of them each round.
const QUESTIONS_MAX: usize = 256;
/// Senders of which it is known how far their messages have passed; of others it is asked again.
const SENDERS_MAX: usize = 256;
/// A question that no stream has looked at for so long is forgotten.
const FORGET_NS: u64 = 1_000_000_000;

/// The ways to all agents, in their order, once all have started.
pub(crate) type Ways = Arc<OnceLock<Vec<Sender<Question>>>>;

/// Whether a message has passed.
#[derive(Debug)]
pub(crate) struct Question {
    name: MessageName,
    /// The answer; gone once the agent that asks needs it no more.
    passed: Weak<Flag>,
    /// Rung with the answer.
    asker: Sender<()>,
}

/// What an agent has asked and not heard.
#[derive(Debug)]
struct Asked {
    name: MessageName,
    answers: Vec<Arc<Flag>>,
    looked_at: Instant,
}

/// An agent's end of the questions between agents.
#[derive(Debug)]
pub(crate) struct Elsewhere {
    ways: Ways,
    /// Its own place among them.
    own: usize,
    questions: Receiver<Question>,
    /// Those of others that have no answer yet.
    open: Vec<Question>,
    answered: Receiver<()>,
    asker: Sender<()>,
    asked: RefCell<Vec<Asked>>,
    passed: RefCell<Vec<MessageName>>,
    now: Cell<Instant>,
}

/// Whether two names are of one sender, in one view.
fn are_of_one_sender(one: &MessageName, other: &MessageName) -> bool {
    let sender = |name: &MessageName| (name.group(), name.instance(), name.epoch(), name.rank(), name.incarnation());
    sender(one) == sender(other)
}

impl Elsewhere {
    /// Of the agent of this number, which `ring` wakes; and the way to it.
    pub(crate) fn new(
        ways: &Ways,
        own: usize,
        ring: impl FnMut() + Clone + Send + 'static,
    ) -> (Self, Sender<Question>) {
        let (way, questions) = mailbox(QUESTIONS_MAX, ring.clone());
        let (asker, answered) = mailbox(1, ring);
        let elsewhere = Self {
            ways: Arc::clone(ways),
            own,
            questions,
            open: Vec::new(),
            answered,
            asker,
            asked: RefCell::new(Vec::new()),
            passed: RefCell::new(Vec::new()),
            now: Cell::new(Instant(0)),
        };
        (elsewhere, way)
    }

    /// Whether a question or an answer has come.
    pub(crate) fn has_values(&self) -> bool {
        self.questions.has_values() || self.answered.has_values()
    }

    /// Answers what the groups of this agent can answer by now: whether a message `has_passed` in all of them.
    #[inline]
    pub(crate) fn answer(&mut self, has_passed: impl Fn(&MessageName) -> bool) {
        self.answered.take();
        if self.open.is_empty() && !self.questions.has_values() {
            return;
        }
        while let Some(question) = self.questions.take() {
            self.open.push(question);
        }
        self.open.retain(|question| {
            let Some(passed) = question.passed.upgrade().filter(|_| has_passed(&question.name)) else {
                return question.passed.strong_count() > 0;
            };
            passed.set();
            let _ = question.asker.try_send(()); // one that waits there already wakes it as well
            false
        });
    }

    /// A round begins at this time.
    pub(crate) fn note(&self, now: Instant) {
        self.now.set(now);
    }

    /// Whether a message of a group that this agent does not run has passed at all others. Asks them if that is not
    /// known.
    #[cold]
    pub(crate) fn has_passed(&self, name: &MessageName) -> bool {
        let Some(ways) = self.ways.get().filter(|ways| ways.len() > 1) else { return true };
        let mut passed = self.passed.borrow_mut();
        let known = passed.iter_mut().find(|known| are_of_one_sender(known, name));
        if known.as_ref().is_some_and(|known| known.sequence() >= name.sequence()) {
            return true;
        }
        let (mut asked, now) = (self.asked.borrow_mut(), self.now.get());
        let Some(place) = asked.iter().position(|asked| asked.name == *name) else {
            asked.retain(|asked| now.since(asked.looked_at) < FORGET_NS);
            let answers = self.ask(ways, name);
            asked.extend(answers.map(|answers| Asked { name: *name, answers, looked_at: now }));
            return false;
        };
        asked[place].looked_at = now;
        let is_lost = |answer: &Arc<Flag>| !answer.is_set() && Arc::weak_count(answer) == 0;
        if asked[place].answers.iter().any(is_lost) {
            asked.swap_remove(place); // an agent has ended with the question: those that are left are asked again
            return false;
        }
        if !asked[place].answers.iter().all(|answer| answer.is_set()) {
            return false;
        }
        asked.swap_remove(place);
        match known {
            Some(known) => *known = *name,
            None => {
                if passed.len() == SENDERS_MAX {
                    passed.remove(0);
                }
                passed.push(*name);
            }
        }
        true
    }

    /// Asks all other agents; none if one of them has no room for a question now. An agent that has ended runs no
    /// group.
    fn ask(&self, ways: &[Sender<Question>], name: &MessageName) -> Option<Vec<Arc<Flag>>> {
        let mut answers = Vec::new();
        for (_, way) in ways.iter().enumerate().filter(|(agent, _)| *agent != self.own) {
            let answer = Arc::new(Flag::new());
            let question = Question { name: *name, passed: Arc::downgrade(&answer), asker: self.asker.clone() };
            match way.try_send(question) {
                Ok(()) => answers.push(answer),
                Err(std::sync::mpsc::TrySendError::Full(_)) => return None,
                Err(std::sync::mpsc::TrySendError::Disconnected(_)) => {}
            }
        }
        Some(answers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bourdon_wire::{Epoch, GroupId, Incarnation, InstanceId, Rank, Sequence};

    fn name(rank: u16, sequence: u64) -> MessageName {
        let (view, sender) = ((InstanceId(1), Epoch(1)), (Rank(rank), Incarnation(1)));
        MessageName::new(GroupId(7), view, sender, Sequence(sequence))
    }

    fn agents(count: usize) -> Vec<Elsewhere> {
        let ways = Ways::default();
        let (agents, all): (Vec<_>, Vec<_>) = (0..count).map(|own| Elsewhere::new(&ways, own, || {})).unzip();
        assert!(ways.set(all).is_ok());
        agents
    }

    #[test]
    fn a_message_has_passed_once_it_has_at_every_other_agent() {
        let mut agents = agents(3);
        assert!(!agents[0].has_passed(&name(0, 5)));
        for late in [2, 1] {
            assert!(!agents[0].has_passed(&name(0, 5)));
            (0..3).for_each(|agent| agents[agent].answer(|_| agent >= late));
        }
        assert!(agents[0].answered.has_values() && agents[0].has_passed(&name(0, 5)));
        assert!(agents[0].has_passed(&name(0, 4)), "all earlier messages of a sender have passed as well");
        assert!(!agents[0].has_passed(&name(0, 6)) && !agents[0].has_passed(&name(1, 4)));
    }

    #[test]
    fn no_agent_is_asked_where_there_is_no_other() {
        assert!(agents(1)[0].has_passed(&name(0, 5)));
    }

    #[test]
    fn what_is_waited_for_no_more_is_forgotten_by_both() {
        let mut agents = agents(2);
        assert!(!agents[0].has_passed(&name(0, 5)));
        agents[1].answer(|_| false);
        assert_eq!(agents[1].open.len(), 1);
        agents[0].note(Instant(2 * FORGET_NS));
        assert!(!agents[0].has_passed(&name(1, 1)));
        agents[1].answer(|_| false);
        assert_eq!(agents[1].open.len(), 1, "the first is gone, the second has come");
        agents[1].answer(|_| true);
        assert!(agents[0].has_passed(&name(1, 1)) && agents[1].open.is_empty());
    }
}
