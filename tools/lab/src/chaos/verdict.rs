//! What the histories of each generation show, and the tokens of all.

use super::report::Tally;
use super::{ChaosError, Generation, Plan};
use crate::history::{self, Histories, ReadError};
use crate::judge;
use std::collections::{BTreeMap, HashSet};
use std::path::Path;

/// A client's rank as a publisher begins here.
const FIRST_CLIENT: usize = 1_000;
/// Violations of one invariant by one process that are reported one by one: the first few explain.
const REPORTED_EACH: usize = 3;

/// Judges one generation.
pub(super) fn judge(plan: &Plan, generation: &Generation, tally: &mut Tally) -> Result<(), ChaosError> {
    let histories = match history::read(&generation.folder) {
        Ok(histories) => histories,
        Err(ReadError::Empty(_)) => return Ok(()), // all were killed before the first line
        Err(error) => return Err(error.into()),
    };
    let verdict = judge::judge(&histories, plan.rules());
    tally.deliveries += verdict.deliveries;
    let number = generation.number;
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
    for life in &histories.lives {
        let is_foreign = |publisher: &str| publisher.starts_with('g');
        let foreign = life.kept().find(|delivery| {
            is_foreign(&histories.publishers[histories.messages[delivery.message as usize].0 as usize])
        });
        if let Some(delivery) = foreign {
            let (message, process) = (histories.message(delivery.message), life.shown());
            tally.violation(format!("generation {number}: {process} delivered {message} of another generation"));
        }
        if !life.member && !life.gaps.is_empty() {
            tally.violation(format!("generation {number}: {} gave messages up", life.shown()));
        }
    }
    acknowledged(plan, generation, &histories, tally)
}

/// Every message that a client saw acknowledged is delivered by a process of this generation.
fn acknowledged(
    plan: &Plan,
    generation: &Generation,
    histories: &Histories,
    tally: &mut Tally,
) -> Result<(), ChaosError> {
    let delivered: HashSet<(&str, u64)> = histories
        .lives
        .iter()
        .flat_map(|life| life.kept())
        .map(|delivery| {
            let (publisher, sequence) = histories.messages[delivery.message as usize];
            (histories.publishers[publisher as usize].as_str(), sequence)
        })
        .collect();
    for client in 0..plan.clients {
        for life in 1.. {
            let suffix = if life == 1 { String::new() } else { format!(".{life}") };
            let path = generation.folder.join(format!("client-{client}{suffix}.acked"));
            let Some(acked) = last_number(&path)? else { break };
            tally.acknowledged += acked;
            let publisher = format!("{}.{life}", FIRST_CLIENT + client);
            let lost = (0..acked).filter(|sequence| !delivered.contains(&(publisher.as_str(), *sequence))).count();
            if lost > 0 {
                let number = generation.number;
                tally.violation(format!(
                    "generation {number}: {lost} of {acked} acknowledged messages of client {client} are delivered nowhere"
                ));
            }
        }
    }
    Ok(())
}

/// The last whole line of a file; 0 of an empty one, nothing of none.
fn last_number(path: &Path) -> Result<Option<u64>, ChaosError> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(ChaosError::Io { path: path.to_owned(), source }),
    };
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    Ok(Some(whole.lines().last().and_then(|line| line.parse().ok()).unwrap_or(0)))
}

/// Tokens grow strictly, over all generations.
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
