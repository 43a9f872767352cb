//! One process and the application around it; one client and its.
//!
//! Applications are wilful: they publish in bursts, messages of every length there can be, sometimes by a claim in place
//! that they then drop; when they are refused they come again.

use crate::checkers::{Sent, Start, Violation};
use crate::history::{Gap, History, Message, Shown};
use crate::network::hits;
use crate::plan::{GROUP, Plan};
use bourdon_protocol::{Client, ClientEvent, Event, Outgoing, Process, Refusal};
use bourdon_wire::{Address, ClientId, Instant, TopicId};
use fastrand::Rng;
use std::collections::VecDeque;
use std::rc::Rc;

/// A message claimed in place stays well below a datagram, whatever stands in front of it.
const CLAIM_PART: usize = 2;

#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) process: Process,
    pub(crate) start: Start,
    pub(crate) offset_ns: u64,
    pub(crate) socket: VecDeque<Rc<[u8]>>,
    pub(crate) socket_bytes: usize,
    pub(crate) paused_until_ns: u64,
    /// When it is stepped next; `u64::MAX` for not at all.
    pub(crate) wakes_at_ns: u64,
    /// Messages the application will want to publish later, and wants to now.
    pub(crate) quota: u32,
    pub(crate) wanted: u32,
}

impl Node {
    pub(crate) fn new(process: Process, offset_ns: u64, start: Start) -> Self {
        Self {
            process,
            start,
            offset_ns,
            socket: VecDeque::new(),
            socket_bytes: 0,
            paused_until_ns: 0,
            wakes_at_ns: u64::MAX,
            quota: 0,
            wanted: 0,
        }
    }

    /// Takes in what has arrived and what is due; says whether something is left.
    pub(crate) fn take_in(&mut self, now_ns: u64, batch: usize) -> bool {
        let now = Instant(now_ns + self.offset_ns);
        for _ in 0..batch {
            let Some(bytes) = self.socket.pop_front() else { break };
            self.socket_bytes -= bytes.len();
            self.process.on_datagram(now, &bytes, Some(now_ns));
        }
        if now >= self.process.next_deadline() {
            self.process.on_timer(now);
        }
        !self.socket.is_empty()
    }

    pub(crate) fn hear_events(&mut self, shown: &mut Shown, now_ns: u64) {
        while let Some(event) = self.process.poll_event() {
            if let Event::Gap { sender, from, to } = event {
                shown.gaps.push(Gap { sender: sender.0, from: from.0, to: to.0 });
            }
        }
        if self.process.is_formed() {
            shown.formed_at_ns.get_or_insert(now_ns);
        }
    }

    /// Publishes what is wanted; says whether something was refused.
    pub(crate) fn publish(
        &mut self,
        rank: u16,
        plan: &Plan,
        now_ns: u64,
        rng: &mut Rng,
        history: &mut History,
    ) -> Result<bool, Violation> {
        let now = Instant(now_ns + self.offset_ns);
        while self.wanted > 0 {
            let payload = draw_payload(plan, plan.max_message_bytes, rng);
            let intended_send_ns = hits(rng, 200).then(|| rng.u64(..));
            let outgoing = Outgoing { topic: TopicId(rng.u16(0..4)), intended_send_ns, client: None };
            let published = self.offer(now, plan, &outgoing, &payload, rng);
            let sequence = match published {
                Ok(Some(sequence)) => sequence,
                Ok(None) => continue, // claimed and dropped
                Err(Refusal::Window | Refusal::Forming | Refusal::ViewChange) => return Ok(true),
                Err(refusal) => {
                    let detail = format!("member {rank} was refused {} bytes: {refusal}", payload.len());
                    return Err(Violation::new("completeness", detail));
                }
            };
            self.wanted -= 1;
            let after = Some(history.shown[usize::from(rank)].delivered.len());
            let message =
                Message { payload: payload.into(), topic: outgoing.topic.0, at_ns: now_ns, after, client: None };
            if !history.publish(rank, sequence, message) {
                return Err(Violation::new("integrity", format!("{rank}:{sequence} names two messages")));
            }
        }
        Ok(false)
    }

    fn offer(
        &mut self,
        now: Instant,
        plan: &Plan,
        outgoing: &Outgoing,
        payload: &[u8],
        rng: &mut Rng,
    ) -> Result<Option<u64>, Refusal> {
        if payload.len() > plan.frame_bytes() / CLAIM_PART || !hits(rng, 300) {
            return self.process.try_publish(now, outgoing, payload).map(|sequence| Some(sequence.0));
        }
        let mut claim = self.process.try_claim(now, outgoing, payload.len())?;
        if hits(rng, 100) {
            return Ok(None);
        }
        claim.copy_from_slice(payload);
        Ok(Some(claim.commit().0))
    }
}

fn draw_payload(plan: &Plan, most: usize, rng: &mut Rng) -> Vec<u8> {
    let length = if !hits(rng, plan.large_permille) {
        rng.usize(0..=64)
    } else if hits(rng, 200) {
        most
    } else {
        rng.usize(0..=most)
    };
    let mut payload = vec![0; length.min(most)];
    rng.fill(&mut payload);
    payload
}

#[derive(Debug)]
pub(crate) struct ClientNode {
    pub(crate) client: Client,
    pub(crate) wakes_at_ns: u64,
    id: u64,
    sequence: u64,
    quota: u32,
}

impl ClientNode {
    pub(crate) fn new(id: u64, address: Address, quota: u32) -> Self {
        let client = Client::new(Instant(0), GROUP, ClientId(id), address);
        Self { client, wakes_at_ns: u64::MAX, id, sequence: 0, quota }
    }

    pub(crate) fn is_busy(&self) -> bool {
        self.quota > 0 || !self.client.is_idle()
    }

    /// Publishes what fits and says what goes to the network. Some messages are longer than the group allows.
    pub(crate) fn step(
        &mut self,
        now_ns: u64,
        plan: &Plan,
        rng: &mut Rng,
        mut sends: impl FnMut(Sent),
    ) -> Vec<(Address, Vec<u8>)> {
        while self.quota > 0 && self.client.has_room() && hits(rng, 700) {
            let payload = draw_payload(plan, Client::max_message_bytes(plan.mtu_bytes), rng);
            let topic = TopicId(rng.u16(0..4));
            let sequence = self.client.publish(topic, &payload).0;
            sends(Sent { client: self.id, sequence, topic: topic.0, payload: payload.into(), at_ns: now_ns });
            self.sequence = sequence;
            self.quota -= 1;
        }
        let mut datagrams = Vec::new();
        self.client.transmit(Instant(now_ns), |to, bytes| {
            datagrams.push((to, bytes.to_vec()));
            true
        });
        while let Some(event) = self.client.poll_event() {
            debug_assert!(event != ClientEvent::TooManyClients);
        }
        datagrams
    }
}
