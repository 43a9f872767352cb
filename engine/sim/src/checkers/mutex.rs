//! Locks: at most one valid holder, tokens that grow, and every request gets its turn.
//!
//! The checker counts what was reported to the applications. An application that got the report that it has a lock
//! holds it until it gives it back, gets the report that it is lost, or crashes; a removed or paused one may believe
//! that it holds the lock for longer than the group does. So two may believe it at once only under tokens of two views,
//! and only if the holder of the older token is not in the newer view. A resource that both write to takes no token
//! lower than one it has seen: nothing may be lost there.
//!
//! A grant of `replicated` is reported only once nothing can undo it: every process that goes on from that view as a
//! member must have seen it, and all must have seen the same grants.
//!
//! The length of a wait is counted in entries of other members: once a request can have reached all members, each other
//! member has at most one request that comes before it, whatever the algorithm. That is judged where nothing goes
//! wrong.

use super::quorum::is_quorum;
use super::views::Views;
use super::{Verdict, Violation};
use crate::demand::{Demand, Demands};
use crate::plan::{LockPlan, Plan};
use bourdon_protocol::{FencingToken, Grant, LockId, Member, Process, Standing};
use bourdon_wire::{Rank, TopicName};
use std::collections::BTreeMap;

pub(super) const NAME: &str = "mutex";
pub(super) const UNIFORM: &str = "uniform-grant";
pub(super) const FENCED: &str = "fenced";
pub(super) const WAITING: &str = "waiting";
pub(super) const TOKENS: &str = "tokens";

/// The time of steps, windows and acknowledgements, in addition to a request's way through the whole ring.
const DOORWAY_NS: u64 = 20_000_000;

/// A grant that was reported to an application.
#[derive(Clone, Copy, Debug)]
struct Hold {
    process: usize,
    member: Member,
    token: FencingToken,
    /// The resource's count at that moment; nothing if it took the token for an old one.
    read: Option<u64>,
}

/// The resource that a lock guards: it counts entries.
#[derive(Clone, Copy, Debug, Default)]
struct Resource {
    highest: FencingToken,
    value: u64,
}

#[derive(Debug, Default)]
struct Lock {
    holds: Vec<Hold>,
    shown: Vec<Hold>,
    resource: Resource,
}

#[derive(Debug)]
struct Wait {
    process: usize,
    id: LockId,
    place: usize,
    asked_ns: u64,
    /// Nothing else of this process waited for the lock, or held it.
    alone: bool,
    /// Entries of others since then, and since all members can have heard of it.
    overtaken: u64,
    late: u64,
}

/// A grant, as a row of a table.
type Row = (usize, FencingToken, Member);

#[derive(Debug)]
pub(crate) struct Mutexes {
    members: u16,
    replicated: bool,
    calm: bool,
    doorway_ns: u64,
    /// By lock: the highest token of earlier instances of the group, if that is judged.
    before: Option<Vec<Option<FencingToken>>>,
    locks: Vec<Lock>,
    waits: Vec<Wait>,
    /// By epoch: the grants in it, in the tables of the processes that went on to the next as members.
    closed: BTreeMap<u64, Vec<(usize, Vec<Row>)>>,
    pub(crate) grants: u64,
    pub(crate) max_overtaken: u64,
}

fn broken(detail: String) -> Verdict {
    Err(Violation::new(NAME, detail))
}

/// The order by which tokens of any instances compare.
fn growth(token: &FencingToken) -> FencingToken {
    *token
}

impl Resource {
    /// Admits a token, or finds it old.
    fn admits(&mut self, token: FencingToken) -> bool {
        let admitted = token >= self.highest;
        self.highest = self.highest.max(token);
        admitted
    }
}

impl Mutexes {
    pub(super) fn new(plan: &Plan, demands: Demands) -> Self {
        let way_ns = plan.latency_ns.max(plan.latency_back_ns) + plan.jitter_ns;
        Self {
            members: plan.members,
            replicated: plan.has_commands(),
            calm: plan.is_calm(),
            doorway_ns: u64::from(plan.members) * way_ns + DOORWAY_NS,
            locks: std::iter::repeat_with(Lock::default).take(plan.locks.as_ref().map_or(0, |l| l.names)).collect(),
            before: demands.has(Demand::Tokens).then(Vec::new),
            waits: Vec::new(),
            closed: BTreeMap::new(),
            grants: 0,
            max_overtaken: 0,
        }
    }

    /// An application requests a lock.
    pub(crate) fn asked(&mut self, process: usize, id: LockId, place: usize, now_ns: u64) {
        let waits = self.waits.iter().any(|wait| wait.process == process && wait.place == place);
        let holds = self.locks[place].holds.iter().any(|hold| hold.process == process);
        let alone = !waits && !holds;
        self.waits.push(Wait { process, id, place, asked_ns: now_ns, alone, overtaken: 0, late: 0 });
    }

    /// A request is over without a grant.
    pub(crate) fn ended(&mut self, process: usize, id: LockId) {
        self.waits.retain(|wait| (wait.process, wait.id) != (process, id));
    }

    /// A process reports to its application that it has a lock.
    pub(crate) fn granted(
        &mut self,
        views: &Views,
        process: usize,
        id: LockId,
        (place, token): (usize, FencingToken),
        now_ns: u64,
    ) -> Verdict {
        let rank = Rank(process as u16);
        let Some(incarnation) = views.view(token.epoch.0).and_then(|view| view.incarnation(rank)) else {
            return broken(format!("process {process} got {token:?}, of a view that it was not in"));
        };
        let mut hold = Hold { process, member: Member { rank, incarnation }, token, read: None };
        self.outgrows(place, &hold)?;
        self.is_only(views, place, &hold)?;
        self.is_held_everywhere(place, &hold)?;
        let lock = &mut self.locks[place];
        hold.read = lock.resource.admits(token).then_some(lock.resource.value);
        lock.holds.push(hold);
        lock.shown.push(hold);
        self.grants += 1;
        self.turn(process, id, place, now_ns)
    }

    /// Takes over the tokens of the instance of the group before this one: a resource outlives both.
    pub(crate) fn outlives(&mut self, past: &Self) {
        let Some(before) = &mut self.before else { return };
        let highest = |lock: &Lock| lock.shown.iter().map(|hold| hold.token).max_by_key(growth);
        let earlier = past.before.iter().flatten().copied().chain(std::iter::repeat(None));
        let both = past.locks.iter().map(highest).zip(earlier);
        *before = both.map(|(last, earlier)| last.into_iter().chain(earlier).max_by_key(growth)).collect();
    }

    /// Whether a token is greater than all before the restart of the group.
    fn outgrows(&self, place: usize, hold: &Hold) -> Verdict {
        let before = self.before.as_ref().and_then(|before| before.get(place).copied().flatten());
        match before.filter(|before| growth(before) >= growth(&hold.token)) {
            Some(before) => Err(Violation::new(
                TOKENS,
                format!(
                    "lock {place} is granted, {hold:?}, after a restart of the group; before it {before:?} was granted"
                ),
            )),
            None => Ok(()),
        }
    }

    /// Whether no other process holds the lock, and no process that knew of this grant got the report of a later one.
    fn is_only(&self, views: &Views, place: usize, hold: &Hold) -> Verdict {
        let lock = &self.locks[place];
        let knows = |member: Member, of: FencingToken| views.view(of.epoch.0).is_some_and(|view| view.contains(member));
        for other in &lock.holds {
            let (older, newer) = if other.token < hold.token { (other, hold) } else { (hold, other) };
            if older.token.epoch == newer.token.epoch || knows(older.member, newer.token) {
                return broken(format!("lock {place} is granted, {hold:?}, while {other:?} holds"));
            }
        }
        for earlier in &lock.shown {
            if earlier.token == hold.token {
                return broken(format!("lock {place} is granted twice under one token: {hold:?}, {earlier:?}"));
            }
            let overtaken = earlier.token > hold.token;
            if overtaken && (earlier.token.epoch == hold.token.epoch || knows(hold.member, earlier.token)) {
                return broken(format!("tokens of lock {place} fall: {hold:?} after {earlier:?}"));
            }
        }
        Ok(())
    }

    /// Whether every process that has gone on from the view of a grant knows of it.
    fn is_held_everywhere(&self, place: usize, hold: &Hold) -> Verdict {
        let row = (place, hold.token, hold.member);
        let closed = self.closed.get(&hold.token.epoch.0).filter(|_| self.replicated);
        match closed.into_iter().flatten().find(|(_, rows)| !rows.contains(&row)) {
            Some((other, _)) => lacks(*other, place, hold),
            None => Ok(()),
        }
    }

    /// A process goes on to the next view as a member, from one that it was in, of this epoch: `grants` are those that
    /// its table has seen.
    pub(crate) fn closed<'g>(
        &mut self,
        views: &Views,
        own: Member,
        grants: impl Iterator<Item = &'g Grant>,
        epoch: u64,
    ) -> Verdict {
        let index = own.rank.index();
        if !self.replicated || !views.view(epoch).is_some_and(|view| view.contains(own)) {
            return Ok(());
        }
        let of_epoch = grants.filter(|grant| grant.token.epoch.0 == epoch);
        let rows: Vec<Row> =
            of_epoch.filter_map(|grant| Some((LockPlan::place(&grant.name)?, grant.token, grant.holder))).collect();
        for (place, lock) in self.locks.iter().enumerate() {
            let shown = lock.shown.iter().filter(|hold| hold.token.epoch.0 == epoch);
            for hold in shown {
                if !rows.contains(&(place, hold.token, hold.member)) {
                    return lacks(index, place, hold);
                }
            }
        }
        let known = self.closed.entry(epoch).or_default();
        if let Some((other, _)) = known.iter().find(|(_, others)| *others != rows) {
            return broken(format!("by the end of epoch {epoch} the tables of {other} and {index} saw other grants"));
        }
        known.push((index, rows));
        Ok(())
    }

    /// An application gives a lock back: it has counted its entry at the resource.
    pub(crate) fn released(&mut self, process: usize, place: usize, token: FencingToken) -> Verdict {
        let lock = &mut self.locks[place];
        let Some(hold) = lock.holds.iter().find(|hold| (hold.process, hold.token) == (process, token)).copied() else {
            return broken(format!("process {process} gives back {token:?}, which it was not granted"));
        };
        lock.holds.retain(|hold| (hold.process, hold.token) != (process, token));
        if !lock.resource.admits(token) {
            return Ok(());
        }
        if hold.read != Some(lock.resource.value) {
            let now = lock.resource.value;
            return broken(format!("lock {place} did not guard its resource: {hold:?}, and that is at {now}"));
        }
        lock.resource.value += 1;
        Ok(())
    }

    /// A process reports to its application that it no longer has a lock.
    pub(crate) fn lost(&mut self, process: usize, place: usize, token: FencingToken) {
        self.locks[place].holds.retain(|hold| (hold.process, hold.token) != (process, token));
    }

    /// A process is gone, and its application.
    pub(crate) fn crashed(&mut self, process: usize) {
        self.waits.retain(|wait| wait.process != process);
        self.locks.iter_mut().for_each(|lock| lock.holds.retain(|hold| hold.process != process));
    }

    /// Counts an entry against the processes that wait.
    fn turn(&mut self, process: usize, id: LockId, place: usize, now_ns: u64) -> Verdict {
        let doorway_ns = self.doorway_ns;
        for wait in self.waits.iter_mut().filter(|wait| wait.place == place && wait.process != process) {
            wait.overtaken += 1;
            wait.late += u64::from(now_ns > wait.asked_ns + doorway_ns);
        }
        let Some(at) = self.waits.iter().position(|wait| (wait.process, wait.id) == (process, id)) else {
            return broken(format!("process {process} is granted {id:?}, which it does not wait for"));
        };
        let wait = self.waits.remove(at);
        if !wait.alone {
            return Ok(()); // it waited for this process's own requests
        }
        self.max_overtaken = self.max_overtaken.max(wait.overtaken);
        if self.calm && wait.late >= u64::from(self.members) {
            let detail = format!("{wait:?}: more entries of others than there are others");
            return Err(Violation::new(WAITING, detail));
        }
        Ok(())
    }

    /// Judges a process, or its control thread, after a step: it holds what it reported to its application, and nothing
    /// without a quorum of its view. `leads`: it leads anything.
    pub(crate) fn stepped<'n>(
        &self,
        index: usize,
        held: impl Iterator<Item = (&'n TopicName, FencingToken)>,
        leads: bool,
        may_hold: bool,
    ) -> Verdict {
        let holds =
            |place: usize, token| self.locks[place].holds.iter().any(|h| (h.process, h.token) == (index, token));
        let reported: usize =
            self.locks.iter().map(|lock| lock.holds.iter().filter(|hold| hold.process == index).count()).sum();
        let held: Vec<_> = held.filter_map(|(name, token)| Some((LockPlan::place(name)?, token))).collect();
        if held.len() != reported || held.iter().any(|(place, token)| !holds(*place, *token)) {
            return broken(format!("process {index} holds {held:?}, but reported {reported} other grants"));
        }
        if !may_hold && (!held.is_empty() || leads) {
            let detail = format!("process {index} reaches no quorum, or is no member, and holds {held:?} or leads on");
            return Err(Violation::new(FENCED, detail));
        }
        Ok(())
    }

    /// Whether no live process waits or holds a lock any more.
    pub(crate) fn is_quiet(&self, lives: impl Fn(usize) -> bool) -> Verdict {
        if let Some(wait) = self.waits.iter().find(|wait| lives(wait.process)) {
            return Err(Violation::new(WAITING, format!("a request was never granted or ended: {wait:?}")));
        }
        let mut holds = self.locks.iter().flat_map(|lock| &lock.holds);
        match holds.find(|hold| lives(hold.process)) {
            Some(hold) => Err(Violation::new(WAITING, format!("still held: {hold:?}"))),
            None => Ok(()),
        }
    }
}

/// Whether a process may hold locks and lead: it is a member, and suspects no quorum of its view away.
pub(crate) fn may_hold(process: &Process, index: usize) -> bool {
    let reaches = |member: &Member| member.rank.index() == index || process.suspects() & 1 << member.rank.index() == 0;
    process.standing() == Standing::Member && is_quorum(process.view(), reaches)
}

fn lacks(process: usize, place: usize, hold: &Hold) -> Verdict {
    let epoch = hold.token.epoch;
    let detail =
        format!("process {process} went on from view {epoch} without a grant of lock {place} made in it: {hold:?}");
    Err(Violation::new(UNIFORM, detail))
}
