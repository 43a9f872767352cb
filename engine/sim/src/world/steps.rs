//! Steps of processes: what a node does, in the order in which it does it.
//!
//! A process is stepped when something has arrived, when its deadline has come or when its application wants something:
//! it takes in a batch, keeps time, publishes, transmits, delivers, takes the events. Between steps it may be paused,
//! while its socket fills and overflows.

use super::{Phase, STEPS_MAX, What, World, mixed};
use crate::history::{Gap, Lineage, Settled};
use crate::network::{Packet, hits};
use crate::options::Mode;
use crate::violation::{Verdict, Violation};
use bourdon_protocol::{Counter, Destination, Event, Member, Process, Standing};
use bourdon_wire::{Incarnation, Rank};

impl World<'_> {
    pub(super) fn step(&mut self, index: usize, at_ns: u64) -> Verdict {
        if self.nodes[index].wakes_at_ns != at_ns || self.nodes[index].process.is_none() {
            return Ok(()); // it was stepped earlier and has another deadline now; or it is gone
        }
        self.nodes[index].wakes_at_ns = u64::MAX;
        if self.trip(index) || self.stalls(index) {
            self.wake(index, self.nodes[index].paused_until_ns);
            return Ok(());
        }
        self.steps += 1;
        if self.steps > STEPS_MAX {
            return Err(Violation::new("steps", format!("the run did not end in {STEPS_MAX} steps")));
        }
        self.mix(index as u64);
        let busy = self.nodes[index].take_in(self.now_ns, self.plan.batch);
        self.hear_disk(index);
        self.obey(index);
        self.finish_snapshots(index);
        self.watch_ballots(index);
        if self.plan.order_early {
            let node = &mut self.nodes[index];
            let now = node.clock.read(self.now_ns);
            if let Some(process) = &mut node.process {
                process.order(now);
            }
            self.deliver(index)?;
        }
        self.coordinate(index, true)?;
        let wants = self.publish(index)?;
        let goes_on = hits(&mut self.rng, self.plan.unsealed_permille);
        let all_sent = self.transmit(index, !goes_on);
        let more = self.deliver(index)?;
        let all_sent = self.transmit(index, true) && all_sent;
        self.store(index);
        self.launch();
        self.coordinate(index, false)?;
        self.hand_reports_over(index);
        if all_sent && let Some(process) = &self.nodes[index].process {
            self.checkers.sent(process, index)?;
        }
        if self.mode != Mode::Liveness {
            let is_current = self.history.lineages[self.nodes[index].lineage].generation == self.generation;
            if let Some(process) = self.nodes[index].process.as_mut().filter(|_| is_current) {
                self.history.note_acknowledged(process);
            }
            let processes: Vec<Option<&Process>> = self.nodes.iter().map(|node| node.process.as_ref()).collect();
            if is_current {
                self.checkers.stepped(&processes, index)?;
            }
            self.judge_locks(index)?;
        }
        if std::mem::take(&mut self.nodes[index].is_out) {
            self.end_process(index);
        }
        let acts_ns = self.action_due(index);
        let node = &self.nodes[index];
        let acts_ns = node.snapshots.iter().fold(acts_ns, |acts_ns, snapshot| acts_ns.min(snapshot.due_ns));
        let Some(process) = &node.process else { return Ok(()) };
        let deadline_ns = node.clock.when(process.next_deadline());
        let soon_ns = self.now_ns + self.rng.u64(500..5000);
        let next_ns = if busy || more || !all_sent { soon_ns } else { deadline_ns.max(self.now_ns + 1) };
        let next_ns = if wants { next_ns.min(self.now_ns + self.rng.u64(20_000..200_000)) } else { next_ns };
        self.wake(index, next_ns.min(acts_ns.max(self.now_ns + 1)));
        Ok(())
    }

    /// Whether the process is paused instead of stepped.
    fn trip(&mut self, index: usize) -> bool {
        let faults = &self.plan.faults;
        if self.phase != Phase::Faulty || !hits(&mut self.rng, faults.pause_permille) {
            return false;
        }
        let pause_ns = self.rng.u64(0..=faults.pause_max_ns);
        self.pause(index, pause_ns);
        true
    }

    /// Publishes what the application wants. Returns whether it wants more.
    fn publish(&mut self, index: usize) -> Result<bool, Violation> {
        let Self { nodes, plan, rng, history, now_ns, .. } = self;
        // A process of an earlier generation publishes in that.
        let own = history.lineages[nodes[index].lineage].generation;
        let generation = std::mem::replace(&mut history.generation, own);
        let wants_sync = nodes[index].sync(index as u16, *now_ns, rng, history);
        let wants = nodes[index].publish(index as u16, plan, *now_ns, rng, history);
        history.generation = generation;
        Ok(wants? || wants_sync)
    }

    /// Offers what the process has to send to the network. Unless it `seals` the open datagram, the process publishes
    /// more at once. Returns whether the network took all.
    fn transmit(&mut self, index: usize, seals: bool) -> bool {
        let Self {
            nodes,
            network,
            rng,
            arrivals,
            plan,
            now_ns,
            duels,
            phase,
            checkers,
            recorder,
            generation,
            ends,
            ..
        } = self;
        let mut duels = duels.as_mut().filter(|_| *phase == Phase::Faulty);
        let node = &mut nodes[index];
        let now = node.clock.read(*now_ns);
        let Some(process) = &mut node.process else { return true };
        process.transmit_packed(now, seals, |to, bytes, segment_bytes| {
            let offered = bytes.len().div_ceil(segment_bytes);
            let taken = network.takes(offered, rng);
            for datagram in bytes.chunks(segment_bytes).take(taken) {
                if let Some(duels) = &mut duels {
                    duels.hinder(*now_ns, index, datagram, rng, network);
                }
                if to == Destination::Group {
                    checkers.offered(index, datagram);
                }
                let packet = Packet { bytes: datagram.into(), to_all: !matches!(to, Destination::Peer(_)) };
                if let Some(recorder) = recorder {
                    recorder.record(*generation, index, &packet.bytes);
                }
                for (end, address) in ends.iter().enumerate() {
                    let wanted = match to {
                        Destination::Group | Destination::Broadcast => end != index || hits(rng, plan.echo_permille),
                        Destination::Peer(peer) => peer == *address,
                    };
                    if wanted {
                        network.send(*now_ns, (index, end), &packet, rng, arrivals);
                    }
                }
            }
            taken
        })
    }

    /// Delivers what is due to the application, and the events between. Returns whether there is more.
    fn deliver(&mut self, index: usize) -> Result<bool, Violation> {
        let mut limit = if hits(&mut self.rng, 200) { self.rng.usize(1..5) } else { usize::MAX };
        let is_single = hits(&mut self.rng, self.plan.single_delivery_permille);
        loop {
            self.hear_events(index)?;
            if self.lost {
                return Ok(false);
            }
            let Self { nodes, history, checkers, past, instances, now_ns, mode, digest, .. } = self;
            let node = &mut nodes[index];
            let (now, lineage) = (node.clock.read(*now_ns), node.lineage);
            let (Some(process), had) = (&mut node.process, &node.had) else { return Ok(false) };
            let checkers = past.get_mut(history.lineages[lineage].generation as usize).unwrap_or(checkers);
            let mut verdict = Ok(());
            let count = process.deliver(now, limit, |delivery| {
                *digest = mixed(*digest, delivery.sequence.0 << 16 | u64::from(delivery.sender.0));
                if verdict.is_ok() && !had.as_ref().is_some_and(|had| had.has(delivery)) {
                    let safety = *mode != Mode::Liveness;
                    let judged = checkers.delivered(history, lineage, delivery, safety);
                    verdict = judged.and_then(|()| instances.delivered(history, lineage));
                }
            });
            verdict?;
            self.hear_events(index)?;
            if count == 0 || count >= limit || is_single {
                return Ok(count > 0);
            }
            limit -= count;
        }
    }

    pub(super) fn hear_events(&mut self, index: usize) -> Verdict {
        let mut events = Vec::new();
        loop {
            let process = self.nodes[index].process.iter_mut();
            events.extend(process.flat_map(|process| std::iter::from_fn(|| process.poll_event())));
            if events.is_empty() {
                break;
            }
            // Views from before the process went on to another instance can no longer be read.
            let moves = |event: &Event| {
                matches!(event, Event::Superseded { .. } | Event::NewInstance { .. } | Event::Recovered { .. })
            };
            let moved = events.iter().rposition(moves).unwrap_or(0);
            for (place, event) in events.drain(..).enumerate() {
                if place >= moved || !matches!(event, Event::View { .. }) {
                    self.hear(index, event)?;
                }
            }
        }
        self.take_snapshot(index)?;
        self.begin_snapshot(index)?;
        let node = &self.nodes[index];
        let lineage = &mut self.history.lineages[node.lineage];
        if lineage.formed_at_ns.is_none() && node.process.as_ref().is_some_and(Process::is_formed) {
            lineage.formed_at_ns = Some(self.now_ns);
        }
        Ok(())
    }

    fn hear(&mut self, index: usize, event: Event) -> Verdict {
        self.note_narrow(index, &event);
        let node = &mut self.nodes[index];
        let Some(process) = &mut node.process else { return Ok(()) };
        let lineage = &mut self.history.lineages[node.lineage];
        match event {
            Event::View { .. } => return self.enter(index),
            Event::Synced { phase, asked } => {
                lineage.phase = phase;
                node.asked = node.asked.saturating_sub(u64::from(asked));
                return self.synced(index);
            }
            Event::Removed(epoch) => {
                (lineage.epoch, node.asked, node.is_out) = (None, 0, self.plan.ends_when_out);
                node.has_moved = true;
                let incarnation = Incarnation(node.incarnation); // the one with which it last entered a view
                self.instances.removed(lineage.generation, Member { rank: Rank(index as u16), incarnation }, epoch.0);
            }
            Event::Superseded { .. } => (lineage.epoch, node.asked, node.has_moved) = (None, 0, true),
            Event::NewInstance { .. } => node.has_moved = true,
            Event::Left(epoch) => {
                (lineage.epoch, node.left, node.is_out) = (None, true, self.plan.ends_when_out);
                let member = Member { rank: Rank(index as u16), incarnation: process.incarnation() };
                self.checkers.views.closed(member, epoch);
            }
            Event::Settled { incarnation, delivered, .. } => {
                let (rank, incarnation, delivered) = (index as u16, incarnation.0, delivered.0);
                self.history.settled.push(Settled { rank, incarnation, delivered });
            }
            Event::Gap { sender, from, to } => {
                let gap = Gap { sender: sender.0, from: from.0, to: to.0 };
                if self.mode != Mode::Liveness {
                    self.checkers.lost(lineage, &gap)?;
                }
                if self.plan.is_lossy() {
                    let next = &mut lineage.next[usize::from(sender.0)];
                    *next = (*next).max(to.0);
                    lineage.gaps.push(gap);
                    lineage.whole &= lineage.member; // a member of such a group gets a report of every loss
                    return Ok(());
                }
                if lineage.member {
                    return Err(Violation::new("completeness", format!("member {index} gave up {gap:?}")));
                }
                if lineage.generation == self.generation {
                    self.checkers.observers.gave_up(lineage, gap);
                }
                lineage.gaps.push(gap);
                lineage.whole = false;
            }
            Event::Retracted { sender, from, to } => {
                let void = Gap { sender: sender.0, from: from.0, to: to.0 };
                if lineage.generation == self.generation {
                    self.checkers.retracted((node.lineage, lineage), void);
                }
                lineage.retract(void);
                lineage.order = 0;
                if self.plan.clients > 0 {
                    // A client's message that was retracted counts as delivered to an observer for good.
                    (lineage.whole, lineage.formed_at_ns) = (false, None);
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// A barrier is complete. Unless its view ends with it, all members that share the view have reached it.
    fn synced(&self, index: usize) -> Verdict {
        let node = &self.nodes[index];
        let epoch = self.history.lineages[node.lineage].epoch;
        let Some(process) = node.process.as_ref().filter(|process| !process.is_wedged()) else { return Ok(()) };
        if self.mode == Mode::Liveness || Some(process.view().epoch.0) != epoch {
            return Ok(());
        }
        let alive = process.view().members.iter().filter_map(|member| {
            let other = self.nodes.get(member.rank.index())?;
            (other.process.is_some() && other.incarnation == member.incarnation.0).then_some(other.lineage)
        });
        let generation = self.history.lineages[node.lineage].generation;
        let shares = |lineage: &Lineage| (lineage.epoch, lineage.generation) == (epoch, generation);
        let sharing = alive.filter(|other| shares(&self.history.lineages[*other]));
        self.checkers.synced(&self.history, node.lineage, sharing, process.view())
    }

    /// A process has entered a view.
    fn enter(&mut self, index: usize) -> Verdict {
        if self.is_restored_view(index) {
            return Ok(());
        }
        if !self.enters_a_generation(index)? {
            return Ok(());
        }
        let others = self.nodes.iter().enumerate().filter(|(other, _)| *other != index);
        let others = others.filter_map(|(_, node)| node.process.as_ref());
        let entered = self.nodes[index].process.as_ref().map(Process::view);
        let is_current = self.history.lineages[self.nodes[index].lineage].generation == self.generation;
        let is_first = |view| self.checkers.views.is_a_new_first_view(view, others);
        if is_current && entered.is_some_and(is_first) {
            self.instances.founded_again(self.generation, &self.checkers)?;
            self.is_founded_again_rightly(index)?;
            (self.lost, self.phase) = (true, Phase::Over);
            return Ok(());
        }
        let Self { nodes, history, checkers, past, mode, generation, .. } = self;
        let node = &mut nodes[index];
        let Some(process) = &node.process else { return Ok(()) };
        let view = process.view().clone();
        if view.members.is_empty() {
            return Ok(()); // it is out of the view again since, or has lost it, and knows nothing of it any more
        }
        // As another incarnation, or with a snapshot that it has not taken yet, it did not come from the view before.
        let before = std::mem::replace(&mut node.incarnation, process.incarnation().0);
        if before != node.incarnation
            || process.memory_use().snapshot_bytes > 0 && process.standing() == Standing::Following
        {
            history.lineages[node.lineage].epoch = None;
        }
        let shown = &history.lineages[node.lineage];
        let before = shown.epoch.map_or(0, |epoch| epoch + 1);
        let first = shown.epoch.is_none() && view.epoch.0 == 1 && process.standing() == Standing::Member;
        let moved = before == view.epoch.0 || first;
        let checkers = past.get_mut(shown.generation as usize).unwrap_or(checkers);
        // Decisions of frozen members of an earlier generation are not judged.
        let safety = *mode != Mode::Liveness && shown.generation == *generation;
        checkers.installed(history, node.lineage, process, moved, safety)?;
        let continues = moved && view.epoch.0 > 1 && process.standing() == Standing::Member;
        node.control.iter_mut().filter(|_| continues).for_each(|control| control.continued.push(view.epoch.0));
        let phase = process.phase();
        let lineage = &mut history.lineages[node.lineage];
        (lineage.epoch, lineage.last_epoch) = (Some(view.epoch.0), view.epoch.0);
        if !moved {
            // It begins in the middle, or missed a view.
            (lineage.whole, lineage.formed_at_ns, lineage.phase, lineage.order) = (false, None, phase, 0);
        }
        let is_down = self.is_down;
        for member in view.members.into_iter().filter(|_| !is_down) {
            let other = &self.nodes[member.rank.index()];
            if other.process.is_none() && other.incarnation == member.incarnation.0 {
                self.evidence(index, member.rank, member.incarnation);
            }
        }
        Ok(())
    }

    /// Whether a process has entered a view of one generation. Where it goes on to a later generation, its application
    /// begins with nothing there.
    fn enters_a_generation(&mut self, index: usize) -> Result<bool, Violation> {
        if !self.plan.has_generations() {
            return Ok(true);
        }
        let node = &mut self.nodes[index];
        let Some(view) = node.process.as_ref().map(Process::view).filter(|view| !view.members.is_empty()) else {
            return Ok(true);
        };
        let is_member = index < usize::from(self.plan.members);
        let lineage = &self.history.lineages[node.lineage];
        let (from, was_in_view) = (lineage.generation, lineage.epoch.is_some());
        let Some(to) = self.instances.entered(index, from, view)? else { return Ok(false) };
        let has_moved = std::mem::take(&mut node.has_moved);
        if from != to {
            // Before its first view a process has missed nothing. The earlier group, if its majority is back, is still
            // the group until the later one has formed; and an observer that was in neither can hear the earlier one
            // first.
            let may_be_earlier = !was_in_view && (!is_member || !self.checkers.has_formed());
            if !may_be_earlier {
                self.instances.crossed(index, (from, to), has_moved || !was_in_view)?;
            }
            node.lineage = self.history.begin(index, is_member);
            self.history.lineages[node.lineage].generation = to;
        }
        Ok(true)
    }

    /// In a plan of adversity, a member that has begun a ballot is soon cut off: before any member hears of it, or at
    /// any time until it is decided.
    fn watch_ballots(&mut self, index: usize) {
        let node = &mut self.nodes[index];
        let Some(process) = node.process.as_ref().filter(|_| self.plan.adversary) else { return };
        let ballots = process.counters().get(Counter::Ballots);
        if ballots != std::mem::replace(&mut node.ballots, ballots) && self.phase == Phase::Faulty {
            let soon_ns = self.rng.u64(0..=6 * (self.plan.latency_ns + self.plan.jitter_ns));
            self.push(self.now_ns + soon_ns, What::Hinder(index));
        }
    }

    pub(super) fn hinder(&mut self, index: usize) {
        if self.phase != Phase::Faulty {
            return;
        }
        let (deaf, some) = (self.rng.bool(), self.rng.u64(..));
        let until_ns = self.now_ns + self.rng.u64(1..=4 * self.plan.timing().membership.takeover_after_ns);
        for other in (0..usize::from(self.plan.members)).filter(|other| *other != index && some & 3 << other != 0) {
            let (from, to) = if deaf { (other, index) } else { (index, other) };
            self.network.cut(from, to, until_ns);
        }
        self.network.faults.cut += 1;
    }
}
