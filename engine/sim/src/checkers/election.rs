//! Elections: one leader a term, and at the end one leader that all know.
//!
//! An application believes that it leads from the report that it does until a report that it does not, its resignation
//! or its crash. Two may believe it at once only under tokens of two views, and only if the holder of the older token
//! is not in the newer view. All reports of an (epoch, term) name the same leader, and no application gets a report of
//! an older leadership than before.

use super::views::Views;
use super::{Verdict, Violation};
use bourdon_protocol::{FencingToken, Leadership, Member};
use bourdon_wire::Rank;
use std::collections::BTreeMap;

pub(super) const NAME: &str = "election";
pub(super) const AGREED: &str = "agreed-leader";

#[derive(Clone, Copy, Debug)]
struct Leads {
    process: usize,
    member: Member,
    place: usize,
    token: FencingToken,
}

#[derive(Debug, Default)]
pub(crate) struct Elections {
    /// By election and token.
    leaders: BTreeMap<(usize, FencingToken), Rank>,
    /// By process and election: the latest leadership reported to it, and whether it is still current.
    reported: BTreeMap<(usize, usize), (FencingToken, bool)>,
    believing: Vec<Leads>,
}

/// A live process's part in an election, at the end.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Voter {
    pub(crate) process: usize,
    /// It may lead, and it sees to it that there is a leader.
    pub(crate) stands: bool,
    pub(crate) campaigns: bool,
    /// The leader, as its process reports it.
    pub(crate) leader: Option<Leadership>,
}

fn broken(detail: String) -> Verdict {
    Err(Violation::new(NAME, detail))
}

impl Elections {
    /// Counts the leaderships that were reported to any application.
    pub(crate) fn count(&self) -> u64 {
        self.leaders.len() as u64
    }

    /// A process reports the leader, if there is any, to its application.
    pub(crate) fn reported(
        &mut self,
        views: &Views,
        process: usize,
        place: usize,
        news: Option<Leadership>,
    ) -> Verdict {
        self.gave_up(process, place);
        let Some(Leadership { leader, token }) = news else {
            if let Some((_, is_current)) = self.reported.get_mut(&(process, place)) {
                *is_current = false;
            }
            return Ok(());
        };
        match self.reported.insert((process, place), (token, true)) {
            Some((before, _)) if before > token => {
                return broken(format!("process {process} reported {token:?} of election {place} after {before:?}"));
            }
            _ => {}
        }
        let known = *self.leaders.entry((place, token)).or_insert(leader);
        if known != leader {
            return broken(format!("{token:?} of election {place} is {known}, and at process {process} {leader}"));
        }
        if leader.index() != process {
            return Ok(());
        }
        let Some(incarnation) = views.view(token.epoch.0).and_then(|view| view.incarnation(leader)) else {
            return broken(format!("process {process} leads under {token:?}, of a view that it was not in"));
        };
        let own = Leads { process, member: Member { rank: leader, incarnation }, place, token };
        for other in self.believing.iter().filter(|other| other.place == place) {
            let (older, newer) = if other.token < own.token { (other, &own) } else { (&own, other) };
            let knows = views.view(newer.token.epoch.0).is_some_and(|view| view.contains(older.member));
            if older.token.epoch == newer.token.epoch || knows {
                return broken(format!("two lead at once: {own:?}, {other:?}"));
            }
        }
        self.believing.push(own);
        Ok(())
    }

    /// An application resigns, or gets the report that it leads no more.
    pub(crate) fn gave_up(&mut self, process: usize, place: usize) {
        self.believing.retain(|leads| (leads.process, leads.place) != (process, place));
    }

    /// A process is gone, and its application.
    pub(crate) fn crashed(&mut self, process: usize) {
        self.believing.retain(|leads| leads.process != process);
        self.reported.retain(|(other, _), _| *other != process);
    }

    /// Judges a process after a step: the leader it gives is the last one it reported to its application.
    pub(crate) fn stepped(&self, process: usize, place: usize, leader: Option<Leadership>) -> Verdict {
        let reported =
            self.reported.get(&(process, place)).filter(|(_, is_current)| *is_current).map(|(token, _)| *token);
        if reported == leader.map(|leader| leader.token) {
            return Ok(());
        }
        broken(format!("process {process} gives {leader:?} for election {place}; it reported {reported:?}"))
    }

    /// Whether all live processes agree on an eligible leader, or on none if no process campaigns.
    pub(crate) fn agreed(place: usize, voters: &[Voter]) -> Verdict {
        let Some(first) = voters.first() else { return Ok(()) };
        let wrong = |detail: String| Err(Violation::new(AGREED, detail));
        if let Some(other) = voters.iter().find(|voter| voter.leader != first.leader) {
            return wrong(format!("of election {place}, {first:?} and {other:?} know different leaders"));
        }
        match first.leader {
            None if voters.iter().any(|voter| voter.campaigns) => {
                wrong(format!("election {place} has no leader: {voters:?}"))
            }
            None => Ok(()),
            Some(found) => {
                let stands = voters.iter().any(|voter| voter.process == found.leader.index() && voter.stands);
                if stands { Ok(()) } else { wrong(format!("election {place}: {found:?} is not eligible: {voters:?}")) }
            }
        }
    }
}
