//! Views sent to processes that are not in them, and what such a process makes of one.

use super::standing::{Outside, State};
use super::{Process, Standing};
use crate::control::view_change::{Step, Value};
use crate::counters::Counter;
use crate::mutant::Mutant;
use crate::outbox::Destination;
use crate::view::{Beginning, Member, View};
use alloc::vec;
use alloc::vec::Vec;
use bourdon_wire::records::{ViewEntry, ViewInfo};
use bourdon_wire::{
    Address, DatagramHeader, Epoch, FRAME_HEADER_BYTES, HEADER_BYTES, Incarnation, InstanceId, Instant, Kind,
    OrderNumber, Rank, Sequence,
};
use zerocopy::IntoBytes;

impl Process {
    pub(super) fn announce_decision(&mut self, now: Instant, header: DatagramHeader, to: Address, value: Value) {
        let bytes = super::steps::encode(Default::default(), &Step::Decide(value));
        if !self.may_answer_unasked(to, HEADER_BYTES + FRAME_HEADER_BYTES + bytes.len()) {
            return;
        }
        let to = Destination::Peer(to);
        self.cx.send_as(header, now, to, Kind::Ballot, [&bytes, &[]]);
    }

    /// Sends this view and where it began.
    pub(super) fn reply_view(&mut self, now: Instant, to: Destination, nonce: u64) {
        let (view, beginning) = (self.data.view.clone(), self.data.beginning.clone());
        let barriers = self.data.barrier.phase.wrapping_sub(beginning.phase);
        let header = self.cx.header(view.instance, view.epoch);
        self.send_view(now, header, (&view, &beginning, barriers), to, nonce);
    }

    /// Sends a view: where it began, and how many barriers have been completed in it.
    pub(super) fn send_view(
        &mut self,
        now: Instant,
        header: DatagramHeader,
        (view, beginning, barriers): (&View, &Beginning, u64),
        to: Destination,
        nonce: u64,
    ) {
        let (info, entries) = self.view_record((view, beginning, barriers), nonce);
        let parts = [info.as_bytes(), entries.as_bytes()];
        self.cx.send_as(header, now, to, Kind::View, parts);
    }

    /// A view as a record, followed by its list.
    pub(super) fn view_record(
        &self,
        (view, beginning, barriers): (&View, &Beginning, u64),
        nonce: u64,
    ) -> (ViewInfo, Vec<ViewEntry>) {
        let entry = |rank: Rank, incarnation: Incarnation| ViewEntry {
            rank: rank.0.into(),
            incarnation: incarnation.0.into(),
            first_sequence: beginning.first_of(rank).0.into(),
        };
        let mut entries: Vec<_> = view.members.iter().map(|member| entry(member.rank, member.incarnation)).collect();
        let others = (0..self.cx.config.members).map(Rank).filter(|rank| view.incarnation(*rank).is_none());
        entries.extend(others.map(|rank| entry(rank, Incarnation(0))));
        let info = ViewInfo {
            entries: (entries.len() as u16).into(),
            members: (view.members.len() as u16).into(),
            sequencer: view.sequencer.0.into(),
            barriers: (barriers.min(u64::from(u16::MAX)) as u16).into(),
            first_order: beginning.order.0.into(),
            phase: beginning.phase.into(),
            configuration: self.cx.config.fingerprint().into(),
            birth: view.birth.into(),
            nonce: nonce.into(),
        };
        (info, entries)
    }

    pub(super) fn on_view_info(&mut self, now: Instant, header: &DatagramHeader, body: &[u8]) {
        let Some((info, entries)) = ViewInfo::read_all(body) else { return };
        if info.configuration.get() != self.cx.config.fingerprint() {
            return;
        }
        let Some((view, beginning)) = self.read_view(header, info, entries) else {
            return self.cx.count(Counter::DiscardedMalformed);
        };
        if !view.contains(Member { rank: header.rank(), incarnation: header.incarnation() }) {
            return self.cx.count(Counter::DiscardedSender);
        }
        let is_other =
            view.instance != self.data.view.instance && self.cx.config.mutant != Some(Mutant::OtherInstanceBelieved);
        if is_other {
            // Only an answer to this process's own request proves that the instance is not a recording.
            let answers = info.nonce.get() != 0 && info.nonce.get() == self.search.nonce;
            if !answers || view.instance != self.search.asked_instance {
                return self.cx.count(Counter::DiscardedInstance);
            }
        } else if view.instance == self.data.view.instance && view.birth != self.data.view.birth {
            return self.cx.count(Counter::DiscardedMalformed);
        }
        // A process that comes late begins after the barriers that are complete; a process that was there from the
        // start passes them itself.
        let late = Beginning { phase: beginning.phase.saturating_add(info.barriers.get().into()), ..beginning.clone() };
        let (ahead, next) = (view.epoch > self.data.view.epoch, view.epoch == self.data.view.epoch.next());
        // Epochs of two instances have no order, and an answer from another one repeats the nonce.
        let believes = match self.standing() {
            _ if is_other => false,
            Standing::Following => ahead && !next,
            Standing::Member => ahead && !self.is_in(&view),
            _ => false,
        };
        if believes && !self.is_plausible_view(now, &view) {
            return;
        }
        match self.standing() {
            Standing::Gone => {}
            Standing::Member | Standing::Following if is_other => self.change_instance(now, view, late),
            // The decision that makes it a member comes together with this.
            Standing::Forming if self.is_in(&view) => {}
            Standing::Forming => {
                self.change_standing(State::Outside(Outside::default()));
                self.bump_incarnation(); // it may have been in the first view, and out of it, without hearing of it
                self.found(now, view, late);
            }
            Standing::Outside => self.find_view(now, view, late),
            Standing::Following if next => self.note_next_view(view, beginning),
            Standing::Following if ahead => self.hear_later_view(now, header.rank(), view, late),
            Standing::Following => {}
            // A member that finds itself in the next view waits for the decision, which comes together with this.
            Standing::Member if ahead && !self.is_in(&view) => self.find_out_removed(now, view.epoch),
            Standing::Member => {}
        }
    }

    pub(super) fn read_view(
        &self,
        header: &DatagramHeader,
        info: &ViewInfo,
        entries: &[ViewEntry],
    ) -> Option<(View, Beginning)> {
        let (instance, epoch) = (header.instance(), header.epoch());
        let mut first = vec![Sequence(0); usize::from(self.cx.config.members)];
        for entry in entries {
            *first.get_mut(usize::from(entry.rank.get()))? = Sequence(entry.first_sequence.get());
        }
        let member = |entry: &ViewEntry| Member {
            rank: Rank(entry.rank.get()),
            incarnation: Incarnation(entry.incarnation.get()),
        };
        let members: Vec<_> = entries.iter().take(usize::from(info.members.get())).map(member).collect();
        let view = View { epoch, members, sequencer: Rank(info.sequencer.get()), instance, birth: info.birth.get() };
        let beginning = Beginning { order: OrderNumber(info.first_order.get()), first, phase: info.phase.get() };
        let members = &view.members;
        let distinct = (1..members.len()).all(|i| members[..i].iter().all(|other| other.rank != members[i].rank));
        let sound = distinct && view.incarnation(view.sequencer).is_some() && epoch != Epoch(0);
        let sound = sound && instance != InstanceId::NONE;
        sound.then_some((view, beginning))
    }
}
