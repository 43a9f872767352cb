//! One kind of fault, again and again, and the group's reaction.
//!
//! A fault that was survived once proves little: the next may hit while the last is being repaired, or hit another
//! member. So a campaign starts one member program on each host, waits until all have installed one view of all members
//! and deliver, injects a fault into one of them (each in turn), waits until the others have installed a view without
//! it, ends the fault, and waits until the group is whole again. At the end the histories are judged.
//!
//! The harness knows only the program's history file and these rules: it delivers or publishes by itself; a program
//! that learns that it was removed ends, and is started again as its next incarnation; on SIGTERM it ends. A program
//! that ends with an exit code other than 0 is broken, and ends the campaign. It takes part by a line for the shell in
//! which `{rank}`, `{incarnation}` (nothing, then `.2`, `.3` …), `{dir}`, `{members}` and `{address}` are filled in.
//!
//! Every wait ends: with the awaited event, or after [`Plan::patience`] with a failure that names what did not come.

pub(crate) mod tail;

use crate::history::{self, ReadError};
use crate::hosts::{Lab, Process, ProcessError, Unavailable};
use crate::judge::{Rules, Verdict, judge};
use std::io::Write;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};
use tail::{Seen, Tail};

/// How often histories are read; figures are no finer than this.
pub const LOOK_EVERY: Duration = Duration::from_millis(2);
/// The most starts of one member in one round: a program that ends at once is broken, not hit by a fault.
pub const STARTS_MAX: u32 = 3;

/// The kinds of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum FaultKind {
    /// SIGKILL; then started again.
    Kill,
    /// SIGSTOP until the others have removed it.
    Stop,
    /// Its cable is pulled until then.
    Cut,
    /// Another member receives nothing from it until the group has removed one of the two.
    CutOneWay,
}

/// A campaign.
#[derive(Clone, Debug)]
pub struct Plan {
    /// How many members, each on a host of its own.
    pub members: usize,
    /// How many faults are injected.
    pub rounds: usize,
    /// The kind of fault.
    pub fault: FaultKind,
    /// How a member is started, as a line for the shell.
    pub member: String,
    /// The folder of the histories.
    pub folder: PathBuf,
    /// The longest time that any step may take.
    pub patience: Duration,
    /// The guarantees to judge by.
    pub rules: Rules,
}

/// One round.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Round {
    /// The victims: one member, or two that were cut in one direction, the sender first.
    pub victims: Vec<usize>,
    /// The time until all remaining members had installed a view without a victim.
    pub fault_to_view_ns: Option<u64>,
    /// The time from the end of the fault until the group was whole again and all delivered.
    pub heal_to_whole_ns: Option<u64>,
}

/// The outcome of a campaign.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Report {
    /// The kind of fault.
    pub fault: FaultKind,
    /// How many members.
    pub members: usize,
    /// Each round.
    pub rounds: Vec<Round>,
    /// Members without a fault that a view excluded.
    pub false_evictions: usize,
    /// Incarnations that were started after the first ones.
    pub restarts: u32,
    /// What did not come in time, and so ended the campaign.
    pub failed: Option<String>,
    /// The judge's verdict on the histories.
    pub verdict: Verdict,
}

/// Why a campaign could not be run.
#[derive(Debug, thiserror::Error)]
pub enum RoundsError {
    /// There is no lab here.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
    /// A member can't be started or signalled.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// The histories can't be judged.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A file can't be read or written.
    #[error("can't use {path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// There are too few members to lose one.
    #[error("a group of {0} can't lose a member and go on; use at least 2")]
    TooFew(usize),
    /// There is nothing to judge.
    #[error("no member wrote {0}/member-RANK.tsv; run the line that starts a member by hand and check its output")]
    Silent(PathBuf),
    /// The folder is not empty.
    #[error("{0} holds histories already; name a new or empty folder")]
    Used(PathBuf),
}

/// Runs a campaign and reports its progress to `say`.
///
/// # Errors
/// If it can't be run at all. A failure of the group is in the report.
pub fn run(plan: &Plan, say: &dyn Fn(&str)) -> Result<Report, RoundsError> {
    if plan.members < 2 {
        return Err(RoundsError::TooFew(plan.members));
    }
    let mut campaign = Campaign::start(plan)?;
    let mut rounds = Vec::new();
    let mut failed = match campaign.whole()? {
        Some(_) => None,
        None => Some("the group never was whole: no view of all, or nothing delivered".to_owned()),
    };
    while failed.is_none() && rounds.len() < plan.rounds {
        let round = campaign.round(rounds.len())?;
        say(&format!("round {}: {round:?}", rounds.len()));
        failed = match (round.fault_to_view_ns, round.heal_to_whole_ns) {
            (None, _) => Some(format!("round {}: no view without {:?}", rounds.len(), round.victims)),
            (_, None) => Some(format!("round {}: the group was not whole again", rounds.len())),
            _ => None,
        };
        rounds.push(round);
    }
    if let (Some(late), None) = (campaign.end()?, &failed) {
        failed = Some(format!("member {late} did not end when asked to"));
    }
    let (false_evictions, restarts) = (campaign.false_evictions, campaign.restarts);
    failed = campaign.broken.take().or(failed);
    drop(campaign); // no process writes any more
    let histories = history::read(&plan.folder).map_err(|error| match error {
        ReadError::Empty(_) => RoundsError::Silent(plan.folder.clone()),
        other => other.into(),
    })?;
    let verdict = judge(&histories, plan.rules);
    Ok(Report { fault: plan.fault, members: plan.members, rounds, false_evictions, restarts, failed, verdict })
}

/// One member: its current incarnation.
struct Member {
    process: Process,
    incarnation: u32,
    starts: u32,
    tail: Tail,
}

struct Campaign<'a> {
    plan: &'a Plan,
    // This field comes before the lab, so that processes end before their hosts do.
    members: Vec<Member>,
    lab: Lab,
    false_evictions: usize,
    restarts: u32,
    /// The failure of a member that ended by itself.
    broken: Option<String>,
}

impl<'a> Campaign<'a> {
    fn start(plan: &'a Plan) -> Result<Self, RoundsError> {
        let lab = Lab::new(plan.members)?;
        let io = |source| RoundsError::Io { path: plan.folder.clone(), source };
        std::fs::create_dir_all(&plan.folder).map_err(io)?;
        for entry in std::fs::read_dir(&plan.folder).map_err(io)? {
            let name = entry.map_err(io)?.file_name();
            if name == "killed" || name.to_string_lossy().ends_with(".tsv") {
                return Err(RoundsError::Used(plan.folder.clone()));
            }
        }
        let mut campaign = Self { plan, members: Vec::new(), lab, false_evictions: 0, restarts: 0, broken: None };
        for rank in 0..plan.members {
            let member = campaign.begin(rank, 1)?;
            campaign.members.push(member);
        }
        Ok(campaign)
    }

    /// Starts an incarnation of a member.
    fn begin(&self, rank: usize, incarnation: u32) -> Result<Member, RoundsError> {
        let host = self.lab.host(rank);
        let suffix = if incarnation == 1 { String::new() } else { format!(".{incarnation}") };
        let line = [
            ("{rank}", rank.to_string()),
            ("{incarnation}", suffix.clone()),
            ("{dir}", self.plan.folder.display().to_string()),
            ("{members}", self.plan.members.to_string()),
            ("{address}", host.address().to_string()),
        ];
        let line = line.iter().fold(self.plan.member.clone(), |text, (name, value)| text.replace(name, value));
        // `exec`, so that signals reach the program and not a shell around it.
        let mut command = host.command("sh");
        command.args(["-c", &format!("exec {line}")]).stdin(Stdio::null()).stdout(Stdio::null());
        let process = Process::start(&mut command)?;
        let tail = Tail::new(self.plan.folder.join(format!("member-{rank}{suffix}.tsv")));
        Ok(Member { process, incarnation, starts: 0, tail })
    }

    fn round(&mut self, round: usize) -> Result<Round, RoundsError> {
        self.members.iter_mut().for_each(|member| member.starts = 0);
        let victims = victims(self.plan.fault, round, self.plan.members);
        self.inject(&victims)?;
        let without = self.until(|campaign| Ok(campaign.without(&victims)))?;
        let mut result = Round { victims, fault_to_view_ns: None, heal_to_whole_ns: None };
        let Some((view, taken)) = without else { return Ok(result) };
        let left_out = (0..self.plan.members).filter(|rank| !view.members.contains(rank));
        self.false_evictions += left_out.filter(|rank| !result.victims.contains(rank)).count();
        result.fault_to_view_ns = Some(taken);
        self.heal(&result.victims)?;
        result.heal_to_whole_ns = self.whole()?;
        Ok(result)
    }

    fn inject(&mut self, victims: &[usize]) -> Result<(), RoundsError> {
        let victim = victims[0];
        match self.plan.fault {
            FaultKind::Kill => {
                self.members[victim].process.kill()?;
                self.note_killed(victim)
            }
            FaultKind::Stop => Ok(self.members[victim].process.stop()?),
            FaultKind::Cut => Ok(self.lab.cut(victim)?),
            FaultKind::CutOneWay => Ok(self.lab.cut_one_way(victim, victims[1])?),
        }
    }

    fn heal(&mut self, victims: &[usize]) -> Result<(), RoundsError> {
        let victim = victims[0];
        match self.plan.fault {
            FaultKind::Kill => Ok(()), // started again with the others that have ended
            FaultKind::Stop => Ok(self.members[victim].process.resume()?),
            FaultKind::Cut => Ok(self.lab.restore(victim)?),
            FaultKind::CutOneWay => Ok(self.lab.restore_one_way(victim, victims[1])?),
        }
    }

    fn note_killed(&self, rank: usize) -> Result<(), RoundsError> {
        let path = self.plan.folder.join("killed");
        let file = std::fs::OpenOptions::new().create(true).append(true).open(&path);
        let noted = file.and_then(|mut file| writeln!(file, "member:{rank}"));
        noted.map_err(|source| RoundsError::Io { path, source })
    }

    /// A view without a victim that all its members have installed.
    fn without(&self, victims: &[usize]) -> Option<Seen> {
        let shown = self.members.iter().filter_map(|member| member.tail.view.as_ref());
        let mut candidates = shown.filter(|view| victims.iter().any(|victim| !view.members.contains(victim)));
        candidates.find(|view| self.installed_by_all(view)).cloned()
    }

    fn installed_by_all(&self, view: &Seen) -> bool {
        let installed =
            |rank: &usize| self.members.get(*rank).is_some_and(|member| member.tail.view.as_ref() == Some(view));
        !view.members.is_empty() && view.members.iter().all(installed)
    }

    /// Waits until all have installed one view of all members and each has delivered a message since the call; starts
    /// members that ended.
    fn whole(&mut self) -> Result<Option<u64>, RoundsError> {
        let mut marks: Vec<(u32, u64)> =
            self.members.iter().map(|member| (member.incarnation, member.tail.delivered)).collect();
        let reached = self.until(|campaign| {
            if !campaign.start_ended()? {
                return Ok(None);
            }
            for (mark, member) in
                marks.iter_mut().zip(&campaign.members).filter(|(mark, member)| mark.0 != member.incarnation)
            {
                *mark = (member.incarnation, 0);
            }
            let delivers = marks.iter().zip(&campaign.members).all(|(mark, member)| member.tail.delivered > mark.1);
            let view = campaign.members[0].tail.view.as_ref();
            let whole = view.filter(|view| view.members.len() == campaign.plan.members);
            Ok(whole.filter(|view| delivers && campaign.installed_by_all(view)).map(|_| ()))
        })?;
        Ok(reached.map(|((), taken)| taken))
    }

    /// Starts the next incarnation of each member that has ended; returns false if one ends again and again.
    fn start_ended(&mut self) -> Result<bool, RoundsError> {
        for rank in 0..self.members.len() {
            let Some(status) = self.members[rank].process.ended()? else { continue };
            if status.code().is_some_and(|code| code != 0) {
                self.broken.get_or_insert_with(|| format!("member {rank} broke: {status}"));
            }
            let (incarnation, starts) = (self.members[rank].incarnation + 1, self.members[rank].starts + 1);
            if starts > STARTS_MAX || self.broken.is_some() {
                return Ok(false);
            }
            self.members[rank] = Member { starts, ..self.begin(rank, incarnation)? };
            self.restarts += 1;
        }
        Ok(true)
    }

    /// Ends all members and waits for them; returns a member that did not end.
    fn end(&mut self) -> Result<Option<usize>, RoundsError> {
        for member in &mut self.members {
            match member.process.terminate() {
                Err(ProcessError::Ended(_)) => {}
                other => other?,
            }
        }
        let mut late = None;
        let ended = self.until(|campaign| {
            late = None;
            for (rank, member) in campaign.members.iter_mut().enumerate() {
                if member.process.ended()?.is_none() {
                    late = Some(rank);
                }
            }
            Ok(late.is_none().then_some(()))
        })?;
        Ok(late.filter(|_| ended.is_none()))
    }

    /// Reads all histories until `done`; returns how many nanoseconds that took, or none when the patience is over.
    fn until<T>(
        &mut self,
        mut done: impl FnMut(&mut Self) -> Result<Option<T>, RoundsError>,
    ) -> Result<Option<(T, u64)>, RoundsError> {
        let begun = Instant::now();
        loop {
            for member in &mut self.members {
                let looked = member.tail.look();
                looked.map_err(|source| RoundsError::Io { path: self.plan.folder.clone(), source })?;
            }
            if let Some(found) = done(self)? {
                let taken = u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX);
                return Ok(Some((found, taken)));
            }
            if begun.elapsed() > self.plan.patience || self.broken.is_some() {
                return Ok(None);
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }
}

/// Each member in turn; with two, each pair in turn.
fn victims(fault: FaultKind, round: usize, members: usize) -> Vec<usize> {
    let first = round % members;
    match fault {
        FaultKind::CutOneWay => vec![first, (first + 1 + (round / members) % (members - 1)) % members],
        _ => vec![first],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_member_and_every_pair_has_its_turn() {
        let all: HashSet<_> = (0..3).flat_map(|round| victims(FaultKind::Kill, round, 3)).collect();
        assert_eq!(all.len(), 3);
        let pairs: HashSet<_> = (0..6).map(|round| victims(FaultKind::CutOneWay, round, 3)).collect();
        assert!(pairs.len() == 6 && pairs.iter().all(|pair| pair[0] != pair[1]), "{pairs:?}");
    }
}
