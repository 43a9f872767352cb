//! The group whose failures are measured: starts its members, injects faults, and records when the survivors had a view
//! without the victim.
//!
//! All processes share one host's monotonic clock, so the time of a fault, read just before it is injected, and the
//! times at which survivors installed a view can be subtracted. A sample begins with a whole group; after it the victim
//! is restarted, resumed or reconnected, as it would be in use.
//!
//! Invariants: every wait is for a member's report, or ends after [`PATIENCE`]; every process is reaped.

use super::member::{Figures, Installed, MemberReport, Order, Task};
use crate::Failure;
use crate::hosts::Hosts;
use crate::script::{Word, broken, now_ns, send, start};
use rustix::process::{Pid, Signal, kill_process};
use std::collections::BTreeMap;
use std::process::{Child, Command};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

/// How many members: the fewest that can lose one and go on.
pub(super) const MEMBERS: u16 = 3;
/// The longest time of any wait: longer than the slowest rejoining.
const PATIENCE: Duration = Duration::from_secs(30);
const WHOLE: u64 = (1 << MEMBERS) - 1;

/// The kinds of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum InjectedFault {
    Kill,
    Stop,
    Cut,
    /// The given member receives nothing from it.
    CutOneWay(u16),
}

/// The outcome of one fault.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sample {
    /// The time until all remaining members had installed a view without the victim.
    pub(super) fault_to_view_ns: u64,
    /// The time until a member first suspected the victim.
    pub(super) fault_to_suspicion_ns: Option<u64>,
    /// The same in all channels, if there are any.
    pub(super) fault_to_channel_views_ns: Option<u64>,
    /// From the first of these views, of group and channels, to the last at one survivor: the longest.
    pub(super) views_apart_ns: Option<u64>,
    /// The longest gap between two deliveries at a survivor.
    pub(super) outage_ns: u64,
    /// Members that were evicted without a fault.
    pub(super) false_evictions: u64,
}

struct Member {
    child: Child,
    /// Which process of this rank: later reports of earlier processes are ignored.
    incarnation: u32,
    view: Option<Installed>,
    /// By channel: the members of the last view, and when it came.
    channels: Vec<Option<(u64, u64)>>,
    marked: bool,
    outage: Option<(u64, u64)>,
    figures: Option<Figures>,
}

impl Drop for Member {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A running group.
pub(super) struct Group {
    // This field comes before the hosts, so that processes end before their hosts do.
    members: Vec<Member>,
    hosts: Option<Hosts>,
    task: Task,
    sender: Sender<Word<MemberReport>>,
    reports: Receiver<Word<MemberReport>>,
    /// By epoch: its members.
    views: BTreeMap<u64, u64>,
    /// Which member suspected which, and when, since the last mark.
    suspected: Vec<(u16, u64)>,
}

impl Group {
    /// Starts all members, on separate hosts if there are any, and waits until the group is whole.
    pub(super) fn start(hosts: Option<Hosts>, task: Task) -> Result<Self, Failure> {
        let (sender, reports) = channel();
        let (views, suspected) = (BTreeMap::new(), Vec::new());
        let mut group = Self { members: Vec::new(), hosts, task, sender, reports, views, suspected };
        for rank in 0..MEMBERS {
            let member = group.begin(rank, 1)?;
            group.members.push(member);
        }
        group.until_whole()?;
        Ok(group)
    }

    /// Ends the group; the hosts can be used again.
    pub(super) fn end(mut self) -> Option<Hosts> {
        self.members.clear();
        self.hosts.take()
    }

    fn begin(&self, rank: u16, incarnation: u32) -> Result<Member, Failure> {
        let unusable = |error: std::io::Error| Failure::Unusable(format!("can't start a member: {error}"));
        let program = std::env::current_exe().map_err(unusable)?;
        let mut command = match &self.hosts {
            None => Command::new(program),
            Some(hosts) => {
                let mut command = hosts.enter(rank);
                command.arg(program);
                command
            }
        };
        let mut task = self.task.clone();
        task.settings.process.rank = rank;
        let child = start(command.arg("detect-member"), (rank, incarnation), self.sender.clone())?;
        let channels = vec![None; task.settings.channels.len()];
        let mut member =
            Member { child, incarnation, view: None, channels, marked: false, outage: None, figures: None };
        send(&mut member.child, &task)?;
        Ok(member)
    }

    // ---- listening ------------------------------------------------------------------------------------------------

    fn hear(&mut self, rank: u16, incarnation: u32, report: Option<MemberReport>) -> Result<(), Failure> {
        let member = &mut self.members[usize::from(rank)];
        if member.incarnation != incarnation {
            return Ok(());
        }
        match report {
            None => return Err(Failure::Broken(format!("member {rank} ended by itself"))),
            Some(MemberReport::Unusable(why)) => return Err(Failure::Unusable(why)),
            Some(MemberReport::Broken(why)) => return Err(Failure::Broken(why)),
            Some(MemberReport::View(view)) => {
                member.view = Some(view);
                self.views.insert(view.epoch, view.members);
            }
            Some(MemberReport::ChannelView { channel, members, at_ns }) => {
                member.channels[channel] = Some((members, at_ns));
            }
            Some(MemberReport::Suspected { rank, at_ns }) => self.suspected.push((rank, at_ns)),
            Some(MemberReport::Marked) => member.marked = true,
            Some(MemberReport::Outage { epoch, longest_ns }) => member.outage = Some((epoch, longest_ns)),
            Some(MemberReport::Figures(figures)) => member.figures = Some(figures),
        }
        Ok(())
    }

    /// Waits until the awaited report has come.
    fn until<T>(&mut self, what: &str, found: impl Fn(&Self) -> Option<T>) -> Result<T, Failure> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(found) = found(self) {
                return Ok(found);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            let Ok((rank, incarnation, report)) = self.reports.recv_timeout(left) else {
                let seen: Vec<_> = self.members.iter().map(|member| member.view).collect();
                return Err(broken(format!("{what} did not come within {PATIENCE:?}: {seen:?}")));
            };
            self.hear(rank, incarnation, report)?;
        }
    }

    /// Receives reports for a while.
    pub(super) fn listen_for(&mut self, while_: Duration) -> Result<(), Failure> {
        let deadline = Instant::now() + while_;
        while let Ok((rank, incarnation, report)) =
            self.reports.recv_timeout(deadline.saturating_duration_since(Instant::now()))
        {
            self.hear(rank, incarnation, report)?;
        }
        Ok(())
    }

    fn until_whole(&mut self) -> Result<Installed, Failure> {
        self.until("a view of all", |group| {
            let first = group.members[0].view?;
            let same = |member: &Member| member.view.is_some_and(|view| view.epoch == first.epoch);
            let whole = |member: &Member| member.channels.iter().all(|view| view.is_some_and(|(all, _)| all == WHOLE));
            let is_whole = first.members == WHOLE && group.members.iter().all(|member| same(member) && whole(member));
            is_whole.then_some(first)
        })
    }

    /// The sums of all members' counters.
    pub(super) fn figures(&mut self) -> Result<Figures, Failure> {
        for member in &mut self.members {
            member.figures = None;
            send(&mut member.child, &Order::Tell)?;
        }
        let all = self.until("all members' figures", |group| {
            group.members.iter().map(|member| member.figures).collect::<Option<Vec<_>>>()
        })?;
        let add = |one: [u64; 3], other: [u64; 3]| [0, 1, 2].map(|k| one[k] + other[k]);
        Ok(all.into_iter().fold(Figures::default(), |sum, figures| Figures {
            delivered: sum.delivered + figures.delivered,
            gaps: sum.gaps + figures.gaps,
            reached: add(sum.reached, figures.reached),
            reached_unfloored: add(sum.reached_unfloored, figures.reached_unfloored),
            suspicions: [0, 1, 2, 3].map(|k| sum.suspicions[k] + figures.suspicions[k]),
            control_sent: [0, 1].map(|k| sum.control_sent[k] + figures.control_sent[k]),
        }))
    }

    /// How many members views have excluded, and how many views there were.
    pub(super) fn left_out(&self) -> (u64, u64) {
        let views = self.views.values();
        let pairs = views.clone().zip(views.clone().skip(1));
        let left_out = pairs.map(|(before, after)| u64::from((before & !after).count_ones())).sum();
        (left_out, self.views.len() as u64)
    }

    // ---- faults ---------------------------------------------------------------------------------------------------

    /// The next victim: a member that is not the sequencer, or the sequencer.
    pub(super) fn victim(&self, sequencer: bool) -> u16 {
        let view = self.members[0].view.expect("the group is whole");
        if sequencer { view.sequencer } else { (view.sequencer + 1) % MEMBERS }
    }

    /// Injects a fault into a member of a whole group, and waits until the group is whole again.
    pub(super) fn sample(&mut self, fault: InjectedFault, victim: u16) -> Result<Sample, Failure> {
        self.mark()?;
        let (left_out, _) = self.left_out();
        let before = self.until_whole()?;
        let victims = 1 << victim | if let InjectedFault::CutOneWay(to) = fault { 1 << to } else { 0 };
        let at_ns = now_ns();
        self.make(fault, victim)?;
        let view = self.until("a view without the victim", |group| {
            let candidates = group.members.iter().filter_map(|member| member.view);
            let mut without = candidates.filter(|view| view.epoch > before.epoch && view.members & victims != victims);
            without.find(|view| group.installed_by_its_members(view))
        })?;
        let survivors = || (0..MEMBERS).filter(|rank| view.members >> rank & 1 == 1).map(usize::from);
        let installed_ns = survivors().filter_map(|rank| self.members[rank].view.map(|view| view.at_ns)).max();
        let (fault_to_channel_views_ns, views_apart_ns) = self.channel_views(&view, at_ns)?;
        let suspects = self.suspected.iter().filter(|(rank, at)| victims >> rank & 1 == 1 && *at >= at_ns);
        let suspected_ns = suspects.map(|(_, at)| *at).min();
        let outage_ns = self.until("a delivery in the new view", |group| {
            let outage = |rank: usize| group.members[rank].outage.filter(|(epoch, _)| *epoch >= view.epoch);
            let all: Option<Vec<_>> = survivors().map(outage).collect();
            all.and_then(|all| all.into_iter().map(|(_, longest_ns)| longest_ns).max())
        })?;
        self.end_of(fault, victim)?;
        self.until_whole()?;
        let (left_out_since, _) = self.left_out();
        Ok(Sample {
            fault_to_view_ns: installed_ns.unwrap_or(at_ns).saturating_sub(at_ns),
            fault_to_suspicion_ns: suspected_ns.map(|suspected_ns| suspected_ns.saturating_sub(at_ns)),
            fault_to_channel_views_ns,
            views_apart_ns,
            outage_ns,
            false_evictions: (left_out_since - left_out).saturating_sub(1),
        })
    }

    /// Waits until the survivors have views of themselves in all channels. Returns when the last of them came, after
    /// the fault, and how far apart the views of group and channels were at one survivor.
    fn channel_views(&mut self, view: &Installed, at_ns: u64) -> Result<(Option<u64>, Option<u64>), Failure> {
        let came = self.until("the same view in all channels", |group| {
            let survivors = group.members.iter().enumerate().filter(|(rank, _)| view.members >> rank & 1 == 1);
            let views = survivors.map(|(_, member)| {
                let group = member.view.map(|view| view.at_ns);
                let came = |channel: &Option<(u64, u64)>| channel.filter(|(members, _)| *members == view.members);
                let channels = member.channels.iter().map(|channel| came(channel).map(|(_, at_ns)| at_ns));
                [group].into_iter().chain(channels).collect::<Option<Vec<u64>>>()
            });
            views.collect::<Option<Vec<_>>>()
        })?;
        let last_ns = came.iter().flat_map(|views| &views[1..]).max();
        let apart = |views: &Vec<u64>| Some(views.iter().max()? - views.iter().min()?);
        let apart_ns = came.iter().filter_map(apart).max();
        Ok((last_ns.map(|last_ns| last_ns.saturating_sub(at_ns)), last_ns.and(apart_ns)))
    }

    fn installed_by_its_members(&self, view: &Installed) -> bool {
        let members = self.members.iter().enumerate().filter(|(rank, _)| view.members >> rank & 1 == 1);
        let mut installed = members.map(|(_, member)| member.view.is_some_and(|shown| shown.epoch == view.epoch));
        installed.all(|installed| installed)
    }

    fn mark(&mut self) -> Result<(), Failure> {
        self.suspected.clear();
        for member in &mut self.members {
            (member.marked, member.outage) = (false, None);
            send(&mut member.child, &Order::Mark)?;
        }
        self.until("all members' marks", |group| group.members.iter().all(|member| member.marked).then_some(()))
    }

    fn signal(&self, rank: u16, signal: Signal) -> Result<(), Failure> {
        // Not reaped, so the id is still its own.
        kill_process(Pid::from_child(&self.members[usize::from(rank)].child), signal).map_err(broken)
    }

    fn hosts(&mut self) -> &mut Hosts {
        self.hosts.as_mut().expect("cables are pulled only where there are hosts")
    }

    fn make(&mut self, fault: InjectedFault, victim: u16) -> Result<(), Failure> {
        match fault {
            InjectedFault::Kill => {
                self.members[usize::from(victim)].incarnation += 1; // its end is no surprise
                self.signal(victim, Signal::KILL)
            }
            InjectedFault::Stop => self.signal(victim, Signal::STOP),
            InjectedFault::Cut => self.hosts().cut(victim, None),
            InjectedFault::CutOneWay(to) => self.hosts().cut(victim, Some(to)),
        }
    }

    fn end_of(&mut self, fault: InjectedFault, victim: u16) -> Result<(), Failure> {
        match fault {
            InjectedFault::Kill => {
                let incarnation = self.members[usize::from(victim)].incarnation + 1;
                self.members[usize::from(victim)] = self.begin(victim, incarnation)?;
                Ok(())
            }
            InjectedFault::Stop => self.signal(victim, Signal::CONT),
            InjectedFault::Cut => self.hosts().restore(victim, None),
            InjectedFault::CutOneWay(to) => self.hosts().restore(victim, Some(to)),
        }
    }
}
