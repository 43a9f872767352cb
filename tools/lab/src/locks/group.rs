//! The members that share the lock, and the faults injected into them.
//!
//! A fault is drawn when a member reports that it is inside: after how many entries, whether a kill or a stop, and how
//! long until it happens, so that it falls anywhere in the entry or shortly after it. At most a minority has a fault at
//! a time, or the group could not go on. A killed member is started again after a while. A stopped member is resumed
//! after longer than any detector waits, learns that it was removed, ends, and is started again as well.
//!
//! No member is stopped while the shared file is locked: a stopped process that holds the file's lock would block all
//! others, which is a fault of the file and not of the distributed lock.

use super::journal::{Incarnation, Journal, now_ns};
use super::judge::{InjectedFaults, is_a_loser_uninformed};
use super::{PATIENCE, Plan, Unusable};
use crate::hosts::Process;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

/// A killed member is started again after this time.
const RESTART_MS: std::ops::Range<u64> = 20..150;
/// A stopped member is resumed after this time: several times what the slowest detector and a view change take.
const STOP_MS: std::ops::Range<u64> = 150..400;
/// How often the end of the campaign checks whether every stale holder has its report.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// The exit code of a member that can't run here.
const UNUSABLE: i32 = 2;

/// The outcome.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    pub(super) injected: InjectedFaults,
    pub(super) restarts: u64,
    pub(super) false_evictions: u64,
    pub(super) failed: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Up,
    Down { again: Instant },
    Stopped { on: Instant },
}

#[derive(Debug)]
struct Member {
    process: Process,
    incarnation: u32,
    state: State,
    has_joined: bool,
    /// In this incarnation.
    was_stopped: bool,
}

#[derive(Debug)]
enum MemberReport {
    Joined,
    Inside,
    Out,
    /// It was refused and got no report that it had lost the lock, so the campaign can end.
    GaveUp,
    /// Its stdout ended.
    Ended,
}

#[derive(Clone, Copy, Debug)]
struct PlannedFault {
    victim: Incarnation,
    at: Instant,
    stops: bool,
}

/// Why a campaign ended early.
enum Stop {
    Failed(String),
    Unusable(Unusable),
}

impl From<Unusable> for Stop {
    fn from(why: Unusable) -> Self {
        Self::Unusable(why)
    }
}

struct Group<'a> {
    plan: &'a Plan,
    algorithm: &'a str,
    path: &'a Path,
    journal: &'a Journal,
    name: String,
    address: String,
    members: Vec<Member>,
    sender: Sender<(Incarnation, MemberReport)>,
    reports: Receiver<(Incarnation, MemberReport)>,
    rng: fastrand::Rng,
    fault: Option<PlannedFault>,
    /// Entries until the next fault.
    until_fault: u64,
    entries: u64,
    has_failed: bool,
    last_out: Instant,
    outcome: Outcome,
}

/// Plays a whole campaign.
pub(super) fn play(
    plan: &Plan,
    algorithm: &str,
    (path, journal): (&Path, &Journal),
    talk: &dyn Fn(&str),
) -> Result<Outcome, Unusable> {
    let (sender, reports) = channel();
    let id = draw_id();
    let address = format!("239.253.{}.5:{}", id >> 24, 20_000 + (id >> 8) % 12_000);
    let mut group = Group {
        plan,
        algorithm,
        path,
        journal,
        name: format!("locks-{id}"),
        address,
        members: Vec::new(),
        sender,
        reports,
        rng: fastrand::Rng::with_seed(plan.seed),
        fault: None,
        until_fault: 0,
        entries: 0,
        has_failed: false,
        last_out: Instant::now(),
        outcome: Outcome::default(),
    };
    match group.campaign(talk) {
        Ok(()) => {}
        Err(Stop::Failed(why)) => group.outcome.failed = Some(why),
        Err(Stop::Unusable(why)) => return Err(why),
    }
    Ok(group.outcome)
}

/// Names a campaign's group and address. Drawn from the system's randomness, because two campaigns of one process that
/// began at one reading of the clock would have one group.
fn draw_id() -> u32 {
    let mut bytes = [0; 4];
    let count = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
    assert_eq!(count, Ok(bytes.len()), "the kernel gives 4 random bytes at once");
    u32::from_ne_bytes(bytes)
}

fn failed(what: impl std::fmt::Display) -> Stop {
    Stop::Failed(what.to_string())
}

impl Group<'_> {
    fn campaign(&mut self, talk: &dyn Fn(&str)) -> Result<(), Stop> {
        for rank in 0..self.plan.members {
            let member = self.start(Incarnation { rank, incarnation: 1 })?;
            self.members.push(member);
        }
        let deadline = Instant::now() + PATIENCE;
        while !self.members.iter().all(|member| member.has_joined) {
            self.hear(deadline.min(Instant::now() + LOOK_EVERY), true)?;
            if Instant::now() >= deadline {
                return Err(failed("the group never became whole"));
            }
        }
        (self.until_fault, self.last_out) = (self.draw_gap(), Instant::now());
        let mut next = 0;
        while !self.is_enough(&mut next, talk)? {
            let due = self.act()?;
            self.hear(due, false)?;
            if self.last_out.elapsed() > PATIENCE {
                let states: Vec<_> = self.members.iter().map(|m| (m.incarnation, m.state, m.has_joined)).collect();
                return Err(failed(format!("no member had the lock for {PATIENCE:?}; members: {states:?}")));
            }
        }
        self.end()
    }

    /// Whether the lock changed hands often enough; `next`: how many entries that takes at least.
    fn is_enough(&mut self, next: &mut u64, talk: &dyn Fn(&str)) -> Result<bool, Stop> {
        if self.has_failed {
            return Ok(true);
        }
        if self.entries < *next {
            return Ok(false);
        }
        let lines = self.journal.lines().map_err(failed)?;
        let verdict = super::judge::judge(&lines, &self.outcome.injected, 0);
        let InjectedFaults { kills, stops } = &self.outcome.injected;
        let (hand_overs, kills, stops) = (verdict.hand_overs, kills.len(), stops.len());
        if self.entries > 0 {
            talk(&format!("{}: {hand_overs} hand-overs, {kills} kills, {stops} stops", self.algorithm));
        }
        let left = self.plan.hand_overs.saturating_sub(hand_overs);
        *next = self.entries + left.clamp(1, self.plan.hand_overs.div_ceil(4));
        Ok(left == 0)
    }

    fn start(&mut self, own: Incarnation) -> Result<Member, Stop> {
        let plan = self.plan;
        let mut command = Command::new(&plan.lab);
        let profile = clap::ValueEnum::to_possible_value(&plan.profile);
        let profile = profile.as_ref().map_or("default", |profile| profile.get_name());
        command.args(["locker", "--group", &self.name, "--address", &self.address, "--profile", profile]);
        command.args(["--algorithm", self.algorithm, "--journal"]).arg(self.path);
        for (name, value) in [
            ("--members", u64::from(plan.members)),
            ("--rank", u64::from(own.rank)),
            ("--incarnation", u64::from(own.incarnation)),
            ("--inside", plan.inside.as_micros() as u64),
            ("--seed", self.rng.u64(..)),
            ("--cheat", plan.cheat),
        ] {
            command.args([name, &value.to_string()]);
        }
        if plan.talk {
            command.arg("--talk");
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = Process::start(&mut command).map_err(failed)?;
        let Some(stdout) = process.child().stdout.take() else { return Err(failed("stdout is piped")) };
        let sender = self.sender.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let report = match &*line {
                    "joined" => MemberReport::Joined,
                    "inside" => MemberReport::Inside,
                    "gave-up" => MemberReport::GaveUp,
                    _ => MemberReport::Out,
                };
                if sender.send((own, report)).is_err() {
                    return;
                }
            }
            let _ = sender.send((own, MemberReport::Ended)); // the receiver is gone when the group ends
        });
        Ok(Member { process, incarnation: own.incarnation, state: State::Up, has_joined: false, was_stopped: false })
    }

    // ---- listening ------------------------------------------------------------------------------------------------

    /// Waits until a member reports, or until the deadline.
    fn hear(&mut self, until: Instant, forms: bool) -> Result<(), Stop> {
        match self.reports.recv_timeout(until.saturating_duration_since(Instant::now())) {
            Ok((reporter, report)) => self.take(reporter, &report, forms),
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => Ok(()),
        }
    }

    fn take(&mut self, reporter: Incarnation, report: &MemberReport, forms: bool) -> Result<(), Stop> {
        if matches!(report, MemberReport::Out) {
            (self.entries, self.last_out) = (self.entries + 1, Instant::now());
        }
        let member = &mut self.members[usize::from(reporter.rank)];
        if member.incarnation != reporter.incarnation {
            return Ok(());
        }
        match report {
            MemberReport::Joined => member.has_joined = true,
            MemberReport::Inside => self.plan_fault(reporter),
            MemberReport::Out => {}
            MemberReport::GaveUp => self.has_failed = true,
            MemberReport::Ended if matches!(member.state, State::Down { .. }) => {}
            MemberReport::Ended => {
                let status = member.process.wait().map_err(failed)?;
                if forms && status.code() == Some(UNUSABLE) {
                    return Err(Unusable::Members.into());
                }
                if !status.success() {
                    return Err(failed(format!("member {reporter} broke: {status}")));
                }
                self.outcome.false_evictions += u64::from(!member.was_stopped);
                self.restart(reporter.rank)?;
            }
        }
        Ok(())
    }

    fn restart(&mut self, rank: u16) -> Result<(), Stop> {
        let incarnation = self.members[usize::from(rank)].incarnation + 1;
        self.members[usize::from(rank)] = self.start(Incarnation { rank, incarnation })?;
        self.outcome.restarts += 1;
        Ok(())
    }

    // ---- faults ---------------------------------------------------------------------------------------------------

    fn draw_gap(&mut self) -> u64 {
        self.rng.u64(1..2 * self.plan.kill_every.max(1))
    }

    /// A member is inside: its fault may be due.
    fn plan_fault(&mut self, victim: Incarnation) {
        self.until_fault = self.until_fault.saturating_sub(1);
        let is_away = |member: &&Member| member.state != State::Up || !member.has_joined;
        let most = usize::from(self.plan.members - 1) / 2;
        let is_too_much = self.members.iter().filter(is_away).count() >= most;
        if self.until_fault > 0 || self.fault.is_some() || is_too_much {
            return;
        }
        let stops = self.rng.u8(0..100) < self.plan.pause_share;
        let after = self.rng.u64(..=self.plan.inside.as_nanos() as u64);
        self.fault = Some(PlannedFault { victim, at: Instant::now() + Duration::from_nanos(after), stops });
        self.until_fault = self.draw_gap();
    }

    /// Does the work that is due; returns when the next is due.
    fn act(&mut self) -> Result<Instant, Stop> {
        let now = Instant::now();
        if let Some(fault) = self.fault.filter(|fault| fault.at <= now) {
            self.fault = None;
            self.make(fault)?;
        }
        let mut next = now + PATIENCE / 30;
        next = self.fault.map_or(next, |fault| next.min(fault.at));
        for rank in 0..self.plan.members {
            let member = &mut self.members[usize::from(rank)];
            match member.state {
                State::Down { again } if again <= now => self.restart(rank)?,
                State::Stopped { on } if on <= now => {
                    member.process.resume().map_err(failed)?;
                    member.state = State::Up;
                }
                State::Down { again: due } | State::Stopped { on: due } => next = next.min(due),
                State::Up => {}
            }
        }
        Ok(next)
    }

    fn make(&mut self, fault: PlannedFault) -> Result<(), Stop> {
        let wait = Duration::from_millis(self.rng.u64(if fault.stops { STOP_MS } else { RESTART_MS }));
        let member = &mut self.members[usize::from(fault.victim.rank)];
        let is_current = member.incarnation == fault.victim.incarnation && member.state == State::Up;
        if !is_current || member.process.ended().map_err(failed)?.is_some() {
            return Ok(()); // it ended meanwhile; its report comes
        }
        let injected = &mut self.outcome.injected;
        if fault.stops {
            let shut = self.journal.shut().map_err(failed)?;
            injected.stops.push((fault.victim, now_ns()));
            member.process.stop().map_err(failed)?;
            drop(shut);
            (member.state, member.was_stopped) = (State::Stopped { on: Instant::now() + wait }, true);
        } else {
            injected.kills.push((fault.victim, now_ns()));
            member.process.kill().map_err(failed)?;
            member.state = State::Down { again: Instant::now() + wait };
        }
        Ok(())
    }

    // ---- the end --------------------------------------------------------------------------------------------------

    /// Ends the faults, waits until every stale holder has its report, then ends all members.
    fn end(&mut self) -> Result<(), Stop> {
        (self.fault, self.until_fault) = (None, u64::MAX);
        let deadline = Instant::now() + PATIENCE;
        let is_settled = |group: &Self| -> Result<bool, Stop> {
            let runs = group.members.iter().all(|member| member.state == State::Up && member.has_joined);
            let lines = group.journal.lines().map_err(failed)?;
            Ok(runs && !is_a_loser_uninformed(&lines, &group.outcome.injected))
        };
        while !is_settled(self)? {
            let due = self.act()?;
            let look = due.min(Instant::now() + LOOK_EVERY);
            while Instant::now() < look {
                self.hear(look, false)?;
            }
            if Instant::now() >= deadline {
                return Err(failed("a member got no report that it lost the lock, or did not return"));
            }
        }
        for member in &mut self.members {
            drop(member.process.child().stdin.take());
        }
        while Instant::now() < deadline {
            let mut left = 0;
            for member in &mut self.members {
                match member.process.ended().map_err(failed)? {
                    None => left += 1,
                    Some(status) if !status.success() => return Err(failed(format!("a member broke: {status}"))),
                    Some(_) => {}
                }
            }
            if left == 0 {
                return Ok(());
            }
            let _ = self.reports.recv_timeout(LOOK_EVERY); // whatever is reported now
        }
        Err(failed("a member does not end on request"))
    }
}
