//! A whole group restarted: all members stop, and new processes of the same ranks form the group again.
//!
//! The world numbers the restarts: a process that starts after the n-th belongs to generation n, and so do its messages
//! and its incarnation. Members that froze keep their addresses and go on when they resume; observers and clients live
//! across the restart. Nothing in the protocol needs to know a generation: by generations the checkers know what
//! belongs together.
//!
//! A member stores the highest birth in a file, which the next process at its rank reads. A frozen member that finds
//! itself superseded asks the later group to take it in; once that group admits it in place of the current process at
//! that rank, the frozen one ends.

use super::{Phase, What, World};
use crate::checkers::Checkers;
use crate::history::Lineage;
use crate::locker::Locker;
use crate::network::Packet;
use crate::node::Node;
use crate::plan::{RestartPlan, address_in};
use crate::violation::Verdict;
use bourdon_protocol::{Destination, Event, Member, Process, SnapshotAnswer};

/// How often the world checks whether frozen members may resume.
const HOLD_NS: u64 = 5_000_000;
/// Messages that a frozen member's application still wants to publish when it resumes.
const LATE_MESSAGES: u32 = 3;

impl World<'_> {
    /// All members stop.
    pub(super) fn group_stops(&mut self, restart: RestartPlan) {
        let members = usize::from(self.plan.members);
        self.is_down = true;
        for index in 0..members {
            if restart.frozen & 1 << index != 0 && self.nodes[index].is_alive() {
                let clock = self.nodes[index].clock;
                let mut fresh = Node::new(clock, None);
                let old = &mut self.nodes[index];
                fresh.quota = old.quota + old.wanted;
                fresh.birth_floor = old.process.as_ref().map_or(old.birth_floor, Process::birth_floor);
                fresh.clock_back_ms = old.clock_back_ms;
                fresh.incarnation = old.incarnation;
                fresh.locker = self.plan.locks.as_ref().map(|locks| Locker::new(locks, index as u16));
                let mut frozen = std::mem::replace(old, fresh);
                (frozen.quota, frozen.wanted, frozen.wakes_at_ns, frozen.locker) = (0, LATE_MESSAGES, u64::MAX, None);
                frozen.paused_until_ns = u64::MAX;
                self.ends.push(self.ends[index]);
                self.zombies.push(frozen);
                self.checkers.crashed(index);
            } else if self.nodes[index].process.is_some() {
                self.crash(index);
            }
        }
        self.push(self.now_ns + restart.down_ns, What::GroupStarts(restart));
    }

    /// Another instance of the group begins: each is checked by itself, but for the tokens of locks, which grow.
    pub(super) fn begin_generation(&mut self) {
        self.generation += 1;
        let fresh = Checkers::new(self.plan, self.demands);
        let past = std::mem::replace(&mut self.checkers, fresh);
        self.checkers.mutexes.outlives(&past.mutexes);
        self.past.push(past);
        self.history.generation = self.generation;
        self.history.free_untaken(self.clients.iter().map(|client| client.taken()));
    }

    /// New processes of the same ranks start.
    pub(super) fn group_starts(&mut self, restart: RestartPlan) {
        self.is_down = false;
        self.network.faults.restart_all += 1;
        self.begin_generation();
        for index in 0..usize::from(self.plan.members) {
            self.ends[index] = address_in(self.generation, index);
            let node = &mut self.nodes[index];
            node.birth_floor = if restart.loses_files { 0 } else { node.birth_floor };
            node.clock_back_ms = restart.clock_back_ms;
            node.incarnation = self.generation << GENERATION_SHIFT | index as u32;
            self.begin(index);
        }
        for zombie in 0..self.zombies.len() {
            if self.zombies[zombie].paused_until_ns == u64::MAX {
                self.zombies[zombie].paused_until_ns = self.now_ns + restart.resume_after_ns;
                self.push(self.now_ns + restart.resume_after_ns, What::Zombie(zombie));
            }
        }
    }

    /// A step of a process of an earlier generation.
    pub(super) fn step_zombie(&mut self, zombie: usize) -> Verdict {
        self.network.faults.zombie += 1;
        self.steps += 1;
        let batch = self.plan.batch;
        let now_ns = self.now_ns;
        let Self { zombies, plan, rng, history, .. } = self;
        let node = &mut zombies[zombie];
        node.wakes_at_ns = u64::MAX;
        let busy = node.take_in(now_ns, batch);
        let rank = node.process.as_ref().and_then(|process| process.config().rank()).unwrap_or_default();
        let generation = history.lineages[node.lineage].generation;
        let now_generation = std::mem::replace(&mut history.generation, generation);
        let wants = node.publish(rank.0, plan, now_ns, rng, history);
        history.generation = now_generation;
        wants?;
        self.transmit_zombie(zombie);
        self.hear_zombie(zombie)?;
        self.deliver_zombie(zombie)?;
        self.launch();
        let node = &mut self.zombies[zombie];
        let Some(process) = &node.process else { return Ok(()) };
        let due_ns = node.clock.when(process.next_deadline()).max(now_ns + if busy { 1000 } else { 5000 });
        let due_ns = if busy { now_ns + 1000 } else { due_ns };
        if due_ns < node.wakes_at_ns && due_ns != u64::MAX && self.phase == Phase::Faulty {
            node.wakes_at_ns = due_ns;
            self.push(due_ns, What::Zombie(zombie));
        }
        Ok(())
    }

    fn transmit_zombie(&mut self, zombie: usize) {
        let Self { zombies, network, rng, arrivals, plan, now_ns, ends, .. } = self;
        let from = plan.processes() + usize::from(plan.clients) + zombie;
        let node = &mut zombies[zombie];
        let now = node.clock.read(*now_ns);
        let Some(process) = &mut node.process else { return };
        process.transmit(now, |to, bytes, segment_bytes| {
            for datagram in bytes.chunks(segment_bytes) {
                let packet = Packet { bytes: datagram.into(), to_all: !matches!(to, Destination::Peer(_)) };
                for (end, address) in ends.iter().enumerate().filter(|(end, _)| *end != from) {
                    let wanted = match to {
                        Destination::Group | Destination::Broadcast => true,
                        Destination::Peer(peer) => peer == *address,
                    };
                    if wanted {
                        network.send(*now_ns, (from, end), &packet, rng, arrivals);
                    }
                }
            }
            bytes.len().div_ceil(segment_bytes)
        });
    }

    fn deliver_zombie(&mut self, zombie: usize) -> Verdict {
        let node = &mut self.zombies[zombie];
        let (now, lineage) = (node.clock.read(self.now_ns), node.lineage);
        let Some(process) = &mut node.process else { return Ok(()) };
        let (history, instances) = (&mut self.history, &mut self.instances);
        let mut own = self.past.get_mut(history.lineages[lineage].generation as usize);
        let mut verdict = Ok(());
        process.deliver(now, usize::MAX, |delivery| {
            if verdict.is_ok() {
                verdict = instances.delivered_by_zombie(history, lineage, delivery);
            }
            if let (Ok(()), Some(own)) = (&verdict, &mut own) {
                verdict = own.delivered_by_zombie(history, lineage, delivery);
            }
        });
        verdict
    }

    fn hear_zombie(&mut self, zombie: usize) -> Verdict {
        loop {
            let node = &mut self.zombies[zombie];
            let (now, lineage) = (node.clock.read(self.now_ns), node.lineage);
            let Some(process) = &mut node.process else { return Ok(()) };
            match process.poll_event() {
                Some(Event::View { .. }) if !process.view().members.is_empty() => self.enter_as_zombie(zombie)?,
                Some(Event::Removed(_) | Event::Superseded { .. }) => node.has_moved = true,
                Some(_) => {}
                None => {
                    let _ = process.take_snapshot();
                    if let Some(ticket) = process.begin_snapshot(now) {
                        let state = self.history.lineages[lineage].snapshot();
                        process.finish_snapshot(now, ticket, SnapshotAnswer::State(state));
                    }
                    return Ok(());
                }
            }
        }
    }

    fn enter_as_zombie(&mut self, zombie: usize) -> Verdict {
        let node = &mut self.zombies[zombie];
        let Some(process) = &node.process else { return Ok(()) };
        let Lineage { generation, process: index, .. } = self.history.lineages[node.lineage];
        let Some(to) = self.instances.entered(index, generation, process.view())? else { return Ok(()) };
        if to == generation {
            return Ok(());
        }
        self.instances.crossed(index, (generation, to), node.has_moved)?;
        let own = process.config().rank().map(|rank| Member { rank, incarnation: process.incarnation() });
        if let Some(own) = own.filter(|own| process.view().contains(*own)) {
            self.checkers.views.crashed(own);
            node.crash();
        } else {
            node.lineage = self.history.begin(index, true);
            self.history.lineages[node.lineage].generation = to;
            node.has_moved = false;
        }
        Ok(())
    }

    /// Whether a datagram arrives at a process of an earlier generation, which then takes it.
    pub(super) fn arrive_at_zombie(&mut self, zombie: usize, packet: Packet) {
        let now_ns = self.now_ns;
        let Some(node) = self.zombies.get_mut(zombie) else { return };
        if node.socket_bytes + packet.bytes.len() > self.plan.socket_bytes {
            return;
        }
        node.socket_bytes += packet.bytes.len();
        node.socket.push_back(packet);
        let due_ns = now_ns + 500;
        if node.paused_until_ns <= now_ns && due_ns < node.wakes_at_ns && self.phase == Phase::Faulty {
            node.wakes_at_ns = due_ns;
            self.push(due_ns, What::Zombie(zombie));
        }
    }

    /// Whether members that froze may resume: once the group has formed again. A majority that resumes earlier is
    /// alive, and takes in the processes that would have formed it.
    pub(super) fn has_formed_again(&self) -> bool {
        !self.is_down && self.checkers.views.has_formed(self.plan.members)
    }

    /// A member that froze resumes later.
    pub(super) fn hold(&mut self, zombie: usize) {
        let again_ns = self.now_ns + HOLD_NS;
        let node = &mut self.zombies[zombie];
        if node.paused_until_ns <= self.now_ns && self.phase == Phase::Faulty {
            (node.paused_until_ns, node.wakes_at_ns) = (again_ns, u64::MAX);
            self.push(again_ns, What::Zombie(zombie));
        }
    }

    /// Whether this step of a process of an earlier generation is due.
    pub(super) fn is_due(&self, zombie: usize, at_ns: u64) -> bool {
        let node = &self.zombies[zombie];
        let due = node.wakes_at_ns == at_ns || node.paused_until_ns == at_ns;
        due && self.phase == Phase::Faulty && node.paused_until_ns <= at_ns
    }
}

/// The incarnations that the world starts in a generation are counted from its number above this bit.
const GENERATION_SHIFT: u32 = 16;
