//! Judges the histories of each generation, and the tokens of all generations.

use super::instances::Instance;
use super::processes::FROZEN;
use super::report::Tally;
use super::{ChaosError, Generation, Mode, Plan};
use crate::history::{self, ReadError};
use crate::judge;
use std::collections::{BTreeMap, HashSet};
use std::path::Path;

/// A client's rank as a publisher begins here.
const FIRST_CLIENT: usize = 1_000;
/// Violations of one invariant by one process that are reported individually: the first few explain the rest.
const REPORTED_EACH: usize = 3;

/// The last acknowledged messages of a client that may be lost with the rings of all members, if all were killed at
/// once: more than a client publishes while a member's thread writes its history.
const IN_RINGS_MAX: u64 = 100;

/// Messages by their names: the publisher, and the number of each.
pub(super) type Names = HashSet<(String, u64)>;

/// Judges one instance; its deliveries are added to `delivered`.
pub(super) fn judge(
    plan: &Plan,
    instance: &Instance,
    delivered: &mut Names,
    tally: &mut Tally,
) -> Result<(), ChaosError> {
    let histories = match history::read(&instance.folder) {
        Ok(histories) => histories,
        Err(ReadError::Empty(_)) => return Ok(()), // all were killed before the first line
        Err(error) => return Err(error.into()),
    };
    let verdict = judge::judge(&histories, plan.rules());
    tally.deliveries += verdict.deliveries;
    let number = instance.generation;
    let mut found: BTreeMap<(u32, &str), usize> = BTreeMap::new();
    for judge::Violation { invariant, process, detail } in &verdict.violations {
        let count = found.entry((*invariant, process)).or_default();
        *count += 1;
        if *count <= REPORTED_EACH {
            tally.violation(format!("generation {number}: invariant {invariant}: {process}: {detail}"));
        }
    }
    for ((invariant, process), count) in found.into_iter().filter(|(_, count)| *count > REPORTED_EACH) {
        let more = count - REPORTED_EACH;
        tally.violation(format!("generation {number}: invariant {invariant}: {process}: {more} more of the same"));
    }
    let returned = returned(plan, number)?;
    let before = std::mem::take(delivered);
    delivered.clone_from(&before);
    for incarnation in &histories.incarnations {
        let named = |message: u32| {
            let (publisher, sequence) = histories.messages[message as usize];
            (histories.publishers[publisher as usize].as_str(), sequence)
        };
        let is_foreign = |(publisher, sequence): (&str, u64)| {
            let is_own = publisher.starts_with(&format!("g{number}."));
            // A member that was frozen and has joined publishes further messages: none of an instance before.
            let has_joined = instance.joined.iter().any(|joined| joined == publisher)
                && !before.contains(&(publisher.to_owned(), sequence));
            !is_own && !has_joined && returned.get(publisher).is_none_or(|acked| sequence < *acked)
        };
        let mut foreign = incarnation.kept().filter(|delivery| is_foreign(named(delivery.message)));
        if let Some(delivery) = foreign.next() {
            let (message, process, more) = (histories.message(delivery.message), incarnation.shown(), foreign.count());
            tally.violation(format!(
                "generation {number}: {process} delivered {message} of an earlier generation, and {more} more"
            ));
        }
        delivered
            .extend(incarnation.kept().map(|delivery| named(delivery.message)).map(|(name, at)| (name.to_owned(), at)));
        let went_on = instance.left.iter().any(|left| incarnation.is_of_file(left));
        if !incarnation.member && !incarnation.gaps.is_empty() && !went_on {
            let gaps = incarnation.gaps.len();
            tally.violation(format!("generation {number}: {} gave messages up: {gaps} gaps", incarnation.shown()));
        }
    }
    Ok(())
}

/// The clients of the previous generation that were frozen and resumed, as publishers, and how many messages of each
/// were acknowledged when it was frozen: it publishes the following messages in this generation.
fn returned(plan: &Plan, number: u16) -> Result<BTreeMap<String, u64>, ChaosError> {
    let mut returned = BTreeMap::new();
    for before in 1..number {
        let path = plan.folder.join(format!("generation-{before}")).join(FROZEN);
        for line in read_or_empty(&path)?.lines() {
            let Some((client, acked)) = line.split_once(' ') else { continue };
            let Some((rank, incarnation)) = client.split_once('.') else { continue };
            let rank = FIRST_CLIENT + rank.parse::<usize>().unwrap_or(0);
            returned.insert(format!("g{before}.{rank}.{incarnation}"), acked.parse().unwrap_or(u64::MAX));
        }
    }
    Ok(returned)
}

/// Every message that a client saw acknowledged was delivered by a process of some generation. A threaded node
/// acknowledges what is in its application's ring, and the ring is lost when all members are killed at the end of a
/// generation.
pub(super) fn acknowledged(
    plan: &Plan,
    (generation, is_last): (&Generation, bool),
    delivered: &Names,
    tally: &mut Tally,
) -> Result<(), ChaosError> {
    let frozen = returned(plan, generation.number + 1)?;
    for client in 0..plan.clients {
        for incarnation in 1.. {
            let suffix = if incarnation == 1 { String::new() } else { format!(".{incarnation}") };
            let path = generation.folder.join(format!("client-{client}{suffix}.acked"));
            let Some(acked) = last_number(&path)? else { break };
            tally.acknowledged += acked;
            let number = generation.number;
            let publisher = format!("g{number}.{}.{incarnation}", FIRST_CLIENT + client);
            let is_lost = |sequence: &u64| !delivered.contains(&(publisher.clone(), *sequence));
            let in_rings = if plan.mode == Mode::Threaded && !is_last { IN_RINGS_MAX } else { 0 };
            // A client that was frozen there goes on in the next generation.
            let restarts = [acked, frozen.get(&publisher).map_or(acked, |frozen| acked.min(*frozen))];
            let at_restarts = restarts.map(|end| {
                let lost = (end.saturating_sub(in_rings)..end).rev().take_while(is_lost).count() as u64;
                end - lost..end
            });
            let is_excused = |sequence: &u64| at_restarts.iter().any(|range| range.contains(sequence));
            let lost = (0..acked).filter(|sequence| is_lost(sequence) && !is_excused(sequence)).count();
            if lost > 0 {
                tally.violation(format!(
                    "generation {number}: {lost} of {acked} acknowledged messages of client {client}, incarnation \
                         {incarnation}, \
                     are delivered nowhere"
                ));
            }
        }
    }
    Ok(())
}

fn read_or_empty(path: &Path) -> Result<String, ChaosError> {
    match std::fs::read_to_string(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(String::new()),
        outcome => outcome.map_err(|source| ChaosError::Io { path: path.to_owned(), source }),
    }
}

/// The last whole line of a file; 0 if the file is empty, none if there is no file.
fn last_number(path: &Path) -> Result<Option<u64>, ChaosError> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(ChaosError::Io { path: path.to_owned(), source }),
    };
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    Ok(Some(whole.lines().last().and_then(|line| line.parse().ok()).unwrap_or(0)))
}

/// Checks that tokens grow strictly, over all generations.
pub(super) fn tokens(plan: &Plan, tally: &mut Tally) -> Result<(), ChaosError> {
    let path = plan.folder.join("tokens");
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(ChaosError::Io { path, source }),
    };
    let tokens: Vec<(&str, Vec<u64>)> =
        text.lines().map(|line| (line, line.split(' ').filter_map(|part| part.parse().ok()).collect())).collect();
    tally.tokens = tokens.len();
    let mut falls = tokens.windows(2).filter(|pair| pair[1].1 <= pair[0].1);
    if let Some(pair) = falls.next() {
        let more = falls.count();
        tally.violation(format!("tokens: {:?} was granted after {:?}, and {more} more", pair[1].0, pair[0].0));
    }
    Ok(())
}
