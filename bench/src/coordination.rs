//! The group whose locks and elections are measured: members in separate processes, on `lo`.
//!
//! Its members are like those of a service: each joins the group, inline or with threads of its own, and acts for
//! itself. They record times by the monotonic clock that all processes of a host share, so the harness can compare
//! their entries, and subtract the time of a kill from the time at which the survivors learned of the next leader.
//!
//! Invariants: every wait is for a member's report, or ends after [`PATIENCE`]; every process is reaped.

mod member;
mod threaded;

pub(crate) use member::{Leader, MemberReport, Order, Task};

use crate::script::{self, Word, broken, now_ns, report, send, start};
use crate::settings::Mode;
use crate::{Failure, Idle};
use bourdon::settings::{ElectionKind, MutexKind, Settings as NodeSettings};
use std::process::{Child, Command};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

/// The longest time of any wait: longer than the slowest rejoining.
const PATIENCE: Duration = Duration::from_secs(30);

/// Plays a member until stdin ends.
pub(crate) fn member() -> Result<(), Failure> {
    let task: Task = script::task()?;
    let orders = script::listen();
    match if task.threaded { threaded::play(&task, &orders) } else { member::play(task, &orders) } {
        Ok(()) => {}
        Err(Failure::Unusable(why)) => report(&MemberReport::Unusable(why)),
        Err(Failure::Broken(why)) => report(&MemberReport::Broken(why)),
    }
    Ok(())
}

struct Member {
    child: Child,
    /// Which process of this rank: later reports of earlier processes are ignored.
    incarnation: u32,
    view: Option<(u64, u64)>,
    leader: Option<Leader>,
}

impl Drop for Member {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A running group.
pub(crate) struct Group {
    members: Vec<Member>,
    settings: NodeSettings,
    threaded: bool,
    sender: Sender<Word<MemberReport>>,
    reports: Receiver<Word<MemberReport>>,
}

/// The configuration of a group.
pub(crate) fn settings(members: u16, mutex: MutexKind, election: ElectionKind, idle: Idle) -> NodeSettings {
    let id = std::process::id().wrapping_mul(0x9E37_79B9);
    let mut node = NodeSettings::default();
    node.group.name = format!("coordination-{id}-{}", now_ns());
    node.group.address = ([239, 254, (id >> 24) as u8, 4], 20_000 + (id >> 8) as u16 % 12_000).into();
    node.group.members = members;
    (node.group.mutex, node.group.election) = (Some(mutex), election);
    node.threads.idle = idle.into();
    node
}

impl Group {
    /// Starts all members and waits until they are in one view.
    pub(crate) fn start(settings: NodeSettings, mode: Mode) -> Result<Self, Failure> {
        let (sender, reports) = channel();
        let threaded = mode == Mode::Threaded;
        let mut group = Self { members: Vec::new(), settings, threaded, sender, reports };
        for rank in 0..group.settings.group.members {
            let member = group.begin(rank, 1)?;
            group.members.push(member);
        }
        group.until_whole()?;
        Ok(group)
    }

    fn begin(&self, rank: u16, incarnation: u32) -> Result<Member, Failure> {
        let mut task = Task { settings: self.settings.clone(), threaded: self.threaded };
        task.settings.process.rank = rank;
        let program = std::env::current_exe().map_err(broken)?;
        let child = start(Command::new(program).arg("coordination-member"), (rank, incarnation), self.sender.clone())?;
        let mut member = Member { child, incarnation, view: None, leader: None };
        send(&mut member.child, &task)?;
        Ok(member)
    }

    /// Waits until the awaited report has come; `take` sees all reports meanwhile.
    fn until<T>(
        &mut self,
        what: &str,
        mut take: impl FnMut(u16, &MemberReport),
        found: impl Fn(&[Member]) -> Option<T>,
    ) -> Result<T, Failure> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(found) = found(&self.members) {
                return Ok(found);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            let Ok((rank, incarnation, report)) = self.reports.recv_timeout(left) else {
                return Err(broken(format!("{what} did not come within {PATIENCE:?}")));
            };
            let member = &mut self.members[usize::from(rank)];
            match report {
                _ if member.incarnation != incarnation => {}
                None => return Err(broken(format!("member {rank} ended by itself"))),
                Some(MemberReport::Unusable(why)) => return Err(Failure::Unusable(why)),
                Some(MemberReport::Broken(why)) => return Err(Failure::Broken(why)),
                Some(report) => {
                    match &report {
                        MemberReport::View { epoch, members } => member.view = Some((*epoch, *members)),
                        MemberReport::Leader(leader) => member.leader = *leader,
                        _ => {}
                    }
                    take(rank, &report);
                }
            }
        }
    }

    fn until_whole(&mut self) -> Result<(), Failure> {
        let whole = (1u64 << self.members.len()) - 1;
        self.until(
            "a view of all",
            |_, _| {},
            |members| {
                let first = members[0].view.filter(|(_, members)| *members == whole)?;
                members.iter().all(|member| member.view == Some(first)).then_some(())
            },
        )
    }

    /// Sends every member its own command and waits until each has sent the answer.
    pub(crate) fn play<T>(
        &mut self,
        order: impl Fn(u16) -> Order,
        answer: impl Fn(&MemberReport) -> Option<T>,
    ) -> Result<Vec<T>, Failure> {
        for (rank, member) in self.members.iter_mut().enumerate() {
            send(&mut member.child, &order(rank as u16))?;
        }
        let mut answers: Vec<Option<T>> = self.members.iter().map(|_| None).collect();
        let all = std::cell::Cell::new(0);
        let count = self.members.len();
        let take = |rank: u16, report: &MemberReport| {
            if let Some(answer) = answer(report) {
                all.set(all.get() + usize::from(answers[usize::from(rank)].is_none()));
                answers[usize::from(rank)] = Some(answer);
            }
        };
        self.until("all members' answers", take, |_| (all.get() == count).then_some(()))?;
        Ok(answers.into_iter().flatten().collect())
    }

    /// Waits until all know one leader, later than `before`, which is one of these. Returns the leader, and when the
    /// last member knew it.
    pub(crate) fn until_led(&mut self, before: Option<Leader>, among: &[u16]) -> Result<(Leader, u64), Failure> {
        self.until(
            "a leader that all know",
            |_, _| {},
            |members| {
                let known = || among.iter().map(|rank| members[usize::from(*rank)].leader);
                let first = known().next()??;
                let later = before.is_none_or(|before| first.token() > before.token());
                let same = known().all(|leader| leader.is_some_and(|leader| leader.token() == first.token()));
                let last = known().flatten().map(|leader| leader.at_ns).max()?;
                (later && same && among.contains(&first.rank)).then_some((first, last))
            },
        )
    }

    /// Kills a member; returns when.
    pub(crate) fn kill(&mut self, rank: u16) -> Result<u64, Failure> {
        let member = &mut self.members[usize::from(rank)];
        member.incarnation += 1; // its end is no surprise
        let at_ns = now_ns();
        member.child.kill().map_err(broken)?;
        Ok(at_ns)
    }

    /// Starts a killed member again and waits until the group is whole.
    pub(crate) fn restart(&mut self, rank: u16) -> Result<(), Failure> {
        let incarnation = self.members[usize::from(rank)].incarnation + 1;
        self.members[usize::from(rank)] = self.begin(rank, incarnation)?;
        self.until_whole()
    }

    /// Sends a command to one member.
    pub(crate) fn send(&mut self, rank: u16, order: Order) -> Result<(), Failure> {
        send(&mut self.members[usize::from(rank)].child, &order)
    }

    /// Requests the counters of some members and sums them up.
    pub(crate) fn messages(&mut self, among: &[u16]) -> Result<Option<u64>, Failure> {
        for rank in among {
            self.send(*rank, Order::Count)?;
        }
        let (sum, count) = (std::cell::Cell::new(Some(0)), std::cell::Cell::new(0));
        let take = |_, report: &MemberReport| {
            if let MemberReport::Counted { election_messages } = report {
                sum.set(sum.get().zip(*election_messages).map(|(sum, messages)| sum + messages));
                count.set(count.get() + 1);
            }
        };
        self.until("all members' figures", take, |_| (count.get() == among.len()).then_some(()))?;
        Ok(sum.get())
    }
}
