//! The questions: each kind of frame that is answered, with a stranger's address for the answer.

use bourdon::View;
use bourdon_wire::records::{
    BallotStep, ClientRequest, Direct, DirectCall, Heartbeat, Nak, NakRange, Ping, Transfer, ViewAsk, ballot_steps,
    direct_steps, heartbeat_flags, transfer_steps,
};
use bourdon_wire::{
    Address, CONTROL_CHANNEL, DatagramHeader, DatagramNumber, Epoch, FRAME_HEADER_BYTES, FrameHeader, GroupId,
    HEADER_BYTES, Incarnation, InstanceId, Kind, Rank, TopicId, seal,
};
use std::net::SocketAddr;
use zerocopy::{FromZeros, IntoBytes};

/// What a stranger knows of the group.
#[derive(Debug)]
pub(crate) struct Target {
    group: GroupId,
    instance: InstanceId,
    epoch: Epoch,
    fingerprint: u64,
    /// The process that is asked.
    own: u16,
    /// Another member, in whose name questions are sent.
    member: (Rank, Incarnation),
    /// Where answers are to go.
    stranger: Address,
}

/// A kind of question, and how to ask it for the n-th time.
pub(crate) struct Question {
    pub name: &'static str,
    pub question: fn(&Target, u64) -> Vec<u8>,
}

pub(crate) const KINDS: &[Question] = &[
    Question { name: "nak", question: |target, turn| target.nak(turn) },
    Question { name: "view-ask", question: |target, turn| target.view_ask(turn) },
    Question { name: "transfer, snapshot", question: |target, turn| target.transfer(turn / 50, 0) },
    Question { name: "transfer, 32 parts", question: |target, _| target.transfer(0, 32) },
    Question { name: "ping", question: |target, turn| target.ping(turn) },
    Question { name: "direct probe", question: |target, turn| target.direct(direct_steps::PROBE, turn) },
    Question { name: "direct send", question: |target, turn| target.direct(direct_steps::SEND, turn) },
    Question { name: "direct request", question: |target, turn| target.direct(direct_steps::REQUEST, turn) },
    Question { name: "client request", question: |target, turn| target.request(turn) },
    Question { name: "heartbeat, member's", question: |target, _| target.heartbeat(target.member, target.epoch, 0) },
    Question { name: "heartbeat, outsider's", question: |target, turn| target.outsider(turn) },
    Question { name: "heartbeat, earlier", question: |target, _| target.heartbeat(target.member, Epoch(0), 0) },
    Question { name: "heartbeat, then nak", question: |target, turn| target.heartbeat_then_nak(turn) },
    Question { name: "ballot", question: |target, turn| target.ballot(turn) },
];

fn zeroed<T: FromZeros>(change: impl FnOnce(&mut T)) -> T {
    let mut record = T::new_zeroed();
    change(&mut record);
    record
}

impl Target {
    /// For questions to the process of rank `own`, which is in this view; in the name of `other`, or of another member
    /// if they are the same.
    pub(crate) fn of(
        view: &View,
        (own, other): (Rank, Rank),
        group: GroupId,
        fingerprint: u64,
        to: SocketAddr,
    ) -> Self {
        let member = view.members.iter().find(|member| member.rank == other && other != own);
        let member = member.or_else(|| view.members.iter().find(|member| member.rank != own));
        let member = member.map_or((Rank(0), Incarnation(0)), |member| (member.rank, member.incarnation));
        let (instance, epoch) = (view.instance, view.epoch);
        Self { group, instance, epoch, fingerprint, own: own.0, member, stranger: to.into() }
    }

    fn datagram(&self, from: (Rank, Incarnation), epoch: Epoch, kind: Kind, parts: &[&[u8]]) -> Vec<u8> {
        let header = DatagramHeader::new(self.group, self.instance, epoch, from.0, from.1, CONTROL_CHANNEL);
        let body = parts.concat();
        let mut bytes = vec![0; HEADER_BYTES];
        bytes.extend(FrameHeader::new(body.len(), TopicId(0), kind, 0).as_bytes());
        bytes.extend(&body);
        seal(&mut bytes, header, 1, FRAME_HEADER_BYTES + body.len(), 0);
        bytes
    }

    fn of_observer(&self, kind: Kind, parts: &[&[u8]]) -> Vec<u8> {
        self.datagram((Rank::OBSERVER, Incarnation(1)), self.epoch, kind, parts)
    }

    fn nak(&self, turn: u64) -> Vec<u8> {
        let nak: Nak = zeroed(|nak: &mut Nak| {
            (nak.rank, nak.reply_to, nak.ranges) = ((turn as u16 % 3).into(), self.stranger, 1.into());
        });
        self.of_observer(Kind::Nak, &[nak.as_bytes(), NakRange::new(DatagramNumber(0), u32::MAX).as_bytes()])
    }

    fn view_ask(&self, turn: u64) -> Vec<u8> {
        let ask: ViewAsk = zeroed(|ask: &mut ViewAsk| ask.reply_to = self.stranger);
        self.datagram((Rank::OBSERVER, Incarnation(1)), Epoch(turn % 2), Kind::ViewAsk, &[ask.as_bytes()])
    }

    fn transfer(&self, ticket: u64, count: u32) -> Vec<u8> {
        let ask: Transfer = zeroed(|ask: &mut Transfer| {
            (ask.step, ask.donor, ask.ticket) =
                (transfer_steps::REQUEST_SNAPSHOT.into(), self.own.into(), (ticket as u32).into());
            (ask.reply_to, ask.count) = (self.stranger, count.into());
        });
        self.of_observer(Kind::Transfer, &[ask.as_bytes()])
    }

    fn ping(&self, turn: u64) -> Vec<u8> {
        let ping: Ping = zeroed(|ping: &mut Ping| (ping.nonce, ping.reply_to) = (turn.into(), self.stranger));
        self.datagram(self.member, self.epoch, Kind::Ping, &[ping.as_bytes()])
    }

    fn direct(&self, step: u16, sender_id: u64) -> Vec<u8> {
        let direct: Direct = zeroed(|direct: &mut Direct| {
            (direct.step, direct.sender_id, direct.reply_to) = (step.into(), (sender_id + 1).into(), self.stranger);
        });
        let call = DirectCall { call: sender_id.into(), patience_ns: u64::MAX.into() };
        let call = if step == direct_steps::REQUEST { call.as_bytes() } else { &[] };
        self.datagram((Rank::CLIENT, Incarnation(1)), self.epoch, Kind::Direct, &[direct.as_bytes(), call])
    }

    fn request(&self, turn: u64) -> Vec<u8> {
        let request: ClientRequest = zeroed(|request: &mut ClientRequest| {
            (request.client, request.sequence) = ((turn / 20 + 1).into(), (turn % 20).into());
            request.reply_to = self.stranger;
        });
        self.datagram((Rank::CLIENT, Incarnation(1)), self.epoch, Kind::ClientRequest, &[request.as_bytes()])
    }

    fn heartbeat(&self, from: (Rank, Incarnation), epoch: Epoch, flags: u16) -> Vec<u8> {
        let heartbeat: Heartbeat = zeroed(|heartbeat: &mut Heartbeat| {
            (heartbeat.configuration, heartbeat.window_bytes) = (self.fingerprint.into(), (1 << 20).into());
            (heartbeat.address, heartbeat.flags) = (self.stranger, flags.into());
        });
        self.datagram(from, epoch, Kind::Heartbeat, &[heartbeat.as_bytes()])
    }

    fn outsider(&self, turn: u64) -> Vec<u8> {
        let from = (self.member.0, Incarnation(self.member.1.0 ^ (turn as u32 / 100 + 1)));
        let flags = [0, heartbeat_flags::LEARNER, heartbeat_flags::WEDGED, heartbeat_flags::FORMED];
        self.heartbeat(from, Epoch(turn / 4 % 3), flags[turn as usize % flags.len()])
    }

    fn heartbeat_then_nak(&self, turn: u64) -> Vec<u8> {
        if turn.is_multiple_of(2) {
            self.heartbeat(self.member, self.epoch, heartbeat_flags::FORMED)
        } else {
            self.nak(turn / 2)
        }
    }

    /// A round that is too high to be accepted: an accepted round would stop what comes after it.
    fn ballot(&self, turn: u64) -> Vec<u8> {
        let ballot = (1 << 40 | turn) << 16 | u64::from(self.member.0.0);
        let step: BallotStep = zeroed(|step: &mut BallotStep| {
            (step.step, step.ballot) = (ballot_steps::PREPARE, ballot.into());
        });
        self.datagram(self.member, self.epoch, Kind::Ballot, &[step.as_bytes()])
    }
}
