//! Judges whether the deliveries keep the guarantees of an order and a reliability.
//!
//! "All processes printed the same" is too weak and too strong: a killed process may have printed less, a late observer
//! begins in the middle, and at `reliable` a removed process may have delivered messages that no other process ever
//! will. So each guarantee is judged in its own file, over all histories at once, with the exceptions that it really
//! has:
//!
//! - a delivery *binds* others if its process moved on: it installed a later view, or it is alive and its last view is
//!   the group's last. At `uniform` and above every delivery binds, also those of killed processes;
//! - a process that starts late (an observer; a later incarnation) need not have what was delivered before it came.
//!
//! The judge knows only files and nothing of the engine. It fails safe: it lists what it can't compare in
//! [`Verdict::left_behind`].
//!
//! Source: Birman and Joseph, "Exploiting virtual synchrony" (1987); Chockler, Keidar and Vitenberg, "Group
//! communication specifications" (2001). `docs/lab.md`, "The invariants it checks", lists the numbers of the
//! invariants.

mod barrier;
mod causal;
mod fifo;
mod integrity;
mod realtime;
mod synchrony;
mod total;
mod uniform;
mod views;

#[cfg(test)]
mod tests;

use crate::history::{Delivery, Histories, Incarnation, SNAPSHOT, View};

/// Violations of one invariant that are reported individually: the first few explain, the rest are only counted.
pub const PRINTED_AN_INVARIANT: usize = 50;

/// The order of deliveries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Order {
    /// Anything.
    Unordered,
    /// Each publisher's order.
    Fifo,
    /// Answers after what they answer.
    Causal,
    /// One order for all.
    Total,
    /// One order for all, and answers after what they answer.
    TotalCausal,
    /// By time of sending; late ones are flagged and may stand anywhere.
    Realtime,
}

impl Order {
    fn is_total(self) -> bool {
        matches!(self, Self::Total | Self::TotalCausal)
    }

    fn is_causal(self) -> bool {
        matches!(self, Self::Causal | Self::TotalCausal)
    }

    fn is_fifo(self) -> bool {
        !matches!(self, Self::Unordered | Self::Realtime)
    }
}

/// What may be lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Reliability {
    /// Anything.
    Unreliable,
    /// Only messages that are recorded as given up.
    BestEffort,
    /// Nothing among the processes that stay.
    Reliable,
    /// Nothing, even if the process that delivered dies: a majority has it first.
    Uniform,
    /// The same: all have it first.
    Stable,
    /// The same, on disk.
    Durable,
}

/// The guarantees that histories are judged by.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// Their order.
    pub order: Order,
    /// Their reliability.
    pub reliability: Reliability,
    /// Order numbers may be left out, as a client's duplicates do.
    pub allow_skips: bool,
    /// The processes were stopped in the middle, so their ends need not be equal.
    pub running: bool,
}

/// A broken guarantee.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Violation {
    /// Its number.
    pub invariant: u32,
    /// The process whose history shows it.
    pub process: String,
    /// What the history shows.
    pub detail: String,
}

/// The outcome.
#[derive(Clone, Debug, Default, serde::Serialize)]
pub struct Verdict {
    /// Deliveries read, including retracted deliveries.
    pub deliveries: usize,
    /// Incarnations read: a restarted process counts again.
    pub processes: usize,
    /// The highest view that any process installed.
    pub last_view: Option<u64>,
    /// Processes that were not killed and yet are not in the last view: their ends were compared with no other.
    pub left_behind: Vec<String>,
    /// Broken guarantees.
    pub violations: Vec<Violation>,
    /// Further violations, only counted.
    pub violations_not_listed: usize,
}

impl Verdict {
    fn add(&mut self, invariant: u32, process: &Incarnation, detail: String) {
        let printed = self.violations.iter().filter(|violation| violation.invariant == invariant).count();
        if printed < PRINTED_AN_INVARIANT {
            self.violations.push(Violation { invariant, process: process.shown(), detail });
        } else {
            self.violations_not_listed += 1;
        }
    }
}

/// Judges all histories of a run.
pub fn judge(histories: &Histories, rules: Rules) -> Verdict {
    let last_view = histories.incarnations.iter().filter_map(Incarnation::last_view).max();
    let case = Case { histories, rules, last_view };
    let left =
        histories.incarnations.iter().filter(|incarnation| !incarnation.killed && incarnation.last_view() != last_view);
    let mut verdict = Verdict {
        deliveries: histories.incarnations.iter().map(|incarnation| incarnation.deliveries.len()).sum(),
        processes: histories.incarnations.len(),
        last_view,
        left_behind: left.map(Incarnation::shown).collect(),
        ..Verdict::default()
    };
    let all = [
        integrity::judge,
        views::judge,
        synchrony::judge,
        total::judge,
        fifo::judge,
        causal::judge,
        realtime::judge,
        uniform::judge,
        barrier::judge,
    ];
    for family in all {
        family(&case, &mut verdict);
    }
    verdict
}

/// What every family of checks uses.
struct Case<'a> {
    histories: &'a Histories,
    rules: Rules,
    last_view: Option<u64>,
}

impl Case<'_> {
    fn agreed(&self) -> bool {
        self.rules.reliability >= Reliability::Reliable
    }

    fn uniform(&self) -> bool {
        self.rules.reliability >= Reliability::Uniform
    }

    /// Whether it is alive and in the group's last view.
    fn survives(&self, incarnation: &Incarnation) -> bool {
        !incarnation.killed && incarnation.last_view() == self.last_view
    }

    /// Whether this delivery binds other processes.
    fn binds(&self, incarnation: &Incarnation, delivery: &Delivery) -> bool {
        let moved = match delivery.segment {
            SNAPSHOT => !incarnation.views.is_empty(),
            segment => (segment as usize) + 1 < incarnation.views.len(),
        };
        self.uniform() || moved || self.survives(incarnation)
    }

    /// Whether a process may lack a message that others delivered in a view: it came later, or recorded it as given up.
    ///
    /// `began` is the first sequence that it delivered of each publisher.
    fn may_lack(&self, incarnation: &Incarnation, began: &[Option<u64>], message: u32, first_view: bool) -> bool {
        let (publisher, sequence) = self.histories.messages[message as usize];
        let before_it_came = began[publisher as usize].is_none_or(|began| sequence < began);
        (first_view && incarnation.starts_late() && before_it_came) || incarnation.gave_up(publisher, sequence)
    }

    /// The lowest sequence of each publisher from which on an incarnation has all messages.
    ///
    /// A process that starts late receives each member's stream from its current position. A client's messages come
    /// through several members, so they may have holes until the last of these streams has begun.
    fn began(&self, incarnation: &Incarnation) -> Vec<Option<u64>> {
        let mut began = vec![None; self.histories.publishers.len()];
        let mut all_begun = 0;
        let first_view = incarnation.views.first();
        let is_member = |publisher: u32| first_view.is_some_and(|view| self.is_in(view, publisher));
        for (place, delivery) in incarnation.kept().enumerate() {
            let (publisher, sequence) = self.histories.messages[delivery.message as usize];
            let first: &mut Option<u64> = &mut began[publisher as usize];
            if first.is_none() && delivery.segment == 0 && is_member(publisher) {
                all_begun = place;
            }
            *first = Some(first.map_or(sequence, |first| first.min(sequence)));
        }
        if incarnation.starts_late() && all_begun > 0 {
            let mut later = vec![None; began.len()];
            for delivery in incarnation.kept().skip(all_begun) {
                let (publisher, sequence) = self.histories.messages[delivery.message as usize];
                let first: &mut Option<u64> = &mut later[publisher as usize];
                *first = Some(first.map_or(sequence, |first| first.min(sequence)));
            }
            for (publisher, first) in began.iter_mut().enumerate().filter(|(_, first)| first.is_some()) {
                if !is_member(publisher as u32) {
                    *first = later[publisher];
                }
            }
        }
        began
    }

    /// Whether a publisher is a member of a view: it is named after a rank.
    fn is_in(&self, view: &View, publisher: u32) -> bool {
        let rank = rank_of(&self.histories.publishers[publisher as usize]);
        view.members.iter().any(|member| member == rank)
    }

    /// Some messages by name, for people.
    fn named(&self, messages: &[u32]) -> String {
        const SHOWN: usize = 3;
        let names: Vec<_> = messages.iter().take(SHOWN).map(|message| self.histories.message(*message)).collect();
        let more = messages.len().saturating_sub(SHOWN);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        format!("{}{more}", names.join(", "))
    }
}

/// The rank in a publisher's name: `0`, `member:0`, `0.2` with an incarnation, `g3.0.2` with a generation too.
fn rank_of(publisher: &str) -> &str {
    let name = publisher.strip_prefix("member:").unwrap_or(publisher);
    let name = name.strip_prefix('g').and_then(|name| name.split_once('.')).map_or(name, |(_, name)| name);
    name.split_once('.').map_or(name, |(rank, _)| rank)
}

/// The members of `left` that `right` lacks; both are sorted.
fn lacking(left: &[u32], right: &[u32]) -> Vec<u32> {
    left.iter().copied().filter(|message| right.binary_search(message).is_err()).collect()
}
