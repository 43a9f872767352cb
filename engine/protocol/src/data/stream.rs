//! All that is kept of one sender's stream, this process's own included.

use super::cursor::{Assembly, Cursor};
use super::log::Log;
use super::repair::Asker;
use super::window::Window;
use crate::event::Delivery;
use bourdon_wire::{DatagramNumber, Epoch, Instant, Kind, OrderNumber, Rank, Sequence};

/// What every delivery of one step has in common.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Step {
    pub(crate) now: Instant,
    pub(crate) epoch: Epoch,
    pub(crate) max_message_bytes: usize,
}

/// A hole that nobody can fill any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hole {
    pub(crate) from: DatagramNumber,
    pub(crate) to: DatagramNumber,
}

#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) rank: Rank,
    pub(crate) log: Log,
    pub(crate) window: Window,
    pub(crate) cursor: Cursor,
    pub(crate) assembly: Assembly,
    pub(crate) asker: Asker,
    /// Every message below this has been delivered or given up.
    pub(crate) delivered: Sequence,
    pub(crate) hole: Option<Hole>,
    /// Whether the sequencer has ordered anything of it since we came.
    pub(crate) ordered: bool,
}

impl Stream {
    pub(crate) fn new(rank: Rank, log: Log, window: Window) -> Self {
        let asker = Asker::new(log.capacity() as usize);
        Self {
            rank,
            log,
            window,
            asker,
            cursor: Cursor::default(),
            assembly: Assembly::default(),
            delivered: Sequence(0),
            hole: None,
            ordered: false,
        }
    }

    /// Begins in the middle, for who comes late.
    pub(crate) fn start_at(&mut self, number: DatagramNumber, sequence: Sequence) {
        self.window.start_at(number, sequence);
        self.cursor = Cursor::at(number);
        self.cursor.sequence = sequence;
        self.delivered = sequence;
    }

    /// The first datagram that can't be delivered yet.
    #[inline]
    pub(crate) fn end(&self) -> DatagramNumber {
        match self.hole {
            None => self.window.next,
            Some(hole) => hole.from,
        }
    }

    /// Delivers the next message, if all of it is here, and says whether there was one.
    #[inline]
    pub(crate) fn deliver_one(
        &mut self,
        order: Option<OrderNumber>,
        step: &Step,
        emit: &mut impl FnMut(Delivery<'_>),
    ) -> bool {
        let end = self.end();
        while let Some(frame) = self.cursor.frame(&self.log, end) {
            let (body_bytes, ends) = (frame.body.len(), frame.ends_message());
            let early = self.cursor.delivered_early && frame.flags & bourdon_wire::flags::FIRST != 0 && ends;
            if frame.kind() == Some(Kind::Data)
                && !early
                && let Some(message) = self.assembly.add(&frame, step.max_message_bytes)
            {
                emit(Delivery {
                    sender: self.rank,
                    sequence: self.cursor.sequence,
                    order,
                    epoch: step.epoch,
                    topic: message.topic,
                    send_time_ns: message.intended_send_ns.unwrap_or(self.cursor.send_time_ns),
                    kernel_receive_ns: Some(self.cursor.kernel_receive_ns).filter(|ns| *ns != 0),
                    delivered_at: step.now,
                    client: message.client,
                    payload: message.payload,
                });
            }
            self.cursor.step(body_bytes, ends);
            if ends {
                self.delivered = self.cursor.sequence;
                if !early {
                    return true;
                }
            }
        }
        false
    }

    /// Steps over a hole once everything before it has been delivered and what follows it is here. Says which messages
    /// were lost in it.
    pub(crate) fn cross_hole(&mut self) -> Option<(Sequence, Sequence)> {
        let hole = self.hole.filter(|hole| self.cursor.floor() >= hole.from && self.log.holds(hole.to))?;
        let header = bourdon_wire::DatagramHeader::of_checked(self.log.get(hole.to)?);
        let from = self.delivered;
        self.cursor.jump(hole.to);
        self.cursor.sequence = header.first_sequence();
        self.assembly = Assembly::default();
        self.delivered = header.first_sequence();
        self.hole = None;
        Some((from, self.delivered))
    }

    /// Hears that nothing before `oldest` can be had any more.
    pub(crate) fn give_up_before(&mut self, oldest: DatagramNumber) {
        if oldest <= self.window.next {
            return;
        }
        match &mut self.hole {
            None => self.hole = Some(Hole { from: self.window.next, to: oldest }),
            Some(hole) if hole.to == self.window.next => hole.to = oldest,
            Some(_) => return, // asked again once the first hole has been crossed
        }
        self.window.skip_to(&self.log, oldest);
    }
}
