//! What the gates make a group do.
//!
//! A counter that runs from the start of a program to its end counts its setup too. So the measured part is
//! in two functions of its own, never inlined, and callgrind counts within these only; what the other member
//! does meanwhile is not counted.
//!
//! Invariants: nothing here reads a clock or a random number, and every message published is delivered.

use crate::group::{Group, GroupError, Member};
use bourdon_wire::Instant;
use std::hint::black_box;

/// Bytes of a message.
const PAYLOAD: [u8; 64] = [0x5a; 64];
/// Messages that fill one segmentation run: 18 of 8 + 64 bytes fit behind the header of a datagram of 1,408.
const BURST: u64 = 46 * 18;
/// Time from one burst to the next: about what its bytes take on a link of 2.5 Gbit/s.
const BURST_NS: u64 = 200_000;
/// Time from one single message to the next.
const SINGLE_NS: u64 = 5_000;

/// Functions whose names contain this are measured.
pub const MEASURED: &str = "bourdon_measured";

/// One thing that is measured, a message at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scenario {
    /// Publish and send, a full segmentation run at a time.
    PublishBurst,
    /// Publish and send one message, alone in its datagram.
    PublishSingle,
    /// Receive, deliver and acknowledge, a full segmentation run at a time.
    ReceiveBurst,
    /// Receive, deliver and acknowledge one message, alone in its datagram.
    ReceiveSingle,
}

impl Scenario {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::PublishBurst, Self::PublishSingle, Self::ReceiveBurst, Self::ReceiveSingle];

    /// Its name, here and in `gates.toml`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::PublishBurst => "publish-burst",
            Self::PublishSingle => "publish-single",
            Self::ReceiveBurst => "receive-burst",
            Self::ReceiveSingle => "receive-single",
        }
    }

    /// What is counted.
    pub const fn what(self) -> &'static str {
        match self {
            Self::PublishBurst => "publish -> send, full datagrams",
            Self::PublishSingle => "publish -> send, one message a datagram",
            Self::ReceiveBurst => "receive -> deliver, full datagrams",
            Self::ReceiveSingle => "receive -> deliver, one message a datagram",
        }
    }

    /// The scenario of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|scenario| scenario.name() == name)
    }

    /// Messages sent at a time, and the time between.
    const fn pace(self) -> (u64, u64) {
        match self {
            Self::PublishBurst | Self::ReceiveBurst => (BURST, BURST_NS),
            Self::PublishSingle | Self::ReceiveSingle => (1, SINGLE_NS),
        }
    }

    /// How many rounds give a steady figure.
    pub const fn rounds(self) -> u64 {
        match self {
            Self::PublishBurst | Self::ReceiveBurst => 20,
            Self::PublishSingle | Self::ReceiveSingle => 4000,
        }
    }

    /// Publishes and delivers `rounds` rounds. Returns how many messages that were.
    ///
    /// # Errors
    /// If a message is refused or lost: then the figure would mean nothing.
    pub fn run(self, rounds: u64) -> Result<u64, GroupError> {
        let mut group = Group::form()?;
        let (messages, pause_ns) = self.pace();
        let mut delivered = 0;
        for _ in 0..rounds {
            let now = group.pass(pause_ns);
            if matches!(self, Self::PublishBurst | Self::PublishSingle) {
                bourdon_measured_publish(&mut group.sequencer, now, messages)?;
                delivered += receive(&mut group.follower, now)?;
            } else {
                publish(&mut group.sequencer, now, messages)?;
                delivered += bourdon_measured_receive(&mut group.follower, now)?;
            }
            receive(&mut group.sequencer, now)?;
        }
        let published = rounds * messages;
        if delivered == published { Ok(published) } else { Err(GroupError::Lost { delivered, published }) }
    }
}

#[inline(never)]
fn bourdon_measured_publish(member: &mut Member, now: Instant, messages: u64) -> Result<(), GroupError> {
    publish(member, now, messages)
}

#[inline(never)]
fn bourdon_measured_receive(member: &mut Member, now: Instant) -> Result<u64, GroupError> {
    receive(member, now)
}

#[inline(always)]
fn publish(member: &mut Member, now: Instant, messages: u64) -> Result<(), GroupError> {
    member.set_time(now);
    for _ in 0..messages {
        member.publish(black_box(&PAYLOAD))?;
    }
    member.flush()
}

#[inline(always)]
fn receive(member: &mut Member, now: Instant) -> Result<u64, GroupError> {
    let mut count = 0;
    member.poll(now, |delivery| {
        black_box(delivery.payload);
        count += 1;
    })?;
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_scenario_delivers_everything() {
        for scenario in Scenario::ALL {
            let rounds = 5;
            assert_eq!(scenario.run(rounds).unwrap(), rounds * scenario.pace().0, "{}", scenario.name());
            assert_eq!(Scenario::named(scenario.name()), Some(scenario));
        }
    }
}
