//! Acknowledgements never run ahead: nobody is believed to have received what it has not.
//!
//! A sender forgets what it believes everybody has. The belief is compared with the other process itself, which no real
//! process could do.
//!
//! DESIGN §7: 13 (its half about acknowledgements; the other is in `window`).

use super::{Verdict, Violation};
use bourdon_protocol::Process;
use bourdon_wire::Rank;

pub(super) const NAME: &str = "acknowledgement";

pub(super) fn stepped(processes: &[&Process], stepped: usize) -> Verdict {
    let believer = processes[stepped];
    let members = believer.config().members;
    for member in (0..members).filter(|member| usize::from(*member) != stepped) {
        for stream in 0..members {
            let believed = believer.acknowledged(Rank(member), Rank(stream));
            let received = processes[usize::from(member)].received(Rank(stream));
            if believed > received {
                let detail = format!(
                    "process {stepped} believes member {member} has {believed} datagrams of {stream}; it has {received}"
                );
                return Err(Violation::new(NAME, detail));
            }
        }
    }
    Ok(())
}
