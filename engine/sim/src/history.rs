//! What happened, as an onlooker wrote it down: the only thing the checkers judge by.

use std::rc::Rc;

/// A message somebody published.
#[derive(Clone, Debug)]
pub(crate) struct Message {
    pub(crate) payload: Rc<[u8]>,
    pub(crate) topic: u16,
    /// When, by the world's clock.
    pub(crate) at_ns: u64,
    /// How many messages its publisher had delivered by then; unknown where a client sent it.
    pub(crate) after: Option<usize>,
    /// The client and its number for it, where one sent it.
    pub(crate) client: Option<(u64, u64)>,
}

/// Messages of one sender given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Gap {
    pub(crate) sender: u16,
    pub(crate) from: u64,
    pub(crate) to: u64,
}

/// What one process showed its application.
#[derive(Debug, Default)]
pub(crate) struct Shown {
    /// Sender and sequence, in order of delivery.
    pub(crate) delivered: Vec<(u16, u64)>,
    /// By sender: which sequences.
    has: Vec<Vec<bool>>,
    pub(crate) gaps: Vec<Gap>,
    /// When it had heard every member.
    pub(crate) formed_at_ns: Option<u64>,
}

impl Shown {
    pub(crate) fn has(&self, sender: u16, sequence: u64) -> bool {
        let of_sender = self.has.get(usize::from(sender));
        of_sender.is_some_and(|has| has.get(sequence as usize).copied().unwrap_or(false))
    }

    pub(crate) fn gave_up(&self, sender: u16, sequence: u64) -> bool {
        self.gaps.iter().any(|gap| gap.sender == sender && (gap.from..gap.to).contains(&sequence))
    }
}

/// The whole run.
#[derive(Debug, Default)]
pub(crate) struct History {
    /// By sender and sequence; `None` where a client's message has not shown up yet.
    published: Vec<Vec<Option<Message>>>,
    /// By process.
    pub(crate) shown: Vec<Shown>,
    pub(crate) delivered: u64,
    pub(crate) published_count: u64,
}

impl History {
    pub(crate) fn new(members: u16) -> Self {
        Self { published: vec![Vec::new(); usize::from(members)], ..Self::default() }
    }

    pub(crate) fn join(&mut self) {
        let has = vec![Vec::new(); self.published.len()];
        self.shown.push(Shown { has, ..Shown::default() });
    }

    /// Says whether the name was free.
    pub(crate) fn publish(&mut self, sender: u16, sequence: u64, message: Message) -> bool {
        let Some(of_sender) = self.published.get_mut(usize::from(sender)) else { return false };
        if of_sender.len() as u64 <= sequence {
            of_sender.resize(sequence as usize + 1, None);
        }
        self.published_count += 1;
        of_sender[sequence as usize].replace(message).is_none()
    }

    pub(crate) fn message(&self, sender: u16, sequence: u64) -> Option<&Message> {
        self.published.get(usize::from(sender))?.get(sequence as usize)?.as_ref()
    }

    /// A sender's messages and their sequences.
    pub(crate) fn messages(&self, sender: u16) -> impl Iterator<Item = (u64, &Message)> {
        let of_sender = self.published.get(usize::from(sender)).map_or(&[][..], Vec::as_slice);
        of_sender.iter().enumerate().filter_map(|(sequence, message)| Some((sequence as u64, message.as_ref()?)))
    }

    pub(crate) fn senders(&self) -> u16 {
        self.published.len() as u16
    }

    /// Notes a delivery of a published message; the caller has made sure that it is new.
    pub(crate) fn deliver(&mut self, process: usize, sender: u16, sequence: u64) {
        let shown = &mut self.shown[process];
        let has = &mut shown.has[usize::from(sender)];
        if has.len() as u64 <= sequence {
            has.resize(sequence as usize + 1, false);
        }
        has[sequence as usize] = true;
        shown.delivered.push((sender, sequence));
        self.delivered += 1;
    }
}
