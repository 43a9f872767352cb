//! What each guarantee costs: instructions for one message, in the whole group.
//!
//! The gates count two functions of two members; what a stronger promise costs lies elsewhere too: in the rows that
//! give which member holds what, in order runs, in datagrams sent on. So here three members do all there is to do for a
//! message (publish, send, receive, order, deliver at each, acknowledge), and all of it counts.
//!
//! Time is that of the events: a member that has work does it, a step later the next; when no member has work, the
//! clock is put to the next deadline. Looking in vain, which is what a spinning node does most of the time, is not
//! counted, or waiting would be what is measured. A round is as long in every cell, so heartbeats, which come by time,
//! are as many.
//!
//! Invariants: every message published is delivered at every member, else there is no figure; what real-time order
//! holds beyond a round is delivered in a later one, so that the difference of n and 2n rounds has as many deliveries
//! as messages.

use crate::gates::{GateError, difference};
use crate::group::{Group, GroupError, Member};
use crate::guarantee::{Guarantee, LEVELS, NOTHING};
use crate::workload::MEASURED;
use bourdon_engine::Item;
use bourdon_protocol::Order;
use bourdon_wire::Instant;
use serde::Serialize;
use std::fmt::Write as _;
use std::hint::black_box;

/// The smallest group in which a majority is not all members.
const MEMBERS: u16 = 3;
/// Bytes of a message.
const PAYLOAD: [u8; 64] = [0x5a; 64];
/// Messages that fill one segmentation run, as in the gates.
pub const BURST: u64 = 46 * 18;
/// The most that can be published at a time: what the window holds of lone messages' datagrams, and room to spare.
pub const BURST_MAX: u64 = 10_000;
/// From one round to the next.
const ROUND_NS: u64 = 200_000;
/// What a datagram takes to the next member.
const STEP_NS: u64 = 2_000;
/// Until clocks are known as well as they will be: they are compared every 20 ms, and the best of eight counts.
const SETTLING_NS: u64 = 300_000_000;
/// The longest hold, twice.
const PATIENCE_NS: u64 = 40_000_000;
/// The target: as much may a message in total order cost, reliable, over one of which nothing is promised.
pub const TOTAL_OVER_NOTHING_MAX: f64 = 1.5;

/// The publishing member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Publisher {
    /// Member 0, which gives the order where there is one.
    Sequencer,
    /// Member 1, whose messages wait for their order.
    Other,
}

impl Publisher {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Sequencer, Self::Other];

    /// Its name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sequencer => "sequencer",
            Self::Other => "other",
        }
    }

    /// The value of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|publisher| publisher.name() == name)
    }
}

/// Rounds for a steady figure: enough of them, and enough messages.
const fn rounds(burst: u64) -> u64 {
    let by_messages = 400 / burst;
    if by_messages > 10 { by_messages } else { 10 }
}

struct Run {
    members: Vec<Member>,
    now: Instant,
    delivered: u64,
}

impl Run {
    /// Lets every member do its work until then.
    fn until(
        &mut self,
        end: Instant,
        poll: impl Fn(&mut Member, Instant) -> Result<u64, GroupError>,
    ) -> Result<(), GroupError> {
        while self.now < end {
            let mut any = false;
            for member in &mut self.members {
                if !member.is_idle() || member.due() <= self.now {
                    self.delivered += poll(member, self.now)?;
                    any = true;
                }
            }
            let due = self.members.iter().map(Member::due).min().unwrap_or(end);
            self.now = if any { self.now + STEP_NS } else { due.min(end) };
        }
        Ok(())
    }
}

/// Publishes and delivers so many rounds of `burst` messages. Returns how many messages that were.
///
/// # Errors
/// If a message is refused or lost: then the figure would mean nothing.
pub fn run(guarantee: Guarantee, publisher: Publisher, burst: u64, rounds: u64) -> Result<u64, GroupError> {
    let Group { members, now } = Group::form(MEMBERS, 0, guarantee)?;
    let mut run = Run { members, now, delivered: 0 };
    run.until(now + SETTLING_NS, poll)?;
    let mut start = run.now;
    for _ in 0..rounds {
        bourdon_measured_burst(&mut run.members[publisher as usize], run.now, burst)?;
        start = start + ROUND_NS;
        run.until(start, bourdon_measured_poll)?;
    }
    run.until(start + PATIENCE_NS, poll)?;
    let (delivered, published) = (run.delivered, rounds * burst);
    if delivered == published * u64::from(MEMBERS) {
        Ok(published)
    } else {
        Err(GroupError::Lost { delivered, published })
    }
}

#[inline(never)]
fn bourdon_measured_burst(member: &mut Member, now: Instant, messages: u64) -> Result<(), GroupError> {
    member.set_time(now);
    for _ in 0..messages {
        member.publish(black_box(&PAYLOAD))?;
    }
    member.flush()
}

#[inline(never)]
fn bourdon_measured_poll(member: &mut Member, now: Instant) -> Result<u64, GroupError> {
    poll(member, now)
}

#[inline(always)]
fn poll(member: &mut Member, now: Instant) -> Result<u64, GroupError> {
    let mut count = 0;
    member.poll(now, |item| {
        let Item::Message(message) = item else { return };
        black_box(message.payload);
        count += 1;
    })?;
    Ok(count)
}

/// What one cell costs.
#[derive(Clone, Debug, Serialize)]
pub struct Cost {
    /// The name of the level.
    pub reliability: &'static str,
    /// The name of the order.
    pub order: &'static str,
    /// The member that published.
    pub publisher: Publisher,
    /// Instructions a message published.
    pub instructions: f64,
    /// Over the instructions of unreliable, unordered.
    pub ratio: f64,
}

/// All cells.
#[derive(Clone, Debug, Serialize)]
pub struct Costs {
    /// Members of the group.
    pub members: u16,
    /// Messages at a time.
    pub burst: u64,
    /// The cells.
    pub cells: Vec<Cost>,
}

impl Costs {
    /// Counts them all.
    ///
    /// # Errors
    /// If valgrind is missing or a workload fails.
    pub fn measure(burst: u64) -> Result<Self, GateError> {
        let mut cells = Vec::new();
        for publisher in Publisher::ALL {
            let mut floor = f64::NAN;
            for guarantee in Guarantee::all() {
                let (reliability, order) = (guarantee.level(), guarantee.order());
                let workload = ["workload-guarantee", reliability, order, publisher.name(), &burst.to_string()];
                let instructions = difference(rounds(burst), &workload, &[MEASURED])?;
                if guarantee == NOTHING {
                    floor = instructions; // the first of all
                }
                cells.push(Cost { reliability, order, publisher, instructions, ratio: instructions / floor });
            }
        }
        Ok(Self { members: MEMBERS, burst, cells })
    }

    /// One cell.
    pub fn cell(&self, guarantee: Guarantee, publisher: Publisher) -> Option<&Cost> {
        let names = (guarantee.level(), guarantee.order(), publisher);
        self.cells.iter().find(|cell| (cell.reliability, cell.order, cell.publisher) == names)
    }

    /// The cells as Markdown, a table for each publisher, and the ratio that is to be held.
    pub fn markdown(&self) -> String {
        let mut text = format!(
            "Instructions a message of 64 bytes, {} members together, {} at a time; (× unreliable, unordered).\n",
            self.members, self.burst
        );
        for publisher in Publisher::ALL {
            let title = match publisher {
                Publisher::Sequencer => "the sequencer publishes",
                Publisher::Other => "another member publishes",
            };
            let _ = writeln!(text, "\n| {title} | {} |", Order::ALL.map(Order::name).join(" | "));
            let _ = writeln!(text, "|---|{}", "---|".repeat(Order::ALL.len()));
            for (level, ..) in LEVELS {
                let _ = write!(text, "| {level} |");
                let is_of = |cell: &&Cost| cell.publisher == publisher && cell.reliability == level;
                for cell in self.cells.iter().filter(is_of) {
                    let _ = write!(text, " {:.0} ({:.2}) |", cell.instructions, cell.ratio);
                }
                text.push('\n');
            }
        }
        for publisher in Publisher::ALL {
            let Some(total) = self.cell(Guarantee::default(), publisher) else { continue };
            let is_met = if total.ratio <= TOTAL_OVER_NOTHING_MAX { "met" } else { "NOT met" };
            let _ = write!(
                text,
                "\nreliable, total over unreliable, unordered ({} publishes): {:.2} (target {TOTAL_OVER_NOTHING_MAX}: \
                     {is_met})",
                publisher.name(),
                total.ratio
            );
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cell_delivers_everything_everywhere() {
        for (guarantee, publisher) in
            Guarantee::all().flat_map(|cell| Publisher::ALL.map(|publisher| (cell, publisher)))
        {
            for burst in [1, 100] {
                let published = run(guarantee, publisher, burst, 3);
                assert_eq!(published.ok(), Some(3 * burst), "{guarantee:?}, {publisher:?} publishes {burst}");
            }
        }
    }
}
