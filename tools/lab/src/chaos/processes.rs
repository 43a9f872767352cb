//! The processes of a campaign, the hosts that they run on, and the faults injected into them.
//!
//! A *seat* is a place in the group: member 0, observer 1, client 0. It has two hosts. When the whole group is
//! restarted, some processes are killed, and the next processes of their seats start on the same hosts, under the same
//! addresses; others are frozen, and the next processes of their seats start on the other hosts. So old and new
//! processes run side by side, and over TCP an old process still has addresses at which new processes listen. Over
//! shared memory all run on one host, and each loses datagrams itself.

use super::faults::{Draw, Fault};
use super::{ChaosError, Generation, LOOK_EVERY, Plan};
use crate::hosts::{Lab, Process, ProcessError};
use crate::interrupt::Interrupt;
use crate::rounds::tail::Tail;
use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// In a generation's folder: its frozen clients, each as `RANK.INCARNATION`, and how many messages of each were
/// acknowledged.
pub(super) const FROZEN: &str = "frozen-clients";
/// The port of a member over TCP.
const PORT: u16 = 7_402;
/// A program that ended is started again after this time.
const START_AGAIN: Duration = Duration::from_millis(50);
/// The longest wait for a replay.
const REPLAY_WITHIN: Duration = Duration::from_secs(3);

/// The resources that a process uses.
#[derive(Clone, Debug)]
pub(super) struct Usage {
    pub(super) name: String,
    pub(super) rss_bytes: u64,
    pub(super) descriptors: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Member,
    Observer,
    Client,
}

impl Role {
    fn name(self) -> &'static str {
        match self {
            Self::Member => "member",
            Self::Observer => "observer",
            Self::Client => "client",
        }
    }
}

/// The process of a seat: its current incarnation.
struct Actor {
    process: Process,
    incarnation: u32,
    tail: Tail,
    /// How many messages it had delivered, or had been acknowledged, when the wait began.
    mark: u64,
    /// Whether a fault has hit this incarnation.
    is_hit: bool,
    /// If it has ended: when it is started again.
    again: Option<Instant>,
}

/// A process of the previous generation.
struct Old {
    process: Process,
    name: String,
    folder: PathBuf,
}

pub(super) struct ChaosProcesses<'a> {
    plan: &'a Plan,
    interrupt: &'a Interrupt,
    // This field comes before the lab, so that processes end before their hosts do.
    actors: Vec<Actor>,
    old: Vec<Old>,
    recorder: Option<Process>,
    lab: Lab,
    seats: Vec<(Role, usize)>,
    /// On which of its two hosts each seat's current process runs: 0 or 1.
    sides: Vec<usize>,
    generations: Vec<Generation>,
    broken: Vec<String>,
    removed: u64,
}

impl<'a> ChaosProcesses<'a> {
    pub(super) fn start(plan: &'a Plan, interrupt: &'a Interrupt) -> Result<Self, ChaosError> {
        let ranks = |role, count| (0..count).map(move |rank| (role, rank));
        let seats: Vec<_> = ranks(Role::Member, plan.members)
            .chain(ranks(Role::Observer, plan.observers))
            .chain(ranks(Role::Client, plan.clients))
            .collect();
        let hosts = if plan.is_on_one_host() { 1 } else { 2 * seats.len() + 1 };
        let lab = Lab::new(hosts)?;
        lab.lose(plan.loss)?;
        let mut processes = Self {
            plan,
            interrupt,
            actors: Vec::new(),
            old: Vec::new(),
            recorder: None,
            lab,
            sides: vec![0; seats.len()],
            seats,
            generations: Vec::new(),
            broken: Vec::new(),
            removed: 0,
        };
        processes.begin_generation()?;
        Ok(processes)
    }

    fn generation(&self) -> &Generation {
        self.generations.last().expect("a cast begins with a generation")
    }

    pub(super) fn generations(&self) -> Vec<Generation> {
        self.generations.clone()
    }

    /// Starts every seat's process, in a new generation.
    fn begin_generation(&mut self) -> Result<(), ChaosError> {
        let number = self.generations.len() as u16 + 1;
        self.generations.push(Generation::new(self.plan, number)?);
        if !self.plan.is_on_one_host() {
            let mut record = self.lab.switch_command(&self.plan.lab);
            record.args(["probe", "record"]).arg(self.recording(number)).stdin(Stdio::null()).stdout(Stdio::null());
            self.recorder = Some(Process::start(&mut record)?);
        }
        self.actors.clear();
        for seat in 0..self.seats.len() {
            let actor = self.begin(seat, 1)?;
            self.actors.push(actor);
        }
        Ok(())
    }

    fn recording(&self, number: u16) -> PathBuf {
        self.plan.folder.join(format!("recorded-{number}"))
    }

    fn name(&self, seat: usize) -> String {
        let (role, rank) = self.seats[seat];
        format!("{} {rank}", role.name())
    }

    fn host(&self, seat: usize) -> usize {
        if self.plan.is_on_one_host() { 0 } else { self.sides[seat] * self.seats.len() + seat }
    }

    /// Starts an incarnation of a seat's process.
    fn begin(&self, seat: usize, incarnation: u32) -> Result<Actor, ChaosError> {
        let (plan, (role, rank)) = (self.plan, self.seats[seat]);
        let Generation { number, folder } = self.generation();
        let suffix = if incarnation == 1 { String::new() } else { format!(".{incarnation}") };
        let mut command: Command = self.lab.host(self.host(seat)).command(&plan.lab);
        let file = |extension| folder.join(format!("{}-{rank}{suffix}.{extension}", role.name()));
        let path = file(if role == Role::Client { "acked" } else { "tsv" });
        if role == Role::Client {
            command.args(["client", "--acked"]).arg(&path);
        } else {
            command.args(["member", "--short-state", "--rate", "50", "--history"]).arg(&path);
            let level = clap::ValueEnum::to_possible_value(&plan.reliability);
            command.args(["--reliability", level.as_ref().map_or("uniform", |level| level.get_name())]);
        }
        if role != Role::Client {
            let mode = clap::ValueEnum::to_possible_value(&plan.mode);
            command.args(["--mode", mode.as_ref().map_or("inline", |mode| mode.get_name())]);
            let state = plan.folder.join("state").join(format!("{}-{rank}", role.name()));
            let profile = clap::ValueEnum::to_possible_value(&plan.profile);
            command.args(["--profile", profile.as_ref().map_or("default", |profile| profile.get_name())]);
            command.arg("--state-directory").arg(state);
        }
        if role == Role::Member && rank == 0 && incarnation == 1 {
            command.arg("--tokens").arg(plan.folder.join("tokens"));
        }
        if plan.talk && role != Role::Client {
            command.arg("--talk");
        }
        command.args(["--members", &plan.members.to_string(), "--transport", &plan.transport]);
        command.args(["--generation", &number.to_string()]);
        if plan.is_on_one_host() {
            command.args(["--interface", "lo", "--drop", &plan.loss.to_string()]);
        }
        if plan.has_mesh() {
            let address = |member| self.lab.host(self.host(member)).address();
            let peers: Vec<_> = (0..plan.members).map(|member| format!("{}:{PORT}", address(member))).collect();
            command.args(["--peers", &peers.join(",")]);
        }
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let process = Process::start(&mut command)?;
        Ok(Actor { process, incarnation, tail: Tail::new(path), mark: 0, is_hit: false, again: None })
    }

    // ---- looking --------------------------------------------------------------------------------------------------

    /// Reads the lines written since the last call, and starts the programs that have ended.
    pub(super) fn look(&mut self) -> Result<(), ChaosError> {
        if self.interrupt.came() {
            return Err(ChaosError::Interrupted);
        }
        for seat in 0..self.seats.len() {
            let folder = self.generation().folder.clone();
            let actor = &mut self.actors[seat];
            actor.tail.look().map_err(|source| ChaosError::Io { path: folder, source })?;
            match actor.again {
                Some(again) if again <= Instant::now() => {
                    let incarnation = actor.incarnation + 1;
                    self.end_old(seat)?;
                    self.actors[seat] = self.begin(seat, incarnation)?;
                }
                Some(_) => {}
                None => {
                    let Some(status) = actor.process.ended()? else { continue };
                    actor.again = Some(Instant::now() + START_AGAIN);
                    let is_hit = actor.is_hit;
                    if !status.success() && !is_killed(status) {
                        let (name, number) = (self.name(seat), self.generation().number);
                        self.broken.push(format!("generation {number}: {name} broke: {status}"));
                    } else if !is_hit && self.seats[seat].0 == Role::Member {
                        self.removed += 1;
                    }
                }
            }
        }
        Ok(())
    }

    pub(super) fn take_broken(&mut self) -> (Vec<String>, u64) {
        (std::mem::take(&mut self.broken), std::mem::take(&mut self.removed))
    }

    pub(super) fn mark(&mut self) {
        for actor in &mut self.actors {
            actor.mark = actor.tail.delivered;
        }
    }

    /// Whether all members have installed one view of all members, and every process has made progress since the mark.
    pub(super) fn is_whole(&self) -> bool {
        let members = &self.actors[..self.plan.members];
        let view = members[0].tail.view.as_ref().filter(|view| view.members.len() == members.len());
        let one_view = view.is_some() && members.iter().all(|actor| actor.tail.view.as_ref() == view);
        one_view && self.actors.iter().all(|actor| actor.again.is_none() && actor.tail.delivered > actor.mark)
    }

    /// The view and the progress of each process, for people.
    pub(super) fn state(&self) -> String {
        let states = self.actors.iter().enumerate().map(|(seat, actor)| {
            let view = actor.tail.view.as_ref().map(|view| format!("view {} {:?}", view.number, view.members));
            let progress = actor.tail.delivered - actor.mark;
            format!(
                "{}.{}: {} +{progress}",
                self.name(seat),
                actor.incarnation,
                view.unwrap_or_else(|| "no view".to_owned())
            )
        });
        states.collect::<Vec<_>>().join("; ")
    }

    /// Memory and descriptors of every process, by seat.
    pub(super) fn usage(&self) -> Vec<Usage> {
        let of = |(seat, actor): (usize, &Actor)| {
            let folder = PathBuf::from(format!("/proc/{}", actor.process.id()));
            let status = std::fs::read_to_string(folder.join("status")).unwrap_or_default(); // it may have ended
            let kib =
                status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.split_whitespace().next()?.parse().ok());
            let descriptors = std::fs::read_dir(folder.join("fd")).map_or(0, |entries| entries.count() as u64);
            Usage { name: self.name(seat), rss_bytes: kib.unwrap_or(0u64) * 1_024, descriptors }
        };
        self.actors.iter().enumerate().map(of).collect()
    }

    /// Sleeps, and continues to start programs that have ended.
    pub(super) fn sleep(&mut self, time: Duration) -> Result<(), ChaosError> {
        let until = Instant::now() + time;
        while Instant::now() < until {
            self.look()?;
            std::thread::sleep(LOOK_EVERY.min(until.saturating_duration_since(Instant::now())));
        }
        Ok(())
    }

    // ---- faults ---------------------------------------------------------------------------------------------------

    /// Injects a fault and ends it; returns a description.
    pub(super) fn make(&mut self, fault: Fault, draw: &mut Draw) -> Result<String, ChaosError> {
        let name = fault.name();
        match fault {
            Fault::Pause | Fault::LongPause => {
                let seat = draw.process();
                let time = draw.time(if fault == Fault::Pause { 10..500 } else { 500..1_000 });
                self.pause(&[seat], time)?;
                Ok(format!("{name} of {} for {} ms", self.name(seat), time.as_millis()))
            }
            Fault::FreezeAll => {
                let time = draw.time(50..1_000);
                self.pause(&(0..self.seats.len()).collect::<Vec<_>>(), time)?;
                Ok(format!("{name} for {} ms", time.as_millis()))
            }
            Fault::Kill => {
                let seat = draw.process();
                self.kill(seat)?;
                Ok(format!("{name} of {}", self.name(seat)))
            }
            Fault::KillDuringPause => {
                // This happens before any detector suspects the stopped member: once the others have gone on without
                // it, the death of the first of two ends the group, and that is correct.
                let ((paused, killed), before, after) = (draw.pair(), draw.time(1..30), draw.time(100..700));
                self.stop(paused)?;
                self.sleep(before)?;
                self.kill(killed)?;
                self.sleep(after)?;
                self.resume(paused)?;
                Ok(format!("{name}: member {killed}, and member {paused} was stopped"))
            }
            Fault::Cut => {
                let (seat, time) = (draw.member(), draw.time(100..1_500));
                self.actors[seat].is_hit = true;
                self.lab.cut(self.host(seat))?;
                self.sleep(time)?;
                self.lab.restore(self.host(seat))?;
                Ok(format!("{name} of member {seat} for {} ms", time.as_millis()))
            }
            Fault::CutOneWay => {
                let ((from, to), time) = (draw.pair(), draw.time(100..1_500));
                (self.actors[from].is_hit, self.actors[to].is_hit) = (true, true);
                self.lab.cut_one_way(self.host(from), self.host(to))?;
                self.sleep(time)?;
                self.lab.restore_one_way(self.host(from), self.host(to))?;
                Ok(format!("{name} from member {from} to member {to} for {} ms", time.as_millis()))
            }
            Fault::Suspend => {
                let (seat, time) = (draw.process(), draw.time(2_000..8_000));
                self.pause(&[seat], time)?;
                Ok(format!("{name} of {} for {} ms", self.name(seat), time.as_millis()))
            }
            Fault::Readdress | Fault::InterfaceDown | Fault::InterfaceAgain => {
                let (seat, time) = (draw.process(), draw.time(0..2_000));
                self.change_host(fault, seat, time)?;
                Ok(format!("{name} of {} within {} ms", self.name(seat), time.as_millis()))
            }
            Fault::RestartKilled | Fault::RestartFrozen => {
                self.restart_all(draw, fault == Fault::RestartFrozen)?;
                Ok(name)
            }
            Fault::Replay => {
                self.replay()?;
                Ok(name)
            }
        }
    }

    /// Changes the host of a seat's process: what it had is gone for this time.
    fn change_host(&mut self, fault: Fault, seat: usize, time: Duration) -> Result<(), ChaosError> {
        self.actors[seat].is_hit = true;
        let host = self.host(seat);
        match fault {
            Fault::Readdress => {
                self.lab.take_address(host)?;
                self.sleep(time)?;
                self.lab.give_address(host, !self.plan.has_mesh())?;
            }
            Fault::InterfaceDown => {
                self.lab.bring_down(host)?;
                self.sleep(time)?;
                self.lab.bring_up(host)?;
            }
            _ => {
                self.lab.remove_interface(host)?;
                self.sleep(time)?;
                self.lab.make_interface(host)?;
            }
        }
        Ok(())
    }

    fn stop(&mut self, seat: usize) -> Result<(), ChaosError> {
        self.actors[seat].is_hit = true;
        if_it_runs(self.actors[seat].process.stop())
    }

    fn resume(&mut self, seat: usize) -> Result<(), ChaosError> {
        if_it_runs(self.actors[seat].process.resume())
    }

    fn pause(&mut self, seats: &[usize], time: Duration) -> Result<(), ChaosError> {
        seats.iter().try_for_each(|seat| self.stop(*seat))?;
        self.sleep(time)?;
        seats.iter().try_for_each(|seat| self.resume(*seat))
    }

    fn kill(&mut self, seat: usize) -> Result<(), ChaosError> {
        let (role, rank) = self.seats[seat];
        self.actors[seat].is_hit = true;
        self.end_old(seat)?;
        if_it_runs(self.actors[seat].process.kill())?;
        note_killed(&self.generation().folder, &format!("{}:{rank}", role.name()))
    }

    /// Ends the old processes of a member's seat: of two processes of one rank outside the view, the first that joins
    /// gets the rank.
    fn end_old(&mut self, seat: usize) -> Result<(), ChaosError> {
        let (role, rank) = self.seats[seat];
        let name = format!("{}:{rank}", role.name());
        for old in self.old.iter_mut().filter(|old| role == Role::Member && old.name == name) {
            if_it_runs(old.process.kill())?;
            note_killed(&old.folder, &old.name)?;
        }
        Ok(())
    }

    /// Ends the current generation and begins the next; the frozen processes of the current one are resumed during the
    /// next.
    pub(super) fn restart_all(&mut self, draw: &mut Draw, frozen: bool) -> Result<(), ChaosError> {
        for mut old in std::mem::take(&mut self.old) {
            if_it_runs(old.process.kill())?;
            note_killed(&old.folder, &old.name)?;
        }
        self.recorder = None; // it is killed
        let freezes: Vec<bool> = (0..self.seats.len()).map(|_| frozen && draw.freezes()).collect();
        for (seat, freezes) in freezes.iter().enumerate() {
            if *freezes { self.stop(seat)? } else { self.kill(seat)? }
        }
        let folder = self.generation().folder.clone();
        for (seat, mut actor) in std::mem::take(&mut self.actors).into_iter().enumerate() {
            if !freezes[seat] {
                continue;
            }
            let (role, rank) = self.seats[seat];
            if role == Role::Client {
                let acked = actor.tail.look().map(|()| actor.tail.delivered);
                let acked = acked.map_err(|source| ChaosError::Io { path: folder.clone(), source })?;
                note(&folder.join(FROZEN), &format!("{rank}.{} {acked}", actor.incarnation))?;
            }
            let name = format!("{}:{rank}", role.name());
            self.old.push(Old { process: actor.process, name, folder: folder.clone() });
            self.sides[seat] = 1 - self.sides[seat];
        }
        self.begin_generation()?;
        if !frozen {
            return Ok(());
        }
        // If a majority resumes before the new group has formed, it is still the group, and that is correct.
        let until = Instant::now() + super::WHOLE_WITHIN;
        self.mark();
        while !self.is_whole() && Instant::now() < until {
            self.sleep(LOOK_EVERY)?;
        }
        self.sleep(draw.time(0..2_000))?;
        for index in 0..self.old.len() {
            if_it_runs(self.old[index].process.resume())?;
            self.sleep(draw.time(0..100))?;
        }
        self.replay()?;
        self.sleep(draw.time(200..1_000))
    }

    /// Replays the recording of the previous generation; does nothing in the first one, nor without a network.
    fn replay(&mut self) -> Result<(), ChaosError> {
        if self.plan.is_on_one_host() {
            return Ok(());
        }
        let Some(before) = self.generation().number.checked_sub(1).filter(|number| *number > 0) else { return Ok(()) };
        let mut command = self.lab.host(2 * self.seats.len()).command(&self.plan.lab);
        command.args(["probe", "replay"]).arg(self.recording(before)).stdin(Stdio::null()).stdout(Stdio::null());
        let mut replayer = Process::start(&mut command)?;
        let until = Instant::now() + REPLAY_WITHIN;
        while replayer.ended()?.is_none() && Instant::now() < until {
            self.sleep(LOOK_EVERY)?;
        }
        Ok(())
    }

    /// Ends all processes.
    pub(super) fn end(&mut self) -> Result<(), ChaosError> {
        for mut old in std::mem::take(&mut self.old) {
            if_it_runs(old.process.kill())?;
            note_killed(&old.folder, &old.name)?;
        }
        for actor in &mut self.actors {
            if_it_runs(actor.process.terminate())?;
        }
        let until = Instant::now() + super::WHOLE_WITHIN;
        for seat in 0..self.actors.len() {
            while self.actors[seat].process.ended()?.is_none() {
                if Instant::now() > until {
                    let name = self.name(seat);
                    self.broken.push(format!("{name} did not end on SIGTERM"));
                    break;
                }
                if self.interrupt.came() {
                    return Err(ChaosError::Interrupted);
                }
                std::thread::sleep(LOOK_EVERY);
            }
        }
        Ok(())
    }
}

fn is_killed(status: std::process::ExitStatus) -> bool {
    use std::os::unix::process::ExitStatusExt;
    status.signal() == Some(rustix::process::Signal::KILL.as_raw())
}

/// A process that has ended by itself can't be signalled, and need not be.
fn if_it_runs(outcome: Result<(), ProcessError>) -> Result<(), ChaosError> {
    match outcome {
        Err(ProcessError::Ended(_)) => Ok(()),
        other => Ok(other?),
    }
}

fn note_killed(folder: &Path, name: &str) -> Result<(), ChaosError> {
    note(&folder.join("killed"), name)
}

pub(super) fn note(path: &Path, line: &str) -> Result<(), ChaosError> {
    let noted = OpenOptions::new().create(true).append(true).open(path).and_then(|mut file| writeln!(file, "{line}"));
    noted.map_err(|source| ChaosError::Io { path: path.to_owned(), source })
}
