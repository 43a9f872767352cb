//! What happened, in words.

use crate::group::Action;
use crate::state::ToData;
use bourdon_protocol::control::view_change::{Ballot, Step, Value};
use std::fmt;

fn ballot(ballot: Ballot) -> String {
    format!("{}.{}", ballot.0 >> 16, ballot.proposer().0)
}

fn value(value: &Value) -> String {
    let members: Vec<_> = value.members.iter().map(|member| member.rank.0).collect();
    let ends: Vec<_> = value.cut.ends.iter().map(|end| end.0).collect();
    format!("members {members:?}, cut {ends:?}")
}

fn step(step: &Step) -> String {
    match step {
        Step::Prepare => "PREPARE".to_owned(),
        Step::State { held, accepted, .. } => {
            let ends: Vec<_> = held.ends.iter().map(|end| end.0).collect();
            let accepted = accepted.as_ref().map(|(at, what)| format!(", accepted {} in {}", value(what), ballot(*at)));
            format!("STATE {ends:?}{}", accepted.unwrap_or_default())
        }
        Step::Propose(what) => format!("PROPOSE {}", value(what)),
        Step::Accept => "ACCEPT".to_owned(),
        Step::Refuse => "REFUSE".to_owned(),
        Step::Decide(what) => format!("DECIDE {}", value(what)),
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Send(own, None) => write!(f, "{own} sends a message"),
            Self::Send(own, Some(other)) => write!(f, "{own} orders the next message of {other}"),
            Self::Receive(own, stream) => write!(f, "{own} receives the next datagram of {stream}"),
            Self::Lead(own, keep, leavers) => {
                let ranks = |bits| crate::driver::ranks(bits).map(|rank| rank.0).collect::<Vec<_>>();
                write!(f, "{own} begins a ballot that is to keep {:?}", ranks(*keep))?;
                if *leavers != 0 { write!(f, " and lets {:?} go", ranks(*leavers)) } else { Ok(()) }
            }
            Self::Expire(own, timer, 0) => write!(f, "{own}: {timer:?} expires"),
            Self::Expire(own, timer, suspects) => {
                let suspects: Vec<_> = crate::driver::ranks(*suspects).map(|rank| rank.0).collect();
                write!(f, "{own}: {timer:?} expires, and it suspects {suspects:?}")
            }
            Self::Hand(own, packet) => {
                write!(f, "{own} hears from {}, ballot {}: {}", packet.from, ballot(packet.ballot), step(&packet.step))
            }
            Self::Obey(own, order) => match &**order {
                ToData::Wedge(at, _) => write!(f, "{own}: its data plane stops for ballot {}", ballot(*at)),
                ToData::Fetch(at, cut) => {
                    let ends: Vec<_> = cut.ends.iter().map(|end| end.0).collect();
                    write!(f, "{own}: its data plane begins to fetch the cut {ends:?} of ballot {}", ballot(*at))
                }
                ToData::Conclude => write!(f, "{own}: its data plane goes up to the decided cut"),
            },
            Self::Go(own) => write!(f, "{own} is removed and goes"),
            Self::Fetch(own, stream) => write!(f, "{own} fetches what is missing of {stream}"),
            Self::Learn(own) => write!(f, "{own} hears the decision"),
            Self::Join(own, donor) => write!(f, "{own} joins with the state of {donor}"),
            Self::Crash(own) => write!(f, "{own} crashes"),
            Self::Forget(own) => write!(f, "{own} restarts and forgets its promises"),
        }
    }
}
