//! The events of the plan for processes: crashes and new incarnations, cuts, pauses, clocks.

use super::{Phase, What, World};
use crate::disk::Surviving;
use crate::plan::{EventPlan, Happening, later_address};
use crate::violation::Verdict;
use bourdon_protocol::control::detector::Judgement;
use bourdon_protocol::{Member, Mutant};
use bourdon_wire::{Address, Incarnation, Rank};

impl World<'_> {
    pub(super) fn happen(&mut self, event: EventPlan) -> Verdict {
        if self.is_down {
            return Ok(()); // no process of the group is running
        }
        let index = usize::from(event.process);
        let until_ns = self.now_ns + event.for_ns;
        match event.what {
            Happening::Crash => self.crash(index),
            Happening::Restart => return self.restart(index),
            Happening::Damage => self.damage(index),
            Happening::Leave => self.leave(index),
            Happening::Sync => {
                self.nodes[index].syncs.push_back(event.other != 0);
                self.wake(index, self.now_ns);
            }
            Happening::HandOver => {
                let now = self.nodes[index].clock.read(self.now_ns);
                if let Some(process) = &mut self.nodes[index].process {
                    process.hand_over(now, Rank(event.other as u16));
                    self.network.faults.hand_over += 1;
                    self.wake(index, self.now_ns);
                }
            }
            Happening::Pause => self.pause(index, event.for_ns),
            Happening::Cut => {
                self.network.cut(event.other as usize % self.nodes.len(), index, until_ns);
                self.network.faults.cut += 1;
            }
            Happening::Narrow => {
                self.network.narrow(index, event.other as usize, until_ns);
                self.network.faults.narrow += 1;
            }
            Happening::Move => self.move_to(index, later_address(event.other, index)),
            Happening::NarrowTo => {
                let others = (0..self.nodes.len()).filter(|from| *from != index && event.other >> 16 & 1 << from != 0);
                others.for_each(|from| self.network.narrow_to(from, index, event.other as usize & 0xFFFF, until_ns));
                self.network.faults.narrow += 1;
                self.begin_narrow(index, until_ns);
            }
            Happening::Judge => {
                let (bit, lasts) = (1 << event.other, event.for_ns > 0);
                self.judge(index, |watched, suspects| {
                    (watched | bit, if lasts { suspects | bit } else { suspects & !bit })
                });
                if lasts {
                    self.push(until_ns, What::Later(EventPlan { for_ns: 0, ..event }));
                }
            }
            Happening::Unwatch => {
                self.judge(index, |watched, suspects| (watched & !(1 << event.other), suspects & !(1 << event.other)))
            }
            Happening::Recover => self.push(self.now_ns, What::Recover(event)),
            Happening::Partition => self.part(event.other, until_ns),
            Happening::ClockJump => {
                self.nodes[index].clock.jump(self.now_ns, event.for_ns);
                self.network.faults.clock_jump += 1;
                self.wake(index, self.now_ns);
                self.wake_control(index, self.now_ns);
            }
        }
        Ok(())
    }

    pub(super) fn crash(&mut self, index: usize) {
        let Some(process) = self.nodes[index].crash() else { return };
        if Self::stores(self.plan, index) {
            let Self { nodes, rng, crash_point, .. } = self;
            let part = crash_point.map(|point| Surviving::Part(point.part));
            nodes[index].disk.crash(part.unwrap_or(Surviving::Drawn(rng)));
        }
        self.checkers.crashed(index);
        self.life_ends(&process);
        self.network.faults.crash += 1;
        if self.mutant == Some(Mutant::Amnesia) && !self.is_down {
            self.revive(index, &process);
        } else if let Some(rank) = process.config().rank().filter(|_| !self.is_down) {
            let others = (0..usize::from(self.plan.members)).filter(|other| *other != index);
            others.for_each(|other| self.evidence(other, rank, process.incarnation()));
        }
    }

    /// An incarnation ends: by a crash, or because it wants to leave.
    fn life_ends(&mut self, process: &bourdon_protocol::Process) {
        if let Some(rank) = process.config().rank() {
            self.checkers.views.crashed(Member { rank, incarnation: process.incarnation() });
        }
    }

    /// A process is out of the group and ends. That is no fault, and what it owed the group must not be lost with it.
    pub(super) fn end_process(&mut self, index: usize) {
        let is_back = !self.nodes[index].left;
        if self.nodes[index].crash().is_some() {
            self.checkers.crashed(index);
            if is_back {
                self.restart_in_a_while(index);
            }
        }
    }

    fn restart_in_a_while(&mut self, index: usize) {
        let event = EventPlan { at_ns: 0, what: Happening::Restart, process: index as u16, other: 0, for_ns: 0 };
        self.push(self.now_ns + 1_000_000, What::Later(event));
    }

    /// For the mutation check: the process starts as the same incarnation, without what it had promised, acknowledged
    /// and held.
    fn revive(&mut self, index: usize, process: &bourdon_protocol::Process) {
        let mut config = process.config().clone();
        config.view = Some(process.view().clone()).filter(|view| !view.members.is_empty());
        let now = self.nodes[index].clock.read(self.now_ns);
        let process = bourdon_protocol::Process::new(now, config).expect("it was valid before");
        self.live(index, process);
    }

    fn restart(&mut self, index: usize) -> Verdict {
        if let Some(process) = &self.nodes[index].process {
            if !self.nodes[index].left || process.standing() != bourdon_protocol::Standing::Gone {
                return Ok(()); // it has not left
            }
            if process.is_parting() {
                // A process that ends before it reports that it is out has crashed, perhaps with the decision.
                if self.phase == Phase::Faulty {
                    self.restart_in_a_while(index);
                }
                return Ok(());
            }
            self.nodes[index].crash();
            self.checkers.crashed(index);
        }
        self.network.faults.restart += 1;
        if Self::stores(self.plan, index) {
            return self.restore(index);
        }
        self.begin(index);
        Ok(())
    }

    /// The host of a process gets another address, whether the process runs or not.
    fn move_to(&mut self, index: usize, address: Address) {
        self.ends[index] = address;
        self.network.faults.moves += 1;
        let node = &mut self.nodes[index];
        let now = node.clock.read(self.now_ns);
        if let Some(process) = &mut node.process {
            process.move_to(now, address, process.config().link_port);
            self.wake(index, self.now_ns);
        }
    }

    fn leave(&mut self, index: usize) {
        let node = &mut self.nodes[index];
        let now = node.clock.read(self.now_ns);
        let Some(process) = node.process.as_mut().filter(|_| !node.left) else { return };
        process.leave(now);
        node.left = true;
        if let Some(rank) = process.config().rank() {
            let incarnation = process.incarnation();
            self.checkers.views.left(Member { rank, incarnation });
        }
        self.network.faults.leave += 1;
        self.wake(index, self.now_ns);
    }

    pub(super) fn pause(&mut self, index: usize, pause_ns: u64) {
        self.pause_process(index, pause_ns);
        self.pause_control(index, pause_ns);
    }

    /// The process stops; its control thread, if it has one, does not.
    pub(super) fn pause_process(&mut self, index: usize, pause_ns: u64) {
        let node = &mut self.nodes[index];
        node.paused_until_ns = node.paused_until_ns.max(self.now_ns + pause_ns);
        self.network.faults.pause += 1;
        // Others may send it requests in vain meanwhile, at least every retry.
        self.idle_trouble += 1 + pause_ns / 1_000_000;
        if node.wakes_at_ns != u64::MAX {
            node.wakes_at_ns = u64::MAX;
            let until_ns = node.paused_until_ns;
            self.wake(index, until_ns);
        }
    }

    fn part(&mut self, set: u64, until_ns: u64) {
        let side = |process: usize| set & 1 << process != 0;
        let processes = self.nodes.len();
        for from in 0..processes {
            for to in (0..processes).filter(|to| side(*to) != side(from)) {
                self.network.cut(from, to, until_ns);
            }
        }
        self.network.faults.partition += 1;
    }

    /// A process soon hears evidence that an incarnation of a member is gone, if the plan has evidence.
    pub(super) fn evidence(&mut self, index: usize, rank: Rank, incarnation: Incarnation) {
        let within_ns = self.plan.detector.evidence_after_ns;
        if within_ns > 0 {
            let at_ns = self.now_ns + self.rng.u64(0..=within_ns);
            self.push(at_ns, What::Evidence(index, rank, incarnation));
        }
    }

    pub(super) fn give_evidence(&mut self, index: usize, rank: Rank, incarnation: Incarnation) {
        let now = self.nodes[index].clock.read(self.now_ns);
        if let Some(process) = &mut self.nodes[index].process {
            process.on_evidence(now, rank, incarnation);
            self.network.faults.evidence += 1;
            self.wake(index, self.now_ns);
        }
    }

    /// What the detectors that this process leans on watch and suspect has changed.
    fn judge(&mut self, index: usize, change: impl Fn(u64, u64) -> (u64, u64)) {
        let node = &mut self.nodes[index];
        let now = node.clock.read(self.now_ns);
        let Some(process) = &mut node.process else { return };
        let (watched, suspects) = change(node.judgement.watched, node.judgement.suspects);
        node.judgement = Judgement { watched, suspects };
        process.judge(now, node.judgement);
        self.network.faults.judgement += 1;
        self.wake(index, self.now_ns);
    }

    /// Nothing goes wrong from now on. The detectors of another group trust every member that lives.
    pub(super) fn calm_down(&mut self) {
        self.network.freeze();
        self.keep_power();
        let members = usize::from(self.plan.members);
        let alive = (0..members).filter(|member| self.nodes[*member].process.is_some());
        let alive = alive.fold(0, |alive, member| alive | 1 << member);
        for member in (0..members).filter(|_| self.plan.detector.leaning) {
            self.judge(member, |watched, suspects| (watched | alive, suspects & !alive));
        }
        debug_assert!(self.phase == Phase::Faulty);
    }
}
