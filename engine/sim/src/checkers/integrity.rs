//! Integrity: what is delivered was sent, as it was sent, once.
//!
//! Everything else builds on names, so this is judged first: a delivery names a sender and a sequence, and under that
//! name exactly one message was published, with these bytes and this topic. What a client published through a member
//! gets its name only when it first shows up; from then on it is held to it, and no other name may carry it again.
//!
//! DESIGN §7: 1 and 2 (a sender's own deliveries are among those that completeness wants).

use super::{Verdict, Violation};
use crate::history::{History, Message};
use crate::plan::{OrderPlan, Plan};
use bourdon_protocol::Delivery;
use std::collections::BTreeMap;
use std::rc::Rc;

pub(super) const NAME: &str = "integrity";

/// A client's message.
#[derive(Clone, Debug)]
pub(crate) struct Sent {
    pub(crate) client: u64,
    pub(crate) sequence: u64,
    pub(crate) topic: u16,
    pub(crate) payload: Rc<[u8]>,
    /// When the client took it: the member published it then or later.
    pub(crate) at_ns: u64,
}

/// A client and its own sequence.
type Name = (u64, u64);

#[derive(Debug, Default)]
pub(super) struct Integrity {
    /// By client and its number: the message, and under which name it was published.
    clients: BTreeMap<Name, (Sent, Option<(u16, u64)>)>,
}

fn broken(detail: String) -> Violation {
    Violation::new(NAME, detail)
}

impl Integrity {
    pub(super) fn client_sends(&mut self, sent: Sent) {
        self.clients.insert((sent.client, sent.sequence), (sent, None));
    }

    pub(super) fn delivered(&mut self, history: &mut History, process: usize, delivery: &Delivery<'_>) -> Verdict {
        let (sender, sequence) = (delivery.sender.0, delivery.sequence.0);
        let name = format_args!("process {process} delivered {sender}:{sequence}").to_string();
        if let Some(tag) = delivery.client {
            self.carried(history, delivery, (tag.client().0, tag.sequence().0))?;
        }
        let Some(message) = history.message(sender, sequence) else {
            return Err(broken(format!("{name}, which nobody published")));
        };
        if *message.payload != *delivery.payload {
            let (was, is) = (message.payload.len(), delivery.payload.len());
            return Err(broken(format!("{name} with other bytes: {was} were sent, {is} came")));
        }
        if message.topic != delivery.topic.0 {
            return Err(broken(format!("{name} under topic {}, not {}", delivery.topic, message.topic)));
        }
        if message.client.is_some() != delivery.client.is_some() {
            return Err(broken(format!("{name}, whose client was {:?}", message.client)));
        }
        if history.shown[process].has(sender, sequence) {
            return Err(broken(format!("{name} twice")));
        }
        Ok(())
    }

    /// A client's message, carried by a member.
    fn carried(&mut self, history: &mut History, delivery: &Delivery<'_>, tag: Name) -> Verdict {
        let name = (delivery.sender.0, delivery.sequence.0);
        let Some((sent, published)) = self.clients.get_mut(&tag) else {
            return Err(broken(format!("client message {tag:?} was never sent")));
        };
        match published {
            Some(known) if *known == name => Ok(()),
            Some(known) => Err(broken(format!("client message {tag:?} was published as {known:?} and as {name:?}"))),
            None => {
                *published = Some(name);
                let (payload, topic, at_ns) = (Rc::clone(&sent.payload), sent.topic, sent.at_ns);
                let message = Message { payload, topic, at_ns, after: None, client: Some(tag) };
                let free = history.publish(name.0, name.1, message);
                if free { Ok(()) } else { Err(broken(format!("{name:?} names two messages"))) }
            }
        }
    }

    /// What a client published was taken once, unless it was longer than the group allows.
    pub(super) fn clients_done(&self, plan: &Plan) -> Verdict {
        for (tag, (sent, published)) in &self.clients {
            let allowed = sent.payload.len() <= plan.max_message_bytes;
            if allowed != published.is_some() {
                let detail =
                    format!("client message {tag:?} of {} bytes was published: {published:?}", sent.payload.len());
                return Err(broken(detail));
            }
        }
        Ok(())
    }

    /// Nothing both given up and delivered, where deliveries keep an order.
    pub(super) fn end(&self, history: &History, plan: &Plan) -> Verdict {
        if plan.order == OrderPlan::Unordered {
            return Ok(()); // a datagram beyond a gap was delivered before the gap was given up
        }
        for (process, shown) in history.shown.iter().enumerate() {
            for gap in &shown.gaps {
                if let Some(sequence) = (gap.from..gap.to).find(|sequence| shown.has(gap.sender, *sequence)) {
                    let name = format!("{}:{sequence}", gap.sender);
                    return Err(broken(format!("process {process} delivered {name} and gave it up")));
                }
            }
        }
        Ok(())
    }
}
