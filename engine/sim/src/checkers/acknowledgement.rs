//! Acknowledgements never run ahead: no member is believed to have received what it has not.
//!
//! A sender forgets what it believes all members have, and delivers what it believes enough members have. The checker
//! compares this belief with the other process itself, which no real process could do; it does so where both are in the
//! same view.
//!
//! That nothing is discarded before all have it is judged in `window`.

use super::{Verdict, Violation};
use bourdon_protocol::{Process, Standing};

pub(super) const NAME: &str = "acknowledgement";

pub(super) fn stepped(processes: &[Option<&Process>], believer: &Process) -> Verdict {
    let view = believer.view();
    for member in view.members.iter().filter(|member| Some(member.rank) != believer.config().rank()) {
        let Some(other) = processes.get(member.rank.index()).copied().flatten() else { continue };
        let there = other.standing() == Standing::Member && other.view().epoch == view.epoch;
        if !there || other.incarnation() != member.incarnation {
            continue;
        }
        for stream in view.members.iter().map(|member| member.rank) {
            let (believed, received) = (believer.acknowledged(member.rank, stream), other.received(stream));
            if believed > received {
                let (own, rank) = (believer.config().role, member.rank);
                let detail =
                    format!("{own:?} believes member {rank} has {believed} datagrams of {stream}; it has {received}");
                return Err(Violation::new(NAME, detail));
            }
        }
    }
    Ok(())
}
