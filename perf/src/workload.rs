//! What the gates make a group do.
//!
//! A counter that runs from the start of a program to its end counts its setup too. So the measured part is
//! in two functions of its own, never inlined, and callgrind counts within these only; what the other member
//! does meanwhile is not counted.
//!
//! Invariants: nothing here reads a clock or a random number, and every message published is delivered.

use crate::group::{Group, GroupError, Member};
use crate::guarantee::Guarantee;
use bourdon_engine::Item;
use bourdon_protocol::{Order, Reliability};
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

/// Time from one repair to the next: two new datagrams and a repair are fewer than a member's budget allows.
const REPAIR_NS: u64 = 100_000;

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
    /// At an observer: receive and deliver one message, alone in its datagram.
    ObserveSingle,
    /// At the sequencer: receive another member's lone message, put it in order, deliver it and send the order.
    OrderSingle,
    /// At the sender: receive a request for one datagram and send it again.
    RepairSingle,
    /// In causal order: publish and send a lone message after one of the other member was delivered.
    PublishCausal,
    /// In causal order: receive and deliver that message.
    ReceiveCausal,
    /// Uniform, three members: publish a lone message, receive the acknowledgements and deliver it at its sender.
    UniformSingle,
}

impl Scenario {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::PublishBurst,
        Self::PublishSingle,
        Self::ReceiveBurst,
        Self::ReceiveSingle,
        Self::ObserveSingle,
        Self::OrderSingle,
        Self::RepairSingle,
        Self::PublishCausal,
        Self::ReceiveCausal,
        Self::UniformSingle,
    ];

    /// Its name, here and in `gates.toml`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::PublishBurst => "publish-burst",
            Self::PublishSingle => "publish-single",
            Self::ReceiveBurst => "receive-burst",
            Self::ReceiveSingle => "receive-single",
            Self::ObserveSingle => "observe-single",
            Self::OrderSingle => "order-single",
            Self::RepairSingle => "repair-single",
            Self::PublishCausal => "publish-causal",
            Self::ReceiveCausal => "receive-causal",
            Self::UniformSingle => "uniform-single",
        }
    }

    /// What is counted.
    pub const fn what(self) -> &'static str {
        match self {
            Self::PublishBurst => "publish -> send, full datagrams",
            Self::PublishSingle => "publish -> send, one message a datagram",
            Self::ReceiveBurst => "receive -> deliver, full datagrams",
            Self::ReceiveSingle => "receive -> deliver, one message a datagram",
            Self::ObserveSingle => "the same at an observer",
            Self::OrderSingle => "receive -> order -> deliver -> send, at the sequencer",
            Self::RepairSingle => "request for repair -> send, one datagram",
            Self::PublishCausal => "publish -> send, causal",
            Self::ReceiveCausal => "receive -> deliver, causal",
            Self::UniformSingle => "publish -> two acknowledgements -> deliver, uniform",
        }
    }

    /// The scenario of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|scenario| scenario.name() == name)
    }

    /// Messages counted in a round, and the time from one round to the next.
    const fn pace(self) -> (u64, u64) {
        match self {
            Self::PublishBurst | Self::ReceiveBurst => (BURST, BURST_NS),
            Self::RepairSingle => (1, REPAIR_NS),
            _ => (1, SINGLE_NS),
        }
    }

    /// How many rounds give a steady figure.
    pub const fn rounds(self) -> u64 {
        match self {
            Self::PublishBurst | Self::ReceiveBurst => 20,
            Self::RepairSingle => 1000, // the other member sends a request in each, which is not counted
            _ => 4000,
        }
    }

    /// The members and observers that take part, and what the group promises.
    fn group(self) -> (u16, u16, Guarantee) {
        let usual = Guarantee::default();
        match self {
            Self::ObserveSingle => (2, 1, usual),
            Self::PublishCausal | Self::ReceiveCausal => (2, 0, Guarantee { order: Order::Causal, ..usual }),
            Self::UniformSingle => (3, 0, Guarantee { reliability: Reliability::Uniform, ..usual }),
            _ => (2, 0, usual),
        }
    }

    /// Publishes and delivers `rounds` rounds. Returns how many messages were counted.
    ///
    /// # Errors
    /// If a message is refused or lost: then the figure would mean nothing.
    pub fn run(self, rounds: u64) -> Result<u64, GroupError> {
        let (members, observers, guarantee) = self.group();
        let mut group = Group::form(members, observers, guarantee)?;
        let (messages, pause_ns) = self.pace();
        let mut delivered = 0;
        for _ in 0..rounds {
            let now = group.pass(pause_ns);
            delivered += self.round(&mut group.members, now, messages)?;
        }
        let published = rounds * messages;
        if delivered == published { Ok(published) } else { Err(GroupError::Lost { delivered, published }) }
    }

    /// One round. Returns how many of the counted messages were delivered.
    fn round(self, members: &mut [Member], now: Instant, messages: u64) -> Result<u64, GroupError> {
        let (sequencer, others) = members.split_first_mut().ok_or(GroupError::NotFormed)?;
        let (follower, rest) = others.split_first_mut().ok_or(GroupError::NotFormed)?;
        let delivered = match self {
            Self::PublishBurst | Self::PublishSingle => {
                measured(sequencer, |member| bourdon_measured_publish(member, now, messages))?;
                receive(follower, now)?
            }
            Self::ReceiveBurst | Self::ReceiveSingle => {
                publish(sequencer, now, messages)?;
                measured(follower, |member| bourdon_measured_receive(member, now))?
            }
            Self::ObserveSingle => {
                publish(sequencer, now, messages)?;
                receive(follower, now)?;
                let [observer] = rest else { return Err(GroupError::NotFormed) };
                measured(observer, |member| bourdon_measured_receive(member, now))?
            }
            Self::OrderSingle => {
                publish(follower, now, messages)?;
                let delivered = measured(sequencer, |member| bourdon_measured_receive_and_send(member, now))?;
                receive(follower, now)?;
                delivered
            }
            Self::RepairSingle => repair(sequencer, follower, now)?,
            Self::PublishCausal | Self::ReceiveCausal => {
                publish(follower, now, messages)?;
                receive(follower, now)?;
                receive(sequencer, now)?;
                if matches!(self, Self::PublishCausal) {
                    measured(sequencer, |member| bourdon_measured_publish(member, now, messages))?;
                    receive(follower, now)?
                } else {
                    publish(sequencer, now, messages)?;
                    measured(follower, |member| bourdon_measured_receive(member, now))?
                }
            }
            Self::UniformSingle => {
                measured(sequencer, |member| bourdon_measured_publish(member, now, messages))?;
                for other in others {
                    receive_and_send(other, now)?;
                }
                measured(sequencer, |member| bourdon_measured_receive(member, now))?
            }
        };
        receive(sequencer, now)?;
        Ok(delivered)
    }
}

/// A datagram is lost, the next shows it, and its receiver requests it. Returns how many messages were repaired.
fn repair(sender: &mut Member, receiver: &mut Member, now: Instant) -> Result<u64, GroupError> {
    sender.lose_next();
    publish(sender, now, 1)?;
    publish(sender, now, 1)?;
    receive(sender, now)?; // its own messages
    receive(receiver, now)?; // sends the request
    measured(sender, |member| bourdon_measured_receive_and_send(member, now))?;
    let delivered = receive(receiver, now)?;
    Ok(delivered.saturating_sub(1)) // the second message was not lost
}

/// Does what is measured, with the member's port apart from its engine.
fn measured<T>(member: &mut Member, act: impl FnOnce(&mut Member) -> T) -> T {
    member.set_apart(true);
    let outcome = act(member);
    member.set_apart(false);
    outcome
}

#[inline(never)]
fn bourdon_measured_publish(member: &mut Member, now: Instant, messages: u64) -> Result<(), GroupError> {
    publish(member, now, messages)
}

#[inline(never)]
fn bourdon_measured_receive(member: &mut Member, now: Instant) -> Result<u64, GroupError> {
    receive(member, now)
}

#[inline(never)]
fn bourdon_measured_receive_and_send(member: &mut Member, now: Instant) -> Result<u64, GroupError> {
    receive_and_send(member, now)
}

#[inline(always)]
fn receive_and_send(member: &mut Member, now: Instant) -> Result<u64, GroupError> {
    let delivered = receive(member, now)?;
    member.flush()?;
    Ok(delivered)
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
    member.poll(now, |item| {
        let Item::Message(message) = item else { return };
        black_box(message.payload);
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
