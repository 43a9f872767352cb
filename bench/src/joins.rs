//! Members that join and leave, beside the messages of a threaded node.
//!
//! A join changes the view: the data path stops for a moment, and a snapshot's position is handed over. So one process
//! has a few further members of the group ([`seats`]), each an inline node. A join is due at a rate. A seat that is
//! empty by then makes it as a restarted process would: with a new node. Once the node is in a view, it leaves, and its
//! seat is empty again. The first view needs every member, so all seats are taken at first, and then left.
//!
//! These members deliver all messages while they are in a view, which costs a host with few cores more than the view
//! changes do.

use crate::schedule::Schedule;
use crate::script::now_ns;
use crate::storm::{NodeFigures, Requests};
use crate::worker::{Found, Spec, WorkerReport, has_begun, report};
use crate::{Failure, broken};
use bourdon::settings::Role;
use bourdon::{Event, InlineNode, Standing};
use std::time::Duration;

/// A join that took so long since it was due is late.
pub(crate) const LATE_JOIN_NS: u64 = 250_000_000;
/// How many joins a second one seat is to make: a join and a leave take tens of milliseconds. More seats deliver more.
const JOINS_A_SEAT: u64 = 10;
/// The most members that join and leave.
const SEATS_MAX: u64 = 8;
/// How long the process sleeps when no seat has work: it can't wait for several nodes at once.
const SLEEP: Duration = Duration::from_micros(500);

/// How many members join and leave, for so many joins a second.
pub(crate) fn seats(joins_per_s: u64) -> u16 {
    joins_per_s.div_ceil(JOINS_A_SEAT).clamp(1, SEATS_MAX) as u16
}

/// A place in the group, and the node that has it now.
struct Seat {
    rank: u16,
    node: Option<InlineNode>,
    /// When the join was due.
    due_ns: u64,
    is_leaving: bool,
}

impl Seat {
    fn join(&mut self, spec: &Spec, due_ns: u64) -> Result<(), Failure> {
        let mut settings = spec.node(Role::Member, self.rank);
        settings.limits.prefault = false; // a node that lives for milliseconds would spend them on that
        let node = InlineNode::join(&settings).map_err(|error| Failure::Unusable(error.to_string()))?;
        (self.node, self.due_ns, self.is_leaving) = (Some(node), due_ns, false);
        Ok(())
    }

    /// Runs its node. Returns how much there was to do, and whether it has joined now.
    fn work(&mut self) -> Result<(usize, bool), Failure> {
        let Some(node) = &mut self.node else { return Ok((0, false)) };
        let (mut events, mut has_left) = (Vec::new(), false);
        let work = node.poll(usize::MAX, |delivery| events.extend(delivery.event())).map_err(broken)?;
        for event in events {
            match event {
                Event::Left(_) | Event::Removed(_) => has_left = true,
                Event::ConfigurationDiffers(..) | Event::IdentityConflict { .. } => {
                    return Err(broken(event));
                }
                _ => {}
            }
        }
        let has_joined = !self.is_leaving && node.standing() == Standing::Member;
        if has_joined {
            self.is_leaving = true;
            node.leave();
        }
        if has_left {
            self.node = None;
        }
        Ok((work, has_joined))
    }
}

/// Plays all of these members.
pub(crate) fn play(spec: &Spec) -> Result<(), Failure> {
    let shape = spec.load.ok_or_else(|| broken("members that join got no load"))?;
    let rate_per_s = spec.storm.and_then(|storm| storm.joins_per_s).ok_or_else(|| broken("no joins are due"))?;
    let first = spec.members - seats(rate_per_s);
    let seat = |rank| Seat { rank, node: None, due_ns: 0, is_leaving: false };
    let mut seats: Vec<Seat> = (first..spec.members).map(seat).collect();
    seats.iter_mut().try_for_each(|seat| seat.join(spec, now_ns()))?;
    while seats.iter().any(|seat| seat.node.is_some()) {
        work(&mut seats, |_| {})?;
    }
    report(&WorkerReport::Ready);
    while !has_begun() {
        std::thread::sleep(SLEEP);
    }
    offer(spec, &mut seats, rate_per_s, shape.warm_up_ns)?;
    let joins = offer(spec, &mut seats, rate_per_s, shape.measured_ns())?;
    let node = NodeFigures { joins: Some(joins), ..NodeFigures::default() };
    report(&WorkerReport::Found(Found { node: Some(Box::new(node)), ..Found::default() }));
    loop {
        work(&mut seats, |_| {})?;
    }
}

/// Runs all nodes once, and sleeps if there was nothing to do.
fn work(seats: &mut [Seat], mut on_join: impl FnMut(&Seat)) -> Result<(), Failure> {
    let mut count = 0;
    for seat in seats {
        let (work, has_joined) = seat.work()?;
        count += work;
        if has_joined {
            on_join(seat);
        }
    }
    if count == 0 {
        std::thread::sleep(SLEEP);
    }
    Ok(())
}

/// Joins at a rate for a while.
fn offer(spec: &Spec, seats: &mut [Seat], rate_per_s: u64, duration_ns: u64) -> Result<Requests, Failure> {
    let (schedule, begun_ns, mut next) = (Schedule { rate_per_s, burst: 1 }, now_ns(), 0);
    let mut joins = Requests::default();
    while now_ns() < begun_ns + duration_ns {
        let due = schedule.due(now_ns() - begun_ns);
        if next < due
            && let Some(seat) = seats.iter_mut().find(|seat| seat.node.is_none())
        {
            seat.join(spec, begun_ns + schedule.time_ns(next))?;
            (next, joins.made) = (next + 1, joins.made + 1);
        }
        work(seats, |seat| {
            joins.granted += 1;
            joins.late += u64::from(now_ns().saturating_sub(seat.due_ns) > LATE_JOIN_NS);
        })?;
    }
    joins.due = schedule.due(duration_ns);
    joins.elapsed_ns = now_ns() - begun_ns;
    Ok(joins)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_seats_for_the_rate() {
        assert_eq!([1, 10, 11, 20, 1_000].map(seats), [1, 1, 2, 2, 8]);
    }
}
